"""The page of a rule: what it says, why it matters, how to fix it, and when it is wrong.

The texts are data, in ``pages/*.toml``, one file a family of rules.  The same pages make the
documentation, so they are plain text with backticks around code and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final, cast

from ctxcheck.engine.rules import RULES, Rule, find_rule, rule_names
from ctxcheck.reports.cells import wrap

WIDTH: Final = 88

#: Rules whose names are fixed, but which this version doesn't detect yet.
NOT_DETECTED_YET: Final[frozenset[str]] = frozenset()

_FILES: Final = ("order.toml", "waiting.toml", "ranges.toml", "holding.toml")

_HEADINGS: Final = {
    "says": "What the rule says",
    "hurts": "Why it hurts",
    "example": "Example",
    "fix": "How to fix it",
    "wrong": "When the finding can be wrong",
    "accept": "How to accept it",
}

#: How a finding of a rule is accepted, by the word that stands under ``accept`` in its page.
_ACCEPT: Final = {
    "locks": """\
Name the locks and say why it can't happen; the reason is required. In pyproject.toml:

    [[tool.ctxcheck.allow]]
    rule = "{code}"
    locks = ["Ledger.lock", "AuditLog.lock"]
    reason = "reconcile() only runs before any other thread is started"

Or around the code, for a rule that holds nearly everywhere:

    with ctxcheck.allow("{code}", reason="..."):
        ...
""",
    "line": """\
At the line itself, with the reason:

    call()  # ctxcheck: allow[{code}] the reason

Or around a block of code:

    with ctxcheck.allow("{code}", reason="..."):
        ...
""",
}


def page(code_or_slug: str) -> str:
    """Return the page of a rule as plain text of at most 88 columns, without a newline at the end.

    Args:
        code_or_slug: for instance ``CTX001`` or ``lock-order-inversion``, in any case.

    Raises:
        ValueError: there is no such rule; the message names the nearest one.
    """
    rule = find_rule(code_or_slug.strip())
    if rule is None:
        raise ValueError(_unknown(code_or_slug))
    texts = _pages()[rule.code]
    rows = wrap(f"{rule.code} {rule.slug}: {rule.title}", WIDTH)
    if rule.code in NOT_DETECTED_YET:
        rows += ["", *wrap("Not detected yet: this version of ctxcheck knows the rule by name only.", WIDTH)]
    for key, heading in _HEADINGS.items():
        rows += ["", heading, "-" * len(heading), *_section(rule, key, texts[key])]
    return "\n".join(rows)


def index() -> str:
    """Return a list of all rules, a line each, without a newline at the end."""
    slug_width = max(len(rule.slug) for rule in RULES.values())
    return "\n".join(
        f"{rule.code}  {rule.slug:<{slug_width}}  {rule.title}"
        + (" (not detected yet)" if rule.code in NOT_DETECTED_YET else "")
        for rule in RULES.values()
    )


def sections(code: str) -> Iterator[tuple[str, str, list[str | list[str]]]]:
    """Yield each section of a rule's page: its heading, its key, and its blocks as they were written.

    A block is a paragraph, a piece of code (the example, and whatever is indented by four spaces), or a list of items.
    """
    texts = _pages()[code]
    for key, heading in _HEADINGS.items():
        text = texts[key]
        if isinstance(text, list):
            yield heading, key, [text]
        elif key == "example":
            yield heading, key, [text.strip("\n")]
        else:
            yield heading, key, [*_whole(code, key, text).strip("\n").split("\n\n")]


def _whole(code: str, key: str, text: str) -> str:
    return _ACCEPT.get(text, text).replace("{code}", code) if key == "accept" else text


def preload() -> None:
    """Read the pages now: what is asked for later may be asked in a process that can't open files any more."""
    _pages()


@cache
def _pages() -> dict[str, dict[str, str | list[str]]]:
    # Imported here: only `ctxcheck explain` needs them.
    import tomllib
    from importlib.resources import files

    folder = files("ctxcheck.reports") / "pages"
    pages: dict[str, dict[str, str | list[str]]] = {}
    for name in _FILES:
        pages.update(cast("dict[str, dict[str, str | list[str]]]", tomllib.loads((folder / name).read_text("utf-8"))))
    return pages


def _section(rule: Rule, key: str, text: str | list[str]) -> list[str]:
    if isinstance(text, list):
        return [row for item in text for row in _hang("- ", wrap(item, WIDTH - 2))]
    if key == "example":
        return [f"    {line}".rstrip() for line in text.strip("\n").split("\n")]
    return _reflow(_whole(rule.code, key, text))


def _reflow(text: str) -> list[str]:
    """Return paragraphs filled to the page's width; indented ones, which are code, as they are."""
    rows: list[str] = []
    for paragraph in text.strip("\n").split("\n\n"):
        if rows:
            rows.append("")
        rows += paragraph.split("\n") if paragraph.startswith(" ") else wrap(paragraph.replace("\n", " "), WIDTH)
    return rows


def _hang(mark: str, rows: list[str]) -> list[str]:
    return [f"{mark if index == 0 else ' ' * len(mark)}{row}" for index, row in enumerate(rows)]


def _unknown(name: str) -> str:
    # Imported here: a name is rarely mistyped, and difflib isn't small.
    from difflib import get_close_matches

    wanted = name.strip()[:60]
    near = get_close_matches(wanted.upper(), RULES, n=1, cutoff=0.7) or get_close_matches(
        wanted.lower(), rule_names(), n=1, cutoff=0.5
    )
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown rule {wanted!a}: expected a code such as 'CTX001' or a slug such as 'lock-order-inversion'{hint}"
