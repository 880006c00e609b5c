"""Nothing changes until it is asked for; and when it is, early enough."""

from __future__ import annotations

import re
import sys

import pytest

from tests.pytest_plugin.conftest import BOTH, QUIET, Suite

PROBE = """
import sys, threading, _thread

def test_it():
    print("RAW", threading.Lock in (_thread.allocate_lock, getattr(_thread, "lock", None)))  # the type, from 3.13 on
    print("LOADED", sorted({m.split(".")[0] for m in sys.modules} & {"structlog", "wrapt", "asyncio"}))
    print("OURS", sorted(m for m in sys.modules if m.startswith("ctxcheck")))
"""


def test_off_there_is_nothing_but_the_entry(suite: Suite) -> None:
    suite.write(test_it=PROBE)
    done = suite.run(on=False)
    assert "RAW True" in done.text
    assert "LOADED []" in done.text
    assert "OURS ['ctxcheck', 'ctxcheck.pytest_plugin']" in done.text
    assert not (suite.path / ".ctxcheck").exists()


def test_off_the_output_is_the_same(suite: Suite) -> None:
    suite.write(test_it=BOTH)

    def output(*args: str) -> str:
        text = suite.run("-p", "no:junitxml", *args, on=False).text
        return re.sub(r"in \d+\.\d+s", "", text)

    done = suite.run(on=False)
    assert done.status == 0
    assert "ctxcheck" not in done.text.replace("ctxcheck.pytest_plugin", "").replace(str(suite.path), "")


@pytest.mark.parametrize(
    ("args", "env", "ini", "on"),
    [
        ((), {}, "", False),
        (("--ctxcheck",), {}, "", True),
        ((), {"CTXCHECK": "1"}, "", True),
        ((), {}, "ctxcheck = true", True),
        (("--ctxcheck",), {"CTXCHECK": "0"}, "ctxcheck = true", False),
        (("--no-ctxcheck", "--ctxcheck"), {"CTXCHECK": "1"}, "ctxcheck = true", False),
    ],
)
def test_the_switches(suite: Suite, args: tuple[str, ...], env: dict[str, str], ini: str, on: bool) -> None:
    suite.write(test_it=BOTH)
    (suite.path / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
    done = suite.run(*args, on=False, **env)
    assert done.status == int(on)
    assert ("ctxcheck: mode=record" in done.text) == on


def test_what_a_conftest_imports_by_name_is_checked(suite: Suite) -> None:
    suite.write(
        conftest="""
        from threading import Lock
        LOCK = Lock()
        """,
        test_it="""
        import conftest
        def test_it():
            print("CLASS", type(conftest.LOCK).__module__, hasattr(conftest.LOCK, "step"))
        """,
    )
    assert "True" in suite.run().text.partition("CLASS")[2].partition("\n")[0]


def test_markers_and_keys_are_known_with_the_plugin_on_and_off(suite: Suite) -> None:
    suite.write(
        test_it="""
        import pytest

        @pytest.mark.ctxcheck(mode="record")
        @pytest.mark.no_ctxcheck(reason="no reason")
        def test_it(ctxcheck):
            assert ctxcheck.violations == []
            assert ctxcheck.held_locks() == []
            ctxcheck.allow("CTX001", reason="why not")
        """
    )
    (suite.path / "pyproject.toml").write_text(
        '[tool.pytest]\nstrict = true\nfilterwarnings = ["error"]\nctxcheck_mode = "record"\nctxcheck_strict = false\n'
    )
    for on in (False, True):
        done = suite.run(on=on)
        assert done.status == 0, done.text
        assert "warning" not in done.text.replace("filterwarnings", "").replace("nothing was checked", "").replace(
            "ctxcheck: warning:", ""
        )


def test_expecting_something_is_skipped_where_nothing_is_checked(suite: Suite) -> None:
    suite.write(test_it="def test_it(ctxcheck):\n    with ctxcheck.expect('CTX001'): pass\n")
    assert "expects CTX001, and ctxcheck is off" in suite.run(on=False, *()).text


def test_the_options_have_a_group_and_the_markers_a_line(suite: Suite) -> None:
    text = suite.run("--help", on=False).text
    group = text[text.index("lock-context validation") :]
    for option in (
        "--ctxcheck ", "--no-ctxcheck", "--ctxcheck-mode=MODE", "--ctxcheck-strict", "--ctxcheck-output=TYPE[:PATH]",
        "--ctxcheck-config=PATH", "--ctxcheck-owners=OWNERS", "--ctxcheck-fail-on=GRADE",
    ):  # fmt: skip
        assert option in group
    assert "@pytest.mark.no_ctxcheck(reason=None)" in suite.run("--markers", on=False).text


def test_it_is_found_by_its_entry_point(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(test_it="def test_it(): pass")
    done = pytester.run(sys.executable, "-m", "pytest", *QUIET, "--ctxcheck")
    assert "ctxcheck: mode=record" in done.stdout.str()


def test_a_run_that_imported_it_first_is_no_reason_to_warn(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_it(): pass")
    done = pytester.run(
        sys.executable, "-m", "ctxcheck", "run", "-m", "pytest", "-p", "no:asyncio",
        "-W", "error::pytest.PytestAssertRewriteWarning",
    )  # fmt: skip
    assert done.ret == 0
    done.stdout.fnmatch_lines(["*1 passed*"])


def test_collect_only_and_no_terminal(suite: Suite, pytester: pytest.Pytester) -> None:
    suite.write(test_it=BOTH)
    assert suite.run("--collect-only", "-q").status == 0
    quiet = pytester.runpytest_subprocess("-p", "no:terminal", *QUIET, "--ctxcheck")
    assert quiet.ret == 1
    assert not quiet.stdout.str()


def test_a_run_inside_of_a_run_leaves_everything_as_it_was(suite: Suite) -> None:
    suite.write(
        test_it="""
        import threading
        import ctxcheck as package
        import pytest
        pytest_plugins = ["pytester"]

        INNER = "\\n".join([
            "import threading", "def test_inner():", "    a, b = threading.Lock(), threading.Lock()",
            "    with a, b: pass", "    with b: pass",
        ])
        TWICE = INNER.replace("with b:", "with b, a:")

        @pytest.mark.parametrize("args", [(), ("--ctxcheck",)])
        def test_outer(pytester, args):
            pytester.makepyfile(TWICE if args else INNER)
            before = threading.Lock
            done = pytester.runpytest_inprocess("-p", "ctxcheck.pytest_plugin", *args)
            assert threading.Lock is before
            done.assert_outcomes(**({"failed": 1} if args else {"passed": 1}))

        def test_nested():
            with package.checking() as session:
                a, b = threading.Lock(), threading.Lock()
                with a, b: pass
                with b, a: pass
            assert len(session.violations) == 1

        def test_still_checked():
            a, b = threading.Lock(), threading.Lock()
            with a, b: pass
            with b, a: pass
        """
    )
    done = suite.run("-p", "pytester")
    assert done.tests["test_it.py::test_still_checked"] == "FAILED", done.text
    assert done.tests["test_it.py::test_nested"] == "PASSED"
    assert done.tests["test_it.py::test_outer[args1]"] == "PASSED", done.text
