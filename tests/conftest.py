"""What tests share: the folder of conformance material beside the project, where it is there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctxcheck.engine import contexts, declared

PROJECT = Path(__file__).resolve().parent.parent

# a shell starts its background jobs with the keyboard's signal ignored; the programs that tests start would inherit it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def nothing_declared() -> Iterator[None]:
    """What a test declares of the order of locks would hold for the process, and a role for the thread."""
    before = list(declared._in_code)
    yield
    declared._in_code[:] = before
    vars(contexts._here).clear()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with conformance tests and real bugs; what needs it is skipped where it is absent."""
    folder = PROJECT.parent / "shared"
    if not (folder / "conformance").is_dir():
        pytest.skip("needs the conformance material in ../shared, which isn't here")
    return folder


@pytest.fixture
def ctxcheck(tmp_path: Path) -> Run:
    """Run the command line in an empty directory: ``ctxcheck("run", "x.py", code="...")``; output is merged."""

    def run(
        *args: str, code: str | None = None, env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        if code is not None:
            (tmp_path / "program.py").write_text(code)
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("CTXCHECK", "GITHUB_"))}
        environ |= {"NO_COLOR": "1"} | (env or {})
        return subprocess.run(
            [sys.executable, "-m", "ctxcheck", *args],
            cwd=tmp_path,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
