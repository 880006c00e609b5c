"""What fails nothing is shown all the same: once, in short, with where it was seen."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.pytest_plugin.conftest import APART, BOTH, Suite

TITLE = "ctxcheck: findings that fail nothing"

MILD = """
import bank

def nest():
    a, b = bank.Ledger(), bank.Ledger()
    with a.lock, b.lock:
        pass

def test_one():
    nest()

def test_another():
    nest()

gate = bank.Cache()

def test_here():
    with gate.lock:
        bank.first(bank.Ledger(), bank.Audit())

def test_there():
    with gate.lock:
        bank.second(bank.Audit(), bank.Ledger())
"""


def test_what_is_unlikely_is_shown(suite: Suite) -> None:
    suite.write(test_it=MILD)
    done = suite.run()
    assert done.status == 0
    assert "no violations, 2 unlikely" in done.text
    assert "cross-test" not in done.text
    section = done.text[done.text.index(TITLE) :]
    assert re.findall(r"^warning\[(\w+)\]", section, re.MULTILINE) == ["CTX001", "CTX003"]
    assert "seen in: test_it.py::test_here and 1 other" in section
    assert "seen in: test_it.py::test_another and 1 other" in section
    # the short form says why it is doubted
    assert "= unlikely: only one order of these instances was seen" in section
    assert "= unlikely: no single test" not in section
    assert suite.run("-n", "2", plugins=("xdist",)).text.count(TITLE) == 1


def test_what_is_less_sure_than_asked_for_is_shown_in_full(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    done = suite.run("--ctxcheck-fail-on=certain")
    assert done.status == 0
    section = done.text[done.text.index(TITLE) :]
    assert section.count("how it deadlocks:") == 1
    assert "seen in: test_it.py::test_both\n" in section


def test_what_has_failed_a_test_is_not_shown_again(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    assert TITLE not in suite.run().text


def test_what_is_accepted_or_known_is_counted_only(suite: Suite) -> None:
    suite.write(test_it=MILD)
    suite.path.joinpath("pyproject.toml").write_text(
        '[[tool.ctxcheck.allow]]\nrule = "CTX003"\nreason = "one is the parent"\n'
        '[[tool.ctxcheck.allow]]\nrule = "CTX001"\nreason = "the gate"\n'
    )
    done = suite.run()
    assert "2 allowed" in done.text
    assert TITLE not in done.text


def test_what_is_in_the_baseline_is_counted_only(suite: Suite) -> None:
    suite.write(test_it=APART, test_mild=MILD)
    first = suite.run()
    assert first.status == 1
    assert TITLE in first.text
    report = [sys.executable, "-m", "ctxcheck", "report", "--write-baseline", "known.json"]
    subprocess.run(report, cwd=suite.path, check=False, stdout=subprocess.DEVNULL)
    suite.path.joinpath("pyproject.toml").write_text('[tool.ctxcheck]\nbaseline = "known.json"\n')
    done = suite.run()
    assert done.status == 0
    assert TITLE not in done.text
    assert "cross-test" not in done.text
    assert "no new violations" in done.text
