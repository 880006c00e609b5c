"""``nested`` for a lock of asyncio's.

Imports asyncio: only for programs that have it.
"""

from __future__ import annotations

from typing import Any, Literal, final

from ctxcheck.engine import levels
from ctxcheck.engine.classes import ACQUIRE, REGISTRY, WITH, LockClass, Mode, Step
from ctxcheck.engine.owner import Unused
from ctxcheck.locks import aiolocks
from ctxcheck.tasks import acquiring


def lock_of(lock: Any) -> Any:
    """The lock of asyncio's that this is, or that it has (a Condition); None for anything else."""
    plain, condition = aiolocks.BASES
    found = vars(lock)["_lock"] if isinstance(lock, condition) else lock
    return found if isinstance(found, plain) else None


@final
class NestedAsync(levels.StandIn):
    """What :func:`~ctxcheck.locks.nested.nested` returns for a lock of asyncio's: for ``async with``."""

    __slots__ = ()

    @property
    def lock_class(self) -> LockClass:
        """The class that it is taken in."""
        record = self.lock._ctxcheck_record
        if type(record.node) is Unused:
            record.node.settle_for(record)  # this is its first use
        found: LockClass = REGISTRY.level(record.lock_class, self.level)
        return found

    @property
    def step(self) -> Step:
        """Its class, as ``async with`` takes it."""
        return self.lock_class.step(WITH)

    @property
    def node(self) -> Any:
        """Where its holder stands."""
        return self.lock._ctxcheck_record.node

    async def _take(self, mode: Mode) -> Any:
        lock: Any = self.lock
        own = getattr(lock.acquire, "__func__", None) is aiolocks.Lock.acquire
        # a method of the program's own goes first, and knows nothing of levels
        if not own or lock._ctxcheck_record is None:
            return await lock.acquire()
        return await lock._take(mode, self)

    async def acquire(self) -> Literal[True]:
        """As the lock's own ``acquire``."""
        taken: Literal[True] = await self._take(ACQUIRE)
        return taken

    def release(self) -> None:
        """As the lock's own ``release``."""
        self.lock.release()

    async def __aenter__(self) -> None:
        await self._take(WITH)

    async def __aexit__(self, *error: object) -> None:
        await self.lock.__aexit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.lock, name)

    def __repr__(self) -> str:
        under = "" if self.under is None else f" under {self.under!r}"
        return f"<{self.lock!r} at level {self.level}{under}>"


acquiring.add(NestedAsync.acquire.__code__)
