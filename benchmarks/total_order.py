"""Threads that take locks in one random total order, whatever else they do: there is nothing to report.

After ThreadSanitizer's stress test of its deadlock detector: each acquires above the highest lock that it holds, at
most ten at once, exclusive or shared, blocking, with a timeout, or by a try; releases in random order; and now and then
destroys a lock and makes it anew.
"""

from __future__ import annotations

import random
import threading
from typing import Any, Final

import ctxcheck

MOST_HELD: Final = 10


class ReadersWriter:
    """A readers-writer lock: readers come in while no writer is in or, if ``polite``, waits."""

    def __init__(self, *, polite: bool) -> None:
        self._polite = polite
        self._readers = self._waiting = 0
        self._writes = False
        self._changed = threading.Condition()

    def acquire(self, blocking: bool = True, timeout: float = -1, *, shared: bool = False) -> bool:
        with self._changed:
            self._waiting += not shared
            try:
                got = self._may_enter(shared=shared)
                if not got and blocking:
                    limit = None if timeout == -1 else timeout
                    got = self._changed.wait_for(lambda: self._may_enter(shared=shared), limit)
            finally:
                self._waiting -= not shared
                self._changed.notify_all()
            if got:
                self._readers += shared
                self._writes = not shared
            return got

    def _may_enter(self, *, shared: bool) -> bool:
        if shared:
            return not self._writes and not (self._polite and self._waiting)
        return not self._writes and not self._readers

    def release(self) -> None:
        with self._changed:
            if self._writes:
                self._writes = False
            else:
                self._readers -= 1
            self._changed.notify_all()


def make(number: int) -> Any:
    """A lock of one of the four sorts, whose class is its number in the order."""
    name = f"order.{number:06}"
    if number % 4 == 0:
        return ctxcheck.Lock(name=name)
    if number % 4 == 1:
        return ctxcheck.RLock(name=name)
    polite = number % 4 == 2
    return ctxcheck.track(ReadersWriter(polite=polite), name=name, shared=True if polite else "recursive")


def run(*, threads: int, operations: int, locks: int, seed: int = 36) -> None:
    """Let ``threads`` threads do ``operations`` each on ``locks`` locks; raises what one of them raises."""
    made = [make(number) for number in range(locks)]
    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            _work(random.Random(seed * 1000 + number), made, operations)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]


def _work(rng: random.Random, locks: list[Any], operations: int) -> None:
    held: list[tuple[int, Any, bool]] = []  # (number, lock, shared)
    for _ in range(operations):
        highest = max((number for number, _, _ in held), default=-1)
        draw = rng.random()
        if draw < 0.01:
            number = rng.randrange(len(locks))
            locks[number] = make(number)  # who holds the old one keeps it until it lets go
        elif held and (draw < 0.5 or len(held) == MOST_HELD or highest == len(locks) - 1):
            _release(*held.pop(rng.randrange(len(held)))[1:])
        else:
            # not far above, so that ten fit in
            number = rng.randrange(highest + 1, min(len(locks), highest + 1 + max(1, len(locks) // 6)))
            lock = locks[number]
            shared = number % 4 >= 2 and rng.random() < 0.6
            how: dict[str, Any] = rng.choice(({}, {}, {"blocking": False}, {"timeout": 5}))
            if lock.acquire(**how, **({"shared": True} if shared else {})):
                held.append((number, lock, shared))
    while held:
        _release(*held.pop(rng.randrange(len(held)))[1:])


def _release(lock: Any, shared: bool) -> None:
    if shared:
        lock.release(shared=True)
    else:
        lock.release()
