"""S7: the checks are in the wrappers, so that people see what they break with no driver at all.

Nobody is registered, the list of callbacks is empty, and no call below would have slept.
"""

from model import END, MM, START, clear_young, invalidate_page, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX101", "CTX201", "CTX205", "CTX301"]


def broken() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    with mm.table_at(START).lock:
        invalidate_range_end(mm, START, END)
        invalidate_page(mm, START)
    clear_young(mm, START)


def near_miss() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    with mm.table_at(START).lock:
        invalidate_page(mm, START)
        clear_young(mm, START)
    invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
