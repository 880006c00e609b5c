"""CTX006: the end of all work is waited for under a lock that the work takes.  The near miss waits without it."""

from queue import Queue
from threading import Lock, Thread

EXPECT = ["CTX006"]


def run(held: bool) -> None:
    lock = Lock()
    queue: Queue[str | None] = Queue()
    seen: list[str] = []

    def consume() -> None:
        while (item := queue.get()) is not None:
            with lock:
                seen.append(item)
            queue.task_done()

    thread = Thread(target=consume)
    thread.start()
    queue.put("first")
    queue.join()
    if held:
        with lock:
            queue.join()  # hangs if there is an item left that consume() hasn't had the lock for
    queue.put(None)
    thread.join()


def broken() -> None:
    run(held=True)


def near_miss() -> None:
    run(held=False)


if __name__ == "__main__":
    broken()
