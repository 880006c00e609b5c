"""CTX104: a task awaits with a thread lock held.  In the near miss it awaits before, and something that is done."""

import asyncio
from threading import Lock

EXPECT = ["CTX104"]


class Rates:
    def __init__(self) -> None:
        self.lock = Lock()
        self.eur = 1.0

    async def fetch(self) -> float:
        await asyncio.sleep(0)
        return 1.1

    async def known(self) -> float:
        return self.eur

    async def refresh(self) -> None:
        with self.lock:
            self.eur = await self.fetch()

    async def refresh_better(self) -> None:
        eur = await self.fetch()
        with self.lock:
            self.eur = max(eur, await self.known())


def broken() -> None:
    asyncio.run(Rates().refresh())


def near_miss() -> None:
    asyncio.run(Rates().refresh_better())


if __name__ == "__main__":
    broken()
