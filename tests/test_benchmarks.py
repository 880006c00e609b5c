"""The benchmarks run, say what they measured, and don't take a validator that sleeps for a fast one.

Nothing here looks at how long anything takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

import ctxcheck

ROOT = Path(__file__).resolve().parent.parent
SRC = str(Path(ctxcheck.__file__).resolve().parent.parent)
sys.path.insert(0, str(ROOT))

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import cases, locks, machine, markers, measure, memory, startup, table  # noqa: E402
from benchmarks.measure import Bench, Case, Measured, NotCheckedError, Spread  # noqa: E402
from benchmarks.table import Row  # noqa: E402

from ctxcheck.session import current_session  # noqa: E402

#: What the project has promised, by row; the figures are in ratios, per cent or bytes.
TARGETS = {
    "with-1-held": 3.0,
    "with-8-held": 3.0,
    "held-difference": 5.0,
    "acquire": 6.0,
    "might-sleep-on-exact": 11.0,
    "atomic-on-exact": 11.0,
    "might-sleep-off-exact": 3.0,
    "atomic-off-exact": 3.0,
    "might-sleep-off-general": 10.0,
    "atomic-off-general": 10.0,
    "inline-on": 8.0,
    "markers-disabled": 1.0,
    "import-ctxcheck": 2.0,
    "heavy-modules": 0,
    "memory-lock": 400,
    "memory-rlock": 400,
    "memory-condition": 400,
    "memory-semaphore": 400,
    "memory-boundedsemaphore": 400,
    "memory-event": 400,
    "memory-barrier": 400,
}

#: Rows that only tell.
INFORMATIVE = {
    "with-off", "rlock-reentered", "out-of-order", "contended", "might-sleep-on-method", "might-sleep-on-general",
    "atomic-on-method", "atomic-on-general", "with-atomic-on", "make-lock", "make-rlock", "import-everything",
    "run-start-up",
}  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": SRC},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    path = tmp_path_factory.mktemp("benchmarks") / "costs.json"
    done = run("--quick", "--json", str(path))
    assert done.stderr == ""
    assert done.returncode == 0, "a target that isn't met is no failure without --check"
    return done.stdout, json.loads(path.read_text())


def test_the_table_has_every_row(quick: tuple[str, dict[str, Any]]) -> None:
    text, data = quick
    rows = {row["name"]: row for row in data["rows"]}
    assert {*TARGETS, *INFORMATIVE} <= rows.keys()
    for row in rows.values():
        assert row["verdict"] != "missing", row
        line = next(line for line in text.splitlines() if line.startswith(f"  {row['what']}  "))
        if row["to"]:
            assert row["to"] in line
    for name in INFORMATIVE:
        assert (rows[name]["target"], rows[name]["verdict"]) == (None, "")


def test_each_row_is_held_to_what_was_promised(quick: tuple[str, dict[str, Any]]) -> None:
    rows = {row["name"]: row for row in quick[1]["rows"]}
    assert {name: rows[name]["target"] for name in TARGETS} == TARGETS
    for row in rows.values():
        if row["target"] is not None and row["median"] is not None:
            assert row["verdict"] == ("ok" if row["median"] <= row["target"] else "over")


def test_what_is_compared_is_in_the_same_table(quick: tuple[str, dict[str, Any]]) -> None:
    rows = quick[1]["rows"]
    whats = {row["what"] for row in rows}
    for row in rows:
        if row["group"] in ("locks", "markers", "making one"):
            assert row["to"] in whats | {""}
            assert (row["median"] == 1.0) or row["to"], "a row without a reference is one"


def test_it_names_the_build_the_load_and_what_was_measured(quick: tuple[str, dict[str, Any]]) -> None:
    text, data = quick
    first = text.splitlines()[0]
    about = data["about"]
    build = about["interpreter"]
    assert build["version"] in first
    assert ("no PGO" in first) is not build["pgo"]
    assert ("no LTO" in first) is not build["lto"]
    assert ("free-threaded" in first) is build["free_threaded"]
    assert "load average" in text
    assert about["rounds"] == 2
    assert about["quick"] is True
    assert str(Path(about["source"])) in text
    assert text.splitlines()[-1].startswith("targets: ")


def test_no_absolute_path_in_what_it_writes(quick: tuple[str, dict[str, Any]]) -> None:
    text, data = quick
    assert str(ROOT) not in text
    assert str(ROOT) not in json.dumps(data)


# --- what is asked for ---------------------------------------------------------------------


def test_only_one_row_with_what_it_is_compared_with() -> None:
    done = run("--quick", "--rounds", "1", "--only", "acquire")
    assert done.returncode == 0
    assert "1 round in shuffled order" in done.stdout
    assert "raw: acquire(), release()" in done.stdout
    assert "Lock.acquire(), release()" in done.stdout
    assert "with Lock" not in done.stdout
    assert "memory" not in done.stdout


def test_only_the_difference_shows_no_more_than_its_two_sides(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--quick", "--only", "held-difference"]) == 0
    said = capsys.readouterr().out
    assert "the 8th lock to the 1st" in said
    assert "%" in said
    assert "raw: acquire" not in said


def test_a_name_that_does_not_exist_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "with-1-hold"]) == 2
    assert "no row is called 'with-1-hold'; did you mean 'with-1-held'?" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "-1", "many", "1.5"])
def test_rounds_are_a_whole_number_above_0(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(["--rounds", given])
    assert raised.value.code == 2
    assert f"'{given}' is not a whole number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "checked"), [(Spread(2.0, 2.0, 2.0), 0), (Spread(2.01, 2.01, 2.01), 1), (None, 1)])
def test_check_decides_on_the_exit_status(
    value: Spread | None, checked: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("heavy-modules", "start-up", "something", value, "x", target=2.0)
    monkeypatch.setattr(startup, "rows", lambda rounds, wanted: [row])
    assert command.main(["--quick", "--only", "heavy-modules"]) == 0
    assert command.main(["--quick", "--only", "heavy-modules", "--check"]) == checked
    assert row.verdict in capsys.readouterr().out


def test_what_has_no_target_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Row("heavy-modules", "start-up", "something", Spread(99.0, 99.0, 99.0), "x")
    monkeypatch.setattr(startup, "rows", lambda rounds, wanted: [row])
    assert command.main(["--quick", "--only", "heavy-modules", "--check"]) == 0


def test_a_marker_that_is_not_there_is_a_row_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = cases.public
    monkeypatch.setattr(cases, "public", lambda name: None if name == "might_sleep" else real(name))
    assert command.main(["--quick", "--only", "inline-on"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "might_sleep()" in line)
    assert line.split()[-3:] == ["missing", "no", "might_sleep"]


def test_names_are_used_once() -> None:
    names = [line.name for line in (*locks.lines(), *markers.lines(), *locks.creation_lines())]
    names += [*startup.NAMES, *memory.NAMES]
    assert len(names) == len(set(names))


# --- how it is measured ------------------------------------------------------------------------


@contextmanager
def lock() -> Generator[dict[str, Any]]:
    yield {"lock": ctxcheck.Lock(name="lock")}


@contextmanager
def raw_lock() -> Generator[dict[str, Any]]:
    yield {"lock": threading.Lock()}


def bench(*some: Case) -> Bench:
    return Bench(some, sample=10_000, warm_up=10, session=ctxcheck.checking)


WITH = "with lock:\n    pass\n"


def test_every_round_measures_each_case_once_in_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    measuring = bench(*(Case(name, WITH, raw_lock) for name in "abcdef"))
    monkeypatch.setattr(measuring, "_per_operation", lambda case: order.append(case.name) or 1.0)
    measuring.run(4)
    rounds = [tuple(order[at : at + 7]) for at in range(0, len(order), 7)]
    assert all(sorted(one) == sorted([*"abcdef", measure.EMPTY]) for one in rounds)
    assert len(set(rounds)) > 1


def test_the_loop_itself_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = bench(Case("a", WITH, raw_lock), Case("b", WITH, raw_lock))
    costs = {"a": 10.0, "b": 6.0, measure.EMPTY: 2.0}
    monkeypatch.setattr(measuring, "_per_operation", lambda case: costs[case.name])
    assert measuring.run(1).rounds == [{"a": 8.0, "b": 4.0}]


def test_ratios_are_taken_within_a_round() -> None:
    # the second round was slow as a whole, and in the third something hit one of them
    measured = Measured([{"a": 20.0, "b": 10.0}, {"a": 200.0, "b": 100.0}, {"a": 90.0, "b": 10.0}])
    assert measured.ratio("a", "b").median == 2.0
    assert measured.nanoseconds("b") == Spread(10.0, 10.0, 55.0)


def test_spread() -> None:
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_the_statement_runs_as_often_as_it_is_said_to() -> None:
    class Counting:
        entered = 0

        def __enter__(self) -> None:
            self.entered += 1

        def __exit__(self, *_: object) -> None:
            return None

    counting = Counting()

    @contextmanager
    def setup() -> Generator[dict[str, Any]]:
        counting.entered = 0
        yield {"lock": counting}

    case = Case("counting", WITH, setup)
    measuring = bench(case)
    measuring._take(case, 7)
    # 7 loops and at least one to warm up, each of which runs it UNROLL times
    assert counting.entered >= 8 * measure.UNROLL
    assert counting.entered % measure.UNROLL == 0


def test_a_validator_that_does_not_count_is_not_measured() -> None:
    class Asleep:
        violations: tuple[()] = ()

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def counts(self) -> Any:
            return SimpleNamespace(acquisitions=9)

    case = Case("asleep", WITH, lock, checking=True, acquires=1)
    with pytest.raises(NotCheckedError, match="asleep: 10 acquisitions were made, and the session has counted 9"):
        Bench([case], sample=10_000, warm_up=10, session=Asleep).run(1)


def test_a_validator_that_switches_itself_off_is_not_measured() -> None:
    @contextmanager
    def setup() -> Generator[dict[str, Any]]:
        broken = current_session()
        if broken is not None:
            broken._fault(ZeroDivisionError("on purpose"))
        yield {"f": lambda: None}

    with pytest.raises(NotCheckedError, match="broken: it must keep the rules, but: CTX901"):
        bench(Case("broken", "f()", setup, checking=True)).run(1)


def test_a_statement_that_breaks_the_rules_is_not_measured() -> None:
    @contextmanager
    def setup() -> Generator[dict[str, Any]]:
        yield {"spin": ctxcheck.SpinLock(name="spin"), "lock": ctxcheck.Lock(name="lock")}

    case = Case("sleeps-in-spin", "with spin:\n    with lock:\n        pass\n", setup, checking=True)
    with pytest.raises(NotCheckedError, match="sleeps-in-spin: it must keep the rules, but: CTX102"):
        bench(case).run(1)


def test_the_session_has_counted_every_acquisition() -> None:
    measured = bench(Case("with", WITH, lock, checking=True, acquires=1)).run(2)
    assert len(measured.rounds) == 2


# --- memory and processes ---------------------------------------------------------------------


def test_memory_is_that_of_one_and_nothing_is_left() -> None:
    size, left = memory._weigh(bytearray, (1000,), bytes, 1000)
    assert 1000 < size < 1200
    assert left < memory.LEFT


def test_memory_that_is_kept_alive_is_seen() -> None:
    kept: list[Any] = []
    _, left = memory._weigh(bytearray, (1000,), kept.append, 50)
    assert left > 1000


def test_memory_that_only_the_collector_frees_is_seen() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.weight = bytearray(1000)

    _, left = memory._weigh(Cycle, (), id, 50)
    assert left > 1000


def test_a_process_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(startup.FailedError, match="ZeroDivisionError"):
        startup.Processes(tmp_path).run("-c", "1/0")


def test_a_heavy_module_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_WAYS", {"import logging": "import logging\n"})
    row = startup._heavy(startup.Processes(tmp_path), tmp_path)
    assert row.verdict == "over"
    assert row.note == "import logging: logging"


def test_a_decorator_that_wraps_under_ctxcheck_0_is_over() -> None:
    row = startup._same("markers-disabled", "x", "y", {"atomic": False, "might_sleep": True})
    assert row.verdict == "over"
    assert row.note == "not the same: atomic"
    assert startup._same("markers-disabled", "x", "y", {"atomic": None}).verdict == "missing"


def test_the_table_lines_up() -> None:
    rows = [
        Row("a", "one", "short", Spread(1.0, 1.0, 1.0), "x", "", "1 ns"),
        Row("b", "one", "rather longer", Spread(12.5, 12.0, 13.0), "x", "short", "13 ns", 3.0),
        Row("c", "two", "bytes", Spread(320.0, 320.0, 320.0), "B", "", "", 400),
    ]
    text = table.render(rows).splitlines()
    assert [line for line in text if line and not line.startswith(" ")] == ["one", "two"]
    columns = {line.index("12.50x") + len("12.50x") for line in text if "12.50x" in line}
    columns |= {line.index("1.00x") + len("1.00x") for line in text if "1.00x" in line}
    assert len(columns) == 1
    assert "over" in next(line for line in text if "rather longer" in line)
    assert table.summary(rows) == "targets: 1 met, 1 over"


def test_the_build_is_described_in_one_line() -> None:
    build = {**machine.interpreter(), "pgo": True, "lto": True, "free_threaded": True, "gil": False, "debug": False}
    assert machine.describe(build).endswith("PGO, LTO, free-threaded, GIL off")
    assert "\n" not in machine.describe(build)
