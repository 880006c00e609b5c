"""Forks while other threads hold locks (CTX306), and what forked children have found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from ctxcheck import datafile, forked
from ctxcheck.engine.violations import Violation

from ..conftest import Run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")

HEAD = """
import os, sys, threading, logging, queue, concurrent.futures
class Box:
    def __init__(self, lock=None):
        self.lock = lock or threading.Lock()
        self.inside, self.done = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold, name="holder")
    def hold(self):
        with self.lock:
            self.inside.set()
            self.done.wait()
    def start(self):
        self.thread.start()
        self.inside.wait()
    def stop(self):
        self.done.set()
        self.thread.join()
def fork(child=lambda: None, status=0):
    pid = os.fork()
    if not pid:
        try: child()
        finally: os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
"""


def found(ctxcheck: Run, tmp_path: Path, code: str, *args: str) -> list[tuple[str, str]]:
    """Run a program; its findings, each with its grade."""
    result = ctxcheck(
        "run", "--exit-zero", "--output", "json:out.json", *args, "program.py", code=HEAD + textwrap.dedent(code)
    )
    assert result.returncode == 0, result.stdout
    assert "Traceback" not in result.stdout
    assert "Exception ignored" not in result.stdout
    return [(v["rule"], v["grade"]) for v in json.loads((tmp_path / "out.json").read_text())["violations"]]


# --- what is a hazard, and what isn't --------------------------------------------------------------------------------

HAZARDS = {
    "a lock": "box = Box(); box.start(); fork(); box.stop()",
    "an RLock": "box = Box(threading.RLock()); box.start(); fork(); box.stop()",
    "a condition": "box = Box(threading.Condition()); box.start(); fork(); box.stop()",
    "another lock of a chain that was known": """
        boxes = [Box() for _ in range(3)]
        def work():
            for box in boxes:
                with box.lock: pass
            boxes[0].hold()
        box = boxes[0]; box.thread = threading.Thread(target=work); box.start(); fork(); box.stop()
        """,
    "a child that can't execute what it wants": """
        def child():
            try: os.execv("/nonexistent", ["x"])
            except OSError: pass
        box = Box(); box.start(); fork(child); box.stop()
        """,
    "forkpty": """
        box = Box(); box.start()
        pid, fd = os.forkpty()
        if not pid: os._exit(0)
        os.waitpid(pid, 0); box.stop()
        """,
    "multiprocessing": """
        import multiprocessing
        box = Box(); box.start()
        process = multiprocessing.get_context("fork").Process(target=len, args=("",))
        process.start(); process.join(); assert process.exitcode == 0
        box.stop()
        """,
    "a function that comes to something else": """
        os.register_at_fork(after_in_child=lambda: None)
        box = Box(); box.start(); fork(); box.stop()
        """,
}

PUT_RIGHT = {
    "nobody holds it": "box = Box(); box.start(); box.stop(); fork()",
    "held by who forks": "box = Box()\nwith box.lock: fork()",
    "initialised": """
        box = Box(); os.register_at_fork(after_in_child=box.lock._at_fork_reinit)
        box.start(); fork(); box.stop()
        """,
    "initialised, an RLock": """
        box = Box(threading.RLock()); os.register_at_fork(after_in_child=box.lock._at_fork_reinit)
        box.start(); fork(); box.stop()
        """,
    "replaced": """
        box = Box(); box.start()
        def anew(): box.lock = threading.Lock()
        os.register_at_fork(after_in_child=anew)
        fork(lambda: box.lock.acquire()); box.stop()
        """,
    "replaced, a global": """
        box = Box(); lock = box.lock; del box.lock; box.lock = None
        def hold():
            with lock: box.inside.set(); box.done.wait()
        def anew():
            global lock
            lock = threading.Lock()
        os.register_at_fork(after_in_child=anew)
        box.thread = threading.Thread(target=hold); box.start(); fork(lambda: lock.acquire()); box.stop()
        """,
    "replaced, a condition": """
        box = Box(threading.Condition(threading.Lock())); box.start()
        def anew(): box.lock = threading.Condition(threading.Lock())
        os.register_at_fork(after_in_child=anew)
        fork(lambda: box.lock.acquire()); box.stop()
        """,
    "released": """
        box = Box(); box.start()
        os.register_at_fork(after_in_child=box.lock.release)
        fork(lambda: box.lock.acquire()); box.stop()
        """,
    "held across the fork": """
        box = Box(); box.start()
        threading.Timer(0.1, box.done.set).start()
        os.register_at_fork(before=box.lock.acquire, after_in_parent=box.lock.release, after_in_child=box.lock.release)
        fork(lambda: box.lock.acquire()); box.stop()
        """,
    "by a function that came after a fork": """
        other = Box(); other.start(); os.register_at_fork(after_in_child=other.lock._at_fork_reinit); fork()
        box = Box(); box.start(); os.register_at_fork(after_in_child=box.lock._at_fork_reinit); fork()
        box.stop(); other.stop()
        """,
    "the child is another program": """
        def child(): os.execlp(sys.executable, sys.executable, "-c", "")
        box = Box(); box.start(); fork(child); box.stop()
        """,
    "subprocess": """
        import subprocess
        box = Box(); box.start()
        subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: None, check=True)
        box.stop()
        """,
    "a semaphore": "box = Box(threading.Semaphore()); box.start(); fork(); box.stop()",
    "a process's lock": """
        import multiprocessing
        box = Box(multiprocessing.get_context("fork").Lock()); box.start(); fork(); box.stop()
        """,
    "logging": """
        class Handler(logging.Handler):
            def emit(self, record): box.inside.set(); box.done.wait()
        box = Box(); logging.getLogger().addHandler(Handler()); logging.getLogger().setLevel(0)
        box.thread = threading.Thread(target=logging.info, args=("x",))
        box.start(); fork(lambda: logging.getLogger().handlers[0].acquire()); box.stop()
        """,
    "what waits in a queue, a pool, an event": """
        items, pool = queue.Queue(), concurrent.futures.ThreadPoolExecutor(1)
        thread = threading.Thread(target=items.get, daemon=True); thread.start()
        pool.submit(len, "").result()
        fork(lambda: concurrent.futures.ThreadPoolExecutor(1).submit(len, "").result())
        items.put(1); thread.join(); pool.shutdown()
        """,
}


@pytest.mark.parametrize("name", HAZARDS)
def test_told(ctxcheck: Run, tmp_path: Path, name: str) -> None:
    assert found(ctxcheck, tmp_path, HAZARDS[name]) == [("CTX306", "possible")]


@pytest.mark.parametrize("name", PUT_RIGHT)
def test_silent(ctxcheck: Run, tmp_path: Path, name: str) -> None:
    assert found(ctxcheck, tmp_path, PUT_RIGHT[name]) == []


LEAVE = """
def leave_when_it_is_told():
    import glob, time
    def read(file):
        try: return open(file).read()
        except FileNotFoundError: return ""  # two threads began one at once, and one of them took its own away
    def told():
        return any("CTX306" in read(file) for file in glob.glob(f".ctxcheck/run.*.{os.getpid()}*.jsonl"))
    def watch():
        while not told(): time.sleep(0.01)
        os._exit(3)
    threading.Thread(target=watch).start()
"""
BLOCKS = """
def child():
    leave_when_it_is_told()
    {how}
box = Box({lock}); box.start(); fork(child, 3); box.stop()
"""


@pytest.mark.parametrize("how", ["box.lock.acquire()", "with box.lock: pass"])
@pytest.mark.parametrize("lock", ["threading.Lock()", "threading.RLock()"])
def test_a_child_that_blocks_says_so_before(ctxcheck: Run, tmp_path: Path, how: str, lock: str) -> None:
    assert found(ctxcheck, tmp_path, LEAVE + BLOCKS.format(how=how, lock=lock)) == [("CTX306", "certain")]


def test_a_child_that_blocks_before_all_functions_have_run(ctxcheck: Run, tmp_path: Path) -> None:
    code = """
def stuck():
    leave_when_it_is_told()
    box.lock.acquire()
box = Box(); box.start(); os.register_at_fork(after_in_child=stuck); fork(status=3); box.stop()
"""
    assert found(ctxcheck, tmp_path, LEAVE + code) == [("CTX306", "certain")]


def test_in_mode_raise_the_fork_goes_through_and_the_childs_acquire_raises(ctxcheck: Run, tmp_path: Path) -> None:
    code = """
    import ctxcheck
    def child():
        try: box.lock.acquire()
        except ctxcheck.ViolationError: os._exit(5)
    box = Box(); box.start(); fork(child, 5); box.stop()
    """
    assert found(ctxcheck, tmp_path, code, "--mode", "raise") == [("CTX306", "certain")]


def test_an_allow_around_the_fork(ctxcheck: Run, tmp_path: Path) -> None:
    code = """
    import ctxcheck
    box = Box(); box.start()
    with ctxcheck.allow("CTX306", reason="it executes something else"): fork()
    box.stop()
    """
    found(ctxcheck, tmp_path, code)
    (violation,) = json.loads((tmp_path / "out.json").read_text())["violations"]
    assert violation["allowed_by"] == "it executes something else"


def test_the_child_is_clean(ctxcheck: Run, tmp_path: Path) -> None:
    # what its vanished threads held is on nobody's chain, nor left held, and no lock of theirs is handed over
    code = """
    from ctxcheck.session import current_session
    def child():
        session = current_session()
        assert session.held_locks() == [], session.held_locks()
        box.lock.release()
        with box.lock: assert len(session.held_locks()) == 1
        assert not any(c.handed_over for c in session.engine.seen)
        assert sorted(v.rule for v in session.violations) == [], session.violations
        os._exit(9)
    box = Box(); box.start()
    fork(child, 9); box.stop()
    """
    assert found(ctxcheck, tmp_path, code) == []  # put right by the child itself


# --- what children find ----------------------------------------------------------------------------------------------

INVERSION = """
a, b = threading.Lock(), threading.Lock()
def one():
    with a, b: pass
def two():
    with b, a: pass
def both(*_):
    for work in (one, two):
        thread = threading.Thread(target=work); thread.start(); thread.join()
"""

WAYS = {
    "os.fork": "fork(both)",
    "falls off the end": "pid = os.fork()\nif not pid: both()\nelse: os.waitpid(pid, 0)",
    "sys.exit": "pid = os.fork()\nif not pid: both(); sys.exit(0)\nelse: os.waitpid(pid, 0)",
    "killed": "import signal\nfork(lambda: (both(), os.kill(os.getpid(), signal.SIGKILL)), -9)",
    "a child's child": "fork(lambda: fork(both))",
    "alive": """
read, write = os.pipe(); ready, told = os.pipe()
pid = os.fork()
if not pid:
    both(); os.write(told, b"x"); os.close(write)
    os.read(read, 1); os._exit(0)
os.close(read); os.read(ready, 1)
""",
    "a process of multiprocessing": """
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=both); process.start(); process.join()
""",
    "a pool": """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool: pool.map(both, range(4), 1)
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_child_has_found_is_in_the_report(ctxcheck: Run, tmp_path: Path, way: str) -> None:
    code = HEAD + INVERSION + WAYS[way]
    result = ctxcheck("run", "--output", "text", "--output", "json:out.json", "program.py", code=code)
    assert result.returncode == 1, result.stdout
    assert result.stdout.count("error[CTX001]") == 1
    assert "found in child process" in result.stdout
    (violation,) = json.loads((tmp_path / "out.json").read_text())["violations"]
    assert violation["rule"] == "CTX001"
    assert any("found in child process" in note for note in violation["notes"])


def test_found_by_parent_and_child_is_one(ctxcheck: Run, tmp_path: Path) -> None:
    code = HEAD + INVERSION + "both(); fork(both)"
    result = ctxcheck("run", "--output", "json:out.json", "program.py", code=code)
    assert result.returncode == 1
    (violation,) = json.loads((tmp_path / "out.json").read_text())["violations"]
    assert not any("child" in note for note in violation["notes"])  # the child has learned nothing new


def test_what_happens_again_in_a_child_is_counted(ctxcheck: Run, tmp_path: Path) -> None:
    code = HEAD + "import ctxcheck\n@ctxcheck.atomic\ndef quick(): ctxcheck.might_sleep()\n"
    code += "quick(); quick()\nfork(quick)"
    assert ctxcheck("run", "--output", "json:out.json", "program.py", code=code).returncode == 1
    (violation,) = json.loads((tmp_path / "out.json").read_text())["violations"]
    assert (violation["rule"], violation["count"]) == ("CTX101", 3)
    assert violation["notes"][-1].startswith("also found in child process ")


def test_files_of_other_runs_dont_count(ctxcheck: Run, tmp_path: Path) -> None:
    code = HEAD + INVERSION + "fork(both if sys.argv[1:] else (lambda: None))"
    assert ctxcheck("run", "program.py", "x", code=code).returncode == 1
    assert ctxcheck("run", "program.py").returncode == 0


def test_a_damaged_line_is_skipped_and_said(ctxcheck: Run) -> None:
    code = HEAD + INVERSION
    code += "import glob\nfork(both)\nfor path in glob.glob('.ctxcheck/*.jsonl'): open(path, 'a').write('{broken\\n')"
    result = ctxcheck("run", "program.py", code=code)
    assert result.returncode == 1
    assert "warning: run." in result.stdout
    assert re.search(r"line \d+: not JSON: skipped", result.stdout)


def violation(grade: Any = "possible", **changes: Any) -> Violation:
    return Violation("CTX001", "lock-order-inversion", grade, "x", fingerprint="CTX001-1").replace(**changes)


def test_merging_takes_the_surest_and_adds_counts() -> None:
    children = [forked.Child(pid, [violation("certain" if pid == 3 else "possible", count=2)]) for pid in (1, 2, 3, 4)]
    (merged,) = forked.merge([violation("unlikely")], children)
    assert (merged.grade, merged.count) == ("certain", 9)
    assert merged.notes == ("also found in child processes 1, 2, 3 and 1 more",)


@pytest.mark.parametrize(("own", "child", "allowed"), [("a", None, None), (None, "a", None), ("a", "b", "a")])
def test_accepted_only_if_accepted_everywhere(own: str | None, child: str | None, allowed: str | None) -> None:
    (merged,) = forked.merge([violation(allowed_by=own)], [forked.Child(7, [violation(allowed_by=child)])])
    assert merged.allowed_by == allowed


def test_withdrawn_is_withdrawn_and_other_files_are_left_alone(tmp_path: Path) -> None:
    data = datafile.DataFile(str(tmp_path), ["x"])
    for count in (1, 2):
        data.write({"type": "violation", "violation": violation(count=count).to_dict()})
    data.write({"type": "violation", "violation": violation(fingerprint="CTX001-2").to_dict()})
    data.write({"type": "withdrawn", "fingerprint": "CTX001-2"})
    data.write({"type": "violation", "violation": {"rule": 1}})
    data.close()
    (tmp_path / "run.x.1.jsonl").write_text("not a header\n")
    (child,), problems = forked.collect(str(tmp_path), data.run, 0)
    assert (child.pid, [(v.fingerprint, v.count) for v in child.violations]) == (os.getpid(), [("CTX001-1", 2)])
    assert len(problems) == 1
    assert forked.collect(str(tmp_path), data.run, os.getpid()) == ([], [])
    assert forked.collect(str(tmp_path), "another", 0) == ([], [])


def test_a_child_reads_no_source_to_begin(ctxcheck: Run, tmp_path: Path) -> None:
    # `threading` makes a lock in each child; to read the source for its name would cost tens of milliseconds
    code = """
    from ctxcheck.locks import assigned
    def child():
        assert threading.__file__ not in {*assigned._files, *assigned._whole}
        assert threading._active_limbo_lock.step.lock_class.name.endswith("_active_limbo_lock")
        os._exit(3)
    fork(child, 3)
    """
    assert found(ctxcheck, tmp_path, code) == []


def test_the_warning_about_threads_is_at_the_programs_line(ctxcheck: Run) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("there is none")
    code = HEAD + "box = Box(); box.start()\nimport warnings; warnings.simplefilter('always')\nfork(); box.stop()\n"
    assert "program.py:" in ctxcheck("run", "--output", "none", "-q", "program.py", code=code).stdout


_LATE = """
import os, threading
class Pool:
    def __init__(self): self.fresh()
    def fresh(self): self.lock, self.pid = threading.Lock(), os.getpid()
    def get(self):
        if CHECKS and self.pid != os.getpid(): self.fresh()
        return self.lock
pool, inside, go = Pool(), threading.Event(), threading.Event()
def work():
    with pool.lock: inside.set(); go.wait()
thread = threading.Thread(target=work); thread.start(); inside.wait()
pid = os.fork()
if not pid:
    pool.get(); os._exit(0)
os.waitpid(pid, 0); go.set(); thread.join()
"""


@pytest.mark.parametrize("checks", [True, False])
def test_a_child_that_sees_later_that_it_is_one(checks: bool, tmp_path: Path) -> None:
    program = tmp_path / "late.py"
    program.write_text(f"CHECKS = {checks}\n{_LATE}")
    done = subprocess.run(
        [sys.executable, "-m", "ctxcheck", "run", "--exit-zero", str(program)],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert ("CTX306" in done.stderr + done.stdout) is not checks
