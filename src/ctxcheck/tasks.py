"""Follows the steps of asyncio's tasks, while a session runs in a program that uses asyncio.

A step runs inside of ``Handle._run``, and the first step of an eager task inside of ``create_task``: there the state of
the task takes the place of the thread's, and gives it back when the step ends.  A task that does nothing which is
checked has no state: the thread's is taken away, and the first who asks makes the task's.

asyncio itself is never imported: it is hooked when the program has it, or as soon as it comes.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from types import CodeType
from typing import Any, Final, final

from ctxcheck import fastpath, imports
from ctxcheck.engine import slowpath, taskstate
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.taskstate import TaskState
from ctxcheck.engine.validator import Validator


class _Here(threading.local):
    """What the calling thread is in: ``task`` whose step it is (or _ASK, where that isn't known yet), and ``outer``,
    the state that stepped aside for it."""

    task: Any = None
    outer: OwnerState | None = None


_here: Final = _Here()
_ASK: Final = object()


def _no_loop() -> Any:
    return None


_running_loop: Callable[[], Any] = _no_loop
_task_of: Callable[[Any], Any] = _no_loop  # type: ignore[assignment]


def running_task() -> Any:
    """The task that the calling thread runs now, or None: ``asyncio.current_task()`` that never raises."""
    loop = _running_loop()
    return None if loop is None else _task_of(loop)


# --- whose state it is -------------------------------------------------------------------


def _state_here(where: Any, engine: Validator) -> OwnerState | None:
    """For :func:`fastpath.begin`: the state of the task that takes a step in this thread, if there is one."""
    task = _here.task
    if task is _ASK:
        task = running_task()
    return None if task is None else _state_of(task, where, engine, _here.outer)


def _state_of(task: Any, where: Any, engine: Validator, outer: OwnerState | None) -> TaskState:
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
    return None if top.parent is top else top


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
            if _here.task is None:
                # nobody will see its last step
                task.add_done_callback(partial(_finished, known))
                _adopt(_running_loop())
        if _here.task is task and type(state) is not TaskState:
            # a session began or ended in the middle of this step
            fastpath._local.st = known
        state = known
    return None if state.cur is VOID else state


# --- steps -----------------------------------------------------------------------------------


def _follow(original: Callable[[Any], None], task_types: tuple[type, ...]) -> Callable[[Any], None]:
    """``Handle._run``, which keeps the task's state in place while it runs a step of one."""
    here = _here
    fast = fastpath

    def _run(self: Any) -> None:
        engine = fast._engine
        callback = self._callback
        task = getattr(callback, "__self__", None)
        if engine is None or not isinstance(task, task_types):
            return original(self)
        name = getattr(callback, "__name__", "_")
        if not name.startswith("_") and name != "task_wakeup":
            return original(self)  # another method of a task, such as `cancel`
        where = fast._local
        outer: OwnerState | None = getattr(where, "st", None)
        if outer is not None and outer.cur is VOID:
            return original(self)  # whoever runs the loop isn't being checked
        before = here.outer
        before_task = here.task
        state: OwnerState | None = engine.roster.tasks.get(id(task))
        if type(state) is TaskState:
            base = _top(outer, engine)
            if state.base is not base and state.cur is not VOID:
                state.stand_upon(base)
        try:
            here.outer = outer
            here.task = task
            if state is not None:
                where.st = state
            elif outer is not None:
                del where.st
            original(self)
        finally:
            # stores only, until all is back: a signal handler may raise at any call
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
                _step_ended(state, self._loop)
            if fast._local is not where:
                _give_back(fast._local)
            self = task = callback = state = None  # an interrupt's traceback keeps this frame
        return None

    return _run


def _create(original: Callable[..., Any]) -> Callable[..., Any]:
    """``create_task``, in which an eager task takes its first step."""
    here = _here

    def create_task(self: Any, coro: Any, *args: Any, **kwargs: Any) -> Any:
        engine = fastpath._engine
        where = fastpath._local
        outer: OwnerState | None = getattr(where, "st", None)
        eager = engine is not None and self._task_factory is not None and _running_loop() is self
        if not eager or (outer is not None and outer.cur is VOID):
            return _made(original(self, coro, *args, **kwargs))
        before = here.outer
        before_task = here.task
        state: OwnerState | None
        try:
            here.outer = outer
            here.task = _ASK
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
                _step_ended(state, self)
            if fastpath._local is not where:
                _give_back(fastpath._local)

    return create_task


#: The code of those methods that acquire for whoever awaits them.
acquiring: Final[set[CodeType]] = set()
_wait_for: list[CodeType] = []
#: Tasks that `wait_for` makes of an acquire (up to 3.11), and for which task.
_on_behalf: Final[weakref.WeakKeyDictionary[Any, weakref.ref[Any]]] = weakref.WeakKeyDictionary()


def _create_for_another(original: Callable[..., Any]) -> Callable[..., Any]:
    """``create_task``, which sees that ``wait_for(lock.acquire(), 1)`` makes a task that only acquires."""

    def create_task(self: Any, coro: Any, *args: Any, **kwargs: Any) -> Any:
        made = _made(original(self, coro, *args, **kwargs))
        if fastpath._engine is not None and getattr(coro, "cr_code", None) in acquiring:
            frame: Any = get_frame(1)
            for _ in range(4):
                if frame is not None and frame.f_code in _wait_for:
                    creator = running_task()
                    if creator is not None:
                        _on_behalf[made] = weakref.ref(creator)
                    break
                frame = frame and frame.f_back
        return made

    return create_task


def acquirer() -> tuple[OwnerState | None, bool, bool]:
    """The state of whoever will hold what is acquired here, whether that is another task, and whether it gives up.

    To be called by a method in :data:`acquiring` that is awaited, two calls further in.
    """
    if fastpath._engine is None:
        return None, False, False
    frame: Any = get_frame(3)
    timed = frame is not None and frame.f_code in _wait_for and frame.f_locals.get("timeout") is not None
    if not _on_behalf:
        return owner_state(), False, timed
    task = running_task()
    creator = None if task is None else _on_behalf.get(task, _no_loop)()
    if creator is None:
        return owner_state(), False, timed
    where, engine = fastpath._local, fastpath._engine
    state = engine.roster.tasks.get(id(creator))
    if state is None:
        state = engine.roster.task_state(creator, fastpath.thread_state(where, engine).owner)
    return (None if state.cur is VOID else state), True, True


def _made(task: Any) -> Any:
    """In debug mode a task remembers the stack that made it; we aren't on that."""
    stack = getattr(task, "_source_traceback", None)
    if stack and stack[-1].filename == __file__:
        del stack[-1]
    return task


def _give_back(where: Any) -> None:
    """A session began in the middle of a step, and goes on: the task's state makes room for the thread's."""
    try:
        state = where.st
    except AttributeError:
        return
    if type(state) is TaskState:
        del where.st


def _step_ended(state: OwnerState, loop: Any, *, over: bool = False) -> None:
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
        elif state.cur is not state.root and state.cur is not VOID and not (engine.closed or engine.broken):
            slowpath.consult(taskstate.suspended, engine, state, taskstate.coroutine_of(task))
        else:
            state.told = False
    except ViolationError:
        pass  # it was recorded first
    except Exception as error:  # a callback's that was told; asyncio has a place for those
        loop.call_exception_handler({"message": "Exception in a callback of ctxcheck", "exception": error})


def _finished(state: TaskState, task: Any) -> None:
    """A done callback, for tasks whose last step nobody sees."""
    if state.task() is not task:
        return  # somebody has seen it, and the state is another task's now
    try:
        slowpath.consult(state.engine.roster.end, state, "task")
    except ViolationError:
        pass  # it was recorded first


# --- other loops ----------------------------------------------------------------------------


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
    engine = fastpath._engine
    task = running_task()
    if engine is None or task is None or _here.task is task:
        return call(*args)
    where = fastpath._local
    outer: OwnerState | None = getattr(where, "st", None)
    if outer is not None and outer.cur is VOID:
        return call(*args)
    before = _here.outer
    before_task = _here.task
    state: OwnerState | None = None
    over = True  # a coroutine that raises has come to its end, be it by StopIteration
    try:
        _here.outer = outer
        _here.task = task
        where.st = _state_of(task, where, engine, outer)
        result = call(*args)
        over = False
        return result
    finally:
        try:
            state = where.st
        except AttributeError:
            state = None
        if outer is not None:
            where.st = outer
        elif state is not None:
            del where.st
        _here.task = before_task
        _here.outer = before
        if state is not None and state is not outer:
            _step_ended(state, _running_loop(), over=over)
        if fastpath._local is not where:
            _give_back(fastpath._local)
        task = state = None


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
        return _make_task(coro, loop=loop, **kwargs)


_make_task: Callable[..., Any] = _no_loop
_adopted: Final[list[weakref.ref[Any]]] = []


def _adopt(loop: Any) -> None:
    """Follow the steps of the tasks that this loop makes from now on."""
    if loop is None or not _watchers or any(reference() is loop for reference in _adopted):
        return
    try:
        before = loop.get_task_factory()
        if not isinstance(before, _Factory):
            loop.set_task_factory(_Factory(before))
            _adopted.append(weakref.ref(loop))
    except Exception:  # a loop that has no such thing: asyncio's locks know their task all the same
        return


def _give_loops_back() -> None:
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
        fastpath.task_state = _state_here
        imports.when_imported("asyncio", _put_hooks)


def unwatch() -> None:
    """Stop; asyncio is as it was."""
    if _watchers:
        _watchers.pop()
        if not _watchers:
            imports.forget(_put_hooks)
            fastpath.task_state = None
            _give_loops_back()
            while _hooks:
                _hooks.pop().take_away()


def _put_hooks(asyncio: Any) -> None:
    learn(asyncio)
    tasks = asyncio.tasks
    kinds = tuple({tasks.Task, tasks._PyTask, getattr(tasks, "_CTask", tasks.Task)})
    _hooks.append(_Hook(asyncio.events.Handle, "_run", lambda original: _follow(original, kinds)))
    eager = hasattr(asyncio, "eager_task_factory")
    _hooks.append(_Hook(asyncio.base_events.BaseEventLoop, "create_task", _create if eager else _create_for_another))
    for hook in _hooks:
        hook.put()


def learn(asyncio: Any) -> None:
    """Learn from the module how to find the running task."""
    global _running_loop, _task_of, _make_task
    _make_task = asyncio.tasks.Task
    _wait_for[:] = [asyncio.tasks.wait_for.__code__]
    _running_loop, _task_of = asyncio.events._get_running_loop, asyncio.tasks.current_task
    if not taskstate.current_task:
        taskstate.current_task.append(running_task)
