"""asyncio's queues, checked: ``get``, ``put`` on one with a limit, and ``join`` are waits.

Imports asyncio: only for programs that have it.
"""

from __future__ import annotations

import asyncio.queues
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ctxcheck.locks.aiolocks import raw_event
from ctxcheck.locks.aiorecords import awaits

_T = TypeVar("_T")

#: Those that stand in for asyncio's.
NAMES: Final = ("Queue", "LifoQueue", "PriorityQueue")

if TYPE_CHECKING:
    from asyncio.queues import LifoQueue as _LifoQueue
    from asyncio.queues import PriorityQueue as _PriorityQueue
    from asyncio.queues import Queue as _Queue
else:
    # as they are now: our own will stand in their place
    _Queue = asyncio.queues.Queue
    _LifoQueue = asyncio.queues.LifoQueue
    _PriorityQueue = asyncio.queues.PriorityQueue


class Queue(_Queue[_T]):
    """A checked ``asyncio.Queue``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # one with its owner
        finished = raw_event()
        made: Any = self.__dict__["_finished"]
        if made.is_set():
            finished.set()
        self._finished = finished

    async def get(self) -> _T:
        """As ``asyncio.Queue.get``; a wait."""
        awaits(f"{type(self).__name__}.get")
        return await super().get()

    async def put(self, item: _T) -> None:
        """As ``asyncio.Queue.put``; a wait, if the queue has a limit."""
        if self.maxsize > 0:
            awaits(f"{type(self).__name__}.put")
        return await super().put(item)

    async def join(self) -> None:
        """As ``asyncio.Queue.join``; a wait."""
        awaits(f"{type(self).__name__}.join")
        return await super().join()


class LifoQueue(Queue[_T], _LifoQueue[_T]):
    """A checked ``asyncio.LifoQueue``."""


class PriorityQueue(Queue[_T], _PriorityQueue[_T]):  # type: ignore[type-var]  # asks for what can be compared
    """A checked ``asyncio.PriorityQueue``."""
