"""Who waits for whom, for a process that hangs: when it asks for it, or when a signal comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from ctxcheck import fastpath
from ctxcheck.engine import slowpath, waitgraph
from ctxcheck.engine.owner import VOID
from ctxcheck.engine.raw import sleep
from ctxcheck.notices import to_standard_error
from ctxcheck.session import current_session


def dump(file: IO[str] | None = None) -> str:
    """Say who holds which checked locks, who waits for whom, since when and where, and name every deadlock.

    For a process that hangs: callable from anywhere, also from a signal handler while every other thread is stuck; it
    takes no lock and touches nothing.  A cycle of waits is called a deadlock only if it is there twice, 50 ms apart.

    Args:
        file: where to write it; by default standard error, past whatever the program made of ``sys.stderr``.

    Returns the text.

    Raises:
        TypeError: ``file`` can't be written to.
    """
    from ctxcheck.reports.waits import render

    if file is not None and not hasattr(file, "write"):
        raise TypeError(f"dump: file={file!r} has no write(); allowed: a file that is open for text, or None")
    session = current_session()
    if session is None:
        text = "ctxcheck: who waits for whom: nothing is checked, no session is active"
    else:
        states = session.engine.roster.live_states()
        cycles: list[waitgraph.WaitCycle] = []
        first = waitgraph.waits(states)
        if first:
            sleep(slowpath.CONFIRM_AFTER)
            cycles = waitgraph.same_waits(first, waitgraph.waits(states))
        text = render(waitgraph.snapshot(states, cycles))
    state = fastpath.current()
    saved, state.cur = state.cur, VOID  # the stream may be the program's own, and lock
    try:
        if file is None:
            to_standard_error(text + "\n")
        else:
            file.write(text + "\n")
    finally:
        state.cur = saved
    return text


def dump_on(name: str) -> Callable[[], None]:
    """Let :func:`ctxcheck.dump` answer the signal with this name (none for an empty one); returns what undoes it.

    The program's own handler, set later, takes its place.  For the main thread only, as is :func:`signal.signal`.
    """
    if not name:
        return _nothing
    import signal

    from ctxcheck.reports import waits  # now: not while a signal is handled

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
