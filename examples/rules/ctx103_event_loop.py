"""CTX103: a coroutine waits for a thread.  In the near miss another thread does the waiting, and the loop goes on."""

import asyncio
from threading import Event, Thread

EXPECT = ["CTX103"]


class Device:
    def __init__(self) -> None:
        self.ready = Event()

    def power_on(self) -> None:
        Thread(target=self.ready.set).start()

    async def start(self) -> None:
        self.power_on()
        self.ready.wait()

    async def start_better(self) -> None:
        self.power_on()
        await asyncio.to_thread(self.ready.wait)


def broken() -> None:
    asyncio.run(Device().start())


def near_miss() -> None:
    asyncio.run(Device().start_better())


if __name__ == "__main__":
    broken()
