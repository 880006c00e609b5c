"""asyncio's locks and queues, checked: in one graph of orders with those of ``threading``, and owned by tasks.

Each is a subclass of asyncio's own and works as that does.  ``ctxcheck.install()`` puts them in asyncio's place.
"""

from ctxcheck.locks.aiolocks import Barrier, BoundedSemaphore, Condition, Event, Lock, Semaphore
from ctxcheck.locks.aioqueues import LifoQueue, PriorityQueue, Queue

__all__ = [
    "Barrier", "BoundedSemaphore", "Condition", "Event", "LifoQueue", "Lock", "PriorityQueue", "Queue", "Semaphore",
]  # fmt: skip
