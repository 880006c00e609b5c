"""Put the checked locks in place of ``threading``'s, and take them out again exactly."""

from __future__ import annotations

import sys
import threading
from typing import Any, Final

from ctxcheck.engine.raw import ORIGINALS, LockType, RLockType
from ctxcheck.locks.composite import Barrier, BoundedSemaphore, Condition, Event, Semaphore
from ctxcheck.locks.plain import Lock, RLock

_OURS: Final[dict[str, Any]] = {
    "Lock": Lock,
    "RLock": RLock,
    "Condition": Condition,
    "Semaphore": Semaphore,
    "BoundedSemaphore": BoundedSemaphore,
    "Event": Event,
    "Barrier": Barrier,
}
#: What stood in ``threading`` when we were installed (somebody else may have been there first).
_before: Final[dict[str, Any]] = {}


def install() -> None:
    """Make ``threading.Lock`` and its kin checked, for every lock that is created from now on.

    Names that were imported from ``threading`` before stay what they are.  Does nothing the second time.
    """
    if _before:
        return
    for name, ours in _OURS.items():
        _before[name] = getattr(threading, name)
        setattr(threading, name, ours)


def uninstall() -> None:
    """Put back what :func:`install` found; a name that somebody else has replaced since is left to them."""
    while _before:
        name, original = _before.popitem()
        if getattr(threading, name) is _OURS[name]:
            setattr(threading, name, original)


def installed() -> bool:
    """Whether the checked locks are in place."""
    return bool(_before)


def unchecked_locks() -> dict[str, int]:
    """Count the raw locks that modules and their classes hold, by module: made before we were, or by ``_thread``.

    A lower bound: locks inside other objects can't be found.
    """
    found: dict[str, int] = {}
    for module_name, module in list(sys.modules.items()):
        if module_name == "ctxcheck" or module_name.startswith("ctxcheck.") or module is None:
            continue
        try:
            values = list(vars(module).values())
        except TypeError:
            continue
        count = 0
        for value in values:
            if type(value) in (LockType, RLockType):
                count += 1
            elif isinstance(value, type) and value.__module__ == module_name:
                count += sum(type(v) in (LockType, RLockType) for v in list(vars(value).values()))
        if count:
            found[module_name] = count
    return found


assert set(_OURS) == set(ORIGINALS)
