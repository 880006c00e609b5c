"""A finding on one line, ``file:line: CODE message (other places)``, as editors and grep like it."""

from __future__ import annotations

from collections.abc import Iterable

from ctxcheck.engine.violations import Violation
from ctxcheck.reports.cells import count_of, safe
from ctxcheck.reports.snippets import place


def line(violation: Violation) -> str:
    """Return the finding on one line: where it happened, what, and the other places in report order."""
    head = "".join(f"{place(site.file, site.line)}: " for site in violation.sites[:1])
    others = _places(violation)
    tags: list[str] = ["unlikely"] if violation.grade == "unlikely" else []
    if violation.allowed_by is not None:
        tags.append("allowed")
    elif violation.baselined:
        tags.append("in the baseline")
    if violation.count > 1:
        tags.append(f"seen {count_of(violation.count, 'time')}")
    return (
        f"{head}{safe(violation.rule)} {safe(violation.message)}"
        + (f" ({others})" if others else "")
        + (f" [{', '.join(tags)}]" if tags else "")
    )


def render(violations: Iterable[Violation]) -> str:
    """Return the findings, a line each, without a newline at the end."""
    return "\n".join(map(line, violations))


def _places(violation: Violation) -> str:
    """Return the places besides the first, each once; a file is named only where it changes."""
    file = violation.sites[0].file if violation.sites else ""
    seen = {(site.file, site.line) for site in violation.sites[:1]}
    places: list[str] = []
    for site in violation.sites[1:]:
        if (site.file, site.line) in seen:
            continue
        seen.add((site.file, site.line))
        same_file = bool(places) and site.file == file
        places.append(str(site.line) if same_file else place(site.file, site.line))
        file = site.file
    return ", ".join(places)
