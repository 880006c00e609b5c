from __future__ import annotations

from hypothesis import given

from ctxcheck.engine.violations import Site, Violation
from ctxcheck.reports import concise
from ctxcheck.reports.cells import safe

from . import findings, goldens
from .strategies import violations


def test_lines() -> None:
    found = [
        findings.INVERSION,
        findings.SLEEP_IN_ATOMIC,
        findings.OUTSIDE_RANGE,
        findings.SELF_DEADLOCK,
        findings.UNLIKELY.replace(allowed_by="no"),
        findings.HOSTILE,
    ]
    goldens.check("concise", concise.render(found))


def test_a_place_is_named_once_and_a_file_where_it_changes() -> None:
    places = [("a.py", 1), ("a.py", 2), ("a.py", 1), ("b.py", 3), ("b.py", 4), ("a.py", 5), ("a.py", 2)]
    violation = findings.INVERSION.replace(
        message="m", sites=tuple(Site("now", file, line, "f") for file, line in places)
    )
    assert concise.line(violation) == "a.py:1: CTX001 m (a.py:2, b.py:3, 4, a.py:5)"


def test_no_place_at_all() -> None:
    assert concise.line(Violation("CTX901", "checker-disabled", "certain", "off")) == "CTX901 off"


@given(violations)
def test_one_safe_line_each(violation: Violation) -> None:
    line = concise.line(violation)
    assert safe(line) == line
