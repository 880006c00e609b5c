"""``region`` and ``might_enter``: two paths that never run together meet in the order of locks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking, might_enter, might_lock, nested, region, track
from ctxcheck.session import Session
from tests.oracle import in_thread


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def edges(session: Session) -> set[tuple[str, str]]:
    return {(e["from"], e["to"]) for e in session.graph()["edges"]}


A, B = ctxcheck.Lock(name="region.A"), ctxcheck.Lock(name="region.B")


def take(lock: Any) -> None:
    with lock:
        pass


def by_block() -> None:
    with region("region.r"):
        take(A)


@region("region.r")
def by_function() -> None:
    take(A)


class Thing:
    def __init__(self) -> None:
        self.lock = A
        self.inside = region("region.r")
        self.child = nested(A, 2)
        self.table = track(threading.Lock(), name="region.table")

    @region("region.r")
    def method(self) -> None:
        take(A)

    @classmethod
    @region("region.r")
    def of_class(cls) -> None:
        take(A)

    @staticmethod
    @region("region.r")
    def static() -> None:
        take(A)

    @region("region.r")
    def generator(self) -> Iterator[int]:
        take(A)
        yield 1

    @region("region.r")
    async def coroutine(self) -> None:
        await asyncio.sleep(0)
        take(A)

    @region("region.r")
    async def agen(self) -> AsyncIterator[int]:
        await asyncio.sleep(0)
        take(A)
        yield 1

    async def block(self) -> None:
        async with region("region.r"):
            await asyncio.sleep(0)
            take(A)


async def _all(items: AsyncIterator[int]) -> None:
    assert [item async for item in items] == [1]


THING = Thing()
WAYS: dict[str, Callable[[], Any]] = {
    "block": by_block,
    "function": by_function,
    "method": THING.method,
    "classmethod": THING.of_class,
    "staticmethod": THING.static,
    "generator": lambda: list(THING.generator()),
    "coroutine": lambda: asyncio.run(THING.coroutine()),
    "async generator": lambda: asyncio.run(_all(THING.agen())),
    "async block": lambda: asyncio.run(THING.block()),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", ["inside", "outside"])
@pytest.mark.parametrize("owners", ["assumed", "observed"])
def test_the_two_paths_meet(way: str, first: str, owners: Any) -> None:
    def outside() -> None:
        with A:
            might_enter("region.r")

    steps = [WAYS[way], outside]
    with checking(owners=owners) as session:
        for step in steps if first == "inside" else steps[::-1]:
            step()
        assert session.held_locks() == []
    # whoever holds A and enters the region takes A again: one thread is enough
    assert found(session) == [("CTX001", "possible")]
    assert edges(session) == {("region.r", "region.A"), ("region.A", "region.r")}
    message = "possible deadlock: lock order inversion between `region.A` and region `region.r`"
    assert session.violations[0].message == message


@pytest.mark.parametrize("way", WAYS)
def test_near_misses_are_silent(way: str) -> None:
    with checking() as session:
        WAYS[way]()
        might_enter("region.r")
        with B:
            might_enter("region.r")
            with region("another"):
                pass
        with region("region.other"), A:
            pass
        with A:
            might_enter("nobody is in it")
    assert found(session) == []


def test_what_is_held_around_the_region_keeps_nobody_out_and_what_is_held_inside_does() -> None:
    for around in (True, False):
        with checking() as session:
            gate, a, b = (ctxcheck.Lock(name=f"region.{around}.{n}") for n in ("gate", "a", "b"))
            # a -> r, r -> b under the gate, b -> a under the gate
            with a:
                might_enter("gated")
            if around:
                with gate, region("gated"), b:
                    pass
            else:
                with region("gated"), gate, b:
                    pass
            with gate, b, a:
                pass
        cycles = {v.locks: v.grade for v in session.violations}
        through = next(grade for locks, grade in cycles.items() if "gated" in locks)
        assert through == ("possible" if around else "unlikely")


def test_two_locks_through_a_region_need_two_owners() -> None:
    def three() -> None:
        with A, region("between"):
            pass
        with region("between"), B:
            pass

    def back() -> None:
        with B, A:
            pass

    with checking(owners="observed") as session:
        three()
        back()
    assert found(session) == [("CTX001", "unlikely")]
    with checking(owners="observed") as session:
        three()
        in_thread(back)
    assert found(session) == [("CTX001", "possible")]


def test_to_enter_again_adds_nothing() -> None:
    inside = region("entered again")
    with checking() as session:
        with inside, A, inside, region("entered again"):
            might_enter("entered again")
            assert session.held_locks() == ["region.A"]
        assert session.held_locks() == []
    assert edges(session) == {("entered again", "region.A")}
    assert found(session) == []


def test_it_is_no_sleep_no_guard_and_may_be_left_open() -> None:
    spin = ctxcheck.SpinLock(name="region.spin")
    with checking() as session:
        with spin, region("calm"):
            might_enter("calm2")
        with ctxcheck.atomic("tick"), region("calm"):
            pass
        with ctxcheck.range_("bracket"):
            region("calm").__enter__()
        in_thread(lambda: region("calm").__enter__())
    assert found(session) == []


def test_a_generator_is_inside_only_while_it_runs() -> None:
    @region("gen")
    def items() -> Iterator[int]:
        yield 1
        take(B)
        yield 2

    with checking() as session:
        one = items()
        next(one)
        take(A)  # not inside
        with A:
            next(one)
        one.close()
    assert edges(session) == {("region.A", "gen"), ("region.A", "region.B"), ("gen", "region.B")}
    assert found(session) == []


def test_a_region_that_an_atomic_generator_is_in_is_carried_with_it() -> None:
    @ctxcheck.atomic
    def items() -> Iterator[int]:
        with region("carried"):
            yield 1
            take(ctxcheck.SpinLock(name="region.carried.spin"))
            yield 2

    with checking() as session:
        one = items()
        next(one)
        take(A)
        next(one)
        take(A)
        one.close()
        assert session.held_locks() == []
    assert edges(session) == {("carried", "region.carried.spin")}


def test_mode_raise_raises_at_the_entry_and_the_body_never_runs() -> None:
    ran: list[str] = []

    @region("raises")
    def function() -> None:
        ran.append("function")

    @region("raises")
    async def coroutine() -> None:
        ran.append("coroutine")

    @region("raises")
    def generator() -> Iterator[int]:
        ran.append("generator")
        yield 1

    with checking(mode="raise") as session:
        with region("raises"), A:
            pass
        for enter in (
            function, lambda: asyncio.run(coroutine()), lambda: next(generator()), region("raises").__enter__,
            lambda: might_enter("raises"),
        ):  # fmt: skip
            with A, pytest.raises(ctxcheck.ViolationError, match="CTX001"):
                enter()
            assert session.held_locks() == []
        function()
    assert ran == ["function"]


# --- might_enter, might_lock ------------------------------------------------------------------


def test_might_enter_by_name_by_region_and_as_a_decorator() -> None:
    @might_enter("asked")
    def by_name() -> str:
        return "result"

    @might_enter(region("asked"))
    async def by_region() -> str:
        return "result"

    for ask in (
        by_name, lambda: asyncio.run(by_region()), lambda: might_enter(region("asked")), lambda: might_enter("asked"),
        lambda: might_lock(region("asked")),
    ):  # fmt: skip
        with checking() as session:
            for _ in range(2):
                with A:
                    ask()
        assert edges(session) == {("region.A", "asked")}


def test_decorating_is_no_entry() -> None:
    with checking() as session, A:

        @might_enter("only marked")
        def function() -> None:
            pass

    assert edges(session) == set()
    with checking() as session, A:
        function()
    assert edges(session) == {("region.A", "only marked")}


def test_might_lock_by_path_for_all_sorts_of_locks() -> None:
    class User(Thing):
        @might_lock("self.inside")
        def region(self) -> None: ...

        @might_lock("self.child")
        def level(self) -> None: ...

        @might_lock("self.table")
        async def tracked(self) -> None: ...

    user = User()
    with checking() as session, B:
        user.region()
        user.level()
        asyncio.run(user.tracked())
        might_lock(user.inside)
        might_lock(user.child)
        might_lock(user.table)
    assert edges(session) == {("region.B", "region.r"), ("region.B", "region.A/2"), ("region.B", "region.table")}
    assert found(session) == []


def test_might_lock_of_a_nested_one_knows_what_it_is_under() -> None:
    outer, other = ctxcheck.Lock(name="region.outer"), ctxcheck.Lock(name="region.A")
    with checking() as session, outer, A:
        might_lock(nested(other, 0, nest_under=outer))
    assert found(session) == []
    with checking() as session, A:
        might_lock(nested(other, 0, nest_under=outer))
    assert ("CTX301", "certain") in found(session)


def test_a_tracked_region_is_one_too() -> None:
    class Pool:
        def acquire(self) -> None: ...
        def release(self) -> None: ...

    pool = track(Pool(), name="region.pool", kind="region")
    with checking(owners="observed") as session:
        with A, pool, pool:
            pass
        with pool, A:
            pass
    assert found(session) == [("CTX001", "possible")]


def test_bad_arguments_are_one_clear_line() -> None:
    for call in (region, might_enter):
        with pytest.raises(ValueError, match="the name is empty"):
            call("")
    with pytest.raises(TypeError, match="region: the name must be a string, not 5"):
        region(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="might_enter: None is no region"):
        might_enter(None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="@region marks functions, and Thing is a class"):
        region("region.r")(Thing)  # type: ignore[type-var]


def test_held_is_not_what_a_region_is_and_assert_held_knows_it() -> None:
    inside = region("asserted")
    with checking() as session:
        with inside:
            ctxcheck.assert_held(inside)
            ctxcheck.assert_held(region("asserted"))
        ctxcheck.assert_not_held(inside)
        assert found(session) == []
        ctxcheck.assert_held(inside)
    assert found(session) == [("CTX301", "certain")]
