"""Kernel rule 18: the callbacks of a non-blockable start must not sleep, though no lock is held at all."""

from model import (
    END,
    MM,
    START,
    Answer,
    Notifier,
    WouldSleepError,
    invalidate_range_end_nonblock,
    invalidate_range_start_nonblock,
    register,
)

from ctxcheck import might_sleep

EXPECT = ["CTX101"]


@might_sleep("waits until the device has answered")
def flush_device() -> None:
    pass


class BadDriver(Notifier):
    def range_start(self, mm: MM, start: int, end: int, blockable: bool) -> Answer:
        flush_device()
        return "done"


class GoodDriver(Notifier):
    def range_start(self, mm: MM, start: int, end: int, blockable: bool) -> Answer:
        if not blockable:
            return "again"
        flush_device()
        return "done"


def open_without_blocking(driver: Notifier) -> None:
    mm = MM()
    register(mm, driver)
    try:
        invalidate_range_start_nonblock(mm, START, END)
    except WouldSleepError:
        return  # no range was opened, so there is none to close
    invalidate_range_end_nonblock(mm, START, END)


def broken() -> None:
    open_without_blocking(BadDriver())


def near_miss() -> None:
    open_without_blocking(GoodDriver())


if __name__ == "__main__":
    broken()
