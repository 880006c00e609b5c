"""``ctxcheck probes``: the table of the calls that may block, and the self-test."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable

from ctxcheck.keys import Config
from ctxcheck.probes.catalogue import ENTRIES, HOW, Entry, chosen


def show(config: Config, put: Callable[[str], object], *, everything: bool, test: bool) -> int:
    """Print the table by ``put``, or run the self-test; returns the exit status."""
    if test:
        return _test(config)
    active = {entry.name for entry in chosen(config.blocking, config.not_blocking)}
    rows: list[tuple[str, ...]] = []
    for entry in ENTRIES.values():
        state = why_not(entry, active) or "active"
        if everything or state == "active":
            unless = f"not {entry.unless}" if entry.unless else ""
            rows.append((entry.name, entry.category, state, HOW[entry.how], unless))
    widths = [max(len(row[column]) for row in rows) if rows else 0 for column in range(4)]
    lines: list[str] = []
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row[:4], widths, strict=True)]
        lines.append("  ".join((*cells, row[4])).rstrip())
    hidden = len(ENTRIES) - len(rows)
    lines.append(f"{len(rows)} calls{f'; {hidden} more with --all' if hidden else ''}")
    put("\n".join(lines))
    return 0


def why_not(entry: Entry, active: Iterable[str]) -> str:
    """Why a row isn't in place on this interpreter with this configuration; empty if it is."""
    try:
        importlib.import_module(entry.module)
    except ImportError:
        return f"no module {entry.module}"
    return entry.absent() or ("" if entry.name in active else "off by configuration")


def _test(config: Config) -> int:
    from ctxcheck import selftest
    from ctxcheck.probes import install

    install.install(blocking=config.blocking, not_blocking=config.not_blocking)
    fine = bad = skipped = 0
    try:
        for outcome in selftest.run(install.active()):
            if outcome.problem:
                bad += 1
                sys.stdout.write(f"{outcome.name}: {outcome.problem}\n")
            elif outcome.skipped:
                skipped += 1
            else:
                fine += 1
    finally:
        install.uninstall()
    version = ".".join(map(str, sys.version_info[:3]))
    sys.stdout.write(f"Python {version}: {fine} calls as they should be, {bad} not, {skipped} not active\n")
    return 1 if bad else 0


def markdown() -> str:
    """The table for the documentation."""
    lines = ["| call | waits for | how it is seen | doesn't block |", "|---|---|---|---|"]
    for entry in ENTRIES.values():
        lines.append(f"| `{entry.name}` | {entry.category} | {HOW[entry.how]} | {entry.unless} |")
    return "\n".join(lines) + "\n"
