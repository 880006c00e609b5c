"""What may block the thread, on a running event loop (CTX103), and locks that are slow there (CTX105)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import multiprocessing
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import ctxcheck
from ctxcheck.engine.violations import Violation
from ctxcheck.session import Session, checking
from tests.aio.helpers import clean, found, turns


def of(session: Session, rule: str) -> list[Violation]:
    return [v for v in session.violations if v.rule == rule]


@pytest.fixture
def probes() -> Any:
    ctxcheck.install()
    yield
    ctxcheck.uninstall()


def run(main: Callable[[], Coroutine[Any, Any, Any]], **options: Any) -> Session:
    with checking(**options) as session:
        asyncio.run(main())
    clean(session)
    return session


@ctxcheck.might_sleep
def sleep() -> None:
    pass


def sleeps_deep_down() -> None:
    sleep()


# --- where the thread may not be blocked --------------------------------------------------


def test_in_a_task_whether_or_not_it_would_have_blocked() -> None:
    async def main() -> None:
        ready = ctxcheck.Event()
        ready.set()
        ready.wait()

    session = run(main)
    assert found(session) == [("CTX103", "certain")]
    (violation,) = session.violations
    assert "`Event.wait`" in violation.message
    assert violation.sites[0].text.strip() == "ready.wait()"
    assert violation.owners[0].startswith("task ")


@pytest.mark.parametrize("how", ["call_soon", "call_later", "add_done_callback", "call_soon_threadsafe", "add_reader"])
def test_in_any_callback_of_the_loop(how: str) -> None:
    import socket

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def callback(*_: object) -> None:
            sleeps_deep_down()
            loop.remove_reader(a.fileno())
            if not done.done():
                done.set_result(None)

        a, b = socket.socketpair()
        with a, b:
            if how == "call_later":
                loop.call_later(0, callback)
            elif how == "add_reader":
                loop.add_reader(a.fileno(), callback)
                b.send(b"x")
            elif how == "add_done_callback":
                other = loop.create_future()
                other.add_done_callback(callback)
                other.set_result(None)
            else:
                getattr(loop, how)(callback)
            await done

    session = run(main)
    assert found(session) == [("CTX103", "certain")]
    assert session.violations[0].owners == (f"thread '{threading.main_thread().name}'",)


def test_also_in_a_protocol_and_in_an_async_generator_and_a_nested_coroutine() -> None:
    async def inner() -> None:
        sleep()

    async def items() -> Any:
        sleep()
        yield 1

    async def main() -> None:
        await inner()
        async for _ in items():
            pass

    assert found(run(main)) == [("CTX103", "certain")] * 2


def test_outside_of_the_loop_and_in_other_threads_everything_may_block() -> None:
    async def main() -> None:
        await asyncio.to_thread(sleeps_deep_down)
        await asyncio.get_running_loop().run_in_executor(None, sleep)

    with checking() as session:
        sleep()
        asyncio.run(main())
        sleep()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        sleep()  # a loop that is there, and doesn't run
        loop.close()
    assert found(session) == []


def test_a_callback_that_raises_or_leaves_a_lock_held_leaves_the_loop_all_the_same() -> None:
    lock = ctxcheck.Lock(name="left")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.call_soon(lambda: 1 / 0)
        loop.call_soon(lock.acquire)
        await turns()

    with checking() as session:
        asyncio.run(main())
        sleep()
        assert session.held_locks() == ["left"]
        lock.release()
        sleep()
    assert found(session) == [("CTX105", "possible")]  # the lock was taken on the loop, and then held over a sleep


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with 3.12")
def test_the_first_step_of_an_eager_task() -> None:
    async def child() -> None:
        sleep()
        await asyncio.sleep(0)
        sleep()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        await asyncio.create_task(child(), name="child")

    session = run(main)
    assert found(session) == [("CTX103", "certain")]
    assert session.violations[0].count == 2
    assert session.violations[0].owners[0].startswith("task ")  # its name, it gets after its first step


def test_atomic_code_on_a_loop_is_told_of_as_atomic() -> None:
    async def main() -> None:
        with ctxcheck.atomic("tick"):
            sleep()

    assert found(run(main)) == [("CTX101", "certain")]


def test_a_coroutine_that_may_sleep_is_awaited() -> None:
    @ctxcheck.might_sleep
    async def fetch() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        await fetch()
        async with ctxcheck.might_sleep():
            pass

    assert found(run(main)) == []


def test_a_session_that_begins_in_a_step_sees_the_loop_and_doesnt_when_it_is_over() -> None:
    seen: list[Session] = []

    async def main() -> None:
        with checking() as session:
            sleep()
        seen.append(session)
        session = checking()
        session.start()
        seen.append(session)
        sleep()
        await asyncio.sleep(0)
        sleep()

    asyncio.run(main())
    sleeps_deep_down()  # the second one still runs
    seen[1].stop()
    assert [found(s) for s in seen] == [[("CTX103", "certain")], [("CTX103", "certain")]]
    assert seen[1].violations[0].count == 2


def test_a_loop_of_another_make() -> None:
    class Loop(asyncio.SelectorEventLoop):
        """Runs its callbacks in its own way."""

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
            handle = super().call_soon(callback, *args, context=context)
            return handle

    async def main() -> None:
        sleep()

    with checking() as session:
        loop = Loop()
        try:
            loop.run_until_complete(main())
        finally:
            loop.close()
    assert found(session) == [("CTX103", "certain")]


def test_mode_raise_raises_at_the_call_each_time() -> None:
    async def main() -> int:
        raised = 0
        for _ in range(3):
            try:
                sleep()
            except ctxcheck.ViolationError:
                raised += 1
        return raised

    with checking(mode="raise") as session:
        assert asyncio.run(main()) == 3
    assert found(session) == [("CTX103", "certain")]


def test_what_is_allowed_there() -> None:
    async def main() -> None:
        with ctxcheck.allow("CTX103", reason="start-up"):
            sleep()

    assert [(v.rule, v.allowed_by) for v in run(main).violations] == [("CTX103", "start-up")]


# --- what waits ------------------------------------------------------------------------------


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("Thread.join", lambda thread, job: thread.join()),
        ("Future.result", lambda thread, job: job.result()),
        ("Future.exception", lambda thread, job: job.exception()),
        ("concurrent.futures.wait", lambda thread, job: concurrent.futures.wait([job])),
        ("Queue.get", lambda thread, job: _queue().get()),
        ("Queue.put", lambda thread, job: queue.Queue(1).put(1)),
        ("Queue.join", lambda thread, job: queue.Queue().join()),
        ("SimpleQueue.get", lambda thread, job: _queue(queue.SimpleQueue).get()),
        ("Barrier.wait", lambda thread, job: threading.Barrier(1).wait()),
    ],
)
def test_waits_for_threads(name: str, call: Callable[[Any, Any], Any]) -> None:
    async def main() -> None:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            thread = threading.Thread(target=int)
            thread.start()
            call(thread, pool.submit(int))
            await asyncio.to_thread(thread.join)
            await asyncio.to_thread(pool.shutdown)

    session = run(main)
    assert found(session) == [("CTX103", "certain")]
    assert f"`{name}`" in session.violations[0].message


@pytest.mark.usefixtures("probes")
def test_a_wait_is_told_once_and_not_what_the_library_waits_for_inside() -> None:
    async def main() -> None:
        go = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            job = pool.submit(go.wait)
            with pytest.raises(concurrent.futures.TimeoutError):
                job.result(timeout=0.001)
            empty: Any = queue.Queue()
            with pytest.raises(queue.Empty):
                empty.get(timeout=0.001)
            go.set()

    calls = {v.message.split("`")[1] for v in run(main).violations}
    assert calls == {"Future.result", "Queue.get", "Executor.shutdown"}


@pytest.mark.usefixtures("probes")
def test_a_log_that_is_written_to_a_file_is_no_slow_lock(tmp_path: Any) -> None:
    logger = logging.getLogger("ctxcheck.tests.slow")
    logger.propagate = False
    handler = logging.FileHandler(tmp_path / "log.txt")
    logger.addHandler(handler)

    async def main() -> None:
        logger.warning("on the loop")
        await asyncio.to_thread(logger.warning, "in a thread")

    try:
        session = run(main)
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert [(v.rule, v.grade) for v in session.violations] == [("CTX103", "unlikely")]


def _queue(kind: Any = queue.Queue) -> Any:
    made = kind()
    made.put(1)
    return made


@pytest.mark.usefixtures("probes")
def test_polls_and_what_is_known_to_be_over_are_no_waits() -> None:
    async def main() -> None:
        things: Any = _queue()
        things.get(block=False)
        with pytest.raises(queue.Empty):
            things.get(timeout=0)
        things.put(1)  # it has no bound
        lock = threading.Lock()
        assert lock.acquire(blocking=False)
        lock.release()
        ready = threading.Event()
        ready.wait(0)
        thread = threading.Thread(target=int)
        thread.start()
        thread.join(0)
        while thread.is_alive():
            await asyncio.sleep(0)
        thread.join()
        loop = asyncio.get_running_loop()
        pool = concurrent.futures.ThreadPoolExecutor(1)
        job = pool.submit(int)
        await asyncio.wrap_future(job)
        await loop.run_in_executor(pool, int)
        while not job.done():
            await asyncio.sleep(0)
        assert job.result() == 0
        pool.shutdown(wait=False)

    assert found(run(main)) == []


# --- locks -----------------------------------------------------------------------------------


def test_a_short_critical_section_is_fine() -> None:
    lock = ctxcheck.Lock(name="short")

    def worker() -> None:
        with lock:
            pass

    async def main() -> None:
        with lock:
            pass
        lock.acquire()
        lock.release()
        await asyncio.to_thread(worker)

    assert found(run(main)) == []


@pytest.mark.parametrize("first", ["loop", "worker"])
@pytest.mark.parametrize("kind", [ctxcheck.Lock, ctxcheck.RLock, ctxcheck.Semaphore])
def test_a_lock_that_is_held_over_what_blocks_is_slow_on_the_loop(first: str, kind: Any) -> None:
    lock = kind(name="slow")

    def worker() -> None:
        with lock:
            sleeps_deep_down()

    async def main() -> None:
        if first == "worker":
            await asyncio.to_thread(worker)
        with lock:
            pass
        if first == "loop":
            await asyncio.to_thread(worker)

    session = run(main)
    assert found(session) == [("CTX105", "possible")]
    (violation,) = session.violations
    assert violation.locks == ("slow",)
    assert [site.role for site in violation.sites] == ["now", "held_now", "then"]
    assert {site.function.rpartition(".")[2] for site in violation.sites} == {"sleeps_deep_down", "worker", "main"}


def test_which_threads_take_it_matters_where_owners_are_observed() -> None:
    lock = ctxcheck.Lock(name="start-up")

    async def main() -> None:
        with lock:
            pass

    grades: list[list[tuple[str, str]]] = []
    for owners in ("observed", "assumed"):
        with checking(owners=owners) as session:
            with lock:
                sleep()
            asyncio.run(main())
        grades.append(found(session))
    assert grades == [[("CTX105", "unlikely")], [("CTX105", "possible")]]


def test_near_misses_of_a_slow_lock() -> None:
    lock, outer, gate = (ctxcheck.Lock(name=n) for n in ("inner", "outer", "gate"))
    condition = ctxcheck.Condition(lock)

    def worker() -> None:
        with lock:
            pass
        sleep()  # not under it
        with condition:
            condition.wait(0.0001)  # gives it back meanwhile
        with outer:
            sleep()  # which no task takes

    def gated() -> None:
        with gate, outer:
            sleep()

    async def main() -> None:
        with lock:
            pass
        if outer.acquire(blocking=False):  # which can't wait
            outer.release()
        await asyncio.to_thread(worker)
        await asyncio.to_thread(gated)

    assert found(run(main)) == []


def test_behind_a_common_lock_only_that_one_is_told_of() -> None:
    inner, gate = ctxcheck.Lock(name="inner"), ctxcheck.Lock(name="gate")

    def worker() -> None:
        with gate, inner:
            sleep()

    async def main() -> None:
        with gate, inner:
            pass
        await asyncio.to_thread(worker)

    session = run(main)
    assert [(v.rule, v.locks) for v in session.violations] == [("CTX105", ("gate",))]


def test_an_acquire_that_gives_up_is_unlikely_to_stall() -> None:
    lock = ctxcheck.Lock(name="timed")

    def worker() -> None:
        with lock:
            sleep()

    async def main() -> None:
        assert lock.acquire(timeout=0.01)
        lock.release()
        await asyncio.to_thread(worker)

    assert found(run(main)) == [("CTX105", "unlikely")]


def test_a_wait_makes_slow_too_and_so_does_what_is_allowed_where_it_was_accepted() -> None:
    lock, ready = ctxcheck.Lock(name="waits"), ctxcheck.Event()
    ready.set()

    def worker(reason: str) -> None:
        with lock:
            if reason:
                with ctxcheck.allow("CTX105", reason=reason):
                    ready.wait()
            else:
                ready.wait()

    for reason in ("known", ""):

        async def main(reason: str = reason) -> None:
            with lock:
                pass
            await asyncio.to_thread(worker, reason)

        assert [(v.rule, v.allowed_by) for v in run(main).violations] == [("CTX105", reason or None)]


def test_in_atomic_code_the_acquire_is_told_of_unless_it_was_accepted() -> None:
    lock = ctxcheck.Lock(name="atomic")
    with checking() as session:
        with ctxcheck.atomic("tick"), lock:
            pass
        with lock:
            sleep()
    assert found(session) == [("CTX102", "certain")]
    with checking() as session:
        with ctxcheck.allow("CTX102", reason="short"), ctxcheck.atomic("tick"), lock:
            pass
        with lock:
            sleep()
    assert [(v.rule, v.allowed_by) for v in session.violations] == [("CTX102", "short"), ("CTX105", None)]


def test_what_the_loop_itself_does_under_its_own_lock_keeps_no_other_task_waiting() -> None:
    lock = ctxcheck.Lock(name="own")

    async def main() -> None:
        with lock:
            sleep()  # CTX103, and that is all

    assert found(run(main)) == [("CTX103", "certain")]


# --- pools ----------------------------------------------------------------------------------


def square(x: int) -> int:
    return x * x


@pytest.mark.usefixtures("probes")
def test_a_pool_whose_jobs_are_known_to_be_done_is_shut_down_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            assert await loop.run_in_executor(pool, square, 3) == 9

    assert found(run(main)) == []


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize("awaited", [0, 1])
def test_a_pool_with_a_job_that_nobody_has_seen_the_end_of_is_waited_for_and_told_once(awaited: int) -> None:
    async def main() -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            jobs = [pool.submit(square, 3) for _ in range(2)]
            for job in jobs[:awaited]:
                await asyncio.wrap_future(job)
            jobs.clear()  # done or not, nobody can know
            while pool._work_queue.qsize():
                await asyncio.sleep(0)

    session = run(main)
    assert found(session) == [("CTX103", "certain")]
    assert "`Executor.shutdown`" in session.violations[0].message


@pytest.mark.usefixtures("probes")
def test_a_pool_of_processes_takes_a_job_in_a_way_of_its_own() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = concurrent.futures.ProcessPoolExecutor(1)
        try:
            assert await loop.run_in_executor(pool, square, 3) == 9
        finally:
            await asyncio.to_thread(pool.shutdown)

    assert found(run(main)) == []


@pytest.mark.usefixtures("probes")
def test_to_start_a_process_oneself_blocks() -> None:
    import multiprocessing

    async def main() -> None:
        process = multiprocessing.get_context("spawn").Process(target=square, args=(3,))
        process.start()
        await asyncio.to_thread(process.join)

    session = run(main)
    assert found(session) == [("CTX103", "certain")]
    assert "`Process.start`" in session.violations[0].message


@pytest.mark.usefixtures("probes")
def test_what_multiprocessing_notes_down_about_its_own_locks_is_no_write_of_the_programs() -> None:
    import multiprocessing

    async def main() -> None:
        context = multiprocessing.get_context("spawn")
        context.Lock()

    assert found(run(main)) == []


# --- what the library makes from text -----------------------------------------------------


def test_a_proxys_method_is_told_where_the_program_calls_it_and_by_no_name_of_the_librarys_own(probes: Any) -> None:
    """``multiprocessing`` makes the methods of its proxies from text: in no file, and no module."""
    own: dict[str, Any] = {"__name__": "templates"}
    exec("def rendered(items):\n    return len(items)", own)
    with multiprocessing.get_context("fork").Manager() as manager:  # spawn pickles the registry of locks
        items = manager.list()

        def first() -> Any:
            return manager

        async def main() -> None:
            assert len(items) == 0
            own["rendered"](items)
            first().list()

        with checking() as session:
            asyncio.run(main())
    answers = [v for v in of(session, "CTX103") if "`Connection.recv`" in v.message]
    # what the program itself makes from text is its own place
    assert {v.sites[0].function for v in answers} == {main.__qualname__.replace(".<locals>", ""), "rendered"}
    helps = [text for v in session.violations for text in v.helps]
    assert helps and not [text for text in helps if "_callmethod" in text or "to_thread(temp" in text]
    assert [text for text in helps if "put it into a function" in text]


class OwnLoop(asyncio.SelectorEventLoop):
    """Shuts its pool down as uvloop does: by code that isn't asyncio's, in a thread of its own."""

    def _shut_down(self, done: Any) -> None:
        self.pool.shutdown()
        self.call_soon_threadsafe(done.set_result, None)

    async def shutdown_default_executor(self, timeout: Any = None) -> None:
        self.pool: Any = self._default_executor  # type: ignore[attr-defined]
        if self.pool is not None:
            await self.join(self._shut_down)

    async def join(self, target: Callable[[Any], None]) -> None:
        done = self.create_future()
        thread = threading.Thread(target=target, args=(done,))
        thread.start()
        try:
            await done
        finally:
            thread.join()


@pytest.mark.parametrize("awaited", [False, True])
def test_a_loop_that_isnt_asyncios_waits_for_its_own_thread_to_shut_its_pool_down(probes: Any, awaited: bool) -> None:
    async def main() -> None:
        await asyncio.to_thread(int)
        if awaited:
            await loop.shutdown_default_executor()

    with checking() as session, asyncio.Runner(loop_factory=OwnLoop) as runner:
        loop: Any = runner.get_loop()
        runner.run(main())
    assert found(session) == []
    clean(session)


def test_a_thread_that_runs_another_function_or_another_loops_is_waited_for(probes: Any) -> None:
    other = OwnLoop()

    def set_result(done: Any) -> None:
        done.get_loop().call_soon_threadsafe(done.set_result, None)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        await loop.join(set_result)
        thread = threading.Thread(target=other._run_once)  # type: ignore[attr-defined]
        other.call_soon(int)
        thread.start()
        thread.join()

    with checking() as session, asyncio.Runner(loop_factory=OwnLoop) as runner:
        runner.run(main())
    other.close()
    assert found(session) == [("CTX103", "certain")] * 2
    assert [v.sites[0].text.strip() for v in session.violations] == ["thread.join()"] * 2
