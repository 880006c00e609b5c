"""Findings for GitHub Actions: annotations at the lines of the code, and a summary of the step.

An annotation is a line of the log that the runner takes for a command, ``::error file=...,line=...::message``; what
stands in it is escaped as the runner's own toolkit does.  A runner shows ten errors and ten warnings a step and drops
the rest, so the surest come first, and what doesn't fit is counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.violations import Counts, Site, Violation
from ctxcheck.reports import text, totals
from ctxcheck.reports.cells import count_of, safe
from ctxcheck.reports.places import located
from ctxcheck.reports.snippets import place

#: Annotations of one level that the runner shows for a step.
MAX_ANNOTATIONS: Final = 10

#: Bytes of a step's summary, of which GitHub takes none if there are more.
MAX_SUMMARY: Final = 2**20

#: Findings in the table of a summary; it is there to be looked over.
_MAX_ROWS: Final = 100

#: Characters of an annotation's message.
_MAX_MESSAGE: Final = 4000

_DATA: Final = {ord(char): f"%{ord(char):02X}" for char in "%\r\n"}
_PROPERTY: Final = {**_DATA, ord(":"): "%3A", ord(","): "%2C"}

#: What Markdown could take for markup; as an entity it is nothing but itself.
_MARKUP: Final = {ord(char): f"&#{ord(char)};" for char in "\\`*_[]#|~@:<>&"}


def commands(violations: Sequence[Violation], *, prefix: str = "", platform: str = "") -> str:
    """Return a line for each finding that isn't accepted, up to :data:`MAX_ANNOTATIONS` errors and as many warnings.

    Args:
        violations: the findings.  Those of grade ``unlikely`` are warnings, the others errors.
        prefix: the folder that their paths are relative to, from the top of the checkout.
        platform: ``sys.platform`` of the run.
    """
    lines: list[str] = []
    left = {"error": MAX_ANNOTATIONS, "warning": MAX_ANNOTATIONS}
    hidden = 0
    for violation in _sorted(violations):
        level = "warning" if violation.grade == "unlikely" else "error"
        if left[level]:
            left[level] -= 1
            lines.append(_annotation(level, violation, prefix, platform))
        else:
            hidden += 1
    if hidden:
        why = f"GitHub shows {MAX_ANNOTATIONS} of a kind; see the log or the summary"
        more = f"{count_of(hidden, 'more finding')}: {why}"
        lines.append(_command("notice", {"title": "ctxcheck"}, more))
    return "\n".join(lines)


def _annotation(level: str, violation: Violation, prefix: str, platform: str) -> str:
    site = _shown_site(violation, prefix, platform)
    properties: dict[str, str] = {}
    if site is not None and site.file:
        properties["file"] = located(safe(site.file), prefix, windows=platform.startswith("win"))[0]
        if site.line > 0:
            properties |= {"line": str(site.line), "endLine": str(site.line)}
            if 0 <= site.column < site.end_column:
                properties |= {"col": str(site.column + 1), "endColumn": str(site.end_column)}
    properties["title"] = safe(f"{violation.rule} {violation.slug}".strip())
    others = [f"{place(s.file, s.line)}: {safe(s.label)}" for s in violation.sites if s is not site and s.label]
    label = [safe(site.label)] if site is not None and site.label else []
    rows = [safe(violation.message), *label, *others]
    rows += [f"{violation.grade}: {safe(note)}" for note in violation.notes[:1] if violation.grade == "unlikely"]
    rows += [f"help: {safe(help_)}" for help_ in violation.helps]
    rows.append(f"more: ctxcheck explain {safe(violation.rule)}")
    return _command(level, properties, "\n".join(rows)[:_MAX_MESSAGE])


def _shown_site(violation: Violation, prefix: str, platform: str) -> Site | None:
    """Where it happened; if that is outside of the checkout, the first place inside, since only those are shown."""
    windows = platform.startswith("win")
    inside = (site for site in violation.sites if site.file and located(site.file, prefix, windows=windows)[1])
    return next(inside, next(iter(violation.sites), None))


def _command(name: str, properties: Mapping[str, str], message: str) -> str:
    listed = ",".join(f"{key}={value.translate(_PROPERTY)}" for key, value in properties.items())
    return f"::{name} {listed}::{message.translate(_DATA)}"


def _sorted(violations: Sequence[Violation]) -> list[Violation]:
    shown = [violation for violation in violations if violation.allowed_by is None and not violation.baselined]
    return sorted(shown, key=lambda violation: -GRADES.index(violation.grade))


# -- the summary of a step


def summary(violations: Sequence[Violation], counts: Counts, *, room: int = MAX_SUMMARY) -> str:
    """Return what the run found as Markdown: a headline, a table, and the full reports, folded.

    Args:
        violations: all findings; the accepted ones are counted only.
        counts: what was checked.
        room: how many bytes of UTF-8 it may take.  Whole reports are left out, then rows, then all of it.
    """
    rows = _sorted(violations)
    head = f"### ctxcheck\n\n{_prose(totals.summary(violations, counts).removeprefix('ctxcheck: '))}\n"
    if not rows:
        return head if _size(head) <= room else ""
    table = "\n| rule | grade | what | where |\n|---|---|---|---|\n"
    left = room - _size(head) - _size(table) - 200  # for what says how much is missing
    if left < 0:
        return ""
    lines: list[str] = []
    for violation in rows[:_MAX_ROWS]:
        line = _row(violation)
        left -= _size(line)
        if left < 0:
            break
        lines.append(line)
    parts = [head, table, *lines]
    if len(lines) < len(rows):
        parts.append(f"\n{count_of(len(rows) - len(lines), 'more finding')} not listed here.\n")
    details: list[str] = []
    for violation in rows[: len(lines)]:
        block = _details(violation)
        if _size(block) > left:
            break
        left -= _size(block)
        details.append(block)
    if len(details) < len(lines):
        missing = count_of(len(lines) - len(details), "full report")
        details.append(f"\n{missing} left out: a summary has no more room.\n")
    return "".join([*parts, *details])


def _row(violation: Violation) -> str:
    where = "".join(f"<code>{_inert(place(site.file, site.line))}</code>" for site in violation.sites[:1])
    name = _inert(f"{violation.rule} {violation.slug}".strip())
    return f"| {name} | {violation.grade} | {_prose(violation.message)} | {where} |\n"


def _details(violation: Violation) -> str:
    report = text.render(violation)
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", report)), 3)
    title = _prose(f"{violation.rule} {violation.message}")
    return f"\n<details><summary>{title}</summary>\n\n{fence}text\n{report}\n{fence}\n\n</details>\n"


def _prose(message: str) -> str:
    """Return a sentence with its names, which stand in backticks, as code, and nothing else that is markup."""
    parts = [_inert(part) for part in message.split("`")]
    if len(parts) % 2 == 0:  # a backtick that isn't closed
        return _inert(message)
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def _inert(text_: str) -> str:
    return safe(text_).translate(_MARKUP)


def _size(text_: str) -> int:
    return len(text_.encode("utf-8", "backslashreplace"))


__all__ = ["MAX_ANNOTATIONS", "MAX_SUMMARY", "commands", "summary"]
