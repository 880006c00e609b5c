"""A baseline in a run of pytest; and what it leaves for ``ctxcheck report``, which has to come to the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

APP = """
import threading
a, b, c = threading.Lock(), threading.Lock(), threading.Lock()
def take(x, y):
    with x:
        with y: pass
"""
TESTS = """
from app import a, b, c, take
def test_by_itself(): take(a, b); take(b, a)
def test_here(): take(a, c)
def test_there(): take(c, a)
def test_nothing(): pass
"""


def make_suite(folder: Path) -> Path:
    (folder / "app.py").write_text(APP)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text(TESTS)
    (folder / "tests" / "conftest.py").write_text(
        "import sys, pathlib\nsys.path.insert(0, str(pathlib.Path(__file__).parents[1]))\n"
    )
    return folder


def run(suite: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("CTXCHECK", "PYTEST", "GITHUB_"))}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=suite, env=environ, capture_output=True, text=True, timeout=120, check=False
    )


def suite_run(suite: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(suite, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--ctxcheck", *words)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    suite = make_suite(tmp_path_factory.mktemp("prepared"))
    assert suite_run(suite).returncode == 1
    done = run(suite, "ctxcheck", "report", "--write-baseline")
    assert "wrote 2 findings" in done.stderr, done.stderr
    path = suite / "ctxcheck-baseline.json"
    content = json.loads(path.read_text())
    content["violations"].append({"fingerprint": "CTX001-00000000", "rule": "CTX001", "message": "gone"})
    path.write_text(json.dumps(content))
    (suite / "pyproject.toml").write_text(f'[tool.ctxcheck]\nbaseline = "{path.name}"\n')
    return suite


@pytest.fixture
def known(prepared: Path, tmp_path: Path) -> Path:
    """A suite, with a baseline of all that it has, and of one finding that it hasn't."""
    return Path(shutil.copytree(prepared, tmp_path / "known"))


GONE = "in the baseline, and no longer found: CTX001-00000000: gone"


@pytest.mark.parametrize("words", [(), ("tests",), (".", "-p", "xdist", "-n", "2")])
def test_a_whole_run_says_what_is_no_longer_found(known: Path, words: tuple[str, ...]) -> None:
    done = suite_run(known, *words)
    assert done.returncode == 0, done.stdout
    assert "no new violations, 2 in the baseline" in done.stdout
    assert done.stdout.count("no longer found") == 1
    assert GONE in done.stdout
    assert suite_run(known, *words, "--ctxcheck-strict").returncode == 1


@pytest.mark.parametrize(
    "words", [("-k", "nothing or here"), ("-knothing",), ("tests/test_it.py",), ("tests/test_it.py::test_nothing",),
              ("--deselect", "tests/test_it.py::test_here"), ("--maxfail=1", "tests", "-x", "--ignore=elsewhere")],
)  # fmt: skip
def test_a_part_of_the_suite_doesnt_show_that_anything_is_gone(known: Path, words: tuple[str, ...]) -> None:
    with (known / "pyproject.toml").open("a") as file:
        file.write('[[tool.ctxcheck.allow]]\nrule = "CTX105"\nreason = "for a test that isn\'t chosen"\n')
    done = suite_run(known, *words, "--ctxcheck-strict")
    assert "no longer found" not in done.stdout
    assert "unused" not in done.stdout
    assert done.returncode == 0, done.stdout


def test_another_place_of_a_known_order_revives_nothing(known: Path) -> None:
    """It sorts before the one whose function is in the name that the baseline has."""
    directly = known / "tests" / "a_test.py"
    directly.write_text("from app import a, c\ndef test_directly():\n    with a:\n        with c: pass\n")
    for words in ((), ("-p", "xdist", "-n", "2")):
        done = suite_run(known, *words)
        assert done.returncode == 0, done.stdout
        assert "no new violations, 2 in the baseline" in done.stdout
        assert done.stdout.count("no longer found") == 1
    report = run(known, "ctxcheck", "report")
    assert report.returncode == 0, report.stdout
    assert report.stderr.count("no longer found") == 1
    # at none of its places is it known any more
    (known / "app.py").write_text((known / "app.py").read_text().replace("def take", "def take_both"))
    (known / "tests" / "test_it.py").write_text(TESTS.replace("take", "take_both"))
    done = suite_run(known)
    assert done.returncode == 1
    assert "lock order inversion between `app.a` and `app.c`" in done.stdout


SHARD = """
def pytest_collection_modifyitems(items):
    items[:] = items[:1]
"""


@pytest.mark.parametrize("words", [(), ("-p", "xdist", "-n", "2")])
def test_a_shard_doesnt_either(known: Path, words: tuple[str, ...]) -> None:
    (known / "tests" / "conftest.py").write_text(SHARD)
    done = suite_run(known, *words, "--ctxcheck-strict")
    assert "no longer found" not in done.stdout
    assert done.returncode == 0, done.stdout
    # what the configuration leaves out is never run
    (known / "tests" / "conftest.py").unlink()
    (known / "pytest.ini").write_text("[pytest]\naddopts = -k 'not nothing'\n")
    assert GONE in suite_run(known, *words).stdout


def test_some_of_the_folders_with_tests_dont_either(known: Path) -> None:
    (known / "pytest.ini").write_text("[pytest]\ntestpaths = tests more*\n")
    (known / "more").mkdir()
    (known / "more" / "test_more.py").write_text("def test_more(): pass\n")
    assert "no longer found" not in suite_run(known, "tests").stdout
    assert GONE in suite_run(known, "tests", "more").stdout
    assert GONE in suite_run(known).stdout


def test_a_run_that_only_sets_up_doesnt_either(known: Path) -> None:
    done = suite_run(known, "--setup-plan", "--ctxcheck-strict")
    assert done.returncode == 0, done.stdout
    assert "no longer found" not in done.stdout
    assert "nothing was checked" not in done.stdout


def test_a_run_that_stops_early_doesnt_either(known: Path) -> None:
    (known / "tests" / "test_a.py").write_text("def test_fails(): assert 0\n")
    assert "no longer found" not in suite_run(known, "-x").stdout
    assert GONE in suite_run(known).stdout


@pytest.mark.parametrize("words", [(), ("-p", "xdist", "-n", "2")])
def test_a_report_of_the_data_comes_to_the_same_as_the_run(tmp_path: Path, words: tuple[str, ...]) -> None:
    suite = make_suite(tmp_path)
    suite_run(suite, *words, "--ctxcheck-output=json:run.json")
    done = run(suite, "ctxcheck", "report", "--output", "json:report.json")
    assert "did not come to an end" not in done.stderr, done.stderr
    found = [json.loads((suite / name).read_text()) for name in ("run.json", "report.json")]
    of_run, of_report = ({(v["fingerprint"], v["grade"]) for v in one["violations"]} for one in found)
    assert of_run == of_report
    assert len(of_run) == 2
    assert found[1]["run"]["counts"]["acquisitions"] >= 8
