"""What the forked children of a run have found: each has a data file of its own, which the run reads at its end.

Children leave by ``os._exit``, are killed, or live on; whatever is on disk by then counts.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ctxcheck import records
from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.violations import Violation
from ctxcheck.reports import json

#: Processes that one note names.
_NAMED = 3


class Child(NamedTuple):
    """One child's process number, and what it has found."""

    pid: int
    violations: list[Violation]


def collect(directory: str, run: str, pid: int) -> tuple[list[Child], list[str]]:
    """Return the children of this run, in the order of their numbers, and what is wrong with their files, a line each.

    Args:
        directory: of the data files.
        run: what the headers of all files of one run have in common.
        pid: of the process that asks, whose own file doesn't count.
    """
    children: list[Child] = []
    problems: list[str] = []
    for path in sorted(glob.glob(os.path.join(glob.escape(directory), "run.*.jsonl"))):
        try:
            header = records.header_of(path)
            if header is None or header.get("run") != run or header.get("pid") == pid:
                continue
            _, found, wrong = records.read(path)
        except records.DataError as error:
            problems.append(str(error))
            continue
        child = Child(int(header.get("pid") or 0), _violations(found, wrong))
        children.append(child)
        problems += [f"{os.path.basename(path)}: {line}: skipped" for line in wrong]
    return sorted(children, key=lambda child: child.pid), problems


def _violations(lines: Iterable[dict[str, Any]], wrong: list[str]) -> list[Violation]:
    """What a file comes to: of what was written more than once the last, without what was withdrawn."""
    found: dict[str, Violation] = {}
    for record in lines:
        if record["type"] == "violation":
            try:
                violation = json.violation_from_dict(record.get("violation"))
            except ValueError as error:
                wrong.append(str(error))
                continue
            found[violation.fingerprint] = violation
        elif record["type"] == "withdrawn":
            found.pop(str(record.get("fingerprint")), None)
    return list(found.values())


def merge(own: Sequence[Violation], children: Iterable[Child]) -> list[Violation]:
    """Return what a process and its children have found, one a fingerprint: the surest, with all counts added.

    A note says in which children.
    """
    merged = {violation.fingerprint: violation for violation in own}
    where: dict[str, list[int]] = {}
    for child in children:
        for violation in child.violations:
            fingerprint = violation.fingerprint
            where.setdefault(fingerprint, []).append(child.pid)
            known = merged.get(fingerprint)
            merged[fingerprint] = violation if known is None else _both(known, violation)
    alone = set(where) - {violation.fingerprint for violation in own}
    for fingerprint, pids in where.items():
        violation = merged[fingerprint]
        note = f"{'found' if fingerprint in alone else 'also found'} in {_processes(pids)}"
        merged[fingerprint] = violation.replace(notes=(*violation.notes, note))
    return list(merged.values())


def _both(one: Violation, other: Violation) -> Violation:
    """One finding of two: accepted only if both are."""
    count = one.count + other.count
    ranks = [(v.allowed_by is None, GRADES.index(v.grade)) for v in (one, other)]
    return (other if ranks[1] > ranks[0] else one).replace(count=count)


def _processes(pids: Sequence[int]) -> str:
    if len(pids) == 1:
        return f"child process {pids[0]}"
    shown = ", ".join(map(str, pids[:_NAMED]))
    more = f" and {len(pids) - _NAMED} more" if len(pids) > _NAMED else ""
    return f"child processes {shown}{more}"
