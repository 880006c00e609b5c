"""The baseline: what is known doesn't fail, what is new does, what is gone is said."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxcheck as package
from ctxcheck import baseline
from ctxcheck.baseline import Baseline, Entry
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.violations import Violation
from ctxcheck.reports.json import violation_from_dict
from tests.conftest import Run
from tests.reports import findings
from tests.reports.strategies import violations
from tests.test_cli import CLEAN, INVERSION

ABBA = findings.INVERSION


def test_what_is_written_is_known_and_what_isnt_is_new(tmp_path: Path) -> None:
    path = str(tmp_path / "b.json")
    other = ABBA.replace(fingerprint="CTX001-00000000")
    written = baseline.write(path, [ABBA])
    read = baseline.load(path)
    assert read.entries == written.entries
    assert read.known(ABBA)
    assert not read.known(other)
    assert [e.fingerprint for e in read.stale([other])] == [ABBA.fingerprint]
    assert read.stale([ABBA]) == []


def test_a_finding_that_comes_back_more_or_less_sure_is_the_same_one() -> None:
    known = baseline.of([ABBA.replace(grade="possible")])
    for grade in ("unlikely", "possible", "certain"):
        assert known.known(ABBA.replace(grade=grade, count=7, sites=(), message="other words"))
        assert known.stale([ABBA.replace(grade=grade)]) == []


def test_what_is_accepted_elsewhere_is_left_out_but_isnt_gone_when_it_comes() -> None:
    allowed = ABBA.replace(allowed_by="fine")
    assert baseline.of([allowed]).entries == []
    assert baseline.of([ABBA]).stale([allowed]) == []


def test_that_checking_was_switched_off_is_never_known() -> None:
    fault = Violation("CTX901", "checker-disabled", "certain", "broken", fingerprint="CTX901-1")
    assert baseline.of([fault]).entries == []
    assert not Baseline([Entry("CTX901-1", "CTX901", "broken")]).known(fault)


def test_the_file_is_sorted_and_has_no_lines_in_it(tmp_path: Path) -> None:
    many = [ABBA.replace(fingerprint=f"CTX001-{i}", message=f"m{i % 3}") for i in range(9)]
    text = baseline.of(many).dumps()
    assert text == baseline.of(many[::-1]).dumps()
    assert text == baseline.of(many + many).dumps()
    moved = [v.replace(sites=tuple(s.__class__(s.role, s.file, s.line + 5, s.function) for s in v.sites)) for v in many]
    assert baseline.of(moved).dumps() == text
    first = json.loads(text)["violations"][0]
    assert list(first) == ["fingerprint", "rule", "locks", "site", "message"]
    assert first["site"] == f"{ABBA.sites[0].file} in {ABBA.sites[0].function}"


@given(st.lists(violations, max_size=5))
@settings(max_examples=50, deadline=None)
def test_any_findings_go_to_the_file_and_back(found: list[Violation]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "b.json")
        written = baseline.write(path, found)
        assert baseline.load(path).entries == written.entries
        named = [v for v in found if v.allowed_by is None and v.fingerprint and v.rule]
        assert all(written.known(v) for v in named if v.rule != "CTX901")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "not a baseline of ctxcheck"),
        (b"{}", "not a baseline of ctxcheck"),
        (b"\xff", "not UTF-8"),
        (b'{\n"a": 1,\n<<<<<<< HEAD\n}', ":3: not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"schema_version": 1' + b"0" * 5000 + b"}", "not JSON that can be read"),
        (b'{"schema_version": 2, "tool": "ctxcheck"}', "schema version 2; this version of ctxcheck reads up to 1"),
        (b'{"schema_version": true, "tool": "ctxcheck"}', "not a baseline"),
        (b'{"schema_version": 1, "tool": "other", "violations": []}', "not a baseline"),
        (b'{"schema_version": 1, "tool": "ctxcheck"}', "'violations' is missing"),
        (b'{"schema_version": 1, "tool": "ctxcheck", "violations": [7]}', "entry 1: 'fingerprint' is missing"),
        (
            b'{"schema_version": 1, "tool": "ctxcheck", "violations": [{"fingerprint": "x", "rule": 3}]}',
            "entry 1: 'rule' is missing",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        baseline.load(str(path))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_folders_pipes_and_missing_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing.json", ".", "pipe"):
        with pytest.raises(ConfigError):
            baseline.load(str(tmp_path / name))
    with pytest.raises(ConfigError, match="can't write the baseline"):
        baseline.write(str(tmp_path / "no" / "b.json"), [])


def test_a_session_counts_what_is_known_and_raises_for_what_is_new() -> None:
    def nest(*names: str) -> None:
        locks = [package.Lock(name=name) for name in names]
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)

    with package.Session() as first:
        nest("known a", "known b")
        nest("known b", "known a")
    known = baseline.of(first.violations)
    with package.Session(mode="raise", known=known.known) as second:
        nest("known a", "known b")
        nest("known b", "known a")
        nest("new a", "new b")
        with pytest.raises(package.ViolationError):
            nest("new b", "new a")
    assert [v.baselined for v in second.violations] == [True, False]
    assert [v.keys for v in second.failures] == [("new a", "new b")]


# --- the command line --------------------------------------------------------------------------


def test_a_run_fails_for_what_is_new_only_and_counts_the_rest(ctxcheck: Run, tmp_path: Path) -> None:
    ctxcheck("run", "--output", "json:o.json", "program.py", code=INVERSION)
    found = [violation_from_dict(v) for v in json.loads((tmp_path / "o.json").read_text())["violations"]]
    baseline.write(str(tmp_path / "b.json"), found)
    edited = "\n\n# an edit elsewhere\n" + INVERSION
    result = ctxcheck("run", "--baseline", "b.json", "program.py", code=edited)
    assert result.returncode == 0
    assert "error[" not in result.stdout
    assert result.stdout.endswith(
        "ctxcheck: no new violations, 1 in the baseline; 2 lock classes, 2 orders, 4 acquisitions checked\n"
    )
    more = edited + "c = threading.Lock()\nwith a, c: pass\nwith c, a: pass\n"
    result = ctxcheck("run", "--baseline", "b.json", "--owners", "assumed", "program.py", code=more)
    assert result.returncode == 1
    assert result.stdout.count("error[CTX001]") == 1
    assert "1 new violation (1 CTX001), 1 in the baseline" in result.stdout


def test_an_entry_that_no_longer_occurs_is_said_and_fails_when_strict(ctxcheck: Run, tmp_path: Path) -> None:
    baseline.write(str(tmp_path / "b.json"), [ABBA])
    (tmp_path / "pyproject.toml").write_text('[tool.ctxcheck]\nbaseline = "b.json"\n')
    result = ctxcheck("run", "program.py", code=CLEAN)
    assert result.returncode == 0
    assert f"note: in the baseline, and no longer found: {ABBA.fingerprint}" in result.stdout
    result = ctxcheck("run", "--strict", "program.py", code=CLEAN)
    assert result.returncode == 1
    assert f"strict: in the baseline, and no longer found: {ABBA.fingerprint}" in result.stdout


def test_a_baseline_that_is_missing_is_one_line_and_the_program_isnt_run(ctxcheck: Run) -> None:
    result = ctxcheck("run", "--baseline", "no.json", "program.py", code="print('ran')")
    assert (result.returncode, result.stdout.count("\n")) == (2, 1)
    assert "no.json: no such baseline; 'ctxcheck report --write-baseline' writes one" in result.stdout
