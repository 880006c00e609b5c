"""S9: a driver may sleep before and after the page tables are walked, and never in between.

Each callback is checked at the level at which it is called, and the report calls it by its
name.  What a driver must not do in ``invalidate_page``, it may do at both ends of the range.
"""

from model import MM, Answer, Notifier, unmap_with

from ctxcheck import might_sleep

EXPECT = ["CTX101"]


@might_sleep("waits until the device has answered")
def flush_device() -> None:
    pass


class BadDriver(Notifier):
    def invalidate_page(self, mm: MM, address: int) -> None:
        flush_device()


class GoodDriver(Notifier):
    def range_start(self, mm: MM, start: int, end: int, blockable: bool) -> Answer:
        flush_device()
        return "done"

    def range_end(self, mm: MM, start: int, end: int) -> None:
        flush_device()


def broken() -> None:
    unmap_with(BadDriver())


def near_miss() -> None:
    unmap_with(GoodDriver())


if __name__ == "__main__":
    broken()
