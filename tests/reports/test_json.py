from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any, cast

import jsonschema
import pytest
from hypothesis import given

from ctxcheck.engine.violations import (
    Context,
    Counts,
    Event,
    Frame,
    Scenario,
    Site,
    Stack,
    Step,
    Timeline,
    Violation,
)
from ctxcheck.reports import json as report
from tests.conftest import PROJECT

from . import findings
from .strategies import violations

COUNTS = Counts(lock_classes=2, orders=2, acquisitions=9, unchecked={"queue": 1})
FULL = findings.INVERSION.replace(
    timeline=findings.OUTSIDE_RANGE.timeline,
    contexts=findings.SLEEP_IN_ATOMIC.contexts,
    contexts_title="contexts",
    held=("A",),
    allowed_by="reason",
)


def _document(*found: Violation) -> dict[str, Any]:
    return report.document(found, COUNTS, run={"argv": ["app.py"]}, graph={"classes": [{"name": "A"}]})


def test_shape() -> None:
    document = _document(findings.INVERSION)
    assert list(document) == ["schema_version", "tool", "run", "violations", "graph", "unused_allows"]
    assert document["schema_version"] == 1
    assert document["tool"]["name"] == "ctxcheck"
    assert document["tool"]["version"]
    assert document["run"]["argv"] == ["app.py"]
    assert document["run"]["counts"]["acquisitions"] == 9
    assert document["run"]["counts"]["unchecked"] == {"queue": 1}
    assert document["graph"] == {"classes": [{"name": "A"}], "edges": []}
    violation = document["violations"][0]
    first = [
        "rule",
        "slug",
        "grade",
        "message",
        "locks",
        "sites",
        "stacks",
        "owners",
        "count",
        "fingerprint",
        "allowed_by",
    ]
    assert list(violation)[: len(first)] == first
    assert list(violation["sites"][0])[:5] == ["role", "file", "line", "function", "text"]


def test_the_document_is_what_is_read_back() -> None:
    document = _document(findings.INVERSION, findings.SLEEP_IN_ATOMIC)
    assert json.loads(report.dumps(document)) == document


def test_text_is_readable_and_safe() -> None:
    text = report.dumps({"a": "日本 \x1b \x9b \udc80 \u2028"})
    assert text == '{\n  "a": "日本 \\u001b \\u009b \\udc80 \\u2028"\n}'
    assert json.loads(text) == {"a": "日本 \x1b \x9b \udc80 \u2028"}
    text.encode("utf-8")


def test_what_is_not_seen_is_escaped_and_what_scripts_need_is_not() -> None:
    hidden = "\xad\u061c\u200b\u202e\u2060\u2066\ufeff\U000e0041"
    text = report.dumps({"a": f"{hidden}می\u200cخواهم"})
    assert text.isprintable() is False  # the joiner
    assert text.replace("\u200c", "").replace("\n", "").isprintable()
    assert json.loads(text) == {"a": f"{hidden}می\u200cخواهم"}


def test_one_line_on_demand() -> None:
    assert "\n" not in report.dumps(_document(findings.HOSTILE), indent=None)


def test_nan_is_not_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        report.dumps({"a": float("nan")})


@given(violations)
def test_round_trip(violation: Violation) -> None:
    text = report.dumps(_document(violation))
    text.encode("utf-8")
    assert report.violation_from_dict(json.loads(text)["violations"][0]) == violation


def test_unknown_keys_are_skipped_and_missing_ones_take_the_default() -> None:
    data: dict[str, Any] = {"rule": "CTX001", "slug": "s", "grade": "certain", "message": "m", "later": {"x": 1}}
    assert report.violation_from_dict(data) == Violation("CTX001", "s", "certain", "m")
    data["sites"] = [{"role": "now", "file": "a.py", "line": 1, "function": "f", "later": None}]
    assert report.violation_from_dict(data).sites[0].column == -1


SCHEMA = json.loads((PROJECT / "docs" / "schema" / "ctxcheck-report-1.json").read_text("utf-8"))
DOCUMENT = jsonschema.Draft202012Validator(SCHEMA)
LINE = jsonschema.Draft202012Validator({"$defs": SCHEMA["$defs"], "$ref": "#/$defs/line"})


@pytest.mark.parametrize("found", [FULL, findings.OUTSIDE_RANGE, findings.SELF_DEADLOCK, findings.cycle(5)])
def test_reports_are_as_the_published_schema_says(found: Violation) -> None:
    graph = {"classes": [{"key": "a", "name": "a", "kind": "lock"}], "edges": [{"from": "a", "to": "a", "count": 1}]}
    run = {"argv": ["app.py"], "python": "3.11.7", "platform": "linux", "program_status": 0, "exit_status": 1}
    DOCUMENT.validate(json.loads(report.dumps(report.document([found], COUNTS, run=run, graph=graph))))
    for line in report.lines([found], COUNTS, run=run, graph=graph):
        LINE.validate(json.loads(line))


@pytest.mark.parametrize("kind", [Violation, Site, Frame, Stack, Step, Scenario, Event, Timeline, Context, Counts])
def test_the_published_schema_has_every_field_and_no_other(kind: type[Any]) -> None:
    described = SCHEMA["$defs"][kind.__name__.lower()]
    fields = {field.name for field in dataclasses.fields(kind)}
    assert set(described["properties"]) == set(described["required"]) == fields


def test_the_published_schema_refuses_what_is_wrong() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    good = _document(FULL) | {"graph": {"classes": [], "edges": []}}
    DOCUMENT.validate(good)
    for key, wrong in (("grade", "sure"), ("count", 0), ("sites", None), ("allowed_by", 7), ("rule", "X")):
        bad = json.loads(json.dumps(good))
        bad["violations"][0][key] = wrong
        assert not DOCUMENT.is_valid(bad), key
    assert not LINE.is_valid({"type": "violation"})


def test_lines_can_be_read_one_by_one_and_the_last_says_that_it_is_the_last() -> None:
    lines = [json.loads(line) for line in report.lines([FULL, FULL], COUNTS, run={}, graph={})]
    assert [line["type"] for line in lines] == ["header", "violation", "violation", "end"]
    assert report.violation_from_dict(lines[1]["violation"]) == FULL
    assert lines[-1]["violations"] == 2
    assert lines[-1]["counts"]["acquisitions"] == 9


def _places(data: Any, path: str = "violation") -> Iterator[tuple[str, Any, Any]]:
    """Yield each place in a tree as its path, its container and its key."""
    items: Iterable[tuple[Any, Any]] = ()
    mapping, values = cast("dict[str, Any]", data), cast("list[Any]", data)
    if isinstance(data, dict):
        items = mapping.items()
    elif isinstance(data, list):
        items = enumerate(values)
    for key, value in items:
        here = f"{path}[{key}]" if isinstance(data, list) else f"{path}.{key}"
        yield here, data, key
        yield from _places(value, here)


def test_a_value_of_the_wrong_type_is_named_wherever_it_is() -> None:
    data = _document(FULL)["violations"][0]
    nullable = {"violation.allowed_by", "violation.scenario", "violation.timeline"}
    seen = 0
    for path, container, key in _places(data):
        value = container[key]
        for wrong in (1.5, "text", True, 7, None, [7], {"a": 7}, ["text"]):
            if type(wrong) is type(value) or (wrong is None and path in nullable):
                continue
            container[key] = wrong
            with pytest.raises(ValueError, match="expected") as error:
                report.violation_from_dict(data)
            assert str(error.value).startswith(f"{path}: ")
            assert "\n" not in str(error.value)
            seen += 1
        container[key] = value
    assert seen > 500
    assert report.violation_from_dict(data) == FULL


@pytest.mark.parametrize("key", ["rule", "slug", "grade", "message"])
def test_what_a_finding_can_not_do_without(key: str) -> None:
    data = _document(FULL)["violations"][0]
    del data[key]
    with pytest.raises(ValueError, match=rf"^violation\.{key}: missing$"):
        report.violation_from_dict(data)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("grade", "certian",
         "violation.grade: expected one of unlikely, possible, certain, got 'certian'; did you mean 'certain'?"),
        ("grade", "\x1b\n", r"violation.grade: expected one of unlikely, possible, certain, got '\x1b\n'"),
        ("count", 0, "violation.count: expected a whole number of at least 1, got 0"),
        ("count", True, "violation.count: expected a whole number of at least 1, got true"),
        ("count", 10**5000, "violation.count: expected a whole number of at least 1, got a number out of range"),
        ("count", 2**60, "violation.count: expected a whole number of at least 1, got 1.15292e+18"),
        ("notes", ["x" * 300_000], "violation.notes[0]: 300,000 characters, at most 200,000 are allowed"),
        ("notes", ["x"] * 20_000, "violation.notes: 20,000 items, at most 10,000 are allowed"),
        ("sites", [{"role": "now", "file": "a", "line": -1, "function": "f"}],
         "violation.sites[0].line: expected a whole number of at least 0, got -1"),
        ("sites", ["a.py:1"], "violation.sites[0]: expected an object, got 'a.py:1'"),
    ],
    ids=range(10),
)  # fmt: skip
def test_bad_values(key: str, value: object, message: str) -> None:
    data = _document(FULL)["violations"][0]
    data[key] = value
    with pytest.raises(ValueError, match="violation") as error:
        report.violation_from_dict(data)
    assert str(error.value) == message


@pytest.mark.parametrize("data", [None, 7, "text", []])
def test_something_else_than_a_finding(data: object) -> None:
    with pytest.raises(ValueError, match="^violation: expected an object, got "):
        report.violation_from_dict(data)
