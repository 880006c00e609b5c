"""``asyncio.timeout()`` around an acquire gives it a limit, as long as the timeout runs; and is asyncio's own again."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking, timeouts
from ctxcheck.aio import Lock, Semaphore
from ctxcheck.session import Session
from tests.aio.helpers import clean, found, task


def timed(session: Session) -> list[bool]:
    """Of each order, whether its second lock was taken with a limit."""
    return [w.taken_mode.timed for e in session.engine.graph.evidence.values() for w in e.witnesses]


async def within(b: Any) -> None:
    async with asyncio.timeout(60):
        async with b:
            pass


async def by_call(b: Any) -> None:
    async with asyncio.timeout(60):
        await b.acquire()
    b.release()


async def until(b: Any) -> None:
    async with asyncio.timeout_at(asyncio.get_running_loop().time() + 60), b:
        pass


async def outside_of_one_without_a_limit(b: Any) -> None:
    async with asyncio.timeout(60), asyncio.timeout(None), b:
        pass


async def inside_of_one_without_a_limit(b: Any) -> None:
    async with asyncio.timeout(None), asyncio.timeout(60), b:
        pass


async def after_an_inner_one(b: Any) -> None:
    async with asyncio.timeout(60):
        async with asyncio.timeout(60):
            pass
        async with b:
            pass


async def given_a_limit_later(b: Any) -> None:
    async with asyncio.timeout(None) as limit:
        limit.reschedule(asyncio.get_running_loop().time() + 60)
        async with b:
            pass


async def some_calls_down(b: Any) -> None:
    async def inner() -> None:
        await outside_of_one_without_a_limit(b)

    await inner()


async def after_an_inner_one_has_expired(b: Any) -> None:
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(60)
        async with b:
            pass


LIMITED = [
    within, by_call, until, outside_of_one_without_a_limit, inside_of_one_without_a_limit, after_an_inner_one,
    given_a_limit_later, some_calls_down, after_an_inner_one_has_expired,
]  # fmt: skip


async def without(b: Any) -> None:
    async with asyncio.timeout(None), asyncio.timeout_at(None), b:
        pass


async def afterwards(b: Any) -> None:
    async with asyncio.timeout(60):
        pass
    async with b:
        pass


async def given_none_later(b: Any) -> None:
    async with asyncio.timeout(60) as limit:
        limit.reschedule(None)
        async with b:
            pass


async def of_another_task(b: Any) -> None:
    async def other() -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(60)

    made = asyncio.create_task(other())
    await asyncio.sleep(0)
    async with b:
        pass
    made.cancel()


async def while_it_expires(b: Any) -> None:
    # it has cancelled the task, and won't again
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            try:
                await asyncio.sleep(60)
            finally:
                async with b:
                    pass


async def made_and_never_entered(b: Any) -> None:
    limit = asyncio.timeout(60)
    async with b:
        pass
    del limit


async def entered_twice(b: Any) -> None:
    async with asyncio.timeout(60) as limit:
        pass
    with pytest.raises(RuntimeError):
        async with limit:
            pass
    async with b:
        pass


UNLIMITED = [
    without, afterwards, given_none_later, of_another_task, while_it_expires, made_and_never_entered, entered_twice
]  # fmt: skip


@pytest.mark.parametrize("kind", [Lock, lambda name: Semaphore(1, name=name)], ids=["lock", "semaphore"])
@pytest.mark.parametrize("use", [*LIMITED, *UNLIMITED])
def test_an_acquire_has_a_limit_while_a_timeout_of_its_task_runs(
    use: Callable[[Any], Awaitable[None]], kind: Callable[..., Any]
) -> None:
    async def main() -> None:
        a, b = Lock(name="A"), kind(name="B")
        await asyncio.sleep(0)

        async def work() -> None:
            async with a:
                await use(b)
            assert ctxcheck.held_locks() == []

        await task(work())

    with checking() as session:
        asyncio.run(main())
        assert not timeouts._limits
    assert timed(session) == [use in LIMITED]
    assert found(session) == []
    clean(session)


def test_a_whole_task_that_wait_for_ends_has_a_limit() -> None:
    # 3.11 makes a task of it, later versions use a timeout
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")

        async def work() -> None:
            async with a:
                async with b:
                    pass

        await asyncio.wait_for(work(), 60)

    with checking() as session:
        asyncio.run(main())
    assert timed(session) == [True]
    clean(session)


def test_without_a_limit_wait_for_gives_none() -> None:
    async def main() -> None:
        async def work() -> None:
            async with Lock(name="A"), Lock(name="B"):
                pass

        await asyncio.wait_for(work(), None)
        await asyncio.wait_for(asyncio.create_task(work()), 60)  # cancelled too, but by whom isn't known here

    with checking() as session:
        asyncio.run(main())
    assert set(timed(session)) == {False}


def test_an_order_against_one_with_a_limit_is_less_sure() -> None:
    def run(first: Callable[[Any], Awaitable[None]]) -> list[tuple[str, str]]:
        async def main() -> None:
            a, b = Lock(name="A"), Lock(name="B")

            async def one() -> None:
                async with a:
                    await first(b)

            async def other() -> None:
                async with b, a:
                    pass

            await task(one())
            await task(other())

        with checking() as session:
            asyncio.run(main())
        return found(session)

    sure, limited = run(without), run(within)
    assert sure == [("CTX001", "possible")]
    assert limited == [("CTX001", "unlikely")]


def test_a_task_that_gives_up_waiting_for_itself_is_left_to_do_so() -> None:
    async def main() -> None:
        a = Lock(name="A")
        async with a:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    async with a:
                        raise AssertionError
            assert ctxcheck.held_locks() == ["A"]
        assert not a.locked()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []


def test_a_block_within_a_timeout_is_still_a_block() -> None:
    # so what only its own end releases is known as such, when its limit is taken away
    async def main() -> None:
        a = Lock(name="A")
        async with asyncio.timeout(60) as limit, a:
            limit.reschedule(None)
            with pytest.raises(ctxcheck.DeadlockError):
                await a.acquire()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX002", "certain")]


def test_asyncio_is_given_back_and_nothing_is_kept() -> None:
    original = vars(asyncio.timeouts.Timeout)["__aenter__"]

    async def main() -> None:
        assert vars(asyncio.timeouts.Timeout)["__aenter__"] is not original
        async with asyncio.timeout(60) as limit:
            assert timeouts._limits
            gone.append(weakref.ref(limit))
            gone.append(weakref.ref(asyncio.current_task()))  # type: ignore[arg-type]

    gone: list[weakref.ref[Any]] = []
    with checking():
        asyncio.run(main())
        gc.collect()
        assert [reference() for reference in gone] == [None, None]
        loop = asyncio.new_event_loop()
        stays = loop.create_task(within(asyncio.Event()))
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert list(timeouts._limits) == [stays]
    assert not timeouts._limits
    with pytest.raises(TypeError):
        loop.run_until_complete(stays)
    loop.close()
    assert vars(asyncio.timeouts.Timeout)["__aenter__"] is original
    if sys.version_info < (3, 12):
        assert "create_task" in vars(asyncio.base_events.BaseEventLoop)


def test_a_timeout_that_is_entered_wrongly_is_refused_as_before() -> None:
    with checking():
        limit = asyncio.timeouts.Timeout(None)
        entering = limit.__aenter__()
        assert asyncio.iscoroutine(entering)
        with pytest.raises(RuntimeError, match="running event loop"):
            entering.send(None)
