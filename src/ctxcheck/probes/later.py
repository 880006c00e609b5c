"""A signal that has to wait is sent once more."""

from __future__ import annotations

import _thread
import signal
from typing import Any, Final

from ctxcheck.engine.raw import get_ident

_start: Final = _thread.start_new_thread
_interrupt: Final[Any] = _thread.interrupt_main
_kill: Final[Any] = getattr(signal, "pthread_kill", None)


def again(number: int) -> bool:
    """Send this thread, the main one, a signal once more; returns whether that can be done.

    By a thread that does nothing else.  It can't begin before this one lets go of the interpreter, which is some
    milliseconds later, or as soon as it waits for something; and since the signal is a real one, that is interrupted.
    """
    try:
        if _kill is None:
            _start(_interrupt, (number,))
        else:
            _start(_kill, (get_ident(), number))
    except RuntimeError:  # no more threads, or at the very end
        return False
    return True
