"""Waits as dependencies: a thread, a job, an event, a queue has its place in the order of locks (CTX006).

What can be waited for is a class like that of a lock, which guards nothing and is never held in a lock's sense.

* A **party** (a thread, a job of a pool, a pool) is inside of its class for as long as it runs, so what it takes
  makes edges "party -> lock"; to wait for it makes edges "held -> party".  A cycle is a deadlock as any other: one
  owner keeps the lock until the party is done, which can't get done without the lock.
* A **signal** (an event, a condition, a queue) comes from whoever sends it.  To wait for it makes edges
  "held -> signal"; the edges "signal -> lock" lead to what its sender had to take to get there: what it holds when it
  sends, and what it has taken since it last sat idle.  Any sender will do, so these edges count only as long as none
  that really woke somebody does without the lock (:meth:`Waits.doubtful`).

The idea that a wait is a dependency on the locks of whoever ends it is that of the kernel's cross-release and DEPT;
what made the first of them noisy was the second kind of edges without the last condition.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from ctxcheck.engine.classes import ACQUIRE, INSIDE, JOB, LockClass, Mode
from ctxcheck.engine.findings import Finding, SlotFacts
from ctxcheck.engine.grading import Owners
from ctxcheck.engine.graph import Edge
from ctxcheck.engine.learned import SenderFact, SlotFact
from ctxcheck.engine.nesting import guards_of
from ctxcheck.engine.owner import Node, Owner, OwnerState
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import EMPTY, Trace, capture

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator

#: Times that an owner goes to work of one sort with an empty trie, so that it is known what it took on the way to a
#: signal; later ones go by what it holds.
SAMPLES: Final = 8


_THREADING: Final = threading.Thread.run.__code__.co_filename


class _Sender:
    """One place that sends a signal: the locks that were needed to get there, and whether somebody was woken."""

    __slots__ = ("at", "needs", "told", "woke")

    def __init__(self, at: Trace) -> None:
        self.at: Trace = at
        self.needs: set[LockClass] = set()
        self.woke: bool = False
        self.told: bool = False


class Slot(NamedTuple):
    """Jobs of a pool that wait for a later job of the same pool: the first one of them, how many workers the pool can
    have at least, and how many of its jobs wait like this, or have, at most."""

    owner: Owner
    pool: LockClass
    job: LockClass
    waiting: LockClass | None
    began_at: Trace
    trace: Trace
    timed: bool
    allowed: str | None
    origin: str
    workers: int
    inside: int

    def sort_key(self) -> tuple[Any, ...]:
        """An order that is the same in every process; what isn't accepted comes first."""
        return (self.allowed is not None, self.trace.sort_key(), self.allowed or "", self.origin)

    def seen_with(self, other: Slot) -> Slot:
        """Both as one."""
        first = min(self, other, key=Slot.sort_key)
        return first._replace(workers=min(self.workers, other.workers), inside=max(self.inside, other.inside))


@final
class Waits:
    """What one origin knows of waits."""

    __slots__ = ("_engine", "_senders", "_slots", "_work")

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self._senders: dict[LockClass, dict[tuple[int, int], _Sender]] = {}
        self._slots: dict[tuple[LockClass, LockClass, bool], Slot] = {}
        #: how often each owner went to work: by serial number, so that it may die
        self._work: dict[int, dict[LockClass, int]] = {}

    # --- parties ----------------------------------------------------------------

    def enter(self, state: OwnerState, party: LockClass) -> Node:
        """From now on the owner is this party: a thread begins, or a job in it.  Returns the node to stand on."""
        state.settle()
        state.owner.learn_name()
        parent = state.cur
        step = party.step(INSIDE)
        work = self._work.setdefault(state.owner.serial, {})
        times = work.get(party, 0)
        if times < SAMPLES:
            work[party] = times + 1
            return Node(parent, step, state, party.made_at)
        node = parent[step]
        if node is None:
            node = Node(parent, step, state, party.made_at)
            if self._engine.room():
                parent[step] = node
        return node

    def idle(self, state: OwnerState) -> None:
        """The owner waits with nothing in its hands: what it took before is not on the way to what it does next."""
        node, step = state.cur, state.cur.step
        if step.lock_class is None or step.lock_class.kind.awaited != "party" or not fresh(node):
            return
        parent = node.parent
        state.cur = parent
        state.cur = self.enter(state, step.lock_class)
        self.prune(node)

    def leave(self, state: OwnerState, node: Node) -> None:
        """The owner is no longer the party that it became with ``node``, or with what took its place since."""
        party = node.step.lock_class
        for entry in state.cur.chain():
            if entry.step.lock_class is party:
                if entry is state.cur:
                    state.cur = entry.parent
                else:
                    state.unlink(entry.stands_for)
                if fresh(entry):
                    self.prune(entry)
                return

    def prune(self, node: Node) -> None:
        """Take a trie apart that is used no more, so that it is freed without the collector."""
        nodes = [node]
        while nodes:
            at = nodes.pop()
            self._engine.freed(len(at))
            nodes.extend(at.values())
            at.clear()

    def ended(self, owner: Owner) -> None:
        """The owner is gone."""
        self._work.pop(owner.serial, None)

    # --- waiting ----------------------------------------------------------------

    def wait(self, state: OwnerState, target: LockClass, mode: Mode = ACQUIRE, own: Node | None = None) -> None:
        """``state`` is about to wait for ``target``; ``own`` is the lock that the wait gives back.

        Called before the wait can block.  May raise what ``on_finding`` raises.  A party may wait for a party; a wait
        for a signal counts for the locks that are held, not for who waits: somebody else may send it.
        """
        state.settle()
        parent = state.cur
        step = target.step(mode)
        if parent[step] is not None:
            return
        state.owner.learn_name()
        node = Node(parent, step, state, capture(2))
        held = [
            entry
            for entry in parent.held()
            if entry.stands_for is not own
            and entry.step.lock_class is not None
            and (target.kind.awaited == "party" or not entry.step.lock_class.kind.awaited)
        ]
        again = bool(held) and self._engine.orders.record(state, held, target, mode, node, guards_of(held))
        self._engine.orders.see_to(state)
        if not again and self._engine.room():
            parent[step] = node

    def signal(
        self, state: OwnerState, target: LockClass, *, woke: bool, own: Node | None = None, alike: bool = False
    ) -> None:
        """``state`` sends ``target``'s signal, and somebody was waiting for it (``woke``); ``own`` as for a wait.

        ``alike``: whoever waits sends too, and all of them are needed (a barrier).  What one of them holds then keeps
        only others up; what counts is what it has taken before, and only if there is no more than one of that lock.
        """
        parent = state.cur
        step = target.step(INSIDE)
        known = parent[step]
        if known is not None and (not woke or known.trace.codes):
            return
        state.settle()
        parent = state.cur
        trace = capture(2)
        base = next((n for n in parent.held() if n.step.lock_class and n.step.lock_class.kind.awaited == "party"), None)
        sampled = base is not None and fresh(base)
        needed = {c: n for n in parent.held() if n.stands_for is not own and (c := _blocks(n)) is not None}
        if sampled:
            assert base is not None
            for node in _taken(base):
                lock_class = node.step.lock_class
                if lock_class is not None and lock_class is not (own.step.lock_class if own is not None else None):
                    needed.setdefault(lock_class, node)
        if alike:
            held = {n.step.lock_class for n in parent.held()}
            needed = {c: n for c, n in needed.items() if c not in held and self._engine.of(state).is_single(c)}
            woke = False
        elif base is not None and not needed:
            return  # whether it needed something on its way isn't known
        sender = self._sender(target, trace)
        news = [(lock_class, n) for lock_class, n in needed.items() if lock_class not in sender.needs]
        sender.needs.update(lock_class for lock_class, _ in news)
        if (woke and not sender.woke) or news or not sender.told:
            sender.woke, sender.told = sender.woke or woke, True
            self._engine.orders.note(
                SenderFact(target, sender.at.spot(), frozenset(sender.needs), sender.woke)
            )
        state.owner.learn_name()
        for lock_class, node in news:
            assert node.step.mode is not None
            guards = guards_of(list(node.parent.held()))
            self._engine.orders.needs(state, target, lock_class, node.step.mode, trace, node.trace, guards)
        if not sampled and self._engine.room():
            # no trace: a signal that woke nobody; one that does is looked at once more
            parent[step] = Node(parent, step, state, trace if woke else Trace((), ()))

    def _sender(self, target: LockClass, trace: Trace) -> _Sender:
        place, at = (0, 0), EMPTY
        for code, lasti in zip(trace.codes, trace.lastis, strict=True):
            place, at = (id(code), lasti), Trace((code,), (lasti,))
            if code.co_filename != _THREADING:
                break  # not in `notify_all`, but where that is called
        return self._senders.setdefault(target, {}).setdefault(place, _Sender(at))

    def senders(self) -> list[tuple[LockClass, tuple[str, str, int], set[LockClass], bool]]:
        """Each place that sends a signal: which, where (the same in every process), what it needed, and whether it woke
        somebody."""
        return [
            (target, sender.at.spot(), set(sender.needs), sender.woke)
            for target, places in list(self._senders.items())
            for sender in list(places.values())
        ]

    def doubtful(self) -> set[Edge]:
        """The edges from signals to locks that some sender, one that did wake somebody, did without."""
        found: set[Edge] = set()
        for target, by_place in list(self._senders.items()):
            senders = list(by_place.values())
            for lock_class in set[LockClass]().union(*(set(s.needs) for s in senders)):
                if any(s.woke and lock_class not in s.needs for s in senders):
                    found.add((target, lock_class))
        return found

    # --- places in a pool -------------------------------------------------------------

    def slot(
        self, state: OwnerState, pool: LockClass, job: LockClass, workers: int, inside: int, *, timed: bool
    ) -> None:
        """A job of ``pool`` waits for a job that was submitted to the same pool after it, and has no worker yet.

        ``workers``: how many the pool can have; ``inside``: how many of them wait like this, or have.
        """
        key = (pool, job, timed)
        known = self._slots.get(key)
        if known is not None and known.workers <= workers and known.inside >= inside:
            return
        state.owner.learn_name()
        waiting = next((n for n in state.cur.held() if n.step.lock_class and n.step.lock_class.kind is JOB), None)
        slot = Slot(
            state.owner, pool, job, waiting.step.lock_class if waiting is not None else None,
            waiting.trace if waiting is not None else Trace((), ()), capture(2), timed,
            self._engine.allowed(state.cur, "CTX006"), self._engine.of(state).origin, workers, inside,
        )  # fmt: skip
        if known is not None:
            slot = known._replace(workers=min(workers, known.workers), inside=max(inside, known.inside))
        self._slots[key] = slot
        self._engine.orders.note(SlotFact(slot))
        self._engine.emit(state, slot_finding(slot, self._engine.owners))

    def slots(self) -> list[Slot]:
        """What is known of places in pools."""
        return list(self._slots.values())

    def findings(self) -> list[Finding]:
        """What is said of places in pools, from all that was seen."""
        return [slot_finding(slot, self._engine.owners) for slot in self.slots()]


def slot_finding(slot: Slot, owners: Owners) -> Finding:
    """What places in a pool come to."""
    enough = slot.inside >= slot.workers or owners == "assumed"
    grade: Grade = "possible" if enough and not slot.timed else "unlikely"
    return Finding(
        "CTX006",
        grade,
        slot.owner,
        slot.trace,
        (slot.pool.key, slot.job.key, slot.trace.function()),
        SlotFacts(slot.pool, slot.job, slot.waiting, slot.began_at, slot.workers, slot.inside, slot.timed),
        (slot.pool, slot.job),
        slot.allowed,
    )


def fresh(node: Node) -> bool:
    """Whether this node began with an empty trie: everything below it was taken since."""
    return node.parent.get(node.step) is not node


def _blocks(node: Node) -> LockClass | None:
    """The lock that this entry is, if another one that holds it holds this owner up."""
    lock_class, mode = node.step.lock_class, node.step.mode
    if lock_class is None or mode is None or not mode.waits or not lock_class.kind.guards:
        return None
    return lock_class


def _taken(base: Node) -> list[Node]:
    """The locks that were taken below a node, each once: the first is the one with the fewest locks around it."""
    found: list[Node] = []
    level = [base]
    while level:
        level = [
            child
            for node in level
            for child in list(node.values())
            if child.step.lock_class is None or _blocks(child) is not None
        ]
        found += [node for node in level if node.step.lock_class is not None]
    return found


def is_wait(classes: tuple[LockClass, ...]) -> bool:
    """Whether a cycle goes through a wait, and not through locks only."""
    return any(c.kind.awaited for c in classes)
