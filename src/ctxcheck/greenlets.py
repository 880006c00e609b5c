"""Refuse programs that swap threads for green ones.

gevent and eventlet replace ``threading``'s names and the meaning of "this thread" at run time.  Half-checking
such a program would tell nonsense, so the patching itself is refused, in one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

#: package -> (module that patches, its functions)
_PATCHERS: Final = {
    "gevent": ("gevent.monkey", ("patch_all", "patch_thread")),
    "eventlet": ("eventlet.patcher", ("monkey_patch",)),
}


def refusal(package: str, what: str = "program") -> str:
    """Why ``what`` isn't checked, in one line."""
    return (
        f"{package} replaces threads with greenlets, and ctxcheck can't tell those apart: "
        f"run the {what} without {package}'s monkey-patching"
    )


def patched() -> str:
    """The package that has replaced threads already, if one has; else empty."""
    for package, (module, _) in _PATCHERS.items():
        loaded = sys.modules.get(module)
        asks = {"is_module_patched": "_thread", "is_monkey_patched": "thread"}
        if any(hasattr(loaded, ask) and getattr(loaded, ask)(name) for ask, name in asks.items()):
            return package
    return ""


class Watch:
    """A finder that finds nothing, and sees the packages come."""

    def __init__(self, refuse: Callable[[str], NoReturn]) -> None:
        self._refuse: Callable[[str], NoReturn] = refuse
        self._watching: bool = True

    def install(self) -> None:
        """Watch the imports from now on; what is loaded already is looked at now."""
        for package in _PATCHERS:
            if package in sys.modules:
                self._hook(package)
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Stop watching."""
        self._watching = False
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002
        """Find nothing."""
        if name in _PATCHERS:
            self._hook(name)

    def _hook(self, package: str) -> None:
        import wrapt  # heavy, and only needed by programs that have one of the two

        module, functions = _PATCHERS[package]

        def refuse(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
            if self._watching and kwargs.get("thread", True):
                self._refuse(package)
            return wrapped(*args, **kwargs)

        def wrap(loaded: Any) -> None:
            for function in functions:
                if hasattr(loaded, function):
                    wrapt.wrap_function_wrapper(loaded, function, refuse)

        wrapt.register_post_import_hook(wrap, module)
