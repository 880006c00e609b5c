"""CTX304: a lock that goes while it is held is told once, from a safe place, and never for what is fine."""

from __future__ import annotations

import dataclasses
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking, nested, track
from ctxcheck.session import Session
from tests.oracle import in_thread


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


class Raw:
    """Something to track."""

    def acquire(self, **_: Any) -> bool:
        return True

    def release(self) -> None:
        pass


MAKERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "lock": (lambda name: ctxcheck.Lock(name=name), "possible"),
    "rlock": (lambda name: ctxcheck.RLock(name=name), "certain"),
    "spin": (lambda name: ctxcheck.SpinLock(name=name), "certain"),
    "condition": (lambda name: ctxcheck.Condition(name=name), "certain"),
    "tracked": (lambda name: track(Raw(), name=name, shared=True), "possible"),
    "tracked rlock": (lambda name: track(Raw(), name=name, kind="rlock"), "certain"),
    "nested": (lambda name: nested(ctxcheck.SpinLock(name=name)), "certain"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_collected_while_it_is_held(kind: str) -> None:
    make, grade = MAKERS[kind]
    other = ctxcheck.Lock(name="destroyed.other")
    told: list[str] = []
    with checking(mode=lambda v: told.append(v.rule)) as session:
        lock = make(f"destroyed.{kind}")
        lock.acquire()
        gone = weakref.ref(lock)
        del lock
        assert gone() is None
        assert told == []  # nothing is told from a finalizer
        assert found(session) == [("CTX304", grade)]
        with other:
            assert session.held_locks() == ["destroyed.other"]
            assert told == (["CTX304"] if grade == "certain" else [])
    assert told == ["CTX304"]
    assert found(session) == [("CTX304", grade)]
    violation = session.violations[0]
    assert violation.sites[0].function.endswith("test_collected_while_it_is_held")
    assert "lock.acquire()" in violation.sites[0].text
    assert "del lock" in violation.sites[1].text
    assert session.graph()["edges"] == []


def test_a_shared_hold_of_each_reader_counts() -> None:
    with checking() as session:
        box = [track(Raw(), name="destroyed.readers", shared=True)]
        go, taken = threading.Event(), threading.Barrier(3)

        def read() -> None:
            box[0].acquire(shared=True)
            taken.wait()
            go.wait()

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        taken.wait()
        box.clear()
        go.set()
        for thread in threads:
            thread.join()
    assert found(session) == [("CTX304", "possible")]
    assert session.violations[0].count == 2


def test_it_is_told_once_a_place_and_not_again_at_the_end_of_the_owner() -> None:
    def work() -> None:
        lock = ctxcheck.SpinLock(name="destroyed.twice")
        lock.acquire()

    with checking() as session:
        in_thread(work)
        in_thread(work)
        work()
        work()
    assert found(session) == [("CTX304", "certain")]
    assert session.violations[0].count == 4


@pytest.mark.parametrize("kind", ["lock", "rlock", "spin"])
def test_of_a_thread_that_ended_it_is_the_other_rules_business(kind: str) -> None:
    make, grade = MAKERS[kind]
    with checking() as session:
        lock = make(f"destroyed.after.{kind}")
        in_thread(lock.acquire)
        del lock
        gc.collect()
    assert found(session) == [("CTX303", grade)]


def test_locks_that_are_handed_over_are_none() -> None:
    with checking() as session:
        for _ in range(2):
            lock = ctxcheck.Lock(name="destroyed.handed")
            lock.acquire()
            del lock
        assert found(session) == [("CTX304", "possible")]
        lock = ctxcheck.Lock(name="destroyed.handed")
        lock.acquire()
        in_thread(lock.release)
        lock.acquire()
        del lock
        assert found(session) == []
    assert found(session) == []


def test_semaphores_and_free_locks_are_none() -> None:
    with checking() as session:
        semaphore = ctxcheck.Semaphore(1, name="destroyed.semaphore")
        semaphore.acquire()
        del semaphore
        for make, _ in MAKERS.values():
            with make("destroyed.free"):
                pass
    assert found(session) == []


def test_what_was_taken_while_nobody_looked_is_none() -> None:
    lock = ctxcheck.SpinLock(name="destroyed.unseen")
    lock.acquire()
    with checking() as session:
        del lock
    with checking() as over:
        lock = ctxcheck.SpinLock(name="destroyed.unseen")
        lock.acquire()
    del lock
    assert found(session) == []
    assert found(over) == [("CTX303", "certain")]


def test_allowed_where_it_was_taken() -> None:
    with checking() as session:
        lock = ctxcheck.SpinLock(name="destroyed.allowed")
        with ctxcheck.allow("CTX304", reason="a test"):
            lock.acquire()
            del lock
    assert [v.allowed_by for v in session.violations] == ["a test"]


def test_a_finalizer_never_raises_and_never_waits_for_the_validator() -> None:
    """Collected while this very thread is inside the validator, with its mutex held."""
    lock = ctxcheck.RLock(name="destroyed.inside")
    a, b = (ctxcheck.Lock(name=f"destroyed.inside.{n}") for n in "ab")
    boxes: list[Any] = [lock]
    del lock
    with checking(mode="raise") as session:
        boxes[0].acquire()
        apply = session.engine.orders._apply_order

        def dropping(*event: Any) -> Any:
            assert session.engine.orders._mutex.locked()
            boxes.clear()
            return apply(*event)

        session.engine.orders._apply_order = dropping  # type: ignore[method-assign]
        with a, b:
            assert boxes == []
    assert found(session) == [("CTX304", "certain")]


# --- made anew ---------------------------------------------------------------------------------


def again(lock: Any) -> None:
    if isinstance(lock, ctxcheck.SpinLock | ctxcheck.Condition):
        lock.__init__(name="destroyed.again")  # type: ignore[misc]
    elif isinstance(lock, ctxcheck.Semaphore):
        lock.__init__(1, name="destroyed.again")  # type: ignore[misc]
    else:
        lock._at_fork_reinit()


ANEW: dict[str, Callable[[], Any]] = {
    "lock": lambda: ctxcheck.Lock(name="destroyed.again"),
    "rlock": lambda: ctxcheck.RLock(name="destroyed.again"),
    "spin": lambda: ctxcheck.SpinLock(name="destroyed.again"),
    "condition": lambda: ctxcheck.Condition(name="destroyed.again"),
    "semaphore": lambda: ctxcheck.Semaphore(1, name="destroyed.again"),
    "tracked": lambda: track(Raw(), name="destroyed.again", shared=True),
    "nested": lambda: nested(ctxcheck.Lock(name="destroyed.again")),
}


@pytest.mark.parametrize("kind", ANEW)
def test_reinitialised_while_it_is_held(kind: str) -> None:
    with checking() as session:
        lock = ANEW[kind]()
        lock.acquire()
        if kind == "rlock":
            lock.acquire()
        again(lock)
        assert found(session) == [("CTX304", "certain")]
        lock.acquire()
        lock.release()
        del lock
    assert found(session) == [("CTX304", "certain")]
    violation = session.violations[0]
    assert "re-initialised" in violation.message
    assert [site.role for site in violation.sites] == ["now", "held_now"]
    assert "lock.acquire()" in violation.sites[1].text


@pytest.mark.parametrize("kind", ANEW)
def test_reinitialised_while_it_is_free(kind: str) -> None:
    with checking() as session:
        lock = ANEW[kind]()
        again(lock)
        with lock:
            pass
        again(lock)
    assert found(session) == []


def test_by_another_thread_too_and_the_holder_is_named() -> None:
    with checking() as session:
        lock = ctxcheck.SpinLock(name="destroyed.theirs")
        with checking_held(lock):
            lock.__init__(name="destroyed.theirs")  # type: ignore[misc]
            assert not lock.locked()
    assert found(session) == [("CTX304", "certain")]
    assert "while thread 'holder' held it" in session.violations[0].message


class checking_held:  # noqa: N801  # reads as a block
    """Another thread holds the lock meanwhile, and leaves without a release."""

    def __init__(self, lock: Any) -> None:
        self.taken, self.go = threading.Event(), threading.Event()

        def hold() -> None:
            lock.acquire()
            self.taken.set()
            self.go.wait()

        self.thread = threading.Thread(target=hold, name="holder")

    def __enter__(self) -> None:
        self.thread.start()
        self.taken.wait()

    def __exit__(self, *_: object) -> None:
        self.go.set()
        self.thread.join()


def test_in_mode_raise_it_raises_at_the_call_and_nothing_has_happened() -> None:
    with checking(mode="raise") as session:
        lock = ctxcheck.SpinLock(name="destroyed.raise")
        with lock:
            with pytest.raises(ctxcheck.ViolationError, match="CTX304"):
                lock.__init__(name="destroyed.raise")  # type: ignore[misc]
            assert lock.locked()
            assert session.held_locks() == ["destroyed.raise"]
        assert not lock.locked()
        assert session.held_locks() == []


# --- replaced ------------------------------------------------------------------------------------


class Buffer:
    def __init__(self, make: Callable[..., Any] = ctxcheck.Lock) -> None:
        self.make = make
        self.reset()

    def reset(self) -> None:
        self.lock = ctxcheck.Lock()

    def reset_condition(self) -> None:
        self.lock = ctxcheck.Condition()

    def reset_mangled(self) -> None:
        self.__lock = ctxcheck.RLock()

    def reset_tracked(self) -> None:
        self.rw = track(Raw(), name="destroyed.rw")

    @property
    def mangled(self) -> Any:
        return self.__lock


class Slotted:
    __slots__ = ("lock",)

    def __init__(self) -> None:
        self.lock = ctxcheck.SpinLock()


def test_replaced_while_it_is_held() -> None:
    buffer = Buffer()
    with checking() as session:
        with buffer.lock:
            buffer.reset()
        assert session.held_locks() == []
        with buffer.lock:
            pass
    assert found(session) == [("CTX304", "certain")]
    violation = session.violations[0]
    assert "was replaced while" in violation.message
    assert violation.sites[0].text.strip() == "self.lock = ctxcheck.Lock()"
    assert violation.sites[1].text.strip() == "with buffer.lock:"


def test_replaced_whatever_it_is_and_wherever_it_is_kept() -> None:
    for again in ("reset_condition", "reset_mangled", "reset_tracked"):
        buffer = Buffer()
        with checking() as session:
            getattr(buffer, again)()
            held = {"reset_condition": "lock", "reset_mangled": "mangled", "reset_tracked": "rw"}[again]
            with getattr(buffer, held):
                getattr(buffer, again)()
        assert found(session) == [("CTX304", "certain")], again
    slotted = Slotted()
    with checking() as session, slotted.lock:
        slotted.__init__()  # type: ignore[misc]
    assert found(session) == [("CTX304", "certain")]


def test_replaced_and_then_collected_is_one_finding() -> None:
    buffer = Buffer()
    with checking() as session:
        buffer.lock.acquire()
        buffer.reset()
    assert found(session) == [("CTX304", "certain")]


def test_replaced_while_it_is_free_or_in_another_object_is_none() -> None:
    one, other = Buffer(), Buffer()
    with checking() as session:
        one.reset()
        with one.lock:
            other.reset()

            class Child(Buffer):
                def reset(self) -> None:
                    self.lock = [ctxcheck.Lock()]

            Child().reset()

        @dataclasses.dataclass
        class Point:
            lock: Any = dataclasses.field(default_factory=ctxcheck.Lock)

        with Point().lock:
            Point()
    assert found(session) == []


def test_looking_for_the_old_lock_runs_none_of_the_programs_code() -> None:
    class Touchy:
        @property
        def lock(self) -> Any:
            raise AssertionError

        @lock.setter
        def lock(self, value: Any) -> None:
            self.kept = value

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

        def __getattribute__(self, name: str) -> Any:
            assert name != "lock"
            return object.__getattribute__(self, name)

        def __init__(self) -> None:
            self.lock = ctxcheck.Lock()

    with checking() as session:
        Touchy()
    assert found(session) == []


# --- fork ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_in_a_forked_child_making_anew_is_right() -> None:
    program = """
import os, threading, warnings
warnings.simplefilter("ignore")
import ctxcheck
locks = [ctxcheck.Lock(name="a"), ctxcheck.RLock(name="b")]
class Box:
    def reset(self): self.lock = ctxcheck.Lock()
box = Box(); box.reset()
with ctxcheck.checking() as session:
    taken, go = threading.Event(), threading.Event()
    def hold():
        for lock in (*locks, box.lock): lock.acquire()
        taken.set(); go.wait()
        for lock in (*locks, box.lock): lock.release()
    thread = threading.Thread(target=hold); thread.start(); taken.wait()
    os.register_at_fork(after_in_child=box.reset)
    for lock in locks: os.register_at_fork(after_in_child=lock._at_fork_reinit)
    child = os.fork()
    if not child:
        for lock in (*locks, box.lock):
            with lock: pass
        print([v.rule for v in session.violations], session.held_locks(), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    go.set(); thread.join()
print([v.rule for v in session.violations])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert run.stdout == "[] []\n[]\n", run.stderr
