"""What a module is called, however it came in: keys and fingerprints of whole programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

APP = """
import dataclasses, threading
plain = threading.Lock()
unnamed = [threading.Lock]
table = __import__("collections").defaultdict(threading.Lock)
class Ledger:
    def __init__(self):
        self.lock = threading.Lock()
@dataclasses.dataclass
class Record:
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
def work():
    with plain: pass
def both(a, b):
    with a, b: pass
    with b, a: pass
def comprehensions(a, b):
    [a.acquire() and [b.acquire() for _ in range(1)] for _ in range(1)]
    b.release(); a.release()
    [b.acquire() and (lambda: a.acquire())() for _ in range(1)]
    a.release(); b.release()
ledger, record = Ledger(), Record()
both(ledger.lock, plain)
comprehensions(record.lock, table["x"])
[plain.acquire() and record.lock.acquire() for _ in range(1)]
record.lock.release(); plain.release()
[record.lock.acquire() and plain.acquire() for _ in range(1)]
plain.release(); record.lock.release()
with plain:
    thread = threading.Thread(target=work); thread.start(); thread.join(1)
"""


@pytest.mark.parametrize(
    ("file", "command", "module"),
    [
        ("app.py", ["app.py"], "app"),
        ("app.py", ["-m", "app"], "app"),
        ("app.py", ["imports.py"], "app"),
        ("pkg/app.py", ["pkg/app.py"], "pkg.app"),
        ("pkg/app.py", ["-m", "pkg.app"], "pkg.app"),
        ("pkg/app.py", ["imports.py"], "pkg.app"),
        ("app.py", ["spawns.py"], "spawns"),
    ],
)
def test_a_lock_has_one_key_however_its_module_comes_in(
    tmp_path: Path, file: str, command: list[str], module: str
) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").touch()
    (tmp_path / file).write_text(APP)
    (tmp_path / "imports.py").write_text(f"import {file.removesuffix('.py').replace('/', '.')}\n")
    (tmp_path / "spawns.py").write_text(
        f"{APP}\nimport multiprocessing\nif __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=work); child.start(); child.join()\n"
    )
    options = ["--owners", "assumed", "--processes", "--output", "json:found.json"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CTXCHECK")}
    done = subprocess.run(
        [sys.executable, "-m", "ctxcheck", "run", *options, *command],
        cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    keys = {item["key"] for item in found["graph"]["classes"]}
    assert {f"{module}:{name}" for name in ("plain", "Ledger.lock", "Record.lock", "<unnamed>")} <= keys, done.stderr
    assert not [key for key in keys if "__main__" in key or "__mp_main__" in key]
    for data in (tmp_path / ".ctxcheck").glob("run.*.jsonl"):
        assert "__mp_main__:" not in data.read_text()


def test_fingerprints_are_the_same_whoever_runs_it_and_on_each_version_of_python(tmp_path: Path) -> None:
    """As they were on 3.11, where a comprehension is a function of its own."""
    (tmp_path / "app.py").write_text(APP)
    options = ["--owners", "assumed", "--output", "json:found.json"]
    for command in (["app.py"], ["-m", "app"]):
        subprocess.run(
            [sys.executable, "-m", "ctxcheck", "run", *options, *command],
            cwd=tmp_path, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        found = json.loads((tmp_path / "found.json").read_text())
        assert sorted(v["fingerprint"] for v in found["violations"]) == FINGERPRINTS


FINGERPRINTS = ["CTX001-017190fa", "CTX001-34f7597e", "CTX001-4817bdb1", "CTX006-7bb88a0c"]
