"""What people get wrong: each is a line that names the thing, the value and what is allowed, and no report is lost."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

import ctxcheck as package
from ctxcheck import outputs
from ctxcheck.config import ConfigError, load
from ctxcheck.engine.sites import RUNNER
from ctxcheck.keys import Output
from tests.conftest import Run
from tests.test_cli import CLEAN, INVERSION, rules

THREADS = CLEAN + "import threading\nt = threading.Thread(target=print); t.start(); t.join()\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "--error-exitcode", "256", "program.py"], "is '256'; allowed: 1 to 255 (--exit-zero for 0)"),
        (["run", "--error-exitcode", "0", "program.py"], "is '0'; allowed: 1 to 255"),
        (["run", "--error-exitcode", "-1", "program.py"], "is '-1'; allowed: 1 to 255"),
        (["run", "--error-exitcode", "x", "program.py"], "--error-exitcode: is 'x'; allowed: 1 to 255"),
        (["run", "--allow", "CTX001", "program.py"], "--allow is no option: 'allow' stands in the configuration file"),
        (["run", "--dump-signal", "SIGKILL", "program.py"], "SIGKILL can't be handled by a program"),
        (["run", "--output", "json:a", "--output", "sarif:./a", "program.py"], "--output json:a goes to the same file"),
        (["run", "--output", f"json:{'x' * 300}", "program.py"], "File name too long"),
        (["debug", "confg"], "did you mean 'config'?"),
        (["explain", "CTX999"], "unknown rule 'CTX999'"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_run(ctxcheck: Run, args: list[str], message: str) -> None:
    result = ctxcheck(*args, code="print('ran')\n")
    assert result.returncode == 2
    assert message in result.stdout
    assert result.stdout.count("\n") == 1
    assert "ran" not in result.stdout


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system in which nobody can write")
def test_an_output_where_nobody_can_write_is_said_before_anything_is_run(ctxcheck: Run) -> None:
    result = ctxcheck("run", "--output", "json:/proc/x", "program.py", code="print('ran')\n")
    assert (result.returncode, result.stdout.count("\n")) == (2, 1)
    assert result.stdout.startswith("ctxcheck: can't write --output json:/proc/x: ")


def test_to_look_whether_an_output_can_be_written_leaves_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("kept")
    os.mkfifo(tmp_path / "pipe")
    wanted = [Output("json", "old"), Output("json", "new"), Output("sarif", "pipe"), Output("json", "pipe")]
    outputs.check(wanted, cwd=str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["old", "pipe"]
    assert (tmp_path / "old").read_text() == "kept"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("code", "status"), [(CLEAN, 2), (INVERSION, 1)])
def test_a_report_that_is_lost_in_the_end_is_no_success(ctxcheck: Run, code: str, status: int) -> None:
    result = ctxcheck("run", "--output", "json:/dev/full", "program.py", code=code)
    assert result.returncode == status
    assert result.stdout.count("can't write --output json:/dev/full: No space left on device\n") == 1
    assert ctxcheck("report", "--output", "json:/dev/full", "--exit-zero").returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["report", "graph", "explain", "probes", "debug"])
@pytest.mark.parametrize("target", ["> /dev/full", ">&-"])
def test_nobody_to_print_to(ctxcheck: Run, tmp_path: Path, command: str, target: str) -> None:
    ctxcheck("run", "program.py", code=INVERSION)
    words = {"explain": "explain CTX001", "debug": "debug config"}.get(command, command)
    result = subprocess.run(
        f"{sys.executable} -m ctxcheck {words} {target}", shell=True, cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("ctxcheck: can't write to standard output: ")
    assert result.stderr.count("\n") == 1


def test_whoever_has_seen_enough_may_go(ctxcheck: Run, tmp_path: Path) -> None:
    ctxcheck("run", "program.py", code=INVERSION)
    for words in ("report", "graph", "explain CTX001", "probes --all"):
        result = subprocess.run(
            f"{sys.executable} -m ctxcheck {words} | head -1", shell=True, cwd=tmp_path, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert len(result.stdout.splitlines()) == 1
        assert "Traceback" not in result.stderr


def test_a_report_in_short(ctxcheck: Run) -> None:
    ctxcheck("run", "program.py", code=INVERSION)
    lines = ctxcheck("report", "-q").stdout.splitlines()
    assert lines[0].startswith("program.py:10: CTX001 possible deadlock")
    assert lines[-1].startswith("ctxcheck: 1 violation")


# ---- strict: what is warned of fails


@pytest.mark.parametrize(
    ("env", "args", "line"),
    [
        ({"CTXCHECK_MOED": "warn"}, [], "environment: CTXCHECK_MOED is not a variable of ctxcheck; did you mean"),
        ({}, ["--data-dir", "program.py"], "can't write data file"),
        ({}, ["--include", "shop.*"], "no lock was made in a module that include names ('shop.*')"),
        ({}, ["--ignore", "CTX"], "no rule is left by select = ['CTX'] and ignore = ['CTX']: nothing can be found"),
    ],
)
def test_a_warning_fails_a_strict_run(ctxcheck: Run, env: dict[str, str], args: list[str], line: str) -> None:
    lax = ctxcheck("run", *args, "program.py", code=THREADS, env=env)
    assert (lax.returncode, lax.stdout.count(f"ctxcheck: warning: {line}")) == (0, 1)
    strict = ctxcheck("run", "--strict", *args, "program.py", code=THREADS, env=env)
    assert (strict.returncode, strict.stdout.count(f"ctxcheck: strict: {line}")) == (1, 1)


def test_an_include_that_names_no_module_names_the_nearest(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(INVERSION)
    result = ctxcheck("run", "--include", "shpo.*", "program.py", code="import shop\n")
    assert "no lock was made in a module that include names ('shpo.*'); did you mean 'shop'?\n" in result.stdout
    assert "include" not in ctxcheck("run", "--include", "shop,other.*", "program.py").stdout


def test_a_variable_for_what_stands_in_the_file_only(ctxcheck: Run) -> None:
    result = ctxcheck("run", "program.py", code=CLEAN, env={"CTXCHECK_ALLOW": "CTX001"})
    assert "CTXCHECK_ALLOW is not a variable of ctxcheck: 'allow' stands in the configuration file" in result.stdout


# ---- the configuration


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.ctxchek]\nmode = 'warn'", "unknown table [tool.ctxchek]; did you mean [tool.ctxcheck]?"),
        ('[tool.ctxcheck]\ndata-dir = "a\\u0000b"', "data-dir is 'a\\x00b'; a null character can't stand in it"),
        ('[tool.ctxcheck]\noutput = ["json:a\\u0000b"]', "output is 'json:a\\x00b'; a null character can't"),
        ("[[tool.ctxcheck.allow]]\nrule = 'CTX001'\nreason = 'x'\nlocks = []", "locks is []; allowed: a list of names"),
        ("[tool.ctxcheck]\nmode = true", "mode is true; allowed"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(environ={}, cwd=str(tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_of_others_are_theirs(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.check]\n[tool.ctx]\n[tool.mypy-check]\n")
    load(environ={}, cwd=str(tmp_path))


@pytest.mark.parametrize("seconds", [1e300, math.inf, 10**400])
def test_a_wait_that_no_clock_can_do_is_a_long_one(seconds: Any) -> None:
    """Else the wait itself would fail, in the middle of the program."""
    with package.checking(deadlock_after=seconds) as session:
        lock = package.Lock()
        lock.acquire()
        release = __import__("threading").Timer(0, lock.release)
        release.start()
        lock.acquire()  # may be a hand-off: it is looked at after that many seconds
        lock.release()
        release.join()
    assert [v.rule for v in session.violations if v.rule == "CTX901"] == []


# ---- calls


def test_a_name_in_the_wrong_place() -> None:
    with pytest.raises(TypeError, match=r"Lock takes no positional argument, .* 'ledger'; for a name: Lock\(name="):
        package.Lock("ledger")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_a_file_that_is_none() -> None:
    with pytest.raises(TypeError, match=r"dump: file='x' has no write\(\)"):
        package.dump("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    package.dump(StringIO())


# ---- what a report shows of how the program was started


def test_a_stack_begins_in_the_program_not_in_what_started_it(ctxcheck: Run, tmp_path: Path) -> None:
    """The script that installers write lies below the working directory where the environment does."""
    (tmp_path / "start.py").write_text("import sys\nfrom ctxcheck.cli import main\nsys.exit(main())\n")
    code = "import ctxcheck\n@ctxcheck.might_sleep\ndef nap(): pass\nwith ctxcheck.SpinLock(): nap()\n"
    (tmp_path / "program.py").write_text(code)
    result = subprocess.run(
        [sys.executable, "start.py", "run", "program.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=60, env=os.environ | {"CTXCHECK": "", "NO_COLOR": "1"},
    )  # fmt: skip
    assert os.path.isfile(RUNNER)
    assert "error[CTX101]" in result.stderr
    assert "start.py" not in result.stderr
    assert rules(tmp_path) == ["CTX101"]


# ---- names of locks

MISNAMED = """
[[tool.ctxcheck.allow]]
rule = "CTX001"
locks = ["Ledgr.lock", "Audit.lock"]
reason = "x"

[[tool.ctxcheck.order]]
locks = ["Ledger.lock", "Audti.lock"]
"""
NAMED = """
import ctxcheck
with ctxcheck.Lock(name="Ledger.lock"), ctxcheck.Lock(name="Audit.lock"), ctxcheck.Lock(name="Order.lock"): pass
"""
LINES = (
    "pyproject.toml: an allow of CTX001 names 'Ledgr.lock', and no lock of that name was made; did you mean 'Ledger.lo"
    "ck'?",
    "a declared order names 'Audti.lock', and no lock of that name was taken; did you mean 'Audit.lock'?",
)


def test_a_lock_that_the_configuration_nearly_names_is_told(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(MISNAMED)
    lax = ctxcheck("run", "program.py", code=NAMED)
    strict = ctxcheck("run", "--strict", "program.py")
    assert (lax.returncode, strict.returncode) == (0, 1)
    for line in LINES:
        assert lax.stdout.count(f"ctxcheck: note: {line}\n") == 1
        assert strict.stdout.count(f"ctxcheck: strict: {line}\n") == 1


def test_a_lock_that_didnt_run_is_no_typing_error(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(MISNAMED.replace("Ledgr", "Stock").replace("Audti", "Cache"))
    assert "did you mean" not in ctxcheck("run", "program.py", code=NAMED).stdout
