"""What is possible and what isn't, against an oracle that tries every schedule."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxcheck
from ctxcheck.engine import grading, search
from ctxcheck.engine.classes import RECURSIVE, SHARED, TIMED, WITH, LockClass
from ctxcheck.engine.grading import Cycle
from ctxcheck.engine.graph import OrderGraph
from ctxcheck.engine.verdict import best_cycle, components, judge
from ctxcheck.session import Session
from tests.engine.conftest import add, classes, owner, witness
from tests.oracle import (
    Circle,
    Program,
    Reported,
    Script,
    Take,
    deadlocks,
    deadlocks_of_scripts,
    deadlocks_of_sections,
    in_thread,
    missed,
    play,
    play_scripts,
    reported,
    show,
)

# --- against the oracle -----------------------------------------------------------------


def takes(locks: Sequence[tuple[str, int]], *, modes: bool, depth: int) -> st.SearchStrategy[Take]:
    """Critical sections over these locks, none of which is taken inside itself."""
    mode = st.sampled_from(["block"] * 5 + ["timed", "try"]) if modes else st.just("block")

    def one(lock: tuple[str, int]) -> st.SearchStrategy[Take]:
        rest = [other for other in locks if other != lock]
        if depth == 1 or not rest:
            return st.builds(Take, st.just(lock), st.just(()), mode)
        inner = st.lists(takes(rest, modes=modes, depth=depth - 1), max_size=2).map(tuple)
        return st.builds(Take, st.just(lock), inner, mode)

    return st.sampled_from(list(locks)).flatmap(one)


def programs(
    locks: Sequence[tuple[str, int]], owners: int, sections: int, *, modes: bool = True
) -> st.SearchStrategy[Program]:
    owner = st.lists(takes(locks, modes=modes, depth=3), min_size=1, max_size=sections).map(tuple)
    return st.lists(owner, min_size=1, max_size=owners).map(tuple)


SINGLE = [("A", 0), ("B", 0), ("C", 0), ("D", 0)]
PER_OBJECT = [("A", 0), ("A", 1), ("B", 0), ("B", 1), ("C", 0)]

strict = settings(derandomize=True, deadline=None, max_examples=120)


def agree(program: Program, circles: set[Circle], report: Reported) -> None:
    assert missed(circles, report) == [], f"{show(program)}\nreported: {report}"


@strict
@given(programs(SINGLE, owners=3, sections=2))
def test_every_deadlock_of_the_owners_that_were_seen_is_found_and_clean_programs_are_clean(program: Program) -> None:
    circles = deadlocks(program)
    report = reported(play(program, owners="observed"))
    agree(program, circles, report)
    assert report.anything == bool(circles), show(program)


@strict
@given(programs(SINGLE[:3], owners=2, sections=2))
def test_the_same_where_any_section_may_run_in_any_number_of_owners(program: Program) -> None:
    circles = deadlocks_of_sections(program, at_once=3)
    report = reported(play(program, owners="assumed"))
    agree(program, circles, report)
    assert report.anything == bool(circles), show(program)


@strict
@given(programs(PER_OBJECT, owners=3, sections=2))
def test_every_deadlock_is_found_where_classes_have_several_instances(program: Program) -> None:
    agree(program, deadlocks(program), reported(play(program, owners="observed")))


@settings(strict, max_examples=60)
@given(programs([("A", 0), ("A", 1), ("A", 2), ("G", 0)], owners=3, sections=2))
def test_every_deadlock_among_the_instances_of_one_class_is_found(program: Program) -> None:
    agree(program, deadlocks(program), reported(play(program, owners="observed")))


@settings(strict, max_examples=60)
@given(programs([("A", 0), ("A", 1), ("B", 0), ("G", 0)], owners=2, sections=1))
def test_and_where_any_section_may_run_in_any_number_of_owners(program: Program) -> None:
    agree(program, deadlocks_of_sections(program, at_once=3), reported(play(program, owners="assumed")))


@settings(strict, max_examples=40)
@given(programs([*SINGLE, ("E", 0)], owners=4, sections=1, modes=False))
def test_four_owners_and_five_locks(program: Program) -> None:
    circles = deadlocks(program)
    report = reported(play(program, owners="observed"))
    agree(program, circles, report)
    assert report.anything == bool(circles), show(program)


@st.composite
def scripts(draw: st.DrawFn, locks: Sequence[tuple[str, int]]) -> Script:
    """Takes and releases in any order, up to four of each, with everything released at the end."""
    held: list[tuple[str, int]] = []
    steps: list[tuple[tuple[str, int], bool]] = []
    for _ in range(draw(st.integers(1, 6))):
        free = [lock for lock in locks if lock not in held]
        if held and (len(held) == 3 or not free or draw(st.booleans())):
            lock = held.pop(draw(st.integers(0, len(held) - 1)))
            steps.append((lock, False))
        else:
            held.append(draw(st.sampled_from(free)))
            steps.append((held[-1], True))
    while held:
        steps.append((held.pop(draw(st.integers(0, len(held) - 1))), False))
    return tuple(steps)


@settings(strict, max_examples=150)
@given(st.lists(scripts(SINGLE), min_size=2, max_size=3))
def test_every_deadlock_is_found_where_locks_are_released_in_any_order(some: list[Script]) -> None:
    circles = deadlocks_of_scripts(some)
    report = reported(play_scripts(some, owners="observed"))
    assert missed(circles, report) == [], f"{some}\nreported: {report}"
    assert report.anything == bool(circles), some


def random_program(rng: random.Random, locks: Sequence[tuple[str, int]], owners: int, sections: int) -> Program:
    def take(left: Sequence[tuple[str, int]], depth: int) -> Take:
        lock = rng.choice(left)
        rest = [other for other in left if other != lock]
        inner = rng.choice([0, 1, 1, 1, 2]) if depth > 1 and rest else 0
        return Take(lock, tuple(take(rest, depth - 1) for _ in range(inner)))

    return tuple(tuple(take(locks, 3) for _ in range(rng.randint(1, sections))) for _ in range(owners))


def test_recall_and_precision_over_random_programs() -> None:
    rng = random.Random(20)
    right = wrong = findings_right = findings_wrong = 0
    for _ in range(250):
        program = random_program(rng, SINGLE, owners=3, sections=2)
        circles = deadlocks(program)
        report = reported(play(program, owners="observed"))
        agree(program, circles, report)
        real = {frozenset(lock[0] for lock in circle) for circle in circles}
        for circle in report.possible:
            if frozenset(circle) in real:
                findings_right += 1
            else:
                findings_wrong += 1
        if report.anything:
            right, wrong = right + bool(circles), wrong + (not circles)
    assert wrong == 0
    assert right > 100
    # a circle may be out of reach because every way to it deadlocks in another circle first
    assert findings_right / (findings_right + findings_wrong) > 0.98


# --- the order of arrival doesn't matter ----------------------------------------------------


def _ab(a: Any, b: Any) -> None:
    with a, b:
        pass


def _ba(b: Any, a: Any) -> None:
    with b, a:
        pass


def _bc(b: Any, c: Any) -> None:
    with b, c:
        pass


def _ca(c: Any, a: Any) -> None:
    with c, a:
        pass


@pytest.mark.parametrize("owners", ["assumed", "observed"])
@pytest.mark.parametrize("threads", ["one", "each", "two"])
def test_all_orders_of_arrival_give_the_same_findings(owners: Any, threads: str) -> None:
    outcomes = set()
    for order in itertools.permutations(range(4)):
        a, b, c = (ctxcheck.Lock(name=f"order.{name}") for name in "ABC")
        moves: list[Callable[[], None]] = [
            lambda: _ab(a, b), lambda: _ba(b, a), lambda: _bc(b, c), lambda: _ca(c, a),
        ]  # fmt: skip
        with ctxcheck.checking(owners=owners) as session:
            if threads == "one":
                for i in order:
                    moves[i]()
            elif threads == "each":
                for i in order:
                    in_thread(moves[i])
            else:  # A -> B and C -> A by one owner, the others by another: both start before anything is taken
                _two_threads(moves, order)
        outcomes.add(tuple(sorted((v.rule, v.grade, v.fingerprint, v.locks, v.message) for v in session.violations)))
    assert len(outcomes) == 1
    (found,) = outcomes
    assert len(found) == 2, "A-B, and A-B-C for the two edges that it doesn't cover"
    grades = {entry[1] for entry in found}
    if owners == "assumed" or threads == "each":
        assert grades == {"possible"}
    elif threads == "one":
        assert grades == {"unlikely"}
    else:  # the circle of three would need a third owner
        assert {e[3]: e[1] for e in found} == {
            ("order.A", "order.B"): "possible", ("order.A", "order.B", "order.C"): "unlikely",
        }  # fmt: skip


def _two_threads(moves: list[Callable[[], None]], order: Sequence[int]) -> None:
    import queue
    import threading

    jobs: list[queue.SimpleQueue[Any]] = [queue.SimpleQueue(), queue.SimpleQueue()]
    done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work(mine: queue.SimpleQueue[Any]) -> None:
        while (move := mine.get()) is not None:
            move()
            done.put(None)

    workers = [threading.Thread(target=work, args=(q,)) for q in jobs]
    for worker in workers:
        worker.start()
    for i in order:
        jobs[i in (1, 2)].put(moves[i])
        done.get()
    for q, worker in zip(jobs, workers, strict=True):
        q.put(None)
        worker.join()


# --- guards and owners, jointly -------------------------------------------------------------


def run(program: dict[str, list[Take]], owners: str, order: Sequence[str] | None = None) -> Reported:
    return reported(play(tuple(tuple(program[name]) for name in order or program), owners=owners))


def chain(*locks: str) -> Take:
    """``chain("G", "A1", "B")``: G, then instance 1 of A inside it, then B inside that."""
    inner: tuple[Take, ...] = ()
    for lock in reversed(locks):
        inner = (Take((lock[0], int(lock[1:] or 0)), inner),)
    return inner[0]


AB = ("A", "B")


def test_guards_and_owners_are_kept_together() -> None:
    # T1 alone is guarded, T2 alone is one owner: no choice of witnesses is neither
    program = {"T1": [chain("G", "A", "B")], "T2": [chain("A", "B"), chain("G", "B", "A")]}
    for order in itertools.permutations(program):
        report = run(program, "observed", order)
        assert not report.anything
        assert AB in report.unlikely
    assert AB in run(program, "assumed").possible


def test_per_object_guards_keep_nobody_out() -> None:
    program = {"T1": [chain("G1", "A", "B")], "T2": [chain("G2", "B", "A")]}
    for owners in ("observed", "assumed"):
        assert AB in run(program, owners).possible
    same = {"T1": [chain("G1", "A", "B")], "T2": [chain("G1", "B", "A")]}
    for owners in ("observed", "assumed"):
        assert AB in run(same, owners).unlikely


def test_s26_and_s27_a_gate_and_a_gate_that_is_broken_later() -> None:
    gated = {"T1": [chain("A", "B", "C")], "T2": [chain("A", "C", "B")]}
    assert run(gated, "assumed") == Reported(frozenset(), frozenset({("B", "C")}), frozenset())
    assert ("B", "C") in run({**gated, "T3": [chain("C", "B")]}, "observed").possible


def test_s29_three_edges_of_which_two_share_a_gate() -> None:
    program = {"T1": [chain("G", "A", "B")], "T2": [chain("G", "B", "C")], "T3": [chain("C", "A")]}
    assert run(program, "observed").unlikely == {("A", "B", "C")}
    assert run(program, "assumed").unlikely == {("A", "B", "C")}


def test_s30_one_thread_only() -> None:
    alone = {"T1": [chain("A", "B"), chain("B", "A")]}
    assert run(alone, "observed").unlikely == {AB}
    assert run(alone, "assumed").possible == {AB}
    assert run({**alone, "T2": [chain("B", "A")]}, "observed").possible == {AB}


def test_s31_three_edges_need_three_owners() -> None:
    first = [Take(("A", 0), (Take(("B", 0)),)), Take(("B", 0), (Take(("C", 0)),))]
    two = {"T1": first, "T2": [chain("C", "A")]}
    assert run(two, "observed").unlikely == {("A", "B", "C")}
    assert run({**two, "T3": first}, "observed").possible == {("A", "B", "C")}


def test_s15_and_s21_the_same_edge_by_two_owners_is_one_report() -> None:
    program = {"T1": [chain("A", "B")], "T2": [chain("A", "B"), chain("B", "A")]}
    assert run(program, "observed") == Reported(frozenset({AB}), frozenset(), frozenset())


def test_s23_rings_of_any_size() -> None:
    for size in (2, 3, 5, 10, 30, 100):
        locks = [ctxcheck.Lock(name=f"ring{size}.{i:03}") for i in range(size)]
        with ctxcheck.checking() as session:
            for i in range(size):
                with locks[i], locks[(i + 1) % size]:
                    pass
        assert [(v.grade, len(v.locks)) for v in session.violations] == [("possible", size)]


def test_s25_philosophers_are_one_report_with_a_count_of_owners() -> None:
    forks = [ctxcheck.Lock(name=f"fork{i}") for i in range(5)]
    with ctxcheck.checking(owners="observed") as session:
        for _ in range(20):
            for i in range(5):
                in_thread(lambda i=i: _ab(forks[i], forks[(i + 1) % 5]))
    assert [(v.rule, v.grade, len(v.locks)) for v in session.violations] == [("CTX001", "possible", 5)]


def test_s24_a_knot_of_many_locks_is_unravelled_in_bounded_time() -> None:
    size = 12
    locks = [ctxcheck.Lock(name=f"knot{i:02}") for i in range(size)]
    with ctxcheck.checking() as session:
        for i in range(size):
            for k in range(size):
                locks[(i + k) % size].acquire()
            for k in range(size):
                locks[(i + k) % size].release()
    pairs = {v.locks for v in session.violations}
    assert pairs == {(f"knot{i:02}", f"knot{j:02}") for i in range(size) for j in range(i + 1, size)}
    assert {v.grade for v in session.violations} == {"possible"}


def test_a_guard_that_was_handed_over_guards_nothing_whenever_that_is_found_out() -> None:
    grades = []
    for found_out in ("first", "last"):
        guard, a, b = (ctxcheck.Lock(name=f"{found_out}.{name}") for name in "GAB")

        def hand_over(guard: Any = guard) -> None:
            guard.acquire()
            in_thread(guard.release)

        with ctxcheck.checking() as session:
            if found_out == "first":
                hand_over()
            with guard:
                _ab(a, b)
            with guard:
                _ba(b, a)
            if found_out == "last":
                hand_over()
        grades.append([v.grade for v in session.violations])
    assert grades == [["possible"], ["possible"]]


# --- try and timed -------------------------------------------------------------------------


def test_a_try_adds_no_edge_to_it_but_from_it() -> None:
    a, b = Take(("A", 0), mode="try"), Take(("B", 0), mode="try")
    assert run({"T": [Take(("A", 0), (b,)), Take(("B", 0), (a,))]}, "assumed") == Reported(
        frozenset(), frozenset(), frozenset()
    )
    # S-44: what was obtained by a try still orders what is taken after it
    tried = Take(("A", 0), (Take(("B", 0)),), mode="try")
    assert run({"T1": [tried], "T2": [chain("B", "A")]}, "observed").possible == {AB}


def test_s45_edges_from_all_held_and_none_to_a_try() -> None:
    locks = [ctxcheck.Lock(name=f"unit{i}") for i in range(3)]
    with ctxcheck.checking() as session:
        locks[0].acquire()
        locks[1].acquire(False)
        locks[2].acquire()
        for lock in locks:
            lock.release()
    edges = {(e["from"], e["to"]) for e in session.graph()["edges"]}
    assert edges == {("unit0", "unit2"), ("unit1", "unit2")}


@pytest.mark.parametrize("owners", ["assumed", "observed"])
def test_s50_a_timed_wait_is_unlikely_until_a_blocking_one_is_seen(owners: str) -> None:
    timed = Take(("A", 0), (Take(("B", 0), mode="timed"),))
    assert run({"T1": [timed], "T2": [chain("B", "A")]}, owners).unlikely == {AB}
    assert run({"T1": [timed], "T2": [chain("B", "A")], "T3": [chain("A", "B")]}, owners).possible == {AB}


# --- the search itself, on bare graphs --------------------------------------------------------


def cycles_of(graph: OrderGraph, owners: Any = "assumed", single: Callable[[LockClass], bool] | None = None) -> Any:
    return judge(
        graph.evidence, owners=owners, is_single=single or (lambda c: True), within=components(graph.evidence)
    )


def names(cycles: Sequence[Cycle]) -> set[str]:
    return {"".join(c.name for c in cycle.classes) for cycle in cycles}


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ("12 23 13 34", set()),
        ("12 21", {"12"}),
        ("12 23 34 42 45", {"234"}),
        ("12 23 34 24 42", {"24", "234"}),
        ("12 21 34 43", {"12", "34"}),
        ("12 21 23 32", {"12", "23"}),
        ("ab ac ad ba bc cb cd db", {"ab", "bc", "acb", "adb", "bcd"}),
        ("12 13 24 34 45 46 51 61", {"1245", "1246", "1345"}),
    ],
)
def test_s13_and_s14_each_edge_of_a_cycle_is_covered_by_its_shortest(edges: str, expected: set[str]) -> None:
    graph = OrderGraph()
    node = {c.name: c for c in classes(*sorted(set(edges) - {" "}))}
    for edge in edges.split():
        add(graph, node[edge[0]], node[edge[1]])
    assert names(cycles_of(graph).cycles) == expected


small_graphs = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2), st.sets(st.integers(0, 2), max_size=2)).filter(
        lambda edge: edge[0] != edge[1]
    ),
    max_size=14,
)


@settings(derandomize=True, deadline=None, max_examples=250)
@given(small_graphs, st.sampled_from(["assumed", "observed"]))
def test_the_search_agrees_with_trying_every_cycle_and_every_choice(edges: list[Any], owners: Any) -> None:
    nodes, guards, people = classes(*range(5)), classes(*"GHI"), [owner(f"T{i}") for i in range(3)]
    graph = OrderGraph()
    for a, b, who, held in edges:
        add(graph, nodes[a], nodes[b], *(guards[g] for g in held), by=people[who])
    everything = _all_simple_cycles(graph)
    possible = {c for c in everything if _can_be_at_once(graph, c, owners)}
    found = cycles_of(graph, owners)
    assert found.cut == 0
    for cycle in found.cycles:
        assert cycle.classes in everything
        assert (cycle.grade == "possible") == (cycle.classes in possible)
        for (source, target), seen in zip(_edges(cycle.classes), cycle.witnesses, strict=True):
            assert seen in graph.evidence[source, target].witnesses
    told = {edge for cycle in found.cycles for edge in _edges(cycle.classes) if cycle.grade == "possible"}
    assert told == {edge for cycle in possible for edge in _edges(cycle)}
    named = {edge for cycle in found.cycles for edge in _edges(cycle.classes)}
    for cycle in everything:
        if not named.issuperset(_edges(cycle)):
            # each of its edges stands in a cycle that was told, or in a longer way of one
            for edge in set(_edges(cycle)) - named:
                through = [c for c in everything if edge in _edges(c)]
                assert any(_is_a_longer_way(graph, c, {f.classes for f in found.cycles}) for c in through)
    for edge in graph.evidence:
        through = [c for c in everything if edge in _edges(c)]
        best = best_cycle(
            edge, graph.evidence, owners=owners, is_single=lambda c: True, within=components(graph.evidence)
        )
        assert (best is not None) == bool(through)
        if best is not None:
            better = [c for c in through if c in possible] or through
            assert (best.grade == "possible") == (better[0] in possible)
            assert len(best.classes) == min(map(len, better))


def _is_a_longer_way(graph: OrderGraph, cycle: tuple[LockClass, ...], told: set[tuple[LockClass, ...]]) -> bool:
    """Whether some class can be left out, again and again, that is a guard of the edge that leads past it."""
    smallest = min(range(len(cycle)), key=lambda i: cycle[i].key)
    if cycle[smallest:] + cycle[:smallest] in told:
        return True
    for i, inner in enumerate(cycle):
        past = graph.evidence.get((cycle[i - 1], cycle[(i + 1) % len(cycle)]))
        if len(cycle) > 2 and past is not None and any(inner in w.guards for w in past.witnesses):
            if _is_a_longer_way(graph, cycle[:i] + cycle[i + 1 :], told):
                return True
    return False


def _edges(cycle: Sequence[LockClass]) -> list[tuple[LockClass, LockClass]]:
    return [(a, cycle[(i + 1) % len(cycle)]) for i, a in enumerate(cycle)]


def _all_simple_cycles(graph: OrderGraph) -> set[tuple[LockClass, ...]]:
    nodes = sorted({n for edge in graph.evidence for n in edge}, key=lambda c: c.key)
    found = set()
    for size in range(2, len(nodes) + 1):
        for path in itertools.permutations(nodes, size):
            if path[0] is min(path, key=lambda c: c.key) and all(e in graph.evidence for e in _edges(path)):
                found.add(path)
    return found


def _can_be_at_once(graph: OrderGraph, cycle: Sequence[LockClass], owners: str) -> bool:
    for chosen in itertools.product(*(graph.evidence[edge].witnesses for edge in _edges(cycle))):
        pairs = list(itertools.combinations(chosen, 2))
        if any(a.guards & b.guards for a, b in pairs):
            continue
        if owners == "assumed" or all(a.owner is not b.owner for a, b in pairs):
            return True
    return False


def test_a_possible_circle_isnt_hidden_by_unlikely_ones_that_share_its_edges() -> None:
    # T1: D(A(E))  T2: E(C(D)): A-E-D and C-D-E are one owner's twice, and between them they cover D-E
    report = run({"T1": [chain("D", "A", "E")], "T2": [chain("E", "C", "D")]}, "observed")
    assert ("D", "E") in report.possible


@pytest.mark.parametrize(
    ("make", "grade", "reason"),
    [
        (lambda a, b, g, t: [(a, b, (), t[0], WITH), (b, a, (), t[1], WITH)], "possible", ""),
        (lambda a, b, g, t: [(a, b, (g,), t[0], WITH), (b, a, (g,), t[1], WITH)], "unlikely", "guarded"),
        (lambda a, b, g, t: [(a, b, (), t[0], WITH), (b, a, (), t[0], WITH)], "unlikely", "one owner"),
        (lambda a, b, g, t: [(a, b, (), t[0], TIMED), (b, a, (), t[1], WITH)], "unlikely", "timed"),
        (lambda a, b, g, t: [(a, b, (), t[0], TIMED), (b, a, (), t[0], WITH)], "unlikely", "one owner"),
        (lambda a, b, g, t: [(a, b, (g,), t[0], TIMED), (b, a, (g,), t[1], WITH)], "unlikely", "guarded"),
    ],
)
def test_the_reason_why_it_is_unlikely(make: Any, grade: str, reason: str) -> None:
    a, b, g = classes("a", "b", "g")
    graph = OrderGraph()
    for source, target, guards, by, mode in make(a, b, g, [owner(), owner()]):
        graph.add(source, target, witness(source, *guards, by=by, taken=mode))
    (cycle,) = cycles_of(graph, "observed").cycles
    assert (cycle.grade, cycle.reason) == (grade, reason)
    assert (cycle.guard is g) == (reason == "guarded")


@pytest.mark.parametrize(
    ("first", "second", "grade"),
    [
        # held as, asked for as, of each edge
        ((WITH, WITH), (WITH, WITH), "possible"),
        ((SHARED, WITH), (SHARED, WITH), "possible"),  # readers inside, writers outside
        ((SHARED, SHARED), (SHARED, SHARED), "possible"),  # a writer may come between them
        ((SHARED, RECURSIVE), (SHARED, RECURSIVE), None),  # readers that let each other in
        ((SHARED, RECURSIVE), (WITH, WITH), "possible"),  # the second is held exclusively
        ((WITH, RECURSIVE), (SHARED, WITH), None),  # asks recursively for what is held shared
        ((WITH, RECURSIVE), (WITH, RECURSIVE), "possible"),  # both are held exclusively
    ],
)
def test_readers(first: Any, second: Any, grade: str | None) -> None:
    a, b = classes("a", "b")
    graph = OrderGraph()
    for (source, target), (held, taken) in zip([(a, b), (b, a)], [first, second], strict=True):
        w = witness(source, by=owner(), held=held, taken=taken)
        graph.add(source, target, w._replace(guards=frozenset() if held.shared else w.guards))
    assert [cycle.grade for cycle in cycles_of(graph, "observed").cycles] == ([grade] if grade else [])


def test_a_cycle_through_a_class_that_is_handed_over_is_unlikely() -> None:
    a, b = classes("a", "b")
    graph = OrderGraph()
    add(graph, a, b, by=owner())
    add(graph, b, a, by=owner())
    b.handed_over = True
    (cycle,) = cycles_of(graph).cycles
    assert (cycle.grade, cycle.reason) == ("unlikely", "handed over")


def test_a_guard_counts_only_where_its_class_had_one_instance() -> None:
    a, b, g = classes("a", "b", "g")
    graph = OrderGraph()
    add(graph, a, b, g, by=owner())
    add(graph, b, a, g, by=owner())
    assert [c.grade for c in cycles_of(graph).cycles] == ["unlikely"]
    assert [c.grade for c in cycles_of(graph, single=lambda c: c is not g).cycles] == ["possible"]


def test_an_unallowed_witness_is_preferred_where_it_fits() -> None:
    a, b = classes("a", "b")
    graph = OrderGraph()
    one, two = owner(), owner()
    graph.add(a, b, witness(a, by=one, allowed="fine"))
    graph.add(a, b, witness(a, by=one))
    graph.add(b, a, witness(b, by=two, allowed="fine too"))
    (cycle,) = cycles_of(graph, "observed").cycles
    assert [w.allowed for w in cycle.witnesses] == [None, "fine too"]


def test_what_is_cut_is_counted_and_the_edge_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_SEARCH_STEPS", 1)
    graph = OrderGraph()
    nodes = classes(*range(5))
    for i, a in enumerate(nodes):
        add(graph, a, nodes[(i + 1) % 5])
    found = cycles_of(graph)
    assert found.cut > 0
    assert names(found.cycles) == {"01234"}


def test_too_many_choices_of_witnesses_are_taken_for_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    # rather a finding too many than a deadlock that nobody hears of
    nodes, guards = classes("a", "b"), classes(*(f"g{i}" for i in range(4)))
    graph = OrderGraph()
    for a, b in itertools.permutations(nodes):
        for pair in itertools.combinations(guards, 2):
            add(graph, a, b, *pair, guards[0], by=owner())
    assert [c.grade for c in cycles_of(graph, "observed").cycles] == ["unlikely"]
    monkeypatch.setattr(grading, "MAX_CHOICES", 2)
    assert [c.grade for c in cycles_of(graph, "observed").cycles] == ["possible"]


def test_guarded_knots_are_refused_after_two_edges_however_many_cycles_there_are() -> None:
    # 14 classes, each order of two of them: about 10**10 simple cycles, all of them under one guard
    nodes, (guard,) = classes(*range(14)), classes("guard")
    graph = OrderGraph()
    for a, b in itertools.permutations(nodes, 2):
        add(graph, a, b, guard)
    found = cycles_of(graph)
    assert found.cut == 0
    assert {c.grade for c in found.cycles} == {"unlikely"}
    assert {c.guard for c in found.cycles} == {guard}


def test_more_than_eight_owners_dont_change_the_verdict() -> None:
    program = {f"T{i:02}": [chain("A", "B")] for i in range(20)} | {"U": [chain("A", "B"), chain("B", "A")]}
    report = run(program, "observed")
    assert report == Reported(frozenset({AB}), frozenset(), frozenset())


def test_owners_that_came_first_dont_fill_the_evidence_for_those_of_another_kind() -> None:
    # twenty guarded owners, then one without the guard
    program = {f"T{i:02}": [chain("G", "A", "B")] for i in range(20)}
    program |= {"U": [chain("A", "B")], "V": [chain("G", "B", "A")]}
    assert run(program, "observed").possible == {AB}


def test_the_verdict_can_be_asked_at_any_time_and_rises_with_the_evidence() -> None:
    a, b = ctxcheck.Lock(name="rise.A"), ctxcheck.Lock(name="rise.B")
    with Session(owners="observed") as session:
        _ab(a, b)
        _ba(b, a)
        assert [v.grade for v in session.violations] == ["unlikely"]
        in_thread(lambda: _ab(a, b))
        assert [v.grade for v in session.violations] == ["possible"]
    assert [v.grade for v in session.violations] == ["possible"]


