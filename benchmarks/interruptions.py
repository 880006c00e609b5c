"""What a handled signal and a fork cost, plain and checked: ``python -m benchmarks.interruptions``.

A fork is timed with its child, which leaves at once; checked, there is one other thread, and where "a lock is held"
that one holds a checked lock, so that the child is asked.  Each number is the median of rounds that take turns.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Timed = Callable[[], None]


def handled(number: int) -> Timed:
    """Raise a signal whose handler does nothing, so many times."""

    def nothing(number: int, frame: object) -> None:
        del number, frame

    def run() -> None:
        for _ in range(number):
            signal.raise_signal(signal.SIGUSR1)

    # as whoever measures has put `signal.signal`
    def timed() -> None:
        before = signal.signal(signal.SIGUSR1, nothing)
        run()
        signal.signal(signal.SIGUSR1, before)

    return timed


def masked(number: int) -> Timed:
    """Block a signal and let it through again, so many times."""

    def timed() -> None:
        for _ in range(number):
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGUSR1,))
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGUSR1,))

    return timed


def forked(number: int) -> Timed:
    """Fork so many times; the children leave at once."""

    def timed() -> None:
        for _ in range(number):
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)

    return timed


def median(timed: Timed, number: int, around: Any, rounds: int) -> tuple[float, float]:
    """Microseconds of one, plain and ``around``."""
    plain: list[float] = []
    checked: list[float] = []
    for _ in range(rounds):
        for times, enter in ((plain, False), (checked, True)):
            if enter:
                around.__enter__()
            start = time.perf_counter_ns()
            timed()
            times.append((time.perf_counter_ns() - start) / number / 1_000)
            if enter:
                around.__exit__(None, None, None)
    return statistics.median(plain), statistics.median(checked)


class Checked:
    """Everything in place, a session, and perhaps a lock that another thread holds."""

    def __init__(self, *, held: bool = False) -> None:
        self.held: bool = held

    def __enter__(self) -> None:
        import ctxcheck

        ctxcheck.install()
        self.session = ctxcheck.checking()
        self.session.start()
        lock, inside, self.done = ctxcheck.Lock(name="held"), threading.Event(), threading.Event()

        def hold() -> None:
            if self.held:
                lock.acquire()
            inside.set()
            self.done.wait()
            if self.held:
                lock.release()

        self.thread = threading.Thread(target=hold)
        self.thread.start()
        inside.wait()

    def __exit__(self, *_: object) -> None:
        import ctxcheck

        self.done.set()
        self.thread.join()
        self.session.stop()
        ctxcheck.uninstall()


def main(scale: int = 1) -> None:
    """Measure, and print."""
    if importlib.util.find_spec("ctxcheck") is None:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
    import warnings

    warnings.simplefilter("ignore")  # of forking with threads
    rows = [
        ("a handled signal", handled(2_000 // scale), 2_000 // scale, Checked()),
        ("pthread_sigmask, twice", masked(1_000 // scale), 1_000 // scale, Checked()),
        ("a fork", forked(40 // scale), 40 // scale, Checked()),
        ("a fork, a lock is held", forked(40 // scale), 40 // scale, Checked(held=True)),
    ]
    for name, timed, number, around in rows:
        plain, checked = median(timed, number, around, 9 if scale == 1 else 1)
        print(f"{name:<24} {plain:9.2f} us plain {checked:9.2f} us checked {checked / plain:6.2f}x")


if __name__ == "__main__":
    main()
