"""How lock classes are used with regard to interrupting contexts, and what that comes to (CTX004, CTX005).

A class is *used in* a context if code that runs in it waits for the lock, and *held open* to it if the lock is held
while the context could interrupt.  Both of one class: the context interrupts the holder, and waits for it (CTX004).
Of two classes, with a path of recorded orders from the one that is used to the one that is held: it waits for a third
party, who waits for the holder (CTX005).  These are the usage states of Linux ``lockdep`` (``lockdep-design.rst``,
"Multi-lock dependency rules"), with its rule for readers.  To say how sure each one is, "interrupted while it holds
this, and waits for that" is taken for one order more: then the finding is a cycle, and is graded as any other.

What is held open is kept as what was *masked* at that time: a context that is first seen later conflicts all the same.

Pure: facts in, findings out.  Not thread-safe by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, cast, final

from ctxcheck.engine.blame import interrupts_library
from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.finalizing import set_by
from ctxcheck.engine.grading import Cycle, Owners, Reason, by_key
from ctxcheck.engine.graph import Evidence, OrderGraph, Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.uses import Use, Uses
from ctxcheck.engine.verdict import best_cycle, grade_cycle

#: Pairs of uses that one finding is graded by.
MAX_PAIRS: Final = 64
#: Orders looked at for one verdict (a microsecond each, or a few).
MAX_WORK: Final = 4_000_000
#: In a graph of more orders than this, what a new order or use shows is looked for along one way only, and told at the
#: end if another one shows it; and in how many classes behind a new order.
MAX_SEARCHED_AT_ONCE: Final = 1_000
MAX_AT_ONCE: Final = 8

#: Among what is masked: the collector was switched off, and may or may not be switched on again.
PAUSED: Final = "\0gc"
COLLECTOR: Final = "gc"

IsSingle = Callable[[LockClass], bool]

#: The context of all signals: :func:`~ctxcheck.masked` knows them by this name.  That of one is ``"signal SIGALRM"``.
SIGNAL: Final = "signal"
#: Among what is masked: no signal's handler runs in this thread.
NO_SIGNALS: Final = "no signals"
#: Among what is masked, before a context's name: this is its own code, and it may interrupt itself.
WITHIN: Final = "within "


def can_interrupt(context: str, masked: frozenset[str]) -> bool:
    """Whether a context can come where these are masked."""
    if context in masked:
        return False
    return not context.startswith("signal ") or not (SIGNAL in masked or NO_SIGNALS in masked)


def is_open(context: str, masked: frozenset[str]) -> bool:
    """Whether a context can come where these are masked, to code that isn't its own."""
    return can_interrupt(context, masked) and WITHIN + context not in masked


def family(context: str) -> str:
    """What a context is called where it doesn't matter which signal it is."""
    return SIGNAL if context.startswith("signal ") else context


@final
@dataclass(frozen=True, slots=True)
class Hazard:
    """``context`` interrupts the holder of one class, and waits for a class: CTX004 if they are the same one.

    ``cycle.witnesses[at]`` is that: it holds ``cycle.classes[at]`` (``held_at``), and is interrupted by what asks for
    the next class (``taken_at``; ``by`` is who did that).  The others are orders that were recorded.
    """

    context: str
    cycle: Cycle
    at: int
    by: Owner
    allowed: str | None = None

    @property
    def rule(self) -> str:
        """Its code."""
        return "CTX004" if len(self.cycle.classes) == 1 else "CTX005"

    @property
    def held(self) -> LockClass:
        """What the interrupted code holds."""
        return self.cycle.classes[self.at]

    @property
    def wanted(self) -> LockClass:
        """What the interrupting context waits for."""
        return self.cycle.classes[(self.at + 1) % len(self.cycle.classes)]

    @property
    def interrupted(self) -> Witness:
        """How the one is held while the other is waited for."""
        return self.cycle.witnesses[self.at]


@final
@dataclass(slots=True)
class Hazards:
    """A verdict: what was found, and how many searches were given up."""

    found: list[Hazard] = field(default_factory=list[Hazard])
    cut: int = 0


@final
class Usage:
    """Every use of every class, and the rules.

    Args:
        graph: the orders recorded; read, never written.
        owners, is_single: as for :func:`~ctxcheck.engine.verdict.judge`.
        flags: see the attribute; shared with other origins.
    """

    __slots__ = ("_graph", "_is_single", "_owners", "_paused", "_reached", "_told", "final", "flags", "held", "used")

    def __init__(
        self,
        graph: OrderGraph,
        owners: Owners,
        is_single: IsSingle,
        flags: dict[LockClass, frozenset[str]] | None = None,
    ) -> None:
        self._graph: OrderGraph = graph
        self._owners: Owners = owners
        self._is_single: IsSingle = is_single
        #: for each context, the classes that it waits for
        self.used: dict[str, dict[LockClass, Uses]] = {}
        #: for each class, how it is held, by what was masked meanwhile
        self.held: dict[LockClass, dict[frozenset[str], Uses]] = {}
        #: for each context, what can be reached from what it waits for, and from where; only grows, so it is kept up at
        #: little cost
        self._reached: dict[str, dict[LockClass, LockClass]] = {}
        self._told: set[tuple[str, LockClass, LockClass, str]] = set()
        #: the classes that are held while the collector is off, so far
        self._paused: set[LockClass] = set()
        #: for each class that a finalizer waits for, the thread-locals that it looks at first
        self.flags: dict[LockClass, frozenset[str]] = {} if flags is None else flags
        #: whether nothing more will come: a collector that is off by now was off for good
        self.final: bool = False

    # --- learning -----------------------------------------------------------------

    def uses(self, lock_class: LockClass, context: str) -> Uses | None:
        """How a class is used in a context, if it is."""
        return self.used.get(context, {}).get(lock_class)

    def holds(self, lock_class: LockClass, masked: frozenset[str]) -> Uses | None:
        """How a class is held while just these contexts are masked, if it is."""
        return self.held.get(lock_class, {}).get(masked)

    def add_use(self, lock_class: LockClass, context: str, use: Use) -> list[Hazard]:
        """Record that code in a context waits for a class; returns what that shows at once."""
        uses = self.used.setdefault(context, {}).setdefault(lock_class, Uses())
        if not uses.add(use):
            return []
        if use.flags:
            self._flag(lock_class, use.flags)
        self._reach(context, lock_class)
        ways = self._inversions(context, lock_class, [MAX_WORK // 10])
        first = next((h for h in itertools.islice(ways, MAX_AT_ONCE) if h.cycle.grade == "possible"), None)
        return self._news([hazard for hazard in (self.same(context, lock_class), first) if hazard is not None])

    def add_hold(self, lock_class: LockClass, masked: frozenset[str], use: Use) -> list[Hazard]:
        """Record that a class is held while these contexts, and no others, are masked; returns what that shows at once.
        """
        if PAUSED in masked:
            self._paused.add(lock_class)
        uses = self.held.setdefault(lock_class, {}).setdefault(masked, Uses())
        if not uses.add(use) or not self.used:
            return []
        found: list[Hazard] = []
        for context, used in self.used.items():
            if not self._can_interrupt(context, masked):
                continue
            if lock_class in used and (hazard := self.same(context, lock_class)):
                found.append(hazard)
            known = is_open(context, masked) and lock_class in self._reached.get(context, ())
            if known and (hazard := self._at_once(context, lock_class)):
                found.append(hazard)
        return self._news(found)

    def _flag(self, lock_class: LockClass, flags: frozenset[str]) -> None:
        """These are looked at: note which holds set them."""
        self.flags[lock_class] = self.flags.get(lock_class, frozenset()) | flags
        for uses in self.held.get(lock_class, {}).values():
            uses.known = tuple(sorted((self.flagged(lock_class, use) for use in uses.known), key=Use.sort_key))

    def flagged(self, lock_class: LockClass, hold: Use) -> Use:
        """A hold, with what its code sets of the thread-locals that a finalizer looks at."""
        flags = self.flags.get(lock_class)
        return hold if flags is None else hold._replace(flags=flags & set_by(hold.trace))

    def resumed(self) -> None:
        """The collector is switched on again: until now it couldn't interrupt."""
        for lock_class in self._paused:
            ways = self.held[lock_class]
            for masked in [masked for masked in ways if PAUSED in masked]:
                uses = ways.setdefault(masked - {PAUSED} | {COLLECTOR}, Uses())
                for use in ways.pop(masked).known:
                    uses.add(use)
        self._paused.clear()

    def add_order(self, source: LockClass, target: LockClass) -> list[Hazard]:
        """The graph has learned something of an order: return what that shows at once.

        Looks at a few classes behind the order only: what lies further on is told at the end.
        """
        found: list[Hazard] = []
        for context, used in self.used.items():
            if source in used or source in self._reached.get(context, ()):
                behind: Iterable[LockClass] = (target, *self._reach(context, source))
                if self._is_small():
                    behind = self._from(target)
                nearest = itertools.islice((c for c in behind if self._is_open(c, context)), MAX_AT_ONCE)
                found += itertools.islice(filter(None, (self._at_once(context, c) for c in nearest)), 1)
        return self._news(found)

    def _is_small(self) -> bool:
        return len(self._graph.evidence) <= MAX_SEARCHED_AT_ONCE

    def _from(self, start: LockClass) -> Iterator[LockClass]:
        """A class and those that it leads to, the nearest ones first."""
        layer = [start]
        seen = {start}
        while layer:
            yield from layer
            layer = sorted({o for node in layer for o in self._graph.successors.get(node, ())} - seen, key=by_key)
            seen.update(layer)

    def _reach(self, context: str, start: LockClass) -> list[LockClass]:
        """Go on from a class that is waited for, or is reached from one; returns what is reached now."""
        reached = self._reached.setdefault(context, {})
        new: list[LockClass] = []
        todo = [start]
        while todo:
            node = todo.pop()
            for other in self._graph.successors.get(node, ()):
                if other not in reached:
                    reached[other] = node
                    new.append(other)
                    todo.append(other)
        return new

    def _at_once(self, context: str, held: LockClass) -> Hazard | None:
        """What some class that is used in the context has to do with one that is held open to it, and is reached."""
        used, reached = self.used[context], self._reached[context]
        way = [held, reached[held]]
        while way[-1] not in used:
            way.append(reached[way[-1]])
        hazard = self._along(context, way[::-1]) if way[-1] is not held else None
        if hazard is None and self._is_small():
            hazard = next(filter(None, (self._between(context, c, held) for c in sorted(used, key=by_key))), None)
        return hazard if hazard is not None and hazard.cycle.grade == "possible" else None

    def _news(self, found: list[Hazard]) -> list[Hazard]:
        """What wasn't told before."""
        news = [h for h in found if (h.context, h.wanted, h.held, h.cycle.grade) not in self._told]
        self._told.update((h.context, h.wanted, h.held, h.cycle.grade) for h in news)
        return news

    def _is_open(self, lock_class: LockClass, context: str) -> bool:
        ways = self.held.get(lock_class, ())
        return any(is_open(context, masked) and self._can_interrupt(context, masked) for masked in ways)

    def _can_interrupt(self, context: str, masked: frozenset[str]) -> bool:
        """Whether a context can come where these are masked, as far as that is known."""
        if context == COLLECTOR and PAUSED in masked and not self.final:
            return False
        return can_interrupt(context, masked)

    def _open_holds(self, lock_class: LockClass, context: str, within: bool) -> list[Use]:
        """How a class is held while the context could interrupt: by other code, or ``within`` its own."""
        ways = self.held.get(lock_class, {})
        return sorted(
            (
                use
                for masked, uses in ways.items()
                if self._can_interrupt(context, masked) and within == (WITHIN + context in masked)
                for use in uses.known
            ),
            key=Use.sort_key,
        )

    # --- judging --------------------------------------------------------------------

    def judge(self) -> Hazards:
        """Everything that all uses and orders so far come to, whatever order they came in.

        For each class that a context waits for: whether it is held open, and the first class on each way from it that
        is; what lies behind that one comes to the same.  What is unlikely is told only where nothing is possible.
        """
        hazards = Hazards()
        budget = [MAX_WORK]
        for context in sorted(self.used):
            for wanted in sorted(self.used[context], key=by_key):
                same = self.same(context, wanted)
                others = list(self._inversions(context, wanted, budget))
                likely = [h for h in others if h.cycle.grade != "unlikely"]
                if same is not None:
                    hazards.found.append(same)
                    hazards.found += likely
                else:
                    hazards.found += likely or others[:1]
        hazards.cut += budget[0] <= 0
        return hazards

    def same(self, context: str, lock_class: LockClass) -> Hazard | None:
        """Whether a context waits for a class that it can interrupt the holder of."""
        kind = lock_class.kind
        if kind.reentrant or kind.resource:
            return None
        best: tuple[int, Witness, LockClass | None] | None = None
        for within in (False, True):
            for pair in self._pairs(context, lock_class, lock_class, 0, within=within):
                if pair.taken_mode.recursive and pair.held_mode.shared:
                    continue  # readers that let each other in
                # what its thread holds already, a context is let into again, if it is re-entrant
                guards = (g for g in pair.guards if not g.kind.reentrant and self._keeps_out(g))
                guard = min(guards, key=by_key, default=None)
                doubt = 4 if pair.doubt else 3 if guard is not None else 2 if pair.timed else 1 if within else 0
                if best is None or doubt < best[0]:
                    best = (doubt, pair, guard)
        if best is None:
            return None
        doubt, pair, guard = best
        classes, pairs = (lock_class,), (pair,)
        if lock_class.handed_over:
            cycle = Cycle(classes, pairs, "unlikely", "handed over", handed=classes)
        elif pair.doubt:
            cycle = Cycle(classes, pairs, "unlikely", cast("Reason", pair.doubt))
        elif doubt:
            cycle = Cycle(classes, pairs, "unlikely", ("within", "timed", "guarded")[doubt - 1], guard)
        else:
            cycle = Cycle(classes, pairs, "possible")
        return Hazard(context, cycle, 0, self._who(context, lock_class, pair), pair.allowed)

    def _keeps_out(self, guard: LockClass) -> bool:
        return self._is_single(guard) and not guard.handed_over

    def _pairs(
        self, context: str, held: LockClass, wanted: LockClass, rule: int, *, within: bool = False
    ) -> list[Witness]:
        """Each way to hold the one, with each way in which the context waits for the other, as if it were an order.

        Of one class, the guards are those that both sides hold: a context that only tries to take them, and gives up,
        can't get there while the interrupted code holds them.
        """
        uses = self.uses(wanted, context)
        pairs: list[Witness] = []
        for hold in self._open_holds(held, context, within):
            for use in () if uses is None else uses.known:
                guards = hold.guards & use.guards - {held} if held is wanted else hold.guards | use.guards
                allowed = use.allowed[rule] or hold.allowed[rule]
                doubt = use.doubt or ("flag" if use.flags & hold.flags else "")
                places = (hold.mode, use.mode, hold.trace, use.trace)
                pairs.append(Witness(hold.owner, guards, use.origin, *places, allowed, doubt))
        pairs.sort(key=lambda pair: (pair.doubt, *Witness.sort_key(pair)))
        return pairs

    def _inversions(self, context: str, wanted: LockClass, budget: list[int]) -> Iterator[Hazard]:
        """The first classes on the ways from one that a context waits for, that are held open to it.

        A way through a class that no other thread takes is none: nobody waits for its holder.
        """
        if wanted.kind.confined:
            return
        came: dict[LockClass, LockClass] = {}
        layer = [wanted]
        while layer:
            following: list[LockClass] = []
            for node in layer:
                others = self._graph.successors.get(node, ())
                budget[0] -= len(others)
                for other in sorted(others, key=by_key):
                    if other in came or other is wanted or other.kind.confined:
                        continue
                    came[other] = node
                    if self._is_open(other, context) and budget[0] > 0:
                        way = [other]
                        while way[-1] is not wanted:
                            way.append(came[way[-1]])
                        hazard = self._along(context, way[::-1])
                        if hazard is None or hazard.cycle.grade == "unlikely":
                            hazard = self._between(context, wanted, other, budget)
                        if hazard is not None:
                            yield hazard
                            if hazard.cycle.grade != "unlikely":
                                continue
                    following.append(other)
            layer = following if budget[0] > 0 else []

    def _along(self, context: str, way: list[LockClass]) -> Hazard | None:
        """Whether one way leads from what a context waits for to what it can interrupt the holder of."""
        if any(node.kind.confined for node in way):
            return None
        evidence = {pair: self._graph.evidence[pair] for pair in itertools.pairwise(way)}
        return self._closed(context, way[0], way[-1], evidence, None)

    def _between(
        self, context: str, wanted: LockClass, held: LockClass, budget: list[int] | None = None
    ) -> Hazard | None:
        """Whether any way does."""
        if wanted is held:
            return None
        within = self._ways(wanted, held)
        evidence = {
            (node, other): self._graph.evidence[node, other]
            for node in within
            for other in self._graph.successors[node]
            if other in within and (node, other) != (held, wanted)
        }
        if budget is not None:
            budget[0] -= len(evidence)
        return self._closed(context, wanted, held, evidence, within) if held in within else None

    def _closed(
        self,
        context: str,
        wanted: LockClass,
        held: LockClass,
        evidence: dict[tuple[LockClass, LockClass], Evidence],
        within: set[LockClass] | None,
    ) -> Hazard | None:
        """The best cycle that orders make together with "held, and interrupted by what waits for the other".

        ``within``: the classes of the orders, or ``None`` for those of a single way.
        """
        pairs = Evidence()
        every = self._pairs(context, held, wanted, 1)
        pairs.witnesses = ([pair for pair in every if not pair.doubt] or every)[:MAX_PAIRS]
        pairs.count = len(pairs.witnesses)
        if not pairs.witnesses:
            return None
        edge = (held, wanted)
        evidence[edge] = pairs
        cycle: Cycle | None
        if within is None:
            way = (wanted, *(target for _, target in evidence if target is not wanted))
            cycle = grade_cycle(way, evidence, owners=self._owners, is_single=self._is_single)
        else:
            cycle = best_cycle(edge, evidence, owners=self._owners, is_single=self._is_single, within=within)
        if cycle is None or cycle.reason == "readers":
            return None
        # a cycle passes each class once, so this is where the order is that isn't one
        at = cycle.classes.index(held)
        others = (witness for index, witness in enumerate(cycle.witnesses) if index != at)
        if interrupts_library(held, cycle.witnesses[at], others):
            return None
        if cycle.witnesses[at].doubt and cycle.grade != "unlikely":
            cycle = replace(cycle, grade="unlikely", reason=cast("Reason", cycle.witnesses[at].doubt), guard=None)
        by = self._who(context, wanted, cycle.witnesses[at])
        return Hazard(context, cycle, at, by, next((w.allowed for w in _from(cycle.witnesses, at) if w.allowed), None))

    def _who(self, context: str, wanted: LockClass, pair: Witness) -> Owner:
        """Whom a context ran in that waited for a class there."""
        uses = self.used[context][wanted].known
        return next((use.owner for use in uses if use.trace is pair.taken_at), pair.owner)

    def _ways(self, start: LockClass, goal: LockClass) -> set[LockClass]:
        """The classes on ways from one to another, without those that no other thread takes."""
        forward = {start}
        backward: dict[LockClass, list[LockClass]] = {}
        todo = [start]
        while todo:
            node = todo.pop()
            for other in self._graph.successors.get(node, ()):
                if other.kind.confined:
                    continue
                backward.setdefault(other, []).append(node)
                if other not in forward:
                    forward.add(other)
                    todo.append(other)
        if goal not in forward:
            return set()
        found = {goal}
        todo = [goal]
        while todo:
            for node in backward.get(todo.pop(), ()):
                if node not in found:
                    found.add(node)
                    todo.append(node)
        return found


def _from(witnesses: tuple[Witness, ...], at: int) -> tuple[Witness, ...]:
    return witnesses[at:] + witnesses[:at]
