from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.engine.classes import LOCK, SPIN, WITH, ContextStep, LockClass
from ctxcheck.engine.findings import (
    Entry,
    Facts,
    FaultFacts,
    Finding,
    HeldFacts,
    Inner,
    Moment,
    NestingFacts,
    OrderFacts,
    RangeFacts,
    ReleaseFacts,
    SelfDeadlockFacts,
    SleepFacts,
    Waiter,
)
from ctxcheck.engine.grading import Cycle
from ctxcheck.engine.graph import Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.rules import RULES
from ctxcheck.engine.sites import EMPTY, PACKAGE_DIR, Trace, capture
from ctxcheck.engine.violations import Site, Violation
from ctxcheck.reports import text
from ctxcheck.reports.compose import compose, fingerprint, inline_allow

from .programs import run
from .strategies import any_text
from .test_sourcetext import Hostile

INVERSION = """
{blank}
a, b = lock("m:a"), lock("m:b")
def ab():
    with a, b: pass
def ba():
    with b, a: pass
in_thread(ab, name="{name}")
in_thread({second}, name="{name}2")
"""


# --- the fingerprint


def test_the_fingerprint_holds_what_stays(tmp_path: Path) -> None:
    def of(folder: str, blank: str, name: str, second: str = "ba") -> str:
        source = INVERSION.format(blank=blank, name=name, second=second)
        return run(tmp_path / folder, source, file=f"{folder}.py").only("CTX001").fingerprint

    one = of("one", "", "first")
    assert re.fullmatch(r"CTX001-[0-9a-f]{8}", one)
    # other lines, another file in another folder, other threads
    assert of("two", "\n\n# more", "second") == one
    assert of("three", "def other(): ba()\n", "third", "other") == one
    source = INVERSION.format(blank="", name="n", second="ab_too").replace("ba()", "ab_too()")
    assert run(tmp_path / "four", source).only("CTX001").fingerprint != one


def test_the_fingerprint_is_the_same_on_every_version_and_machine() -> None:
    def of(*identity: str, rule: str = "CTX001") -> str:
        return fingerprint(Finding(rule, "possible", None, EMPTY, identity, FaultFacts("")))

    assert of("m:a", "m:b", "f") == "CTX001-84580c5d"
    assert of("m:a", "m:b", "f", rule="CTX002") != "CTX002-84580c5d"
    # lists are built in a function of their own before 3.12
    assert of("m:a", "m:b", "f.<locals>.<listcomp>") == of("m:a", "m:b", "f")
    assert of("ab", "c") != of("a", "bc")
    assert re.fullmatch(r"CTX001-[0-9a-f]{8}", of("\udcff", "日本"))


# --- comments that accept


def violation(*lines: str, rule: str = "CTX101") -> Violation:
    sites = tuple(Site("now" if not n else "then", "a.py", n + 1, "f", line) for n, line in enumerate(lines))
    return Violation(rule, RULES[rule].slug, "certain", "message", sites=sites)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("backoff()  # ctxcheck: allow[CTX101] the cache is warm", "the cache is warm"),
        ("backoff()  # ctxcheck: allow[ctx101] the cache is warm", "the cache is warm"),
        ("backoff()  # ctxcheck: allow[sleep-in-atomic] warm", "warm"),
        ("backoff()  # ctxcheck: allow[CTX102, CTX101] warm", "warm"),
        ("backoff()  #ctxcheck:allow[CTX101]warm", "warm"),
        ("backoff()  # noqa: X  # ctxcheck: allow[CTX101] warm", "warm"),
        ("backoff()  # ctxcheck: allow[CTX001] a # ctxcheck: allow[CTX101] b", "b"),
        # without a reason it doesn't count
        ("backoff()  # ctxcheck: allow[CTX101]", None),
        ("backoff()  # ctxcheck: allow[CTX101]   # noqa", None),
        # another rule, no rule, no comment
        ("backoff()  # ctxcheck: allow[CTX102] reason", None),
        ("backoff()  # ctxcheck: allow[] reason", None),
        ("backoff()  # ctxcheck: allow[CTX1] reason", None),
        ("backoff()  # ctxcheck: allow CTX101 reason", None),
        ("backoff('# ctxcheck: allow[CTX101] reason')", None),
        ("", None),
    ],
)
def test_inline_allow(line: str, reason: str | None) -> None:
    assert inline_allow(violation(line)) == reason
    assert inline_allow(violation("other()", line)) == reason


def test_inline_allow_without_sites() -> None:
    assert inline_allow(violation()) is None


def test_inline_allow_in_a_program(tmp_path: Path) -> None:
    source = """
    a, b = lock("m:a"), lock("m:b")
    with a:
        with b: pass  # ctxcheck: allow[lock-order-inversion] only at start-up
    with b:
        with a: pass
    """
    found = run(tmp_path, source).only("CTX001")
    assert found.allowed_by is None
    assert inline_allow(found) == "only at start-up"


@given(st.text("# ctxcheck:allow[CTX101],x\"'é", max_size=60))
def test_inline_allow_reads_any_line(line: str) -> None:
    inline_allow(violation(line))


# --- what may never happen


def _a_trace() -> Trace:
    return capture(1)


def everything(name: Any, number: int = 1) -> list[Finding]:
    """A finding of each sort, in which everything that has a name has this one."""
    here = _a_trace()
    a, b, c = (LockClass(f"{key}:x" if number else name, name, kind, here) for key, kind in
               (("a", LOCK), ("b", SPIN), ("c", LOCK)))  # fmt: skip
    for lock_class in (a, b, c):
        if not number:
            lock_class.key = name
    a.handed_over = True
    one, two, three = Owner(1, 1), Owner(2, 2), Owner(3, 3)
    one.name = two.name = name
    entries = [
        Entry(a.step(WITH), here, True),
        Entry(b.step(WITH), EMPTY, False),
        Entry(ContextStep("atomic", name, 3, here), here, False),
        Entry(ContextStep(name, name, 1), EMPTY, True),
    ]
    facts: list[tuple[str, Facts]] = []
    for reason in ("", "guarded", "one owner", "timed", "handed over", "readers"):
        for classes in ((a, b), (a, b, c)):
            witnesses = tuple(
                Witness(owner, frozenset([a]), name, WITH, WITH, trace, here)
                for owner, trace, _ in zip((one, two, three), (here, EMPTY, here), classes, strict=False)
            )
            cycle = Cycle(classes, witnesses, "unlikely" if reason else "possible", reason, a, (1,) * len(classes))
            facts.append(("CTX001", OrderFacts(cycle)))
            stuck = tuple(
                Waiter(w.owner, classes[i], classes[(i + 1) % len(classes)], w.held_at) for i, w in enumerate(witnesses)
            )
            facts.append(("CTX001", OrderFacts(dataclasses.replace(cycle, grade="certain"), stuck)))
    for why in ("", "with", "alone", "owned"):
        facts.append(("CTX002", SelfDeadlockFacts(a, entries[0], why, 0.5)))
    for reason in ("descending", "equal", "both", "once"):
        facts.append(("CTX003", NestingFacts(a, entries[1], reason, (name, name))))
    for how in ("marked", "start", "end", "wait", "acquire", "suspends"):
        for because in entries:
            facts.append(("CTX101", SleepFacts(name, how, because, tuple(entries), here, WITH)))
    moments = tuple(Moment(what, name, here, owner) for owner in (one, two) for what in (
        "opens", "inside", "closes", "OUTSIDE", "UNPAIRED", "STILL OPEN"
    ))  # fmt: skip
    for reason in (
        "never opened", "closed", "other key", "other owner", "outside span", "opened atomic", "unpaired", "other span",
        "left open", "never closed", "inner still open", "lock released inside", "lock held at end",
    ):  # fmt: skip
        for opened, lock in ((moments[0], entries[0]), (moments[6], entries[1]), (None, None)):
            facts.append(
                (
                    "CTX205",
                    RangeFacts(
                        name, reason, name, EMPTY, name, name, name, opened, opened, moments, name, lock, lock,
                        inner=Inner(name, name, moments[0], 2),
                    ),
                )
            )
    for wanted in (True, False):
        facts.append(("CTX301", HeldFacts(name, wanted, name, here, (name,), name, entries[0])))
    for rule in ("CTX302", "CTX303", "CTX305"):
        facts.append((rule, ReleaseFacts(a, one, entries[0], name)))
        facts.append((rule, ReleaseFacts(a)))
    facts.append(("CTX901", FaultFacts(name)))
    return [
        Finding(rule, grade, owner, trace, (name, name), fact, (a, b, a), name)
        for rule, fact in facts
        for grade in ("certain", "possible", "unlikely")
        for owner, trace in ((one, here), (None, EMPTY))
    ]


def check(found: Violation) -> None:
    assert not any("details are missing" in note for note in found.notes), found
    assert type(found.message) is str
    if found.rule != "CTX901":
        assert found.sites[0].role == "now"
    assert [site.role for site in found.sites].count("now") <= 1
    for name in ("message", "slug", "rule", "fingerprint"):
        assert getattr(found, name)
    for message in (found.message, *found.notes, *found.helps):
        assert message
    if found.scenario is not None:
        assert len(set(found.scenario.columns)) == len(found.scenario.columns)
        for step in found.scenario.steps:
            assert step.waits_for in ("", *found.scenario.columns)
    if found.timeline is not None:
        assert sum(event.here for event in found.timeline.events) <= 1
    assert (found.allowed_by is None) or type(found.allowed_by) is str


@settings(deadline=None)  # each example makes hundreds of findings
@given(any_text, st.integers(0, 96), st.integers(0, 1))
def test_any_name_can_be_reported(name: str, start: int, number: int) -> None:
    for finding in everything(name, number)[start::97]:
        found = compose(finding)
        check(found)
        text.render(found)


def test_no_code_of_the_program_runs() -> None:
    for finding in everything(Hostile("name")):
        check(compose(finding))


def test_headlines(tmp_path: Path) -> None:
    for finding in everything("thing"):
        found = compose(finding, cwd=str(tmp_path))
        assert not found.message.endswith(".")
        assert found.message[0].islower() or found.message[0] == "`"
        assert "illegal" not in found.message
        # only help lines suggest
        for note in found.notes:
            assert " should " not in note
        for help_ in found.helps[1:]:
            assert help_.startswith(("or ", "or, "))


def test_what_can_not_be_composed_is_still_a_finding() -> None:
    broken: Any = object()
    a = LockClass("m:a", "a", LOCK)
    cycle: Any = None
    for facts in (OrderFacts(cycle), SelfDeadlockFacts(broken, broken, "with")):
        found = compose(Finding("CTX001", "possible", None, EMPTY, ("m:a",), facts, (a,), "why"))
        assert (found.rule, found.slug, found.grade) == ("CTX001", "lock-order-inversion", "possible")
        assert found.message == RULES["CTX001"].title
        assert (found.locks, found.keys, found.allowed_by) == (("a",), ("m:a",), "why")
        assert re.fullmatch(r"CTX001-[0-9a-f]{8}", found.fingerprint)
        assert found.notes == ("the details are missing: putting them together failed with AttributeError",)
        text.render(found)


def test_facts_of_an_unknown_sort() -> None:
    facts: Any = object()
    found = compose(Finding("CTX204", "certain", None, EMPTY, (), facts))
    assert (found.message, found.slug) == (RULES["CTX204"].title, "crossed-ranges")
    found = compose(Finding("CTX999", "certain", None, EMPTY, (), facts))
    assert (found.message, found.slug) == ("CTX999", "")


@pytest.mark.parametrize("field", ["rule", "grade", "owner", "trace", "identity", "facts", "classes", "allowed"])
def test_compose_never_raises(field: str) -> None:
    for finding in everything("name")[::5]:
        compose(dataclasses.replace(finding, **{field: object()}))
        compose(dataclasses.replace(finding, **{field: None}))


def test_near_the_end_of_the_stack() -> None:
    findings = everything("name")[::40]

    def down() -> None:
        down()

    def at_the_end(finding: Finding, spare: int) -> Violation | None:
        # the deepest calls that are still possible
        try:
            return at_the_end(finding, spare)
        except RecursionError:
            return compose(finding)

    for finding in findings:
        assert at_the_end(finding, 0) is not None


def test_what_compose_imports() -> None:
    heavy = ["asyncio", "logging", "structlog", "wrapt", "hashlib", "json", "difflib", "typing_extensions", "ssl"]
    program = (
        "import sys, threading, ctxcheck.engine.validator\n"
        "before = set(sys.modules)\n"
        "import ctxcheck.reports.compose\n"
        f"print(sorted((set(sys.modules) - before) & {set(heavy)!r}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(PACKAGE_DIR))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"


# --- programs without a file


@pytest.mark.parametrize("filename", ["<string>", "<stdin>", "nowhere.py", "<frozen app>"])
def test_a_program_without_source(tmp_path: Path, filename: str) -> None:
    source = (
        'a, b = lock("m:a"), lock("m:b")\n'
        "with a, b: pass\n"
        "(lambda: b.__enter__())()\n"
        "with a: pass\n"
        "b.release()\n"
        "with atomic('tick'):\n"
        "    a.acquire(); a.release()\n"
    )
    result = run(tmp_path, "pass")
    result = type(result)(tmp_path)
    result.execute(compile_(source, filename), result.names())
    order, block = result.violations
    assert (order.rule, block.rule) == ("CTX001", "CTX102")
    for found in result.violations:
        for site in found.sites:
            assert (site.file, site.text, site.column, site.before) == (filename, "", -1, "")
        assert all(frame.text == "" for stack in found.stacks for frame in stack.frames if frame.file == filename)
        # no line, so nothing is shown that could be written behind it
        assert not any("# ctxcheck" in line for line in found.allow)
    assert order.helps[1] == f"or release `b` (acquired at {filename}:3) before taking `a`"


def compile_(source: str, filename: str) -> Any:
    return compile(source, filename, "exec")


def test_a_line_that_is_not_ascii(tmp_path: Path) -> None:
    source = """
    schloß, größe = lock("m:Schloß"), lock("m:größe")
    with größe, schloß: pass
    with schloß:
        x = "日本語"; größe.acquire(); größe.release()
    """
    found = run(tmp_path, source).only("CTX001")
    site = next(site for site in found.sites if "acquires `größe`" in site.label or "acquired `größe`" in site.label)
    assert site.text[site.column : site.end_column] in ("größe.acquire()", "with größe, schloß:")
    shown = [site.text[site.column : site.end_column] for site in found.sites]
    assert "größe.acquire()" in shown
    rendered = text.render(found)
    assert "find_me" not in rendered
