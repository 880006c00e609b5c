"""CTX005: a finalizer needs a lock whose holder may wait for one that is held where the collector can run.

In the near miss the collector is kept out of there as well.
"""

from threading import Lock

import ctxcheck

EXPECT = ["CTX005"]

pool, stats = Lock(), Lock()


def finalize() -> None:
    with ctxcheck.interrupt("gc"), pool:
        pass


def grow() -> None:
    with ctxcheck.masked("gc"), pool:
        count()


def count() -> None:
    with stats:
        pass


def broken() -> None:
    finalize()
    grow()
    count()


def near_miss() -> None:
    finalize()
    grow()
    with ctxcheck.masked("gc"):
        count()


if __name__ == "__main__":
    broken()
