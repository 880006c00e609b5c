"""Tests that run apart, one process each or in shards: what all come to together is what one run comes to."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tests.pytest_plugin.conftest import ORDERS, Suite

#: The first is told of by a test alone, from other places than those that all show together.
TOGETHER = """
import aaa, bank

def test_both():
    a, b = bank.Ledger(), bank.Audit()
    bank.first(a, b)
    bank.second(b, a)

def test_one_way():
    aaa.nested(bank.Ledger(), bank.Audit())

def test_other_way():
    aaa.nested(bank.Audit(), bank.Ledger())

def test_cache():
    bank.first(bank.Ledger(), bank.Cache())
"""
NESTED = """
def nested(a, b):
    with a.lock:
        with b.lock:
            pass
"""
#: All of one is a cycle of three; with the other, they are three of two.
AROUND = """
import bank

def test_a(): bank.{way}(bank.{0}(), bank.{1}())
def test_b(): bank.{way}(bank.{1}(), bank.{2}())
def test_c(): bank.{way}(bank.{2}(), bank.{0}())
"""
EXPECTED = """
import bank

def test_cache(ctxcheck):
    with ctxcheck.expect("CTX001"):
        a, b = bank.Ledger(), bank.Cache()
        bank.first(a, b)
        bank.second(b, a)

def test_expects(ctxcheck):
    with ctxcheck.expect("CTX001"):
        a, b = bank.Ledger(), bank.Audit()
        bank.first(a, b)
        bank.second(b, a)

def test_does_not():
    a, b = bank.Ledger(), bank.Audit()
    bank.first(a, b)
    bank.second(b, a)
"""


def reported(suite: Suite, pytester: pytest.Pytester) -> dict[str, str]:
    """What the data comes to: from its files, and from one that they are combined into."""
    found: list[dict[str, str]] = []
    for words in (["report"], ["combine", "--to", "all.jsonl"], ["report", "all.jsonl"]):
        pytester.run(sys.executable, "-m", "ctxcheck", *words, "--output", "json:reported.json")
        report = json.loads((suite.path / "reported.json").read_text())
        found.append({v["fingerprint"]: v["grade"] for v in report["violations"]})
    shutil.rmtree(suite.path / ".ctxcheck")
    assert found[0] == found[1] == found[2]
    return found[0]


def shown(suite: Suite) -> dict[str, str]:
    report = json.loads((suite.path / "found.json").read_text())
    return {v["fingerprint"]: v["grade"] for v in report["violations"]}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        ({"aaa": NESTED, "test_it": TOGETHER}, ("both", "one_way", "other_way", "cache")),
        (
            {
                "test_it": AROUND.format("Ledger", "Audit", "Cache", way="first"),
                "test_too": AROUND.format("Cache", "Audit", "Ledger", way="second"),
            },
            ("test_it", "test_too"),
        ),
        ({"test_it": EXPECTED}, ("cache", "expects", "does_not")),
    ],
)
def test_what_runs_apart_comes_to_the_same(
    suite: Suite, pytester: pytest.Pytester, files: dict[str, str], splits: tuple[str, ...]
) -> None:
    suite.write(**files)
    suite.run()
    whole = shown(suite)
    assert whole
    assert reported(suite, pytester) == whole
    for split in splits:
        suite.run("-k", split)
    assert reported(suite, pytester) == whole
    suite.run("-n2", plugins=("xdist",))
    assert reported(suite, pytester) == whole


def test_what_is_expected_is_no_finding_of_the_data(suite: Suite, pytester: pytest.Pytester) -> None:
    suite.write(test_it=EXPECTED)
    assert suite.run("-k", "cache or expects").status == 0
    assert reported(suite, pytester) == {}


#: Each way to accept in one test what it shows by itself: of the locks "whole" the others show it, too, without this
#: test; of "half" they need what it does.
ACCEPTED = """
import bank, ctxcheck as ctx, pytest
from types import SimpleNamespace

A, B = ({(size, how): SimpleNamespace(lock=ctx.Lock(name=f"{size} {how} {end}"))
         for size in ("whole", "half") for how in ("marker", "fixture", "expect", "block")} for end in "AB")

def both(how):
    for at in ("whole", how), ("half", how):
        bank.first(A[at], B[at])
        bank.second(B[at], A[at])

@pytest.mark.ctxcheck(allow=["CTX001"], reason="at start-up")
def test_marker():
    both("marker")

def test_fixture(ctxcheck):
    ctxcheck.allow("CTX001", reason="at start-up")
    both("fixture")

def test_expect(ctxcheck):
    with ctxcheck.expect("CTX001"):
        both("expect")

def test_block():
    with ctx.allow("CTX001", reason="at start-up"):
        both("block")

def test_another_block():
    with ctx.allow("CTX001", reason="the same, elsewhere"):
        bank.second(B["half", "block"], A["half", "block"])

def test_other_way():
    for at in A:
        bank.first(A[at], B[at])

def test_one_way():
    for at in A:
        if at[0] == "whole":
            bank.second(B[at], A[at])
"""


def test_what_one_test_accepts_is_accepted_in_no_other(suite: Suite, pytester: pytest.Pytester) -> None:
    """However the tests are ordered and split, and whoever puts the data together."""
    hows = ("block", "expect", "fixture", "marker")
    failing = [f"whole {how} A" for how in hows]
    accepted = [f"half {how} A" for how in ("block", "fixture", "marker")]

    def told(name: str) -> None:
        violations = json.loads((suite.path / name).read_text())["violations"]
        assert sorted(v["locks"][0] for v in violations if v["allowed_by"] is None) == failing
        assert sorted(v["locks"][0] for v in violations if v["allowed_by"] == "at start-up") == accepted
        assert len(violations) == len(failing) + len(accepted)

    suite.write(test_it=ACCEPTED, conftest=ORDERS)
    outcomes = [suite.run(), suite.run("-n2", plugins=("xdist",), ORDER="reversed")]
    for outcome in outcomes:
        assert outcome.status == 1
        assert set(outcome.tests.values()) == {"PASSED"}
        assert "accepted nothing" not in outcome.text
    told("found.json")
    shutil.rmtree(suite.path / ".ctxcheck")
    for split in ("marker or one_way", "fixture or other_way", "expect", "block"):
        assert suite.run("-k", split).status == 0
    for words in (["report"], ["combine"], ["report", ".ctxcheck/combined.jsonl"]):
        done = pytester.run(sys.executable, "-m", "ctxcheck", *words, "--output", "json:reported.json")
        assert done.ret == 1
        told("reported.json")
