"""Suites made by chance come to the same, to the letter, in whatever order and however split."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.pytest_plugin.conftest import ORDERS, Outcome, Suite
from tests.pytest_plugin.randomsuites import Maker

#: What goes by who else was there: numbers that threads and tasks are given, the widths of what has them in it, and how
#: often a wait was seen to be one.
_NUMBERS = re.compile(r"\b(Thread|Task|asyncio|pool)[-_]\d+(_\d+)?|(?<=') \(\d\)|-{5,}|\s+|= note: seen \d+ times")
_CASES = re.compile(r'<testcase classname="(.*?)" name="(.*?)" time=".*?"(.*?)(?=<testcase|</testsuite>)', re.DOTALL)


def stable(text: str) -> str:
    return re.sub(" +", " ", _NUMBERS.sub(lambda match: match[1] or ("" if match[0].endswith(")") else " "), text))


def whole(suite: Suite, outcome: Outcome) -> dict[str, Any]:
    """All that a run comes to, with its texts, in one table."""
    document = json.loads(stable((suite.path / "found.json").read_text()))
    found: dict[str, Any] = {"status": outcome.status, "graph": document["graph"]}
    found["warnings"] = sorted(line for line in outcome.text.splitlines() if line.startswith("ctxcheck: warning"))
    for violation in document["violations"]:
        found[violation["fingerprint"]] = {**violation, "count": 1, "owners": sorted(set(violation["owners"]))}
    for module, name, rest in _CASES.findall((suite.path / "junit.xml").read_text()):
        found[f"{module}::{name}"] = stable(rest)
    return found


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
    return [f"{key}:\n{one.get(key)}\n{other.get(key)}" for key in keys]


@pytest.mark.parametrize("seed", [1, 13])
def test_a_suite_comes_to_the_same_however_it_is_run(suite: Suite, seed: int) -> None:
    made = Maker(seed).suite()
    suite.write(**{**made, "conftest": ORDERS + made["conftest"]})
    outcome = suite.run()
    assert outcome.status in (0, 1), outcome.text
    first = whole(suite, outcome)
    assert sum(key.startswith("CTX") for key in first) >= 5
    again = suite.run(ORDER="reversed")
    assert not differences(first, whole(suite, again))
    again = suite.run("-n2", "--dist=worksteal", plugins=("xdist",), ORDER=str(seed))
    assert not differences(first, whole(suite, again))
