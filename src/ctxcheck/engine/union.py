"""What was learned in several places, put together: of the tests of a suite, of the processes of a run.

What goes in is what each of them knows (see :meth:`Union.absorb`); what comes out is what no single one of them could
tell.  It doesn't depend on the order in which they come, nor on how they were split: of the witnesses of one order that
are alike, the first ones in an order of their own are kept, whoever comes first.

Which guards really keep others out is said where it is known, by the one that was there: a witness comes with those
only.  Left out is what goes by instances: two locks of one class (CTX003).
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from ctxcheck.engine.blame import is_librarys
from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.excuses import Excuses
from ctxcheck.engine.finalizing import set_by
from ctxcheck.engine.findings import Finding
from ctxcheck.engine.grading import Owners
from ctxcheck.engine.graph import ENOUGH_OWNERS, MAX_WITNESSES, Edge, Evidence, OrderGraph, Places, Witness, keep_place
from ctxcheck.engine.instances import BACKGROUND
from ctxcheck.engine.interrupts import hazard_findings
from ctxcheck.engine.orders import order_finding
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.slow import Over, Taken, keep
from ctxcheck.engine.slow import judge as judge_slow
from ctxcheck.engine.usage import COLLECTOR, PAUSED, Usage
from ctxcheck.engine.uses import Use, Uses
from ctxcheck.engine.verdict import components, judge
from ctxcheck.engine.waits import Slot, slot_finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctxcheck.engine.ledger import Ledger
    from ctxcheck.engine.validator import Validator

_Seen = TypeVar("_Seen", Witness, Use, Taken, Over)

#: A place that sends a signal: file, function, position in it.
Place = tuple[str, str, int]


@final
class Pool:
    """The witnesses of one order: of those that are alike, the first few owners' first ones; ``count`` as recorded,
    ``elsewhere`` as for :class:`~ctxcheck.engine.graph.Evidence`."""

    __slots__ = ("count", "elsewhere", "ways")

    def __init__(self) -> None:
        self.count: int = 0
        self.ways: dict[tuple[Any, ...], list[Witness]] = {}
        self.elsewhere: Places = None

    def add(self, new: Witness) -> None:
        """Put a witness in.  O(:data:`~ctxcheck.engine.graph.ENOUGH_OWNERS`)."""
        alike = self.ways.setdefault((*_manner(new), new.guards), [])
        for index, old in enumerate(alike):
            if old.owner is new.owner:
                if new.sort_key() >= old.sort_key():
                    self.elsewhere = keep_place(self.elsewhere, (old,), new)
                    return
                del alike[index]
                self.elsewhere = keep_place(self.elsewhere, (new,), old)
                break
        insort(alike, new, key=Witness.sort_key)
        for last in alike[ENOUGH_OWNERS:]:
            self.elsewhere = keep_place(self.elsewhere, alike[:ENOUGH_OWNERS], last)
        del alike[ENOUGH_OWNERS:]

    def every(self) -> list[Witness]:
        """As :meth:`all`, with those of further places."""
        return [*self.all(), *(w for _, w in sorted((self.elsewhere or {}).items()))]  # pyright: ignore

    def all(self) -> list[Witness]:
        """Every witness that is kept, in their own order; where there are too many ways, under what they have in
        common, so that no deadlock is lost."""
        manners: dict[tuple[Any, ...], list[list[Witness]]] = {}
        for way, alike in self.ways.items():
            manners.setdefault(way[:-1], []).append(alike)
        kept: list[Witness] = []
        for ways in manners.values():
            if len(ways) <= MAX_WITNESSES:
                kept += [witness for alike in ways for witness in alike]
                continue
            every = sorted((w for alike in ways for w in alike), key=Witness.sort_key)
            common = reduce(frozenset[LockClass].intersection, (w.guards for w in every))
            owners: dict[Owner, Witness] = {}
            for witness in every:
                if len(owners) < ENOUGH_OWNERS:
                    owners.setdefault(witness.owner, witness._replace(guards=common))
            kept += owners.values()
        return sorted(kept, key=Witness.sort_key)

    def evidence(self) -> Evidence:
        """The same, as the verdict wants it."""
        evidence = Evidence()
        evidence.witnesses = self.all()
        evidence.elsewhere = self.elsewhere
        evidence.count = max(1, self.count)
        return evidence


def _manner(witness: Witness) -> tuple[Any, ...]:
    """What makes two witnesses differ, but for owner, guards, places and origin."""
    held, taken = witness.held_mode, witness.taken_mode
    return (held.shared, held.enters, taken.timed, taken.recursive, taken.enters, witness.allowed is None)


@final
class Sender:
    """One place that sends a signal: the locks that were needed to get there, and whether somebody was woken."""

    __slots__ = ("needs", "woke")

    def __init__(self, needs: Iterable[LockClass] = (), *, woke: bool = False) -> None:
        self.needs: set[LockClass] = set(needs)
        self.woke: bool = woke


@final
class Union:
    """Orders, uses and signals from many places.  Not thread-safe by itself.

    ``edges`` and the rest may be read; the methods write them.  ``joins`` and ``handed_over`` are classes of which that
    was seen anywhere; ``several`` those that the background has made instances of, of which a single process doesn't
    know how many there are: there they keep nobody out.
    """

    __slots__ = (
        "edges", "handed_over", "held", "joins", "over", "seen", "senders", "several", "slots", "taken", "used",
    )  # fmt: skip

    def __init__(self) -> None:
        self.edges: dict[Edge, Pool] = {}
        self.used: dict[tuple[str, LockClass], dict[tuple[Any, ...], list[Use]]] = {}
        self.held: dict[tuple[LockClass, frozenset[str]], dict[tuple[Any, ...], list[Use]]] = {}
        self.senders: dict[LockClass, dict[Place, Sender]] = {}
        self.taken: dict[LockClass, dict[tuple[Any, ...], Taken]] = {}
        self.over: dict[LockClass, dict[tuple[Any, ...], Over]] = {}
        self.slots: dict[tuple[LockClass, LockClass, bool], Slot] = {}
        self.joins: set[LockClass] = set()
        self.handed_over: set[LockClass] = set()
        self.seen: set[LockClass] = set()
        self.several: set[LockClass] = set()

    # --- learning -----------------------------------------------------------------

    def absorb(
        self,
        engine: Validator,
        ledger: Ledger,
        relabel: Callable[[Owner, str], str] | None,
        handed_over: set[LockClass],
        excuses: Excuses | None = None,
    ) -> None:
        """Learn what one origin has seen.  To be called when it is quiet: after its session ended, or under its mutex.

        ``relabel`` is given owner and origin of each witness and use, and says under which origin it counts;
        ``handed_over`` are the classes of which some lock was released by another than its holder; ``excuses``, what is
        accepted there.
        """
        excuse = excuses or Excuses()
        keeps_out = _once(lambda c: ledger.is_single(c) and c not in handed_over)
        origin_of = relabel or _as_it_is
        for (source, target), evidence in list(ledger.graph.evidence.items()):
            # how often modules are imported and fixtures set up depends on how the tests are split
            self.count((source, target), 0 if ledger.origin.startswith("<") else evidence.count)
            for w in evidence.places():
                guards = frozenset(filter(keeps_out, w.guards))
                w = w._replace(guards=guards, origin=origin_of(w.owner, w.origin))  # noqa: PLW2901
                self.order((source, target), excuse.order((source, target), w))
            self.joins.update(filter(ledger.nesting.joins, (source, target)))
        for context, classes in ledger.interrupts.usage.used.items():
            for lock_class, uses in classes.items():
                for use in uses.known:
                    self.use(context, lock_class, excuse.use(lock_class, _with(use, keeps_out, origin_of)))
        for lock_class, ways in ledger.interrupts.usage.held.items():
            for masked, uses in ways.items():
                for use in uses.known:
                    hold = ledger.interrupts.usage.flagged(lock_class, use)
                    self.hold(lock_class, masked, excuse.use(lock_class, _with(hold, keeps_out, origin_of)))
        for target, place, needs, woke in ledger.waits.senders():
            self.sender(target, place, needs, woke=woke)
        for slow_class, at in ledger.slow.places():
            guards = frozenset(filter(keeps_out, at.guards))
            at = at._replace(guards=guards, origin=origin_of(at.owner, at.origin))  # noqa: PLW2901
            self.place(slow_class, excuse.place(slow_class, at))
        for slot in ledger.waits.slots():
            self.slot(excuse.slot(slot._replace(origin=origin_of(slot.owner, slot.origin))))
        self.handed_over |= handed_over
        self.seen.update(engine.seen)

    def merge(self, other: Union) -> None:
        """Learn what another union knows."""
        for edge, pool in other.edges.items():
            self.count(edge, pool.count)
            for witness in (w for alike in (*pool.ways.values(), (pool.elsewhere or {}).values()) for w in alike):
                self.order(edge, witness)
        for (context, lock_class), ways in other.used.items():
            for use in (use for alike in ways.values() for use in alike):
                self.use(context, lock_class, use)
        for (lock_class, masked), ways in other.held.items():
            for use in (use for alike in ways.values() for use in alike):
                self.hold(lock_class, masked, use)
        for target, places in other.senders.items():
            for place, sender in places.items():
                self.sender(target, place, sender.needs, woke=sender.woke)
        for slow_class, taken in other.taken.items():
            for at in taken.values():
                self.place(slow_class, at)
        for slow_class, over in other.over.items():
            for call in over.values():
                self.place(slow_class, call)
        for slot in other.slots.values():
            self.slot(slot)
        self.joins |= other.joins
        self.handed_over |= other.handed_over
        self.seen |= other.seen
        self.several |= other.several

    def count(self, edge: Edge, times: int) -> None:
        """An order was recorded so many times."""
        self.edges.setdefault(edge, Pool()).count += times

    def order(self, edge: Edge, witness: Witness) -> None:
        """One way in which an order was seen; its guards are those that keep others out."""
        self.edges.setdefault(edge, Pool()).add(witness)

    def use(self, context: str, lock_class: LockClass, use: Use) -> None:
        """Code in a context waits for a class."""
        _pool(self.used.setdefault((context, lock_class), {}), use)

    def hold(self, lock_class: LockClass, masked: frozenset[str], use: Use) -> None:
        """A class is held while these contexts can't interrupt."""
        _pool(self.held.setdefault((lock_class, masked), {}), use)

    def resumed(self) -> None:
        """The collector, which was off, couldn't interrupt what was held meanwhile: it is switched on again."""
        self._unpause(frozenset({COLLECTOR}))

    def paused_for_good(self) -> None:
        """It is never switched on again: so that was no way to keep it out."""
        self._unpause(frozenset())

    def flag(self, flags: dict[LockClass, frozenset[str]]) -> None:
        """These thread-locals are looked at by finalizers: note which holds set them, also those that came before."""
        for (lock_class, masked), ways in [item for item in self.held.items() if item[0][0] in flags]:
            self.held[lock_class, masked] = {}
            for use in (use for alike in ways.values() for use in alike):
                self.hold(lock_class, masked, use._replace(flags=use.flags | (flags[lock_class] & set_by(use.trace))))

    def _unpause(self, masks: frozenset[str]) -> None:
        for lock_class, masked in [key for key in self.held if PAUSED in key[1]]:
            for use in (use for alike in self.held.pop((lock_class, masked)).values() for use in alike):
                self.hold(lock_class, masked - {PAUSED} | masks, use)

    def sender(self, target: LockClass, place: Place, needs: Iterable[LockClass], *, woke: bool) -> None:
        """A place sends a signal, having needed these locks."""
        sender = self.senders.setdefault(target, {}).setdefault(place, Sender())
        sender.needs.update(needs)
        sender.woke = sender.woke or woke

    def place(self, lock_class: LockClass, place: Taken | Over) -> None:
        """A class is taken where nobody may wait for long, or held over a call that may block."""
        if isinstance(place, Taken):
            keep(self.taken.setdefault(lock_class, {}), (place.owner.thread.serial, *place.sort_key()), place)
        else:
            keep(self.over.setdefault(lock_class, {}), (place.owner.thread.serial, *place.sort_key()), place)

    def slot(self, slot: Slot) -> None:
        """Jobs of a pool wait for later ones of the same pool."""
        key = (slot.pool, slot.job, slot.timed)
        known = self.slots.get(key)
        self.slots[key] = slot if known is None else known.seen_with(slot)

    # --- judging ------------------------------------------------------------------

    def doubtful(self) -> set[Edge]:
        """The edges from signals to locks that some sender did without which woke somebody."""
        found: set[Edge] = set()
        for target, places in self.senders.items():
            for lock_class in set[LockClass]().union(*(s.needs for s in places.values())):
                if any(s.woke and lock_class not in s.needs for s in places.values()):
                    found.add((target, lock_class))
        return found

    def findings(self, owners: Owners = "assumed") -> list[Finding]:
        """What all of it comes to (CTX001, CTX004 to CTX006, CTX105), also what one place alone has told of already.

        O(edges) and the verdict's bounded search.
        """
        for lock_class in self.handed_over:
            lock_class.hand_over()
        doubtful = self.doubtful()
        graph = OrderGraph()
        for edge in sorted(self.edges, key=lambda e: (e[0].key, e[1].key)):
            if edge not in doubtful:
                evidence = graph.evidence[edge] = self.edges[edge].evidence()
                if self.several:
                    evidence.witnesses = sorted(map(self._weaker, evidence.witnesses), key=Witness.sort_key)
                graph.connect(*edge)
        within = components(graph.evidence)
        joins = self.joins.__contains__
        cycles = (
            judge(graph.evidence, owners=owners, is_single=_always, within=within, joins=joins).cycles if within else []
        )
        found = [order_finding(cycle) for cycle in cycles if not is_librarys(cycle.classes, graph.evidence)]
        usage = Usage(graph, owners, _always)
        for (context, lock_class), ways in self.used.items():
            usage.used.setdefault(context, {})[lock_class] = self._uses(ways)
        for (lock_class, masked), ways in self.held.items():
            usage.held.setdefault(lock_class, {})[masked] = self._uses(ways)
        for lock_class in sorted(self.taken.keys() & self.over.keys(), key=lambda c: c.key):
            takens = map(self._weaker, self.taken[lock_class].values())
            overs = list(map(self._weaker, self.over[lock_class].values()))
            slow = judge_slow(lock_class, takens, overs, owners, _always)
            found += [slow] if slow is not None else []
        slots = sorted(self.slots.values(), key=lambda slot: (slot.pool.key, slot.job.key, slot.timed))
        found += [slot_finding(slot, owners) for slot in slots]
        return found + hazard_findings(usage.judge().found)

    def _weaker(self, seen: _Seen) -> _Seen:
        """What was seen in the background, without those guards that keep nobody out there."""
        if seen.origin != BACKGROUND or seen.guards.isdisjoint(self.several):
            return seen
        return seen._replace(guards=seen.guards - self.several)

    def _uses(self, ways: dict[tuple[Any, ...], list[Use]]) -> Uses:
        uses = Uses()
        for use in sorted((self._weaker(use) for alike in ways.values() for use in alike), key=Use.sort_key):
            uses.add(use)
        return uses


def _always(lock_class: LockClass) -> bool:
    """Guards come with a witness only if they are single."""
    return lock_class is not None


def _once(question: Callable[[LockClass], bool]) -> Callable[[LockClass], bool]:
    answers: dict[LockClass, bool] = {}

    def ask(lock_class: LockClass) -> bool:
        answer = answers.get(lock_class)
        if answer is None:
            answer = answers[lock_class] = question(lock_class)
        return answer

    return ask


def _as_it_is(_: Owner, origin: str) -> str:
    return origin


def _with(use: Use, keeps_out: Callable[[LockClass], bool], relabel: Callable[[Owner, str], str]) -> Use:
    return use._replace(guards=frozenset(filter(keeps_out, use.guards)), origin=relabel(use.owner, use.origin))


#: Of the uses that are alike, so many are kept.
_ENOUGH: Final = ENOUGH_OWNERS


def _pool(ways: dict[tuple[Any, ...], list[Use]], new: Use) -> None:
    alike = ways.setdefault((*new.way(), new.guards), [])
    for index, old in enumerate(alike):
        if old.owner is new.owner:
            if new.sort_key() >= old.sort_key():
                return
            del alike[index]
            break
    insort(alike, new, key=Use.sort_key)
    del alike[_ENOUGH:]
