"""A bracket at run time: opened, used and closed for the calling owner; and ``range_``, one around a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, cast, final

from ctxcheck import fastpath
from ctxcheck.engine import ranges, slowpath
from ctxcheck.engine.brackets import Bracket, Mark, Span, describe_span
from ctxcheck.engine.classes import AWAIT, BLOCK, EVENT_LOOP, ContextStep
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.findings import Entry
from ctxcheck.engine.owner import VOID, OwnerState
from ctxcheck.engine.raw import uninterrupted
from ctxcheck.engine.sites import EMPTY, Trace, capture
from ctxcheck.markers.contexts import sleeps
from ctxcheck.markers.usage import ENABLED, check_choice, check_text, describe

OWNERS: Final = ("self", "any")


# --- the values of one call -------------------------------------------------------------------


#: What a start has found out before its function is called: key, span, whether it could sleep, and if not, why.
#: Of an end: the first two.
Token = tuple[Any, Span | None, bool, Entry | None]


def check_span(function: str, names: str, pair: Any) -> Span:
    """Refuse an empty or reversed span, and what is no span at all."""
    try:
        start, end = pair
    except (TypeError, ValueError) as error:
        raise TypeError(f"{function}: span={names} must give a pair (start, end), not {describe(pair)}") from error
    try:
        rising = bool(start < end)
    except Exception as error:
        raise TypeError(
            f"{function}: span={names} can't be compared: start is {describe(start)}, end is {describe(end)}"
        ) from error
    if not rising:
        how = "empty" if _same(start, end) else "reversed"
        span = describe_span((start, end))
        raise ValueError(f"{function}: span={names} is {how}: {span}; the start must be below the end")
    return start, end


def _same(start: Any, end: Any) -> bool:
    try:
        return bool(start == end)
    except Exception:  # the program's own comparison
        return False


class Options(NamedTuple):
    """What all calls of one marker share."""

    name: str
    sleeps: bool = True
    owner: str = "self"
    why: str = ""
    sleepable: bool = True
    nested: bool = False
    step: ContextStep | None = None

    def mark(self, what: str, declared: Trace) -> Mark:
        """What the engine is told at each call of ``what``, which is marked at ``declared``."""
        return Mark(
            self.name, what, declared, anyone=self.owner == "any", sleepable=self.sleepable, sleeps=self.sleeps,
            nested=self.nested, why=self.why, step=self.step,
        )  # fmt: skip


def starting(state: OwnerState, mark: Mark, key: Any, span: Span | None, permission: int) -> Token:
    """A start is called: it is a sleep point, and its bracket remembers whether it could have been one."""
    if mark.sleeps and (state.drops or not state.cur.allows & permission):
        sleeps(state, mark.function, "start", permission, mark.declared, mark.why)
    if state.cur.allows & permission:
        return key, span, True, None
    because = state.cur.because(permission)
    if because is not None and because.step is EVENT_LOOP:
        return key, span, True, None  # it costs the loop's time (CTX103), and takes nothing from what is inside
    return key, span, False, None if because is None else slowpath.consult(state.engine.entry, because)


def open_bracket(mark: Mark, token: Token, made: list[Bracket]) -> None:
    """Open a bracket for the calling owner, and put it into ``made``.  Only for who is called by a wrapper, or by
    the method of a block."""
    state = fastpath.current()
    if state.cur is VOID:
        return
    try:
        slowpath.consult(ranges.open_range, state.engine, state, mark, *token, capture(3), made)
    except BaseException:
        take_back(made)
        raise


def take_back(made: list[Bracket]) -> None:
    """Who opened these never hears of it: an exception came in between."""
    for bracket in made:
        ranges.shut(bracket.state.engine, bracket.state, bracket)


@uninterrupted
def close_bracket(mark: Mark, key: Any, span: Span | None) -> None:
    """Close the calling owner's bracket, also where an exception comes in between.  Only for whom :func:`open_bracket`
    is for."""
    bracket: Bracket | None = None
    try:
        state = fastpath.current()
        if state.cur is VOID:
            return
        bracket = slowpath.consult(ranges.find_fitting, state, mark, key, span)
        slowpath.consult(ranges.close_range, state.engine, state, bracket, mark, key, span)
    except ViolationError:
        raise
    except BaseException:
        # a signal handler's, or a callback's: closed all the same
        state = fastpath.current()
        if bracket is None and state.cur is not VOID:
            bracket = slowpath.consult(ranges.find_fitting, state, mark, key, span)
        if bracket is not None:
            ranges.shut(state.engine, state, bracket)
        raise


# --- wrong use ---------------------------------------------------------------------------------


def check_name(marker: str, name: object) -> str:
    """Refuse what is no name, and a marker that was given the function in its place."""
    if callable(name) or isinstance(name, (classmethod, staticmethod)):
        raise TypeError(f'@{marker} needs the name of its bracket: @{marker}("name")')
    return check_text(marker, "the bracket's name", name)


def check_flag(marker: str, argument: str, value: object) -> bool:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{marker}: {argument} must be True or False, not {describe(value)}")
    return value


def check_why(marker: str, why: object) -> str:
    """Refuse a reason that is no text."""
    return check_text(marker, "why", why, empty=True)


def check_nested(marker: str, options: Options, nested: object) -> bool:
    """Refuse what is no flag, and the nesting of a bracket that is nobody's."""
    if check_flag(marker, "nested", nested) and options.owner == "any":
        raise ValueError(
            f'{marker}({options.name!r}): nested=True and owner="any" are given, and only one can be meant: brackets'
            " nest in those of their owner"
        )
    return bool(nested)


def items_of(value: object) -> Sequence[object] | None:
    """The items of a tuple or list; None for anything else."""
    return cast("Sequence[object]", value) if isinstance(value, (tuple, list)) else None


def names_of(span: object) -> str:
    """What ``span=`` was given, for a message about its values."""
    pair = items_of(span)
    if pair is not None:
        return f"({', '.join(map(names_of, pair))})"
    return repr(span) if isinstance(span, str) else "..."


# --- a bracket around a block -------------------------------------------------------------------


@final
class RangeBlock:
    """What ``range_(...)`` returns: a context manager, with ``start()`` and ``end()`` for use without ``with``."""

    __slots__ = ("_key", "_mark", "_span")

    def __init__(self, options: Options, key: Any, span: Span | None) -> None:
        self._mark: Mark = options.mark(f"range_({options.name!r})", EMPTY)
        self._key: Any = key
        self._span: Span | None = span

    def start(self) -> None:
        """Open the bracket; a sleep point."""
        self._start(BLOCK)

    def end(self) -> None:
        """Close the bracket; a sleep point."""
        self._end(BLOCK, failed=False)

    def _start(self, permission: int) -> None:
        if not (ENABLED and fastpath.active):
            return
        state = fastpath.current()
        if state.cur is VOID:
            return
        token = starting(state, self._mark, self._key, self._span, permission)
        made: list[Bracket] = []
        try:
            open_bracket(self._mark, token, made)
        except BaseException:
            take_back(made)
            raise

    @uninterrupted
    def _end(self, permission: int, *, failed: bool) -> None:
        if not (ENABLED and fastpath.active):
            return
        mark = self._mark
        try:
            try:
                state = fastpath.current()
                if mark.sleeps and (state.drops or not state.cur.allows & permission):
                    sleeps(state, mark.function, "end", permission, why=mark.why)
            finally:
                close_bracket(mark, self._key, self._span)
        except ViolationError:
            if not failed:
                raise

    def __enter__(self) -> None:
        self._start(BLOCK)

    @uninterrupted
    def __exit__(self, kind: object, *_: object) -> None:
        self._end(BLOCK, failed=kind is not None)

    async def __aenter__(self) -> None:
        self._start(AWAIT)

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._end(AWAIT, failed=kind is not None)


def range_(
    name: str,
    *,
    key: Any = None,
    span: Sequence[Any] | None = None,
    sleeps: bool = True,
    owner: Literal["self", "any"] = "self",
    nested: bool = False,
    why: str = "",
) -> RangeBlock:
    """Open the bracket ``name`` for a block, and close it at its end: ``with range_("name"):``, ``async with``.

    Both ends are sleep points.  Without a block: ``bracket = range_("name")``, ``bracket.start()``, ``bracket.end()``.

    Args:
        name: of the bracket.
        key: which of the brackets of that name: any object; compared by identity, and by value if it is
            a string, bytes, an integer or a tuple of them.  By default the name alone.
        span: the pair (start, end) that it covers, half-open.
        sleeps, owner, nested, why: as for :func:`range_start`.

    Raises:
        TypeError: a name that is no string, a span that is no pair.
        ValueError: an empty or reversed span.
    """
    options = Options(check_name("range_", name), check_flag("range_", "sleeps", sleeps), owner)
    check_choice("range_", "owner", owner, OWNERS)
    checked = None if span is None else check_span(f"range_({name!r})", _values(span), span)
    options = options._replace(nested=check_nested("range_", options, nested), why=check_why("range_", why))
    return RangeBlock(options, key, checked)


def _values(span: object) -> str:
    """The same for a ``range_``, which is given the values themselves."""
    pair = items_of(span)
    return describe(span) if pair is None else f"({', '.join(map(describe, pair))})"
