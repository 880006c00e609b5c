"""Locks that are held over calls that may block, and are taken where nobody may wait for long (CTX105).

A short critical section may well be entered on an event loop: that is healthy, and the commonest thing there is.  What
tells it from a stall is what others do in it.  So a blocking acquire on a loop, or in an atomic context, is no more
than noted, and so is each call that may block while a lock is held.  A lock class with both is a finding, though
neither place is wrong alone: the loop waits for whoever holds the lock, who waits for the call.  (In atomic code the
acquire is wrong alone, CTX102, unless it was accepted.)

The evidence is kept per owner.  Who waits must be another thread than who holds: of a class that only one thread was
ever seen to take, the finding is unlikely, where owners are observed.

Changes need no lock: each is one atomic operation, and what is lost to a race is found again by the next verdict.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, final

from ctxcheck.engine.blame import package_of
from ctxcheck.engine.classes import FREE, LockClass
from ctxcheck.engine.findings import Entry, Finding, SlowFacts
from ctxcheck.engine.grading import Owners
from ctxcheck.engine.learned import PlaceFact
from ctxcheck.engine.nesting import guards_of
from ctxcheck.engine.owner import Node, Owner, OwnerState
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import Trace

if TYPE_CHECKING:
    from ctxcheck.engine.blocking import Blocking, Where
    from ctxcheck.engine.ledger import Ledger
    from ctxcheck.engine.validator import Validator

#: Places that are kept for one class, on either side.
MAX_PLACES: Final = 16


class Taken(NamedTuple):
    """A blocking acquire where the thread may not be blocked: by whom, inside of what, where, and what else is held."""

    owner: Owner
    inside: Entry
    trace: Trace
    guards: frozenset[LockClass]
    timed: bool
    allowed: str | None
    origin: str

    def sort_key(self) -> tuple[Any, ...]:
        """An order that is the same in every process."""
        return (self.trace.sort_key(), self.timed, self.allowed or "", self.origin, self.trace.way_key())


class Over(NamedTuple):
    """A call that may block while the class is held: by whom, since where, which, where, and what else is held."""

    owner: Owner
    held: Entry
    call: str
    trace: Trace
    guards: frozenset[LockClass]
    allowed: str | None
    origin: str

    def sort_key(self) -> tuple[Any, ...]:
        """An order that is the same in every process."""
        return (self.trace.sort_key(), self.call, self.allowed or "", self.origin, self.trace.way_key())


@final
class Slow:
    """What one origin knows of them."""

    __slots__ = ("_engine", "_ledger", "_over", "_taken", "_told")

    def __init__(self, engine: Validator, ledger: Ledger) -> None:
        self._engine: Validator = engine
        self._ledger: Ledger = ledger
        self._taken: dict[LockClass, dict[tuple[Any, ...], Taken]] = {}
        self._over: dict[LockClass, dict[tuple[Any, ...], Over]] = {}
        self._told: set[tuple[LockClass, Grade]] = set()

    # --- learning -----------------------------------------------------------------

    def taken(self, state: OwnerState, node: Node, because: Node, held: list[Node]) -> None:
        """``state`` is about to wait for a class, in ``node``, though ``because`` it may not block.

        May raise what ``on_finding`` raises.
        """
        lock_class, mode = node.step.lock_class, node.step.mode
        assert lock_class is not None
        assert mode is not None
        places = self._taken.setdefault(lock_class, {})
        engine = self._engine
        allowed = engine.allowed(node, "CTX105")
        key = (state.owner.thread.serial, *_place(node.trace), allowed is None)  # accepted there is not accepted here
        if key in places:
            return
        reason, guards = engine.entry(because), guards_of(held)
        place = Taken(state.owner, reason, node.trace, guards, mode.timed, allowed, state.origin)
        if keep(places, key, place):
            self._tell(state, lock_class, place)

    def over(self, state: OwnerState, call: Blocking, held: list[Node], where: Where) -> None:
        """``state`` is about to make a call that may block, and is allowed to, with these ``held`` (:func:`holds`).

        May raise what ``on_finding`` raises.
        """
        trace = where.trace
        engine = self._engine
        allowed = engine.allowed(state.cur, "CTX105")
        for node in held:
            lock_class = node.step.lock_class
            assert lock_class is not None
            places = self._over.setdefault(lock_class, {})
            key = (state.owner.thread.serial, call.name, *_place(trace), allowed is None)
            if key in places or _is_librarys(node, call, where.full):
                continue
            state.owner.learn_name()
            entry, guards = engine.entry(node), guards_of([n for n in held if n is not node])
            place = Over(state.owner, entry, call.name, trace, guards, allowed, state.origin)
            if keep(places, key, place):
                self._tell(state, lock_class, place)

    def _tell(self, state: OwnerState, lock_class: LockClass, place: Taken | Over) -> None:
        """What is known of a class with one more place, if that is news."""
        self._engine.orders.note(PlaceFact(lock_class, place))
        finding = self._judge(lock_class)
        if finding is not None and (lock_class, finding.grade) not in self._told:
            self._told.add((lock_class, finding.grade))
            self._engine.emit(state, finding)

    # --- judging --------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """What all of it comes to, whatever order it came in."""
        classes = sorted(self._taken.keys() & self._over.keys(), key=lambda c: c.key)
        return [finding for lock_class in classes if (finding := self._judge(lock_class)) is not None]

    def _judge(self, lock_class: LockClass) -> Finding | None:
        taken, over = self._taken.get(lock_class, {}), self._over.get(lock_class, {})
        return judge(
            lock_class, list(taken.values()), list(over.values()), self._engine.owners, self._ledger.is_single
        )

    def places(self) -> Iterator[tuple[LockClass, Taken | Over]]:
        """Every place that is kept."""
        for lock_class, taken in list(self._taken.items()):
            for place in list(taken.values()):
                yield lock_class, place
        for lock_class, over in list(self._over.items()):
            for call in list(over.values()):
                yield lock_class, call


def judge(
    lock_class: LockClass,
    takens: Iterable[Taken],
    overs: Iterable[Over],
    owners: Owners,
    is_single: Callable[[LockClass], bool],
) -> Finding | None:
    """The clearest pair of places of one class; None if there is none."""
    best: tuple[tuple[int, bool, bool, tuple[Any, ...]], Taken, Over] | None = None
    for taken, over in itertools.product(takens, overs):
        if any(map(is_single, taken.guards & over.guards)):
            continue  # who has that one doesn't wait for this one: it is told of that one
        # where anybody may run it, it doesn't matter which thread of a pool did
        alone = owners == "observed" and over.owner.thread is taken.owner.thread
        accepted = (taken.allowed or over.allowed) is not None
        rank = (2 * alone + taken.timed, accepted, alone, (taken.sort_key(), over.sort_key()))
        if best is None or rank < best[0]:
            best = (rank, taken, over)
    if best is None:
        return None
    (_, _, alone, _), taken, over = best
    grade: Grade = "possible"
    why: Literal["", "alone", "timed", "handed over"] = ""
    if lock_class.handed_over:
        grade, why = "unlikely", "handed over"
    elif alone:
        grade, why = "unlikely", "alone"
    elif taken.timed:
        grade, why = "unlikely", "timed"
    identity = (lock_class.key, taken.trace.function(), over.call, over.trace.function())
    facts = SlowFacts(lock_class, taken, over, why)
    allowed = taken.allowed or over.allowed
    return Finding("CTX105", grade, over.owner, over.trace, identity, facts, (lock_class,), allowed)


_K = TypeVar("_K")
_V = TypeVar("_V", Taken, Over)


def keep(places: dict[_K, _V], key: _K, place: _V) -> bool:
    """Keep a place, and the first ones by their order if there are too many: whichever came first."""
    if len(places) >= MAX_PLACES:
        last = max(places, key=lambda k: places[k].sort_key())
        if place.sort_key() >= places[last].sort_key():
            return False
        del places[last]
    places[key] = place
    return True


def _place(trace: Trace) -> tuple[int, int]:
    return (id(trace.codes[0]), trace.lastis[0]) if trace.codes else (0, 0)


def holds(cur: Node, released: Node | None) -> list[Node]:
    """What is held at ``cur`` that others wait for, innermost first, but for what is ``released`` meanwhile."""
    return [node for node in cur.held() if node.step.takes & FREE and node.stands_for is not released]


def _is_librarys(node: Node, call: Blocking, trace: Trace) -> bool:
    """Whether it is the standard library's own affair: a thread of its own waits under its own lock, or a log is
    written to a file, which nobody can do otherwise."""
    ours = [bool(package_of(code.co_filename)) for code in (*node.trace.codes[:1], *trace.codes)]
    return all(ours) or (call.category == "file" and all(ours[:2]))
