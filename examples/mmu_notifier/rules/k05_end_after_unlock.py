"""Kernel rule 5: the end of a range may sleep as its start may, so the page lock is dropped first."""

from model import END, MM, START, invalidate_page, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX101", "CTX205"]


def broken() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    with mm.table_at(START).lock:
        invalidate_page(mm, START)
        invalidate_range_end(mm, START, END)


def near_miss() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    with mm.table_at(START).lock:
        invalidate_page(mm, START)
    invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
