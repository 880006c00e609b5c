"""The how-to says what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pytest_plugin.conftest import Suite

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "pytest.md").read_text()
BLOCKS = [(m[1], m[2], m[3]) for m in re.finditer(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.M | re.S)]


@pytest.fixture
def written(suite: Suite) -> Suite:
    for kind, name, code in BLOCKS:
        if kind == "python":
            (suite.path / name).write_text(code)
    return suite


def test_the_output_is_what_the_page_shows(written: Suite) -> None:
    ((_, _, block),) = [b for b in BLOCKS if b[0] == "console"]
    command, *expected = block.splitlines()
    assert command == "$ pytest --ctxcheck"
    output = written.run("-rfE", "-p", "no:junitxml", "test_bank.py").text.splitlines()
    at = 0
    for line in expected:
        if line != "...":
            at = output.index(line, at)


def test_what_the_page_says_of_marks_is_so(written: Suite) -> None:
    assert written.run("test_marks.py").status == 0
    off = written.run("test_marks.py", on=False)
    assert off.status == 0
    assert off.tests.get("test_marks.py::test_that_it_is_found") != "FAILED"


def test_the_options_are_all_there(suite: Suite) -> None:
    text = suite.run("--help", on=False).text
    named = set(re.findall(r"--(?:no-)?ctxcheck[-\w]*", PAGE))
    assert named == set(re.findall(r"--(?:no-)?ctxcheck[-\w]*", text))
