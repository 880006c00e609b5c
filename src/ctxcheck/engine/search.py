"""The search for cycles: the best one through each edge, in bounded time.

Enumerating simple cycles is exponential in the worst case, so a path is given up as soon as its witnesses can't be
there at once (``grading.py``), and the work is bounded by steps; what was cut is counted.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable
from typing import Final, final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.grading import Cycle, Grading, Way, by_key, canonical, fits
from ctxcheck.engine.graph import Edge, Evidence
from ctxcheck.engine.owner import Owner

#: Steps of the search for one edge's best cycle, and of a whole verdict (a microsecond or so each; more where there are
#: more edges).
MAX_SEARCH_STEPS: Final = 20_000
MAX_WORK: Final = 400_000


def only_waits(classes: tuple[LockClass, ...]) -> bool:
    """Whether a cycle is of parties that wait for parties.  Which thread or job it is counts there, and it's another
    one each time: a job that waits for a job of its own function is how one divides and conquers."""
    return all(c.kind.awaited for c in classes)


#: What all witnesses have in common: guards, and the owner if it is only one.
_Core = tuple[frozenset[LockClass], Owner | None] | None


@final
class Search:
    """The search for cycles in one body of evidence, and what stays the same while its edges are walked.

    A cycle is *possible* only if its edges' witnesses fit together, and then so do those of each of its
    paths: a path is given up as soon as no choice of witnesses fits.  An edge all of whose witnesses share a guard,
    or their one owner, with all witnesses of all edges that could come next to it is given up at once, however many
    cycles there are.

    Args:
        grading: of the same evidence.
        within: a set that holds whole strongly connected components.
        successors: the edges among ``within``, where the caller knows them.
        work: steps that it may take.
    """

    __slots__ = (
        "_beside", "_cores", "_distances", "_evidence", "_grading", "_sources", "_together", "_work", "cut", "edges",
    )  # fmt: skip

    def __init__(
        self,
        evidence: dict[Edge, Evidence],
        grading: Grading,
        within: set[LockClass],
        successors: dict[LockClass, set[LockClass]] | None = None,
        work: int = MAX_WORK,
    ) -> None:
        self._evidence: dict[Edge, Evidence] = evidence
        self._grading: Grading = grading
        self._work: int = work
        self._distances: tuple[LockClass | None, dict[LockClass, int]] = (None, {})
        self._together: dict[tuple[Edge, Edge], bool] = {}
        self._cores: dict[Edge, _Core] = {}
        self._beside: dict[tuple[LockClass, bool], _Core] = {}
        #: edges whose search was cut short
        self.cut: set[Edge] = set()
        #: every edge; targets in key order
        self.edges: dict[LockClass, list[LockClass]] = {}
        self._sources: dict[LockClass, list[LockClass]] = {}
        among = evidence if successors is None else ((a, b) for a, targets in successors.items() for b in targets)
        for source, target in among:
            if source in within and target in within:
                self.edges.setdefault(source, []).append(target)
                self._sources.setdefault(target, []).append(source)
        for targets in self.edges.values():
            targets.sort(key=by_key)

    def give(self, work: int) -> None:
        """Allow this many steps more."""
        self._work += work

    def best(self, source: LockClass, target: LockClass) -> Cycle | None:
        """The best cycle through one edge: shortest first, so the first *possible* one settles it."""
        for find in (self.of_two, self.of_three, self.longer, self.shortest):
            found = find(source, target)
            if found is not None and not only_waits(found):
                cycle = self._grading.grade(found)
                return None if cycle.reason == "readers" else cycle
        return None

    # --- paths ------------------------------------------------------------------

    def _distance(self, goal: LockClass) -> dict[LockClass, int]:
        """The fewest edges that lead from each class to ``goal``; that of the last goal is kept."""
        if self._distances[0] is not goal:
            self._work -= sum(map(len, self.edges.values()))
            self._distances = (goal, _distances(self.edges, goal))
        return self._distances[1]

    def _out_of_work(self, edge: Edge) -> bool:
        """Whether the search for this edge's cycle has to be given up before it begins."""
        if self._work <= 0:
            self.cut.add(edge)
        return self._work <= 0

    def shortest(self, source: LockClass, target: LockClass) -> tuple[LockClass, ...] | None:
        """The shortest, then smallest cycle through an edge, whatever its grade."""
        if source in self.edges.get(target, ()):
            return (source, target)
        if self._out_of_work((source, target)):
            return None
        distance = self._distance(source)
        if target not in distance:
            return None
        path = [source, target]
        while (left := distance[path[-1]]) > 1:
            path.append(next(node for node in self.edges[path[-1]] if distance.get(node) == left - 1))
        return tuple(path)

    def of_two(self, source: LockClass, target: LockClass) -> tuple[LockClass, ...] | None:
        """The cycle of an edge and its opposite, if it is possible."""
        if source not in self.edges.get(target, ()) or self._hopeless(source, target):
            return None
        first = self._extend([], [source, target], closed=False)
        closes = first is not None and self._extend(first, [source, target, source], closed=True) is not None
        return (source, target) if closes else None

    def of_three(self, source: LockClass, target: LockClass) -> tuple[LockClass, ...] | None:
        """The smallest possible cycle of three edges through this one."""
        if self._hopeless(source, target):
            return None
        first = self._extend([], [source, target], closed=False)
        if first is None or self._out_of_work((source, target)):
            return None
        before = set(self._sources.get(source, ()))
        self._work -= len(before)
        for node in self.edges.get(target, ()):
            self._work -= 1
            if node in before and node is not source and self._worth():
                second = self._extend(first, [source, target, node], closed=False)
                if second and self._extend(second, [source, target, node, source], closed=True) is not None:
                    return (source, target, node)
        return None

    def longer(self, source: LockClass, target: LockClass) -> tuple[LockClass, ...] | None:
        """The shortest, then smallest possible cycle of four edges or more; gives up after a while."""
        first = self._extend([], [source, target], closed=False)
        if first is None or self._hopeless(source, target) or self._out_of_work((source, target)):
            return None
        if target not in self._distance(source):
            return None
        # what can't be together with the edge itself is out of the question from the beginning
        edges = {
            node: [other for other in targets if self._can_join((source, target), (node, other))]
            for node, targets in self.edges.items()
        }
        distance = _distances(edges, source)
        if target not in distance:
            return None
        steps = 0
        for length in range(max(4, distance[target] + 1), len(edges) + 1):
            path = [source, target]
            inside = {source, target}
            choices = [first]
            todo = [iter(edges[target])]
            longer = False
            while todo:
                for node in todo[-1]:
                    left = length - len(path)  # edges to go from this node
                    if node not in distance or (node in inside and node is not source):
                        continue
                    if distance[node] > left or (node is source and left > 0):
                        longer = longer or node is not source
                        continue
                    steps += 1
                    if steps > MAX_SEARCH_STEPS or not self._worth():
                        self.cut.add((source, target))
                        return None
                    choice = self._extend(choices[-1], [*path, node], closed=node is source)
                    if choice is None:
                        continue
                    if node is source:
                        return tuple(path)
                    path.append(node)
                    inside.add(node)
                    choices.append(choice)
                    todo.append(iter(edges[node]))
                    break
                else:
                    todo.pop()
                    choices.pop()
                    inside.discard(path.pop())
            if not longer:
                return None  # each path was given up for its witnesses, and so would longer ones be
        return None

    def _worth(self) -> bool:
        """Whether to take one step more."""
        self._work -= 1
        return self._work > 0

    def _hopeless(self, source: LockClass, target: LockClass) -> bool:
        """Whether nothing that could come before or after this edge in a cycle can be there together with it."""
        mine = self._core((source, target))
        return any(_clash(mine, self._core_beside(node, out)) for node, out in ((target, True), (source, False)))

    def _core(self, edge: Edge) -> _Core:
        """What all witnesses of an edge have in common; ``None`` if it has none that blocks."""
        if edge not in self._cores:
            ways = [] if edge[0].handed_over or edge[1].handed_over else self._grading.ways(edge, timed=False)
            self._cores[edge] = (_in_all(guards for _, guards, _ in ways), self._sole_owner(ways)) if ways else None
        return self._cores[edge]

    def _core_beside(self, node: LockClass, out: bool) -> _Core:
        """What all edges out of a class, or into it, have in common."""
        if (node, out) not in self._beside:
            edges = (
                [(node, n) for n in self.edges.get(node, ())]
                if out
                else [(n, node) for n in self._sources.get(node, ())]
            )
            cores = [core for edge in edges if (core := self._core(edge)) is not None]
            owners = {core[1] for core in cores}
            sole = owners.pop() if len(owners) == 1 else None
            self._beside[node, out] = (_in_all(core[0] for core in cores), sole) if cores else None
        return self._beside[node, out]

    def _sole_owner(self, ways: list[Way]) -> Owner | None:
        owners = {None if witness.held_mode.enters else witness.owner for witness, _, _ in ways}
        return owners.pop() if self._grading.distinct and len(owners) == 1 else None

    def says_no_more(self, classes: tuple[LockClass, ...], told: set[tuple[LockClass, ...]]) -> bool:
        """Whether a cycle that was told becomes this one by going through locks that were held on the way."""
        while canonical(classes) not in told:
            for i, inner in enumerate(classes):
                seen = self._evidence.get((classes[i - 1], classes[(i + 1) % len(classes)]))
                if len(classes) > 2 and seen is not None and any(inner in w.guards for w in seen.witnesses):
                    classes = classes[:i] + classes[i + 1 :]
                    break
            else:
                return False
        return True

    # --- witnesses ----------------------------------------------------------------

    def _extend(self, choice: list[Way], path: list[LockClass], *, closed: bool) -> list[Way] | None:
        """Fitting witnesses for a path that is one edge longer: the old choice if it goes on, else a new one."""
        new = (path[-2], path[-1])
        for way in self._grading.ways(new, timed=False):
            if fits(way, choice, closed=closed, distinct=self._grading.distinct, guarded=True):
                return [*choice, way]
        pairs = [(a, path[i + 1]) for i, a in enumerate(path[:-1])]
        if path[-1].handed_over or not all(self._can_join(pair, new) for pair in pairs[:-1]):
            return None
        options = [self._grading.ways(pair, timed=False) for pair in pairs]
        return self._grading.choose(options, distinct=self._grading.distinct, guarded=True, closed=closed)

    def _can_join(self, one: Edge, other: Edge) -> bool:
        """Whether some witnesses of two edges of one cycle can be there at once."""
        known = self._together.get((one, other))
        if known is None:
            self._work -= 1
            known = self._together[one, other] = not (other[0].handed_over or other[1].handed_over) and any(
                fits(way, [first], closed=False, distinct=self._grading.distinct, guarded=True, adjacent=False)
                for first in self._grading.ways(one, timed=False)
                for way in self._grading.ways(other, timed=False)
            )
        return known


def _in_all(sets: Iterable[frozenset[LockClass]]) -> frozenset[LockClass]:
    return functools.reduce(frozenset[LockClass].intersection, sets)


def _clash(one: _Core, other: _Core) -> bool:
    """Whether no two witnesses can be there at once."""
    if one is None or other is None:
        return True
    return (one[1] is not None and one[1] is other[1]) or not one[0].isdisjoint(other[0])


def _distances(edges: dict[LockClass, list[LockClass]], goal: LockClass) -> dict[LockClass, int]:
    """The fewest edges that lead from each class to ``goal``."""
    backward: dict[LockClass, list[LockClass]] = {}
    for source, targets in edges.items():
        for target in targets:
            backward.setdefault(target, []).append(source)
    found = {goal: 0}
    todo = deque([goal])
    while todo:
        node = todo.popleft()
        for source in backward.get(node, ()):
            if source not in found:
                found[source] = found[node] + 1
                todo.append(source)
    return found
