"""Put the checked locks in place of ``threading``'s and asyncio's, and take them out again exactly."""

from __future__ import annotations

import sys
import threading
from typing import Any, Final

from ctxcheck import imports
from ctxcheck.engine.raw import ORIGINALS, LockType, RLockType
from ctxcheck.locks import assigned
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
#: What we replaced: (module, name, what stood there, which may have been somebody else's, ours).
_before: Final[list[tuple[Any, str, Any, Any]]] = []
#: The classes of ours that say that they are from where they stand, and where they are from.
_homes: Final[dict[type, str]] = {}
#: The attributes of a class itself, whatever its metaclass makes of asking for them.
_namespace: Final[Any] = type.__dict__["__dict__"].__get__


def install() -> None:
    """Make ``threading.Lock`` and its kin checked, for every lock that is created from now on.

    So are ``multiprocessing.Lock`` and ``RLock``, and asyncio's locks and queues, once a program imports them.  Names
    that were imported before stay what they are.  Does nothing the second time.
    """
    if _before:
        return
    # makes a lock in each forked child: to read the source for it there would cost each child as much as ten forks
    assigned.give_name(vars(threading)["_after_fork"].__code__, "_active_limbo_lock")
    for name, ours in _OURS.items():
        _replace(threading, name, ours)
    imports.when_imported("multiprocessing.synchronize", _share)
    imports.when_imported("asyncio", _await)


def uninstall() -> None:
    """Put back what :func:`install` found; a name that somebody else has replaced since is left to them."""
    imports.forget(_share)
    imports.forget(_await)
    while _before:
        module, name, original, ours = _before.pop()
        if getattr(module, name) is ours:
            setattr(module, name, original)
    while _homes:
        kind, home = _homes.popitem()
        kind.__module__ = home


def _replace(module: Any, name: str, ours: Any) -> None:
    _before.append((module, name, getattr(module, name), ours))
    setattr(module, name, ours)
    # as a program finds a class, so it is looked for: by `pickle`, by who lists what a module defines
    if isinstance(ours, type) and ours.__module__.startswith("ctxcheck."):
        _homes[ours], ours.__module__ = ours.__module__, module.__name__


def _share(synchronize: Any) -> None:
    from ctxcheck.locks import processes  # imports multiprocessing

    _replace(synchronize, "Lock", processes.Lock)
    _replace(synchronize, "RLock", processes.RLock)


def _await(asyncio: Any) -> None:
    from ctxcheck.locks import aiolocks, aioqueues

    for home, ours in ((asyncio.locks, aiolocks), (asyncio.queues, aioqueues)):
        for name in ours.NAMES:
            _replace(home, name, getattr(ours, name))
            _replace(asyncio, name, getattr(ours, name))


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
            elif issubclass(type(value), type):  # isinstance() may ask the program's code, and that may raise
                own = list(_namespace(value).items())
                if ("__module__", module_name) in own:
                    count += sum(type(v) in (LockType, RLockType) for _, v in own)
        if count:
            found[module_name] = count
    return found


assert set(_OURS) == set(ORIGINALS)
