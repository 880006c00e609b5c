"""What the scale benchmark runs, at sizes that take a moment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import ctxcheck

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import precision, scale, total_order  # noqa: E402

from tests import oracle  # noqa: E402
from tests.programs import KINDS  # noqa: E402


def test_a_random_total_order_has_nothing_to_report() -> None:
    with ctxcheck.checking(deadlock_after=60) as session:
        total_order.run(threads=4, operations=3_000, locks=60)
        session.engine.graph.check_invariants()
    assert session.violations == []
    counts = session.counts()
    assert counts.orders > 300
    assert counts.dropped == 0


def test_the_same_program_with_one_lock_against_the_order_is_reported() -> None:
    with ctxcheck.checking(deadlock_after=60) as session:
        total_order.run(threads=2, operations=3_000, locks=40)
        low, high = total_order.make(4), total_order.make(8)
        with low, high:
            pass
        with high, low:
            pass
    assert any(v.rule == "CTX001" and v.grade == "possible" for v in session.violations)


@pytest.mark.parametrize("name", [name for name in scale.ROWS if name != "total-order"])
def test_each_row_finds_what_it_breaks_and_nothing_else(name: str) -> None:
    row = scale.ROWS[name]
    figures = scale.measure(name, 200)
    assert figures["rules"] == ([row.finds] if row.finds else [])
    assert figures["dropped"] == (name == "chains"), "200 sets of guards on one edge are folded once"


def test_the_table_says_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["--only", "held", "--size", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split()[:5] == ["locks", "held", "at", "once", "20"]
    assert "190" in lines[-1].split(), "its edges"


def test_a_row_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["--only", "edgse"]) == 2
    assert "no row is called 'edgse'; did you mean 'edges'?" in capsys.readouterr().err


def test_precision_is_measured_for_both_sorts_of_owners(capsys: pytest.CaptureFixture[str]) -> None:
    assert precision.main(["--programs", "9"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line[0] in ("observed", "assumed")]
    assert len(rows) == 2 * len(KINDS)


def test_a_deadlock_that_is_missed_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = oracle.Reported(frozenset(), frozenset(), frozenset())
    monkeypatch.setattr(oracle, "reported", lambda session: nothing)
    total = precision.score("exclusive", "observed", 60, seed=1)
    assert total.deadlock > total.caught == 0
    assert total.recall == 0
    monkeypatch.setattr(precision, "score", lambda *_, **__: total)
    assert precision.main(["--programs", "1"]) == 1
