"""CPython's own tests of asyncio's locks and queues, with ours in their place: checking off, and on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("run_asyncio_tests.py")


@pytest.mark.parametrize("options", [(), ("--checking",)], ids=["off", "on"])
def test_cpythons_asyncio_tests_pass(tmp_path: Path, options: tuple[str, ...]) -> None:
    ours = subprocess.run(
        [sys.executable, RUNNER, *options],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=400,
    )
    if ours.returncode == 3:
        pytest.skip("this interpreter comes without CPython's `test` package")
    assert ours.returncode == 0, ours.stdout[-4000:]
    assert "skipped" not in ours.stdout
    # what they do wrong on purpose, and nothing else
    if options:
        found = {line.split()[0] for line in ours.stdout.splitlines() if line.startswith("CTX")}
        assert found <= {"CTX103", "CTX303", "CTX304", "CTX305"}, ours.stdout[-4000:]
