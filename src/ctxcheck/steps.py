"""Whose state it is while a task of asyncio takes a step.

A step runs inside of ``Handle._run``: there the state of the task takes the place of the thread's, and gives it back
when the step ends.  A task that does nothing which is checked has no state: the thread's is taken away, and the first
who asks makes the task's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath, taskstate
from ctxcheck.engine.blocking import steps_of_loops
from ctxcheck.engine.classes import EVENT_LOOP, ContextStep
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.taskstate import TaskState
from ctxcheck.engine.validator import Validator


class _Here(threading.local):
    """What the calling thread is in: ``task`` whose step it is (or ASK, where that isn't known yet), and ``outer``,
    the state that stepped aside for it."""

    task: Any = None
    outer: OwnerState | None = None


HERE: Final = _Here()
ASK: Final = object()


def no_loop() -> Any:
    """As long as asyncio isn't there."""
    return None


#: asyncio's own functions, once there is one.
running_loop: Callable[[], Any] = no_loop
task_of: Callable[[Any], Any] = no_loop  # type: ignore[assignment]


def running_task() -> Any:
    """The task that the calling thread runs now, or None: ``asyncio.current_task()`` that never raises."""
    loop = running_loop()
    return None if loop is None else task_of(loop)


def state_here(where: Any, engine: Validator) -> OwnerState | None:
    """For :func:`ctxcheck.fastpath.begin`: the state of the task that takes a step in this thread, if there is one."""
    task = HERE.task
    if task is ASK:
        task = running_task()
    return None if task is None else state_of(task, where, engine, HERE.outer)


def state_of(task: Any, where: Any, engine: Validator, outer: OwnerState | None) -> TaskState:
    """The state of a task, built upon where ``outer`` stands, the state that steps aside for it."""
    state = engine.roster.tasks.get(id(task))
    if state is None:
        state = engine.roster.task_state(task, fastpath.thread_state(where, engine).owner)
    base = _top(outer, engine)
    if state.base is not base and state.cur is not VOID and outer is not state:
        state.stand_upon(base)
    return state


def _top(outer: OwnerState | None, engine: Validator) -> Node | None:
    """Where the thread stands that a step begins on; None if it is inside of nothing."""
    if outer is None or outer.engine is not engine:
        return None
    top = outer.cur
    if type(top.step) is ContextStep and top.step.kind == "test":
        return None  # what is below isn't held by what runs in it
    return None if top.parent is top else top


def enter_loop(state: OwnerState) -> Node | None:
    """The entry of the event loop's context, for a thread that stands at ``state.cur``; None if it can't be said."""
    if state.cur.step is EVENT_LOOP:
        return state.cur  # a loop that is run by a callback of a loop, or a session that began in this step
    return slowpath.consult(state.engine.enter, state, EVENT_LOOP)


def leave_loop(state: OwnerState, inside: Node) -> None:
    """The callback is over: take the context off, from under what the callback holds on to."""
    if state.cur is not VOID:
        state.unlink(inside)


def follow(original: Callable[[Any], None], task_types: tuple[type, ...]) -> Callable[[Any], None]:
    """``Handle._run``, inside of which the thread is in the event loop's context, and which keeps the task's state in
    place while it runs a step of one."""
    here = HERE
    fast = fastpath
    loop = EVENT_LOOP

    def _run(self: Any) -> None:
        engine = fast._engine
        if engine is None:
            return original(self)
        where = fast._local
        try:
            outer: OwnerState = where.st
        except AttributeError:
            outer = fast.begin()
        cur = outer.cur
        inside = cur[loop]
        if inside is None:
            inside = enter_loop(outer)
        if inside is None or cur is VOID:
            return original(self)  # whoever runs the loop isn't being checked
        callback = self._callback
        task = getattr(callback, "__self__", None)
        name = getattr(callback, "__name__", "_") if isinstance(task, task_types) else "cancel"
        if not name.startswith("_") and name != "task_wakeup":
            # no step: another callback, or another method of a task
            outer.cur = inside
            try:
                original(self)
            finally:
                if outer.cur is inside:
                    outer.cur = inside.parent
                else:
                    leave_loop(outer, inside)
                self = task = callback = None
            return None
        before = here.outer
        before_task = here.task
        state: OwnerState | None = engine.roster.tasks.get(id(task))
        if type(state) is TaskState and state.base is not inside and state.cur is not VOID:
            state.stand_upon(inside)
        try:
            outer.cur = inside
            here.outer = outer
            here.task = task
            if state is not None:
                where.st = state
            else:
                del where.st
            original(self)
        finally:
            # stores only, until all is back: a signal handler may raise at any call
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
                leave_loop(outer, inside)
            if state is not None and state is not outer:
                step_ended(state, self._loop)
            if fast._local is not where:
                give_back(fast._local)
            self = task = callback = state = None  # an interrupt's traceback keeps this frame
        return None

    steps_of_loops.add(_run.__code__)
    return _run


def give_back(where: Any) -> None:
    """A session began in the middle of a step, and goes on: the task's state makes room for the thread's."""
    try:
        state = where.st
    except AttributeError:
        return
    if type(state) is TaskState:
        del where.st


def step_ended(state: OwnerState, loop: Any, *, over: bool = False) -> None:
    """Look at what a task that has taken a step is inside of.  What is found there has nobody to be raised at.

    ``over``: it was the last one, though the task may not know of it yet.
    """
    if type(state) is not TaskState:
        return
    engine: Validator = state.engine
    task = state.task()
    try:
        if over or task is None or task.done():
            slowpath.consult(engine.roster.end, state, "task")
        elif state.cur is not state.floor and state.cur is not VOID and not (engine.closed or engine.broken):
            slowpath.consult(taskstate.suspended, engine, state, taskstate.coroutine_of(task))
        else:
            state.told = False
    except ViolationError:
        pass  # it was recorded first
    except Exception as error:  # a callback's that was told; asyncio has a place for those
        loop.call_exception_handler({"message": "Exception in a callback of ctxcheck", "exception": error})
