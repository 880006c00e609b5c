"""Kernel rule 8: ranges nest, and many are open at once, so a flag "some range is open" says nothing.

Where the flag is still up, the page may be outside; where an inner end took it down, the page may be inside.
"""

from model import END, MM, PAGE, START, invalidate_page, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX201"]


def broken() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    invalidate_range_start(mm, START, START + PAGE)
    invalidate_range_end(mm, START, END)
    with mm.table_at(START).lock:
        invalidate_page(mm, START)  # still in the small range
        invalidate_page(mm, START + PAGE)  # a range is open, and not this page's
    invalidate_range_end(mm, START, START + PAGE)


def near_miss() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    invalidate_range_start(mm, START, START + PAGE)
    invalidate_range_end(mm, START, START + PAGE)
    with mm.table_at(START).lock:
        invalidate_page(mm, START)  # the inner end did not close the outer range
    invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
