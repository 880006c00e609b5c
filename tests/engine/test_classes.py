"""Lock classes, their steps, and how many locks of one there are."""

from __future__ import annotations

import gc
import threading

import pytest

import ctxcheck
from ctxcheck.engine.classes import (
    ACQUIRE,
    EVERYTHING,
    FREE,
    KINDS,
    LOCK,
    REGISTRY,
    RLOCK,
    TIMED,
    TRY,
    WITH,
    ClassRegistry,
    ContextStep,
    LockClass,
    Mode,
)


def test_a_step_is_always_the_same_object_also_for_threads_at_once() -> None:
    for _ in range(50):
        lock_class = LockClass("step", "step", LOCK)
        start = threading.Barrier(4)
        seen: list[object] = []

        def ask(lock_class: LockClass, start: threading.Barrier, seen: list[object]) -> None:
            start.wait()
            seen.append((lock_class.step(WITH), lock_class.step(WITH).by_call, lock_class.step(TRY)))

        threads = [threading.Thread(target=ask, args=(lock_class, start, seen)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(seen)) == 1


def test_by_with_and_by_call_are_two_steps_and_only_one_is_scoped() -> None:
    lock_class = LockClass("a", "a", LOCK)
    by_with, by_call = lock_class.step(WITH), lock_class.step(WITH).by_call
    assert by_call is lock_class.step(ACQUIRE)
    assert by_call is not by_with
    assert (WITH.scoped, ACQUIRE.scoped) == (True, False)
    assert by_call.by_call is by_call


@pytest.mark.parametrize(
    ("name", "takes"), [("lock", FREE), ("rlock", FREE), ("spin", EVERYTHING), ("semaphore", FREE), ("region", 0)]
)
def test_what_a_holder_loses(name: str, takes: int) -> None:
    assert LockClass("k", "k", KINDS[name]).step(WITH).takes == takes


def test_kinds_by_name() -> None:
    assert {name for name, kind in KINDS.items() if kind.reentrant} >= {"rlock"}
    assert not {"lock", "spin", "semaphore"} & {name for name, kind in KINDS.items() if kind.reentrant}
    assert {name for name, kind in KINDS.items() if not kind.sleeps} >= {"spin"}
    assert {name for name, kind in KINDS.items() if not kind.guards} >= {"semaphore"}
    assert all(kind.name == name for name, kind in KINDS.items())


def test_modes_that_wait_and_modes_that_dont() -> None:
    assert (WITH.waits, WITH.timed) == (True, False)
    assert (TIMED.waits, TIMED.timed) == (True, True)
    assert (TRY.waits, TRY.timed) == (False, False)
    assert Mode("with") != WITH, "modes are themselves, not their fields"


def test_a_context_step_is_no_lock() -> None:
    step = ContextStep("atomic", "handler", EVERYTHING)
    assert step.lock_class is None
    assert step.mode is None
    assert step.takes == EVERYTHING


# --- how many there are ---------------------------------------------------------------


def test_live_counts_the_locks_that_exist_now_and_created_those_that_ever_did() -> None:
    gc.collect()
    locks = [ctxcheck.Lock(name="live") for _ in range(5)]
    locks += [ctxcheck.RLock(name="live.R"), ctxcheck.SpinLock(name="live.S")]
    lock_class = locks[0].step.lock_class
    assert (lock_class.live(), lock_class.created) == (5, 5)
    del locks[:2]
    assert (lock_class.live(), lock_class.created) == (3, 5)
    assert locks[-1].step.lock_class.live() == 1
    assert locks[-2].step.lock_class.live() == 1
    locks.clear()
    assert (lock_class.live(), lock_class.created) == (0, 5)
    assert LockClass("none", "none", LOCK).live() == 0


def test_semaphores_and_tracked_objects_count_too() -> None:
    semaphore = ctxcheck.Semaphore(name="live.sem")
    tracked = ctxcheck.track(threading.Lock(), name="live.tracked")
    for key in ("live.sem", "live.tracked"):
        (lock_class,) = [c for c in REGISTRY.all() if c.key == key]
        assert (lock_class.live(), lock_class.created) == (1, 1)
    del semaphore, tracked
    assert [c.live() for c in REGISTRY.all() if c.key in ("live.sem", "live.tracked")] == [0, 0]


# --- the registry ------------------------------------------------------------------------


def test_one_class_a_key_and_another_for_another_kind() -> None:
    registry = ClassRegistry()
    first = registry.get("m:x", "x", LOCK)
    assert registry.get("m:x", "y", LOCK) is first
    other = registry.get("m:x", "x", RLOCK)
    assert other is not first
    assert other.key != first.key
    assert other.kind is RLOCK
    assert registry.get("m:x", "x", RLOCK) is other
    assert registry.all() == [first, other]


def test_threads_that_make_a_class_at_once_get_the_same_one() -> None:
    registry = ClassRegistry()
    start = threading.Barrier(8)
    seen: list[LockClass] = []

    def make() -> None:
        start.wait()
        seen.extend(registry.get(f"m:{i}", f"{i}", LOCK) for i in range(50))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.all()) == 50
    assert len({id(c) for c in seen}) == 50


def test_a_name_given_to_two_kinds_is_two_classes() -> None:
    lock, rlock = ctxcheck.Lock(name="one.name"), ctxcheck.RLock(name="one.name")
    assert lock.step.lock_class is not rlock.step.lock_class
    assert lock.step.lock_class.name == rlock.step.lock_class.name
    with ctxcheck.checking() as session:
        with lock, rlock:
            pass
    assert session.violations == [], "not two locks of one class"
