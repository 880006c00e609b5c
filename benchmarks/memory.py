"""How many bytes a lock takes, with all that is made for it, and what is left of it afterwards."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import ctxcheck
from benchmarks.cases import public
from benchmarks.measure import Spread
from benchmarks.table import Row

#: The most that a Lock or RLock may take, in bytes; and the others above the real ones.
LOCK: Final = 400
MORE: Final = 400
#: Bytes a lock that may be left when all are gone.
LEFT: Final = 1

_GROUP: Final = "memory"


def _use_lock(lock: Any) -> None:
    with lock:
        pass


def _use_condition(condition: Any) -> None:
    with condition:
        condition.notify_all()


def _use_event(event: Any) -> None:
    event.set()
    event.wait()


def _use_barrier(barrier: Any) -> None:
    barrier.wait()


_USES: Final[dict[str, tuple[tuple[Any, ...], Callable[[Any], None]]]] = {
    "Lock": ((), _use_lock),
    "RLock": ((), _use_lock),
    "SpinLock": ((), _use_lock),
    "Condition": ((), _use_condition),
    "Semaphore": ((), _use_lock),
    "BoundedSemaphore": ((), _use_lock),
    "Event": ((), _use_event),
    "Barrier": ((1,), _use_barrier),
}

NAMES: Final = (*(f"memory-{name.lower()}" for name in _USES), "memory-left")


def rows(number: int, wanted: Callable[[str], bool]) -> list[Row]:
    """The rows about memory that are wanted by name, measured on ``number`` locks of each sort."""
    found: list[Row] = []
    left: dict[str, float] = {}
    for name, (arguments, use) in _USES.items():
        row_name = f"memory-{name.lower()}"
        if not wanted(row_name) and not wanted("memory-left"):
            continue
        make = public(name)
        whole = name in ("Lock", "RLock", "SpinLock")
        what = name if whole else f"{name}, more than the real one"
        real = getattr(threading, name, None)
        if make is None:
            found.append(Row(row_name, _GROUP, what, None, "B", target=LOCK if whole else MORE, note=f"no {name}"))
            continue
        with ctxcheck.checking():
            size, left[name] = _weigh(make, arguments, use, number)
        base = _weigh(real, arguments, use, number)[0] if real is not None else 0.0
        value = size if whole else size - base
        found.append(
            Row(
                row_name, _GROUP, what, Spread(value, value, value), "B", f"real: {base:.0f} B" if real else "",
                f"{size:.0f} B", LOCK if whole else MORE,
            )
        )  # fmt: skip
    if left:
        worst = max(left, key=lambda name: left[name])
        value = max(0.0, left[worst])
        note = f"of each {worst}" if value > LEFT else ""
        found.append(
            Row("memory-left", _GROUP, "left of one that is gone", Spread(value, value, value), "B", "", "", LEFT, note)
        )
    return [row for row in found if wanted(row.name)]


def _weigh(make: Any, arguments: tuple[Any, ...], use: Callable[[Any], None], number: int) -> tuple[float, float]:
    """Bytes of one of many, made at one place and used once each; and those that are left when they are gone.

    With the collector off: what is freed only by it isn't gone yet.  Left is what a second lot leaves beyond the first:
    what the interpreter keeps for the next objects of a sort, it keeps once.
    """
    _make_many(make, arguments, use, [None] * 10)  # what is made once: the class, its chain
    kept: list[Any] = [None] * number
    gc.collect()
    collects = gc.isenabled()
    gc.disable()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        _make_many(make, arguments, use, kept)
        after = tracemalloc.get_traced_memory()[0]
        kept.clear()
        gone = tracemalloc.get_traced_memory()[0]
        kept += [None] * number
        _make_many(make, arguments, use, kept)
        kept.clear()
        left = tracemalloc.get_traced_memory()[0] - gone
    finally:
        tracemalloc.stop()
        if collects:
            gc.enable()
    return (after - before) / number, left / number


def _make_many(make: Any, arguments: tuple[Any, ...], use: Callable[[Any], None], kept: list[Any]) -> None:
    for index in range(len(kept)):
        kept[index] = one = make(*arguments)
        use(one)
