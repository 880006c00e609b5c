"""Waits of tasks: where awaiting is forbidden they are CTX101, and a lock's acquire is CTX102."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import aio, checking
from tests.aio.helpers import clean, found

WAITS: dict[str, Callable[[], Awaitable[Any]]] = {}


def wait(name: str) -> Callable[[Callable[[], Awaitable[Any]]], Callable[[], Awaitable[Any]]]:
    def add(function: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
        WAITS[name] = function
        return function

    return add


@wait("Event.wait")
async def _event() -> None:
    event = aio.Event()
    event.set()
    await event.wait()


@wait("Barrier.wait")
async def _barrier() -> None:
    async with aio.Barrier(1):
        pass


@wait("Queue.get")
async def _get() -> None:
    queue: aio.Queue[int] = aio.Queue()
    queue.put_nowait(1)
    await queue.get()


@wait("PriorityQueue.put")
async def _put() -> None:
    await aio.PriorityQueue(1).put(1)


@wait("LifoQueue.join")
async def _join() -> None:
    await aio.LifoQueue().join()


@wait("Semaphore.acquire")
async def _semaphore() -> None:
    async with aio.Semaphore(2):
        pass


FORBIDDING: dict[str, Callable[[], Any]] = {
    "atomic": lambda: ctxcheck.atomic("tick"),
    "spin": lambda: ctxcheck.SpinLock(name="spin"),
}


@pytest.mark.parametrize("context", FORBIDDING)
@pytest.mark.parametrize("name", WAITS)
def test_a_wait_where_awaiting_is_forbidden(name: str, context: str) -> None:
    async def main() -> None:
        with FORBIDDING[context]():
            await WAITS[name]()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX101", "certain")]
    assert f"`{name}" in session.violations[0].message
    assert session.violations[0].sites[0].file.endswith("test_waits.py")
    clean(session)


@pytest.mark.parametrize("name", WAITS)
def test_elsewhere_it_is_fine_also_under_locks(name: str) -> None:
    async def main() -> None:
        async with aio.Lock(name="A"):
            await WAITS[name]()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []


def test_a_conditions_wait_is_told_once() -> None:
    async def main() -> None:
        condition = aio.Condition(name="C")
        async with condition:
            with ctxcheck.atomic("tick"):
                waiting = asyncio.current_task()
                assert waiting is not None
                asyncio.get_running_loop().call_soon(waiting.cancel)
                with pytest.raises(asyncio.CancelledError):
                    await condition.wait()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX101", "certain")]
    assert "`Condition.wait" in session.violations[0].message


@pytest.mark.parametrize("context", FORBIDDING)
@pytest.mark.parametrize("make", [aio.Lock, lambda: aio.Semaphore(1), aio.Condition], ids=["lock", "semaphore", "cond"])
def test_an_acquire_where_awaiting_is_forbidden(make: Callable[[], Any], context: str) -> None:
    async def main() -> None:
        async with make():
            pass
        with FORBIDDING[context]():
            async with make():
                pass

    with checking() as session:
        asyncio.run(main())
    assert [rule for rule, _ in found(session)] == ["CTX102"]
    clean(session)


def test_a_put_that_cant_wait_is_no_wait() -> None:
    async def main() -> None:
        queue: aio.Queue[int] = aio.Queue()
        with ctxcheck.atomic("tick"):
            await queue.put(1)
            assert queue.get_nowait() == 1

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []


def test_blocking_permissions_and_awaiting_ones_are_apart() -> None:
    # on a thread that is inside of an atomic section, a task may await: its thread isn't held up by that
    async def main() -> None:
        async with aio.Lock(name="A"):
            await asyncio.sleep(0)
            ctxcheck.might_sleep()  # CTX101: this blocks the thread

    with checking() as session, ctxcheck.atomic("outside"):
        asyncio.run(main())
    assert found(session) == [("CTX101", "certain")]
    assert session.violations[0].sites[0].text.strip().startswith("ctxcheck.might_sleep()")


def test_a_coroutine_marked_atomic_that_suspends_is_told_once() -> None:
    @ctxcheck.atomic
    async def tick() -> None:
        await asyncio.sleep(0)

    with checking() as session:
        asyncio.run(tick())
    assert found(session) == [("CTX101", "certain")]
