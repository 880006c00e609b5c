"""Each rule that this version finds is broken by a program, and nearly broken by its near miss."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import ctxcheck
from ctxcheck.engine.rules import RULES
from ctxcheck.reports.explain import NOT_DETECTED_YET

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
PROGRAMS = sorted((EXAMPLES / "rules").glob("ctx*.py"))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    ctxcheck.install()
    yield
    ctxcheck.uninstall()


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_broken_is_found_and_the_near_miss_is_silent(path: Path) -> None:
    program = load(path)
    with ctxcheck.checking() as session:
        try:
            program.broken()
        except ctxcheck.DeadlockError:
            assert program.EXPECT == ["CTX002"]
    assert [v.rule for v in session.failures] == program.EXPECT
    with ctxcheck.checking() as session:
        program.near_miss()
    assert session.failures == []


def test_every_rule_that_is_found_has_a_program() -> None:
    shown = {path.stem[:6].upper() for path in PROGRAMS}
    shown |= {rule for rule in RULES if rule in (EXAMPLES / "mmu_notifier" / "README.md").read_text()}
    assert shown >= set(RULES) - set(NOT_DETECTED_YET) - {"CTX901"}
