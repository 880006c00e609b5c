"""CTX004: a finalizer takes a lock that is held where the collector can run.  In the near miss it takes none."""

from collections import deque
from threading import Lock

import ctxcheck

EXPECT = ["CTX004"]


class Connections:
    def __init__(self) -> None:
        self.lock = Lock()
        self.alive: set[int] = set()
        self.gone: deque[int] = deque()

    def add(self, number: int) -> None:
        with self.lock:
            while self.gone:
                self.alive.discard(self.gone.popleft())
            self.alive.add(number)

    def finalize(self, number: int) -> None:
        with ctxcheck.interrupt("gc"), self.lock:
            self.alive.discard(number)

    def finalize_later(self, number: int) -> None:
        with ctxcheck.interrupt("gc"):
            self.gone.append(number)  # safe anywhere; the next add() sees to it


def broken() -> None:
    connections = Connections()
    connections.add(1)
    connections.finalize(1)


def near_miss() -> None:
    connections = Connections()
    connections.add(1)
    connections.finalize_later(1)
    connections.add(2)


if __name__ == "__main__":
    broken()
