"""``queue.Queue`` and its kin, and ``SimpleQueue``: to get, to put and to join are waits, and signals to each other.

A ``get`` from a queue that isn't empty, and a ``put`` into one that isn't full, don't count as waits for those that
hold a lock: to look first and get then, all under one lock, is a healthy habit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ctxcheck.engine.classes import ALL_DONE, ITEM, PLACE, LockClass
from ctxcheck.locks.waits import awaited_class, before_signal, before_wait, is_wait
from ctxcheck.probes.parties import KEY, fields
from ctxcheck.probes.patches import Patches


class _Awaited(NamedTuple):
    """What can be waited for at one queue."""

    item: LockClass | None
    place: LockClass | None
    all_done: LockClass | None


_NOTHING = _Awaited(None, None, None)


def watch(patches: Patches, module: Any) -> None:
    """Put the probes in place; ``module`` is ``queue``."""
    queue = module.Queue
    plain = {kind._qsize for kind in (queue, module.LifoQueue, module.PriorityQueue)}

    def size(self: Any, unknown: int) -> int:
        # a program's own way to count may do anything: it isn't asked out of turn
        count: Any = getattr(self.__class__, "_qsize", None)
        return int(count(self)) if count in plain else unknown

    def init(original: Any, live: Any) -> Any:
        def initialise(self: Any, maxsize: int = 0) -> None:
            original(self, maxsize)
            if live():
                fields(self)[KEY] = _Awaited(
                    awaited_class(ITEM, None), awaited_class(PLACE, None), awaited_class(ALL_DONE, None)
                )

        return initialise

    def get(original: Any, live: Any) -> Any:
        def get(self: Any, block: Any = True, timeout: Any = None) -> Any:
            if live():
                known = fields(self).get(KEY, _NOTHING)
                before_signal(known.place, woke=_somebody(self.not_full))
                if block and is_wait(timeout):
                    before_wait(None if size(self, 0) else known.item, "Queue.get", timed=timeout is not None)
            return original(self, block, timeout)

        return get

    def put(original: Any, live: Any) -> Any:
        def put(self: Any, item: Any, block: Any = True, timeout: Any = None) -> None:
            if live():
                known = fields(self).get(KEY, _NOTHING)
                before_signal(known.item, woke=_somebody(self.not_empty))
                if block and self.maxsize > 0 and is_wait(timeout):
                    full = size(self, self.maxsize) >= self.maxsize
                    before_wait(known.place if full else None, "Queue.put", timed=timeout is not None)
            original(self, item, block, timeout)

        return put

    def task_done(original: Any, live: Any) -> Any:
        def task_done(self: Any) -> None:
            if live():
                known = fields(self).get(KEY, _NOTHING)
                before_signal(known.all_done, woke=_somebody(self.all_tasks_done))
            original(self)

        return task_done

    def join(original: Any, live: Any) -> Any:
        def join(self: Any) -> None:
            if live():
                before_wait(fields(self).get(KEY, _NOTHING).all_done, "Queue.join", timed=False)
            original(self)

        return join

    patches.wrap(queue, "__init__", init)
    patches.wrap(queue, "get", get, covers=True)
    patches.wrap(queue, "put", put, covers=True)
    patches.wrap(queue, "task_done", task_done)
    patches.wrap(queue, "join", join, covers=True)
    if getattr(module.SimpleQueue, "__module__", "") == "_queue":
        patches.replace(module, "SimpleQueue", _simple_queue(module.SimpleQueue, patches))


def _somebody(condition: Any) -> bool:
    """Whether somebody waits on a condition, as far as it tells."""
    return bool(getattr(condition, "_waiters", ()))


def _simple_queue(base: Any, patches: Patches) -> Any:
    """``queue.SimpleQueue``, whose methods are written in C and can't be replaced: a class derived from it."""

    new_queue, get_item, put_item = base.__new__, base.get, base.put

    class SimpleQueue(base):  # type: ignore[misc]
        __slots__ = ("_awaited", "_getting")
        __doc__ = base.__doc__

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            new: Any = new_queue(cls, *args, **kwargs)
            new._awaited = awaited_class(ITEM, None) if patches.live() else None
            new._getting = []
            return new

        def get(self, block: Any = True, timeout: Any = None) -> Any:
            if self._awaited is None or not patches.live() or not block or not is_wait(timeout):
                return get_item(self, block, timeout)
            before_wait(self._awaited if self.empty() else None, "SimpleQueue.get", timed=timeout is not None)
            self._getting.append(None)
            try:
                return get_item(self, block, timeout)
            finally:
                self._getting.pop()

        def put(self, item: Any, block: Any = True, timeout: Any = None) -> None:
            if self._awaited is not None and patches.live():
                before_signal(self._awaited, woke=bool(self._getting))
            put_item(self, item, block, timeout)

        def put_nowait(self, item: Any) -> None:
            self.put(item)

    SimpleQueue.__module__ = "_queue"
    SimpleQueue.__qualname__ = "SimpleQueue"
    return SimpleQueue
