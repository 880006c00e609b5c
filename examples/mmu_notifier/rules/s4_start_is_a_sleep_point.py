"""S4, kernel rule 4: a range may be opened and closed only where sleeping is allowed.

No driver is registered that could sleep.  One may be tomorrow, so the calls are wrong today.
"""

from model import END, MM, START, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX101"]


def broken() -> None:
    mm = MM()
    with mm.table_at(START).lock:
        invalidate_range_start(mm, START, END)
        invalidate_range_end(mm, START, END)


def near_miss() -> None:
    mm = MM()
    with mm.mmap_lock:
        invalidate_range_start(mm, START, END)
        invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
