"""How a test is failed for what was found in it, and what its report says.

A finding is raised in the test's phase, so that it is a failure as any other.  Who runs a test may have an outcome of
his own for it (`unittest` has its failures and skips, which pytest takes over; a mark that expects a failure): then
the finding goes into that report, or fails what would be skipped; what is left is told when the run ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.sites import is_own
from ctxcheck.engine.violations import Violation
from ctxcheck.reports import text

#: What `pytest.fail()` raises.
if TYPE_CHECKING:
    from _pytest.outcomes import Failed as _Failed
else:
    _Failed = pytest.fail.Exception


class Broken(_Failed):
    """A test is failed for what was found in it: ``msg`` is the full report, ``headline`` one line."""

    def __init__(self, violations: list[Violation]) -> None:
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        self.headline: str = f"{headline(violations[0])}{more}"
        self.violations: list[Violation] = violations
        super().__init__("\n\n".join(text.render(v) for v in violations), pytrace=False)


def end_at_the_call(error: BaseException) -> None:
    """Let the traceback of what a checked call has raised end at the call, for the test's report and ``--pdb``: what
    is inside of it is ours, and says nothing."""
    if not isinstance(error, ViolationError):
        return
    last = entry = error.__traceback__
    while entry is not None:
        if not is_own(entry.tb_frame.f_code):
            last = entry
        entry = entry.tb_next
    if last is not None:
        last.tb_next = None


def headline(violation: Violation) -> str:
    """The one line that says what it is."""
    return text.render(violation).partition("\n")[0]


def settle(
    report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None], raised: Broken | None
) -> pytest.TestReport:
    """The report of a phase in which ``raised`` was raised, if anything was, whatever has become of that."""
    failure = call.excinfo.value if call.excinfo is not None else None
    if raised is not None and not isinstance(failure, Broken):
        if report.skipped and not hasattr(report, "wasxfail"):
            # what wasn't to be run was found wanting
            failure = raised
            report = _failed(report, item, raised)
        elif str(raised.msg) not in report.longreprtext:  # who collects failures may have it among his own
            report.sections.append((f"Captured ctxcheck {report.when}", str(raised.msg)))
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    if isinstance(failure, Broken) and crash is not None:
        # the summary has one line of a report that has many
        crash.message = f"Failed: {failure.headline}"
        if failure.violations[0].sites:
            site = failure.violations[0].sites[0]
            crash.path, crash.lineno = site.file, site.line
    return report


def _failed(report: pytest.TestReport, item: pytest.Item, raised: Broken) -> pytest.TestReport:
    """The same report, but that the phase has failed."""

    def again() -> None:
        raise raised

    phase: Any = report.when
    failed = pytest.CallInfo[None].from_call(again, phase)
    made = pytest.TestReport.from_item_and_call(item, failed)
    made.start, made.stop, made.duration = report.start, report.stop, report.duration
    return made
