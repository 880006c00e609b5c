"""``docs/rules/`` and ``docs/configuration.md`` are what ``python -m docs.make`` writes."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import cmarkgfm
import pytest

from ctxcheck.engine.rules import RULES
from ctxcheck.keys import KEYS
from ctxcheck.reports import explain, rulepages
from tests.conftest import PROJECT

FOLDER = PROJECT / "docs" / "rules"


@pytest.fixture(scope="module")
def make() -> dict[str, Any]:
    return runpy.run_path(str(PROJECT / "docs" / "make.py"))


def test_the_pages_are_up_to_date(make: dict[str, Any]) -> None:
    assert make["stale"]() == [], "run python -m docs.make"


def test_pages_are_written_and_old_ones_removed(make: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "CTX000.md").write_text("gone")
    (tmp_path / "rules" / "CTX001.md").write_text("old")
    make["write"](tmp_path)
    assert make["stale"](tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {"api.md", "configuration.md", "rules"}
    assert {path.name for path in (tmp_path / "rules").iterdir()} == {"README.md", *(f"{code}.md" for code in RULES)}


@pytest.mark.parametrize("code", RULES)
def test_a_page_has_every_section_and_says_what_explain_says(code: str) -> None:
    html = cmarkgfm.github_flavored_markdown_to_html(rulepages.markdown(code))
    for heading, _, _ in explain.sections(code):
        assert f"<h2>{heading}</h2>" in html
    text = " ".join(rulepages.markdown(code).replace("\\", "").split())
    for _, _, blocks in explain.sections(code):
        for block in blocks:
            for piece in [block] if isinstance(block, str) else block:
                assert " ".join(piece.replace("\\", "").split()) in text


@pytest.mark.parametrize("code", RULES)
def test_a_page_links_the_programs_that_break_the_rule(code: str) -> None:
    text = (FOLDER / f"{code}.md").read_text()
    for path in (PROJECT / "examples" / "rules").glob(f"{code.lower()}_*.py"):
        assert f"(../../examples/rules/{path.name})" in text


def test_the_configuration_names_every_key_and_variable() -> None:
    text = (PROJECT / "docs" / "configuration.md").read_text()
    for name, key in KEYS.items():
        assert f"\n| `{name}` | " in text
        assert all(f"`{word}`" in text for word in key.allowed)
        assert key.variable in ("", f"CTXCHECK_{name.replace('-', '_').upper()}")


def test_the_index_names_every_rule() -> None:
    index = (FOLDER / "README.md").read_text()
    for code, rule in RULES.items():
        assert f"| [{code}]({code}.md) | {rule.slug} |" in index
