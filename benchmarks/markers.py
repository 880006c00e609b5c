"""The rows about markers: each beside the call of an empty function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, Final

from benchmarks.cases import Line, public
from benchmarks.measure import Case, Names, Setup

#: The most that things may cost, as ratios to a plain empty call: while checking, with a function that takes no
#: argument; while not checking, with the function's own parameters and with ``*args, **kwargs``; and as a statement.
ON: Final = 11.0
OFF: Final = 3.0
OFF_GENERAL: Final = 10.0
INLINE: Final = 8.0

#: How many functions that look alike are called in turn.
_SHARED: Final = 8
_IN_TURN: Final = "".join(f"f{number}()\n" for number in range(_SHARED))
_BLOCK: Final = 'with atomic("x"):\n    pass\n'
_CONTEXT: Final = 'with context("x"):\n    pass\n'
_PAIR: Final = "start()\nend()\n"


def _empty() -> None:
    return None


def _general(*_args: Any, **_kwargs: Any) -> None:
    return None


class _Empty:
    def method(self) -> None:
        return None


def _using(**objects: Callable[[], Any]) -> Setup:
    """A set-up of what these functions return, by the names that the statement has for them."""

    @contextmanager
    def setup() -> Generator[Names]:
        yield {name: get() for name, get in objects.items()}

    return setup


def _another(name: str) -> Callable[[], None]:
    """Another empty function."""
    return FunctionType(_empty.__code__, globals(), name)


# Functions are marked once, as a program does it: what the interpreter learns about their code stays.


@functools.cache
def _marked(marker: str, shape: str) -> Any:
    """A marked empty function, or an object whose empty method is marked."""
    mark = public(marker)
    if shape == "general":
        return mark(_general)
    if shape == "exact":
        return mark(_empty)
    kind = type("Marked", (), {"method": mark(_Empty.method)})
    return kind()


@functools.cache
def _several(marker: str | None) -> Names:
    functions = {f"f{number}": _another(f"f{number}") for number in range(_SHARED)}
    return functions if marker is None else {name: public(marker)(made) for name, made in functions.items()}


def _in_turn(marker: str | None) -> Setup:
    @contextmanager
    def setup() -> Generator[Names]:
        yield _several(marker)

    return setup


@functools.cache
def _needing() -> tuple[Any, Callable[[], None]]:
    """A lock, and a function that requires it."""
    lock = public("Lock")(name="required")
    return lock, public("requires_lock")(lock)(_empty)


@contextmanager
def _lock_held() -> Generator[Names]:
    lock, function = _needing()
    with lock:
        yield {"f": function}


@functools.cache
def _ranged(marker: str) -> Callable[[], None]:
    made: Callable[[], None] = public(marker)("span")(_empty)
    return made


@contextmanager
def _in_range() -> Generator[Names]:
    _ranged("range_start")()
    yield {"f": _ranged("within_range")}
    _ranged("range_end")()


@functools.cache
def _spanned() -> tuple[Callable[[int, int], None], Callable[[int, int], None], Callable[[int], None]]:
    """What opens and closes a bracket over a span, and what is about one place in it."""

    def both(_start: int, _end: int) -> None:
        return None

    def one(_place: int) -> None:
        return None

    ends, span = ("range_start", "range_end"), ("_start", "_end")
    start, end = (public(marker)("places", span=span)(both) for marker in ends)
    return start, end, public("within_range")("places", at="_place")(one)


@contextmanager
def _in_span() -> Generator[Names]:
    start, end, one = _spanned()
    start(0, 16)
    yield {"f": one}
    end(0, 16)


@functools.cache
def _wanting(marker: str) -> Callable[[], None]:
    made: Callable[[], None] = public(marker)("measured")(_empty)
    return made


@contextmanager
def _in_context() -> Generator[Names]:
    with public("context")("measured"):
        yield {"f": _wanting("requires"), "requires": public("requires")}


@functools.cache
def _allowed() -> Callable[[], None]:
    made: Callable[[], None] = public("allow")("CTX103", reason="measured")(_empty)
    return made


def lines() -> list[Line]:
    """The rows about calls of marked functions, while checking ("on") and while not ("off")."""

    def line(what: str, case: Case, to: str = "call", target: float | None = None, needs: tuple[str, ...] = ()) -> Line:
        return Line("markers", what, case, to or case.name, target, needs)

    def on(name: str, statement: str, setup: Setup) -> Case:
        return Case(name, statement, setup, checking=True)

    def off(name: str, statement: str, setup: Setup) -> Case:
        return Case(name, statement, setup)

    sleep, atomic, lock = ("might_sleep",), ("atomic",), ("requires_lock", "Lock")
    start, end, within = ("range_start",), ("range_end",), ("range_start", "range_end", "within_range")
    inline = _using(might_sleep=lambda: public("might_sleep"))
    block = _using(atomic=lambda: public("atomic"))
    context, contexts = ("context", "requires"), _using(context=lambda: public("context"))
    pair = _using(start=lambda: _ranged("range_start"), end=lambda: _ranged("range_end"))
    return [
        line("raw: f()", Case("call", "f()", _using(f=lambda: _empty))),
        line("raw: x.method()", Case("call-method", "x.method()", _using(x=_Empty)), ""),
        line("raw: f(*args, **kwargs)", Case("call-general", "f()", _using(f=lambda: _general))),
        *_shape_lines(),
        line(f"raw: {_SHARED} functions in turn", Case("call-in-turn", _IN_TURN, _in_turn(None)), ""),
        line(
            f"{_SHARED} @might_sleep functions, on", on("might-sleep-in-turn", _IN_TURN, _in_turn("might_sleep")),
            "call-in-turn", None, sleep,
        ),
        line(
            f"{_SHARED} @atomic functions, on", on("atomic-in-turn", _IN_TURN, _in_turn("atomic")),
            "call-in-turn", None, atomic,
        ),
        line("might_sleep(), on", on("inline-on", "might_sleep()", inline), "call", INLINE, sleep),
        line("might_sleep(), off", off("inline-off", "might_sleep()", inline), "call", None, sleep),
        line('with atomic("x"), on', on("with-atomic-on", _BLOCK, block), "call", None, atomic),
        line('with atomic("x"), off', off("with-atomic-off", _BLOCK, block), "call", None, atomic),
        line("@requires_lock, on", on("requires-lock-on", "f()", _lock_held), "call", None, lock),
        line("@requires, on", on("requires-on", "f()", _in_context), "call", ON, context),
        line('requires("x"), on', on("requires-inline-on", 'requires("measured")', _in_context), "call", None, context),
        line(
            "@forbids, on", on("forbids-on", "f()", _using(f=lambda: _wanting("forbids"))), "call", ON, ("forbids",),
        ),
        line('with context("x"), on', on("with-context-on", _CONTEXT, contexts), "call", None, context),
        line('with context("x"), off', off("with-context-off", _CONTEXT, contexts), "call", None, context),
        line(
            "@requires, off", off("requires-off", "f()", _using(f=lambda: _wanting("requires"))), "call", OFF, context,
        ),
        line("@within_range, on", on("within-range-on", "f()", _in_range), "call", None, within),
        line("@within_range at one place, on", on("within-range-at-on", "f(4)", _in_span), "call", None, within),
        line("@range_start, @range_end, on", on("range-pair-on", _PAIR, pair), "call", None, (*start, *end)),
        line(
            "@requires_lock, off", off("requires-lock-off", "f()", _using(f=lambda: _needing()[1])), "call", OFF, lock,
        ),
        line(
            "@within_range, off", off("within-range-off", "f()", _using(f=lambda: _ranged("within_range"))),
            "call", OFF, within,
        ),
        line(
            "@range_start, off", off("range-start-off", "f()", _using(f=lambda: _ranged("range_start"))),
            "call", OFF, start,
        ),
        line("@range_end, off", off("range-end-off", "f()", _using(f=lambda: _ranged("range_end"))), "call", OFF, end),
        line("@allow, off", off("allow-off", "f()", _using(f=_allowed)), "call", OFF, ("allow",)),
    ]  # fmt: skip


def _shape_lines() -> list[Line]:
    lines: list[Line] = []
    say = {"exact": "f()", "method": "x.method()", "general": "f(*args, **kwargs)"}
    for marker in ("might_sleep", "atomic"):
        for checking in (True, False):
            for shape, said in say.items():
                method = shape == "method"
                how = "on" if checking else "off"
                name = f"{marker.replace('_', '-')}-{how}-{shape}"
                setup = _using(**{"x" if method else "f": functools.partial(_marked, marker, shape)})
                case = Case(name, "x.method()" if method else "f()", setup, checking=checking)
                off_target = OFF_GENERAL if shape == "general" else OFF
                on_target = ON if shape == "exact" else None
                target = on_target if checking else off_target
                to = "call-method" if method else "call"
                lines.append(Line("markers", f"@{marker} {said}, {how}", case, to, target, (marker,)))
    return lines
