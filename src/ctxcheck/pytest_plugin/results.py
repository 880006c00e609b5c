"""What a suite comes to: in this process, or in those of its workers together.

Each process has what its tests have shown, what no test can be blamed for (imports, fixtures of wider scopes, the
background), and its evidence.  The process that reports puts the evidence of all together, and so finds what no single
test has by itself; a suite that runs in one process goes the same way, so that it doesn't matter how it was split.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import pytest

from ctxcheck import baseline, evidence, outputs
from ctxcheck.engine.allows import UnusedAllow
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.findings import Finding, OrderFacts, SlowFacts, origins_of
from ctxcheck.engine.grading import edges_of
from ctxcheck.engine.instances import BACKGROUND, test_of
from ctxcheck.engine.origins import outliving
from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.locks import scope
from ctxcheck.pytest_plugin import selected
from ctxcheck.reports import json as json_report
from ctxcheck.reports import text
from ctxcheck.reports.cells import count_of, safe
from ctxcheck.reports.formats import Report

if TYPE_CHECKING:
    from ctxcheck.pytest_plugin.checks import Checks

SCHEMA_VERSION: Final = 1
TITLE: Final = "ctxcheck: cross-test violations"
#: Tests that are named for one finding.
MAX_TESTS: Final = 100
#: Over what is shown and fails nobody: it is unlikely, or not as sure as was asked for.
MILD: Final = "ctxcheck: findings that fail nothing"
#: Findings of several tests each that are listed at the end.
MAX_LISTED: Final = 10


class Results:
    """Everything that is reported at the end.

    ``begun`` is how many tests were begun here, ``tests`` how many anywhere, ``found`` what each origin has shown,
    ``unused`` lines on what accepted nothing, ``missing`` the workers that never said.  ``before``: what was checked
    before in another process, from which this one was forked.
    """

    def __init__(self, checks: Checks, before: Counts | None = None) -> None:
        self._checks: Checks = checks
        self._before: Counts = before or Counts()
        self.begun: int = 0
        self.tests: int = 0
        self.found: dict[str, list[Violation]] = {}
        self.unused: list[str] = []
        self.missing: list[str] = []
        #: how many tests were collected here that somebody has left out then, and how many anywhere
        self.left_out: int = 0
        self._left_out: int = 0
        #: the cycles that were told of by an origin: rule, class keys, grade
        self._told: dict[tuple[str, tuple[str, ...]], int] = {}
        #: those that were accepted, or expected, in the test that has shown them by itself
        self._excused: set[tuple[str, tuple[str, ...]]] = set()
        self._documents: list[Any] = []
        self._counts: list[Counts] = []
        self._workers: int = 0
        #: how often each order was recorded; the name and kind of each class
        self._edges: dict[tuple[str, str], int] = {}
        self._classes: dict[str, tuple[str, str]] = {}
        self._problems: list[str] = []
        #: the reports that can't be written, a line each
        self._lost: list[str] = []
        #: every allow that ran somewhere, and whether it accepted anything anywhere
        self._allows: dict[UnusedAllow, bool] = {}
        #: rules and reasons of the blocks around orders that several tests show together
        self._in_use: set[tuple[str, str]] = set()
        self._refused: dict[str, None] = {}
        self._cross: list[tuple[Violation, list[str]]] = []
        self._concluded: bool = False
        self._whole: bool = False

    # --- what comes in --------------------------------------------------------------------

    def add_test(self, nodeid: str, violations: list[Violation]) -> None:
        """A test is over."""
        for violation in violations:
            # it may have run before, or another one of this name: what nobody accepts counts
            known = self.found.setdefault(nodeid, [])
            same = next((v for v in known if v.fingerprint == violation.fingerprint), None)
            if same is not None and (same.allowed_by is not None or violation.allowed_by is None):
                known.remove(same)
                same = None
            if same is None:
                known.append(violation.replace(tests=(nodeid,)))
        for violation in violations:
            if violation.allowed_by is None:
                self._note_told(violation.rule, violation.keys, GRADES.index(violation.grade))
            else:
                self._excused.add((violation.rule, violation.keys))

    def expected(self, violations: Iterable[Violation]) -> None:
        """The test that is over has shown these, and is meant to."""
        self._excused.update((violation.rule, violation.keys) for violation in violations)

    def _note_told(self, rule: str, keys: tuple[str, ...], grade: int) -> None:
        self._told[rule, keys] = max(grade, self._told.get((rule, keys), -1))

    def of_this_process(self) -> dict[str, Any]:
        """What this process has to say, as plain data."""
        session = self._checks.session
        engine = session.engine
        found = {origin: list(violations) for origin, violations in self.found.items()}
        for origin in session.origins():
            # what is left of a test came when it was over: a lock that was collected late
            found.setdefault(outliving(origin) if origin[:1] != "<" else origin, []).extend(
                v for v in session.found_in(origin) if v.rule not in _ACROSS or v.grade == "certain"
            )
        instances = None if engine.broken else engine.orders.quietly(engine.origins.findings)
        for finding in instances or []:
            if (violation := session.put_into_words(finding)) is not None:
                found.setdefault(finding.origin, []).append(violation)
        others = [v for v in session.violations if v.rule not in _ACROSS]
        if others:
            found.setdefault(BACKGROUND, []).extend(others)
        whole = engine.orders.quietly(engine.origins.everything)
        counts = self._since(session.counts())
        return {
            "schema_version": SCHEMA_VERSION,
            "tests": self.begun,
            "left_out": self.left_out,
            "found": [[origin, v.to_dict()] for origin, vs in found.items() for v in vs],
            "told": [[rule, list(keys), grade] for (rule, keys), grade in self._told.items()],
            "excused": [[rule, list(keys)] for rule, keys in sorted(self._excused)],
            "unused": self.unused,
            "allows": [] if engine.broken else [[dataclasses.astuple(a), used] for a, used in session.allows()],
            "refused_allows": [] if engine.broken else session.refused_allows,
            # not the thread that runs the tests: it was asked by us; nor those that only talk to xdist's workers
            "counts": dataclasses.asdict(
                dataclasses.replace(counts, threads=max(0, counts.threads - 1) if self.begun else 0)
            ),
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
        self._excused.update((rule, tuple(keys)) for rule, keys in data["excused"])
        self.tests += data["tests"]
        self._left_out = max(self._left_out, data["left_out"])
        self.unused += data["unused"]
        for (kind, rules, reason, file, line), used in data["allows"] if data["tests"] else ():
            allow = UnusedAllow(kind, tuple(rules), reason, file, line)
            self._allows[allow] = self._allows.get(allow, False) or used
        self._refused.update(dict.fromkeys(data["refused_allows"]))
        self._counts.append(Counts(**data["counts"]))
        if data["evidence"] is not None:
            self._documents.append(data["evidence"])

    def _take_notes(self) -> None:
        """What has come with the reports of tests that ran in processes of their own."""
        notes = self._checks.notes
        for sent in notes.sent():
            try:
                self._take(json.loads(sent))
            except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
                self._problems.append(f"the data of a forked test can't be used: {' '.join(str(error).split())[:200]}")
        if not self.missing and (line := notes.silent()):
            self._problems.append(line)

    # --- what it comes to -----------------------------------------------------------------

    def conclude(self, session: pytest.Session) -> None:
        """All tests have run: send what this process has, or say what all of them come to."""
        config: Any = session.config
        own = json.dumps(self.of_this_process())
        if hasattr(config, "workerinput"):
            config.workeroutput["ctxcheck"] = own
            return
        # it has what came from workers in it
        self.found, self.unused, self._told, self._excused = {}, [], {}, set()
        # read back like a worker's: what JSON can't hold mustn't make a difference
        data: dict[str, Any] = json.loads(own)
        if self._workers and not data["tests"]:
            data["counts"] = dataclasses.asdict(Counts())  # what goes on here is the talk with workers
        self._take(data)
        self._take_notes()
        self._concluded = True
        self._whole = bool(self.tests) and selected.is_whole(session, left_out=self._left_out) and not self.missing
        try:
            self._judge()
        except ConfigError as error:
            self._problems.append(str(error))
        # what accepted nothing anywhere, nor what all show together
        self._in_use.update((v.rule, v.allowed_by) for v, _ in self._cross if v.allowed_by is not None)
        configured = {(a.rule, a.reason, a.where) for a in self._checks.session.allowances if a.used}
        for allow, used in self._allows.items() if self._whole else ():
            in_block = allow.kind == "block" and any((rule, allow.reason) in self._in_use for rule in allow.rules)
            in_file = allow.kind == "configuration" and (*allow.rules, allow.reason, allow.file) in configured
            if not (used or in_block or in_file or self._checks.session.uses_comment(allow)):
                self.unused.append(str(allow))
        self.unused.sort()
        # those in files here: there may be no terminal
        files = [output for output in self._checks.settings.outputs if output.path is not None]
        always = self._checks.settings.config.color == "always"
        said: list[str] = []
        outputs.emit(files, self._report(), say=said.append, cwd=self._checks.settings.cwd, always_color=always)
        # they come with a prefix, and speak of the other command's option
        self._lost = [line.replace(" --output ", " --ctxcheck-output ", 1) for line in said]
        strict = self._checks.settings.config.strict
        failing = any(self._checks.session.fails(v) for v, _ in self._cross)
        failing = failing and self._checks.settings.config.mode != "warn"
        self._end_data()
        amiss = strict and bool(self._warnings() or self._checked_nothing())
        if failing or amiss or self._lost:
            session.testsfailed += 1

    def _end_data(self) -> None:
        """Say what else there is to be warned of: what can't be written, and what the configuration leaves out."""
        if self._checks.data.error:
            self._problems.append(self._checks.data.error)
        missed = [self._checks.settings.config.misses(), "" if self._workers else scope.misses()]
        self._problems += filter(None, missed)

    def _warnings(self) -> list[str]:
        return [*self._checks.warned, *self._problems, *self._complaints()]

    def _judge(self) -> None:
        union = evidence.load(self._documents)
        locks = {edge: pool.count for edge, pool in union.edges.items() if not any(c.kind.awaited for c in edge)}
        self._edges = {(a.key, b.key): count for (a, b), count in locks.items()}
        self._classes = {c.key: (c.name, c.kind.name) for c in union.seen}
        self._problems += self._checks.session.misnamed(union.seen)
        seen: dict[str, tuple[Violation, list[str]]] = {}
        for finding in union.findings(self._checks.session.engine.owners):
            cycle = getattr(finding.facts, "cycle", None)
            edges = [edge for edge in (edges_of(cycle.classes) if cycle is not None else ()) if edge in union.edges]
            seen_at = {edge: union.edges[edge].evidence() for edge in edges}
            self._in_use.update((finding.rule, w.allowed) for e in seen_at.values() for w in e.places() if w.allowed)
            violation = self._checks.session.put_into_words(finding, seen_at)
            if violation is None or self._is_told(violation):
                continue
            known = seen.get(violation.fingerprint)
            if known is None or GRADES.index(known[0].grade) < GRADES.index(violation.grade):
                origins = sorted(origins_of(finding))
                if violation.allowed_kind == "block":
                    violation = violation.replace(allowed_at=self._block_of(violation))
                seen[violation.fingerprint] = (_labelled(violation, finding, origins), origins)
        for origin, violations in sorted(self.found.items()):
            if not origin.startswith("<"):
                continue
            for violation in violations:
                if violation.fingerprint in seen:
                    seen[violation.fingerprint][1].append(origin)
                else:
                    note = f"seen in {origin}, which is no test"
                    # how often a fixture is set up depends on how the tests are split
                    told = violation.replace(notes=(*violation.notes, note), count=1)
                    seen[violation.fingerprint] = (told, [origin])
        pairs = [(v.replace(tests=tuple(_tests(origins))), origins) for v, origins in seen.values()]
        self._cross = sorted(pairs, key=lambda pair: (pair[0].rule, pair[0].fingerprint))
        for violation, _ in self._cross:
            self._checks.data.write(
                {
                    "type": "violation",
                    "violation": violation.to_dict(),
                    "judged": self._checks.session.is_judged(violation),
                    "origin": "<cross-test>",
                }
            )

    def _block_of(self, violation: Violation) -> str:
        """Where the block stands that accepts a finding, as far as its reason tells."""
        places = [
            (allow.file, allow.line)
            for allow in self._allows
            if allow.kind == "block" and allow.reason == violation.allowed_by and violation.rule in allow.rules
        ]
        file, line = min(places, default=("", 0))
        return f"{file}:{line}" if line else file

    def _is_told(self, violation: Violation) -> bool:
        """Whether some test has shown this by itself, and at least as surely; or there is no need to tell, as it is
        accepted, like there.  What is accepted in one test isn't in others that show the same without it."""
        circle = violation.rule, violation.keys
        if self._told.get(circle, -1) >= GRADES.index(violation.grade):
            return True
        return circle in self._excused and (violation.allowed_by is not None or violation.grade == "unlikely")

    def _complaints(self) -> list[str]:
        crashed = [f"no lock data from {worker}: it crashed" for worker in self.missing]
        return [*self.unused, *sorted(self._refused), *crashed, *self._stale()]

    def _stale(self) -> list[str]:
        known = self._checks.baseline
        if known is None or not self._whole:
            return []
        entries = map(baseline.describe, known.stale(self.everything()))
        return [f"in the baseline, and no longer found: {entry}" for entry in entries]

    def _checked_nothing(self) -> bool:
        option = self._checks.config.option
        asked = not (getattr(option, "setuponly", False) or getattr(option, "setupplan", False))
        return asked and bool(self.tests) and self.counts().nothing()

    def counts(self) -> Counts:
        """What was checked, in all processes together."""
        total = Counts(lock_classes=len(self._classes), orders=len(self._edges))
        return dataclasses.replace(
            total, **{name: sum(getattr(counts, name) for counts in self._counts) for name in _SUMMED}
        )

    def _since(self, counts: Counts) -> Counts:
        """What was checked since this process was forked, if it was."""
        own = {name: getattr(counts, name) - getattr(self._before, name) for name in _SUMMED}
        return dataclasses.replace(counts, **own)

    def everything(self) -> list[Violation]:
        """Every violation, one a fingerprint."""
        found: dict[str, Violation] = {v.fingerprint: v for v, _ in self._cross}
        for origin in sorted(self.found):
            for violation in sorted(self.found[origin], key=lambda v: (v.rule, v.fingerprint)):
                known = found.get(violation.fingerprint)
                tests = tuple(dict.fromkeys((*(known.tests if known else ()), *violation.tests)))[:MAX_TESTS]
                if known is None or (known.allowed_by is not None and violation.allowed_by is None):
                    known = violation
                found[violation.fingerprint] = known.replace(tests=tests)
        return list(found.values())

    # --- what is said ---------------------------------------------------------------------

    def show(self, terminal: Any) -> None:
        """The section on what no test has by itself, the reports that were asked for, and the last line."""
        if not self._concluded:
            return
        wanted = self._checks.settings.outputs
        quiet = bool(wanted) and all(output.type == "none" for output in wanted)
        color = bool(terminal.hasmarkup)
        open_ = [(v, o) for v, o in self._cross if v.allowed_by is None and not v.baselined]
        fails = self._checks.session.fails
        if not quiet:
            self._section(terminal, TITLE, [(v, o) for v, o in open_ if fails(v)])
            mild = [*(pair for pair in open_ if not fails(pair[0])), *self._mild()]
            self._section(terminal, MILD, sorted(mild, key=lambda pair: (pair[0].rule, pair[0].fingerprint)))
        strict = self._checks.settings.config.strict
        nothing = ["nothing was checked"] if strict and self._checked_nothing() else []
        for line in [*self._warnings(), *nothing]:
            terminal.write_line(f"ctxcheck: {'strict' if strict else 'warning'}: {line}")
        for line in self._lost:
            terminal.write_line(line)
        # the text is what tests failed with, and the section above
        others = [output for output in wanted if output.path is None and output.type != "text"]
        outputs.emit(
            others, self._report(), say=terminal.write_line, cwd=self._checks.settings.cwd, color=color
        )
        if not quiet:
            for line in self._in_many():
                terminal.write_line(f"ctxcheck: {line}")
        if self.tests or self.found or self._cross:
            terminal.write_line(self._last_line())

    def _section(self, terminal: Any, title: str, shown: list[tuple[Violation, list[str]]]) -> None:
        """Findings, each with where it is from: the command that runs just those tests, or their names in short."""
        limit = self._checks.settings.config.max_reports
        if shown:
            terminal.section(title)
        for violation, origins in shown[:limit]:
            short = violation.grade == "unlikely"
            shape = text.render_short if short else text.render
            terminal.write_line(shape(violation, color=bool(terminal.hasmarkup)))
            if title == MILD:
                terminal.write_line(f"  seen in: {in_short(origins)}")
            elif line := reproduce(origins, self._from_here):
                terminal.write_line(f"  reproduce: {line}")
            terminal.write_line("")
        if len(shown) > limit:
            terminal.write_line(f"ctxcheck: {len(shown) - limit} more not shown; raise max-reports")

    def _from_here(self, nodeid: str) -> str:
        """A test's name as it is called from the working directory; tests are named from pytest's root folder."""
        path, colons, rest = nodeid.partition("::")
        config = self._checks.config
        return os.path.relpath(config.rootpath / path, config.invocation_params.dir) + colons + rest

    def _mild(self) -> list[tuple[Violation, list[str]]]:
        """What tests have shown that failed none of them (a mark may expect it), neither accepted nor known before."""
        told = self._checks.notes.shown | {violation.fingerprint for violation, _ in self._cross}
        seen: dict[str, tuple[Violation, list[str]]] = {}
        for origin, violations in sorted(self.found.items()):
            for violation in violations:
                open_ = violation.allowed_by is None and not violation.baselined
                if open_ and not origin.startswith("<") and violation.fingerprint not in told:
                    seen.setdefault(violation.fingerprint, (violation, []))[1].append(origin)
        return list(seen.values())

    def _report(self) -> Report:
        settings = self._checks.settings
        return Report(
            self.everything(),
            self.counts(),
            run={"argv": list(sys.argv[1:]), "python": sys.version.split()[0], "platform": sys.platform},
            graph={
                "classes": [
                    {"key": key, "name": name, "kind": kind} for key, (name, kind) in sorted(self._classes.items())
                ],
                "edges": [{"from": a, "to": b, "count": count} for (a, b), count in sorted(self._edges.items())],
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


#: What is counted by each process for itself.
_SUMMED: Final = ("chains", "acquisitions", "marked_calls", "dropped", "uncached", "threads")

#: What is judged from the evidence of all origins together.
_ACROSS: Final = frozenset({"CTX001", "CTX004", "CTX005", "CTX006"})


def _labelled(violation: Violation, finding: Finding, origins: list[str]) -> Violation:
    """Say of each order in which test it was seen."""
    facts = finding.facts
    if isinstance(facts, SlowFacts) and len(origins) > 1:
        where = f"the slow call was seen in {facts.over.origin}, the acquire in {facts.taken.origin}"
        return _with_notes(violation, where)
    if not isinstance(facts, OrderFacts) or len(origins) < 2:
        return violation
    classes = facts.cycle.classes
    lines = [
        f"`{a.name}` -> `{b.name}` was seen in {witness.origin}"
        for a, b, witness in zip(classes, (*classes[1:], classes[0]), facts.cycle.witnesses, strict=True)
    ]
    return _with_notes(violation, "no single test has all of these orders:", *lines)


def _with_notes(violation: Violation, *notes: str) -> Violation:
    """With these first; but why something is unlikely stays before them, since the short form shows just that."""
    at = 1 if violation.grade == "unlikely" else 0
    return violation.replace(notes=(*violation.notes[:at], *notes, *violation.notes[at:]))


def in_short(origins: Iterable[str]) -> str:
    """Where something was seen: the first of them, and how many more there are."""
    first, *more = dict.fromkeys(origins) or [BACKGROUND]
    return f"{first} and {count_of(len(more), 'other')}" if more else first


def _tests(origins: Iterable[str]) -> list[str]:
    """The tests among them, and those that were outlived."""
    return [name for name in dict.fromkeys(map(test_of, origins)) if name]


def reproduce(origins: Iterable[str], from_here: Callable[[str], str]) -> str:
    """The command that runs just the tests that a finding was made of; empty if there are none.  ``from_here`` gives
    a test's name as it is called from the working directory.

    A fixture of a module or class, or a module that is imported, may have its part through any of the tests there: a
    thread that it has started does what those want done.
    """
    origins = list(origins)
    shared = {origin: _base_of_fixture(origin) for origin in origins if _is_shared(origin)}
    bases = [base for base in shared.values() if base]
    tests = [test for test in _tests(origins) if not any(_is_below(test, base) for base in bases)]
    if len(bases) < len(shared):
        tests = [test.partition("::")[0] for test in tests]
    named = [from_here(test) for test in dict.fromkeys((*bases, *tests))] if _tests(origins) else []
    return " ".join(["pytest --ctxcheck", *(f'"{test}"' for test in named)]) if named else ""


def _is_shared(origin: str) -> bool:
    """Whether several tests may have to do with it: an import, a fixture of a wider scope, an unnamed background."""
    return origin.removeprefix(f"{BACKGROUND} of ").startswith("<")


def _base_of_fixture(origin: str) -> str:
    """The module or class that a fixture of a wider scope stands in; empty for other origins and fixtures."""
    name = origin.removeprefix(f"{BACKGROUND} of ")
    return name.removeprefix("<fixture ").rpartition("::")[0] if name.startswith("<fixture ") else ""


def _is_below(test: str, base: str) -> bool:
    return test.startswith((f"{base}::", f"{base}/"))
