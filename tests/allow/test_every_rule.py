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


@pytest.mark.parametrize("how", ["comment", "block", "configuration"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_accepted(name: str, how: str) -> None:
    rule, source = PROGRAMS[name]
    (found,) = [v for v in run(source).violations if v.rule == rule]
    assert found.allowed_by is None
    for accepted in (rule, "CTX302" if rule != "CTX302" else "CTX301"):
        if how == "configuration":
            session = run(source, Allowance(accepted, (), "it is a test", where="pyproject.toml"))
        else:
            session = run(EDITS[how](source, found.sites[0].line, accepted))
        if accepted == rule:
            assert of(session, rule) == [("it is a test", how)]
            assert session.failures == []
            assert session.unused_allows == []
            (violation,) = [v for v in session.violations if v.rule == rule]
            assert violation.allowed_at
        else:
            assert of(session, rule) == [(None, "")]
            assert [(u.kind, u.rules) for u in session.unused_allows] == [(how, (accepted,))]


def test_there_is_a_program_for_each_rule() -> None:
    assert {rule for rule, _ in PROGRAMS.values()} >= set(RULES) - set(NOT_DETECTED_YET) - {"CTX901"}
