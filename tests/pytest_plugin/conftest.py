"""How suites are run here: by a pytest of their own, with no plugin but ours and those that are named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BANK = """
import threading

class Ledger:
    def __init__(self):
        self.lock = threading.Lock()

class Audit:
    def __init__(self):
        self.lock = threading.Lock()

class Cache:
    def __init__(self):
        self.lock = threading.Lock()

def first(a, b):
    with a.lock:
        with b.lock:
            pass

def second(b, a):
    with b.lock:
        with a.lock:
            pass
"""

#: One test that shows an inversion by itself.
BOTH = """
import bank

def test_both():
    a, b = bank.Ledger(), bank.Audit()
    bank.first(a, b)
    bank.second(b, a)

def test_one():
    bank.first(bank.Ledger(), bank.Audit())
"""

#: What a test leaves is finalized under a lock that another test takes.
LEFT = """
import gc, threading

LOCK = threading.Lock()

class Connection:
    def __init__(self):
        self.itself = self

    def __del__(self):
        with LOCK:
            pass

def test_leaves_a_circle():
    Connection()

def test_uses():
    with LOCK:
        [[] for _ in range(3)]
"""

#: Three tests that show an inversion between them.
APART = """
import bank

def test_here():
    bank.first(bank.Ledger(), bank.Audit())

def test_there():
    bank.second(bank.Audit(), bank.Ledger())

def test_elsewhere():
    bank.first(bank.Ledger(), bank.Cache())
"""


#: Puts the tests in the order that the environment asks for.
ORDERS = """
import os, random

def pytest_collection_modifyitems(items):
    order = os.environ.get("ORDER", "")
    if order == "reversed":
        items.reverse()
    elif order:
        random.Random(order).shuffle(items)
"""


#: Nobody else's plugins, where pytest loads all that are there.
QUIET = [
    word
    for name in ("anyio", "asyncio", "pytest_cov", "randomly", "rerunfailures", "timeout", "xdist")
    for word in ("-p", f"no:{name}")
]


class Outcome(NamedTuple):
    """How a run ended: its status, each test's outcome, the rules and fingerprints that were found, all of the output.
    """

    status: int
    tests: dict[str, str]
    found: list[str]
    text: str

    def verdict(self) -> tuple[int, dict[str, str], list[str]]:
        """What must not depend on luck."""
        return self.status, self.tests, self.found


class Suite:
    """A folder with tests."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester: pytest.Pytester = pytester
        self.path: Path = pytester.path

    def write(self, **files: str) -> None:
        """``test_a="..."`` writes ``test_a.py``."""
        self._pytester.makepyfile(**files)

    def run(self, *args: str, plugins: tuple[str, ...] = (), on: bool = True, **env: str) -> Outcome:
        """Run it in a process of its own."""
        monkeypatch = pytest.MonkeyPatch()
        with monkeypatch.context() as patch:
            for name in ("CI", "GITHUB_ACTIONS", "BUILD_NUMBER", "PYTEST_ADDOPTS", "NO_COLOR", "FORCE_COLOR"):
                patch.delenv(name, raising=False)
            patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            for name, value in env.items():
                patch.setenv(name, value)
            named = [word for plugin in ("ctxcheck.pytest_plugin", *plugins) for word in ("-p", plugin)]
            switch = ["--ctxcheck"] if on else []
            report = self.path / "found.json"
            report.unlink(missing_ok=True)
            out = ["--ctxcheck-output=text", f"--ctxcheck-output=json:{report}"] if on else []
            junit = [] if "no:junitxml" in args else [f"--junitxml={self.path / 'junit.xml'}"]
            done = self._pytester.runpytest_subprocess(*named, *switch, *out, *junit, "-rA", *args)
        text = done.stdout.str() + done.stderr.str()
        lines = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S+::\S+)", text, re.MULTILINE)
        tests = {name: outcome for outcome, name in lines}
        found: list[Any] = json.loads(report.read_text())["violations"] if report.exists() else []
        rules = sorted(v["fingerprint"] for v in found if v["grade"] != "unlikely" and v["allowed_by"] is None)
        return Outcome(int(done.ret), dict(sorted(tests.items())), rules, text)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Suite:
    """A folder with a module ``bank``, whose locks are taken in two orders."""
    made = Suite(pytester)
    made.write(bank=BANK)
    return made
