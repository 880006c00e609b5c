from __future__ import annotations

import json
import os
from pathlib import Path

import jsonschema
import pytest

from ctxcheck import outputs
from ctxcheck.engine.errors import ConfigError
from ctxcheck.keys import Output
from ctxcheck.reports.formats import Report
from tests.conftest import PROJECT, Run
from tests.reports import findings


def emit(wanted: list[Output], report: Report, cwd: Path, **environ: str) -> list[str]:
    said: list[str] = []
    outputs.emit(wanted, report, say=said.append, cwd=str(cwd), environ=environ)
    return said


@pytest.mark.parametrize("kind", ["text", "concise", "json", "jsonl", "sarif", "github"])
def test_a_file_holds_what_the_terminal_shows(kind: str, tmp_path: Path) -> None:
    report = Report([findings.INVERSION])
    said = emit([Output(kind), Output(kind, "deep/er/report")], report, tmp_path)
    assert len(said) == 1
    assert (tmp_path / "deep/er/report").read_text() == said[0].rstrip("\n") + "\n"


def test_what_was_told_is_in_files_all_the_same(tmp_path: Path) -> None:
    report = Report([findings.INVERSION], told={findings.INVERSION.fingerprint: findings.INVERSION.grade})
    assert emit([Output("text"), Output("text", "report")], report, tmp_path) == []
    assert findings.INVERSION.message in (tmp_path / "report").read_text()


def test_none_says_nothing_and_an_empty_report_is_an_empty_file(tmp_path: Path) -> None:
    assert emit([Output("none"), Output("concise", "report")], Report([]), tmp_path) == []
    assert (tmp_path / "report").read_bytes() == b""


def test_summaries_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    emit([Output("github")], Report([findings.INVERSION]), tmp_path, GITHUB_STEP_SUMMARY=str(path))
    assert path.read_text().startswith("before\n### ctxcheck\n")
    # nothing else asks for it
    emit([Output("json")], Report([findings.INVERSION]), tmp_path, GITHUB_STEP_SUMMARY=str(path))
    assert path.read_text().count("### ctxcheck") == 1


def test_a_summary_that_cant_be_written_is_said(tmp_path: Path) -> None:
    said = emit([Output("github")], Report([findings.INVERSION]), tmp_path, GITHUB_STEP_SUMMARY=str(tmp_path))
    assert said[0] == "ctxcheck: can't write the summary of the step: Is a directory"
    assert said[1].startswith("::error ")


@pytest.mark.parametrize(
    ("actions", "chosen", "expected"),
    [("true", False, ["text", "github"]), ("true", True, ["text"]), ("", False, ["text"]), ("false", False, ["text"])],
)
def test_on_github_actions_annotations_are_added_to_the_default(
    actions: str, chosen: bool, expected: list[str]
) -> None:
    wanted = outputs.with_github([Output("text")], chosen=chosen, environ={"GITHUB_ACTIONS": actions})
    assert [output.type for output in wanted] == expected


def test_the_prefix_is_from_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    environ = {"GITHUB_WORKSPACE": str(tmp_path)}
    assert outputs.prefix(str(tmp_path / "a" / "b"), environ) == "a/b"
    assert outputs.prefix(str(tmp_path), environ) == ""
    assert outputs.prefix(str(tmp_path.parent), environ) == ""
    assert outputs.prefix(str(tmp_path), {}) == ""
    os.symlink(tmp_path / "a", tmp_path / "link")
    assert outputs.prefix(str(tmp_path / "link" / "b"), environ) == "a/b"


def test_paths_are_looked_at_before_anything_is_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outputs.check([Output("text"), Output("json", "x/y.json"), Output("json", "file")], cwd=str(tmp_path))
    for path, reason in (("file/x", "file is no folder"), (".", "that is a folder")):
        with pytest.raises(ConfigError, match=f"^can't write --output json:{path}: {reason}$"):
            outputs.check([Output("json", path)], cwd=str(tmp_path))


def test_a_real_run_is_valid_in_every_format_for_machines(ctxcheck: Run, tmp_path: Path) -> None:
    program = (PROJECT / "examples" / "bank.py").read_text()
    ctxcheck("run", *(f"--output={kind}:{kind}" for kind in ("json", "jsonl", "sarif")), "program.py", code=program)
    schema = json.loads((PROJECT / "docs" / "schema" / "ctxcheck-report-1.json").read_text())
    report = json.loads((tmp_path / "json").read_text())
    jsonschema.Draft202012Validator(schema).validate(report)
    assert (report["run"]["program_status"], report["run"]["exit_status"]) == (0, 1)
    line = jsonschema.Draft202012Validator({"$defs": schema["$defs"], "$ref": "#/$defs/line"})
    lines = [json.loads(text) for text in (tmp_path / "jsonl").read_text().splitlines()]
    for record in lines:
        line.validate(record)
    assert lines[1]["violation"] == report["violations"][0]
    sarif = PROJECT / "tests" / "reports" / "schemas" / "sarif-2.1.0-rtm.5.json"
    document = json.loads((tmp_path / "sarif").read_text())
    jsonschema.Draft4Validator(json.loads(sarif.read_text())).validate(document)
    assert document["runs"][0]["invocations"] == [{"executionSuccessful": True, "exitCode": 1}]
