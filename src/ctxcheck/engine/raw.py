"""The interpreter's own primitives, captured once, at import.

Everything in ctxcheck that needs a lock for itself takes it from here, so that
replacing ``threading``'s names (by us or by anybody else) can't make the
validator validate itself.
"""

from __future__ import annotations

import _thread
import sys
import threading
from typing import Final

allocate_lock: Final = _thread.allocate_lock
LockType: Final = _thread.LockType
RLockType: Final = _thread.RLock
get_ident: Final = _thread.get_ident
thread_count: Final = _thread._count  # pyright: ignore
get_frame: Final = sys._getframe

#: ``threading``'s public names as they were before anyone replaced them.
ORIGINALS: Final = {
    name: getattr(threading, name)
    for name in ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")
}
local: Final = threading.local

_active_threads: Final[dict[int, threading.Thread]] = threading._active  # type: ignore[attr-defined]  # pyright: ignore


def thread_name(ident: int) -> str | None:
    """Return the name of the running thread ``ident``, or ``None`` while ``threading`` doesn't know it.

    Reads ``threading``'s table directly: ``current_thread()`` takes a lock and
    registers a dummy for threads that it doesn't know, which programs can see.
    """
    thread = _active_threads.get(ident)
    # `_name`, not `name`: a subclass may override the property with anything.
    name = getattr(thread, "_name", None)
    return name if isinstance(name, str) else None
