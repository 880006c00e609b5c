"""The validator: what one session knows, and what is asked of it when an owner takes a step.

It is called when an owner takes a step that its trie doesn't know yet, before
anything can block; a step that is known never comes here.  ``acquire`` makes the node that the owner will stand on, and
asks each rule whether this step breaks it: ``nesting``, ``telling.report_sleep``, ``interrupts``, ``orders``,
``telling.report_against``.

Whatever enters may be entered again at any bytecode, by a finalizer, a signal handler or another thread: see
``orders.py`` for how that is borne.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, Final, final

from ctxcheck.engine import behalf, ranges
from ctxcheck.engine import declared as declarations
from ctxcheck.engine.allows import Allows
from ctxcheck.engine.brackets import BracketBook
from ctxcheck.engine.classes import AWAIT, EVENT_LOOP, REGISTRY, ContextStep, LockClass, Step
from ctxcheck.engine.contexts import Named
from ctxcheck.engine.declared import Declaration, Declared
from ctxcheck.engine.destroyed import Destroyed
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.finalizers import Finalizers
from ctxcheck.engine.findings import Entry, Finding
from ctxcheck.engine.forks import Forks
from ctxcheck.engine.generators import Generators
from ctxcheck.engine.grading import Owners
from ctxcheck.engine.graph import OrderGraph
from ctxcheck.engine.interrupts import interrupts
from ctxcheck.engine.learned import ClassFact
from ctxcheck.engine.ledger import Ledger
from ctxcheck.engine.levels import excuse
from ctxcheck.engine.nesting import guards_of
from ctxcheck.engine.orders import Orders
from ctxcheck.engine.origins import Origins
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.raw import get_frame, watchers
from ctxcheck.engine.roster import Roster
from ctxcheck.engine.sites import GENERATED, Trace, capture, local, still_running
from ctxcheck.engine.telling import report_against, report_release, report_sleep
from ctxcheck.engine.violations import Violation
from ctxcheck.engine.watchdog import Watchdog

#: Cached nodes of all tries together; beyond it chains are validated each time, and counted.
MAX_NODES: Final = 500_000
#: Traces that are looked up to be shared.
MAX_SHARED: Final = 100_000


@final
class Validator:
    """What one session knows, and its rules.

    Args:
        on_finding: is given each finding when it is made, before the call that made it can block, and
            returns what the rest of the world knows it as.  It may raise, to interrupt that call.
        withdraw: is given the finding that turned out to be none.
        owners: "assumed" or "observed", see :func:`~ctxcheck.engine.verdict.judge`.
        deadlock_after: seconds after which a blocked owner is looked at.

    Thread-safe; see the module's docstring.  A cached step costs nothing here; a new chain of ``d`` held locks costs
    O(d) plus the graph's insertion, and one captured stack.
    """

    def __init__(
        self,
        on_finding: Callable[[Finding], Violation],
        withdraw: Callable[[Finding], None],
        *,
        owners: Owners = "assumed",
        deadlock_after: float = 1.0,
        max_nodes: int = MAX_NODES,
    ) -> None:
        self.on_finding: Callable[[Finding], Violation] = on_finding
        self.on_withdrawal: Callable[[Finding], None] = withdraw
        self.owners: Owners = owners
        self.deadlock_after: float = deadlock_after
        self.book: BracketBook = BracketBook()
        self.allows: Allows = Allows()
        self.closed: bool = False
        self.broken: bool = False
        self.chains: int = 0
        self.contexts: int = 0
        self.dropped: int = 0
        self.uncached: int = 0
        self.cut: int = 0
        self.seen: set[LockClass] = set()
        #: what the session's configuration declares of orders, and that together with what the program does
        self.configured: tuple[Declaration, ...] = ()
        self.declared: Declared | None = None
        self._max_nodes: int = max_nodes
        self._nodes: int = 0
        #: raise again each time that an order is broken which is known to be (for mode "raise")
        self.insistent: bool = False
        self.roster: Roster = Roster(self)
        self.finalizers: Finalizers = Finalizers(self)
        #: what is learned where no origins are told apart; and those, where they are
        self.ledger: Ledger = Ledger(self, "", self.made)
        self.origins: Origins = Origins(self)
        self.orders: Orders = Orders(self)
        self.watchdog: Watchdog = Watchdog(self)
        self.destroyed: Destroyed = Destroyed(self)
        self.generators: Generators = Generators(self)
        self.named: Named = Named(self)
        self.forks: Forks = Forks(self)
        #: owners that wait for a lock of their own, and may be waiting for a hand-off
        self.provisional: dict[OwnerState, Finding] = {}
        self._traces: dict[tuple[Any, ...], Trace] = {}
        self._before: dict[LockClass, tuple[int, int]] = {}
        self._outer: dict[LockClass, tuple[bool, bool]] = {}
        #: what :meth:`made` and :meth:`handed_over` answer when the session is over
        self._made: dict[LockClass, int] | None = None
        self._handed_over: set[LockClass] | None = None

    def begin(self) -> None:
        """Start with nothing known: classes outlive sessions, what was learned of them doesn't."""
        declarations.begin(self)
        # instances that were there before: together with those made since, what may take part
        self._before = {c: (c.live(), c.created) for c in REGISTRY.all() if not c.kind.awaited}
        self._outer = {c: (c.handed_over, c.nested) for c in self._before if c.handed_over or c.nested}
        for lock_class in self._outer:
            lock_class.handed_over = lock_class.nested = False

    def finish(self) -> None:
        """Give the session outside back what it had learned of classes; no verdict can be made after this, but what was
        learned can be put together with more (see :mod:`~ctxcheck.engine.union`)."""
        declarations.finish(self)
        self._made = {c: self.made(c) for seen in self.seen for c in (seen, seen.base)}
        self._handed_over = {lock_class for lock_class in REGISTRY.all() if lock_class.handed_over}
        for lock_class in REGISTRY.all():
            lock_class.handed_over, lock_class.nested = self._outer.get(lock_class, (False, False))

    @property
    def graph(self) -> OrderGraph:
        """The orders of a session that tells no origins apart."""
        return self.ledger.graph

    def of(self, state: OwnerState) -> Ledger:
        """What is learned from the steps that an owner takes where it stands."""
        return self.origins.of(state) if state.origin else self.ledger

    def made(self, lock_class: LockClass) -> int:
        """How many instances of a class can have taken part in this session."""
        if self._made is not None:
            return self._made.get(lock_class, 0)
        live, created = self._before.get(lock_class, (0, 0))
        return live + lock_class.created - created

    def handed_over(self, lock_class: LockClass) -> bool:
        """Whether a lock of this class was released in this session by an owner that didn't hold it."""
        return lock_class.handed_over if self._handed_over is None else lock_class in self._handed_over

    # --- acquiring --------------------------------------------------------------

    def acquire(self, state: OwnerState, step: Step, lock: Any, under: Node | None = None) -> Node:
        """Validate that ``state`` asks for ``step`` where it stands now, and return the node to stand on.

        Called before the acquire can block, for chains that this owner hasn't taken yet.  ``under`` is its hold of the
        lock that the acquire is nested under.  May raise what ``on_finding`` raises; then nothing is held and
        nothing was cached.
        """
        state.settle()
        self.destroyed.tell(state)
        parent = state.cur
        lock_class, mode = step.lock_class, step.mode
        assert lock_class is not None
        assert mode is not None
        state.owner.learn_name()
        self.seen.add(lock_class)
        node = Node(parent, step, state, self._shared(capture(2)))
        try:
            node.made_for = weakref.ref(lock)
        except TypeError:
            pass  # a region: it has no instances
        ledger = self.of(state)
        needs = lock_class.kind.needs
        held = state.own_held() if needs == AWAIT else list(parent.held())
        cacheable = not (lock_class.nested or self.finalizers.watches(lock_class))
        if under is not None:
            cacheable, held = excuse(cacheable, held, lock_class, under)
        nests = any(entry.step.lock_class is lock_class for entry in held)
        if nests and mode.enters:
            held = []  # a region is re-entered: that adds no order
        elif nests:
            cacheable = False
            if mode.waits:  # a try is no order; who waits under what it has obtained is found here in his turn
                ledger.nesting.mark(lock_class)
                ledger.nesting.check(state, node, held, lock)
        if mode.waits:
            ledger.latches.waited_for(lock_class)
            if lock_class.kind.sleeps and not mode.judged and not parent.allows & needs:
                because = parent.because(needs)
                if because is not None:
                    if because.step is not EVENT_LOOP:
                        cacheable = False
                        report_sleep(
                            self, state, lock_class.name, "acquire", node.trace,
                            mode=mode, lock_class=lock_class, permission=needs,
                        )  # fmt: skip
                    if because.step is EVENT_LOOP or self.allowed(parent, "CTX102") is not None:
                        ledger.slow.taken(state, node, because, held)
            guards = guards_of(held)
            if not ledger.interrupts.note(state, node, guards):
                cacheable = False
            if held and self.orders.record(state, held, lock_class, mode, node, guards):
                cacheable = False
            if self.declared is not None and report_against(self, state, self.declared, node, held) and self.insistent:
                cacheable = False
            self.orders.see_to(state)
        self.chains += 1
        if cacheable and self.room():
            parent[step] = node
            state.cached.setdefault(lock_class, []).append(parent)
            self.finalizers.cached(parent, step)
            if lock_class.nested:  # since a moment ago
                parent.pop(step, None)
        return node

    def _shared(self, trace: Trace) -> Trace:
        """One and the same trace for one and the same stack: a program has many more edges than places."""
        if len(self._traces) >= MAX_SHARED:
            self._traces.clear()
        return self._traces.setdefault((trace.lastis, trace.test, *map(id, trace.codes)), trace)

    def enter(self, state: OwnerState, step: Step) -> Node:
        """Return the node for a context or a region entered here; made, and cached, if need be."""
        if step.lock_class is not None:
            return self.acquire(state, step, None)
        state.settle()
        self.destroyed.tell(state)
        parent = state.cur
        state.owner.learn_name()
        self.contexts += 1
        if isinstance(step, ContextStep) and step.kind == "allow":
            self.allows.entered(step)
        node = Node(parent, step, state, capture(2))
        if self.named.entered(state, node) and self.room():
            parent[step] = node
        return node

    def room(self) -> bool:
        """Whether one more node may be cached; counts it."""
        if self._nodes >= self._max_nodes:
            self.uncached += 1  # and so validated each time that it is taken: nothing is lost
            return False
        self._nodes += 1
        return True

    def freed(self, nodes: int) -> None:
        """So many nodes are cached no more."""
        self._nodes -= nodes

    # --- waiting ----------------------------------------------------------------

    def no_longer_blocked(self, state: OwnerState) -> None:
        """The wait is over, however it ended."""
        self.provisional.pop(state, None)

    # --- releasing --------------------------------------------------------------

    def foreign_release(self, state: OwnerState, lock_class: LockClass, node: Node) -> None:
        """``state`` releases what ``node``'s owner holds: a hand-off, or CTX302 where the kind has an owner.

        The holder's chain is its own: it is told, and drops the entry in its next slow path.
        """
        if self.forks.released(node):
            return  # in a forked child, which puts right what another thread held
        holder = node.state
        lock_class = node.step.lock_class or lock_class  # its level, if it was taken at one
        if self.generators.closes(state, node):
            holder.drops.append(node)
            self.roster.told(node)
            self.provisional.pop(holder, None)
            return
        if lock_class.kind.owned:
            report_release(self, state, "CTX302", lock_class, holder.owner, node)
            return
        self.hand_over(lock_class)
        holder.drops.append(node)
        self.roster.redeem(node)
        self.provisional.pop(holder, None)

    def hand_over(self, lock_class: LockClass) -> None:
        """A lock of this class is released by an owner that doesn't hold it, and may do so."""
        if not lock_class.handed_over:
            lock_class.hand_over()
            self.orders.note(ClassFact("handed_over", lock_class))

    def unbalanced_release(self, state: OwnerState, lock_class: LockClass) -> None:
        """A release of a lock that nobody holds (CTX305)."""
        report_release(self, state, "CTX305", lock_class, None, None)

    # --- what each rule needs to say where it is broken ---------------------------

    def allowed(self, node: Node, rule: str) -> str | None:
        """The reason of the innermost ``allow`` on this chain that covers ``rule``, if there is one."""
        return self.allows.grant(node, rule)

    def entry(self, node: Node) -> Entry:
        """Describe a node of the calling owner's chain for a report.

        A chain remembers where it was first taken.  For a marked call the frame of its wrapper is still
        on the stack and knows better: its caller is the place of this very time.
        """
        if isinstance(node.step, ContextStep):
            frame: Any = get_frame(1)
            while frame is not None:
                if frame.f_code.co_filename == GENERATED and local(frame, "node") is node:
                    caller = frame.f_back
                    if caller is not None:
                        codes: list[Any] = []
                        lastis: list[int] = []
                        while caller is not None and len(codes) < 64:
                            codes.append(caller.f_code)
                            lastis.append(caller.f_lasti)
                            caller = caller.f_back
                        return Entry(node.step, Trace(tuple(codes), tuple(lastis), behalf.now()), True)
                frame = frame.f_back
        return Entry(node.step, node.trace, still_running(node.trace) is not None)

    def emit(self, state: OwnerState, finding: Finding) -> Violation:
        """Hand a finding out, with this owner's checking suspended: what is told may log, and logging locks.

        Raises what the mode says, but not in the middle of other code: there it has nowhere to go.
        """
        if state.origin and not finding.origin:
            finding = dataclasses.replace(finding, origin=self.origins.of(state).origin)
        saved = state.cur
        state.cur = VOID
        try:
            return self.on_finding(finding)
        except ViolationError as error:
            if interrupts(saved):
                return error.violation
            raise
        finally:
            state.cur = saved

    # --- the end ------------------------------------------------------------------

    def pending(self) -> list[Finding]:
        """What will be reported at the end unless something redeems it until then."""
        found = [*self.roster.pending(), *self.destroyed.pending(), *self.forks.pending()]
        return [finding for finding in found if not any(map(self.origins.latches(finding.origin).has, finding.classes))]

    def settle(self, origin: str) -> None:
        """An origin is over: what is provisional in it is told now."""
        for finding in (*self.roster.settled(origin), *self.destroyed.settled(origin), *self.forks.settled(origin)):
            if not any(c.handed_over or self.origins.latches(origin).has(c) for c in finding.classes):
                self.on_finding(finding)

    def close(self, how: str = "run") -> None:
        """The session ends: settle what was provisional.  The graph stays readable."""
        if self.closed:
            return
        self.closed = True
        self.forks.wait_for_answers()
        self.finalizers.close()
        settled = [*self.pending(), *self.provisional.values(), *ranges.never_closed(self, how)]
        self.roster.clear()
        self.destroyed.clear()
        self.forks.clear()
        self.provisional.clear()
        for finding in settled:
            if not any(c.handed_over for c in finding.classes):
                self.on_finding(finding)

    def after_fork(self, survivor: OwnerState | None) -> None:
        """In a forked child: only the calling thread is left; the graph is kept."""
        self.orders.after_fork()
        self.watchdog = Watchdog(self)
        watchers.clear()
        self.provisional.clear()
        self.destroyed.clear()
        self.roster.after_fork(survivor)
        self.forks.in_child()
