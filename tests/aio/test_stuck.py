"""Tasks that wait for each other for ever: told while the program hangs, and shown by a dump."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking
from ctxcheck.aio import Condition, Lock, Semaphore
from ctxcheck.engine import raw, waitgraph
from ctxcheck.engine.sites import chain_of
from ctxcheck.session import Session
from tests.aio.helpers import clean, found, turns

# --- programs that hang -------------------------------------------------------------------------

HEAD = """
import asyncio, threading
from contextlib import nullcontext

async def take(mine, other, meet):
    async with mine:
        await meet.wait()
        async with other:
            pass
"""

TWO = """
async def main():
    a, b = asyncio.Lock(), asyncio.Lock()
    meet = asyncio.Barrier(2)
    async with asyncio.TaskGroup() as group:
        group.create_task(take(a, b, meet), name="first")
        group.create_task(take(b, a, meet), name="second")

asyncio.run(main())
"""

THREE = """
async def main():
    a, b, c = asyncio.Lock(), asyncio.Lock(), asyncio.Condition()
    meet = asyncio.Barrier(3)
    async with asyncio.TaskGroup() as group:
        group.create_task(take(a, b, meet), name="first")
        group.create_task(take(b, c, meet), name="second")
        group.create_task(take(c, a, meet), name="third")

asyncio.run(main())
"""

AFTER_A_WAIT = """
async def main():
    a, b = asyncio.Lock(), asyncio.Condition()

    async def waits():
        async with a, b:
            await b.wait()

    async def wakes():
        await asyncio.sleep(0)
        async with b:
            b.notify()
            async with a:
                pass

    async with asyncio.TaskGroup() as group:
        group.create_task(waits(), name="first")
        group.create_task(wakes(), name="second")

asyncio.run(main())
"""

#: One task of each loop holds a thread lock, and the circle goes through both loops.
TWO_LOOPS = """
a, b, c = threading.Lock(), threading.Lock(), None
meet = threading.Barrier(2)

async def over_there():
    with b:
        meet.wait()
        with a:
            pass

async def waits(c):
    with a:
        async with c:  # which "third" of this loop holds
            pass

async def blocks(c):
    async with c:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        meet.wait()
        with b:
            pass

async def here():
    c = asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        group.create_task(blocks(c), name="third")
        group.create_task(waits(c), name="first")

async def there():
    await asyncio.create_task(over_there(), name="second")

threading.Thread(target=asyncio.run, args=(there(),), name="other").start()
asyncio.run(here())
"""

AGAINST_A_THREAD = """
a, b = threading.Lock(), threading.Lock()
meet = threading.Barrier(2)

def thread():
    with a:
        meet.wait()
        with b:
            pass

async def task():
    with b:
        meet.wait()
        with a:
            pass

async def main():
    await asyncio.create_task(task(), name="second")

threading.Thread(target=thread, name="first").start()
asyncio.run(main())
"""

ONE_CLASS = """
class Account:
    def __init__(self):
        self.lock = asyncio.Lock()

async def main():
    one, other = Account(), Account()
    meet = asyncio.Barrier(2)
    async with asyncio.TaskGroup() as group:
        group.create_task(take(one.lock, other.lock, meet), name="first")
        group.create_task(take(other.lock, one.lock, meet), name="second")

asyncio.run(main())
"""

#: rule, owners, locks, the functions in which each is stuck
HANGS: dict[str, tuple[str, str, set[str], set[str], set[str]]] = {
    "two tasks": (TWO, "CTX001", {"task 'first'", "task 'second'"}, {"a", "b"}, {"take"}),
    "three tasks": (
        THREE, "CTX001", {"task 'first'", "task 'second'", "task 'third'"}, {"a", "b", "c"}, {"take"}
    ),
    "after a wait": (
        AFTER_A_WAIT, "CTX001", {"task 'first'", "task 'second'"}, {"a", "b"},
        {"main.<locals>.waits", "main.<locals>.wakes"},
    ),
    "two loops": (
        TWO_LOOPS, "CTX001", {"task 'first'", "task 'second'", "task 'third'"}, {"a", "b", "c"},
        {"waits", "over_there", "blocks"},
    ),
    "a task and a thread": (
        AGAINST_A_THREAD, "CTX001", {"thread 'first'", "task 'second'"}, {"a", "b"}, {"thread", "task"}
    ),
    "two of a class": (ONE_CLASS, "CTX003", {"task 'first'", "task 'second'"}, {"Account.lock"}, {"take"}),
}  # fmt: skip


@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="no such signal here")
@pytest.mark.parametrize("which", HANGS)
def test_a_program_whose_tasks_hang_has_said_why_and_says_more_when_asked(which: str, tmp_path: Path) -> None:
    source, rule, owners, locks, functions = HANGS[which]
    (tmp_path / "app.py").write_text(textwrap.dedent(HEAD + source))
    process = subprocess.Popen(
        [sys.executable, "-m", "ctxcheck", "run", "--deadlock-after", "0.1", "--dump-signal", "usr2", "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(ctxcheck.__file__).parent.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        report = lines_until(process.stderr, f"error[{rule}]") + lines_until(process.stderr, "fingerprint: ")
        assert "certain" in report
        files = (tmp_path / ".ctxcheck").glob("*.jsonl")
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        (found,) = [
            r["violation"]
            for r in records
            if r["type"] == "violation" and (r["violation"]["rule"], r["violation"]["grade"]) == (rule, "certain")
        ]
        assert {name.removeprefix("main.").removeprefix("here.") for name in found["locks"]} == locks
        if rule == "CTX001":
            assert set(found["owners"]) == owners
            assert all(owner in report for owner in owners)
        assert process.poll() is None
        process.send_signal(signal.SIGUSR2)
        text = lines_until(process.stderr, "deadlock: ")
        said = text.splitlines()[-1]
        assert said.count(" and waits for ") == len(owners)
        for owner in owners:
            assert f"{owner} holds `" in said
        assert process.poll() is None
        process.kill()
        text = process.stderr.read()  # it was written at once
        assert {f for f in functions if f" in {f}\n" in text} == functions, text
        assert text.count("  waits for `") == len(owners)
        assert all(f"held by {owner}" in text for owner in owners)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def lines_until(stream: Any, text: str) -> str:
    lines: list[str] = []
    while not lines or text not in lines[-1]:
        line = stream.readline()
        assert line, "".join(lines)
        lines.append(line)
    return "".join(lines)


# --- in this process ----------------------------------------------------------------------------


async def opposite(a: Lock, b: Lock, take: Callable[[Lock], Awaitable[Any]]) -> list[asyncio.Task[None]]:
    """Two tasks that hold one lock each, and are waiting for the other one by ``take``."""
    held: list[Lock] = []

    async def work(mine: Lock, other: Lock) -> None:
        async with mine:
            held.append(mine)
            while len(held) < 2:
                await asyncio.sleep(0)
            await take(other)
            other.release()

    made = [asyncio.create_task(work(a, b), name="first"), asyncio.create_task(work(b, a), name="second")]
    while not (a._waiters and b._waiters):
        await asyncio.sleep(0)
    return made


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def circles(session: Session, *, timed: bool) -> int:
    return len(waitgraph.waits(session.engine.roster.live_states(), timed=timed))


def plain(lock: Lock) -> Awaitable[Any]:
    return lock.acquire()


async def waited_for(lock: Lock) -> None:
    await asyncio.wait_for(lock.acquire(), 60)


async def in_time(lock: Lock) -> None:
    async with asyncio.timeout(60):
        await lock.acquire()


async def in_a_task_with_a_limit(lock: Lock) -> None:
    async def whole() -> None:
        async with lock:
            pass
        await lock.acquire()

    await asyncio.wait_for(whole(), 60)


async def without_a_limit(lock: Lock) -> None:
    async with asyncio.timeout(None):
        await asyncio.wait_for(lock.acquire(), None)


@pytest.mark.parametrize("take", [plain, without_a_limit])
def test_tasks_that_wait_for_each_other_are_told_once_while_they_do(take: Callable[[Lock], Awaitable[Any]]) -> None:
    async def main(session: Session) -> None:
        a, b = Lock(name="A"), Lock(name="B")
        stuck = await opposite(a, b, take)
        while ("CTX001", "certain") not in found(session):
            await asyncio.sleep(0.001)
        text = ctxcheck.dump(io.StringIO())
        assert "deadlock: task 'first' holds `A` and waits for `B`; task 'second' holds `B` and waits for `A`" in text
        assert "task 'first' of thread 'MainThread'\n  waits for `B` since 0." in text
        await cancel(*stuck)
        assert not a.locked()
        assert not b.locked()

    with checking(owners="observed", deadlock_after=0.01) as session:
        asyncio.run(main(session))
    assert found(session) == [("CTX001", "certain")]
    assert session.violations[0].owners == ("task 'first'", "task 'second'")
    clean(session)


@pytest.mark.parametrize("take", [waited_for, in_time, in_a_task_with_a_limit])
def test_who_gives_up_by_himself_is_in_a_stall_not_in_a_deadlock(take: Callable[[Lock], Awaitable[Any]]) -> None:
    if take is in_a_task_with_a_limit and sys.version_info < (3, 12):
        pytest.skip("there wait_for makes another task, which holds nothing")

    async def main(session: Session) -> None:
        stuck = await opposite(Lock(name="A"), Lock(name="B"), take)
        assert circles(session, timed=True) == 1
        assert circles(session, timed=False) == 0
        session.engine.watchdog._look()
        text = ctxcheck.dump(io.StringIO())
        assert "stall (somebody in it gives up by itself): task 'first' holds `A`" in text
        assert "deadlock: " not in text
        assert ", for 59." in text
        await cancel(*stuck)

    with checking(owners="observed", deadlock_after=1e-9) as session:
        asyncio.run(main(session))
    assert "certain" not in [grade for _, grade in found(session)]
    clean(session)


@pytest.mark.parametrize("who", [(60, None), (None, 60)])
def test_one_that_gives_up_is_enough(who: tuple[Any, Any]) -> None:
    limits = iter(who)

    async def take(lock: Lock) -> None:
        async with asyncio.timeout(next(limits)):
            await lock.acquire()

    async def main(session: Session) -> None:
        stuck = await opposite(Lock(name="A"), Lock(name="B"), take)
        assert [s.until is None for s in session.engine.roster.live_states() if s.waiting is not None].count(True) == 1
        assert circles(session, timed=True) == 1
        assert circles(session, timed=False) == 0
        await cancel(*stuck)

    with checking(owners="observed", deadlock_after=60) as session:
        asyncio.run(main(session))
    assert "certain" not in [grade for _, grade in found(session)]


def test_who_has_only_just_begun_to_wait_may_yet_be_cancelled() -> None:
    async def main(session: Session) -> None:
        stuck = await opposite(Lock(name="A"), Lock(name="B"), plain)
        assert circles(session, timed=False) == 1
        session.engine.watchdog._look()
        await cancel(*stuck)

    with checking(owners="observed", deadlock_after=60) as session:
        asyncio.run(main(session))
    assert found(session) == [("CTX001", "possible")]


def test_who_waits_in_a_queue_for_a_lock_that_is_free_waits_too() -> None:
    # released, and its first waiter hasn't run yet: who asks before that is the second
    async def main(session: Session) -> None:
        a, b = Lock(name="A"), Lock(name="B")
        await a.acquire()

        async def work() -> None:
            async with b:
                await a.acquire()
                a.release()

        first = asyncio.create_task(a.acquire(), name="first")
        await turns()
        second = asyncio.create_task(work(), name="second")
        a.release()
        assert not a.locked()
        await first
        await turns()
        (state,) = [s for s in session.engine.roster.live_states() if s.waiting is not None]
        assert state.owner.name == "second"
        await cancel(second)

    with checking() as session:
        asyncio.run(main(session))


def no_watch() -> None:
    while raw.watchers:  # those of other tests
        threading.Event().wait(0.001)


def test_only_who_holds_something_is_watched_and_nothing_of_the_loop_is_used() -> None:
    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")
        loop: Any = asyncio.get_running_loop()
        async with b:
            pass
        assert not raw.watchers, "nobody waited"
        await a.acquire()
        waiting = asyncio.create_task(a.acquire())
        await turns()
        assert a._waiters
        assert not raw.watchers, "who holds nothing is in no circle"
        assert not loop._scheduled
        await cancel(waiting)

        async def nests() -> None:
            async with b, a:
                pass

        waiting = asyncio.create_task(nests())
        await turns()
        assert raw.watchers
        assert not loop._scheduled
        a.release()
        await waiting

    no_watch()
    with checking(deadlock_after=0.01) as session:
        asyncio.run(main())
        no_watch()
    assert found(session) == []


def test_a_task_is_not_kept_by_its_wait() -> None:
    async def main(session: Session) -> None:
        stuck = await opposite(Lock(name="A"), Lock(name="B"), plain)
        gone = [weakref.ref(task) for task in stuck]
        session.engine.watchdog._look()
        ctxcheck.dump(io.StringIO())
        await cancel(*stuck)
        del stuck
        await turns()  # `gather` has them until then
        gc.collect()
        assert [ref() for ref in gone] == [None, None]

    with checking(owners="observed", deadlock_after=1e-9) as session:
        asyncio.run(main(session))
    assert found(session) == [("CTX001", "certain")]
    clean(session)


def test_what_the_watch_says_is_raised_at_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)

    async def main(session: Session) -> None:
        stuck = await opposite(Lock(name="A"), Lock(name="B"), plain)
        while ("CTX001", "certain") not in found(session):
            await asyncio.sleep(0.001)
        await cancel(*stuck)

    with checking(owners="observed", deadlock_after=0.01, mode="raise", fail_on="certain") as session:
        asyncio.run(main(session))
        no_watch()
    assert unraisable == []


def test_a_dump_shows_what_tasks_do_and_hold() -> None:
    async def main() -> None:
        a, seats = Lock(name="A"), Semaphore(1, name="seats")
        ready = asyncio.Event()

        async def sleeps() -> None:
            async with a, seats:
                ready.set()
                await asyncio.Event().wait()

        async def waits() -> None:
            async with seats:
                pass

        made = [asyncio.create_task(sleeps(), name="sleeper"), asyncio.create_task(waits(), name="waiter")]
        await ready.wait()
        await turns()
        async with Lock(name="mine"):
            text = ctxcheck.dump(io.StringIO())
        await cancel(*made)
        parts = {p.partition("\n")[0]: p for p in text.split("\n\n")}
        sleeper = parts["task 'sleeper' of thread 'MainThread'"]
        assert "waits for no checked lock; it is suspended\n    at" in sleeper
        assert ".sleeps\n        await asyncio.Event().wait()" in sleeper
        assert "holds `A`, first taken" in sleeper
        waiter = parts["task 'waiter' of thread 'MainThread'"]
        assert "nobody owns it" in waiter
        assert ".waits\n        async with seats:" in waiter
        (mine,) = [p for name, p in parts.items() if name.startswith("task 'Task-")]
        assert "it is\n    at" in mine
        assert "text = ctxcheck.dump(io.StringIO())" in mine

    with checking():
        asyncio.run(main())


def test_a_dump_while_another_threads_tasks_go_on() -> None:
    stop = threading.Event()

    async def busy(a: Lock, b: Lock) -> None:
        while not stop.is_set():
            async with a:
                await asyncio.sleep(0)
                async with b:
                    await asyncio.sleep(0)

    async def main() -> None:
        a, b = Lock(name="A"), Lock(name="B")
        await asyncio.gather(*(busy(a, b) for _ in range(5)))

    with checking(deadlock_after=1e-9) as session:
        thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        thread.start()
        for _ in range(50):
            assert "\ndeadlock: " not in ctxcheck.dump(io.StringIO())
            session.engine.watchdog._look()
        stop.set()
        thread.join()
    assert found(session) == []
    clean(session)


def test_where_a_task_is_suspended_is_seen_through_generators_and_other_awaitables() -> None:
    async def main() -> None:
        never = asyncio.Event()

        async def numbers() -> AsyncIterator[int]:
            yield 1
            await never.wait()

        class Other:
            def __await__(self) -> Any:
                return self.inner().__await__()

            async def inner(self) -> None:
                async for _ in numbers():
                    pass

        @asynccontextmanager
        async def around() -> AsyncIterator[None]:
            await Other()
            yield

        async def work() -> None:
            async with around():
                pass

        made = asyncio.create_task(work())
        await turns()
        trace = chain_of(made.get_coro())
        names = [code.co_name for code in trace.codes]
        assert names[0] == "numbers"
        assert names[-1] == "work"
        assert [n for n in names if not n.startswith("__")] == ["numbers", "inner", "around", "work"]
        await cancel(made)

    asyncio.run(main())


def test_a_conditions_lock_that_is_taken_back_has_no_limit() -> None:
    # asyncio goes on until it has it, whoever cancels
    async def main(session: Session) -> None:
        condition = Condition(name="C")

        async def waits() -> None:
            async with asyncio.timeout(60), condition:
                await condition.wait()

        waiting = asyncio.create_task(waits(), name="waits")
        await turns()
        async with condition:
            condition.notify()
            await turns()
            (state,) = [s for s in session.engine.roster.live_states() if s.waiting is not None]
            assert state.until is None
        await waiting

    with checking() as session:
        asyncio.run(main(session))
    clean(session)
