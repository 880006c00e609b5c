"""Plain locks that are never given back on purpose: tried once, by whoever comes first, and waited for by nobody.

    if not self._started.acquire(blocking=False):
        return  # somebody was faster

Such a lock may be left held, or go while it is (CTX303, CTX304): nobody hangs for it.  Once one of a class has been
waited for, or was obtained a second time (so it is given back at other times), to leave one held is a mistake again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from ctxcheck.engine.classes import LockClass


@final
class Latches:
    """Which classes are latches, as far as one session has seen.

    ``made`` counts the instances of a class that can have taken part.  Needs no lock: each change is one atomic step,
    but for a count that may lose one where two threads obtain locks of one class at the same moment.
    """

    __slots__ = ("_made", "_obtained", "_waited_for")

    def __init__(self, made: Callable[[LockClass], int]) -> None:
        self._made: Callable[[LockClass], int] = made
        self._waited_for: set[LockClass] = set()
        self._obtained: dict[LockClass, int] = {}

    def waited_for(self, lock_class: LockClass) -> None:
        """A lock of this class is waited for, with or without a limit."""
        self._waited_for.add(lock_class.base)

    def obtained(self, lock_class: LockClass) -> None:
        """A lock of this class was obtained by a try."""
        base = lock_class.base
        if base not in self._waited_for:
            self._obtained[base] = self._obtained.get(base, 0) + 1

    def has(self, lock_class: LockClass) -> bool:
        """Whether locks of this class are latches: each was obtained once at most, and nobody waits for one."""
        base = lock_class.base
        if base.kind.owned or base in self._waited_for:
            return False
        return 0 < self._obtained.get(base, 0) <= self._made(base)
