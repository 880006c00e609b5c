"""``python -m benchmarks``."""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from benchmarks.cases import Line
    from benchmarks.table import Row

#: Nanoseconds that a sample takes, statements run before it, rounds, rounds of processes, and locks weighed.
FULL: Final = (8_000_000, 6_000, 25, 11, 5_000)
QUICK: Final = (300_000, 200, 2, 2, 1_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and return the exit status: 0, or with ``--check`` 1 where a target isn't met."""
    options = _parser().parse_args(arguments)
    if importlib.util.find_spec("ctxcheck") is None:
        # from a checkout, without installing anything
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
    import ctxcheck
    from benchmarks import finalizers, locks, machine, markers, memory, startup, table
    from benchmarks.measure import NotCheckedError

    sample, warm_up, rounds, process_rounds, number = QUICK if options.quick else FULL
    if options.rounds is not None:
        rounds = process_rounds = options.rounds
    every = (*locks.lines(), *markers.lines(), *finalizers.lines(), *locks.creation_lines())
    lines = {line.name: line for line in every}
    names = [*lines, *startup.NAMES, *memory.NAMES]
    build = machine.interpreter()
    before, started = machine.load(), time.time()
    try:
        chosen = _choose(options.only, names)
        # first: how large an object is depends on how many of its kind were made before, and in which ways
        weighed = memory.rows(number, chosen.__contains__)
        clock, rows = _measure(lines, chosen, rounds, sample, warm_up)
        rows += startup.rows(process_rounds, chosen.__contains__)
    except (ValueError, NotCheckedError, startup.FailedError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    rows += weighed
    after = machine.load()

    rows = _in_order(rows)
    about = {
        "ctxcheck": str(ctxcheck.__version__),
        "source": _from_here(Path(ctxcheck.__file__).parent),
        "interpreter": build,
        "system": machine.system(),
        "load": {"before": before, "after": after},
        "clock": clock,
        "rounds": rounds,
        "quick": options.quick,
        "seconds": round(time.time() - started, 1),
    }
    print(machine.describe(build))
    loads = "unknown" if before is None or after is None else f"{before:.2f} before, {after:.2f} after"
    print(f"{about['system']}; load average {loads}")
    print(
        f"ctxcheck {about['ctxcheck']} from {about['source']}; {rounds} round{'s' if rounds != 1 else ''} in shuffled"
        f" order, {clock}; took {about['seconds']:.0f} s"
    )
    print()
    print(table.render(rows))
    print()
    print(table.summary(rows))
    if options.json is not None:
        text = json.dumps({"about": about, "rows": [_finite(row.as_json()) for row in rows]}, indent=2)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    missed = any(row.target is not None and row.verdict != "ok" for row in rows)
    return 1 if options.check and missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what ctxcheck costs, and print one table of ratios."
    )
    parser.add_argument(
        "--rounds", type=_positive, metavar="N", help="rounds to measure (default: 25; with --quick: 2)"
    )
    parser.add_argument("--quick", action="store_true", help="short samples, few rounds: to see that it works")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME",
        help="only this row, by its name in the JSON, or all that a pattern like 'with-*' matches; repeatable",
    )  # fmt: skip
    parser.add_argument("--json", metavar="PATH", help="write the table as JSON, too")
    parser.add_argument("--check", action="store_true", help="end with status 1 where a target isn't met")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _choose(patterns: Sequence[str], names: list[str]) -> list[str]:
    """The names that are asked for, in the table's order; all of them where none is."""
    if not patterns:
        return names
    chosen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            near = difflib.get_close_matches(pattern, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"
            raise ValueError(f"--only: no row is called {pattern!r}{hint}")
        chosen.update(found)
    return [name for name in names if name in chosen]


def _measure(
    lines: dict[str, Line], chosen: list[str], rounds: int, sample: int, warm_up: int
) -> tuple[str, list[Row]]:
    """Measure the chosen lines with what they are compared with; returns the clock's name and their rows."""
    import ctxcheck
    from benchmarks.measure import Bench, Measured

    shown: set[str] = set()
    asked = [name for name in chosen if name in lines]
    while asked:
        line = lines[asked.pop()]
        if line.name not in shown:
            shown.add(line.name)
            asked += [line.reference, *filter(None, [line.difference_of])]
    there = [line for name, line in lines.items() if name in shown and not line.missing()]
    cases = {line.case.name: line.case for line in there}
    bench = Bench(cases.values(), sample=sample, warm_up=warm_up, session=ctxcheck.checking)
    progress = sys.stderr.isatty()

    def tick(done: int) -> None:
        if progress:
            end = "\n" if done + 1 == rounds else ""
            print(f"\rround {done + 1} of {rounds} ", end=end, file=sys.stderr, flush=True)

    measured = bench.run(rounds, tick) if cases else Measured()
    return bench.clock, [line.row(measured, lines) for name, line in lines.items() if name in shown]


def _in_order(rows: list[Row]) -> list[Row]:
    groups = list(dict.fromkeys(row.group for row in rows))
    return sorted(rows, key=lambda row: groups.index(row.group))


def _from_here(path: Path) -> str:
    here = Path.cwd().resolve()
    path = path.resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else f"{path.parent.name}/{path.name}"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {key: None if value == float("inf") else value for key, value in row.items()}


if __name__ == "__main__":
    sys.exit(main())
