"""Locks that go while they are held (CTX304).

A lock may be collected at any bytecode, in any thread, while any lock is held.  So its finalizer only leaves a note,
which takes nothing and waits for nobody; it is told in the next slow path of some owner, or at the end.
A plain Lock may be passed on, and that a class does so may be learned later: those are told at the end only.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.findings import DestroyedFacts, Entry, Finding
from ctxcheck.engine.owner import Node, Owner, OwnerState
from ctxcheck.engine.raw import get_frame, get_ident, process
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import Trace, capture, is_own

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator


#: The thread in which the cyclic collector is at work, if it is.
COLLECTING: Final[list[int]] = []


class _Note(NamedTuple):
    lock_class: LockClass
    holder: Owner
    held: Entry
    dropped: Trace
    allowed: str | None
    origin: str


@final
class Destroyed:
    """The locks of one session that went while they were held."""

    __slots__ = ("_engine", "_kept", "_notes", "_pid", "_told")

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self._notes: deque[_Note] = deque()
        self._kept: list[_Note] = []
        #: holds of locks that were replaced or re-initialised, which may be collected next
        self._told: set[Node] = set()
        self._pid: int = process()

    def bury(self, node: Node) -> bool:
        """A lock was collected that ``node``'s owner held.  Safe in a finalizer.  Returns whether nobody holds it now.

        Where origins are told apart, what the cyclic collector frees stays held: whether it came before the origin was
        over is chance, and by then it is told of as left held (CTX303).  So does what we are the last to let go of:
        the collector came while we looked at it.
        """
        lock_class = node.step.lock_class
        if lock_class is None or not lock_class.kind.guards or lock_class.kind.abroad or lock_class.handed_over:
            return True
        if node in self._told:
            self._told.discard(node)
            return True
        if process() != self._pid and not node.state.is_current():
            return True  # in a forked child the other owners are gone
        origin = self._engine.origins.whose_hold(node)
        if origin and (get_ident() in COLLECTING or _is_ours()):
            return False
        held = Entry(node.step, node.trace, False)
        self._notes.append(
            _Note(
                lock_class, node.state.owner, held, capture(2), self._engine.allowed(node, "CTX304"), origin,
            )
        )
        return True

    def told(self, node: Node) -> None:
        """This hold was told of: that its lock goes is no news."""
        self._told.add(node)

    def tell(self, state: OwnerState) -> None:
        """Tell what was noted, from an owner's slow path."""
        while self._notes:
            try:
                note = self._notes.popleft()
            except IndexError:
                return  # another thread was faster
            if note.lock_class.kind.owned:
                self._engine.emit(state, _collected(note))
            else:
                self._kept.append(note)

    def pending(self) -> list[Finding]:
        """What will be told at the end, unless its class turns out to be handed over until then."""
        return [_collected(note) for note in (*self._kept, *self._notes) if not note.lock_class.handed_over]

    def settled(self, origin: str) -> list[Finding]:
        """As :meth:`pending`, of an origin that is over; they are forgotten here."""
        done = [note for note in (*self._kept, *self._notes) if note.origin == origin]
        self._kept = [note for note in self._kept if note.origin != origin]
        for note in done:
            if note in self._notes:
                self._notes.remove(note)
        return [_collected(note) for note in done if not note.lock_class.handed_over]

    def clear(self) -> None:
        """Forget all of it: it was told, or isn't this process's business."""
        self._notes.clear()
        self._kept.clear()
        self._told.clear()

    def report(self, state: OwnerState, node: Node, how: Any) -> None:
        """``state`` re-initialises or replaces a lock that is held in ``node``.

        In a forked child that is how locks are put right which were held at the fork.
        """
        lock_class = node.step.lock_class
        if process() != self._pid:
            self._engine.forks.anew.add(node.stands_for)
            return
        if lock_class is None or lock_class.handed_over or node.state.ended:
            return
        if self._engine.of(state).latches.has(lock_class):
            return
        trace = capture(2)
        state.owner.learn_name()
        node.state.owner.learn_name()
        identity = (lock_class.key, how, trace.function())
        facts = DestroyedFacts(lock_class, how, node.state.owner, self._engine.entry(node), trace)
        allowed = self._engine.allowed(state.cur, "CTX304")
        finding = Finding("CTX304", "certain", state.owner, trace, identity, facts, (lock_class,), allowed)
        self._told.add(node)
        self._engine.emit(state, finding)


def _is_ours() -> bool:
    """Whether a finalizer that is under way was called by our own code."""
    frame: Any = get_frame(2)
    while frame is not None and frame.f_code.co_name in ("bury", "forget", "__del__") and is_own(frame.f_code):
        frame = frame.f_back
    return frame is not None and is_own(frame.f_code)


def _collected(note: _Note) -> Finding:
    lock_class, trace = note.lock_class, note.held.trace
    note.holder.learn_name()
    grade: Grade = "certain" if lock_class.kind.owned else "possible"
    identity = (lock_class.key, "collected", trace.function())
    facts = DestroyedFacts(lock_class, "collected", note.holder, note.held, note.dropped)
    # nobody's own: whoever happens to tell it must not be interrupted for it
    return Finding("CTX304", grade, None, trace, identity, facts, (lock_class,), note.allowed, note.origin)
