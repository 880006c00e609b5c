"""The Python blocks of the pages in ``docs/`` that name their file are run; links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^```python (\S+)\n(.*?)^```$", re.M | re.S)
BLOCKS = [(page.name, m[1], m[2]) for page in sorted(DOCS.glob("*.md")) for m in BLOCK.finditer(page.read_text())]


def test_there_are_blocks() -> None:
    assert {page for page, _, _ in BLOCKS} >= {"contexts.md"}


@pytest.mark.parametrize(("page", "name", "code"), BLOCKS, ids=[f"{page}-{name}" for page, name, _ in BLOCKS])
def test_a_block_runs(page: str, name: str, code: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(code)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", name] if name.startswith("test_") else [name]
    env = {k: v for k, v in os.environ.items() if not k.startswith("CTXCHECK")} | {"NO_COLOR": "1"}
    result = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
