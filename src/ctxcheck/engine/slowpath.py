"""What an acquire and a release do when the fast path can't: first time on a chain, contended, re-entered,
released by somebody else or out of order, not being checked.

Every function here works on a *lock record*: any object with ``node`` (where its
holder stands, or ``None``), ``step`` (its class, taken by ``with``) and the raw methods ``_acquire``
and ``_release``.  The raw lock is always taken and released as the program asked, whatever happens to the checking.

Signal handlers may raise at any call and at the entry of any function, but not between the step of a ``for``
loop over a C iterator and the next store.  So a raw lock is taken by stepping an iterator that calls it, and
claimed (``lock.node``) before anything else: whatever comes after can be undone for certain.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from ctxcheck.engine import levels, ranges, waitgraph, waiting
from ctxcheck.engine.classes import RESTORE, TIMED, TRY, Step
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, Node, OwnerState, Reentry, Unused
from ctxcheck.engine.raw import RLockType, uninterrupted
from ctxcheck.engine.sites import capture, is_own

_T = TypeVar("_T")
_release_save: Final[Callable[[Any], tuple[int, int]]] = vars(RLockType)["_release_save"]
_acquire_restore: Final[Callable[[Any, Any], None]] = vars(RLockType)["_acquire_restore"]

_MANY: Final = 1 << 62
turnstile: Final = itertools.repeat((), _MANY)
#: Always True, and counts how often it was asked: the cheapest counter there is.  Asked once an acquisition.
count: Final = turnstile.__next__


def acquisitions() -> int:
    """How many acquisitions were checked since the process began."""
    return _MANY - turnstile.__length_hint__()


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


#: What to do when the validator itself breaks; set by the session that is active.
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
        if on_fault:
            on_fault[-1](error)
        return None


def _is_ours(error: BaseException) -> bool:
    # a builtin exception whose innermost frame is ours: nobody else's code was running
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return type(error).__module__ == "builtins" and traceback is not None and is_own(traceback.tb_frame.f_code)


def acquire(
    lock: LockRecord, state: OwnerState, step: Step, blocking: Any = True, timeout: Any = -1, under: Any = None
) -> bool:
    """Acquire a lock that the caller doesn't re-enter; ``step`` is its class taken by ``with`` or by call.

    ``under`` is the lock that it is nested under.  As ``threading.Lock.acquire``: same arguments, results and errors.
    """
    node = lock.node
    if type(node) is Unused:
        node.settle_for(lock)
        node = lock.node
        step = lock.step if step.mode is None or step.mode.scoped else lock.step.by_call
    engine = state.engine
    if engine is None or not _usual(blocking, timeout):
        return _claim_unseen(lock, blocking, timeout)
    lock_class = step.lock_class
    assert lock_class is not None
    waits = bool(blocking) and timeout != 0
    if node is not None and waits and timeout == -1 and (node.state is state or _by_this_thread(node, state)):
        held = state.find(node) if state.cur is not VOID and node.state is state else node
        if held is not None and not lock_class.handed_over and not lock_class.kind.resource:
            consult(waiting.self_deadlock, engine, state, lock_class, held)
    if state.cur is VOID:
        return _claim_unseen(lock, blocking, timeout)
    mode = TRY if not waits else TIMED if timeout != -1 else None
    new = step_on(state, step if mode is None else lock_class.step(mode), lock, under)
    count()
    try:
        if mode is None:
            _block(lock, state, new)
        elif not _take_in_time(lock, state, new, blocking, timeout):
            return False
        stand_on(lock, state, new)
        if mode is not None:
            consult(engine.of(state).interrupts.obtained, state, new)
    except BaseException:
        if lock.node is new is not VOID:
            release(lock, state)
        raise
    return True


def _by_this_thread(node: Any, state: OwnerState) -> bool:
    """Whether the holder is a suspended task of the calling thread, which can't go on while this one blocks, or the
    thread itself, of which the caller is a task."""
    holder = node.state
    return (
        holder is not None
        and holder.engine is state.engine
        and holder.owner.ident == state.owner.ident
        and not holder.ended
        and state.cur is not VOID
    )


def _usual(blocking: Any, timeout: Any) -> bool:
    # anything else is for the raw method to refuse, in its own words
    return type(blocking) in (bool, int) and type(timeout) in (int, float) and (timeout == -1 or timeout >= 0)


def _claim(lock: LockRecord, node: Node, *args: tuple[Any, ...]) -> bool:
    """Take the raw lock, with these arguments (one tuple each), and say that it is held, in one step."""
    for got in map(lock._acquire, *args) if args else (iter(lock._acquire, None)):
        if got:
            lock.node = node
        return got
    return False


def _claim_unseen(lock: LockRecord, blocking: Any, timeout: Any) -> bool:
    # no limit has other arguments where the raw lock is a process's
    if blocking is True and timeout == -1:
        return _claim(lock, VOID)
    return _claim(lock, VOID, (blocking,), (timeout,))


def step_on(state: OwnerState, step: Step, lock: Any, under: Any = None) -> Node:
    """The node for one more step: cached, or validated now; VOID where the validator can't say."""
    hold = None if under is None else consult(levels.outer_hold, state, step, under)
    new: Node | None = state.cur[step]
    if new is None:
        new = consult(state.engine.acquire, state, step, lock, hold)
    return VOID if new is None else new


def stand_on(lock: Any, state: OwnerState, node: Node) -> None:
    """The lock is held in ``node``: that is where its owner stands now."""
    if node is VOID:
        return
    # a handler that ran while we waited may have left the owner elsewhere: a chain that moved on is
    # followed, not overwritten
    state.cur = node if node.parent is state.cur else Node(state.cur, node.step, state, node.trace, stands_for=node)
    lock_class = node.step.lock_class
    if lock_class is not None and lock_class.nested:
        consult(state.engine.ledger.nesting.remember, state, node, lock)


def _take_in_time(lock: LockRecord, state: OwnerState, node: Node, blocking: Any, timeout: Any) -> bool:
    """Take the raw lock by a try, or within a time."""
    if node.step.mode is TRY:
        return _claim(lock, node, (blocking,), (timeout,))
    state.blocks_on(lock, timeout)
    try:
        return _claim(lock, node, (blocking,), (timeout,))
    finally:
        state.waiting = None


def _block(lock: LockRecord, state: OwnerState, node: Node) -> None:
    """Take the raw lock, however long it takes; look at who waits for whom when it takes long."""
    if _claim(lock, node, (False,)):
        return
    engine = state.engine
    if engine.forks.lost:
        consult(engine.forks.blocked, state, lock)
    consult(engine.finalizers.contended, state, node)
    state.blocks_on(lock)
    try:
        if _claim(lock, node, (True,), (engine.deadlock_after,)):
            return
        seen = consult(waitgraph.cycle_from, state, lock)
        if seen is not None and _claim(lock, node, (True,), (CONFIRM_AFTER,)):
            return
        consult(waiting.still_blocked, engine, state, lock, seen)
        _claim(lock, node)
    finally:
        state.waiting = None
        engine.no_longer_blocked(state)


@uninterrupted
def release(lock: LockRecord, state: OwnerState) -> None:
    """Release a lock that isn't the innermost thing that the caller holds, or isn't the caller's."""
    # looked up first: where the stack is at its end, nothing has been done yet, and from here on calls of C code do
    free = lock._release
    node = lock.node
    try:
        if type(node) is Unused:
            node = None
        lock_class = lock.step.lock_class
        if node is None:
            if state.engine is not None and state.cur is not VOID:
                consult(state.engine.unbalanced_release, state, lock_class)
        elif lock_class.kind.owned and _is_rival(node, state):  # type: ignore[union-attr]
            consult(state.engine.foreign_release, state, lock_class, node)
        else:
            lock.node = None
            if not consult(drop, lock_class, node, state) and node is not VOID:
                node.state.drops.append(node)  # it couldn't be taken off now
    except BaseException:
        if node is not None and lock.node is None:
            free()
            if node is not VOID:
                node.state.drops.append(node)
        raise
    if node is not None and lock.node is not None:
        raise RuntimeError("cannot release un-acquired lock")
    free()


def _drop_later(node: Any) -> None:
    """A release was interrupted: its hold goes off the chain in the holder's next slow path, if it is still there."""
    if node is not None and node is not VOID and node.state is not None:
        node.state.drops.append(node.node if type(node) is Reentry else node)


def _is_rival(node: Any, state: OwnerState) -> bool:
    """Whether another owner of the same session holds it."""
    holder = node.state
    if node is VOID or holder is state or state.engine is None:
        return False
    return bool(holder.engine is state.engine and holder.owner.ident != state.owner.ident)


def forget(lock: Any) -> None:
    """The lock goes while it is held: nobody holds it any more (CTX304).

    May run at any bytecode (in a finalizer, in a forked child), so neither the holder's chain nor the validator
    is touched: both are left a note, and the entry is taken off in the holder's next slow path.
    """
    node = hold_of(lock)
    if node is None:
        return
    lock.node = None
    if bury(node):
        _drop_later(node)


def abandon(lock: Any) -> None:
    """In a forked child: the parent goes on holding it, and nobody holds it here."""
    node = hold_of(lock)
    if node is not None:
        lock.node = None
        _drop_later(node)


def bury(node: Node) -> bool:
    """Leave a note that a lock went which was held in ``node``; returns whether it is off its holder's chain by that.
    """
    engine = node.state.engine
    return node.state.ended or engine.closed or engine.broken or bool(engine.destroyed.bury(node))


def renew(lock: Any, state: OwnerState) -> None:
    """``state`` makes a lock anew while it is held (CTX304): nobody holds it any more.  May raise what the mode wants
    raised; then nothing has happened."""
    node = hold_of(lock)
    if node is None:
        return
    destroy(state, node, "re-initialised")
    lock.node = None
    if node.state is not state or not state.unlink(node):
        _drop_later(node)


def destroy(state: OwnerState, node: Node, how: str) -> None:
    """``state`` re-initialises or replaces a lock that is held in ``node``: say so."""
    if state.engine is node.state.engine is not None and state.cur is not VOID:
        consult(state.engine.destroyed.report, state, node, how)


def hold_of(lock: Any) -> Node | None:
    """Where a lock's holder stands, if it is held and that was checked."""
    node = getattr(lock, "node", None)
    if type(node) is Reentry:
        node = node.node
    return node if isinstance(node, Node) and node is not VOID else None


def drop(lock_class: Any, node: Node, state: OwnerState) -> bool:
    """Take a released hold off its holder's chain, now or in its next slow path; always true."""
    if node is VOID:
        return True
    holder = node.state
    if holder is state:
        if state.cur is VOID:
            holder.drops.append(node)
            return True
        if state.brackets:
            try:
                ranges.released_inside(state.engine, state, node, capture(2))
            finally:
                state.unlink(node)
        else:
            state.unlink(node)
    elif holder.is_current():
        # taken in another session by this same thread
        if holder.cur is VOID or not holder.unlink(node):
            holder.drops.append(node)
        # what the thread is inside of lies below what its task holds
        state.unlink(node)
    elif state.engine is not None and holder.engine is state.engine:
        state.engine.foreign_release(state, lock_class, node)
    else:
        holder.drops.append(node)
    return True


# --- re-entrant locks -----------------------------------------------------------------


def reacquire(
    lock: Any, state: OwnerState, step: Step, blocking: Any = True, timeout: Any = -1, under: Any = None
) -> bool:
    """Acquire an RLock.  Its owner re-enters it without any effect on orders (it can't wait)."""
    if not lock._is_owned():
        return acquire(lock, state, step, blocking, timeout, under)
    node = lock.node
    reentry = node if type(node) is Reentry or node is None else Reentry(node)
    for got in map(lock._acquire, (blocking,), (timeout,)):
        if got and reentry is not None:
            reentry.depth += 1
            lock.node = reentry
        return got is True  # not bool(): a handler could raise at a call
    return False


@uninterrupted
def rerelease(lock: Any, state: OwnerState) -> None:
    """Release an RLock that is re-entered, not the innermost thing held, or not the caller's.

    No call comes before the raw release where the lock is the caller's, unless what it raises is caught here.
    """
    node = lock.node
    if node.__class__ is Reentry:
        try:
            lock._release()
        except BaseException:
            # the caller's own was released, and a signal handler raised then; told without a call, as another may
            # raise at once
            if node.node.state is state or lock._is_owned():
                node.depth -= 1
                if node.depth == 0:
                    lock.node = node.node
            elif state.engine is not None and state.cur is not VOID and node.node is not VOID:
                consult(state.engine.foreign_release, state, lock.step.lock_class, node.node)
            raise
        node.depth -= 1
        if node.depth == 0:
            lock.node = node.node
        return
    released = False
    ours = node is not None and node.state is state
    try:
        if ours or (node is not None and lock._is_owned()):
            lock.node = None
            if not consult(drop, lock.step.lock_class, node, state):
                node.state.drops.append(node)  # pyright: ignore[reportOptionalMemberAccess]
        elif state.engine is not None and state.cur is not VOID:
            _note_refused(lock, state, node)
        released = True
        lock._release()
    except BaseException:
        if not released and (ours or lock._is_owned()):
            lock.node = None
            lock._release()
            _drop_later(node)
        raise


def _note_refused(lock: Any, state: OwnerState, node: Any) -> None:
    """Somebody releases what is not theirs; the raw lock refuses it in the interpreter's words."""
    lock_class = lock.step.lock_class
    if node is None or type(node) is Unused:
        if not lock._is_owned():
            consult(state.engine.unbalanced_release, state, lock_class)
    elif node is not VOID:
        consult(state.engine.foreign_release, state, lock_class, node)


@uninterrupted
def release_save(lock: Any, state: OwnerState) -> Any:
    """Let go of an RLock altogether, for a wait; returns what :func:`acquire_restore` needs."""
    node = lock.node
    try:
        if node is not None and lock._is_owned():
            lock.node = None
            held = node.node if type(node) is Reentry else node
            if not consult(drop, lock.step.lock_class, held, state):
                held.state.drops.append(held)
    except BaseException:
        lock.node = node  # it isn't given back: the block around the wait will release it
        raise
    return _release_save(lock)


@uninterrupted
def acquire_restore(lock: Any, state: OwnerState, saved: Any) -> None:
    """Take it back after the wait: an acquire like any other, whose order counts.

    Whatever is raised meanwhile comes out only after the lock is held again: the block around the wait will release it.
    """
    new: Node = VOID
    try:
        if state.engine is not None and state.cur is not VOID:
            state.blocks_on(lock)
            if lock.node is not None:
                state.engine.watchdog.wake()
            new = step_on(state, lock.step.lock_class.step(RESTORE), lock)
    finally:
        for _ in map(_acquire_restore, (lock,), (saved,)):
            lock.node = new
            break
        state.waiting = None
        _restore_depth(lock, state, new, saved[0])


def _restore_depth(lock: Any, state: OwnerState, node: Node, depth: int) -> None:
    stand_on(lock, state, node)
    if depth > 1:
        reentry = Reentry(node)
        reentry.depth = depth - 1
        lock.node = reentry
