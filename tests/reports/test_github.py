"""GitHub Actions: what the runner and GitHub's Markdown make of what is written."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import cmarkgfm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.engine.violations import Counts, Site, Violation
from ctxcheck.reports import github, text
from ctxcheck.reports.cells import safe

from . import findings
from .goldens import check
from .strategies import violations

COUNTS = Counts(lock_classes=2, orders=2, acquisitions=9)


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """Read a line as the runner does: the command, its properties, its message."""
    assert line.startswith("::")
    head, _, message = line[2:].partition("::")
    name, _, listed = head.partition(" ")
    properties = dict(item.split("=", 1) for item in listed.split(",") if "=" in item)
    unescape = [("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")]
    for key, value in properties.items():
        for code, char in unescape:
            value = value.replace(code, char)
        properties[key] = value
    for code, char in (*unescape[:2], unescape[4]):
        message = message.replace(code, char)
    return name, properties, message


def test_golden() -> None:
    found = [findings.INVERSION, findings.UNLIKELY, findings.HOSTILE, findings.SELF_DEADLOCK]
    check("github", github.commands(found))


def test_an_annotation_is_at_the_line_of_the_lock() -> None:
    name, properties, message = parsed(github.commands([findings.SELF_DEADLOCK]))
    assert name == "error"
    assert properties == {
        "file": "bank.py",
        "line": "41",
        "endLine": "41",
        "col": "14",
        "endColumn": "22",
        "title": "CTX002 self-deadlock",
    }
    assert message.startswith(findings.SELF_DEADLOCK.message + "\n")
    assert "bank.py:36: `Ledger.lock` was acquired here" in message
    assert message.endswith("more: ctxcheck explain CTX002")


def test_of_places_outside_of_the_checkout_the_first_inside_is_shown() -> None:
    outside = Site("now", "/usr/lib/python3/queue.py", 9, "put", label="waits here")
    inside = Site("held_now", "app.py", 3, "f", label="while holding it")
    _, properties, message = parsed(github.commands([findings.INVERSION.replace(sites=(outside, inside))], prefix="x"))
    assert (properties["file"], properties["line"]) == ("x/app.py", "3")
    assert "/usr/lib/python3/queue.py:9: waits here" in message


def test_paths_of_windows() -> None:
    site = Site("now", "src\\app.py", 3, "f")
    line = github.commands([findings.INVERSION.replace(sites=(site,))], prefix="sub", platform="win32")
    assert parsed(line)[1]["file"] == "sub/src/app.py"
    site = Site("now", "C:\\a,b.py", 3, "f")
    line = github.commands([findings.INVERSION.replace(sites=(site,))], platform="win32")
    assert "file=C%3A/a%2Cb.py," in line


@given(violations)
@settings(max_examples=50, deadline=None)
def test_whatever_is_in_a_finding_stays_in_its_place(violation: Violation) -> None:
    violation = violation.replace(allowed_by=None)
    line = github.commands([violation])
    assert line.isprintable() or set(line) & set("\u200c\u200d\xa0\u3000") or not line.isascii()
    assert len(line.splitlines()) == 1
    name, properties, message = parsed(line)
    assert name == ("warning" if violation.grade == "unlikely" else "error")
    assert set(properties) <= {"file", "line", "endLine", "col", "endColumn", "title"}
    assert properties.get("title", "") == safe(f"{violation.rule} {violation.slug}".strip())
    assert safe(violation.message) in message or len(message) >= 4000


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("a::b", "a::b"),
        ("100%\nx", "100%\\nx"),
        ("%0A", "%0A"),
        ("::error::x", "::error::x"),
        ("##[error]x", "##[error]x"),
    ],
)
def test_escapes(part: str, expected: str) -> None:
    _, _, message = parsed(github.commands([findings.INVERSION.replace(message=part)]))
    assert message.split("\n")[0] == expected


def test_the_surest_come_first_and_what_is_too_much_is_counted() -> None:
    def many(grade: str, number: int) -> list[Violation]:
        return [findings.INVERSION.replace(grade=grade, message=f"{grade} {i}") for i in range(number)]

    lines = github.commands([*many("unlikely", 12), *many("possible", 8), *many("certain", 4)]).split("\n")
    told = [parsed(line) for line in lines]
    assert [message.split("\n")[0] for _, _, message in told[:5]] == [*(f"certain {i}" for i in range(4)), "possible 0"]
    assert [name for name, _, _ in told] == ["error"] * 10 + ["warning"] * 10 + ["notice"]
    assert told[-1][2].startswith("4 more findings: ")


def test_accepted_findings_are_no_annotations() -> None:
    assert github.commands([findings.INVERSION.replace(allowed_by="why")]) == ""


# -- the summary


class Page(HTMLParser):
    """What GitHub's Markdown makes of a summary: its elements, the cells of its table and its code blocks."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.blocks: list[str] = []
        self._open: list[str] = []
        self.feed(cmarkgfm.github_flavored_markdown_to_html(markdown, options=cmarkgfm.Options.CMARK_OPT_UNSAFE))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        if tag == "td":
            self.cells.append("")
        if tag == "pre":
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "td" in self._open:
            self.cells[-1] += data
        if "pre" in self._open:
            self.blocks[-1] += data


def test_summary_golden() -> None:
    check("github_summary", github.summary([findings.INVERSION, findings.HOSTILE], COUNTS).rstrip("\n"))


def test_a_summary_has_a_table_and_the_full_reports() -> None:
    page = Page(github.summary([findings.INVERSION, findings.SLEEP_IN_ATOMIC], COUNTS))
    assert page.cells[:4] == [
        "CTX101 sleep-in-atomic",
        "certain",
        findings.SLEEP_IN_ATOMIC.message.replace("`", ""),
        "gateway.py:13",
    ]
    assert page.cells[4] == "CTX001 lock-order-inversion"
    assert page.blocks == [text.render(v) + "\n" for v in (findings.SLEEP_IN_ATOMIC, findings.INVERSION)]
    assert page.tags.count("details") == 2


def test_a_run_that_found_nothing() -> None:
    assert github.summary([], COUNTS).startswith("### ctxcheck\n\nno violations; 2 lock classes, 2 orders")


@given(st.lists(violations, min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_nothing_of_a_finding_becomes_markup(found: list[Violation]) -> None:
    shown = [violation for violation in found if violation.allowed_by is None]
    page = Page(github.summary(found, COUNTS))
    assert set(page.tags) <= {
        "h3",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "code",
        "details",
        "summary",
        "pre",
    }
    assert len(page.cells) == 4 * len(shown)
    assert page.tags.count("details") == len(shown)
    assert len(page.blocks) == len(shown)


@pytest.mark.parametrize(
    "name",
    [
        "a|b",
        "<script>x</script>",
        "</details>",
        "```",
        "[x](http://y)",
        "![x](y)",
        "@everyone",
        "# x",
        "\n\n# x",
        "&lt;",
        "_a_ *b*",
    ],
)
def test_names_that_look_like_markup(name: str) -> None:
    violation = findings.INVERSION.replace(message=f"{name} is bad", sites=(Site("now", name, 3, "f", label=name),))
    page = Page(github.summary([violation], COUNTS))
    assert page.cells[2] == safe(f"{name} is bad") or "`" in name
    assert page.cells[3] == safe(f"{name}:3")
    assert page.blocks == [text.render(violation) + "\n"]
    assert not set(page.tags) & {"script", "a", "img", "h1", "em", "strong"}


@pytest.mark.parametrize("room", [0, 50, 300, 700, 1500, 4000, 9000, 2**20])
def test_a_summary_keeps_to_its_room(room: int) -> None:
    found = [findings.INVERSION.replace(fingerprint=str(i)) for i in range(120)]
    summary = github.summary(found, COUNTS, room=room)
    assert len(summary.encode()) <= room
    rows = len(re.findall(r"^\| CTX", summary, re.M))
    if rows:
        assert f"{120 - rows} more findings not listed" in summary
        assert summary.count("<details>") + int("".join(re.findall(r"(\d+) full reports? left", summary)) or 0) == rows
    assert bool(summary) == (room >= 300)
