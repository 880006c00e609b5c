"""What goes with the reports of tests, from where a test ran to the process that tells.

A report says which findings it was failed for: only the one that reports knows whether it counted as a failure in the
end, since a plugin may run the test again.  And tests may run in processes of their own, forked from this one
(pytest-forked, say): whoever sends their reports over sends what was found, too.  A test whose reports all come without
a note ran where nothing was checked, or died before it could say anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any, Final

import pytest

#: The attribute of a report; pytest and pytest-xdist pass it on as it is, if it is plain data.
_NOTE: Final = "ctxcheck_note"
#: Tests that are named in one line.
_NAMED: Final = 3


class Notes:
    """``pid`` is of the process that began the run, ``shown`` are the fingerprints that a failure has told."""

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.shown: set[str] = set()
        #: what processes of tests have sent last
        self._sent: dict[int, str] = {}
        self._noted: set[str] = set()
        self._unknown: dict[str, None] = {}

    def elsewhere(self) -> bool:
        """Whether this is a process of its own, for a test."""
        return os.getpid() != self.pid

    def attach(self, report: pytest.TestReport, told: Iterable[str], results: Callable[[], dict[str, Any]]) -> None:
        """Note on a report which findings it tells, and on a test's last one, in a process of its own, all that there
        is to say."""
        note: dict[str, Any] = {"told": sorted(told)}
        if report.when == "teardown" and self.elsewhere():
            note |= {"pid": os.getpid(), "results": json.dumps(results())}
        setattr(report, _NOTE, note)

    def take(self, report: pytest.TestReport) -> None:
        """Read the note of a report, and take it off: those who write reports down don't see it."""
        note: dict[str, Any] | None = report.__dict__.pop(_NOTE, None)
        if note is None:
            if not report.skipped:
                self._unknown[report.nodeid] = None
            return
        self._noted.add(report.nodeid)
        if report.failed:
            self.shown.update(note["told"])
        if "results" in note:
            self._sent[note["pid"]] = note["results"]

    def sent(self) -> list[str]:
        """What processes of tests have sent."""
        return list(self._sent.values())

    def silent(self) -> str | None:
        """One line on tests that ran where nothing was checked, if there were any."""
        tests = [nodeid for nodeid in self._unknown if nodeid not in self._noted]
        if not tests:
            return None
        named = ", ".join(sorted(tests)[:_NAMED])
        more = f" and {len(tests) - _NAMED:,} more" if len(tests) > _NAMED else ""
        return f"no lock data from {named}{more}: it ran where nothing is checked, or crashed"
