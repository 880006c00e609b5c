"""Adapters: what makes a context of something that a library opens and closes by calls of its own.

An adapter is a module, or any object, with ``install()`` and ``uninstall()``; it enters a context with
:meth:`ctxcheck.markers.named.Context.open`, and closes what that returns.  ``sqlite3`` is here; a package ships its own
under the entry-point group ``ctxcheck.adapters``.  None is in place unless it is asked for by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Final

from ctxcheck.engine.errors import ConfigError

#: Those that are part of ctxcheck.
BUILT_IN: Final = {"sqlite3": "ctxcheck.adapters.sqlite3"}
#: The entry-point group of those that aren't.
GROUP: Final = "ctxcheck.adapters"

_in_place: Final[dict[str, Any]] = {}


def available() -> list[str]:
    """The names of all adapters that there are."""
    return sorted({*BUILT_IN, *_entry_points()})


def install(names: Iterable[str]) -> None:
    """Put adapters in place; those that are there already stay as they are.

    Args:
        names: as :func:`available` gives them.

    Raises:
        ConfigError: there is no adapter of this name, or it has no ``install()`` and ``uninstall()``; none of
            ``names`` is in place then that wasn't before.
    """
    made: list[str] = []
    try:
        for name in names:
            if name not in _in_place:
                adapter = _load(name)
                adapter.install()
                _in_place[name] = adapter
                made.append(name)
    except BaseException:
        _remove(made)
        raise


def uninstall() -> None:
    """Take all adapters out again, the last one first."""
    _remove(list(_in_place))


def _remove(names: list[str]) -> None:
    for name in reversed(names):
        _in_place.pop(name).uninstall()


def _load(name: str) -> Any:
    if name in BUILT_IN:
        return importlib.import_module(BUILT_IN[name])
    found = _entry_points().get(name)
    if found is None:
        from difflib import get_close_matches  # Imported here: a name is rarely mistyped

        known = available()
        near = get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"there is no adapter {name!r}; there are: {', '.join(known)}{hint}")
    adapter = found.load()
    for method in ("install", "uninstall"):
        if not callable(getattr(adapter, method, None)):
            raise ConfigError(f"the adapter {name!r} ({found.value}) has no {method}()")
    return adapter


def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points  # Imported here: dear, and of no use where no adapter is asked for

    return {point.name: point for point in entry_points(group=GROUP)}
