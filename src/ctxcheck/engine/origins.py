"""Whose business it is what an owner does: origins.

An **origin** is a test, a fixture that serves several tests, the import of modules; it belongs to the owner.  A thread
has its starter's, a task its creator's, a job its submitter's.  What interrupts (finalizers, the collector's callbacks,
signal handlers) is of the *background*, since it comes when it will; so is an owner that outlives its test, with all
that it has done, since how far it gets by then is chance.  Thus what is blamed on a test doesn't depend on when some
daemon ran, nor on which tests ran before.

Each origin has a :class:`~ctxcheck.engine.ledger.Ledger`, in which everything begins anew: orders, chains, hand-offs,
and how many instances of a class there are (:mod:`~ctxcheck.engine.instances`).  The
one owner that goes from test to test (the main thread) is told so by :meth:`Origins.begin` and :meth:`Origins.end`;
what it holds by then is no part of what comes next.  When an origin is over, what it saw goes into a union.

A session that tells no origins apart pays for none of this.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, final

from ctxcheck.engine import ranges
from ctxcheck.engine.classes import REGISTRY, ContextStep, LockClass
from ctxcheck.engine.graph import Evidence, OrderGraph
from ctxcheck.engine.instances import BACKGROUND, IMPORT, Instances
from ctxcheck.engine.latches import Latches
from ctxcheck.engine.ledger import Ledger
from ctxcheck.engine.owner import VOID, Node, Owner, OwnerState
from ctxcheck.engine.raw import get_ident
from ctxcheck.engine.sites import EMPTY
from ctxcheck.engine.union import Union

if TYPE_CHECKING:
    from ctxcheck.engine.excuses import Excuses
    from ctxcheck.engine.findings import Finding
    from ctxcheck.engine.validator import Validator

def outliving(origin: str) -> str:
    """What an owner counts for that has outlived its origin."""
    return origin if origin.startswith(BACKGROUND) else f"{BACKGROUND} of {origin}"


@final
class Phase:
    """A stretch of one owner's time that counts for one origin; phases nest.  ``again``: of one that was left before.
    """

    __slots__ = ("again", "before", "brackets", "flags", "mark", "nested", "origin", "parents", "state", "step")

    def __init__(self, state: OwnerState, origin: str, parents: tuple[str, ...], *, again: bool) -> None:
        self.state: OwnerState = state
        self.again: bool = again
        self.origin: str = origin
        self.parents: tuple[str, ...] = parents
        self.before: str = state.origin
        self.brackets: list[Any] = list(state.brackets)
        #: the classes that were handed over, and those that were nested, by what goes on when this is over
        self.flags: set[LockClass] = set()
        self.nested: set[LockClass] = set()
        self.step: ContextStep = ContextStep("test", origin, boundary=True)
        #: where its chain begins, if its owner is inside of something already
        self.mark: Node | None = None


def _hang(state: OwnerState, at: Node, entries: Iterable[Node]) -> Node:
    """The chain with these entries more, outermost first."""
    for entry in entries:
        at = Node(at, entry.step, state, entry.trace, stands_for=entry.stands_for)
    return at


def _is_busy(state: OwnerState) -> bool:
    """Whether it does something that isn't done yet; who runs jobs for others, one of those."""
    if not state.served:
        return True
    return state.lent > 0 and not (state.finished is not None and state.finished())


def _nested_now() -> set[LockClass]:
    return {lock_class for lock_class in REGISTRY.all() if lock_class.nested}


@final
class Origins:
    """The origins of one session."""

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        #: what an owner counts for whose starter isn't known
        self.default: str = ""
        self.union: Union = Union()
        self._ledgers: dict[str, Ledger] = {}
        self._phases: list[Phase] = []
        self._over: set[str] = set()
        self._instances: Instances = Instances()
        #: of origins that are or were: the classes handed over, and those of which instances were nested
        self._handed: dict[str, set[LockClass]] = {}
        self._nested: dict[str, set[LockClass]] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        #: what those that aren't over hold, though they are left
        self._holds: dict[str, set[Node]] = {}
        self._nowhere: Latches = Latches(engine.made)

    # --- whose it is ----------------------------------------------------------------

    def of(self, state: OwnerState) -> Ledger:
        """The ledger of what an owner does where it stands."""
        return self.ledger(self.whose(state))

    def whose(self, state: OwnerState) -> str:
        """The origin of what an owner does where it stands."""
        origin = state.origin
        node = state.cur
        while node.parent is not node:
            step = node.step
            if step.boundary and type(step) is ContextStep:
                if step.kind == "interrupt":
                    origin = BACKGROUND if origin else ""
                break
            node = node.parent
        return origin

    def whose_hold(self, node: Node) -> str:
        """The origin of what is held in ``node``, which may be what comes before the one that its owner has now.  Safe
        in a finalizer."""
        state = node.state
        origin = state.origin
        if not origin:
            return ""
        for left, holds in list(self._holds.items()):
            if node in holds:
                return left
        phases = [phase for phase in list(self._phases) if phase.state is state]
        marks = {phase.mark: phase.before for phase in phases if phase.mark is not None}
        for entry in state.cur.chain():
            if entry.stands_for is node:
                break
            origin = marks.get(entry.stands_for, origin)
        return origin

    def ledger(self, origin: str) -> Ledger:
        """The ledger of an origin; made, if need be."""
        if not origin:
            return self._engine.ledger
        found = self._ledgers.get(origin)
        if found is None:
            made = Ledger(self._engine, origin, lambda lock_class: self._made_in(origin, lock_class))
            found = self._ledgers.setdefault(origin, made)
        return found

    def ledgers(self) -> list[Ledger]:
        """Those that there are now."""
        return [self._engine.ledger, *self._ledgers.values()]

    def resumed(self) -> None:
        """The collector is switched on again; under the validator's mutex."""
        for ledger in self.ledgers():
            ledger.interrupts.usage.resumed()
        self.union.resumed()

    def latches(self, origin: str) -> Latches:
        """What is known of latches in an origin."""
        return self.ledger(origin).latches if not origin or origin in self._ledgers else self._nowhere

    def graphs(self, state: OwnerState) -> list[OrderGraph]:
        """All graphs of orders, that of what an owner does now first."""
        first = self._engine.of(state).graph
        every = [self._engine.ledger.graph, *(ledger.graph for ledger in list(self._ledgers.values()))]
        return [first, *(graph for graph in every if graph is not first)]

    def living(self, origin: str) -> str:
        """What an owner counts for that begins now, and was sent by this origin."""
        return outliving(origin) if origin in self._over else origin

    def move(self, state: OwnerState, origin: str) -> str:
        """From now on an owner counts for this origin; called by itself, or while it takes no step.  Returns what it
        counted for before."""
        before = state.origin
        if before != origin:
            state.origin = origin
            self._forget(state)
        return before

    def serve(self, task: Any, by: OwnerState) -> None:
        """A task does next what this owner wants done: for as long as it does, it counts for the same."""
        roster = self._engine.roster
        roster.sent(task, by)
        state = roster.tasks.get(id(task))
        if state is not None:
            state.served = True
            state.home = self._engine.of(by).origin
            self.move(state, state.home)

    def _forget(self, state: OwnerState) -> None:
        """Its chains are looked at anew."""
        nodes = [state.root, *state.cur.chain()]
        state.cached = {}
        while nodes:
            node = nodes.pop()
            if node is VOID:
                continue
            children = list(node.values())
            self._engine.freed(len(children))
            nodes.extend(children)
            node.clear()

    # --- the owner that goes from one to the next ---------------------------------------

    def begin(
        self, state: OwnerState, origin: str, parents: Iterable[str] = (), *, again: bool = False
    ) -> Phase:
        """The calling owner counts for this origin until :meth:`end`; ``parents`` are the fixtures that it asks for.

        ``again``: it goes on with one that it has left, and that isn't over.

        What it holds now isn't held by what it does next, though it can't have it either.
        """
        state.settle()
        phase = Phase(state, origin, tuple(parents), again=again)
        self._over.discard(origin)
        phase.flags = {lock_class for lock_class in REGISTRY.all() if lock_class.handed_over}
        names = (IMPORT, origin, *phase.parents)
        known = set[LockClass]().union(*(self._handed.get(name, ()) for name in names))
        for lock_class in phase.flags ^ known:
            lock_class.handed_over = lock_class in known
        phase.nested = _nested_now()
        self._set_nested(phase.nested, set[LockClass]().union(*(self._nested.get(name, ()) for name in names)))
        if not again:
            self._instances.anew(origin)
        if phase.parents or not again:
            self._parents[origin] = phase.parents
        self._phases.append(phase)
        state.origin = state.home = origin
        self._forget(state)
        self._enclose(phase, self._holds.pop(origin, set()) if again else set())
        self._engine.roster.tries.clear()
        return phase

    def end(self, phase: Phase, *, over: bool) -> list[OwnerState]:
        """The calling owner counts for what it did before.

        ``over``: the origin is, too: what is still held was left held (CTX303, CTX203).  Then the owners are returned
        that have outlived it; they count for the background now.
        """
        state = phase.state
        state.settle()
        own, below = self._split(phase)
        if over:
            for node in reversed(own):
                self._engine.roster.left(state, node, "test")
                self._engine.destroyed.told(node.stands_for)
            for bracket in [b for b in state.brackets if all(b is not old for old in phase.brackets)]:
                ranges.left_open(self._engine, state, bracket, "test")
                if bracket in state.brackets:
                    state.brackets.remove(bracket)
            self._engine.settle(phase.origin)
        self._phases.remove(phase)
        if not phase.again:
            self._instances.lend(phase.origin)
        handed = {lock_class for lock_class in REGISTRY.all() if lock_class.handed_over}
        self._handed[phase.origin] = handed
        nested = self._nested[phase.origin] = _nested_now()
        outer = self._phases[-1] if self._phases else None
        self._restore(state, own, below, outer)
        state.origin = state.home = phase.before
        self._forget(state)
        self._engine.roster.tries.clear()
        left: list[OwnerState] = []
        if over:
            self._over.add(phase.origin)
            left = self._outlive(phase.origin, state)
        else:
            self._holds[phase.origin] = {entry.stands_for for entry in own}
            phase.flags |= handed  # who asks for a fixture takes its locks as they are
            phase.nested |= nested
        for lock_class in phase.flags ^ handed:
            lock_class.handed_over = lock_class in phase.flags
        self._set_nested(nested, phase.nested)
        return left

    def _set_nested(self, before: set[LockClass], now: set[LockClass]) -> None:
        """Chains of these classes are validated each time now, and no others: with other places, so that whether some
        test has nested a class before must not matter to the next."""
        for lock_class in before - now:
            lock_class.nested = False
        for lock_class in now - before:
            lock_class.nested = True
            self._engine.roster.forget_class(lock_class)

    def _enclose(self, phase: Phase, own: set[Node]) -> None:
        """Let a phase begin its chain anew, but for what is its ``own``."""
        state = phase.state
        if state.cur is state.root or state.cur is VOID:
            return
        chain = list(state.cur.chain())[::-1]
        at = _hang(state, state.root, [entry for entry in chain if entry.stands_for not in own])
        if at is not state.root:
            at = phase.mark = Node(at, phase.step, state, EMPTY)
        state.cur = _hang(state, at, [entry for entry in chain if entry.stands_for in own])

    def _split(self, phase: Phase) -> tuple[list[Node], list[Node]]:
        """What was taken in a phase and is still held, and what is below that, both outermost first."""
        if phase.state.cur is VOID:
            return [], []
        chain = list(phase.state.cur.chain())[::-1]
        if phase.mark is None:
            return chain, []
        at = next((i for i, entry in enumerate(chain) if entry.stands_for is phase.mark), len(chain) - 1)
        return chain[at + 1 :], chain[:at]

    def _restore(self, state: OwnerState, own: list[Node], below: list[Node], outer: Phase | None) -> None:
        """Hang what was left held below all that the outer phase is inside of: it can't be had, and isn't held by it.
        """
        if state.cur is VOID:
            return
        if own and outer is not None and outer.mark is None:
            outer.mark = Node(state.root, outer.step, state, EMPTY)
            below = [outer.mark, *below]
        state.cur = _hang(state, state.root, [*own, *below])

    def _outlive(self, origin: str, teller: OwnerState) -> list[OwnerState]:
        """The owners that are there though their origin is over are of the background now; returns those whose doings
        are not over."""
        left = [s for s in self._engine.roster.live_states() if s is not teller and origin in (s.origin, s.home)]
        for state in left:
            if state.home == origin:
                state.home = outliving(origin)
            if state.origin == origin:
                # its own thread may be in the middle of a step, which then counts for the one or the other
                state.origin = outliving(origin)
                self._forget(state)
        # what has served others is done with that
        return [state for state in left if _is_busy(state)]

    def alive(self, origin: str, *, elsewhere: bool = False) -> set[Owner]:
        """The owners that this origin has sent and that aren't done yet; of those that run jobs for others, the ones
        that do so now.

        ``elsewhere``: in other threads only; how far a task of the calling thread has got is no matter of chance.
        """
        current = [phase.state for phase in self._phases]
        me = get_ident() if elsewhere else None
        return {
            state.owner
            for state in self._engine.roster.live_states()
            if state.origin == origin
            and not state.ended
            and state.owner.ident != me
            and not any(state is c for c in current)
            and _is_busy(state)
        }  # fmt: skip

    # --- what it comes to -----------------------------------------------------------------

    def credit(self, state: OwnerState) -> Callable[[LockClass], None]:
        """What counts an instance for what this owner does where it stands."""
        return partial(self._instances.add, self.whose(state))

    def _made_in(self, origin: str, lock_class: LockClass) -> int:
        if origin == BACKGROUND and self._instances.of(origin, lock_class):
            return 2  # one here, and one in each other process that did the same
        parents = dict.fromkeys((IMPORT, *self._parents.get(origin, ())))
        return self._instances.of(origin, lock_class) + sum(
            self._instances.lent(name, lock_class) for name in parents if name != origin
        )

    def without(self, ledger: Ledger, gone: set[Owner]) -> OrderGraph:
        """An origin's orders as they were seen by others than these owners."""
        if not any(w.owner in gone for evidence in ledger.graph.evidence.values() for w in evidence.witnesses):
            return ledger.graph
        graph = OrderGraph()
        for edge, evidence in ledger.graph.evidence.items():
            witnesses = [w for w in evidence.witnesses if w.owner not in gone]
            if witnesses:
                kept = graph.evidence[edge] = Evidence()
                kept.witnesses, kept.count = witnesses, evidence.count
                others = evidence.elsewhere or {}
                kept.elsewhere = {place: w for place, w in others.items() if w.owner not in gone} or None
                graph.connect(*edge)
        return graph

    def close(
        self, origin: str, left: Collection[OwnerState] = (), *, keep: bool = True, excuses: Excuses | None = None
    ) -> None:
        """An origin is over, and was judged: what it saw goes into the union, unless it is to be forgotten (``keep``).

        ``left`` are the owners that outlived it: what they saw counts for the background.  ``excuses`` is what is
        accepted there alone.
        """
        ledger = self._ledgers.pop(origin, None)
        if ledger is not None and keep:
            gone = {state.owner for state in left}
            self.union.absorb(
                self._engine, ledger, lambda owner, where: outliving(where) if owner in gone else where,
                self._handed.get(origin, set()), excuses,
            )  # fmt: skip
        if left:
            self._instances.add_all(outliving(origin), origin)
            later = (*self._parents.get(outliving(origin), ()), *self._parents.get(origin, ()))
            self._parents[outliving(origin)] = tuple(dict.fromkeys(later))
        self._instances.forget(origin)
        self._handed.pop(origin, None)
        self._nested.pop(origin, None)
        self._parents.pop(origin, None)

    def leave_to_parent(self) -> None:
        """In a forked child: what origins have seen that were over at the fork is the parent's to tell."""
        self.union = Union()

    def everything(self) -> Union:
        """What all origins have seen, together; to be called when it is quiet."""
        whole = Union()
        whole.merge(self.union)
        engine = self._engine
        whole.absorb(engine, engine.ledger, None, {c for c in engine.seen if engine.handed_over(c)})
        for origin, ledger in list(self._ledgers.items()):
            whole.absorb(engine, ledger, None, self._handed.get(origin, set()))
        whole.several.update(self._instances.classes(BACKGROUND))
        whole.flag(engine.finalizers.flags)
        whole.paused_for_good()
        return whole

    def findings(self) -> list[Finding]:
        """What those origins come to that no test is, each for itself, and that goes by instances."""
        return [
            dataclasses.replace(finding, origin=origin)
            for origin, ledger in sorted(self._ledgers.items())
            for finding in (*ledger.nesting.findings(), *ledger.waits.findings(), *ledger.slow.findings())
        ]

