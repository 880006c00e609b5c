"""What asyncio's locks have in common for the engine: their record, and what happens at an acquire and a release.

An acquire is asked about before it can wait, and stood upon when it has succeeded; a release leaves.

Imports asyncio: only for programs that have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from ctxcheck import fastpath, tasks
from ctxcheck.engine import levels, slowpath, waiting
from ctxcheck.engine.classes import AWAIT, WITH, Kind, LockClass, Step, Token
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.findings import Finding
from ctxcheck.engine.instances import credit, crediting
from ctxcheck.engine.owner import VOID, Node, OwnerState, Unused
from ctxcheck.engine.postponed import postpones
from ctxcheck.engine.raw import get_ident, uninterrupted
from ctxcheck.engine.sites import capture
from ctxcheck.engine.taskstate import TaskState
from ctxcheck.engine.telling import report_sleep
from ctxcheck.locks.naming import classify
from ctxcheck.locks.plain import OFF_FOR_GOOD
from ctxcheck.locks.scope import in_scope

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator


@final
class Record:
    """What the engine needs of a lock.  ``node`` is where its holder stands, VOID if it was taken unseen.

    Beside the lock, not in it: a subclass of asyncio's class may derive from anything else, and call its own what it
    likes.  It is the lock's ``_ctxcheck_record``.
    ``told`` is a finding that its release by another task takes back.
    """

    __slots__ = ("__weakref__", "node", "order_key", "step", "token", "told")

    def __init__(self, lock_class: LockClass, unused: Unused | None, order_key: Any = None) -> None:
        self.node: Any = unused
        self.order_key: Any = order_key
        self.step: Step = lock_class.step(WITH)
        self.token: Token = lock_class.token
        self.told: Finding | None = None
        lock_class.created += 1
        if crediting:
            credit(lock_class)

    @property
    def lock_class(self) -> LockClass:
        """Its class: may change once, when a lock whose name isn't known yet is first taken."""
        lock_class = self.step.lock_class
        assert lock_class is not None
        return lock_class

    @postpones
    @uninterrupted
    def __del__(self, forget: Callable[[Any], None] = slowpath.forget) -> None:
        # a lock that goes while it is held must not stay on its holder's chain
        try:
            node = self.node
        except AttributeError:
            return
        if node is not None:
            forget(self)


def new_record(kind: Kind, name: str | None, order_key: Any = None, *, depth: int = 3) -> Record | None:
    """A record for a lock that is made ``depth`` calls up; ``None`` where that is none of ours to check."""
    if OFF_FOR_GOOD or (name is None and not in_scope()):
        return None
    return Record(*classify(kind, name, depth=depth), order_key)


def ask(record: Record, state: OwnerState, step: Step, *, itself: bool = True, under: Any = None) -> Node:
    """Validate an acquire that may wait: the node to stand on, when it has succeeded.

    ``itself``: by the owner, and for as long as it takes.  ``under`` is the lock that it is nested under.
    """
    if state.drops:
        state.settle()
    node = record.node
    lock_class = record.lock_class
    if itself and node is not None and node is not VOID and node.state is state and not lock_class.kind.resource:
        held = state.find(node)
        if held is not None and not lock_class.handed_over:
            slowpath.consult(waiting.self_deadlock, state.engine, state, lock_class, held)
    slowpath.count()
    hold = None if under is None else slowpath.consult(levels.outer_hold, state, step, under)
    known: Node | None = state.cur[step]
    if known is None:
        if not state.cur.allows & AWAIT and type(state) is TaskState:
            state.told = True
        known = slowpath.consult(state.engine.acquire, state, step, record, hold)
    return VOID if known is None else known


def stand(record: Record, state: OwnerState, node: Node) -> None:
    """The lock is taken: its task stands on ``node`` now, unless another session has begun while it waited."""
    if node is VOID or fastpath._engine is not state.engine or state.cur is VOID:
        record.node = VOID
        return
    record.node = node
    if state.drops:
        state.settle()
    state.cur = node if node.parent is state.cur else Node(state.cur, node.step, state, node.trace, stands_for=node)
    lock_class = node.step.lock_class
    if lock_class is not None and lock_class.nested:
        engine: Validator = state.engine  # type: ignore[assignment]
        slowpath.consult(engine.ledger.nesting.remember, state, node, record)


def _leave(record: Record, node: Node, *, scoped: bool) -> None:
    """Take a released hold off its task's chain; ``scoped``: by the end of its own block, whoever runs that."""
    holder = node.state
    state = tasks.owner_state()
    lock_class = record.lock_class
    if holder is state:
        if holder.cur is node:
            holder.cur = node.parent
        else:
            slowpath.drop(lock_class, node, holder)
        return
    engine = holder.engine
    same = state is not None and state.engine is engine
    if same and not scoped:
        engine.foreign_release(state, lock_class, node)
        told, record.told = record.told, None
        if told is not None:
            engine.on_withdrawal(told)
        return
    # a coroutine that is closed, or an async generator that another task ends; or taken in another session
    if holder.owner.ident != get_ident() or holder.cur is VOID or not holder.unlink(node):
        holder.drops.append(node)
    if same:
        engine.roster.redeem(node)


def watch_wait(state: OwnerState, record: Record) -> Any:
    """A task waits for a lock of its own, which another one may yet release: look again after ``deadlock_after``."""
    engine: Validator = state.engine
    finding = engine.provisional.get(state)
    if finding is None:
        return None

    def look() -> None:
        if engine.closed or engine.broken or engine.provisional.pop(state, None) is None:
            return
        record.told = finding
        try:
            slowpath.consult(engine.emit, state, finding)
        except ViolationError:
            pass  # it was recorded; the task goes on waiting, as the program asked

    return asyncio.get_running_loop().call_later(engine.deadlock_after, look)


def awaits(what: str) -> None:
    """A wait needs the permission to await, whether or not it would have waited this time (CTX101)."""
    state = tasks.owner_state()
    if state is None:
        return
    if state.drops:
        state.settle()
    if not state.cur.allows & AWAIT:
        if type(state) is TaskState:
            state.told = True
        trace = capture(2)
        slowpath.consult(_report_wait, state, what, trace)


def _report_wait(state: OwnerState, what: str, trace: Any) -> None:
    report_sleep(state.engine, state, what, "wait", trace, permission=AWAIT)


def is_scoped(node: Node) -> bool:
    """Whether it was taken by ``async with``."""
    return node.step.mode is not None and node.step.mode.scoped


def leave_scoped(record: Record, node: Node) -> None:
    """The block ends that took the lock: its hold goes off its task's chain, whoever runs the end."""
    _leave(record, node, scoped=True)


def leave_called(record: Record, node: Node) -> None:
    """``release()`` was called: the hold goes off its task's chain; another task's call is a release by another."""
    _leave(record, node, scoped=False)
