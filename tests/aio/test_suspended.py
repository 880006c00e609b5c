"""CTX104 in patterns of real programs: told where a task is suspended with a thread lock held, and only there."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import ctxcheck
from ctxcheck import aio, checking
from tests.aio.helpers import clean, found, task, turns

Program = Callable[[Any], Coroutine[Any, Any, None]]
#: Programs that hold the lock only while they run, and programs that are suspended with it: what each of the latter
#: awaits then.
SILENT: dict[str, Program] = {}
TOLD: dict[str, tuple[Program, str]] = {}


def silent(program: Program) -> Program:
    SILENT[program.__name__.strip("_")] = program
    return program


def told(text: str) -> Callable[[Program], Program]:
    def add(program: Program) -> Program:
        TOLD[program.__name__.strip("_")] = program, text
        return program

    return add


async def _at_once(value: int = 1) -> int:
    return value


# --- awaits that never suspend ---------------------------------------------------------------------


@silent
async def _cached_value(m: Any) -> None:
    cache: dict[str, int] = {}

    async def get(key: str) -> int:
        if key not in cache:
            cache[key] = await _at_once()
        return cache[key]

    with m:
        assert await get("a") == await get("a")


@silent
async def _free_asyncio_lock(m: Any) -> None:
    lock, event, queue = aio.Lock(name="A"), asyncio.Event(), asyncio.Queue[int]()
    event.set()
    queue.put_nowait(1)
    with m:
        async with lock:
            await event.wait()
            await queue.get()


@silent
async def _done_future(m: Any) -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    with m:
        await future


@silent
async def _several_that_do_not_suspend(m: Any) -> None:
    with m:
        for _ in range(3):
            await _at_once()
    await asyncio.sleep(0)


@told("await asyncio.sleep(0)")
async def _sleep_of_nothing(m: Any) -> None:
    with m:
        await asyncio.sleep(0)


@told("await lock.acquire()")
async def _contended_asyncio_lock(m: Any) -> None:
    lock = aio.Lock(name="A")

    async def other() -> None:
        async with lock:
            await turns()

    holding = asyncio.create_task(other())
    await asyncio.sleep(0)
    with m:
        await lock.acquire()
    lock.release()
    await holding


@told("await asyncio.gather(asyncio.sleep(0))")
async def _gather(m: Any) -> None:
    with m:
        await asyncio.gather(asyncio.sleep(0))


@told("await group_task")
async def _task_of_a_group(m: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group_task = group.create_task(asyncio.sleep(0))
        with m:
            await group_task


# --- other threads --------------------------------------------------------------------------------


def _locked(m: Any) -> int:
    with m:
        return 1


@silent
async def _lock_in_the_executors_thread(m: Any) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, _locked, m) for _ in range(3)))
    await asyncio.to_thread(_locked, m)


@silent
async def _submit_and_await_afterwards(m: Any) -> None:
    loop = asyncio.get_running_loop()
    with m:
        future = loop.run_in_executor(None, int)
    await future


@told("await loop.run_in_executor(None, int)")
async def _executor_inside(m: Any) -> None:
    loop = asyncio.get_running_loop()
    with m:
        await loop.run_in_executor(None, int)


@told("await asyncio.to_thread(int)")
async def _to_thread_inside(m: Any) -> None:
    with m:
        await asyncio.to_thread(int)


@silent
async def _acquired_in_the_executor_for_another_thread(m: Any) -> None:
    # held by threads while the task waits: none of the task's
    stop, held = threading.Event(), threading.Event()

    def hold() -> None:
        with m:
            held.set()
            stop.wait()

    holding = asyncio.get_running_loop().run_in_executor(None, hold)
    while not held.is_set():
        await asyncio.sleep(0)
    stop.set()
    await holding


# --- generators and context managers ----------------------------------------------------------------


async def _snapshot(m: Any) -> AsyncIterator[int]:
    with m:
        items = [1, 2, 3]
    for item in items:
        yield item


async def _under_the_lock(m: Any) -> AsyncIterator[int]:
    with m:
        for item in (1, 2, 3):
            yield item


@silent
async def _generator_that_yields_outside(m: Any) -> None:
    async for _ in _snapshot(m):
        await asyncio.sleep(0)


@silent
async def _generator_that_yields_inside_to_who_does_not_suspend(m: Any) -> None:
    assert [item async for item in _under_the_lock(m)] == [1, 2, 3]
    await asyncio.sleep(0)


@told("await asyncio.sleep(0)  # its consumer")
async def _generator_that_yields_inside(m: Any) -> None:
    async for _ in _under_the_lock(m):
        await asyncio.sleep(0)  # its consumer


@told("await asyncio.sleep(0)  # the generator itself")
async def _generator_that_awaits_inside(m: Any) -> None:
    async def rows() -> AsyncIterator[int]:
        with m:
            await asyncio.sleep(0)  # the generator itself
            yield 1

    async for _ in rows():
        pass


@silent
async def _generator_that_is_closed_before_the_next_await(m: Any) -> None:
    async with contextlib.aclosing(_under_the_lock(m)) as rows:
        async for _ in rows:
            break
    await asyncio.sleep(0)


@told("await asyncio.sleep(0)  # left open")
async def _generator_that_is_left_open(m: Any) -> None:
    rows = _under_the_lock(m)
    async for _ in rows:
        break
    await asyncio.sleep(0)  # left open
    await rows.aclose()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def _transaction(m: Any) -> AsyncIterator[None]:
    with m:
        yield


@contextlib.asynccontextmanager
async def _prepared(m: Any) -> AsyncIterator[None]:
    with m:
        pass
    yield
    with m:
        pass


@contextlib.contextmanager
def _locking(m: Any) -> Iterator[None]:
    with m:
        yield


@silent
async def _context_manager_around_what_does_not_suspend(m: Any) -> None:
    async with _transaction(m):
        await _at_once()
    await asyncio.sleep(0)


@silent
async def _context_manager_that_lets_go_before_its_yield(m: Any) -> None:
    async with _prepared(m):
        await asyncio.sleep(0)


@told("await asyncio.sleep(0)  # inside the transaction")
async def _context_manager_that_holds_over_its_yield(m: Any) -> None:
    async with _transaction(m):
        await asyncio.sleep(0)  # inside the transaction


@told("await asyncio.sleep(0)  # inside")
async def _plain_context_manager(m: Any) -> None:
    with _locking(m):
        await asyncio.sleep(0)  # inside


@told("await asyncio.sleep(0)  # on the stack")
async def _exit_stack(m: Any) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_transaction(m))
        await asyncio.sleep(0)  # on the stack


@silent
async def _released_around_the_await(m: Any) -> None:
    m.acquire()
    m.release()
    try:
        await asyncio.sleep(0)
    finally:
        m.acquire()
        m.release()


@silent
async def _tried_in_vain(m: Any) -> None:
    stop, held = threading.Event(), threading.Event()

    def hold() -> None:
        with m:
            held.set()
            stop.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert not m.acquire(blocking=False)
    await asyncio.sleep(0)
    stop.set()
    thread.join()


def sources(name: str) -> str:
    """What a program reads like."""
    return inspect.getsource(TOLD[name][0])


def locks() -> dict[str, Callable[[], Any]]:
    return {"lock": lambda: ctxcheck.Lock(name="M"), "rlock": lambda: ctxcheck.RLock(name="R")}


@pytest.mark.parametrize("lock", locks())
@pytest.mark.parametrize("name", SILENT)
def test_who_is_not_suspended_with_it_is_left_alone(name: str, lock: str) -> None:
    async def main() -> None:
        await task(SILENT[name](locks()[lock]()))
        await turns()

    with checking() as session:
        asyncio.run(main())
    assert [v.message for v in session.violations] == []
    clean(session)


@pytest.mark.parametrize("lock", locks())
@pytest.mark.parametrize("name", TOLD)
def test_who_is_suspended_with_it_is_told_where(name: str, lock: str) -> None:
    async def main() -> None:
        await task(TOLD[name][0](locks()[lock]()), "worker")

    with checking() as session:
        asyncio.run(main())
    assert found(session) == [("CTX104", "possible")]
    (violation,) = session.violations
    assert violation.message.startswith("suspended with a thread lock held: task 'worker' awaits while ")
    assert ("the generator _under_the_lock() holds `" in violation.message) == ("_under_the_lock(" in sources(name))
    assert violation.sites[0].text.strip() == TOLD[name][1]
    assert violation.sites[1].text.strip() == "with m:"
    clean(session)
