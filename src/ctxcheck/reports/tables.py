"""The tables of a report: how it deadlocks, a bracket's timeline, the context stack, the stacks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Final

from ctxcheck.engine.violations import Scenario, Stack, Step, Timeline, Violation
from ctxcheck.reports.cells import Paint, cells, count_of, crop, pad, safe, wrap
from ctxcheck.reports.snippets import place, place_in

#: Columns of the table "how it deadlocks"; the rest are summed up in one more.
MAX_COLUMNS: Final = 3

#: A stack's source text is aligned up to here; a longer place pushes only its own text out.
_MAX_PLACE: Final = 56

_INDENT: Final = " " * 4
_HERE: Final = " -> "
_GAP: Final = " " * 4


# -- how it deadlocks


def scenario_rows(scenario: Scenario, *, width: int, paint: Paint) -> list[str]:
    """Return the table with a column for each owner, in time order from top to bottom.

    Layouts are tried from the widest on: the wait beside its action, the wait on a row of its own,
    titles on two rows, and a numbered list for what is too wide for any table.
    """
    if not scenario.columns:
        return []
    shown = len(scenario.columns[:MAX_COLUMNS])
    titles = [safe(title) for title in scenario.columns[:shown]]
    if len(scenario.columns) > shown:
        titles.append(f"... and {len(scenario.columns) - shown} more")
    steps = _visible_steps(scenario, shown)
    outcome = f"*** {safe(scenario.outcome)} ***" if scenario.outcome else ""
    for split, beside in ((False, True), (False, False), (True, False)):
        heads = [_title_rows(title, split=split) for title in titles]
        entries = [(step.column, row) for step in steps for row in _step_rows(step, titles, beside=beside)]
        widths = [
            max(map(cells, [*head, *(row for column, row in entries if column == index)]))
            for index, head in enumerate(heads)
        ]
        total = sum(widths) + len(_GAP) * (len(widths) - 1)
        if total + len(_INDENT) <= width:
            break
    else:
        return _scenario_list(scenario, paint.strong(outcome))
    rows = ["how it deadlocks:", ""]
    rows += [(_INDENT + _GAP.join(map(pad, texts, widths))).rstrip() for texts in zip_longest(*heads, fillvalue="")]
    rows.append(_INDENT + _GAP.join("-" * columns for columns in widths))
    for column, text in entries:
        offset = sum(widths[:column]) + len(_GAP) * column
        rows.append(_INDENT + " " * offset + text)
    if outcome:
        rows.append(_INDENT + " " * max((total - cells(outcome)) // 2, 0) + paint.strong(outcome))
    return rows


def _scenario_list(scenario: Scenario, outcome: str) -> list[str]:
    rows = ["how it deadlocks, step by step:", ""]
    steps = [step for step in scenario.steps if 0 <= step.column < len(scenario.columns)]
    for number, step in enumerate(steps, 1):
        owner = _owner(safe(scenario.columns[step.column]))
        rows.append(f"{_INDENT}{number:>2}. {owner}: {'  '.join(_step_rows(step, scenario.columns, beside=True))}")
    return [*rows, f"{_INDENT}    {outcome}"] if outcome else rows


def _title_rows(title: str, *, split: bool) -> list[str]:
    owner = _owner(title)
    return [f"{owner}:", "  " + title[len(owner) + 2 :]] if split and owner != title else [title]


def _step_rows(step: Step, titles: Sequence[str], *, beside: bool) -> list[str]:
    action = safe(step.action)
    if not step.waits_for:
        return [action]
    own = safe(step.waits_for) == safe(titles[step.column])
    wait = f"waits for {'itself' if own else _owner(safe(step.waits_for))}"
    return [f"{action}  {wait}"] if beside else [action, f"  {wait}"]


def _owner(title: str) -> str:
    """Return ``thread A`` for a column's title ``thread A: reconcile()``."""
    return title.rpartition(": ")[0] or title


def _visible_steps(scenario: Scenario, shown: int) -> list[Step]:
    """Return the steps with those of the columns past ``shown`` summed up, run by run.

    What closes the circle stays in view: the step of a hidden owner that waits for a shown one.
    """
    steps: list[Step] = []
    for step in scenario.steps:
        if 0 <= step.column < shown:
            steps.append(step)
        elif shown <= step.column < len(scenario.columns):
            waits_for = step.waits_for if step.waits_for in scenario.columns[:shown] else ""
            if steps and steps[-1].column == shown:
                waits_for = steps.pop().waits_for or waits_for
            steps.append(Step(shown, "...", waits_for))
    return steps


# -- timeline and context stack


def timeline_rows(timeline: Timeline, *, paint: Paint) -> list[str]:
    """Return what happened to a bracket, a row an event."""
    events = timeline.events
    table = _table(
        [place(event.file, event.line) for event in events],
        [safe(event.function) for event in events],
        [safe(event.what) for event in events],
        [f"({count_of(event.times, 'time')})" if event.times > 1 else "" for event in events],
    )
    rows = [_marked(row, event.here, paint) for row, event in zip(table, events, strict=True)]
    return [f"timeline of {safe(timeline.title)}:", *rows]


def context_rows(violation: Violation, *, width: int, paint: Paint) -> list[str]:
    """Return the owner's context stack, outermost first, and the locks that it held."""
    rows: list[str] = []
    if violation.contexts:
        contexts = violation.contexts
        title = safe(violation.contexts_title) or "context stack (outermost first)"
        rows.append(title if title.endswith(":") else f"{title}:")
        verb_cells = max(cells(safe(context.verb)) for context in contexts)
        table = _table(
            [safe(context.kind) for context in contexts],
            [safe(context.label) for context in contexts],
            [
                f"{pad(safe(context.verb), verb_cells)} {place(context.file, context.line)}" if context.file else ""
                for context in contexts
            ],
            [f"allows: {safe(context.allows)}" if context.allows else "" for context in contexts],
        )
        rows += [_marked(row, context.here, paint) for row, context in zip(table, contexts, strict=True)]
    if violation.contexts or violation.held:
        held = ", ".join(violation.held) or "none"
        first, *rest = wrap(held, width - 12)
        rows += [f"locks held: {first}", *(f"            {row}" for row in rest)]
    return rows


def _table(*columns: Sequence[str]) -> list[str]:
    """Return the rows of a table; each column is as wide as its widest text."""
    widths = [max(map(cells, column), default=0) for column in columns]
    return ["   ".join(map(pad, texts, widths)).rstrip() for texts in zip(*columns, strict=True)]


def _marked(row: str, here: bool, paint: Paint) -> str:
    return paint(Paint.ERROR, _HERE + row) if here else _INDENT + row


# -- stacks


def stack_rows(stack: Stack, *, width: int) -> list[str]:
    """Return a stack, a row a call, the source text of all of them in one column."""
    owner = f", {safe(stack.owner)}" if stack.owner else ""
    rows = [f"{safe(stack.title) or 'stack'}{owner} (most recent call last):"]
    places = [place_in(frame.file, frame.line, frame.function) for frame in stack.frames]
    aligned = max((cells(where) for where in places if cells(where) <= _MAX_PLACE), default=0)
    for where, frame in zip(places, stack.frames, strict=True):
        text = safe(frame.text.strip())
        start = _INDENT + pad(where, aligned) + _GAP
        rows.append((start + crop(text, max(width - cells(start), 24))).rstrip())
    return rows
