"""S10: a wrapper says in one line that it may sleep, and doesn't leave that to the callbacks inside.

As a decorator the line speaks of every call; in the body, of the calls that get there.
Neither wrapper has anything to call back here.
"""

from collections.abc import Callable

from model import MM, START

from ctxcheck import might_sleep

EXPECT = ["CTX101"]
CALLBACKS: list[Callable[[], None]] = []


@might_sleep
def notify_exit() -> None:
    for callback in CALLBACKS:
        callback()


def notify_fork(blockable: bool) -> None:
    if blockable:
        might_sleep()
    for callback in CALLBACKS:
        callback()


def broken() -> None:
    mm = MM()
    with mm.table_at(START).lock:
        notify_exit()
        notify_fork(blockable=True)


def near_miss() -> None:
    mm = MM()
    with mm.table_at(START).lock:
        notify_fork(blockable=False)
    notify_exit()
    notify_fork(blockable=True)


if __name__ == "__main__":
    broken()
