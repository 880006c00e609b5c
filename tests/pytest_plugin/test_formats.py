"""What machines are given of a suite's run: as the published schemas say, with the orders that were seen."""

from __future__ import annotations

import json

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
