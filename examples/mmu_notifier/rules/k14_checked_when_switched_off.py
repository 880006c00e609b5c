"""Kernel rule 14: the checks work with an empty list of callbacks, and with the notifiers switched off.

Switched off means what a kernel means that is built without them: no callback is ever made.
The kernel's own checks are gone then.
"""

from collections.abc import Generator
from contextlib import contextmanager

from model import END, MM, START, invalidate_page, invalidate_range_end, invalidate_range_start, notifier

EXPECT = ["CTX101", "CTX201", "CTX205"]


@contextmanager
def built_without_notifiers() -> Generator[None, None, None]:
    before, notifier.ENABLED = notifier.ENABLED, False
    try:
        yield
    finally:
        notifier.ENABLED = before


def broken() -> None:
    with built_without_notifiers():
        mm = MM()
        invalidate_range_start(mm, START, END)
        with mm.table_at(START).lock:
            invalidate_range_end(mm, START, END)
            invalidate_page(mm, START)


def near_miss() -> None:
    with built_without_notifiers():
        mm = MM()
        invalidate_range_start(mm, START, END)
        with mm.table_at(START).lock:
            invalidate_page(mm, START)
        invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
