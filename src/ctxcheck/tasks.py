"""Whose an asyncio lock is that is awaited here, and the hooks in asyncio by which the steps of its tasks are followed.

``steps.py`` is what happens at each step; the first step of an eager task is taken inside of ``create_task``, which
does the same.  asyncio itself is never imported: it is hooked when the program has it, or as soon as it comes.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any, Final, final

from ctxcheck import fastpath, imports, loops, steps, timeouts
from ctxcheck.engine import behalf, slowpath, taskstate
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, OwnerState
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import local
from ctxcheck.engine.taskstate import TaskState
from ctxcheck.steps import HERE, running_task


def owner_state() -> OwnerState | None:
    """The state of whoever awaits here, None where nothing is checked.

    Asks asyncio which task runs, so that asyncio's locks belong to the right one also on loops whose steps aren't seen.
    """
    engine = fastpath._engine
    if engine is None:
        return None
    try:
        state: OwnerState = fastpath._local.st
    except AttributeError:
        state = fastpath.begin()
    if state.cur is VOID:
        return None
    task = running_task()
    if task is None:
        if type(state) is TaskState:
            state = fastpath.thread_state(fastpath._local, engine)
    elif type(state) is not TaskState or state.task_id != id(task):
        known = engine.roster.tasks.get(id(task))
        if known is None:
            where = fastpath._local
            known = engine.roster.task_state(task, fastpath.thread_state(where, engine).owner)
            if HERE.task is None:
                # nobody will see its last step
                task.add_done_callback(partial(_finished, known))
                if _watchers:
                    loops.adopt(steps.running_loop())
        if HERE.task is task and type(state) is not TaskState:
            # a session began or ended in the middle of this step
            fastpath._local.st = known
        state = known
    return None if state.cur is VOID else state


def _create(original: Callable[..., Any]) -> Callable[..., Any]:
    """``create_task``, in which an eager task takes its first step."""
    here = HERE

    def create_task(self: Any, coro: Any, *args: Any, **kwargs: Any) -> Any:
        engine = fastpath._engine
        where = fastpath._local
        outer: OwnerState | None = getattr(where, "st", None)
        eager = engine is not None and self._task_factory is not None and steps.running_loop() is self
        if not eager or (outer is not None and outer.cur is VOID):
            return _made(original(self, coro, *args, **kwargs))
        before = here.outer
        before_task = here.task
        state: OwnerState | None
        try:
            here.outer = before if outer is None else outer  # a task that was never asked for is inside of nothing
            here.task = steps.ASK
            if outer is not None:
                del where.st
            return _made(original(self, coro, *args, **kwargs))
        finally:
            try:
                state = where.st
            except AttributeError:
                state = None
            if outer is not None:
                where.st = outer
            elif state is not None:
                del where.st
            here.task = before_task
            here.outer = before
            if state is not None and state is not outer:
                steps.step_ended(state, self)
            if fastpath._local is not where:
                steps.give_back(fastpath._local)

    return create_task


#: The code of those methods that acquire for whoever awaits them.
acquiring: Final[set[CodeType]] = set()
_wait_for: list[CodeType] = []
_ensure_future: list[CodeType] = []
#: Tasks that `wait_for` makes of an acquire (up to 3.11), and for which task.
_on_behalf: Final[weakref.WeakKeyDictionary[Any, weakref.ref[Any]]] = weakref.WeakKeyDictionary()


def _create_for_another(original: Callable[..., Any]) -> Callable[..., Any]:
    """``create_task``, which sees that ``wait_for(lock.acquire(), 1)`` makes a task that only acquires."""

    def create_task(self: Any, coro: Any, *args: Any, **kwargs: Any) -> Any:
        made = _made(original(self, coro, *args, **kwargs))
        frame: Any = get_frame(1)
        if fastpath._engine is not None and frame.f_code in _ensure_future:
            acquires = getattr(coro, "cr_code", None) in acquiring
            for _ in range(4):
                if frame is not None and frame.f_code in _wait_for:
                    timeouts.ends(made, local(frame, "timeout"))
                    creator = running_task() if acquires else None
                    if creator is not None:
                        _on_behalf[made] = weakref.ref(creator)
                    break
                frame = frame and frame.f_back
        return made

    return create_task


def acquirer() -> tuple[OwnerState | None, bool, float | None]:
    """The state of whoever will hold what is acquired here, whether that is another task, and after how many seconds it
    gives up, if it does.
    """
    if fastpath._engine is None:
        return None, False, None
    limit = timeouts.left(running_task) if timeouts.limited else None
    task = running_task() if _on_behalf else None
    creator = None if task is None else _on_behalf.get(task, steps.no_loop)()
    if creator is None:
        return owner_state(), False, limit
    where, engine = fastpath._local, fastpath._engine
    state = engine.roster.tasks.get(id(creator))
    if state is None:
        state = engine.roster.task_state(creator, fastpath.thread_state(where, engine).owner)
    return (None if state.cur is VOID else state), True, limit


def _made(task: Any) -> Any:
    """In debug mode a task remembers the stack that made it; we aren't on that.  It belongs to whoever made it."""
    engine = fastpath._engine
    if engine is not None and engine.origins.default:
        slowpath.consult(engine.roster.sent, task, fastpath.current())
    if behalf.active:
        behalf.created(task)
    stack = getattr(task, "_source_traceback", None)
    if stack and stack[-1].filename == __file__:
        del stack[-1]
    return task


def _finished(state: TaskState, task: Any) -> None:
    """A done callback, for tasks whose last step nobody sees."""
    if state.task() is not task:
        return  # somebody has seen it, and the state is another task's now
    try:
        slowpath.consult(state.engine.roster.end, state, "task")
    except ViolationError:
        pass  # it was recorded first


# --- when asyncio comes ------------------------------------------------------------------


@final
class _Hook:
    """One method of asyncio's that is replaced as long as somebody needs it, and given back exactly."""

    __slots__ = ("_made", "_make", "_name", "_original", "_where")

    def __init__(self, where: type, name: str, make: Callable[[Any], Any]) -> None:
        self._where: type = where
        self._name: str = name
        self._make: Callable[[Any], Any] = make
        self._original: Any = None
        self._made: Any = None

    def put(self) -> None:
        """Put ours in place."""
        self._original = vars(self._where)[self._name]
        made = self._make(self._original)
        made.__name__, made.__qualname__ = self._name, self._original.__qualname__
        made.__doc__, made.__wrapped__ = self._original.__doc__, self._original
        self._made = made
        setattr(self._where, self._name, made)

    def take_away(self) -> None:
        """Put the original back, unless somebody else has replaced ours: then theirs goes on calling ours, which
        does nothing."""
        if vars(self._where).get(self._name) is self._made:
            setattr(self._where, self._name, self._original)


_hooks: Final[list[_Hook]] = []
_watchers: Final[list[object]] = []


def watch() -> None:
    """Follow the steps of tasks from now on; each call needs its :func:`unwatch`."""
    _watchers.append(None)
    if len(_watchers) == 1:
        fastpath.task_state = steps.state_here
        imports.when_imported("asyncio", _put_hooks)


def unwatch() -> None:
    """Stop; asyncio is as it was."""
    if _watchers:
        _watchers.pop()
        if not _watchers:
            imports.forget(_put_hooks)
            fastpath.task_state = None
            loops.give_back()
            timeouts.forget()
            while _hooks:
                _hooks.pop().take_away()


def _runner(original: Callable[..., Any]) -> Callable[..., Any]:
    """``Runner._lazy_init``, by which `asyncio.run`, the runners of test suites and servers come to their loop."""

    def _lazy_init(self: Any) -> None:
        original(self)
        loops.adopt_foreign(self._loop)

    return _lazy_init


def _setter(original: Callable[..., Any]) -> Callable[..., Any]:
    """A policy's ``set_event_loop``."""

    def set_event_loop(self: Any, loop: Any) -> None:
        original(self, loop)
        loops.adopt_foreign(loop)

    return set_event_loop


def _maker(original: Callable[..., Any]) -> Callable[..., Any]:
    """A policy's ``new_event_loop``."""

    def new_event_loop(self: Any) -> Any:
        loop = original(self)
        loops.adopt_foreign(loop)
        return loop

    return new_event_loop


def _put_hooks(asyncio: Any) -> None:
    learn(asyncio)
    tasks = asyncio.tasks
    kinds = tuple({tasks.Task, tasks._PyTask, getattr(tasks, "_CTask", tasks.Task)})
    _hooks.append(_Hook(asyncio.events.Handle, "_run", lambda original: steps.follow(original, kinds)))
    eager = hasattr(asyncio, "eager_task_factory")
    _hooks.append(_Hook(asyncio.base_events.BaseEventLoop, "create_task", _create if eager else _create_for_another))
    entering = partial(timeouts.follow, running_task=running_task)
    _hooks.append(_Hook(asyncio.timeouts.Timeout, "__aenter__", entering))
    # a loop that runs steps itself has to be known before it makes its first task
    _hooks.append(_Hook(asyncio.runners.Runner, "_lazy_init", _runner))
    policy = getattr(asyncio.events, "BaseDefaultEventLoopPolicy", None)
    if policy is not None:
        _hooks.append(_Hook(policy, "set_event_loop", _setter))
        _hooks.append(_Hook(policy, "new_event_loop", _maker))
    for hook in _hooks:
        hook.put()


def learn(asyncio: Any) -> None:
    """Learn from the module how to find the running task."""
    loops.make_task, loops.own_kind = asyncio.tasks.Task, asyncio.base_events.BaseEventLoop
    _wait_for[:] = [asyncio.tasks.wait_for.__code__]
    _ensure_future[:] = [getattr(asyncio.tasks, "_ensure_future", asyncio.tasks.ensure_future).__code__]
    steps.running_loop, steps.task_of = asyncio.events._get_running_loop, asyncio.tasks.current_task
    if not taskstate.current_task:
        taskstate.current_task.append(running_task)
