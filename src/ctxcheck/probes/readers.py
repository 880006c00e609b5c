"""What an event loop has just said of a descriptor: that there is something to read.

``loop.add_reader(fd, callback)`` has the callback run when a read of ``fd`` waits for nobody, also where the descriptor
itself would block.  Asked only where a call would be told otherwise, so that a loop's callbacks cost nothing.
"""

from __future__ import annotations

import stat
import sys
from os import fstat as _fstat
from typing import Any

from ctxcheck.engine.blocking import steps_of_loops
from ctxcheck.engine.raw import get_frame


def is_ready(fd: int) -> bool:
    """Whether the calling thread is in the callback that its loop runs because ``fd`` can be read.

    One that has taken its reader off again (``remove_reader``) was cancelled by that, which is all that is left of it.
    The contents of a file are always said to be there, and may have to come from a disk all the same.
    """
    events: Any = sys.modules.get("asyncio.events")
    selectors: Any = sys.modules.get("asyncio.selector_events")
    if events is None or selectors is None:
        return False
    loop = events._get_running_loop()
    if not isinstance(loop, selectors.BaseSelectorEventLoop):
        return False
    handle = _running()
    if type(handle) is not events.Handle or stat.S_ISREG(_fstat(fd).st_mode):
        return False
    key: Any = loop._selector.get_map().get(fd)
    reader = None if key is None else key.data[0]
    return handle is reader or (reader is None and handle.cancelled())


def _running() -> Any:
    """The handle that the calling thread's loop runs now."""
    frame: Any = get_frame(1)
    while frame is not None and frame.f_code not in steps_of_loops:
        frame = frame.f_back
    return None if frame is None else frame.f_locals.get("self")
