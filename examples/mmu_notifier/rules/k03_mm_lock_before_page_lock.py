"""Kernel rule 3: ``mmap_lock`` comes before the page-table lock, never the other way round.

The other way round is wrong twice.  The holder of a spin lock would have to wait; and
every fault takes the two in the usual order, so both may end up waiting for each other.
"""

from model import END, MM, START

EXPECT = ["CTX001", "CTX102"]


def address_space() -> MM:
    mm = MM()
    mm.mmap(START, END)
    mm.fault(START)  # mmap_lock, then the page-table lock
    return mm


def broken() -> None:
    mm = address_space()
    with mm.table_at(START).lock, mm.mmap_lock:
        pass


def near_miss() -> None:
    mm = address_space()
    with mm.table_at(START).lock:
        if mm.mmap_lock.acquire(blocking=False):  # takes what is free, waits for nobody
            mm.mmap_lock.release()


if __name__ == "__main__":
    broken()
