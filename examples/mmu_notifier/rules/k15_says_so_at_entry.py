"""Kernel rule 15: a function that may sleep says so as it is entered, also when this call will not.

The page is there already, so this fault has nothing to wait for.  The next one may.
"""

from model import END, MM, START

from ctxcheck import atomic

EXPECT = ["CTX101", "CTX102"]


def address_space() -> MM:
    mm = MM()
    mm.mmap(START, END)
    mm.fault(START)
    return mm


def broken() -> None:
    mm = address_space()
    with atomic("the device's interrupt handler"):
        mm.fault(START)


def near_miss() -> None:
    mm = address_space()
    with atomic("the device's interrupt handler"), mm.table_at(START).lock:
        present = mm.table_at(START).get(START)
    if present is None:
        mm.fault(START)


if __name__ == "__main__":
    broken()
