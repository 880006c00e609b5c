"""``python -m benchmarks.scale``: how time and memory grow with the size of what is learned."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import importlib.util
import itertools
import json
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
if importlib.util.find_spec("ctxcheck") is None:
    # from a checkout, without installing anything
    sys.path.insert(0, str(_ROOT / "src"))

import ctxcheck  # noqa: E402
from benchmarks import machine, total_order  # noqa: E402


def _locks(number: int) -> list[Any]:
    return [ctxcheck.Lock(name=f"scale.{i:06}") for i in range(number)]


def _classes(number: int) -> None:
    """Each lock is of a class of its own, and is taken under the one before it."""
    locks = _locks(number)
    for outer, inner in itertools.pairwise(locks):
        with outer, inner:
            pass


def _edges(number: int) -> None:
    """All pairs of as many locks as it takes, in an order that has nothing to do with theirs."""
    locks = _locks(int((2 * number) ** 0.5) + 2)
    pairs = [(i, j) for i in range(len(locks)) for j in range(i + 1, len(locks))]
    random.Random(1).shuffle(pairs)
    for i, j in pairs[:number]:
        with locks[i], locks[j]:
            pass


def _knot(number: int) -> None:
    """All pairs of locks both ways round: every order is against another one."""
    locks = _locks(int(number**0.5) + 2)
    pairs = [(i, j) for i in range(len(locks)) for j in range(len(locks)) if i != j]
    random.Random(1).shuffle(pairs)
    for i, j in pairs[:number]:
        with locks[i], locks[j]:
            pass


def _chains(number: int) -> None:
    """Two locks under ``number`` different sets of other ones."""
    locks = _locks(100)
    inner = [ctxcheck.Lock(name=f"scale.inner{i}") for i in range(2)]
    rng = random.Random(1)
    seen: set[tuple[int, ...]] = set()
    while len(seen) < number:
        chain = tuple(sorted(rng.sample(range(len(locks)), 4)))
        if chain in seen:
            continue
        seen.add(chain)
        taken = [*(locks[i] for i in chain), *inner]
        for lock in taken:
            lock.acquire()
        for lock in reversed(taken):
            lock.release()


def _held(number: int) -> None:
    """Everything is held at once."""
    locks = _locks(number)
    for lock in locks:
        lock.acquire()
    for lock in reversed(locks):
        lock.release()


def _instances(number: int) -> None:
    """Locks of one class; each five that follow one another are held at once."""
    locks = [ctxcheck.Lock(name="scale.window") for _ in range(number)]
    for i in range(number - 4):
        window = locks[i : i + 5]
        for lock in window:
            lock.acquire()
        for lock in window:
            lock.release()


def _churn(number: int) -> None:
    """Pairs of locks of one class that are taken once, both ways round, and go."""
    for _ in range(number):
        a, b = ctxcheck.Lock(name="scale.churn"), ctxcheck.Lock(name="scale.churn")
        with a, b:
            pass


def _threads(number: int) -> None:
    """Threads that take three locks, one after the other."""
    a, b, c = _locks(3)

    def work() -> None:
        with a, b, c:
            pass

    for _ in range(number):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()


def _tasks(number: int) -> None:
    """Tasks that take three locks, a hundred at a time."""
    aio = importlib.import_module("ctxcheck.aio")

    async def work(locks: Sequence[Any]) -> None:
        async with locks[0], locks[1], locks[2]:
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        locks = [aio.Lock(name=f"scale.{i}") for i in range(3)]
        for _ in range(number // 100):
            await asyncio.gather(*(asyncio.create_task(work(locks)) for _ in range(100)))

    asyncio.run(all_of_them())


def _total_order(number: int) -> None:
    """Four threads, ``number`` operations each, see :mod:`benchmarks.total_order`."""
    total_order.run(threads=4, operations=number, locks=500)


@dataclass(frozen=True)
class Row:
    """One program, at some sizes.  ``finds``: what it breaks on purpose."""

    what: str
    run: Callable[[int], None]
    sizes: tuple[int, ...]
    finds: str = ""


ROWS: Final = {
    "classes": Row("lock classes", _classes, (1_000, 10_000)),
    "edges": Row("edges between classes", _edges, (10_000, 100_000, 1_000_000)),
    "knot": Row("edges, all on cycles", _knot, (1_000, 10_000, 100_000), "CTX001"),
    "chains": Row("distinct chains", _chains, (1_000, 10_000, 100_000)),
    "held": Row("locks held at once", _held, (125, 250, 500)),
    "instances": Row("instances, windows of 5", _instances, (8_192, 32_768, 131_072), "CTX003"),
    "churn": Row("pairs that come and go", _churn, (1_000, 10_000, 100_000), "CTX003"),
    "threads": Row("short-lived threads", _threads, (1_000, 10_000, 100_000)),
    "total-order": Row("operations x 4 threads", _total_order, (4_000, 40_000, 400_000)),
}
if importlib.util.find_spec("ctxcheck.aio") is not None:
    ROWS["tasks"] = Row("short-lived tasks", _tasks, (1_000, 10_000, 100_000))


def measure(name: str, size: int) -> dict[str, Any]:
    """Run one row at one size, in this process."""
    resident = _peak()
    start = time.perf_counter()
    with ctxcheck.checking() as session:
        ROWS[name].run(size)
        ran = time.perf_counter()
        found = session.violations
        judged = time.perf_counter()
        counts = session.counts()
    if session.engine.broken:
        raise RuntimeError(f"{name}: checking was switched off: {found}")
    return {
        "name": name,
        "size": size,
        "run": ran - start,
        "verdict": judged - ran,
        "bytes": _peak() - resident,
        "edges": counts.orders,
        "dropped": counts.dropped,
        "uncached": counts.uncached,
        "found": len(found),
        "rules": sorted({violation.rule for violation in found}),
    }


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_HEADER: Final = (
    "", "size", "run", "verdict", "a unit", "memory", "a unit", "edges", "dropped", "uncached", "findings",
)  # fmt: skip


def _cells(figures: dict[str, Any]) -> tuple[str, ...]:
    size = figures["size"]
    return (
        ROWS[figures["name"]].what,
        f"{size:,}",
        f"{figures['run']:.2f} s",
        f"{figures['verdict']:.2f} s",
        f"{(figures['run'] + figures['verdict']) / size * 1e6:,.0f} us",
        f"{figures['bytes'] / 2**20:,.0f} MB",
        f"{figures['bytes'] / size:,.0f} B",
        f"{figures['edges']:,}",
        f"{figures['dropped']:,}",
        f"{figures['uncached']:,}",
        f"{figures['found']:,} {' '.join(figures['rules'])}".strip(),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each row in a process of its own, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description="Time and memory by the size of what is learned."
    )
    parser.add_argument("--quick", action="store_true", help="the smallest size of each row only")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one of {', '.join(ROWS)}")
    parser.add_argument("--size", type=int, metavar="N", help="this size only")
    parser.add_argument("--json", metavar="PATH", help="write the figures as JSON, too")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name in options.only:
        if name not in ROWS:
            near = difflib.get_close_matches(name, ROWS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(ROWS)}"
            print(f"benchmarks.scale: --only: no row is called {name!r}{hint}", file=sys.stderr)
            return 2
    if options.here:
        print(json.dumps(measure(options.only[0], options.size)))
        return 0
    print(machine.describe(machine.interpreter()))
    print(f"{machine.system()}; load average {machine.load()}", flush=True)
    lines: list[tuple[str, ...]] = [_HEADER]
    figures: list[dict[str, Any]] = []
    wrong: list[str] = []
    for name, row in ROWS.items():
        if options.only and name not in options.only:
            continue
        sizes = (options.size,) if options.size else row.sizes[:1] if options.quick else row.sizes
        for size in sizes:
            command = [sys.executable, "-m", "benchmarks.scale", "--here", "--only", name, "--size", str(size)]
            done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                wrong.append(f"{name} at {size:,} ended with status {done.returncode}")
                continue
            figures.append(json.loads(done.stdout))
            if set(figures[-1]["rules"]) - {row.finds}:
                wrong.append(f"{name} at {size:,} reports {', '.join(figures[-1]['rules'])}")
            lines.append(_cells(figures[-1]))
            if sys.stderr.isatty():
                print("  ".join(lines[-1]), file=sys.stderr)
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADER))]
    print()
    for line in lines:
        print("  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]))
    for text in wrong:
        print(f"wrong: {text}")
    if options.json is not None:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
