"""In place of a function that is written in C."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self


class Standin:
    """Like a function that is written in C, it binds to nothing as the attribute of a class.

    It looks like the original to whoever asks for its name, signature, representation or class (``inspect.isbuiltin``,
    and what replaces such functions by others for a test), and is pickled by its name.  Who derives from it writes
    ``__call__``.
    """

    # instances have a `__dict__`, since a class's own `__module__` and `__doc__` leave no room for slots of that name

    def __init__(self, original: Any, home: str) -> None:
        """``home``: where people find it, as "module:name"."""
        self.__wrapped__: Any = original
        self._home: str = home
        for name in ("__module__", "__name__", "__qualname__", "__doc__", "__self__", "__text_signature__"):
            self.__dict__[name] = getattr(original, name, None)

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> type:
            return type(self.__wrapped__)

    # equal to the original: `os.supports_dir_fd` and its like are sets of functions

    def __eq__(self, other: object) -> bool:
        return other is self or other is self.__wrapped__ or getattr(other, "__wrapped__", other) is self.__wrapped__

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> Any:
        import pkgutil

        return (pkgutil.resolve_name, (self._home,))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: Any) -> Self:
        return self
