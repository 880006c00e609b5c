"""Orders between tasks, between loops, and between asyncio's locks and those of threads, in one graph."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking
from ctxcheck.aio import BoundedSemaphore, Condition, Lock, Semaphore
from tests.aio.helpers import clean, edges, found, task, turns
from tests.oracle import in_thread


async def nest(outer: Any, inner: Any) -> None:
    async with outer, inner:
        await asyncio.sleep(0)


@pytest.mark.parametrize("owners", ["observed", "assumed"])
def test_an_inversion_between_two_tasks_of_one_loop(owners: Any) -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")
        await task(nest(a, b), "one")
        await task(nest(b, a), "two")

    with checking(owners=owners) as session:
        asyncio.run(main())
    assert found(session) == [("CTX001", "possible")]
    violation = session.violations[0]
    assert set(violation.owners) == {"task 'one'", "task 'two'"}
    assert {w.owner.kind for e in session.engine.graph.evidence.values() for w in e.witnesses} == {"task"}
    # the site is the frame that awaits, and the stack has the coroutines that led to it
    assert violation.sites[0].function == "nest"
    assert [frame.function for frame in violation.stacks[0].frames][-1] == "nest"
    clean(session)


def test_one_task_that_takes_both_orders_cant_deadlock_with_itself() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")

        async def both() -> None:
            await nest(a, b)
            await nest(b, a)

        await task(both())

    with checking(owners="observed") as session:
        asyncio.run(main())
    assert found(session) == [("CTX001", "unlikely")]
    with checking(owners="assumed") as session:
        asyncio.run(main())
    assert found(session) == [("CTX001", "possible")]


def test_an_inversion_between_the_loops_of_two_threads() -> None:
    class Pool:
        def __init__(self) -> None:
            self.a, self.b = Lock(name="A"), Lock(name="B")

    def run(backwards: bool) -> None:
        pool = Pool()
        locks = (pool.b, pool.a) if backwards else (pool.a, pool.b)
        asyncio.run(nest(*locks))

    with checking(owners="observed") as session:
        in_thread(lambda: run(False))
        in_thread(lambda: run(True))
    assert found(session) == [("CTX001", "possible")]
    clean(session)


def test_an_inversion_between_an_asyncio_lock_and_a_thread_lock() -> None:
    async def main() -> None:
        a, m = Lock(name="A"), ctxcheck.Lock(name="M")

        async def first() -> None:
            async with a:
                with m:
                    pass

        async def second() -> None:
            with m:
                async with a:
                    pass

        await task(first(), "one")
        await task(second(), "two")

    with checking(owners="observed") as session:
        asyncio.run(main())
    assert edges(session) == {("A", "M"), ("M", "A")}
    # nothing was awaited under M that suspended, so that is no CTX104
    assert found(session) == [("CTX001", "possible")]
    assert set(session.violations[0].owners) == {"task 'one'", "task 'two'"}


def test_a_thread_lock_taken_again_and_again_under_an_asyncio_lock_is_validated_once() -> None:
    async def main() -> tuple[int, int]:
        a, m = Lock(name="A"), ctxcheck.Lock(name="M")

        async def once() -> None:
            async with a:
                await asyncio.sleep(0)
                with m:
                    pass

        await once()
        before = session.counts().chains
        for _ in range(5):
            await once()
        return before, session.counts().chains

    with checking() as session:
        before, after = asyncio.run(main())
    assert before == after
    assert edges(session) == {("A", "M")}


def test_thread_locks_of_two_tasks_of_one_thread_belong_to_the_thread() -> None:
    # no step of one task runs inside a step of the other: these two can't meet
    async def main() -> None:
        m, n = ctxcheck.Lock(name="M"), ctxcheck.Lock(name="N")

        async def first() -> None:
            with m, n:
                pass

        async def second() -> None:
            with n, m:
                pass

        await task(first())
        await task(second())

    with checking(owners="observed") as session:
        asyncio.run(main())
    assert found(session) == [("CTX001", "unlikely")]
    with checking(owners="observed") as session:
        locks = ctxcheck.Lock(name="M"), ctxcheck.Lock(name="N")

        async def take(one: Any, two: Any) -> None:
            with one, two:
                pass

        in_thread(lambda: asyncio.run(take(*locks)))
        in_thread(lambda: asyncio.run(take(*locks[::-1])))
    assert found(session) == [("CTX001", "possible")]


def test_a_common_asyncio_lock_guards() -> None:
    async def main() -> None:
        g, a, b = Lock(name="G"), Lock(name="A"), Lock(name="B")

        async def under(outer: Any, inner: Any) -> None:
            async with g:
                await nest(outer, inner)

        await task(under(a, b))
        await task(under(b, a))

    with checking(owners="observed") as session:
        asyncio.run(main())
    assert found(session) == [("CTX001", "unlikely")]


def test_what_the_thread_is_inside_of_orders_the_thread_locks_of_its_tasks_only() -> None:
    outer, inner = ctxcheck.Lock(name="outer"), ctxcheck.Lock(name="inner")
    held: list[list[str]] = []

    async def main() -> None:
        a = Lock(name="A")

        async def step() -> None:
            async with a:
                await asyncio.sleep(0)
                with inner:
                    held.append(ctxcheck.held_locks())

        await task(step())
        with inner:
            pass

    with checking() as session, outer:
        asyncio.run(main())
        assert ctxcheck.held_locks() == ["outer"]
    assert held == [["outer", "A", "inner"]]
    assert edges(session) == {("outer", "inner"), ("A", "inner")}
    assert found(session) == []
    clean(session)


def test_two_tasks_that_contend_are_no_finding() -> None:
    async def main() -> None:
        a = Lock(name="A")

        async def work() -> None:
            for _ in range(5):
                async with a:
                    await turns()

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(work())

    with checking(owners="observed") as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_a_timeout_around_an_acquire_leaves_nothing_and_the_order_counts() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")
        await b.acquire()

        async def impatient() -> None:
            async with a:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await b.acquire()
                assert ctxcheck.held_locks() == ["A"]

        await task(impatient())
        b.release()
        assert not b.locked()

    with checking() as session:
        asyncio.run(main())
    assert edges(session) == {("A", "B")}
    assert found(session) == []
    clean(session)


def test_a_conditions_wait_takes_its_lock_back_under_what_is_held() -> None:
    async def main() -> None:
        c, a = Condition(name="C"), Lock(name="A")

        async def waiter() -> None:
            async with c, a:
                assert ctxcheck.held_locks() == ["C", "A"]
                await c.wait()
                assert ctxcheck.held_locks() == ["A", "C"]

        waiting = asyncio.create_task(waiter())
        await turns()
        async with c:
            c.notify()
        await waiting
        assert ctxcheck.held_locks() == []

    with checking(owners="assumed") as session:
        asyncio.run(main())
    assert edges(session) == {("C", "A"), ("A", "C")}
    assert found(session) == [("CTX001", "possible")]
    clean(session)


def test_after_a_wait_the_block_is_still_the_one_that_releases() -> None:
    async def main() -> None:
        c = Condition(name="C")

        async def waiter() -> None:
            async with c:
                await c.wait()
                async with c:
                    raise AssertionError

        waiting = asyncio.create_task(waiter())
        await turns()
        async with c:
            c.notify()
        with pytest.raises(ctxcheck.DeadlockError):
            await waiting

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX002", "certain")]


@pytest.mark.parametrize("kind", [Semaphore, BoundedSemaphore])
def test_a_semaphore_of_one_is_ordered_until_somebody_else_releases_it(kind: Any) -> None:
    async def main(other: bool) -> None:
        s, a = kind(1, name="S"), Lock(name="A")

        async def first() -> None:
            async with s, a:
                pass

        await task(first())
        if other:
            await s.acquire()

            async def signal() -> None:
                s.release()

            await task(signal())
            assert s._ctxcheck_record.lock_class.handed_over
            return
        async with a, s:
            pass

    with checking(owners="observed") as session:
        asyncio.run(main(False))
    assert edges(session) == {("S", "A"), ("A", "S")}
    with checking() as session:
        asyncio.run(main(True))
    assert found(session) == []
    clean(session)


def test_a_semaphore_that_is_no_lock_has_no_place_in_the_order() -> None:
    async def main() -> None:
        s, a = Semaphore(2, name="S2"), Lock(name="A")
        async with s, a, s:
            pass
        async with a, s:
            pass
        await s.acquire()  # left with it: nobody owns a semaphore

    with checking() as session:
        asyncio.run(main())
    assert edges(session) == set()
    assert found(session) == []


def test_two_locks_of_one_class() -> None:
    class Account:
        def __init__(self, key: int | None = None) -> None:
            self.lock = Lock(order_key=key)

    async def main() -> None:
        a, b = Account(), Account()
        await task(nest(a.lock, b.lock))
        await task(nest(b.lock, a.lock))

    with checking(owners="observed") as session:
        asyncio.run(main())
    assert found(session) == [("CTX003", "possible")]
    assert session.violations[0].locks == (
        "test_two_locks_of_one_class.Account.lock",
    )

    async def keyed() -> None:
        await nest(Account(1).lock, Account(2).lock)
        await nest(Account(2).lock, Account(1).lock)

    with checking() as session:
        asyncio.run(keyed())
    assert [v.message.split(":")[0] for v in session.violations] == ["possible deadlock"]
    assert found(session) == [("CTX003", "possible")]


def test_names_come_from_where_the_lock_is_made() -> None:
    class Pool:
        def __init__(self) -> None:
            self._lock = Lock()
            self._filled = Condition()
            self._seats = Semaphore(1)

    async def main() -> None:
        pool = Pool()
        async with pool._lock, pool._filled, pool._seats:
            names.extend(ctxcheck.held_locks())

    names: list[str] = []
    with checking() as session:
        asyncio.run(main())
    here = "test_names_come_from_where_the_lock_is_made.Pool"
    assert names == [f"{here}._lock", f"{here}._filled", f"{here}._seats"]
    assert {c.kind.name for c in session.engine.seen} == {"aio lock", "aio semaphore"}


def test_many_loops_in_many_threads_with_one_total_order() -> None:
    def run(seed: int) -> None:
        async def main() -> None:
            locks = [Lock(name=f"L{i}") for i in range(4)]

            async def work(start: int) -> None:
                for i in range(10):
                    low = (start + i) % 3
                    async with locks[low]:
                        await asyncio.sleep(0)
                        async with locks[low + 1]:
                            await asyncio.sleep(0)
                            with shared:
                                pass

            await asyncio.gather(*(work(seed + i) for i in range(5)))

        asyncio.run(main())

    shared = ctxcheck.Lock(name="shared")
    with checking(owners="observed") as session:
        threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found(session) == []
    names = [f"L{i}" for i in range(4)]
    assert edges(session) == {*zip(names, names[1:], strict=False), *((name, "shared") for name in names)}
    clean(session)


def test_declared_orders_and_leaves_know_asyncios_locks() -> None:
    async def main() -> None:
        a, b = Lock(name="declared A"), Lock(name="declared B")
        ctxcheck.declare_order(a, b)
        await nest(b, a)

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX007", "certain")]
