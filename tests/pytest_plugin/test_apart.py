"""Tests that run apart, one process each or in shards: what all come to together is what one run comes to."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from tests.pytest_plugin.conftest import Suite

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
