"""``range_start``, ``range_end``, ``within_range`` and ``range_``: brackets."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple, cast, final

from ctxcheck import fastpath
from ctxcheck.engine import ranges, slowpath
from ctxcheck.engine.brackets import Bracket, Point, Span, describe_span
from ctxcheck.engine.classes import AWAIT, BLOCK
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.findings import Entry
from ctxcheck.engine.owner import VOID, OwnerState
from ctxcheck.engine.raw import uninterrupted
from ctxcheck.engine.sites import EMPTY, Trace, capture
from ctxcheck.markers.contexts import sleeps
from ctxcheck.markers.shapes import F, Plan, Target, mark
from ctxcheck.markers.usage import ENABLED, check_choice, check_text, describe

#: A parameter of the marked function, a dotted path from one, or a callable that is given the call's arguments.
Part = str | Callable[..., Any]

_OWNERS: Final = ("self", "any")


# --- the values of one call -------------------------------------------------------------------


class _Token(NamedTuple):
    """What a start or an end has found out before its function is called."""

    key: Any
    span: Span | None
    sleepable: bool
    because: Entry | None


def _check_span(function: str, names: str, pair: Any) -> Span:
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


# --- one marked function ----------------------------------------------------------------------


@final
class _Marked:
    """What the wrapper of one function asks, and where the brackets of its calls are opened, used and closed."""

    __slots__ = ("_name", "_options", "_target_declared", "_what", "permission", "span_names")

    def __init__(self, target: Target, options: _Options) -> None:
        self._name = options.name
        self._options: _Options = options
        self._what = target.qualname
        self._target_declared = target.declared
        self.permission = target.permission
        self.span_names: str = ""

    def within(self, state: OwnerState, key: Any, where: Any) -> None:
        """A call that must be in an open bracket."""
        if state.cur is VOID:
            return
        place: Span | Point | None = where
        if where is not None and type(where) is not Point:
            place = _check_span(self._what, self.span_names, where)
        slowpath.consult(_use, state, self._options, key, place, self._what, self._target_declared)

    def begin(self, state: OwnerState, key: Any, span: Any) -> _Token | None:
        """A start is called: it is a sleep point, and its bracket remembers whether it could have been one."""
        token = self.ending(state, key, span)
        if token is None:
            return None
        if self._options.sleeps:
            sleeps(state, self._what, "start", self.permission, self._target_declared, self._options.why)
        return _Token(token.key, token.span, *_may_sleep(state, self.permission))

    def opened(self, token: _Token) -> None:
        """It has returned."""
        _open(self._options, self._what, token, [])

    def ending(self, state: OwnerState, key: Any, span: Any) -> _Token | None:
        """An end is called; nothing is reported yet."""
        checked = None if span is None else _check_span(self._what, self.span_names, span)
        return None if state.cur is VOID else _Token(key, checked, True, None)

    def sleep_at_end(self) -> None:
        """The end is a sleep point."""
        if self._options.sleeps:
            sleeps(fastpath.current(), self._what, "end", self.permission, self._target_declared, self._options.why)

    def closed(self, token: _Token, failed: bool) -> None:
        """The end has returned, or raised: then that is what the caller is to see."""
        try:
            _close(self._options, self._what, self._target_declared, token)
        except ViolationError:
            if not failed:
                raise


class _Options(NamedTuple):
    """What all calls of one marker share."""

    name: str
    sleeps: bool = True
    owner: str = "self"
    why: str = ""
    sleepable: bool = True


def _may_sleep(state: OwnerState, permission: int) -> tuple[bool, Entry | None]:
    if state.cur.allows & permission:
        return True, None
    because = state.cur.because(permission)
    return False, None if because is None else slowpath.consult(state.engine.entry, because)


def _open(options: _Options, what: str, token: _Token, made: list[Bracket]) -> None:
    state = fastpath.current()
    if state.cur is VOID:
        return
    try:
        slowpath.consult(_open_range, state, options, what, token, made)
    except BaseException:
        _take_back(made)
        raise


def _take_back(made: list[Bracket]) -> None:
    """Who opened these never hears of it: an exception came in between."""
    for bracket in made:
        ranges.shut(bracket.state.engine, bracket.state, bracket)


def _open_range(state: OwnerState, options: _Options, what: str, token: _Token, made: list[Bracket]) -> None:
    ranges.open_range(
        state.engine,
        state,
        options.name,
        token.key,
        token.span,
        function=what,
        trace=capture(1),
        shared=options.owner == "any",
        sleepable=token.sleepable,
        because=token.because,
        why=options.why,
        made=made,
    )


@uninterrupted
def _close(options: _Options, what: str, declared: Trace, token: _Token) -> None:
    bracket: Bracket | None = None
    try:
        state = fastpath.current()
        if state.cur is VOID:
            return
        bracket = slowpath.consult(_find_fitting, state, options, token)
        slowpath.consult(_close_range, state, options, what, declared, token, bracket)
    except ViolationError:
        raise
    except BaseException:
        # a signal handler's, or a callback's: closed all the same
        state = fastpath.current()
        if bracket is None and state.cur is not VOID:
            bracket = slowpath.consult(_find_fitting, state, options, token)
        if bracket is not None:
            ranges.shut(state.engine, state, bracket)
        raise


def _find_fitting(state: OwnerState, options: _Options, token: _Token) -> Bracket | None:
    return ranges.find_fitting(state.engine, state, options.name, token.key, token.span)


def _close_range(
    state: OwnerState, options: _Options, what: str, declared: Trace, token: _Token, bracket: Bracket | None
) -> None:
    ranges.close_range(
        state.engine,
        state,
        bracket,
        options.name,
        token.key,
        token.span,
        function=what,
        declared=declared,
        trace=capture(1),
        why=options.why,
    )


def _use(
    state: OwnerState, options: _Options, key: Any, place: Span | Point | None, what: str, declared: Trace
) -> None:
    ranges.use_range(
        state.engine,
        state,
        options.name,
        key,
        place,
        function=what,
        declared=declared,
        anyone=options.owner == "any",
        sleepable=options.sleepable,
        why=options.why,
    )


# --- the decorators -----------------------------------------------------------------------------


def _check_name(marker: str, name: object) -> str:
    if callable(name) or isinstance(name, (classmethod, staticmethod)):
        raise TypeError(f'@{marker} needs the name of its bracket: @{marker}("name")')
    return check_text(marker, "the bracket's name", name)


def _check_flag(marker: str, argument: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{marker}: {argument} must be True or False, not {describe(value)}")
    return value


def _part(target: Target, argument: str, given: object) -> str:
    """The text for one ``key=``, ``at=`` or half of a ``span=``."""
    if isinstance(given, str):
        return target.path(argument, given)
    if callable(given) and not isinstance(given, type):
        return target.calling(given)
    raise TypeError(
        f"@{target.marker} on {target.qualname}: {argument} must be the name of a parameter or a callable,"
        f" not {describe(given)}"
    )


def _span_part(target: Target, given: object) -> str:
    pair = _items(given)
    if pair is None:
        return _part(target, "span", given)
    if len(pair) != 2:
        raise TypeError(
            f"@{target.marker} on {target.qualname}: span must name two parameters (start, end), not {len(pair)}"
        )
    return f"({_part(target, 'span', pair[0])}, {_part(target, 'span', pair[1])})"


def _items(value: object) -> Sequence[object] | None:
    return cast("Sequence[object]", value) if isinstance(value, (tuple, list)) else None


def _names(span: object) -> str:
    """What ``span=`` was given, for a message about its values."""
    pair = _items(span)
    if pair is not None:
        return f"({', '.join(map(_names, pair))})"
    return repr(span) if isinstance(span, str) else "..."


@final
class Range:
    """A decorator that opens, closes or needs a bracket; made by the functions below."""

    __slots__ = ("_at", "_key", "_marker", "_options", "_span")

    def __init__(self, marker: str, options: _Options, key: Any, span: Any, at: Any = None) -> None:
        self._marker: str = marker
        self._options: _Options = options
        self._key: Any = key
        self._span: Any = span
        self._at: Any = at
        if span is not None and at is not None:
            raise TypeError(f"{marker}({options.name!r}): at and span are given, and only one can be meant")

    def __call__(self, function: F, /) -> F:
        """Mark ``function``."""
        return mark(function, self._marker, self._plan)

    def _plan(self, target: Target) -> Plan:
        marked = _Marked(target, self._options)
        key = "None"
        if self._key is not None:
            key = _part(target, "key", self._key)
        elif target.first is not None:
            key = target.path("key", target.first)
        where = "None"
        if self._at is not None:
            where = f"_ctx_point({_part(target, 'at', self._at)})"
        elif self._span is not None:
            where = _span_part(target, self._span)
            marked.span_names = _names(self._span)
        own = self._key is None or self._key == target.first
        _check_shape(target, self._marker, self._options.name, not own, self._span is not None)
        if self._marker == "within_range":
            return Plan([f"_ctx_within(_ctx_st, {key}, {where})"], _ctx_within=marked.within, _ctx_point=Point)
        if self._marker == "range_start":
            check = f"_ctx_token = _ctx_begin(_ctx_st, {key}, {where})"
            return Plan([check], "start", _ctx_begin=marked.begin, _ctx_opened=marked.opened)
        check = f"_ctx_token = _ctx_ending(_ctx_st, {key}, {where})"
        return Plan(
            [check], "end", _ctx_ending=marked.ending, _ctx_sleep=marked.sleep_at_end, _ctx_closed=marked.closed
        )


def range_start(
    name: str,
    *,
    key: Part | None = None,
    span: tuple[Part, Part] | Part | None = None,
    sleeps: bool = True,
    owner: Literal["self", "any"] = "self",
    why: str = "",
) -> Range:
    """Decorate the function that opens the bracket ``name``.

    A call is a sleep point (CTX101 where its caller may not sleep).  The bracket opens when the function
    returns, for a coroutine function when the coroutine does; not if it raises.  It belongs to the owner that
    called, and remembers whether that one could have slept at the call.  Brackets nest, and many may be open.

    Args:
        name: of the bracket; start, end and ``within_range`` agree on it.
        key: which of the brackets of that name: the name of a parameter, a dotted path from one
            ("mm.id"), or a callable that is given the call's arguments.  By default ``self`` or ``cls``, if that is
            the first parameter; else the name alone.
        span: what it covers, half-open: the names of two parameters, or a callable that returns two values.
        sleeps: False if a call never sleeps.
        owner: "any" if others may work in the bracket, and close it.
        why: the domain's reason for the rule; shown in reports.

    Raises:
        TypeError, ValueError: when decorating, for wrong use.  At a call: ValueError for an empty or reversed
            span, TypeError for one whose ends can't be compared.
    """
    options = _Options(_check_name("range_start", name), _check_flag("range_start", "sleeps", sleeps), owner)
    check_choice("range_start", "owner", owner, _OWNERS)
    return Range("range_start", options._replace(why=_check_why("range_start", why)), key, span)


def range_end(
    name: str,
    *,
    key: Part | None = None,
    span: tuple[Part, Part] | Part | None = None,
    sleeps: bool = True,
    owner: Literal["self", "any"] = "self",
    why: str = "",
) -> Range:
    """Decorate the function that closes the bracket ``name``; arguments as for :func:`range_start`.

    A call is a sleep point.  The innermost bracket of the same name, key and span is closed after the function has
    run, also if it raised; CTX202 if there is none, CTX205 if a lock was taken inside and is still held.
    """
    options = _Options(_check_name("range_end", name), _check_flag("range_end", "sleeps", sleeps), owner)
    check_choice("range_end", "owner", owner, _OWNERS)
    return Range("range_end", options._replace(why=_check_why("range_end", why)), key, span)


def within_range(
    name: str,
    *,
    key: Part | None = None,
    at: Part | None = None,
    span: tuple[Part, Part] | Part | None = None,
    owner: Literal["self", "any"] = "self",
    sleepable: bool = True,
    why: str = "",
) -> Range:
    """Decorate a function that may only be called inside an open bracket ``name`` (CTX201).

    Args:
        name, key, why: as for :func:`range_start`.
        at: the one place that the call is about, which one open bracket must cover.
        span: the same for a span, half-open.
        owner: "any" if a bracket that another thread or task has opened will do.
        sleepable: False if the bracket may have been opened where sleeping was not allowed.

    Raises:
        TypeError, ValueError: as for :func:`range_start`.
    """
    options = _Options(_check_name("within_range", name), True, owner, _check_why("within_range", why))
    check_choice("within_range", "owner", owner, _OWNERS)
    options = options._replace(sleepable=_check_flag("within_range", "sleepable", sleepable))
    return Range("within_range", options, key, span, at)


def _check_why(marker: str, why: object) -> str:
    return check_text(marker, "why", why, empty=True)


# --- one bracket, one shape ---------------------------------------------------------------------


class _Shape(NamedTuple):
    """What the functions of one bracket must agree on, and which function says so.

    ``keyed``: it gives a key of its own.  That one bracket is a method's and another a plain function's is no mistake.
    """

    qualname: str
    marker: str
    keyed: bool
    spanned: bool
    function: weakref.ref[Any]


#: By module, scope and bracket name.  The functions are not kept alive: a scope that is run again starts afresh.
_shapes: Final[dict[tuple[str, str, str], list[_Shape]]] = {}


def _check_shape(target: Target, marker: str, name: str, keyed: bool, spanned: bool) -> None:
    """Refuse a bracket whose functions, in one class or module, can never meet."""
    function: Any = target.function
    scope = (getattr(function, "__module__", None) or "", target.qualname.rpartition(".")[0], name)
    here = [shape for shape in _shapes.get(scope, ()) if shape.function() is not None]
    if any(shape.qualname == target.qualname and shape.marker == marker for shape in here):
        here = []  # the scope is run again, perhaps after an edit
    for shape in here:
        if shape.keyed != keyed:
            what, mine = "key", keyed
        elif shape.spanned != spanned and "within_range" not in (marker, shape.marker):
            what, mine = "span", spanned
        else:
            what, mine = "", False
        if what:
            has, lacks = (target.qualname, shape.qualname) if mine else (shape.qualname, target.qualname)
            raise ValueError(
                f"@{marker}({name!r}) on {target.qualname}: {has} gives a {what} and {lacks} none, so the two"
                f" would never meet; the functions of one bracket must agree"
            )
    try:
        alive = weakref.ref(function)
    except TypeError:
        return
    here.append(_Shape(target.qualname, marker, keyed, spanned, alive))
    _shapes[scope] = here


# --- a bracket around a block -------------------------------------------------------------------


@final
class RangeBlock:
    """What ``range_(...)`` returns: a context manager, with ``start()`` and ``end()`` for use without ``with``."""

    __slots__ = ("_options", "_token", "_what")

    def __init__(self, options: _Options, key: Any, span: Span | None) -> None:
        self._options: _Options = options
        self._token: _Token = _Token(key, span, True, None)
        self._what: str = f"range_({options.name!r})"

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
        if self._options.sleeps:
            sleeps(state, self._what, "start", permission, why=self._options.why)
        sleepable, because = _may_sleep(state, permission)
        made: list[Bracket] = []
        try:
            _open(self._options, self._what, self._token._replace(sleepable=sleepable, because=because), made)
        except BaseException:
            _take_back(made)
            raise

    @uninterrupted
    def _end(self, permission: int, *, failed: bool) -> None:
        if not (ENABLED and fastpath.active):
            return
        try:
            try:
                if self._options.sleeps:
                    sleeps(fastpath.current(), self._what, "end", permission, why=self._options.why)
            finally:
                _close(self._options, self._what, EMPTY, self._token)
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
    why: str = "",
) -> RangeBlock:
    """Open the bracket ``name`` for a block, and close it at its end: ``with range_("name"):``, ``async with``.

    Both ends are sleep points.  Without a block: ``bracket = range_("name")``, ``bracket.start()``, ``bracket.end()``.

    Args:
        name: of the bracket.
        key: which of the brackets of that name: any object; compared by identity, and by value if it is
            a string, bytes, an integer or a tuple of them.  By default the name alone.
        span: the pair (start, end) that it covers, half-open.
        sleeps, owner, why: as for :func:`range_start`.

    Raises:
        TypeError: a name that is no string, a span that is no pair.
        ValueError: an empty or reversed span.
    """
    options = _Options(_check_name("range_", name), _check_flag("range_", "sleeps", sleeps), owner)
    check_choice("range_", "owner", owner, _OWNERS)
    checked = None if span is None else _check_span(f"range_({name!r})", _values(span), span)
    return RangeBlock(options._replace(why=_check_why("range_", why)), key, checked)


def _values(span: object) -> str:
    """The same for a ``range_``, which is given the values themselves."""
    pair = _items(span)
    return describe(span) if pair is None else f"({', '.join(map(describe, pair))})"
