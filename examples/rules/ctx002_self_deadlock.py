"""CTX002: a callback under a plain Lock takes it again.  In the near miss the lock is a re-entrant one."""

from collections.abc import Callable
from threading import Lock, RLock
from typing import Any

EXPECT = ["CTX002"]


class Registry:
    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.names: list[str] = []

    def register(self, name: str, then: Callable[[], None] | None = None) -> None:
        with self.lock:
            self.names.append(name)
            if then is not None:
                then()


def broken() -> None:
    registry = Registry(Lock())
    registry.register("outer", lambda: registry.register("inner"))


def near_miss() -> None:
    registry = Registry(RLock())
    registry.register("outer", lambda: registry.register("inner"))


if __name__ == "__main__":
    broken()
