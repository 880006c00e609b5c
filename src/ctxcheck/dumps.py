"""A dump when a signal comes: for a process that hangs, and for whoever looks at it from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def dump_on(name: str) -> Callable[[], None]:
    """Let :func:`ctxcheck.dump` answer the signal with this name (none for an empty one); returns what undoes it.

    The program's own handler, set later, takes its place.  For the main thread only, as is :func:`signal.signal`.
    """
    if not name:
        return _nothing
    import signal

    from ctxcheck.reports import waits  # now: not while a signal is handled
    from ctxcheck.session import dump

    del waits
    number = signal.Signals[name]

    def answer(number: int, frame: Any) -> None:
        del number, frame
        dump()

    before = signal.signal(number, answer)

    def undo() -> None:
        if signal.getsignal(number) is answer:
            # None: it was set by other than Python code, and can't be set again from here
            signal.signal(number, signal.SIG_DFL if before is None else before)

    return undo


def _nothing() -> None:
    pass
