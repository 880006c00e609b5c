"""What any number of runs, shards and machines saw: their union.

It is kept in a database of :mod:`sqlite3` in a temporary file, so that memory is bounded whatever there is to
be read; nothing of it outlives the process.  What goes in are sets, and of two accounts of one thing
always the same one wins, so that the union doesn't depend on the order of the files, on which of them were
combined before, or on a file being there twice: to add is idempotent, commutative and associative.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, cast

from ctxcheck import datafile
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.grading import Owners
from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.reports.json import violation_from_dict
from ctxcheck.witnesses import KIND_NAMES, Assembler, Witnesses, blob_of, dump, is_awaited, text_of

if TYPE_CHECKING:
    from typing import Self

#: Different findings that are kept, of one file and of all.
MAX_FINDINGS: Final = 20_000
#: What a process counts.
COUNTS: Final = ("lock_classes", "orders", "chains", "acquisitions", "marked_calls", "dropped", "uncached", "threads")
#: In the column "judged": a test has shown it by itself, which no verdict changes.
_TOLD: Final = 2
#: Problems that are named one by one.
MAX_PROBLEMS: Final = 20

_AWAITED: Final = json.dumps(sorted(kind for kind in KIND_NAMES if is_awaited(kind)))

_TABLES: Final = """
create table run (id blob primary key, complete int, facts text, counts text) without rowid;
create table finding (fingerprint blob primary key, rank int, body text, count int, judged int);
"""


class Problems:
    """What is wrong with the files that were read, a line each; the first few are kept and all are counted."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.number: int = 0

    def add(self, line: str) -> None:
        """Note one more."""
        self.number += 1
        if self.number <= MAX_PROBLEMS:
            self.lines.append(line)

    def told(self, since: int = 0) -> list[str]:
        """The lines, and how many more there are; of those after the first so many."""
        kept = self.lines[since:]
        more = self.number - since - len(kept)
        return [*kept, f"and {more:,} more problems"] if more else kept


class Gathered:
    """The union of what processes saw.  Use it in a ``with`` block; it is gone at its end.

    ``problems`` says what was left out.
    """

    def __init__(self) -> None:
        self.problems: Problems = Problems()
        # a file without a name is the database's own, and removed by it; what fits stays in memory
        self._db = sqlite3.connect("", isolation_level=None)
        for pragma in ("journal_mode = off", "synchronous = off", "cache_size = -65536"):
            self._db.execute(f"pragma {pragma}")
        self._db.executescript(_TABLES)
        self.evidence: Witnesses = Witnesses(self._db)
        self._findings = 0
        #: whether all evidence that the files had is here
        self.whole: bool = True
        #: fingerprints of what tests have shown that expect it, and nobody else
        self.expected: set[str] = set()
        #: rules and class keys of what was accepted, or expected, in the test that has shown it by itself
        self.excused: set[tuple[str, tuple[str, ...]]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything."""
        self._db.close()

    # --- what goes in ------------------------------------------------------------

    @contextlib.contextmanager
    def at_once(self) -> Generator[None]:
        """A block in which much is added: faster than each for itself."""
        self._db.execute("begin")
        try:
            yield
        finally:
            self._db.execute("commit")

    def add_run(self, run: str, *, complete: bool, facts: Mapping[str, Any], counts: Mapping[str, Any] | None) -> None:
        """Add what is known of one process; of two accounts, that of its end wins."""
        new = (int(complete), dump(facts), dump(counts or {}))
        key = blob_of(run)
        old = self._db.execute("select complete, facts, counts from run where id = ?", (key,)).fetchone()
        if old is None or new > old:
            self._db.execute("insert or replace into run values (?, ?, ?, ?)", (key, *new))

    def add_finding(self, violation: Violation, *, judged: bool, told: bool = False) -> None:
        """Add a finding; ``judged``: a verdict over the evidence tells of it, or of another one instead; ``told``: it
        doesn't, as a test has shown it by itself.

        Of those with one fingerprint the surest is kept, one that isn't accepted before one that is,
        and then the first in the order of their texts; the count is that of the most."""
        state = _TOLD if told else int(judged)
        negative, body = rank_of(violation)
        rank = -negative
        key = blob_of(violation.fingerprint)
        old = self._db.execute("select rank, body, count from finding where fingerprint = ?", (key,)).fetchone()
        if old is None:
            if self._findings >= MAX_FINDINGS:
                self.problems.add(f"more than {MAX_FINDINGS:,} different findings: {violation.fingerprint} is left out")
                return
            self._findings += 1
            row = (key, rank, body, violation.count, state)
            self._db.execute("insert into finding values (?, ?, ?, ?, ?)", row)
            return
        best = min((-rank, body), (-old[0], old[1]))
        changed = (-best[0], best[1], max(violation.count, old[2]), state, key)
        query = "update finding set rank = ?, body = ?, count = ?, judged = max(judged, ?) where fingerprint = ?"
        self._db.execute(query, changed)

    # --- what comes out ------------------------------------------------------------

    def runs(self) -> Iterator[dict[str, Any]]:
        """The processes, sorted by their identity: ``id``, ``complete``, ``facts``, ``counts``."""
        for run, complete, facts, counts in self._db.execute("select * from run order by id"):
            yield {
                "id": text_of(run),
                "complete": bool(complete),
                "facts": json.loads(facts),
                "counts": json.loads(counts),
            }

    def number_of_runs(self) -> tuple[int, int]:
        """How many processes there are, and how many of them came to their end."""
        row = self._db.execute("select count(*), coalesce(sum(complete), 0) from run").fetchone()
        return cast("tuple[int, int]", row)

    def findings(self) -> Iterator[Violation]:
        """The findings, sorted by rule and fingerprint."""
        for body, count in self._db.execute("select body, count from finding order by fingerprint"):
            yield violation_from_dict({**json.loads(body), "count": count})

    def judged(self) -> set[str]:
        """The fingerprints of those findings that a verdict over the evidence may tell of otherwise."""
        rows = self._db.execute("select fingerprint from finding where judged = 1").fetchall()
        return {text_of(fingerprint) for (fingerprint,) in rows}

    def told(self) -> set[str]:
        """The fingerprints of those that a test has shown by itself."""
        rows = self._db.execute("select fingerprint from finding where judged = ?", (_TOLD,)).fetchall()
        return {text_of(fingerprint) for (fingerprint,) in rows}

    def classes(self) -> Iterator[tuple[str, str, str]]:
        """The lock classes, sorted by key: key, name, kind.  What is only waited for is among them where something
        waits for it with a lock in its hands."""
        self._index()
        query = (
            "select key, body from class c where"
            " coalesce(json_extract(body, '$[1]'), '') not in (select value from json_each(?))"
            " or exists (select 1 from edge where target = c.id) order by key"
        )
        for key, body in self._db.execute(query, (_AWAITED,)):
            text = text_of(key)
            if body is None:
                yield text, text, "lock"
                continue
            name, kind, base, *_ = json.loads(body)
            yield text, name, self._kind_of(base) if base else kind

    def _index(self) -> None:
        """Have the orders by their targets, too: whoever only reads and judges doesn't need that."""
        self._db.execute("create index if not exists edge_target on edge (target)")

    def _kind_of(self, key: str) -> str:
        row = self._db.execute("select json_extract(body, '$[1]') from class where key = ?", (blob_of(key),)).fetchone()
        return cast("str", row[0]) if row is not None and row[0] else "lock"

    def edges(self) -> Iterator[tuple[str, str, int]]:
        """The orders, sorted by the keys of their classes: source, target, count.  What nobody waits for with a lock in
        his hands orders nothing."""
        query = (
            "select a.key, b.key, count from edge e join class a on a.id = source join class b on b.id = target"
            " where coalesce(json_extract(a.body, '$[1]'), '') not in (select value from json_each(?))"
            " or exists (select 1 from edge f where f.target = e.source)"
            " order by a.key, b.key"
        )
        for source, target, count in self._db.execute(query, (_AWAITED,)):
            yield text_of(source), text_of(target), max(count, 1)

    def is_evident(self, rule: str, keys: Sequence[str]) -> bool:
        """Whether there is all the evidence for a finding about these classes that a verdict needs to tell of it."""
        if rule == "CTX001":
            return self._has_orders(keys)
        pairs = {"CTX004": ("spot", "use", "hold"), "CTX105": ("place", "taken", "over")}
        if rule not in pairs or len(keys) != 1:
            return False
        table, *sides = pairs[rule]
        query = f"select 1 from {table} f join class c on c.id = f.class where c.key = ? and f.what = ?"
        return all(self._db.execute(query, (blob_of(keys[0]), side)).fetchone() for side in sides)

    def _has_orders(self, keys: Sequence[str]) -> bool:
        """Whether there is evidence of each order of a cycle of classes."""
        query = (
            "select 1 from edge e join class a on a.id = source join class b on b.id = target"
            " where a.key = ? and b.key = ? and exists (select 1 from witness where head = e.id)"
        )
        pairs = zip(keys, (*keys[1:], *keys[:1]), strict=True)
        return all(self._db.execute(query, (blob_of(a), blob_of(b))).fetchone() for a, b in pairs)

    def lock_edges(self) -> tuple[int, int]:
        """How many lock classes there are, and how many orders between them."""
        lock = "coalesce(json_extract({}.body, '$[1]'), '') not in (select value from json_each(:awaited))"
        classes = f"select count(*) from class c where {lock.format('c')}"
        edges = (
            "select count(*) from edge join class a on a.id = source join class b on b.id = target"
            f" where {lock.format('a')} and {lock.format('b')}"
        )
        given = {"awaited": _AWAITED}
        first, second = (self._db.execute(query, given).fetchone()[0] for query in (classes, edges))
        return first, second

    def counts(self) -> Counts:
        """What was checked, by all processes together: different classes and orders, and the sum of all else."""
        total = dict.fromkeys(COUNTS, 0)
        unchecked: dict[str, int] = {}
        for run in self.runs():
            for name in COUNTS:
                total[name] += run["counts"].get(name, 0)
            for module, number in run["counts"].get("unchecked", {}).items():
                unchecked[module] = unchecked.get(module, 0) + number
        total["lock_classes"], total["orders"] = self.lock_edges()
        return Counts(**total, unchecked=unchecked)

    def owners(self) -> Owners:
        """``observed`` if all processes went by the owners that were seen; "assumed" if any didn't."""
        said = {run["facts"].get("owners", "observed") for run in self.runs()}
        return "assumed" if "assumed" in said else "observed"

    def is_empty(self) -> bool:
        """Whether nothing at all was read."""
        tables = ("run", "finding", "class")
        return not any(self._one(f"select count(*) from {table}") for table in tables)

    def _one(self, query: str) -> int:
        return cast("int", self._db.execute(query).fetchone()[0])

    # --- a combined file ---------------------------------------------------------------

    def write(self, path: str) -> None:
        """Write all of it as one data file, which replaces what was there as a whole or not at all.

        Two stores of the same content write the same bytes.

        Raises:
            ConfigError: it can't be written.
        """
        temporary = f"{path}.{os.getpid()}.tmp"
        try:
            folder = os.path.dirname(path)
            if folder:
                datafile.make_folder(folder)
            try:
                with open(temporary, "x", encoding="ascii", newline="\n") as file:
                    for record in self._records():
                        file.write(dump(record) + "\n")
                os.replace(temporary, path)
            except BaseException:
                _remove(temporary)
                raise
        except (OSError, ValueError) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise ConfigError(f"can't write the combined data {shown(path)}: {reason}") from None

    def _records(self) -> Iterator[dict[str, Any]]:
        yield {
            "type": "header", "schema_version": datafile.SCHEMA_VERSION, "tool": "ctxcheck", "combined": True,
        }  # fmt: skip
        for run in self.runs():
            yield {"type": "run", **run}
        judged, told, expected = self.judged(), self.told(), set(self.expected)
        for violation in self.findings():
            yield {"type": "violation", "violation": violation.to_dict(), "judged": violation.fingerprint in judged}
            if violation.fingerprint in told:
                yield {"type": "told", "fingerprint": violation.fingerprint}
            expected.discard(violation.fingerprint)
        for fingerprint in sorted(expected):
            yield {"type": "expected", "fingerprint": fingerprint}
        for rule, keys in sorted(self.excused):
            yield {"type": "excused", "rule": rule, "keys": list(keys)}
        self.evidence.prune()
        made = Assembler(self.evidence)
        for numbers in _chunks(self.evidence.every_class()):
            yield from _evidence(made, "seen", [made.lock_class(number) for number in numbers])
        for edges in _chunks(self._all_edges()):
            yield from _evidence(made, "edges", list(made.edges(edges)))
        facts = {
            "uses": made.spots("use"), "holds": made.spots("hold"), "senders": made.senders(),
            "taken": made.places("taken"), "over": made.places("over"), "slots": made.slots(),
        }  # fmt: skip
        for name, rows in facts.items():
            yield from _evidence(made, name, rows)
        for name in ("joins", "handed_over"):
            yield from _evidence(made, name, made.flagged(name))

    def witnessed_edges(self) -> Iterator[tuple[int, int, int, int]]:
        """The orders of which there is evidence, sorted by their source: number, source, target, count."""
        query = (
            "select id, source, target, count from edge e where exists (select 1 from witness where head = e.id)"
            " order by source, target"
        )
        yield from self._db.execute(query)

    def _all_edges(self) -> Iterator[tuple[int, int, int, int]]:
        query = (
            "select e.id, source, target, count from edge e join class a on a.id = source join class b on b.id = target"
            " order by a.key, b.key"
        )
        yield from self._db.execute(query)


def rank_of(violation: Violation) -> tuple[int, str]:
    """Of several accounts of one finding the one is kept of which this is the least."""
    rank = GRADES.index(violation.grade) * 2 + (violation.allowed_by is None)
    return -rank, dump(violation.replace(count=1, baselined=False).to_dict())


def _evidence(made: Assembler, name: str, rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for chunk in _chunks(rows):
        yield {"type": "evidence", **made.rows(forget=True), name: chunk}


def _chunks(items: Iterable[Any], size: int = 1_000) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def shown(path: str) -> str:
    """A path as a message has it: no control character gets to a terminal."""
    return path if path.isprintable() else repr(path)
