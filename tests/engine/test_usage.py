"""The rules on interrupting contexts, against a model that tries everything."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcheck.engine.classes import ACQUIRE, LOCK, RECURSIVE, RLOCK, SHARED, TIMED, Kind, LockClass, Mode
from ctxcheck.engine.graph import ENOUGH_OWNERS, OrderGraph, Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import EMPTY, Trace
from ctxcheck.engine.usage import Hazard, Usage
from ctxcheck.engine.uses import MAX_USES, Use, Uses

OWNER = Owner(1, 1)
CONTEXTS = ("gc", "signal")
MODES = (ACQUIRE, SHARED, RECURSIVE)


def places(count: int) -> list[Trace]:
    codes = [compile("", f"file{n:03}", "exec") for n in range(count)]
    return [Trace((code,), (0,)) for code in codes]


def use(*guards: LockClass, owner: Owner = OWNER, mode: Mode = ACQUIRE, trace: Trace = EMPTY) -> Use:
    return Use(owner, frozenset(guards), "", mode, trace)


def classes(names: str, kind: Kind = LOCK) -> list[LockClass]:
    return [LockClass(name, name, kind) for name in names]


# --- what is remembered ---------------------------------------------------------------------------


def test_the_fewest_guards_and_the_first_place_whatever_the_order() -> None:
    g, h = classes("gh")
    first, second, third = places(3)
    every = [use(g, h, trace=first), use(g, trace=third), use(h, trace=second), use(g, trace=second)]
    for order in itertools.permutations(every):
        uses = Uses()
        for one in order:
            news, covered = None, uses.covers(one)
            news = uses.add(one)
            assert not (covered and news)
        assert uses.known == (use(g, trace=second), use(h, trace=second))
        assert all(map(uses.covers, every))


def test_many_owners_stand_for_all_and_the_first_places_are_kept() -> None:
    there = places(2 * ENOUGH_OWNERS)
    for order in (there, there[::-1]):
        uses = Uses()
        news = [uses.add(use(owner=Owner(n, n), trace=trace)) for n, trace in enumerate(order)]
        assert [one.trace for one in uses.known] == there[:ENOUGH_OWNERS]
        assert news[0]
        assert not uses.folded


def test_of_too_many_the_guards_that_all_have_are_kept() -> None:
    uses = Uses()
    (gate,) = classes("g")
    owners = [Owner(n, n) for n in range(3)]
    for number in range(3 * MAX_USES):
        assert len(uses.known) <= MAX_USES
        uses.add(use(gate, LockClass(str(number), str(number), LOCK), owner=owners[number % 3]))
    assert uses.folded == 1
    assert [(one.owner, one.guards) for one in uses.known] == [(o, frozenset({gate})) for o in owners]


# --- against a model -------------------------------------------------------------------------------


@st.composite
def situations(draw: Any) -> list[tuple[Any, ...]]:
    lock = st.integers(0, 3)
    mode = st.sampled_from(MODES)
    context = st.sampled_from(CONTEXTS)
    events = st.one_of(
        st.tuples(st.just("use"), lock, context, mode),
        st.tuples(st.just("hold"), lock, st.frozensets(context), mode),
        st.tuples(st.just("order"), lock, mode, lock, mode).filter(lambda e: e[1] != e[3]),
    )
    return draw(st.lists(events, max_size=10))  # type: ignore[no-any-return]


def played(locks: list[LockClass], events: list[tuple[Any, ...]]) -> tuple[Usage, list[Any]]:
    graph = OrderGraph()
    usage = Usage(graph, "assumed", lambda _: False)
    told: list[Any] = []
    for event in events:
        if event[0] == "use":
            told += usage.add_use(locks[event[1]], event[2], use(mode=event[3]))
        elif event[0] == "hold":
            told += usage.add_hold(locks[event[1]], event[2], use(mode=event[3]))
        else:
            source, target = locks[event[1]], locks[event[3]]
            news, _ = graph.add(source, target, Witness(OWNER, frozenset(), "", event[2], event[4], EMPTY, EMPTY))
            if news:
                told += usage.add_order(source, target)
    return usage, told


def blocks(asked: Mode, held: Mode) -> bool:
    return not (asked.recursive and held.shared)


def hazards_of(events: list[tuple[Any, ...]]) -> tuple[set[tuple[str, int]], set[tuple[str, int, int]]]:
    """All locks that hang by one thread, and all pairs that hang by more: each simple way, in each choice of modes."""
    same: set[tuple[str, int]] = set()
    ways: set[tuple[str, int, int]] = set()
    uses = [e for e in events if e[0] == "use"]
    holds = [e for e in events if e[0] == "hold"]
    orders = [e for e in events if e[0] == "order"]
    for (_, wanted, context, asked), (_, held, masked, mode) in itertools.product(uses, holds):
        if context in masked:
            continue
        if wanted == held and blocks(asked, mode):
            same.add((context, wanted))
        for size in range(1, 4):
            for path in itertools.permutations(orders, size):
                at, last, ok, seen = wanted, asked, True, {wanted}
                for _, source, held_mode, target, taken in path:
                    ok = ok and source == at and blocks(last, held_mode) and target not in seen
                    at, last = target, taken
                    seen.add(target)
                if ok and at == held and blocks(last, mode):
                    ways.add((context, wanted, held))
    return same, ways


def described(hazard: Hazard) -> tuple[object, ...]:
    return (hazard.context, hazard.cycle.classes, hazard.at, hazard.cycle.grade, hazard.interrupted)


@given(situations(), st.randoms(use_true_random=False))
def test_exactly_what_a_model_finds(events: list[tuple[Any, ...]], random: Any) -> None:
    locks = classes("abcd")
    same, ways = hazards_of(events)
    usage, told = played(locks, events)
    found = usage.judge().found
    index = {lock: number for number, lock in enumerate(locks)}
    assert {(h.context, index[h.wanted]) for h in found if h.rule == "CTX004"} == same
    pairs = {(h.context, index[h.wanted], index[h.held]) for h in found if h.rule == "CTX005"}
    assert pairs <= ways
    # of those that lie on one way the first one is told: each class that is waited for is told of, if there is a way
    assert {pair[:2] for pair in pairs} == {way[:2] for way in ways}
    assert all(h.cycle.grade == "possible" for h in found)
    # what is told at once is never more than what it comes to, and something is told if there is anything
    assert {(h.context, h.rule, h.wanted) for h in told} <= {(h.context, h.rule, h.wanted) for h in found}
    assert bool(told) == bool(found)
    shuffled = list(events)
    random.shuffle(shuffled)
    again = played(locks, shuffled)[0].judge().found
    assert [described(h) for h in again] == [described(h) for h in found]


# --- kinds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        (LOCK, ["CTX004", "CTX005"]),
        (RLOCK, ["CTX005"]),
        (Kind("confined", confined=True), ["CTX004"]),  # no other thread waits for its holder
    ],
)
def test_kinds(kind: Kind, rules: list[str]) -> None:
    (a, b), (c,) = classes("ab"), classes("c", kind)
    for way in ([a, c, b], [c, a, b], [a, b, c]):
        usage, graph = Usage(graph := OrderGraph(), "assumed", lambda _: False), graph
        usage.add_use(way[0], "gc", use())
        usage.add_hold(way[2], frozenset(), use())
        usage.add_hold(c, frozenset({"signal"}), use())
        usage.add_use(c, "gc", use())
        for source, target in itertools.pairwise(way):
            graph.add(source, target, Witness(OWNER, frozenset(), "", ACQUIRE, ACQUIRE, EMPTY, EMPTY))
        assert sorted({h.rule for h in usage.judge().found}) == rules


def test_a_class_that_no_other_thread_takes_is_no_way() -> None:
    a, b = classes("ab")
    (local,) = classes("l", Kind("local", confined=True))
    graph = OrderGraph()
    usage = Usage(graph, "assumed", lambda _: False)
    usage.add_use(a, "gc", use())
    usage.add_hold(b, frozenset(), use())
    for source, target in ((a, local), (local, b)):
        graph.add(source, target, Witness(OWNER, frozenset(), "", ACQUIRE, ACQUIRE, EMPTY, EMPTY))
    assert usage.judge().found == []
    graph.add(a, b, Witness(OWNER, frozenset(), "", ACQUIRE, ACQUIRE, EMPTY, EMPTY))
    assert [h.rule for h in usage.judge().found] == ["CTX005"]


def test_the_best_of_all_uses_grades() -> None:
    a, gate = classes("ag")
    graph = OrderGraph()
    usage = Usage(graph, "assumed", lambda _: True)
    grades: list[tuple[str, str]] = []
    for add in (
        lambda: usage.add_use(a, "gc", use(gate, mode=TIMED)),
        lambda: usage.add_hold(a, frozenset(), use(gate, a)),
        lambda: usage.add_use(a, "gc", use(gate)),
        lambda: usage.add_use(a, "gc", use(mode=TIMED)),
        lambda: usage.add_use(a, "gc", use()),
    ):
        add()
        grades += [(h.cycle.grade, h.cycle.reason) for h in usage.judge().found]
    assert grades == [("unlikely", "guarded"), ("unlikely", "guarded"), ("unlikely", "timed"), ("possible", "")]
