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

from ctxcheck.engine.classes import LockClass, Mode
from ctxcheck.engine.findings import Entry, Finding, NestingFacts
from ctxcheck.engine.graph import OrderGraph, Witness
from ctxcheck.engine.owner import Node, Owner, OwnerState, Reentry
from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.verdict import components

if TYPE_CHECKING:
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

    __slots__ = ()

    def __init__(self, of: LockClass) -> None:
        super().__init__(f"{of.key}@{_serials():09d}", of.name, of.kind)


#: Orders between instances remembered for one class; what comes beyond is counted as dropped.
MAX_INSTANCE_ORDERS: Final = 10_000


@final
class Nesting:
    """What one session knows of instances; changes its graphs under the validator's mutex only."""

    __slots__ = ("_engine", "_instances", "graphs")

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self.graphs: dict[LockClass, OrderGraph] = {}
        self._instances: weakref.WeakKeyDictionary[Any, _Instance] = weakref.WeakKeyDictionary()

    def mark(self, lock_class: LockClass) -> None:
        """From now on acquisitions of this class go the slow way, where the instance is known."""
        if lock_class.nested:
            return
        lock_class.nested = True
        for state in self._engine.live_states():
            nodes = [state.root]
            while nodes:
                node = nodes.pop()
                for step in list(node):
                    if step.lock_class is lock_class:
                        node.pop(step, None)
                nodes.extend(list(node.values()))

    def check(self, state: OwnerState, node: Node, held: list[Node], lock: Any) -> None:
        """Locks of one class are nested: fine in ascending order of their keys, else learned as orders of instances."""
        lock_class, mode = node.step.lock_class, node.step.mode
        assert lock_class is not None
        assert mode is not None
        others: list[tuple[_Instance, Mode, Trace]] = []
        for entry in held:
            if entry.step.lock_class is not lock_class or entry.step.mode is None:
                continue
            other = self._instance(state, entry, lock_class)
            if other is None or other is lock:
                continue
            ordered = _ascending(getattr(other, "order_key", None), getattr(lock, "order_key", None))
            if ordered is None:
                others.append((self._instance_class(other, lock_class), entry.step.mode, entry.trace))
            elif ordered is not True:
                self._wrong_key(state, node, entry, other, lock, "equal" if ordered == "equal" else "descending")
        if others:
            target = self._instance_class(lock, lock_class)
            guards, allowed = guards_of(held), self._engine.allowed(node, "CTX003")
            trace, origin = node.trace, self._engine.origin
            self._engine.submit(state,
                NestEvent(state.owner, lock_class, tuple(others), target, mode, trace, guards, origin, allowed)
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
        return found if found is not None else self._instances.setdefault(lock, _Instance(lock_class))

    def _instance(self, state: OwnerState, entry: Node, lock_class: LockClass) -> Any:
        """Which lock an entry of the chain is."""
        target = entry.stands_for
        for node, reference in state.instances:
            if node is target:
                return reference()
        # it was taken before the class was known to nest: found once among what refers to the class's token
        for thing in gc.get_referrers(lock_class.base.token):
            at = getattr(thing, "node", None)
            if at is target or (type(at) is Reentry and at.node is target):
                return thing
        return None

    def remember(self, state: OwnerState, node: Node, lock: Any) -> None:
        """Note which lock a node of a nesting class is; forgotten with the hold, and never kept alive."""
        state.instances = [pair for pair in state.instances if state.find(pair[0]) is not None]
        state.instances.append((node, weakref.ref(lock)))

    def apply(self, event: NestEvent) -> list[Finding]:
        """Enter the orders of an event, and say what is new; under the validator's mutex."""
        graph = self.graphs.setdefault(event.lock_class, OrderGraph())
        if len(graph.evidence) >= MAX_INSTANCE_ORDERS:
            self._engine.dropped += 1
            return []
        first = not graph.evidence
        worth = first
        for held, mode, held_at in event.held:
            witness = Witness(
                event.owner, event.guards, event.origin, mode, event.mode, held_at, event.trace, event.allowed
            )
            news, cyclic = graph.add(held, event.target, witness)
            worth = worth or (news and cyclic)
        return self.findings(event.lock_class, graph) if worth else []

    def findings(self, lock_class: LockClass, graph: OrderGraph) -> list[Finding]:
        """What the orders between instances of one class come to: one finding, for its best-graded cycle."""
        within = components(graph.evidence)
        cycles = self._engine.judge(graph, within).cycles if within else []
        if cycles:
            best = max(cycles, key=lambda cycle: GRADES.index(cycle.grade))
            witness, reason, grade = best.witnesses[-1], "both", best.grade
        else:
            every = [w for evidence in graph.evidence.values() for w in evidence.witnesses]
            witness, reason, grade = min(every, key=Witness.sort_key), "once", "unlikely"
        entry = Entry(lock_class.step(witness.held_mode), witness.held_at, False)
        facts = NestingFacts(lock_class, entry, reason)  # type: ignore[arg-type]
        place = witness.taken_at
        return [
            Finding("CTX003", grade, witness.owner, place, (lock_class.key,), facts, (lock_class,), witness.allowed)
        ]


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
