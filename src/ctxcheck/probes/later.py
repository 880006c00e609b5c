"""A signal that has to wait is sent once more, when nothing is being collected any more.

What other people's callbacks of the collector's raise is lost, too, and so it is in finalizers: what has struck in ours
mustn't come again in those.
"""

from __future__ import annotations

import _thread
import signal
from typing import Any, Final

from ctxcheck.engine.destroyed import COLLECTING
from ctxcheck.engine.raw import get_ident

#: Signals that wait for the end of a collection.
pending: Final[list[int]] = []
_start: Final = _thread.start_new_thread
_interrupt: Final[Any] = _thread.interrupt_main
_kill: Final[Any] = getattr(signal, "pthread_kill", None)


def again(number: int) -> bool:
    """Send this thread, the main one, a signal once more; returns whether that can be done.

    By a thread that does nothing else.  It can't begin before this one lets go of the interpreter, which is some
    milliseconds later, or as soon as it waits for something; and since the signal is a real one, that is interrupted.
    """
    if get_ident() in COLLECTING:
        pending.append(number)
        return True
    return _send(number)


def collected() -> None:
    """A collection is over, in this thread."""
    for number in [pending.pop() for _ in range(len(pending))]:
        if not _send(number):
            _interrupt(number)


def _send(number: int) -> bool:
    try:
        if _kill is None:
            _start(_interrupt, (number,))
        else:
            _start(_kill, (get_ident(), number))
    except RuntimeError:  # no more threads, or at the very end
        return False
    return True
