"""asyncio's locks, checked: subclasses of asyncio's own, whose methods do the work.

Their owners are tasks.  An acquire is validated before it can wait, and recorded when it has succeeded: whatever ends
it in between (a cancellation, a timeout, another exception) leaves nothing behind, since nothing was there yet.

Imports asyncio: only for programs that have it.
"""

from __future__ import annotations

import asyncio.locks
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from ctxcheck import fastpath, tasks
from ctxcheck.engine import levels, slowpath
from ctxcheck.engine.classes import (
    ACQUIRE,
    AIO_LOCK,
    AIO_SEMAPHORE,
    RESTORE,
    TIMED,
    TIMED_WITH,
    WITH,
    LockClass,
    Mode,
)
from ctxcheck.engine.owner import VOID, Node, Unused
from ctxcheck.engine.taskstate import TaskState
from ctxcheck.locks.aiorecords import (
    Record,
    ask,
    awaits,
    is_scoped,
    leave_called,
    leave_scoped,
    new_record,
    stand,
    watch_wait,
)
from ctxcheck.locks.plain import check_name

if TYPE_CHECKING:
    from asyncio.locks import Barrier as _Barrier
    from asyncio.locks import BoundedSemaphore as _BoundedSemaphore
    from asyncio.locks import Condition as _Condition
    from asyncio.locks import Event as _Event
    from asyncio.locks import Lock as _Lock
    from asyncio.locks import Semaphore as _Semaphore
else:
    # as they are now: our own will stand in their place
    _Lock = asyncio.locks.Lock
    _Condition = asyncio.locks.Condition
    _Semaphore = asyncio.locks.Semaphore
    _BoundedSemaphore = asyncio.locks.BoundedSemaphore
    _Event = asyncio.locks.Event
    _Barrier = asyncio.locks.Barrier

tasks.learn(asyncio)

#: asyncio's own Lock and Condition.
BASES: Final = (_Lock, _Condition)

#: Those that stand in for asyncio's.
NAMES: Final = ("Lock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")


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
    _waiters: Any

    def __init__(self, *args: Any, name: str | None = None, order_key: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_name("Lock", name)
        self._ctxcheck_record: Record | None = new_record(AIO_LOCK, name, order_key)

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

    async def _take(self, mode: Mode, at: levels.StandIn | None = None) -> Literal[True]:
        record = self._ctxcheck_record
        if record is None:
            return await super().acquire()
        if type(record.node) is Unused:
            record.node.settle_for(record)
        state, other, limit = tasks.acquirer()
        if state is None:
            taken = await super().acquire()
            record.node = VOID
            return taken
        if self._locked and self._loop not in (None, asyncio.events._get_running_loop()):
            return await super().acquire()  # asyncio refuses it, in its own words
        lock_class: LockClass = record.lock_class if at is None else at.lock_class
        step = lock_class.step(mode)
        if limit is not None:
            step = lock_class.step(TIMED_WITH if mode is WITH else TIMED)
        if type(state) is TaskState and state.restoring is record:
            step = record.lock_class.step(RESTORE)
            limit = None  # asyncio takes it back, whoever cancels
        node = ask(record, state, step, itself=not other and limit is None, under=None if at is None else at.under)
        timer = None
        try:
            if self._locked or self._waiters:
                state.blocks_on(record, limit)
                if limit is None:
                    state.engine.watchdog.wake_for(state)
                if state in state.engine.provisional:
                    timer = watch_wait(state, record)
            # nothing comes between the end of this call and the store: a signal handler may raise at any call
            taken = await super().acquire()
            record.node = VOID
        finally:
            state.waiting = None
            if timer is not None:
                timer.cancel()
            state.engine.no_longer_blocked(state)
        try:
            stand(record, state, node)
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
            slowpath.consult(leave_scoped if scoped and is_scoped(node) else leave_called, record, node)
        finally:
            super().release()


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
            lock._ctxcheck_record = new_record(AIO_LOCK, name)
        super().__init__(lock, *args, **kwargs)

    @property
    def _ctxcheck_record(self) -> Record | None:
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
        if isinstance(node, Node) and node is not VOID and node.state is state and is_scoped(node):
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
        self._ctxcheck_record: Record | None = new_record(AIO_SEMAPHORE, name) if value == 1 else None

    async def acquire(self) -> Literal[True]:
        """As ``asyncio.Semaphore.acquire``; validated before it can wait."""
        record = self._ctxcheck_record
        if record is None:
            awaits(f"{type(self).__name__}.acquire")
            return await super().acquire()
        if type(record.node) is Unused:
            record.node.settle_for(record)
        return await self._take(record)

    async def _take(self, record: Record) -> Literal[True]:
        state, _, limit = tasks.acquirer()
        step = record.step.by_call if limit is None else record.lock_class.step(TIMED)
        node = VOID if state is None else ask(record, state, step)
        try:
            if state is not None and self.locked():
                state.blocks_on(record, limit)
            taken = await super().acquire()
        finally:
            if state is not None:
                state.waiting = None
        try:
            if state is None or record.node is not None:
                record.node = VOID
            else:
                stand(record, state, node)
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
                        slowpath.consult(fastpath._engine.hand_over, record.lock_class)
                elif node is not VOID:
                    slowpath.consult(leave_called, record, node)
        finally:
            super().release()


tasks.acquiring.update((Lock.acquire.__code__, Semaphore.acquire.__code__))


class BoundedSemaphore(Semaphore, _BoundedSemaphore):
    """A checked ``asyncio.BoundedSemaphore``."""
