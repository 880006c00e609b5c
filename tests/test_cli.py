"""The command line, as a user types it: real processes, exit statuses, last lines, data files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctxcheck.records import read
from tests.conftest import Run

INVERSION = """
import threading
a = threading.Lock()
b = threading.Lock()
def forth():
    with a:
        with b: pass
def back():
    with b:
        with a: pass
for work in (forth, back):
    t = threading.Thread(target=work); t.start(); t.join()
"""
CLEAN = "import threading\nlock = threading.Lock()\nwith lock: print('in')\n"


def records(folder: Path) -> list[dict[str, object]]:
    [path] = (folder / ".ctxcheck").glob("run.*.jsonl")
    _, found, problems = read(str(path))
    assert not problems
    return list(found)


def rules(folder: Path) -> list[str]:
    return [r["violation"]["rule"] for r in records(folder) if r["type"] == "violation"]  # type: ignore[index]


def test_a_clean_program_says_what_was_checked_and_leaves_what_it_saw(ctxcheck: Run, tmp_path: Path) -> None:
    result = ctxcheck("run", "program.py", code=CLEAN)
    assert result.returncode == 0
    assert "in\n" in result.stdout
    assert result.stdout.endswith("ctxcheck: no violations; 1 lock class, 0 orders, 1 acquisition checked\n")
    *_, end = records(tmp_path)
    assert end["type"] == "end"
    assert end["counts"]["acquisitions"] == 1  # type: ignore[index]


def test_an_inversion_is_reported_written_and_fails(ctxcheck: Run, tmp_path: Path) -> None:
    result = ctxcheck("run", "program.py", code=INVERSION)
    assert result.returncode == 1
    assert result.stdout.count("error[CTX001]") == 1
    assert result.stdout.endswith("ctxcheck: 1 violation (1 CTX001); program exited 0 -> exit 1\n")
    assert rules(tmp_path) == ["CTX001"]
    assert (tmp_path / ".ctxcheck" / ".gitignore").read_text() == "*\n"
    end = records(tmp_path)[-1]
    assert end["type"] == "end"
    assert len(end["graph"]["edges"]) == 2  # type: ignore[index]


@pytest.mark.parametrize(
    ("last", "status"),
    [("import sys; sys.exit(7)", 7), ("1/0", 1), ("import os; os._exit(9)", 9), ("import sys; sys.exit('bye')", 1)],
)
def test_the_programs_own_status_wins_and_the_report_is_printed_all_the_same(
    ctxcheck: Run, tmp_path: Path, last: str, status: int
) -> None:
    result = ctxcheck("run", "program.py", code=f"{INVERSION}\n{last}\n")
    assert result.returncode == status
    assert result.stdout.count("error[CTX001]") == 1
    assert f"program exited {status} -> exit {status}" in result.stdout
    assert rules(tmp_path) == ["CTX001"]


def test_os_exit_with_success_doesnt_hide_a_finding(ctxcheck: Run) -> None:
    result = ctxcheck("run", "program.py", code=f"{INVERSION}\nimport os; os._exit(0)\n")
    assert result.returncode == 1
    assert "program exited 0 -> exit 1" in result.stdout


def test_a_killed_program_leaves_its_findings(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        INVERSION + "import sys, time\nprint('ready', flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "ctxcheck", "run", "program.py"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert rules(tmp_path) == ["CTX001"]


def test_a_real_deadlock_is_printed_while_it_hangs(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("""
import threading
a = threading.Lock()
b = threading.Lock()
both = threading.Barrier(2)
def forth():
    with a:
        both.wait()
        with b: pass
def back():
    with b:
        both.wait()
        with a: pass
for work in (forth, back):
    threading.Thread(target=work).start()
""")
    process = subprocess.Popen(
        [sys.executable, "-m", "ctxcheck", "run", "--deadlock-after", "0.1", "program.py"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        assert "error[CTX001]: deadlock: threads" in first
        assert process.poll() is None  # it is left to hang
        grades = [
            r["violation"]["grade"]  # type: ignore[index]
            for r in records(tmp_path)
            if r["type"] == "violation"
        ]
        assert grades == ["possible", "certain"]
    finally:
        process.kill()
        process.communicate()


def test_a_self_deadlock_is_printed_at_once_and_not_twice(ctxcheck: Run) -> None:
    code = "import threading\nl = threading.Lock()\nwith l:\n    with l: pass\n"
    result = ctxcheck("run", "program.py", code=code)
    assert result.returncode == 1
    assert result.stdout.count("error[CTX002]") == 1
    assert result.stdout.index("error[CTX002]") < result.stdout.index("Traceback")
    assert "DeadlockError" in result.stdout


CERTAIN = """
import os, ctxcheck, threading
lock = threading.Lock()
@ctxcheck.atomic
def busy():
    with lock: pass
busy()
os.write(2, b"the program goes on\\n")
busy()
a, b = threading.Lock(), threading.Lock()
with a, b: pass
with b, a: pass
"""


@pytest.mark.parametrize(
    ("options", "headline"),
    [((), "error[CTX102]"), (("--output", "concise"), ": CTX102 "), (("-q",), ": CTX102 ")],
)
def test_what_is_certain_is_printed_at_once_and_not_twice(
    ctxcheck: Run, options: tuple[str, ...], headline: str
) -> None:
    result = ctxcheck("run", "--owners", "assumed", *options, "program.py", code=CERTAIN)
    assert result.returncode == 1
    assert result.stdout.count(headline) == 1
    assert result.stdout.index(headline) < result.stdout.index("the program goes on") < result.stdout.index("CTX001")


def test_what_is_certain_goes_into_other_outputs_as_ever(ctxcheck: Run, tmp_path: Path) -> None:
    outputs = [f"--output={kind}:out.{kind}" for kind in ("text", "concise", "json")]
    result = ctxcheck("run", *outputs, "program.py", code=CERTAIN)
    assert "CTX102" not in result.stdout.replace("(1 CTX102", "")
    for kind in ("text", "concise", "json"):
        assert "CTX102" in (tmp_path / f"out.{kind}").read_text()


def test_json_and_concise_outputs(ctxcheck: Run, tmp_path: Path) -> None:
    result = ctxcheck(
        "run", "--output", "json:out.json", "--output", "concise", "--exit-zero", "program.py", code=INVERSION
    )
    assert result.returncode == 0
    assert "error[" not in result.stdout
    assert "program.py:10: CTX001 possible deadlock" in result.stdout
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["schema_version"] == 1
    assert document["run"]["counts"]["lock_classes"] == 2
    assert [v["rule"] for v in document["violations"]] == ["CTX001"]
    assert {s["file"] for s in document["violations"][0]["sites"]} == {"program.py"}
    assert {c["name"] for c in document["graph"]["classes"]} == {"a", "b"}


def test_error_exitcode_and_fail_on(ctxcheck: Run) -> None:
    assert ctxcheck("run", "--error-exitcode", "42", "program.py", code=INVERSION).returncode == 42
    assert ctxcheck("run", "--fail-on", "certain", "program.py", code=INVERSION).returncode == 0


def test_configuration_is_read_and_an_allow_accepts(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.ctxcheck]\nstrict = true\n"
        '[[tool.ctxcheck.allow]]\nrule = "CTX001"\nlocks = ["a", "b"]\nreason = "fine"\n'
    )
    result = ctxcheck("run", "program.py", code=INVERSION)
    assert result.returncode == 0
    assert "1 allowed" in result.stdout
    strict = ctxcheck("run", "program.py", code=CLEAN)
    assert strict.returncode == 1
    assert "an allow of CTX001 accepted nothing: 'fine'" in strict.stdout


UNUSED = """
import ctxcheck

def main():
    with ctxcheck.allow("CTX101", reason="a block"):
        pass
    print("ran")  # ctxcheck: allow[CTX301] a comment
    print("ran")  # ctxcheck: allow[CTX3O1] a typing error

main()
"""


def test_what_accepted_nothing_is_told_in_one_line(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[[tool.ctxcheck.allow]]\nrule = "CTX001"\nreason = "an entry"\n')
    result = ctxcheck("run", "--output", "text", "--output", "json:out.json", "program.py", code=UNUSED)
    assert result.returncode == 0
    lines = [line for line in result.stdout.splitlines() if "allow" in line or "warning" in line]
    assert lines == [
        "ctxcheck: warning: program.py:8: there is no rule 'CTX3O1'; did you mean 'CTX301'?",
        "ctxcheck: note: 3 allows accepted nothing in this run, and can go if what they are for has run: "
        "pyproject.toml (CTX001), program.py:5, program.py:7",
    ]
    document = json.loads((tmp_path / "out.json").read_text())
    assert [(u["kind"], u["rules"], u["reason"], u["file"], u["line"]) for u in document["unused_allows"]] == [
        ("configuration", ["CTX001"], "an entry", "pyproject.toml", 0),
        ("block", ["CTX101"], "a block", "program.py", 5),
        ("comment", ["CTX301"], "a comment", "program.py", 7),
    ]
    strict = ctxcheck("run", "--strict", "program.py", code=UNUSED)
    assert strict.returncode == 1
    assert "ctxcheck: strict: program.py:8: there is no rule 'CTX3O1'" in strict.stdout
    assert "ctxcheck: strict: program.py:5: an allow of CTX101 accepted nothing: 'a block'" in strict.stdout
    assert "can go if" not in strict.stdout
    quiet = ctxcheck("run", "--ignore", "CTX1,CTX0,CTX3", "--output", "text", "program.py", code=UNUSED)
    assert "can go if" not in quiet.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "nope.py"], "ctxcheck: can't open file 'nope.py'"),
        (["run", "--mode", "rais", "program.py"], "did you mean 'raise'?"),
        (["run", "--outputs", "json", "program.py"], "unknown option --outputs; did you mean --output?"),
        (["run", "--output", "jason:x", "program.py"], "did you mean 'json'?"),
        (["run", "-m"], "a module name is missing"),
        (["run"], "no program given"),
        (["run", "-m", "no_such_module_here"], "no_such_module_here"),
        (["explain", "CTX01"], "did you mean"),
    ],
)
def test_mistakes_are_one_line_and_status_2(ctxcheck: Run, args: list[str], message: str) -> None:
    result = ctxcheck(*args, code=CLEAN)
    assert result.returncode == 2
    assert message in result.stdout
    assert "Traceback" not in result.stdout


def test_an_unknown_key_is_refused_by_name(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ctxcheck]\nstack_dept = 3\n")
    result = ctxcheck("run", "program.py", code=CLEAN)
    assert result.returncode == 2
    assert "pyproject.toml: [tool.ctxcheck] unknown key 'stack_dept'; did you mean 'stack-depth'?" in result.stdout


def test_folders_on_the_way_to_an_output_are_made(ctxcheck: Run, tmp_path: Path) -> None:
    ctxcheck("run", "--output", "json:no/such/folder/x.json", "program.py", code=INVERSION)
    assert json.loads((tmp_path / "no/such/folder/x.json").read_text())["violations"]


@pytest.mark.parametrize(
    ("output", "reason"),
    [("json:program.py/x.json", "program.py is no folder"), ("json:.", "that is a folder")],
)
def test_an_output_that_cant_be_written_is_said_before_anything_is_run(
    ctxcheck: Run, output: str, reason: str
) -> None:
    result = ctxcheck("run", "--output", output, "program.py", code=CLEAN)
    assert result.returncode == 2
    assert result.stdout == f"ctxcheck: can't write --output {output}: {reason}\n"


def test_an_output_that_cant_be_written_in_the_end_is_said_and_nothing_else_is_lost(ctxcheck: Run) -> None:
    outputs = ("--output", "json:out/x.json", "--output", "text")
    code = INVERSION + "import os; os.rmdir('out'); open('out', 'w').close()\n"
    result = ctxcheck("run", *outputs, "program.py", code=code)
    assert "can't write --output json:out/x.json: File exists\n" in result.stdout
    assert "error[CTX001]" in result.stdout
    assert result.returncode == 1


def test_on_github_annotations_and_a_summary_are_added(ctxcheck: Run, tmp_path: Path) -> None:
    env = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": "summary.md", "GITHUB_WORKSPACE": str(tmp_path.parent)}
    result = ctxcheck("run", "program.py", code=INVERSION, env=env)
    assert f"\n::error file={tmp_path.name}/program.py,line=" in result.stdout
    assert result.stdout.count("error[CTX001]") == 1
    assert (tmp_path / "summary.md").read_text().startswith("### ctxcheck\n")
    # whoever names the outputs gets these
    result = ctxcheck("run", "--output", "text", "program.py", env=env)
    assert "::error" not in result.stdout
    assert (tmp_path / "summary.md").read_text().count("### ctxcheck") == 1


def test_a_summary_has_room_for_what_others_wrote(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("x" * (2**20 - 1200) + "\n")
    env = {"GITHUB_STEP_SUMMARY": "summary.md"}
    ctxcheck("run", "--output", "github", "program.py", code=INVERSION, env=env)
    assert (tmp_path / "summary.md").stat().st_size <= 2**20


def test_ctxcheck_0_runs_the_program_plainly(ctxcheck: Run) -> None:
    result = ctxcheck("run", "program.py", code=INVERSION, env={"CTXCHECK": "0"})
    assert (result.returncode, result.stdout) == (0, "")


def test_nothing_checked_is_said(ctxcheck: Run) -> None:
    result = ctxcheck("run", "program.py", code="print('hello')\n")
    assert result.returncode == 0
    assert "warning: nothing was checked" in result.stdout
    assert ctxcheck("run", "--strict", "program.py", code="print('hello')\n").returncode == 1


def test_locks_made_before_or_by_thread_are_counted_by_module(ctxcheck: Run) -> None:
    code = "import _thread\nlock = _thread.allocate_lock()\nclass C:\n    lock = _thread.allocate_lock()\n"
    result = ctxcheck("run", "program.py", code=code)
    assert "__main__ 2" in result.stdout


def test_logging_is_checked_from_its_import(ctxcheck: Run, tmp_path: Path) -> None:
    code = "import logging\nlogging.getLogger('x').warning('hello')\n"
    ctxcheck("run", "--output", "json:o.json", "program.py", code=code)
    document = json.loads((tmp_path / "o.json").read_text())
    assert "logging._lock" in {c["name"] for c in document["graph"]["classes"]}


@pytest.mark.parametrize(
    ("package", "module", "function", "kwargs", "refused"),
    [
        ("gevent", "gevent/monkey.py", "patch_all", "", True),
        ("gevent", "gevent/monkey.py", "patch_all", "thread=False", False),
        ("eventlet", "eventlet/patcher.py", "monkey_patch", "", True),
    ],
)
def test_green_threads_are_refused_in_one_line(
    ctxcheck: Run, tmp_path: Path, package: str, module: str, function: str, kwargs: str, refused: bool
) -> None:
    # stand-ins with the real ones' names: what is refused is the call, before it replaces anything
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / module).write_text(f"def {function}(**kwargs): print('patched')\n")
    name = module.removesuffix(".py").replace("/", ".")
    code = f"import {name}\n{name}.{function}({kwargs})\nprint('went on')\n"
    result = ctxcheck("run", "program.py", code=code)
    if refused:
        assert result.returncode == 2
        assert result.stdout.count("\n") == 1
        assert f"ctxcheck: {package} replaces threads with greenlets" in result.stdout
    else:
        assert "went on" in result.stdout
        assert result.returncode == 0


def test_a_forked_child_writes_its_own_file(ctxcheck: Run, tmp_path: Path) -> None:
    code = f"""
import os
pid = os.fork()
if not pid:
    exec({INVERSION!r})
    os._exit(0)
os.waitpid(pid, 0)
"""
    result = ctxcheck("run", "program.py", code=code)
    assert result.stdout.count("error[CTX001]") == 1
    assert "found in child process" in result.stdout
    files = list((tmp_path / ".ctxcheck").glob("run.*.jsonl"))
    assert sorted('"CTX001"' in file.read_text() for file in files) == [False, True]


def test_stdout_is_the_programs_own(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(INVERSION + "print('only this')\n")
    command = [sys.executable, "-m", "ctxcheck", "run", "program.py"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stdout == "only this\n"
    assert "CTX001" in result.stderr


def test_daemon_threads_that_hammer_locks_at_exit_do_no_harm(ctxcheck: Run) -> None:
    code = """
import threading
lock = threading.Lock()
def work():
    while True:
        with lock: pass
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
"""
    for _ in range(3):
        result = ctxcheck("run", "program.py", code=code)
        assert result.returncode == 0
        assert result.stdout.count("\n") == 1


def test_every_explain_page_and_the_index(ctxcheck: Run) -> None:
    index = ctxcheck("explain")
    assert index.returncode == 0
    assert "CTX001" in index.stdout
    page = ctxcheck("explain", "self-deadlock")
    assert page.stdout.startswith("CTX002 self-deadlock")


def test_interrupted_by_the_keyboard_it_ends_as_python_does(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        INVERSION + "import time\nprint('ready', flush=True)\nwhile True: time.sleep(0.01)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "ctxcheck", "run", "program.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert errors.count("error[CTX001]") == 1


def test_a_call_that_may_block_is_nothing_to_check_by_itself(ctxcheck: Run) -> None:
    result = ctxcheck("run", "program.py", code="print(len(open(__file__).read()))\n")
    assert "warning: nothing was checked" in result.stdout
    assert result.returncode == 0
    assert ctxcheck("run", "--strict", "program.py", code="open(__file__).read()\n").returncode == 1
    marked = "open(__file__).read()\nfrom ctxcheck import might_sleep\nmight_sleep()\n"
    assert ctxcheck("run", "--strict", "program.py", code=marked).returncode == 0


@pytest.mark.parametrize(
    "program",
    [
        "import ctxcheck\nctxcheck.might_sleep()\n",
        "import ctxcheck\n@ctxcheck.might_sleep\ndef f(): ...\nf()\n",
        "import ctxcheck\n@ctxcheck.requires_lock(lambda: 3)\ndef f(): ...\ntry: f()\nexcept TypeError: pass\n",
        "import ctxcheck\n@ctxcheck.range_start('r')\ndef f(): ...\n@ctxcheck.range_end('r')\ndef g(): ...\nf(); g()\n",
    ],
)
def test_a_marked_call_that_is_no_context_was_checked(ctxcheck: Run, program: str) -> None:
    result = ctxcheck("run", "--strict", "program.py", code=program)
    assert result.stdout.endswith("ctxcheck: no violations; waits and marked calls of 1 thread checked\n")
    assert result.returncode == 0
    # marked, and never called
    result = ctxcheck("run", "--strict", "program.py", code="import ctxcheck\n@ctxcheck.might_sleep\ndef f(): ...\n")
    assert "nothing was checked" in result.stdout
    assert result.returncode == 1


UNITTEST = """
import threading, unittest

A, B = threading.Lock(), threading.Lock()

class TestBank(unittest.TestCase):
    def test_ab(self):
        with A, B:
            pass
    def test_ba(self):
        with B, A:
            pass
    def test_alone(self):
        with A:
            pass
"""


def test_findings_of_unittest_name_their_tests(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "test_bank.py").write_text(UNITTEST)
    result = ctxcheck("run", "--owners", "assumed", "-m", "unittest", "test_bank")
    assert result.returncode == 1
    assert result.stdout.count("error[CTX001]") == 1
    assert "seen in `test_bank.TestBank.test_ba` and `test_bank.TestBank.test_ab`" in result.stdout
