"""Loops that run the steps of their tasks in a way of their own: there each task's coroutine is followed instead.

Those of asyncio itself go through ``Handle._run`` (``steps.py``).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

from ctxcheck import fastpath, steps
from ctxcheck.engine.blocking import steps_of_loops
from ctxcheck.engine.classes import EVENT_LOOP
from ctxcheck.engine.owner import VOID, OwnerState


@final
class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine whose steps are followed, on a loop that runs them in a way of its own."""

    __slots__ = ("_coro",)

    def __init__(self, coro: Any) -> None:
        self._coro: Any = coro

    def send(self, value: Any) -> Any:
        """As the coroutine's."""
        return _step(self._coro.send, value)

    def throw(self, *error: Any) -> Any:
        """As the coroutine's."""
        return _step(self._coro.throw, *error)

    def close(self) -> None:
        """As the coroutine's."""
        self._coro.close()

    def __await__(self) -> Any:
        return self._coro.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coro, name)  # `cr_code` and the like

    def __repr__(self) -> str:
        return repr(self._coro)


def _step(call: Callable[..., Any], *args: Any) -> Any:
    here = steps.HERE
    engine = fastpath._engine
    task = steps.running_task()
    if engine is None or task is None or here.task is task:
        return call(*args)
    where = fastpath._local
    outer: OwnerState | None = getattr(where, "st", None)
    if outer is not None and outer.cur is VOID:
        return call(*args)
    if outer is None:
        outer = fastpath.thread_state(where, engine)
    inside = outer.cur[EVENT_LOOP]
    if inside is None:
        inside = steps.enter_loop(outer)
    if inside is None:
        return call(*args)
    before = here.outer
    before_task = here.task
    state: OwnerState | None = None
    over = True  # a coroutine that raises has come to its end, be it by StopIteration
    try:
        outer.cur = inside
        here.outer = outer
        here.task = task
        where.st = steps.state_of(task, where, engine, outer)
        result = call(*args)
        over = False
        return result
    finally:
        try:
            state = where.st
        except AttributeError:
            state = None
        where.st = outer
        here.task = before_task
        here.outer = before
        if outer.cur is inside:
            outer.cur = inside.parent
        else:
            steps.leave_loop(outer, inside)
        if state is not None and state is not outer:
            steps.step_ended(state, steps.running_loop(), over=over)
        if fastpath._local is not where:
            steps.give_back(fastpath._local)
        task = state = None


steps_of_loops.add(_step.__code__)


@final
class _Factory:
    """A task factory that has the steps of its tasks followed, and leaves the rest to the one that was there."""

    __slots__ = ("before",)

    def __init__(self, before: Any) -> None:
        self.before: Any = before

    def __call__(self, loop: Any, coro: Any, **kwargs: Any) -> Any:
        if fastpath._engine is not None and isinstance(coro, Coroutine):
            coro = _Stepped(coro)
        if self.before is not None:
            return self.before(loop, coro, **kwargs)
        return make_task(coro, loop=loop, **kwargs)


#: asyncio's own class of tasks, once it is there.
make_task: Callable[..., Any] = steps.no_loop
#: The class of asyncio's own loops, which run each step by a `Handle`, once it is there.
own_kind: type = object
_adopted: Final[list[weakref.ref[Any]]] = []


def adopt_foreign(loop: Any) -> None:
    """Follow the steps of the tasks of a loop that is none of asyncio's own."""
    if not isinstance(loop, own_kind):
        adopt(loop)


def adopt(loop: Any) -> None:
    """Follow the steps of the tasks that this loop makes from now on."""
    if loop is None or any(reference() is loop for reference in _adopted):
        return
    try:
        before = loop.get_task_factory()
        if not isinstance(before, _Factory):
            loop.set_task_factory(_Factory(before))
            _adopted.append(weakref.ref(loop))
    except Exception:  # a loop that has no such thing: asyncio's locks know their task all the same
        return


def give_back() -> None:
    """Let all of them make their tasks as before."""
    while _adopted:
        loop: Any = _adopted.pop()()
        if loop is None:
            continue
        try:
            factory = loop.get_task_factory()
            if isinstance(factory, _Factory):
                loop.set_task_factory(factory.before)
        except Exception:  # it was ours to set, and isn't any more
            continue
