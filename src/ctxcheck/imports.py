"""Do something to a module as soon as it is imported, without importing it for a program that doesn't.

A finder at the front of ``sys.meta_path`` that finds nothing itself: it asks those behind it, and lets the loader that
they name run our function when it is done.  The module is given its own loader back first, so that nothing shows.
(``wrapt`` has the same; it costs a program more to import than it is worth here.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

_waiting: Final[dict[str, list[Callable[[Any], object]]]] = {}


class _Finder:
    """Finds nothing that the others don't find."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec that the finders behind this one give, with a loader that tells."""
        if name not in _waiting:
            return None
        finders = sys.meta_path
        behind = finders[finders.index(self) + 1 :] if self in finders else []
        for finder in behind:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader:
    """Loads as the real loader does, then runs what waits for the module."""

    def __init__(self, loader: Any) -> None:
        self._loader: Any = loader

    def create_module(self, spec: Any) -> Any:
        """As the real loader's."""
        create = getattr(self._loader, "create_module", None)
        return None if create is None else create(spec)

    def exec_module(self, module: Any) -> None:
        """As the real loader's, under the real loader's name."""
        module.__spec__.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        for action in _waiting.pop(module.__name__, ()):
            action(module)
        _go_if_idle()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


_finder: Final[Any] = _Finder()


def when_imported(name: str, action: Callable[[Any], object]) -> None:
    """Call ``action(module)`` now if the module ``name`` is imported, else right after its import."""
    module = sys.modules.get(name)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        action(module)
        return
    _waiting.setdefault(name, []).append(action)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def forget(action: Callable[[Any], object]) -> None:
    """Wait with this action for nothing any more; the finder goes with the last one."""
    for name in list(_waiting):
        left = [a for a in _waiting[name] if a != action]
        if left:
            _waiting[name] = left
        else:
            del _waiting[name]
    _go_if_idle()


def _go_if_idle() -> None:
    if not _waiting and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
