"""``nested`` with locks of asyncio's, and what asks whether a task holds a lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import aio, checking, nested
from ctxcheck.aio import Condition, Lock, Semaphore
from tests.aio.helpers import clean, edges, found, task, turns

MAKERS: dict[str, Callable[[], Any]] = {
    "lock": lambda: Lock(name="Node"),
    "condition": lambda: Condition(name="Node"),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return MAKERS[request.param]


async def both(outer: Any, inner: Any) -> None:
    async with outer, inner:
        pass


def test_a_level_is_a_class_of_its_own(make: Callable[[], Any]) -> None:
    async def main() -> None:
        parent, child = make(), make()

        async def work() -> None:
            async with parent:
                async with nested(child):
                    assert ctxcheck.held_locks() == ["Node", "Node/1"]
                    assert child.locked()
                    ctxcheck.assert_held(child)
                    ctxcheck.assert_held(nested(child))
                    await asyncio.sleep(0)
                assert ctxcheck.held_locks() == ["Node"]
                assert await nested(child, 2).acquire() is True
                assert ctxcheck.held_locks() == ["Node", "Node/2"]
                child.release()
                await nested(child).acquire()
                nested(child).release()

        await task(work())

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    assert edges(session) == {("Node", "Node/1"), ("Node", "Node/2")}
    clean(session)


def test_without_a_level_it_is_said_and_the_wrong_way_round_too(make: Callable[[], Any]) -> None:
    async def main(*orders: bool) -> None:
        one, other = make(), make()
        for up in orders:
            await task(both(one, nested(other)) if up else both(nested(one), other))

    with checking() as session:
        asyncio.run(main(True, True))
    assert found(session) == []
    with checking() as session:
        asyncio.run(main(True, False))
    assert found(session) == [("CTX001", "possible")]
    with checking() as session:
        asyncio.run(both(make(), make()))
    assert [rule for rule, _ in found(session)] == ["CTX003"]


def test_under_a_lock_that_is_held_around_them(make: Callable[[], Any]) -> None:
    async def main() -> None:
        tree, nodes = Lock(name="tree"), [make() for _ in range(2)]

        async def work(*some: Any) -> None:
            async with tree, nested(some[0], 0, nest_under=tree), nested(some[1], 0, nest_under=tree):
                await asyncio.sleep(0)

        await asyncio.gather(work(*nodes), work(*reversed(nodes)))

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_under_a_lock_that_isnt_held(make: Callable[[], Any]) -> None:
    async def main() -> None:
        tree = Lock(name="tree")

        async def holder() -> None:
            async with tree:
                await turns()

        holding = asyncio.create_task(holder(), name="holder")
        await asyncio.sleep(0)
        async with nested(make(), nest_under=tree):
            pass
        await holding

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX301", "certain")]
    assert "task 'holder' holds it" in str(session.violations[0].to_dict())


def test_in_a_time_and_cancelled() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="Node")
        async with a:
            await asyncio.wait_for(nested(b).acquire(), 60)
            assert ctxcheck.held_locks() == ["A", "Node/1"]
            waiting = asyncio.create_task(both(Lock(name="C"), nested(b)))
            await turns()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            b.release()
        assert not b.locked()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    timed = {k[0].name: [w.taken_mode.timed for w in e.witnesses] for k, e in session.engine.graph.evidence.items()}
    assert timed == {"A": [True], "C": [False]}
    clean(session)


def test_a_task_that_takes_again_what_it_holds_at_a_level() -> None:
    async def main() -> None:
        a = Lock(name="Node")
        async with nested(a):
            with pytest.raises(ctxcheck.DeadlockError):
                await a.acquire()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX002", "certain")]


def test_where_nothing_is_checked_it_is_the_lock() -> None:
    async def main(plain: Any) -> None:
        async with nested(plain) as got:
            assert got is None
            assert plain.locked()
        await nested(plain).acquire()
        plain.release()

    asyncio.run(main(Lock(name="Node")))
    with checking() as session:
        asyncio.run(main(asyncio.Lock()))
    assert found(session) == []


@pytest.mark.parametrize("thing", [Semaphore(1), aio.Event(), aio.Barrier(2)])
def test_what_cant_be_nested_is_refused(thing: Any) -> None:
    kind = type(thing).__name__
    with pytest.raises(TypeError, match=rf"nested: a value of type {kind} can't be nested: give a Lock"):
        nested(thing)


# --- who holds it -------------------------------------------------------------------------------


class Account:
    def __init__(self) -> None:
        self.lock = Lock(name="Account.lock")
        self.balance = 0

    @ctxcheck.requires_lock("self.lock")
    async def add(self, amount: int) -> int:
        await asyncio.sleep(0)
        self.balance += amount
        return self.balance


def test_a_coroutine_that_requires_a_lock_is_asked_when_it_runs() -> None:
    async def main() -> None:
        account = Account()

        async def right() -> None:
            async with account.lock:
                assert await account.add(1) == 1

        async def wrong() -> None:
            assert await account.add(1) == 2

        await task(right(), "right")
        async with account.lock:
            # not this task's: who holds it is asked of the one that runs it
            await task(wrong(), "wrong")

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX301", "certain")]
    assert session.violations[0].owners[0] == "task 'wrong'"
    clean(session)


def test_each_task_has_its_own_held_locks() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), ctxcheck.Lock(name="B")

        async def other() -> None:
            assert ctxcheck.held_locks() == []
            ctxcheck.assert_not_held(a)
            with b:
                assert ctxcheck.held_locks() == ["B"]

        async with a:
            assert ctxcheck.held_locks() == ["A"]
            await task(other())
            with b:
                assert ctxcheck.held_locks() == ["A", "B"]
                ctxcheck.assert_held(a)
                ctxcheck.assert_held(b)
        assert ctxcheck.held_locks() == []

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)
