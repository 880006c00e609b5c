"""What a suite comes to: in this process, or in those of its workers together.

Each process has what its tests have shown, what no test can be blamed for (imports, fixtures of wider scopes, the
background), and its evidence.  The process that reports puts the evidence of all together, and so finds what no single
test has by itself; a suite that runs in one process goes the same way, so that it doesn't matter how it was split.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import pytest

from ctxcheck import baseline, evidence, outputs
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.findings import Finding, InterruptFacts, OrderFacts, SlowFacts
from ctxcheck.engine.origins import BACKGROUND, outliving
from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.reports import json as json_report
from ctxcheck.reports import text
from ctxcheck.reports.cells import count_of, safe
from ctxcheck.reports.formats import Report

if TYPE_CHECKING:
    from ctxcheck.pytest_plugin.checks import Checks

SCHEMA_VERSION: Final = 1
TITLE: Final = "ctxcheck: cross-test violations"
#: Findings of several tests each that are listed at the end.
MAX_LISTED: Final = 10


class Results:
    """Everything that is reported at the end.

    ``begun`` is how many tests were begun here, ``tests`` how many anywhere, ``found`` what each origin has shown,
    ``unused`` lines on what accepted nothing, ``missing`` the workers that never said.
    """

    def __init__(self, checks: Checks) -> None:
        self._checks: Checks = checks
        self.begun: int = 0
        self.tests: int = 0
        self.found: dict[str, list[Violation]] = {}
        self.unused: list[str] = []
        self.missing: list[str] = []
        #: the cycles that were told of by an origin: rule, class keys, grade
        self._told: dict[tuple[str, tuple[str, ...]], int] = {}
        self._documents: list[Any] = []
        self._counts: list[Counts] = []
        self._workers: int = 0
        self._edges: set[tuple[str, str]] = set()
        self._classes: dict[str, str] = {}
        self._problems: list[str] = []
        #: for each process that ran tests, what accepted nothing there
        self._unused_allows: list[set[str]] = []
        self._refused: dict[str, None] = {}
        self._cross: list[tuple[Violation, list[str]]] = []
        self._concluded: bool = False

    # --- what comes in --------------------------------------------------------------------

    def add_test(self, nodeid: str, violations: list[Violation], expected: Iterable[str] = ()) -> None:
        """A test is over."""
        if violations:
            self.found[nodeid] = violations
        for violation in violations:
            self._note_told(violation.rule, violation.keys, GRADES.index(violation.grade))
        for fingerprint in expected:
            self._note_told(fingerprint, (), len(GRADES))

    def _note_told(self, rule: str, keys: tuple[str, ...], grade: int) -> None:
        self._told[rule, keys] = max(grade, self._told.get((rule, keys), -1))

    def _of_this_process(self) -> dict[str, Any]:
        """What this process has to say, as plain data."""
        session = self._checks.session
        engine = session.engine
        for origin in session.origins():
            # what is left of a test came when it was over: a lock that was collected late
            self.found.setdefault(outliving(origin) if origin[:1] != "<" else origin, []).extend(
                v for v in session.found_in(origin) if v.rule not in _ACROSS or v.grade == "certain"
            )
        instances = None if engine.broken else engine.orders.quietly(engine.origins.findings)
        for finding in instances or []:
            if (violation := session.put_into_words(finding)) is not None:
                self.found.setdefault(finding.origin, []).append(violation)
        others = [v for v in session.violations if v.rule not in _ACROSS]
        if others:
            self.found.setdefault(BACKGROUND, []).extend(others)
        whole = engine.orders.quietly(engine.origins.everything)
        counts = session.counts()
        return {
            "schema_version": SCHEMA_VERSION,
            "tests": self.begun,
            "found": [[origin, v.to_dict()] for origin, vs in self.found.items() for v in vs],
            "told": [[rule, list(keys), grade] for (rule, keys), grade in self._told.items()],
            "unused": self.unused,
            "unused_allows": [] if engine.broken else list(map(str, session.unused_allows)),
            "refused_allows": [] if engine.broken else session.refused_allows,
            # not the thread that runs the tests: it was asked by us
            "counts": dataclasses.asdict(dataclasses.replace(counts, threads=max(0, counts.threads - 1))),
            "evidence": evidence.dump(whole) if whole is not None else None,
        }

    def receive(self, worker: str, sent: str) -> None:
        """A worker's results have come."""
        try:
            self._take(json.loads(sent))
        except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._problems.append(f"the data of worker {worker} can't be used: {' '.join(str(error).split())[:200]}")
            self.missing.append(worker)
        self._workers += 1

    def _take(self, data: dict[str, Any]) -> None:
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {data['schema_version']}, not {SCHEMA_VERSION}")
        for origin, violation in data["found"]:
            self.found.setdefault(origin, []).append(json_report.violation_from_dict(violation))
        for rule, keys, grade in data["told"]:
            self._note_told(rule, tuple(keys), grade)
        self.tests += data["tests"]
        self.unused += data["unused"]
        if data["tests"]:
            self._unused_allows.append(set(data["unused_allows"]))
        self._refused.update(dict.fromkeys(data["refused_allows"]))
        self._counts.append(Counts(**data["counts"]))
        if data["evidence"] is not None:
            self._documents.append(data["evidence"])

    # --- what it comes to -----------------------------------------------------------------

    def conclude(self, session: pytest.Session) -> None:
        """All tests have run: send what this process has, or say what all of them come to."""
        config: Any = session.config
        own = self._of_this_process()
        if hasattr(config, "workerinput"):
            config.workeroutput["ctxcheck"] = json.dumps(own)
            return
        # it has what came from workers in it
        self.found, self.unused, self._told = {}, [], {}
        if self._workers and not own["tests"]:
            own["counts"] = dataclasses.asdict(Counts())  # what goes on here is the talk with workers
        self._take(own)
        self._concluded = True
        try:
            self._judge()
        except ConfigError as error:
            self._problems.append(str(error))
        # what accepted nothing anywhere, nor what all show together
        if self._unused_allows and not self._checks.session.engine.broken:
            used = set(own["unused_allows"]) - set(map(str, self._checks.session.unused_allows))
            self.unused += sorted(set[str].intersection(*self._unused_allows) - used)
        # those in files here: there may be no terminal
        files = [output for output in self._checks.settings.outputs if output.path is not None]
        always = self._checks.settings.config.color == "always"
        outputs.emit(
            files, self._report(), say=self._problems.append, cwd=self._checks.settings.cwd, always_color=always
        )
        strict = self._checks.settings.config.strict
        failing = any(self._checks.session.fails(v) for v, _ in self._cross)
        failing = failing and self._checks.settings.config.mode != "warn"
        if failing or (strict and bool(self._complaints() or self._problems or self._checked_nothing())):
            session.testsfailed += 1

    def _judge(self) -> None:
        union = evidence.load(self._documents)
        self._edges = {(a.key, b.key) for a, b in union.edges if not (a.kind.awaited or b.kind.awaited)}
        self._classes = {c.key: c.kind.name for c in union.seen}
        seen: dict[str, tuple[Violation, list[str]]] = {}
        for finding in union.findings(self._checks.session.engine.owners):
            violation = self._checks.session.put_into_words(finding)
            if violation is None or self._is_told(violation):
                continue
            known = seen.get(violation.fingerprint)
            if known is None or GRADES.index(known[0].grade) < GRADES.index(violation.grade):
                origins = _origins(finding)
                seen[violation.fingerprint] = (_labelled(violation, finding, origins), origins)
        for origin, violations in sorted(self.found.items()):
            if not origin.startswith("<"):
                continue
            for violation in violations:
                if violation.fingerprint in seen:
                    seen[violation.fingerprint][1].append(origin)
                else:
                    note = f"seen in {origin}, which is no test"
                    seen[violation.fingerprint] = (violation.replace(notes=(*violation.notes, note)), [origin])
        self._cross = sorted(seen.values(), key=lambda pair: (pair[0].rule, pair[0].fingerprint))
        for violation, _ in self._cross:
            self._checks.data.write(
                {"type": "violation", "violation": violation.to_dict(), "origin": "<cross-test>"}
            )

    def _is_told(self, violation: Violation) -> bool:
        """Whether some test has shown this by itself, and at least as surely."""
        told = self._told.get((violation.rule, violation.keys), -1)
        return told >= GRADES.index(violation.grade) or (violation.fingerprint, ()) in self._told

    def _complaints(self) -> list[str]:
        crashed = [f"no lock data from {worker}: it crashed" for worker in self.missing]
        return [*self.unused, *self._refused, *crashed, *self._stale()]

    def _stale(self) -> list[str]:
        known = self._checks.baseline
        if known is None:
            return []
        entries = map(baseline.describe, known.stale(self.everything()))
        return [f"in the baseline, and no longer found: {entry}" for entry in entries]

    def _checked_nothing(self) -> bool:
        return bool(self.tests) and self.counts().nothing()

    def counts(self) -> Counts:
        """What was checked, in all processes together."""
        total = Counts(lock_classes=len(self._classes), orders=len(self._edges))
        summed = ("chains", "acquisitions", "marked_calls", "dropped", "uncached", "threads")
        return dataclasses.replace(
            total, **{name: sum(getattr(counts, name) for counts in self._counts) for name in summed}
        )

    def everything(self) -> list[Violation]:
        """Every violation, one a fingerprint."""
        found: dict[str, Violation] = {v.fingerprint: v for v, _ in self._cross}
        for origin in sorted(self.found):
            for violation in self.found[origin]:
                known = found.get(violation.fingerprint)
                if known is None or (known.allowed_by is not None and violation.allowed_by is None):
                    found[violation.fingerprint] = violation
        return list(found.values())

    # --- what is said ---------------------------------------------------------------------

    def show(self, terminal: Any) -> None:
        """The section on what no test has by itself, the reports that were asked for, and the last line."""
        if not self._concluded:
            return
        wanted = self._checks.settings.outputs
        quiet = bool(wanted) and all(output.type == "none" for output in wanted)
        shown = [(v, o) for v, o in self._cross if v.allowed_by is None]
        color = bool(terminal.hasmarkup)
        limit = self._checks.settings.config.max_reports
        if shown and not quiet:
            terminal.section(TITLE)
            for violation, origins in shown[:limit]:
                short = violation.grade == "unlikely"
                terminal.write_line((text.render_short if short else text.render)(violation, color=color))
                if (line := reproduce(origins)) and not short:
                    terminal.write_line(f"  reproduce: {line}")
                terminal.write_line("")
            if len(shown) > limit:
                terminal.write_line(f"ctxcheck: {len(shown) - limit} more not shown; raise max-reports")
        for line in [*self._checks.warned, *self._problems, *self._complaints()]:
            terminal.write_line(f"ctxcheck: warning: {line}")
        # the text is what tests failed with, and the section above
        others = [output for output in wanted if output.path is None and output.type != "text"]
        outputs.emit(
            others, self._report(), say=terminal.write_line, cwd=self._checks.settings.cwd, color=color
        )
        if self._checks.data.error:
            terminal.write_line(f"ctxcheck: warning: {self._checks.data.error}")
        if not quiet:
            for line in self._in_many():
                terminal.write_line(f"ctxcheck: {line}")
        if self.tests or self.found or self._cross:
            terminal.write_line(self._last_line())

    def _report(self) -> Report:
        settings = self._checks.settings
        return Report(
            self.everything(),
            self.counts(),
            run={"argv": list(sys.argv[1:]), "python": sys.version.split()[0], "platform": sys.platform},
            graph={
                "classes": [{"key": key, "kind": kind} for key, kind in sorted(self._classes.items())],
                "edges": [{"from": source, "to": target} for source, target in sorted(self._edges)],
            },
            most=settings.config.max_reports,
            prefix=outputs.prefix(settings.cwd),
        )

    def _tests_with(self) -> dict[str, set[str]]:
        """By fingerprint, the tests that have shown it by themselves, of what fails them."""
        tests: dict[str, set[str]] = {}
        for origin, violations in self.found.items():
            for violation in violations:
                if origin[:1] != "<" and self._checks.session.fails(violation):
                    tests.setdefault(violation.fingerprint, set()).add(origin)
        return tests

    def _in_many(self) -> list[str]:
        """What several tests have shown: it looks like more than it is, a report each."""
        tests = self._tests_with()
        many = sorted((f for f in tests if len(tests[f]) > 1), key=lambda f: (-len(tests[f]), f))
        known = {v.fingerprint: v for v in self.everything()}
        lines: list[str] = []
        for fingerprint in many[:MAX_LISTED]:
            violation = known[fingerprint]
            site = violation.sites[0] if violation.sites else None
            where = "" if site is None else f" at {safe(site.file)}:{site.line}"
            lines.append(f"one finding in {len(tests[fingerprint]):,} tests: {violation.rule}{where} ({fingerprint})")
        if len(many) > MAX_LISTED:
            lines.append(f"{len(many) - MAX_LISTED:,} more findings in several tests each")
        return lines

    def _last_line(self) -> str:
        summary = text.summary(self.everything(), self.counts())
        parts: list[str] = []
        tests = self._tests_with().values()
        if any(len(where) > 1 for where in tests):
            parts.append(f"in {len(set[str]().union(*tests)):,} tests")
        if self.unused:
            parts.append(count_of(len(self.unused), "unused allow"))
        if self._workers:
            parts.append(count_of(self._workers, "worker"))
        return f"{summary} ({', '.join(parts)})" if parts else summary


#: What is judged from the evidence of all origins together.
_ACROSS: Final = frozenset({"CTX001", "CTX004", "CTX005", "CTX006"})


def _origins(finding: Finding) -> list[str]:
    """Where what makes a finding was seen."""
    facts = finding.facts
    if isinstance(facts, (OrderFacts, InterruptFacts)):
        return sorted({w.origin for w in facts.cycle.witnesses} - {""})
    if isinstance(facts, SlowFacts):
        return sorted({facts.taken.origin, facts.over.origin} - {""})
    return []


def _labelled(violation: Violation, finding: Finding, origins: list[str]) -> Violation:
    """Say of each order in which test it was seen."""
    facts = finding.facts
    if isinstance(facts, SlowFacts) and len(origins) > 1:
        where = f"the slow call was seen in {facts.over.origin}, the acquire in {facts.taken.origin}"
        return violation.replace(notes=(where, *violation.notes))
    if not isinstance(facts, OrderFacts) or len(origins) < 2:
        return violation
    classes = facts.cycle.classes
    lines = [
        f"`{a.name}` -> `{b.name}` was seen in {witness.origin}"
        for a, b, witness in zip(classes, (*classes[1:], classes[0]), facts.cycle.witnesses, strict=True)
    ]
    return violation.replace(notes=("no single test has all of these orders:", *lines, *violation.notes))


def reproduce(origins: Iterable[str]) -> str:
    """The command that runs just the tests that a finding was made of; empty if there are none."""
    tests = dict.fromkeys(
        origin.removeprefix(f"{BACKGROUND} of ")
        for origin in origins
        if not origin.startswith("<") or origin.startswith(f"{BACKGROUND} of ")
    )
    return " ".join(["pytest --ctxcheck", *(f'"{test}"' for test in tests)]) if tests else ""
