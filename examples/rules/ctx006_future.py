"""CTX006: a result is waited for under a lock that the job takes.  The near miss asks for it when the pool is done."""

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import sleep

EXPECT = ["CTX006"]

lock = Lock()
totals: dict[str, int] = {}


def count(name: str) -> int:
    with lock:
        totals[name] = len(name)
    return totals[name]


def broken() -> None:
    with ThreadPoolExecutor(2) as pool:
        future = pool.submit(count, "one")
        while "one" not in totals:
            sleep(0)
        with lock:
            future.result()  # hangs if count() hasn't had the lock yet


def near_miss() -> None:
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(count, name) for name in ("one", "three")]
    with lock:
        sum(future.result() for future in futures)


if __name__ == "__main__":
    broken()
