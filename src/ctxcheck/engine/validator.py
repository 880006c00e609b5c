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

import gc
import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple, final

from ctxcheck.engine import ranges
from ctxcheck.engine.brackets import BracketBook
from ctxcheck.engine.classes import BLOCK, REGISTRY, ContextStep, LockClass, Mode, Step
from ctxcheck.engine.errors import DeadlockError
from ctxcheck.engine.findings import (
    Entry,
    Finding,
    HeldFacts,
    NestingFacts,
    OrderFacts,
    ReleaseFacts,
    SelfDeadlockFacts,
    SleepFacts,
    Waiter,
)
from ctxcheck.engine.graph import OrderGraph, Witness
from ctxcheck.engine.owner import VOID, Node, Owner, OwnerState
from ctxcheck.engine.raw import allocate_lock, get_frame, get_ident, thread_count
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import GENERATED, Trace, capture, still_running
from ctxcheck.engine.verdict import Cycle, Owners, Verdict, components, judge
from ctxcheck.engine.violations import Violation

#: How long an owner waits for the mutex before it leaves its event to the holder, in seconds.
PATIENCE: Final = 0.2
#: Cached nodes of all tries together; beyond it chains are validated each time, and counted.
MAX_NODES: Final = 500_000

#: (owner, what it holds, what it waits for), each waiting for the next one's
WaitCycle = list[tuple[OwnerState, LockClass, LockClass]]

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


class _Nesting:
    """What is known of the instances of one class that were nested: ordered pairs of serials, with a witness each."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: dict[tuple[int, int], tuple[Owner, frozenset[LockClass]]] = {}

    def leads(self, start: int, goal: int) -> list[tuple[int, int]] | None:
        """The pairs of a path from one instance to another, or None."""
        paths: dict[int, list[tuple[int, int]]] = {start: []}
        todo = [start]
        while todo:
            at = todo.pop(0)
            for pair in self.pairs:
                if pair[0] == at and pair[1] not in paths:
                    paths[pair[1]] = [*paths[at], pair]
                    if pair[1] == goal:
                        return paths[goal]
                    todo.append(pair[1])
        return None


#: Pairs of instances remembered for one class; a class with more is left at what was seen.
MAX_PAIRS: Final = 1_000


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
        self.on_finding = on_finding
        self.on_withdrawal = withdraw
        self.owners: Owners = owners
        self.deadlock_after = deadlock_after
        self.origin = ""
        self.graph = OrderGraph()
        self.book = BracketBook()
        self.closed = False
        self.broken = False
        self.chains = 0
        self.contexts = 0
        self.dropped = 0
        self.cut = 0
        self.seen: set[LockClass] = set()
        self._max_nodes = max_nodes
        self._nodes = 0
        self._queue: deque[_OrderEvent] = deque()
        self._mutex = allocate_lock()
        self._holder = 0
        self._states: weakref.WeakSet[OwnerState] = weakref.WeakSet()
        self._nestings: dict[LockClass, _Nesting] = {}
        self._instance_serials: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        #: holds of owners that are gone, which a hand-off may still redeem
        self._left_held: dict[Node, Finding] = {}
        #: owners that wait for a lock of their own, and may be waiting for a hand-off
        self._provisional: dict[OwnerState, Finding] = {}
        # instances that were there before: together with those made since, what may take part
        self._before = {c: (c.live(), c.created) for c in REGISTRY.all()}

    # --- owners -----------------------------------------------------------------

    def new_state(self) -> OwnerState:
        """Make the state of the calling thread."""
        state = OwnerState(Owner(_serials(), get_ident()), self)
        self._states.add(state)
        return state

    def end_owner(self, state: OwnerState, how: str = "thread") -> None:
        """The owner is gone: check what it left behind (CTX203, CTX303), and free its trie."""
        if state.ended or self.closed or self.broken:
            return
        state.settle()
        state.ended = True
        state.owner.learn_name()
        for bracket in list(state.brackets):
            ranges.left_open(self, state, bracket, how)
        for node in list(state.cur.held()):
            self._left(state, node, how)
        state.dissolve()
        self._states.discard(state)

    def _left(self, state: OwnerState, node: Node, how: str) -> None:
        lock_class = node.step.lock_class
        if lock_class is None or lock_class.kind.resource or lock_class.handed_over:
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
            self.allowed(node, "CTX303"),
        )
        if lock_class.kind.owned:
            self._emit(state, finding)
        else:
            # a plain Lock may still be released by another thread, which makes it a hand-off
            self._left_held[node.stands_for] = finding

    # --- acquiring --------------------------------------------------------------

    def acquire(self, state: OwnerState, step: Step, lock: Any) -> Node:
        """Validate that ``state`` asks for ``step`` where it stands now, and return the node to stand on.

        Called before the acquire can block, for chains that this owner hasn't taken yet.  May raise
        what ``on_finding`` raises; then nothing is held and nothing was cached.
        """
        state.settle()
        parent = state.cur
        lock_class, mode = step.lock_class, step.mode
        assert lock_class is not None
        assert mode is not None
        state.owner.learn_name()
        self.seen.add(lock_class)
        node = Node(parent, step, state, capture(2))
        held = list(parent.held())
        cacheable = not lock_class.nested
        if any(entry.step.lock_class is lock_class for entry in held):
            cacheable = False
            self._mark_nested(lock_class)
            if mode.waits:
                self._check_nesting(state, node, held, lock)
        if mode.waits:
            if lock_class.kind.sleeps and not parent.allows & BLOCK:
                cacheable = False
                self.report_sleep(state, lock_class.name, "acquire", node.trace, mode=mode, lock_class=lock_class)
            if held:
                self._order(state, held, lock_class, mode, node)
        self.chains += 1
        if cacheable and self._room():
            parent[step] = node
        return node

    def enter(self, state: OwnerState, step: ContextStep) -> Node:
        """Return the node for a context entered here; made, and cached, if need be."""
        state.settle()
        parent = state.cur
        state.owner.learn_name()
        self.contexts += 1
        node = Node(parent, step, state, capture(2))
        if self._room():
            parent[step] = node
        return node

    def _room(self) -> bool:
        if self._nodes >= self._max_nodes:
            self.dropped += 1
            return False
        self._nodes += 1
        return True

    def _order(self, state: OwnerState, held: list[Node], target: LockClass, mode: Mode, node: Node) -> None:
        """Put the orders "each held lock, then this one" on the queue and see to it."""
        guards = _guards(held)
        entries = tuple(
            (h.step.lock_class, h.step.mode, h.trace)
            for h in held
            if h.step.lock_class is not None and h.step.mode is not None and h.step.lock_class is not target
        )
        if entries and not all(self._saturated(source, target, guards, m, mode) for source, m, _ in entries):
            allowed = self.allowed(node, "CTX001")
            self._queue.append(_OrderEvent(state.owner, entries, target, mode, node.trace, self.origin, allowed))
            self._drain(state)

    def _saturated(
        self, source: LockClass, target: LockClass, guards: frozenset[LockClass], held_mode: Mode, mode: Mode
    ) -> bool:
        evidence = self.graph.evidence.get((source, target))
        return evidence is not None and evidence.saturated(guards, held_mode, mode)

    def _drain(self, state: OwnerState) -> None:
        """Work the queue off, unless somebody else is at it; then tell what was found."""
        while self._queue:
            if self._holder == get_ident() or not self._mutex.acquire(True, PATIENCE):
                return
            found: list[Finding] = []
            try:
                self._holder = get_ident()
                while self._queue:
                    # taken off only when it is done: an exception thrown into this thread from outside
                    # (a signal handler's) must not lose it, and doing it twice does no harm
                    found.extend(self._apply(self._queue[0]))
                    self._queue.popleft()
            finally:
                self._holder = 0
                self._mutex.release()
            for finding in found:
                self._emit(state, finding)

    def _apply(self, event: _OrderEvent) -> list[Finding]:
        guards = frozenset(
            source
            for source, mode, _ in event.held
            if source.kind.guards and not mode.shared and not source.handed_over
        )
        found: list[Finding] = []
        for source, mode, held_at in event.held:
            witness = Witness(
                event.owner, guards, event.origin, mode, event.mode, held_at, event.trace, event.allowed
            )
            news, cyclic = self.graph.add(source, event.target, witness)
            if news and cyclic:
                within = self.graph.component((source, event.target))
                verdict = judge(self.graph.evidence, owners=self.owners, is_single=self.is_single, within=within)
                edge = (source, event.target)
                found += [self._order_finding(c, event.owner) for c in verdict.cycles if _has(c, edge)]
        return found

    def _order_finding(self, cycle: Cycle, owner: Owner | None = None, stuck: tuple[Waiter, ...] = ()) -> Finding:
        witness = cycle.witnesses[-1]
        functions = [w.taken_at.function() for w in cycle.witnesses]
        return Finding(
            "CTX001",
            cycle.grade,
            owner or witness.owner,
            witness.taken_at,
            (*(c.key for c in cycle.classes), *functions),
            OrderFacts(cycle, stuck),
            cycle.classes,
            next((w.allowed for w in cycle.witnesses if w.allowed), None),
        )

    def is_single(self, lock_class: LockClass) -> bool:
        """Whether one instance at most can have taken part in this session, so that holding it keeps others out."""
        live, created = self._before.get(lock_class, (0, 0))
        return live + lock_class.created - created <= 1

    def verdict(self) -> list[Finding]:
        """Every order finding, from all edges that were ever recorded."""
        if not self._mutex.acquire(True, 10 * PATIENCE):
            return []
        try:
            self._holder = get_ident()
            while self._queue:
                self._apply(self._queue[0])
                self._queue.popleft()
            within = components(self.graph.evidence)
            verdict = (
                judge(self.graph.evidence, owners=self.owners, is_single=self.is_single, within=within)
                if within
                else Verdict()
            )
        finally:
            self._holder = 0
            self._mutex.release()
        self.cut = verdict.cut
        return [self._order_finding(cycle) for cycle in verdict.cycles]

    # --- two locks of one class -----------------------------------------------------

    def _mark_nested(self, lock_class: LockClass) -> None:
        """From now on acquisitions of this class go the slow way, where the instance is known."""
        if lock_class.nested:
            return
        lock_class.nested = True
        for state in list(self._states):
            nodes = [state.root]
            while nodes:
                node = nodes.pop()
                for step in list(node):
                    if step.lock_class is lock_class:
                        node.pop(step, None)
                nodes.extend(list(node.values()))

    def _check_nesting(self, state: OwnerState, node: Node, held: list[Node], lock: Any) -> None:
        lock_class = node.step.lock_class
        assert lock_class is not None
        others = [entry for entry in held if entry.step.lock_class is lock_class]
        for entry in others[:1]:
            other = self._instance(state, entry, lock_class)
            if other is None or other is lock:
                continue
            reason, grade, keys = self._compare(state, lock_class, other, lock, _guards(held))
            if reason is None:
                continue
            self._emit(
                state,
                Finding(
                    "CTX003",
                    grade,
                    state.owner,
                    node.trace,
                    (lock_class.key, node.trace.function()),
                    NestingFacts(lock_class, self.entry(entry), reason, keys),
                    (lock_class,),
                    self.allowed(node, "CTX003"),
                ),
            )

    def _instance(self, state: OwnerState, entry: Node, lock_class: LockClass) -> Any:
        """Which lock an entry of the chain is."""
        target = entry.stands_for
        for node, reference in state.instances:
            if node is target:
                return reference()
        # it was taken before the class was known to nest: found once among what refers to the class's token
        for thing in gc.get_referrers(lock_class.token):
            if getattr(thing, "node", None) is target:
                return thing
        return None

    def _compare(
        self, state: OwnerState, lock_class: LockClass, outer: Any, inner: Any, guards: frozenset[LockClass]
    ) -> tuple[Any, Grade, tuple[str, str] | None]:
        """Why nesting ``inner`` in ``outer`` is no declared order, with the grade; a reason of None: it is one."""
        keys = (getattr(outer, "order_key", None), getattr(inner, "order_key", None))
        if keys[0] is not None and keys[1] is not None:
            ascending = _ascending(*keys)
            if ascending is True:
                return None, "unlikely", None
            if ascending is not None:
                texts = (_text(keys[0]), _text(keys[1]))
                return ("equal" if ascending == "equal" else "descending"), "possible", texts
        pair = (self._serial(outer), self._serial(inner))
        nesting = self._nestings.setdefault(lock_class, _Nesting())
        back = nesting.leads(pair[1], pair[0])
        if len(nesting.pairs) < MAX_PAIRS:
            nesting.pairs.setdefault(pair, (state.owner, guards))
        if back is None:
            return "once", "unlikely", None
        witnesses = [nesting.pairs[p] for p in back] + [(state.owner, guards)]
        apart = all(
            (self.owners == "assumed" or a[0] is not b[0]) and not any(map(self.is_single, a[1] & b[1]))
            for i, a in enumerate(witnesses)
            for b in witnesses[:i]
        )
        return "both", "possible" if apart else "unlikely", None

    def _serial(self, lock: Any) -> int:
        found = self._instance_serials.get(lock)
        if found is None:
            found = self._instance_serials.setdefault(lock, _serials())
        return found

    def remember_instance(self, state: OwnerState, node: Node, lock: Any) -> None:
        """Note which lock a node of a nesting class is; forgotten with the hold, and never kept alive."""
        state.instances = [pair for pair in state.instances if state.find(pair[0]) is not None]
        state.instances.append((node, weakref.ref(lock)))

    # --- waiting for oneself, and for each other -------------------------------------

    def self_deadlock(self, state: OwnerState, lock_class: LockClass, node: Node) -> None:
        """The owner asks, without a limit, for a lock that it holds in ``node`` (CTX002).

        Raises :class:`~ctxcheck.engine.errors.DeadlockError` when nothing but this owner could release it.
        Otherwise notes that it may be waiting for a hand-off and returns: the caller blocks, as the program asked.
        """
        mode = node.step.mode
        why: Any = ""
        if lock_class.kind.owned:
            why = "owned"
        elif mode is not None and mode.scoped:
            why = "with"
        elif thread_count() == 0 and state.owner.ident == threading.main_thread().ident:
            why = "alone"
        trace = capture(2)
        state.owner.learn_name()
        finding = Finding(
            "CTX002",
            "certain" if why else "possible",
            state.owner,
            trace,
            (lock_class.key, trace.function()),
            SelfDeadlockFacts(lock_class, self.entry(node), why, 0.0 if why else self.deadlock_after),
            (lock_class,),
            self.allowed(state.cur, "CTX002"),
        )
        if why:
            violation = self._emit(state, finding)
            raise DeadlockError(violation)
        self._provisional[state] = finding

    def still_blocked(self, state: OwnerState, lock: Any, seen: WaitCycle | None) -> None:
        """The owner has been blocked on ``lock`` for ``deadlock_after`` seconds: say so if it is for ever.

        ``seen`` is what :meth:`wait_cycle` said a moment ago: a chain of owners changes under
        one's eyes, so a cycle counts only if it is found twice.
        """
        provisional = self._provisional.pop(state, None)
        if provisional is not None:
            self._emit(state, provisional)
            return
        if seen is None or seen != self.wait_cycle(state, lock):
            return
        first = seen
        waiters = tuple(
            Waiter(s.owner, holds, wants, s.cur.trace if s is not state else capture(2)) for s, holds, wants in first
        )
        classes = tuple(w.holds for w in waiters)
        if len(set(classes)) < len(classes) or len(classes) < 2:
            lock_class = classes[0]
            held = next((n for n in state.cur.held() if n.step.lock_class is lock_class), state.cur)
            facts = NestingFacts(lock_class, self.entry(held), "both")
            trace = capture(2)
            identity = (lock_class.key, trace.function())
            self._emit(state, Finding("CTX003", "certain", state.owner, trace, identity, facts, (lock_class,)))
            return
        cycle = self._stuck_cycle(classes)
        if cycle is not None:
            self._emit(state, self._order_finding(cycle, state.owner, waiters))

    def wait_cycle(self, state: OwnerState, lock: Any) -> WaitCycle | None:
        """Follow "waits for a lock that is held by" from this owner, and return the cycle back to it, if there is one."""
        links: list[tuple[OwnerState, LockClass]] = []
        wanted = lock
        at = state
        for _ in range(1000):
            node = getattr(wanted, "node", None)
            if not isinstance(node, Node) or node is VOID or node.step.lock_class is None:
                return None
            holder = node.state
            links.append((at, node.step.lock_class))
            if holder is state:
                # owner i holds what owner i - 1 waits for
                wants = [link[1] for link in links]
                return [(links[i][0], wants[i - 1], wants[i]) for i in range(len(links))]
            at, wanted = holder, holder.waiting
            if wanted is None:
                return None
        return None

    def _stuck_cycle(self, classes: tuple[LockClass, ...]) -> Cycle | None:
        smallest = min(range(len(classes)), key=lambda i: classes[i].key)
        classes = classes[smallest:] + classes[:smallest]
        witnesses: list[Witness] = []
        counts: list[int] = []
        for i, source in enumerate(classes):
            evidence = self.graph.evidence.get((source, classes[(i + 1) % len(classes)]))
            if evidence is None or not evidence.witnesses:
                return None
            witnesses.append(min(evidence.witnesses, key=Witness.sort_key))
            counts.append(evidence.count)
        return Cycle(classes, tuple(witnesses), "certain", counts=tuple(counts))

    def no_longer_blocked(self, state: OwnerState) -> None:
        """The wait is over, however it ended."""
        self._provisional.pop(state, None)

    # --- releasing --------------------------------------------------------------

    def foreign_release(self, state: OwnerState, lock_class: LockClass, node: Node) -> None:
        """``state`` releases what ``node``'s owner holds: a hand-off, or CTX302 where the kind has an owner.

        The holder's chain is its own: it is told, and drops the entry in its next slow path.
        """
        holder = node.state
        if lock_class.kind.owned:
            self._emit(state, self._release_finding("CTX302", state, lock_class, holder.owner, node))
            return
        lock_class.handed_over = True
        holder.drops.append(node)
        left = self._left_held.pop(node, None)
        if left is not None:
            self.on_withdrawal(left)
        self._provisional.pop(holder, None)

    def unbalanced_release(self, state: OwnerState, lock_class: LockClass) -> None:
        """A release of a lock that nobody holds (CTX305)."""
        self._emit(state, self._release_finding("CTX305", state, lock_class, None, None))

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
    ) -> None:
        """Something that may wait is called where that isn't allowed (CTX101; CTX102 for an acquire)."""
        because = state.cur.because(permission)
        if because is None:
            return
        rule = "CTX102" if how == "acquire" else "CTX101"
        chain = tuple(self.entry(node) for node in reversed(list(state.cur.chain())))
        reason = self.entry(because)
        subject = lock_class.key if lock_class is not None else what
        state.owner.learn_name()
        cause = because.step.lock_class.key if because.step.lock_class is not None else reason.name
        self._emit(
            state,
            Finding(
                rule,
                "certain",
                state.owner,
                trace,
                (subject, cause, trace.function()),
                SleepFacts(what, how, reason, chain, declared or Trace((), ()), mode),
                tuple(c for c in (lock_class, because.step.lock_class) if c is not None),
                self.allowed(state.cur, rule),
            ),
        )

    def report_held(self, state: OwnerState, facts: HeldFacts, trace: Trace, key: str) -> None:
        """``requires_lock``, ``assert_held`` or ``assert_not_held`` fails (CTX301)."""
        identity = (key, facts.function, str(facts.wanted), trace.function())
        allowed = self.allowed(state.cur, "CTX301")
        state.owner.learn_name()
        self._emit(state, Finding("CTX301", "certain", state.owner, trace, identity, facts, (), allowed))

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

    def _emit(self, state: OwnerState, finding: Finding) -> Violation:
        """Hand a finding out, with this owner's checking suspended: what is told may log, and logging locks."""
        saved = state.cur
        state.cur = VOID
        try:
            return self.on_finding(finding)
        finally:
            state.cur = saved

    def emit(self, state: OwnerState, finding: Finding) -> Violation:
        """As :meth:`_emit`, for the other modules of the engine."""
        return self._emit(state, finding)

    def pending(self) -> list[Finding]:
        """What will be reported at the end unless something redeems it until then."""
        return [f for f in self._left_held.values() if not any(c.handed_over for c in f.classes)]

    def close(self) -> None:
        """The session ends: settle what was provisional.  The graph stays readable."""
        if self.closed:
            return
        for finding in [*self._left_held.values(), *self._provisional.values()]:
            if not any(c.handed_over for c in finding.classes):
                self.on_finding(finding)
        self._left_held.clear()
        self._provisional.clear()
        self.closed = True

    def after_fork(self, survivor: OwnerState | None) -> None:
        """In a forked child: only the calling thread is left; the graph is kept."""
        self._mutex = allocate_lock()
        self._holder = 0
        self._provisional.clear()
        self._left_held.clear()
        for state in list(self._states):
            if state is not survivor:
                state.ended = True
                self._states.discard(state)
        if survivor is not None:
            survivor.owner.ident = get_ident()
            survivor.waiting = None


def _guards(held: list[Node]) -> frozenset[LockClass]:
    return frozenset(
        h.step.lock_class
        for h in held
        if h.step.lock_class is not None
        and h.step.mode is not None
        and h.step.lock_class.kind.guards
        and not h.step.mode.shared
        and not h.step.lock_class.handed_over
    )


def _has(cycle: Cycle, edge: tuple[LockClass, LockClass]) -> bool:
    classes = cycle.classes
    return any((a, classes[(i + 1) % len(classes)]) == edge for i, a in enumerate(classes))


def _ascending(outer: Any, inner: Any) -> bool | str | None:
    """Compare two order keys: True, False, "equal", or None if they can't be compared."""
    try:
        if outer < inner:
            return True
        return False if inner < outer else "equal"
    except Exception:  # the program's own comparison; a broken one is no order
        return None


def _text(value: Any) -> str:
    return repr(value) if type(value) in (int, float, str, bytes, bool, tuple) else f"<{type(value).__qualname__}>"
