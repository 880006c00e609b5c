"""CTX303: a thread ends with a lock held.  In the near miss somebody else releases it: a hand-off."""

from threading import Lock, Thread

EXPECT = ["CTX303"]


def take(lock: Lock) -> None:  # type: ignore[valid-type]
    thread = Thread(target=lock.acquire)  # type: ignore[attr-defined]
    thread.start()
    thread.join()


def broken() -> None:
    take(Lock())


def near_miss() -> None:
    lock = Lock()
    take(lock)
    lock.release()


if __name__ == "__main__":
    broken()
