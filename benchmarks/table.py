"""The rows of the table, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks.measure import Spread

Verdict = Literal["", "ok", "over", "missing"]

#: How a figure is written, by its unit.
_FORMATS: Final = {"x": "{:.2f}x", "%": "{:+.1f} %", "B": "{:.0f} B", "ms": "{:.1f} ms", "": "{:.0f}"}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    ``to`` is what it was compared with.  ``unit``: "x" (a ratio), "%" (a difference), "B" (bytes), "ms", or "" (a
    number).  ``cost`` is the operation's own cost as text, ``target`` the most that ``value`` may be, if any.
    A row without a value is one that could not be measured, and ``note`` says why.
    """

    name: str
    group: str
    what: str
    value: Spread | None
    unit: Literal["x", "%", "B", "ms", ""] = "x"
    to: str = ""
    cost: str = ""
    target: float | None = None
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the target is met; nothing where there is none."""
        if self.value is None:
            return "missing"
        if self.target is None:
            return ""
        return "ok" if self.value.median <= self.target else "over"

    def figure(self, number: float) -> str:
        """``number`` in the row's unit."""
        return _FORMATS[self.unit].format(number)

    def as_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return {
            "name": self.name,
            "group": self.group,
            "what": self.what,
            "to": self.to,
            "unit": self.unit,
            "median": None if self.value is None else round(self.value.median, 4),
            "low": None if self.value is None else round(self.value.low, 4),
            "high": None if self.value is None else round(self.value.high, 4),
            "cost": self.cost,
            "target": self.target,
            "verdict": self.verdict,
            "note": self.note,
        }


_HEADER: Final = ("", "to", "cost", "median", "quartiles", "target", "")


def render(rows: Iterable[Row]) -> str:
    """The table, with a heading for each group."""
    lines: list[tuple[str, ...] | str] = []
    group = None
    for row in rows:
        if row.group != group:
            group = row.group
            lines += ["", group]
        lines.append(_cells(row))
    cells = [_HEADER, *(line for line in lines if not isinstance(line, str))]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADER))]

    def laid_out(line: tuple[str, ...]) -> str:
        parts = [line[0].ljust(widths[0]), line[1].ljust(widths[1])]
        parts += [line[i].rjust(widths[i]) for i in range(2, 6)]
        return f"  {'  '.join([*parts, line[6]])}".rstrip()

    return "\n".join([laid_out(_HEADER), *(line if isinstance(line, str) else laid_out(line) for line in lines)])


def _cells(row: Row) -> tuple[str, ...]:
    target = "" if row.target is None else row.figure(row.target)
    said = "  ".join(filter(None, (row.verdict, row.note)))
    if row.value is None:
        return (row.what, row.to, row.cost, "", "", target, said)
    low, high = row.figure(row.value.low), row.figure(row.value.high)
    spread = "" if row.value.low == row.value.high else f"{low} .. {high}"
    return (row.what, row.to, row.cost, row.figure(row.value.median), spread, target, said)


def summary(rows: Iterable[Row]) -> str:
    """One line on the targets."""
    verdicts = [row.verdict for row in rows]
    parts = [f"{verdicts.count('ok')} met", f"{verdicts.count('over')} over"]
    if "missing" in verdicts:
        parts.append(f"{verdicts.count('missing')} missing")
    return f"targets: {', '.join(parts)}"
