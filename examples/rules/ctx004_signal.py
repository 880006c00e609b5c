"""CTX004: a signal handler takes a lock of ordinary code.  In the near miss it is taken with the signal blocked."""

import signal
from threading import Lock

EXPECT = ["CTX004"]


class Statistics:
    def __init__(self) -> None:
        self.lock = Lock()
        self.requests = 0
        self.shown = ""

    def count(self) -> None:
        with self.lock:
            self.requests += 1

    def count_blocked(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        try:
            self.count()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def show(self, number: int, frame: object) -> None:
        with self.lock:
            self.shown = f"{self.requests} requests"


def broken() -> None:
    statistics = Statistics()
    before = signal.signal(signal.SIGUSR1, statistics.show)
    statistics.count()
    signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def near_miss() -> None:
    statistics = Statistics()
    before = signal.signal(signal.SIGUSR1, statistics.show)
    statistics.count_blocked()
    signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


if __name__ == "__main__":
    broken()
