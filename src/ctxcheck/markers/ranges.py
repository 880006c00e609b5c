"""``range_start``, ``range_end`` and ``within_range``: functions that open, close and need a bracket."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.brackets import Point, Span
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, OwnerState
from ctxcheck.markers.brackets import (
    OWNERS,
    Options,
    Token,
    check_flag,
    check_name,
    check_span,
    check_why,
    close_bracket,
    items_of,
    may_sleep,
    names_of,
    open_bracket,
    use_bracket,
)
from ctxcheck.markers.contexts import sleeps
from ctxcheck.markers.shapes import F, Plan, mark
from ctxcheck.markers.target import Target
from ctxcheck.markers.usage import check_choice, describe

#: A parameter of the marked function, a dotted path from one, or a callable that is given the call's arguments.
Part = str | Callable[..., Any]


# --- one marked function ----------------------------------------------------------------------


@final
class _Marked:
    """What the wrapper of one function asks, and where the brackets of its calls are opened, used and closed."""

    __slots__ = ("_name", "_options", "_target_declared", "_what", "permission", "span_names")

    def __init__(self, target: Target, options: Options) -> None:
        self._name = options.name
        self._options: Options = options
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
            place = check_span(self._what, self.span_names, where)
        slowpath.consult(use_bracket, state, self._options, key, place, self._what, self._target_declared)

    def begin(self, state: OwnerState, key: Any, span: Any) -> Token | None:
        """A start is called: it is a sleep point, and its bracket remembers whether it could have been one."""
        token = self.ending(state, key, span)
        if token is None:
            return None
        if self._options.sleeps:
            sleeps(state, self._what, "start", self.permission, self._target_declared, self._options.why)
        return Token(token.key, token.span, *may_sleep(state, self.permission))

    def opened(self, token: Token) -> None:
        """It has returned."""
        open_bracket(self._options, self._what, token, [])

    def ending(self, state: OwnerState, key: Any, span: Any) -> Token | None:
        """An end is called; nothing is reported yet."""
        checked = None if span is None else check_span(self._what, self.span_names, span)
        return None if state.cur is VOID else Token(key, checked, True, None)

    def sleep_at_end(self) -> None:
        """The end is a sleep point."""
        if self._options.sleeps:
            sleeps(fastpath.current(), self._what, "end", self.permission, self._target_declared, self._options.why)

    def closed(self, token: Token, failed: bool) -> None:
        """The end has returned, or raised: then that is what the caller is to see."""
        try:
            close_bracket(self._options, self._what, self._target_declared, token)
        except ViolationError:
            if not failed:
                raise


# --- the decorators -----------------------------------------------------------------------------


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
    pair = items_of(given)
    if pair is None:
        return _part(target, "span", given)
    if len(pair) != 2:
        raise TypeError(
            f"@{target.marker} on {target.qualname}: span must name two parameters (start, end), not {len(pair)}"
        )
    return f"({_part(target, 'span', pair[0])}, {_part(target, 'span', pair[1])})"


@final
class Range:
    """A decorator that opens, closes or needs a bracket; made by the functions below."""

    __slots__ = ("_at", "_key", "_marker", "_options", "_span")

    def __init__(self, marker: str, options: Options, key: Any, span: Any, at: Any = None) -> None:
        self._marker: str = marker
        self._options: Options = options
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
            marked.span_names = names_of(self._span)
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
    options = Options(check_name("range_start", name), check_flag("range_start", "sleeps", sleeps), owner)
    check_choice("range_start", "owner", owner, OWNERS)
    return Range("range_start", options._replace(why=check_why("range_start", why)), key, span)


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
    options = Options(check_name("range_end", name), check_flag("range_end", "sleeps", sleeps), owner)
    check_choice("range_end", "owner", owner, OWNERS)
    return Range("range_end", options._replace(why=check_why("range_end", why)), key, span)


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
    options = Options(check_name("within_range", name), True, owner, check_why("within_range", why))
    check_choice("within_range", "owner", owner, OWNERS)
    options = options._replace(sleepable=check_flag("within_range", "sleepable", sleepable))
    return Range("within_range", options, key, span, at)


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
