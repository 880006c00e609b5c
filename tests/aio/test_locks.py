"""``ctxcheck.aio``: asyncio's own locks with their owners checked; what is interrupted leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import aio, checking
from ctxcheck.aio import Condition, Lock, Semaphore
from ctxcheck.session import Session
from tests.aio.helpers import clean, edges, found, task, turns

NAMES = aio.__all__
ARGUMENTS: dict[str, tuple[Any, ...]] = {"Barrier": (2,)}


def real(name: str) -> Any:
    (base,) = [b for b in getattr(aio, name).__mro__ if b.__module__.startswith("asyncio.") and b.__name__ == name]
    return base


@pytest.mark.parametrize("name", NAMES)
def test_they_are_the_real_ones_with_something_added(name: str) -> None:
    ours, plain = getattr(aio, name)(*ARGUMENTS.get(name, ())), real(name)(*ARGUMENTS.get(name, ()))
    assert isinstance(ours, real(name))
    assert set(vars(plain)) <= set(vars(ours))
    assert set(dir(plain)) <= set(dir(ours))
    texts = [re.sub(r"0x[0-9a-f]+", "0x", repr(thing)) for thing in (ours, plain)]
    assert texts[0] == texts[1]
    assert getattr(aio, name).__name__ == name
    assert repr(type("Mine", (getattr(aio, name),), {})(*ARGUMENTS.get(name, ()))).startswith(("<tests.", "<Mine "))


@pytest.mark.parametrize("name", NAMES)
def test_they_can_be_derived_from_with_anything(name: str) -> None:
    base = getattr(aio, name)

    class Slotted:
        __slots__ = ("extra",)

    class Mine(base, Slotted):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.extra = 1

    assert Mine(*ARGUMENTS.get(name, ())).extra == 1


def test_a_subclass_with_methods_of_its_own_is_called() -> None:
    calls: list[str] = []

    class Mine(Lock):
        async def acquire(self) -> Any:
            calls.append("acquire")
            return await super().acquire()

        def release(self) -> None:
            calls.append("release")
            super().release()

    async def main() -> None:
        async with Mine():
            assert len(ctxcheck.held_locks()) == 1
        async with Condition(Mine()):
            pass

    with checking() as session:
        asyncio.run(main())
    assert calls == ["acquire", "release"] * 2
    assert found(session) == []


def test_a_subclass_may_call_its_own_what_it_likes() -> None:
    class Mine(Lock):
        def __init__(self) -> None:
            super().__init__()
            self.node, self.step, self.order_key, self.token, self._record = range(5)

    async def main() -> None:
        lock = Mine()
        async with lock, Lock():
            ctxcheck.assert_held(lock)
            assert lock.node == 0

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_who_holds_a_conditions_lock_holds_it() -> None:
    async def main() -> None:
        condition = Condition(name="C")
        ctxcheck.assert_not_held(condition)
        async with condition:
            ctxcheck.assert_held(condition)

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []


def test_wrong_arguments_are_refused_as_by_asyncio() -> None:
    with pytest.raises(TypeError, match=r"name='' is not a non-empty string"):
        Lock(name="")
    with pytest.raises(TypeError):
        Lock(1)
    with pytest.raises(ValueError, match="initial value"):
        Semaphore(-1)
    with pytest.raises(ValueError, match="parties"):
        aio.Barrier(0)


# --- waiting for oneself -------------------------------------------------------------------


def test_a_task_that_takes_again_what_its_own_block_holds() -> None:
    async def main() -> None:
        a = Lock(name="A")
        async with a:
            with pytest.raises(ctxcheck.DeadlockError, match="re-acquires `A`"):
                await a.acquire()
            with pytest.raises(ctxcheck.DeadlockError):
                async with a:
                    raise AssertionError
            assert ctxcheck.held_locks() == ["A"]
        assert not a.locked()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX002", "certain")]
    clean(session)


@pytest.mark.parametrize("take", [lambda a: a.acquire(), lambda a: a.__aenter__()], ids=["call", "block"])
def test_a_task_may_wait_for_another_to_release_its_own_lock(take: Callable[[Lock], Awaitable[Any]]) -> None:
    async def main() -> None:
        a = Lock(name="A")
        await a.acquire()

        async def hand() -> None:
            a.release()

        other = asyncio.create_task(hand())
        await take(a)
        assert other.done()
        assert ctxcheck.held_locks() == ["A"]
        a.release()
        assert ctxcheck.held_locks() == []
        # known as handed over: never again a finding, and no guard
        await a.acquire()
        asyncio.get_running_loop().call_soon(a.release)
        await take(a)
        a.release()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_one_that_still_waits_after_a_while_is_reported_and_taken_back_when_it_is_redeemed() -> None:
    seen: list[list[tuple[str, str]]] = []

    async def main(session: Session) -> None:
        a = Lock(name="A")
        await a.acquire()

        async def again() -> None:
            await a.acquire()

        async def watcher() -> None:
            while not found(session):
                await asyncio.sleep(0.005)
            seen.append(found(session))
            a.release()

        watching = asyncio.create_task(watcher())
        await again()
        a.release()
        await watching

    with checking(deadlock_after=0.02) as session:
        asyncio.run(main(session))
    assert seen == [[("CTX002", "possible")]]
    assert found(session) == []
    clean(session)


def test_the_look_at_a_wait_doesnt_keep_the_loop_alive() -> None:
    async def main() -> None:
        a = Lock(name="A")
        await a.acquire()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(a.acquire(), 0.01)  # in 3.11, in a task of its own
        handles = [h for h in asyncio.get_running_loop()._scheduled if not h.cancelled()]  # type: ignore[attr-defined]
        assert handles == []
        a.release()

    with checking(deadlock_after=3600) as session:
        asyncio.run(main())
    assert found(session) == []


def test_a_wait_that_never_ends_is_told_when_the_session_does() -> None:
    async def again(a: Lock) -> None:
        await a.acquire()
        await a.acquire()

    loop = asyncio.new_event_loop()
    with checking(deadlock_after=3600) as session:
        waiting = loop.create_task(again(Lock(name="A")))
        loop.run_until_complete(turns())
        state = session.engine.roster.tasks[id(waiting)]
        assert state.waiting.step.lock_class.name == "A"
    assert ("CTX002", "possible") in found(session)
    waiting.cancel()
    loop.run_until_complete(asyncio.wait([waiting]))
    loop.close()


def test_contenders_wait_for_each_other_only() -> None:
    async def main(session: Session) -> None:
        a = Lock(name="A")
        await a.acquire()
        waiting = asyncio.create_task(task(a.acquire()))
        await turns()
        states = [s for s in session.engine.roster.tasks.values() if s.waiting is not None]
        assert [s.waiting.step.lock_class.name for s in states] == ["A"]
        a.release()
        await waiting
        assert all(s.waiting is None for s in session.engine.roster.tasks.values())
        a.release()

    with checking(deadlock_after=0.001) as session:
        asyncio.run(main(session))
    # the inner task ended with it, and the outer one released it: handed over
    assert found(session) == []


# --- hand-off ---------------------------------------------------------------------------------


def test_a_lock_released_by_another_task_is_a_hand_off() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")

        async def take() -> None:
            await a.acquire()

        await task(take())
        a.release()
        assert a._ctxcheck_record is not None
        assert a._ctxcheck_record.lock_class.handed_over
        async with b:
            assert ctxcheck.held_locks() == ["B"]

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    assert edges(session) == set()
    clean(session)


def test_the_holder_of_a_lock_that_another_task_releases_holds_it_no_more() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")
        await a.acquire()

        async def give() -> None:
            a.release()

        await task(give())
        async with b:
            assert ctxcheck.held_locks() == ["B"]

    with checking() as session:
        asyncio.run(main())
    assert edges(session) == set()


def test_a_block_that_another_task_ends_is_no_hand_off() -> None:
    a = Lock(name="A")

    async def generate() -> AsyncIterator[int]:
        async with a:
            yield 1
            yield 2

    async def main() -> None:
        made = generate()

        async def begin() -> None:
            await made.__anext__()

        async def end() -> None:
            await made.aclose()  # type: ignore[attr-defined]

        await task(begin())
        await task(end())
        assert not a.locked()
        assert a._ctxcheck_record is not None
        assert not a._ctxcheck_record.lock_class.handed_over

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_a_task_that_ends_with_a_lock() -> None:
    async def main() -> None:
        a = Lock(name="A")

        async def take() -> None:
            async with Lock(name="B"):
                await a.acquire()
                await asyncio.sleep(0)

        await task(take(), "taker")

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX303", "possible")]
    assert "task 'taker' still held `A`" in session.violations[0].message
    clean(session)


def test_an_unbalanced_release() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="not acquired"):
            Lock(name="A").release()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX305", "certain")]


# --- what ends an acquire in the middle --------------------------------------------------------


async def _cancelled(a: Lock) -> None:
    waiting = asyncio.create_task(a.acquire())
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def _cancelled_when_it_was_its_turn(a: Lock) -> None:
    waiting = asyncio.create_task(a.acquire())
    await turns()
    a.release()
    waiting.cancel()  # woken, but it hasn't run
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not a.locked()
    await a.acquire()


async def _timed_out(a: Lock) -> None:
    async def wait() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await a.acquire()
        assert ctxcheck.held_locks() == []

    await task(wait())


async def _waited_for(a: Lock) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.create_task(asyncio.wait_for(a.acquire(), 0.001))


async def _aborted(a: Lock) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(a.acquire())
            group.create_task(fail())


ENDINGS = [_cancelled, _cancelled_when_it_was_its_turn, _timed_out, _waited_for, _aborted]


@pytest.mark.parametrize("how", ENDINGS, ids=lambda how: how.__name__[1:])
def test_an_acquire_that_ends_in_the_middle_leaves_nothing(how: Callable[[Lock], Awaitable[None]]) -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")
        await a.acquire()
        await how(a)
        assert ctxcheck.held_locks() == ["A"]
        assert a.locked()
        a.release()
        assert not a.locked()
        assert ctxcheck.held_locks() == []
        async with b, a:
            assert ctxcheck.held_locks() == ["B", "A"]

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    assert edges(session) == {("B", "A")}
    clean(session)


def test_a_waiter_that_is_cancelled_when_it_is_its_turn_wakes_the_next() -> None:
    async def main() -> None:
        a = Lock(name="A")
        got: list[str] = []

        async def take(name: str) -> None:
            async with a:
                got.append(name)

        async with a:
            first, second = asyncio.create_task(take("first")), asyncio.create_task(take("second"))
            await turns()
        first.cancel()
        await asyncio.wait([first, second])
        assert got == ["second"]

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_cancelled_in_a_conditions_wait() -> None:
    async def main() -> None:
        c = Condition(name="C")

        async def wait() -> None:
            async with c:
                try:
                    await c.wait()
                finally:
                    assert ctxcheck.held_locks() == ["C"]

        waiting = asyncio.create_task(wait())
        await turns()
        assert not c.locked()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not c.locked()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_an_interrupt_out_of_a_step() -> None:
    a = Lock(name="A")

    async def interrupted() -> None:
        async with a:
            raise KeyboardInterrupt

    async def after() -> None:
        async with a:
            assert ctxcheck.held_locks() == ["A"]

    with checking() as session:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(interrupted())
        assert ctxcheck.held_locks() == []
        assert fast_state() == "thread"
        a._loop = None
        asyncio.run(after())
    assert found(session) == []
    clean(session)


def fast_state() -> str:
    from ctxcheck import fastpath

    return fastpath.current().owner.kind


def test_raise_mode_refuses_before_anything_is_held() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")
        async with a, b:
            pass
        async with b:
            with pytest.raises(ctxcheck.ViolationError, match="CTX001"):
                await a.acquire()
            assert not a.locked()
            assert ctxcheck.held_locks() == ["B"]

    with checking(mode="raise") as session:
        asyncio.run(main())
    assert found(session) == [("CTX001", "possible")]
    clean(session)


# --- the end of things -------------------------------------------------------------------------


def test_a_lock_that_goes_while_it_is_held_is_held_no_more() -> None:
    async def main() -> None:
        a: Lock | None = Lock(name="A")
        assert a is not None
        await a.acquire()
        gone = weakref.ref(a)
        a = None
        gc.collect()
        assert gone() is None
        assert ctxcheck.held_locks() == []

    with checking() as session:
        asyncio.run(main())
    assert not session.engine.broken


def test_held_locks_and_assertions_know_the_task() -> None:
    async def main() -> None:
        a = Lock(name="A")

        @ctxcheck.requires_lock(a)
        async def needs() -> None:
            pass

        async def other() -> None:
            ctxcheck.assert_not_held(a)
            ctxcheck.assert_held(a)  # CTX301
            await needs()  # CTX301

        async with a:
            ctxcheck.assert_held(a)
            await needs()
            await asyncio.sleep(0)
            ctxcheck.assert_held(a)
            await task(other())
            ctxcheck.might_lock(Lock(name="B"))
        ctxcheck.assert_not_held(a)

    with checking() as session:
        asyncio.run(task(main(), "holder"))
    assert found(session) == [("CTX301", "certain")] * 2
    assert edges(session) == {("A", "B")}
    assert all("task 'holder' holds it" in str(v.to_dict()) for v in session.violations)
    clean(session)


# --- wait_for ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Lock, Semaphore])
def test_what_wait_for_acquires_is_its_callers_and_timed(kind: Any) -> None:
    async def main() -> None:
        a, b = Lock(name="A"), kind(name="B") if kind is Lock else kind(1, name="BS")

        async def first() -> None:
            async with a:
                await asyncio.wait_for(b.acquire(), 60)
                assert len(ctxcheck.held_locks()) == 2
                b.release()
                assert ctxcheck.held_locks() == ["A"]

        async def second() -> None:
            await asyncio.wait_for(b.acquire(), 60)
            async with a:
                pass
            b.release()

        await task(first(), "one")
        await task(second(), "two")
        assert not b._ctxcheck_record.lock_class.handed_over

    with checking(owners="observed") as session:
        asyncio.run(main())
    assert len(edges(session)) == 2
    modes = [w.taken_mode.timed for e in session.engine.graph.evidence.values() for w in e.witnesses]
    assert sorted(modes) == [False, True]
    assert [rule for rule, _ in found(session)] == ["CTX001"]
    assert set(session.violations[0].owners) <= {"task 'one'", "task 'two'"}
    clean(session)


def test_wait_for_without_a_limit_waits_as_long_as_it_takes() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")
        async with a:
            await asyncio.wait_for(b.acquire(), None)
            assert ctxcheck.held_locks() == ["A", "B"]
            b.release()

    with checking() as session:
        asyncio.run(main())
    (evidence,) = session.engine.graph.evidence.values()
    assert [w.taken_mode.timed for w in evidence.witnesses] == [False]
    clean(session)


def test_wait_for_ones_own_lock_gives_up() -> None:
    async def main() -> None:
        a = Lock(name="A")
        async with a:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(a.acquire(), 0.001)
            assert ctxcheck.held_locks() == ["A"]

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_a_task_made_of_an_acquire_holds_it_itself() -> None:
    async def main() -> None:
        a = Lock(name="A")
        async with a:
            waiting = asyncio.create_task(a.acquire())
            await turns()
        assert await waiting
        assert ctxcheck.held_locks() == []
        a.release()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)
