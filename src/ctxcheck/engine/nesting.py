"""Two locks of one class, one inside the other (CTX003).

What is learned of classes says nothing here: the instances count.  A class that was seen nested is never cached
again, so that each of its acquisitions comes the slow way, where the lock is known; the orders between its
instances go into an order graph of their own, and are judged as those of classes are.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from ctxcheck.engine.blame import nests_its_own
from ctxcheck.engine.classes import AWAIT, LockClass, Mode
from ctxcheck.engine.findings import Entry, Finding, NestingFacts
from ctxcheck.engine.graph import OrderGraph, Witness
from ctxcheck.engine.learned import ClassFact
from ctxcheck.engine.owner import Node, Owner, OwnerState, Reentry
from ctxcheck.engine.rules import GRADES, Grade
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.verdict import components

if TYPE_CHECKING:
    from ctxcheck.engine.ledger import Ledger
    from ctxcheck.engine.validator import Validator

_serials: Final = itertools.count(1).__next__


class NestEvent(NamedTuple):
    """As an order between classes, between instances of one class: ``held`` are those that were held."""

    owner: Owner
    lock_class: LockClass
    held: tuple[tuple[_Instance, Mode, Trace], ...]
    target: _Instance
    mode: Mode
    trace: Trace
    guards: frozenset[LockClass]
    origin: str
    allowed: str | None


@final
class _Instance(LockClass):
    """One lock of a class whose locks are nested: to the order graph, a class of its own."""

    __slots__ = ("lock",)

    def __init__(self, of: LockClass, lock: Any) -> None:
        super().__init__(f"{of.key}@{_serials():09d}", of.name, of.kind)
        self.lock: weakref.ref[Any] = weakref.ref(lock)

    def is_gone(self) -> bool:
        """Whether the lock doesn't exist any more."""
        return self.lock() is None


#: Orders between instances remembered for one class; what comes beyond is counted as dropped.
MAX_INSTANCE_ORDERS: Final = 10_000
#: After so many orders that there was no room for, it is looked whether some instances are gone.
LOOK_AGAIN: Final = 1_000
#: How often a lock may be looked for among all objects; each time takes as long as there are objects.
MAX_SEARCHES: Final = 1_000
#: From this many on, the orders of instances that are gone are taken out each time that their number has doubled.
_MANY: Final = 256


@final
class _Orders:
    """What is known of one class: the orders between its instances, and what was learned of those that are gone."""

    __slots__ = ("best", "grade", "graph", "left_out", "look_at")

    def __init__(self) -> None:
        self.graph: OrderGraph = OrderGraph()
        self.best: Finding | None = None
        self.grade: int = -1
        self.look_at: int = _MANY
        self.left_out: int = 0


@final
class Nesting:
    """What one origin knows of instances; changes its graphs under the validator's mutex only."""

    __slots__ = ("_engine", "_held_under", "_instances", "_ledger", "_orders", "_searches", "_taken_inside")

    def __init__(self, engine: Validator, ledger: Ledger) -> None:
        self._engine: Validator = engine
        self._ledger: Ledger = ledger
        self._orders: dict[LockClass, _Orders] = {}
        self._searches: int = MAX_SEARCHES
        self._held_under: set[LockClass] = set()
        self._taken_inside: set[LockClass] = set()
        self._instances: weakref.WeakKeyDictionary[Any, _Instance] = weakref.WeakKeyDictionary()

    def joins(self, lock_class: LockClass) -> bool:
        """Whether somebody who holds one lock of this class exclusively may wait for another one: then a reader who
        waits for the first waits for the readers of the second, though readers of one lock don't hold each other up."""
        return lock_class in self._held_under and lock_class in self._taken_inside

    def mark(self, lock_class: LockClass) -> None:
        """From now on acquisitions of this class go the slow way, where the instance is known."""
        if lock_class.nested:
            return
        lock_class.nested = True
        self._engine.roster.forget_class(lock_class)

    def check(self, state: OwnerState, node: Node, held: list[Node], lock: Any) -> None:
        """Locks of one class are nested: fine in ascending order of their keys, else learned as orders of instances."""
        lock_class, mode = node.step.lock_class, node.step.mode
        assert lock_class is not None
        assert mode is not None
        others: list[tuple[_Instance, Mode, Trace]] = []
        known = dict(state.instances)
        for entry in held:
            if entry.step.lock_class is not lock_class or entry.step.mode is None:
                continue
            other = self._instance(known, entry, lock_class)
            if other is None or other is lock:
                continue
            joined = self.joins(lock_class)
            self._held_under.update(() if entry.step.mode.shared else (lock_class,))
            self._taken_inside.update(() if mode.recursive else (lock_class,))
            if self.joins(lock_class) and not joined:
                self._engine.orders.note(ClassFact("joins", lock_class))
            ordered = _ascending(getattr(other, "order_key", None), getattr(lock, "order_key", None))
            if ordered is None:
                others.append((self._instance_class(other, lock_class), entry.step.mode, entry.trace))
            elif ordered is not True:
                self._wrong_key(state, node, entry, other, lock, "equal" if ordered == "equal" else "descending")
        if others:
            target = self._instance_class(lock, lock_class)
            guards, allowed = guards_of(held), self._engine.allowed(node, "CTX003")
            trace, origin = node.trace, self._ledger.origin
            owner = state.owner if lock_class.kind.needs == AWAIT else state.owner.thread
            self._engine.orders.submit(state,
                NestEvent(owner, lock_class, tuple(others), target, mode, trace, guards, origin, allowed)
            )

    def _wrong_key(self, state: OwnerState, node: Node, entry: Node, outer: Any, inner: Any, reason: Any) -> None:
        lock_class = node.step.lock_class
        assert lock_class is not None
        keys = (_text(outer.order_key), _text(inner.order_key))
        self._engine.emit(
            state,
            Finding(
                "CTX003",
                "possible",
                state.owner,
                node.trace,
                (lock_class.key, reason, node.trace.function()),
                NestingFacts(lock_class, self._engine.entry(entry), reason, keys),
                (lock_class,),
                self._engine.allowed(node, "CTX003"),
            ),
        )

    def _instance_class(self, lock: Any, lock_class: LockClass) -> _Instance:
        found = self._instances.get(lock)
        return found if found is not None else self._instances.setdefault(lock, _Instance(lock_class, lock))

    def _instance(self, known: dict[Node, Any], entry: Node, lock_class: LockClass) -> Any:
        """Which lock an entry of the chain is."""
        target = entry.stands_for
        if target in known:
            return known[target]()
        # it was taken before the class was known to nest: the lock that the node was made for, or else
        # one among what refers to the class's token
        first = target.made_for() if target.made_for is not None else None
        if first is not None and _is_held_in(first, target):
            return first
        if self._searches <= 0:
            self._engine.dropped += 1
            return None
        self._searches -= 1
        return next((thing for thing in gc.get_referrers(lock_class.base.token) if _is_held_in(thing, target)), None)

    def remember(self, state: OwnerState, node: Node, lock: Any) -> None:
        """Note which lock a node of a nesting class is; forgotten with the hold, and never kept alive."""
        held = {entry.stands_for for entry in state.cur.held()}
        state.instances = [pair for pair in state.instances if pair[0] in held]
        state.instances.append((node, weakref.ref(lock)))

    def apply(self, event: NestEvent) -> list[Finding]:
        """Enter the orders of an event, and say what is new; under the validator's mutex."""
        lock_class = event.lock_class
        orders = self._orders.setdefault(lock_class, _Orders())
        if len(orders.graph.evidence) >= orders.look_at or orders.left_out >= LOOK_AGAIN:
            self._forget_gone(lock_class, orders)
        graph, found, dropped = orders.graph, list[Finding](), False
        for held, mode, held_at in event.held:
            edge = (held, event.target)
            if len(graph.evidence) >= MAX_INSTANCE_ORDERS and edge not in graph.evidence:
                dropped = True
                continue
            witness = Witness(
                event.owner, event.guards, event.origin, mode, event.mode, held_at, event.trace, event.allowed
            )
            news, cyclic = graph.add(*edge, witness)
            if nests_its_own(lock_class, [witness]):
                continue  # in the graph, for what the program adds to it
            if orders.grade < 0 and not _lets_in(witness):
                orders.grade = 0
                found.append(self._finding(lock_class, witness, "once", "unlikely"))
            if news and cyclic and orders.grade < GRADES.index("possible"):
                # once it is possible, more of the same says nothing new
                cycle = self._engine.orders.cycle_at_once(self._ledger, graph, edge)
                if cycle is not None:
                    orders.grade = max(orders.grade, GRADES.index(cycle.grade))
                    found.append(self._finding(lock_class, cycle.witnesses[-1], "both", cycle.grade))
        self._engine.dropped += dropped
        orders.left_out += dropped
        return found

    def _forget_gone(self, lock_class: LockClass, orders: _Orders) -> None:
        """Take out the orders of instances that are gone; what was learned from them stays.

        Those that lie on a cycle are left in until the room is needed, since the verdict looks at all cycles at once.
        """
        full = len(orders.graph.evidence) >= MAX_INSTANCE_ORDERS
        orders.best = self._best(lock_class, orders)
        orders.graph = orders.graph.without(_Instance.is_gone, cyclic=full)  # type: ignore[arg-type]
        left = len(orders.graph.evidence)
        orders.look_at = max(_MANY, 2 * left)
        orders.left_out = 0

    def findings(self) -> list[Finding]:
        """What the orders between instances come to: one finding a class, for its best-graded cycle."""
        found = [self._best(c, orders) for c, orders in self._orders.items() if not c.handed_over]
        return [finding for finding in found if finding is not None]

    def _best(self, lock_class: LockClass, orders: _Orders) -> Finding | None:
        graph = orders.graph
        within = components(graph.evidence)
        cycles = self._engine.orders.judge(self._ledger, graph, within).cycles if within else []
        cycles = [cycle for cycle in cycles if not nests_its_own(lock_class, cycle.witnesses)]
        found: Finding | None = None
        if cycles:
            best = max(cycles, key=lambda cycle: GRADES.index(cycle.grade))
            found = self._finding(lock_class, best.witnesses[-1], "both", best.grade)
        else:
            every = [w for evidence in graph.evidence.values() for w in evidence.witnesses if not _lets_in(w)]
            every = [w for w in every if not nests_its_own(lock_class, [w])]
            if every:
                found = self._finding(lock_class, min(every, key=Witness.sort_key), "once", "unlikely")
        before = orders.best
        if found is None or (before is not None and _weight(before) > _weight(found)):
            return before
        return found

    def _finding(self, lock_class: LockClass, witness: Witness, reason: Any, grade: Grade) -> Finding:
        entry = Entry(lock_class.step(witness.held_mode), witness.held_at, False)
        facts = NestingFacts(lock_class, entry, reason)
        return Finding(
            "CTX003", grade, witness.owner, witness.taken_at, (lock_class.key,), facts, (lock_class,), witness.allowed
        )


def _lets_in(witness: Witness) -> bool:
    """Whether this is a reader beside another one, whom it can't wait for."""
    return witness.taken_mode.recursive and witness.held_mode.shared


def _is_held_in(lock: Any, node: Node) -> bool:
    """Whether a lock (or any object) is held in this node."""
    holds: Any = getattr(lock.__class__, "is_held_in", None)
    if holds is not None:
        return bool(holds(lock, node))
    at = getattr(lock, "node", None)
    return at is node or (type(at) is Reentry and at.node is node)


def _weight(finding: Finding) -> tuple[int, bool]:
    facts = finding.facts
    return GRADES.index(finding.grade), isinstance(facts, NestingFacts) and facts.reason == "both"


def guards_of(held: list[Node]) -> frozenset[LockClass]:
    """The classes that are held exclusively, and would keep another owner out."""
    return frozenset(
        h.step.lock_class.base
        for h in held
        if h.step.lock_class is not None
        and h.step.mode is not None
        and h.step.lock_class.kind.guards
        and not h.step.mode.shared
        and not h.step.lock_class.handed_over
    )


def _ascending(outer: Any, inner: Any) -> bool | str | None:
    """Compare two order keys: True, False, "equal", or None if there are none or they can't be compared."""
    if outer is None or inner is None:
        return None
    try:
        if outer < inner:
            return True
        return False if inner < outer else "equal"
    except Exception:  # the program's own comparison; a broken one is no order
        return None


def _text(value: Any) -> str:
    return repr(value) if type(value) in (int, float, str, bytes, bool, tuple) else f"<{type(value).__qualname__}>"
