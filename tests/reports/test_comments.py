"""``# ctxcheck: allow[...]``: which lines a comment covers, and what is no such comment."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.reports.comments import Comment, comments_in

A = "# ctxcheck: allow[CTX101] why"


def read(folder: Path, text: str) -> list[Comment]:
    path = folder / "program.py"
    path.write_text(textwrap.dedent(text))
    return list(comments_in(str(path)))


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (f"nap()  {A}\nnap()\n", [(1, 1, 1)]),
        # a statement of several lines, wherever it stands in it
        (f"nap(  {A}\n  1,\n)\nnap()\n", [(1, 1, 3)]),
        (f"nap(\n  1,  {A}\n)\n", [(2, 1, 3)]),
        (f"nap(\n  1,\n)  {A}\n", [(3, 1, 3)]),
        (f"nap(\n  {A}\n  1,\n)\n", [(2, 1, 4)]),
        (f"x = 1 + \\\n  nap()  {A}\n", [(2, 1, 2)]),
        # a head is a statement; what is in the block isn't covered
        (f"with a, \\\n     b:  {A}\n    nap()\n", [(2, 1, 2)]),
        (f"if x:  {A}\n    nap()\n", [(1, 1, 1)]),
        (f"@f  {A}\ndef g(): pass\n", [(1, 1, 1)]),
        # on a line of its own: the statement directly below
        (f"{A}\nnap(\n  1)\n", [(1, 2, 3)]),
        (f"def f():\n    {A}\n    # more\n    nap()\n", [(2, 4, 4)]),
        (f"{A}\n\nnap()\n", [(1, 1, 1)]),
        (f"nap()\n{A}\n", [(2, 2, 2)]),
        (f"# first\n\n{A}\nnap()\n", [(3, 4, 4)]),
        # no comment
        (f"x = '{A}'\n", []),
        (f"x = '''\n{A}\n'''\n", []),
        (f"'''\nnap()  {A}\n'''\nnap()  {A}\n", [(4, 4, 4)]),
        ("nap()  # ctxcheck is fine\n", []),
        ("nap()  # ctxcheck: see the docs\n", []),
        # what can't be read ends the reading
        (f"nap()  {A}\nx = (\n", [(1, 1, 1)]),
    ],
)
def test_what_a_comment_covers(tmp_path: Path, source: str, lines: list[tuple[int, int, int]]) -> None:
    assert [(c.line, c.first, c.last) for c in read(tmp_path, source)] == lines
    assert all(not c.wrong and c.reason == "why" and c.codes == {"CTX101"} for c in read(tmp_path, source))


@pytest.mark.parametrize(
    ("comment", "wrong"),
    [
        ("allow", "it names no rule; the form is # ctxcheck: allow[CTX103] reason"),
        ("allow CTX101 why", "it names no rule; the form is # ctxcheck: allow[CTX103] reason"),
        ("allow[] why", "it names no rule; the form is # ctxcheck: allow[CTX103] reason"),
        ("allow[CTX101]", "it gives no reason; the form is # ctxcheck: allow[CTX101] reason"),
        ("allow[CTX101]   # noqa", "it gives no reason; the form is # ctxcheck: allow[CTX101] reason"),
        ("allow[CTX1O1] why", "there is no rule 'CTX1O1'; did you mean 'CTX101'?"),
        ("allow[CTX101, sleep-in-atomik] why", "there is no rule 'sleep-in-atomik'; did you mean 'sleep-in-atomic'?"),
        ("alow[CTX101] why", "ctxcheck knows no comment 'alow'; did you mean 'allow'?"),
    ],
)
def test_what_is_refused(tmp_path: Path, comment: str, wrong: str) -> None:
    (found,) = read(tmp_path, f"nap()  # ctxcheck: {comment}\n")
    assert (found.wrong, found.codes) == (wrong, frozenset())


def test_several_rules_and_several_comments(tmp_path: Path) -> None:
    (found,) = read(tmp_path, "nap()  # ctxcheck: allow[CTX103, slow-under-lock] why\n")
    assert found.codes == {"CTX103", "CTX105"}
    both = read(tmp_path, "nap()  # ctxcheck: allow[CTX103] a # ctxcheck: allow[CTX105] b\n\n")
    assert [(c.codes, c.reason) for c in both] == [({"CTX103"}, "a"), ({"CTX105"}, "b")]


def test_a_file_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    assert len(read(tmp_path, f"nap()  {A}\n")) == 1
    assert read(tmp_path, "nap()\n") == []
    assert comments_in(str(tmp_path / "missing.py")) == ()
    assert comments_in("<string>") == ()


@settings(deadline=None)
@given(st.text("# ctxcheck:allow[CTX101],x\"'()\\\n :é", max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    import linecache

    linecache.cache["<any>"] = (len(text), None, text.splitlines(keepends=True), "<any>")
    lines = max(1, text.count("\n") + 1)
    for comment in comments_in("<any>"):
        assert 1 <= comment.first <= comment.last <= lines
