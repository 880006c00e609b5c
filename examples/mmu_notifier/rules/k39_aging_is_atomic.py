"""Kernel rule 39: the callbacks about the age of a page run under the page-table lock, so they are atomic too."""

from model import END, MM, START, Notifier, register

from ctxcheck import might_sleep

EXPECT = ["CTX101"]


class BadDriver(Notifier):
    def clear_young(self, mm: MM, address: int) -> bool:
        return self.ask_device(address)

    @might_sleep("waits until the device has answered")
    def ask_device(self, address: int) -> bool:
        return True


class GoodDriver(Notifier):
    def __init__(self) -> None:
        self.used = {START}  # noted down whenever the device used a page

    def clear_young(self, mm: MM, address: int) -> bool:
        used = address in self.used
        self.used.discard(address)
        return used


def age(driver: Notifier) -> None:
    mm = MM()
    register(mm, driver)
    mm.count_young(START, END)


def broken() -> None:
    age(BadDriver())


def near_miss() -> None:
    age(GoodDriver())


if __name__ == "__main__":
    broken()
