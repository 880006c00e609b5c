"""Who waits for whom, in words: what :func:`ctxcheck.dump` prints.

May run in a signal handler: it reads the lines of source files, and takes no lock.
"""

from __future__ import annotations

import linecache
import os
import sysconfig
import tokenize  # used by linecache, and imported now: not in a signal handler
from types import CodeType
from typing import Final

from ctxcheck.engine.sites import Place, Trace, is_own, resolve
from ctxcheck.engine.waitgraph import Link, Snapshot, Standing
from ctxcheck.reports.cells import count_of, safe

_STDLIB: Final = (sysconfig.get_path("stdlib"), os.path.dirname(os.path.abspath(linecache.__file__)), "<frozen ")
del tokenize


def render(snapshot: Snapshot) -> str:
    """Return the text, without a newline at the end."""
    waiting = sum(bool(standing.wants) for standing in snapshot.standings)
    seen = count_of(len(snapshot.standings), "owner")
    rows = [f"ctxcheck: who waits for whom in process {os.getpid()}: {waiting:,} of {seen} waiting"]
    rows += [_cycle(cycle) for cycle in snapshot.cycles]
    for standing in snapshot.standings:
        rows += ["", *_standing(standing)]
    if snapshot.others:
        rows += ["", f"{count_of(snapshot.others, 'thread')} more never took a checked lock"]
    return "\n".join(rows)


def _cycle(cycle: tuple[Link, ...]) -> str:
    gives_up = any(link.timed for link in cycle)
    word = "stall (somebody in it gives up by itself)" if gives_up else "deadlock"
    steps = [f"{safe(str(link.owner))} holds `{safe(link.holds.name)}` and waits for `{safe(link.wants.name)}`"
             for link in cycle]  # fmt: skip
    return f"{word}: {'; '.join(steps)}"


def _standing(standing: Standing) -> list[str]:
    owner = standing.owner
    rows = [safe(str(owner)) if owner.thread is owner else f"{safe(str(owner))} of {safe(str(owner.thread))}"]
    if standing.wants:
        left = "" if standing.left is None else f", for {standing.left:.1f} s more at most"
        rows.append(f"  waits for `{safe(standing.wants)}` since {standing.seconds:.1f} s{left}")
        rows += _place(standing.here, "    at ")
        for holder in standing.by:
            gone = ", which has ended: nobody will release it" if holder.gone else ""
            if holder.owner is standing.owner:
                gone = ", itself"
            rows.append(f"    held by {safe(str(holder.owner))}{gone}")
        if standing.unknown == "resource":
            rows.append("    nobody owns it: whoever releases it next ends the wait")
        elif standing.unknown:
            rows.append("    held by somebody who isn't known: taken where nothing was checked, or being handed on")
    else:
        rows.append(f"  waits for no checked lock; it is{' suspended' if standing.suspended else ''}")
        rows += _place(standing.here, "    at ")
    for held in standing.held:
        rows += _place(held.trace, f"  holds `{safe(held.lock_class.name)}`, first taken on this path at ")
    if not standing.held:
        rows.append("  holds nothing")
    return rows


def _place(trace: Trace, before: str) -> list[str]:
    """The innermost call that isn't the standard library's, and what it called there."""
    codes = list(zip(trace.codes, trace.lastis, strict=True))
    own = next((i for i, (code, _) in enumerate(codes) if not _is_library(code)), 0)
    if not codes:
        return [f"{before}a place that isn't known"]
    place = resolve(*codes[own])
    inside = f", in {safe(codes[0][0].co_qualname)}()" if own else ""
    rows = [f"{before}{_where(place)}{inside}"]
    line = linecache.getline(place.filename, place.line).strip()
    if line:
        rows.append(f"{' ' * (len(before) - len(before.lstrip()) + 4)}{safe(line)}")
    return rows


def _is_library(code: CodeType) -> bool:
    return code.co_filename.startswith(_STDLIB) or is_own(code)


def _where(place: Place) -> str:
    try:
        name = os.path.relpath(place.filename)
    except (ValueError, OSError):
        name = place.filename
    name = place.filename if name.startswith("..") or place.filename.startswith("<") else name
    return f"{safe(name)}:{place.line} in {safe(place.function)}"
