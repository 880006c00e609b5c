"""What several processes come to together, by real programs under `ctxcheck run` and `ctxcheck combine`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctxcheck import merged
from ctxcheck.engine.violations import Violation
from ctxcheck.store import Store

#: A pool whose jobs wait for later ones of the same pool: it has so many workers, and so many of its jobs do so.
POOL = """
import sys
from concurrent.futures import ThreadPoolExecutor

WORKERS, TIMES = map(int, sys.argv[1:])
pool = ThreadPoolExecutor(WORKERS)

def leaf():
    pass

def outer():
    pool.submit(leaf).result()

for _ in range(TIMES):
    pool.submit(outer).result()
pool.shutdown()
"""


def ctxcheck(folder: Path, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ctxcheck", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300, **options)


def told(folder: Path, *args: str) -> list[dict[str, Any]]:
    """The findings of a `report` or `combine`."""
    done = ctxcheck(folder, *args, "--output", "json:told.json", "--exit-zero")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads((folder / "told.json").read_text())["violations"]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pool.py").write_text(POOL)
    return tmp_path


def test_a_pool_is_full_with_the_workers_that_it_has_here_and_the_jobs_that_it_has_there(folder: Path) -> None:
    for arguments in (("2", "1"), ("4", "2")):
        assert ctxcheck(folder, "run", "--exit-zero", "pool.py", *arguments).returncode == 0
        files = sorted((folder / ".ctxcheck").glob("run.*"))
        (alone,) = told(folder, "report", str(files[-1]))
        assert (alone["rule"], alone["grade"]) == ("CTX006", "unlikely")
    (found,) = told(folder, "combine")
    assert (found["rule"], found["grade"]) == ("CTX006", "possible")
    assert any("at most 2 workers, and 2 of its jobs waited" in note for note in found["notes"])
    combined = folder / ".ctxcheck" / "combined.jsonl"
    once = combined.read_bytes()
    (again,) = told(folder, "combine", str(combined))
    assert combined.read_bytes() == once
    assert again == found


# --- processes that were killed: what they knew is in their files -----------------------------------

RULES = sorted((Path(__file__).parent.parent / "examples" / "rules").glob("ctx00[1456]*.py"))
RULES += sorted((Path(__file__).parent.parent / "examples" / "rules").glob("ctx105*.py"))

#: Runs a function of a module, and then dies, if it is told to.
DIES = """
import importlib, os, signal, sys

module, function, kill = sys.argv[1:]
getattr(importlib.import_module(module), function)()
if kill == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by(folder: Path, name: str, source: str, function: str, *, kill: bool) -> str:
    """The data file of a process that ran a function of a module, and that was killed then, or not."""
    (folder / "dies.py").write_text(DIES)
    (folder / f"{name}.py").write_text(source)
    before = set((folder / ".ctxcheck").glob("run.*"))
    how = "kill" if kill else ""
    done = ctxcheck(folder, "run", "--owners", "assumed", "--exit-zero", "dies.py", name, function, how)
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
    (path,) = set((folder / ".ctxcheck").glob("run.*")) - before
    return str(path)


def judged(folder: Path, *files: str) -> list[Violation]:
    with Store() as store:
        for file in files:
            store.add(file)
        assert store.problems.told() == []
        return merged.verdict(store, root=str(folder))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills like this here")
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_a_process_that_was_killed_is_told_of_as_one_that_ended(path: Path, tmp_path: Path) -> None:
    source = path.read_text()
    ended = judged(tmp_path, left_by(tmp_path, path.stem, source, "broken", kill=False))
    killed = judged(tmp_path, left_by(tmp_path, path.stem, source, "broken", kill=True))
    assert path.stem[:6].upper() in {v.rule for v in ended}
    assert [(v.fingerprint, v.grade, v.message) for v in killed] == [(v.fingerprint, v.grade, v.message) for v in ended]
    near = judged(tmp_path, left_by(tmp_path, path.stem, source, "near_miss", kill=True))
    assert [v.message for v in near if v.grade != "unlikely"] == []


PLACES = """
import threading
import ctxcheck

a, b = ctxcheck.Lock(name="a"), ctxcheck.Lock(name="b")
""" + "".join(
    f"""
def place_{name}():
    with a, b:
        pass
"""
    for name in "dbaec"
) + """
def other():
    with b, a:
        pass
"""


def test_of_many_places_of_one_thread_the_first_one_is_shown_whoever_saw_it(tmp_path: Path) -> None:
    functions = ("place_d", "place_b", "other", "place_a", "place_e", "place_c")
    files = [left_by(tmp_path, "places", PLACES, function, kill=False) for function in functions]
    (found,) = judged(tmp_path, *files)
    assert sorted({site.function for site in found.sites if site.function != "<module>"}) == ["other", "place_a"]
    assert judged(tmp_path, *reversed(files)) == [found]


SHARED = """
import asyncio, os, signal, threading, time
import ctxcheck

lock, other = ctxcheck.Lock(name="the lock"), ctxcheck.Lock(name="another lock")
quiet = threading.local()

def hold():
    with lock:
        pass

def hold_over_a_call():
    with lock:
        time.sleep(1e-6)

def hold_with_a_flag():
    quiet.here = True
    with lock:
        pass
    quiet.here = False

def hold_while_the_collector_is_off():
    import gc
    gc.disable()
    with lock:
        pass

def handle():
    def handler(*_):
        if getattr(quiet, "here", False):
            return
        with lock:
            pass
    signal.signal(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)

def handle_the_other():
    def handler(*_):
        with other:
            pass
    signal.signal(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)

def nest():
    def work():
        with other, lock:
            pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

def on_a_loop():
    async def main():
        with lock:
            pass
    asyncio.run(main())

def collect():
    with ctxcheck.interrupt("gc"), lock:
        pass

def handle_after_a_hold_with_a_flag():
    hold_with_a_flag()
    handle()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills like this here")
@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        (("hold", "handle"), [("CTX004", "possible")]),
        (("hold_over_a_call", "on_a_loop"), [("CTX105", "possible")]),
        # the handler waits for the one lock, whose holder waits for the other one, which is held open to it
        (("hold", "handle_the_other", "nest"), [("CTX005", "possible")]),
        (("handle_after_a_hold_with_a_flag",), [("CTX004", "unlikely")]),
        (("handle_after_a_hold_with_a_flag", "hold"), [("CTX004", "possible")]),
        # it may have been switched on again
        (("hold_while_the_collector_is_off", "collect"), []),
        (("hold", "collect"), [("CTX004", "possible")]),
    ],
)
def test_what_no_single_killed_process_had(
    tmp_path: Path, functions: tuple[str, ...], expected: list[tuple[str, str]]
) -> None:
    files = [left_by(tmp_path, "shared", SHARED, function, kill=True) for function in functions]
    # a handler may interrupt itself, by another signal
    alone = [(v.rule, v.grade) for file in files for v in judged(tmp_path, file)] if len(files) > 1 else []
    assert {grade for _, grade in alone} <= {"unlikely"}
    found = judged(tmp_path, *files)
    assert [(v.rule, v.grade) for v in found if (v.rule, v.grade) not in alone] == expected
    with Store() as store:
        for file in files:
            store.add(file)
        store.write(str(tmp_path / "combined.jsonl"))
    assert judged(tmp_path, str(tmp_path / "combined.jsonl")) == found
