"""The ten rules of the seed mail, broken and nearly broken, through the public names (S1-S10)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import ctxcheck
from ctxcheck import (
    SpinLock,
    assert_held,
    atomic,
    checking,
    might_sleep,
    range_end,
    range_start,
    requires_lock,
    within_range,
)


class Space:
    """An address space: a sleepable lock, a page lock that must not be slept under, and its markers."""

    def __init__(self) -> None:
        self.mmap = ctxcheck.RLock(name="mmap")
        self.page = SpinLock(name="page")

    @range_start("mmu", span=("start", "end"))
    def begin(self, start: int, end: int) -> None: ...

    @range_end("mmu", span=("start", "end"))
    def finish(self, start: int, end: int) -> None: ...

    @within_range("mmu", at="address")
    @requires_lock("self.page")
    @atomic
    def invalidate_page(self, address: int) -> None: ...


@might_sleep
def nap() -> None: ...


def broken(session: ctxcheck.Session) -> list[str]:
    return sorted(v.rule for v in session.violations)


def test_s1_a_sleepable_lock_under_a_page_lock() -> None:
    space = Space()
    with checking() as session:
        with space.page, space.mmap:
            pass
    assert broken(session) == ["CTX102"]


def test_s1_near_miss_a_page_lock_under_a_sleepable_one_or_another_page_lock_or_a_try() -> None:
    space, other = Space(), SpinLock(name="other page")
    with checking() as session:
        with space.mmap, space.page, other:
            pass
        with space.page:
            assert space.mmap.acquire(blocking=False)
            space.mmap.release()
    assert broken(session) == []


def test_s1_a_timed_acquire_may_sleep_too() -> None:
    space = Space()
    with checking() as session:
        with space.page:
            space.mmap.acquire(timeout=1)
            space.mmap.release()
    assert broken(session) == ["CTX102"]


def test_s2_what_may_sleep_may_under_a_sleepable_lock() -> None:
    space = Space()
    with checking() as session:
        with space.mmap:
            nap()
    assert broken(session) == []


def test_s3_atomic_holds_however_deep() -> None:
    def helper() -> None:
        nap()

    @atomic
    def change_pte() -> None:
        helper()

    with checking() as session:
        change_pte()
    assert broken(session) == ["CTX101"]
    nap()


def test_s3_waits_of_all_sorts_are_sleeps() -> None:
    event, condition, semaphore = ctxcheck.Event(), ctxcheck.Condition(), ctxcheck.Semaphore(2)
    event.set()
    with checking() as session:
        with atomic("a"):
            event.wait(1)
        with atomic("b"):
            semaphore.acquire()
        with condition, atomic("c"):
            condition.wait(0.001)
        with atomic("d"):
            event.wait(0)
            semaphore.acquire(blocking=False)
    assert broken(session) == ["CTX101", "CTX101", "CTX101"]


def test_s4_a_start_and_an_end_are_sleep_points() -> None:
    space = Space()
    with checking() as session:
        with atomic("walk"):
            space.begin(0, 8)
            space.finish(0, 8)
    assert broken(session) == ["CTX101", "CTX101"]


def test_s5_all_four_crossings() -> None:
    space = Space()
    with checking() as session:  # start under the page lock, which is dropped inside
        space.page.acquire()
        space.begin(0, 8)
        space.page.release()
        space.finish(0, 8)
    assert broken(session) == ["CTX101", "CTX205"]
    with checking() as session:  # end under the page lock, taken inside
        space.begin(0, 8)
        with space.page:
            space.finish(0, 8)
    assert broken(session) == ["CTX101", "CTX205"]
    with checking() as session:  # a sleepable lock, taken before and dropped inside
        space.mmap.acquire()
        space.begin(0, 8)
        space.mmap.release()
        space.finish(0, 8)
    assert broken(session) == ["CTX205"]
    with checking() as session:  # a sleepable lock, taken inside and still held
        space.begin(0, 8)
        space.mmap.acquire()
        space.finish(0, 8)
        space.mmap.release()
    assert broken(session) == ["CTX205"]


def test_s5_near_miss_enclosed_on_either_side() -> None:
    space = Space()
    with checking() as session:
        with space.mmap:
            space.begin(0, 8)
            with space.page:
                space.invalidate_page(3)
            space.finish(0, 8)
        nap()
    assert broken(session) == []


def test_s6_per_page_work_needs_the_page_lock_and_the_range() -> None:
    space = Space()
    with checking() as session:
        space.begin(0, 8)
        space.invalidate_page(3)
        space.finish(0, 8)
        with space.page:
            space.invalidate_page(3)
        assert_held(space.page)
    assert broken(session) == ["CTX201", "CTX301", "CTX301"]


def test_s7_s10_the_check_is_at_the_entry_of_the_wrapper_whether_or_not_it_would_sleep() -> None:
    slept = []

    @might_sleep
    def notify(callbacks: list[object]) -> None:
        slept.extend(callbacks)

    with checking() as session:
        with atomic("walk"):
            notify([])
            might_sleep()
    assert broken(session) == ["CTX101", "CTX101"]
    assert slept == []


def in_thread(work: object) -> None:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    thread.join()


@pytest.mark.parametrize("how", ["never", "after", "elsewhere", "other object", "outside", "half-open end"])
def test_s8_outside_the_range(how: str) -> None:
    space, other = Space(), Space()
    with checking() as session:
        if how != "never":
            (other if how == "other object" else space).begin(0, 8)
        if how == "after":
            space.finish(0, 8)

        def use() -> None:
            with space.page:
                space.invalidate_page({"outside": 9, "half-open end": 8}.get(how, 3))

        if how == "elsewhere":
            in_thread(use)
        else:
            use()
        if how not in ("never", "after"):
            (other if how == "other object" else space).finish(0, 8)
    assert broken(session) == ["CTX201"]
    messages = {v.message for v in session.violations}
    assert len(messages) == 1


def test_s8_a_range_that_was_opened_where_sleeping_was_not_allowed() -> None:
    space = Space()
    with checking() as session:
        with atomic("reclaim"):
            space.begin(0, 8)
        with space.page:
            space.invalidate_page(3)
        space.finish(0, 8)
    assert broken(session) == ["CTX101", "CTX201"]


def test_s8_ends_without_starts_and_starts_without_ends() -> None:
    space = Space()
    with checking() as session:
        space.finish(0, 8)
        space.begin(0, 8)
        space.finish(0, 4)
        space.finish(0, 8)
        space.finish(0, 8)
    assert broken(session) == ["CTX202", "CTX202"]  # the first and the last are one finding
    with checking() as session:
        in_thread(lambda: space.begin(0, 8))
    assert broken(session) == ["CTX203"]


def test_s8_ranges_nest_and_many_may_be_open() -> None:
    space = Space()
    with checking() as session:
        space.begin(0, 8)
        space.begin(4, 16)
        with space.page:
            space.invalidate_page(12)
        space.finish(0, 8)
        with space.page:
            space.invalidate_page(5)
        space.finish(4, 16)
    assert broken(session) == []


def test_a_start_that_raises_opens_nothing_and_an_end_that_raises_closes() -> None:
    @range_start("r")
    def start(fail: bool) -> None:
        if fail:
            raise OSError

    @range_end("r")
    def end() -> None:
        raise OSError

    with checking() as session:
        with pytest.raises(OSError):
            start(True)
        start(False)
        with pytest.raises(OSError):
            end()
    assert broken(session) == []


def test_s9_a_callback_is_validated_as_a_callee_by_name() -> None:
    def sleepy_driver() -> None:
        nap()

    def invalidate(callbacks: list[object]) -> None:
        with atomic("page walk"):
            for callback in callbacks:
                callback()  # type: ignore[operator]

    with checking() as session:
        nap()
        invalidate([sleepy_driver])
        nap()
    [violation] = session.violations
    assert violation.sites[0].function.endswith("sleepy_driver")
    assert "nap" in violation.message
    assert "page walk" in violation.message


def test_the_reason_of_a_mark_is_in_the_report() -> None:
    @might_sleep("it asks the server")
    def ask() -> None: ...

    with checking() as session, atomic("x"):
        ask()
    assert "it asks the server" in session.violations[0].notes


def test_atomic_generators_and_coroutines_hold_while_their_body_runs_only() -> None:
    @atomic
    def pages() -> Iterator[int]:
        yield 1
        nap()
        yield 2

    @atomic
    async def walk() -> None:
        nap()

    @atomic
    async def waits() -> None:
        await asyncio.sleep(0)

    with checking() as session:
        generator = pages()
        assert next(generator) == 1
        nap()  # not inside: the generator is suspended
        assert session.violations == []
        assert next(generator) == 2
        asyncio.run(walk())
        asyncio.run(waits())
    assert broken(session) == ["CTX101", "CTX101", "CTX101"]
