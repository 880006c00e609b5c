"""S8, kernel rule 9: a page is invalidated inside a range that the same thread opened where it could sleep.

Six ways to be outside; each is reported in its own words.
"""

from model import (
    END,
    MM,
    PAGE,
    START,
    in_thread,
    invalidate_page,
    invalidate_range_end,
    invalidate_range_end_nonblock,
    invalidate_range_start,
    invalidate_range_start_nonblock,
)

EXPECT = ["CTX201"]


def never_opened(mm: MM) -> None:
    with mm.table_at(START).lock:
        invalidate_page(mm, START)


def after_the_end(mm: MM) -> None:
    invalidate_range_start(mm, START, END)
    invalidate_range_end(mm, START, END)
    with mm.table_at(START).lock:
        invalidate_page(mm, START)


def outside_its_addresses(mm: MM) -> None:
    invalidate_range_start(mm, START, END)
    with mm.table_at(END).lock:
        invalidate_page(mm, END)  # END is the first address behind the range
    invalidate_range_end(mm, START, END)


def of_another_address_space(mm: MM) -> None:
    other = MM()
    invalidate_range_start(other, START, END)
    with mm.table_at(START).lock:
        invalidate_page(mm, START)
    invalidate_range_end(other, START, END)


def in_the_range_of_another_thread(mm: MM) -> None:
    def work() -> None:
        with mm.table_at(START).lock:
            invalidate_page(mm, START)

    invalidate_range_start(mm, START, END)
    in_thread(work)
    invalidate_range_end(mm, START, END)


def opened_where_nobody_may_sleep(mm: MM) -> None:
    with mm.table_at(START).lock:
        invalidate_range_start_nonblock(mm, START, END)
        invalidate_page(mm, START)
        invalidate_range_end_nonblock(mm, START, END)


def broken() -> None:
    for outside in (
        never_opened,
        after_the_end,
        outside_its_addresses,
        of_another_address_space,
        in_the_range_of_another_thread,
        opened_where_nobody_may_sleep,
    ):
        outside(MM())


def near_miss() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    with mm.table_at(START).lock:
        invalidate_page(mm, END - PAGE)
    invalidate_range_end(mm, START, END)
    invalidate_range_start_nonblock(mm, START, END)  # needn't sleep, but could have
    with mm.table_at(START).lock:
        invalidate_page(mm, START)
    invalidate_range_end_nonblock(mm, START, END)


if __name__ == "__main__":
    broken()
