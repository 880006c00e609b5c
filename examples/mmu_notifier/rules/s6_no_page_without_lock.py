"""S6: a range gives nobody a page that stands still; only the page-table lock does.

So whoever works on a page needs both, the open range and the lock.
"""

from model import END, MM, START, ZERO_PAGE, Pte, change_pte, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX201", "CTX301"]


def broken() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    mm.table_at(START).get(START)  # a range, and no lock
    invalidate_range_end(mm, START, END)
    with mm.table_at(START).lock:
        change_pte(mm, START, Pte(ZERO_PAGE, writable=False))  # the lock, and no range


def near_miss() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    with mm.table_at(START).lock:
        mm.table_at(START).get(START)
        change_pte(mm, START, Pte(ZERO_PAGE, writable=False))
    invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
