"""Every block of the README is run, and prints what it says it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
BLOCKS = [(m[1], m[2], m[3]) for m in BLOCK.finditer((PROJECT / "README.md").read_text())]
PROGRAMS = {name: code for kind, name, code in BLOCKS if kind == "python"}


def _run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    for name, code in PROGRAMS.items():
        (folder / name).write_text(code)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("CTXCHECK", "GITHUB_"))} | {"NO_COLOR": "1"}
    return subprocess.run(
        words, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60
    )


def test_the_readme_has_the_blocks_that_it_needs() -> None:
    assert {"bank.py", "test_bank.py", "promises.py"} <= set(PROGRAMS)
    assert {name for kind, name, _ in BLOCKS if kind == "sh"} == {"example", "test"}
    assert len(PROGRAMS["bank.py"].splitlines()) == 12


@pytest.mark.parametrize("block", [code for kind, _, code in BLOCKS if kind == "console"])
def test_console_blocks_show_the_real_output(block: str, tmp_path: Path) -> None:
    command, _, expected = block.partition("\n")
    words = command.removeprefix("$ ").split()
    assert words[0] == "ctxcheck"
    result = _run([sys.executable, "-m", *words], tmp_path)
    assert _without_version(result.stdout) == _without_version(expected)


def _without_version(output: str) -> str:
    # how many locks an interpreter makes for itself differs
    return re.sub(r"\d+ locks? (made before the start .*?) \(threading \d+\)", r"some locks \1", output)


@pytest.mark.parametrize("name", PROGRAMS)
def test_python_blocks_run(name: str, tmp_path: Path) -> None:
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", name] if name.startswith("test_") else [name]
    result = _run([sys.executable, *words], tmp_path)
    assert result.returncode == 0, result.stdout


def test_the_shell_blocks_are_one_line_and_ci_runs_them() -> None:
    script = (PROJECT / ".ci" / "run").read_text()
    for kind, name, code in BLOCKS:
        if kind == "sh":
            assert code.count("\n") == 1
            assert f'"$(block {name})"' in script


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (PROJECT / "README.md").read_text()):
        assert (PROJECT / target).exists(), target
