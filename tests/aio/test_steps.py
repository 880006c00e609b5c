"""Whose state it is while a task takes a step; what is seen when it is suspended, and when it ends."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking, fastpath
from ctxcheck.aio import Condition, Event, Lock
from ctxcheck.session import Session
from tests.aio.helpers import clean, edges, found, task, turns

needs_eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")


def owner() -> str:
    state = fastpath.current()
    state.owner.learn_name()
    return f"{state.owner.kind} {state.owner.name}"


@pytest.fixture(autouse=True)
def asyncio_is_left_as_it_was() -> Iterator[None]:
    before = (asyncio.events.Handle._run, asyncio.base_events.BaseEventLoop.create_task, sys.meta_path[:])
    yield
    assert before == (asyncio.events.Handle._run, asyncio.base_events.BaseEventLoop.create_task, sys.meta_path)


# --- whose step it is ------------------------------------------------------------------------


def test_a_step_is_the_tasks_and_what_is_between_is_the_threads() -> None:
    seen: list[str] = []

    async def work() -> None:
        seen.append(owner())
        await asyncio.sleep(0)
        seen.append(owner())
        asyncio.get_running_loop().call_soon(lambda: seen.append(owner()))
        await turns()
        seen.append(await asyncio.to_thread(owner))
        seen.append(owner())

    with checking() as session:
        asyncio.run(task(work(), "T"))
        assert owner() == "thread MainThread"
    assert seen[:4] == ["task T", "task T", "thread MainThread", seen[3]]
    assert seen[3].startswith("thread asyncio_")
    assert seen[4] == "task T"
    clean(session)


def test_a_task_that_does_nothing_checked_has_no_state() -> None:
    async def main(session: Session) -> None:
        await task(asyncio.sleep(0))
        assert not session.engine.roster.tasks

    with checking() as session:
        asyncio.run(main(session))


def test_interleaved_tasks_keep_their_own() -> None:
    async def work(name: str, lock: Any) -> None:
        async with lock:
            for _ in range(5):
                assert ctxcheck.held_locks() == [name]
                assert owner() == f"task {name}"
                await asyncio.sleep(0)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "ABC":
                group.create_task(work(name, Lock(name=name)), name=name)

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    clean(session)


def test_a_task_gets_its_name_after_its_first_step() -> None:
    async def work() -> None:
        async with Lock(name="A"):
            this = asyncio.current_task()
            assert this is not None
            this.set_name("named")
            with ctxcheck.Lock(name="M"):
                await asyncio.sleep(0)

    with checking() as session:
        asyncio.run(work())
    assert "task 'named' awaits" in session.violations[0].message


@needs_eager
@pytest.mark.parametrize("how", ["factory", "direct"])
def test_an_eager_task_takes_its_first_step_inside_of_its_creators(how: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        if how == "factory":
            loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        a, b, c = Lock(name="A"), Lock(name="B"), Lock(name="C")

        async def child() -> None:
            assert ctxcheck.held_locks()[-1:] != ["B"]
            async with b:
                ctxcheck.assert_held(b)
                ctxcheck.assert_not_held(a)
                await asyncio.sleep(0)
                assert ctxcheck.held_locks() == ["B"]
                async with c:
                    pass

        async with a:
            if how == "factory":
                made: Any = asyncio.create_task(child(), name="child")
            else:
                made = asyncio.Task(child(), loop=loop, name="child", eager_start=True)  # type: ignore[call-arg, unused-ignore]
            assert b.locked()
            assert ctxcheck.held_locks() == ["A"]
            async with c:
                pass
            assert ctxcheck.held_locks() == ["A"]
        assert ctxcheck.held_locks() == []
        await made

    with checking() as session:
        asyncio.run(main())
    assert found(session) == []
    # not ("A", "B"): the child waits for B, and its creator doesn't
    assert edges(session) == {("A", "C"), ("B", "C")}
    clean(session)


@needs_eager
def test_what_blocks_in_an_eager_first_step_blocks_the_creator() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        a, m = Lock(name="A"), ctxcheck.Lock(name="M")

        async def child() -> None:
            with m:
                pass
            await asyncio.sleep(0)
            with m:
                pass

        async with a:
            made = asyncio.create_task(child())
        await made

    with checking() as session:
        asyncio.run(main())
    assert edges(session) == {("A", "M")}
    assert found(session) == []
    clean(session)


@needs_eager
def test_an_eager_task_that_ends_in_its_first_step() -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        a = Lock(name="A")

        async def child() -> None:
            async with a:
                pass

        async def leave() -> None:
            await a.acquire()

        await asyncio.create_task(child())
        await asyncio.create_task(leave(), name="leaver")

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX303", "possible")]
    clean(session)


@needs_eager
def test_nested_eager_tasks() -> None:
    async def nest(depth: int) -> None:
        lock = Lock(name=f"L{depth}")
        async with lock:
            assert ctxcheck.held_locks()[-1] == f"L{depth}"
            inner = asyncio.create_task(nest(depth - 1)) if depth else None
            assert ctxcheck.held_locks()[-1] == f"L{depth}"
            await asyncio.sleep(0)
            assert ctxcheck.held_locks() == [f"L{depth}"]
            if inner is not None:
                await inner

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        await nest(5)

    with checking() as session:
        asyncio.run(main())
    # the pool's own lock is a checked one if the pool was first imported with the checked locks in place
    assert {edge for edge in edges(session) if not edge[1].startswith("concurrent.")} == set()
    clean(session)


def test_in_debug_mode_a_tasks_stack_is_that_of_who_made_it() -> None:
    async def main() -> None:
        made = asyncio.create_task(asyncio.sleep(0))
        assert made._source_traceback[-1].name in ("main", "create_task")  # type: ignore[attr-defined]
        assert made._source_traceback[-1].filename != fastpath.__file__.replace("fastpath", "tasks")  # type: ignore[attr-defined]
        await made

    with checking():
        asyncio.run(main(), debug=True)


# --- sessions ----------------------------------------------------------------------------------


def test_a_session_inside_of_a_running_loop() -> None:
    async def main() -> None:
        a, b, m = Lock(name="A"), Lock(name="B"), ctxcheck.Lock(name="M")
        async with a:
            with checking() as inner:
                assert ctxcheck.held_locks() == []  # taken before
                async with b:
                    assert ctxcheck.held_locks() == ["B"]
                    await asyncio.sleep(0)
                    with m:
                        assert ctxcheck.held_locks() == ["B", "M"]
                    await task(other(b))
                assert edges(inner) == {("B", "M")}
                assert found(inner) == []
            async with b:
                pass
        assert not a.locked()

    async def other(b: Lock) -> None:
        assert ctxcheck.held_locks() == []
        assert b.locked()

    asyncio.run(main())


def test_nested_sessions_and_a_loop_that_outlives_them() -> None:
    loop = asyncio.new_event_loop()
    a, b = Lock(name="A"), Lock(name="B")

    async def hold() -> None:
        async with a:
            await done.wait()
            async with b:
                held.append(ctxcheck.held_locks())

    held: list[list[str]] = []
    done = asyncio.Event()
    with checking() as outer:
        holder = loop.create_task(hold())
        loop.run_until_complete(turns())
        with checking() as inner:
            loop.run_until_complete(turns())
            assert [s.owner.kind for s in inner.engine.roster.live_states()].count("task") == 0

            async def short() -> None:
                async with b:
                    await asyncio.sleep(0)

            loop.run_until_complete(short())
        assert edges(inner) == set()
        assert len(outer.engine.roster.tasks) == 1
        done.set()
        loop.run_until_complete(holder)
        assert edges(outer) == {("A", "B")}
    loop.run_until_complete(turns())
    with checking() as third:
        loop.run_until_complete(short())
    loop.close()
    assert held == [["A", "B"]]
    for session in (outer, inner, third):
        assert found(session) == []
        clean(session)


def test_a_session_that_begins_and_ends_in_different_steps() -> None:
    async def main() -> None:
        a, m = Lock(name="A"), ctxcheck.Lock(name="M")
        session = ctxcheck.Session()
        async with a:
            session.start()
            await asyncio.sleep(0)
            async with Lock(name="B"):
                await asyncio.sleep(0)
                session.stop()
        assert not a.locked()
        with m:
            assert ctxcheck.held_locks() == []
        assert found(session) == [("CTX303", "possible")]  # at the end of the block that is checked

    asyncio.run(main())


def test_checking_off_costs_no_hook_and_no_import() -> None:
    code = (
        "import sys, ctxcheck\n"
        "with ctxcheck.checking():\n"
        "    with ctxcheck.Lock(): pass\n"
        "ctxcheck.install(); ctxcheck.uninstall()\n"
        "assert 'asyncio' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- suspended where it may not be ---------------------------------------------------------------


def test_a_thread_lock_held_over_a_suspension() -> None:
    m = ctxcheck.Lock(name="M")

    async def inner() -> None:
        await asyncio.sleep(0)

    async def work() -> None:
        with m:
            await inner()
            await inner()  # the same hold: said once

    with checking() as session:
        asyncio.run(task(work(), "worker"))
    assert found(session) == [("CTX104", "possible")]
    violation = session.violations[0]
    assert violation.message == "suspended with a thread lock held: task 'worker' awaits while it holds `M`"
    assert [(site.role, site.function, site.text.strip()) for site in violation.sites] == [
        ("now", "test_a_thread_lock_held_over_a_suspension.inner", "await asyncio.sleep(0)"),
        ("held_now", "test_a_thread_lock_held_over_a_suspension.work", "with m:"),
    ]
    assert session.failures


def test_what_is_given_back_or_doesnt_suspend_is_fine() -> None:
    m, r = ctxcheck.Lock(name="M"), ctxcheck.RLock(name="R")

    async def at_once() -> int:
        return 1

    async def work() -> None:
        with m, r:
            await at_once()
        await asyncio.sleep(0)
        with m:
            asyncio.get_running_loop().call_soon(int)

    with checking() as session:
        asyncio.run(work())
    assert found(session) == []


def test_what_the_thread_holds_isnt_the_tasks() -> None:
    with checking() as session, ctxcheck.Lock(name="M"):
        asyncio.run(task(turns()))
        asyncio.run(task(use_something()))
    assert found(session) == []


async def use_something() -> None:
    async with Lock(name="A"):
        await turns()


def test_other_things_than_thread_locks_may_be_held() -> None:
    seats = ctxcheck.Semaphore(1, name="S")

    async def work() -> None:
        async with Lock(name="A"):
            with seats:
                await asyncio.sleep(0)

    with checking() as session:
        asyncio.run(work())
    assert found(session) == []


def test_it_can_be_allowed() -> None:
    m = ctxcheck.Lock(name="M")

    async def work() -> None:
        with ctxcheck.allow("CTX104", reason="nobody else"), m:
            await asyncio.sleep(0)

    with checking() as session:
        asyncio.run(work())
    assert [v.allowed_by for v in session.violations] == ["nobody else"]
    assert session.failures == []


def test_another_task_that_wants_the_lock_would_block_the_loop() -> None:
    m = ctxcheck.Lock(name="M")

    async def holder() -> None:
        with m:
            await turns(10)

    async def victim() -> None:
        m.acquire()

    async def main() -> None:
        holding = asyncio.create_task(holder(), name="holder")
        await asyncio.sleep(0)
        with pytest.raises(ctxcheck.DeadlockError, match="task 'victim' blocks the thread"):
            await task(victim(), "victim")
        await holding
        assert not m.locked()

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX104", "possible"), ("CTX002", "certain")]
    clean(session)


def test_raise_mode_doesnt_break_the_loop() -> None:
    m = ctxcheck.Lock(name="M")

    async def work() -> None:
        with m:
            await asyncio.sleep(0)

    with checking(mode="raise") as session:
        asyncio.run(work())
    assert found(session) == [("CTX104", "possible")]


def test_what_a_callback_raises_goes_to_the_loops_handler() -> None:
    told: list[Any] = []

    def complain(_: object) -> None:
        raise LookupError("mine")

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        with ctxcheck.Lock(name="M"):
            await asyncio.sleep(0)

    with checking(mode=complain):
        asyncio.run(work())
    assert [str(error) for error in told] == ["mine"]


@pytest.mark.parametrize("what", ["spin", "block"])
def test_suspended_where_awaiting_is_forbidden(what: str) -> None:
    context: Any = ctxcheck.SpinLock(name="spin") if what == "spin" else ctxcheck.atomic("tick")

    async def work() -> None:
        with context:
            await asyncio.sleep(0)

    with checking() as session:
        asyncio.run(work())
    assert found(session) == [("CTX101", "certain")]
    assert session.violations[0].sites[0].text.strip() == "await asyncio.sleep(0)"


def test_a_wait_that_was_reported_isnt_reported_as_a_suspension_too() -> None:
    async def work() -> None:
        event = Event()
        asyncio.get_running_loop().call_soon(event.set)
        with ctxcheck.atomic("tick"):
            await event.wait()

    with checking() as session:
        asyncio.run(work())
    assert found(session) == [("CTX101", "certain")]
    assert "`Event.wait()` waits" in session.violations[0].message.replace("Event.wait`", "Event.wait()`")


def test_contexts_and_brackets_go_with_their_task() -> None:
    @ctxcheck.range_start("mm")
    async def begin() -> None: ...

    @ctxcheck.range_end("mm")
    async def end() -> None: ...

    @ctxcheck.within_range("mm")
    async def page() -> None:
        await asyncio.sleep(0)

    async def inside() -> None:
        await begin()
        await asyncio.sleep(0)
        await page()
        await end()

    async def outside() -> None:
        await turns(2)
        await page()

    async def accepting() -> None:
        with ctxcheck.allow("CTX301", reason="known"):
            await turns(4)
            ctxcheck.assert_held(Lock(name="A"))
        ctxcheck.assert_held(Lock(name="B"))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(inside(), name="inside")
            group.create_task(outside(), name="outside")
            group.create_task(accepting())

    with checking() as session:
        asyncio.run(main())
    assert sorted((v.rule, v.allowed_by) for v in session.violations if v.rule == "CTX201") == [("CTX201", None)]
    assert "task 'outside'" in str(session.violations[0].to_dict())
    assert {v.allowed_by for v in session.violations if v.rule == "CTX301"} == {"known", None}
    assert {v.rule for v in session.violations} == {"CTX201", "CTX301"}
    clean(session)


def test_a_bracket_left_open_by_a_task() -> None:
    @ctxcheck.range_start("mm")
    async def begin() -> None: ...

    async def work() -> None:
        await begin()
        await asyncio.sleep(0)

    with checking() as session:
        asyncio.run(task(work(), "opener"))
    assert found(session) == [("CTX203", "certain")]
    assert "task 'opener'" in session.violations[0].message
    clean(session)


# --- nothing is left ----------------------------------------------------------------------------


def test_many_short_lived_tasks_leave_nothing_behind() -> None:
    async def main(session: Session) -> None:
        a, b, m = Lock(name="A"), Lock(name="B"), ctxcheck.Lock(name="M")

        async def work() -> None:
            async with a, b:
                with m:
                    pass

        async def many(n: int) -> tuple[int, int, int]:
            for _ in range(n):
                await asyncio.create_task(work())
            gc.collect()
            engine = session.engine
            return len(engine.roster.tasks), engine._nodes, len(gc.get_objects())

        first = await many(50)
        second = await many(500)
        # what they have learned is kept, for one task of each kind that runs at a time
        assert first[:2] == second[:2] == (0, 5)
        assert second[2] - first[2] < 100

    with checking() as session:
        asyncio.run(main(session))
    assert found(session) == []
    assert len(session.engine.roster._states) <= 1


def test_tasks_that_never_finish_leave_nothing_behind() -> None:
    with checking() as session:
        loop = asyncio.new_event_loop()
        a = Lock(name="A")

        async def stuck() -> None:
            async with a:
                await asyncio.get_running_loop().create_future()

        async def waits(condition: Condition) -> None:
            async with condition:
                await condition.wait()

        loop.set_exception_handler(lambda *_: None)
        pending = [loop.create_task(stuck()), loop.create_task(waits(Condition(name="C")))]
        loop.run_until_complete(turns())
        assert len(session.engine.roster.tasks) == 2
        loop.close()
        pending.clear()
        gc.collect()
        assert not session.engine.roster.tasks
        assert not session.engine.broken
        # closed by the collector: its own block has released it, which is no hand-off
        assert not a.locked()
        assert not a._ctxcheck_record.lock_class.handed_over  # type: ignore[union-attr]
    assert found(session) == []


def test_workers_start_clean_and_other_threads_go_on() -> None:
    async def main() -> None:
        a = Lock(name="A")

        def work() -> list[str]:
            with ctxcheck.Lock(name="W"):
                return ctxcheck.held_locks()

        async with a:
            assert await asyncio.to_thread(work) == ["W"]
            assert await asyncio.get_running_loop().run_in_executor(None, work) == ["W"]
            assert ctxcheck.held_locks() == ["A"]

    with checking() as session:
        asyncio.run(main())
    assert edges(session) == set()
    clean(session)


def test_a_program_of_threads_isnt_disturbed_by_a_loop_beside_it() -> None:
    stop = threading.Event()
    m = ctxcheck.Lock(name="M")

    def work() -> None:
        while not stop.is_set():
            with m:
                assert ctxcheck.held_locks() == ["M"]
                assert owner().startswith("thread")

    async def main() -> None:
        async with Lock(name="A"):
            for _ in range(50):
                with m:
                    pass
                await asyncio.sleep(0)

    with checking() as session:
        thread = threading.Thread(target=work)
        thread.start()
        asyncio.run(main())
        stop.set()
        thread.join()
    assert edges(session) == {("A", "M")}
    assert found(session) == []


# --- loops that run steps in a way of their own ------------------------------------------------------


class OtherHandle(asyncio.Handle):
    def _run(self) -> None:
        self._context.run(self._callback, *self._args)  # type: ignore[attr-defined]


class OtherLoop(asyncio.SelectorEventLoop):
    """As uvloop does it: nothing of asyncio's own runs a step."""

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        handle = OtherHandle(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle


def run_other(main: Any) -> None:
    loop = OtherLoop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()


def test_asyncios_locks_belong_to_their_tasks_on_any_loop() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")

        async def work(name: str, *locks: Lock) -> None:
            async with locks[0]:
                await asyncio.sleep(0)
                async with locks[1]:
                    assert ctxcheck.held_locks() == list(name)
                    ctxcheck.assert_held(locks[0])
                await turns()
                with pytest.raises(ctxcheck.DeadlockError):
                    await locks[0].acquire()

        async with Lock(name="main"):
            await task(work("AB", a, b), "one")
            await task(work("BA", b, a), "two")

    with checking(owners="observed") as session:
        run_other(main())
    assert sorted(found(session)) == [("CTX001", "possible"), *[("CTX002", "certain")] * 2]
    assert edges(session) == {("A", "B"), ("B", "A")}
    clean(session)


@ctxcheck.might_sleep
def nap() -> None:
    """It doesn't."""


class ForeignLoop:
    """Not of asyncio's kind: as uvloop's, which has its own in C."""

    def __init__(self) -> None:
        self.inner = OtherLoop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_the_first_step_on_a_runners_foreign_loop_is_followed() -> None:
    async def main() -> None:
        nap()
        with ctxcheck.Lock(name="M"):
            await asyncio.sleep(0)

    with checking() as session:
        with asyncio.Runner(loop_factory=ForeignLoop) as runner:  # type: ignore[arg-type]
            runner.run(main())
            loop: Any = runner.get_loop()
            assert loop.get_task_factory() is not None
    assert sorted(found(session)) == [("CTX103", "certain"), ("CTX104", "possible")]
    assert loop.get_task_factory() is None


def test_a_foreign_loop_is_followed_that_a_policy_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = asyncio.get_event_loop_policy()
    monkeypatch.setattr(policy, "_loop_factory", ForeignLoop, raising=False)

    async def main() -> None:
        nap()

    with checking() as session:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    assert found(session) == [("CTX103", "certain")]


def test_the_tasks_of_another_loop_are_followed_once_it_is_known() -> None:
    factories: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with Lock(name="first"):
            factories.append(loop.get_task_factory())
        a, m = Lock(name="A"), ctxcheck.Lock(name="M")

        async def work() -> None:
            async with a:
                await asyncio.sleep(0)
                assert owner() == "task T"
                with m:
                    pass
            with m:
                await asyncio.sleep(0)

        made = loop.create_task(work(), name="T")
        assert made.get_coro().cr_code is work.__code__  # type: ignore[union-attr]
        await made
        made = loop.create_task(work(), name="T")
        await asyncio.sleep(0)
        made.cancel()
        with pytest.raises(asyncio.CancelledError):
            await made

    loop = OtherLoop()
    with checking() as session:
        loop.run_until_complete(main())
    assert loop.get_task_factory() is None
    assert factories[0] is not None
    loop.close()
    assert edges(session) == {("A", "M")}
    assert found(session) == [("CTX104", "possible")]
    clean(session)
