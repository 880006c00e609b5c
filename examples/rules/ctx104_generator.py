"""CTX104: a generator is left suspended with a lock held.  In the near miss it collects first, then yields."""

from collections.abc import Iterator
from threading import Lock

EXPECT = ["CTX104"]


class Queue:
    def __init__(self) -> None:
        self.lock = Lock()
        self.jobs = ["first", "second"]

    def pending(self) -> Iterator[str]:
        with self.lock:
            yield from self.jobs

    def pending_better(self) -> Iterator[str]:
        with self.lock:
            jobs = list(self.jobs)
        yield from jobs


class Viewer:
    def __init__(self, jobs: Iterator[str]) -> None:
        self.jobs = jobs  # kept, for whenever somebody asks for the next one
        self.shown = next(jobs)


viewers: list[Viewer] = []


def broken() -> None:
    viewers.append(Viewer(Queue().pending()))


def near_miss() -> None:
    viewers.append(Viewer(Queue().pending_better()))


if __name__ == "__main__":
    broken()
