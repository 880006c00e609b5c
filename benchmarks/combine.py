"""``python -m benchmarks.combine``: what it takes to put many data files together."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
if importlib.util.find_spec("ctxcheck") is None:
    # from a checkout, without installing anything
    sys.path.insert(0, str(_ROOT / "src"))

from ctxcheck import merged  # noqa: E402
from ctxcheck.store import Store  # noqa: E402

#: Different orders of a program whose processes each see some of them, for each one that a file has.
_POOL: Final = 20
#: Places in the code of one file, calls on a stack, owners.
_PLACES, _DEPTH, _OWNERS = 400, 8, 8


def write(path: Path, number: int, edges: int, *, alike: bool) -> None:
    """A data file as a run leaves it.

    ``alike``: those of one program; else no two files have an order in common.
    """
    draw = random.Random(number)
    prefix = "app" if alike else f"app{number}"
    pairs: dict[tuple[int, int], None] = {}
    while len(pairs) < edges:
        source = draw.randrange(edges - _POOL)
        target = source + 1 + draw.randrange(_POOL)
        # few orders go against the others, and they are the same ones in all processes of a program
        backward = (source * 31 + target) % 4_999 == 0
        pairs[(target, source) if backward else (source, target)] = None
    classes = edges
    files = [f"{prefix}/module{i}.py" for i in range(20)]
    codes = [[i % 20, f"Service{i}.call", 10 * i] for i in range(100)]
    places = [[i % 100, 2 * i, 10 * i % 1000, 10 * i % 1000, 8, 30, "BEFORE_WITH"] for i in range(_PLACES)]
    traces = [[(i * 7 + j) % _PLACES for j in range(_DEPTH)] for i in range(200)]
    tables = {
        "files": files, "codes": codes, "places": places, "traces": [[], *traces],
        "classes": [[f"{prefix}.module:Lock{i}", f"Lock{i}", "lock", -1, 0, 0] for i in range(classes)],
        "owners": [["thread", f"worker-{i}", -1] for i in range(_OWNERS)],
        "origins": [""], "guards": [[a] for a in range(classes)],
    }  # fmt: skip
    rows = [
        [a, b, 3, [[draw.randrange(_OWNERS), a, 0, "with", "with", 1 + a % 200, 1 + b % 200, None]]] for a, b in pairs
    ]
    header = {
        "type": "header", "schema_version": 1, "tool": "ctxcheck", "id": f"{number:024}", "argv": ["app.py"],
        "started": "2026-01-01T00:00:00Z", "owners": "observed",
    }  # fmt: skip
    evidence = {"type": "evidence", "schema_version": 1, "at": {}, **tables}
    final = {"type": "evidence", "schema_version": 1, "at": {}, "edges": rows, "final": True, "whole": True}
    end = {"type": "end", "counts": {"acquisitions": 9_999, "threads": _OWNERS}}
    with path.open("w", encoding="ascii") as file:
        for record in (header, evidence, final, end):
            file.write(json.dumps(record, separators=(",", ":")) + "\n")


def measure(files: int, edges: int, *, alike: bool) -> dict[str, Any]:
    """Combine so many files; each is made just before it is read, and replaced by the next.  Times are CPU time."""
    with tempfile.TemporaryDirectory() as folder, Store() as store:
        path, target = Path(folder) / "run.bench.1.jsonl", Path(folder) / "combined.jsonl"
        reading, size = 0.0, 0
        for number in range(files):
            write(path, number, edges, alike=alike)
            size += path.stat().st_size
            start = time.process_time()
            store.add(str(path))
            reading += time.process_time() - start
        start = time.process_time()
        store.write(str(target))
        writing = time.process_time() - start
        start = time.process_time()
        found = len(merged.verdict(store))
        judging = time.process_time() - start
        assert found, "there are orders against others"
        assert store.problems.told() == [], store.problems.told()
        return {
            "files": files, "edges": edges, "alike": alike, "read_mb": size / 2**20, "reading": reading,
            "writing": writing, "judging": judging, "found": found, "combined_mb": target.stat().st_size / 2**20,
            "orders": store.counts().orders, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        }  # fmt: skip


def main() -> int:
    """Measure each kind in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.combine", description=__doc__)
    parser.add_argument("--files", type=int, nargs="*", default=[100, 400], metavar="N", help="default: 100 400")
    parser.add_argument("--edges", type=int, default=1_000, metavar="N", help="orders in each; default: 1000")
    parser.add_argument("--kind", choices=("alike", "different", "both"), default="both")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        files, edges, alike = json.loads(options.one)
        print(json.dumps(measure(files, edges, alike=alike)))
        return 0
    print("| files | orders each | different orders | read | reading | writing | verdict | combined | peak memory |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    kinds = [alike for alike, name in ((True, "alike"), (False, "different")) if options.kind in (name, "both")]
    for alike in kinds:
        for files in options.files:
            command = [sys.executable, "-m", "benchmarks.combine", "--one", json.dumps([files, options.edges, alike])]
            done = subprocess.run(command, cwd=_ROOT, env=dict(os.environ), capture_output=True, text=True, check=True)
            row = json.loads(done.stdout)
            print(
                f"| {files:,}, {'of one program' if alike else 'with nothing in common'} | {row['edges']:,} "
                f"| {row['orders']:,} | {row['read_mb']:,.0f} MB | {row['reading']:.1f} s | {row['writing']:.1f} s "
                f"| {row['judging']:.1f} s | {row['combined_mb']:,.1f} MB | {row['peak_mb']:,.0f} MB |",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
