"""The order graph: cycles are seen when they close, and components grow with them."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.engine.classes import ACQUIRE, RECURSIVE, RESTORE, SHARED, TIMED, LockClass
from ctxcheck.engine.graph import ENOUGH_OWNERS, MAX_WITNESSES, Evidence, OrderGraph
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.verdict import components
from tests.engine.conftest import add, classes, owner, witness


def ranks(graph: OrderGraph) -> dict[LockClass, int]:
    return dict(graph._rank)


def reachable(edges: Iterable[tuple[int, int]], start: int) -> set[int]:
    """By the book: follow every edge until nothing new comes."""
    edges = list(edges)
    found = {start}
    while new := {b for a, b in edges if a in found} - found:
        found |= new
    return found


edges_of_seven = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda e: e[0] != e[1]), max_size=45)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(edges_of_seven)
def test_each_insert_agrees_with_brute_force_and_keeps_the_invariants(edges: list[tuple[int, int]]) -> None:
    nodes = classes(*range(7))
    graph = OrderGraph()
    known: set[tuple[int, int]] = set()
    for a, b in edges:
        before = ranks(graph)
        cyclic = add(graph, nodes[a], nodes[b])
        on_cycle = a in reachable(known, b)
        if (a, b) not in known:
            assert cyclic == on_cycle
        known.add((a, b))
        graph.check_invariants()
        if on_cycle:
            mutual = {y for y in range(7) if y in reachable(known, a) and a in reachable(known, y)}
            assert graph.component((nodes[a], nodes[b])) == {nodes[y] for y in mutual}
        elif before.get(nodes[a], 7) < before.get(nodes[b], 0):
            assert {n: r for n, r in ranks(graph).items() if n in before} == before, "it agreed with the ranks"
        for x in range(7):
            for y in range(7):
                assert graph.reaches(nodes[x], nodes[y]) == (y in reachable(known, x))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(edges_of_seven)
def test_components_are_the_classes_that_reach_themselves(edges: list[tuple[int, int]]) -> None:
    nodes = classes(*range(7))
    graph = OrderGraph()
    for a, b in edges:
        add(graph, nodes[a], nodes[b])
    cyclic = {x for x in range(7) if any(x in reachable(edges, b) for a, b in edges if a == x)}
    assert components(graph.evidence) == {nodes[x] for x in cyclic}
    for a, b in edges:
        if a in reachable(edges, b):
            mutual = {y for y in range(7) if y in reachable(edges, a) and a in reachable(edges, y)}
            assert graph.component((nodes[a], nodes[b])) == {nodes[y] for y in mutual}


def test_a_long_random_walk_over_many_nodes_agrees_with_brute_force() -> None:
    rng = random.Random(7)
    nodes = classes(*range(60))
    graph = OrderGraph()
    known: set[tuple[int, int]] = set()
    for _ in range(1500):
        a, b = rng.sample(range(60), 2)
        if rng.random() < 0.93 and a > b:
            a, b = b, a  # mostly forward, so that the graph isn't one knot at once
        new = (a, b) not in known
        closes = a in reachable(known, b) if new else False
        cyclic = add(graph, nodes[a], nodes[b])
        assert not new or cyclic == closes
        known.add((a, b))
    graph.check_invariants()


# --- scenarios of other validators' tests -----------------------------------------------


def numbered(count: int) -> dict[int, LockClass]:
    return dict(enumerate(classes(*range(count))))


def doubled(n: dict[int, LockClass]) -> OrderGraph:
    graph = OrderGraph()
    for x in range(1, 25):
        for factor in (2, 3):
            assert not add(graph, n[x], n[factor * x])
    return graph


def test_s1_a_tree_of_multiples_has_no_cycle() -> None:
    graph = doubled(numbered(100))
    graph.check_invariants()
    assert components(graph.evidence) == set()


def test_s2_the_edge_back_closes_a_cycle_of_two() -> None:
    n = numbered(100)
    graph = doubled(n)
    assert add(graph, n[8], n[4])
    assert graph.component((n[8], n[4])) == {n[4], n[8]}


def test_s3_a_detour_closes_a_longer_one() -> None:
    n = numbered(100)
    graph = doubled(n)
    assert not add(graph, n[16], n[9])
    assert add(graph, n[9], n[2])
    assert {n[2], n[4], n[8], n[16], n[9]} <= graph.component((n[9], n[2]))


def test_s4_and_s5_a_chain_is_closed_at_its_end_and_orders_outlive_their_locks() -> None:
    n = numbered(13)
    graph = OrderGraph()
    for x in range(2, 12, 2):
        assert not add(graph, n[x], n[x + 2])
    # there is no way to take a class out: what was learned of it stands
    assert add(graph, n[12], n[2])
    assert graph.component((n[12], n[2])) == {n[x] for x in range(2, 13, 2)}


def test_s6_dense_forward_edges() -> None:
    n = numbered(100)
    graph = OrderGraph()
    for i in range(50):
        for j in range(1, 50):
            assert not add(graph, n[i], n[i + j])
    graph.check_invariants()
    assert not add(graph, n[99], n[0])
    graph.check_invariants()
    assert add(graph, n[10], n[9])
    graph.check_invariants()


def test_s8_all_forward_pairs_in_shuffled_order() -> None:
    n = numbered(100)
    pairs = [(a, b) for a in range(100) for b in range(a + 1, 100)]
    random.Random(8).shuffle(pairs)
    graph = OrderGraph()
    for a, b in pairs:
        assert not add(graph, n[a], n[b])
    graph.check_invariants()
    assert [ranks(graph)[n[i]] for i in range(100)] == list(range(100))


def test_s9_inserts_go_on_after_a_cycle() -> None:
    n = numbered(5)
    graph = OrderGraph()
    assert not any(add(graph, n[a], n[b]) for a, b in ((0, 1), (1, 2), (2, 3), (4, 2)))
    assert add(graph, n[3], n[1])
    assert not add(graph, n[4], n[0])
    graph.check_invariants()


def test_a_chain_longer_than_the_recursion_limit() -> None:
    n = numbered(1200)
    graph = OrderGraph()
    for i in range(1198, -1, -1):  # against the ranks: each insert moves what was there
        add(graph, n[i], n[i + 1])
    assert add(graph, n[1199], n[0])
    assert len(components(graph.evidence)) == 1200


def test_an_edge_that_is_known_lies_on_a_cycle_only_when_it_brings_news() -> None:
    a, b = classes("a", "b")
    graph = OrderGraph()
    one, two = owner(), owner()
    assert graph.add(a, b, witness(a, by=one)) == (True, False)
    assert graph.add(a, b, witness(a, by=one)) == (False, False)
    assert graph.add(b, a, witness(b, by=one)) == (True, True)
    assert graph.add(a, b, witness(a, by=one)) == (False, False)
    assert graph.add(a, b, witness(a, by=two)) == (True, True)
    assert graph.evidence[a, b].count == 4


# --- evidence -----------------------------------------------------------------------------


def test_the_same_owner_under_more_guards_is_no_news_and_under_fewer_takes_the_others_place() -> None:
    a, g, h = classes("a", "g", "h")
    evidence = Evidence()
    assert evidence.add(witness(a, g, h))
    assert not evidence.add(witness(a, g, h))
    assert evidence.add(witness(a, g))
    assert [w.guards for w in evidence.witnesses] == [{a, g}]
    assert evidence.add(witness(a, h)), "another way, not a weaker one"
    assert not evidence.add(witness(a, g, h))
    assert evidence.add(witness(a))
    assert [w.guards for w in evidence.witnesses] == [{a}]
    assert evidence.count == 6


def test_owners_and_guards_are_not_kept_apart() -> None:
    a, g = classes("a", "g")
    evidence = Evidence()
    one, two = owner(), owner()
    assert evidence.add(witness(a, g, by=one))
    assert evidence.add(witness(a, by=two))
    assert {(w.owner, w.guards) for w in evidence.witnesses} == {(one, frozenset({a, g})), (two, frozenset({a}))}


@pytest.mark.parametrize(
    "other",
    [{"taken": TIMED}, {"held": SHARED}, {"taken": RECURSIVE}, {"allowed": "a reason"}],
    ids=["timed", "shared", "recursive", "allowed"],
)
def test_what_weighs_less_doesnt_stand_for_what_weighs_more(other: dict[str, object]) -> None:
    a, g = classes("a", "g")
    evidence = Evidence()
    assert evidence.add(witness(a, **other))  # type: ignore[arg-type]
    assert evidence.add(witness(a, g)), "blocking, exclusive and not allowed, although under one guard more"
    assert len(evidence.witnesses) == 2


def test_eight_owners_are_enough() -> None:
    a, g = classes("a", "g")
    evidence = Evidence()
    guards = frozenset({a})
    for i in range(ENOUGH_OWNERS):
        assert not evidence.saturated(guards, witness(a).held_mode, witness(a).taken_mode)
        assert evidence.add(witness(a, by=owner())), i
    assert evidence.saturated(guards, witness(a).held_mode, witness(a).taken_mode)
    assert not evidence.add(witness(a, by=owner()))
    assert not evidence.saturated(frozenset({g}), witness(a).held_mode, witness(a).taken_mode)
    assert not evidence.saturated(guards, witness(a).held_mode, TIMED)
    assert evidence.add(witness(a, by=owner(), taken=TIMED)), "another way"


def test_enough_owners_under_fewer_guards_stand_for_one_under_more() -> None:
    a, g = classes("a", "g")
    evidence = Evidence()
    for _ in range(ENOUGH_OWNERS):
        evidence.add(witness(a, by=owner()))
    assert evidence.saturated(frozenset({a, g}), witness(a).held_mode, witness(a).taken_mode)
    assert not evidence.add(witness(a, g, by=owner()))


@pytest.mark.parametrize("owners", [1, 3, 200])
def test_beyond_a_limit_guards_are_folded_into_what_all_have_in_common(owners: int) -> None:
    a, common, *others = classes("a", "common", *(f"g{i}" for i in range(3 * MAX_WITNESSES)))
    by = [owner() for _ in range(owners)]
    graph = OrderGraph()
    target = classes("target")[0]
    for i, other in enumerate(others):
        graph.add(a, target, witness(a, common, other, by=by[i % owners]))
        assert len(graph.evidence[a, target].witnesses) <= MAX_WITNESSES
    witnesses = graph.evidence[a, target].witnesses
    assert {w.guards for w in witnesses} == {frozenset({a, common})}
    assert len({w.owner for w in witnesses}) == len(witnesses) == min(owners, ENOUGH_OWNERS)
    assert graph.folded > 0
    graph.add(a, target, witness(a, by=by[0]))
    assert frozenset({a}) in {w.guards for w in graph.evidence[a, target].witnesses}, "fewer guards are still news"


def test_eight_owners_whose_way_is_allowed_are_not_enough() -> None:
    a = classes("a")[0]
    evidence = Evidence()
    for _ in range(ENOUGH_OWNERS):
        evidence.add(witness(a, by=owner(), allowed="a reason"))
    assert not evidence.saturated(frozenset({a}), witness(a).held_mode, witness(a).taken_mode)
    assert evidence.add(witness(a, by=owner()))


def test_witnesses_stand_in_their_own_order_however_they_came() -> None:
    a, g = classes("a", "g")
    here = witness(a).taken_at
    some = [
        witness(a, by=owner()),
        witness(a, g, by=owner()),
        witness(a, by=owner(), taken=TIMED),
        witness(a, by=owner(), allowed="yes", at=here),
    ]
    orders = set()
    for order in itertools.permutations(some):
        evidence = Evidence()
        for one in order:
            evidence.add(one)
        orders.add(tuple(w.sort_key() for w in evidence.witnesses))
    assert len(orders) == 1


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("restored_in", ["/lib/a.py", "/lib/z.py"])
def test_a_lock_taken_back_after_a_wait_is_not_shown_where_the_acquire_can_be(
    order: tuple[int, int], restored_in: str
) -> None:
    (a,) = classes("a")
    both = [
        witness(a, taken=ACQUIRE, at=Trace((compile("", "/home/m.py", "exec"),), (0,))),
        witness(a, taken=RESTORE, at=Trace((compile("", restored_in, "exec"),), (0,))),
    ]
    evidence = Evidence()
    for index in order:
        evidence.add(both[index])
    assert evidence.witnesses == both[:1]


def test_an_edge_that_was_half_entered_is_mended_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # a signal handler raised in the middle, or a fork came while another thread was at it
    a, b, c = classes(*"abc")
    graph = OrderGraph()
    add(graph, b, c)
    for name in ("_insert", "_search", "_reorder", "_merge"):
        real = getattr(OrderGraph, name)

        def interrupted(self: OrderGraph, *args: Any, real: Any = real) -> Any:
            real(self, *args)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(OrderGraph, name, interrupted)
            for edge in ((a, b), (c, a)):
                with contextlib.suppress(KeyboardInterrupt):
                    add(graph, *edge)
        # an event that was interrupted is seen to again
        add(graph, a, b)
        add(graph, c, a)
        assert add(graph, a, c), name
        graph.check_invariants()
        assert graph.component((a, b)) == {a, b, c}
        graph = OrderGraph()
        add(graph, b, c)


def test_a_lock_that_is_taken_back_after_a_wait_is_no_order_more() -> None:
    """Whether a wait really waited is chance."""
    (a,) = classes("a")
    evidence = Evidence()
    for mode in (ACQUIRE, RESTORE, ACQUIRE, RESTORE):
        evidence.add(witness(a, taken=mode))
    assert evidence.count == 2
    alone = Evidence()
    alone.add(witness(a, taken=RESTORE))
    assert alone.count == 1
