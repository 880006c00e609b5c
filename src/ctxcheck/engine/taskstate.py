"""Tasks as owners: what an asyncio task holds, and what is looked at when it is suspended.

A task has a chain of its own, and during its steps that chain is the thread's: so a lock is asked for by the task that
runs, and no lock has to find out which one that is.  What the thread itself was inside of when the step began (a
``with lock:`` around ``asyncio.run()``, the creator of an eager task) lies below the task's own entries: the task's
steps run inside of it.  It isn't the task's, though: it neither waits for an asyncio lock nor is left held by it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, final

from ctxcheck.engine.classes import AWAIT, BLOCK, EVENT_LOOP, ContextStep
from ctxcheck.engine.findings import Finding, SuspendFacts
from ctxcheck.engine.generators import holding_generator
from ctxcheck.engine.owner import VOID, Node, Owner, OwnerState
from ctxcheck.engine.sites import EMPTY, Trace, chain_of, frames_of, greenlet_in, is_own, local, suspended_at
from ctxcheck.engine.telling import report_sleep

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator


@final
class TaskOwner(Owner):
    """A task; ``thread`` is that of its event loop."""

    __slots__ = ("_task", "_thread")

    def __init__(self, serial: int, task: weakref.ref[Any], thread: Owner) -> None:
        super().__init__(serial, thread.ident, "task")
        self._task: weakref.ref[Any] = task
        self._thread: Owner = thread

    @property
    def thread(self) -> Owner:
        """The thread that it runs on."""
        return self._thread

    def learn_name(self) -> None:
        """Look the name up, each time: it may be given after the first step."""
        try:
            task = self._task()
            if task is not None:
                self.name: str | None = str(task.get_name())
        except Exception:  # a task of the program's own make
            return


#: Which task the calling thread runs now; put here by who knows of asyncio.
current_task: list[Callable[[], Any]] = []


@final
class TaskState(OwnerState):
    """The state of one task in one session.

    ``base`` is where the thread stood that the chain is built upon, None for a thread that is inside of nothing, and
    ``floor`` the entry of the task's own chain that stands for it: who stands there is inside of nothing itself.
    ``restoring`` is the lock that a Condition's wait takes back, ``told`` whether this step was already said to
    wait where it may not, ``over`` the holds that are known to last over a suspension.
    """

    __slots__ = ("base", "code", "floor", "over", "restoring", "task", "task_id", "told")

    task: weakref.ref[Any]
    task_id: int

    def __init__(self, engine: Any) -> None:
        super().__init__(_NOBODY, engine)
        self.code: CodeType | None = None
        self.base: Node | None = None
        self.floor: Node = self.root
        self.restoring: Any = None
        self.told: bool = False
        self.over: list[Node] = []

    def begin(self, serial: int, task: Any, thread: Owner) -> None:
        """Become the state of a task."""
        # weak: neither is kept alive by the other
        this = weakref.ref(self)

        def gone(_: object) -> None:
            state = this()
            if state is not None:
                state.engine.roster.forget_task(state)

        self.task = weakref.ref(task, gone)
        self.task_id = id(task)
        self.owner: Owner = TaskOwner(serial, self.task, thread)
        self.code = code_of(task)
        self.ended: bool = False
        self.learned: bool = False

    def is_current(self) -> bool:
        """Whether the calling thread runs this task now."""
        task = self.task()
        return task is not None and not self.ended and any(current() is task for current in current_task)

    def stack(self, frames: dict[int, Any]) -> Trace:
        """Where it is suspended; while it takes a step, what its thread is doing."""
        task = self.task()
        coroutine = None if task is None else coroutine_of(task)
        if coroutine is None:
            return EMPTY
        return super().stack(frames) if is_running(coroutine) else chain_of(coroutine)

    def is_suspended(self) -> bool:
        """Whether it takes no step now."""
        task = self.task()
        return task is not None and not is_running(coroutine_of(task))

    def own_held(self) -> list[Node]:
        """As :meth:`all_own_held`; in an interrupting context, those taken in it."""
        return [node for node in self.cur.held() if node.stands_for.state is self]

    def all_own_held(self) -> list[Node]:
        """The locks that the task holds itself, innermost first."""
        return [node for node in self.cur.all_held() if node.stands_for.state is self]

    def stand_upon(self, base: Node | None) -> None:
        """A step begins, on a thread that stands at ``base``: build the task's own entries upon those of the thread."""
        own = [node for node in self.cur.chain() if node.stands_for.state is self]
        at = self.root
        for entry in reversed([] if base is None else list(base.chain())):
            at = self._above(at, entry)
            # the thread may not block; whether the task may await is nobody's business but the task's
            at.allows |= AWAIT
        self.floor = at
        for entry in reversed(own):
            at = Node(at, entry.step, self, entry.trace, stands_for=entry.stands_for)
        self.cur: Node = at
        self.base = base

    def _above(self, at: Node, entry: Node) -> Node:
        """The task's own entry for one of its thread's, on top of ``at``."""
        step = entry.step
        if step is not EVENT_LOOP and not (isinstance(step, ContextStep) and step.kind == "role"):
            return Node(at, entry.step, self, entry.trace, stands_for=entry.stands_for)
        # nearly every step begins here, and what was taken upon it before is known: one and the same each time
        known: Node | None = at[entry.step]
        if known is None:
            known = Node(at, entry.step, self, entry.trace, stands_for=entry.stands_for)
            if self.engine.room():
                at[entry.step] = known
        return known

    def dissolve(self) -> int:
        """As an owner's."""
        self.floor = VOID
        return super().dissolve()


_NOBODY: Final = Owner(0, 0)


def coroutine_of(task: Any) -> Any:
    """What a task runs, if it says so."""
    try:
        return task.get_coro()
    except Exception:  # a task of the program's own make
        return None


def is_running(coroutine: Any) -> bool:
    """Whether this coroutine, or one that it waits for, is being executed in some thread now."""
    return bool(getattr(coroutine, "cr_running", False) or getattr(coroutine, "gi_running", False))


def code_of(task: Any) -> CodeType | None:
    """The code that a task runs, if that is known."""
    coroutine = coroutine_of(task)
    code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
    return code if isinstance(code, CodeType) else None


#: Tries kept for tasks to come: of one function, and of all.
MAX_TRIES_OF_ONE: Final = 256
MAX_TRIES: Final = 2_000


@final
class TriePool:
    """Tries of tasks that are done, for tasks to come that run the same code: short-lived ones would validate the same
    chains again and again.

    A trie is kept only if its task was one too many: whoever takes these chains now is no news to the order graph
    (see :meth:`~ctxcheck.engine.graph.Evidence.saturated`).  Needs no lock: each change is one atomic operation.
    """

    __slots__ = ("_free", "_kept")

    def __init__(self) -> None:
        self._free: dict[CodeType, list[TaskState]] = {}
        self._kept: int = 0

    def keep(self, state: TaskState) -> bool:
        """Keep the trie of a task that is done; false if it isn't worth it, or there is no room."""
        if state.learned or state.cur is not state.floor or state.code is None or state.drops or not state.floor:
            return False
        free = self._free.setdefault(state.code, [])
        if len(free) >= MAX_TRIES_OF_ONE or self._kept >= MAX_TRIES:
            return False
        state.base = None
        state.cur = state.floor = state.root
        state.over = []
        state.instances = []
        self._kept += 1
        free.append(state)
        return True

    def take(self, task: Any) -> TaskState | None:
        """A trie for a new task, if there is one of its kind."""
        code = code_of(task)
        free = None if code is None else self._free.get(code)
        if not free:
            return None
        try:
            state = free.pop()
        except IndexError:  # another thread was first
            return None
        self._kept -= 1
        return state

    def clear(self) -> None:
        """Forget them: what they were made from has changed."""
        self._free = {}
        self._kept = 0


def _is_thread_lock(node: Node) -> bool:
    """Whether it is a lock that must not be held over a suspension."""
    lock_class = node.step.lock_class
    return (
        lock_class is not None
        and lock_class.kind.needs == BLOCK
        and lock_class.kind.sleeps
        and not lock_class.kind.resource
        and not lock_class.handed_over
    )


def suspended(engine: Validator, state: TaskState, coroutine: Any) -> None:
    """The task has really been suspended where it is inside of something: may it? (CTX101, CTX104)

    Costs a walk over what the task holds, at each suspension in which it holds anything.
    """
    state.settle()
    where: Trace | None = None
    told, state.told = state.told, False
    if not (state.cur.allows & AWAIT or told):
        where = suspended_at(coroutine)
        because = state.cur.because(AWAIT)
        if because is not None:
            what = engine.entry(because).name
            report_sleep(engine, state, what, "suspends", where, permission=AWAIT)
    over: list[Node] = []
    known, state.over = state.over, over
    for node in state.all_own_held():
        if not _is_thread_lock(node):
            continue
        over.append(node.stands_for)
        if node.stands_for not in known:
            _held_over(engine, state, node, where or suspended_at(coroutine), coroutine)


def _held_over(engine: Validator, state: TaskState, node: Node, where: Trace, coroutine: Any) -> None:
    lock_class = node.step.lock_class
    assert lock_class is not None
    state.owner.learn_name()
    state.owner.thread.learn_name()
    held = engine.entry(node)
    taker = node.trace.codes[0] if node.trace.codes else None
    generator, yields = holding_generator(node.trace), EMPTY
    if taker is not None and taker in where.codes:
        held = held._replace(exact=True)  # the code that took it is what is suspended
        generator = None
    elif generator is not None:
        yields = engine.generators.suspended(node) or EMPTY
    engine.emit(
        state,
        Finding(
            "CTX104",
            "possible",
            state.owner,
            where,
            (lock_class.key, node.trace.function(), where.function()),
            SuspendFacts(
                lock_class, held, state.owner.thread,
                "" if generator is None else generator.co_qualname, yields, _greenlet(coroutine, taker),
            ),
            (lock_class,),
            _allowed(engine, state, node, coroutine),
        ),
    )  # fmt: skip


def _allowed(engine: Validator, state: TaskState, node: Node, coroutine: Any) -> str | None:
    """The ``allow`` around the suspension, or around the acquire.

    That of a decorated coroutine isn't on the chain while this is suspended: it is the wrapper's, who keeps it.
    """
    allows = engine.allows
    return (
        allows.grant(state.cur, "CTX104")
        or allows.grant(node.stands_for, "CTX104")
        or allows.grant_of((local(f, "_ctx_step") for f in frames_of(coroutine) if is_own(f.f_code)), "CTX104")
    )


def _greenlet(coroutine: Any, taker: CodeType | None) -> Trace:
    """Where the greenlet has switched away that took the lock, if one did."""
    for frame in frames_of(coroutine):
        found = greenlet_in(frame)
        if found.codes and any(code is taker for code in found.codes):
            return found
    return EMPTY
