"""The validator: the only writer of what is known, and the only one who says that a rule is broken.

It is called when an owner takes a step that its trie doesn't know yet, before
anything can block; a step that is known never comes here.  The data path of an acquire is
``acquire`` -> ``_submit`` -> ``_drain`` -> ``OrderGraph.add`` -> ``_emit``.

Re-entrancy.  A finalizer, a signal handler or another thread may enter at any bytecode.  So nobody
ever waits for the mutex without a limit: an event is put in a queue first, and whoever has the mutex
works the queue off.  An owner that can't get it goes on; its event is dealt with by the holder.  The mutex is
never held while code of the program can be made to wait for it: findings are told
after it is released.
"""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, final

from ctxcheck.engine import declared as declarations
from ctxcheck.engine import ranges
from ctxcheck.engine.brackets import BracketBook
from ctxcheck.engine.classes import AWAIT, BLOCK, INSIDE, REGION, REGISTRY, ContextStep, LockClass, Mode, Step
from ctxcheck.engine.declared import Declaration, Declared
from ctxcheck.engine.destroyed import Destroyed
from ctxcheck.engine.findings import (
    DeclaredFacts,
    Entry,
    Finding,
    HeldFacts,
    OrderFacts,
    ReleaseFacts,
    SleepFacts,
    Waiter,
)
from ctxcheck.engine.grading import Cycle, Owners
from ctxcheck.engine.graph import Edge, Evidence, OrderGraph, Witness
from ctxcheck.engine.interrupts import Interrupts, UseEvent
from ctxcheck.engine.levels import excuse
from ctxcheck.engine.nesting import NestEvent, Nesting, guards_of
from ctxcheck.engine.owner import VOID, Node, Owner, OwnerState
from ctxcheck.engine.raw import allocate_lock, get_frame, get_ident, watchers
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import GENERATED, Trace, capture, still_running
from ctxcheck.engine.taskstate import TaskState, TriePool
from ctxcheck.engine.verdict import Verdict, best_cycle, components, judge
from ctxcheck.engine.violations import Violation
from ctxcheck.engine.waits import Waits, is_wait
from ctxcheck.engine.watchdog import Watchdog

#: How long an owner waits for the mutex before it leaves its event to the holder, in seconds.
PATIENCE: Final = 0.2
#: Cached nodes of all tries together; beyond it chains are validated each time, and counted.
MAX_NODES: Final = 500_000

#: Orders between classes that are kept (some 700 bytes each); what comes beyond is counted as dropped.
MAX_EDGES: Final = 4_000_000
#: Traces, and sets of guards, that are looked up to be shared.
MAX_SHARED: Final = 100_000
#: Orders that are told of when they appear, and edges looked at for it; the verdict tells of what comes after.
MAX_AT_ONCE: Final = 1_000
SEARCH_AT_ONCE: Final = 4_000_000

_serials: Final = itertools.count(1).__next__


class _OrderEvent(NamedTuple):
    """``target`` was asked for in ``mode`` by ``owner`` while ``held`` (innermost first) was held."""

    owner: Owner
    held: tuple[tuple[LockClass, Mode, Trace], ...]
    target: LockClass
    mode: Mode
    trace: Trace
    origin: str
    allowed: str | None
    #: what else kept others out, though it leads nowhere
    beside: frozenset[LockClass] = frozenset()


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
        self.origin: str = ""
        self.graph: OrderGraph = OrderGraph()
        self.book: BracketBook = BracketBook()
        self.closed: bool = False
        self.broken: bool = False
        self.chains: int = 0
        self.contexts: int = 0
        #: owners that took a step; may lose some where many begin at the same moment, but never all
        self.begun: int = 0
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
        self._broken_orders: dict[Edge, Finding] = {}
        self._queue: deque[_OrderEvent | NestEvent | UseEvent] = deque()
        self._mutex = allocate_lock()
        self._holder: int = 0
        self._states: dict[int, weakref.ref[OwnerState]] = {}
        #: the tasks that have taken a checked step, by `id()`; a task that is gone takes its entry with it
        self.tasks: dict[int, TaskState] = {}
        self.tries: TriePool = TriePool()
        self.nesting: Nesting = Nesting(self)
        self.watchdog: Watchdog = Watchdog(self)
        self.interrupts: Interrupts = Interrupts(self, self.graph)
        self.destroyed: Destroyed = Destroyed(self)
        self.waits: Waits = Waits(self)
        #: holds of owners that are gone, which a hand-off may still redeem
        self._left_held: dict[Node, Finding] = {}
        #: owners that wait for a lock of their own, and may be waiting for a hand-off
        self.provisional: dict[OwnerState, Finding] = {}
        self._traces: dict[tuple[Any, ...], Trace] = {}
        self._guard_sets: dict[frozenset[LockClass], frozenset[LockClass]] = {}
        self._told_at_once: int = 0
        self._search_at_once: int = SEARCH_AT_ONCE
        self._before: dict[LockClass, tuple[int, int]] = {}
        self._outer: dict[LockClass, tuple[bool, bool]] = {}

    def begin(self) -> None:
        """Start with nothing known: classes outlive sessions, what was learned of them doesn't."""
        declarations.begin(self)
        # instances that were there before: together with those made since, what may take part
        self._before = {c: (c.live(), c.created) for c in REGISTRY.all() if not c.kind.awaited}
        self._outer = {c: (c.handed_over, c.nested) for c in self._before if c.handed_over or c.nested}
        for lock_class in self._outer:
            lock_class.handed_over = lock_class.nested = False

    def finish(self) -> None:
        """Give the session outside back what it had learned of classes; no verdict can be made after this."""
        declarations.finish(self)
        for lock_class in REGISTRY.all():
            lock_class.handed_over, lock_class.nested = self._outer.get(lock_class, (False, False))

    # --- owners -----------------------------------------------------------------

    def new_state(self) -> OwnerState:
        """Make the state of the calling thread."""
        state = OwnerState(Owner(_serials(), get_ident()), self)
        self._states[state.owner.serial] = weakref.ref(state)
        self.begun += 1
        return state

    def task_state(self, task: Any, thread: Owner) -> TaskState:
        """The state of a task that runs on ``thread``; made, if need be."""
        state = self.tasks.get(id(task))
        if state is None:
            state = self.tasks[id(task)] = self.tries.take(task) or TaskState(self)
            state.begin(_serials(), task, thread)
            self._states[state.owner.serial] = weakref.ref(state)
        return state

    def forget_task(self, state: TaskState) -> None:
        """A task's object is gone.  May run at any bytecode: what is left of it is let go of, and nothing is said."""
        self.tasks.pop(state.task_id, None)
        self._states.pop(state.owner.serial, None)
        if not state.ended:
            state.ended = True
            self._nodes -= state.dissolve()

    def live_states(self) -> list[OwnerState]:
        """The states of the owners that are there now."""
        references = list(self._states.values())  # one atomic copy, while threads come and go
        return [state for reference in references if (state := reference()) is not None]

    def end_owner(self, state: OwnerState, how: str = "thread") -> None:
        """The owner is gone: check what it left behind (CTX203, CTX303), and free its trie."""
        if state.ended or self.closed or self.broken:
            return
        state.settle()
        self.destroyed.tell(state)
        state.ended = True
        state.owner.learn_name()
        try:
            for bracket in list(state.brackets):
                ranges.left_open(self, state, bracket, how)
            for node in state.all_own_held():
                self._left(state, node, how)
        finally:
            if not isinstance(state, TaskState):
                self._nodes -= state.dissolve()
            else:
                self.tasks.pop(state.task_id, None)
                if not self.tries.keep(state):
                    self._nodes -= state.dissolve()
            self.waits.ended(state.owner)
            self._states.pop(state.owner.serial, None)

    def _left(self, state: OwnerState, node: Node, how: str) -> None:
        lock_class = node.step.lock_class
        if lock_class is None or lock_class.kind.resource or lock_class.kind.abroad or lock_class.handed_over:
            return
        if lock_class.kind is REGION:
            return
        entry = self.entry(node)
        finding = Finding(
            "CTX303",
            "certain" if lock_class.kind.owned else "possible",
            state.owner,
            node.trace,
            (lock_class.key, node.trace.function()),
            ReleaseFacts(lock_class, state.owner, entry, how),
            (lock_class,),
            self.allowed(node.stands_for, "CTX303"),  # as it was acquired: what was around that has been left
        )
        if lock_class.kind.owned:
            self.emit(state, finding)
        else:
            # a plain Lock may still be released by another thread, which makes it a hand-off
            self._left_held[node.stands_for] = finding

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
        needs = lock_class.kind.needs
        held = state.own_held() if needs == AWAIT else list(parent.held())
        cacheable = not lock_class.nested
        if under is not None:
            cacheable, held = excuse(cacheable, held, lock_class, under)
        nests = any(entry.step.lock_class is lock_class for entry in held)
        if nests and mode.enters:
            held = []  # a region is re-entered: that adds no order
        elif nests:
            cacheable = False
            self.nesting.mark(lock_class)
            if mode.waits:
                self.nesting.check(state, node, held, lock)
        if mode.waits:
            if lock_class.kind.sleeps and not mode.judged and not parent.allows & needs:
                cacheable = False
                self.report_sleep(
                    state, lock_class.name, "acquire", node.trace, mode=mode, lock_class=lock_class, permission=needs
                )
            guards = guards_of(held)
            self.interrupts.note(state, node, guards)
            if held and self.order(state, held, lock_class, mode, node, guards):
                cacheable = False
            if self.declared is not None and self._against(state, self.declared, node, held) and self.insistent:
                cacheable = False
            self.see_to(state)
        self.chains += 1
        if cacheable and self.room():
            parent[step] = node
            state.cached.setdefault(lock_class, []).append(parent)
            if lock_class.nested:  # since a moment ago
                parent.pop(step, None)
        return node

    def _shared(self, trace: Trace) -> Trace:
        """One and the same trace for one and the same stack: a program has many more edges than places."""
        if len(self._traces) >= MAX_SHARED:
            self._traces.clear()
        return self._traces.setdefault((trace.lastis, *map(id, trace.codes)), trace)

    def enter(self, state: OwnerState, step: Step) -> Node:
        """Return the node for a context or a region entered here; made, and cached, if need be."""
        if step.lock_class is not None:
            return self.acquire(state, step, None)
        state.settle()
        self.destroyed.tell(state)
        parent = state.cur
        state.owner.learn_name()
        self.contexts += 1
        node = Node(parent, step, state, capture(2))
        if self.room():
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

    def order(
        self,
        state: OwnerState,
        held: list[Node],
        target: LockClass,
        mode: Mode,
        node: Node,
        guards: frozenset[LockClass],
    ) -> bool:
        """Put the orders "each held lock, then this one" on the queue and see to it; whether to ask again next time."""
        entries = tuple(
            (h.step.lock_class, h.step.mode, h.trace)
            for h in held
            if h.step.lock_class is not None and h.step.mode is not None and h.step.lock_class is not target
        )
        if not entries:
            return False
        if not all(self._saturated(source, target, guards, m, mode) for source, m, _ in entries):
            state.learned = True
            # what leads from or to a wait is another rule's business
            waits = tuple(e for e in entries if target.kind.awaited or e[0].kind.awaited)
            locks = tuple(e for e in entries if e not in waits) if waits else entries
            for some, rule, beside in ((locks, "CTX001", frozenset[LockClass]()), (waits, "CTX006", guards)):
                if some:
                    allowed = self.allowed(node, rule)
                    self.submit(
                        state,
                        _OrderEvent(state.owner, some, target, mode, node.trace, self.origin, allowed, beside),
                    )
        if not self.insistent:
            return False
        known = [found for source, _, _ in entries if (found := self._broken_orders.get((source, target)))]
        for found in known:
            self.emit(state, dataclasses.replace(found, owner=state.owner))
        return bool(known)

    def needs(
        self, state: OwnerState, signal: LockClass, lock: LockClass, mode: Mode, trace: Trace, taken_at: Trace,
        guards: frozenset[LockClass],
    ) -> None:
        """Who sends ``signal``, at ``trace``, had to take ``lock`` first, at ``taken_at`` and under ``guards``."""
        held = ((signal, INSIDE, trace),)
        if not self._saturated(signal, lock, guards, INSIDE, mode):
            allowed = self.allowed(state.cur, "CTX006")
            self.submit(state, _OrderEvent(state.owner, held, lock, mode, taken_at, self.origin, allowed, guards))

    def _against(self, state: OwnerState, declared: Declared, node: Node, held: list[Node]) -> bool:
        """Report the held locks that are declared to come after this one, or to be leaves (CTX007)."""
        found: dict[LockClass, Finding] = {}
        target, mode = node.step.lock_class, node.step.mode
        for entry in held:
            source = entry.step.lock_class
            if source is None or target is None or mode is None or source in found:
                continue
            breach = declared.breach(source, target)
            if breach is not None:
                facts = DeclaredFacts(target, self.entry(entry), mode, breach)
                allowed = self.allowed(node, "CTX007")
                found[source] = _declared_finding(state.owner, facts, node.trace, source, allowed)
        for finding in found.values():
            self.emit(state, finding)
        return bool(found)

    def redeclared(self, state: OwnerState) -> None:
        """More was declared: report what went against it before, and look at each chain anew."""
        declared = self.declared
        if declared is None:
            return
        self.tries.clear()
        for other in self.live_states():
            nodes = [other.root, *other.cur.chain()]
            while nodes:
                node = nodes.pop()
                children = list(node.values())
                self._nodes -= len(children)
                nodes.extend(children)
                node.clear()
        for (source, target), evidence in list(self.graph.evidence.items()):
            breach = declared.breach(source, target)
            if breach is not None and evidence.witnesses:
                w = evidence.witnesses[0]
                facts = DeclaredFacts(target, Entry(source.step(w.held_mode), w.held_at, False), w.taken_mode, breach)
                self.emit(state, _declared_finding(w.owner, facts, w.taken_at, source, w.allowed))

    def _saturated(
        self, source: LockClass, target: LockClass, guards: frozenset[LockClass], held_mode: Mode, mode: Mode
    ) -> bool:
        evidence = self.graph.evidence.get((source, target))
        return evidence is not None and evidence.saturated(guards, held_mode, mode)

    def submit(self, state: OwnerState, event: _OrderEvent | NestEvent | UseEvent) -> None:
        """Put an event on the queue and see to it."""
        self._queue.append(event)
        self._drain(state)

    def queue(self, event: UseEvent) -> None:
        """Put an event on the queue, for who queues it to see to when there are no more."""
        self._queue.append(event)

    def see_to(self, state: OwnerState) -> None:
        """Work off what is queued."""
        if self._queue:
            self._drain(state)

    def _drain(self, state: OwnerState) -> None:
        """Work the queue off, unless somebody else is at it; then tell what was found."""
        while self._queue and self._holder != get_ident():
            mutex, found, got = self._mutex, [], False
            # taken by a step of a loop: no signal handler can raise between the acquire and the `try`
            for got in map(mutex.acquire, (True,), (PATIENCE,)):
                if got:
                    try:
                        self._holder = get_ident()
                        found = self._work_off()
                    finally:
                        self._holder = 0
                        mutex.release()
            if not got:
                return
            for finding in found:
                self.emit(state, finding)

    def _work_off(self) -> list[Finding]:
        """Apply what is queued; under the mutex."""
        found: list[Finding] = []
        while self._queue:
            # taken off only when it is done: an exception thrown into this thread from outside
            # (a signal handler's) must not lose it, and doing it twice does no harm
            event = self._queue[0]
            if isinstance(event, _OrderEvent):
                found += self._apply_order(event)
            else:
                found += self.interrupts.apply(event) if isinstance(event, UseEvent) else self.nesting.apply(event)
            self._queue.popleft()
        return found

    def _apply_order(self, event: _OrderEvent) -> list[Finding]:
        every = self._guards_among(event.held)
        found: list[Finding] = []
        for index, (source, mode, held_at) in enumerate(event.held):
            # what is held around a region is not what whoever enters it holds
            guards = self._guards_among(event.held[:index]) if mode.enters else every
            if event.beside:
                guards = guards | frozenset(guard for guard in event.beside if not guard.handed_over)
            # between two thread locks it is the thread that waits, whichever of its tasks runs
            by_task = (source.kind.needs | event.target.kind.needs) & AWAIT
            owner = event.owner if by_task else event.owner.thread
            witness = Witness(owner, guards, event.origin, mode, event.mode, held_at, event.trace, event.allowed)
            edge = (source, event.target)
            if len(self.graph.evidence) >= MAX_EDGES and edge not in self.graph.evidence:
                self.dropped += 1
                continue
            news, cyclic = self.graph.add(*edge, witness)
            if news:
                found += self.interrupts.ordered(*edge, event.owner)
            if news and cyclic:
                cycle = self.cycle_at_once(self.graph, edge)
                if cycle is not None:
                    found.append(self.order_finding(cycle, event.owner, event.trace))
                    self._broken_orders[edge] = found[-1]
        return found

    def cycle_at_once(self, graph: OrderGraph, edge: Edge) -> Cycle | None:
        """The best cycle through an edge that is new.

        After so much of it that a knot of locks must have been met, only an edge's opposite is looked for, and in the
        end nothing: the verdict will tell of the rest.
        """
        doubtful = self.waits.doubtful()
        if self._told_at_once >= MAX_AT_ONCE or edge in doubtful:
            return None
        within = graph.component(edge) if self._search_at_once > 0 else set(edge)
        successors = {node: graph.successors[node] & within for node in within}
        for source, target in doubtful:
            successors.get(source, set[LockClass]()).discard(target)
        self._search_at_once -= sum(map(len, successors.values()))
        cycle = best_cycle(
            edge,
            graph.evidence,
            owners=self.owners,
            is_single=self.is_single,
            within=within,
            successors=successors,
            joins=self.nesting.joins,
        )
        self._told_at_once += cycle is not None
        return cycle

    def _guards_among(self, held: tuple[tuple[LockClass, Mode, Trace], ...]) -> frozenset[LockClass]:
        guards = frozenset(
            source.base
            for source, mode, _ in held
            if source.kind.guards and not mode.shared and not source.handed_over
        )
        if len(self._guard_sets) >= MAX_SHARED:
            self._guard_sets.clear()
        return self._guard_sets.setdefault(guards, guards)

    def judge(self, graph: OrderGraph, within: set[LockClass]) -> Verdict:
        """The verdict over a part of a graph, as this session sees owners and guards."""
        evidence = self._evidence(graph)
        return judge(evidence, owners=self.owners, is_single=self.is_single, within=within, joins=self.nesting.joins)

    def _evidence(self, graph: OrderGraph) -> dict[Edge, Evidence]:
        """All edges but those that are no dependency after all."""
        doubtful = self.waits.doubtful()
        if not doubtful:
            return graph.evidence
        return {edge: evidence for edge, evidence in graph.evidence.items() if edge not in doubtful}

    def order_finding(
        self, cycle: Cycle, owner: Owner | None = None, trace: Trace | None = None, stuck: tuple[Waiter, ...] = ()
    ) -> Finding:
        """What a cycle is told as (CTX001; CTX006 where it goes through a wait), at ``trace`` if that is one of its
        acquires; ``stuck`` are owners that wait for each other right now."""
        last = cycle.witnesses[-1]
        for index, witness in enumerate(cycle.witnesses):
            if cycle.classes[(index + 1) % len(cycle.classes)].kind.awaited and not cycle.classes[index].kind.awaited:
                last = witness  # the wait
        if trace is None or not any(w.taken_at is trace for w in cycle.witnesses):
            trace = last.taken_at
        functions = [w.taken_at.function() for w in cycle.witnesses]
        return Finding(
            "CTX006" if is_wait(cycle.classes) else "CTX001",
            cycle.grade,
            owner or last.owner,
            trace,
            (*(c.key for c in cycle.classes), *functions),
            OrderFacts(cycle, stuck),
            cycle.classes,
            next((w.allowed for w in cycle.witnesses if w.allowed), None),
        )

    def is_single(self, lock_class: LockClass) -> bool:
        """Whether one instance at most can have taken part in this session, so that holding it keeps others out."""
        live, created = self._before.get(lock_class, (0, 0))
        return live + lock_class.created - created <= 1

    def verdict(self) -> list[Finding] | None:
        """Every order finding, from all edges that were ever recorded; ``None`` if somebody is at it for too long."""
        mutex = self._mutex
        if self._holder == get_ident():
            return None
        for got in map(mutex.acquire, (True,), (10 * PATIENCE,)):
            if got:
                try:
                    self._holder = get_ident()
                    self._work_off()
                    return self._settle_all()
                finally:
                    self._holder = 0
                    mutex.release()
        return None

    def _settle_all(self) -> list[Finding]:
        within = components(self._evidence(self.graph))
        verdict = self.judge(self.graph, within) if within else Verdict()
        self.cut = verdict.cut
        found = [self.order_finding(cycle) for cycle in verdict.cycles]
        return found + self.nesting.findings() + self.interrupts.findings() + self.waits.findings()

    # --- waiting ----------------------------------------------------------------

    def no_longer_blocked(self, state: OwnerState) -> None:
        """The wait is over, however it ended."""
        self.provisional.pop(state, None)

    # --- releasing --------------------------------------------------------------

    def foreign_release(self, state: OwnerState, lock_class: LockClass, node: Node) -> None:
        """``state`` releases what ``node``'s owner holds: a hand-off, or CTX302 where the kind has an owner.

        The holder's chain is its own: it is told, and drops the entry in its next slow path.
        """
        holder = node.state
        lock_class = node.step.lock_class or lock_class  # its level, if it was taken at one
        if lock_class.kind.owned:
            self.emit(state, self._release_finding("CTX302", state, lock_class, holder.owner, node))
            return
        lock_class.hand_over()
        holder.drops.append(node)
        self.redeem(node)
        self.provisional.pop(holder, None)

    def redeem(self, node: Node) -> None:
        """What an owner left held when it ended has been released after all."""
        left = self._left_held.pop(node, None)
        if left is not None:
            self.on_withdrawal(left)

    def unbalanced_release(self, state: OwnerState, lock_class: LockClass) -> None:
        """A release of a lock that nobody holds (CTX305)."""
        self.emit(state, self._release_finding("CTX305", state, lock_class, None, None))

    def _release_finding(
        self, rule: str, state: OwnerState, lock_class: LockClass, holder: Owner | None, node: Node | None
    ) -> Finding:
        trace = capture(2)
        state.owner.learn_name()
        return Finding(
            rule,
            "certain",
            state.owner,
            trace,
            (lock_class.key, trace.function()),
            ReleaseFacts(lock_class, holder, self.entry(node) if node is not None else None),
            (lock_class,),
            self.allowed(state.cur, rule),
        )

    # --- contexts ---------------------------------------------------------------

    def report_sleep(
        self,
        state: OwnerState,
        what: str,
        how: Any,
        trace: Trace,
        *,
        declared: Trace | None = None,
        mode: Mode | None = None,
        lock_class: LockClass | None = None,
        permission: int = BLOCK,
        why: str = "",
    ) -> None:
        """Something that may wait is called where that isn't allowed (CTX101; CTX102 for an acquire)."""
        because = state.cur.because(permission)
        if because is None:
            return
        rule = "CTX102" if how == "acquire" else "CTX101"
        chain = tuple(
            self.entry(node)
            for node in reversed(list(state.cur.scope()))
            if node.step.lock_class is None or not node.step.lock_class.kind.awaited
        )
        reason = self.entry(because)
        subject = lock_class.key if lock_class is not None else what
        state.owner.learn_name()
        cause = because.step.lock_class.key if because.step.lock_class is not None else reason.name
        self.emit(
            state,
            Finding(
                rule,
                "certain",
                state.owner,
                trace,
                (subject, cause, trace.function()),
                SleepFacts(what, how, reason, chain, declared or Trace((), ()), mode, why),
                tuple(c for c in (lock_class, because.step.lock_class) if c is not None),
                self.allowed(state.cur, rule),
            ),
        )

    def report_held(self, state: OwnerState, facts: HeldFacts, trace: Trace, key: str) -> None:
        """``requires_lock``, ``assert_held`` or ``assert_not_held`` fails (CTX301)."""
        # held the other way is another mistake than not held
        otherwise = ("otherwise",) if facts.wanted and facts.entry is not None else ()
        identity = (key, facts.function, str(facts.wanted), trace.function(), *otherwise)
        allowed = self.allowed(state.cur, "CTX301")
        state.owner.learn_name()
        self.emit(state, Finding("CTX301", "certain", state.owner, trace, identity, facts, (), allowed))

    def allowed(self, node: Node, rule: str) -> str | None:
        """The reason of the innermost ``allow`` on this chain that covers ``rule``, if there is one."""
        for entry in node.chain():
            step = entry.step
            if isinstance(step, ContextStep) and step.kind == "allow" and rule in step.detail:  # type: ignore[operator]
                return step.label
        return None

    def entry(self, node: Node) -> Entry:
        """Describe a node of the calling owner's chain for a report.

        A chain remembers where it was first taken.  For a marked call the frame of its wrapper is still
        on the stack and knows better: its caller is the place of this very time.
        """
        if isinstance(node.step, ContextStep):
            frame: Any = get_frame(1)
            while frame is not None:
                if frame.f_code.co_filename == GENERATED and frame.f_locals.get("node") is node:
                    caller = frame.f_back
                    if caller is not None:
                        codes: list[Any] = []
                        lastis: list[int] = []
                        while caller is not None and len(codes) < 64:
                            codes.append(caller.f_code)
                            lastis.append(caller.f_lasti)
                            caller = caller.f_back
                        return Entry(node.step, Trace(tuple(codes), tuple(lastis)), True)
                frame = frame.f_back
        return Entry(node.step, node.trace, still_running(node.trace) is not None)

    # --- telling -----------------------------------------------------------------

    def emit(self, state: OwnerState, finding: Finding) -> Violation:
        """Hand a finding out, with this owner's checking suspended: what is told may log, and logging locks."""
        saved = state.cur
        state.cur = VOID
        try:
            return self.on_finding(finding)
        finally:
            state.cur = saved

    def pending(self) -> list[Finding]:
        """What will be reported at the end unless something redeems it until then."""
        left = [f for f in self._left_held.values() if not any(c.handed_over for c in f.classes)]
        return [*left, *self.destroyed.pending()]

    def close(self, how: str = "run") -> None:
        """The session ends: settle what was provisional.  The graph stays readable."""
        if self.closed:
            return
        self.closed = True
        settled = [*self.pending(), *self.provisional.values(), *ranges.never_closed(self, how)]
        self._left_held.clear()
        self.destroyed.clear()
        self.provisional.clear()
        for finding in settled:
            if not any(c.handed_over for c in finding.classes):
                self.on_finding(finding)

    def after_fork(self, survivor: OwnerState | None) -> None:
        """In a forked child: only the calling thread is left; the graph is kept."""
        self._mutex = allocate_lock()
        self._holder = 0
        self.watchdog = Watchdog(self)
        watchers.clear()
        self.provisional.clear()
        self._left_held.clear()
        self.destroyed.clear()
        here = None if survivor is None else survivor.owner.ident
        for state in self.live_states():
            if state.owner.ident != here:
                state.ended = True
                self._states.pop(state.owner.serial, None)
                continue
            # the calling thread's, and those of its tasks
            state.owner.ident = get_ident()
            state.waiting = None


def _declared_finding(
    owner: Owner, facts: DeclaredFacts, trace: Trace, held: LockClass, allowed: str | None
) -> Finding:
    what = "leaf" if facts.breach.leaf else "order"
    identity = (what, held.key, facts.lock_class.key, trace.function())
    grade: Grade = "possible" if facts.mode.timed else "certain"
    return Finding("CTX007", grade, owner, trace, identity, facts, (facts.lock_class, held), allowed)
