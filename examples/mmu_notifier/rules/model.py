"""What the rule programs need of the model, whichever way they are run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

# The model is in the folder above this one, where Python doesn't look by itself.
_FOLDER = str(Path(__file__).resolve().parent.parent)
if _FOLDER not in sys.path:
    sys.path.append(_FOLDER)

import notifier  # noqa: E402
from mm import MM, PAGE, ZERO_PAGE, Page, Pte, alloc_page  # noqa: E402
from notifier import (  # noqa: E402
    Answer,
    Notifier,
    WouldSleepError,
    change_pte,
    clear_young,
    invalidate_page,
    invalidate_range_end,
    invalidate_range_end_nonblock,
    invalidate_range_start,
    invalidate_range_start_nonblock,
    register,
)

#: The addresses that the programs work on: four pages, from START up to, and without, END.
START = 0x10000
END = START + 4 * PAGE


def unmap_with(driver: Notifier) -> None:
    """Map a page and unmap it again, while ``driver`` listens."""
    mm = MM()
    register(mm, driver)
    mm.mmap(START, END)
    mm.fault(START)
    mm.munmap(START, END)


def in_thread(work: Callable[[], None]) -> None:
    """Run ``work`` in a thread of its own, and wait until that has ended."""
    thread = threading.Thread(target=work, name="another thread")
    thread.start()
    thread.join()


__all__ = [
    "END",
    "MM",
    "PAGE",
    "START",
    "ZERO_PAGE",
    "Answer",
    "Notifier",
    "Page",
    "Pte",
    "WouldSleepError",
    "alloc_page",
    "change_pte",
    "clear_young",
    "in_thread",
    "invalidate_page",
    "invalidate_range_end",
    "invalidate_range_end_nonblock",
    "invalidate_range_start",
    "invalidate_range_start_nonblock",
    "notifier",
    "register",
    "unmap_with",
]
