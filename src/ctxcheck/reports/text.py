"""A finding for people: the full report, the short form, and the last lines of a run."""

from __future__ import annotations

from typing import Final

from ctxcheck.engine.violations import Site, Violation
from ctxcheck.reports.cells import Paint, count_of, safe, safe_lines, wrap
from ctxcheck.reports.snippets import gutter_width, render_sites
from ctxcheck.reports.tables import context_rows, scenario_rows, stack_rows, timeline_rows
from ctxcheck.reports.totals import summary, unchecked

#: What a grade means, for people who meet the word for the first time.
GRADE_MEANINGS: Final[dict[str, str]] = {
    "certain": "it happens whenever this line runs in this context, whatever the timing",
    "possible": "with another timing these steps can fail, even though this run got past them",
    "unlikely": "the pattern is there, but what was seen speaks against it",
}


def render(violation: Violation, *, color: bool = False, width: int = 100) -> str:
    """Return the full report on a finding, without a newline at the end.

    Args:
        violation: the finding; everything shown comes from it.
        color: whether to use ANSI colours.
        width: terminal cells to fill.  Prose wraps there; places and code that is meant to be copied don't.
    """
    paint = Paint(color)
    sections = [[_headline(violation, paint), *render_sites(violation.sites, width=width, paint=paint)]]
    if violation.scenario is not None:
        sections.append(scenario_rows(violation.scenario, width=width, paint=paint))
    if violation.timeline is not None:
        sections.append(timeline_rows(violation.timeline, paint=paint))
    sections.append(context_rows(violation, width=width, paint=paint))
    sections.append([row for stack in violation.stacks for row in stack_rows(stack, width=width)])
    notes = _Notes(gutter_width(violation.sites), width, paint)
    _add_notes(notes, violation)
    sections.append(notes.rows)
    return "\n\n".join("\n".join(rows) for rows in sections if rows)


def render_short(violation: Violation, *, color: bool = False, width: int = 100) -> str:
    """Return the short form, for findings of grade ``unlikely``: what, where, and why it is doubted."""
    paint = Paint(color)
    sites: tuple[Site, ...] = violation.sites[:1]
    notes = _Notes(gutter_width(sites), width, paint)
    if violation.grade == "unlikely":
        notes.add("unlikely", next(iter(violation.notes), GRADE_MEANINGS["unlikely"]))
    else:
        notes.add("grade", _grade(violation))
    notes.add_more(violation)
    places = render_sites(sites, width=width, paint=paint)
    if places:
        places.append(paint(Paint.GUTTER, " " * gutter_width(sites) + " |"))
    return "\n".join([_headline(violation, paint), *places, *notes.rows])


def _headline(violation: Violation, paint: Paint) -> str:
    soft = violation.grade == "unlikely" or violation.allowed_by is not None or violation.baselined
    word, style = ("warning", Paint.WARNING) if soft else ("error", Paint.ERROR)
    return paint(style, f"{word}[{safe(violation.rule)}]") + paint(Paint.BOLD, f": {safe(violation.message)}")


def _grade(violation: Violation) -> str:
    meaning = GRADE_MEANINGS.get(violation.grade)
    return f"{violation.grade} - {meaning}" if meaning else violation.grade


def _add_notes(notes: _Notes, violation: Violation) -> None:
    """Add the facts, then what to do, then how to accept it, then where to read on."""
    notes.add("grade", _grade(violation))
    for note in violation.notes:
        notes.add("note", note)
    if violation.count > 1:
        notes.add("note", f"seen {count_of(violation.count, 'time')}")
    for help_ in violation.helps:
        notes.add("help", help_)
    if violation.allowed_by is not None:
        where = f" ({violation.allowed_kind} at {violation.allowed_at})" if violation.allowed_at else ""
        notes.add("allowed", (violation.allowed_by or "(no reason given)") + where)
    elif violation.baselined:
        notes.add("known", "it is in the baseline")
    elif violation.allow:
        notes.add_verbatim("allow", violation.allow)
    notes.add_more(violation)


class _Notes:
    """The ``= word: text`` rows at the end of a report, with hanging indents."""

    __slots__ = ("_margin", "_paint", "_width", "rows")

    def __init__(self, margin: int, width: int, paint: Paint) -> None:
        self._margin = " " * margin
        self._width: int = width
        self._paint: Paint = paint
        self.rows: list[str] = []

    def add(self, word: str, text: str) -> None:
        """Add prose: wrapped, but a line break in it stays one."""
        indent = len(self._margin) + len(word) + 4
        self._put(word, [row for line in text.split("\n") for row in wrap(line, max(self._width - indent, 24))])

    def add_verbatim(self, word: str, lines: tuple[str, ...]) -> None:
        """Add lines that are there to be copied: never wrapped."""
        self._put(word, [row for line in lines for row in safe_lines(line)])

    def add_more(self, violation: Violation) -> None:
        """Add where to read on, and the name that the finding has in every run."""
        text = f"ctxcheck explain {safe(violation.rule)}"
        if violation.fingerprint:
            text += f"    fingerprint: {safe(violation.fingerprint)}"
        self._put("more", [text])

    def _put(self, word: str, rows: list[str]) -> None:
        style = Paint.HELP if word == "help" else Paint.BOLD
        head = f"{self._margin}{self._paint(Paint.GUTTER, '=')} {self._paint(style, word + ':')}"
        indent = " " * (len(self._margin) + len(word) + 4)
        self.rows.append(f"{head} {rows[0]}".rstrip())
        self.rows += [(indent + row).rstrip() for row in rows[1:]]


__all__ = ["GRADE_MEANINGS", "render", "render_short", "summary", "unchecked"]
