"""What machines are given of a suite's run: as the published schemas say, with the orders that were seen."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.pytest_plugin.conftest import APART, BOTH, Suite
from tests.reports.test_json import DOCUMENT, LINE
from tests.reports.test_sarif import VALIDATOR as SARIF


def test_reports_of_a_session_are_as_the_schemas_say(suite: Suite) -> None:
    suite.write(test_a=BOTH, test_b=APART)
    suite.run("--ctxcheck-output=jsonl:out/found.jsonl", "--ctxcheck-output=sarif:out/found.sarif")
    document = json.loads((suite.path / "found.json").read_text())
    DOCUMENT.validate(document)
    for line in (suite.path / "out" / "found.jsonl").read_text().splitlines():
        LINE.validate(json.loads(line))
    SARIF.validate(json.loads((suite.path / "out" / "found.sarif").read_text()))
    assert {"key": "bank:Audit.lock", "name": "Audit.lock", "kind": "lock"} in document["graph"]["classes"]
    assert [v["tests"] for v in document["violations"]] == [["test_a.py::test_both"]]
    counts = {(edge["from"], edge["to"]): edge["count"] for edge in document["graph"]["edges"]}
    assert counts["bank:Audit.lock", "bank:Ledger.lock"] == 2


@pytest.mark.parametrize("command", ["report", "combine"])
def test_reports_of_its_data_are_as_the_schemas_say(suite: Suite, ctxcheck: Run, command: str) -> None:
    suite.write(test_a=BOTH, test_b=APART)
    suite.run()
    data, out = str(suite.path / ".ctxcheck"), suite.path / "out"
    wanted = (f"--output={kind}:{out}/found.{kind}" for kind in ("json", "jsonl", "sarif"))
    ctxcheck(command, *wanted, *(["--to", str(out / "all.jsonl")] if command == "combine" else []), data)
    DOCUMENT.validate(json.loads((out / "found.json").read_text()))
    for line in (out / "found.jsonl").read_text().splitlines():
        LINE.validate(json.loads(line))
    SARIF.validate(json.loads((out / "found.sarif").read_text()))


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["in one process", "with workers"])
def test_its_data_come_to_what_the_session_said(suite: Suite, ctxcheck: Run, args: tuple[str, ...]) -> None:
    """What shards leave is judged as they were: any section in any number of threads, and each process has an end."""
    suite.write(test_a=APART)
    plugins = ("xdist",) if args else ()
    said = suite.run(*args, plugins=plugins)
    assert said.status == 1
    [violation] = json.loads((suite.path / "found.json").read_text())["violations"]
    assert sorted(violation["tests"]) == ["test_a.py::test_here", "test_a.py::test_there"]
    report = ctxcheck("report", "-q", str(suite.path / ".ctxcheck"))
    assert report.returncode == 1
    assert "did not come to an end" not in report.stdout
    assert "possible deadlock: lock order inversion between `Audit.lock` and `Ledger.lock`" in report.stdout
    [number] = re.findall(r"(\d+) acquisitions", said.text) or [""]
    assert number in report.stdout


def test_shards_that_are_clean_alone_fail_together(suite: Suite, ctxcheck: Run, tmp_path: Path) -> None:
    suite.write(test_a=APART)
    for shard, chosen in (("one", "not there"), ("two", "there")):
        done = suite.run("-k", chosen, CTXCHECK_DATA_DIR=str(tmp_path / shard))
        assert done.status == 0
    result = ctxcheck("combine", "-q", "--to", "all.jsonl", str(tmp_path / "one"), str(tmp_path / "two"))
    assert result.returncode == 1
    assert "possible deadlock: lock order inversion" in result.stdout
    assert ctxcheck("report", "-q", "all.jsonl").returncode == 1
