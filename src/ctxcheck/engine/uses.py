"""In which ways one class is used: waited for in a context, or held while something could interrupt.

Of many alike only those are kept that could make a difference, so that a program may run for as long as it likes.
Not thread-safe by itself, but for :meth:`Uses.covers`: it reads one tuple.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, final, get_args

from ctxcheck.engine.classes import LockClass, Mode
from ctxcheck.engine.grading import by_key
from ctxcheck.engine.graph import ENOUGH_OWNERS
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import Trace

#: Why the code of a context may never wait for what it has interrupted the holder of: it asks first whether the lock is
#: taken; it looks first at a flag of its thread, which the holder sets; it is the standard library's own.
Doubt = Literal["", "asks", "flag", "library"]
DOUBTS: Final[tuple[Doubt, ...]] = get_args(Doubt)

#: Uses remembered of one class in one way.
MAX_USES: Final = 32


class Use(NamedTuple):
    """One way in which a class was used.

    ``guards`` are the classes held exclusively at that moment, this one among them where it is held;
    ``allowed`` are the reasons of ``allow`` blocks around it for CTX004 and for CTX005.  ``doubt`` is what speaks
    against it, if anything does, and ``flags`` are the thread-locals that its code looks at first.
    """

    owner: Owner
    guards: frozenset[LockClass]
    origin: str
    mode: Mode
    trace: Trace
    allowed: tuple[str | None, str | None] = (None, None)
    doubt: Doubt = ""
    flags: frozenset[str] = frozenset()

    def way(self) -> tuple[object, ...]:
        """What makes two uses differ, but for their owners, guards, places and origins."""
        mode = self.mode
        allowed = (text is None for text in self.allowed)
        return (mode.shared, mode.recursive, mode.timed, *allowed, self.doubt, self.flags)

    def sort_key(self) -> tuple[object, ...]:
        """An order that doesn't depend on when they came."""
        reasons = [text or "" for text in self.allowed]
        guards = sorted(map(by_key, self.guards))
        mode = self.mode
        doubts = (self.doubt, sorted(self.flags))
        return (*reasons, mode.timed, len(guards), *self.place(), mode.shared, mode.recursive, guards, doubts)

    def place(self) -> tuple[object, ...]:
        """The part of the order that the place gives."""
        return (*self.trace.sort_key(), self.origin, self.trace.way_key())


@final
class Uses:
    """The uses of one class in one way: for each owner those under the fewest guards, and of those the first places.

    Of more than :data:`MAX_USES` only the guards that all have are kept, one use an owner: nothing that is possible is
    lost by that, and what only the other guards would have prevented is told of.
    """

    __slots__ = ("folded", "known")

    def __init__(self) -> None:
        self.known: tuple[Use, ...] = ()
        self.folded: int = 0

    def covers(self, new: Use) -> bool:
        """Whether there is nothing to learn from this one."""
        return bool(self.known) and self._without(new) is None

    def add(self, new: Use) -> bool:
        """Remember a use; returns whether it may change what is possible, and not only where it is shown."""
        if not self.known:
            self.known = (new,)
            return True
        kept = self._without(new)
        if kept is None:
            return False
        way = new.way()
        news = not any(old.way() == way and old.guards <= new.guards for old in self.known)
        news = news or all(old.owner is not new.owner for old in self.known)
        kept.append(new)
        if len(kept) > MAX_USES:
            self.folded += 1
            kept = _folded(kept)
        self.known = tuple(sorted(kept, key=Use.sort_key))
        return news

    def _without(self, new: Use) -> list[Use] | None:
        """What is left of what is known beside a new use; ``None`` if that one is needless."""
        way, place = new.way(), new.place()
        kept: list[Use] = []
        alike: list[Use] = []
        for old in self.known:
            if old.way() == way:
                if old.owner is new.owner:
                    if old.guards < new.guards or (old.guards == new.guards and old.place() <= place):
                        return None
                    if new.guards <= old.guards:
                        continue
                if old.guards == new.guards:
                    alike.append(old)
            kept.append(old)
        if len(alike) >= ENOUGH_OWNERS:
            # so many owners may stand for all; of their places the first ones are kept, whoever comes first
            last = max(alike, key=Use.place)
            if last.place() <= place:
                return None
            kept.remove(last)
        return kept


def _folded(uses: list[Use]) -> list[Use]:
    """Under the guards that all uses of a sort have, as few owners as may stand for all."""
    sorts: dict[tuple[object, ...], list[Use]] = {}
    for use in sorted(uses, key=Use.sort_key):
        sorts.setdefault(use.way(), []).append(use)
    kept: list[Use] = []
    for alike in sorts.values():
        common = frozenset[LockClass].intersection(*(use.guards for use in alike))
        owners: dict[Owner, Use] = {}
        for use in alike:
            if len(owners) < ENOUGH_OWNERS:
                owners.setdefault(use.owner, use._replace(guards=common))
        kept += owners.values()
    return kept
