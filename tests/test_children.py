"""Child interpreters that check themselves: real subprocesses, and multiprocessing in each of its ways."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run

#: Names of its own for the locks, so that parent and children mean the same ones.
LOCKS = """
import threading
import bank
def take(first, second):
    with first:
        with second: pass
"""
BANK = "import threading\nledger = threading.Lock()\naudit = threading.Lock()\n"
CHILD = LOCKS + "take(bank.audit, bank.ledger)\n"
BOTH = LOCKS + "take(bank.audit, bank.ledger)\ntake(bank.ledger, bank.audit)\n"
PARENT = LOCKS + """
import subprocess, sys
take(bank.ledger, bank.audit)
status = subprocess.run([sys.executable, {child!r}]).returncode
print("child exited", status, flush=True)
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path) -> None:
    (tmp_path / "bank.py").write_text(BANK)
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "both.py").write_text(BOTH)


def headers(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text().splitlines()[0]) for path in (folder / ".ctxcheck").glob("run.*.jsonl")]


def test_without_the_variable_nothing_of_it_is_imported(tmp_path: Path) -> None:
    code = "import sys; print([name for name in sys.modules if name.startswith('ctxcheck')])"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
    assert not (tmp_path / ".ctxcheck").exists()


def test_a_child_leaves_what_it_found_and_says_nothing(ctxcheck: Run, tmp_path: Path) -> None:
    env = {"CTXCHECK_PROCESS_START": "1", "CTXCHECK_OWNERS": "assumed"}
    command = [sys.executable, "both.py"]
    env = clean_environment(env)
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
    report = ctxcheck("report", "--output", "concise")
    assert report.returncode == 1
    assert report.stdout.startswith("both.py:6: CTX001")
    assert "did not come to an end" not in report.stdout


def clean_environment(more: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("CTXCHECK")} | more


def test_the_configuration_that_it_names_holds(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('data-dir = "elsewhere"\nowners = "assumed"\nignore = ["CTX001"]\n')
    env = clean_environment({"CTXCHECK_PROCESS_START": "other.toml"})
    subprocess.run([sys.executable, "both.py"], cwd=tmp_path, env=env, check=True)
    [file] = (tmp_path / "elsewhere").glob("run.*.jsonl")
    assert '"CTX001"' not in file.read_text()


@pytest.mark.parametrize(("value", "words"), [("no.toml", "no.toml: can't read"), ("bad.toml", "did you mean 'mode'?")])
def test_a_mistake_is_one_line_and_the_program_runs(tmp_path: Path, value: str, words: str) -> None:
    (tmp_path / "bad.toml").write_text("moed = 'x'\n")
    env = clean_environment({"CTXCHECK_PROCESS_START": value})
    command = [sys.executable, "-c", "print('ran')"]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    assert result.stdout == "ran\n"
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("ctxcheck: this process is not checked: CTXCHECK_PROCESS_START: ")
    assert words in result.stderr


def test_zero_wins(tmp_path: Path) -> None:
    env = clean_environment({"CTXCHECK_PROCESS_START": "1", "CTXCHECK": "0"})
    subprocess.run([sys.executable, "both.py"], cwd=tmp_path, env=env, check=True)
    assert not (tmp_path / ".ctxcheck").exists()


def test_a_run_tells_what_its_children_found_and_what_it_comes_to_together(ctxcheck: Run, tmp_path: Path) -> None:
    code = PARENT.format(child="child.py")
    result = ctxcheck("run", "--processes", "--owners", "assumed", "program.py", code=code)
    assert "child exited 0" in result.stdout
    assert "ctxcheck: 1 child process took part" in result.stdout
    assert result.stdout.count("error[CTX001]") == 1
    assert "no single process had all of these orders" in result.stdout
    assert "with first:" in result.stdout  # its source
    assert result.returncode == 1
    assert len({header["run"] for header in headers(tmp_path)}) == 1
    result = ctxcheck("run", "--owners", "assumed", "program.py", code=code)  # not asked for
    assert result.returncode == 0
    assert "child process" not in result.stdout


def test_children_in_other_folders_and_of_children_belong_to_the_run(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    code = f"""
import subprocess, sys
inner = [sys.executable, {str(tmp_path / "both.py")!r}]
subprocess.run([sys.executable, "-c", f"import subprocess; subprocess.run({{inner!r}})"], cwd="sub", check=True)
"""
    result = ctxcheck("run", "--processes", "program.py", code=code, env={"CTXCHECK_OWNERS": "assumed"})
    assert "error[CTX001]" in result.stdout
    assert not (tmp_path / "sub" / ".ctxcheck").exists()


def test_a_child_that_runs_the_command_line_checks_once(ctxcheck: Run, tmp_path: Path) -> None:
    code = "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'ctxcheck', 'run', '-q', 'both.py'])\n"
    result = ctxcheck("run", "--processes", "program.py", code=code, env={"CTXCHECK_OWNERS": "assumed"})
    assert "Traceback" not in result.stdout
    assert len(headers(tmp_path)) <= 2


POOL = LOCKS + """
import multiprocessing, sys
def work(which):
    take(*((bank.ledger, bank.audit) if which else (bank.audit, bank.ledger)))
    return which
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work, args=(i,)) for i in range(2)]
    for child in children: child.start()
    for child in children: child.join()
    print([child.exitcode for child in children])
"""


@pytest.mark.parametrize("method", [m for m in ("spawn", "forkserver", "fork")
                                    if m in multiprocessing.get_all_start_methods()])  # fmt: skip
def test_multiprocessing(ctxcheck: Run, method: str) -> None:
    code = POOL.format(method=method)
    result = ctxcheck("run", "--processes", "--owners", "assumed", "program.py", code=code)
    assert "[0, 0]" in result.stdout
    assert "Traceback" not in result.stdout
    assert "2 child processes took part" in result.stdout, result.stdout
    assert result.stdout.count("error[CTX001]") == 1
    assert "no single process had all of these orders" in result.stdout
    assert result.returncode == 1


SENT = """
import multiprocessing
def work(lock, queue, number):
    with lock: queue.put(number)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    lock, queue = context.Lock(), context.Queue()
    children = [context.Process(target=work, args=(lock, queue, i)) for i in range(2)]
    for child in children: child.start()
    for child in children: child.join(60)
    print([child.exitcode for child in children])
"""


@pytest.mark.parametrize("method", [m for m in ("spawn", "forkserver", "fork")
                                    if m in multiprocessing.get_all_start_methods()])  # fmt: skip
def test_children_that_check_themselves_can_be_sent_locks(ctxcheck: Run, method: str) -> None:
    # what they are sent is unpickled before anything else is imported
    result = ctxcheck("run", "--processes", "program.py", code=SENT.format(method=method))
    assert "[0, 0]" in result.stdout, result.stdout
    assert "Traceback" not in result.stdout
    assert result.returncode == 0


def test_a_child_that_is_killed_counts_with_what_it_saw(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(CHILD + "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    code = PARENT.format(child="child.py")
    result = ctxcheck("run", "--processes", "--owners", "assumed", "program.py", code=code)
    assert "child exited -9" in result.stdout
    assert result.stdout.count("error[CTX001]") == 1
    report = ctxcheck("report", "--output", "concise")
    assert "2 processes since" in report.stdout
    assert "1 of which did not come to an end" in report.stdout
    assert "1 violation (1 CTX001)" in report.stdout
