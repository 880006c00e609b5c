"""Kernel rule 10: drivers are told of a change while the page table is still locked, not afterwards.

Afterwards somebody else may have mapped another page, and the news would be about that one.
This was the bug of 2017.
"""

from model import END, MM, START, invalidate_page, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX301"]


def broken() -> None:
    mm = MM()
    table = mm.table_at(START)
    invalidate_range_start(mm, START, END)
    with table.lock:
        table.clear(START)
    invalidate_page(mm, START)
    invalidate_range_end(mm, START, END)


def near_miss() -> None:
    mm = MM()
    table = mm.table_at(START)
    invalidate_range_start(mm, START, END)
    with table.lock:
        table.clear(START)
        invalidate_page(mm, START)
    invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
