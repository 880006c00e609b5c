"""The interpreter's own primitives."""

from __future__ import annotations

import _thread
import signal
from collections.abc import Callable, Iterator

import pytest

from ctxcheck.engine.raw import uninterrupted


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
