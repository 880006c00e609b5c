"""The interpreter's own primitives, captured once, at import.

Everything in ctxcheck that needs a lock for itself takes it from here, so that
replacing ``threading``'s names (by us or by anybody else) can't make the
validator validate itself.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
from functools import partial
from types import FunctionType
from typing import Any, Final, TypeVar, cast

try:
    import mmap
except ImportError:  # an interpreter without it has no fork() either
    mmap = None  # type: ignore[assignment]

allocate_lock: Final = _thread.allocate_lock
LockType: Final = _thread.LockType
RLockType: Final = _thread.RLock
get_ident: Final = _thread.get_ident
_count: Final = _thread._count  # pyright: ignore
#: One entry for each thread of ours.
watchers: Final[list[None]] = []


def thread_count() -> int:
    """The number of the program's threads that were started and haven't ended, without the main one."""
    return _count() - len(watchers)


get_frame: Final = sys._getframe
#: The number of this process: another one in a forked child.
process: Final = os.getpid

#: Not the functions themselves: who freezes or fakes time for a test looks for those in every module.
monotonic: Final = partial(time.monotonic)
sleep: Final = partial(time.sleep)

#: ``threading``'s public names as they were before anyone replaced them.
ORIGINALS: Final = {
    name: getattr(threading, name)
    for name in ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")
}
local: Final = threading.local


def shared_bytes(size: int) -> Any:
    """So many zeros, which a forked child shares with its parent; not shared, where that can't be had."""
    return bytearray(size) if mmap is None else mmap.mmap(-1, size)


_active_threads: Final = cast("dict[int, threading.Thread]", vars(threading)["_active"])


def thread_name(ident: int) -> str | None:
    """Return the name of the running thread ``ident``, or ``None`` while ``threading`` doesn't know it.

    Reads ``threading``'s table directly: ``current_thread()`` takes a lock and
    registers a dummy for threads that it doesn't know, which programs can see.
    """
    thread = _active_threads.get(ident)
    # `_name`, not `name`: a subclass may override the property with anything.
    name = getattr(thread, "_name", None)
    return name if isinstance(name, str) else None


def is_main_thread(ident: int) -> bool:
    """Whether ``ident`` is the main thread's: the one that runs the handlers of signals."""
    return threading.main_thread().ident == ident


_F = TypeVar("_F")


def uninterrupted(function: _F) -> _F:
    """Let no signal handler run at the entry of this function.

    CPython looks for pending signals when it enters a Python function, before its first line; an exception
    raised there comes out of a ``release`` that never ran, and the lock stays held for ever, where the
    real lock's C method can't be interrupted.  The check is part of the RESUME instruction, which skips it when its
    argument says that a frame is resumed after ``yield from`` (2) and not entered (0).  So that is what we say,
    on the versions where it was tried; elsewhere the function stays as it is.
    """
    if (3, 11) <= sys.version_info < (3, 14) and sys.implementation.name == "cpython":
        from opcode import opmap

        made = cast("FunctionType", function)
        code = made.__code__.co_code
        at = 0
        # before it, where variables are shared with other functions
        while code[at] in (opmap["MAKE_CELL"], opmap["COPY_FREE_VARS"]):
            at += 2
        if code[at : at + 2] == bytes((opmap["RESUME"], 0)):
            made.__code__ = made.__code__.replace(co_code=code[: at + 1] + bytes((2,)) + code[at + 2 :])
    return function
