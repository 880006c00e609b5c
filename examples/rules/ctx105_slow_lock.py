"""CTX105: a worker uploads under the lock that a coroutine takes.  In the near miss it only copies under it."""

import asyncio
from threading import Lock

import ctxcheck

EXPECT = ["CTX105"]


@ctxcheck.might_sleep
def upload(values: dict[str, int]) -> None:
    del values


class Stats:
    def __init__(self) -> None:
        self.lock = Lock()
        self.values: dict[str, int] = {}

    def flush(self) -> None:
        with self.lock:
            upload(self.values)
            self.values.clear()

    def flush_better(self) -> None:
        with self.lock:
            values, self.values = self.values, {}
        upload(values)

    async def handle(self) -> None:
        with self.lock:
            self.values["requests"] = self.values.get("requests", 0) + 1


async def serve(*, better: bool) -> None:
    stats = Stats()
    await stats.handle()
    await asyncio.to_thread(stats.flush_better if better else stats.flush)


def broken() -> None:
    asyncio.run(serve(better=False))


def near_miss() -> None:
    asyncio.run(serve(better=True))


if __name__ == "__main__":
    broken()
