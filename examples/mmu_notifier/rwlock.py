"""A readers-writer lock, because the standard library has none.

It knows nothing of orders or contexts: ``ctxcheck.track()`` makes it take part in the rules
from outside (see ``MM.mmap_lock``).  Its own state sits under a spin lock, which is held for
a few statements only and never while somebody waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event

from ctxcheck import SpinLock


class RWLock:
    """Many readers or one writer; a waiting writer goes before the readers that come later."""

    def __init__(self) -> None:
        self._state = SpinLock(name="RWLock.state")
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0
        self._sleepers: list[Event] = []

    def acquire(self, shared: bool = False, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock, for reading if ``shared``, and return whether it was taken.

        Without ``blocking`` the answer comes at once; else ``timeout`` seconds are waited
        for it, or as long as it takes if that is -1.
        """
        if not blocking:
            timeout = 0
        with self._state:
            if shared:
                taken = self._wait_until(self._readable, timeout)
                self._readers += taken
            else:
                self._writers_waiting += 1
                taken = self._wait_until(self._writable, timeout)
                self._writers_waiting -= 1
                self._writing = taken or self._writing
                if not taken:
                    self._wake()  # the readers that stood back for this writer
        return taken

    def release(self) -> None:
        """Give the lock back; a writer is always alone, so the mode needs no telling."""
        with self._state:
            if self._writing:
                self._writing = False
            elif self._readers:
                self._readers -= 1
            else:
                raise RuntimeError("release of an RWLock that nobody holds")
            self._wake()

    def _readable(self) -> bool:
        return not self._writing and not self._writers_waiting

    def _writable(self) -> bool:
        return not self._writing and not self._readers

    def _wait_until(self, free: Callable[[], bool], timeout: float) -> bool:
        """Sleep, with the state unlocked meanwhile, until ``free()`` or for so many seconds."""
        deadline = time.monotonic() + timeout
        while not free():
            left = None if timeout < 0 else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            woken = Event()
            self._sleepers.append(woken)
            self._state.release()
            woken.wait(left)
            self._state.acquire()
        return True

    def _wake(self) -> None:
        for woken in self._sleepers:
            woken.set()
        self._sleepers.clear()
