"""SARIF: valid by its schema, with places, flows and texts that say what the finding says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.engine.rules import RULES
from ctxcheck.engine.violations import Counts, Site, Violation
from ctxcheck.reports import explain, sarif
from ctxcheck.reports.formats import Report, render

from . import findings
from .goldens import check
from .strategies import violations

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "sarif-2.1.0-rtm.5.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA)
RUN = {"argv": ["run", "bank.py"], "platform": "linux", "exit_status": 1}


def log(*found: Violation, counts: Counts | None = None, **more: Any) -> dict[str, Any]:
    """The run of a log that went through text and is valid."""
    report = Report(found, counts or Counts(lock_classes=2), run=RUN, **more)
    document = json.loads(render("sarif", report))
    VALIDATOR.validate(document)
    [run] = document["runs"]
    return dict(run)


def result(violation: Violation, **more: Any) -> dict[str, Any]:
    return dict(log(violation, **more)["results"][0])


@pytest.mark.parametrize("name", ["INVERSION", "SLEEP_IN_ATOMIC", "OUTSIDE_RANGE", "HOSTILE"])
def test_goldens(name: str) -> None:
    document = sarif.document([getattr(findings, name)], Counts(lock_classes=1), run=RUN)
    VALIDATOR.validate(document)
    driver = document["runs"][0]["tool"]["driver"]
    driver["version"] = "VERSION"
    for rule in driver["rules"]:
        rule["help"] = {"text": "HELP"}
    check(f"sarif_{name.lower()}", json.dumps(document, indent=1))


@given(st.lists(violations, max_size=3))
@settings(max_examples=30, deadline=None)
def test_anything_is_valid_and_consistent(found: list[Violation]) -> None:
    run = log(*found)
    for entry in run["results"]:
        _links_lead_somewhere(entry)
        assert run["tool"]["driver"]["rules"][entry["ruleIndex"]]["id"] == entry["ruleId"]
    for place in _artifact_locations(run["results"]):
        listed = run["artifacts"][place["index"]]["location"]
        assert listed == {key: value for key, value in place.items() if key != "index"}


def _links_lead_somewhere(entry: dict[str, Any]) -> None:
    text = entry["message"]["text"]
    ids = [place["id"] for place in entry.get("relatedLocations", ())]
    assert len(set(ids)) == len(ids)
    for number in re.findall(r"\]\((\d+)\)", text):
        assert int(number) in ids
    assert not re.search(r"(?<!\{)\{(?!\{)\d+\}(?!\})", text)


def _artifact_locations(data: Any) -> list[dict[str, Any]]:
    if isinstance(data, list):
        return [found for item in data for found in _artifact_locations(item)]
    if not isinstance(data, dict):
        return []
    here = [data["artifactLocation"]] if "artifactLocation" in data else []
    return here + [found for item in data.values() for found in _artifact_locations(item)]


def test_the_message_links_every_other_place() -> None:
    entry = result(findings.INVERSION)
    assert entry["message"]["text"].split("\n")[:2] == [
        "Possible deadlock: lock order inversion between `AuditLog.lock` and `Ledger.lock`.",
        "Thread 'reconciler' acquires `Ledger.lock` here; [while holding `AuditLog.lock`, acquired here](1); "
        "[acquired `AuditLog.lock` here](2); [while holding `Ledger.lock`, acquired here](3).",
    ]
    lines = [place["physicalLocation"]["region"]["startLine"] for place in entry["relatedLocations"]]
    assert lines == [25, 20, 15]
    assert entry["locations"][0]["physicalLocation"]["region"]["startLine"] == 30


def test_what_looks_like_a_link_or_a_placeholder_is_neither() -> None:
    sites = (Site("now", "a.py", 1, "f", label="a[0](1) {0}"), Site("then", "a.py", 2, "f", label="b\\[0](1)"))
    text = result(findings.INVERSION.replace(message="x[0](7) {1}", sites=sites, helps=()))["message"]["text"]
    assert text == "X[0] (7) {{1}}.\nA[0] (1) {{0}}; [b\\\\\\[0\\](1)](1)."


def test_each_thread_has_a_flow_of_its_own_in_time() -> None:
    [flow] = result(findings.INVERSION)["codeFlows"]
    assert flow["message"]["text"] == "both wait for ever"
    told = [
        [
            (step["location"]["physicalLocation"]["region"]["startLine"], step.get("executionOrder"))
            for step in thread["locations"]
        ]
        for thread in flow["threadFlows"]
    ]
    # reconcile takes one (25), calls balance (26), which takes the other (30)
    assert told == [[(25, 1), (26, None), (30, 3)], [(15, 2), (16, None), (20, 4)]]


def test_a_cycle_of_five_has_five_flows() -> None:
    [flow] = result(findings.cycle(5))["codeFlows"]
    orders = sorted(step["executionOrder"] for thread in flow["threadFlows"] for step in thread["locations"])
    assert orders == list(range(1, 11))


def test_a_range_has_a_flow_of_what_happened_to_it() -> None:
    _, flow = result(findings.OUTSIDE_RANGE)["codeFlows"]
    [thread] = flow["threadFlows"]
    assert [step["location"]["message"]["text"] for step in thread["locations"]] == [
        "opens",
        "inside (3 times)",
        "closes",
        "OUTSIDE",
    ]


@pytest.mark.parametrize(
    ("text", "column", "end", "expected"),
    [
        ("    with lock:", 4, 14, (5, 15)),
        ('\tf("日本", x)', 1, 11, (2, 12)),
        ('f("😀", x)', 0, 9, (1, 11)),
        ('"😀"; f()', 5, 8, (7, 10)),
    ],
)
def test_columns_count_utf16_units_from_one(text: str, column: int, end: int, expected: tuple[int, int]) -> None:
    site = Site("now", "a.py", 3, "f", text=text, column=column, end_column=end)
    region = result(findings.INVERSION.replace(sites=(site,)))["locations"][0]["physicalLocation"]["region"]
    assert (region["startLine"], region["endLine"]) == (3, 3)
    assert (region["startColumn"], region["endColumn"]) == expected
    assert region["snippet"]["text"] == text[column:end]
    units = text.encode("utf-16-le")
    assert units[2 * expected[0] - 2 : 2 * expected[1] - 2].decode("utf-16-le") == text[column:end]


def test_places_that_arent_known_are_left_out() -> None:
    nowhere = Site("now", "", 0, "")
    entry = result(findings.INVERSION.replace(sites=(nowhere,)))
    # the innermost call of the first stack stands in
    assert entry["locations"][0]["physicalLocation"]["region"]["startLine"] == 30
    assert result(Violation("CTX001", "", "certain", "m"))["locations"] == []


def test_levels_and_grades() -> None:
    levels = [result(findings.INVERSION.replace(grade=grade)) for grade in ("certain", "possible", "unlikely")]
    assert [entry["level"] for entry in levels] == ["error", "error", "warning"]
    assert [entry["properties"]["grade"] for entry in levels] == ["certain", "possible", "unlikely"]
    ranks = [entry["rank"] for entry in levels]
    assert ranks == sorted(ranks, reverse=True)


def test_accepted_findings_are_suppressed_where_they_were_accepted() -> None:
    accepted = findings.INVERSION.replace(allowed_by="start-up only")
    assert result(accepted.replace(allowed_kind="configuration"))["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "start-up only"}
    ]
    for kind in ("block", "comment"):
        assert result(accepted.replace(allowed_kind=kind))["suppressions"][0]["kind"] == "inSource"
    assert "suppressions" not in result(findings.INVERSION)
    assert result(accepted.replace(allowed_by=""))["suppressions"] == [{"kind": "inSource", "status": "accepted"}]


def test_the_fingerprint_is_ours_and_doesnt_take_the_name_that_github_computes() -> None:
    assert result(findings.INVERSION)["partialFingerprints"] == {"ctxcheck/v1": "CTX001-7c41e0b2"}


@pytest.mark.parametrize("code", [code for code in RULES if code != "CTX901"])
def test_every_rule_is_explained(code: str) -> None:
    [rule] = log(findings.INVERSION.replace(rule=code))["tool"]["driver"]["rules"]
    assert rule["id"] == code
    assert rule["help"]["text"].replace("{{", "{").replace("}}", "}") == explain.page(code)
    assert rule["help"]["markdown"].startswith(f"# {code} ")
    assert re.match(r"[a-z]+:", rule["helpUri"])
    assert code in rule["helpUri"]
    assert rule["shortDescription"]["text"].endswith(".")


def test_weaknesses_are_told_as_taxa_and_as_tags() -> None:
    run = log(findings.INVERSION, findings.SELF_DEADLOCK, findings.SLEEP_IN_ATOMIC)
    taxa = [taxon["id"] for taxon in run["taxonomies"][0]["taxa"]]
    assert taxa == ["764", "833"]
    for rule, number in zip(run["tool"]["driver"]["rules"], ("833", "764"), strict=False):
        [relation] = rule["relationships"]
        assert taxa[relation["target"]["index"]] == relation["target"]["id"] == number
        assert f"external/cwe/cwe-{number}" in rule["properties"]["tags"]
    assert "relationships" not in run["tool"]["driver"]["rules"][2]


def test_the_run_says_how_it_ended() -> None:
    [invocation] = log(findings.INVERSION)["invocations"]
    assert invocation == {"executionSuccessful": True, "exitCode": 1}


def test_a_fault_of_the_checker_is_a_notification() -> None:
    run = log(Violation("CTX901", "checker-disabled", "certain", "checking was switched off"))
    assert run["results"] == []
    [invocation] = run["invocations"]
    assert invocation["executionSuccessful"] is False
    [note] = invocation["toolExecutionNotifications"]
    assert note["message"]["text"] == "Checking was switched off."
    assert run["tool"]["driver"]["notifications"][note["descriptor"]["index"]]["id"] == "CTX901"


def test_what_a_limit_cut_and_a_run_that_checked_nothing_are_told() -> None:
    [invocation] = log(counts=Counts(lock_classes=1, dropped=7))["invocations"]
    assert "7 events" in invocation["toolExecutionNotifications"][0]["message"]["text"]
    [invocation] = log(counts=Counts())["invocations"]
    assert "nothing was checked" in invocation["toolExecutionNotifications"][0]["message"]["text"].lower()


def test_paths_are_relative_to_the_top_of_the_checkout() -> None:
    entry = result(findings.INVERSION, prefix="services/bank")
    place = entry["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "services/bank/bank.py", "uriBaseId": "%SRCROOT%", "index": 0}


def test_a_real_consumer_reads_it(tmp_path: Path) -> None:
    loader = pytest.importorskip("sarif.loader", reason="sarif-tools isn't installed")
    path = tmp_path / "a.sarif"
    path.write_text(render("sarif", Report([findings.INVERSION, findings.UNLIKELY], run=RUN)))
    [first, second] = loader.load_sarif_file(str(path)).get_records()
    assert (first["Severity"], second["Severity"]) == ("error", "warning")
    assert (first["Location"], first["Line"], first["Code"]) == ("bank.py", 30, "CTX001")
