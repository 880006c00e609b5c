"""A finding of any rule is accepted by a comment on its line, an ``allow`` around its code, and the configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctxcheck
from ctxcheck.engine.rules import RULES
from ctxcheck.reports.explain import NOT_DETECTED_YET
from ctxcheck.selection import Allowance
from ctxcheck.session import Session
from tests.allow.programs import EDITS, PROGRAMS, forget, load

_serials = itertools.count(1)


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    ctxcheck.install()
    yield
    ctxcheck.uninstall()
    forget()


def run(source: str, *allowances: Allowance) -> Session:
    program = load(Path.cwd() / f"allowed_{next(_serials)}.py", source)
    with Session(allow=allowances) as session:
        try:
            program.broken()
        except ctxcheck.DeadlockError:
            pass
    return session


def of(session: Session, rule: str) -> list[tuple[str | None, str]]:
    return [(v.allowed_by, v.allowed_kind) for v in session.violations if v.rule == rule]


def is_run_where_it_stands(source: str, line: int) -> bool:
    return "lambda" not in source.splitlines()[line - 1]


@pytest.mark.parametrize("how", ["comment", "block", "configuration"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_accepted(name: str, how: str) -> None:
    rule, source = PROGRAMS[name]
    found, *others = [v for v in run(source).violations if v.rule == rule]
    assert found.allowed_by is None
    if how == "block" and not is_run_where_it_stands(source, found.sites[0].line):
        pytest.skip("a block around that line is left before the code in it runs")
    for accepted in (rule, "CTX302" if rule != "CTX302" else "CTX301"):
        if how == "configuration":
            session = run(source, Allowance(accepted, (), "it is a test", where="pyproject.toml"))
        else:
            session = run(EDITS[how](source, found.sites[0].line, accepted))
        if accepted == rule:
            first, *left = of(session, rule)
            assert first == ("it is a test", how)
            # a comment is for this one, a block for all inside, an entry of the configuration for all of the rule's
            assert len(left) == len(others)
            assert how == "block" or set(left) <= {("it is a test", how) if how == "configuration" else (None, "")}
            assert len(session.failures) == left.count((None, ""))
            assert session.unused_allows == []
            assert next(v for v in session.violations if v.rule == rule).allowed_at
        else:
            assert of(session, rule) == [(None, "")] * (1 + len(others))
            assert [(u.kind, u.rules) for u in session.unused_allows] == [(how, (accepted,))]


def test_there_is_a_program_for_each_rule() -> None:
    assert {rule for rule, _ in PROGRAMS.values()} >= set(RULES) - set(NOT_DETECTED_YET) - {"CTX901"}
