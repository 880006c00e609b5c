"""CTX004: a finalizer takes a lock that is held where the collector can run.  In the near miss it takes none."""

from collections import deque
from threading import Lock

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

    def remove(self, number: int) -> None:
        with self.lock:
            self.alive.discard(number)


class Connection:
    def __init__(self, connections: Connections, number: int) -> None:
        self.connections, self.number = connections, number
        connections.add(number)

    def __del__(self) -> None:
        self.connections.remove(self.number)


class Careful(Connection):
    def __del__(self) -> None:
        self.connections.gone.append(self.number)  # safe anywhere; the next add() sees to it


def broken() -> None:
    connections = Connections()
    Connection(connections, 1)


def near_miss() -> None:
    connections = Connections()
    Careful(connections, 1)
    Careful(connections, 2)


if __name__ == "__main__":
    broken()
