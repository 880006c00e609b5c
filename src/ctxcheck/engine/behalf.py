"""On behalf of which test a thread or a task works, where the program says so: for reports only.

Nothing is told apart by it (that is what :mod:`ctxcheck.engine.origins` is for): a stack that is captured remembers the
name, and what is found is said to be seen there.  A thread has its starter's test, a task its creator's, a job its
submitter's.  Costs nothing until a test begins.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

from ctxcheck.engine.raw import get_ident


def _no_task() -> Any:
    return None


#: Whether there are tests at all.
active: bool = False
#: What says which task the calling thread runs.
running_task: Callable[[], Any] = _no_task

_of_thread: Final[dict[int, str]] = {}
_of_task: Final[weakref.WeakKeyDictionary[Any, str]] = weakref.WeakKeyDictionary()


def now() -> str:
    """The test that the caller works for; empty if there is none."""
    if not active:
        return ""
    task = running_task()
    if task is not None:
        try:
            found = _of_task.get(task)
        except TypeError:  # a task of the program's own make, which can't be looked up
            found = None
        if found is not None:
            return found
    return _of_thread.get(get_ident(), "")


def begin(test: str) -> str:
    """The calling thread works for this test now; returns the one before, for the next call."""
    if not active:
        return ""
    here = get_ident()
    before = _of_thread.get(here, "")
    if test:
        _of_thread[here] = test
    else:
        _of_thread.pop(here, None)
    return before


def created(task: Any) -> None:
    """A task was created by the caller."""
    test = now()
    if test:
        try:
            _of_task[task] = test
        except TypeError:
            pass


def switch(on: bool, asks: Callable[[], Any] = _no_task) -> None:
    """Begin, or forget everything; ``asks`` says which task the calling thread runs."""
    global active, running_task
    active, running_task = on, asks
    if not on:
        _of_thread.clear()
        _of_task.clear()
