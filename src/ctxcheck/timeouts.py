"""Which tasks give up what they wait for by themselves: ``asyncio.timeout()`` and what is built upon it.

A timeout cancels its task once, when its time has come; what the task waits for until then has a limit.  Only that a
timeout is entered is noted; whether it still runs, and for how long, it knows itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from ctxcheck import fastpath

#: What limits each task, the outermost first: timeouts that it has entered (weak, since a timeout keeps its task), and
#: the time of its loop at which it is cancelled as a whole.
_limits: Final[weakref.WeakKeyDictionary[Any, list[weakref.ref[Any] | float]]] = weakref.WeakKeyDictionary()
#: The same, to be asked whether there is any: without a call.
limited: Final[Any] = vars(_limits)["data"]


def follow(original: Callable[[Any], Any], *, running_task: Callable[[], Any]) -> Callable[[Any], Any]:
    """``Timeout.__aenter__``, which notes that the running task has one more."""

    # no coroutine itself, and off the stack before the real one runs
    def enter(self: Any) -> Any:
        if fastpath._engine is not None:
            task = running_task()
            if task is not None:
                known = [limit for limit in _limits.get(task, ()) if not _is_over(limit)]
                known.append(weakref.ref(self))
                _limits[task] = known
        return original(self)

    return enter


def _state(timeout: Any) -> str:
    return str(getattr(getattr(timeout, "_state", None), "name", "ENTERED"))


def _is_over(limit: weakref.ref[Any] | float) -> bool:
    if isinstance(limit, weakref.ref):
        timeout = limit()
        return timeout is None or _state(timeout) in ("EXITED", "EXPIRED")
    return False


def ends(task: Any, seconds: Any) -> None:
    """``task`` is made by ``wait_for``, which will cancel it after ``seconds``."""
    if isinstance(seconds, (int, float)):
        _limits[task] = [task.get_loop().time() + seconds]


def left(running_task: Callable[[], Any]) -> float | None:
    """In how many seconds the running task is cancelled by itself; None: never.  To be asked where anything is
    :data:`limited`."""
    task = running_task()
    if task is None:
        return None
    when: list[float] = []
    for limit in _limits.get(task, ()):
        timeout = limit() if isinstance(limit, weakref.ref) else None
        if timeout is None:
            # it has been cancelled, and won't be again
            if isinstance(limit, float) and not task.cancelling():
                when.append(limit)
        elif _state(timeout) == "ENTERED" and getattr(timeout, "_task", task) is task:
            # not one that is expiring: it has cancelled its task, and won't again
            deadline = timeout.when()
            if deadline is not None:
                when.append(deadline)
    return max(0.0, min(when) - task.get_loop().time()) if when else None


def forget() -> None:
    """Nothing is followed any more."""
    _limits.clear()
