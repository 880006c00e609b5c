"""From edges to findings: which cycles there are, and how sure each one is.

The verdict looks at *all* edges, whenever it is asked, so it is the same for every order of
arrival.  A cycle of edges is a deadlock if there is a schedule in which each of its owners holds its
own lock and waits for the next one's: that is, if one witness can be chosen for each edge such
that the owners are distinct, no two of them would hold one guard at the same time, and no
reader is waited for by a reader that would be let in.  Grading joint witnesses over all
simple cycles is exact on small programs; grading the shortest cycle of a component, or
keeping owners and guards apart, is not.

Cost: enumerating simple cycles is exponential in the worst case, so a path is given up as soon as its
witnesses can't be there at once, and the work is bounded by steps; what was cut is counted.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.graph import Edge, Evidence, Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.rules import Grade

Owners = Literal["assumed", "observed"]
_Reason = Literal["", "guarded", "one owner", "timed", "handed over", "readers"]

#: Steps of the search for one edge's best cycle, of a whole verdict (a microsecond or so each; more where there are
#: more edges), and of the choice of witnesses for one cycle.
MAX_SEARCH_STEPS: Final = 20_000
MAX_WORK: Final = 400_000
WORK_AN_EDGE: Final = 8
#: Cycles that one verdict reports: beyond it nobody reads them, and each takes a while to be put into words.
MAX_CYCLES: Final = 2_000
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
    reason: _Reason = ""
    guard: LockClass | None = None
    counts: tuple[int, ...] = ()


@final
@dataclass(slots=True)
class Verdict:
    """The cycles that are reported, and for how many edges the search was cut short, or its cycle left out."""

    cycles: list[Cycle] = field(default_factory=list[Cycle])
    cut: int = 0


def _never(lock_class: LockClass) -> bool:
    return lock_class is None


def judge(
    evidence: dict[Edge, Evidence],
    *,
    owners: Owners,
    is_single: Callable[[LockClass], bool],
    within: set[LockClass],
    joins: Callable[[LockClass], bool] = _never,
) -> Verdict:
    """Report the cycles among ``within``, a set that holds whole strongly connected components.

    ``owners``: "assumed" takes it that any critical section may run in any number of owners at
    once; "observed" goes by the owners that were seen.  ``is_single`` says whether a class had one
    instance only, so that holding it really keeps others out; ``joins`` whether somebody who holds one instance of it
    exclusively waits for another, so that readers of the two hold each other up.

    Each edge that lies on a cycle is covered by its best-graded, then shortest, then smallest cycle, those of two edges
    for all edges first, so that a bound on the work can't cut them; one finding a cycle.  An unlikely cycle says
    nothing new where it is one that was told, with a longer way through the same critical section: to take A to Z in
    one order, and once Z before A, is one mistake and not one for each lock between them.  A circle of readers that
    let each other in isn't told of.

    Cost: near-linear in the edges where most cycles are of two; bounded by a multiple of the edges in any case.
    """
    verdict = Verdict()
    search = _Search(evidence, owners, is_single, within, joins=joins)
    edges = [(source, target) for source in sorted(search.edges, key=_key) for target in search.edges[source]]
    search.give(WORK_AN_EDGE * len(edges))
    covered: set[Edge] = set()
    told: set[tuple[LockClass, ...]] = set()
    # what is possible first: that an edge is part of an unlikely cycle says nothing against its other ones
    for find in (search.of_two, search.of_three, search.longer, search.shortest):
        for edge in edges:
            if edge in covered or (classes := find(*edge)) is None or _only_waits(classes):
                continue
            waits = [e for e in _edges_of(classes) if e[0].kind.awaited or e[1].kind.awaited]
            if waits and covered.issuperset(waits):
                continue  # a detour through one more lock is no news of a wait that is told of
            if find == search.shortest and search.says_no_more(classes, told):
                covered.update(_edges_of(classes))
            elif len(verdict.cycles) >= MAX_CYCLES:
                covered.update(_edges_of(classes))
                told.add(_canonical(classes))
                search.cut.add(edge)
            elif (cycle := search.grade(classes)).reason != "readers":  # else no schedule makes a deadlock of it
                covered.update(_edges_of(classes))
                told.add(_canonical(classes))
                verdict.cycles.append(cycle)
    verdict.cut = len(search.cut)
    return verdict


def best_cycle(
    edge: Edge,
    evidence: dict[Edge, Evidence],
    *,
    owners: Owners,
    is_single: Callable[[LockClass], bool],
    within: set[LockClass],
    successors: dict[LockClass, set[LockClass]] | None = None,
    joins: Callable[[LockClass], bool] = _never,
) -> Cycle | None:
    """The best-graded, then shortest, then smallest cycle through one edge, if there is one.

    Arguments as for :func:`judge`.  What a new edge is told by at once: :func:`judge` may cover the edge by another of
    its cycles in the end.  ``successors`` are the edges among ``within``, where the caller knows them.
    """
    search = _Search(evidence, owners, is_single, within, successors, work=MAX_WORK // 10, joins=joins)
    return search.best(*edge)


def grade_cycle(
    classes: tuple[LockClass, ...],
    evidence: dict[Edge, Evidence],
    *,
    owners: Owners,
    is_single: Callable[[LockClass], bool],
) -> Cycle:
    """Grade one cycle, whose edges ``evidence`` has; arguments as for :func:`judge`."""
    return _Search(evidence, owners, is_single, set(classes)).grade(classes)


def components(evidence: dict[Edge, Evidence]) -> set[LockClass]:
    """Every class that lies on some cycle (Tarjan's strongly connected components, without recursion)."""
    edges: dict[LockClass, list[LockClass]] = {}
    for source, target in evidence:
        edges.setdefault(source, []).append(target)
    index: dict[LockClass, int] = {}
    low: dict[LockClass, int] = {}
    stack: list[LockClass] = []
    on_stack: set[LockClass] = set()
    cyclic: set[LockClass] = set()
    for root in edges:
        if root in index:
            continue
        work: list[tuple[LockClass, Iterator[LockClass]]] = []
        _open(root, index, low, stack, on_stack, work, edges)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    _open(successor, index, low, stack, on_stack, work, edges)
                    break
                if successor in on_stack:
                    low[node] = min(low[node], index[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component: list[LockClass] = []
                    while not component or component[-1] is not node:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                    if len(component) > 1:
                        cyclic.update(component)
    return cyclic


def _open(
    node: LockClass,
    index: dict[LockClass, int],
    low: dict[LockClass, int],
    stack: list[LockClass],
    on_stack: set[LockClass],
    work: list[tuple[LockClass, Iterator[LockClass]]],
    edges: dict[LockClass, list[LockClass]],
) -> None:
    index[node] = low[node] = len(index)
    stack.append(node)
    on_stack.add(node)
    work.append((node, iter(edges.get(node, ()))))


def _only_waits(classes: tuple[LockClass, ...]) -> bool:
    """Whether a cycle is of parties that wait for parties.  Which thread or job it is counts there, and it's another
    one each time: a job that waits for a job of its own function is how one divides and conquers."""
    return all(c.kind.awaited for c in classes)


def _key(lock_class: LockClass) -> str:
    return lock_class.key


def _edges_of(classes: tuple[LockClass, ...]) -> list[Edge]:
    return [(a, classes[(i + 1) % len(classes)]) for i, a in enumerate(classes)]


def _canonical(classes: tuple[LockClass, ...]) -> tuple[LockClass, ...]:
    """The same cycle from its smallest key on."""
    smallest = min(range(len(classes)), key=lambda i: classes[i].key)
    return classes[smallest:] + classes[:smallest]


#: A witness, those of its guards that really keep others out, and whether its hold lets readers in.
_Way = tuple[Witness, frozenset[LockClass], bool]


#: What all witnesses have in common: guards, and the owner if it is only one.
_Core = tuple[frozenset[LockClass], Owner | None] | None


@final
class _Search:
    """The search for cycles in one body of evidence, and what stays the same while its edges are walked.

    A cycle is *possible* only if its edges' witnesses fit together, and then so do those of each of its
    paths: a path is given up as soon as no choice of witnesses fits.  An edge all of whose witnesses share a guard,
    or their one owner, with all witnesses of all edges that could come next to it is given up at once, however many
    cycles there are.
    """

    __slots__ = (
        "_beside", "_cores", "_distances", "_distinct", "_evidence", "_is_single", "_joins", "_single", "_sources",
        "_together", "_ways", "_work", "cut", "edges",
    )  # fmt: skip

    def __init__(
        self,
        evidence: dict[Edge, Evidence],
        owners: Owners,
        is_single: Callable[[LockClass], bool],
        within: set[LockClass],
        successors: dict[LockClass, set[LockClass]] | None = None,
        work: int = MAX_WORK,
        joins: Callable[[LockClass], bool] = _never,
    ) -> None:
        self._joins: Callable[[LockClass], bool] = joins
        self._work: int = work
        self._evidence: dict[Edge, Evidence] = evidence
        self._distinct = owners == "observed"
        self._is_single: Callable[[LockClass], bool] = is_single
        self._single: dict[LockClass, bool] = {}
        self._ways: dict[tuple[Edge, bool], list[_Way]] = {}
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
            targets.sort(key=_key)

    def give(self, work: int) -> None:
        """Allow this many steps more."""
        self._work += work

    def best(self, source: LockClass, target: LockClass) -> Cycle | None:
        """The best cycle through one edge: shortest first, so the first *possible* one settles it."""
        for find in (self.of_two, self.of_three, self.longer, self.shortest):
            found = find(source, target)
            if found is not None and not _only_waits(found):
                cycle = self.grade(found)
                return None if cycle.reason == "readers" else cycle
        return None

    def ways(self, edge: Edge, *, timed: bool) -> list[_Way]:
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

    def _serves(self, old: _Way, new: _Way) -> bool:
        """Whether ``old`` fits wherever ``new`` does."""
        return (
            old[1] <= new[1]
            and (not self._distinct or old[0].owner is new[0].owner)
            and old[2] == new[2]
            and old[0].taken_mode.recursive == new[0].taken_mode.recursive
        )

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
            ways = [] if edge[0].handed_over or edge[1].handed_over else self.ways(edge, timed=False)
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

    def _sole_owner(self, ways: list[_Way]) -> Owner | None:
        owners = {None if witness.held_mode.enters else witness.owner for witness, _, _ in ways}
        return owners.pop() if self._distinct and len(owners) == 1 else None

    def says_no_more(self, classes: tuple[LockClass, ...], told: set[tuple[LockClass, ...]]) -> bool:
        """Whether a cycle that was told becomes this one by going through locks that were held on the way."""
        while _canonical(classes) not in told:
            for i, inner in enumerate(classes):
                seen = self._evidence.get((classes[i - 1], classes[(i + 1) % len(classes)]))
                if len(classes) > 2 and seen is not None and any(inner in w.guards for w in seen.witnesses):
                    classes = classes[:i] + classes[i + 1 :]
                    break
            else:
                return False
        return True

    # --- witnesses ----------------------------------------------------------------

    def grade(self, classes: tuple[LockClass, ...]) -> Cycle:
        """Grade one cycle by the best joint choice of a witness an edge."""
        classes = _canonical(classes)
        pairs = _edges_of(classes)
        every = [self.ways(pair, timed=True) for pair in pairs]
        blocking = [self.ways(pair, timed=False) for pair in pairs]
        counts = tuple(self._evidence[pair].count for pair in pairs)
        fallback = tuple(some[0][0] for some in every)
        if any(c.handed_over for c in classes):
            return Cycle(classes, fallback, "unlikely", "handed over", counts=counts)
        attempts: tuple[tuple[list[list[_Way]], bool, bool, _Reason], ...] = (
            (blocking, self._distinct, True, ""),
            (blocking, False, True, "one owner"),
            (every, self._distinct, True, "timed"),
            (every, False, True, "one owner"),
            (every, False, False, "guarded"),
        )
        for ways, distinct, guarded, reason in attempts:
            chosen = self._choose(ways, distinct=distinct, guarded=guarded, closed=True)
            if chosen is not None:
                guard = _common_guard(chosen) if reason == "guarded" else None
                witnesses = tuple(witness for witness, _, _ in chosen)
                return Cycle(classes, witnesses, "unlikely" if reason else "possible", reason, guard, counts)
        # readers that let each other in are no deadlock in any schedule
        return Cycle(classes, fallback, "unlikely", "readers", counts=counts)

    def _extend(self, choice: list[_Way], path: list[LockClass], *, closed: bool) -> list[_Way] | None:
        """Fitting witnesses for a path that is one edge longer: the old choice if it goes on, else a new one."""
        new = (path[-2], path[-1])
        for way in self.ways(new, timed=False):
            if _fits(way, choice, closed=closed, distinct=self._distinct, guarded=True):
                return [*choice, way]
        pairs = [(a, path[i + 1]) for i, a in enumerate(path[:-1])]
        if path[-1].handed_over or not all(self._can_join(pair, new) for pair in pairs[:-1]):
            return None
        options = [self.ways(pair, timed=False) for pair in pairs]
        return self._choose(options, distinct=self._distinct, guarded=True, closed=closed)

    def _can_join(self, one: Edge, other: Edge) -> bool:
        """Whether some witnesses of two edges of one cycle can be there at once."""
        known = self._together.get((one, other))
        if known is None:
            self._work -= 1
            known = self._together[one, other] = not (other[0].handed_over or other[1].handed_over) and any(
                _fits(way, [first], closed=False, distinct=self._distinct, guarded=True, adjacent=False)
                for first in self.ways(one, timed=False)
                for way in self.ways(other, timed=False)
            )
        return known

    def _choose(
        self, options: list[list[_Way]], *, distinct: bool, guarded: bool, closed: bool = False
    ) -> list[_Way] | None:
        """Choose one witness an edge so that all can wait at once: the first fit in sorted order, or ``None``."""
        chosen: list[_Way] = []
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
                if _fits(way, chosen, closed=last, distinct=distinct, guarded=guarded):
                    chosen.append(way)
                    cursors.append(0)
                    break
            else:
                cursors.pop()
                if chosen:
                    chosen.pop()
        return None


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


def _fits(
    way: _Way, chosen: list[_Way], *, closed: bool, distinct: bool, guarded: bool, adjacent: bool = True
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


def _common_guard(chosen: list[_Way]) -> LockClass | None:
    for i, (_, guards, _) in enumerate(chosen):
        for _, others, _ in chosen[:i]:
            shared = guards & others
            if shared:
                return min(shared, key=_key)
    return None
