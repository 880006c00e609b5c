"""Kernel rule 7: every start has one end, with the same address space and the same addresses."""

from model import END, MM, PAGE, START, in_thread, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX202", "CTX203"]


def broken() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    invalidate_range_end(mm, START, END)
    invalidate_range_end(mm, START, END)  # a second end
    in_thread(lambda: invalidate_range_start(mm, START, END))  # and a start that has none


def near_miss() -> None:
    mm = MM()
    invalidate_range_start(mm, START, END)
    invalidate_range_start(mm, END, END + PAGE)
    invalidate_range_end(mm, START, END)  # each its own end; their order is free
    invalidate_range_end(mm, END, END + PAGE)


if __name__ == "__main__":
    broken()
