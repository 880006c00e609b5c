"""The rows about locks: each beside the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from benchmarks.cases import Line, public
from benchmarks.measure import Case, Names, Setup

#: The most that things may cost, as ratios (and, for the difference, in per cent).
WITH: Final = 3.0
METHODS: Final = 6.0
HELD: Final = 5.0

_WITH: Final = "with lock:\n    pass\n"
_METHODS: Final = "lock.acquire()\nlock.release()\n"
_ALTERNATING: Final = """\
with one:
    with lock:
        pass
with two:
    with lock:
        pass
"""
_BOTH_INSIDE: Final = """\
with lock:
    with one:
        pass
with lock:
    with two:
        pass
"""
_OUT_OF_ORDER: Final = """\
one.acquire()
two.acquire()
one.release()
two.release()
"""
_CONTENDED: Final = """\
with lock:
    pause(0)
"""


def _raw(**make: Callable[[], Any]) -> Setup:
    """A set-up of real locks, by the names that the statement has for them."""

    @contextmanager
    def setup() -> Generator[Names]:
        yield {name: made() for name, made in make.items()}

    return setup


def _checked(held: int = 0, within: bool = False, **kinds: str) -> Setup:
    """A set-up of checked locks, by the names that the statement has for them.

    ``held`` other locks are held around; with ``within``, the statement's own as well.
    """

    @contextmanager
    def setup() -> Generator[Names]:
        with ExitStack() as around:
            for number in range(held):
                around.enter_context(public("Lock")(name=f"outer {number}"))
            locks = {name: public(kind)(name=name) for name, kind in kinds.items()}
            if within:
                for lock in locks.values():
                    around.enter_context(lock)
            yield locks

    return setup


@contextmanager
def _raw_reentered() -> Generator[Names]:
    lock = threading.RLock()
    with lock:
        yield {"lock": lock}


def _pausing(setup: Setup) -> Setup:
    # a lock that is held over something that lets other threads run is one that they find taken
    @contextmanager
    def pausing() -> Generator[Names]:
        with setup() as names:
            yield {**names, "pause": time.sleep}

    return pausing


def lines() -> list[Line]:
    """The rows about taking and releasing."""
    group = "locks"
    lock, rlock, spin = ("Lock",), ("RLock",), ("Lock", "SpinLock")
    raw, raw_r = _raw(lock=threading.Lock), _raw(lock=threading.RLock)
    raw_two = _raw(one=threading.Lock, two=threading.Lock, lock=threading.Lock)
    raw_pair = _raw(one=threading.Lock, two=threading.Lock)
    checked, checked_r = _checked(lock="Lock"), _checked(lock="RLock")
    checked_two = _checked(one="Lock", two="Lock", lock="Lock")
    checked_both = _checked(one="Lock", two="SpinLock", lock="Lock")
    checked_pair = _checked(one="Lock", two="Lock")

    def on(name: str, statement: str, setup: Setup, acquires: int, threads: int = 1) -> Case:
        return Case(name, statement, setup, checking=True, acquires=acquires, threads=threads)

    def line(what: str, case: Case, to: str = "", target: float | None = None, needs: tuple[str, ...] = ()) -> Line:
        return Line(group, what, case, to or case.name, target, needs)

    one_held = on("with-1-held", _WITH, checked, 1)
    eight_held = on("with-8-held", _WITH, _checked(7, lock="Lock"), 1)
    spinlock = on("spinlock-with", _WITH, _checked(lock="SpinLock"), 1)
    reentered = on("rlock-reentered", _WITH, _checked(within=True, lock="RLock"), 0)
    both = on("lock-and-spinlock", _BOTH_INSIDE, checked_both, 4)
    difference = Line(
        group, "the 8th lock to the 1st", eight_held, "with-1-held", HELD, lock, "with-8-held", "held-difference"
    )
    return [
        line("raw: with Lock", Case("raw-with", _WITH, raw)),
        line("with Lock, 1 held", one_held, "raw-with", WITH, lock),
        line("with Lock, 8 held", eight_held, "raw-with", WITH, lock),
        difference,
        line("with Lock, not checking", Case("with-off", _WITH, checked), "raw-with", None, lock),
        line("with SpinLock", spinlock, "raw-with", WITH, spin),
        line("raw: acquire(), release()", Case("raw-acquire", _METHODS, raw)),
        line("Lock.acquire(), release()", on("acquire", _METHODS, checked, 1), "raw-acquire", METHODS, lock),
        line("the same, not checking", Case("acquire-off", _METHODS, checked), "raw-acquire", None, lock),
        line("raw: with RLock", Case("raw-rlock-with", _WITH, raw_r)),
        line("with RLock", on("rlock-with", _WITH, checked_r, 1), "raw-rlock-with", WITH, rlock),
        line("with RLock, not checking", Case("rlock-with-off", _WITH, checked_r), "raw-rlock-with", None, rlock),
        line("raw: with RLock, again", Case("raw-rlock-reentered", _WITH, _raw_reentered)),
        line("with RLock, re-entered", reentered, "raw-rlock-reentered", None, rlock),
        line("raw: RLock.acquire(), release()", Case("raw-rlock-acquire", _METHODS, raw_r)),
        line(
            "RLock.acquire(), release()",
            on("rlock-acquire", _METHODS, checked_r, 1),
            "raw-rlock-acquire",
            METHODS,
            rlock,
        ),
        line("raw: 2 contexts in turn", Case("raw-alternating", _ALTERNATING, raw_two)),
        line("2 contexts in turn", on("alternating", _ALTERNATING, checked_two, 4), "raw-alternating", WITH, lock),
        line("Lock and SpinLock in turn", both, "raw-alternating", WITH, spin),
        line("raw: released out of order", Case("raw-out-of-order", _OUT_OF_ORDER, raw_pair)),
        line(
            "released out of order", on("out-of-order", _OUT_OF_ORDER, checked_pair, 2), "raw-out-of-order", None, lock
        ),
        line("raw: 2 threads contend", Case("raw-contended", _CONTENDED, _pausing(raw), threads=2)),
        line(
            "2 threads contend",
            on("contended", _CONTENDED, _pausing(checked), 2, threads=2),
            "raw-contended",
            None,
            lock,
        ),
    ]


def creation_lines() -> list[Line]:
    """The rows about the time that it takes to make one."""
    lines: list[Line] = []
    for name in ("Lock", "RLock", "Condition", "Semaphore", "Event"):
        raw = Case(f"raw-make-{name.lower()}", "made = make()", _making(getattr(threading, name)))
        checked = Case(f"make-{name.lower()}", "made = make()", _making(name), checking=True)
        lines.append(Line("making one", f"raw: {name}()", raw, raw.name))
        lines.append(Line("making one", f"{name}()", checked, raw.name, None, (name,)))
    return lines


def _making(what: Any) -> Setup:
    @contextmanager
    def setup() -> Generator[Names]:
        yield {"make": public(what) if isinstance(what, str) else what}

    return setup
