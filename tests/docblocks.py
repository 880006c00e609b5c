"""The code blocks of a Markdown page, and what can be said of each without trusting it.

What a block is stands after its opening fence:

* ```` ```python NAME.py ````: a file, written beside the page's other ones and run; ``test_*.py`` by pytest; one
  with the word ``hangs`` after its name isn't run, but by a command that says so.
* ```` ```toml NAME ```` and other languages with a name: a file, written and read as what it is.
* ```` ```console ````: commands after ``$``, run where those files are, and what they print; ``...`` stands for
  anything.
* ```` ```sh ````: commands that are not run, such as those that install something; ctxcheck's own must exist.
* ```` ```LANGUAGE illustration ````: to look at; Python, TOML and JSON are still read.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ctxcheck import config
from tests.conftest import PROJECT

_BLOCK = re.compile(r"^( *)```(\w+)(?: ([^\n]*))?\n(.*?)^\1```$", re.M | re.S)

#: What an environment says that changes what is printed.
_OWN = ("CTXCHECK", "GITHUB_", "FORCE_COLOR", "PYTEST_")


@dataclass(frozen=True)
class Block:
    """One block: its language, the words after it, the text, and the line that it begins at."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int

    @property
    def name(self) -> str:
        """The file that it is, or empty."""
        return next((word for word in self.words if word != "illustration"), "")

    @property
    def illustration(self) -> bool:
        return "illustration" in self.words


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = [
        Block(m[2], tuple((m[3] or "").split()), textwrap.dedent(m[4]), text.count("\n", 0, m.start()) + 1)
        for m in _BLOCK.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.M)), f"{page}: a fence without a language"
    return found


def read(block: Block) -> None:
    """Read a block as what it says it is."""
    if block.language == "python":
        compile(block.text, f"line {block.line}", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    elif block.language == "toml":
        table = tomllib.loads(block.text)
        if "ctxcheck" in table.get("tool", ()):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "pyproject.toml"
                file.write_text(block.text, encoding="utf-8")
                config.load({}, {}, folder, str(file))
    elif block.language == "json":
        for line in [block.text] if block.text.startswith("{\n") else block.text.splitlines():
            json.loads(line)
    elif block.language == "sh":
        for line in block.text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["ctxcheck"]:
                _run([sys.executable, "-m", "ctxcheck", words[1], "--help"], PROJECT, {}).check_returncode()


def play(page: Path, folder: Path) -> None:
    """Write, run and compare everything of a page, from top to bottom."""
    shutil.copy(PROJECT / "examples" / "bank.py", folder)  # the README's program is known on every page
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.illustration or (block.language != "console" and not block.name):
            read(block)
        elif block.language == "console":
            _play_console(block, folder, where)
        else:
            path = folder / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            read(block)
            if block.language == "python" and "hangs" not in block.words:
                pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if path.name.startswith("test_") else []
                result = _run([sys.executable, *pytest, block.name], folder, {})
                assert result.returncode == 0, f"{where}\n{result.stdout}"


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it prints."""
    parts = re.split(r"^\$ ", text, flags=re.M)
    assert not parts[0].strip(), "a console block begins with a command"
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts[1:])]


def matches(output: str, expected: str) -> bool:
    """Whether a command printed what the page says; ``...`` there stands for anything, also for several lines."""
    pattern = ".*".join(re.escape(part) for part in expected.rstrip("\n").split("..."))
    return re.fullmatch(pattern, output.rstrip("\n"), re.S) is not None


def _play_console(block: Block, folder: Path, where: str) -> None:
    for command, expected in commands(block.text):
        words = shlex.split(command)
        env: dict[str, str] = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        own = {"ctxcheck": ["-m", "ctxcheck"], "python": [], "pytest": ["-m", "pytest", "-p", "no:cacheprovider"]}
        assert words[0] in own, f"{where}: {words[0]} can't be run here; an illustration?"
        result = _run([sys.executable, *own[words[0]], *words[1:]], folder, env)
        assert matches(result.stdout, expected), f"{where}: $ {command}\n{result.stdout}"


def _run(words: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(_OWN)}
    environ |= {"NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80", **env}
    return subprocess.run(
        words,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=90,
    )
