"""The baseline: findings that were there when ctxcheck came, so that only new ones fail.

A baseline is a file of JSON that people read in reviews: an entry a finding, sorted, without lines, times or counts, so
that it changes only where the findings do.  Findings are told apart by their fingerprint alone: an edit elsewhere
revives nothing, and a finding that comes back more or less sure is the same one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.violations import Violation

SCHEMA_VERSION: Final = 1

#: The file that is written where no other is named.
DEFAULT_PATH: Final = "ctxcheck-baseline.json"

MAX_FILE: Final = 32 * 2**20
MAX_ENTRIES: Final = 100_000
MAX_TEXT: Final = 10_000
#: Characters of a name or sentence that are written.
MAX_SHOWN: Final = 1_000

#: What no baseline accepts: that checking was switched off.
_NEVER: Final = frozenset({"CTX901"})


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One finding of a baseline.  ``fingerprint`` counts; the rest says to people what it is: ``site`` is the file and
    function of the finding's first site."""

    fingerprint: str
    rule: str
    message: str
    locks: tuple[str, ...] = ()
    site: str = ""


@final
class Baseline:
    """The findings that are known.  An empty one knows nothing."""

    __slots__ = ("_entries", "path")

    def __init__(self, entries: Iterable[Entry] = (), path: str = "") -> None:
        self._entries: dict[str, Entry] = {entry.fingerprint: entry for entry in entries}
        #: the file that it was read from
        self.path: str = path

    @property
    def entries(self) -> list[Entry]:
        """Its entries, in the order of the file: by rule, site, message, then fingerprint."""
        return sorted(self._entries.values(), key=lambda e: (e.rule, e.site, e.message, e.fingerprint))

    def known(self, violation: Violation) -> bool:
        """Whether the finding is in the baseline, however sure it is.  CTX901 never is."""
        return violation.fingerprint in self._entries and violation.rule not in _NEVER

    def stale(self, violations: Iterable[Violation]) -> list[Entry]:
        """The entries that are none of ``violations``, all of a run: what was mended, or didn't run."""
        found = {violation.fingerprint for violation in violations}
        return [entry for entry in self.entries if entry.fingerprint not in found]

    def dumps(self) -> str:
        """The file's text."""
        from ctxcheck.reports import json

        rows = [
            {
                "fingerprint": e.fingerprint, "rule": e.rule, "locks": list(e.locks), "site": e.site,
                "message": e.message,
            }
            for e in self.entries
        ]  # fmt: skip
        return json.dumps({"schema_version": SCHEMA_VERSION, "tool": "ctxcheck", "violations": rows}) + "\n"


def of(violations: Iterable[Violation]) -> Baseline:
    """The baseline that knows these findings; those that an ``allow`` accepts don't need it, and are left out."""
    return Baseline(
        Entry(v.fingerprint, v.rule, v.message[:MAX_SHOWN], tuple(n[:MAX_SHOWN] for n in v.locks), _site(v)[:MAX_SHOWN])
        for v in violations
        if v.allowed_by is None and v.rule and v.rule not in _NEVER and v.fingerprint
    )


def write(path: str, violations: Iterable[Violation]) -> Baseline:
    """Write these findings as the baseline in ``path``, and return it.  The file is replaced as a whole, or not at all.

    Raises:
        ConfigError: it can't be written; one line that names it.
    """
    baseline = of(violations)
    baseline.path = path
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        try:
            with open(temporary, "x", encoding="utf-8", newline="\n") as file:
                file.write(baseline.dumps())
            os.replace(temporary, path)
        except BaseException:
            _remove(temporary)
            raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"can't write the baseline {_shown(path)}: {_reason(error)}") from None
    return baseline


def load(path: str) -> Baseline:
    """Read a baseline.

    Raises:
        ConfigError: the file can't be read, isn't a baseline, or is one of a newer version; one line that names it.
    """
    data = _read(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{_shown(path)}: not a baseline of ctxcheck")
    top = cast("dict[str, Any]", data)
    version = top.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1 or top.get("tool") != "ctxcheck":
        raise ConfigError(f"{_shown(path)}: not a baseline of ctxcheck")
    if version > SCHEMA_VERSION:
        known = f"this version of ctxcheck reads up to {SCHEMA_VERSION}"
        raise ConfigError(f"{_shown(path)}: a baseline of schema version {str(version)[:20]}; {known}")
    rows = top.get("violations")
    if not isinstance(rows, list):
        raise ConfigError(f"{_shown(path)}: 'violations' is missing, or no list")
    entries = cast("Sequence[Any]", rows)
    if len(entries) > MAX_ENTRIES:
        raise ConfigError(f"{_shown(path)}: {len(entries):,} entries; at most {MAX_ENTRIES:,} are allowed")
    return Baseline([_entry(path, number, row) for number, row in enumerate(entries, 1)], path)


def describe(entry: Entry) -> str:
    """An entry on one line, for messages; safe to print."""
    from ctxcheck.reports.cells import safe

    where = f" at {entry.site}" if entry.site else ""
    return safe(f"{entry.fingerprint}{where}: {entry.message}")


def _site(violation: Violation) -> str:
    for site in violation.sites:
        return f"{site.file} in {site.function}" if site.function else site.file
    return ""


def _read(path: str) -> Any:
    import json
    import stat

    try:
        # without O_NONBLOCK, to open a pipe would wait for a writer
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{_shown(path)}: not a baseline, nor a regular file")
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        hint = "'ctxcheck report --write-baseline' writes one"
        raise ConfigError(f"{_shown(path)}: no such baseline; {hint}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{_shown(path)}: can't read the baseline: {_reason(error)}") from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"{_shown(path)}: longer than {MAX_FILE} bytes, which no baseline is")
    try:
        return json.loads(data.decode("utf-8"))
    except RecursionError:
        raise ConfigError(f"{_shown(path)}: not JSON: nested too deeply") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{_shown(path)}: not UTF-8") from None
    except json.JSONDecodeError as error:  # a conflict of a merge, most likely
        raise ConfigError(f"{_shown(path)}:{error.lineno}: not JSON: {error.msg}") from None
    except ValueError:  # a number of thousands of digits
        raise ConfigError(f"{_shown(path)}: not JSON that can be read") from None


def _entry(path: str, number: int, row: Any) -> Entry:
    texts: list[str] = []
    items = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    for name, default in (("fingerprint", None), ("rule", None), ("message", ""), ("site", "")):
        value = items.get(name, default)
        if not isinstance(value, str) or len(value) > MAX_TEXT or (default is None and not value):
            raise ConfigError(f"{_shown(path)}: entry {number}: {name!r} is missing, or no text")
        texts.append(value)
    locks = items.get("locks", [])
    names = cast("Sequence[Any]", locks) if isinstance(locks, list) else [None]
    if len(names) > MAX_TEXT or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{_shown(path)}: entry {number}: 'locks' is no list of names")
    fingerprint, rule, message, site = texts
    return Entry(fingerprint, rule, message, tuple(map(str, names)), site)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)
