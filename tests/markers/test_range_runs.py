"""Calls inside a bracket that are only counted: what is counted, where, and that nothing is overlooked for it."""

from __future__ import annotations

import _thread
import functools
import gc
import operator
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctxcheck import fastpath
from ctxcheck.engine.brackets import MAX_RUNS, TIMELINE
from ctxcheck.engine.owner import NO_RUNS
from ctxcheck.markers import atomic, might_sleep, range_, range_end, range_start, within_range

from .conftest import Check, make_lock, make_spin


class Mm:
    """An address space."""


@range_start("r")
def begin() -> None: ...


@range_end("r")
def finish() -> None: ...


@within_range("r")
def use() -> None: ...


@within_range("r")
def use_too() -> None: ...


@within_range("keyed", key="mm")
def keyed(mm: object) -> None: ...


@within_range("keyed", key="mm", at="x")
def keyed_at(mm: object, x: int) -> None: ...


def rows(check: Check, key: Any = None, name: str = "r") -> list[tuple[str, str, int]]:
    """The timeline: what, which function, how often."""
    return [(m.what, m.function, m.times) for m in check.engine.book.timeline(name, key)]


def insides(check: Check, key: Any = None, name: str = "r") -> list[tuple[int, int]]:
    """Of the calls inside, the line and the count."""
    moments = check.engine.book.timeline(name, key)
    return [(m.trace.head().line, m.times) for m in moments if m.what == "inside"]


def misses(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is looked at by more than a count from now on."""
    from ctxcheck.markers import ranges

    seen: list[object] = []
    real = ranges.use_range

    def use_range(*args: Any) -> None:
        seen.append(args[2].function)
        real(*args)

    monkeypatch.setattr(ranges, "use_range", use_range)
    return seen


# --- what is counted ------------------------------------------------------------------------------


def test_calls_from_one_place_are_one_moment_with_a_count(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = misses(monkeypatch)
    begin()
    for _ in range(100):
        use()
        use_too()
    use()
    assert seen == ["use", "use_too", "use"]
    finish()
    assert rows(check) == [
        ("opens", "begin", 1), ("inside", "use", 100), ("inside", "use_too", 100), ("inside", "use", 1),
        ("closes", "finish", 1),
    ]  # fmt: skip
    places = insides(check)
    assert places[1][0] == places[0][0] + 1
    assert places[2][0] == places[1][0] + 1


def test_two_callers_alike_are_told_apart(check: Check) -> None:
    def one() -> None:
        use()

    def two() -> None:
        use()

    begin()
    for caller in (one, two, one, two, two):
        caller()
    moments = [m for m in check.engine.book.timeline("r", None) if m.what == "inside"]
    assert {m.trace.function().rpartition(".")[2] for m in moments} == {"one", "two"}
    assert sum(m.times for m in moments) == 5
    finish()
    assert check.rules == []


def test_by_key_place_and_span(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = misses(monkeypatch)
    mm, number = Mm(), 10**6
    with range_("keyed", key=mm, span=(0, 8)), range_("keyed", key=number):
        for x in range(8):
            keyed(mm)
            keyed_at(mm, x)
            keyed(int(str(number)))  # equal, and another object
        assert seen == ["keyed", "keyed_at", "keyed"]
        assert [times for _, times in insides(check, mm, "keyed")] == [8, 8]
        assert [times for _, times in insides(check, number, "keyed")] == [8]
    assert check.rules == []


def test_through_the_wrappers_of_other_markers(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = misses(monkeypatch)

    @might_sleep
    @within_range("r")
    def both() -> None: ...

    begin()
    for _ in range(5):
        both()
    finish()
    assert len(seen) == 1
    ((line, times),) = insides(check)
    assert (line, times) == (both.__wrapped__.__wrapped__.__code__.co_firstlineno + 6, 5)  # type: ignore[attr-defined]


# --- nothing is overlooked ----------------------------------------------------------------------------


def test_the_same_call_after_the_end(check: Check) -> None:
    def work() -> None:
        use()

    for _ in range(3):
        begin()
        for _ in range(3):
            work()
        assert check.rules == []
        finish()
        work()
        assert check.rules == ["CTX201"]


def test_the_same_call_for_another_key_or_place(check: Check) -> None:
    mm, other = Mm(), Mm()
    with range_("keyed", key=mm, span=(0, 4)):
        for which in (mm, mm, other, mm, other):
            keyed(which)
            assert check.rules == (["CTX201"] if which is other else [])
        for x in (1, 2, 4, 3, 4):
            keyed_at(mm, x)
            assert check.rules == (["CTX201"] if x == 4 else [])


def test_the_same_call_by_another_owner(check: Check) -> None:
    def work() -> None:
        use()

    begin()
    work()
    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert check.rules == ["CTX201"]
    # the row of the other one comes between those of this one
    work()
    assert [(what, times) for what, _, times in rows(check)] == [
        ("opens", 1), ("inside", 2), ("OUTSIDE", 1), ("inside", 1),
    ]  # fmt: skip
    finish()


def test_the_same_call_where_the_range_was_opened_atomic(check: Check) -> None:
    with make_spin():
        with range_("r", sleeps=False):
            for _ in range(3):
                use()
                assert check.rules == ["CTX201"]
    begin()
    for _ in range(3):
        with make_spin(), atomic("x"):
            use()
    assert check.rules == []
    finish()


def test_in_a_session_that_comes_later(idle: Check) -> None:
    def work() -> None:
        use()

    idle.start()
    begin()
    work()
    work()
    idle.stop()
    work()
    other = Check()
    other.start()
    work()
    assert other.rules == ["CTX201"]
    other.stop()
    idle.start()


def test_a_range_of_anybody_may_be_closed_at_any_moment(check: Check) -> None:
    block = range_("r", owner="any")
    block.start()
    for number in range(4):
        use()
        assert check.rules == ([] if number < 2 else ["CTX201"])
        if number == 1:
            thread = threading.Thread(target=block.end)
            thread.start()
            thread.join()
    assert [(what, times) for what, _, times in rows(check)][:3] == [("opens", 1), ("inside", 2), ("closes", 1)]


def test_locks_and_blocks_in_the_range(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = make_lock()
    begin()
    seen = misses(monkeypatch)
    for _ in range(6):
        with lock:
            use()
    # the chain is the same each time
    assert seen == ["use"]
    finish()
    with lock:
        use()
    assert check.rules == ["CTX201"]


# --- bounds, and what is kept -------------------------------------------------------------------------


def test_many_places_and_keys(check: Check) -> None:
    lines = "\n".join(["use()"] * 200)
    begin()
    for _ in range(3):
        exec(lines, {"use": use})
    state = fastpath.current()
    history = check.engine.book.history("r", None)
    assert len(state.runs) <= MAX_RUNS
    assert len(history.runs) < TIMELINE
    assert len(history.moments) <= TIMELINE
    # what is counted is to be seen
    counted = {id(run.again) for run in history.runs}
    assert counted <= {id(moment.again) for moment in history.moments}
    finish()
    assert state.runs is NO_RUNS
    assert NO_RUNS == {}
    assert history.runs == []
    assert check.rules == []


def test_nothing_is_kept_beyond_the_end(check: Check) -> None:
    gc.collect()
    gc.disable()
    try:
        mm = Mm()
        gone = weakref.ref(mm)
        with range_("keyed", key=mm):
            keyed(mm)
            keyed(mm)
        del mm
        assert gone() is None
    finally:
        gc.enable()


def test_the_caller_s_frame_is_not_kept_by_a_body_that_is_suspended(check: Check) -> None:
    @within_range("r")
    def pieces() -> Iterator[int]:
        yield 1
        yield 2

    def caller(body: Iterator[int]) -> weakref.ref[Mm]:
        mine = Mm()
        next(body)
        return weakref.ref(mine)

    begin()
    bodies = [pieces(), pieces()]
    gc.disable()
    try:
        # looked at, and only counted
        assert [caller(body)() for body in bodies] == [None, None]
    finally:
        gc.enable()
    finish()
    assert check.rules == []


# --- callers that there aren't, and that raise ------------------------------------------------------------


def test_a_call_that_nobody_makes(check: Check) -> None:
    done = threading.Event()
    steps: list[Callable[[], object]] = [begin, use, use, functools.partial(keyed, 1), use, finish, use, done.set]
    # from C to the very end: the wrapper is the outermost function of its thread
    _thread.start_new_thread(list, (map(operator.call, steps),))
    assert done.wait(60)
    assert check.rules == ["CTX201", "CTX201"]
    assert [(what, times) for what, _, times in rows(check)] == [
        ("opens", 1), ("inside", 2), ("inside", 1), ("closes", 1), ("OUTSIDE", 1),
    ]  # fmt: skip


def test_an_error_of_a_signal_handler_s_is_not_taken_for_that(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(error: ValueError, depth: int) -> None:
        raise error

    begin()
    use()
    for error in (ValueError("mine"), ValueError("call stack is not deep enough")):
        monkeypatch.setitem(fastpath.__dict__, "_ctx_caller", functools.partial(handler, error))
        with pytest.raises(ValueError, match=str(error)):
            use()
        monkeypatch.undo()
    use()
    finish()
    assert check.rules == []
