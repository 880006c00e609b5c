"""Kernel rule 17: with no driver there, the end of a range is checked too, and so is that the page level is atomic.

In the kernel the end is checked only if the start found a driver, and nothing checks the page level.
"""

from model import END, MM, START, ZERO_PAGE, Pte, change_pte, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX101", "CTX205", "CTX301"]


def broken() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    change_pte(mm, START, Pte(ZERO_PAGE, writable=False))  # no lock, so not atomic
    with mm.table_at(START).lock:
        invalidate_range_end(mm, START, END)


def near_miss() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    with mm.table_at(START).lock:
        change_pte(mm, START, Pte(ZERO_PAGE, writable=False))
    invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
