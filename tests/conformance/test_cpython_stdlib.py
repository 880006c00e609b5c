"""CPython's own tests with all probes in place, in a session."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("run_stdlib_tests.py")
#: Those that take a few seconds each; the script runs any others.
MODULES = ("test_queue", "test_weakref", "test_gc", "test_fileio", "test_file", "test_selectors", "test_tempfile")


@pytest.mark.parametrize("module", MODULES)
def test_cpythons_tests_pass_where_they_pass_without(tmp_path: Path, module: str) -> None:
    def failing(how: str) -> set[str]:
        answer = subprocess.run(
            [sys.executable, RUNNER, how, module],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=400,
        )
        if answer.returncode == 3:
            pytest.skip("this interpreter comes without CPython's `test` package")
        assert answer.returncode in (0, 1), answer.stdout[-4000:]
        return {line.partition(" |")[0] for line in answer.stdout.splitlines() if line.startswith(("FAIL", "ERROR"))}

    ours = failing("--checking")
    if ours:
        assert ours <= failing("--off")
