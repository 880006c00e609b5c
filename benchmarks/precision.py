"""``python -m benchmarks.precision``: what is found, and what is found for nothing, against every schedule."""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
if importlib.util.find_spec("ctxcheck") is None:
    # from a checkout, without installing anything
    sys.path.insert(0, str(_ROOT / "src"))
sys.path.insert(0, str(_ROOT))

from tests import oracle, programs  # noqa: E402

from benchmarks import machine  # noqa: E402

#: How many owners may run sections at once where owners are assumed, and the largest programs then: it tries every
#: choice of them.
AT_ONCE: Final = 3
OWNERS: Final = 3
OPERATIONS: Final = 9


@dataclass
class Score:
    """What came of the programs of one kind.  ``circles`` can be waited in, in some schedule, and ``told`` of them are
    reported as possible or certain; of the ``findings`` so graded some schedule confirms ``confirmed``.  The same by
    program: ``deadlock`` can, ``caught`` of them have a finding; ``alarms`` have a finding and can't."""

    kind: str
    owners: str
    programs: int = 0
    deadlock: int = 0
    caught: int = 0
    alarms: int = 0
    circles: int = 0
    told: int = 0
    findings: int = 0
    confirmed: int = 0

    @property
    def recall(self) -> float:
        """The share of circles that are told of."""
        return self.told / self.circles if self.circles else 1.0

    @property
    def precision(self) -> float:
        """The share of findings that some schedule confirms."""
        return self.confirmed / self.findings if self.findings else 1.0


def score(kind: str, owners: str, number: int, seed: int) -> Score:
    """Play ``number`` random programs of one kind, and hold them against the oracle."""
    total = Score(kind, owners)
    rng = random.Random(f"{seed} {kind} {owners}")
    for _ in range(number):
        if owners == "observed":
            some = programs.program(rng, kind)
            circles = oracle.deadlocks(some)
        else:
            some = programs.program(rng, kind, owners=OWNERS, operations=OPERATIONS)
            circles = oracle.deadlocks_of_sections(some, at_once=AT_ONCE)
        report = oracle.reported(oracle.play(some, owners=owners))
        real = {frozenset(lock[0] for lock in circle) for circle in circles}
        said = [*(frozenset(names) for names in report.possible), *(frozenset((name,)) for name in report.nested)]
        total.programs += 1
        total.deadlock += bool(circles)
        total.caught += bool(circles and report.anything)
        total.alarms += bool(report.anything and not circles)
        total.circles += len(circles)
        total.told += len(circles) - len(oracle.missed(circles, report))
        total.findings += len(said)
        total.confirmed += sum(names in real for names in said)
    return total


_HEADER: Final = (
    "owners", "kind of program", "programs", "can deadlock", "caught", "false alarms", "circles", "recall", "findings",
    "unconfirmed", "precision",
)  # fmt: skip


def _cells(s: Score) -> tuple[str, ...]:
    numbers = (s.programs, s.deadlock, s.caught, s.alarms, s.circles)
    rest = (f"{s.recall:.3f}", f"{s.findings:,}", f"{s.findings - s.confirmed:,}", f"{s.precision:.3f}")
    return (s.owners, s.kind, *(f"{number:,}" for number in numbers), *rest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and return the exit status: 1 where a deadlock is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision", description="Recall and precision over random programs."
    )
    parser.add_argument("--programs", type=int, default=300, metavar="N", help="programs of each kind (default: 300)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="other programs (default: 1)")
    parser.add_argument("--json", metavar="PATH", help="write the figures as JSON, too")
    options = parser.parse_args(arguments)
    started = time.time()
    scores: list[Score] = []
    print(machine.describe(machine.interpreter()))
    for owners, number in (("observed", options.programs), ("assumed", max(1, options.programs // 3))):
        scores += [score(kind, owners, number, options.seed) for kind in programs.KINDS]
    lines = [_HEADER, *map(_cells, scores)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADER))]
    print(f"{machine.system()}; seed {options.seed}; took {time.time() - started:.0f} s\n")
    for line in lines:
        padded = zip(line, widths, strict=True)
        cells = [cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(padded)]
        print("  ".join(cells))
    if options.json is not None:
        rows: list[dict[str, Any]] = [
            {**asdict(s), "recall": round(s.recall, 4), "precision": round(s.precision, 4)} for s in scores
        ]
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 1 if any(s.told < s.circles for s in scores) else 0


if __name__ == "__main__":
    sys.exit(main())
