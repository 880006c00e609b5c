"""A row that is measured by the clock, before it is measured; what they are is in ``locks`` and ``markers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ctxcheck
from benchmarks.measure import Case, Measured, Spread
from benchmarks.table import Row


@dataclass(frozen=True)
class Line:
    """One case, and what it is compared with.

    ``reference`` is the name of another line (its own, if it is there to be compared with), ``needs`` are the public
    names of ctxcheck that it uses.  With ``difference_of``, a case's name, the row is by how many per cent that one
    costs more than the reference; such a row needs a ``name`` of its own.
    """

    group: str
    what: str
    case: Case
    reference: str
    target: float | None = None
    needs: tuple[str, ...] = ()
    difference_of: str | None = None
    own_name: str = ""

    @property
    def name(self) -> str:
        """The row's name."""
        return self.own_name or self.case.name

    def missing(self) -> str:
        """Which of the names that it uses aren't there, in words; nothing if they all are."""
        gone = [name for name in self.needs if public(name) is None]
        return f"no {', '.join(gone)}" if gone else ""

    def row(self, measured: Measured, lines: dict[str, Line]) -> Row:
        """The row, from what was measured."""
        to = "" if self.reference == self.name else lines[self.reference].what
        missing = self.missing()
        if missing:
            return Row(self.name, self.group, self.what, None, "x", to, target=self.target, note=missing)
        if self.difference_of is not None:
            ratio = measured.ratio(self.difference_of, self.reference)
            value = Spread(*(100 * (part - 1) for part in (ratio.median, ratio.low, ratio.high)))
            return Row(self.name, self.group, self.what, value, "%", to, target=self.target)
        cost = f"{measured.nanoseconds(self.name).median:,.0f} ns"
        return Row(
            self.name, self.group, self.what, measured.ratio(self.name, self.reference), "x", to, cost, self.target
        )


def public(name: str) -> Any:
    """A public name of ctxcheck, or None where it isn't there."""
    try:
        return getattr(ctxcheck, name)
    except (ImportError, AttributeError):
        return None
