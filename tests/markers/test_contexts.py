"""``might_sleep``, ``atomic`` and ``allow``: what is reported where, and what is not."""

from __future__ import annotations

import _thread
import asyncio
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ctxcheck import fastpath
from ctxcheck.engine.classes import AWAIT, BLOCK, ContextStep
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import Node
from ctxcheck.engine.sites import EMPTY, is_own
from ctxcheck.markers import allow, atomic, might_sleep, nonblocking
from ctxcheck.markers.contexts import MAX_LABELS

from .conftest import Check, make_lock, make_spin


@might_sleep
def nap() -> str:
    return "rested"


@might_sleep("waits for the disk")
async def doze() -> str:
    return "rested"


@might_sleep
def naps() -> Iterator[int]:
    yield 1


@might_sleep
async def dozes() -> AsyncIterator[int]:
    yield 1


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


def step(coroutine: Any) -> Any:
    """Run a coroutine that doesn't suspend."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


class Pause:
    def __await__(self) -> Iterator[Any]:
        return (yield "paused")


# --- might_sleep ----------------------------------------------------------------------------


def test_silent_where_sleeping_is_allowed(check: Check) -> None:
    assert nap() == "rested"
    assert step(doze()) == "rested"
    assert list(naps()) == [1]
    might_sleep()
    might_sleep("why")
    with might_sleep(), might_sleep("why"):
        pass
    with make_lock():
        nap()
    assert check.rules == []


def test_reported_under_a_spin_lock_and_in_atomic_code(check: Check) -> None:
    with make_spin("pte"):
        assert nap() == "rested"
        facts = check.facts()
        assert (facts.what, facts.how, facts.because.name) == ("nap", "marked", "pte")
        assert facts.declared.head().filename == __file__
        assert facts.declared.head().line == nap.__wrapped__.__code__.co_firstlineno  # type: ignore[attr-defined]
    with atomic("irq"):
        nap()
        assert check.facts().because.name == "irq"
    nap()
    assert check.rules == []


def test_a_finding_is_where_the_call_is(check: Check) -> None:
    def caller() -> None:
        nap()

    with atomic("irq"):
        caller()
    (finding,) = check.findings
    assert finding.trace.function() == caller.__qualname__
    assert finding.trace.head().line == caller.__code__.co_firstlineno + 1
    assert finding.identity == ("nap", "irq", caller.__qualname__)


def test_reported_before_the_body_runs(check: Check) -> None:
    seen: list[list[str]] = []

    @might_sleep
    def body() -> None:
        seen.append([finding.rule for finding in check.findings])

    with atomic("irq"):
        body()
    assert seen == [["CTX101"]]


def test_a_body_that_is_not_run_does_not_sleep(check: Check) -> None:
    with atomic("irq"):
        late = naps(), doze(), dozes()
        assert check.rules == []
        next(late[0])
        assert check.rules == ["CTX101"]
        step(late[1])
        assert check.rules == ["CTX101"]
        with pytest.raises(StopIteration):
            late[2].__anext__().__await__().send(None)  # type: ignore[attr-defined]
        assert check.rules == ["CTX101"]


def test_coroutines_need_to_await_and_functions_to_block(check: Check) -> None:
    state = fastpath.current()
    for takes, reported in ((BLOCK, "nap naps"), (AWAIT, "doze dozes")):
        node = Node(state.cur, ContextStep("loop", "event loop", takes), state, EMPTY)
        state.cur = node
        nap()
        step(doze())
        list(naps())
        with pytest.raises(StopIteration):
            dozes().__anext__().__await__().send(None)  # type: ignore[attr-defined]
        state.cur = node.parent
        assert " ".join(sorted(finding.facts.what for finding in check.findings)) == " ".join(sorted(reported.split()))  # type: ignore[union-attr]
        check.findings.clear()


def test_statement(check: Check) -> None:
    def waits() -> None:
        might_sleep()
        might_sleep("why")

    with atomic("irq"):
        waits()
    assert [finding.facts.what for finding in check.findings] == [waits.__qualname__] * 2  # type: ignore[union-attr]
    lines = [finding.trace.head().line - waits.__code__.co_firstlineno for finding in check.findings]
    assert lines == [1, 2]


def test_decorating_is_no_sleep(check: Check) -> None:
    with atomic("irq"):

        @might_sleep()
        def one(a: int = 1, *, b: int | None = None) -> int:
            return a

        @might_sleep("why")
        async def two() -> None:
            pass

        class Three:
            @might_sleep()
            def method(self) -> None:
                pass

            @classmethod
            @might_sleep("why")
            def make(cls) -> None:
                pass

        assert check.rules == []
        one()
        Three().method()
        Three.make()
        assert check.rules == ["CTX101"] * 3


def test_around_a_block(check: Check) -> None:
    entered = False
    with atomic("irq"):
        with might_sleep("why"):
            entered = True
            assert check.rules == ["CTX101"]
        kept = might_sleep("why")
        assert check.rules == ["CTX101"]
        with kept:
            assert check.rules == ["CTX101"]

        async def block() -> None:
            async with might_sleep():
                pass

        step(block())
        assert check.rules == ["CTX101"]
    assert entered


def test_an_async_block_needs_to_await(check: Check) -> None:
    state = fastpath.current()

    async def block() -> None:
        async with might_sleep("why"):
            pass

    for takes, found in ((BLOCK, []), (AWAIT, ["CTX101"])):
        node = state.cur = Node(state.cur, ContextStep("loop", "event loop", takes), state, EMPTY)
        step(block())
        state.cur = node.parent
        assert check.rules == found


def test_raise_mode_stops_the_call(check: Check) -> None:
    ran: list[int] = []

    @might_sleep
    def body() -> None:
        ran.append(1)

    check.raises = True
    with atomic("irq"):
        with pytest.raises(ViolationError):
            body()
        with pytest.raises(ViolationError):
            might_sleep()
        with pytest.raises(ViolationError), might_sleep():
            ran.append(2)
        assert check.inside == ["irq"]
    assert ran == []
    assert check.inside == []


# --- atomic -----------------------------------------------------------------------------------


def test_an_atomic_function(check: Check) -> None:
    @atomic
    def quick(depth: int) -> list[str]:
        inside = check.inside
        return quick(depth - 1) if depth else inside

    @nonblocking("page level")
    def named() -> list[str]:
        return check.inside

    assert quick(0) == [quick.__qualname__]
    assert quick(3) == [quick.__qualname__] * 4
    assert named() == ["page level"]
    assert check.inside == []


def test_an_exception_leaves_the_context(check: Check) -> None:
    @atomic
    def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        fails()
    assert [entry.name for entry in caught.traceback][-1] == "fails"
    with pytest.raises(KeyError), atomic("irq"):
        raise KeyError
    assert check.inside == []


def test_nothing_inside_gives_a_permission_back(check: Check) -> None:
    with atomic("outer"):
        with atomic("inner"), allow("CTX001", reason="something else"):
            nap()
        assert check.facts().because.name == "outer"
        nap()
        assert check.facts().because.name == "outer"
    assert check.inside == []


def test_labels_of_blocks(check: Check) -> None:
    with atomic():
        assert check.inside == [test_labels_of_blocks.__qualname__]
    with atomic("a"), atomic("b"):
        assert check.inside == ["a", "b"]


def test_a_block_may_be_used_again_and_nested(check: Check) -> None:
    section = atomic("irq")
    for _ in range(2):
        with section:
            with section:
                assert check.inside == ["irq", "irq"]
            assert check.inside == ["irq"]
    assert check.inside == []


def test_one_block_object_for_many_threads(check: Check) -> None:
    section = atomic("irq")

    def other() -> None:
        with section:
            assert check.inside == ["irq"]
            again.release()
            done.acquire()
            assert check.inside == ["irq"]
        assert check.inside == []

    again, done = threading.Lock(), threading.Lock()
    again.acquire()
    done.acquire()
    errors: list[BaseException] = []
    thread = threading.Thread(target=lambda: _catch(other, errors))
    with section:
        thread.start()
        again.acquire()
        assert check.inside == ["irq"]
    assert check.inside == []
    done.release()
    thread.join()
    assert errors == []


def _catch(work: Callable[[], None], errors: list[BaseException]) -> None:
    try:
        work()
    except BaseException as error:
        errors.append(error)


def test_left_by_another_thread(check: Check) -> None:
    section = atomic("irq")
    section.__enter__()
    run_in_thread(lambda: section.__exit__(None, None, None))
    nap()
    assert check.rules == []
    assert check.inside == []


def test_locks_that_cross_a_context_stay_held(check: Check) -> None:
    lock = make_lock()

    @atomic
    def takes() -> None:
        assert lock.acquire(False)

    @atomic
    def releases() -> None:
        lock.release()

    takes()
    assert check.inside == ["lock"]
    nap()
    assert check.rules == []
    releases()
    assert check.inside == []
    with atomic("irq"):
        lock.acquire(False)
    assert check.inside == ["lock"]
    lock.release()
    assert check.inside == []


def test_many_labels_are_not_remembered(check: Check) -> None:
    state = fastpath.current()
    with atomic("kept"):
        pass
    before = len(state.root)
    for number in range(2 * MAX_LABELS):
        with atomic(f"made up {number}"):
            if number % 500 == 0:
                nap()
                assert check.facts().because.name == f"made up {number}"
    assert len(state.root) - before <= MAX_LABELS


def test_checked_from_the_moment_that_checking_starts(idle: Check) -> None:
    nap()
    with atomic("before"):
        nap()
        idle.start()
        nap()
        assert idle.rules == []
    with atomic("after"):
        nap()
        assert idle.rules == ["CTX101"]
        idle.stop()
        nap()
    assert idle.rules == []


def test_a_report_knows_the_very_call_that_entered(check: Check) -> None:
    @atomic("function")
    def function() -> None:
        nap()

    @might_sleep
    @atomic("generator")
    def generator() -> Iterator[None]:
        nap()
        yield

    @atomic("coroutine")
    async def coroutine() -> None:
        nap()

    def first() -> None:
        function()
        list(generator())
        step(coroutine())

    def second() -> None:
        function()
        list(generator())

        async def awaits() -> None:
            await coroutine()

        step(awaits())

    for caller in (first, second):
        caller()
        for finding in check.findings:
            because: Any = finding.facts.because  # type: ignore[union-attr]
            assert because.exact
            functions = [code.co_qualname for code in because.trace.codes if not is_own(code)]
            assert caller.__qualname__ in functions[:2] or "awaits" in functions[0]
        assert check.rules == ["CTX101"] * 3


# --- bodies that run in pieces ------------------------------------------------------------------


def test_a_suspended_generator_is_outside(check: Check) -> None:
    @atomic
    def body() -> Generator[list[str], None, None]:
        for _ in range(3):
            nap()
            yield check.inside

    running = body()
    for inside in running:
        assert inside == [body.__qualname__]
        assert check.inside == []
        assert check.rules == ["CTX101"]
        nap()
        assert check.rules == []


def test_interleaved_generators(check: Check) -> None:
    def make(label: str) -> Generator[list[str], None, None]:
        @atomic(label)
        def body() -> Generator[list[str], None, None]:
            while True:
                yield check.inside

        return body()

    one, two = make("one"), make("two")
    for _ in range(2):
        assert next(one) == ["one"]
        with atomic("caller"):
            assert next(two) == ["caller", "two"]
        assert check.inside == []
    one.close()
    two.close()
    assert check.inside == []


def test_nested_generators(check: Check) -> None:
    @atomic("inner")
    def inner() -> Iterator[list[str]]:
        yield check.inside

    @atomic("outer")
    def outer() -> Iterator[list[str]]:
        yield from inner()
        yield check.inside

    assert list(outer()) == [["outer", "inner"], ["outer"]]
    assert check.inside == []


def test_resumed_by_another_thread(check: Check) -> None:
    @atomic
    def body() -> Iterator[list[str]]:
        with atomic("inside"):
            yield check.inside
            yield check.inside
        yield check.inside

    running = body()
    name = body.__qualname__
    assert next(running) == [name, "inside"]
    assert check.inside == []

    def other() -> None:
        assert next(running) == [name, "inside"]
        assert check.inside == []

    run_in_thread(other)
    with atomic("caller"):
        assert next(running) == ["caller", name]
    assert list(running) == []
    assert check.inside == []


def test_what_a_body_enters_is_suspended_with_it(check: Check) -> None:
    @atomic("outer")
    def body() -> Iterator[list[str]]:
        with atomic("a"), allow("CTX101", reason="b"):
            yield check.inside
            with atomic("c"):
                yield check.inside
            yield check.inside

    running = body()
    for expected in (["outer", "a", "b"], ["outer", "a", "b", "c"], ["outer", "a", "b"]):
        assert next(running) == expected
        assert check.inside == []
        nap()
        assert check.rules == []
    running.close()
    assert check.inside == []


def test_a_lock_held_over_a_yield_stays_held(check: Check) -> None:
    lock = make_spin("held")

    @atomic("outer")
    def body() -> Iterator[list[str]]:
        with lock:
            yield check.inside
            yield check.inside

    running = body()
    assert next(running) == ["outer", "lock"]
    assert check.inside == ["lock"]
    assert next(running) == ["lock", "outer"]
    assert check.inside == ["lock"]
    running.close()
    assert check.inside == []


def test_a_context_manager_made_of_a_generator(check: Check) -> None:
    @contextmanager
    def section() -> Iterator[None]:
        with atomic("body of the with"):
            yield

    with section():
        assert check.inside == ["body of the with"]
    assert check.inside == []


def test_a_generator_that_is_dropped(check: Check) -> None:
    inside: list[list[str]] = []

    @atomic
    def body() -> Iterator[int]:
        try:
            yield 1
        finally:
            inside.append(check.inside)

    next(body())
    assert inside == [[body.__qualname__]]
    assert check.inside == []


def test_coroutines_in_pieces(check: Check) -> None:
    @atomic("one")
    async def one() -> list[str]:
        before = check.inside
        await Pause()
        return before + check.inside

    running = one()
    assert running.send(None) == "paused"
    assert check.inside == []
    with atomic("caller"), pytest.raises(StopIteration) as stopped:
        running.send(None)
    assert stopped.value.value == ["one", "caller", "one"]
    assert check.inside == []


def test_an_atomic_coroutine_that_does_not_suspend(check: Check) -> None:
    @atomic
    async def inner() -> int:
        return 1

    @atomic
    async def outer() -> int:
        return await inner() + 1

    assert step(outer()) == 2
    assert check.rules == []


def test_an_atomic_coroutine_that_suspends(check: Check) -> None:
    async def helper() -> None:
        await asyncio.sleep(0)

    @atomic("page level")
    async def body() -> None:
        await helper()

    async def main() -> None:
        await body()

    asyncio.run(main())
    (finding,) = check.findings
    facts: Any = finding.facts
    assert (finding.rule, facts.what, facts.how, facts.because.name) == (
        "CTX101",
        "page level",
        "suspends",
        "page level",
    )
    functions = [place.function for place in finding.trace.places()]
    assert functions[0] == helper.__qualname__
    assert [name for name in functions if "<locals>" in name][:3] == [
        helper.__qualname__,
        body.__qualname__,
        main.__qualname__,
    ]
    assert finding.trace.head().line == helper.__code__.co_firstlineno + 1
    assert check.inside == []


def test_suspending_through_another_atomic_coroutine(check: Check) -> None:
    @atomic("inner")
    async def inner() -> None:
        await Pause()

    @atomic("outer")
    async def outer() -> None:
        await inner()

    running = outer()
    running.send(None)
    assert sorted(finding.facts.what for finding in check.findings) == ["inner", "outer"]  # type: ignore[union-attr]
    for finding in check.findings:
        functions = [place.function for place in finding.trace.places()]
        assert functions[:2] == ["Pause.__await__", inner.__qualname__]
        assert outer.__qualname__ in functions
    running.close()
    assert check.inside == []


def test_an_atomic_async_generator(check: Check) -> None:
    @atomic("agen")
    async def body() -> AsyncGenerator[list[str], None]:
        with atomic("inside"):
            yield check.inside
            yield check.inside
        await asyncio.sleep(0)
        yield check.inside

    async def main() -> None:
        running = body()
        assert await anext(running) == ["agen", "inside"]
        assert check.inside == []
        assert await anext(running) == ["agen", "inside"]
        assert check.rules == []
        assert await anext(running) == ["agen"]
        assert check.rules == ["CTX101"]
        assert check.inside == []
        assert [each async for each in running] == []

    asyncio.run(main())
    assert check.inside == []


def test_raise_mode_raises_where_the_coroutine_suspends(check: Check) -> None:
    log: list[str] = []

    @atomic
    async def body() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            log.append("finally")

    @atomic
    async def stubborn() -> str:
        for _ in range(3):
            try:
                await asyncio.sleep(0)
            except ViolationError:
                log.append("caught")
        return "done"

    async def main() -> None:
        with pytest.raises(ViolationError):
            await body()
        assert await stubborn() == "done"

    check.raises = True
    asyncio.run(main())
    assert log == ["finally", "caught"]
    assert check.inside == []


def test_tasks_that_take_turns(check: Check) -> None:
    @atomic("turn")
    async def body() -> None:
        for _ in range(3):
            assert check.inside == ["turn"]
            await asyncio.sleep(0)

    async def other() -> None:
        for _ in range(6):
            nap()
            await doze()
            assert check.inside == []
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(body(), other(), body())

    asyncio.run(main())
    assert {finding.facts.how for finding in check.findings} == {"suspends"}  # type: ignore[union-attr]


# --- allow ------------------------------------------------------------------------------------


def test_allow(check: Check) -> None:
    @allow("sleep-in-atomic", reason="at start-up only")
    def accepted() -> None:
        nap()

    with atomic("irq"):
        accepted()
        with allow("CTX001", "ctx101", reason="here"):
            nap()
            with allow("CTX301", reason="another rule"):
                nap()
        with allow("CTX301", reason="another rule"):
            nap()
    assert [finding.allowed for finding in check.findings] == ["at start-up only", "here", "here", None]


def test_allow_for_bodies_in_pieces(check: Check) -> None:
    @allow("CTX101", reason="pieces")
    async def body() -> None:
        await Pause()
        with atomic("irq"):
            nap()

    running = body()
    running.send(None)
    with atomic("irq"):
        nap()
    with pytest.raises(StopIteration):
        running.send(None)
    assert [finding.allowed for finding in check.findings] == [None, "pieces"]


def test_async_with(check: Check) -> None:
    async def body() -> list[str]:
        async with atomic("a"), allow("CTX101", reason="b"):
            return check.inside

    assert step(body()) == ["a", "b"]
    assert check.inside == []


# --- wrong use ----------------------------------------------------------------------------------


class SomeClass:
    pass


@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda: might_sleep(3), TypeError, "might_sleep marks functions, not 3"),  # type: ignore[call-overload]
        (lambda: might_sleep(SomeClass), TypeError, "SomeClass is a class: mark its methods"),
        (lambda: might_sleep(""), ValueError, "reason is empty"),
        (lambda: might_sleep()(SomeClass), TypeError, "SomeClass is a class"),
        (lambda: might_sleep(property(len)), TypeError, "not a value of type property: put the marker below it"),  # type: ignore[call-overload]
        (lambda: atomic(3.5), TypeError, "atomic marks functions, not 3.5"),  # type: ignore[call-overload]
        (lambda: atomic(" "), ValueError, "label is empty"),
        (lambda: atomic("x")(SomeClass), TypeError, "SomeClass is a class"),
        (lambda: allow(reason="r"), TypeError, "names no rule"),
        (lambda: allow("CTX101"), TypeError, "reason"),  # type: ignore[call-arg]
        (lambda: allow("CTX101", reason=""), ValueError, "reason is empty"),
        (lambda: allow("CTX101", reason=None), TypeError, "reason must be a string, not None"),  # type: ignore[arg-type]
        (lambda: allow("CTX10", reason="r"), ValueError, "no rule 'CTX10'; did you mean 'CTX10"),
        (lambda: allow("sleep-in-atomik", reason="r"), ValueError, "did you mean 'sleep-in-atomic'"),
        (lambda: allow(nap, reason="r"), TypeError, "function is no rule"),  # type: ignore[arg-type]
    ],
)
def test_wrong_use(use: Callable[[], object], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        use()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_signal_at_the_end_of_a_block_comes_after_it(check: Check) -> None:
    def handler(*_: object) -> None:
        raise KeyError

    before = signal.signal(signal.SIGINT, handler)
    try:
        for block in (atomic("a block"), allow("CTX101", reason="why")):
            block.__enter__()
            with pytest.raises(KeyError):  # noqa: PT012
                # pending, and looked for at the entry of a function at the earliest
                for _ in map(_thread.interrupt_main, (signal.SIGINT,)):
                    block.__exit__(None, None, None)
                    break
                nap()
            assert check.inside == []
    finally:
        signal.signal(signal.SIGINT, before)
