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


def test_a_failure_that_is_expected_is_none_and_what_was_found_is_shown(suite: Suite) -> None:
    suite.write(
        test_it="""
        import unittest
        import bank, pytest

        def both(a, b):
            bank.first(a, b)
            bank.second(b, a)

        @pytest.mark.xfail(strict=True)
        def test_by_a_mark():
            both(bank.Ledger(), bank.Audit())

        class TestUnit(unittest.TestCase):
            @unittest.expectedFailure
            def test_by_unittest(self):
                both(bank.Ledger(), bank.Audit())
                self.fail()

        @pytest.mark.xfail(raises=ZeroDivisionError)
        def test_of_another_kind():
            both(bank.Ledger(), bank.Cache())
        """
    )
    done = suite.run()
    assert sorted(done.tests.values()) == ["FAILED", "XFAIL", "XFAIL"]
    section = done.text[done.text.index(TITLE) : done.text.index("ctxcheck: 2 violations")]
    assert re.findall(r"^error.*`(\w+\.lock)`$", section, re.MULTILINE) == ["Ledger.lock"]
    assert section.count("how it deadlocks:") == 1
    assert "seen in: test_it.py::TestUnit::test_by_unittest and 1 other" in section
    split = suite.run("-n", "2", plugins=("xdist",))
    assert split.verdict() == done.verdict()
    assert split.text.count(TITLE) == 1


def test_a_test_of_unittest_has_its_own_outcome_and_what_was_found(suite: Suite) -> None:
    suite.write(
        test_it="""
        import unittest
        import bank

        class TestUnit(unittest.TestCase):
            def setUp(self):
                a, b = bank.Ledger(), bank.Audit()
                bank.first(a, b)
                bank.second(b, a)

            def test_fails(self):
                self.assertEqual(1, 2)

            def test_skips(self):
                self.skipTest("later")

            def test_passes(self):
                with self.subTest(part=1):
                    pass
        """
    )
    done = suite.run()
    assert {name.rpartition("::")[2]: outcome for name, outcome in done.tests.items()} == {
        "test_fails": "FAILED",
        "test_skips": "FAILED",
        "test_passes": "FAILED",
    }
    assert "test_fails - AssertionError: 1 != 2" in done.text
    assert done.text.count("Captured ctxcheck call") == 1
    assert done.text.count("how it deadlocks:") == 3
    assert re.search(r"FAILED test_it.py::TestUnit::test_skips - Failed: error\[CTX001\]", done.text)
    assert TITLE not in done.text


def test_where_it_was_is_told_from_where_the_run_began_wherever_a_test_goes(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank

        def test_it(monkeypatch, tmp_path):
            monkeypatch.chdir(tmp_path)
            a, b = bank.Ledger(), bank.Audit()
            bank.first(a, b)
            bank.second(b, a)
        """
    )
    done = suite.run()
    assert done.status == 1
    assert set(re.findall(r"--> (\S+):\d+ in (?:first|second)$", done.text, re.MULTILINE)) == {"bank.py"}
    suite.path.joinpath("pyproject.toml").write_text(
        '[[tool.ctxcheck.allow]]\nrule = "CTX001"\npath = "ba*.py"\nreason = "they never meet"\n'
    )
    assert suite.run().status == 0
    suite.path.joinpath("pyproject.toml").unlink()
    source = suite.path / "bank.py"
    comment = "# ctxcheck: allow[CTX001] they never meet"
    source.write_text(source.read_text().replace("with a.lock:", f"with a.lock:  {comment}", 1))
    done = suite.run("--ctxcheck-strict")
    assert done.status == 0
    assert "1 allowed" in done.text


def test_what_is_raised_at_a_call_ends_there_for_the_report_and_the_debugger(suite: Suite) -> None:
    suite.write(
        conftest="""
        def pytest_exception_interact(call):
            entry = call.excinfo.tb
            while entry.tb_next is not None:
                entry = entry.tb_next
            print("ends in", entry.tb_frame.f_code.co_name)
        """,
        test_it=BOTH + "\n\ndef test_again():\n    lock = bank.Ledger().lock\n    with lock, lock: pass\n",
    )
    done = suite.run("-s", "--ctxcheck-mode=raise")
    assert re.findall(r"ends in (\w+)", done.text) == ["second", "test_again"]
    assert "pytest_plugin" not in done.text.replace("-p ctxcheck.pytest_plugin", "")
