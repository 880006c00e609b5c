"""From edges to findings: which cycles there are, and how sure each one is.

The verdict looks at *all* edges, whenever it is asked, so it is the same for every order of
arrival.  A cycle of edges is a deadlock if there is a schedule in which each of its owners holds its
own lock and waits for the next one's: that is, if one witness can be chosen for each edge such
that the owners are distinct, no two of them would hold one guard at the same time, and no
reader is waited for by a reader that would be let in.  Grading joint witnesses over all
simple cycles is exact on small programs; grading the shortest cycle of a component, or
keeping owners and guards apart, is not.

``grading.py`` says how sure one cycle is; ``search.py`` finds the best one through an edge, in bounded time; here is
which of them are told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, final

from ctxcheck.engine.classes import JOB, POOL, LockClass
from ctxcheck.engine.grading import Cycle, Grading, Owners, by_key, canonical, edges_of, never
from ctxcheck.engine.graph import Edge, Evidence
from ctxcheck.engine.search import MAX_WORK, Search, only_waits

#: Steps of the search that a verdict may take beside those that any may, for each edge.
WORK_AN_EDGE: Final = 8
#: Cycles that one verdict reports: beyond it nobody reads them, and each takes a while to be put into words.
MAX_CYCLES: Final = 2_000


@final
@dataclass(slots=True)
class Verdict:
    """The cycles that are reported, and for how many edges the search was cut short, or its cycle left out."""

    cycles: list[Cycle] = field(default_factory=list[Cycle])
    cut: int = 0


def judge(
    evidence: dict[Edge, Evidence],
    *,
    owners: Owners,
    is_single: Callable[[LockClass], bool],
    within: set[LockClass],
    joins: Callable[[LockClass], bool] = never,
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
    grading = Grading(evidence, owners, is_single, joins)
    search = Search(evidence, grading, within)
    edges = [(source, target) for source in sorted(search.edges, key=by_key) for target in search.edges[source]]
    search.give(WORK_AN_EDGE * len(edges))
    covered: set[Edge] = set()
    told: set[tuple[LockClass, ...]] = set()
    # what is possible first: that an edge is part of an unlikely cycle says nothing against its other ones
    for find in (search.of_two, search.of_three, search.longer, search.shortest):
        for edge in edges:
            if edge in covered or (classes := find(*edge)) is None or only_waits(classes):
                continue
            waits = [e for e in edges_of(classes) if e[0].kind.awaited or e[1].kind.awaited]
            if waits and covered.issuperset(waits):
                continue  # a detour through one more lock is no news of a wait that is told of
            if waits and is_of_one_job(classes, search.edges):
                covered.update(edges_of(classes))
                continue
            if find == search.shortest and search.says_no_more(classes, told):
                covered.update(edges_of(classes))
            elif len(verdict.cycles) >= MAX_CYCLES:
                covered.update(edges_of(classes))
                told.add(canonical(classes))
                search.cut.add(edge)
            elif (cycle := grading.grade(classes)).reason != "readers":  # else no schedule makes a deadlock of it
                covered.update(edges_of(classes))
                told.add(canonical(classes))
                verdict.cycles.append(cycle)
    verdict.cut = len(search.cut)
    return verdict


def is_of_one_job(classes: tuple[LockClass, ...], after: Mapping[LockClass, Collection[LockClass]]) -> bool:
    """Whether a cycle goes through a pool, and one of its jobs makes the same cycle: who waits for a job of a pool
    with one worker waits for both, and that it is this job says more.  ``after`` is where edges lead to."""
    edges = edges_of(classes)
    return any(
        target.kind is POOL and any(job.kind is JOB and end in after.get(job, ()) for job in after[source])
        for (source, target), (_, end) in zip(edges, (*edges[1:], edges[0]), strict=True)
    )


def best_cycle(
    edge: Edge,
    evidence: dict[Edge, Evidence],
    *,
    owners: Owners,
    is_single: Callable[[LockClass], bool],
    within: set[LockClass],
    successors: dict[LockClass, set[LockClass]] | None = None,
    joins: Callable[[LockClass], bool] = never,
) -> Cycle | None:
    """The best-graded, then shortest, then smallest cycle through one edge, if there is one.

    Arguments as for :func:`judge`.  What a new edge is told by at once: :func:`judge` may cover the edge by another of
    its cycles in the end.  ``successors`` are the edges among ``within``, where the caller knows them.
    """
    search = Search(evidence, Grading(evidence, owners, is_single, joins), within, successors, MAX_WORK // 10)
    return search.best(*edge)


def grade_cycle(
    classes: tuple[LockClass, ...],
    evidence: dict[Edge, Evidence],
    *,
    owners: Owners,
    is_single: Callable[[LockClass], bool],
) -> Cycle:
    """Grade one cycle, whose edges ``evidence`` has; arguments as for :func:`judge`."""
    return Grading(evidence, owners, is_single).grade(classes)


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
