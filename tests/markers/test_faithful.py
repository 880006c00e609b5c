"""A wrapper changes nothing: generators, coroutines and async generators behave as without it, step by step."""

from __future__ import annotations

import asyncio
import gc
import types
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck import fastpath
from ctxcheck.markers import (
    allow,
    atomic,
    context,
    context_end,
    context_start,
    forbids,
    might_enter,
    might_lock,
    might_sleep,
    range_end,
    range_start,
    region,
    requires,
    requires_lock,
    thread_role,
    within_range,
)

from .conftest import Check, make_lock

LOCK = make_lock("faithful")

MARKERS: dict[str, Callable[[Any], Any]] = {
    "might_sleep": might_sleep,
    "atomic": atomic,
    "allow": allow("CTX101", reason="a test"),
    "range_start": range_start("faithful"),
    "range_end": range_end("faithful"),
    "within_range": within_range("faithful"),
    "requires_lock": requires_lock(LOCK),
    "might_lock": might_lock(lambda *args, **kwargs: LOCK),
    "region": region("faithful"),
    "might_enter": might_enter("faithful"),
    "context": context("faithful"),
    "thread_role": thread_role("faithful"),
    "context_start": context_start("faithful"),
    "context_end": context_end("faithful"),
    "requires": requires("faithful"),
    "forbids": forbids("faithful"),
    "two": lambda function: might_sleep(atomic(function)),
}


@pytest.fixture(params=[True, False], ids=["on", "off"], autouse=True)
def checking(request: pytest.FixtureRequest, idle: Check) -> None:
    if request.param:
        idle.start()


class Pause:
    """Suspends, and tells what it was resumed with."""

    def __init__(self, token: object) -> None:
        self.token = token

    def __await__(self) -> Iterator[Any]:
        return (yield self.token)


def describe(error: BaseException) -> object:
    """Everything that a program can see of an exception, but for its traceback."""
    context = describe(error.__context__) if error.__context__ is not None else None
    cause = describe(error.__cause__) if error.__cause__ is not None else None
    return type(error), error.args, context, cause, error.__suppress_context__


def outcome(call: Callable[..., Any], *args: Any) -> object:
    try:
        return "value", call(*args)
    except BaseException as error:
        return "error", describe(error)


ACTIONS = st.lists(st.sampled_from(["plain", "catch", "convert", "swallow", "finish", "raise"]), max_size=4)
STEPS = st.lists(st.sampled_from(["next", "send", "throw", "exit", "stop", "close"]), min_size=1, max_size=6)


class Boom(Exception):
    pass


def react(action: str, error: BaseException, log: list[object]) -> str:
    log.append((action, describe(error)))
    if isinstance(error, Exception):
        if action == "convert":
            raise KeyError(action) from error
        if action in ("catch", "swallow"):
            return "go on"
    elif action == "swallow":
        return "go on"
    elif action in ("catch", "finish"):
        return "return"
    raise error


def generator(script: list[str], log: list[object]) -> Generator[Any, Any, str]:
    for number, action in enumerate(script):
        try:
            log.append(("got", (yield number)))
            if action == "raise":
                raise Boom(number)
        except (GeneratorExit, LookupError, Boom) as error:
            if react(action, error, log) == "return":
                return f"closed at {number}"
        finally:
            log.append("finally")
    return "done"


async def coroutine(script: list[str], log: list[object]) -> str:
    for number, action in enumerate(script):
        try:
            log.append(("got", await Pause(number)))
            if action == "raise":
                raise Boom(number)
        except (GeneratorExit, LookupError, Boom) as error:
            if react(action, error, log) == "return":
                return f"closed at {number}"
        finally:
            log.append("finally")
    return "done"


async def async_generator(script: list[str], log: list[object]) -> AsyncGenerator[Any, Any]:
    for number, action in enumerate(script):
        try:
            log.append(("paused", await Pause(("pause", number))))
            log.append(("got", (yield number)))
            if action == "raise":
                raise Boom(number)
        except (GeneratorExit, LookupError, Boom) as error:
            if react(action, error, log) == "return":
                return
        finally:
            log.append("finally")
            if action != "finish":
                await Pause(("finally", number))


def drive(body: Any, steps: list[str]) -> list[object]:
    """What each step of a generator or coroutine gives."""
    seen: list[object] = []
    for number, step in enumerate(steps):
        if step == "next":
            seen.append(outcome(body.send, None))
        elif step == "send":
            seen.append(outcome(body.send, number))
        elif step == "throw":
            seen.append(outcome(body.throw, Boom("thrown")))
        elif step == "stop":
            seen.append(outcome(body.throw, StopIteration("thrown")))
        elif step == "exit":
            seen.append(outcome(body.throw, GeneratorExit("thrown")))
        else:
            seen.append(outcome(body.close))
    finish(lambda: outcome(body.close))
    return seen


def finish(close: Callable[[], object]) -> None:
    """Close what is left over, here and not by the collector; it may refuse as often as its script says."""
    for _ in range(10):
        close()


def drive_async(body: Any, steps: list[str], thrown: int) -> list[object]:
    """What each step of an async generator gives, with all that it waits for on the way."""
    seen: list[object] = []
    waits = 0
    for number, step in enumerate([*steps, *["close"] * 5]):
        call = {
            "next": lambda: body.__anext__(),
            "send": lambda number=number: body.asend(number),
            "throw": lambda: body.athrow(Boom("thrown")),
            "stop": lambda: body.athrow(StopAsyncIteration("thrown")),
            "exit": lambda: body.athrow(GeneratorExit("thrown")),
            "close": lambda: body.aclose(),
        }[step]
        awaitable = call()
        result = outcome(awaitable.send, None)
        for _ in range(10):
            seen.append(result)
            if result[0] == "error":  # type: ignore[index]
                break
            waits += 1
            result = outcome(awaitable.throw, Boom("late")) if waits == thrown else outcome(awaitable.send, waits)
    return seen


@pytest.mark.parametrize("name", MARKERS)
@settings(max_examples=60, deadline=None)
@given(script=ACTIONS, steps=STEPS)
def test_generators(name: str, script: list[str], steps: list[str]) -> None:
    log: list[object] = []
    marked_log: list[object] = []
    expected = drive(generator(script, log), steps)
    seen = drive(MARKERS[name](generator)(script, marked_log), steps)
    assert seen == expected
    assert marked_log == log


@pytest.mark.parametrize("name", MARKERS)
@settings(max_examples=60, deadline=None)
@given(script=ACTIONS, steps=STEPS)
def test_coroutines(name: str, script: list[str], steps: list[str]) -> None:
    log: list[object] = []
    marked_log: list[object] = []
    # an `await` closes its coroutine where GeneratorExit is thrown, so the one in the wrapper ends a
    # coroutine that would have refused to be closed, and loses what it returns then
    script = ["catch" if action == "swallow" else action for action in script]
    steps = ["close" if step == "exit" else step for step in steps]
    expected = drive(coroutine(script, log), steps)
    seen = drive(MARKERS[name](coroutine)(script, marked_log), steps)
    assert [None if step == "close" else s for s, step in zip(seen, steps, strict=True)] == [
        None if step == "close" else s for s, step in zip(expected, steps, strict=True)
    ]
    assert marked_log == log


# a body that waits while it is closed is left suspended, with and without a wrapper
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", MARKERS)
@settings(max_examples=60, deadline=None)
@given(script=ACTIONS, steps=STEPS, thrown=st.integers(0, 6))
def test_async_generators(name: str, script: list[str], steps: list[str], thrown: int) -> None:
    log: list[object] = []
    marked_log: list[object] = []
    expected = drive_async(async_generator(script, log), steps, thrown)
    seen = drive_async(MARKERS[name](async_generator)(script, marked_log), steps, thrown)
    assert seen == expected
    assert marked_log == log


# --- what the steps don't show --------------------------------------------------------------


class Thing:
    """Something that can be referred to weakly."""


def names(function: Callable[..., Any]) -> list[Any]:
    return [marker(function) for marker in MARKERS.values()]


def test_kinds_are_kept() -> None:
    import inspect

    @types.coroutine
    def old_style() -> Generator[Any, Any, int]:
        return (yield 1)

    tests = (
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
        asyncio.iscoroutinefunction,
    )
    for function in (test_kinds_are_kept, coroutine, generator, async_generator, old_style):
        for marked in names(function):
            assert [test(marked) for test in tests] == [test(function) for test in tests]
    for marked in names(old_style):
        assert inspect.isawaitable(marked())
        assert outcome(marked().send, None) == ("value", 1)


def test_an_awaitable_generator_is_awaited() -> None:
    @types.coroutine
    def old_style(token: object) -> Generator[Any, Any, Any]:
        return (yield token)

    for marked in names(old_style):

        async def main(marked: Any = marked) -> object:
            return [await marked(1), await marked(2)]

        running = main()
        assert [running.send(None), running.send("a")] == [1, 2]
        with pytest.raises(StopIteration) as stopped:
            running.send("b")
        assert stopped.value.value == ["a", "b"]


def test_a_yielded_value_is_not_kept_alive() -> None:
    def body() -> Iterator[Thing]:
        yield Thing()
        yield Thing()

    for marked in names(body):
        running = marked()
        value = weakref.ref(next(running))
        assert value() is None


def test_a_thrown_exception_is_not_kept_in_a_cycle() -> None:
    class Mine(Exception):
        pass

    def body() -> Iterator[int]:
        yield 1

    async def waits() -> None:
        await Pause(1)

    def fails() -> None:
        raise Mine

    def throw(call: Callable[[], Any]) -> weakref.ref[Mine]:
        try:
            call()
        except Mine as error:
            return weakref.ref(error)
        raise AssertionError

    def throw_into(function: Callable[[], Any]) -> None:
        running = function()
        running.send(None)
        running.throw(Mine())

    gc.collect()
    gc.disable()
    try:
        for marked in names(body) + names(waits):
            assert throw(lambda marked=marked: throw_into(marked))() is None
        for marked in names(fails):
            assert throw(marked)() is None
    finally:
        gc.enable()


def test_the_event_loop_closes_left_over_async_generators_once() -> None:
    closed: list[str] = []
    complaints: list[object] = []

    async def body() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async def main(marked: Callable[[], AsyncGenerator[int, None]]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        kept.append(marked())
        assert await kept[-1].__anext__() == 1

    for marked in names(body):
        kept: list[AsyncGenerator[int, None]] = []
        asyncio.run(main(marked))
        assert (closed, complaints) == (["closed"], [])
        closed.clear()


def test_an_async_generator_that_is_dropped_is_closed_by_its_loop() -> None:
    closed: list[str] = []

    async def body() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            closed.append("closed")

    async def main(marked: Callable[[], AsyncGenerator[int, None]]) -> None:
        async for _ in marked():
            break
        for _ in range(3):
            await asyncio.sleep(0)

    for marked in names(body):
        asyncio.run(main(marked))
        assert closed == ["closed"]
        closed.clear()


def test_cancelling_and_timeouts() -> None:
    async def body(log: list[str]) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        return "never"

    async def main(marked: Callable[[list[str]], Coroutine[Any, Any, str]]) -> list[str]:
        log: list[str] = []
        task = asyncio.create_task(marked(log))
        await asyncio.sleep(0)
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await marked(log)
        return log

    for marked in names(body):
        assert asyncio.run(main(marked)) == ["cancelled", "cancelled"]


def test_a_wrong_call_fails_at_the_call() -> None:
    async def body(a: int) -> None:
        """Takes one."""

    for marked in names(body):
        with pytest.raises(TypeError, match="body"):
            marked()


def test_checking_may_begin_and_end_in_the_middle(idle: Check) -> None:
    def body() -> Iterator[list[str]]:
        for _ in range(4):
            yield idle.inside

    running = atomic(body)()
    idle.stop()
    assert next(running) == []
    idle.start()
    assert next(running) == [body.__qualname__]
    idle.stop()
    assert next(running) == []
    idle.start()
    assert next(running) == [body.__qualname__]
    assert idle.inside == []
    assert not idle.findings
    assert fastpath.current().cur is fastpath.current().root
