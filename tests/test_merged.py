"""What several processes come to together, by real programs under `ctxcheck run` and `ctxcheck combine`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
