"""CTX104 through greenlets: code that can't await takes a thread lock, and a bridge suspends the task around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking
from tests.aio.helpers import clean, found, turns

greenlet: Any = pytest.importorskip("greenlet", reason="greenlet is not installed: no bridge to test")

Bridge = tuple[Callable[..., Any], Callable[[Any], Any]]


def by_hand() -> Bridge:
    """The least that such a bridge is."""

    async def spawn(function: Callable[..., Any], *args: Any) -> Any:
        inner = greenlet.greenlet(function)
        result = inner.switch(*args)
        while not inner.dead:
            result = inner.switch(await result)
        return result

    def wait(awaitable: Any) -> Any:
        return greenlet.getcurrent().parent.switch(awaitable)

    return spawn, wait


def of_sqlalchemy() -> Bridge:
    util = pytest.importorskip("sqlalchemy.util", reason="SQLAlchemy is not installed: its bridge isn't tested")
    return util.greenlet_spawn, util.await_only


@pytest.fixture(params=[by_hand, of_sqlalchemy], ids=lambda make: make.__name__)
def bridge(request: pytest.FixtureRequest) -> Iterator[Bridge]:
    yield request.param()


@pytest.mark.parametrize("make", [ctxcheck.Lock, ctxcheck.RLock])
def test_a_greenlet_that_waits_with_a_lock_held(bridge: Bridge, make: Any) -> None:
    spawn, wait = bridge
    lock = make(name="greenlet M")

    def query() -> None:
        with lock:
            wait(asyncio.sleep(0))  # the query

    with checking() as session:
        asyncio.run(spawn(query))
    assert found(session) == [("CTX104", "possible")]
    (violation,) = session.violations
    assert "awaits, through a greenlet, while it holds `greenlet M`" in violation.message
    assert violation.sites[1].text.strip() == "with lock:"
    assert violation.sites[0].function.endswith(("query", "wait"))
    assert any("query" in frame.function for frame in violation.stacks[0].frames)
    assert any("greenlet" in note for note in violation.notes)
    clean(session)


def test_a_greenlet_that_lets_go_before_it_waits(bridge: Bridge) -> None:
    spawn, wait = bridge
    lock = ctxcheck.Lock(name="greenlet M")

    async def at_once() -> int:
        return 1

    def query() -> None:
        with lock:
            pass
        wait(asyncio.sleep(0))
        with lock:
            wait(at_once())  # never suspends the task

    with checking() as session:
        asyncio.run(spawn(query))
    assert session.violations == []
    clean(session)


def test_greenlets_of_several_tasks_keep_their_locks_apart(bridge: Bridge) -> None:
    spawn, wait = bridge
    locks = [ctxcheck.RLock(name=f"greenlet {index}") for index in range(3)]
    held: list[list[str]] = []

    def work(mine: Any, times: int) -> None:
        mine.acquire()
        for _ in range(times):
            wait(asyncio.sleep(0))  # the others take theirs, and let go of them
            held.append(ctxcheck.held_locks())
        mine.release()
        wait(asyncio.sleep(0))
        held.append(ctxcheck.held_locks())

    async def bystander() -> None:
        for _ in range(8):
            await asyncio.sleep(0)
            held.append(ctxcheck.held_locks())

    async def main() -> None:
        await asyncio.gather(bystander(), *(spawn(work, lock, 1 + n) for n, lock in enumerate(locks)))

    with checking() as session:
        asyncio.run(main())
    # one for each lock, and none of the others is on its chain
    assert sorted(v.locks for v in session.violations) == [(f"greenlet {n}",) for n in range(3)]
    assert {v.rule for v in session.violations} == {"CTX104"}
    assert session.graph()["edges"] == []
    assert max(map(len, held)) == 1
    assert held.count([]) == 8 + 3
    clean(session)


def test_a_lock_that_is_released_in_a_later_step_is_left_by_nobody(bridge: Bridge) -> None:
    spawn, wait = bridge
    lock, other = ctxcheck.Lock(name="greenlet M"), ctxcheck.Lock(name="greenlet N")

    def first() -> None:
        lock.acquire()
        wait(turns())
        lock.release()

    async def second() -> None:
        for _ in range(3):
            with other:
                pass
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(spawn(first), second())

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX104", "possible")]
    assert session.graph()["edges"] == []
    clean(session)


def test_an_engine_of_sqlalchemy_that_is_asked_under_a_lock() -> None:
    asyncio_of = pytest.importorskip("sqlalchemy.ext.asyncio", reason="SQLAlchemy is not installed")
    pytest.importorskip("aiosqlite", reason="aiosqlite is not installed: no database to ask")
    from sqlalchemy import text

    lock = ctxcheck.Lock(name="greenlet M")

    def load(connection: Any, held: Any) -> int:
        if not held:
            return int(connection.execute(text("select 1")).scalar_one())
        with lock:
            return int(connection.execute(text("select 1")).scalar_one())

    async def main(held: bool) -> None:
        engine = asyncio_of.create_async_engine("sqlite+aiosqlite://")
        async with engine.connect() as connection:
            assert await connection.run_sync(load, held) == 1
        await engine.dispose()

    with checking() as session:
        asyncio.run(main(False))
    assert session.violations == []
    with checking() as session:
        asyncio.run(main(True))
    assert found(session) == [("CTX104", "possible")]
    (violation,) = session.violations
    assert any(frame.function.endswith("load") for frame in violation.stacks[0].frames)
    assert violation.sites[1].text.strip() == "with lock:"


# --- greenlets that are switched by hand, in one thread and no loop ------------------------------------


def switch(*bodies: Callable[[], None]) -> None:
    """Run them in turns: each switches back to here."""
    main = greenlet.getcurrent()
    greens = [greenlet.greenlet(body, main) for body in bodies]
    while alive := [green for green in greens if not green.dead]:
        for green in alive:
            green.switch()


def pause() -> None:
    greenlet.getcurrent().parent.switch()


def test_locks_of_one_thread_that_are_released_in_another_order_than_taken() -> None:
    a, b = ctxcheck.RLock(name="green A"), ctxcheck.Lock(name="green B")

    def one() -> None:
        a.acquire()
        pause()
        a.release()
        pause()

    def two() -> None:
        b.acquire()
        pause()
        pause()
        b.release()

    with checking() as session:
        switch(one, two)
        assert ctxcheck.held_locks() == []
    assert session.violations == []
    # the thread held A when it asked for B: whoever has B keeps it, and with it the greenlet that has A
    assert [(e["from"], e["to"]) for e in session.graph()["edges"]] == [("green A", "green B")]


def test_a_lock_that_another_greenlet_of_the_thread_holds_is_a_deadlock() -> None:
    lock = ctxcheck.Lock(name="green A")
    raised: list[BaseException] = []

    def one() -> None:
        with lock:
            pause()

    def two() -> None:
        try:
            with lock:
                pause()
        except ctxcheck.DeadlockError as error:
            raised.append(error)

    with checking() as session:
        switch(one, two)
    assert [v.rule for v in session.violations] == ["CTX002"]
    assert len(raised) == 1


def test_threads_with_greenlets_of_their_own() -> None:
    lock = ctxcheck.Lock(name="green A")

    def body() -> None:
        for _ in range(3):
            with lock:
                pass
            pause()

    with checking() as session:
        threads = [threading.Thread(target=switch, args=(body, body)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert session.violations == []


