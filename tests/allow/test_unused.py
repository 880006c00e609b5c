"""What ``allow`` covers and what it doesn't, and which ones accepted nothing."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck.selection import Allowance
from ctxcheck.session import Session
from tests.allow.programs import forget, load


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    forget()


@ctxcheck.might_sleep
def nap() -> None: ...


HEAD = """
import ctxcheck

@ctxcheck.might_sleep
def nap(*args): pass

def other(*args): pass
"""


def run(body: str, **options: Any) -> Session:
    program = load(Path.cwd() / "allowed_program.py", HEAD + textwrap.dedent(body).lstrip())
    with Session(**options) as session, ctxcheck.atomic("tick"):
        program.main()
    return session


def kinds(session: Session) -> list[tuple[str | None, str, int]]:
    return [(v.allowed_by, v.allowed_kind, v.count) for v in session.violations]


def unused(session: Session) -> list[tuple[str, tuple[str, ...], str, int]]:
    return [(u.kind, u.rules, u.reason, u.line) for u in session.unused_allows]


def test_a_block_covers_its_owner_and_no_other() -> None:
    def other() -> None:
        with ctxcheck.atomic("other"):
            nap()

    with Session() as session, ctxcheck.allow("CTX101", reason="mine"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert kinds(session) == [(None, "", 1)]
    assert [u.kind for u in session.unused_allows] == ["block"]


def test_blocks_with_one_reason_are_told_apart() -> None:
    session = run("""
        def main():
            with ctxcheck.allow("CTX101", reason="the same"):
                nap()
            with ctxcheck.allow("CTX101", reason="the same"):
                other()
    """)
    assert kinds(session) == [("the same", "block", 1)]
    assert unused(session) == [("block", ("CTX101",), "the same", 11)]
    assert session.violations[0].allowed_at == "allowed_program.py:9"


def test_a_block_that_never_ran_is_not_known() -> None:
    session = run("""
        def main():
            nap()

        def never():
            with ctxcheck.allow("CTX101", reason="never"):
                nap()
    """)
    assert unused(session) == []


def test_an_allow_whose_finding_is_not_accepted_elsewhere_is_in_use() -> None:
    session = run("""
        def main():
            nap()
            with ctxcheck.allow("CTX101", reason="here"):
                nap()
            nap()  # ctxcheck: allow[CTX101] and here
            other()
    """)
    assert kinds(session) == [(None, "", 3)]
    assert unused(session) == []


def test_a_comment_at_one_line_of_a_function_is_none_at_the_next() -> None:
    session = run("""
        def main():
            for _ in range(3):
                nap()  # ctxcheck: allow[CTX101] here
            nap()
            nap()  # ctxcheck: allow[CTX101] and here
    """)
    assert kinds(session) == [(None, "", 5)]
    assert unused(session) == []


def test_a_comment_covers_its_statement() -> None:
    session = run("""
        def main():
            other(
                nap(),
                1,
            )  # ctxcheck: allow[CTX101] the whole of it
    """)
    assert kinds(session) == [("the whole of it", "comment", 1)]
    assert session.violations[0].allowed_at == "allowed_program.py:12"


def test_a_comment_where_a_context_began_accepts_nothing() -> None:
    program = load(
        Path.cwd() / "allowed_program.py",
        HEAD + textwrap.dedent("""
        def main():
            with ctxcheck.atomic("outer"):  # ctxcheck: allow[CTX101] too much
                nap()
        """).lstrip(),
    )
    with Session() as session:
        program.main()
    assert kinds(session) == [(None, "", 1)]
    assert unused(session) == [("comment", ("CTX101",), "too much", 9)]


def test_unused_of_all_sorts_and_only_of_selected_rules() -> None:
    body = """
        def main():
            with ctxcheck.allow("CTX101", reason="block"):
                other()  # ctxcheck: allow[sleep-in-atomic] comment
            with ctxcheck.allow("CTX301", reason="not selected"):
                other()  # ctxcheck: allow[CTX301] not selected
    """
    allow = [Allowance("CTX101", (), "entry", None, "pyproject.toml"), Allowance("CTX301", (), "not selected")]
    session = run(body, allow=allow, ignore=["CTX301"])
    assert unused(session) == [
        ("configuration", ("CTX101",), "entry", 0),
        ("block", ("CTX101",), "block", 9),
        ("comment", ("CTX101",), "comment", 10),
    ]
    assert str(session.unused_allows[0]) == "pyproject.toml: an allow of CTX101 accepted nothing: 'entry'"
    assert str(session.unused_allows[1]) == "allowed_program.py:9: an allow of CTX101 accepted nothing: 'block'"


def test_a_comment_that_is_refused_is_told_with_the_finding_and_in_a_list() -> None:
    session = run("""
        def main():
            nap()  # ctxcheck: allow[CTX1O1] why
    """)
    assert kinds(session) == [(None, "", 1)]
    wrong = "there is no rule 'CTX1O1'; did you mean 'CTX101'?"
    assert f"the comment at allowed_program.py:9 accepts nothing: {wrong}" in session.violations[0].notes
    assert session.refused_allows == [f"allowed_program.py:9: {wrong}"]


def test_an_order_that_is_seen_at_a_line_without_a_comment_is_not_accepted() -> None:
    body = """
        import threading
        a, b, g = ctxcheck.Lock(name="allow A"), ctxcheck.Lock(name="allow B"), ctxcheck.Lock(name="allow G")

        def forth():
            with a:
                with b: pass  # ctxcheck: allow[CTX001] at start-up

        def later():
            with a:
                with b: pass{comment}

        def back():
            with b:
                with a: pass

        def main():
            for target in (forth, later, back):
                thread = threading.Thread(target=target)
                thread.start()
                thread.join()
    """
    session = run(body.format(comment=""))
    assert kinds(session) == [(None, "", 1)]
    assert "doesn't accept it: the same is done at allowed_program.py:17" in session.violations[0].notes[-1]
    session = run(body.format(comment="  # ctxcheck: allow[CTX001] at its end"))
    assert [(v.allowed_kind) for v in session.violations] == ["comment"]
    assert unused(session) == []


def test_files_outside_the_project_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = run("""
        def main():
            other()  # ctxcheck: allow[CTX101] unused
    """)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    # the project is where the session began
    assert unused(session) == [("comment", ("CTX101",), "unused", 9)]
    assert Session().unused_allows == []
