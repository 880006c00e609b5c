"""Put the checked locks and the probes in place, and take them out again exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from ctxcheck import imports
from ctxcheck.locks import install as locks
from ctxcheck.probes import calls, catalogue, collector, finalizers, forks, futures, queues, signals, threads
from ctxcheck.probes.catalogue import Entry
from ctxcheck.probes.patches import Patches

#: The probes that are in place, if any.
_in_place: Final[list[Patches]] = []
#: What they do before they go.
_undo: Final[list[Callable[[], None]]] = []
#: What waits for the modules of the catalogue, and the functions that were replaced, by their ids.
_actions: Final[list[Callable[[Any], None]]] = []
_replaced: Final[dict[int, tuple[Any, Any]]] = {}
_active: Final[set[str]] = set()


def install(*, blocking: Iterable[str] = catalogue.DEFAULT, not_blocking: Iterable[str] = ()) -> None:
    """Make ``threading.Lock`` and its kin checked, for every lock that is created from now on, and see who waits.

    Seen are ``Thread.join``, and, once a program imports them, ``queue`` and ``concurrent.futures``; of threads, queues
    and pools those that are made from now on.  So are ``multiprocessing.Lock`` and ``RLock``, and the calls of the
    standard library that may block: those of the categories ``blocking`` ("sleep", "wait", "network", "process",
    "file", "metadata", "database"), without those named in ``not_blocking`` (``ctxcheck probes`` lists them).  The
    handlers of signals run in a context of their own; so do those that were set before, if this is the main thread; so
    do the collector, ``__del__`` and ``weakref.finalize``, whenever their classes are made.  Names that a program
    imported before stay what they are.  Does nothing the second time; if it fails, nothing is in place.

    Raises:
        ValueError: there is no such category, or no such call.
    """
    entries = catalogue.chosen(blocking, not_blocking)
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
        _watch_calls(patches, entries)
    except BaseException:
        uninstall()
        raise


def uninstall() -> None:
    """Put back what :func:`install` found; what somebody else has replaced since is left to them."""
    for action in _WHEN_IMPORTED.values():
        imports.forget(action)
    while _undo:
        _undo.pop()()
    while _actions:
        imports.forget(_actions.pop())
    while _in_place:
        _in_place.pop().restore()
    calls.unfollow(_replaced)
    _replaced.clear()
    _active.clear()
    for entry in catalogue.ENTRIES.values():
        entry.call.ignored = False
    locks.uninstall()


def active() -> frozenset[str]:
    """The names of the calls that are seen now, or will be when their modules are imported."""
    return frozenset(_active)


def _watch_calls(patches: Patches, entries: list[Entry]) -> None:
    _active.update(entry.name for entry in entries)
    for entry in catalogue.ENTRIES.values():
        # two rows may share a name in reports: it is left out if all of them are
        entry.call.ignored = entry.name not in _active
    for entry in entries:
        entry.call.ignored = False
    of_module: dict[str, list[Entry]] = {}
    for entry in entries:
        of_module.setdefault(entry.module, []).append(entry)
    following = [False]

    def waiting_for(rows: list[Entry]) -> Callable[[Any], None]:
        def action(module: Any) -> None:
            if _in_place and _in_place[-1] is patches:
                replaced: dict[int, tuple[Any, Any]] = {}
                calls.watch(patches, module, rows, replaced)
                _replaced.update(replaced)
                if following[0]:
                    calls.follow(patches, replaced)

        return action

    for module, rows in of_module.items():
        action = waiting_for(rows)
        _actions.append(action)
        imports.when_imported(module, action)
    # those that are there already: one look at the library for all of them
    following[0] = True
    calls.follow(patches, _replaced)


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
