"""Which test fails, and what it says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from tests.pytest_plugin.conftest import APART, BOTH, Suite

HEADLINE = "error[CTX001]: possible deadlock: lock order inversion between `Audit.lock` and `Ledger.lock`"


def test_a_test_fails_for_what_it_shows_by_itself(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    done = suite.run()
    assert done.status == 1
    assert done.tests == {"test_it.py::test_both": "FAILED", "test_it.py::test_one": "PASSED"}
    assert [f[:6] for f in done.found] == ["CTX001"]
    assert "cross-test" not in done.text
    assert "ctxcheck: mode=record, locks=threading+asyncio, config=default" in done.text
    assert "ctxcheck: 1 violation (1 CTX001)" in done.text


@pytest.mark.parametrize("how", ["", "--tb=short", "--tb=line", "--tb=native", "--show-capture=no", "-q", "--tb=no"])
@pytest.mark.parametrize("ci", ["", "1"])
def test_the_report_is_there_once_and_the_summary_has_a_line(suite: Suite, how: str, ci: str) -> None:
    suite.write(test_it=BOTH)
    done = suite.run(*([how] if how else []), **({"CI": ci} if ci else {}))
    assert done.text.count("how it deadlocks:") == (how != "--tb=no")
    (line,) = re.findall(r"^FAILED test_it.py::test_both - Failed: (.*)$", done.text, re.MULTILINE)
    assert line.removesuffix("...").rstrip() in HEADLINE
    assert line.startswith("error[CTX001]: possible deadlock: ")
    if ci:
        assert line == HEADLINE
    if how == "--tb=line":
        assert f"bank.py:17: Failed: {HEADLINE}" in done.text


def test_junit_has_the_headline_the_report_and_properties(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    done = suite.run()
    root = ElementTree.parse(suite.path / "junit.xml").getroot()
    case = next(c for c in root.iter("testcase") if c.get("name") == "test_both")
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == f"Failed: {HEADLINE}"
    assert "how it deadlocks:" in (failure.text or "")
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties == {"ctxcheck.rule": "CTX001", "ctxcheck.fingerprint": done.found[0]}


def test_what_several_tests_show_fails_the_session(suite: Suite) -> None:
    suite.write(test_it=APART)
    done = suite.run()
    assert done.status == 1
    assert set(done.tests.values()) == {"PASSED"}
    section = done.text[done.text.index("ctxcheck: cross-test violations") :]
    assert section.count("how it deadlocks:") == 1
    assert "`Audit.lock` -> `Ledger.lock` was seen in test_it.py::test_there" in section
    assert "`Ledger.lock` -> `Audit.lock` was seen in test_it.py::test_here" in section
    assert 'reproduce: pytest --ctxcheck "test_it.py::test_here" "test_it.py::test_there"' in section
    again = suite.run("test_it.py::test_here", "test_it.py::test_there")
    assert (again.status, again.found) == (1, done.found)
    assert suite.run("test_it.py::test_here", "test_it.py::test_elsewhere").status == 0


def test_what_one_test_shows_by_itself_is_not_told_again_for_all(suite: Suite) -> None:
    suite.write(test_it=BOTH, test_other=APART)
    done = suite.run()
    assert "cross-test" not in done.text
    assert done.tests["test_it.py::test_both"] == "FAILED"
    assert len(done.found) == 1


def test_the_tests_own_failure_is_not_hidden(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank, pytest

        def test_fails():
            bank.first(bank.Ledger(), bank.Audit())
            bank.second(bank.Audit(), bank.Ledger())
            assert 1 + 1 == 3

        def test_skips():
            bank.first(bank.Ledger(), bank.Audit())
            bank.second(bank.Audit(), bank.Ledger())
            pytest.skip("later")

        @pytest.mark.xfail(strict=True)
        def test_is_expected_to_fail():
            bank.first(bank.Ledger(), bank.Audit())
            bank.second(bank.Audit(), bank.Ledger())
            assert False
        """
    )
    done = suite.run()
    assert done.tests == {
        "test_it.py::test_fails": "FAILED",
        "test_it.py::test_is_expected_to_fail": "XFAIL",
        "test_it.py::test_skips": "FAILED",
    }
    assert "FAILED test_it.py::test_fails - assert (1 + 1) == 3" in done.text
    assert "Captured ctxcheck call" in done.text
    hidden = suite.run("--show-capture=no", "-k", "fails")
    assert "how it deadlocks" not in hidden.text
    assert "ctxcheck: 1 violation (1 CTX001)" in hidden.text


def test_nothing_swallows_a_finding(suite: Suite) -> None:
    suite.write(
        test_it="""
        import asyncio, threading
        import bank, ctxcheck

        @ctxcheck.atomic("softirq")
        def breaks():
            sleeps()

        @ctxcheck.might_sleep
        def sleeps():
            pass

        def swallowed():
            try:
                breaks()
            except Exception:
                pass

        def test_except():
            swallowed()

        def test_thread():
            thread = threading.Thread(target=breaks)
            thread.start()
            thread.join()

        def test_task():
            async def main():
                await asyncio.gather(asyncio.create_task(task()), return_exceptions=True)
            async def task():
                breaks()
            asyncio.run(main())

        def test_nothing():
            pass
        """
    )
    for mode in ("record", "raise"):
        done = suite.run(f"--ctxcheck-mode={mode}", "-p", "no:threadexception")
        assert done.tests == {
            "test_it.py::test_except": "FAILED",
            "test_it.py::test_nothing": "PASSED",
            "test_it.py::test_task": "FAILED",
            "test_it.py::test_thread": "FAILED",
        }


def test_setup_and_teardown_are_errors(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank, pytest

        @pytest.fixture
        def before():
            a, b = bank.Ledger(), bank.Audit()
            bank.first(a, b)
            bank.second(b, a)

        @pytest.fixture
        def after():
            yield
            a, b = bank.Cache(), bank.Audit()
            bank.first(a, b)
            bank.second(b, a)

        def test_before(before): pass
        def test_after(after): pass

        def test_left_held():
            bank.Cache().lock.acquire()

        LOCK = bank.Cache().lock

        def test_leaves_it():
            LOCK.acquire()

        def test_is_not_to_blame():
            bank.first(bank.Ledger(), bank.Audit())
        """
    )
    done = suite.run("-rA")
    assert done.status == 1
    errors = re.findall(r"^ERROR (\S+) - Failed: error\[(\w+)\]", done.text, re.MULTILINE)
    assert sorted(errors) == [
        ("test_it.py::test_after", "CTX001"),
        ("test_it.py::test_before", "CTX001"),
        ("test_it.py::test_leaves_it", "CTX303"),
        ("test_it.py::test_left_held", "CTX304"),
    ]
    assert "PASSED test_it.py::test_is_not_to_blame" in done.text
    assert "cross-test" not in done.text
    assert "ERROR at teardown of test_after" in done.text


def test_a_deadlock_is_told_instead_of_hanging(suite: Suite) -> None:
    suite.write(
        test_it="""
        import threading

        def test_again():
            lock = threading.Lock()
            with lock:
                with lock:
                    pass
        """
    )
    done = suite.run()
    assert done.tests == {"test_it.py::test_again": "FAILED"}
    assert "DeadlockError" in done.text
    assert "CTX002" in done.text


def test_threads_tasks_and_jobs_count_for_the_test_that_sent_them(suite: Suite) -> None:
    suite.write(
        test_it="""
        import asyncio, threading
        from concurrent.futures import ThreadPoolExecutor
        import bank, pytest

        POOL = ThreadPoolExecutor(1)

        def in_thread(call, *args):
            thread = threading.Thread(target=call, args=args)
            thread.start()
            thread.join()

        def test_threads():
            a, b = bank.Ledger(), bank.Audit()
            in_thread(bank.first, a, b)
            in_thread(bank.second, b, a)

        def test_pool():
            a, b = bank.Ledger(), bank.Cache()
            POOL.submit(bank.first, a, b).result()
            POOL.submit(bank.second, b, a).result()

        def test_pool_again():
            POOL.submit(bank.first, bank.Ledger(), bank.Cache()).result()

        def test_tasks():
            async def one(): bank.first(bank.Audit(), bank.Cache())
            async def other(): await asyncio.to_thread(bank.second, bank.Cache(), bank.Audit())
            async def main():
                await asyncio.gather(one(), other())
            asyncio.run(main())
        """
    )
    for args in ((), ("-p", "no:logging", "test_it.py::test_pool_again", "test_it.py::test_pool")):
        done = suite.run(*args)
        assert {n.partition("::")[2]: o for n, o in done.tests.items()} == {
            name: outcome
            for name, outcome in {
                "test_pool": "FAILED", "test_pool_again": "PASSED", "test_tasks": "FAILED", "test_threads": "FAILED",
            }.items()
            if not args or "pool" in name
        }  # fmt: skip
        assert "cross-test" not in done.text


def test_an_owner_that_outlives_its_test_is_of_the_background(suite: Suite) -> None:
    suite.write(
        test_it="""
        import queue, threading
        import bank

        WORK = queue.SimpleQueue()
        DONE = queue.SimpleQueue()

        def serve():
            while True:
                call, args = WORK.get()
                call(*args)
                DONE.put(None)

        def send(call, *args):
            WORK.put((call, args))
            DONE.get()

        def test_starts_it():
            threading.Thread(target=serve, daemon=True).start()
            send(bank.first, bank.Ledger(), bank.Audit())
            bank.second(bank.Audit(), bank.Ledger())

        def test_uses_it():
            send(bank.first, bank.Ledger(), bank.Audit())
            bank.second(bank.Audit(), bank.Ledger())
        """
    )
    done = suite.run()
    assert set(done.tests.values()) == {"PASSED"}
    assert done.status == 1
    assert "was seen in <background> of test_it.py::test_starts_it" in done.text
    assert 'reproduce: pytest --ctxcheck "test_it.py::test_starts_it"' in done.text


def test_a_fixture_of_a_wider_scope_counts_for_itself(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank, pytest

        @pytest.fixture(scope="module")
        def bad():
            a, b = bank.Ledger(), bank.Audit()
            bank.first(a, b)
            yield a, b
            bank.second(b, a)

        @pytest.fixture(scope="session", autouse=True)
        def holds():
            with bank.Cache().lock:
                yield

        def test_one(bad):
            bank.first(bank.Ledger(), bank.Audit())

        def test_two(bad):
            bank.first(bank.Audit(), bank.Cache())

        def test_three():
            pass
        """
    )
    done = suite.run()
    assert set(done.tests.values()) == {"PASSED"}
    assert done.status == 1
    assert len(done.found) == 1
    assert "was seen in <fixture test_it.py::bad>" in done.text or "in <fixture test_it.py::bad>" in done.text


def test_guards_count_by_the_instances_of_the_test(suite: Suite) -> None:
    suite.write(
        test_it="""
        import threading
        import bank

        class Gate:
            def __init__(self):
                self.lock = threading.Lock()

        def under(gate, call, *args):
            with gate.lock:
                call(*args)

        def test_guarded():
            gate, a, b = Gate(), bank.Ledger(), bank.Audit()
            under(gate, bank.first, a, b)
            under(gate, bank.second, b, a)

        def test_guarded_too():
            test_guarded()

        def test_not_guarded():
            a, b = bank.Ledger(), bank.Audit()
            under(Gate(), bank.first, a, b)
            under(Gate(), bank.second, b, a)
        """
    )
    done = suite.run()
    assert done.tests == {
        "test_it.py::test_guarded": "PASSED",
        "test_it.py::test_guarded_too": "PASSED",
        "test_it.py::test_not_guarded": "FAILED",
    }
    alone = suite.run("-k", "too or guarded_too")
    assert alone.status == 0


def test_a_hand_off_in_one_test_excuses_nothing_in_another(suite: Suite) -> None:
    suite.write(
        test_it="""
        import threading
        import bank

        def test_hands_over():
            a = bank.Ledger()
            a.lock.acquire()
            thread = threading.Thread(target=a.lock.release)
            thread.start()
            thread.join()

        def test_both():
            a, b = bank.Ledger(), bank.Audit()
            bank.first(a, b)
            bank.second(b, a)
        """
    )
    done = suite.run()
    assert done.tests["test_it.py::test_both"] == "FAILED"
    assert done.found == suite.run("-k", "both").found


BLOCKS = """
import asyncio, pathlib, time

async def load():
    return pathlib.Path(__file__).read_text()

def test_this():
    asyncio.run(load())

def test_that():
    asyncio.run(load())

def test_sleeps():
    async def nap():
        time.sleep(0.0001)
    asyncio.run(nap())
"""


@pytest.mark.parametrize("split", [[], ["-n", "2"]])
def test_what_several_tests_show_is_one_finding(suite: Suite, split: list[str]) -> None:
    suite.write(test_blocks=BLOCKS)
    done = suite.run(*split, plugins=("xdist",))
    lines = [line for line in done.text.splitlines() if line.startswith("ctxcheck: ")]
    said = "one finding in 2 tests: CTX103 at test_blocks.py:4"
    fingerprint = next(f for f in done.found if f"{said} ({f})" in done.text)
    assert sum(fingerprint in line for line in lines) == 1
    workers = ", 2 workers" if split else ""
    assert lines[-1] == f"ctxcheck: 2 violations (2 CTX103) (in 3 tests{workers})"
    assert "one finding in" not in suite.run("-k", "that or sleeps", plugins=("xdist",)).text


def test_a_line_accepts_what_tests_do_themselves_and_not_what_they_call(suite: Suite) -> None:
    suite.write(test_blocks=BLOCKS, app="import time\nasync def serve():\n    time.sleep(0.0001)\n")
    suite.write(test_app="import app, asyncio\n\ndef test_app():\n    asyncio.run(app.serve())\n")
    accept = 'allow = [{rule = "CTX103", path = "test_*.py", reason = "a test may block its own loop"}]'
    (suite.path / "pyproject.toml").write_text(f"[tool.ctxcheck]\n{accept}\n")
    done = suite.run()
    assert {name for name, outcome in done.tests.items() if outcome == "FAILED"} == {"test_app.py::test_app"}
    assert "1 violation (1 CTX103), 2 allowed" in done.text


def test_the_locks_of_what_runs_a_worker_are_not_the_suites(suite: Suite) -> None:
    suite.write(test_plain="def test_a(): pass\n\ndef test_b(): pass\n")
    done = suite.run("-n", "2", plugins=("xdist",))
    assert "warning: nothing was checked" in done.text
    assert done.status == 0
    assert suite.run("-n", "2", "--ctxcheck-strict", plugins=("xdist",)).status == 1


def test_xdist_by_the_name_of_its_module(suite: Suite) -> None:
    """Where plugins aren't loaded by themselves, ``-p xdist.plugin`` is as good as ``-p xdist``."""
    suite.write(test_it=APART)
    done = suite.run("-n", "2", plugins=("xdist.plugin",))
    assert done.status == 1 and len(done.found) == 1
    assert "error[CTX001]" in done.text
