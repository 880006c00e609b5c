from __future__ import annotations

import pytest

from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.reports.text import summary, unchecked

from . import findings

COUNTS = Counts(lock_classes=14, orders=23, acquisitions=9112)
ALLOWED = findings.INVERSION.replace(allowed_by="never together")


def test_violations_by_rule_and_what_follows_from_them() -> None:
    found = [findings.SLEEP_IN_ATOMIC, findings.INVERSION, ALLOWED]
    assert (
        summary(found, COUNTS, program_status=0, exit_status=1)
        == "ctxcheck: 2 violations (1 CTX001, 1 CTX101), 1 allowed; program exited 0 -> exit 1"
    )


def test_one_violation() -> None:
    assert summary([findings.INVERSION], COUNTS, exit_status=1) == "ctxcheck: 1 violation (1 CTX001); exit 1"


def test_a_clean_run_says_what_was_checked() -> None:
    clean = "ctxcheck: no violations; 14 lock classes, 23 orders, 9,112 acquisitions checked"
    assert summary([], COUNTS, program_status=None, exit_status=None) == clean
    assert summary([], COUNTS, program_status=0, exit_status=0) == clean


def test_the_program_s_own_failure_is_said() -> None:
    assert summary([], COUNTS, program_status=3, exit_status=3).endswith(" checked; program exited 3 -> exit 3")


def test_one_of_each_and_marked_calls() -> None:
    counts = Counts(lock_classes=1, orders=1, acquisitions=1, marked_calls=1200)
    assert (
        summary([], counts)
        == "ctxcheck: no violations; 1 lock class, 1 order, 1 acquisition, 1,200 contexts checked"
    )
    assert summary([], Counts(marked_calls=1)) == "ctxcheck: no violations; 1 context checked"


def test_marked_calls_that_are_no_contexts() -> None:
    counts = Counts(threads=2)
    assert not counts.nothing()
    assert summary([], counts) == "ctxcheck: no violations; waits and marked calls of 2 threads checked"
    assert Counts(chains=1, dropped=1).nothing()


def test_unlikely_and_allowed_are_no_violations() -> None:
    assert (
        summary([findings.UNLIKELY, ALLOWED, ALLOWED], COUNTS, program_status=0, exit_status=0)
        == "ctxcheck: no violations, 1 unlikely, 2 allowed; 14 lock classes, 23 orders, 9,112 acquisitions checked"
    )
    assert summary([findings.UNLIKELY, findings.INVERSION], COUNTS).startswith(
        "ctxcheck: 1 violation (1 CTX001), 1 unlikely"
    )


def test_a_finding_that_is_both_unlikely_and_allowed_counts_once() -> None:
    both = findings.UNLIKELY.replace(allowed_by="never together")
    assert summary([both], COUNTS).startswith("ctxcheck: no violations, 1 allowed; ")


def test_a_run_that_checked_nothing_is_not_called_clean() -> None:
    line = summary([], Counts(), program_status=0, exit_status=0)
    assert line.startswith("ctxcheck: warning: nothing was checked: ")
    assert line.endswith("; program exited 0 -> exit 0")
    assert "no violations" not in line
    assert "nothing was checked" not in summary([], Counts(lock_classes=1))


def test_a_finding_is_never_hidden_behind_nothing_was_checked() -> None:
    fault = Violation("CTX901", "checker-disabled", "certain", "checking was switched off")
    assert summary([fault], Counts(), exit_status=1) == "ctxcheck: 1 violation (1 CTX901); exit 1"


@pytest.mark.parametrize("found", [[], [findings.INVERSION]])
def test_what_was_dropped_is_said(found: list[Violation]) -> None:
    counts = Counts(lock_classes=1, acquisitions=5, dropped=1200)
    assert "; incomplete: 1,200 events beyond a limit, not fully checked" in summary(found, counts)


def test_chains_that_were_too_many_are_said_but_miss_nothing() -> None:
    line = summary([], Counts(lock_classes=1, acquisitions=5, uncached=1200))
    assert "; 1,200 chains beyond a limit, checked each time (slower)" in line
    assert "incomplete" not in line


def test_unchecked_locks_are_listed_by_module_most_first() -> None:
    counts = Counts(unchecked={"queue": 1, "logging": 2, "abc": 1, "none": 0})
    assert unchecked(counts) == "not checked: 4 locks made before the start or by _thread (logging 2, abc 1, queue 1)"
    assert unchecked(Counts(unchecked={"queue": 1})).startswith("not checked: 1 lock made ")


def test_what_every_interpreter_makes_for_itself_is_not_worth_a_line() -> None:
    assert unchecked(Counts(unchecked={"threading": 2, "tempfile": 1})) == ""


def test_a_long_list_of_modules_is_cut() -> None:
    counts = Counts(unchecked={f"m{number}": 10 - number for number in range(8)})
    assert unchecked(counts).endswith("(m0 10, m1 9, m2 8, m3 7, m4 6, m5 5, and 2 modules more)")


def test_nothing_unchecked_is_nothing_said() -> None:
    assert unchecked(Counts()) == ""
    assert unchecked(Counts(unchecked={"m": 0})) == ""
