"""CTX006: who waits for somebody that needs what is held meanwhile, found in runs in which nobody hangs."""

from __future__ import annotations

import concurrent.futures
import contextvars
import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import ctxcheck
from ctxcheck.session import Owners, Session


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def after(event: threading.Event, work: Callable[[], object]) -> Callable[[], None]:
    """``work``, and then the event that says that it is over."""

    def run() -> None:
        work()
        event.set()

    return run


def take(lock: Any) -> None:
    with lock:
        pass


POSSIBLE = [("CTX006", "possible")]
UNLIKELY = [("CTX006", "unlikely")]


# --- threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("owners", ["assumed", "observed"])
def test_a_join_under_a_lock_that_the_thread_takes(owners: Owners) -> None:
    with ctxcheck.checking(owners=owners) as session:
        lock, ran = threading.Lock(), threading.Event()

        def work() -> None:
            take(lock)
            ran.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert ran.wait(60)
        with lock:
            thread.join()
    assert found(session) == POSSIBLE
    (violation,) = session.violations
    here = "test_a_join_under_a_lock_that_the_thread_takes"
    assert violation.message == (
        f"possible deadlock: thread `{here}.work()` is joined under `{here}.lock`, which it takes"
    )
    assert violation.sites[0].text.strip() == "thread.join()"


@pytest.mark.parametrize(
    ("timeout", "expected"), [(None, POSSIBLE), (60, UNLIKELY), (0.5, UNLIKELY), (0, []), (-1, [])]
)
def test_the_timeout_of_a_join(timeout: float | None, expected: list[tuple[str, str]]) -> None:
    with ctxcheck.checking() as session:
        lock, ran = threading.Lock(), threading.Event()
        thread = threading.Thread(target=after(ran, functools.partial(take, lock)))
        thread.start()
        assert ran.wait(60)
        with lock:
            thread.join(timeout)
    assert found(session) == expected


class Worker(threading.Thread):
    def __init__(self, lock: Any, ran: threading.Event) -> None:
        super().__init__()
        self.lock, self.ran = lock, ran

    def run(self) -> None:
        take(self.lock)
        self.ran.set()


THREADS: dict[str, Callable[[Any, threading.Event], threading.Thread]] = {
    "subclass": Worker,
    "timer": lambda lock, ran: threading.Timer(0, after(ran, lambda: take(lock))),
    "partial": lambda lock, ran: threading.Thread(target=functools.partial(after(ran, lambda: take(lock)))),
    "daemon": lambda lock, ran: threading.Thread(target=after(ran, lambda: take(lock)), daemon=True),
    "context": lambda lock, ran: threading.Thread(
        target=contextvars.copy_context().run, args=(after(ran, lambda: take(lock)),)
    ),
}


@pytest.mark.parametrize("sort", THREADS)
def test_threads_of_all_sorts(sort: str) -> None:
    with ctxcheck.checking(owners="observed") as session:
        lock, ran = threading.Lock(), threading.Event()
        thread = THREADS[sort](lock, ran)
        thread.start()
        assert ran.wait(60)
        with lock:
            thread.join()
    assert found(session) == POSSIBLE


def test_the_thread_that_took_the_lock_need_not_be_the_one_that_is_joined() -> None:
    with ctxcheck.checking(owners="observed") as session:
        lock = threading.Lock()

        def work(first: bool) -> None:
            if first:
                take(lock)

        threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
        for thread in threads:
            thread.start()
        threads[0].join()
        with lock:
            threads[1].join()
    assert found(session) == POSSIBLE


def test_through_a_second_lock() -> None:
    with ctxcheck.checking(owners="observed") as session:
        outer, inner, ran = threading.Lock(), threading.Lock(), threading.Event()
        thread = threading.Thread(target=after(ran, lambda: take(inner)))
        thread.start()
        assert ran.wait(60)
        other = threading.Thread(target=lambda: inner.acquire() and (take(outer), inner.release()))
        other.start()
        other.join()
        with outer:
            thread.join()
    assert found(session) == POSSIBLE
    assert len(session.violations[0].locks) == 3


def test_a_thread_that_waits_for_a_job() -> None:
    with ctxcheck.checking(owners="observed") as session, ThreadPoolExecutor(1) as pool:
        lock, ran = threading.Lock(), threading.Event()
        thread = threading.Thread(target=after(ran, lambda: pool.submit(take, lock).result()))
        thread.start()
        assert ran.wait(60)
        with lock:
            thread.join()
    assert found(session) == POSSIBLE


def test_what_is_no_wait_for_the_lock() -> None:
    with ctxcheck.checking() as session:
        lock, other, gate = threading.Lock(), threading.Lock(), threading.Lock()
        ran = threading.Event()

        def work() -> None:
            take(lock)
            ran.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert ran.wait(60)
        with other:
            thread.join()  # it never takes that one
        with lock:
            thread.join()  # known to be over
            assert not thread.is_alive()
        second = threading.Thread(target=work)
        second.start()
        while second.is_alive():
            pass
        with lock:
            second.join()  # seen to be over

        def tries() -> None:
            assert gate.acquire(blocking=False)
            gate.release()

        third = threading.Thread(target=tries)
        third.start()
        third.join()
        fourth = threading.Thread(target=int)
        fourth.start()
        with gate:
            fourth.join()
    assert found(session) == []


def test_a_guard_keeps_them_apart_unless_the_thread_takes_it_itself() -> None:
    with ctxcheck.checking() as session:
        gate, lock, ready = threading.Lock(), threading.Lock(), threading.Event()

        def work() -> None:
            with gate, lock:
                ready.set()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with gate, lock:
            ready.wait()
    told = {(v.locks[1].rpartition(".")[2], v.grade) for v in session.violations}
    assert told == {("gate", "possible"), ("lock", "unlikely")}
    assert [len(v.locks) for v in session.violations] == [2, 2]


def test_python_refuses_what_it_always_refused() -> None:
    with ctxcheck.checking() as session:
        errors: list[str] = []

        def work() -> None:
            try:
                threading.current_thread().join()
            except RuntimeError as error:
                errors.append(str(error))

        thread = threading.Thread(target=work)
        with pytest.raises(RuntimeError, match="before it is started"):
            thread.join()
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="only be started once"):
            thread.start()
        with pytest.raises(TypeError):
            thread.join("soon")  # type: ignore[arg-type]
        assert errors == ["cannot join current thread"]
        assert threading.Thread(target=work).is_alive() is False
    assert found(session) == []


def test_an_exception_of_the_thread_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    with ctxcheck.checking() as session:
        lock = threading.Lock()

        def work() -> None:
            with lock:
                raise ValueError

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert session.held_locks() == []
    assert found(session) == []


def test_in_mode_raise_it_is_raised_before_the_wait() -> None:
    with ctxcheck.checking(mode="raise") as session:
        lock, go = threading.Lock(), threading.Event()

        def work() -> None:
            take(lock)
            ran.set()
            assert go.wait(60)

        ran = threading.Event()
        thread = threading.Thread(target=work)
        thread.start()
        assert ran.wait(60)
        with lock, pytest.raises(ctxcheck.ViolationError, match="CTX006"):
            thread.join()
        assert thread.is_alive()
        go.set()
        thread.join()
    assert found(session) == POSSIBLE


def test_in_mode_raise_a_signal_is_sent_all_the_same() -> None:
    with ctxcheck.checking(mode="raise", fail_on="unlikely") as session:
        lock, ready = threading.Lock(), threading.Event()

        def work() -> None:
            with lock:
                ready.wait(0.001)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with lock:
            ready.set()
        assert ready.is_set()
    assert found(session) == UNLIKELY


def test_an_allow_around_the_wait() -> None:
    with ctxcheck.checking() as session:
        lock, ran = threading.Lock(), threading.Event()
        thread = threading.Thread(target=after(ran, lambda: take(lock)))
        thread.start()
        assert ran.wait(60)
        with lock, ctxcheck.allow("CTX006", reason="it is past that point"):
            thread.join()
    assert [v.allowed_by for v in session.violations] == ["it is past that point"]
    assert session.failures == []


# --- pools -----------------------------------------------------------------------------------------

WAITS: dict[str, Callable[[Any], object]] = {
    "result": lambda future: future.result(),
    "exception": lambda future: future.exception(),
    "wait": lambda future: concurrent.futures.wait([future]),
    "as_completed": lambda future: list(concurrent.futures.as_completed(iter([future]))),
}


@pytest.mark.parametrize("how", WAITS)
@pytest.mark.parametrize("owners", ["assumed", "observed"])
def test_a_job_is_waited_for_under_a_lock_that_it_takes(how: str, owners: Owners) -> None:
    with ctxcheck.checking(owners=owners) as session, ThreadPoolExecutor(2) as pool:
        lock, ran = threading.Lock(), threading.Event()
        future = pool.submit(after(ran, lambda: take(lock)))
        assert ran.wait(60)
        with lock:
            WAITS[how](future)
    assert found(session) == POSSIBLE


@pytest.mark.parametrize(
    ("timeout", "expected"), [(0, []), (0.5, UNLIKELY), (30, POSSIBLE)]
)  # `deadlock_after` is a second: who fails after longer than that was stuck
def test_the_timeout_of_a_result(timeout: float, expected: list[tuple[str, str]]) -> None:
    with ctxcheck.checking() as session, ThreadPoolExecutor(2) as pool:
        lock, ran = threading.Lock(), threading.Event()
        future = pool.submit(after(ran, lambda: take(lock)))
        assert ran.wait(60)
        pool.submit(int).result()
        with lock:
            try:
                future.result(timeout)
            except TimeoutError:
                pass
    assert found(session) == expected


def test_results_that_are_known_to_be_there() -> None:
    with ctxcheck.checking() as session:
        lock = threading.Lock()
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(take, lock) for _ in range(10)]
            for future in concurrent.futures.as_completed(futures[:2]):
                with lock:
                    future.result()
            done = concurrent.futures.wait(futures[2:4]).done
            with lock:
                assert [future.result() for future in done] == [None, None]
            while not futures[4].done():
                pass
            with lock:
                futures[4].result()
            called = threading.Event()
            futures[5].add_done_callback(lambda future: (future.result(), called.set()))
            assert called.wait(60)
            futures[6].result()

            def collect(future: Any) -> None:
                with lock:
                    future.result()

            futures[6].add_done_callback(collect)  # runs at once
        with lock:
            assert [future.result() for future in futures] == [None] * 10
        with ThreadPoolExecutor() as pool:
            list(pool.map(take, [lock] * 5))
    assert session.failures == []
    assert "CTX006" not in {v.rule for v in session.violations}


def test_a_pool_is_shut_down_under_a_lock_that_its_jobs_take() -> None:
    with ctxcheck.checking(owners="observed") as session:
        lock = threading.Lock()
        pool = ThreadPoolExecutor(2)
        pool.submit(take, lock).result()
        with lock:
            pool.shutdown()
        other = ThreadPoolExecutor(2)
        other.submit(take, lock).result()
        with lock:
            other.shutdown(wait=False)
        other.shutdown()
    assert found(session) == POSSIBLE


def test_a_with_block_of_a_pool_ends_under_a_lock() -> None:
    with ctxcheck.checking() as session:
        lock, ran = threading.RLock(), threading.Event()
        with ThreadPoolExecutor(1) as first:
            first.submit(after(ran, lambda: take(lock)))
            assert ran.wait(60)
            lock.acquire()
        lock.release()
    assert found(session) == POSSIBLE


def test_pools_are_told_apart() -> None:
    with ctxcheck.checking() as session:
        lock = threading.Lock()
        with ThreadPoolExecutor(1) as busy:
            busy.submit(take, lock).result()
            quiet = ThreadPoolExecutor(1)
            quiet.submit(int).result()
            with lock:
                quiet.shutdown()
    assert found(session) == []


@pytest.mark.parametrize("first", ["taker", "other"])
def test_a_single_worker_does_the_jobs_before_first(first: str) -> None:
    with ctxcheck.checking() as session, ThreadPoolExecutor(1) as pool:
        lock = threading.Lock()
        if first == "taker":
            pool.submit(take, lock).result()
        with lock:
            pool.submit(int).result()
        if first == "other":
            pool.submit(take, lock).result()
    assert found(session) == POSSIBLE


def test_a_single_worker_with_one_job_is_told_of_once() -> None:
    lock = threading.Lock()

    def work(takes: bool) -> None:
        if takes:
            take(lock)

    with ctxcheck.checking() as session, ThreadPoolExecutor(1) as pool:
        lock = threading.Lock()
        pool.submit(work, True).result()
        with lock:
            pool.submit(work, False).result()
    assert found(session) == POSSIBLE
    assert "work()" in session.violations[0].message


@pytest.mark.parametrize(("owners", "grade"), [("assumed", "possible"), ("observed", "unlikely")])
def test_a_job_that_waits_for_a_later_job_of_its_pool(owners: Owners, grade: str) -> None:
    with ctxcheck.checking(owners=owners) as session, ThreadPoolExecutor(2) as pool:
        pool.submit(lambda: pool.submit(int).result()).result()
    assert found(session) == [("CTX006", grade)]
    assert "at most 2 workers, and 1 of its jobs" in "".join(session.violations[0].notes)


def test_as_many_of_them_as_there_are_workers() -> None:
    with ctxcheck.checking(owners="observed") as session, ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(lambda: pool.submit(int).result()).result()
    assert found(session) == POSSIBLE


def test_jobs_that_wait_for_earlier_ones_or_for_those_of_another_pool() -> None:
    with ctxcheck.checking() as session, ThreadPoolExecutor(1) as pool, ThreadPoolExecutor(1) as other:
        first = pool.submit(int)
        assert pool.submit(first.result).result() == 0
        assert pool.submit(lambda: other.submit(int).result()).result() == 0
    assert found(session) == []


def test_divide_and_conquer_over_two_pools_is_no_cycle_of_jobs() -> None:
    with ctxcheck.checking() as session, ThreadPoolExecutor(4) as one, ThreadPoolExecutor(4) as two:

        def split(n: int) -> int:
            return two.submit(merge, n - 1).result() if n else 0

        def merge(n: int) -> int:
            return n + (threading_split(n - 1) if n else 0)

        def threading_split(n: int) -> int:
            out: list[int] = []
            thread = threading.Thread(target=lambda: out.append(split(n)))
            thread.start()
            thread.join()
            return out[0]

        one.submit(split, 2).result()
    assert [v for v in session.violations if "pool" not in v.message] == []


# --- events, conditions, barriers --------------------------------------------------------------------


def test_an_event_that_is_set_under_the_lock() -> None:
    with ctxcheck.checking(owners="observed") as session:
        lock, ready = threading.Lock(), threading.Event()

        def work() -> None:
            with lock:
                ready.set()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with lock:
            ready.wait()
    assert found(session) == POSSIBLE
    assert session.violations[0].message.endswith("which is taken before it is set")


@pytest.mark.parametrize("first", [True, False])
def test_an_event_that_is_set_before_or_after_the_lock_is_taken(first: bool) -> None:
    with ctxcheck.checking() as session:
        lock, go, ready, over = threading.Lock(), threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            for _ in range(3):
                assert go.wait(60)
                go.clear()
                if not first:
                    take(lock)
                ready.set()
                if first:
                    take(lock)
                over.set()

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(3):
            go.set()
            assert over.wait(60)
            over.clear()
            with lock:
                ready.wait()
            ready.clear()
        thread.join()
    assert found(session) == ([] if first else POSSIBLE)


def test_anybody_who_sends_the_signal_without_the_lock_will_do() -> None:
    with ctxcheck.checking() as session:
        lock, ready = threading.Lock(), threading.Event()
        with lock:
            ready.set()
        ready.clear()
        waiting = threading.Event()

        def work() -> None:
            with lock:
                waiting.set()
                ready.wait()

        thread = threading.Thread(target=work)
        thread.start()
        assert waiting.wait(60)
        while not ready._cond._waiters:  # type: ignore[attr-defined]
            pass
        assert found(session) == POSSIBLE, "recorded before it blocks"
        ready.set()
        thread.join()
    assert found(session) == []


@pytest.mark.parametrize(("timeout", "expected"), [(None, POSSIBLE), (0.5, UNLIKELY), (0, [])])
def test_the_timeout_of_an_event(timeout: float | None, expected: list[tuple[str, str]]) -> None:
    with ctxcheck.checking() as session:
        lock, ready = threading.Lock(), threading.Event()

        def work() -> None:
            with lock:
                ready.set()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with lock:
            ready.wait(timeout)
    assert found(session) == expected


def test_an_event_that_is_known_to_be_set() -> None:
    with ctxcheck.checking() as session:
        lock, mine, ready = threading.Lock(), threading.Event(), threading.Event()

        def work() -> None:
            with lock:
                ready.set()

        thread = threading.Thread(target=work)
        thread.start()
        ready.wait()
        with lock:
            ready.wait()  # it was waited for before
            mine.set()
            mine.wait()  # it was set by the same thread
        thread.join()
    assert found(session) == []
    with ctxcheck.checking() as session:
        ready.clear()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with lock:
            ready.wait()
    assert found(session) == POSSIBLE, "what was known is over"


def test_a_nested_monitor() -> None:
    with ctxcheck.checking(owners="observed") as session:
        outer, cond = threading.Lock(), threading.Condition()

        def notify() -> None:
            with outer, cond:
                cond.notify_all()

        thread = threading.Thread(target=notify)
        thread.start()
        thread.join()
        with outer, cond:
            cond.wait(0.001)
    assert found(session) == UNLIKELY
    assert session.violations[0].message.startswith("condition ")


def test_two_places_that_notify_are_told_apart() -> None:
    with ctxcheck.checking() as session:
        outer, cond = threading.Lock(), threading.Condition()

        def locked() -> None:
            with outer, cond:
                cond.notify_all()

        def unlocked() -> None:
            with cond:
                cond.notify_all()

        thread = threading.Thread(target=locked)
        thread.start()
        thread.join()
        waiting = threading.Event()

        def wait() -> None:
            with outer, cond:
                waiting.set()
                cond.wait()

        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(60)
        unlocked()
        thread.join()
    assert found(session) == [], "this one will do"


def test_a_condition_with_its_own_lock_only() -> None:
    with ctxcheck.checking() as session:
        for lock in (threading.Lock(), threading.RLock()):
            cond, items, other = threading.Condition(lock), [1], threading.Lock()

            def consume(cond: Any = cond, items: Any = items, other: Any = other) -> None:
                for _ in range(4):
                    with cond:
                        while not items:
                            cond.wait()
                        items.pop()
                    take(other)

            thread = threading.Thread(target=consume)
            thread.start()
            for _ in range(3):
                with other, cond:
                    items.append(1)
                    cond.notify()
            thread.join()
    assert found(session) == []


def test_a_worker_that_waits_on_a_condition_begins_anew() -> None:
    """It takes the lock after it has told of its work, which isn't on the way to the next time."""
    with ctxcheck.checking() as session:
        lock, cond, items = threading.Lock(), threading.Condition(), []
        done = threading.Event()

        def work() -> None:
            for _ in range(4):
                with cond:
                    while not items:
                        cond.wait()
                    items.pop()
                done.set()
                take(lock)

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(4):
            while not cond._waiters:  # type: ignore[attr-defined]
                pass
            with cond:
                items.append(1)
                cond.notify()
            assert done.wait(60)
            with lock:
                done.wait()
            done.clear()
        thread.join()
    assert found(session) == []


def test_a_barrier_under_one_lock_and_under_one_each() -> None:
    class Runner:
        def __init__(self, barrier: threading.Barrier) -> None:
            self.lock, self.barrier = threading.Lock(), barrier

        def run(self) -> None:
            with self.lock:
                self.barrier.wait()

    with ctxcheck.checking() as session:
        barrier = threading.Barrier(2)
        threads = [threading.Thread(target=Runner(barrier).run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found(session) == []
    with ctxcheck.checking() as session:
        lock, barrier = threading.Lock(), threading.Barrier(2)

        def arrive() -> None:
            take(lock)
            barrier.wait()

        thread = threading.Thread(target=arrive)
        thread.start()
        while not barrier.n_waiting:
            pass
        with lock:
            barrier.wait()
        thread.join()
    assert found(session) == POSSIBLE


# --- queues ----------------------------------------------------------------------------------------

QUEUES = {"Queue": queue.Queue, "LifoQueue": queue.LifoQueue, "PriorityQueue": queue.PriorityQueue}


@pytest.mark.parametrize("kind", [*QUEUES, "SimpleQueue"])
def test_get_under_a_lock_that_is_taken_to_put(kind: str) -> None:
    with ctxcheck.checking(owners="observed") as session:
        lock, items = threading.Lock(), getattr(queue, kind)()

        def put() -> None:
            with lock:
                items.put(1)

        thread = threading.Thread(target=put)
        thread.start()
        thread.join()
        with lock:
            assert not items.empty()
            items.get()
            assert found(session) == [], "it was there, and nobody else can take it"
            with pytest.raises(queue.Empty):
                items.get(timeout=0.001)
            with pytest.raises(queue.Empty):
                items.get_nowait()
    assert found(session) == UNLIKELY


def test_put_into_a_full_queue_under_a_lock_that_the_consumer_takes() -> None:
    with ctxcheck.checking(owners="observed") as session:
        lock, items = threading.Lock(), queue.Queue[int](1)

        def consume() -> None:
            while items.get():
                take(lock)

        thread = threading.Thread(target=consume)
        thread.start()
        for _ in range(3):
            items.put(1)
        while not items.empty():
            pass
        lock.acquire()
        items.put(1)
        while not items.empty():
            pass
        items.put(1)  # the consumer waits for the lock now
        with pytest.raises(queue.Full):
            items.put(1, timeout=0.001)
        lock.release()
        items.put(0)
        thread.join()
    assert found(session) == UNLIKELY


def test_producer_and_consumer() -> None:
    with ctxcheck.checking() as session:
        lock, items, out = threading.Lock(), queue.Queue[int](2), queue.SimpleQueue[int]()

        def consume() -> None:
            while item := items.get():
                with lock:
                    out.put(item)
                items.task_done()

        def produce() -> None:
            for item in range(1, 20):
                with lock:
                    number = item
                items.put(number)

        threads = [threading.Thread(target=work) for work in (consume, consume, produce, produce)]
        for thread in threads:
            thread.start()
        for thread in threads[2:]:
            thread.join()
        items.join()
        for _ in range(2):
            items.put(0)
        for thread in threads[:2]:
            thread.join()
        assert sum(out.get() for _ in range(38)) == 380
    assert found(session) == []


def test_a_queue_is_closed_under_a_lock_that_its_worker_does_not_take() -> None:
    with ctxcheck.checking() as session:
        lock, items = threading.Lock(), queue.Queue[int]()

        def work() -> None:
            while items.get():
                pass

        thread = threading.Thread(target=work)
        thread.start()
        with lock:
            items.put(1)
        with lock:
            items.put(0)
            thread.join()
    assert found(session) == []


# --- where sleeping is not allowed -------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["Thread.join", "Future.result", "Queue.get", "Queue.put", "SimpleQueue.get", "Executor.shutdown"]
)
def test_a_wait_is_a_sleep(what: str) -> None:
    with ctxcheck.checking() as session, ThreadPoolExecutor(1) as pool:
        thread = threading.Thread(target=int)
        thread.start()
        items, simple = queue.Queue[int](2), queue.SimpleQueue[int]()
        items.put(1)
        simple.put(1)
        future = pool.submit(int)
        calls: dict[str, Callable[[], object]] = {
            "Thread.join": thread.join,
            "Future.result": future.result,
            "Queue.get": items.get,
            "Queue.put": lambda: items.put(2),
            "SimpleQueue.get": simple.get,
            "Executor.shutdown": pool.shutdown,
        }
        with ctxcheck.atomic("irq"):
            calls[what]()
    told = {(v.rule, v.message.partition("`")[2].partition("`")[0]) for v in session.violations}
    assert (("CTX101", what)) in told
    assert {rule for rule, _ in told} <= {"CTX101", "CTX102"}, "their own locks are locks too"


def test_a_queue_that_counts_by_itself_is_not_asked_out_of_turn() -> None:
    class Strange(queue.Queue):  # type: ignore[type-arg]
        def _qsize(self) -> int:
            assert self.mutex.locked(), "asked without its lock"
            return len(self.queue)

    with ctxcheck.checking() as session:
        strange = Strange(maxsize=2)
        strange.put(1)
        assert strange.get() == 1
        with pytest.raises(queue.Empty):
            strange.get(timeout=0.001)
    assert not session.violations
