"""CTX305: a lock that nobody holds is released.  The near miss asks first whether it got the lock."""

from contextlib import suppress
from threading import Lock

EXPECT = ["CTX305"]


def broken() -> None:
    lock = Lock()
    with suppress(RuntimeError):
        try:
            if not lock.acquire(timeout=0.001):
                return
            lock.release()
        finally:
            lock.release()


def near_miss() -> None:
    lock = Lock()
    if lock.acquire(timeout=0.001):
        lock.release()


if __name__ == "__main__":
    broken()
