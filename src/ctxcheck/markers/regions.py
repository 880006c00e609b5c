"""``region`` and ``might_enter``: stretches of code that have a place in the order of locks, without being one."""

from __future__ import annotations

from typing import Any, Final, final, overload

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import ENTER, MIGHT_ENTER, REGION, REGISTRY, LockClass, Step
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import capture, is_own
from ctxcheck.markers.contexts import Section
from ctxcheck.markers.held import ask
from ctxcheck.markers.shapes import F, Plan, enter, held, mark
from ctxcheck.markers.target import Target
from ctxcheck.markers.usage import ENABLED, check_text, describe, used_as

_classes: Final[dict[str, LockClass]] = {}


@final
class Region(Section):
    """What :func:`region` returns: a decorator, and a context manager.

    Attributes:
        name: what it is called in reports.
        lock_class: its place in the order of locks.
    """

    __slots__ = ("lock_class", "name")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name: str = name
        found = _classes.get(name)
        self.lock_class: LockClass = found or _classes.setdefault(
            name, REGISTRY.get(name, name, REGION, capture(1, limit=1))
        )

    def __call__(self, function: F, /) -> F:
        """Mark ``function``: its body runs inside."""
        return mark(function, "region", self._plan)

    def _plan(self, target: Target) -> Plan:
        plan = held(self.step)
        if target.kind != "function":
            # asked before there is a body: what the mode raises must not leave one behind that was never run
            plan.checks.append("_ctx_asked(_ctx_st)")
            plan.cells["_ctx_asked"] = self._asked
        return plan

    def _asked(self, state: OwnerState) -> None:
        if state.cur is not VOID and self.step not in state.cur:
            enter(state, self.step)

    def _step(self) -> tuple[Step, bool]:
        return self.step, True

    @property
    def step(self) -> Step:
        """Its class, as it is entered."""
        return self.lock_class.step(ENTER)

    def held_by(self, state: OwnerState) -> Node | None:
        """Where this owner stands since it entered, if it is inside."""
        return next((node.stands_for for node in state.cur.chain() if node.step.lock_class is self.lock_class), None)

    def __repr__(self) -> str:
        return f"<region {self.name!r}>"


def region(name: str, /) -> Region:
    """Name a stretch of code that may be entered from many places, so that it has its place in the order of locks.

    ``with region("callbacks"):``, ``async with``, or as a decorator of a function, method, coroutine, generator or
    async generator.  What is locked inside comes after the region; a place that holds a lock and enters the region, or
    says that it may (:func:`might_enter`), puts that lock before it.  Both together are a cycle (CTX001), also where
    they never ran together.

    It keeps nobody out, is no sleep, and may be entered again from inside, which adds nothing.  Regions of one name are
    one.  From Linux ``lockdep``: its maps without a lock (``fs_reclaim``, the MMU notifiers').

    Raises:
        TypeError, ValueError: the name is no string, or is empty.
    """
    return Region(check_text("region", "the name", name))


@final
class MightEnter:
    """What :func:`might_enter` returns: a decorator."""

    __slots__ = ("_region",)

    def __init__(self, inside: Region) -> None:
        self._region: Region = inside

    def __call__(self, function: F, /) -> F:
        """Mark ``function``."""
        return mark(function, "might_enter", self._plan)

    def _plan(self, _target: Target) -> Plan:
        return Plan(["_ctx_enters(_ctx_st)"], _ctx_enters=self._ask)

    def _ask(self, state: OwnerState) -> None:
        ask(state, self._region, None)


@overload
def might_enter(what: str, /) -> MightEnter: ...
@overload
def might_enter(what: Region, /) -> MightEnter: ...
def might_enter(what: Any, /) -> MightEnter:
    """Say that this may enter a region: the locks that are held come before it, as if it was entered (CTX001).

    As a call, ``might_enter("callbacks")``: here and now.  As a decorator, ``@might_enter("callbacks")``: at each call
    of the function, when its body starts.  The two are told apart by the bytecode behind the call, where a new order is
    about to be learned.

    Args:
        what: the region, or its name.

    Raises:
        TypeError, ValueError: it is neither.
    """
    if not isinstance(what, Region):
        if not isinstance(what, str):
            raise TypeError(f"might_enter: {describe(what)} is no region: give its name, or what region() returned")
        what = Region(check_text("might_enter", "the name", what))
    if ENABLED and fastpath.active:
        state = fastpath.current()
        cur = state.cur
        # with nothing held there is nothing to learn
        if cur.parent is not cur and cur.get(what.lock_class.step(MIGHT_ENTER)) is None:
            frame: Any = get_frame(1)
            while frame is not None and is_own(frame.f_code):
                frame = frame.f_back
            if frame is not None and slowpath.consult(used_as, frame) == "value":
                ask(state, what, None)
    return MightEnter(what)
