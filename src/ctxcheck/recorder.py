"""What a session learns, into its data file while it learns it: a killed process leaves what it knew.

Facts (orders, uses, and what else :mod:`ctxcheck.engine.learned` names) are appended as they are learned, a record for
each step that showed something new; the places, owners and classes that they refer to are in tables that grow along the
file, each row written once (the tables are those of :mod:`ctxcheck.evidence`; ``at`` says where the rows of a record
begin).  At the end all of it follows once more, as it then is: how often, under which locks that keep others out.

What each test of a suite shows anew is written for the first few owners only, orders apart.

It is called from wherever the program happens to be, as the data file is: it never waits, whoever finds it busy leaves
his facts to whoever is at it, and nothing it raises gets out.  A process that is killed loses what it had not yet
written (the steps under way), and what is known at the end only: of a collector that is switched off it counts as
if it was going to be switched on again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from os import getcwd as _getcwd
from os import getpid as _getpid
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.finalizing import set_by
from ctxcheck.engine.graph import ENOUGH_OWNERS, Edge, Witness
from ctxcheck.engine.learned import (
    ClassFact,
    Fact,
    FlagsFact,
    OrderFact,
    PlaceFact,
    SenderFact,
    SlotFact,
    UseFact,
)
from ctxcheck.engine.raw import allocate_lock
from ctxcheck.engine.sites import PACKAGE_DIR, Trace
from ctxcheck.engine.slow import Over, Taken
from ctxcheck.engine.union import Union
from ctxcheck.evidence.format import SCHEMA_VERSION, to_portable
from ctxcheck.evidence.writing import Writer

if TYPE_CHECKING:
    from ctxcheck.engine.uses import Use
    from ctxcheck.engine.validator import Validator

#: Rows of a table that one process writes; what comes beyond is counted.
MAX_ROWS: Final = 400_000
#: Our own files are written with this in front.
OWN: Final = "<ctxcheck>/"
#: Orders in one record at the end.
_CHUNK: Final = 2_000


class Sink(Protocol):
    """A data file; its ``begin()``, if it has one, says which file it is that the next record goes to."""

    def write(self, record: dict[str, Any]) -> object:
        """Append one record, and raise nothing."""


@final
class Recorder:
    """Writes what one validator learns to a data file.  Thread-safe, and may be re-entered.

    A new fact costs some 20 microseconds, one like those that were written before less.
    ``lost`` counts the facts that are not in the file.
    """

    def __init__(self, sink: Sink, engine: Validator) -> None:
        self._sink: Sink = sink
        self._engine: Validator = engine
        self._queue: deque[Fact] = deque()
        self._busy = allocate_lock()
        self._pid = _getpid()
        try:
            self._root = _getcwd().rstrip(os.sep) + os.sep
        except OSError:
            self._root = ""
        self._tables = _Tables(self._root)
        #: which owners each sort of fact was written for, but for orders
        self._said: dict[tuple[Any, ...], set[int]] = {}
        #: where each class is held, as far as it was written
        self._held_at: dict[LockClass, dict[int, Trace]] = {}
        self._path: str | None = None
        self.lost: int = 0
        self.failed: bool = False

    def take(self, fact: Fact) -> None:
        """Note what is news; :meth:`flush` writes it."""
        self._queue.append(fact)

    def flush(self) -> None:
        """Write what was noted, unless somebody is at it: then he does."""
        if self._pid != _getpid():
            self._after_fork()  # before anything is taken: what was queued is the parent's
        while self._queue and not self.failed:
            if not self._busy.acquire(False):
                return
            try:
                self._begin()
                self._write_queue()
            except Exception:  # the file is the poorer; the program goes on
                self.failed = True
            finally:
                self._busy.release()

    def finish(self) -> None:
        """Write what is known at the end of the session.  Nothing else may be at it any more."""
        self.flush()
        if self.failed or not self._busy.acquire(False):
            return
        try:
            self._write_rest()
        except Exception:
            self.failed = True
        finally:
            self._busy.release()

    def _after_fork(self) -> None:
        """A child's file is its own: what its parent noted is in the parent's."""
        self._pid = _getpid()
        self._busy = allocate_lock()
        self._queue.clear()
        self._begin_anew()
        self._path = None

    def _begin_anew(self) -> None:
        self._tables = _Tables(self._root)
        self._said = {}
        self._held_at = {}

    def _write_queue(self) -> None:
        queue, tables = self._queue, self._tables
        body: dict[str, list[Any]] = {}
        edges: dict[Edge, list[list[Any]]] = {}
        sorts: list[tuple[tuple[Any, ...], int]] = []
        plural: set[LockClass] = set()
        batch = min(len(queue), _CHUNK)
        for fact in [queue[index] for index in range(batch)]:
            sort, owner = sort_of(fact)
            if sort and self._is_said(sort, owner):
                continue
            if tables.full() or len(self._said) >= MAX_ROWS:
                self.lost += 1
                continue
            if isinstance(fact, OrderFact):
                edges.setdefault(fact.edge, []).append(tables._witness(fact.witness))
                self._find_plural(fact.witness, plural)
                continue
            if sort:
                sorts.append((sort, owner))
            for name, row in self._rows_of(fact, plural):
                body.setdefault(name, []).append(row)
        if edges:
            number = tables._class
            body["edges"] = [[number(a), number(b), 0, witnesses] for (a, b), witnesses in edges.items()]
        if body:
            self._put({**body, "plural": tables._classes(plural)})
        for sort, owner in sorts:
            self._said.setdefault(sort, set()).add(owner)
        for _ in range(batch):  # only now: what raises in the middle loses nothing, and twice does no harm
            queue.popleft()

    def _is_said(self, sort: tuple[Any, ...], owner: int) -> bool:
        owners = self._said.get(sort, ())
        return owner in owners or len(owners) >= ENOUGH_OWNERS

    def _rows_of(self, fact: Fact, plural: set[LockClass]) -> Iterator[tuple[str, Any]]:
        """The rows that say it, and in ``plural`` which of its guards keep nobody out."""
        tables = self._tables
        if isinstance(fact, UseFact):
            number = tables._class(fact.lock_class)
            self._find_plural(fact.use, plural)
            if fact.context is not None:
                yield "uses", [fact.context, number, [tables._use(fact.use)]]
            if fact.masked is not None:
                flags = self._engine.finalizers.flags.get(fact.lock_class, _NOTHING)
                hold = fact.use._replace(flags=flags & set_by(fact.use.trace)) if flags else fact.use
                self._held_at.setdefault(fact.lock_class, {})[tables._trace(hold.trace)] = hold.trace
                yield "holds", [number, sorted(fact.masked), [tables._use(hold)]]
        elif isinstance(fact, FlagsFact):
            number, flags = tables._class(fact.lock_class), self._engine.finalizers.flags.get(fact.lock_class, _NOTHING)
            for at, trace in self._held_at.get(fact.lock_class, {}).items():
                if found := flags & set_by(trace):
                    yield "sets", [number, at, sorted(found)]
        elif isinstance(fact, PlaceFact):
            self._find_plural(fact.place, plural)
            number, place = tables._class(fact.lock_class), fact.place
            if isinstance(place, Taken):
                yield "taken", [number, tables._taken(place)]
            else:
                yield "over", [number, tables._over(place)]
        elif isinstance(fact, SenderFact):
            yield "senders", tables._sender(fact.target, fact.place, fact.needs, woke=fact.woke)
        elif isinstance(fact, SlotFact):
            yield "slots", tables._slot(fact.slot)
        elif isinstance(fact, ClassFact):
            yield fact.what, tables._class(fact.lock_class)

    def _find_plural(self, seen: Witness | Use | Taken | Over, plural: set[LockClass]) -> None:
        """Guards of which several instances may take part, or that were handed over: they keep nobody out."""
        if seen.guards:
            ledger, engine = self._engine.origins.ledger(seen.origin), self._engine
            plural.update(c for c in seen.guards if not ledger.is_single(c) or engine.handed_over(c))

    def _write_rest(self) -> None:
        """What all of it comes to, in place of what was written when it came: only now it is known which locks keep
        others out, and which owners outlived their tests."""
        union = self._engine.origins.everything()
        if not union.seen and not union.edges:
            return
        self._begin()
        tables = self._tables
        document = tables.document_of(union)
        edges = document.pop("edges")
        for start in range(0, len(edges), _CHUNK):
            self._put({"edges": edges[start : start + _CHUNK], "final": True})
        seen = tables._classes(union.seen)
        self._put({"seen": seen, **document, "lost": self.lost, "final": True, "whole": True})

    def _put(self, body: dict[str, Any]) -> None:
        rows = self._tables.fresh()
        self._sink.write({"type": "evidence", "schema_version": SCHEMA_VERSION, **rows, **body})
        self._tables.written(rows)

    def _begin(self) -> None:
        """Begin the tables anew where another file has begun: the program closed the one."""
        begin: Callable[[], str | None] | None = getattr(self._sink, "begin", None)
        path = begin() if begin is not None else None
        if path != self._path:
            self._path = path
            self._begin_anew()


def sort_of(fact: Fact) -> tuple[tuple[Any, ...], int]:
    """What facts have in common of which a few owners' are enough, and this one's owner; nothing, of orders."""
    if isinstance(fact, OrderFact):
        return (), 0
    if isinstance(fact, UseFact):
        use = fact.use
        return ("use", fact.lock_class, fact.context, fact.masked, use.way(), use.guards), use.owner.serial
    if isinstance(fact, PlaceFact):
        place = fact.place
        if isinstance(place, Taken):
            way: tuple[Any, ...] = ("taken", place.timed, place.inside.step)
        else:
            way = ("over", place.call)
        return (fact.lock_class, *way, place.allowed, place.guards), place.owner.thread.serial
    if isinstance(fact, SlotFact):
        slot = fact.slot
        # that there are many more than workers says no more
        inside = min(slot.inside, slot.workers), slot.inside.bit_length()
        return ("slot", slot.pool, slot.job, slot.timed, slot.workers, *inside), 0
    if isinstance(fact, FlagsFact):
        return (), 0
    return tuple(fact), 0


_NOTHING: Final[frozenset[str]] = frozenset()


@final
class _Tables(Writer):
    """The tables of one file.  Rows that are written are forgotten, but for their numbers."""

    def __init__(self, root: str) -> None:
        super().__init__(Union())
        self._root: str = root
        self._done: dict[str, int] = dict.fromkeys(self._tables, 0)
        #: a code is known by its address, which another one could get
        self._kept: list[Trace] = []

    def full(self) -> bool:
        """Whether no more rows are to be written."""
        return len(self._known) >= MAX_ROWS

    def portable(self, filename: str) -> str:
        """A file's name as other machines have it: below the working directory, or in the standard library."""
        if self._root and filename.startswith(self._root):
            return filename[len(self._root) :].replace(os.sep, "/")
        if filename.startswith(PACKAGE_DIR):
            return OWN + filename[len(PACKAGE_DIR) :].replace(os.sep, "/")
        return to_portable(filename)

    def document_of(self, union: Union) -> dict[str, Any]:
        """The rows of a union that aren't in tables."""
        self._union = union
        body = self.document()
        return {name: rows for name, rows in body.items() if name not in (*self._tables, "schema_version")}

    def _sender(
        self, target: LockClass, place: tuple[str, str, int], needs: Iterable[LockClass], *, woke: bool
    ) -> list[Any]:
        row = super()._sender(target, place, needs, woke=woke)
        row[1][0] = self.portable(place[0])
        return row

    def fresh(self) -> dict[str, Any]:
        """The rows that are not written yet, and at which number they begin."""
        rows = {name: list(table) for name, table in self._tables.items() if table}
        if "files" in rows:
            rows["files"] = [self.portable(name) for name in rows["files"]]
        return {"at": {name: self._done[name] for name in rows}, **rows}

    def written(self, rows: dict[str, Any]) -> None:
        """These rows are written."""
        for name, start in rows["at"].items():
            number = len(rows[name])
            self._done[name] = start + number
            del self._tables[name][:number]

    def _enter(self, table: str, key: Any, make: Callable[[], Any]) -> int:
        index = self._known.get((table, key))
        if index is None:
            row = make()  # may enter others
            rows = self._tables[table]
            index = self._known[table, key] = self._done[table] + len(rows)
            rows.append(row)
        return index

    def _trace(self, trace: Trace) -> int:
        before = len(self._tables["traces"])
        number = super()._trace(trace)
        if len(self._tables["traces"]) > before:
            self._kept.append(trace)
        return number
