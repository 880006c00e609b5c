"""Data files on their way into their union.

They are untrusted.  Everything is checked on its way in; what isn't as it should be is named, and left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, cast, final

from ctxcheck import records
from ctxcheck.engine.violations import Violation
from ctxcheck.gathered import COUNTS, MAX_FINDINGS, Gathered, rank_of, shown
from ctxcheck.intake import MAX_ITEMS, MAX_NAME, Intake, list_in
from ctxcheck.reports.json import MAX_NUMBER, violation_from_dict

#: Findings of one file with the tests that have shown them: of more than that, none counts as expected.
MAX_TOGETHER: Final = 200_000
#: Origins in one file of which is kept what each says of a finding.
MAX_ORIGINS: Final = 8
_TEXTS: Final = ("python", "implementation", "platform", "started", "owners", "root")


@final
class Store(Gathered):
    """The union of data files: see :class:`~ctxcheck.gathered.Gathered`."""

    def __init__(self) -> None:
        super().__init__()
        #: the files that were read
        self.read_from: list[str] = []

    def add(self, path: str) -> None:
        """Add a data file, of one run or a combined one.

        Memory is that of the file's findings; time is linear in its size.

        Raises:
            DataError: it can't be read, or is of a newer version.
        """
        reading = _Reading(self, path)
        first, more = "", 0
        with self.at_once():
            for number, record, problem in records.scan(path):
                if record is not None:
                    try:
                        reading.take(record)
                    except ValueError as error:
                        problem = str(error)  # noqa: PLW2901
                if problem:
                    self.whole = False
                    more += bool(first)
                    first = first or f"{shown(path)}: line {number}: {problem}"
            if first:
                self.problems.add(f"{first}; {more:,} more lines of it can't be read" if more else first)
            reading.finish()
        self.read_from.append(path)

    @property
    def files(self) -> int:
        """How many files were read."""
        return len(self.read_from)


@final
class _Reading:
    """One file that is being read: what only its end can tell is kept until then."""

    def __init__(self, store: Store, path: str) -> None:
        self._store: Store = store
        self._path: str = path
        self._combined: bool = False
        self._run: str = ""
        self._facts: dict[str, Any] = {}
        self._counts: dict[str, Any] | None = None
        #: by fingerprint and origin
        self._found: dict[str, dict[str, Violation]] = {}
        self._judged: set[str] = set()
        self._told: set[str] = set()
        #: with their origins: what was found in which, and what was expected there
        self._found_in: set[tuple[str, str]] = set()
        self._expected: set[tuple[str, str]] = set()
        self._intake: Intake | None = None

    def take(self, record: dict[str, Any]) -> None:
        """Take one record; a type that isn't known is of a later version, and skipped.

        Raises:
            ValueError: what is wrong with it.
        """
        kind = record["type"]
        if kind == "header":
            self._combined = record.get("combined") is True
            self._run, self._facts = _run_of(record, self._path), _facts(record)
        elif kind == "violation":
            violation = violation_from_dict(record.get("violation"))
            for name in ("fingerprint", "rule"):
                if not 0 < len(getattr(violation, name)) <= MAX_NAME:
                    raise ValueError(f"violation.{name}: missing, or too long")
            if violation.fingerprint not in self._found and len(self._found) >= MAX_FINDINGS:
                raise ValueError(f"more than {MAX_FINDINGS:,} findings in one file")
            self._note(violation, _origin_of(record))
            if len(self._found_in) <= MAX_TOGETHER:
                self._found_in.add((violation.fingerprint, _origin_of(record)))
            if record.get("judged") is True:
                self._judged.add(violation.fingerprint)
        elif kind == "evidence":
            if self._intake is None:
                self._intake = Intake(self._store.evidence, self._run or self._path, combined=self._combined)
            self._intake.take(record)
        elif kind == "withdrawn":
            self._found.pop(_name(record, "fingerprint"), None)
        elif kind == "told":
            fingerprint = _name(record, "fingerprint")
            if fingerprint in self._found:  # so that there are no more of them
                self._told.add(fingerprint)
        elif kind == "expected":
            where = (_name(record, "fingerprint"), _origin_of(record))
            if not self._combined:
                self._expected |= self._found_in & {where}
            elif len(self._store.expected) < MAX_FINDINGS:
                self._store.expected.add(where[0])
        elif kind == "excused":
            keys = list_in(record, "keys")
            if not all(isinstance(key, str) and len(key) <= MAX_NAME for key in keys):
                raise ValueError("keys: expected a list of names")
            if len(self._store.excused) < MAX_FINDINGS:
                self._store.excused.add((_name(record, "rule"), tuple(keys)))
        elif kind == "run":
            facts = record.get("facts")
            self._store.add_run(
                _name(record, "id"),
                complete=record.get("complete") is True,
                facts=_facts(cast("dict[str, Any]", facts) if isinstance(facts, dict) else {}),
                counts=_counts(record.get("counts")),
            )
        elif kind == "end":
            self._counts = _counts(record.get("counts"))
            graph = record.get("graph")
            if graph is not None and self._intake is None:  # written by the first version
                self._graph(_object(graph, "graph"))

    def _note(self, violation: Violation, origin: str) -> None:
        """What is said of an origin takes the place of what was said of it before, and of no other's; of many origins,
        the one account stays that counts most."""
        known = self._found.setdefault(violation.fingerprint, {})
        known.pop(origin, None)
        if len(known) >= MAX_ORIGINS:
            first = known.pop(next(iter(known)))
            known[""] = min(first, known.get("", first), key=rank_of)
        known[origin] = violation

    def finish(self) -> None:
        """What the file comes to."""
        intake = self._intake
        if intake is not None:
            intake.finish()
        if len(self._found_in) <= MAX_TOGETHER:
            for fingerprint in {f for f, _ in self._expected} - {f for f, _ in self._found_in - self._expected}:
                self._found.pop(fingerprint, None)
                self._store.expected.add(fingerprint)
        for fingerprint, origin in self._expected:
            self._found.get(fingerprint, {}).pop(origin, None)
        for violation in (v for by_origin in self._found.values() for v in by_origin.values()):
            judged = violation.fingerprint in self._judged and self._is_evident(violation)
            self._store.add_finding(violation, judged=judged, told=violation.fingerprint in self._told)
        if intake is not None:
            for number, words in ((intake.damaged, "are damaged"), (intake.lost, "were too many to be kept")):
                if number:
                    self._store.whole = False
                    self._store.problems.add(f"{shown(self._path)}: {number:,} of its orders {words}")
        if self._run and not self._combined:
            complete = self._counts is not None
            self._store.add_run(self._run, complete=complete, facts=self._facts, counts=self._counts)

    def _is_evident(self, violation: Violation) -> bool:
        """Whether the evidence for a finding is there too, so that a verdict can tell of it, or of another one instead.

        A process that was killed may not have come to write it."""
        if self._combined or (self._intake is not None and self._intake.whole):
            return True
        return self._store.is_evident(violation.rule, violation.keys)

    def _graph(self, graph: Mapping[str, Any]) -> None:
        evidence = self._store.evidence
        for item in _items(graph, "classes"):
            evidence.add_class(_name(item, "key"), _name(item, "name"), _name(item, "kind"))
        for item in _items(graph, "edges"):
            source, target = (evidence.class_number(_name(item, end)) for end in ("from", "to"))
            if source == target:
                raise ValueError("edges: an order between a class and itself")
            evidence.add_edge(source, target, _number(item, "count"))


# --- what a file may say ---------------------------------------------------------------


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected an object")
    return cast("dict[str, Any]", value)


def _items(record: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    value = record.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list")
    items = cast("list[object]", value)
    if len(items) > MAX_ITEMS:
        raise ValueError(f"{name}: {len(items):,} items, at most {MAX_ITEMS:,} are allowed")
    return [_object(item, name) for item in items]


def _origin_of(record: Mapping[str, Any]) -> str:
    return _name(record, "origin") if "origin" in record else ""


def _name(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value or len(value) > MAX_NAME:
        raise ValueError(f"{name}: expected a text of 1 to {MAX_NAME:,} characters")
    return value


def _number(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
        raise ValueError(f"{name}: expected a whole number")
    return value


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name in _TEXTS:
        value = record.get(name)
        if isinstance(value, str) and value:
            facts[name] = value[:MAX_NAME]
    argv = record.get("argv")
    if isinstance(argv, list):
        words = cast("list[object]", argv)[:100]
        facts["argv"] = [word[:MAX_NAME] for word in words if isinstance(word, str)]
    return facts


def _counts(value: object) -> dict[str, Any]:
    given = _object(value, "counts")
    counts: dict[str, Any] = {name: number for name in COUNTS if (number := _number(given, name))}
    unchecked = _object(given.get("unchecked", {}), "unchecked")
    if len(unchecked) > MAX_ITEMS:
        raise ValueError(f"unchecked: {len(unchecked):,} modules, at most {MAX_ITEMS:,} are allowed")
    if unchecked:
        counts["unchecked"] = {module[:MAX_NAME]: _number(unchecked, module) for module in sorted(unchecked)}
    return counts


def _run_of(header: Mapping[str, Any], path: str) -> str:
    """The identity of the process that wrote a file; those of the first version have none, but a start and a number."""
    given = header.get("id")
    if isinstance(given, str) and 0 < len(given) <= MAX_NAME:
        return given
    parts = (os.path.basename(path), *(str(header.get(name))[:MAX_NAME] for name in ("started", "pid")))
    return " ".join(parts)
