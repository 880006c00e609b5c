"""What a child process makes of a lock of :mod:`multiprocessing` that it is sent: the real one.

It is unpickled before the child has imported anything, so that this imports nothing at its top: where the child
checks itself, ``multiprocessing.synchronize`` must come first, and bring our classes with it.
"""

from __future__ import annotations

from typing import Any


def new_real(name: str) -> Any:
    """A real ``Lock`` or ``RLock`` that waits for its state."""
    from multiprocessing import synchronize

    found = getattr(synchronize, name)
    real = getattr(found, "real", found)  # ours may be in its place
    return real.__new__(real)
