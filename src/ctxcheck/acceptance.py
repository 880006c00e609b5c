"""Which findings of a session are accepted, by what, and which ``allow`` has accepted nothing.

There are three sorts of ``allow``: a block or decorator of the program's (the engine knows those), a comment on the
line, an entry of the configuration.  All that cover a finding count as used by it, though the first is enough.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from os import getcwd as _getcwd
from typing import Any, Final, final

from ctxcheck.engine.allows import UnusedAllow, codes_of
from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.declared import hint
from ctxcheck.engine.findings import Entry, Finding
from ctxcheck.engine.grading import Cycle, edges_of
from ctxcheck.engine.graph import Edge, Evidence
from ctxcheck.engine.sites import PACKAGE_DIR, Trace
from ctxcheck.engine.validator import Validator
from ctxcheck.engine.violations import Violation
from ctxcheck.reports.comments import Comment, accepting, comments_at, comments_in, covering, full, known_to_have
from ctxcheck.reports.sourcetext import Sources
from ctxcheck.selection import Allowance

#: Files that are looked through for comments, and the size of one in bytes.
MAX_FILES: Final = 2_000
MAX_SIZE: Final = 1_000_000
#: Places of findings that are told apart when one is seen again.
MAX_PLACES: Final = 10_000

#: An order may be seen at many lines, of which the report shows one: a comment for such a rule counts as used where a
#: finding of the rule has a place in its file.
_OF_ORDERS: Final = frozenset({"CTX001", "CTX003", "CTX004", "CTX005", "CTX006", "CTX007", "CTX105"})


@final
class Acceptance:
    """What accepts findings in one session.

    ``selected`` says whether a rule is reported at all: an ``allow`` of others is none of this run's business.  ``cwd``
    is the folder that the files of findings are relative to: by default the working directory of each moment.
    """

    def __init__(
        self, allowances: Iterable[Allowance], selected: Callable[[str], bool], cwd: str | None = None
    ) -> None:
        self.allowances: list[Allowance] = list(allowances)
        self._cwd: str | None = cwd
        self._selected: Callable[[str], bool] = selected
        self._used: set[tuple[str, int]] = set()
        #: files of findings, by rule
        self._files: dict[str, set[str]] = {}
        #: fingerprints with their places, and the code that these belong to
        self._places: dict[tuple[Any, ...], tuple[Trace, ...]] = {}

    # --- accepting ----------------------------------------------------------------

    def apply(
        self, violation: Violation, finding: Finding, engine: Validator, seen: Mapping[Edge, Evidence] | None = None
    ) -> Violation:
        """The violation, with what accepts it.  ``seen`` is where its orders were seen; by default, in its origin."""
        self._note(finding, engine)
        here = violation.replace
        notes: list[str] = []
        for site in violation.sites:
            self._files.setdefault(violation.rule, set()).add(full(site.file, self._cwd))
        comments = accepting(violation, self._cwd)
        for file, comment in comments:
            self._used.add((full(file, self._cwd), comment.line))
        for file, comment in covering(violation, self._cwd):
            if comment.wrong:
                notes.append(f"the comment at {file}:{comment.line} accepts nothing: {comment.wrong}")
        configured = [allowance for allowance in self.allowances if allowance.covers(violation)]
        for allowance in configured:
            allowance.used += 1
        if violation.allowed_by is not None:
            return violation
        if comments:
            elsewhere = self._elsewhere(finding, engine, seen)
            file, comment = comments[0]
            if not elsewhere:
                return here(allowed_by=comment.reason, allowed_kind="comment", allowed_at=f"{file}:{comment.line}")
            notes.append(f"the comment at {file}:{comment.line} doesn't accept it: the same is done at {elsewhere}")
        if configured:
            one = configured[0]
            return here(allowed_by=one.reason, allowed_kind="configuration", allowed_at=one.where)
        return here(notes=(*violation.notes, *dict.fromkeys(notes))) if notes else violation

    def by_configuration(self, violation: Violation) -> Violation:
        """The violation, with the entry of the configuration that accepts it, if one does."""
        if violation.allowed_by is not None:
            return violation
        for one in self.allowances:
            if one.covers(violation):
                one.used += 1
                return violation.replace(allowed_by=one.reason, allowed_kind="configuration", allowed_at=one.where)
        return violation

    def by_comment(self, violation: Violation, cycle: Cycle | None, evidence: Mapping[Edge, Evidence]) -> Violation:
        """The violation, with the comment that accepts it, if one does; ``evidence`` is where its orders were seen."""
        comments = accepting(violation, self._cwd)
        if violation.allowed_by is not None or not comments:
            return violation
        file, comment = comments[0]
        elsewhere = "" if cycle is None else self._elsewhere_in(violation.rule, cycle, evidence)
        if elsewhere:
            note = f"the comment at {file}:{comment.line} doesn't accept it: the same is done at {elsewhere}"
            return violation.replace(notes=(*violation.notes, note))
        return violation.replace(
            allowed_by=comment.reason, allowed_kind="comment", allowed_at=f"{file}:{comment.line}"
        )

    def _note(self, finding: Finding, engine: Validator) -> None:
        """Note which blocks the finding has to do with."""
        engine.allows.used(finding.allowed)
        for name in ("taken", "over"):  # of a slow lock
            engine.allows.used(getattr(getattr(finding.facts, name, None), "allowed", None))
        cycle = getattr(finding.facts, "cycle", None)
        if cycle is None:
            return
        witnesses = list(cycle.witnesses)
        evidence_of = engine.origins.ledger(finding.origin).graph.evidence
        for edge in edges_of(cycle.classes):
            evidence = evidence_of.get(edge)
            witnesses += evidence.witnesses if evidence is not None else ()
        for witness in witnesses:
            engine.allows.used(witness.allowed)

    def _elsewhere(self, finding: Finding, engine: Validator, seen: Mapping[Edge, Evidence] | None) -> str:
        """Where else an order was seen that a comment accepts, with no comment there; empty if there is no such place.

        An order cycle is accepted if one of its orders is, at each place where that was seen.
        """
        cycle = getattr(finding.facts, "cycle", None)
        if cycle is None:
            return ""
        where = engine.origins.ledger(finding.origin).graph.evidence if seen is None else seen
        return self._elsewhere_in(finding.rule, cycle, where)

    def _elsewhere_in(self, rule: str, cycle: Cycle, evidence_of: Mapping[Edge, Evidence]) -> str:
        sources, uncovered = Sources(self._cwd), ""
        for edge, witness in zip(edges_of(cycle.classes), cycle.witnesses, strict=False):
            if not self._commented(sources, rule, witness):
                continue
            evidence = evidence_of.get(edge)
            others = [w for w in (evidence.places() if evidence is not None else ()) if w.allowed is None]
            free = next((w for w in others if not self._commented(sources, rule, w)), None)
            if free is None:
                return ""
            uncovered = sources.where(free.taken_at)
        return uncovered

    def _commented(self, sources: Sources, rule: str, witness: Any) -> bool:
        found = False
        for trace in (witness.taken_at, witness.held_at):
            spot = sources.head(trace)
            for comment in comments_at(spot.file, spot.line, spot.text, self._cwd):
                if rule in comment.codes:
                    self._used.add((full(spot.file, self._cwd), comment.line))
                    found = True
        return found

    def again(self, fingerprint: str, finding: Finding, known: Violation) -> bool:
        """Whether a finding that is known was seen at these very places before, so that what accepts it is known too.

        A fingerprint holds no lines: what is accepted at one line of a function may not be at the next.
        """
        if finding.allowed is not None:
            return True
        if hasattr(finding.facts, "cycle"):
            return known.allowed_by is None
        entries = (getattr(finding.facts, name, None) for name in ("held", "because", "lock", "entry"))
        traces = (finding.trace, *(entry.trace for entry in entries if type(entry) is Entry))
        heads = tuple((id(trace.codes[0]), trace.lastis[0]) for trace in traces if trace.codes)
        commented = any(known_to_have(trace.codes[0].co_filename) for trace in traces if trace.codes)
        if known.allowed_by is None and not commented:
            return True
        key = (fingerprint, known.allowed_by is None, *heads)
        if key in self._places:
            return True
        if len(self._places) < MAX_PLACES:
            self._places[key] = traces  # which keeps the code alive, and so its id
            return False
        return known.allowed_by is None

    # --- what accepted nothing --------------------------------------------------------

    def unused(self, engine: Validator) -> list[UnusedAllow]:
        """The allows that accepted nothing: of the configuration, blocks that ran, comments in the project's files."""
        return [allow for allow, used in self.every(engine) if not used]

    def every(self, engine: Validator) -> list[tuple[UnusedAllow, bool]]:
        """Every allow that there is, and whether it accepted anything."""
        found = [
            (UnusedAllow("configuration", (allowance.rule,), allowance.reason, allowance.where), bool(allowance.used))
            for allowance in self.allowances
            if self._selected(allowance.rule)
        ]
        sources = Sources(self._cwd)
        for step, used in engine.allows.every():
            codes = sorted(filter(self._selected, codes_of(step)))
            if codes:
                spot = sources.head(step.declared)
                found.append((UnusedAllow("block", tuple(codes), step.label, spot.file, spot.line), used))
        for file, comment in self._comments():
            codes = sorted(filter(self._selected, comment.codes))
            if codes:
                allow = UnusedAllow("comment", tuple(codes), comment.reason, sources.file(file), comment.line)
                found.append((allow, self.is_used(allow)))
        return found

    def is_used(self, allow: UnusedAllow) -> bool:
        """Whether a comment has accepted something here, also one of a module that isn't imported here."""
        file = full(allow.file)
        in_use = any(file in self._files.get(code, ()) for code in _OF_ORDERS.intersection(allow.rules))
        return in_use or (file, allow.line) in self._used

    def misnamed(self, classes: Iterable[LockClass], closeness: float) -> list[str]:
        """A line for each lock that an allow of the configuration names, and that is nearly one of these and none."""
        classes = list(classes)
        names = {name for lock_class in classes for name in (lock_class.name, lock_class.key)}
        lines: dict[str, None] = {}
        for allowance in self.allowances:
            where = f"{allowance.where}: " if allowance.where else ""
            for name in sorted(allowance.locks - names):
                if near := hint(name, classes, closeness):
                    said = f"an allow of {allowance.rule} names {name!r}, and no lock of that name was made{near}"
                    lines[where + said] = None
        return list(lines)

    def refused(self) -> list[str]:
        """What is wrong with comments of the project's files that accept nothing for it, a line each."""
        sources = Sources(self._cwd)
        return [f"{sources.file(file)}:{c.line}: {c.wrong}" for file, c in self._comments() if c.wrong]

    def _comments(self) -> list[tuple[str, Comment]]:
        """Each comment in the project's own files, once."""
        return [(file, comment) for file in _project_files(self._cwd) for comment in dict.fromkeys(comments_in(file))]


def _project_files(cwd: str | None) -> list[str]:
    """The files of the modules that were imported, below ``cwd`` (by default the working directory) and in no
    environment's folder, which may hold such a comment."""
    try:
        root = os.path.join(_getcwd() if cwd is None else cwd, "")
    except OSError:  # it was removed
        return []
    found: dict[str, None] = {}
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str) or file.endswith((".so", ".pyd", ".pyc")):
            continue
        file = full(file, cwd)
        if file.startswith(root) and not file.startswith(PACKAGE_DIR) and not _is_foreign(file[len(root) :]):
            found[file] = None
            if len(found) >= MAX_FILES:
                break
    return [file for file in found if _mentions(file)]


def _is_foreign(path: str) -> bool:
    parts = path.split(os.sep)[:-1]
    return any(part in ("site-packages", "dist-packages") or part.startswith(".") for part in parts)


def _mentions(file: str) -> bool:
    try:
        if os.path.getsize(file) > MAX_SIZE:
            return False
        with open(file, "rb") as source:
            return b"ctxcheck" in source.read(MAX_SIZE)
    except OSError:
        return False
