"""How sure a cycle is: can its owners all wait for each other at once?

They can if one witness can be chosen for each edge such that the owners are distinct, no two of them would hold one
guard at the same time, and no reader is waited for by a reader that would be let in.  The choice is a joint one: to
keep owners and guards apart, each edge for itself, isn't exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.graph import Edge, Evidence, Witness
from ctxcheck.engine.rules import Grade

Owners = Literal["assumed", "observed"]
Reason = Literal[
    "", "guarded", "one owner", "timed", "handed over", "readers", "within", "asks", "flag", "library"
]  # fmt: skip

#: Witnesses tried in the choice for one cycle.
MAX_CHOICES: Final = 4_096


@final
@dataclass(frozen=True, slots=True)
class Cycle:
    """A cycle of the order graph: ``witnesses[i]`` shows ``classes[i]`` -> ``classes[i + 1]`` (the last leads back).

    It begins at its smallest key.  ``reason`` says in a few words why the grade isn't higher.
    """

    classes: tuple[LockClass, ...]
    witnesses: tuple[Witness, ...]
    grade: Grade
    reason: Reason = ""
    guard: LockClass | None = None
    counts: tuple[int, ...] = ()
    #: which of them were handed over, if that is the reason: later it may be known of none any more
    handed: tuple[LockClass, ...] = ()


def never(lock_class: LockClass) -> bool:
    """What no class is."""
    return lock_class is None


def by_key(lock_class: LockClass) -> str:
    """Sorts classes in an order that is the same in each process."""
    return lock_class.key


def edges_of(classes: tuple[LockClass, ...]) -> list[Edge]:
    """The edges of a cycle; the last one leads back."""
    return [(a, classes[(i + 1) % len(classes)]) for i, a in enumerate(classes)]


def canonical(classes: tuple[LockClass, ...]) -> tuple[LockClass, ...]:
    """The same cycle from its smallest key on."""
    smallest = min(range(len(classes)), key=lambda i: classes[i].key)
    return classes[smallest:] + classes[:smallest]


#: A witness, those of its guards that really keep others out, and whether its hold lets readers in.
Way = tuple[Witness, frozenset[LockClass], bool]


@final
class Grading:
    """The witnesses of one body of evidence, and which of them can be there at once.

    Args:
        owners: "assumed" or "observed", see :func:`~ctxcheck.engine.verdict.judge`.
        is_single, joins: as for it.
    """

    __slots__ = ("_evidence", "_is_single", "_joins", "_single", "_ways", "distinct")

    def __init__(
        self,
        evidence: dict[Edge, Evidence],
        owners: Owners,
        is_single: Callable[[LockClass], bool],
        joins: Callable[[LockClass], bool] = never,
    ) -> None:
        self._evidence: dict[Edge, Evidence] = evidence
        self._is_single: Callable[[LockClass], bool] = is_single
        self._joins: Callable[[LockClass], bool] = joins
        self._single: dict[LockClass, bool] = {}
        self._ways: dict[tuple[Edge, bool], list[Way]] = {}
        #: whether each edge of a cycle needs an owner of its own
        self.distinct: bool = owners == "observed"

    def ways(self, edge: Edge, *, timed: bool) -> list[Way]:
        """The witnesses of an edge, best first, without those that another makes needless; ``timed`` ones if wanted."""
        ways = self._ways.get((edge, timed))
        if ways is None:
            ways = self._ways[edge, timed] = []
            for witness in self._evidence[edge].witnesses:
                guards = frozenset(filter(self._keeps_out, witness.guards))
                way = (witness, guards, witness.held_mode.shared and not self._joins(edge[0]))
                if (timed or not witness.timed) and not any(self._serves(old, way) for old in ways):
                    ways.append(way)
        return ways

    def _keeps_out(self, guard: LockClass) -> bool:
        known = self._single.get(guard)
        if known is None:
            # a lock that was ever handed over isn't held by whoever took it, also where that was found out later
            known = self._single[guard] = self._is_single(guard) and not guard.handed_over
        return known

    def _serves(self, old: Way, new: Way) -> bool:
        """Whether ``old`` fits wherever ``new`` does."""
        return (
            old[1] <= new[1]
            and (not self.distinct or old[0].owner is new[0].owner)
            and old[2] == new[2]
            and old[0].taken_mode.recursive == new[0].taken_mode.recursive
        )

    def grade(self, classes: tuple[LockClass, ...]) -> Cycle:
        """Grade one cycle by the best joint choice of a witness an edge."""
        classes = canonical(classes)
        pairs = edges_of(classes)
        every = [self.ways(pair, timed=True) for pair in pairs]
        blocking = [self.ways(pair, timed=False) for pair in pairs]
        counts = tuple(self._evidence[pair].count for pair in pairs)
        fallback = tuple(some[0][0] for some in every)
        handed = tuple(c for c in classes if c.handed_over)
        if handed:
            return Cycle(classes, fallback, "unlikely", "handed over", counts=counts, handed=handed)
        attempts: tuple[tuple[list[list[Way]], bool, bool, Reason], ...] = (
            (blocking, self.distinct, True, ""),
            (blocking, False, True, "one owner"),
            (every, self.distinct, True, "timed"),
            (every, False, True, "one owner"),
            (every, False, False, "guarded"),
        )
        for ways, distinct, guarded, reason in attempts:
            chosen = self.choose(ways, distinct=distinct, guarded=guarded, closed=True)
            if chosen is not None:
                guard = _common_guard(chosen) if reason == "guarded" else None
                witnesses = tuple(witness for witness, _, _ in chosen)
                return Cycle(classes, witnesses, "unlikely" if reason else "possible", reason, guard, counts)
        # readers that let each other in are no deadlock in any schedule
        return Cycle(classes, fallback, "unlikely", "readers", counts=counts)

    def choose(
        self, options: list[list[Way]], *, distinct: bool, guarded: bool, closed: bool = False
    ) -> list[Way] | None:
        """Choose one witness an edge so that all can wait at once: the first fit in sorted order, or ``None``."""
        chosen: list[Way] = []
        cursors = [0]
        budget = MAX_CHOICES
        while cursors:
            depth = len(cursors) - 1
            if depth == len(options):
                return chosen
            while cursors[depth] < len(options[depth]):
                way = options[depth][cursors[depth]]
                cursors[depth] += 1
                budget -= 1
                if budget < 0:
                    # too many combinations to try: take what is there rather than call a deadlock unlikely
                    return [some[0] for some in options] if all(options) else None
                last = closed and depth == len(options) - 1
                if fits(way, chosen, closed=last, distinct=distinct, guarded=guarded):
                    chosen.append(way)
                    cursors.append(0)
                    break
            else:
                cursors.pop()
                if chosen:
                    chosen.pop()
        return None


def fits(
    way: Way, chosen: list[Way], *, closed: bool, distinct: bool, guarded: bool, adjacent: bool = True
) -> bool:
    """Whether one witness more can wait at the same time; ``closed``: it is the last of a cycle, ``adjacent``: its edge
    goes on from that of the last one chosen."""
    new, guards, lets_in = way
    for old, taken, _ in chosen:
        # what is done in a region is done by whoever enters it, so it matters little who was seen to
        entered = old.held_mode.enters or new.held_mode.enters
        if (distinct and old.owner is new.owner and not entered) or (guarded and not guards.isdisjoint(taken)):
            return False
    # "no recursive-read arrival is followed by a shared hold" (lockdep's strong paths)
    if adjacent and chosen and chosen[-1][0].taken_mode.recursive and lets_in:
        return False
    return not (closed and new.taken_mode.recursive and (chosen[0][2] if chosen else lets_in))


def _common_guard(chosen: list[Way]) -> LockClass | None:
    for i, (_, guards, _) in enumerate(chosen):
        for _, others, _ in chosen[:i]:
            shared = guards & others
            if shared:
                return min(shared, key=by_key)
    return None
