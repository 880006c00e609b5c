"""``requires``, ``forbids``, ``assert_context`` and ``assert_no_context``."""

from __future__ import annotations

from types import CodeType, FrameType
from typing import Any, Final, final

from ctxcheck import fastpath
from ctxcheck.engine import contexts, slowpath
from ctxcheck.engine.contexts import Need
from ctxcheck.engine.owner import OwnerState
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import EMPTY, Trace, is_own
from ctxcheck.markers.brackets import check_flag, check_why
from ctxcheck.markers.contexts import MAX_LABELS
from ctxcheck.markers.named import Context, Role, check_context
from ctxcheck.markers.shapes import F, Plan, mark
from ctxcheck.markers.target import Target
from ctxcheck.markers.usage import ENABLED, is_statement

_needs: Final[dict[tuple[bool, bool, tuple[str, ...]], Need]] = {}


def _need(names: tuple[str, ...], *, wanted: bool, anyone: bool) -> Need:
    """One and the same for all who need the same, so that they share what is known."""
    key = (wanted, anyone, names)
    found = _needs.get(key)
    if found is None:
        found = Need(names, wanted=wanted, anyone=anyone)
        if len(_needs) < MAX_LABELS:
            found = _needs.setdefault(key, found)
    return found


@final
class _Marked:
    """The check of one marked function."""

    __slots__ = ("_declared", "_need", "_what", "_why")

    def __init__(self, target: Target, need: Need, why: str) -> None:
        self._what = target.qualname
        self._declared: Trace = target.declared
        self._need: Need = need
        self._why: str = why

    def __call__(self, state: OwnerState) -> None:
        slowpath.consult(contexts.check, state, self._need, self._what, "marked", self._declared, self._why)


#: Places of such calls, with the answer; the code is kept, so that its id stays its own.
_places: Final[dict[tuple[int, int], tuple[CodeType, bool]]] = {}


def _is_statement(frame: FrameType) -> bool:
    key = (id(frame.f_code), frame.f_lasti)
    known = _places.get(key)
    if known is None:
        if len(_places) >= MAX_LABELS:
            _places.clear()
        known = _places[key] = (frame.f_code, is_statement(frame))
    return known[1]


@final
class Needs:
    """What :func:`requires` and :func:`forbids` return: a decorator."""

    __slots__ = ("_marker", "_why", "need")

    def __init__(self, marker: str, need: Need, why: str) -> None:
        self._marker: str = marker
        self.need: Need = need
        self._why: str = why

    def __call__(self, function: F, /) -> F:
        """Mark ``function``."""
        return mark(function, self._marker, self._plan)

    def _plan(self, target: Target) -> Plan:
        check = ["if _ctx_st.cur[_ctx_need] is None:", "    _ctx_ask(_ctx_st)"]
        return Plan(check, _ctx_need=self.need, _ctx_ask=_Marked(target, self.need, self._why))

    def check_here(self, state: OwnerState, *, anyway: bool = False) -> None:
        """The calling function says so here; not ``anyway``: if it does nothing else with it."""
        frame: Any = get_frame(1)
        while frame is not None and is_own(frame.f_code):
            frame = frame.f_back
        if ENABLED and frame is not None and (anyway or slowpath.consult(_is_statement, frame)):
            what = str(frame.f_code.co_qualname)
            slowpath.consult(contexts.check, state, self.need, what, "here", EMPTY, self._why)

    def __repr__(self) -> str:
        return f"<{self._marker} {', '.join(map(repr, self.need.names))}>"


#: By marker and arguments: a statement in a loop makes nothing.
_made: Final[dict[tuple[str, tuple[Any, ...], bool, str], Needs]] = {}


def _make(marker: str, names: tuple[Any, ...], anyone: bool, why: str) -> Needs:
    if not names:
        raise TypeError(f'{marker}: it names no context; say which: {marker}("transaction")')
    check_flag(marker, "any", anyone)
    check_why(marker, why)
    texts = tuple(dict.fromkeys(check_context(marker, name) for name in names))
    wanted = marker in ("requires", "assert_context")
    made = Needs(marker, _need(texts, wanted=wanted, anyone=anyone), why)
    if len(_made) < MAX_LABELS:
        _made[marker, names, anyone, why] = made
    return made


def _get(marker: str, names: tuple[Any, ...], anyone: bool, why: str) -> Needs:
    try:
        found = _made.get((marker, names, anyone, why))
    except TypeError:  # something that has no hash, and is no name
        found = None
    return found or _make(marker, names, anyone, why)


def requires(*names: str | Context | Role, any: bool = False, why: str = "") -> Needs:  # noqa: A002
    """Say that this needs to be inside of these contexts, all of them (CTX107).

    ``@requires("transaction")``: at each call of the function; of a coroutine or generator, when its body starts.
    ``requires("transaction")`` as a statement: here and now.  That is told by the bytecode behind the call; where its
    value is used, in whatever way, it is no statement (:func:`assert_context` is, anywhere).

    A name means whatever is called so: a :func:`context`, an open range (:func:`range_start`), the role of this thread
    (:func:`thread_role`), an atomic section, a region, an interrupting context, the "event loop".

    Args:
        names: contexts, or their names.
        any: one of them is enough.
        why: the domain's reason for the rule; shown in reports.

    Costs one lookup where it was fine before, a walk over what the caller is inside of where it wasn't.

    Raises:
        TypeError, ValueError: no name, or one that is none.
    """
    found = _get("requires", names, any, why)
    if fastpath._engine is not None:
        try:
            st = fastpath._local.st
        except AttributeError:
            st = fastpath.begin()
        if st.cur[found.need] is None:
            found.check_here(st)
    return found


def forbids(*names: str | Context | Role, why: str = "") -> Needs:
    """Say that this mustn't run inside of any of these contexts (CTX106); otherwise as :func:`requires`."""
    found = _get("forbids", names, False, why)
    if fastpath._engine is not None:
        try:
            st = fastpath._local.st
        except AttributeError:
            st = fastpath.begin()
        if st.cur[found.need] is None:
            found.check_here(st)
    return found


def assert_context(*names: str | Context | Role, any: bool = False, why: str = "") -> None:  # noqa: A002
    """Check that the caller is inside of these contexts (CTX107 if not); arguments as for :func:`requires`."""
    _assert("assert_context", names, any, why)


def assert_no_context(*names: str | Context | Role, why: str = "") -> None:
    """Check that the caller is inside of none of these contexts (CTX106 if it is)."""
    _assert("assert_no_context", names, False, why)


def _assert(marker: str, names: tuple[Any, ...], anyone: bool, why: str) -> None:
    found = _get(marker, names, anyone, why)
    if fastpath.active:
        state = fastpath.current()
        if state.cur[found.need] is None:
            found.check_here(state, anyway=True)
