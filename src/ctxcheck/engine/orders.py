"""The orders that were seen: how they get into the graph, whoever runs into whom, and what they come to.

What an owner's step shows is an event: "this was asked for while that was held".  The data path of one is ``record`` ->
``submit`` -> ``_drain`` -> ``_apply_order`` -> ``OrderGraph.add``; what closes a cycle is told at once, and everything
is judged again in the verdict.

Re-entrancy.  A finalizer, a signal handler or another thread may enter at any bytecode.  So nobody
ever waits for the mutex without a limit: an event is put in a queue first, and whoever has the mutex
works the queue off.  An owner that can't get it goes on; its event is dealt with by the holder.  The mutex is
never held while code of the program can be made to wait for it: findings are told
after it is released.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, final

from ctxcheck.engine.blame import is_librarys
from ctxcheck.engine.classes import AWAIT, INSIDE, LockClass, Mode
from ctxcheck.engine.findings import Finding, OrderFacts, Waiter
from ctxcheck.engine.grading import Cycle
from ctxcheck.engine.graph import Edge, Evidence, OrderGraph, Witness
from ctxcheck.engine.interrupts import Resumed, UseEvent
from ctxcheck.engine.learned import OrderFact
from ctxcheck.engine.nesting import NestEvent
from ctxcheck.engine.owner import Node, Owner, OwnerState
from ctxcheck.engine.raw import allocate_lock, get_ident
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.verdict import Verdict, best_cycle, components, is_of_one_job, judge
from ctxcheck.engine.waits import is_wait

if TYPE_CHECKING:
    from ctxcheck.engine.learned import Fact, Listener
    from ctxcheck.engine.ledger import Ledger
    from ctxcheck.engine.validator import Validator

_T = TypeVar("_T")

_NOBODY: Final[set[Owner]] = set()

#: How long an owner waits for the mutex before it leaves its event to the holder, in seconds.
PATIENCE: Final = 0.2

#: Orders between classes that are kept (some 700 bytes each); what comes beyond is counted as dropped.
MAX_EDGES: Final = 4_000_000
#: Sets of guards that are looked up to be shared.
MAX_GUARD_SETS: Final = 100_000
#: Orders that are told of when they appear, and edges looked at for it; the verdict tells of what comes after.
MAX_AT_ONCE: Final = 1_000
SEARCH_AT_ONCE: Final = 4_000_000


class OrderEvent(NamedTuple):
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
class Orders:
    """The orders of one session.  The graph is changed, and the verdict made, under the mutex only.

    An event of ``d`` held locks costs O(d) plus the graph's insertion.
    """

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self._queue: deque[OrderEvent | NestEvent | UseEvent | Resumed] = deque()
        self._mutex = allocate_lock()
        self._holder: int = 0
        self._guard_sets: dict[frozenset[LockClass], frozenset[LockClass]] = {}
        self._told_at_once: int = 0
        self._search_at_once: int = SEARCH_AT_ONCE
        #: is told of all that is news, some of it under the mutex, and then asked to see to it, without
        self.listener: Listener | None = None

    def record(
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
        ledger = self._engine.of(state)
        if not all(_saturated(ledger, source, target, guards, m, mode) for source, m, _ in entries) or (
            # where it is accepted it is counted apart
            self._engine.allowed(node, "CTX001") or self._engine.allowed(node, "CTX006")
        ):
            state.learned = True
            # what leads from or to a wait is another rule's business
            waits = tuple(e for e in entries if target.kind.awaited or e[0].kind.awaited)
            locks = tuple(e for e in entries if e not in waits) if waits else entries
            for some, rule, beside in ((locks, "CTX001", frozenset[LockClass]()), (waits, "CTX006", guards)):
                if some:
                    allowed = self._engine.allowed(node, rule)
                    self.submit(
                        state,
                        OrderEvent(state.owner, some, target, mode, node.trace, ledger.origin, allowed, beside),
                    )
        if not self._engine.insistent:
            return False
        known = [found for source, _, _ in entries if (found := ledger.broken.get((source, target)))]
        for found in known:
            self._engine.emit(state, dataclasses.replace(found, owner=state.owner))
        return bool(known)

    def needs(
        self, state: OwnerState, signal: LockClass, lock: LockClass, mode: Mode, trace: Trace, taken_at: Trace,
        guards: frozenset[LockClass],
    ) -> None:
        """Who sends ``signal``, at ``trace``, had to take ``lock`` first, at ``taken_at`` and under ``guards``."""
        held = ((signal, INSIDE, trace),)
        ledger = self._engine.of(state)
        if not _saturated(ledger, signal, lock, guards, INSIDE, mode):
            origin, allowed = ledger.origin, self._engine.allowed(state.cur, "CTX006")
            self.submit(state, OrderEvent(state.owner, held, lock, mode, taken_at, origin, allowed, guards))

    def submit(self, state: OwnerState, event: OrderEvent | NestEvent | UseEvent) -> None:
        """Put an event on the queue and see to it."""
        self._queue.append(event)
        self._drain(state)

    def queue(self, event: UseEvent | Resumed) -> None:
        """Put an event on the queue, for who queues it to see to when there are no more."""
        self._queue.append(event)

    def note(self, fact: Fact) -> None:
        """Something is news that isn't an order: say so; not under the mutex."""
        if self.listener is not None:
            self.listener.take(fact)
            self.listener.flush()

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
            if self.listener is not None:
                self.listener.flush()
            for finding in found:
                self._engine.emit(state, finding)

    def _work_off(self) -> list[Finding]:
        """Apply what is queued; under the mutex."""
        found: list[Finding] = []
        while self._queue:
            # taken off only when it is done: an exception thrown into this thread from outside
            # (a signal handler's) must not lose it, and doing it twice does no harm
            event = self._queue[0]
            if isinstance(event, Resumed):
                self._engine.origins.resumed()
                self._queue.popleft()
                continue
            origin = event.use.origin if isinstance(event, UseEvent) else event.origin
            ledger = self._engine.origins.ledger(origin)
            if isinstance(event, OrderEvent):
                news = self._apply_order(event, ledger)
            elif isinstance(event, UseEvent):
                news = ledger.interrupts.apply(event)
            else:
                news = ledger.nesting.apply(event)
            # it may be told by another owner
            found += [dataclasses.replace(each, origin=origin) for each in news] if origin else news
            self._queue.popleft()
        return found

    def _apply_order(self, event: OrderEvent, ledger: Ledger) -> list[Finding]:
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
            if len(ledger.graph.evidence) >= MAX_EDGES and edge not in ledger.graph.evidence:
                self._engine.dropped += 1
                continue
            news, cyclic = ledger.graph.add(*edge, witness)
            if news:
                if self.listener is not None:
                    self.listener.take(OrderFact(edge, witness))
                found += ledger.interrupts.ordered(*edge, event.owner)
            if news and cyclic:
                cycle = self.cycle_at_once(ledger, ledger.graph, edge)
                if cycle is not None and not is_librarys(cycle.classes, ledger.graph.evidence):
                    found.append(order_finding(cycle, event.owner, event.trace))
                    ledger.broken[edge] = dataclasses.replace(found[-1], origin=event.origin)
        return found

    def cycle_at_once(self, ledger: Ledger, graph: OrderGraph, edge: Edge) -> Cycle | None:
        """The best cycle through an edge that is new in a graph of one origin.

        After so much of it that a knot of locks must have been met, only an edge's opposite is looked for, and in the
        end nothing: the verdict will tell of the rest.
        """
        doubtful = ledger.waits.doubtful()
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
            owners=self._engine.owners,
            is_single=ledger.is_single,
            within=within,
            successors=successors,
            joins=ledger.nesting.joins,
        )
        if cycle is not None and is_wait(cycle.classes) and is_of_one_job(cycle.classes, successors):
            return None
        self._told_at_once += cycle is not None
        return cycle

    def _guards_among(self, held: tuple[tuple[LockClass, Mode, Trace], ...]) -> frozenset[LockClass]:
        guards = frozenset(
            source.base
            for source, mode, _ in held
            if source.kind.guards and not mode.shared and not source.handed_over
        )
        if len(self._guard_sets) >= MAX_GUARD_SETS:
            self._guard_sets.clear()
        return self._guard_sets.setdefault(guards, guards)

    def judge(self, ledger: Ledger, graph: OrderGraph, within: set[LockClass]) -> Verdict:
        """The verdict over a part of a graph, as one origin sees owners and guards."""
        return judge(
            _certain(ledger, graph),
            owners=self._engine.owners,
            is_single=ledger.is_single,
            within=within,
            joins=ledger.nesting.joins,
        )

    def verdict(self, origin: str = "", without: set[Owner] = _NOBODY) -> list[Finding] | None:
        """Every order finding of one origin, from all its edges, but those that only these owners have seen; ``None``
        if somebody is at it for too long."""

        def settle() -> list[Finding]:
            ledger = self._engine.origins.ledger(origin)
            found = self._settle_all(ledger, self._engine.origins.without(ledger, without) if without else ledger.graph)
            return [dataclasses.replace(each, origin=origin) for each in found] if origin else found

        return self.quietly(settle)

    def quietly(self, call: Callable[[], _T]) -> _T | None:
        """Call it under the mutex, when all that is queued is known; ``None`` if somebody is at it for too long."""
        mutex = self._mutex
        if self._holder == get_ident():
            return None
        for got in map(mutex.acquire, (True,), (10 * PATIENCE,)):
            if got:
                try:
                    self._holder = get_ident()
                    self._engine.finalizers.resolve()
                    self._work_off()
                    return call()
                finally:
                    self._holder = 0
                    mutex.release()
        return None

    def _settle_all(self, ledger: Ledger, graph: OrderGraph) -> list[Finding]:
        within = components(_certain(ledger, graph))
        verdict = self.judge(ledger, graph, within) if within else Verdict()
        self._engine.cut = verdict.cut
        cycles = [cycle for cycle in verdict.cycles if not is_librarys(cycle.classes, graph.evidence)]
        found = [order_finding(cycle) for cycle in cycles]
        found += ledger.nesting.findings() + ledger.interrupts.findings()
        return found + ledger.waits.findings() + ledger.slow.findings()

    def after_fork(self) -> None:
        """In a forked child: whoever had the mutex is gone; the graph is kept."""
        self._mutex = allocate_lock()
        self._holder = 0


def _saturated(
    ledger: Ledger, source: LockClass, target: LockClass, guards: frozenset[LockClass], held_mode: Mode, mode: Mode
) -> bool:
    evidence = ledger.graph.evidence.get((source, target))
    return evidence is not None and evidence.saturated(guards, held_mode, mode)


def _certain(ledger: Ledger, graph: OrderGraph) -> dict[Edge, Evidence]:
    """All edges but those that are no dependency after all."""
    doubtful = ledger.waits.doubtful()
    if not doubtful:
        return graph.evidence
    return {edge: evidence for edge, evidence in graph.evidence.items() if edge not in doubtful}


def order_finding(
    cycle: Cycle, owner: Owner | None = None, trace: Trace | None = None, stuck: tuple[Waiter, ...] = ()
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
