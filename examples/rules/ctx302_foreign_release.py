"""CTX302: a thread releases an RLock that another one holds.  The near miss hands a plain Lock over, which is fine."""

from contextlib import suppress
from threading import Lock, RLock, Thread
from typing import Any

EXPECT = ["CTX302"]


def release_elsewhere(lock: Any) -> None:
    def release() -> None:
        with suppress(RuntimeError):  # an RLock refuses
            lock.release()

    thread = Thread(target=release)
    thread.start()
    thread.join()


def broken() -> None:
    lock = RLock()
    with lock:
        release_elsewhere(lock)


def near_miss() -> None:
    lock = Lock()
    lock.acquire()
    release_elsewhere(lock)
    with lock:
        pass


if __name__ == "__main__":
    broken()
