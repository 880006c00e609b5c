"""Every page of ``docs/``: its code runs, prints what it says, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.docblocks import Block, blocks, commands, matches, play, read

DOCS = PROJECT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
#: Those that aren't generated from pages with tests of their own.
WRITTEN = [page for page in PAGES if page.parent != DOCS / "rules"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_the_code_of_a_page(page: Path, tmp_path: Path) -> None:
    play(page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_read_as_what_they_say(page: Path) -> None:
    for block in blocks(page):
        read(block)


@pytest.mark.parametrize("page", [*PAGES, PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name(page)}: {target}"
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{name(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_the_index_has_every_page(page: Path) -> None:
    if page != DOCS / "README.md":
        assert f"({page.relative_to(DOCS)})" in (DOCS / "README.md").read_text("utf-8")


# -- the tests of the tests


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a 17 b\n", "a ... b\n", True),
        ("a\nx\ny\nb\n", "a\n...\nb\n", True),
        ("a\nb\nmore\n", "a\nb\n", False),
        ("reason = ...\n", "reason = ...\n", True),
    ],
)
def test_what_counts_as_the_same_output(output: str, expected: str, same: bool) -> None:
    assert matches(output, expected) is same


def test_commands_of_a_console_block() -> None:
    assert commands("$ a b\nx\n$ c\n") == [("a b", "x\n"), ("c", "")]


@pytest.mark.parametrize(
    "text",
    [
        "```python a.py\n1 / 0\n```\n",
        "```console\n$ python -c 'print(1)'\n2\n```\n",
        "```console\n$ rm x\n```\n",
        "```python illustration\ndef\n```\n",
        "```toml\na b\n```\n",
        "```sh\nctxcheck frobnicate\n```\n",
        "```\nno language\n```\n",
    ],
)
def test_a_page_that_is_wrong_is_found(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((AssertionError, ValueError, SyntaxError, Exception)):  # noqa: PT011, B017
        play(page, tmp_path)


def test_a_page_that_is_right_passes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python a.py\nprint('a')\n```\n```console\n$ X=7 python a.py\na\n```\n"
        "* x:\n  ```json illustration\n  {}\n  ```\n```sh\nctxcheck run x\n```\n"
    )
    play(page, tmp_path)


def test_a_block_knows_what_it_is() -> None:
    assert Block("python", ("a.py",), "", 1).name == "a.py"
    assert Block("json", ("illustration",), "", 1).illustration
