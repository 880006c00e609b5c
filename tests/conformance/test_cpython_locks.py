"""CPython's own lock tests, on our locks: with checking off, and with checking on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Starts checking for good in the process that runs the tests, and fails it if the validator broke.
CHECKER = """
import atexit
from ctxcheck.session import Session
session = Session()
def start():
    session.start()
    atexit.register(stop)
def stop():
    session.stop()
    if session.engine.broken or session.counts().acquisitions < 100:
        import os; print("the validator was not at work"); os._exit(9)
"""


def run(shared: Path, tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("test.lock_tests") is None:
        pytest.skip("this interpreter comes without CPython's `test` package")
    (tmp_path / "checker.py").write_text(CHECKER)
    kinds = [o for kind in ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")
             for o in (f"--{kind}", kind)]  # fmt: skip
    return subprocess.run(
        [
            sys.executable, shared / "conformance" / "run_lock_tests.py", "--module", "ctxcheck", *kinds,
            "--thread-lock", "ctxcheck:Lock", "--path", tmp_path, *options,
        ],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "CTXCHECK"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=400,
    )  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--install", "checker:start")], ids=["off", "on"])
def test_cpythons_lock_tests_pass(shared: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    ours = run(shared, tmp_path, *options)
    assert ours.returncode == 0, ours.stdout[-4000:]
    assert " 0 bad, " in ours.stdout
    # nothing is skipped that the real ones pass
    assert "skipped" not in ours.stdout
    assert "NOTE" not in ours.stdout
