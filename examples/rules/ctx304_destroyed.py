"""CTX304: a buffer gets a new lock while it is locked.  The near miss keeps the lock, and empties what it protects."""

from threading import Lock

EXPECT = ["CTX304"]


class Buffer:
    def __init__(self) -> None:
        self.lock = Lock()
        self.items: list[int] = []

    def put(self, item: int, *, limit: int) -> None:
        with self.lock:
            if len(self.items) == limit:
                self.flush()
            self.items.append(item)

    def flush(self) -> None:
        self.__init__()  # type: ignore[misc]


class Emptied(Buffer):
    def flush(self) -> None:
        self.items.clear()


def broken() -> None:
    buffer = Buffer()
    for item in range(3):
        buffer.put(item, limit=2)


def near_miss() -> None:
    buffer = Emptied()
    for item in range(3):
        buffer.put(item, limit=2)


if __name__ == "__main__":
    broken()
