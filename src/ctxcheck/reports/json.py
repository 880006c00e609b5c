"""Findings as JSON: a document for other programs, and the way back into a Violation.

The shape is public.  Within one ``schema_version`` keys are only ever added, so a reader skips
those that it doesn't know; that is also how :func:`violation_from_dict` reads.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from ctxcheck.engine.allows import UnusedAllow
from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.violations import (
    Context,
    Counts,
    Event,
    Frame,
    Scenario,
    Site,
    Stack,
    Step,
    Timeline,
    Violation,
)

SCHEMA_VERSION: Final = 1

#: What a data file may hold: far more than ctxcheck writes, and little enough to be handled.
MAX_TEXT: Final = 200_000
MAX_ITEMS: Final = 10_000
MAX_NUMBER: Final = 2**53

#: What JSON may hold as it is, but a terminal, an encoder or a line reader may not take, or shows the wrong way round
#: or not at all; not the two joiners, which scripts need.
_UNSAFE: Final = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

_T = TypeVar("_T")


def document(
    violations: Sequence[Violation],
    counts: Counts,
    *,
    run: Mapping[str, Any],
    graph: Mapping[str, Any],
    unused_allows: Sequence[UnusedAllow] = (),
) -> dict[str, Any]:
    """Return the whole report as plain data, ready for :func:`dumps`.

    Args:
        violations: all findings, also the accepted ones (they have ``allowed_by``).
        counts: what was checked; it becomes ``run["counts"]``.
        run: facts on the run, such as ``argv``, ``python``, ``platform``, ``started``.
        graph: the lock order graph, as ``classes`` and ``edges``.
        unused_allows: the allows that accepted nothing in this run.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "ctxcheck", "version": version()},
        "run": {**run, "counts": dataclasses.asdict(counts)},
        "violations": [_plain(violation.to_dict()) for violation in violations],
        "graph": {"classes": [], "edges": [], **graph},
        "unused_allows": [_plain(dataclasses.asdict(unused)) for unused in unused_allows],
    }


def lines(
    violations: Sequence[Violation],
    counts: Counts,
    *,
    run: Mapping[str, Any],
    graph: Mapping[str, Any],
    unused_allows: Sequence[UnusedAllow] = (),
) -> Iterator[str]:
    """Yield the same report as lines of JSON, each an object with a ``type``, for readers that take one at a time.

    The first line is a "header" (``schema_version``, ``tool``, ``run``), then comes a "violation" for each finding, and
    last an "end" with the number of ``violations``, the ``counts``, the ``graph`` and the
    ``unused_allows``: a file without it was cut short.
    """
    tool = {"name": "ctxcheck", "version": version()}
    yield dumps({"type": "header", "schema_version": SCHEMA_VERSION, "tool": tool, "run": dict(run)}, indent=None)
    for violation in violations:
        yield dumps({"type": "violation", "violation": _plain(violation.to_dict())}, indent=None)
    end = {"type": "end", "violations": len(violations), "counts": dataclasses.asdict(counts)}
    unused = [_plain(dataclasses.asdict(one)) for one in unused_allows]
    yield dumps({**end, "graph": {"classes": [], "edges": [], **graph}, "unused_allows": unused}, indent=None)


def dumps(document: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """Return ``document`` as JSON text that any encoding of Unicode can hold.

    Keys keep their order, letters of all scripts stay readable; lone surrogates (from file names
    that aren't UTF-8) and what a terminal could act on are escaped.  With ``indent=None`` the
    text is one line.
    """
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda match: json.dumps(match.group())[1:-1], text)


def violation_from_dict(data: object) -> Violation:
    """Return the violation that ``data`` describes, as it comes out of :func:`json.loads`.

    Unknown keys are skipped, and missing ones take the default, save for ``rule``, ``slug``,
    ``grade`` and ``message``.

    Raises:
        ValueError: a value has another type than the field, or is out of bounds; one line that names it.
    """
    top = _Object(data, "violation")
    grade = top.text("grade")
    if grade not in GRADES:
        raise _bad_grade(grade)
    return Violation(
        rule=top.text("rule"),
        slug=top.text("slug"),
        grade=grade,
        message=top.text("message"),
        locks=top.texts("locks"),
        sites=top.objects("sites", _site),
        stacks=top.objects("stacks", _stack),
        owners=top.texts("owners"),
        count=top.number("count", 1, low=1),
        fingerprint=top.text("fingerprint", ""),
        allowed_by=None if top.get("allowed_by", None) is None else top.text("allowed_by"),
        keys=top.texts("keys"),
        scenario=top.optional("scenario", _scenario),
        timeline=top.optional("timeline", _timeline),
        contexts=top.objects("contexts", _context),
        contexts_title=top.text("contexts_title", ""),
        held=top.texts("held"),
        notes=top.texts("notes"),
        helps=top.texts("helps"),
        allow=top.texts("allow"),
        tests=top.texts("tests"),
        baselined=top.flag("baselined"),
        allowed_kind=top.text("allowed_kind", ""),
        allowed_at=top.text("allowed_at", ""),
    )


def version() -> str:
    """Return the version of ctxcheck that writes this."""
    # Looked up when a document is made: importlib.metadata is too heavy for start-up.
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("ctxcheck")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"


def _plain(value: Any) -> Any:
    """Return ``value`` with lists for tuples, so that it equals what is read back."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    return value


class _Object:
    """A JSON object that is being read, with the path that its errors name."""

    __slots__ = ("_items", "_path")

    def __init__(self, data: object, path: str) -> None:
        self._path: str = path
        if not isinstance(data, Mapping):
            raise _error(path, "an object", data)
        self._items = cast("Mapping[str, object]", data)

    def get(self, key: str, default: object = ...) -> object:
        value = self._items.get(key, default)
        if value is ...:
            raise ValueError(f"{self._path}.{key}: missing")
        return value

    def text(self, key: str, default: object = ...) -> str:
        return _text(self.get(key, default), f"{self._path}.{key}")

    def number(self, key: str, default: object = ..., *, low: int = 0) -> int:
        value = self.get(key, default)
        # bool is an int to Python, but true isn't a number to JSON.
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_NUMBER:
            raise _error(f"{self._path}.{key}", f"a whole number of at least {low}", value)
        return value

    def flag(self, key: str) -> bool:
        value = self.get(key, False)
        if not isinstance(value, bool):
            raise _error(f"{self._path}.{key}", "true or false", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(_text(value, f"{self._path}.{key}[{index}]") for index, value in enumerate(self._list(key)))

    def objects(self, key: str, build: Callable[[_Object], _T]) -> tuple[_T, ...]:
        return tuple(
            build(_Object(value, f"{self._path}.{key}[{index}]")) for index, value in enumerate(self._list(key))
        )

    def optional(self, key: str, build: Callable[[_Object], _T]) -> _T | None:
        value = self.get(key, None)
        return None if value is None else build(_Object(value, f"{self._path}.{key}"))

    def _list(self, key: str) -> Sequence[object]:
        value = self.get(key, ())
        if not isinstance(value, list | tuple):
            raise _error(f"{self._path}.{key}", "a list", value)
        items = cast("Sequence[object]", value)
        if len(items) > MAX_ITEMS:
            raise ValueError(f"{self._path}.{key}: {len(items):,} items, at most {MAX_ITEMS:,} are allowed")
        return items


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _error(path, "a text", value)
    if len(value) > MAX_TEXT:
        raise ValueError(f"{path}: {len(value):,} characters, at most {MAX_TEXT:,} are allowed")
    return value


def _error(path: str, allowed: str, value: object) -> ValueError:
    if value is None or isinstance(value, bool):
        shown = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, str):
        shown = ascii(value[:60])
    elif isinstance(value, int | float):
        # A number of any length, and one that is too long for str() at all.
        shown = f"{value:.6g}" if abs(value) < 1e300 else "a number out of range"
    else:
        shown = "an object" if isinstance(value, dict) else "a list"
    return ValueError(f"{path}: expected {allowed}, got {shown}")


def _bad_grade(grade: str) -> ValueError:
    from difflib import get_close_matches

    near = get_close_matches(grade[:20], GRADES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    error = _error("violation.grade", f"one of {', '.join(GRADES)}", grade)
    return ValueError(f"{error}{hint}")


def _site(data: _Object) -> Site:
    return Site(
        role=data.text("role"),
        file=data.text("file"),
        line=data.number("line"),
        function=data.text("function"),
        text=data.text("text", ""),
        label=data.text("label", ""),
        heading=data.text("heading", ""),
        column=data.number("column", -1, low=-1),
        end_column=data.number("end_column", -1, low=-1),
        before=data.text("before", ""),
    )


def _frame(data: _Object) -> Frame:
    return Frame(
        file=data.text("file"),
        line=data.number("line"),
        function=data.text("function"),
        text=data.text("text", ""),
    )


def _stack(data: _Object) -> Stack:
    return Stack(title=data.text("title"), owner=data.text("owner"), frames=data.objects("frames", _frame))


def _step(data: _Object) -> Step:
    return Step(column=data.number("column"), action=data.text("action"), waits_for=data.text("waits_for", ""))


def _scenario(data: _Object) -> Scenario:
    return Scenario(
        columns=data.texts("columns"),
        steps=data.objects("steps", _step),
        outcome=data.text("outcome"),
    )


def _event(data: _Object) -> Event:
    return Event(
        file=data.text("file"),
        line=data.number("line"),
        function=data.text("function"),
        what=data.text("what"),
        times=data.number("times", 1, low=1),
        here=data.flag("here"),
    )


def _timeline(data: _Object) -> Timeline:
    return Timeline(title=data.text("title"), events=data.objects("events", _event))


def _context(data: _Object) -> Context:
    return Context(
        kind=data.text("kind"),
        label=data.text("label"),
        verb=data.text("verb"),
        file=data.text("file"),
        line=data.number("line"),
        allows=data.text("allows", ""),
        here=data.flag("here"),
    )
