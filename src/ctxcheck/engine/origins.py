"""Whose business it is what an owner does: origins.

An **origin** is a test, a fixture that serves several tests, the import of modules; it belongs to the owner.  A thread
has its starter's, a task its creator's, a job its submitter's.  What interrupts (finalizers, the collector's callbacks,
signal handlers) is of the *background*, since it comes when it will; so is an owner that outlives its test, with all
that it has done, since how far it gets by then is chance.  Thus what is blamed on a test doesn't depend on when some
daemon ran, nor on which tests ran before.

Each origin has a :class:`~ctxcheck.engine.ledger.Ledger`, in which everything begins anew: orders, chains, hand-offs,
and how many instances of a class there are (those made in it, by imports, and by the fixtures that it asks for).  The
one owner that goes from test to test (the main thread) is told so by :meth:`Origins.begin` and :meth:`Origins.end`;
what it holds by then is no part of what comes next.  When an origin is over, what it saw goes into a union.

A session that tells no origins apart pays for none of this.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, final

from ctxcheck.engine import ranges
from ctxcheck.engine.classes import REGISTRY, ContextStep, LockClass
from ctxcheck.engine.graph import Evidence, OrderGraph
from ctxcheck.engine.latches import Latches
from ctxcheck.engine.ledger import Ledger
from ctxcheck.engine.owner import VOID, Node, Owner, OwnerState
from ctxcheck.engine.sites import EMPTY
from ctxcheck.engine.union import Union

if TYPE_CHECKING:
    from ctxcheck.engine.findings import Finding
    from ctxcheck.engine.validator import Validator

#: What happens while modules are imported, before the first test.
IMPORT: Final = "<import>"
#: What belongs to no test.
BACKGROUND: Final = "<background>"


def outliving(origin: str) -> str:
    """What an owner counts for that has outlived its origin."""
    return origin if origin.startswith(BACKGROUND) else f"{BACKGROUND} of {origin}"


@final
class Phase:
    """A stretch of one owner's time that counts for one origin; phases nest.

    ``made`` are the instances of each class made in it so far, those of the phases inside of it left out.
    """

    __slots__ = ("before", "brackets", "flags", "made", "mark", "origin", "parents", "since", "state", "step")

    def __init__(self, state: OwnerState, origin: str, parents: tuple[str, ...]) -> None:
        self.state: OwnerState = state
        self.origin: str = origin
        self.parents: tuple[str, ...] = parents
        self.before: str = state.origin
        self.brackets: list[Any] = list(state.brackets)
        self.flags: set[LockClass] = set()
        self.made: dict[LockClass, int] = {}
        self.since: dict[LockClass, int] = {}
        self.step: ContextStep = ContextStep("test", origin, boundary=True)
        #: where its chain begins, if its owner is inside of something already
        self.mark: Node | None = None

    def pause(self) -> None:
        """Count what was made up to now."""
        for lock_class in REGISTRY.all():
            new = lock_class.created - self.since.get(lock_class, 0)
            if new:
                self.made[lock_class] = self.made.get(lock_class, 0) + new

    def resume(self) -> None:
        """Count from now on."""
        self.since = {lock_class: lock_class.created for lock_class in REGISTRY.all()}


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
        #: of origins that are or were: the instances made in each, and the classes handed over
        self._made: dict[str, dict[LockClass, int]] = {}
        self._handed: dict[str, set[LockClass]] = {}
        self._parents: dict[str, tuple[str, ...]] = {}
        self._nowhere: Latches = Latches(engine.made)

    # --- whose it is ----------------------------------------------------------------

    def of(self, state: OwnerState) -> Ledger:
        """The ledger of what an owner does where it stands."""
        origin = state.origin
        node = state.cur
        while node.parent is not node:
            step = node.step
            if step.boundary and type(step) is ContextStep:
                if step.kind == "interrupt":
                    origin = BACKGROUND if origin else ""
                break
            node = node.parent
        return self.ledger(origin)

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
        if self._phases:
            self._phases[-1].pause()
        phase = Phase(state, origin, tuple(parents))
        self._over.discard(origin)
        phase.flags = {lock_class for lock_class in REGISTRY.all() if lock_class.handed_over}
        known = set[LockClass]().union(*(self._handed.get(name, ()) for name in (IMPORT, origin, *phase.parents)))
        for lock_class in phase.flags ^ known:
            lock_class.handed_over = lock_class in known
        phase.made = self._made.setdefault(origin, {}) if again else {}
        self._made[origin] = phase.made
        if phase.parents or not again:
            self._parents[origin] = phase.parents
        self._phases.append(phase)
        state.origin = state.home = origin
        self._forget(state)
        if state.cur is not state.root and state.cur is not VOID:
            self._enclose(phase)
        self._engine.roster.tries.clear()
        phase.resume()
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
            for bracket in [b for b in state.brackets if all(b is not old for old in phase.brackets)]:
                ranges.left_open(self._engine, state, bracket, "test")
                if bracket in state.brackets:
                    state.brackets.remove(bracket)
            self._engine.settle(phase.origin)
        phase.pause()
        self._phases.remove(phase)
        handed = {lock_class for lock_class in REGISTRY.all() if lock_class.handed_over}
        self._handed[phase.origin] = handed
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
            phase.flags |= handed  # who asks for a fixture takes its locks as they are
        for lock_class in phase.flags ^ handed:
            lock_class.handed_over = lock_class in phase.flags
        if outer is not None:
            outer.resume()
        return left

    def _enclose(self, phase: Phase) -> None:
        state = phase.state
        phase.mark = Node(state.cur, phase.step, state, EMPTY)
        state.cur = phase.mark

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
        at = state.root
        for entry in (*own, *below):
            at = Node(at, entry.step, state, entry.trace, stands_for=entry.stands_for)
        state.cur = at

    def _outlive(self, origin: str, teller: OwnerState) -> list[OwnerState]:
        """The owners that are there though their origin is over are of the background now."""
        left = [s for s in self._engine.roster.live_states() if s is not teller and origin in (s.origin, s.home)]
        for state in left:
            if state.home == origin:
                state.home = outliving(origin)
            if state.origin == origin:
                # its own thread may be in the middle of a step, which then counts for the one or the other
                state.origin = outliving(origin)
                self._forget(state)
        return left

    def alive(self, origin: str) -> set[Owner]:
        """The owners that this origin has sent and that aren't done yet; of those that run jobs for others, the ones
        that do so now."""
        current = [phase.state for phase in self._phases]
        return {
            state.owner
            for state in self._engine.roster.live_states()
            if state.origin == origin and not state.ended and not any(state is c for c in current)
            and not (state.lends and state.home == origin and state.cur.parent is state.cur)
        }  # fmt: skip

    # --- what it comes to -----------------------------------------------------------------

    def _made_in(self, origin: str, lock_class: LockClass) -> int:
        names = dict.fromkeys((IMPORT, origin, *self._parents.get(origin, ())))
        total = sum(self._made.get(name, {}).get(lock_class, 0) for name in names)
        now = self._phases[-1] if self._phases else None
        if now is not None and now.origin in names:
            total += lock_class.created - now.since.get(lock_class, 0)
        return total

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
                graph.connect(*edge)
        return graph

    def close(self, origin: str, left: Iterable[OwnerState] = (), *, keep: bool = True) -> None:
        """An origin is over, and was judged: what it saw goes into the union, unless it is to be forgotten (``keep``).

        ``left`` are the owners that outlived it: what they saw counts for the background.
        """
        ledger = self._ledgers.pop(origin, None)
        if ledger is not None and keep:
            gone = {state.owner for state in left}
            self.union.absorb(
                self._engine, ledger, lambda owner, where: outliving(where) if owner in gone else where,
                self._handed.get(origin, set()),
            )  # fmt: skip
        for known in (self._made, self._handed, self._parents):
            known.pop(origin, None)

    def everything(self) -> Union:
        """What all origins have seen, together; to be called when it is quiet."""
        whole = Union()
        whole.merge(self.union)
        engine = self._engine
        whole.absorb(engine, engine.ledger, None, {c for c in engine.seen if engine.handed_over(c)})
        for origin, ledger in list(self._ledgers.items()):
            whole.absorb(engine, ledger, None, self._handed.get(origin, set()))
        whole.flag(engine.finalizers.flags)
        whole.paused_for_good()
        return whole

    def findings(self) -> list[Finding]:
        """What those origins come to that no test is, each for itself, and that goes by instances."""
        return [
            finding
            for origin in sorted(self._ledgers)
            for finding in (
                *self._ledgers[origin].nesting.findings(),
                *self._ledgers[origin].waits.findings(),
            )
        ]

