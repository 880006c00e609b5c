"""What a session learns, into its data file while it learns it: a killed process leaves what it knew.

Orders are appended as they are learned, a record for each step that showed something new; the places, owners and
classes that they refer to are in tables that grow along the file, each row written once (the tables are those of
:mod:`ctxcheck.evidence`; ``at`` says where the rows of a record begin).  At the end all of it follows once more, as it
then is: how often, under which locks that keep others out, and what is waited
for in interrupting contexts.

It is called from wherever the program happens to be, as the data file is: it never waits, whoever finds it busy leaves
his orders to whoever is at it, and nothing it raises gets out.  A process that is killed loses what it had not yet
written (the steps under way), and what is known at the end only: CTX004 and CTX005 of all processes together, and of
CTX006 which senders do without a lock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from os import getcwd as _getcwd
from os import getpid as _getpid
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from ctxcheck import evidence
from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.graph import Edge, Witness
from ctxcheck.engine.raw import allocate_lock
from ctxcheck.engine.sites import PACKAGE_DIR, Trace
from ctxcheck.engine.union import Union

if TYPE_CHECKING:
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

    A new order costs some 20 microseconds, a witness of a known one less.
    ``lost`` counts the orders that are not in the file.
    """

    def __init__(self, sink: Sink, engine: Validator) -> None:
        self._sink: Sink = sink
        self._engine: Validator = engine
        self._queue: deque[tuple[Edge, Witness]] = deque()
        self._busy = allocate_lock()
        self._pid = _getpid()
        try:
            self._root = _getcwd().rstrip(os.sep) + os.sep
        except OSError:
            self._root = ""
        self._tables = _Tables(self._root)
        self._path: str | None = None
        self.lost: int = 0
        self.failed: bool = False

    def take(self, edge: Edge, witness: Witness) -> None:
        """Note an order that is news; :meth:`flush` writes it."""
        self._queue.append((edge, witness))

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
        self._tables = _Tables(self._root)
        self._path = None

    def _write_queue(self) -> None:
        queue, tables = self._queue, self._tables
        edges: dict[Edge, list[list[Any]]] = {}
        batch = min(len(queue), _CHUNK)
        noted = [queue[index] for index in range(batch)]
        for edge, witness in noted:
            if tables.full():
                self.lost += 1
                continue
            edges.setdefault(edge, []).append(tables._witness(witness))
        if edges:
            self._put({"edges": self._rows(edges), "plural": self._plural(w for _, w in noted)})
        for _ in range(batch):  # only now: what raises in the middle loses nothing, and twice does no harm
            queue.popleft()

    def _rows(self, edges: dict[Edge, list[list[Any]]]) -> list[Any]:
        number = self._tables._class
        return [[number(a), number(b), 0, witnesses] for (a, b), witnesses in edges.items()]

    def _plural(self, batch: Iterable[Witness]) -> list[int]:
        """Guards of which several instances may take part, or that were handed over: they keep nobody out."""
        engine = self._engine
        found: set[LockClass] = set()
        for witness in batch:
            ledger = engine.origins.ledger(witness.origin)
            found.update(c for c in witness.guards if not ledger.is_single(c) or engine.handed_over(c))
        return self._tables._classes(found)

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
        self._sink.write({"type": "evidence", "schema_version": evidence.SCHEMA_VERSION, **rows, **body})
        self._tables.written(rows)

    def _begin(self) -> None:
        """Begin the tables anew where another file has begun: the program closed the one."""
        begin: Callable[[], str | None] | None = getattr(self._sink, "begin", None)
        path = begin() if begin is not None else None
        if path != self._path:
            self._path = path
            self._tables = _Tables(self._root)


@final
class _Tables(evidence._Writer):
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
        return evidence._to_portable(filename)

    def document_of(self, union: Union) -> dict[str, Any]:
        """The rows of a union that aren't in tables."""
        self._union = union
        body = self.document()
        for row in body["senders"]:
            row[1][0] = self.portable(row[1][0])
        return {name: rows for name, rows in body.items() if name not in (*self._tables, "schema_version")}

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
