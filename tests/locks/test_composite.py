"""``Condition``, ``Semaphore``, ``Event`` and ``Barrier``: the real ones, with their waits and orders checked."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking
from ctxcheck.engine.raw import ORIGINALS
from ctxcheck.session import Session
from tests.engine.test_slowpath import python
from tests.oracle import in_thread

NAMES = ["Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]
ARGUMENTS = {"Barrier": (2,)}


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def edges(session: Session) -> set[tuple[str, str]]:
    return {(e["from"], e["to"]) for e in session.graph()["edges"]}


def make(name: str, real: bool = False) -> Any:
    return (ORIGINALS[name] if real else getattr(ctxcheck, name))(*ARGUMENTS.get(name, ()))


@pytest.mark.parametrize("name", NAMES)
def test_they_are_the_real_ones_with_something_added(name: str) -> None:
    ours, real = make(name), make(name, real=True)
    assert isinstance(ours, ORIGINALS[name])
    assert type(ours).__name__ == name
    assert set(vars(real)) <= set(vars(ours))
    assert set(dir(real)) <= set(dir(ours))
    plain = [re.sub(r"0x[0-9a-f]+|<(un)?locked[^>]*>", "0x", repr(thing)) for thing in (ours, real)]
    assert plain[0].split(" at ")[0] == plain[1].split(" at ")[0]


@pytest.mark.parametrize("name", NAMES)
def test_they_can_be_derived_from_as_the_real_ones(name: str) -> None:
    base = getattr(ctxcheck, name)

    class Mine(base):  # type: ignore[misc, valid-type]
        pass

    class Further(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.extra = 1

    assert isinstance(Mine(*ARGUMENTS.get(name, ())), ORIGINALS[name])
    assert Further(*ARGUMENTS.get(name, ())).extra == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_non_empty_string(name: str) -> None:
    with pytest.raises(TypeError, match="name='' is not a non-empty string"):
        getattr(ctxcheck, name)(*ARGUMENTS.get(name, ()), name="")


def test_bad_values_are_refused_in_the_real_ones_words() -> None:
    for kind in ("Semaphore", "BoundedSemaphore"):
        for what in (lambda c: c(-1), lambda c: c().acquire(False, 1), lambda c: c(0).release(0)):
            texts = []
            for factory in (ORIGINALS[kind], getattr(ctxcheck, kind)):
                with pytest.raises(ValueError) as caught:
                    what(factory)
                texts.append(str(caught.value))
            assert texts[0] == texts[1]


# --- semaphores ------------------------------------------------------------------------------


def test_a_semaphore_of_one_is_ordered_like_a_lock() -> None:
    semaphore, lock = ctxcheck.Semaphore(name="sem"), ctxcheck.Lock(name="lock")
    with checking() as session:
        with semaphore, lock:
            pass
        with lock, semaphore:
            pass
        assert session.held_locks() == []
    assert edges(session) == {("sem", "lock"), ("lock", "sem")}
    assert found(session) == [("CTX001", "possible")]


def test_but_it_guards_nobody() -> None:
    gate, a, b = ctxcheck.Semaphore(name="gate"), ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
    with checking() as session:
        with gate, a, b:
            pass
        with gate, b, a:
            pass
    assert ("CTX001", "possible") in found(session)


@pytest.mark.parametrize("value", [0, 2, 5])
def test_any_other_is_a_signal_and_orders_nothing(value: int) -> None:
    semaphore, lock = ctxcheck.Semaphore(value, name=f"signal{value}"), ctxcheck.Lock(name="lock")
    with checking() as session:
        semaphore.release()
        with lock:
            semaphore.acquire()
        with semaphore if value else lock:
            if value:
                with lock:
                    pass
    assert edges(session) == set()
    assert found(session) == []


def test_a_semaphore_as_a_signal_between_threads_is_no_finding() -> None:
    signal, lock = ctxcheck.Semaphore(name="handshake"), ctxcheck.Lock(name="handshake.lock")
    with checking() as session:
        signal.acquire()
        for _ in range(3):
            thread = threading.Thread(target=signal.release)
            thread.start()
            signal.acquire()
            thread.join()
        signal.release()
        # its holds are no critical sections: an order against it is no deadlock
        with lock, signal:
            pass
        with signal, lock:
            pass
    assert [f for f in found(session) if f[1] != "unlikely"] == []


def test_taking_a_semaphore_twice_is_no_self_deadlock() -> None:
    semaphore = ctxcheck.Semaphore(name="twice")
    with checking(deadlock_after=0.01) as session:
        semaphore.acquire()
        thread = threading.Timer(0.0, semaphore.release)
        thread.start()
        semaphore.acquire()
        thread.join()
        assert not semaphore.acquire(False)
        assert not semaphore.acquire(timeout=0.001)
        semaphore.release()
    assert found(session) == []


def test_a_semaphore_left_held_or_released_too_often_is_nobodys_business() -> None:
    semaphore = ctxcheck.Semaphore(name="left.sem")
    with checking() as session:
        in_thread(semaphore.acquire)
        semaphore.release()
        semaphore.release()
    assert found(session) == []


def test_a_bounded_semaphore_refuses_one_too_many() -> None:
    semaphore = ctxcheck.BoundedSemaphore(name="bounded")
    with checking() as session:
        with pytest.raises(ValueError, match="released too many times"):
            semaphore.release()
        with semaphore:
            pass
        semaphore = ctxcheck.BoundedSemaphore(2)
        with semaphore, semaphore:
            assert not semaphore.acquire(False)
    assert found(session) == []


def test_a_try_or_timed_semaphore_is_graded_as_a_lock_is() -> None:
    semaphore, lock = ctxcheck.Semaphore(name="sem.t"), ctxcheck.Lock(name="lock.t")
    with checking() as session:
        with semaphore, lock:
            pass
        with lock:
            assert semaphore.acquire(False)
            semaphore.release()
        assert found(session) == []
        with lock:
            assert semaphore.acquire(timeout=60)
            semaphore.release()
    assert found(session) == [("CTX001", "unlikely")]


def test_a_semaphore_that_goes_while_it_is_held_leaves_no_phantom() -> None:
    lock = ctxcheck.Lock(name="phantom.lock")
    with checking() as session:
        semaphore = ctxcheck.Semaphore(name="phantom.sem")
        semaphore.acquire()
        del semaphore
        with lock:
            assert session.held_locks() == ["phantom.lock"]
    assert edges(session) == set()


# --- conditions --------------------------------------------------------------------------------


def test_a_conditions_default_lock_is_a_class_of_its_own() -> None:
    condition, lock = ctxcheck.Condition(name="cond"), ctxcheck.Lock(name="lock")
    with checking() as session:
        with condition, lock:
            assert session.held_locks() == ["cond", "lock"]
        with lock, condition:
            pass
    assert found(session) == [("CTX001", "possible")]


@pytest.mark.parametrize("make", [ctxcheck.Lock, ctxcheck.RLock, ORIGINALS["Lock"], ORIGINALS["RLock"], None])
def test_wait_for_and_notify_all(make: Callable[[], Any] | None) -> None:
    condition = ctxcheck.Condition(make() if make else None)
    ready: list[int] = []
    with checking() as session:

        def consumer(i: int) -> None:
            with condition:
                assert condition.wait_for(lambda: len(ready) == 3, timeout=60)

        threads = [threading.Thread(target=consumer, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for i in range(3):
            with condition:
                ready.append(i)
                condition.notify_all()
        for thread in threads:
            thread.join()
    assert found(session) == []


def test_waiting_without_the_lock_is_the_real_error() -> None:
    for make in (ctxcheck.Lock, ctxcheck.RLock):
        condition = ctxcheck.Condition(make())
        with checking() as session:
            with pytest.raises(RuntimeError, match="cannot wait on un-acquired lock"):
                condition.wait(0)
            with pytest.raises(RuntimeError, match="cannot notify on un-acquired lock"):
                condition.notify()
        assert found(session) == []


# --- waits are sleeps --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        lambda: ctxcheck.Event().wait(0.001),
        lambda: ctxcheck.Barrier(1).wait(),
        lambda: ctxcheck.Semaphore(1).acquire(),
        lambda: ctxcheck.Semaphore(2).acquire(),
        lambda: ctxcheck.Semaphore(1).__enter__(),
        lambda: ctxcheck.BoundedSemaphore(2).acquire(timeout=1),
    ],
)
def test_a_wait_is_a_sleep_whether_or_not_it_would_have_slept(wait: Callable[[], object]) -> None:
    spin = ctxcheck.SpinLock(name="spin")
    with checking() as session:
        wait()
        assert found(session) == []
        with spin:
            wait()
    assert [rule for rule, _ in found(session)] in (["CTX101"], ["CTX102"])


@pytest.mark.parametrize(
    "wait",
    [
        lambda: ctxcheck.Event().wait(0),
        lambda: ctxcheck.Event().set(),
        lambda: ctxcheck.Semaphore(1).acquire(False),
        lambda: ctxcheck.Semaphore(2).acquire(False),
        lambda: ctxcheck.Semaphore(2).acquire(timeout=0),
        lambda: ctxcheck.Semaphore(0).release(),
    ],
)
def test_what_cant_wait_is_none(wait: Callable[[], object]) -> None:
    with checking() as session, ctxcheck.SpinLock(name="spin"):
        wait()
    assert found(session) == []


@pytest.mark.parametrize("kind", [ctxcheck.Lock, ctxcheck.SpinLock])
@pytest.mark.parametrize("condition", [ctxcheck.Condition, ORIGINALS["Condition"]])
def test_to_notify_and_to_wait_on_a_plain_lock_leaves_its_chains_known(kind: Any, condition: Any) -> None:
    ready = condition(kind(name="ready"))
    with ctxcheck.checking() as session:
        chains = set[int]()
        for turn in range(6):
            with ready:
                ready.wait(0)
                ready.notify()
            before = session.counts().chains
            with ready:
                pass
            if turn:
                chains.add(session.counts().chains - before)
        assert chains == {0}
    with pytest.raises(RuntimeError, match="un-acquired lock"):
        ready.notify()


def test_a_queue_in_use_has_nothing_to_validate() -> None:
    ctxcheck.install()
    try:
        with checking() as session:
            jobs: queue.Queue[int] = queue.Queue()
            counts: list[int] = []
            for _ in range(4):
                jobs.put(1)
                jobs.get()
                jobs.task_done()
                jobs.join()
                counts.append(session.counts().chains)
    finally:
        ctxcheck.uninstall()
    assert counts[0] > 0
    assert counts[1:] == [counts[0]] * 3


def test_a_condition_over_a_spin_lock_waits_without_it() -> None:
    spin = ctxcheck.SpinLock(name="spin")
    condition = ctxcheck.Condition(spin)
    with checking() as session:
        with condition:
            assert not condition.wait(0.001)
        assert found(session) == []
        with ctxcheck.SpinLock(name="another"), condition:
            condition.wait(0.001)
    assert {rule for rule, _ in found(session)} == {"CTX101"}


# --- the standard library on ours ------------------------------------------------------------------


def test_queues_executors_and_timers_run_clean_on_checked_locks() -> None:
    import concurrent.futures

    ctxcheck.install()
    try:
        with checking() as session:
            line: queue.Queue[int] = queue.Queue(maxsize=2)
            got: list[int] = []

            def consume() -> None:
                for _ in range(50):
                    got.append(line.get())
                    line.task_done()

            thread = threading.Thread(target=consume)
            thread.start()
            for i in range(50):
                line.put(i)
            line.join()
            thread.join()
            assert got == list(range(50))
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                assert sorted(pool.map(lambda n: n * n, range(30))) == [n * n for n in range(30)]
            event = threading.Event()
            timer = threading.Timer(0, event.set)
            timer.start()
            assert event.wait(60)
            timer.join()
            barrier = threading.Barrier(3)
            threads = [threading.Thread(target=barrier.wait) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        ctxcheck.uninstall()
    assert [v for v in session.violations if v.grade != "unlikely"] == []
    assert session.counts().acquisitions > 100


# --- cost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_they_cost_at_most_400_bytes_more_than_the_real_ones(name: str) -> None:
    # in a process of its own: what others did to such objects decides how the interpreter stores their attributes
    output = python(f"""
        import tracemalloc, ctxcheck
        from ctxcheck.engine.raw import ORIGINALS
        def measure(factory):
            keep = [factory(*{ARGUMENTS.get(name, ())!r}) for _ in range(100)]
            tracemalloc.start()
            try:
                keep = [factory(*{ARGUMENTS.get(name, ())!r}) for _ in range(3000)]
                return tracemalloc.get_traced_memory()[0] / len(keep)
            finally:
                tracemalloc.stop()
        print(measure(getattr(ctxcheck, "{name}")) - measure(ORIGINALS["{name}"]))
    """)
    assert float(output.stdout) <= 400


def test_nothing_is_kept_alive() -> None:
    import gc
    import weakref

    gc.collect()
    gc.disable()
    try:
        with checking():
            for name in NAMES:
                thing = make(name)
                if hasattr(thing, "acquire"):
                    with thing:
                        pass
                gone = weakref.ref(thing)
                # (a Condition refers to its lock's methods, an Event to its Condition: no circles in the real ones)
                real = make(name, real=True)
                real_gone = weakref.ref(real)
                del thing, real
                assert (gone() is None) == (real_gone() is None), name
    finally:
        gc.enable()
