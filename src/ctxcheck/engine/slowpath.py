"""What an acquire and a release do when the fast path can't: first time on a chain, contended, re-entered,
released by somebody else or out of order, not being checked.

Every function here works on a *lock record*: any object with ``node`` (where its
holder stands, or ``None``), ``step`` (its class, taken by ``with``) and the raw methods ``_acquire``
and ``_release``.  The raw lock is always taken and released as the program asked, whatever happens to the checking.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar, cast, final

from ctxcheck.engine import ranges
from ctxcheck.engine.classes import TIMED, TRY, Step
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.raw import RLockType
from ctxcheck.engine.sites import capture, is_own

_T = TypeVar("_T")
_release_save: Final[Callable[[Any], Any]] = RLockType._release_save  # type: ignore[attr-defined]
_acquire_restore: Final[Callable[[Any, Any], None]] = RLockType._acquire_restore  # type: ignore[attr-defined]
_sleep: Final = time.sleep
_now: Final = time.monotonic

_MANY: Final = 1 << 62
_turnstile: Final = itertools.repeat(True, _MANY)
#: Always True, and counts how often it was asked: the cheapest counter there is.  Asked once an acquisition.
count: Final = _turnstile.__next__


def acquisitions() -> int:
    """How many acquisitions were checked since the process began."""
    return _MANY - _turnstile.__length_hint__()


#: How long a thread that was interrupted in an acquire waits for somebody to claim the lock, in seconds.
CLAIM_WITHIN: Final = 0.25
#: Between the two looks at who waits for whom, in seconds.
CONFIRM_AFTER: Final = 0.05


class LockRecord(Protocol):
    """What the slow path needs of a lock."""

    node: Any
    step: Step

    @property
    def _acquire(self) -> Callable[..., bool]: ...
    @property
    def _release(self) -> Callable[[], None]: ...


@final
class Reentry:
    """In place of a re-entered lock's node: so that its release isn't the expected one, and is counted."""

    __slots__ = ("depth", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.depth = 1

    @property
    def state(self) -> OwnerState:
        """The owner."""
        return self.node.state

    @property
    def step(self) -> Step:
        """As the node's."""
        return self.node.step


@final
class Unused:
    """In place of a node, until a lock whose name isn't known yet is first taken."""

    __slots__ = ("settle",)

    state = None

    def __init__(self, settle: Callable[[Any], None]) -> None:
        self.settle = settle


#: What to do when the validator itself breaks; set by the session.
on_fault: list[Callable[[BaseException], None]] = []


def consult(call: Callable[..., _T], *args: Any) -> _T | None:
    """Ask the validator; if it breaks inside, switch it off and answer ``None``: the program goes on.

    What the validator raises on purpose passes through, and so does what isn't its own: an
    exception from a signal handler, from a callback of the program, or thrown into the thread.
    """
    try:
        return call(*args)
    except ViolationError:
        raise
    except (RecursionError, MemoryError) as error:
        if not _is_ours(error):
            raise
        return None  # the program is at its limits, not the validator: this one step goes unchecked
    except Exception as error:
        if not _is_ours(error):
            raise
        for report in on_fault:
            report(error)
        return None


def _is_ours(error: BaseException) -> bool:
    # a builtin exception whose innermost frame is ours: nobody else's code was running
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return type(error).__module__ == "builtins" and traceback is not None and is_own(traceback.tb_frame.f_code)


def acquire(lock: LockRecord, state: OwnerState, step: Step, blocking: Any = True, timeout: Any = -1) -> bool:
    """Acquire a non-reentrant lock; ``step`` is its class taken by ``with`` or by call.

    As ``threading.Lock.acquire``: same arguments, results and errors.
    """
    node = lock.node
    if type(node) is Unused:
        node.settle(lock)
        if lock.node is node:
            lock.node = None
        node = lock.node
        step = lock.step if step.mode is None or step.mode.scoped else lock.step.by_call
    engine = state.engine
    if engine is None or not _usual(blocking, timeout):
        return _unchecked(lock, blocking, timeout)
    lock_class = step.lock_class
    assert lock_class is not None
    waits = bool(blocking) and timeout != 0
    if node is not None and node.state is state and waits and timeout == -1:
        held = state.find(node) if state.cur is not VOID else node
        if held is not None and not lock_class.handed_over and not lock_class.kind.resource:
            consult(engine.self_deadlock, state, lock_class, held)
    if state.cur is VOID:
        return _unchecked(lock, blocking, timeout)
    if not waits:
        if not _raw(lock, blocking, timeout):
            return False
        new = _step_on(state, lock_class.step(TRY), lock)
    elif timeout != -1:
        new = _step_on(state, lock_class.step(TIMED), lock)
        if not _raw(lock, blocking, timeout):
            return False
    else:
        new = _step_on(state, step, lock)
        _block(lock, state)
    _stand_on(lock, state, new)
    return True


def _usual(blocking: Any, timeout: Any) -> bool:
    # anything else is for the raw method to refuse, in its own words
    return type(blocking) in (bool, int) and type(timeout) in (int, float) and (timeout == -1 or timeout >= 0)


def _unchecked(lock: LockRecord, blocking: Any, timeout: Any) -> bool:
    got = _raw(lock, blocking, timeout)
    if got:
        lock.node = VOID
    return got


def _step_on(state: OwnerState, step: Step, lock: Any) -> Node:
    """The node for one more step: cached, or validated now; VOID where the validator can't say."""
    new = state.cur[step]
    if new is None:
        new = cast("Node | None", consult(state.engine.acquire, state, step, lock))
    return VOID if new is None else new


def _stand_on(lock: LockRecord, state: OwnerState, node: Node) -> None:
    lock.node = node
    if node is not VOID:
        count()
        # somebody else may have stood here meanwhile (a handler that ran while we waited); a chain that moved
        # on is followed, not overwritten
        if node.parent is not state.cur:
            node = Node(state.cur, node.step, state, node.trace, stands_for=node)
        state.cur = node
        lock_class = node.step.lock_class
        if lock_class is not None and lock_class.nested:
            consult(state.engine.remember_instance, state, node.stands_for, lock)


def _raw(lock: LockRecord, blocking: Any, timeout: Any) -> bool:
    try:
        return lock._acquire(blocking, timeout)
    except BaseException:
        undo(lock)
        raise


def _block(lock: LockRecord, state: OwnerState) -> None:
    """Take the raw lock, however long it takes; look at who waits for whom when it takes long."""
    try:
        if lock._acquire(False):
            return
        engine = state.engine
        state.waiting = lock
        try:
            if lock._acquire(True, engine.deadlock_after):
                return
            seen = consult(engine.wait_cycle, state, lock)
            if seen is not None and lock._acquire(True, CONFIRM_AFTER):
                return
            consult(engine.still_blocked, state, lock, seen)
            lock._acquire()
        finally:
            state.waiting = None
            engine.no_longer_blocked(state)
    except BaseException:
        undo(lock)
        raise


def undo(lock: LockRecord) -> None:
    """An exception came out of a raw acquire: give the lock back if it was taken all the same.

    A signal handler may raise between the raw acquire's success and its return to us, where
    the interpreter's own ``with lock:`` can't be interrupted.  Whether the lock was taken can't be
    seen from here, but a holder says so at once (``node``): held and claimed by nobody means ours.
    """
    until = _now() + CLAIM_WITHIN
    while lock.node is None:
        if lock._acquire(False):
            break  # it was free: we never had it, and now give back what we took to find out
        if _now() > until:
            break  # held, and nobody has claimed it
        _sleep(0.001)
    else:
        return
    lock._release()


def release(lock: LockRecord, state: OwnerState) -> None:
    """Release a non-reentrant lock that isn't the innermost thing that the caller holds, or isn't the caller's."""
    node = lock.node
    lock_class = lock.step.lock_class
    assert lock_class is not None
    try:
        if node is None:
            if state.engine is not None and state.cur is not VOID:
                consult(state.engine.unbalanced_release, state, lock_class)
        else:
            if lock_class.kind.owned and node.state is not state and node is not VOID and _is_rival(node.state, state):
                consult(state.engine.foreign_release, state, lock_class, node)
                raise RuntimeError("cannot release un-acquired lock")
            lock.node = None
            consult(drop, lock_class, node, state)
    except RuntimeError:
        if node is not None and lock.node is node:
            raise
        lock._release()
        raise
    except BaseException:
        lock._release()
        raise
    lock._release()


def _is_rival(holder: OwnerState, state: OwnerState) -> bool:
    return state.engine is not None and holder.engine is state.engine and holder.owner.ident != state.owner.ident


def forget(lock: Any) -> None:
    """The lock goes, or is made anew, while it is held: nobody holds it any more.

    May run at any bytecode (in a finalizer, in a forked child), so the holder's chain isn't touched: it
    is told, and takes the entry off in its next slow path.
    """
    node = getattr(lock, "node", None)
    if node is None or node is VOID or type(node) is Unused:
        return
    lock.node = None
    holder = node.state
    if holder is not None and not holder.ended:
        holder.drops.append(node.node if type(node) is Reentry else node)


def drop(lock_class: Any, node: Node, state: OwnerState) -> None:
    """Take a released hold off its holder's chain."""
    if node is VOID:
        return
    holder = node.state
    if holder is state:
        if state.cur is VOID:
            holder.drops.append(node)
            return
        if state.brackets:
            ranges.released_inside(state.engine, state, node, capture(2))
        state.unlink(node)
    elif holder.is_current():
        # taken in another session by this same thread
        if holder.cur is VOID or not holder.unlink(node):
            holder.drops.append(node)
    elif state.engine is not None and holder.engine is state.engine:
        state.engine.foreign_release(state, lock_class, node)
    else:
        holder.drops.append(node)


# --- re-entrant locks -----------------------------------------------------------------


def reacquire(lock: Any, state: OwnerState, step: Step, blocking: Any = True, timeout: Any = -1) -> bool:
    """Acquire an RLock.  Its owner re-enters it without any effect on orders (it can't wait)."""
    if lock._is_owned():
        if not lock._acquire(blocking, timeout):
            return False
        node = lock.node
        if type(node) is Reentry:
            node.depth += 1
        elif node is not None:
            lock.node = Reentry(node)
        return True
    return acquire(lock, state, step, blocking, timeout)


def rerelease(lock: Any, state: OwnerState) -> None:
    """Release an RLock that is re-entered, not the innermost thing held, or not the caller's."""
    node = lock.node
    if type(node) is Reentry and lock._is_owned():
        node.depth -= 1
        if node.depth == 0:
            lock.node = node.node
        lock._release()
        return
    if not lock._is_owned() and state.engine is not None and state.cur is not VOID:
        # the raw release below refuses, in the interpreter's words
        if node is None:
            consult(state.engine.unbalanced_release, state, lock.step.lock_class)
        elif node is not VOID:
            base = node.node if type(node) is Reentry else node
            consult(state.engine.foreign_release, state, lock.step.lock_class, base)
        lock._release()
        return
    if lock._is_owned() and node is not None:
        lock.node = None
        try:
            consult(drop, lock.step.lock_class, node, state)
        finally:
            lock._release()
        return
    lock._release()


def undo_rlock(lock: Any) -> None:
    """As :func:`undo`; an RLock knows whether it is ours."""
    if lock.node is None and lock._is_owned():
        lock._release()


def release_save(lock: Any, state: OwnerState) -> Any:
    """Let go of an RLock altogether, for a wait; returns what :func:`acquire_restore` needs."""
    node = lock.node
    if lock._is_owned() and node is not None:
        lock.node = None
        consult(drop, lock.step.lock_class, node.node if type(node) is Reentry else node, state)
    return _release_save(lock)


def acquire_restore(lock: Any, state: OwnerState, saved: Any) -> None:
    """Take it back after the wait: an acquire like any other, whose order counts.

    A violation is raised only after the lock is held again: the ``with`` block around the wait will release it.
    """
    new, raised = VOID, None
    if state.engine is not None and state.cur is not VOID:
        try:
            new = _step_on(state, lock.step, lock)
        except ViolationError as error:
            raised = error
    state.waiting = lock
    try:
        _acquire_restore(lock, saved)
    finally:
        state.waiting = None
    _stand_on(lock, state, new)
    for _ in range(saved[0] - 1):
        node = lock.node
        if type(node) is Reentry:
            node.depth += 1
        else:
            lock.node = Reentry(node)
    if raised is not None:
        raise raised
