"""CTX104 where a generator is left suspended with a lock held, and nothing where it isn't."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking
from ctxcheck.session import Session
from tests.aio.helpers import clean, found, turns

# a thread can't release the RLock of another one, and so a generator that is closed there fails where nobody looks
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

MAKES: dict[str, Callable[..., Any]] = {"lock": ctxcheck.Lock, "rlock": ctxcheck.RLock}
kept: list[Any] = []


@pytest.fixture(params=MAKES)
def m(request: pytest.FixtureRequest) -> Iterator[Any]:
    yield MAKES[request.param](name=f"generator {request.param}")
    kept.clear()


def rows(m: Any) -> Iterator[int]:
    with m:
        yield 1  # the first
        yield 2  # the second


async def arows(m: Any) -> AsyncIterator[int]:
    with m:
        yield 1  # the first
        yield 2


@contextlib.contextmanager
def locked(m: Any) -> Iterator[None]:
    with m:
        yield


def through_a_manager(m: Any) -> Iterator[int]:
    with locked(m):
        yield 1


def by_hand(m: Any) -> Iterator[int]:
    m.acquire()
    try:
        yield 1
    finally:
        m.release()


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join()


def places(session: Session) -> list[tuple[str, str]]:
    (violation,) = session.violations
    return [(site.role, site.text.strip()) for site in violation.sites]


# --- the owner ends ----------------------------------------------------------------------------------


def start(generator: Iterator[int]) -> None:
    next(generator)
    kept.append(generator)


def test_left_suspended_by_a_thread(m: Any) -> None:
    with checking() as session:
        in_thread(lambda: start(rows(m)))
    assert found(session) == [("CTX104", "possible")]  # and no CTX303
    assert places(session) == [("now", "yield 1  # the first"), ("held_now", "with m:")]
    assert session.violations[0].message == (
        f"generator left suspended with a lock held: rows() of thread 'worker' still held `{m.step.lock_class.name}` "
        "when it finished"
    )


@pytest.mark.parametrize("generator", [through_a_manager, by_hand])
def test_whatever_the_generator_takes_it_with(m: Any, generator: Any) -> None:
    with checking() as session:
        in_thread(lambda: start(generator(m)))
    assert found(session) == [("CTX104", "possible")]
    assert places(session)[0] == ("now", "yield 1")


def test_left_suspended_at_the_end_of_a_test(m: Any) -> None:
    with checking() as session:
        start(rows(m))
        kept[0].send(None)
    assert found(session) == [("CTX104", "possible")]
    assert places(session)[0] == ("now", "yield 2  # the second")
    assert "at the end of the checking block" in session.violations[0].message


def test_left_suspended_by_a_task_that_does_not_await(m: Any) -> None:
    async def main() -> None:
        start(rows(m))

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX104", "possible")]
    clean(session)


def test_a_manager_that_is_entered_and_not_left_is_no_generator(m: Any) -> None:
    def enter() -> None:
        manager = locked(m)
        manager.__enter__()
        kept.append(manager)

    with checking() as session:
        in_thread(enter)
    assert [v.rule for v in session.violations] == ["CTX303"]


def test_a_lock_that_is_left_held_while_a_generator_waits_that_has_not_taken_it(m: Any) -> None:
    def take() -> None:
        start(iter_of_nothing())
        m.acquire()

    def iter_of_nothing() -> Iterator[int]:
        yield 1

    with checking() as session:
        in_thread(take)
    assert [v.rule for v in session.violations] == ["CTX303"]


def test_accepted_around_the_acquire(m: Any) -> None:
    @ctxcheck.allow("CTX104", reason="the snapshot is handed on")
    def work() -> None:
        start(rows(m))

    with checking() as session:
        in_thread(work)
    assert [(v.rule, v.allowed_by) for v in session.violations] == [("CTX104", "the snapshot is handed on")]
    assert session.failures == []


# --- the generator is dropped ---------------------------------------------------------------------------


class Knot:
    """What only the collector takes apart."""

    def __init__(self, thing: object) -> None:
        self.thing = thing
        self.me = self


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_closed_by_the_collector_in_another_thread(m: Any, uncollected: None) -> None:
    go, over = threading.Event(), threading.Event()

    def work() -> None:
        generator = rows(m)
        next(generator)
        Knot(generator)
        del generator
        go.set()
        over.wait()

    with checking() as session:
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        go.wait()
        gc.collect()
        over.set()
        thread.join()
    assert found(session) == [("CTX104", "possible")]
    assert places(session)[0] == ("now", "yield 1  # the first")
    assert "rows() of thread 'worker' held" in session.violations[0].message
    assert "until thread 'MainThread' closed it" in session.violations[0].message
    assert not session.engine.broken


def test_closed_by_another_thread_after_its_own_has_ended() -> None:
    m = ctxcheck.Lock(name="generator M")
    with checking() as session:
        in_thread(lambda: start(rows(m)))
        kept.pop().close()
        m.acquire()
        m.release()
    assert found(session) == [("CTX104", "possible")]
    assert session.violations[0].count == 1


def test_dropped_in_the_thread_that_ran_it(m: Any) -> None:
    def first(generator: Iterator[int]) -> int:
        for row in generator:
            return row
        return 0

    def work() -> None:
        assert first(rows(m)) == 1
        with m:
            pass

    with checking() as session:
        in_thread(work)
        work()
    assert session.violations == []


# --- it is consumed ---------------------------------------------------------------------------------------


def test_consumed_to_the_end_or_closed(m: Any) -> None:
    def work() -> None:
        for _ in rows(m):
            pass
        assert list(rows(m)) == [1, 2]
        with contextlib.closing(rows(m)) as generator:  # type: ignore[type-var]
            next(generator)
        with locked(m):
            pass

    async def main() -> None:
        work()
        await turns()
        async for _ in arows(m):
            pass
        generator = arows(m)
        await anext(generator)
        await generator.aclose()  # type: ignore[attr-defined]
        await turns()

    with checking() as session:
        work()
        in_thread(work)
        asyncio.run(main())
    assert session.violations == []
    clean(session)


def test_what_is_taken_while_it_is_suspended_comes_after(m: Any) -> None:
    other = ctxcheck.Lock(name="generator other")
    with checking() as session:
        for _ in rows(m):
            with other:
                pass
    assert [(e["from"], e["to"]) for e in session.graph()["edges"]] == [(m.step.lock_class.key, "generator other")]
    assert session.violations == []


def test_handed_on_to_a_thread_that_goes_on_with_it() -> None:
    m = ctxcheck.Lock(name="generator handed on")
    with checking() as session:
        in_thread(lambda: start(rows(m)))
        assert list(kept.pop()) == [2]
    assert session.violations == []


# --- its consumer awaits -------------------------------------------------------------------------------------


def test_the_report_names_the_generator_and_its_yield(m: Any) -> None:
    async def main() -> None:
        for _ in rows(m):
            await asyncio.sleep(0)  # the consumer

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX104", "possible")]
    assert places(session) == [
        ("now", "await asyncio.sleep(0)  # the consumer"),
        ("held_now", "with m:"),
        ("then", "yield 1  # the first"),
    ]
    assert "awaits while the generator rows() holds" in session.violations[0].message


def test_an_async_generator_that_is_left_is_told_once(m: Any) -> None:
    async def main() -> None:
        generator = arows(m)
        await anext(generator)
        kept.append(generator)
        await asyncio.sleep(0)

    async def close() -> None:
        await asyncio.create_task(main())
        await kept.pop().aclose()

    with checking() as session:
        asyncio.run(close())
    assert {v.rule for v in session.violations} == {"CTX104"}
    clean(session)


def test_an_async_generator_that_the_loop_closes(m: Any) -> None:
    async def main() -> None:
        start_of = arows(m)
        await anext(start_of)

    with checking() as session:
        asyncio.run(main())
    # closed by a task of the loop's, before the end or after it: whichever, it is no release by a stranger
    assert {v.rule for v in session.violations} <= {"CTX104"}
    assert not session.engine.broken


def test_allow_around_what_awaits(m: Any) -> None:
    @ctxcheck.allow("CTX104", reason="the inner one")
    async def pause() -> None:
        await asyncio.sleep(0)

    async def main() -> None:
        with m:
            await pause()

    with checking() as session:
        asyncio.run(main())
    assert [(v.rule, v.allowed_by) for v in session.violations] == [("CTX104", "the inner one")]
    assert [u for u in session.unused_allows if u.kind != "comment"] == []  # those of other tests' files
