"""The last lines of a run: what was found, what was checked, and what was not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.reports.cells import count_of, safe

#: What these hold for their own bookkeeping is never held around code of the program; every run has them.
_OF_NO_INTEREST: Final = frozenset({"tempfile", "threading"})
#: Modules named in :func:`unchecked`; the rest are counted.
MAX_MODULES: Final = 6


def summary(
    violations: Sequence[Violation],
    counts: Counts,
    *,
    program_status: int | None = None,
    exit_status: int | None = None,
) -> str:
    """Return the last line of a run, without a newline.

    Args:
        violations: all findings, also the accepted and the unlikely ones, which are counted apart.
        counts: what was checked; a run that checked nothing is called that, never clean.
        program_status: how the checked program ended, ``None`` if none was run here.
        exit_status: how this process is about to end, ``None`` if that isn't known here.
    """
    allowed = sum(violation.allowed_by is not None for violation in violations)
    open_ = [violation for violation in violations if violation.allowed_by is None]
    known = sum(violation.baselined for violation in open_)
    open_ = [violation for violation in open_ if not violation.baselined]
    sure = [violation for violation in open_ if violation.grade != "unlikely"]
    unlikely = len(open_) - len(sure)
    if not violations and counts.nothing():
        parts = [
            "warning: nothing was checked: since checking started no lock was taken and no marked call was made"
        ]
    else:
        found = "no new violations" if known else "no violations"
        if sure:
            by_rule = Counter(violation.rule for violation in sure)
            listed = ", ".join(f"{number} {safe(rule)}" for rule, number in sorted(by_rule.items()))
            noun = "new violation" if known else "violation"
            found = f"{count_of(len(sure), noun)} ({listed})"
        found += f", {unlikely:,} unlikely" if unlikely else ""
        found += f", {allowed:,} allowed" if allowed else ""
        found += f", {known:,} in the baseline" if known else ""
        parts = [found] if sure else [found, f"{_checked(counts)} checked"]
    if counts.dropped:
        parts.append(f"incomplete: {count_of(counts.dropped, 'event')} beyond a limit, not fully checked")
    if counts.uncached:
        parts.append(f"{count_of(counts.uncached, 'chain')} beyond a limit, checked each time (slower)")
    status = _status(program_status, exit_status)
    if status and (sure or program_status or exit_status or counts.nothing()):
        parts.append(status)
    return f"ctxcheck: {'; '.join(parts)}"


def unchecked(counts: Counts) -> str:
    """Return a line on the locks that were seen but not checked, by module; empty if there are none.

    The few that every interpreter makes for itself aren't worth a line; the JSON report has them.
    """
    modules = sorted(
        (
            (number, module)
            for module, number in counts.unchecked.items()
            if number > 0 and module not in _OF_NO_INTEREST
        ),
        key=lambda entry: (-entry[0], entry[1]),
    )
    if not modules:
        return ""
    total = count_of(sum(number for number, _ in modules), "lock")
    listed = [f"{safe(module)} {number:,}" for number, module in modules[:MAX_MODULES]]
    if len(modules) > MAX_MODULES:
        listed.append(f"and {count_of(len(modules) - MAX_MODULES, 'module')} more")
    return f"not checked: {total} made before the start or by _thread ({', '.join(listed)})"


def _checked(counts: Counts) -> str:
    parts: list[str] = []
    locks = counts.lock_classes or counts.acquisitions
    if not locks and not counts.marked_calls and counts.threads:
        # those that are no contexts leave no trace, but that their thread came by
        return f"waits and marked calls of {count_of(counts.threads, 'thread')}"
    if locks or not counts.marked_calls:
        parts = [
            count_of(counts.lock_classes, "lock class", "lock classes"),
            count_of(counts.orders, "order"),
            count_of(counts.acquisitions, "acquisition"),
        ]
    if counts.marked_calls:
        parts.append(count_of(counts.marked_calls, "context"))
    return ", ".join(parts)


def _status(program: int | None, exit_: int | None) -> str:
    ends = [f"program exited {program}"] if program is not None else []
    if exit_ is not None:
        ends.append(f"exit {exit_}")
    return " -> ".join(ends)
