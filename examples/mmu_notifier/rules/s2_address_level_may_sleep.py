"""S2: a callback at the address level may sleep; so the page level must not make use of it.

When the address space calls it, only ``mmap_lock`` is held, and that one allows sleeping.
"""

from model import MM, PAGE, Answer, Notifier, unmap_with

from ctxcheck import might_sleep

EXPECT = ["CTX101"]


class Driver(Notifier):
    @might_sleep("waits until the device has stopped")
    def range_start(self, mm: MM, start: int, end: int, blockable: bool) -> Answer:
        return "done"


class LazyDriver(Driver):
    def invalidate_page(self, mm: MM, address: int) -> None:
        # "A page is a small range, and the code for ranges is there already."
        self.range_start(mm, address, address + PAGE, blockable=True)


def broken() -> None:
    unmap_with(LazyDriver())


def near_miss() -> None:
    unmap_with(Driver())


if __name__ == "__main__":
    broken()
