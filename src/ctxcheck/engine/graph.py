"""The order graph: which lock class was taken while which was held, by whom, and under what.

Two views of one edge list.  The *evidence* keeps every edge with its witnesses:
the verdict (``verdict.py``) is computed from all of it, so that it doesn't depend on the
order in which edges arrived.  The *ranks* answer one question at once: does this new
edge close a cycle?  They are kept by the algorithm of Pearce and Kelly ("A dynamic
topological sort algorithm for directed acyclic graphs", 2006): an edge that agrees
with the ranks is free, another one costs a search of the affected region only.  Classes that
lie on a cycle become one node of the ranked graph (union by size), so that the question stays cheap once some cycle
exists.

Not thread-safe by itself: the validator calls it under its mutex.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Final, NamedTuple

from ctxcheck.engine.classes import RESTORE, LockClass, Mode
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import Trace

#: An edge with this many owners that saw it under the same guards needs no more of them:
#: exact for cycles of up to this many edges.
ENOUGH_OWNERS: Final = 8
#: Witnesses kept of one edge in one way; more guards than that are folded into what all of them have in common.
MAX_WITNESSES: Final = 64
#: Places of one edge that are kept beside those of its witnesses.
MAX_PLACES: Final = 64

Edge = tuple[LockClass, LockClass]


class Witness(NamedTuple):
    """One way in which an edge was seen.

    ``guards`` are the classes held exclusively at that moment, the edge's source among them;
    which of them really keep others out is for the verdict to say.  ``held_at`` is where the source
    was acquired, ``taken_at`` where the target was asked for.  ``allowed`` is the reason of an ``allow`` around it.
    ``doubt`` is what speaks against it where it stands for an interruption, see ``uses.py``.
    """

    owner: Owner
    guards: frozenset[LockClass]
    origin: str
    held_mode: Mode
    taken_mode: Mode
    held_at: Trace
    taken_at: Trace
    allowed: str | None = None
    doubt: str = ""

    @property
    def timed(self) -> bool:
        """Whether this wait gives up by itself."""
        return self.taken_mode.timed

    def sort_key(self) -> tuple[object, ...]:
        """An order between witnesses that doesn't depend on when they came.

        A lock that was taken back after a wait comes after the acquire that it had before: whether the wait waited at
        all is chance.
        """
        sites = (self.taken_at.sort_key(), self.held_at.sort_key())
        guards = tuple(sorted([guard.key for guard in self.guards]))
        ways = (self.taken_at.way_key(), self.held_at.way_key())
        chance = self.taken_mode is RESTORE
        return (self.allowed or "", self.timed, chance, len(guards), *sites, self.origin, guards, *ways)

    def place(self) -> tuple[object, ...]:
        """Where it was seen, and what accepts it there; the same in every process."""
        return (*self.taken_at.place_key(), *self.held_at.place_key(), self.allowed or "")

    def is_beside(self, other: Witness) -> bool:
        """Whether both were seen at one place, accepted alike.  Cheaper than to compare :meth:`place`."""
        return (
            self.allowed == other.allowed
            and self.taken_at.begins_as(other.taken_at)
            and self.held_at.begins_as(other.held_at)
        )


#: Witnesses by their places; nothing where there would be none.
Places = dict[tuple[object, ...], Witness] | None


class Evidence:
    """All witnesses of one edge, in their own order, and how often it was recorded; ``folded`` counts those beyond
    :data:`MAX_WITNESSES`, whose guards are known in part only.

    ``elsewhere`` has those that say nothing new to a verdict, but were seen at another place: what accepts an order at
    one place accepts it at no other.
    """

    __slots__ = ("count", "elsewhere", "folded", "witnesses")

    def __init__(self) -> None:
        self.witnesses: list[Witness] = []
        self.elsewhere: Places = None
        self.count: int = 0
        self.folded: int = 0

    def places(self) -> list[Witness]:
        """Witnesses of every place where the edge was seen, as far as it is known."""
        return self.witnesses if self.elsewhere is None else [*self.witnesses, *self.elsewhere.values()]

    def _leave(self, witness: Witness) -> None:
        self.elsewhere = keep_place(self.elsewhere, self.witnesses, witness)

    def add(self, new: Witness) -> bool:
        """Record a witness unless a stronger one is there; returns whether it was news.

        Stronger: one of the same owner, or of enough owners, in the same modes under no more guards.  Where two are
        alike the one with the smaller site is kept, so that reports don't depend on arrival.  O(MAX_WITNESSES).
        """
        if new.taken_mode is not RESTORE or not self.count:
            self.count += 1  # whether a wait really waited, and took its lock again, is chance
        others: set[Owner] = set()
        alike = 0
        for index, old in enumerate(self.witnesses):
            if not _same_way(old, new):
                continue
            alike += 1
            if not old.guards <= new.guards:
                continue
            if old.owner is new.owner:
                if old.guards == new.guards and new.sort_key() < old.sort_key():
                    del self.witnesses[index]
                    insort(self.witnesses, new, key=Witness.sort_key)
                    self._leave(old)
                else:
                    self._leave(new)
                return False
            others.add(old.owner)
        if len(others) >= ENOUGH_OWNERS:
            self._leave(new)
            return False
        weaker = [w for w in self.witnesses if w.owner is new.owner and _same_way(w, new) and new.guards < w.guards]
        if weaker:
            self.witnesses = [w for w in self.witnesses if not any(w is one for one in weaker)]
        elif alike >= MAX_WITNESSES:
            self._fold(new)
            return True
        insort(self.witnesses, new, key=Witness.sort_key)
        for one in weaker:
            self._leave(one)
        return True

    def _fold(self, new: Witness) -> None:
        """Make those that are alike one an owner, under the guards that all of them have: no deadlock is lost by it,
        and one that only the guards left out would have prevented is told of."""
        self.folded += 1
        alike = [*(old for old in self.witnesses if _same_way(old, new)), new]
        every = [*self.witnesses, new]
        common = reduce(frozenset[LockClass].intersection, (old.guards for old in alike))
        kept: dict[Owner, Witness] = {}
        for old in alike:
            if len(kept) < ENOUGH_OWNERS:
                kept.setdefault(old.owner, old._replace(guards=common))
        self.witnesses = [old for old in self.witnesses if not _same_way(old, new)]
        self.witnesses += kept.values()
        self.witnesses.sort(key=Witness.sort_key)
        for one in every:
            self._leave(one)

    def saturated(self, guards: frozenset[LockClass], held_mode: Mode, taken_mode: Mode) -> bool:
        """Whether enough owners have been seen on this edge in this way for another not to matter."""
        if len(self.witnesses) < ENOUGH_OWNERS:
            return False
        owners = {
            witness.owner
            for witness in self.witnesses
            if witness.allowed is None
            and witness.guards <= guards
            and witness.taken_mode.timed == taken_mode.timed
            and witness.held_mode.shared == held_mode.shared
            and witness.taken_mode.recursive == taken_mode.recursive
        }
        return len(owners) >= ENOUGH_OWNERS


def keep_place(places: Places, others: Iterable[Witness], new: Witness) -> Places:
    """Keep a witness if it is of a place that none of the ``others`` is of; the first places if there are too many, and
    the first witness of each, whoever comes first.  O(others)."""
    if any(new.is_beside(other) for other in others):
        return places
    places = {} if places is None else places
    place = new.place()
    if place not in places or new.sort_key() < places[place].sort_key():
        places[place] = new
    if len(places) > MAX_PLACES:
        del places[max(places)]  # pyright: ignore[reportArgumentType]
    return places


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
    """Edges between lock classes, with their evidence.  Nothing is ever removed (see :meth:`without`).

    ``add`` is O(1) for an edge that is known, agrees with the ranks, or lies within a component; otherwise it
    searches the region between the two ranks.  ``folded`` counts the witnesses whose guards are known in part only.
    """

    __slots__ = ("_home", "_members", "_pred", "_rank", "_succ", "_torn", "evidence", "folded", "successors")

    def __init__(self) -> None:
        self.evidence: dict[Edge, Evidence] = {}
        self._forget_ranks()
        self.folded: int = 0

    def _forget_ranks(self) -> None:
        # set while what follows from the evidence is being changed: a signal handler may raise in the middle, or a fork
        # leave a child with what another thread had half done
        self._torn: bool = False
        self.successors: dict[LockClass, set[LockClass]] = {}  # every edge
        # the graph of the strongly connected components, each of which goes by the name of one of its classes;
        # the sets may have old names in them
        self._succ: dict[LockClass, set[LockClass]] = {}
        self._pred: dict[LockClass, set[LockClass]] = {}
        self._rank: dict[LockClass, int] = {}
        self._home: dict[LockClass, LockClass] = {}  # of the others, towards that one
        self._members: dict[LockClass, list[LockClass]] = {}  # where there is more than one

    def add(self, source: LockClass, target: LockClass, witness: Witness) -> tuple[bool, bool]:
        """Record that ``target`` was asked for while ``source`` was held.

        Returns whether the witness was news, and whether the edge lies on a cycle, now
        that it is there.  Two locks of one class make no edge: they are another rule's business.
        """
        if self._torn:
            self._mend()
        evidence = self.evidence.get((source, target))
        if evidence is not None:
            folded = evidence.folded
            news = evidence.add(witness)
            self.folded += evidence.folded - folded
            return news, news and self._name(source) is self._name(target)
        evidence = Evidence()
        evidence.add(witness)
        self._torn = True
        self.evidence[(source, target)] = evidence
        acyclic = self.connect(source, target)
        self._torn = False
        return True, not acyclic

    def connect(self, source: LockClass, target: LockClass) -> bool:
        """Let an edge that has its evidence be part of what follows from that; returns False if it closes a cycle."""
        self.successors.setdefault(source, set()).add(target)
        self.successors.setdefault(target, set())
        return self._insert(source, target)

    def _mend(self) -> None:
        """Work out anew what follows from the evidence: O(edges)."""
        self._forget_ranks()
        self._torn = True
        for source, target in self.evidence:
            self.connect(source, target)
        self._torn = False

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
        """The strongly connected component of an edge that lies on a cycle: O(its size)."""
        name = self._name(edge[0])
        return set(self._members.get(name, (name,)))

    def without(self, gone: Callable[[LockClass], bool], *, cyclic: bool) -> OrderGraph:
        """The same graph without the edges of what is gone; those on a cycle are left out only with ``cyclic``."""
        if self._torn:
            self._mend()
        kept = OrderGraph()
        kept.folded = self.folded
        for edge, evidence in self.evidence.items():
            source, target = edge
            if (self._name(source) is self._name(target) and not cyclic) or not (gone(source) or gone(target)):
                kept.evidence[edge] = evidence
                kept.connect(source, target)
        return kept

    def _name(self, node: LockClass) -> LockClass:
        """The class that a node's component goes by."""
        home = self._home
        if node not in home:
            return node
        path: list[LockClass] = []
        while node in home:
            path.append(node)
            node = home[node]
        for passed in path:
            home[passed] = node
        return node

    # --- Pearce and Kelly -----------------------------------------------------

    def _insert(self, source: LockClass, target: LockClass) -> bool:
        """Insert an edge; returns False if it closes a cycle: then what lies on it is one component from now on."""
        rank = self._rank
        for node in (source, target):
            if node not in rank and node not in self._home:
                rank[node] = len(rank) + len(self._home)
                self._succ[node] = set()
                self._pred[node] = set()
        source, target = self._name(source), self._name(target)
        if source is target:
            return False
        lower, upper = rank[target], rank[source]
        if lower < upper:
            forward = self._search(target, self._succ, lambda r: r <= upper)
            backward = self._search(source, self._pred, lambda r: r >= lower)
            knot = forward & backward
            self._reorder(forward, knot, backward)
            if knot:
                self._merge(knot)
                return False
        self._succ[source].add(target)
        self._pred[target].add(source)
        return True

    def _search(
        self, start: LockClass, edges: dict[LockClass, set[LockClass]], inside: Callable[[int], bool]
    ) -> set[LockClass]:
        # an explicit stack: a program may have more lock classes than Python has recursion depth
        rank = self._rank
        name = self._name
        found = {start}
        todo = [start]
        while todo:
            at = todo.pop()
            for node in edges[at]:
                node = name(node)  # noqa: PLW2901
                if node not in found and inside(rank[node]):
                    found.add(node)
                    todo.append(node)
        return found

    def _reorder(self, forward: set[LockClass], knot: set[LockClass], backward: set[LockClass]) -> None:
        """Deal the ranks of the affected region out again: what leads to the source comes first, then what lies on a
        cycle (all at one rank), then the rest."""
        rank = self._rank
        first = sorted(backward - knot, key=rank.__getitem__)
        last = sorted(forward - knot, key=rank.__getitem__)
        free = sorted(rank[node] for node in forward | backward)
        for node, new in zip(first, free, strict=False):
            rank[node] = new
        for node, new in zip(reversed(last), reversed(free), strict=False):
            rank[node] = new
        for node in knot:
            rank[node] = free[len(first)]

    def _merge(self, knot: set[LockClass]) -> None:
        """Make these components one; it goes by the name of the largest, so that no set is copied often."""
        name = max(knot, key=lambda node: len(self._succ[node]) + len(self._pred[node]))
        members = self._members.setdefault(name, [name])
        succ, pred = self._succ[name], self._pred[name]
        for node in knot:
            if node is not name:
                members += self._members.pop(node, (node,))
                succ |= self._succ.pop(node)
                pred |= self._pred.pop(node)
                del self._rank[node]
                self._home[node] = name
        for near in (succ, pred):
            near -= {node for node in knot if node in near}

    def check_invariants(self) -> None:
        """Raise AssertionError unless the ranks order the components and cover the evidence; for tests."""
        ranks = list(self._rank.values())
        assert len(set(ranks)) == len(ranks)
        across = {(a, b) for s, t in self.evidence if (a := self._name(s)) is not (b := self._name(t))}
        for near, turn in ((self._succ, False), (self._pred, True)):
            pairs = {(a, self._name(b)) for a, others in near.items() for b in others}
            assert across == {(b, a) if turn else (a, b) for a, b in pairs if a is not b}
        for source, target in across:
            assert self._rank[source] < self._rank[target], (source, target)
        for name, members in self._members.items():
            assert all(self._name(node) is name for node in members)
        assert len(self._rank) + len(self._home) == len(self.successors)
