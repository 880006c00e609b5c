"""The interpreter's own primitives."""

from __future__ import annotations

import _thread
import signal
from collections.abc import Callable, Iterator

import pytest

from ctxcheck.engine.raw import uninterrupted
from tests.engine.test_slowpath import python


class Interrupted(Exception):
    """What the handler raises."""


@pytest.fixture
def interrupting() -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def look() -> None:
    """A function of Python: at its entry, signals are looked for."""


def with_a_signal_pending(call: Callable[[], object]) -> None:
    with pytest.raises(Interrupted):
        # the step of a loop over a C iterator calls without looking for signals: the next look is at `call`'s entry
        for _ in map(_thread.interrupt_main, (signal.SIGINT,)):
            call()
            break
        look()


def test_an_ordinary_function_is_interrupted_at_its_entry(interrupting: None) -> None:
    ran: list[int] = []

    def plain() -> None:
        ran[:] = (1,)

    with_a_signal_pending(plain)
    assert ran == []


def test_no_handler_at_the_entry(interrupting: None) -> None:
    ran: list[int] = []
    shared = 0

    @uninterrupted
    def plain(seen: list[int] = ran) -> None:
        seen += (1,)

    @uninterrupted
    def inner() -> None:
        nonlocal shared
        shared = 1

    @uninterrupted
    def outer(seen: list[int] = ran) -> None:
        cell = 2
        seen += (cell,)
        if not seen:
            lambda: cell  # noqa: B018

    for call in (plain, inner, outer):
        with_a_signal_pending(call)
    assert ran == [1, 2]
    assert shared == 1


def test_time_that_is_faked_for_a_test_is_not_the_validator_s() -> None:
    done = python("""
        import asyncio, sys, threading, time
        from ctxcheck import aio, checking

        seen = threading.Event()
        calls = []

        async def take(mine, other, together):
            async with mine:
                await together.wait()
                async with other:
                    pass

        async def both():  # only the watchdog can tell that they hang
            a, b, together = aio.Lock(), aio.Lock(), asyncio.Barrier(2)
            await asyncio.gather(take(a, b, together), take(b, a, together))

        with checking(deadlock_after=0.05, mode=lambda v: v.grade == "certain" and seen.set()) as session:
            real, fakes = (time.monotonic, time.sleep), (lambda: 1e9, calls.append)
            for module in list(sys.modules.values()):  # what freezegun does
                for name, value in list(vars(module).items()):
                    for original, fake in zip(real, fakes):
                        if value is original:
                            setattr(module, name, fake)
            threading.Thread(target=asyncio.run, args=(both(),), daemon=True).start()
            assert seen.wait(50)
        print(calls)
    """)
    assert done.stdout == "[]\n"
