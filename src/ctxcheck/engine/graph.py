"""The order graph: which lock class was taken while which was held, by whom, and under what.

Two views of one edge list.  The *evidence* keeps every edge with its witnesses:
the verdict (``verdict.py``) is computed from all of it, so that it doesn't depend on the
order in which edges arrived.  The *ranks* answer one question at once: does this new
edge close a cycle?  They are kept by the algorithm of Pearce and Kelly ("A dynamic
topological sort algorithm for directed acyclic graphs", 2006): an edge that agrees
with the ranks is free, another one costs a search of the affected region only.  Edges
that close a cycle are left out of the ranks, and stay in the evidence.

Not thread-safe by itself: the validator calls it under its mutex.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from ctxcheck.engine.classes import LockClass, Mode
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import Trace

#: An edge with this many owners that saw it under the same guards needs no more of them:
#: exact for cycles of up to this many edges.
ENOUGH_OWNERS: Final = 8

Edge = tuple[LockClass, LockClass]


class Witness(NamedTuple):
    """One way in which an edge was seen.

    ``guards`` are the classes held exclusively at that moment, the edge's source among them;
    which of them really keep others out is for the verdict to say.  ``held_at`` is where the source
    was acquired, ``taken_at`` where the target was asked for.  ``allowed`` is the reason of an ``allow`` around it.
    """

    owner: Owner
    guards: frozenset[LockClass]
    origin: str
    held_mode: Mode
    taken_mode: Mode
    held_at: Trace
    taken_at: Trace
    allowed: str | None = None

    @property
    def timed(self) -> bool:
        """Whether this wait gives up by itself."""
        return self.taken_mode.timed

    def sort_key(self) -> tuple[object, ...]:
        """An order between witnesses that doesn't depend on when they came."""
        sites = (self.taken_at.sort_key(), self.held_at.sort_key())
        return (self.allowed or "", self.timed, len(self.guards), *sites, self.origin)


class Evidence:
    """All witnesses of one edge, in their own order, and how often it was recorded."""

    __slots__ = ("count", "witnesses")

    def __init__(self) -> None:
        self.witnesses: list[Witness] = []
        self.count: int = 0

    def add(self, new: Witness) -> bool:
        """Record a witness unless a stronger one of the same owner is there; returns whether it was news.

        Stronger: the same modes under fewer guards.  Where two are alike the one
        with the smaller site is kept, so that reports don't depend on arrival.
        """
        self.count += 1
        alike = 0
        for index, old in enumerate(self.witnesses):
            if not _same_way(old, new):
                continue
            if old.guards == new.guards:
                alike += 1
            if old.owner is not new.owner:
                continue
            if old.guards == new.guards:
                if new.sort_key() < old.sort_key():
                    self.witnesses[index] = new
                    self.witnesses.sort(key=Witness.sort_key)
                return False
            if old.guards < new.guards:
                return False
        if alike >= ENOUGH_OWNERS:
            return False
        self.witnesses = [
            old
            for old in self.witnesses
            if not (old.owner is new.owner and _same_way(old, new) and new.guards < old.guards)
        ]
        self.witnesses.append(new)
        self.witnesses.sort(key=Witness.sort_key)
        return True

    def saturated(self, guards: frozenset[LockClass], held_mode: Mode, taken_mode: Mode) -> bool:
        """Whether enough owners have been seen on this edge in this way for another not to matter."""
        alike = 0
        for witness in self.witnesses:
            if (
                witness.allowed is None
                and witness.guards == guards
                and witness.taken_mode.timed == taken_mode.timed
                and witness.held_mode.shared == held_mode.shared
                and witness.taken_mode.recursive == taken_mode.recursive
            ):
                alike += 1
                if alike >= ENOUGH_OWNERS:
                    return True
        return False


def _same_way(a: Witness, b: Witness) -> bool:
    return (
        a.origin == b.origin
        and a.taken_mode.timed == b.taken_mode.timed
        and a.held_mode.shared == b.held_mode.shared
        and a.taken_mode.recursive == b.taken_mode.recursive
        # what was accepted at one place stands for no other
        and (a.allowed is None) == (b.allowed is None)
    )


class OrderGraph:
    """Edges between lock classes, with their evidence.  Nothing is ever removed.

    ``add`` is O(1) for an edge that is known or agrees with the ranks; otherwise it
    searches the region between the two ranks (and, once some cycle exists, what the target reaches).
    """

    __slots__ = ("_pred", "_rank", "_refused", "_succ", "evidence", "successors")

    def __init__(self) -> None:
        self.evidence: dict[Edge, Evidence] = {}
        self.successors: dict[LockClass, set[LockClass]] = {}  # every edge
        self._succ: dict[LockClass, set[LockClass]] = {}  # the acyclic part
        self._pred: dict[LockClass, set[LockClass]] = {}
        self._rank: dict[LockClass, int] = {}
        self._refused: int = 0

    def add(self, source: LockClass, target: LockClass, witness: Witness) -> tuple[bool, bool]:
        """Record that ``target`` was asked for while ``source`` was held.

        Returns whether the witness was news, and whether the edge lies on a cycle, now
        that it is there.  Two locks of one class make no edge: they are another rule's business.
        """
        evidence = self.evidence.get((source, target))
        known = evidence is not None
        if evidence is None:
            evidence = self.evidence[(source, target)] = Evidence()
        news = evidence.add(witness)
        if known:
            return news, news and self._refused > 0 and self.reaches(target, source)
        self.successors.setdefault(source, set()).add(target)
        self.successors.setdefault(target, set())
        if not self._insert(source, target):
            self._refused += 1
            return True, True
        return True, self._refused > 0 and self.reaches(target, source)

    def reaches(self, start: LockClass, goal: LockClass) -> bool:
        """Whether some path of recorded edges leads from ``start`` to ``goal``."""
        seen = {start}
        todo = [start]
        while todo:
            node = todo.pop()
            if node is goal:
                return True
            for successor in self.successors.get(node, ()):
                if successor not in seen:
                    seen.add(successor)
                    todo.append(successor)
        return False

    def component(self, edge: Edge) -> set[LockClass]:
        """The strongly connected component of an edge that lies on a cycle: O(what it reaches)."""
        source, target = edge
        forward = _closure([target], self.successors)
        backward: dict[LockClass, set[LockClass]] = {}
        for node in forward:
            for successor in self.successors.get(node, ()):
                backward.setdefault(successor, set()).add(node)
        return _closure([source], backward) & forward

    # --- Pearce and Kelly -----------------------------------------------------

    def _insert(self, source: LockClass, target: LockClass) -> bool:
        """Insert into the acyclic part, or leave it unchanged and return False: the edge closes a cycle."""
        rank = self._rank
        for node in (source, target):
            if node not in rank:
                rank[node] = len(rank)
                self._succ[node] = set()
                self._pred[node] = set()
        lower, upper = rank[target], rank[source]
        if lower < upper:
            forward = self._search(target, self._succ, lambda r: r <= upper)
            if source in forward:
                return False
            backward = self._search(source, self._pred, lambda r: r >= lower)
            self._reorder(forward, backward)
        self._succ[source].add(target)
        self._pred[target].add(source)
        return True

    def _search(
        self, start: LockClass, edges: dict[LockClass, set[LockClass]], inside: Callable[[int], bool]
    ) -> set[LockClass]:
        # an explicit stack: a program may have more lock classes than Python has recursion depth
        rank = self._rank
        found = {start}
        todo = [start]
        while todo:
            for node in edges[todo.pop()]:
                if node not in found and inside(rank[node]):
                    found.add(node)
                    todo.append(node)
        return found

    def _reorder(self, forward: set[LockClass], backward: set[LockClass]) -> None:
        """Deal the ranks of the affected region out again: what leads to the source comes first."""
        rank = self._rank
        order = sorted(backward, key=rank.__getitem__) + sorted(forward, key=rank.__getitem__)
        for node, new in zip(order, sorted(rank[node] for node in order), strict=True):
            rank[node] = new

    def check_invariants(self) -> None:
        """Raise AssertionError unless the ranks order the acyclic part and cover the evidence; for tests."""
        assert sorted(self._rank.values()) == list(range(len(self._rank)))
        for source, targets in self._succ.items():
            for target in targets:
                assert self._rank[source] < self._rank[target], (source, target)
                assert source in self._pred[target]
                assert (source, target) in self.evidence
        kept = sum(map(len, self._succ.values()))
        assert kept + self._refused == len(self.evidence)


def _closure(starts: Iterable[LockClass], edges: dict[LockClass, set[LockClass]]) -> set[LockClass]:
    found = set(starts)
    todo = list(found)
    while todo:
        for node in edges.get(todo.pop(), ()):
            if node not in found:
                found.add(node)
                todo.append(node)
    return found
