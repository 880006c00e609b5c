"""Real bugs of published packages: reported on the buggy version, silent on the fixed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: The bug classes that this version finds: what a case expects to be reported.
FOUND = {"order-inversion", "self-deadlock", "wait-under-lock", "lock-across-await"}


def test_what_this_version_knows_is_found_and_the_fixed_versions_are_silent(
    shared: Path, tmp_path: Path
) -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the packages of the corpus are verified on Python 3.11 only")
    script = shared / "corpus" / "run.py"
    cases = []
    for folder in sorted((shared / "corpus" / "cases").iterdir()):
        lines = (folder / "case.yaml").read_text().splitlines()
        expected = [json.loads(line[4:])["rule"] for line in lines[lines.index("expect_buggy:") + 1 :][:1]]
        if set(expected) <= FOUND:
            cases.append(folder.name)
    assert len(cases) >= 10
    common = ["--envs", str(tmp_path / "envs")]

    def corpus(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, script, *args, *common],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("CTXCHECK")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    prepared = corpus("prepare", *cases)
    assert prepared.returncode == 0, prepared.stdout
    tool = "{python} -m ctxcheck run --owners assumed --exit-zero --output json:{out} {scenario}"
    corpus("run", *cases, "--tool", tool, "--json", str(tmp_path / "rows.json"))
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {row["case"] for row in rows} == set(cases)
    for row in rows:
        buggy, fixed = row["runs"]["buggy"], row["runs"]["fixed"]
        assert buggy["found"] == buggy["expected"] == 1, row
        assert buggy["ok"], row
        assert fixed["text"] == "silent (done)", row
