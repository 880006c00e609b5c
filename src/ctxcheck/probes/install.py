"""Put the checked locks and the probes in place, and take them out again exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ctxcheck import imports
from ctxcheck.locks import install as locks
from ctxcheck.probes import collector, finalizers, forks, futures, queues, signals, threads
from ctxcheck.probes.patches import Patches

#: The probes that are in place, if any.
_in_place: Final[list[Patches]] = []
#: What they do before they go.
_undo: Final[list[Callable[[], None]]] = []


def install() -> None:
    """Make ``threading.Lock`` and its kin checked, for every lock that is created from now on, and see who waits.

    Seen are ``Thread.join``, and, once a program imports them, ``queue`` and ``concurrent.futures``; of threads, queues
    and pools those that are made from now on.  So are ``multiprocessing.Lock`` and ``RLock``.  The handlers of signals
    run in a context of their own; so do those that were set before, if this is the main thread; so do the collector,
    ``__del__`` and ``weakref.finalize``, whenever their classes are made.  Names that were imported before stay what
    they are.  Does nothing the second time; if it fails, nothing is in place.
    """
    locks.install()
    if _in_place:
        return
    patches = Patches()
    _in_place.append(patches)
    try:
        threads.watch(patches)
        _undo.append(forks.watch(patches))
        _undo.append(signals.watch(patches))
        collector.watch(patches)
        finalizers.watch(patches)
        for name, action in _WHEN_IMPORTED.items():
            imports.when_imported(name, action)
    except BaseException:
        uninstall()
        raise


def uninstall() -> None:
    """Put back what :func:`install` found; what somebody else has replaced since is left to them."""
    for action in _WHEN_IMPORTED.values():
        imports.forget(action)
    while _undo:
        _undo.pop()()
    while _in_place:
        _in_place.pop().restore()
    locks.uninstall()


def installed() -> bool:
    """Whether the checked locks are in place."""
    return locks.installed()


def _queues(module: Any) -> None:
    if _in_place:
        queues.watch(_in_place[-1], module)


def _futures(module: Any) -> None:
    if _in_place:
        futures.watch_base(_in_place[-1], module)


def _package(module: Any) -> None:
    if _in_place:
        futures.watch_package(_in_place[-1], module)


def _pools(module: Any) -> None:
    if _in_place:
        futures.watch_pools(_in_place[-1], module)


def _processes(module: Any) -> None:
    if _in_place:
        finalizers.watch_processes(_in_place[-1], module)


_WHEN_IMPORTED: Final = {
    "multiprocessing.util": _processes,
    "queue": _queues,
    "concurrent.futures._base": _futures,
    "concurrent.futures": _package,
    "concurrent.futures.thread": _pools,
}
