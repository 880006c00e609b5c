"""Measures statements side by side: in rounds, each of them once a round, in shuffled order.

Only ratios within one round are ever used.  What slows the machine down for a while then slows down what is
compared with each other alike, and the median over the rounds drops the rounds that it hit unevenly.
"""

from __future__ import annotations

import gc
import linecache
import math
import random
import statistics
import textwrap
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.machine import cpu_clock

#: How often a statement is written out in the body of the loop that is timed.
UNROLL: Final = 10
#: The statement that measures the loop itself.
EMPTY: Final = "empty-loop"

Names = dict[str, Any]
Setup = Callable[[], AbstractContextManager[Names]]


@dataclass(frozen=True)
class Case:
    """One statement to measure.

    ``setup`` gives the objects that it uses, made anew for each sample.  ``checking``: within a session of its own.
    ``acquires``: how many acquisitions that session has to have counted for each statement.  ``threads``: how many run
    it at a time; then it is timed by the wall clock.
    """

    name: str
    statement: str
    setup: Setup
    checking: bool = False
    acquires: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and their lower and upper quartile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """Of at least one figure."""
        ordered = sorted(figures)
        low, high = (_at(ordered, share) for share in (0.25, 0.75))
        return cls(statistics.median(ordered), low, high)


def _at(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below, above = math.floor(place), math.ceil(place)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


class NotCheckedError(RuntimeError):
    """The validator wasn't at work in a sample that was to measure it."""


@dataclass
class Measured:
    """Nanoseconds per operation, of each case in each round, without the loop's own."""

    rounds: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def nanoseconds(self, name: str) -> Spread:
        """Of one case."""
        return Spread.of(figures[name] for figures in self.rounds)

    def ratio(self, name: str, reference: str) -> Spread:
        """Of one case to another: the median over the ratios within each round."""
        return Spread.of(figures[name] / figures[reference] for figures in self.rounds)


class Bench:
    """Runs cases in rounds.

    Args:
        cases: what to measure.
        sample: nanoseconds that one sample is to take.
        warm_up: statements run before each sample, so that chains are known and the interpreter has specialised.
        session: makes the session that cases with ``checking`` run in.
        seed: of the order within the rounds.
    """

    def __init__(
        self, cases: Iterable[Case], *, sample: int, warm_up: int, session: Callable[[], Any], seed: int = 1
    ) -> None:
        self.cases = [Case(EMPTY, "pass", nothing), *cases]
        self._sample = sample
        self._warm_up = warm_up
        self._session = session
        self._order = random.Random(seed)
        self._compiled: dict[str, Callable[..., int]] = {}
        self._loops: dict[str, int] = {}
        self.clock, self._now = cpu_clock()

    def run(self, rounds: int, tick: Callable[[int], object] = id) -> Measured:
        """Measure ``rounds`` rounds, after finding out how many loops fill a sample; ``tick`` is told before each.

        Raises:
            NotCheckedError: the validator wasn't at work where it was to be measured.
        """
        measured = Measured()
        for case in self.cases:
            self._calibrate(case)
        for done in range(rounds):
            tick(done)
            shuffled = self._order.sample(self.cases, len(self.cases))
            figures = {case.name: self._per_operation(case) for case in shuffled}
            empty = figures.pop(EMPTY)
            for case in self.cases:
                if case.name != EMPTY:
                    # not below a tenth of a nanosecond: a ratio to nothing says nothing
                    figures[case.name] = max(0.1, figures[case.name] - empty)
            measured.rounds.append(figures)
        return measured

    def _calibrate(self, case: Case) -> None:
        # threads that contend need a while to get into each other's way
        sample = self._sample * (1 if case.threads == 1 else 5)
        loops = 1
        while True:
            took = self._take(case, loops)
            if took * 4 >= sample or loops >= 1 << 22:
                break
            loops *= 2
        self._loops[case.name] = max(1, round(loops * sample / max(took, 1)))

    def _per_operation(self, case: Case) -> float:
        loops = self._loops[case.name]
        return self._take(case, loops) / (loops * UNROLL * case.threads)

    def _take(self, case: Case, loops: int) -> int:
        """One sample: the nanoseconds that ``loops`` turns take."""
        run = self._compile(case)
        collects = gc.isenabled()
        with self._session() if case.checking else nullcontext() as session:
            with case.setup() as names:
                self._warm(case, run, names)
                # as timeit does it: the collector's turn would come at random
                gc.disable()
                try:
                    took = run(loops, **names) if case.threads == 1 else _together(run, loops, names, case.threads)
                finally:
                    if collects:
                        gc.enable()
            if session is not None:
                _was_at_work(case, session, loops)
        return took

    def _warm(self, case: Case, run: Callable[..., int], names: Names) -> None:
        """Run it until it is known and specialised, but no longer than a sample takes."""
        until = time.perf_counter_ns() + self._sample
        done = 0
        while done < self._warm_up and (done == 0 or time.perf_counter_ns() < until):
            run(1, **names)
            done += UNROLL * (self._warm_up if case.threads > 1 else 1)

    def _compile(self, case: Case) -> Callable[..., int]:
        found = self._compiled.get(case.name)
        if found is None:
            with case.setup() as names:
                text = (
                    f"def run(_loops, {', '.join(names)}):\n"
                    "    _start = _now()\n"
                    "    for _ in _repeat(None, _loops):\n"
                    f"{textwrap.indent(UNROLL * (case.statement.strip() + chr(10)), 8 * ' ')}"
                    "    return _now() - _start\n"
                )
            found = self._compiled[case.name] = _function(case.name, text, self._now)
        return found


def _function(name: str, text: str, now: Callable[[], int]) -> Callable[..., int]:
    from itertools import repeat

    filename = f"benchmarks/{name}.py"
    # a lock's class is named after the line that makes it, so the line has to be there to be read
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    made: Names = {"__name__": "benchmarks.statements", "_now": now, "_repeat": repeat}
    exec(compile(text, filename, "exec"), made)
    run: Callable[..., int] = made["run"]
    return run


def _together(run: Callable[..., int], loops: int, names: Names, threads: int) -> int:
    """Run it in several threads at a time; returns the wall time from the start of the first to the end of the last."""
    ready = threading.Barrier(threads + 1)

    def work() -> None:
        ready.wait()
        run(loops, **names)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    while ready.n_waiting < threads:
        time.sleep(0.0001)
    start = time.perf_counter_ns()
    ready.wait()
    for worker in workers:
        worker.join()
    return time.perf_counter_ns() - start


def _was_at_work(case: Case, session: Any, loops: int) -> None:
    """A validator that has switched itself off, or was never asked, is fast."""
    found = session.violations
    if found:
        raise NotCheckedError(f"{case.name}: it must keep the rules, but: {found[0].rule} {found[0].message}")
    wanted = case.acquires * loops * UNROLL
    counted = session.counts().acquisitions
    if counted < wanted:
        raise NotCheckedError(f"{case.name}: {wanted} acquisitions were made, and the session has counted {counted}")


@contextmanager
def nothing() -> Generator[Names]:
    """The set-up of a statement that uses nothing."""
    yield {}
