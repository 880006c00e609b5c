"""``install()`` puts the checked classes in asyncio's place, when there is an asyncio, and takes them out exactly."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import ctxcheck
from ctxcheck import aio, checking
from tests.aio.helpers import found

HOMES = {asyncio.locks: asyncio.locks.__all__, asyncio.queues: ("Queue", "LifoQueue", "PriorityQueue")}


def test_all_of_asyncios_and_both_names_and_back() -> None:
    before = {name: getattr(asyncio, name) for names in HOMES.values() for name in names}
    assert set(before) == set(aio.__all__)
    ctxcheck.install()
    try:
        for home, names in HOMES.items():
            for name in names:
                assert getattr(asyncio, name) is getattr(home, name) is getattr(aio, name)
                assert issubclass(getattr(aio, name), before[name])
        ctxcheck.install()
    finally:
        ctxcheck.uninstall()
    for home, names in HOMES.items():
        for name in names:
            assert getattr(asyncio, name) is getattr(home, name) is before[name]


def test_a_name_that_somebody_else_has_replaced_is_left_to_them() -> None:
    before = asyncio.Lock
    theirs = type("Lock", (before,), {})
    ctxcheck.install()
    asyncio.Lock = theirs  # type: ignore[misc]
    try:
        ctxcheck.uninstall()
        assert asyncio.Lock is theirs
        assert asyncio.locks.Lock is before
    finally:
        asyncio.Lock = before  # type: ignore[misc]


def test_what_was_made_while_it_was_in_place_stays_checked() -> None:
    ctxcheck.install()
    try:

        class Mine(asyncio.Lock):
            pass

        made = [Mine()]
        made.append(asyncio.Lock())
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        barrier = asyncio.Barrier(1)
    finally:
        ctxcheck.uninstall()
    assert all(isinstance(lock, aio.Lock) for lock in made)

    async def main() -> None:
        async with made[0], made[1]:
            await queue.put(1)
            await queue.get()
            queue.task_done()
            await queue.join()
            await barrier.wait()
        async with made[1], made[0]:
            pass

    with checking(owners="assumed") as session:
        asyncio.run(main())
    assert found(session) == [("CTX001", "possible")]
    # what is inside of a queue or a barrier is no lock of its own
    assert {c.kind.name for c in session.engine.seen} == {"aio lock"}


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


def test_asyncio_is_never_imported_for_a_program_that_doesnt() -> None:
    code = "import ctxcheck, sys; ctxcheck.install(); ctxcheck.checking().start(); print('asyncio' in sys.modules)"
    assert run(code) == "False"


def test_it_takes_its_place_as_soon_as_asyncio_comes() -> None:
    code = """
import sys, ctxcheck
before = sys.meta_path[:]
ctxcheck.install()
session = ctxcheck.Session(); session.start()
import asyncio.queues
from asyncio import Lock
assert Lock is ctxcheck.aio.Lock and asyncio.queues.Queue is ctxcheck.aio.Queue
assert asyncio.__spec__.loader is asyncio.__loader__
assert type(asyncio.__loader__).__name__ == "SourceFileLoader"
async def main():
    a, m = Lock(), ctxcheck.Lock()
    async with a:
        with m:
            await asyncio.sleep(0)
asyncio.run(main())
session.stop()
print([v.rule for v in session.violations])
ctxcheck.uninstall()
assert before == sys.meta_path
assert asyncio.Lock is Lock.__mro__[2]
assert "ctxcheck" not in asyncio.events.Handle._run.__code__.co_filename
"""
    assert run(code) == "['CTX104']"


def test_taken_back_before_asyncio_comes() -> None:
    code = """
import sys, ctxcheck
before = sys.meta_path[:]
ctxcheck.install(); ctxcheck.uninstall()
with ctxcheck.checking(): pass
assert before == sys.meta_path
import asyncio
print(asyncio.Lock.__module__, asyncio.events.Handle._run.__module__)
"""
    assert run(code) == "asyncio.locks asyncio.events"


def test_aio_is_there_by_its_name() -> None:
    assert run("import ctxcheck; print(ctxcheck.aio.Lock.__name__)") == "Lock"
    assert run("from ctxcheck import aio; print(aio.Queue.__name__)") == "Queue"


def test_while_they_stand_there_the_classes_say_that_they_are_from_there() -> None:
    before = {name: getattr(aio, name).__module__ for name in aio.__all__}
    ctxcheck.install()
    try:
        for home, names in HOMES.items():
            for name in names:
                assert getattr(asyncio, name).__module__ == home.__name__
        assert repr(asyncio.Event()).startswith("<asyncio.locks.Event object at")
    finally:
        ctxcheck.uninstall()
    assert {name: getattr(aio, name).__module__ for name in aio.__all__} == before
