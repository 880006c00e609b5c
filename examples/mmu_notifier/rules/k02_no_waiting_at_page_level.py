"""Kernel rule 2: at the page level there is no sleep, no lock to wait for, and no allocation that waits."""

from model import MM, Notifier, alloc_page, unmap_with

from ctxcheck import Lock, SpinLock

EXPECT = ["CTX101", "CTX102"]


class BadDriver(Notifier):
    def __init__(self) -> None:
        self.lock = Lock()

    def invalidate_page(self, mm: MM, address: int) -> None:
        with self.lock:
            alloc_page()


class GoodDriver(Notifier):
    def __init__(self) -> None:
        self.lock = SpinLock()

    def invalidate_page(self, mm: MM, address: int) -> None:
        with self.lock:
            alloc_page(wait=False)


def broken() -> None:
    unmap_with(BadDriver())


def near_miss() -> None:
    unmap_with(GoodDriver())


if __name__ == "__main__":
    broken()
