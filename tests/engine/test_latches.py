"""A plain lock that is tried once and never waited for may stay held: nobody hangs for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking
from tests.oracle import in_thread

Make = Callable[[], Any]


def leave_held(lock: Any) -> None:
    """A thread tries a lock, and ends with it."""
    in_thread(lambda: lock.acquire(blocking=False))


def let_go(lock: Any) -> None:
    """Take it, and lose it."""
    lock.acquire(blocking=False)


def make(label: str) -> Make:
    return lambda: ctxcheck.Lock(name=f"latches.{label}")


def test_who_comes_second_does_nothing() -> None:
    new = make("once")
    with checking() as session:
        first, second = new(), new()
        leave_held(first)
        leave_held(first)
        leave_held(second)
        let_go(new())
        assert not second.acquire(False)
    assert session.violations == []


def test_a_latch_is_set_back_by_a_new_one() -> None:
    class Service:
        def __init__(self) -> None:
            self.stopped = ctxcheck.Lock()

    service = Service()
    with checking() as session:
        assert service.stopped.acquire(blocking=False)
        service.__init__()  # type: ignore[misc]
    assert session.violations == []


@pytest.mark.parametrize("wait", [lambda lock: lock.acquire(), lambda lock: lock.acquire(timeout=60)])
@pytest.mark.parametrize("before", [True, False])
def test_somebody_waits_for_one_of_them(wait: Callable[[Any], object], before: bool) -> None:
    new = make(f"waited for {before}")
    with checking() as session:
        lock, other = new(), new()
        if before:
            wait(other)
            other.release()
        leave_held(lock)
        if not before:
            wait(other)
            other.release()
    assert [(v.rule, v.grade) for v in session.violations] == [("CTX303", "possible")]


def test_what_is_given_back_at_other_times() -> None:
    new = make("busy")
    with checking() as session:
        lock = new()
        for _ in range(3):
            if lock.acquire(blocking=False):
                lock.release()
        leave_held(lock)
    assert [(v.rule, v.grade) for v in session.violations] == [("CTX303", "possible")]


def test_an_rlock_is_its_owners() -> None:
    with checking() as session:
        leave_held(ctxcheck.RLock(name="latches.rlock"))
    assert [(v.rule, v.grade) for v in session.violations][:1] == [("CTX303", "certain")]
