"""What holds for every format."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.keys import KEYS
from ctxcheck.reports import concise, text
from ctxcheck.reports.formats import KINDS, Report, render

from . import findings
from .strategies import violations

FOUND = [findings.INVERSION, findings.UNLIKELY.replace(fingerprint="U"), findings.HOSTILE]


def test_the_configuration_allows_what_can_be_rendered() -> None:
    assert KEYS["output"].allowed == tuple(KINDS)


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="unknown format 'xml'; allowed: text, concise, json, "):
        render("xml", Report([]))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_found(kind: str) -> None:
    content = render(kind, Report([], Counts(lock_classes=1)))
    assert bool(content) == (kind in ("json", "jsonl", "sarif"))


def test_text_shows_as_many_as_wanted_the_unlikely_ones_in_short_and_not_the_accepted_ones() -> None:
    accepted = findings.SELF_DEADLOCK.replace(allowed_by="why")
    report = Report([FOUND[0], accepted, FOUND[1], FOUND[2]], most=3)
    assert render("text", report) == text.render(FOUND[0]) + "\n\n" + text.render_short(FOUND[1])


def test_what_was_told_is_left_out_of_text_and_concise_unless_its_grade_has_risen() -> None:
    told = {FOUND[0].fingerprint: FOUND[0].grade, FOUND[1].fingerprint: "possible"}
    report = Report(FOUND[:2], told=told)
    assert render("text", report) == text.render_short(FOUND[1])
    assert render("concise", report) == concise.line(FOUND[1])
    assert len(json.loads(render("json", report))["violations"]) == 2


@pytest.mark.parametrize("kind", KINDS)
@given(st.lists(violations, max_size=3))
@example([findings.HOSTILE])
@settings(max_examples=25, deadline=None)
def test_no_format_lets_anything_through_to_a_terminal(kind: str, found: list[Violation]) -> None:
    content = render(kind, Report(found, run={"argv": ["\x1b[2J\n"], "platform": "linux"}))
    assert not {char for char in content if unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")} - {"\n"}
    assert not set(content) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    content.encode("utf-8")


@given(st.lists(violations, max_size=3))
@settings(max_examples=25, deadline=None)
def test_lines_stay_lines(found: list[Violation]) -> None:
    lines = render("jsonl", Report(found)).split("\n")
    assert [json.loads(line)["type"] for line in lines] == ["header", *["violation"] * len(found), "end"]
    shown = render("concise", Report(found))
    assert len(shown.splitlines()) == len(found)
    commands = render("github", Report(found)).splitlines()
    assert len(commands) == sum(v.allowed_by is None for v in found)
    assert all(line.startswith(("::error ", "::warning ")) for line in commands)
