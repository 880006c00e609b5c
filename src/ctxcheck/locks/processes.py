"""``multiprocessing.Lock`` and ``RLock``: locks that other processes share.

Subclasses of the real ones, to be imported only once ``multiprocessing.synchronize`` is.  Within this process they
are locks like any other: ordered, and held by somebody.  But another process may release them unseen, so that to take
one twice is never *certain* to be a deadlock.  A child that is sent one gets the real lock.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import synchronize
from multiprocessing.util import register_after_fork
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import PROCESS_LOCK, PROCESS_RLOCK, WITH, Kind, Step, Token
from ctxcheck.engine.instances import credit, crediting
from ctxcheck.engine.owner import VOID, Node
from ctxcheck.engine.postponed import postpones
from ctxcheck.engine.raw import uninterrupted
from ctxcheck.locks import sent
from ctxcheck.locks.naming import classify
from ctxcheck.locks.scope import in_scope

if TYPE_CHECKING:
    from multiprocessing.synchronize import Lock as _Lock
    from multiprocessing.synchronize import RLock as _RLock
else:
    _Lock = synchronize.Lock
    _RLock = synchronize.RLock


class _Shared:
    """What the two have in common: the record beside the semaphore."""

    kind: Kind
    real: Any
    node: Any
    step: Step
    _semlock: Any
    _take: Callable[[Step, bool, Any], bool]
    release: Callable[[], None]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__new__(cls) if in_scope() else cls.real(*args, **kwargs)

    def _make_methods(self) -> None:
        # called where the real one puts the semaphore's own methods on the instance
        self._acquire: Callable[..., bool] = self._semlock.acquire
        self._release: Callable[[], None] = self._semlock.release
        self._is_owned: Callable[[], bool] = self._semlock._is_mine
        lock_class = classify(self.kind, None, depth=4)[0]
        self.node = None
        self.step = lock_class.step(WITH)
        self.token: Token = lock_class.token
        self.order_key: Any = None
        lock_class.created += 1
        if crediting:
            credit(lock_class)
        register_after_fork(self, slowpath.abandon)

    @postpones
    @uninterrupted
    def __del__(self, forget: Callable[[Any], None] = slowpath.forget) -> None:
        try:
            node = self.node
        except AttributeError:
            return
        if node is not None:
            forget(self)

    def acquire(self, block: Any = True, timeout: Any = None) -> bool:
        """As the real one's; validated before it can block."""
        if type(block) not in (bool, int):
            return self._acquire(block, timeout)  # for the real one to refuse, in its own words
        return self._take(self.step.by_call, bool(block), timeout)

    def __enter__(self) -> bool:
        return self._take(self.step, True, None)

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.release()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # a function of our own: the real class can't be pickled by its name while ours is in its place
        return sent.new_real, (self.real.__name__,), self.__getstate__()


def _seconds(timeout: Any) -> Any:
    """No limit is -1 to a thread's lock and ``None`` to a process's, for which what is below 0 is 0."""
    if timeout is None:
        return -1
    return max(0, timeout) if isinstance(timeout, (int, float)) else timeout


class Lock(_Shared, _Lock):
    """A checked ``multiprocessing.Lock``."""

    kind = PROCESS_LOCK
    real = _Lock

    def _take(self, step: Step, block: bool, timeout: Any) -> bool:
        state, before = fastpath.current(), self.node
        if not slowpath.acquire(self, state, step, block, _seconds(timeout)):
            return False
        if isinstance(before, Node) and before is not VOID and before.state is state:
            # it was held here and could be taken all the same: another process has released it
            step.lock_class.handed_over = True  # type: ignore[union-attr]
            state.drops.append(before)
        return True

    def release(self) -> None:
        """As the real one's; another process may do it too."""
        state = fastpath.current()
        if self.node is None:
            self._release()  # taken elsewhere; the semaphore knows whether it may be released
            self.step.lock_class.handed_over = True  # type: ignore[union-attr]
            return
        slowpath.release(self, state)


class RLock(_Shared, _RLock):
    """A checked ``multiprocessing.RLock``."""

    kind = PROCESS_RLOCK
    real = _RLock

    def _take(self, step: Step, block: bool, timeout: Any) -> bool:
        return slowpath.reacquire(self, fastpath.current(), step, block, _seconds(timeout))

    def release(self) -> None:
        """As the real one's."""
        slowpath.rerelease(self, fastpath.current())
