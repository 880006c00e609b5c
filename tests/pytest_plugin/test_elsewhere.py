"""Tests that plugins run in processes of their own, run again, or report in their own words."""

from __future__ import annotations

import json

import pytest

from tests.pytest_plugin.conftest import APART, BOTH, LEFT, Suite

#: What pytest-forked does: each test in a child, whose reports are all that comes back.  A test that dies is reported
#: by the parent; so is one that the child is asked to leave out.
FORKS = """
import json, os, sys
import pytest
from _pytest.runner import runtestprotocol

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if item.get_closest_marker("here"):
        return None
    hook, config = item.ihook, item.config
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        reports = runtestprotocol(item, log=False)
        data = [hook.pytest_report_to_serializable(config=config, report=r) for r in reports]
        with open(write, "w") as pipe:
            json.dump(data, pipe)
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    if data:
        reports = [hook.pytest_report_from_serializable(config=config, data=r) for r in json.loads(data)]
    else:
        reports = [pytest.TestReport(item.nodeid, item.location, {}, "failed", "died", "call")]
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    item.session._setupstate.teardown_exact(nextitem)
    return True

def pytest_configure(config):
    config.addinivalue_line("markers", "here: not in a child")
"""


def test_tests_in_processes_of_their_own(suite: Suite) -> None:
    both = BOTH.replace("Audit", "Cache")
    suite.write(test_a=both, test_b=APART, test_c=LEFT)
    first = suite.run()
    assert first.status == 1
    assert {f.partition("-")[0] for f in first.found} == {"CTX001", "CTX004"}
    suite.write(conftest=FORKS)
    forked = suite.run()
    assert forked.verdict() == first.verdict()
    assert forked.text.count("how it deadlocks:") == first.text.count("how it deadlocks:")
    last = [line for line in first.text.splitlines() if line.startswith("ctxcheck: 3 violations")]
    assert last
    assert last[0] in forked.text
    assert "warning" not in forked.text.replace("1 warning", "")
    split = suite.run("-n", "2", plugins=("xdist",))
    assert split.verdict() == first.verdict()


def test_some_tests_in_processes_of_their_own(suite: Suite) -> None:
    suite.write(
        conftest=FORKS,
        test_it="""
        import bank, pytest

        @pytest.mark.here
        def test_here():
            bank.first(bank.Ledger(), bank.Audit())
            bank.first(bank.Ledger(), bank.Cache())
            bank.second(bank.Cache(), bank.Ledger())

        def test_there():
            bank.second(bank.Audit(), bank.Ledger())
        """,
    )
    done = suite.run()
    assert sorted(done.tests.values()) == ["FAILED", "PASSED"]
    assert len(done.found) == 2
    found = json.loads((suite.path / "found.json").read_text())
    assert [edge["count"] for edge in found["graph"]["edges"]] == [1, 1, 1, 1]


def test_a_test_that_dies_in_its_process_is_named(suite: Suite) -> None:
    suite.write(
        conftest=FORKS,
        test_it="""
        import os, bank

        def test_dies():
            os._exit(0)

        def test_fine():
            bank.first(bank.Ledger(), bank.Audit())
        """,
    )
    done = suite.run()
    line = "no lock data from test_it.py::test_dies: it ran where nothing is checked, or crashed"
    assert f"ctxcheck: warning: {line}" in done.text
    assert "test_fine" not in done.text.partition("no lock data")[2].partition("\n")[0]


def test_what_a_repeated_test_showed_at_first_is_told(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank
        RUNS = []

        def test_flaky():
            RUNS.append(None)
            if len(RUNS) == 1:
                a, b = bank.Ledger(), bank.Cache()
                bank.first(a, b)
                bank.second(b, a)
        """
    )
    done = suite.run("--reruns=2", plugins=("pytest_rerunfailures",))
    assert done.status == 0
    section = done.text[done.text.index("findings that fail nothing") : done.text.index("ctxcheck: 1 violation")]
    assert section.count("how it deadlocks:") == 1
    assert "seen in: test_it.py::test_flaky" in section
    assert done.text.count("how it deadlocks:") == 1


def test_who_collects_failures_has_the_report_already(suite: Suite) -> None:
    suite.write(
        conftest="""
        import pytest

        @pytest.hookimpl(wrapper=True, trylast=True)
        def pytest_runtest_makereport(item, call):
            report = yield
            if report.when == "call" and report.failed:
                report.longrepr = f"two failed checks\\n{call.excinfo.value}"
                other = (AssertionError, AssertionError("two"), call.excinfo.tb)
                call.excinfo = pytest.ExceptionInfo.from_exc_info(other)
            return report
        """,
        test_it=BOTH,
    )
    done = suite.run()
    assert done.tests["test_it.py::test_both"] == "FAILED"
    assert done.text.count("how it deadlocks:") == 1


@pytest.mark.parametrize("args", [(), ("-n", "2")])
def test_who_writes_reports_down_sees_no_more_than_before(suite: Suite, args: tuple[str, ...]) -> None:
    suite.write(
        conftest="""
        def pytest_runtest_logreport(report):
            import os
            if "PYTEST_XDIST_WORKER" not in os.environ:
                print([name for name in vars(report) if name.startswith("ctxcheck")] or "as ever")
        """,
        test_it=BOTH,
    )
    done = suite.run("-s", *args, plugins=("xdist",) if args else ())
    assert done.text.count("as ever") == 6
    assert "ctxcheck_note" not in done.text
