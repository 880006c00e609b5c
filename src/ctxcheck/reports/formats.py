"""Every format by its name: one :class:`Report` goes in, text comes out.

``ctxcheck run`` and whatever else reports (a stored run, several that were combined, pytest) come through
:func:`render`, so that all of them offer the same formats and show the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ctxcheck.engine.allows import UnusedAllow
from ctxcheck.engine.violations import Counts, Violation


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to show of one run, or of several that were put together.

    Attributes:
        violations: all findings, also the accepted and the unlikely ones.
        counts: what was checked.
        run: facts on the run for machines: ``argv``, ``python``, ``platform``, and, where they are known,
            ``program_status`` and ``exit_status``.
        graph: the lock order graph, as ``classes`` and ``edges``.
        most: how many findings the text shows; ``None`` for all.  Formats for machines always hold all.
        told: grades by fingerprint of what was printed already; text and concise leave those out.
        unused_allows: the allows that accepted nothing.
        prefix: the folder that shown paths are relative to, as seen from the top of the checkout, with ``/``;
            empty if that is the top.  See :func:`ctxcheck.outputs.prefix`.
    """

    violations: Sequence[Violation]
    counts: Counts = field(default_factory=Counts)
    run: Mapping[str, Any] = field(default_factory=dict[str, Any])
    graph: Mapping[str, Any] = field(default_factory=dict[str, Any])
    most: int | None = None
    told: Mapping[str, str] = field(default_factory=dict[str, str])
    unused_allows: Sequence[UnusedAllow] = ()
    prefix: str = ""

    def untold(self) -> list[Violation]:
        """The findings that weren't printed yet, with the grade that they have now."""
        return [v for v in self.violations if self.told.get(v.fingerprint) != v.grade]


def render(kind: str, report: Report, *, color: bool = False, width: int = 100) -> str:
    """Return a report in one of the :data:`KINDS`, without a newline at the end; empty if there is nothing to say.

    Args:
        kind: the name of the format.
        report: what to show.
        color, width: for ``text``: ANSI colours, and terminal cells to fill.

    Raises:
        ValueError: there is no such format.
    """
    write = KINDS.get(kind)
    if write is None:
        raise ValueError(f"unknown format {kind!r}; allowed: {', '.join(KINDS)}")
    return write(report, color, width)


# each is imported when it is asked for: a run pays for what it prints


def _text(report: Report, color: bool, width: int) -> str:
    from ctxcheck.reports import text

    shown = [v for v in report.violations[: report.most] if v.allowed_by is None and not v.baselined]
    return "\n\n".join(
        (text.render_short if v.grade == "unlikely" else text.render)(v, color=color, width=width)
        for v in shown
        if report.told.get(v.fingerprint) != v.grade
    )


def _concise(report: Report, _color: bool, _width: int) -> str:
    from ctxcheck.reports import concise

    return concise.render(report.untold())


def _json(report: Report, _color: bool, _width: int) -> str:
    from ctxcheck.reports import json

    document = json.document(
        report.violations, report.counts, run=report.run, graph=report.graph, unused_allows=report.unused_allows
    )
    return json.dumps(document)


def _jsonl(report: Report, _color: bool, _width: int) -> str:
    from ctxcheck.reports import json

    lines = json.lines(
        report.violations, report.counts, run=report.run, graph=report.graph, unused_allows=report.unused_allows
    )
    return "\n".join(lines)


def _sarif(report: Report, _color: bool, _width: int) -> str:
    from ctxcheck.reports import json, sarif

    return json.dumps(
        sarif.document(report.violations, report.counts, run=report.run, prefix=report.prefix)
    )


def _github(report: Report, _color: bool, _width: int) -> str:
    from ctxcheck.reports import github

    return github.commands(report.violations, prefix=report.prefix, platform=str(report.run.get("platform", "")))


def _none(_report: Report, _color: bool, _width: int) -> str:
    return ""


#: Every format, in the order of the documentation.
KINDS: Final[dict[str, Callable[[Report, bool, int], str]]] = {
    "text": _text,
    "concise": _concise,
    "json": _json,
    "jsonl": _jsonl,
    "sarif": _sarif,
    "github": _github,
    "none": _none,
}
