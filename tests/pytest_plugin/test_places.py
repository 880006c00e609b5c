"""Where pytest is started from, what the plugin is called by, and what tests are called."""

from __future__ import annotations

import os
import sys

import pytest

from tests.pytest_plugin.conftest import APART, BOTH, QUIET, Suite

NAMED = "ctxcheck.pytest_plugin"


@pytest.mark.parametrize("way", ["entry", "option", "variable", "conftest", "none"])
@pytest.mark.parametrize("loads", [True, False])
def test_the_plugin_goes_by_any_of_its_names(pytester: pytest.Pytester, suite: Suite, way: str, loads: bool) -> None:
    suite.write(test_it=BOTH)
    if way == "conftest":
        suite.write(conftest=f"pytest_plugins = [{NAMED!r}]")
    args = {"entry": ["-p", "ctxcheck"], "option": ["-p", NAMED]}.get(way, [])
    env = {"PYTEST_PLUGINS": NAMED} if way == "variable" else {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        if not loads:
            patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        done = pytester.runpytest_subprocess(*(QUIET if loads else []), *args, "--ctxcheck")
    text = done.stdout.str() + done.stderr.str()
    if loads or way in ("entry", "option", "variable"):
        assert done.ret == 1, text
        assert text.count("ctxcheck: 1 violation (1 CTX001)") == 1
    elif way == "conftest":  # by then it has imported what it has imported
        assert done.ret == 4
        assert [line for line in text.splitlines() if line] == [
            f"ERROR: ctxcheck comes too late to check the run: a conftest names it in pytest_plugins; use -p {NAMED}"
        ]
    else:
        assert "unrecognized arguments: --ctxcheck" in text


def test_a_plugin_that_is_turned_off_is_off(pytester: pytest.Pytester, suite: Suite) -> None:
    suite.write(test_it=BOTH)
    for name in ("ctxcheck", NAMED):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CTXCHECK", "1")
            done = pytester.runpytest_subprocess(*QUIET, "-p", f"no:{name}")
        assert done.ret == 0
        assert "ctxcheck:" not in done.stdout.str()


def test_tests_of_one_name_are_two_tests(suite: Suite) -> None:
    """Those outside of pytest's root folder are called by the last part of their path."""
    marked = '@pytest.mark.ctxcheck(allow=["CTX001"], reason="known")\ndef test_both():'
    root = suite.path / "root"
    for name, text in {"one": "import pytest\n" + BOTH.replace("def test_both():", marked), "other": BOTH}.items():
        (suite.path / name).mkdir()
        (suite.path / name / "__init__.py").touch()
        (suite.path / name / "test_same.py").write_text(text)
    root.mkdir()
    (root / "pytest.ini").write_text(f"[pytest]\npythonpath = {suite.path}\n")
    for order in (("one", "other"), ("other", "one")):
        done = suite.run("-c", str(root / "pytest.ini"), *order)
        assert done.status == 1
        assert "3 passed" in done.text
        assert "1 failed" in done.text
        assert "ctxcheck: 1 violation (1 CTX001)" in done.text


def test_what_reproduces_a_finding_does_so_from_here(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    suite.write(conftest="")
    (suite.path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    below = suite.path / "tests" / "below"
    below.mkdir(parents=True)
    (below / "test_apart.py").write_text(APART)
    for folder, name in ((suite.path, os.path.join("tests", "below", "test_apart.py")), (below, "test_apart.py")):
        monkeypatch.chdir(folder)
        done = suite.run()
        assert f'reproduce: pytest --ctxcheck "{name}::test_here" "{name}::test_there"' in done.text


def test_the_paths_of_the_configuration_go_from_where_that_was_found(
    suite: Suite, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = suite.path / "tests"
    below.mkdir()
    (below / "test_it.py").write_text(BOTH)
    (suite.path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    config = suite.path / "pyproject.toml"
    for folder in (suite.path, below):
        monkeypatch.chdir(folder)
        config.write_text('[tool.ctxcheck]\nallow = [{rule = "CTX001", path = "bank*", reason = "known"}]\n')
        done = suite.run()
        assert (done.status, "1 allowed" in done.text) == (0, True), done.text
    monkeypatch.chdir(suite.path)
    config.write_text("")
    suite.run()
    pytester.run(sys.executable, "-m", "ctxcheck", "report", "--write-baseline", "known.json")
    config.write_text('[tool.ctxcheck]\nbaseline = "known.json"\n')
    for folder in (suite.path, below):
        monkeypatch.chdir(folder)
        done = suite.run()
        assert (done.status, "1 in the baseline" in done.text) == (0, True), done.text


def test_a_fixture_has_its_part_through_any_test_of_its_module(suite: Suite) -> None:
    suite.write(
        test_it="""
        import queue, threading, unittest
        import bank

        class TestMail(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.jobs = queue.Queue()
                cls.thread = threading.Thread(target=cls.work)
                cls.thread.start()

            @classmethod
            def tearDownClass(cls):
                cls.jobs.put(None)
                cls.thread.join()

            @classmethod
            def work(cls):
                while cls.jobs.get():
                    bank.first(bank.Ledger(), bank.Audit())
                    cls.jobs.task_done()

            def test_asks(self):
                self.jobs.put(1)
                self.jobs.join()

            def test_other_order(self):
                bank.second(bank.Audit(), bank.Ledger())
        """
    )
    done = suite.run()
    assert done.text.count('reproduce: pytest --ctxcheck "test_it.py::TestMail"\n') == 1
    again = suite.run("test_it.py::TestMail")
    assert again.found == done.found != []


def test_so_has_a_module_that_has_started_a_thread(suite: Suite) -> None:
    suite.write(
        test_it="""
        import queue, threading
        import bank

        JOBS = queue.Queue()

        def work():
            while JOBS.get():
                bank.first(bank.Ledger(), bank.Audit())
                JOBS.task_done()

        threading.Thread(target=work, daemon=True).start()

        def test_asks():
            JOBS.put(1)
            JOBS.join()

        def test_other_order():
            bank.second(bank.Audit(), bank.Ledger())
        """
    )
    done = suite.run()
    assert done.text.count('reproduce: pytest --ctxcheck "test_it.py"\n') == 1
