"""The commands on data, as a user types them: what they say, what they leave, how they end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.test_cli import CLEAN, INVERSION

OTHER = INVERSION.replace("a = ", "c = ").replace("with a", "with c")


def test_report_tells_what_a_run_found(ctxcheck: Run, tmp_path: Path) -> None:
    ran = ctxcheck("run", "program.py", code=INVERSION)
    result = ctxcheck("report")
    assert result.returncode == 1
    report = ran.stdout.partition("\nctxcheck: ")[0].strip()
    assert report.startswith("error[CTX001]")
    assert report in result.stdout  # the very same
    assert "1 process since 20" in result.stdout
    assert result.stdout.endswith("ctxcheck: 1 violation (1 CTX001); exit 1\n")
    assert ctxcheck("report", "--exit-zero").returncode == 0
    assert ctxcheck("report", "--fail-on", "certain").returncode == 0


def test_reports_go_to_standard_output_and_words_to_standard_error(ctxcheck: Run, tmp_path: Path) -> None:
    ctxcheck("run", "program.py", code=INVERSION)
    command = [sys.executable, "-m", "ctxcheck", "report", "--output", "json", "--output", "concise:out.txt"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    document = json.loads(result.stdout)
    assert [v["rule"] for v in document["violations"]] == ["CTX001"]
    assert {(e["from"], e["to"]) for e in document["graph"]["edges"]} == {
        ("program:a", "program:b"), ("program:b", "program:a"),
    }  # fmt: skip
    assert (tmp_path / "out.txt").read_text().count("CTX001") == 1
    assert result.stderr.endswith("exit 1\n")


def test_a_clean_run_and_its_report(ctxcheck: Run) -> None:
    ctxcheck("run", "program.py", code=CLEAN)
    result = ctxcheck("report", "--strict")
    assert result.returncode == 0
    assert result.stdout.endswith("ctxcheck: no violations; 1 lock class, 0 orders, 1 acquisition checked\n")


def test_several_runs_are_one_report(ctxcheck: Run) -> None:
    for code in (INVERSION, OTHER, CLEAN, INVERSION):
        ctxcheck("run", "program.py", code=code)
    result = ctxcheck("report", "--output", "concise")
    assert "4 processes since" in result.stdout
    assert "2 violations (2 CTX001)" in result.stdout


def test_a_run_that_was_killed_is_in_it_and_said_to_be(ctxcheck: Run) -> None:
    ctxcheck("run", "program.py", code=INVERSION + "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    result = ctxcheck("report", "--output", "concise")
    assert result.returncode == 1
    assert "1 of which did not come to an end" in result.stdout


def test_allow_select_and_fail_on_of_the_configuration_hold_for_a_report_too(ctxcheck: Run, tmp_path: Path) -> None:
    ctxcheck("run", "program.py", code=INVERSION)
    allow = '[[tool.ctxcheck.allow]]\nrule = "CTX001"\nlocks = ["a", "b"]\nreason = "fine"\n'
    (tmp_path / "pyproject.toml").write_text(allow)
    result = ctxcheck("report")
    assert (result.returncode, "1 allowed" in result.stdout) == (0, True)
    (tmp_path / "pyproject.toml").write_text('[tool.ctxcheck]\nignore = ["CTX001"]\n')
    assert "no violations;" in ctxcheck("report").stdout


def test_write_baseline_then_only_new_findings_fail(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ctxcheck]\nbaseline = "known.json"\n')
    assert ctxcheck("run", "program.py", code=INVERSION).returncode == 2  # there is none yet
    ctxcheck("run", "--baseline", os.devnull, "program.py")
    (tmp_path / "pyproject.toml").unlink()
    ctxcheck("run", "program.py", code=INVERSION)
    (tmp_path / "pyproject.toml").write_text('[tool.ctxcheck]\nbaseline = "known.json"\n')
    result = ctxcheck("report", "--write-baseline")
    assert result.returncode == 0
    assert "wrote 1 finding to known.json: 1 new, 0 no longer there" in result.stdout
    for command in (("report",), ("combine",), ("run", "program.py")):
        result = ctxcheck(*command)
        assert result.returncode == 0, result.stdout
        assert "no new violations, 1 in the baseline" in result.stdout
        assert "error[" not in result.stdout
    ctxcheck("run", "program.py", code=OTHER)
    result = ctxcheck("report")
    assert result.returncode == 1
    assert "1 new violation (1 CTX001), 1 in the baseline" in result.stdout
    result = ctxcheck("report", "--write-baseline")
    assert "wrote 2 findings to known.json: 1 new, 0 no longer there" in result.stdout
    ctxcheck("erase")
    ctxcheck("run", "program.py", code=CLEAN)
    result = ctxcheck("report", "--strict")
    assert result.returncode == 1
    assert result.stdout.count("strict: in the baseline, and no longer found: CTX001-") == 2


def test_graph_shows_what_was_seen(ctxcheck: Run) -> None:
    ctxcheck("run", "program.py", code=INVERSION + "d = threading.Lock()\nwith a, d: pass\n")
    every = json.loads(ctxcheck("graph", "--format", "json").stdout)
    assert [c["name"] for c in every["classes"]] == ["a", "b", "d"]
    assert len(every["edges"]) == 3
    some = json.loads(ctxcheck("graph", "--format", "json", "--only-cycles").stdout)
    assert [c["name"] for c in some["classes"]] == ["a", "b"]
    assert ctxcheck("graph").stdout.startswith("digraph ctxcheck {")
    assert ctxcheck("graph", "--format", "mermaid").stdout.startswith("flowchart LR")


def test_erase_removes_what_is_ours_only(ctxcheck: Run, tmp_path: Path) -> None:
    ctxcheck("run", "program.py", code=INVERSION)
    data = tmp_path / ".ctxcheck"
    (data / "notes.txt").write_text("mine")
    assert "removed 1 data file from .ctxcheck" in ctxcheck("erase").stdout
    assert sorted(p.name for p in data.iterdir()) == [".gitignore", "notes.txt"]
    (data / "notes.txt").unlink()
    ctxcheck("run", "program.py")
    ctxcheck("run", "program.py")
    assert "removed 2 data files" in ctxcheck("erase").stdout
    assert not data.exists()
    result = ctxcheck("erase")
    assert (result.returncode, "removed 0 data files" in result.stdout) == (0, True)


def test_debug_config_says_where_each_value_comes_from(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ctxcheck]\nstrict = true\nfactories = ['a.b']\n")
    result = ctxcheck("debug", "config", env={"CTXCHECK_MODE": "warn", "CTXCHECK_MOED": "x"})
    rows = {line.split("  ")[0]: " ".join(line.split()) for line in result.stdout.splitlines()}
    assert rows["strict"] == "strict true pyproject.toml"
    assert rows["mode"] == 'mode "warn" CTXCHECK_MODE'
    assert rows["factories"] == 'factories ["a.b"] pyproject.toml'
    assert rows["color"] == 'color "auto" default'
    assert "CTXCHECK_MOED is not a variable of ctxcheck; did you mean 'CTXCHECK_MODE'?" in result.stdout
    assert result.returncode == 0


def test_debug_sys_says_what_is_put_in_place(ctxcheck: Run) -> None:
    result = ctxcheck("debug", "sys")
    assert result.returncode == 0
    rows = {line.split("  ")[0]: " ".join(line.split()) for line in result.stdout.splitlines()}
    assert sys.version.split()[0] in rows["python"]
    assert "RLock" in rows["put in place in threading"]
    assert "Thread.join" in rows["put in place in threading"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["report"], "no data found in .ctxcheck: 'ctxcheck run' and 'pytest --ctxcheck' write it"),
        (["report", "program.p"], "program.p: no such file or folder; did you mean 'program.py'?"),
        (["combine", "nowhere"], "nowhere: no such file or folder"),
        (["graph", "--format", "dott"], "--format: unknown value 'dott'; allowed: dot, mermaid, json; did you"),
        (["reprot"], "unknown command 'reprot'; allowed: run, probes, explain"),
        (["report", "--ouput", "x"], "report: unknown option --ouput; did you mean --output?"),
        (["report", "--output", "jsn"], "did you mean 'json'?"),
        (["report", "--fail-on", "posible"], "did you mean 'possible'?"),
        (["report", "--baseline", "no.json", "program.py"], "no.json: no such baseline"),
        (["debug", "conf"], "unknown value 'conf'; allowed: config, sys"),
        (["report", "program.py"], "no data found in program.py"),
    ],
)
def test_mistakes_are_one_line_and_status_2(ctxcheck: Run, args: list[str], message: str) -> None:
    result = ctxcheck(*args, code="x = 1\n")
    assert result.returncode == 2
    assert message in result.stdout.splitlines()[-1]
    assert "Traceback" not in result.stdout


def test_an_output_that_cant_be_written_is_status_2(ctxcheck: Run) -> None:
    ctxcheck("run", "program.py", code=INVERSION)
    for command in (("report", "--output", "json:program.py/x.json"), ("report", "--write-baseline", "no/x.json"),
                    ("combine", "--to", "program.py/x.jsonl")):  # fmt: skip
        result = ctxcheck(*command)
        assert result.returncode == 2, result.stdout
        assert "can't write" in result.stdout.splitlines()[-1]


def test_a_closed_pipe_is_no_fault(ctxcheck: Run, tmp_path: Path) -> None:
    ctxcheck("run", "program.py", code=INVERSION)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "ctxcheck", "graph"]
    result = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert "Traceback" not in result.stderr
