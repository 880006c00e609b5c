"""From edges to findings: which cycles there are, and how sure each one is.

The verdict looks at *all* edges, whenever it is asked, so it is the same for every order of
arrival.  A cycle of edges is a deadlock if there is a schedule in which each of its owners holds its
own lock and waits for the next one's: that is, if one witness can be chosen for each edge such
that the owners are distinct, no two of them would hold one guard at the same time, and no
reader is waited for by a reader that would be let in.  Grading joint witnesses over all
simple cycles is exact on small programs; grading the shortest cycle of a component, or
keeping owners and guards apart, is not.

Cost: enumerating simple cycles is exponential in the worst case, so the work is bounded by
steps; what was cut is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.graph import Edge, Evidence, Witness
from ctxcheck.engine.rules import Grade

Owners = Literal["assumed", "observed"]

#: Steps of the search for one edge's best cycle, and of the choice of witnesses for one cycle.
MAX_SEARCH_STEPS: Final = 20_000
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
    reason: Literal["", "guarded", "one owner", "timed", "handed over", "readers"] = ""
    guard: LockClass | None = None
    counts: tuple[int, ...] = ()


@final
@dataclass(slots=True)
class Verdict:
    """The cycles that are reported, and how many edges' searches were cut short."""

    cycles: list[Cycle] = field(default_factory=list)
    cut: int = 0


def judge(
    evidence: dict[Edge, Evidence], *, owners: Owners, is_single: Callable[[LockClass], bool], within: set[LockClass]
) -> Verdict:
    """Report the cycles among ``within``, a set that holds whole strongly connected components.

    ``owners``: "assumed" takes it that any critical section may run in any number of owners at
    once; "observed" goes by the owners that were seen.  ``is_single`` says whether a class had one
    instance only, so that holding it really keeps others out.

    Each edge that lies on a cycle is covered by its best-graded, then shortest, then smallest cycle; one
    finding a cycle.
    """
    verdict = Verdict()
    edges: dict[LockClass, list[LockClass]] = {}
    for source, target in evidence:
        if source in within and target in within:
            edges.setdefault(source, []).append(target)
    for targets in edges.values():
        targets.sort(key=_key)
    covered: set[Edge] = set()
    for source in sorted(edges, key=_key):
        for target in edges[source]:
            if (source, target) in covered:
                continue
            best = _best_cycle(source, target, edges, evidence, owners, is_single, verdict)
            if best is not None:
                verdict.cycles.append(best)
                covered.update(_edges_of(best.classes))
    return verdict


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


def _key(lock_class: LockClass) -> str:
    return lock_class.key


def _edges_of(classes: tuple[LockClass, ...]) -> list[Edge]:
    return [(a, classes[(i + 1) % len(classes)]) for i, a in enumerate(classes)]


def _best_cycle(
    source: LockClass,
    target: LockClass,
    edges: dict[LockClass, list[LockClass]],
    evidence: dict[Edge, Evidence],
    owners: Owners,
    is_single: Callable[[LockClass], bool],
    verdict: Verdict,
) -> Cycle | None:
    """The best cycle through one edge: shortest first, so the first *possible* one settles it."""
    fallback: Cycle | None = None
    steps = 0
    for length in range(2, len(edges) + 1):
        complete = True
        for path in _paths(target, source, edges, length - 1):
            steps += 1
            if path is not None:
                cycle = _grade((source, *path[:-1]), evidence, owners, is_single)
                if cycle.grade != "unlikely":
                    return cycle
                fallback = fallback or cycle
            if steps > MAX_SEARCH_STEPS:
                complete = False
                break
        if not complete:
            verdict.cut += 1
            break
    return fallback


def _paths(
    start: LockClass, goal: LockClass, edges: dict[LockClass, list[LockClass]], length: int
) -> Iterator[tuple[LockClass, ...] | None]:
    """Yield the simple paths of exactly ``length`` edges, in key order; ``None`` for each dead end, so that
    the caller can bound the work."""
    path = [start]
    inside = {start}
    iterators = [iter(edges.get(start, ()))]
    while iterators:
        for node in iterators[-1]:
            if len(path) == length:
                if node is goal:
                    yield (*path, goal)
                continue
            if node is goal or node in inside:
                continue
            path.append(node)
            inside.add(node)
            iterators.append(iter(edges.get(node, ())))
            break
        else:
            iterators.pop()
            inside.discard(path.pop())
            yield None


def _grade(
    classes: tuple[LockClass, ...],
    evidence: dict[Edge, Evidence],
    owners: Owners,
    is_single: Callable[[LockClass], bool],
) -> Cycle:
    """Grade one cycle by the best joint choice of a witness an edge."""
    smallest = min(range(len(classes)), key=lambda i: classes[i].key)
    classes = classes[smallest:] + classes[:smallest]
    pairs = _edges_of(classes)
    choices = [sorted(evidence[pair].witnesses, key=Witness.sort_key) for pair in pairs]
    counts = tuple(evidence[pair].count for pair in pairs)
    blocking = [[w for w in some if not w.timed] for some in choices]
    if any(c.handed_over for c in classes):
        return Cycle(classes, tuple(some[0] for some in choices), "unlikely", "handed over", counts=counts)
    # readers that let each other in are no deadlock in any schedule; then guards, then owners, then timeouts
    for some, distinct, guarded, reason in (
        (blocking, owners == "observed", True, ""),
        (blocking, False, True, "one owner"),
        (choices, owners == "observed", True, "timed"),
        (choices, False, False, "guarded"),
    ):
        chosen = _choose(some, distinct=distinct, guarded=guarded, is_single=is_single)
        if chosen is not None:
            return Cycle(
                classes,
                chosen,
                "possible" if not reason else "unlikely",
                reason,  # type: ignore[arg-type]
                _common_guard(chosen, is_single) if reason == "guarded" else None,
                counts,
            )
    return Cycle(classes, tuple(some[0] for some in choices), "unlikely", "readers", counts=counts)


def _choose(
    choices: list[list[Witness]], *, distinct: bool, guarded: bool, is_single: Callable[[LockClass], bool]
) -> tuple[Witness, ...] | None:
    """Choose one witness an edge so that all can wait at once, or return ``None``; the first fit in sorted order."""
    chosen: list[Witness] = []
    cursors = [0]
    budget = MAX_CHOICES
    while cursors:
        depth = len(cursors) - 1
        if depth == len(choices):
            return tuple(chosen)
        options = choices[depth]
        while cursors[depth] < len(options):
            option = options[cursors[depth]]
            cursors[depth] += 1
            budget -= 1
            if budget < 0:
                # too many combinations to try: take what is there rather than call a deadlock unlikely
                return tuple(some[0] for some in choices) if all(choices) else None
            if _fits(option, chosen, depth == len(choices) - 1, distinct, guarded, is_single):
                chosen.append(option)
                cursors.append(0)
                break
        else:
            cursors.pop()
            if chosen:
                chosen.pop()
    return None


def _fits(
    new: Witness,
    chosen: list[Witness],
    last: bool,
    distinct: bool,
    guarded: bool,
    is_single: Callable[[LockClass], bool],
) -> bool:
    for old in chosen:
        if distinct and old.owner is new.owner:
            return False
        if guarded and any(is_single(guard) for guard in old.guards & new.guards):
            return False
    # "no recursive-read arrival is followed by a shared hold" (lockdep's strong paths)
    if chosen and chosen[-1].taken_mode.recursive and new.held_mode.shared:
        return False
    first = chosen[0] if chosen else new
    return not (last and new.taken_mode.recursive and first.held_mode.shared)


def _common_guard(chosen: tuple[Witness, ...], is_single: Callable[[LockClass], bool]) -> LockClass | None:
    for i, a in enumerate(chosen):
        for b in chosen[:i]:
            shared = [guard for guard in a.guards & b.guards if is_single(guard)]
            if shared:
                return min(shared, key=_key)
    return None
