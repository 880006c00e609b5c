from __future__ import annotations

import ast
import tomllib
from importlib.resources import files

import pytest

from ctxcheck.engine.rules import RULES
from ctxcheck.reports import explain

#: The public names that an example may use.
PUBLIC = {
    *("might_sleep", "atomic", "nonblocking", "range_start", "range_end", "range_", "within_range"),
    *("context", "context_start", "context_end", "requires", "forbids", "thread_role", "ambient", "adapters"),
    *("requires_lock", "assert_held", "assert_not_held", "might_lock", "allow", "interrupt", "masked"),
    *("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier", "SpinLock", "track"),
    *("install", "uninstall", "checking", "nested", "region", "might_enter", "declare_order", "declare_leaf"),
}

HEADINGS = (
    "What the rule says",
    "Why it hurts",
    "Example",
    "How to fix it",
    "When the finding can be wrong",
    "How to accept it",
)


@pytest.mark.parametrize("code", RULES)
def test_every_rule_has_a_whole_page(code: str) -> None:
    rows = explain.page(code).split("\n")
    assert rows[0].startswith(f"{code} {RULES[code].slug}: ")
    places = [rows.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    for place in places:
        assert rows[place + 2].strip()
    assert max(map(len, rows)) <= 88
    assert all(row == row.rstrip() for row in rows)
    assert "{code}" not in "\n".join(rows)


@pytest.mark.parametrize("code", RULES)
def test_a_rule_that_is_not_detected_yet_says_so(code: str) -> None:
    assert ("Not detected yet" in explain.page(code)) == (code in explain.NOT_DETECTED_YET)


def test_the_list_of_rules_not_detected_yet_names_rules() -> None:
    assert set(RULES) >= explain.NOT_DETECTED_YET


@pytest.mark.parametrize("code", [code for code in RULES if code != "CTX901"])
def test_examples_are_python_and_use_public_names(code: str) -> None:
    rows = explain.page(code).split("\n")
    start = rows.index("Example") + 2
    example = "\n".join(row[4:] for row in rows[start : rows.index("How to fix it") - 1])
    tree = ast.parse(example)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ctxcheck"
    }
    assert used <= PUBLIC
    assert used or code in explain.NOT_DETECTED_YET


def test_pages_are_the_rules_and_nothing_else() -> None:
    pages: dict[str, dict[str, object]] = {}
    for file in (files("ctxcheck.reports") / "pages").iterdir():
        if file.name.endswith(".toml"):
            page = tomllib.loads(file.read_text("utf-8"))
            assert not set(page) & set(pages)
            pages |= page
    assert set(pages) == set(RULES)
    for page in pages.values():
        assert set(page) == {"says", "hurts", "example", "fix", "wrong", "accept"}


@pytest.mark.parametrize("name", ["CTX001", "ctx001", " CTX001\n", "lock-order-inversion", "Lock-Order-Inversion"])
def test_code_and_slug_in_any_case(name: str) -> None:
    assert explain.page(name) == explain.page("CTX001")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("CTX11", "CTX101"), ("lock-order", "lock-order-inversion"), ("sleepinatomic", "sleep-in-atomic")],
)
def test_an_unknown_name_gets_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"^unknown rule '{name}': .*; did you mean '{nearest}'\?$"):
        explain.page(name)


@pytest.mark.parametrize("name", ["", "zzz", "\x1b[0m\n", "x" * 10_000])
def test_a_name_that_is_like_none(name: str) -> None:
    with pytest.raises(ValueError, match="^unknown rule '") as error:
        explain.page(name)
    message = str(error.value)
    assert "did you mean" not in message
    assert message.isprintable()
    assert len(message) < 200


def test_index_lists_every_rule_on_a_line() -> None:
    rows = explain.index().split("\n")
    assert [row.split()[0] for row in rows] == list(RULES)
    assert [row.split()[0] for row in rows if row.endswith("(not detected yet)")] == sorted(explain.NOT_DETECTED_YET)
