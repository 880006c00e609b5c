"""``fork()`` while other threads hold locks (CTX306): in the child there is nobody who could release them.

Many such locks are put right in the child, by a function that somebody has registered for that
(:func:`os.register_at_fork`): it initialises, releases or replaces them.  Only the child can know, when all of these
have run.  So both processes share some bytes for each fork at which other threads hold locks, and for no other fork:
the child answers there, again when it leaves, and the parent reads it when it is asked what was found.  Nobody waits,
but for a moment when a session ends.

The child that then blocks on such a lock says so itself, before it does: it will wait for ever.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import BLOCK, REGION, LockClass
from ctxcheck.engine.findings import Entry, Finding, ForkFacts
from ctxcheck.engine.owner import VOID, Node, Owner, OwnerState
from ctxcheck.engine.raw import ORIGINALS, allocate_lock, shared_bytes
from ctxcheck.engine.sites import EMPTY, Trace, capture

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator

#: Forks whose children are still asked; what older ones have answered by then is what counts.
MAX_FORKS: Final = 64
#: What the parent waits for an answer when a session ends, in seconds, and between two looks.
PATIENCE: Final = 1.0
_LOOK: Final = 0.005

#: What a child says of itself, and of each hold.
_UNKNOWN, _ANSWERED, _BECAME_ANOTHER = 0, 1, 2
_HELD, _PUT_RIGHT = 1, 2

_Condition: Final[Any] = ORIGINALS["Condition"]


class Hold(NamedTuple):
    """A lock that another thread held at a fork: ``now`` is what that one did."""

    lock: weakref.ref[Any]
    node: Node
    lock_class: LockClass
    holder: Owner
    now: Trace


@final
class Fork:
    """One fork at which other threads held locks: who forked, where, and what the child answers."""

    __slots__ = ("allowed", "answers", "by", "holds", "origin", "trace")

    def __init__(self, by: Owner, trace: Trace, holds: list[Hold], allowed: str | None, origin: str) -> None:
        self.by: Owner = by
        self.trace: Trace = trace
        self.holds: list[Hold] = holds
        self.allowed: str | None = allowed
        self.origin: str = origin
        self.answers: Any = shared_bytes(1 + len(holds))

    def finding(self, hold: Hold, blocked: OwnerState | None = None, trace: Trace = EMPTY) -> Finding:
        """What is told of one hold; ``blocked`` is who waits for it in the child, at ``trace``."""
        entry = Entry(hold.node.step, hold.node.trace, False)
        unknown = blocked is None and self.answers[0] == _UNKNOWN
        return Finding(
            "CTX306",
            "certain" if blocked is not None else "unlikely" if unknown else "possible",
            # nobody's own, in the parent: it is told whenever somebody asks
            None if blocked is None else blocked.owner,
            self.trace if blocked is None else trace,
            (hold.lock_class.key, hold.node.trace.function(), self.trace.function()),
            ForkFacts(hold.lock_class, hold.holder, entry, hold.now, self.by, self.trace, blocked is not None, unknown),
            (hold.lock_class,),
            self.allowed,
            self.origin,
        )


@final
class Forks:
    """What one session knows of forks.  Needs no lock: each change is one atomic operation."""

    __slots__ = ("_engine", "_making", "_mine", "_older", "_outstanding", "anew", "lost")

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self._making: Fork | None = None
        self._outstanding: list[Fork] = []
        self._older: dict[tuple[str, ...], Finding] = {}
        #: in a child: the fork that it came from
        self._mine: Fork | None = None
        #: in a child: holds of threads that don't exist here
        self.lost: dict[Node, Hold] = {}
        #: in a child: those whose locks were replaced
        self.anew: set[Node] = set()

    # --- in the parent ---------------------------------------------------------------

    def before(self, state: OwnerState | None, here: int) -> bool:
        """The thread ``here`` is about to fork: see what others hold.  Returns whether the child is to answer."""
        self._making = None
        frames: dict[int, Any] = {}
        holds: list[Hold] = []
        for other in self._engine.roster.live_states():
            if other.ended or other.owner.ident == here:
                continue
            for node in other.all_own_held():
                lock = self._lock_of(other, node)
                if lock is None:
                    continue
                frames = frames or sys._current_frames()
                other.owner.learn_name()
                lock_class = node.step.lock_class
                assert lock_class is not None
                holds.append(
                    Hold(weakref.ref(lock), node.stands_for, lock_class, other.owner, other.stack(frames))
                )
        if not holds:
            return False
        if len(self._outstanding) >= MAX_FORKS:
            self._fold(self._outstanding.pop(0))
        if state is None or state.cur is VOID:
            by, allowed, origin = Owner(0, here), None, self._engine.origins.default
        else:
            by, allowed = state.owner, self._engine.allowed(state.cur, "CTX306")
            origin = self._engine.of(state).origin
        by.learn_name()
        self._making = Fork(by, capture(2), holds, allowed, origin)
        return True

    def _lock_of(self, holder: OwnerState, node: Node) -> Any:
        """The lock that is held in ``node``, if a child could need it."""
        lock_class = node.step.lock_class
        assert lock_class is not None
        kind = lock_class.kind
        if kind is REGION or kind.awaited or kind.resource or kind.abroad or kind.needs != BLOCK:
            return None
        if lock_class.handed_over or self._engine.of(holder).latches.has(lock_class) or "process" in kind.name:
            return None
        held = node.stands_for
        lock = None if held.made_for is None else held.made_for()
        if lock is not None and slowpath.hold_of(lock) is held:
            return lock
        # another one of its class, on a chain that was known; each refers to what counts them
        others = gc.get_referrers(lock_class.base.token)
        return next((other for other in others if slowpath.hold_of(other) is held), None)

    def in_parent(self) -> None:
        """The fork is over."""
        fork, self._making = self._making, None
        if fork is not None:
            self._outstanding.append(fork)

    def _fold(self, fork: Fork) -> None:
        for finding in _told(fork):
            self._older.setdefault((finding.origin, *finding.identity), finding)

    def pending(self) -> Iterator[Finding]:
        """What was found, by what the children have answered so far."""
        yield from list(self._older.values())
        for fork in list(self._outstanding):
            yield from _told(fork)

    def settled(self, origin: str) -> list[Finding]:
        """As :meth:`pending`, of an origin that is over; they are forgotten here."""
        forks = [fork for fork in self._outstanding if fork.origin == origin]
        older = [key for key, finding in self._older.items() if finding.origin == origin]
        if not forks and not older:
            return []
        self.wait_for_answers()
        self._outstanding = [fork for fork in self._outstanding if fork.origin != origin]
        return [*map(self._older.pop, older), *(finding for fork in forks for finding in _told(fork))]

    def wait_for_answers(self) -> None:
        """Give children that were forked just now the time to answer."""
        pause, left = allocate_lock(), PATIENCE
        pause.acquire()
        while left > 0 and any(fork.answers[0] == _UNKNOWN for fork in self._outstanding):
            pause.acquire(True, _LOOK)
            left -= _LOOK

    def clear(self) -> None:
        """It was told."""
        self._outstanding.clear()
        self._older.clear()

    # --- in the child ------------------------------------------------------------------

    def in_child(self) -> None:
        """The other threads are gone; the functions that put locks right may be still to come."""
        self.clear()
        self._mine, self._making = self._making, None
        self.anew.clear()
        # what was lost before stays so
        self.lost.update({hold.node: hold for hold in self._mine.holds} if self._mine is not None else {})

    def answer(self) -> None:
        """All functions for a new child have run, or it leaves: see which locks are still held, and tell the parent."""
        fork = self._mine
        if fork is None:
            return
        for index, hold in enumerate(fork.holds, 1):
            held = hold.node in self.lost and self._is_held(hold)
            fork.answers[index] = _HELD if held else _PUT_RIGHT
            if not held:
                self.lost.pop(hold.node, None)
        fork.answers[0] = _ANSWERED

    def _is_held(self, hold: Hold) -> bool:
        lock = hold.lock()
        if lock is None or slowpath.hold_of(lock) is not hold.node or hold.node in self.anew:
            return False
        return _is_reachable(lock)

    def becomes_another(self, yes: bool) -> None:
        """This process is about to execute another program, or couldn't."""
        if self._mine is not None:
            self._mine.answers[0] = _BECAME_ANOTHER if yes else _ANSWERED

    def released(self, node: Node) -> bool:
        """A hold was given up by the one thread that there is; returns whether it was that of one that isn't."""
        return self.lost.pop(node, None) is not None

    def blocked(self, state: OwnerState, lock: Any) -> None:
        """``state`` is about to wait for ``lock``: for ever, if a thread holds it that isn't in this process."""
        node = slowpath.hold_of(lock)
        hold = None if node is None else self.lost.get(node)
        fork = self._mine
        if hold is None or fork is None:
            return
        state.owner.learn_name()
        self._engine.emit(state, fork.finding(hold, state, capture(2)))


def _told(fork: Fork) -> Iterator[Finding]:
    if fork.answers[0] == _BECAME_ANOTHER:
        return
    for index, hold in enumerate(fork.holds, 1):
        if fork.answers[index] != _PUT_RIGHT:
            yield fork.finding(hold)


#: What refers to a lock, and is no place where a program would find it.
_NO_PLACE: Final = (types.FrameType, types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)


def _is_reachable(lock: Any) -> bool:
    """Whether anything but the frames of threads that are gone refers to a lock: where another one was put in its
    place, nothing does.  A Condition that was replaced still has its lock."""
    for _ in range(3):
        condition: Any = None
        # no variable of ours may be one that an inner function shares: it would be a place
        for referrer in gc.get_referrers(lock):
            if not issubclass(type(referrer), _NO_PLACE):  # isinstance() may ask the program's code
                condition = _owner_of(referrer)
                if condition is None:
                    return True
        if condition is None:
            return False
        lock = condition
    return True


def _owner_of(referrer: Any) -> Any:
    """The Condition whose attributes these are."""
    if issubclass(type(referrer), _Condition):
        return referrer
    if type(referrer) is dict and "_waiters" in referrer and "_lock" in referrer:
        return next((o for o in gc.get_referrers(referrer) if issubclass(type(o), _Condition)), None)
    return None
