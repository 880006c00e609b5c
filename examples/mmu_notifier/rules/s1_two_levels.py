"""S1, kernel rule 1: there are two levels of locks, and the holder of a page-level one never waits for the other.

``mmap_lock`` belongs to the address level, and its holder may sleep.  A page-table lock is
a spin lock, and its holder must not.
"""

from model import MM, START

EXPECT = ["CTX102"]


def broken() -> None:
    mm = MM()
    with mm.table_at(START).lock, mm.mmap_lock:
        pass


def near_miss() -> None:
    mm = MM()
    with mm.mmap_lock, mm.table_at(START).lock:
        pass


if __name__ == "__main__":
    broken()
