"""Brackets: opened, closed and needed by marked functions and by blocks."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import signal
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from ctxcheck import fastpath
from ctxcheck.engine import ranges
from ctxcheck.engine.brackets import MAX_KEYS, Point, covers, describe_key, describe_span, same_span
from ctxcheck.engine.errors import ViolationError
from ctxcheck.markers import allow, atomic, range_, range_end, range_start, within_range

from .conftest import Check, make_lock, make_spin


class Mm:
    """An address space."""

    def __init__(self, number: int = 0) -> None:
        self.id = number


@range_start("mmu", key="mm", span=("start", "end"), why="devices must forget")
def start(mm: Mm, start: Any, end: Any) -> str:
    return "started"


@range_end("mmu", key="mm", span=("start", "end"))
def end(mm: Mm, start: Any, end: Any) -> str:
    return "ended"


@range_start("mmu", key="mm", span=("start", "end"), sleeps=False)
def start_nonblock(mm: Mm, start: Any, end: Any) -> None: ...


@range_end("mmu", key="mm", span=("start", "end"), sleeps=False)
def end_nonblock(mm: Mm, start: Any, end: Any) -> None: ...


@within_range("mmu", key="mm", at="address", why="it may be mapped again")
def page(mm: Mm, address: Any) -> str:
    return "page"


@within_range("mmu", key="mm", span=("start", "end"))
def pages(mm: Mm, start: Any, end: Any) -> None: ...


@within_range("mmu", key="mm")
def anywhere(mm: Mm) -> None: ...


@within_range("mmu", key="mm", owner="any")
def by_anyone(mm: Mm) -> None: ...


@within_range("mmu", key="mm", sleepable=False)
def hardly_picky(mm: Mm) -> None: ...


def run_in_thread(work: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in errors:
        raise error


def reasons(check: Check) -> list[str]:
    found = [finding.facts.reason for finding in check.findings]  # type: ignore[union-attr]
    check.findings.clear()
    return found


@pytest.fixture
def mm() -> Mm:
    return Mm()


# --- S8: a call that needs its range --------------------------------------------------------------


def test_inside_is_clean(check: Check, mm: Mm) -> None:
    assert start(mm, 16, 32) == "started"
    assert page(mm, 16) == page(mm, 31) == "page"
    pages(mm, 16, 32)
    pages(mm, 20, 21)
    anywhere(mm)
    with make_spin():
        page(mm, 20)
    assert end(mm, 16, 32) == "ended"
    assert check.rules == []
    assert check.inside == []


def test_each_way_to_be_outside(check: Check, mm: Mm) -> None:
    page(mm, 16)
    assert reasons(check) == ["never opened"]
    start(mm, 16, 32)
    page(mm, 15)
    page(mm, 32)
    pages(mm, 15, 17)
    pages(mm, 31, 33)
    assert reasons(check) == ["outside span"] * 4
    page(Mm(), 16)
    assert reasons(check) == ["other key"]
    run_in_thread(lambda: page(mm, 16))
    assert reasons(check) == ["other owner"]
    end(mm, 16, 32)
    assert reasons(check) == []
    page(mm, 16)
    assert reasons(check) == ["closed"]
    with make_spin():
        start_nonblock(mm, 16, 32)
        page(mm, 16)
        assert reasons(check) == ["opened atomic"]
        hardly_picky(mm)
        end_nonblock(mm, 16, 32)
    assert reasons(check) == []


def test_the_finding_says_what_was_needed(check: Check, mm: Mm) -> None:
    def caller() -> None:
        page(mm, 0x5000)

    start(mm, 0x1000, 0x5000)
    caller()
    (finding,) = check.findings
    facts: Any = finding.facts
    assert (facts.name, facts.function, facts.key, facts.span) == ("mmu", "page", "<Mm>", "0x5000")
    assert facts.why == "it may be mapped again"
    assert facts.other == "<Mm> [0x1000, 0x5000)"
    assert facts.declared.head().line == page.__wrapped__.__code__.co_firstlineno  # type: ignore[attr-defined]
    assert finding.trace.function() == caller.__qualname__
    assert [moment.what for moment in facts.timeline] == ["opens", "OUTSIDE"]
    assert facts.opened.trace.function() == test_the_finding_says_what_was_needed.__qualname__


def test_an_address_must_be_in_one_range(check: Check, mm: Mm) -> None:
    start(mm, 0, 8)
    start(mm, 8, 16)
    page(mm, 7)
    page(mm, 8)
    assert reasons(check) == []
    pages(mm, 7, 9)
    assert reasons(check) == ["outside span"]


@pytest.mark.parametrize(
    ("low", "inside", "high"),
    [(1, 2, 3), (1.5, 1.75, 1.8), ("a", "ab", "b"), (Decimal(1), Decimal("1.5"), 2), ((1,), (1, 0), (2,))],
)
def test_spans_of_anything_ordered(check: Check, mm: Mm, low: Any, inside: Any, high: Any) -> None:
    start(mm, low, high)
    page(mm, low)
    page(mm, inside)
    pages(mm, low, high)
    assert reasons(check) == []
    page(mm, high)
    assert reasons(check) == ["outside span"]
    end(mm, low, high)
    assert reasons(check) == []


def test_owner_any_at_the_use(check: Check, mm: Mm) -> None:
    start(mm, 0, 8)
    run_in_thread(lambda: by_anyone(mm))
    assert reasons(check) == []
    end(mm, 0, 8)
    by_anyone(mm)
    assert reasons(check) == ["closed"]


def test_owner_any_at_the_start(check: Check) -> None:
    @range_start("shared", owner="any")
    def begin() -> None: ...

    @range_end("shared")
    def finish() -> None: ...

    @within_range("shared")
    def use() -> None: ...

    run_in_thread(begin)
    use()
    run_in_thread(use)
    finish()
    assert reasons(check) == []
    use()
    assert reasons(check) == ["closed"]


# --- starts and ends --------------------------------------------------------------------------------


def test_starts_and_ends_are_sleep_points(check: Check, mm: Mm) -> None:
    with atomic("irq"):
        start(mm, 0, 1)
        assert check.facts().how == "start"
        end(mm, 0, 1)
        assert check.facts().how == "end"
        start_nonblock(mm, 0, 1)
        end_nonblock(mm, 0, 1)
    assert check.rules == []


def test_a_start_that_raises_opens_nothing(check: Check) -> None:
    @range_start("r")
    def begin() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        begin()
    assert check.inside == []


def test_a_start_opens_when_it_returns(check: Check) -> None:
    seen: list[list[str]] = []

    @range_start("r")
    def begin() -> None:
        seen.append(check.inside)

    @range_end("r")
    def finish() -> None:
        seen.append(check.inside)

    begin()
    finish()
    assert seen == [[], ["r"]]
    assert check.inside == []


def test_an_end_that_raises_closes(check: Check) -> None:
    @range_start("r")
    def begin() -> None: ...

    @range_end("r")
    def finish() -> None:
        raise KeyError("mine")

    begin()
    lock = make_lock()
    lock.acquire(False)
    check.raises = True
    with pytest.raises(KeyError, match="mine"):
        finish()
    assert check.rules == ["CTX205"]
    assert check.inside == ["lock"]
    lock.release()


class Interrupted(Exception):
    """What a signal handler raises."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("owner", ["self", "any"])
def test_a_start_that_is_interrupted_opens_nothing(
    check: Check, monkeypatch: pytest.MonkeyPatch, when: str, owner: Any
) -> None:
    @range_start("interrupted", owner=owner)
    def begin() -> None: ...

    real = ranges.open_range

    def open_range(*args: Any, **options: Any) -> None:
        if when == "after":
            real(*args, **options)
        raise Interrupted

    monkeypatch.setattr(ranges, "open_range", open_range)
    for start_it in (begin, range_("interrupted", owner=owner).start):
        with pytest.raises(Interrupted):
            start_it()
    assert check.inside == []
    assert check.engine.book.everywhere == fastpath.current().brackets == []


@pytest.mark.parametrize(("function", "when"), [
    ("find_fitting", "before"), ("find_fitting", "after"), ("close_range", "before"), ("close_range", "after"),
])  # fmt: skip
def test_an_end_that_is_interrupted_closes(
    check: Check, monkeypatch: pytest.MonkeyPatch, function: str, when: str
) -> None:
    @range_end("interrupted")
    def finish() -> None: ...

    real = getattr(ranges, function)
    block = range_("interrupted")
    block.start()
    for end_it in (finish, block.end, lambda: block.__exit__(None, None, None)):
        block.start()
        once = iter([True])

        def interrupted(*args: Any, **options: Any) -> Any:
            if when == "before" and next(once, False):
                raise Interrupted
            result = real(*args, **options)
            if next(once, False):
                raise Interrupted
            return result

        monkeypatch.setattr(ranges, function, interrupted)
        with pytest.raises(Interrupted):
            end_it()
        monkeypatch.undo()
        # one of the two, and no more
        assert check.inside == ["interrupted"]
        assert len(check.engine.book.everywhere) == len(fastpath.current().brackets) == 1
    block.end()
    assert check.rules == []


def test_a_signal_at_the_end_of_a_block_comes_after_it(check: Check) -> None:
    def handler(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGINT, handler)
    block = range_("interrupted")
    try:
        block.__enter__()
        with pytest.raises(Interrupted):  # noqa: PT012
            # pending, and looked for at the entry of a function at the earliest
            for _ in map(_thread.interrupt_main, (signal.SIGINT,)):
                block.__exit__(None, None, None)
                break
            page(Mm(), 0)
    finally:
        signal.signal(signal.SIGINT, before)
    assert check.inside == []


def test_unpaired_ends(check: Check, mm: Mm) -> None:
    end(mm, 0, 8)
    assert reasons(check) == ["unpaired"]
    start(mm, 0, 8)
    end(mm, 0, 9)
    end(Mm(), 0, 8)
    assert reasons(check) == ["other span", "other key"]
    run_in_thread(lambda: end(mm, 0, 8))
    assert reasons(check) == ["other owner"]
    end(mm, 0, 8)
    assert reasons(check) == []
    # a second end, whatever else is open
    other = Mm()
    start(other, 0, 8)
    end(mm, 0, 8)
    assert reasons(check) == ["unpaired"]
    end(other, 0, 8)


def test_the_timeline_is_that_of_the_key(check: Check, mm: Mm) -> None:
    other = Mm()
    start(other, 0, 8)
    page(other, 1)
    start(mm, 0, 8)
    end(other, 0, 8)
    page(mm, 9)
    facts = check.facts()
    assert [moment.what for moment in facts.timeline] == ["opens", "OUTSIDE"]
    assert facts.elsewhere == ()
    assert facts.pair == ("start", "end")
    page(other, 1)  # closed, but what this owner has open is another one
    facts = check.facts()
    assert facts.reason == "other key"
    assert [moment.what for moment in facts.timeline] == ["opens", "inside", "closes", "OUTSIDE"]
    assert [moment.what for moment in facts.elsewhere] == ["opens", "OUTSIDE"]
    serials = [moment.serial for moment in (*facts.timeline, *facts.elsewhere)]
    assert len(set(serials)) == len(serials)
    end(mm, 0, 8)


@pytest.mark.parametrize(
    "make", [lambda: "k" * 3, lambda: 5_000, lambda: ("a", (1, None)), lambda: None, Mm], ids=str
)
def test_a_closed_bracket_is_remembered_by_its_key(check: Check, make: Callable[[], Any]) -> None:
    key = make()
    with range_("r", key=key):
        pass
    for _ in range(400):  # others, more than are kept
        with range_("r", key=object()):
            pass
        with range_("r", key=key):
            pass
    range_("r", key=key).end()
    facts = check.facts()
    assert facts.closed is not None
    assert facts.closed.what == "closes"


def test_a_key_that_cannot_be_remembered_is_not_taken_for_another(check: Check) -> None:
    # a list has no weak references; another one may come to its place in memory
    places = set()
    for _ in range(50):
        key = [1]
        again = id(key) in places
        places.add(id(key))
        range_("r", key=key).end()
        facts = check.facts()
        assert facts.closed is None
        assert [moment.what for moment in facts.timeline][-1] == "UNPAIRED"
        with range_("r", key=key):
            pass
        del key
        if again:
            break
    else:
        pytest.skip("the interpreter used no place twice")


def test_the_histories_of_keys_do_not_pile_up(check: Check) -> None:
    for number in range(2 * MAX_KEYS):
        with range_("r", key=number):
            pass
    range_("r", key=0).end()
    assert check.facts().closed is None  # long gone
    range_("r", key=2 * MAX_KEYS - 1).end()
    assert check.facts().closed is not None
    assert len(check.engine.book._histories["r"]) <= MAX_KEYS


def test_a_free_range_that_nobody_closes(idle: Check) -> None:
    idle.start()
    bracket = range_("free", owner="any", why="users wait for it")
    bracket.start()
    run_in_thread(bracket.start)
    run_in_thread(bracket.end)
    assert idle.rules == []
    idle.engine.close("run")
    (finding,) = idle.findings
    assert (finding.rule, finding.grade) == ("CTX203", "possible")
    facts = idle.facts()
    assert (facts.reason, facts.why, facts.other) == ("never closed", "users wait for it", "run")


def test_left_open_where_that_is_allowed(idle: Check) -> None:
    idle.start()

    def leave() -> None:
        with allow("CTX203", reason="closed by the process that comes next"):
            range_("handed on").start()
        range_("forgotten").start()

    run_in_thread(leave)
    allowed = {finding.identity[0]: finding.allowed for finding in idle.findings}
    assert allowed == {"handed on": "closed by the process that comes next", "forgotten": None}
    idle.findings.clear()
    with allow("CTX203", reason="a free one"):
        range_("free", owner="any").start()
    idle.engine.close()
    assert [finding.allowed for finding in idle.findings] == ["a free one"]


def test_ranges_nest_and_cross_each_other(check: Check, mm: Mm) -> None:
    start(mm, 0, 8)
    start(mm, 0, 8)
    start(mm, 4, 12)
    end(mm, 0, 8)
    page(mm, 11)
    page(mm, 0)
    end(mm, 4, 12)
    page(mm, 0)
    end(mm, 0, 8)
    assert reasons(check) == []
    assert check.inside == []


def test_a_range_goes_around_the_locked_region(check: Check, mm: Mm) -> None:
    lock = make_lock()
    with lock:
        start(mm, 0, 8)
        end(mm, 0, 8)
    start(mm, 0, 8)
    with lock:
        page(mm, 1)
    end(mm, 0, 8)
    assert reasons(check) == []
    lock.acquire()
    start(mm, 0, 8)
    lock.release()
    assert reasons(check) == ["lock released inside"]
    lock.acquire()
    end(mm, 0, 8)
    assert reasons(check) == ["lock held at end"]
    lock.release()
    assert check.inside == []


def test_opened_where_sleeping_was_forbidden_at_the_call(check: Check) -> None:
    spin = make_spin("pte")

    @range_start("r", sleeps=False)
    def begin() -> None:
        spin.release()

    @range_end("r")
    def finish() -> None: ...

    @within_range("r")
    def use() -> None: ...

    spin.acquire()
    begin()
    use()
    facts = check.facts()
    assert (facts.reason, facts.because.name) == ("opened atomic", "pte")
    finish()
    assert check.rules == []


def test_raise_mode(check: Check, mm: Mm) -> None:
    ran: list[str] = []

    @range_start("r")
    def begin() -> None:
        ran.append("begin")

    @range_end("r")
    def finish() -> None:
        ran.append("finish")

    @within_range("r")
    def use() -> None:
        ran.append("use")

    check.raises = True
    with pytest.raises(ViolationError):
        use()
    with atomic("irq"), pytest.raises(ViolationError):
        begin()
    assert ran == []
    assert check.inside == []
    check.raises = False
    begin()
    check.raises = True
    with atomic("irq"), pytest.raises(ViolationError):
        finish()
    assert ran == ["begin"]
    assert check.inside == []
    # a crossing is reported by the end, which has run and has closed
    check.raises = False
    begin()
    lock = make_lock()
    lock.acquire()
    check.raises = True
    with pytest.raises(ViolationError, match="CTX205"):
        finish()
    lock.release()
    assert ran == ["begin", "begin", "finish"]
    assert check.inside == []


def test_coroutines(check: Check) -> None:
    seen: list[object] = []

    @range_start("async")
    async def begin() -> None:
        seen.append(check.inside)
        await asyncio.sleep(0)
        seen.append(check.inside)

    @range_end("async")
    async def finish() -> None:
        await asyncio.sleep(0)
        seen.append(check.inside)

    @within_range("async")
    async def use() -> AsyncGenerator[int, None]:
        yield 1

    async def main() -> None:
        starting = begin()
        assert check.inside == []
        await starting
        assert [each async for each in use()] == [1]
        await finish()
        assert check.rules == []
        assert [each async for each in use()] == [1]
        assert check.rules == ["CTX201"]

    asyncio.run(main())
    assert seen == [[], [], ["async"]]
    assert check.inside == []


def test_generators(check: Check) -> None:
    @range_start("pieces")
    def begin() -> Iterator[int]:
        yield 1

    @range_end("pieces")
    def finish() -> Iterator[int]:
        yield 1

    @within_range("pieces")
    def use() -> Iterator[int]:
        yield 1

    starting = begin()
    assert list(starting) == [1]
    assert check.inside == ["pieces"]
    list(use())
    ending = finish()
    next(ending)
    list(use())
    assert check.rules == []
    ending.close()  # type: ignore[attr-defined]
    assert check.inside == []
    late = use()
    assert check.rules == []
    next(late)
    assert check.rules == ["CTX201"]
    dropped = begin()
    next(dropped)
    dropped.close()  # type: ignore[attr-defined]
    assert check.inside == []


# --- keys -----------------------------------------------------------------------------------------


class Cache:
    def __init__(self) -> None:
        self.key = "k"

    @range_start("update")
    def begin(self) -> None: ...

    @range_end("update")
    def finish(self) -> None: ...

    @within_range("update")
    def drop(self, key: int) -> None: ...

    @range_start("all caches")
    @classmethod
    def begin_all(cls) -> None: ...

    @within_range("all caches")
    @classmethod
    def drop_all(cls) -> None: ...


class OtherCache(Cache):
    pass


def test_without_a_key_it_belongs_to_self(check: Check) -> None:
    one, two = Cache(), Cache()
    one.begin()
    one.drop(1)
    assert reasons(check) == []
    two.drop(1)
    assert reasons(check) == ["other key"]
    one.finish()
    Cache.begin_all()
    Cache.drop_all()
    assert reasons(check) == []
    OtherCache.drop_all()
    assert reasons(check) == ["other key"]


def test_without_self_it_belongs_to_the_name(check: Check) -> None:
    @range_start("batch")
    def begin(self_: object) -> None: ...

    @within_range("batch")
    def use(other: object) -> None: ...

    begin(1)
    use(2)
    assert reasons(check) == []


def test_keys_by_path_and_by_callable(check: Check) -> None:
    @range_start("r", key="mm.id")
    def begin(mm: Mm) -> None: ...

    @within_range("r", key=lambda number: number)
    def use(number: int) -> None: ...

    @within_range("r", key=lambda a, *, b: (a, b))
    def pair(a: int, *, b: int) -> None: ...

    begin(Mm(10**6))
    use(int("1000000"))
    assert reasons(check) == []
    use(3)
    assert reasons(check) == ["other key"]
    with range_("r", key=(1, 2)):
        pair(1, b=2)
        assert reasons(check) == []


def test_equal_objects_are_different_keys(check: Check) -> None:
    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    one, two = Equal(), Equal()
    start(one, 0, 8)  # type: ignore[arg-type]
    anywhere(two)  # type: ignore[arg-type]
    assert reasons(check) == ["other key"]


def test_a_key_is_kept_only_while_the_range_is_open(check: Check) -> None:
    mm = Mm()
    alive = weakref.ref(mm)
    number = type("Number", (float,), {})
    low = number(0)
    alive_too = weakref.ref(low)
    start(mm, low, 8)
    del mm, low
    gc.collect()
    kept = alive()
    assert kept is not None
    end(kept, 0, 8)
    del kept
    gc.collect()
    assert alive() is None
    assert alive_too() is None


def test_spans_by_callable(check: Check) -> None:
    @range_start("r", span=lambda first, count: (first, first + count))
    def begin(first: int, count: int) -> None: ...

    @range_end("r", span=("first", lambda first, count: first + count))
    def finish(first: int, count: int) -> None: ...

    @within_range("r", at=lambda index: index * 2)
    def use(index: int) -> None: ...

    @within_range("r", span="both")
    def both(both: tuple[int, int]) -> None: ...

    begin(10, count=4)
    use(6)
    both((11, 13))
    assert reasons(check) == []
    use(7)
    both((11, 15))
    assert reasons(check) == ["outside span"] * 2
    finish(10, 4)
    assert reasons(check) == []


# --- spans at the call --------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [start, end, pages], ids=lambda f: f.__name__)
def test_empty_and_reversed_spans(idle: Check, function: Callable[..., object], mm: Mm) -> None:
    function(mm, 8, 0)  # nothing is looked at while nothing is checked
    idle.start()
    for low, high, words in ((8, 8, "is empty: [8, 8)"), (0x8000, 0, "is reversed: [0x8000, 0)")):
        with pytest.raises(ValueError) as caught:
            function(mm, low, high)
        assert str(caught.value) == (
            f"{function.__name__}: span=('start', 'end') {words}; the start must be below the end"
        )
    for low, high in ((None, 8), ("a", 8), (float("nan"), 1.0)):
        with pytest.raises((TypeError, ValueError), match=f"{function.__name__}: span=") as caught_too:
            function(mm, low, high)
        assert "\n" not in str(caught_too.value)
    assert idle.inside == []
    assert idle.rules == []


def test_a_span_that_is_no_pair(check: Check) -> None:
    @within_range("r", span="where")
    def use(where: object) -> None: ...

    with pytest.raises(TypeError, match=r"use: span='where' must give a pair \(start, end\), not 3"):
        use(3)


def test_comparisons_of_the_program_may_fail(check: Check, mm: Mm) -> None:
    class Odd:
        def __lt__(self, other: object) -> bool:
            return True

        def __gt__(self, other: object) -> bool:
            return True

        def __le__(self, other: object) -> bool:
            raise RuntimeError("no order")

        __ge__ = __eq__ = __le__  # type: ignore[assignment]
        __hash__ = None  # type: ignore[assignment]

    start(mm, 0, 8)
    pages(mm, Odd(), Odd())
    end(mm, Odd(), Odd())
    page(mm, "x")
    assert reasons(check) == ["outside span", "other span", "outside span"]


def test_a_marker_that_cannot_be_evaluated(check: Check) -> None:
    start(Mm(), 0, 8)

    @within_range("r", key="mm.nothing")
    def use(mm: Mm) -> None: ...

    with pytest.raises(AttributeError, match="nothing"):
        use(Mm())

    @within_range("r", key=lambda mm: 1 // 0)
    def fails(mm: Mm) -> None: ...

    with pytest.raises(ZeroDivisionError):
        fails(Mm())


# --- range_ -------------------------------------------------------------------------------------------


def test_a_range_around_a_block(check: Check, mm: Mm) -> None:
    with range_("mmu", key=mm, span=(0, 8)):
        page(mm, 7)
        assert reasons(check) == []
        page(mm, 8)
        assert reasons(check) == ["outside span"]
    page(mm, 7)
    assert reasons(check) == ["closed"]
    with pytest.raises(KeyError), range_("mmu", key=mm):
        raise KeyError
    assert check.inside == []


def test_a_block_is_two_sleep_points(check: Check) -> None:
    with atomic("irq"):
        with range_("r"):
            assert check.rules == ["CTX101"]
        assert check.rules == ["CTX101"]
        with range_("r", sleeps=False):
            pass
    assert check.rules == []


def test_a_block_by_hand(check: Check) -> None:
    bracket = range_("r")
    bracket.start()
    assert check.inside == ["r"]
    bracket.end()
    assert check.inside == []
    bracket.end()
    assert check.rules == ["CTX202"]


def test_an_async_block(check: Check) -> None:
    async def main() -> None:
        async with range_("r"):
            assert check.inside == ["r"]

    asyncio.run(main())
    assert check.inside == []


def test_blocks_in_raise_mode(check: Check) -> None:
    check.raises = True
    with atomic("irq"), pytest.raises(ViolationError), range_("r"):
        raise AssertionError
    assert check.inside == []
    with contextlib.ExitStack() as stack:
        stack.enter_context(range_("r"))
        stack.enter_context(pytest.raises(KeyError))
        lock = stack.enter_context(make_spin("pte")) and None
        assert lock is None
        raise KeyError
    assert check.inside == []


def test_the_body_s_exception_wins_over_the_report(check: Check) -> None:
    lock = make_lock()
    check.raises = True
    with pytest.raises(KeyError), range_("r"):
        lock.acquire()
        raise KeyError
    assert check.rules == ["CTX205"]
    lock.release()
    assert check.inside == []


def test_a_range_left_open_by_a_thread(check: Check, mm: Mm) -> None:
    run_in_thread(lambda: start(mm, 0, 8))
    fastpath.current()
    gc.collect()
    assert check.rules == ["CTX203"]


# --- brackets that nest (CTX204) ------------------------------------------------------------------------


def nesting(name: str, **options: Any) -> Any:
    return range_(name, nested=True, **options)


def test_closed_in_the_wrong_order(check: Check, mm: Mm) -> None:
    outer, inner = nesting("transaction", key=mm), nesting("savepoint", key=1, span=(0, 8))
    outer.start()
    inner.start()
    outer.end()
    (finding,) = check.findings
    facts: Any = finding.facts
    assert (finding.rule, finding.grade, facts.reason) == ("CTX204", "certain", "inner still open")
    assert (facts.name, facts.key) == ("transaction", "<Mm>")
    assert (facts.inner.name, facts.inner.words) == ("savepoint", "1 [0, 8)")
    assert (facts.opened.what, facts.opened.function) == ("opens", "range_('transaction')")
    assert (facts.inner.opened.function, facts.inner.how_many) == ("range_('savepoint')", 1)
    assert [moment.what for moment in facts.timeline] == ["opens", "closes"]
    assert [moment.what for moment in facts.elsewhere] == ["opens"]
    check.findings.clear()
    # closed all the same, and the inner one is closed as any
    assert check.inside == ["savepoint"]
    inner.end()
    assert check.rules == []
    assert check.inside == []


def test_closed_in_the_right_order(check: Check) -> None:
    outer, inner = nesting("r"), nesting("r", span=(0, 1))
    for _ in range(2):
        with outer, inner, outer:
            pass
    outer.start()
    inner.start()
    inner.end()
    inner.start()
    inner.end()
    outer.end()
    assert check.rules == []


@pytest.mark.parametrize(("outer", "inner"), [(False, False), (False, True), (True, False)])
def test_both_must_be_declared(check: Check, outer: bool, inner: bool) -> None:
    first, second = range_("outer", nested=outer), range_("inner", nested=inner)
    first.start()
    second.start()
    first.end()
    second.end()
    assert check.rules == []


def test_those_of_another_owner_are_nobody_s_inner(check: Check) -> None:
    outer, inner = nesting("outer"), nesting("inner")
    outer.start()
    inside, closed = threading.Event(), threading.Event()

    def other() -> None:
        inner.start()
        inside.set()
        closed.wait(60)
        inner.end()

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(60)
    outer.end()
    closed.set()
    thread.join()
    assert check.rules == []


def test_the_innermost_of_many_and_a_lock(check: Check) -> None:
    blocks = [nesting(name) for name in ("a", "b", "c")]
    lock = make_lock()
    for block in blocks:
        block.start()
    lock.acquire()
    check.raises = True
    with pytest.raises(ViolationError):
        blocks[0].end()
    check.raises = False
    facts = check.facts()
    assert (facts.inner.name, facts.inner.how_many) == ("c", 2)
    # in the mode that raises, too
    assert check.inside == ["b", "c", "lock"]
    lock.release()
    blocks[1].end()
    assert check.rules == ["CTX204"]
    blocks[2].end()
    assert check.rules == []
    # a lock that crosses it as well is another finding
    blocks[0].start()
    lock.acquire()
    blocks[1].start()
    blocks[0].end()
    assert sorted(check.rules) == ["CTX204", "CTX205"]
    lock.release()
    assert check.rules == ["CTX205"]
    blocks[1].end()


def test_nesting_that_is_allowed_to_cross(check: Check) -> None:
    outer, inner = nesting("outer"), nesting("inner")
    with allow("CTX204", reason="the savepoint is handed on"):
        outer.start()
        inner.start()
        outer.end()
    (finding,) = check.findings
    assert finding.allowed == "the savepoint is handed on"
    check.findings.clear()
    inner.end()


def test_nesting_by_decorators(check: Check) -> None:
    @range_start("outer of two", nested=True)
    def begin() -> None: ...

    @range_end("outer of two")
    def finish() -> None: ...

    @range_start("inner of two", key="key", nested=True)
    def enter(key: int) -> None: ...

    @range_end("inner of two", key="key")
    def leave(key: int) -> None: ...

    begin()
    enter(1)
    enter(2)
    leave(1)
    assert check.rules == ["CTX204"]
    finish()
    assert check.rules == ["CTX204"]
    leave(2)
    assert check.rules == []


def test_starts_of_one_bracket_agree_on_nesting() -> None:
    @range_start("agreed", nested=True)
    def one() -> None: ...

    @range_end("agreed")
    def two() -> None: ...

    with pytest.raises(ValueError) as caught:

        @range_start("agreed")
        def three() -> None: ...

    scope = "test_starts_of_one_bracket_agree_on_nesting.<locals>"
    assert str(caught.value) == (
        f"@range_start('agreed') on {scope}.three: {scope}.one says nested=True and {scope}.three doesn't;"
        " the functions of one bracket must agree"
    )

    @range_start("agreed", nested=True)
    def four() -> None: ...


# --- wrong use ------------------------------------------------------------------------------------------


def plain(a: int, b: int) -> None: ...


class SomeClass:
    pass


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda: range_start(plain), TypeError, '@range_start needs the name of its bracket: @range_start("name")'),
        (lambda: range_end(plain), TypeError, "@range_end needs the name of its bracket"),
        (lambda: within_range(plain), TypeError, "@within_range needs the name of its bracket"),
        (lambda: range_(plain), TypeError, "@range_ needs the name of its bracket"),
        (lambda: range_start(3), TypeError, "range_start: the bracket's name must be a string, not 3"),
        (lambda: range_end(""), ValueError, "range_end: the bracket's name is empty"),
        (lambda: within_range(b"x"), TypeError, "the bracket's name must be a string, not b'x'"),
        (lambda: range_start("r")(SomeClass), TypeError, "@range_start marks functions, and SomeClass is a class"),
        (lambda: range_start("r")(3), TypeError, "@range_start marks functions, not 3"),
        (lambda: within_range("r", at="a", span=("a", "b")), TypeError, "within_range('r'): at and span are given"),
        (lambda: range_start("r", owner="all"), ValueError, "range_start: owner='all': must be 'self' or 'any'"),
        (lambda: range_start("r", owner=None), ValueError, "range_start: owner=None: must be 'self' or 'any'"),
        (lambda: within_range("r", owner="ani"), ValueError, "did you mean 'any'?"),
        (lambda: range_start("r", sleeps="no"), TypeError, "range_start: sleeps must be True or False, not 'no'"),
        (lambda: within_range("r", sleepable=0), TypeError, "sleepable must be True or False, not 0"),
        (lambda: range_start("r", nested=1), TypeError, "range_start: nested must be True or False, not 1"),
        (lambda: range_("r", nested="x"), TypeError, "range_: nested must be True or False, not 'x'"),
        (
            lambda: range_start("r", nested=True, owner="any"),
            ValueError,
            "range_start('r'): nested=True and owner=\"any\" are given, and only one can be meant",
        ),
        (lambda: range_start("r", why=3), TypeError, "range_start: why must be a string, not 3"),
        (
            lambda: range_start("r", key="c")(plain),
            ValueError,
            "key='c' names no parameter of it; its parameters are a, b",
        ),
        (lambda: range_start("r", span=("a", "bb"))(plain), ValueError, "span='bb' names no parameter of it; its"),
        (lambda: range_start("r", span=("a", "bb"))(plain), ValueError, "did you mean 'b'?"),
        (lambda: range_start("r", span=("a",))(plain), TypeError, "span must name two parameters (start, end), not 1"),
        (
            lambda: range_start("r", span=("a", 3))(plain),
            TypeError,
            "span must be the name of a parameter or a callable",
        ),
        (lambda: range_start("r", span=3)(plain), TypeError, "on plain: span must be the name of a parameter"),
        (lambda: range_start("r", key=SomeClass)(plain), TypeError, "not the class SomeClass"),
        (lambda: within_range("r", at="x")(plain), ValueError, "@within_range on plain: at='x' names no parameter"),
        (lambda: range_("r", span=(3, 3)), ValueError, "range_('r'): span=(3, 3) is empty: [3, 3)"),
        (lambda: range_("r", span=(4, 3)), ValueError, "is reversed: [4, 3)"),
        (lambda: range_("r", span=3), TypeError, "must give a pair (start, end), not 3"),
        (lambda: range_("r", owner="x"), ValueError, "range_: owner='x'"),
    ],
)
def test_wrong_use(use: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        use()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_shapes_of_one_bracket() -> None:
    @range_start("odd", span=("a", "b"))
    def one(a: int, b: int) -> None: ...

    with pytest.raises(ValueError, match=r"one gives a span and .*two none") as caught:

        @range_end("odd")
        def two(a: int, b: int) -> None: ...

    assert str(caught.value).startswith("@range_end('odd') on test_two_shapes_of_one_bracket.<locals>.two: ")

    with pytest.raises(ValueError, match=r"three gives a key and .*one none"):

        @range_end("odd", key="a", span=("a", "b"))
        def three(a: int, b: int) -> None: ...

    @range_end("another")
    def four(a: int, b: int) -> None: ...

    # a call may need any place of a bracket that has a span, and a place of one that has none
    @within_range("odd")
    def five(a: int, b: int) -> None: ...

    @within_range("another", at="a")
    def six(a: int, b: int) -> None: ...


def test_self_may_be_named() -> None:
    class One:
        @range_start("named")
        def one(self) -> None: ...

        @range_end("named", key="self")
        def two(self) -> None: ...

    class Two:
        @range_start("named", key="a")
        def one(self, a: int) -> None: ...


def test_a_scope_that_is_run_again_is_not_refused() -> None:
    def scope(spanned: bool) -> list[object]:
        span = ("a", "b") if spanned else None

        @range_start("again", span=span)
        def one(a: int, b: int) -> None: ...

        @range_end("again", span=span)
        def two(a: int, b: int) -> None: ...

        return [one, two]

    kept = [scope(True), scope(False), scope(True)]
    assert kept
    scope(False)
    scope(True)


# --- the engine's own ----------------------------------------------------------------------------------


def test_keys_in_words() -> None:
    assert describe_key(("a", (1, None), Mm())) == "('a', (1, None), <Mm>)"
    assert describe_key((1,)) == "(1,)"
    assert describe_key(tuple(range(9))) == "(0, 1, 2, 3, ...)"
    assert describe_key(None) == ""


def test_points_and_spans() -> None:
    assert covers((0, 8), Point(0))
    assert covers((0, 8), Point(7.999))
    assert not covers((0, 8), Point(8))
    assert not covers((0, 8), Point("x"))
    assert covers(None, Point(8))
    assert describe_span(Point(0x5000)) == "0x5000"
    assert same_span((0, 8), (0, 8.0))
    assert not same_span((0, 8), None)
    assert same_span(None, None)
