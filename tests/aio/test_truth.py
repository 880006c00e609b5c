"""Tasks against the oracle that tries every schedule, and against threads that run the same program."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.aio import Lock
from ctxcheck.session import Session
from tests.aio.helpers import clean, turns
from tests.engine.test_verdict import PER_OBJECT, SINGLE, programs, strict
from tests.oracle import Program, Take, deadlocks, deadlocks_of_sections, missed, play, reported, show

brief = settings(strict, max_examples=60)


async def _run(sections: Sequence[Take], locks: dict[Any, Lock]) -> None:
    for section in sections:
        async with locks[section.lock]:
            await asyncio.sleep(0)
            await _run(section.body, locks)
            await asyncio.sleep(0)


def _make(program: Program) -> dict[Any, Lock]:
    named = {lock for owner in program for section in owner for lock in section.locks()}
    # the number is taken off again by who reads the report
    return {lock: Lock(name=f"{lock[0]}.aio") for lock in sorted(named)}


def play_tasks(program: Program, *, owners: str) -> Session:
    """Each owner is a task, one after the other."""

    async def main() -> None:
        locks = _make(program)
        for owner in program:
            await asyncio.create_task(_run(owner, locks))

    with Session(owners=owners) as session:  # type: ignore[arg-type]
        asyncio.run(main())
    clean(session)
    return session


def play_together(program: Program, order: Sequence[int]) -> tuple[Session, bool]:
    """All owners at a time, started in this order; whether it hung."""

    async def main() -> bool:
        locks = _make(program)
        tasks = [asyncio.create_task(_run(program[i], locks)) for i in order]
        await turns(300)
        hung = [task for task in tasks if not task.done()]
        for task in hung:
            task.cancel()
        await asyncio.wait(tasks)
        assert not any(lock.locked() for lock in locks.values())
        return bool(hung)

    with Session(owners="observed") as session:
        hung = asyncio.run(main())
    clean(session)
    return session, hung


@brief
@given(programs(SINGLE, owners=3, sections=2, modes=False))
def test_every_deadlock_of_tasks_is_found_and_clean_programs_are_clean(program: Program) -> None:
    circles = deadlocks(program)
    report = reported(play_tasks(program, owners="observed"))
    assert missed(circles, report) == [], show(program)
    assert report.anything == bool(circles), show(program)


@brief
@given(programs(PER_OBJECT, owners=3, sections=2, modes=False))
def test_tasks_are_told_what_threads_are_told(program: Program) -> None:
    report = reported(play_tasks(program, owners="observed"))
    assert report == reported(play(program, owners="observed")), show(program)
    assert missed(deadlocks(program), report) == [], show(program)


@brief
@given(programs(SINGLE[:3], owners=2, sections=2, modes=False))
def test_the_same_where_any_section_may_run_in_any_number_of_owners(program: Program) -> None:
    report = reported(play_tasks(program, owners="assumed"))
    assert missed(deadlocks_of_sections(program, at_once=3), report) == [], show(program)
    assert report == reported(play(program, owners="assumed")), show(program)


@brief
@given(programs(SINGLE[:3], owners=4, sections=2, modes=False), st.randoms(use_true_random=False))
def test_interleaved_and_cancelled_where_they_hang(program: Program, random: Any) -> None:
    order = list(range(len(program)))
    random.shuffle(order)
    session, hung = play_together(program, order)
    report = reported(session)
    if hung:
        # validated before it waits: what hangs was told of
        assert report.anything, show(program)
        assert deadlocks(program), show(program)
    else:
        assert report == reported(play_tasks(program, owners="observed")), show(program)

