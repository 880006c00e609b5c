"""The owners of a session: how one comes, and what is looked at when it is gone (CTX203, CTX303).

Threads come when they take their first checked step, and so do tasks; they go with their thread-local state, with
their last step, or in a fork.
"""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from typing import TYPE_CHECKING, Any, Final, final

from ctxcheck.engine import ranges
from ctxcheck.engine.classes import REGION, LockClass
from ctxcheck.engine.contexts import roles, stand_in_role
from ctxcheck.engine.findings import Finding, ReleaseFacts
from ctxcheck.engine.generators import holding_generator
from ctxcheck.engine.owner import Node, Owner, OwnerState
from ctxcheck.engine.raw import get_ident
from ctxcheck.engine.taskstate import TaskState, TriePool

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator

_serials: Final = itertools.count(1).__next__


@final
class Roster:
    """The owners of one session.  Needs no lock: each change is one atomic operation."""

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        #: owners that took a step; may lose some where many begin at the same moment, but never all
        self.begun: int = 0
        #: the serials of those that something was asked about, but that haven't taken a step
        self.unseen: set[int] = set()
        self._states: dict[int, weakref.ref[OwnerState]] = {}
        #: the tasks that have taken a checked step, by `id()`; a task that is gone takes its entry with it
        self.tasks: dict[int, TaskState] = {}
        self.tries: TriePool = TriePool()
        self._creators: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        #: holds of owners that are gone, which a hand-off may still redeem
        self._left_held: dict[Node, Finding] = {}

    def new_state(self) -> OwnerState:
        """Make the state of the calling thread."""
        state = OwnerState(Owner(_serials(), get_ident()), self._engine)
        state.origin = state.home = self._engine.origins.default
        for step in roles():
            stand_in_role(state, step)
        self._states[state.owner.serial] = weakref.ref(state)
        self.begun += 1
        return state

    def seen(self, state: OwnerState) -> None:
        """It takes a step."""
        if state.owner.serial in self.unseen:
            self.unseen.discard(state.owner.serial)
            self.begun += 1

    def unsee(self, state: OwnerState) -> None:
        """It was made to no purpose: it counts when it takes a step."""
        self.unseen.add(state.owner.serial)
        self.begun -= 1

    def task_state(self, task: Any, thread: Owner) -> TaskState:
        """The state of a task that runs on ``thread``; made, if need be."""
        state = self.tasks.get(id(task))
        if state is None:
            made = self.tries.take(task) or TaskState(self._engine)
            made.begin(_serials(), task, thread)
            if self._engine.origins.default:
                self._belongs(made, task, thread)
            # not before it is whole: the collector may come meanwhile, and its context asks for one as well
            state = self.tasks.setdefault(id(task), made)
            if state is not made:
                self._engine.freed(made.dissolve())
            self._states[state.owner.serial] = weakref.ref(state)
        return state

    def sent(self, task: Any, by: OwnerState) -> None:
        """A task was created by this owner, whose origin it has."""
        try:
            self._creators[task] = self._engine.of(by).origin
        except TypeError:  # a task of the program's own make, which can't be looked up
            pass

    def _belongs(self, state: TaskState, task: Any, thread: Owner) -> None:
        """Say what a new task's steps count for: what its creator's do, or else its thread's."""
        reference = self._states.get(thread.serial)
        runner = None if reference is None else reference()
        try:
            origin = self._creators.get(task)
        except TypeError:
            origin = None
        origins = self._engine.origins
        origin = origins.living(origin or (runner.origin if runner is not None else origins.default))
        state.home = origin
        state.lent, state.served = 0, False
        origins.move(state, origin)

    def forget_task(self, state: TaskState) -> None:
        """A task's object is gone.  May run at any bytecode: what is left of it is let go of, and nothing is said."""
        self.tasks.pop(state.task_id, None)
        self._states.pop(state.owner.serial, None)
        if not state.ended:
            state.ended = True
            self._engine.freed(state.dissolve())

    def live_states(self) -> list[OwnerState]:
        """The states of the owners that are there now."""
        references = list(self._states.values())  # one atomic copy, while threads come and go
        return [state for reference in references if (state := reference()) is not None]

    def end(self, state: OwnerState, how: str = "thread") -> None:
        """The owner is gone: check what it left behind (CTX203, CTX303), and free its trie."""
        if state.ended or self._engine.closed or self._engine.broken:
            return
        state.settle()
        self._engine.destroyed.tell(state)
        state.ended = True
        state.owner.learn_name()
        try:
            for bracket in list(state.brackets):
                ranges.left_open(self._engine, state, bracket, how)
            for node in state.all_own_held():
                self.left(state, node, how)
        finally:
            if not isinstance(state, TaskState):
                self._engine.freed(state.dissolve())
            else:
                self.tasks.pop(state.task_id, None)
                if not self.tries.keep(state):
                    self._engine.freed(state.dissolve())
            self._engine.of(state).waits.ended(state.owner)
            self._states.pop(state.owner.serial, None)
            self.unseen.discard(state.owner.serial)

    def left(self, state: OwnerState, node: Node, how: str) -> None:
        """An owner, or a test, is over, and holds this entry of its chain (CTX303)."""
        lock_class = node.step.lock_class
        if lock_class is None or lock_class.kind.resource or lock_class.kind.abroad or lock_class.handed_over:
            return
        if lock_class.kind is REGION:
            return
        if isinstance(state, TaskState) and node.stands_for in state.over and holding_generator(node.trace) is not None:
            return  # told when the task was suspended with it
        finding = self._engine.generators.left(state, node, how) or self._left_held_by(state, node, lock_class, how)
        if lock_class.kind.owned:
            self._engine.emit(state, finding)
        else:
            # a plain Lock may still be released by another thread, which makes it a hand-off
            if state.origin:
                finding = dataclasses.replace(finding, origin=self._engine.of(state).origin)
            self._left_held[node.stands_for] = finding

    def _left_held_by(self, state: OwnerState, node: Node, lock_class: LockClass, how: str) -> Finding:
        entry = self._engine.entry(node)
        return Finding(
            "CTX303",
            "certain" if lock_class.kind.owned else "possible",
            state.owner,
            node.trace,
            (lock_class.key, node.trace.function()),
            ReleaseFacts(lock_class, state.owner, entry, how),
            (lock_class,),
            self._engine.allowed(node.stands_for, "CTX303"),  # as it was acquired: what was around that has been left
        )

    def redeem(self, node: Node) -> None:
        """What an owner left held when it ended has been released after all."""
        left = self._left_held.pop(node, None)
        if left is not None:
            self._engine.on_withdrawal(left)

    def told(self, node: Node) -> None:
        """What an owner left held when it ended has been told of, as something worse."""
        self._left_held.pop(node, None)

    def forget_chains(self) -> None:
        """Each owner's chains are looked at anew, as what they were validated against has changed."""
        self.tries.clear()
        for state in self.live_states():
            nodes = [state.root, *state.cur.chain()]
            while nodes:
                node = nodes.pop()
                children = list(node.values())
                self._engine.freed(len(children))
                nodes.extend(children)
                node.clear()

    def forget_class(self, lock_class: LockClass) -> None:
        """The chains that end in this class are looked at anew."""
        self.tries.clear()
        for state in self.live_states():
            for parent in state.cached.pop(lock_class, ()):
                for step in lock_class.steps():
                    parent.pop(step, None)

    def pending(self) -> list[Finding]:
        """What will be reported at the end unless something redeems it until then."""
        return [f for f in self._left_held.values() if not any(c.handed_over for c in f.classes)]

    def settled(self, origin: str) -> list[Finding]:
        """As :meth:`pending`, of an origin that is over: nothing will redeem it any more."""
        held = [node for node, finding in list(self._left_held.items()) if finding.origin == origin]
        return [finding for node in held if (finding := self._left_held.pop(node, None)) is not None]

    def clear(self) -> None:
        """Forget what was left: it was told, or isn't this process's business."""
        self._left_held.clear()

    def after_fork(self, survivor: OwnerState | None) -> None:
        """In a forked child: only the calling thread is left, and its tasks."""
        self.clear()
        here = None if survivor is None else survivor.owner.ident
        for state in self.live_states():
            if state.owner.ident != here:
                state.ended = True
                self._states.pop(state.owner.serial, None)
                continue
            # the calling thread's, and those of its tasks
            state.owner.ident = get_ident()
            state.waiting = None
