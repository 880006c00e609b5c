"""S5, kernel rule 6: the range is opened before the lock is taken and closed after it is dropped.

Four ways to get that wrong: with a page-table lock at the start or at the end, which are
places to sleep, too; and with
``mmap_lock``, which may be held all the time, but must not change hands inside.
"""

from model import END, MM, START, invalidate_range_end, invalidate_range_start

EXPECT = ["CTX101", "CTX205"]


def started_under_the_lock(mm: MM) -> None:
    with mm.table_at(START).lock:
        invalidate_range_start(mm, START, END)
    invalidate_range_end(mm, START, END)


def ended_under_the_lock(mm: MM) -> None:
    invalidate_range_start(mm, START, END)
    with mm.table_at(START).lock:
        invalidate_range_end(mm, START, END)


def dropped_inside(mm: MM) -> None:
    mm.mmap_lock.acquire()
    invalidate_range_start(mm, START, END)
    mm.mmap_lock.release()
    invalidate_range_end(mm, START, END)


def still_held_at_the_end(mm: MM) -> None:
    invalidate_range_start(mm, START, END)
    mm.mmap_lock.acquire()
    invalidate_range_end(mm, START, END)
    mm.mmap_lock.release()


def broken() -> None:
    mm = MM()
    started_under_the_lock(mm)
    ended_under_the_lock(mm)
    dropped_inside(mm)
    still_held_at_the_end(mm)


def near_miss() -> None:
    mm = MM()
    with mm.mmap_lock:
        invalidate_range_start(mm, START, END)
        with mm.table_at(START).lock:
            pass
        invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
