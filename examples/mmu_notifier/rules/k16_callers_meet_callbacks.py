"""Kernel rule 16: who starts a range holds no lock that a callback takes, whether or not the two have met.

The callback takes the lock in one address space; the caller holds it in another one, where
nobody listens.  What ties them together is that the start says "callbacks may run here".
"""

from model import END, MM, START, Answer, Notifier, invalidate_range_end, invalidate_range_start, register

from ctxcheck import Lock

EXPECT = ["CTX001"]


class Driver(Notifier):
    def __init__(self) -> None:
        self.lock = Lock()

    def range_start(self, mm: MM, start: int, end: int, blockable: bool) -> Answer:
        with self.lock:
            return "done"


def call_back(driver: Driver) -> None:
    mm = MM()
    register(mm, driver)
    invalidate_range_start(mm, START, END)
    invalidate_range_end(mm, START, END)


def broken() -> None:
    driver = Driver()
    call_back(driver)
    mm = MM()
    with driver.lock:
        invalidate_range_start(mm, START, END)
        invalidate_range_end(mm, START, END)


def near_miss() -> None:
    driver = Driver()
    call_back(driver)
    mm = MM()
    invalidate_range_start(mm, START, END)
    with driver.lock:  # inside the range, where nobody is called back
        pass
    invalidate_range_end(mm, START, END)


if __name__ == "__main__":
    broken()
