"""``nested``: a lock taken where one of its class is held already, at a level or under an outer lock."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, final, overload

from ctxcheck import fastpath
from ctxcheck.engine import levels, slowpath
from ctxcheck.engine.classes import MAX_LEVELS, REGISTRY, LockClass, Step
from ctxcheck.engine.owner import Unused
from ctxcheck.engine.raw import LockType, RLockType, uninterrupted
from ctxcheck.locks.tracked import SharedHold, Tracked

if TYPE_CHECKING:
    from ctxcheck.locks.aionested import NestedAsync

_LEVELS: Final = f"0 to {MAX_LEVELS - 1}"


class _ForTasks(Protocol):
    """A lock of asyncio's."""

    async def __aenter__(self) -> Any: ...


@overload
def nested(  # pyright: ignore[reportOverlappingOverload]
    lock: _ForTasks, level: int = 1, *, nest_under: Any = None
) -> NestedAsync: ...
@overload
def nested(lock: Any, level: int = 1, *, nest_under: Any = None) -> Nested: ...
def nested(lock: Any, level: int = 1, *, nest_under: Any = None) -> Any:
    """Return a stand-in for one lock, to take it where another one of its class may be held (CTX003).

    Args:
        lock: a Lock, RLock, SpinLock, Condition (its lock), or what :func:`track` returned; a Lock or Condition of
            asyncio's.
        level: 0 to 7.  To the order of locks each level is a class of its own, called ``Name/1`` and so on; 0 is the
            class itself.  For what is nested in one direction only, as a child's lock in its parent's: take the
            parent's as it is, the child's at level 1.
        nest_under: a lock that every user of several locks of this class takes first.  The caller must hold it
            (CTX301), and locks of one class that are taken inside it need no order among themselves.

    The stand-in is used as the lock: ``with nested(child.lock):`` or, for asyncio's, ``async with``; or ``acquire``
    with the lock's own arguments and ``release``.  What was acquired through it may be released through the lock
    itself.  Where the lock isn't checked it is the lock, no more.

    Each acquire costs what one does that takes the slow path: a few times that of the lock itself.
    From Linux ``lockdep``: ``mutex_lock_nested()``, ``mutex_lock_nest_lock()``.

    Raises:
        TypeError: for what can't be nested, or a ``nest_under`` that is no lock.
        ValueError: for a level that isn't 0 to 7.
    """
    if isinstance(level, bool) or not isinstance(level, int):
        raise TypeError(f"nested: level={level!r} is not a whole number, {_LEVELS}")
    if not 0 <= level < MAX_LEVELS:
        raise ValueError(f"nested: level={level!r} is not one of the levels {_LEVELS}")
    lock = levels.real(lock)
    if nest_under is not None:
        levels.check_outer("nested", nest_under)
    if isinstance(lock, Tracked):
        return NestedTracked(lock, level, nest_under)
    if not isinstance(lock, (fastpath.BaseLock, LockType, RLockType)):
        if "asyncio" in sys.modules:
            from ctxcheck.locks import aionested

            awaited = aionested.lock_of(lock)
            if awaited is not None:
                return aionested.NestedAsync(awaited, level, nest_under)
        raise TypeError(
            f"nested: a value of type {type(lock).__qualname__} can't be nested: give a Lock, an RLock, a SpinLock, a"
            " Lock of asyncio's or what track() returned"
        )
    return Nested(lock, level, nest_under)


class Nested(levels.StandIn):
    """What :func:`nested` returns for a lock."""

    __slots__ = ()

    @property
    def lock_class(self) -> LockClass:
        """The class that it is taken in."""
        lock = self.lock
        node = lock.node
        if type(node) is Unused:
            node.settle_for(lock)  # this is its first use
        found: LockClass = REGISTRY.level(lock.step.lock_class, self.level)
        return found

    @property
    def step(self) -> Step:
        """Its class, as ``with`` takes it."""
        step: Step = self.lock.step if self.level == 0 else self.lock_class.step(self.lock.step.mode)
        return step

    def _take(self, step: Step, blocking: Any = True, timeout: Any = -1) -> bool:
        lock = self.lock
        take = slowpath.reacquire if isinstance(lock, fastpath.RLock) else slowpath.acquire
        return take(lock, fastpath.current(), step, blocking, timeout, self.under)

    def __enter__(self) -> Any:
        if not hasattr(self.lock, "step"):
            return self.lock.__enter__()
        return self._take(self.step)

    # no call and no entry before the release: a signal handler may raise at each
    @uninterrupted
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.lock.release()

    def acquire(self, blocking: Any = True, timeout: Any = -1) -> Any:
        """As the lock's own ``acquire``."""
        if not hasattr(self.lock, "step"):
            return self.lock.acquire(blocking, timeout)
        return self._take(self.step.by_call, blocking, timeout)

    @uninterrupted
    def release(self, *args: Any, **kwargs: Any) -> Any:
        """As the lock's own ``release``."""
        return self.lock.release(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lock, name)

    def __repr__(self) -> str:
        under = "" if self.under is None else f" under {self.under!r}"
        return f"<{self.lock!r} at level {self.level}{under}>"


@final
class NestedTracked(Nested):
    """What :func:`nested` returns for what :func:`track` returned."""

    __slots__ = ()

    @property
    def lock_class(self) -> LockClass:
        """The class that it is taken in."""
        return REGISTRY.level(self.lock.lock_class, self.level)

    @property
    def step(self) -> Step:
        """Its class, as an acquire by call takes it."""
        mode = self.lock.step.mode
        return self.lock_class.step(mode)

    def __enter__(self) -> Any:
        return self.lock.take((), {}, shared=False, scoped=True, level=self.level, under=self.under)

    @uninterrupted
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.lock.__exit__(kind, value, traceback)

    def acquire(self, *args: Any, shared: bool = False, **kwargs: Any) -> Any:
        """As :meth:`Tracked.acquire <ctxcheck.locks.tracked.Tracked.acquire>`."""
        return self.lock.take(args, kwargs, shared=bool(shared), level=self.level, under=self.under)

    def shared(self) -> SharedHold:
        """A shared hold, for a ``with`` block."""
        return SharedHold(self)
