"""S3: a callback at the page level is atomic, and so is all that it calls, however deep.

``change_pte`` has to be: it runs between two statements of somebody who holds the lock of
a page table.  What counts is that the allocation at the bottom *may* sleep.  It never does.
"""

from model import END, MM, START, Notifier, Page, Pte, alloc_page, register

EXPECT = ["CTX101"]


class Driver(Notifier):
    def __init__(self, wait: bool) -> None:
        self.wait = wait

    def change_pte(self, mm: MM, address: int, pte: Pte) -> None:
        self.remap(address, pte)

    def remap(self, address: int, pte: Pte) -> None:
        self.shadow_table(address)

    def shadow_table(self, address: int) -> Page:
        return alloc_page(self.wait)


def write_to_a_page_with(driver: Notifier) -> None:
    mm = MM()
    register(mm, driver)
    mm.mmap(START, END)
    mm.fault(START, write=True)


def broken() -> None:
    write_to_a_page_with(Driver(wait=True))


def near_miss() -> None:
    write_to_a_page_with(Driver(wait=False))


if __name__ == "__main__":
    broken()
