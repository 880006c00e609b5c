"""asyncio's locks, checked: subclasses of asyncio's own, whose methods do the work.

Their owners are tasks.  An acquire is validated before it can wait, and recorded when it has succeeded: whatever ends
it in between (a cancellation, a timeout, another exception) leaves nothing behind, since nothing was there yet.

Imports asyncio: only for programs that have it.
"""

from __future__ import annotations

import asyncio.locks
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final

from ctxcheck import fastpath, tasks
from ctxcheck.engine import slowpath, waiting
from ctxcheck.engine.classes import (
    ACQUIRE,
    AIO_LOCK,
    AIO_SEMAPHORE,
    AWAIT,
    RESTORE,
    TIMED,
    WITH,
    Kind,
    LockClass,
    Mode,
    Step,
    Token,
)
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.findings import Finding
from ctxcheck.engine.owner import VOID, Node, OwnerState, Unused
from ctxcheck.engine.raw import get_ident
from ctxcheck.engine.sites import capture
from ctxcheck.engine.taskstate import TaskState
from ctxcheck.engine.telling import report_sleep
from ctxcheck.locks.naming import classify, in_scope
from ctxcheck.locks.plain import OFF_FOR_GOOD, check_name

if TYPE_CHECKING:
    from asyncio.locks import Barrier as _Barrier
    from asyncio.locks import BoundedSemaphore as _BoundedSemaphore
    from asyncio.locks import Condition as _Condition
    from asyncio.locks import Event as _Event
    from asyncio.locks import Lock as _Lock
    from asyncio.locks import Semaphore as _Semaphore

    from ctxcheck.engine.validator import Validator
else:
    # as they are now: our own will stand in their place
    _Lock = asyncio.locks.Lock
    _Condition = asyncio.locks.Condition
    _Semaphore = asyncio.locks.Semaphore
    _BoundedSemaphore = asyncio.locks.BoundedSemaphore
    _Event = asyncio.locks.Event
    _Barrier = asyncio.locks.Barrier

tasks.learn(asyncio)

#: Those that stand in for asyncio's.
NAMES: Final = ("Lock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")


@final
class _Record:
    """What the engine needs of a lock.  ``node`` is where its holder stands, VOID if it was taken unseen.

    Beside the lock, not in it: a subclass of asyncio's class may derive from anything else, and call its own what it
    likes.  It is the lock's ``_ctxcheck_record``.
    ``told`` is a finding that its release by another task takes back.
    """

    __slots__ = ("__weakref__", "node", "order_key", "step", "token", "told")

    def __init__(self, lock_class: LockClass, unused: Unused | None, order_key: Any = None) -> None:
        self.node: Any = unused
        self.order_key: Any = order_key
        self.step: Step = lock_class.step(WITH)
        self.token: Token = lock_class.token
        self.told: Finding | None = None
        lock_class.created += 1

    @property
    def lock_class(self) -> LockClass:
        """Its class: may change once, when a lock whose name isn't known yet is first taken."""
        lock_class = self.step.lock_class
        assert lock_class is not None
        return lock_class

    def __del__(self, forget: Callable[[Any], None] = slowpath.forget) -> None:
        # a lock that goes while it is held must not stay on its holder's chain
        if getattr(self, "node", None) is not None:
            forget(self)


def _new_record(kind: Kind, name: str | None, order_key: Any = None, *, depth: int = 3) -> _Record | None:
    if OFF_FOR_GOOD or (name is None and not in_scope()):
        return None
    return _Record(*classify(kind, name, depth=depth), order_key)


def _ask(record: _Record, state: OwnerState, step: Step, *, itself: bool = True) -> Node:
    """Validate an acquire that may wait: the node to stand on, when it has succeeded.

    ``itself``: by the owner, and for as long as it takes.
    """
    if state.drops:
        state.settle()
    node = record.node
    lock_class = record.lock_class
    if itself and node is not None and node is not VOID and node.state is state and not lock_class.kind.resource:
        held = state.find(node)
        if held is not None and not lock_class.handed_over:
            slowpath.consult(waiting.self_deadlock, state.engine, state, lock_class, held)
    slowpath.count()
    known: Node | None = state.cur[step]
    if known is None:
        if not state.cur.allows & AWAIT and type(state) is TaskState:
            state.told = True
        known = slowpath.consult(state.engine.acquire, state, step, record)
    return VOID if known is None else known


def _stand(record: _Record, state: OwnerState, node: Node) -> None:
    """The lock is taken: its task stands on ``node`` now, unless another session has begun while it waited."""
    if node is VOID or fastpath._engine is not state.engine or state.cur is VOID:
        record.node = VOID
        return
    record.node = node
    if state.drops:
        state.settle()
    state.cur = node if node.parent is state.cur else Node(state.cur, node.step, state, node.trace, stands_for=node)
    if record.lock_class.nested:
        engine: Validator = state.engine  # type: ignore[assignment]
        slowpath.consult(engine.nesting.remember, state, node, record)


def _leave(record: _Record, node: Node, *, scoped: bool) -> None:
    """Take a released hold off its task's chain; ``scoped``: by the end of its own block, whoever runs that."""
    holder = node.state
    state = tasks.owner_state()
    lock_class = record.lock_class
    if holder is state:
        if holder.cur is node:
            holder.cur = node.parent
        else:
            slowpath.drop(lock_class, node, holder)
        return
    engine = holder.engine
    same = state is not None and state.engine is engine
    if same and not scoped:
        engine.foreign_release(state, lock_class, node)
        told, record.told = record.told, None
        if told is not None:
            engine.on_withdrawal(told)
        return
    # a coroutine that is closed, or an async generator that another task ends; or taken in another session
    if holder.owner.ident != get_ident() or holder.cur is VOID or not holder.unlink(node):
        holder.drops.append(node)
    if same:
        engine.roster.redeem(node)


def _watch_wait(state: OwnerState, record: _Record) -> Any:
    """A task waits for a lock of its own, which another one may yet release: look again after ``deadlock_after``."""
    engine: Validator = state.engine
    finding = engine.provisional.get(state)
    if finding is None:
        return None

    def look() -> None:
        if engine.closed or engine.broken or engine.provisional.pop(state, None) is None:
            return
        record.told = finding
        try:
            slowpath.consult(engine.emit, state, finding)
        except ViolationError:
            pass  # it was recorded; the task goes on waiting, as the program asked

    return asyncio.get_running_loop().call_later(engine.deadlock_after, look)


def awaits(what: str) -> None:
    """A wait needs the permission to await, whether or not it would have waited this time (CTX101)."""
    state = tasks.owner_state()
    if state is None:
        return
    if state.drops:
        state.settle()
    if not state.cur.allows & AWAIT:
        if type(state) is TaskState:
            state.told = True
        trace = capture(2)
        slowpath.consult(_report_wait, state, what, trace)


def _report_wait(state: OwnerState, what: str, trace: Any) -> None:
    report_sleep(state.engine, state, what, "wait", trace, permission=AWAIT)


class Look:
    """Their reprs say what they stand in for, as programs and tests expect it."""

    def __repr__(self) -> str:
        kind = type(self)
        mine = f"<{kind.__module__}.{kind.__qualname__} "
        base = kind.__mro__[kind.__mro__.index(Look) + 1]
        text = super().__repr__()
        return text.replace(mine, f"<{base.__module__}.{base.__qualname__} ", 1) if _is_ours(kind) else text


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("ctxcheck.")


class Lock(Look, _Lock):
    """A checked ``asyncio.Lock``.

    Args:
        name: the lock class's key and display name; by default the place that makes it tells.
        order_key: locks of one class are taken in ascending order of it.
    """

    _locked: bool
    _loop: Any

    def __init__(self, *args: Any, name: str | None = None, order_key: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_name("Lock", name)
        self._ctxcheck_record: _Record | None = _new_record(AIO_LOCK, name, order_key)

    async def acquire(self) -> Literal[True]:
        """As :meth:`asyncio.Lock.acquire`; validated before it can wait."""
        return await self._take(ACQUIRE)

    async def __aenter__(self) -> None:
        if type(self).acquire is Lock.acquire:
            await self._take(WITH)
        else:
            await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        if type(self).release is Lock.release:
            self._give(scoped=True)
        else:
            self.release()

    def release(self) -> None:
        """As :meth:`asyncio.Lock.release`."""
        self._give(scoped=False)

    async def _take(self, mode: Mode) -> Literal[True]:
        record = self._ctxcheck_record
        if record is None:
            return await super().acquire()
        if type(record.node) is Unused:
            record.node.settle_for(record)
        state, other, timed = tasks.acquirer()
        if state is None:
            taken = await super().acquire()
            record.node = VOID
            return taken
        if self._locked and self._loop not in (None, asyncio.events._get_running_loop()):
            return await super().acquire()  # asyncio refuses it, in its own words
        step = record.step if mode is WITH else record.step.by_call
        if timed:
            step = record.lock_class.step(TIMED)
        if type(state) is TaskState and state.restoring is record:
            step = record.lock_class.step(RESTORE)
        node = _ask(record, state, step, itself=not (other or timed))
        timer = None
        try:
            if self._locked:
                state.waiting = record
                if state in state.engine.provisional:
                    timer = _watch_wait(state, record)
            # nothing comes between the end of this call and the store: a signal handler may raise at any call
            taken = await super().acquire()
            record.node = VOID
        finally:
            state.waiting = None
            if timer is not None:
                timer.cancel()
            state.engine.no_longer_blocked(state)
        try:
            _stand(record, state, node)
        except BaseException:
            self.release()  # the caller never hears that it has it
            raise
        return taken

    def _give(self, *, scoped: bool) -> None:
        record = self._ctxcheck_record
        node = None if record is None else record.node
        if record is None or node is None or node is VOID or type(node) is Unused:
            if record is not None:
                if self._locked:
                    record.node = None
                elif (state := tasks.owner_state()) is not None:
                    slowpath.consult(state.engine.unbalanced_release, state, record.lock_class)
            super().release()
            return
        record.node = None
        try:
            slowpath.consult(_leave_scoped if scoped and _is_scoped(node) else _leave_called, record, node)
        finally:
            super().release()


def _is_scoped(node: Node) -> bool:
    return node.step.mode is not None and node.step.mode.scoped


def _leave_scoped(record: _Record, node: Node) -> None:
    _leave(record, node, scoped=True)


def _leave_called(record: _Record, node: Node) -> None:
    _leave(record, node, scoped=False)


class Condition(Look, _Condition):
    """A checked ``asyncio.Condition``; its default lock is a checked one.

    Args:
        lock: as for ``asyncio.Condition``.
        name: the class of the default lock.
    """

    _lock: Any

    def __init__(self, lock: Any = None, *args: Any, name: str | None = None, **kwargs: Any) -> None:
        check_name("Condition", name)
        if lock is None:
            lock = Lock.__new__(Lock)
            _Lock.__init__(lock)
            lock._ctxcheck_record = _new_record(AIO_LOCK, name)
        super().__init__(lock, *args, **kwargs)

    @property
    def _ctxcheck_record(self) -> _Record | None:
        """Who holds its lock holds it."""
        return getattr(self._lock, "_ctxcheck_record", None)

    def _checked_lock(self) -> Lock | None:
        """Its lock, if that is one of ours, and acquired and released by its own methods."""
        lock: Any = self._lock
        plain = isinstance(lock, Lock) and type(lock).acquire is Lock.acquire and type(lock).release is Lock.release
        own = getattr(self.acquire, "__self__", None) is lock and getattr(self.release, "__self__", None) is lock
        return cast("Lock", lock) if plain and own else None

    async def __aenter__(self) -> None:
        lock = self._checked_lock()
        if lock is None:
            await self.acquire()
        else:
            await lock._take(WITH)

    async def __aexit__(self, *_: object) -> None:
        lock = self._checked_lock()
        if lock is None:
            self.release()
        else:
            lock._give(scoped=True)

    async def wait(self) -> Literal[True]:
        """As ``asyncio.Condition.wait``: a wait, which takes the lock back like any other acquire."""
        awaits("Condition.wait")
        lock = self._checked_lock()
        state = tasks.owner_state() if lock is not None else None
        if type(state) is not TaskState or lock is None:
            return await super().wait()
        record = lock._ctxcheck_record
        node = None if record is None else record.node
        before = state.restoring
        if isinstance(node, Node) and node is not VOID and node.state is state and _is_scoped(node):
            state.restoring = record
        try:
            return await super().wait()
        finally:
            state.restoring = before


class Event(Look, _Event):
    """A checked ``asyncio.Event``: its wait is a wait."""

    async def wait(self) -> Any:
        """As ``asyncio.Event.wait``."""
        awaits("Event.wait")
        return await super().wait()


def raw_event() -> Any:
    """An event of asyncio's own, for what is checked by its owner."""
    return _Event()


class Barrier(Look, _Barrier):
    """A checked ``asyncio.Barrier``: its wait is a wait."""

    def __init__(self, parties: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(parties, *args, **kwargs)
        # one with its owner: never held while anything else runs
        self._cond = _Condition(_Lock())

    async def wait(self) -> int:
        """As ``asyncio.Barrier.wait``."""
        awaits("Barrier.wait")
        return await super().wait()


class Semaphore(Look, _Semaphore):
    """A checked ``asyncio.Semaphore``: a resource to wait for, which nobody owns.

    Made with 1, it is ordered like a lock until somebody releases it who didn't acquire it.

    Args:
        value: as for ``asyncio.Semaphore``.
        name: the class, if it is ordered.
    """

    def __init__(self, value: int = 1, *args: Any, name: str | None = None, **kwargs: Any) -> None:
        check_name(type(self).__name__, name)
        super().__init__(value, *args, **kwargs)
        self._ctxcheck_record: _Record | None = _new_record(AIO_SEMAPHORE, name) if value == 1 else None

    async def acquire(self) -> Literal[True]:
        """As ``asyncio.Semaphore.acquire``; validated before it can wait."""
        record = self._ctxcheck_record
        if record is None:
            awaits(f"{type(self).__name__}.acquire")
            return await super().acquire()
        if type(record.node) is Unused:
            record.node.settle_for(record)
        return await self._take(record)

    async def _take(self, record: _Record) -> Literal[True]:
        state, _, timed = tasks.acquirer()
        step = record.lock_class.step(TIMED) if timed else record.step.by_call
        node = VOID if state is None else _ask(record, state, step)
        try:
            if state is not None and self.locked():
                state.waiting = record
            taken = await super().acquire()
        finally:
            if state is not None:
                state.waiting = None
        try:
            if state is None or record.node is not None:
                record.node = VOID
            else:
                _stand(record, state, node)
        except BaseException:
            self.release()
            raise
        return taken

    def release(self) -> None:
        """As ``asyncio.Semaphore.release``."""
        record = self._ctxcheck_record
        try:
            if record is not None:
                node, record.node = record.node, None
                if node is None or type(node) is Unused:
                    # released without an acquire: it signals, and orders nothing
                    if fastpath._engine is not None:
                        record.lock_class.hand_over()
                elif node is not VOID:
                    slowpath.consult(_leave_called, record, node)
        finally:
            super().release()


tasks.acquiring.update((Lock.acquire.__code__, Semaphore.acquire.__code__))


class BoundedSemaphore(Semaphore, _BoundedSemaphore):
    """A checked ``asyncio.BoundedSemaphore``."""
