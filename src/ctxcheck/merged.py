"""What many processes come to together: their findings, and those that no single one of them had.

The verdict goes over the orders of all processes that lie on some cycle.  Only these are put together in memory;
the rest stays in the database.

A data file may come from anywhere, and names source files.  None is read because a file names it, but those of the
project (:class:`Project`).
"""

from __future__ import annotations

import io
import itertools
import linecache
import os
import stat
import tokenize
from array import array
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Final, final, overload

from ctxcheck import evidence
from ctxcheck.acceptance import Acceptance
from ctxcheck.engine.findings import Finding, origins_of
from ctxcheck.engine.grading import Owners, edges_of
from ctxcheck.engine.graph import Edge, Evidence
from ctxcheck.engine.instances import test_of
from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.sites import PACKAGE_DIR
from ctxcheck.engine.violations import Violation
from ctxcheck.evidence.format import from_portable
from ctxcheck.recorder import OWN
from ctxcheck.reports.compose import as_known, compose
from ctxcheck.reports.graphs import components
from ctxcheck.store import Store
from ctxcheck.unchanged import Spot, fits
from ctxcheck.witnesses import Assembler

#: Orders that one verdict goes over.
MAX_JUDGED: Final = 200_000
#: Bytes of a source file that is shown.
MAX_SOURCE: Final = 4 * 2**20

#: Tests that are named for one finding.
MAX_TESTS: Final = 100

#: What is said of what no single process had.
_ORDERS_APART: Final = "no single process had all of these orders: they were combined from several"
_APART: Final = {"CTX105": "no single process had both of these places: they were combined from several"}

_READ: Final = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"))
_SUFFIXES: Final = (".py", ".pyw")


def verdict(
    store: Store, owners: Owners | None = None, *, root: str | None = None, trusted: bool = False,
    accept: Callable[[Violation], Violation] | None = None, in_baseline: Callable[[Violation], bool] | None = None,
) -> list[Violation]:
    """The findings of all processes, and of all of them together, by rule and fingerprint.

    Args:
        store: what all of them saw.
        owners: as for a session; by default as the processes had it.
        root: the folder of the project; by default the working directory.
        trusted: the data is this very run's, so that any source file that it names may be shown.
        accept: gives a finding with what accepts it from outside of the program, if anything does.
        in_baseline: whether a finding is in the baseline.

    Time and memory are those of the orders that lie on a cycle, beside one pass over all.
    """
    found = {v.fingerprint: v for v in store.findings()}
    every = _settled(store, owners or store.owners(), root or os.getcwd(), trusted)
    settled = {v.fingerprint: v for v in (_named(*each, found, in_baseline) for each in every)}
    whole, judged, told = store.whole, store.judged(), store.told()  # as it is now that all was judged
    by_tests: dict[tuple[str, tuple[str, ...]], int] = {}
    for violation in (found[fingerprint] for fingerprint in told):
        if violation.allowed_by is None:  # what is accepted in one test isn't in all
            circle = violation.rule, violation.keys
            by_tests[circle] = max(GRADES.index(violation.grade), by_tests.get(circle, 0))
    for fingerprint, violation in settled.items():
        known, circle = found.get(fingerprint), (violation.rule, violation.keys)
        by_test = by_tests.get(circle, -1) >= GRADES.index(violation.grade)
        if not by_test and circle in store.excused:
            accepted = accept(violation) if accept is not None else violation
            by_test = accepted.allowed_by is not None or violation.grade == "unlikely"
        if by_test and fingerprint not in told and (known is None or known.grade != "certain"):
            found.pop(fingerprint, None)  # the same circle, by others of the places where it was seen
        elif known is None:
            if fingerprint in store.expected and circle not in store.excused:
                continue
            note = _APART.get(violation.rule, _ORDERS_APART)
            found[fingerprint] = violation.replace(notes=(note, *violation.notes))
        elif weight(known) < weight(violation) or (known.grade != "certain" and weight(known) != weight(violation)):
            found[fingerprint] = violation.replace(count=max(known.count, violation.count))
        elif fingerprint in judged and known.grade != "certain" and _shown(known) != _shown(violation):
            # one process has shown it at other places than all together do, or accepted it for another reason
            found[fingerprint] = violation.replace(count=max(known.count, violation.count))
    for fingerprint in judged - set(settled) if whole else ():
        # another cycle covers its orders, now that there are more of them
        if fingerprint in found and found[fingerprint].grade != "certain":
            del found[fingerprint]
    return sorted(found.values(), key=lambda v: (v.rule, v.fingerprint))


def _shown(violation: Violation) -> tuple[str | None, list[tuple[str, int]]]:
    return violation.allowed_by, [(site.file, site.line) for site in violation.sites]


def weight(violation: Violation) -> tuple[int, bool]:
    """Of two accounts of one finding, the one with the greater counts."""
    return GRADES.index(violation.grade), violation.allowed_by is None


def _named(
    violation: Violation, finding: Finding, seen: Mapping[Edge, Evidence], found: Container[str],
    in_baseline: Callable[[Violation], bool] | None,
) -> Violation:
    """A circle that no single process had may go by another name in the baseline."""
    if in_baseline is None or violation.fingerprint in found:
        return violation
    return as_known(violation, finding, seen, in_baseline)


def _settled(
    store: Store, owners: Owners, root: str, trusted: bool
) -> Iterator[tuple[Violation, Finding, Mapping[Edge, Evidence]]]:
    document = _document(store)
    if document is None:
        return
    project: Callable[[str], str] = Trusted(root)
    changed: set[str] = set()
    if not trusted:
        project = hidden = Project(root, _spots(document))
        changed = hidden.changed
        for name in document.get("files", ()):
            hidden.hide_library(name)
    try:
        union = evidence.load([document], file=project)
    except evidence.EvidenceError as error:  # files that contradict each other; what each process told is there
        store.whole = False
        store.problems.add(f"what all come to together can't be judged: {error}")
        return
    comments = Acceptance((), bool)
    for finding in union.findings(owners):
        cycle = getattr(finding.facts, "cycle", None)
        edges = edges_of(cycle.classes) if cycle is not None else []
        seen = {edge: union.edges[edge].evidence() for edge in edges if edge in union.edges}
        violation = comments.by_comment(compose(finding, cwd=root), cycle, seen)
        tests = dict.fromkeys(name for name in map(test_of, sorted(origins_of(finding))) if name)
        violation = violation.replace(tests=tuple(tests)[:MAX_TESTS])
        files = sorted(changed & {site.file for site in violation.sites}) if changed else []
        notes = (f"{file} has changed since: its lines aren't shown" for file in files)
        yield violation.replace(notes=(*violation.notes, *notes)) if files else violation, finding, seen


def _spots(document: dict[str, Any]) -> dict[str, list[Spot]]:
    """The places of each source file."""
    files, codes = document.get("files", ()), document.get("codes", ())
    found: dict[str, list[Spot]] = {}
    for scope, _, line, *_ in document.get("places", ()):
        file, function, first = codes[scope]
        found.setdefault(files[file], []).append(Spot(function, first, line))
    return found


def _document(store: Store) -> dict[str, Any] | None:
    """The evidence that a verdict needs: the orders on cycles, or all of them where there are interrupting contexts,
    since an order that leads to what those wait for needn't lie on a cycle."""
    witnesses = store.evidence
    witnesses.prune()
    made = Assembler(witnesses)
    uses = list(made.spots("use"))
    chosen: list[tuple[int, int, int, int]] = []
    for edge in store.witnessed_edges() if uses else _cyclic(store):
        if len(chosen) >= MAX_JUDGED:
            store.whole = False
            store.problems.add(f"more than {MAX_JUDGED:,} orders lie on cycles: the rest was not looked at")
            break
        chosen.append(edge)
    slow = {what: list(itertools.islice(made.places(what, paired=True), MAX_JUDGED + 1)) for what in ("taken", "over")}
    if any(len(rows) > MAX_JUDGED for rows in slow.values()):
        store.whole = False
        store.problems.add(f"more than {MAX_JUDGED:,} places of slow locks: the rest was not looked at")
    slots = list(itertools.islice(made.slots(), MAX_JUDGED))
    if not (chosen or uses or slots or slow["taken"]):
        return None
    body = {
        "edges": list(made.edges(chosen)),
        "uses": uses,
        "holds": list(made.spots("hold")) if uses else [],
        "senders": list(made.senders()),
        **slow,
        "slots": slots,
        "joins": made.flagged("joins"),
        "handed_over": made.flagged("handed_over"),
    }
    rows = made.rows()
    rows["owners"] = [row[:3] for row in rows.get("owners", [])]
    return {**rows, **body}


def _cyclic(store: Store) -> Iterator[tuple[int, int, int, int]]:
    """The orders that lie on a cycle.  Memory: some 20 bytes an order and class."""
    lines = _Lines()
    for _, source, target, _ in store.witnessed_edges():
        lines.add(source, target)
    component = components(lines)
    for edge in store.witnessed_edges():
        if component[edge[1]] == component[edge[2]]:
            yield edge


@final
class _Lines(Sequence[Sequence[int]]):
    """The successors of each class, in arrays; orders come sorted by their source."""

    def __init__(self) -> None:
        self._starts = array("i", [0])
        self._targets = array("i")
        self._size = 0

    def add(self, source: int, target: int) -> None:
        while len(self._starts) <= source:
            self._starts.append(len(self._targets))
        self._targets.append(target)
        self._size = max(self._size, source + 1, target + 1)

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> Sequence[int]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sequence[int]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index >= len(self._starts):
            return ()
        end = self._starts[index + 1] if index + 1 < len(self._starts) else len(self._targets)
        return self._targets[self._starts[index] : end]


@final
class Trusted:
    """Says under which name a source file is to be looked for that this run itself has named."""

    def __init__(self, root: str) -> None:
        self._root: str = os.path.abspath(root)

    def __call__(self, name: str) -> str:
        """The name to read by."""
        if name.startswith(OWN):
            return PACKAGE_DIR + name[len(OWN) :]
        return name if name.startswith("<") else os.path.join(self._root, name)


@final
class Project:
    """Says under which name a source file of a data file is to be looked for, and lets nobody read any but those of the
    project: regular files of Python below its folder, links resolved, of a bounded size, that are what they were.

    ``changed`` has the names of those, as they are shown.
    """

    def __init__(self, root: str, spots: dict[str, list[Spot]] | None = None) -> None:
        self.changed: set[str] = set()
        self._spots: dict[str, list[Spot]] = spots or {}
        self._root: str = os.path.abspath(root)
        self._real: str = os.path.realpath(root) + os.sep

    def __call__(self, name: str) -> str:
        """The name to show, and to read by, what a data file calls ``name``."""
        if name.startswith(OWN):
            return self._hide(PACKAGE_DIR + name[len(OWN) :])
        path = os.path.join(self._root, name)
        lines = self._read(path)
        if lines is None:
            return self._hide(name)
        if not fits("".join(lines), self._spots.get(name, ())):
            self.changed.add(path.removeprefix(self._root + os.sep))
            return self._hide(path)
        linecache.cache[path] = (len(lines), None, lines, path)
        return path

    def hide_library(self, name: str) -> None:
        """Keep a file of the standard library from being read."""
        own = from_portable(name)
        if own is not None:
            self._hide(own)

    def _hide(self, name: str) -> str:
        # an entry without a time is never looked at again: whoever asks for a line gets none
        for key in (name, os.path.abspath(name)) if "\0" not in name else (name,):
            linecache.cache[key] = (0, None, [], key)
        return name

    def _read(self, path: str) -> list[str] | None:
        if "\0" in path or not path.endswith(_SUFFIXES):
            return None
        try:
            real = os.path.realpath(path)
            if not real.startswith(self._real):
                return None
            with os.fdopen(os.open(real, _READ), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_SOURCE:
                    return None
                data = file.read(MAX_SOURCE + 1)
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
        except (OSError, ValueError, SyntaxError, LookupError):
            return None
        return io.StringIO(text).readlines()
