"""Kernel rule 23: the callbacks at the end of a non-blockable range must not sleep either."""

from model import (
    END,
    MM,
    START,
    Notifier,
    invalidate_range_end,
    invalidate_range_end_nonblock,
    invalidate_range_start,
    invalidate_range_start_nonblock,
    register,
)

from ctxcheck import might_sleep

EXPECT = ["CTX101"]


class Driver(Notifier):
    @might_sleep("waits until the device runs again")
    def range_end(self, mm: MM, start: int, end: int) -> None:
        pass


def broken() -> None:
    mm = MM()
    register(mm, Driver())
    invalidate_range_start_nonblock(mm, START, END)
    invalidate_range_end_nonblock(mm, START, END)


def near_miss() -> None:
    mm = MM()
    register(mm, Driver())
    invalidate_range_start(mm, START, END)
    invalidate_range_end(mm, START, END)  # the same driver, where it may sleep


if __name__ == "__main__":
    broken()
