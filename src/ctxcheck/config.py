"""Load the configuration: the command line before the environment, the file, and the defaults.

:func:`load` merges the four, remembers where each value came from, and refuses what it does not
know in one line that names the nearest match.  What keys there are stands in :mod:`ctxcheck.keys`.

Paths (``data-dir``, ``output``, ``allow.path``) are relative to the working directory, wherever the file is;
under pytest ``allow.path`` and ``baseline`` go from a file that was found from its root folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from ctxcheck.engine.blocking import CATEGORIES
from ctxcheck.engine.declared import Declaration, Declared
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.rules import RULES, find_rule, rule_names
from ctxcheck.keys import KEYS, LATER, OTHER_VARIABLES, Allow, Config, Key, Order, Output, Target
from ctxcheck.probes.catalogue import ENTRIES

__all__ = ["KEYS", "Allow", "Config", "ConfigError", "Key", "Order", "Output", "Resolved", "Target", "declared", "load"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """A :class:`Config` and where it came from.

    ``sources`` has for each key "default", the file's name, a variable or an option.  ``path`` is the file that
    was read, if any.  ``enabled`` is what ``CTXCHECK`` says: ``True`` for 1, ``False`` for 0, else ``None``.
    ``warnings`` are single lines about variables that look like typing errors.
    """

    config: Config
    sources: dict[str, str]
    path: str | None = None
    enabled: bool | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: ``source`` for :attr:`Resolved.sources`, ``prefix`` for messages."""

    source: str
    prefix: str

    def refuse(self, text: str) -> NoReturn:
        raise ConfigError(f"{self.prefix} {text}".lstrip())


def load(
    cli: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | None = None,
    config_path: str | None = None,
) -> Resolved:
    """Merge the command line, the environment, the file and the defaults.

    ``cli`` maps keys (``-`` or ``_``) to values as :mod:`argparse` leaves them: ``None`` is "not given", texts are
    read like environment variables.  ``environ`` is ``os.environ`` by default.  The file is ``config_path``, else
    ``CTXCHECK_CONFIG``, else the nearest ``pyproject.toml`` in ``cwd`` or above it.  In a ``pyproject.toml``
    the table ``[tool.ctxcheck]`` counts; another file may also have the keys at its top level.

    Raises :class:`ConfigError` for anything that is not understood.
    """
    environ = os.environ if environ is None else environ
    cwd = os.getcwd() if cwd is None else cwd
    values: dict[str, Any] = {}
    sources = dict.fromkeys(KEYS, "default")

    wanted = config_path or environ.get("CTXCHECK_CONFIG") or None
    path = _nearest_file(cwd) if wanted is None else os.path.join(cwd, wanted)
    if path is not None:
        place, table = _read(path, _shown(path, cwd) if wanted is None else wanted, required=wanted is not None)
        _take(table, place, values, sources)
    for key in KEYS.values():
        text = environ.get(key.variable, "") if key.variable else ""
        if text:
            values[key.name] = _from_text(key, text, Place(key.variable, f"environment: {key.variable}"))
            sources[key.name] = key.variable
    given = {name: value for name, value in (cli or {}).items() if value is not None}
    _take(given, None, values, sources)

    switch = environ.get("CTXCHECK", "")
    if switch not in ("", "0", "1"):
        raise ConfigError(f"environment: CTXCHECK is {_quoted(switch)}; allowed: 1 (on), 0 (off)")
    config = Config(**{KEYS[name].attribute: value for name, value in values.items()})
    try:
        Declared(declared(config))
    except ConfigError as error:
        raise ConfigError(f"{sources['order' if config.order else 'leaf']}: {error}") from None
    return Resolved(
        config=config,
        sources=sources,
        path=path,
        enabled=None if switch == "" else switch == "1",
        warnings=_misspelt(environ),
    )


def declared(config: Config) -> tuple[Declaration, ...]:
    """What a configuration declares of the order of locks."""
    found: list[Declaration] = []
    for index, order in enumerate(config.order, 1):
        source = f"[[tool.ctxcheck.order]] {index}"
        if order.locks:
            found.append(Declaration(order.locks, False, order.reason, source))
        if order.leaf:
            found.append(Declaration(order.leaf, True, order.reason, source))
    if config.leaf:
        found.append(Declaration(config.leaf, True, "", "[tool.ctxcheck] leaf"))
    return tuple(found)


# ---- the file


def _nearest_file(folder: str) -> str | None:
    folder = os.path.abspath(folder)
    while True:
        path = os.path.join(folder, "pyproject.toml")
        if os.path.isfile(path):
            return path
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent


def _shown(path: str, cwd: str) -> str:
    try:
        return os.path.relpath(path, cwd)
    except ValueError:  # another drive
        return path


def _read(path: str, name: str, *, required: bool) -> tuple[Place, dict[str, Any]]:
    """Return the table with the keys, and what to call the place."""
    import tomllib

    name = _one_line(name)
    try:
        with open(path, "rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{name}: can't read the configuration: {error.strerror or error}") from None
    except RecursionError:
        raise ConfigError(f"{name}: not valid TOML: nested too deeply") from None
    except ValueError as error:
        raise ConfigError(f"{name}: not valid TOML: {_one_line(str(error))}") from None
    in_table = Place(name, f"{name}: [tool.ctxcheck]")
    tool: Any = data.get("tool")
    if isinstance(tool, dict) and "ctxcheck" in tool:
        table = cast("dict[str, Any]", tool)["ctxcheck"]
        if not isinstance(table, dict):
            in_table.refuse(f"is {_quoted(table)}; it has to be a table")
        return in_table, cast("dict[str, Any]", table)
    if os.path.basename(path) != "pyproject.toml":
        return Place(name, f"{name}:"), data
    if isinstance(tool, dict):
        _refuse_misspelt(cast("dict[str, Any]", tool), name)
    if required:
        raise ConfigError(f"{name}: has no table [tool.ctxcheck]")
    return in_table, {}


def _refuse_misspelt(tool: Mapping[str, Any], name: str) -> None:
    """A table that is nearly ours would be read by nobody."""
    import difflib

    for given in difflib.get_close_matches("ctxcheck", tool, 1, 0.85):
        raise ConfigError(f"{name}: unknown table [tool.{_one_line(given)}]; did you mean [tool.ctxcheck]?")


def _take(table: Mapping[str, Any], place: Place | None, values: dict[str, Any], sources: dict[str, str]) -> None:
    """Check every item of a file's table, or (``place`` is ``None``) of the command line, and put it
    over what is in ``values``."""
    spelt: dict[str, str] = {}
    for given, value in table.items():
        name = given.replace("_", "-")
        whole = place or Place("command line", "command line:")
        if name in LATER:
            whole.refuse(f"{given!r} is not supported by this version yet")
        if name not in KEYS:
            whole.refuse(f"unknown key {_quoted(given)}{_near(name, KEYS, ', '.join(KEYS))}")
        if name in spelt:
            whole.refuse(f"{given!r} is there twice, also as {spelt[name]!r}")
        spelt[name] = given
        if place is None:
            own = Place(f"--{name}", f"command line: --{name}")
        else:
            own = Place(place.source, f"{place.prefix} {name}")
        read = _from_text if place is None and isinstance(value, str) else _from_value
        values[name] = read(KEYS[name], value, own)
        sources[name] = own.source


# ---- values


def _from_text(key: Key, text: str, place: Place) -> Any:
    """Read a value from the environment or the command line."""
    value: Any = text
    if key.kind == "flag":
        if text not in ("0", "1"):
            place.refuse(f"is {_quoted(text)}; allowed: 1, 0")
        value = text == "1"
    elif key.kind in ("count", "seconds"):
        try:
            value = int(text) if key.kind == "count" else float(text)
        except ValueError:
            pass  # refused below, with the other wrong values
    elif key.kind not in ("choice", "text", "signal"):
        value = [item.strip() for item in text.split(",") if item.strip()]
    return _from_value(key, value, place)


def _from_value(key: Key, value: Any, place: Place) -> Any:
    """Check a value of its TOML type, and bring it into the form that :class:`Config` has."""
    if key.kind == "choice":
        if not isinstance(value, str) or value not in key.allowed:
            near = _near(value, key.allowed) if isinstance(value, str) else ""
            place.refuse(f"is {_quoted(value)}; allowed: {', '.join(key.allowed)}{near}")
        return value
    if key.kind == "flag":
        if not isinstance(value, bool):
            place.refuse(f"is {_quoted(value)}; allowed: true, false")
        return value
    if key.kind == "count":
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            place.refuse(f"is {_quoted(value)}; allowed: a whole number, at least 1")
        return value
    if key.kind == "seconds":
        try:
            seconds = math.nan if isinstance(value, bool | str) else float(value)
        except (TypeError, ValueError, OverflowError):
            seconds = math.nan
        if not 0 < seconds < math.inf:
            place.refuse(f"is {_quoted(value)}; allowed: a number of seconds above 0")
        return seconds
    if key.kind == "signal":
        return _signal(value, place)
    if key.kind == "text":
        return _text(value, place)
    if not isinstance(value, list | tuple):
        place.refuse(f"is {_quoted(value)}; allowed: a list of {_ITEMS[key.kind][1]}")
    read = _ITEMS[key.kind][0]
    return tuple(read(item, key, place) for item in cast("Sequence[Any]", value))


def _signal(value: Any, place: Place) -> str:
    """Return the full name of a signal that a handler can be set for."""
    import signal

    names = [s.name for s in signal.Signals if s.name not in _NO_HANDLER]
    name = value.upper() if isinstance(value, str) else ""
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name not in names:
        said = f"is {_quoted(value)}; allowed: a name of a signal, such as SIGUSR2"
        if name in _NO_HANDLER:
            place.refuse(f"{said}; {name} can't be handled by a program")
        near = _near(name[3:], [n[3:] for n in names]) if isinstance(value, str) else ""
        place.refuse(said + near.replace("mean '", "mean 'SIG"))
    return name


def _text(value: Any, place: Place) -> str:
    if not isinstance(value, str) or not value.strip():
        place.refuse(f"is {_quoted(value)}; allowed: a text that is not empty")
    return _without_nul(value, place)


def _item(value: Any, key: Key, place: Place) -> str:
    if not isinstance(value, str) or not value.strip():
        place.refuse(f"has the item {_quoted(value)}; allowed: {_ITEMS[key.kind][1]}")
    return _without_nul(value, place)


def _without_nul(value: str, place: Place) -> str:
    """No path and no name has one, and what is given it breaks in many ways."""
    if "\0" in value:
        place.refuse(f"is {_quoted(value)}; a null character can't stand in it")
    return value


def _dotted(value: Any, key: Key, place: Place) -> str:
    name = _item(value, key, place)
    parts = name.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        place.refuse(f"has the item {_quoted(name)}; allowed: {_ITEMS[key.kind][1]}")
    return name


def _rule(value: Any, key: Key, place: Place) -> str:
    """Return a code or a prefix of codes; slugs become codes."""
    name = _item(value, key, place).strip()
    rule = find_rule(name)
    if rule is not None:
        return rule.code
    prefix = name.upper()
    if not any(code.startswith(prefix) for code in RULES):
        place.refuse(f"has an unknown rule {_quoted(name)}{_near_rule(name)}")
    return prefix


def _output(value: Any, key: Key, place: Place) -> Output:
    text = _item(value, key, place)
    kind, colon, path = text.partition(":")
    if kind not in key.allowed:
        place.refuse(
            f"has an unknown type {_quoted(kind)}; allowed: {', '.join(key.allowed)}{_near(kind, key.allowed)}"
        )
    if colon and (not path or kind == "none"):
        place.refuse(f"has the item {_quoted(text)}; allowed: {_ITEMS[key.kind][1]}")
    return Output(kind, path if colon else None)


def _allow(value: Any, key: Key, place: Place) -> Allow:
    """Check one accepted finding."""
    del key
    # "file: [tool.ctxcheck] allow" is about the key; an item is a table of its own.
    prefix = place.prefix.replace("[tool.ctxcheck] allow", "[[tool.ctxcheck.allow]]").replace(": allow", ": [[allow]]")
    place = Place(place.source, prefix)
    if not isinstance(value, dict):
        place.refuse(f"has the item {_quoted(value)}; allowed: {_ITEMS['allows'][1]}")
    table = cast("dict[str, Any]", value)
    known = ("rule", "reason", "locks", "path")
    for name in table:
        if name not in known:
            place.refuse(f"unknown key {_quoted(name)}{_near(name, known, ', '.join(known))}")
    if "rule" not in table:
        place.refuse("needs a 'rule': a code or a slug")
    named, reason, locks, path = (table.get(name) for name in known)
    rule = find_rule(named) if isinstance(named, str) else None
    if rule is None:
        near = _near_rule(named) if isinstance(named, str) else "; allowed: a code or a slug"
        place.refuse(f"unknown rule {_quoted(named)}{near}")
    if not isinstance(reason, str) or not reason.strip():
        said = "" if reason is None else f", not {_quoted(reason)}"
        place.refuse(f"for {rule.code} needs a 'reason': a text that says why this is fine{said}")
    names = cast("Sequence[Any]", locks) if isinstance(locks, list) else [] if locks is None else [None]
    if not all(isinstance(name, str) and name for name in names) or (locks is not None and not names):
        place.refuse(f"locks is {_quoted(locks)}; allowed: a list of names of lock classes")
    if path is not None:
        path = _text(path, Place(place.source, f"{place.prefix} path"))
    return Allow(rule.code, reason, tuple(cast("Sequence[str]", names)), path)


def _order(value: Any, key: Key, place: Place) -> Order:
    """Check one declared order."""
    del key
    prefix = place.prefix.replace("[tool.ctxcheck] order", "[[tool.ctxcheck.order]]").replace(": order", ": [[order]]")
    place = Place(place.source, prefix)
    if not isinstance(value, dict):
        place.refuse(f"has the item {_quoted(value)}; allowed: {_ITEMS['orders'][1]}")
    table = cast("dict[str, Any]", value)
    known = ("locks", "leaf", "reason")
    for name in table:
        if name not in known:
            place.refuse(f"unknown key {_quoted(name)}{_near(name, known, ', '.join(known))}")
    lists: dict[str, tuple[str, ...]] = {}
    for name in ("locks", "leaf"):
        names = table.get(name, [])
        items = cast("list[object]", names) if isinstance(names, list) else [None]
        texts = tuple(item for item in items if isinstance(item, str) and item)
        if len(texts) < len(items):
            place.refuse(f"{name} is {_quoted(names)}; allowed: a list of names or keys of lock classes")
        lists[name] = texts
    if not lists["locks"] and not lists["leaf"]:
        place.refuse("needs 'locks', earlier before later, or 'leaf'")
    if len(lists["locks"]) == 1:
        place.refuse(f"locks is {_quoted(list(lists['locks']))}; one lock has no order: name two or more")
    reason = table.get("reason", "")
    if not isinstance(reason, str):
        place.refuse(f"reason is {_quoted(reason)}; allowed: a text")
    return Order(lists["locks"], lists["leaf"], reason)


def _category(value: Any, key: Key, place: Place) -> str:
    name = _item(value, key, place)
    if name not in CATEGORIES:
        place.refuse(f"has an unknown category {_quoted(name)}{_near(name, CATEGORIES, ', '.join(CATEGORIES))}")
    return name


def _call(value: Any, key: Key, place: Place) -> str:
    name = _item(value, key, place)
    if name not in ENTRIES:
        near = _near(name, ENTRIES, "names that `ctxcheck probes` lists")
        place.refuse(f"has an unknown call {_quoted(name)}{near}")
    return name


#: What may stand in a table of each of these keys, besides the target.
_SAID_OF_TARGETS: Final = {
    "may-sleep": ("category", "reason"), "atomic": ("label", "reason"), "requires-lock": ("lock", "reason"),
}  # fmt: skip


def read_target(value: Any, key: Key, place: Place) -> Target:
    """Check one function of somebody else's that something is said about."""
    name = key.name
    prefix = place.prefix.replace(f"[tool.ctxcheck] {name}", f"[[tool.ctxcheck.{name}]]")
    place = Place(place.source, prefix.replace(f": {name}", f": [[{name}]]"))
    if not isinstance(value, dict):
        place.refuse(f"has the item {_quoted(value)}; allowed: {_ITEMS['targets'][1]}")
    table = cast("dict[str, Any]", value)
    known = ("target", *_SAID_OF_TARGETS[name])
    for given in table:
        if given not in known:
            place.refuse(f"unknown key {_quoted(given)}{_near(given, known, ', '.join(known))}")
    said = {given: _text(text, Place(place.source, f"{place.prefix} {given}")) for given, text in table.items()}
    dotted = said.pop("target", "")
    if len(dotted.split(".")) < 2 or not all(part.isidentifier() for part in dotted.split(".")):
        place.refuse("needs a 'target': a dotted name, as 'package.module.function' or 'package.module.Class.method'")
    if name == "requires-lock" and "lock" not in said:
        place.refuse(f"for {dotted} needs a 'lock': a path from a parameter, as 'self._lock'")
    if said.get("category", "wait") not in CATEGORIES:
        near = _near(said["category"], CATEGORIES, ", ".join(CATEGORIES))
        place.refuse(f"for {dotted} has an unknown category {_quoted(said['category'])}{near}")
    return Target(cast("Any", name), dotted, **said)


#: A signal that nothing can be done about.
_NO_HANDLER: Final = ("SIGKILL", "SIGSTOP")

#: For each kind of list: how an item is read, and what it may be, in words.
_ITEMS: Final[dict[str, tuple[Callable[[Any, Key, Place], Any], str]]] = {
    "globs": (_item, "module names, with * and ?"),
    "names": (_dotted, "dotted names of functions, as 'package.module.function'"),
    "adapters": (_item, "names of adapters, as 'sqlite3'"),
    "locks": (_item, "names or keys of lock classes"),
    "rules": (_rule, "codes, prefixes of codes, or slugs"),
    "outputs": (_output, "TYPE or TYPE:PATH (no PATH for none)"),
    "allows": (_allow, "tables with rule, reason, and locks or path"),
    "orders": (_order, "tables with locks or leaf, and reason"),
    "categories": (_category, "categories: " + ", ".join(CATEGORIES)),
    "calls": (_call, "names of calls that `ctxcheck probes` lists"),
    "targets": (read_target, "tables with target"),
}


# ---- words


def _quoted(value: Any) -> str:
    """A value for a message: in one line, and not too long."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)  # as it stands in the file
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _near(word: str, words: Mapping[str, Any] | Sequence[str], otherwise: str = "") -> str:
    """``"; did you mean 'x'?"``, else what is allowed, if it is worth saying."""
    import difflib

    match = difflib.get_close_matches(word, [*words], n=1)
    if match:
        return f"; did you mean {match[0]!r}?"
    return f"; allowed: {otherwise}" if otherwise else ""


def _near_rule(name: str) -> str:
    import difflib

    names = rule_names()
    match = [rule for rule in names if rule.startswith((name.upper(), name.lower()))]
    match = (
        match
        or difflib.get_close_matches(name.upper(), names, n=1)
        or difflib.get_close_matches(name.lower(), names, n=1)
    )
    return f"; did you mean {match[0]!r}?" if match else "; allowed: a code, a prefix of codes, or a slug"


def _misspelt(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that are nearly ours.  Not an error: others may have reasons for names of their own."""
    known = [*OTHER_VARIABLES, *(key.variable for key in KEYS.values() if key.variable)]
    unknown = sorted(name for name in environ if name.startswith("CTXCHECK_") and name not in known)
    tables = {f"CTXCHECK_{key.name.replace('-', '_').upper()}": key.name for key in KEYS.values() if not key.variable}
    warnings = [
        f"environment: {name} is not a variable of ctxcheck: {tables[name]!r} stands in the configuration file only"
        for name in unknown
        if name in tables
    ]
    return (*warnings, *(
        f"environment: {_one_line(name)} is not a variable of ctxcheck{near}"
        for name in unknown
        if name not in tables and (near := _near(name, known))
    ))
