"""``range_start``, ``range_end`` and ``within_range``: functions that open, close and need a bracket."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final, Literal, NamedTuple, final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.brackets import Mark, Point, Span, covers, same_key
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import NO_RUN, VOID, OwnerState
from ctxcheck.engine.ranges import use_range
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import is_own
from ctxcheck.markers.brackets import (
    OWNERS,
    Options,
    Token,
    check_flag,
    check_name,
    check_nested,
    check_span,
    check_why,
    close_bracket,
    items_of,
    names_of,
    open_bracket,
    starting,
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

    __slots__ = ("_about_point", "_what", "mark", "permission", "span_names")

    def __init__(self, target: Target, options: Options, *, about_point: bool = False) -> None:
        self._what = target.qualname
        self._about_point: bool = about_point
        self.mark: Mark = options.mark(target.qualname, target.declared)
        self.permission = target.permission
        self.span_names: str = ""

    def within(self, state: OwnerState, key: Any, where: Any) -> None:
        """A call that must be in an open bracket; for the wrapper only, whose caller is the place that is noted."""
        node = state.cur
        if node is VOID:
            return
        place: Span | Point | None = None
        if self._about_point:
            place = Point(where)
        elif where is not None:
            place = check_span(self._what, self.span_names, where)
        # a report may run anything: no frame is kept meanwhile, nor what it refers to
        frame = get_frame(1).f_back
        code, lasti = (None, -1) if frame is None else (frame.f_code, frame.f_lasti)
        run = state.runs.get(lasti, NO_RUN)
        if run.code is not code:
            # not from there, or called by the wrapper of another marker
            code, lasti = _caller(frame)
            run = state.runs.get(lasti, NO_RUN)
        frame = None
        if (
            run.node is node
            and run.mark is self.mark
            and run.code is code
            and (run.bracket.key is key or same_key(run.bracket.key, key))
            and covers(run.bracket.span, place)
        ):
            for _ in run.again:
                return
        slowpath.consult(use_range, state.engine, state, self.mark, key, place, code, lasti)

    def begin(self, state: OwnerState, key: Any, span: Any) -> Token | None:
        """A start is called."""
        if span is not None:
            span = check_span(self._what, self.span_names, span)
        return None if state.cur is VOID else starting(state, self.mark, key, span, self.permission)

    def opened(self, token: Token) -> None:
        """It has returned."""
        open_bracket(self.mark, token, [])

    def ending(self, state: OwnerState, key: Any, span: Any) -> tuple[Any, Span | None] | None:
        """An end is called; nothing is reported yet."""
        if span is not None:
            span = check_span(self._what, self.span_names, span)
        return None if state.cur is VOID else (key, span)

    def sleep_at_end(self) -> None:
        """The end is a sleep point."""
        mark = self.mark
        if mark.sleeps:
            state = fastpath.current()
            if state.drops or not state.cur.allows & self.permission:
                sleeps(state, self._what, "end", self.permission, mark.declared, mark.why)

    def closed(self, token: tuple[Any, Span | None], failed: bool) -> None:
        """The end has returned, or raised: then that is what the caller is to see."""
        try:
            close_bracket(self.mark, *token)
        except ViolationError:
            if not failed:
                raise


def _caller(frame: FrameType | None) -> tuple[CodeType | None, int]:
    """Where the innermost frame stands that isn't ctxcheck's own."""
    while frame is not None and is_own(frame.f_code):
        frame = frame.f_back
    return (None, -1) if frame is None else (frame.f_code, frame.f_lasti)


def _nowhere(error: ValueError) -> Any:
    """In place of the frame of a caller, where `_ctx_caller` says that the wrapper has none: it is a thread's outermost
    function, or called while the interpreter shuts down."""
    if error.args != _NO_CALLER or (error.__traceback__ is not None and error.__traceback__.tb_next is not None):
        raise error  # a signal handler's
    return _NOWHERE


class _Nowhere:
    f_code: Final = None
    f_lasti: Final = -2


_NOWHERE: Final = _Nowhere()
_NO_CALLER: Final = ("call stack is not deep enough",)

#: The usual case, seen in the wrapper itself: the same call was made before from this place, with nothing but calls in
#: between.  The frame is that of the caller; it isn't kept, it would keep what its variables refer to.
_AGAIN: Final = """\
try:
    _ctx_frame = _ctx_caller(1)
except ValueError as _ctx_error:
    _ctx_frame = _ctx_nowhere(_ctx_error)
try:
    _ctx_run = _ctx_st.runs[_ctx_frame.f_lasti]
except KeyError:
    _ctx_run = _ctx_no_run
if (
    _ctx_run.node is _ctx_st.cur
    and _ctx_run.mark is _ctx_mark
    and _ctx_run.code is _ctx_frame.f_code
    {same_key}
):
    for _ctx_frame in _ctx_run.again:
        break
    _ctx_run = None
else:
    _ctx_frame = _ctx_run = None
    _ctx_within(_ctx_st, {key}, None)"""

_SAME_KEY: Final = "and _ctx_run.bracket.key is {key}"

fastpath.__dict__.update(_ctx_caller=get_frame, _ctx_nowhere=_nowhere, _ctx_no_run=NO_RUN)


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
        marked = _Marked(target, self._options, about_point=self._at is not None)
        key = "None"
        if self._key is not None:
            key = _part(target, "key", self._key)
        elif target.first is not None:
            key = target.path("key", target.first)
        where = "None"
        if self._at is not None:
            where = _part(target, "at", self._at)
        elif self._span is not None:
            where = _span_part(target, self._span)
            marked.span_names = names_of(self._span)
        own = self._key is None or self._key == target.first
        nested = self._options.nested if self._marker.endswith("_start") else None
        _check_shape(target, self._marker, self._options.name, not own, self._span is not None, nested)
        if self._marker == "within_range":
            check = f"_ctx_within(_ctx_st, {key}, {where})"
            if where == "None" and key.isidentifier():
                check = _AGAIN.format(key=key, same_key="" if key == "None" else _SAME_KEY.format(key=key))
            return Plan([check], _ctx_within=marked.within, _ctx_mark=marked.mark)
        if self._marker.endswith("_start"):
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
    nested: bool = False,
    why: str = "",
) -> Range:
    """Decorate the function that opens the bracket ``name``.

    A call is a sleep point (CTX101 where its caller may not sleep).  The bracket opens when the function
    returns, for a coroutine function when the coroutine does; not if it raises.  It belongs to the owner that
    called, and remembers whether that one could have slept at the call.  Many may be open, and overlap, unless that is
    declared otherwise.

    Args:
        name: of the bracket; start, end and ``within_range`` agree on it.
        key: which of the brackets of that name: the name of a parameter, a dotted path from one
            ("mm.id"), or a callable that is given the call's arguments.  By default ``self`` or ``cls``, if that is
            the first parameter; else the name alone.
        span: what it covers, half-open: the names of two parameters, or a callable that returns two values.
        sleeps: False if a call never sleeps.
        owner: "any" if others may work in the bracket, and close it.
        nested: True if this bracket and others that are declared so, whatever their names and keys, are closed in the
            reverse order of their opening: CTX204 where one is closed and a later one of the same owner is still open.
        why: the domain's reason for the rule; shown in reports.

    Raises:
        TypeError, ValueError: when decorating, for wrong use.  At a call: ValueError for an empty or reversed
            span, TypeError for one whose ends can't be compared.
    """
    options = Options(check_name("range_start", name), check_flag("range_start", "sleeps", sleeps), owner)
    check_choice("range_start", "owner", owner, OWNERS)
    options = options._replace(nested=check_nested("range_start", options, nested))
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
    run, also if it raised; CTX202 if there is none, CTX204 if it is declared to nest and one that was opened inside is
    still open, CTX205 if a lock was taken inside and is still held.
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
    ``nested`` is None where that isn't for it to say.
    """

    qualname: str
    marker: str
    keyed: bool
    spanned: bool
    nested: bool | None
    function: weakref.ref[Any]


#: By module, scope and bracket name.  The functions are not kept alive: a scope that is run again starts afresh.
_shapes: Final[dict[tuple[str, str, str], list[_Shape]]] = {}


def _check_shape(target: Target, marker: str, name: str, keyed: bool, spanned: bool, nested: bool | None) -> None:
    """Refuse a bracket whose functions, in one class or module, can never meet or say two things of it."""
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
        if None not in (nested, shape.nested) and nested is not shape.nested:
            has, lacks = (target.qualname, shape.qualname) if nested else (shape.qualname, target.qualname)
            raise ValueError(
                f"@{marker}({name!r}) on {target.qualname}: {has} says nested=True and {lacks} doesn't; the functions"
                " of one bracket must agree"
            )
    try:
        alive = weakref.ref(function)
    except TypeError:
        return
    here.append(_Shape(target.qualname, marker, keyed, spanned, nested, alive))
    _shapes[scope] = here
