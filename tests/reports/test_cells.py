from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxcheck.reports.cells import Paint, cells, count_of, crop, pad, safe, safe_lines, wrap

from .strategies import any_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("naïve 日本語 😀", "naïve 日本語 😀"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m", "\\x9b31m"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\u202eesrever\u2066", "\\u202eesrever\\u2066"),
        ("\u2028", "\\u2028"),
        ("\udc80", "\\udc80"),
        ("no\u00a0break", "no\u00a0break"),
        ("soft\u00adhyphen", "soft\\xadhyphen"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
    ],
)
def test_safe_escapes_what_a_terminal_could_act_on(text: str, shown: str) -> None:
    assert safe(text) == shown


@given(any_text)
def test_safe_text_stays_as_it_is(text: str) -> None:
    assert safe(safe(text)) == safe(text)
    assert "\n" not in safe(text)
    safe(text).encode("utf-8")


@pytest.mark.parametrize(
    ("text", "width"),
    [("abc", 3), ("日本", 4), ("e\u0301", 1), ("ｆ", 2), ("\u200d", 0), ("", 0), ("\u1112\u1161\u11ab", 2)],
)
def test_cells_are_those_of_a_terminal(text: str, width: int) -> None:
    assert cells(text) == width


def test_pad_and_crop_count_cells() -> None:
    assert pad("日本", 6) == "日本  "
    assert crop("日本語です", 8) == "日本..."
    assert crop("short", 8) == "short"


def test_wrap_breaks_at_spaces_and_keeps_code_in_one_piece() -> None:
    assert wrap("leave the `with audit.lock:` block", 20) == ["leave the", "`with audit.lock:`", "block"]


def test_wrap_leaves_a_word_that_is_too_long_whole() -> None:
    assert wrap("see /a/very/long/path/to/a/file.py:10 there", 12) == [
        "see",
        "/a/very/long/path/to/a/file.py:10",
        "there",
    ]


def test_wrap_of_nothing_is_one_empty_line() -> None:
    assert wrap("", 10) == [""]


def test_wrap_counts_cells() -> None:
    assert wrap("日本 日本", 8) == ["日本", "日本"]
    assert wrap("日本 日本", 9) == ["日本 日本"]


@given(any_text, st.integers(1, 40))
def test_wrap_loses_nothing_but_white_space(text: str, width: int) -> None:
    assert "".join("".join(wrap(text, width)).split()) == "".join(safe(text).split())


def test_safe_lines_keep_line_breaks_and_indentation() -> None:
    assert safe_lines("a\r\n\tb\x1b") == ["a", "    b\\x1b"]


def test_paint_is_silent_when_off() -> None:
    assert Paint(False)(Paint.ERROR, "x") == "x"
    assert Paint(True)(Paint.ERROR, "x") == "\x1b[1;31mx\x1b[0m"
    assert Paint(True)(Paint.ERROR, "") == ""


@pytest.mark.parametrize(
    ("number", "plural", "text"),
    [(0, "", "0 locks"), (1, "", "1 lock"), (9112, "", "9,112 locks"), (2, "lockses", "2 lockses")],
)
def test_count_of(number: int, plural: str, text: str) -> None:
    assert count_of(number, "lock", plural) == text
