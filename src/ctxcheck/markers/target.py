"""The function that is being marked: of what sort it is, and the text by which a wrapper calls it.

A marker names parameters, or paths from them, as text; in the wrapper that text becomes code.  Where the wrapper has
no such parameter (another decorator has hidden it behind ``*args``), the signature is asked at each call.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, Literal, final

from ctxcheck.engine.classes import AWAIT, BLOCK
from ctxcheck.engine.sites import EMPTY, Trace, is_own
from ctxcheck.markers.usage import nearest

Kind = Literal["function", "coroutine", "awaitable", "generator", "async generator"]

_GENERATOR: Final = 0x20  # flags of code objects; `inspect` has names for them, and takes long to import
_COROUTINE: Final = 0x80
_ITERABLE_COROUTINE: Final = 0x100
_ASYNC_GENERATOR: Final = 0x200
_VARARGS: Final = 0x04
_VARKEYWORDS: Final = 0x08

#: Names that the wrappers use, which a parameter mustn't hide.
_BUILTINS: Final = (
    "AttributeError", "BaseException", "KeyError", "StopIteration", "StopAsyncIteration", "ValueError", "hasattr",
)  # fmt: skip


@final
class Target:
    """The function that is being marked: what a marker can say about it, and the text of a call of it.

    ``first`` is "self" or "cls" if that is the first parameter's name, ``permission`` what its caller must
    have for it to wait.
    """

    __slots__ = (
        "_local_names", "_packed", "call", "cells", "declared", "function", "kind", "marker", "own", "params",
        "permission", "plain", "qualname", "saved",
    )  # fmt: skip

    def __init__(self, function: Callable[..., Any], marker: str) -> None:
        self.function: Callable[..., Any] = function
        self.marker: str = marker
        self.kind: Kind = _kind(function)
        self.permission = BLOCK if self.kind in ("function", "generator") else AWAIT
        self.qualname: str = getattr(function, "__qualname__", None) or type(function).__qualname__
        self.declared: Trace = declaration(function)
        self.cells: dict[str, Any] = {}
        #: whether the wrapper has the very parameters of the function
        self.plain: bool = isinstance(function, FunctionType)
        #: its ``*args`` and ``**kwargs``: what another decorator has made may hide parameters there
        self._packed: tuple[str, ...] = ()
        self.own: list[str] = []
        self.saved: list[str] = []
        self._local_names: dict[str, str] = {}
        self.params: str = "*_ctx_args, **_ctx_kwargs"
        self.call: str = "*_ctx_args, **_ctx_kwargs"
        if isinstance(function, FunctionType):
            self._read(function.__code__)

    def _read(self, code: CodeType) -> None:
        positional = code.co_argcount
        keyword = positional + code.co_kwonlyargcount
        names = list(code.co_varnames)
        rest = names.pop(keyword) if code.co_flags & _VARARGS else None
        more = names.pop(keyword) if code.co_flags & _VARKEYWORDS else None
        names = names[:keyword]
        self._packed = tuple(name for name in (rest, more) if name is not None)
        self.own = [*names, *self._packed]
        if any(not name.isidentifier() or name.startswith("_ctx_") or name in _BUILTINS for name in self.own):
            self.plain = False
            return
        if "node" in self.own:
            # that name is taken: see the module's docstring
            self._local_names["node"] = "_ctx_param_node"
            self.saved.append("_ctx_param_node = node")
        local = [self._local_names.get(name, name) for name in names]
        params, call = names[:positional], local[:positional]
        if code.co_posonlyargcount:
            params.insert(code.co_posonlyargcount, "/")
        if rest is not None:
            params.append(f"*{rest}")
            call.append(f"*{self._local_names.get(rest, rest)}")
        elif code.co_kwonlyargcount:
            params.append("*")
        for name, here in zip(names[positional:], local[positional:], strict=True):
            params.append(name)
            call.append(f"{name}={here}")
        if more is not None:
            params.append(f"**{more}")
            call.append(f"**{self._local_names.get(more, more)}")
        self.params = ", ".join(params)
        self.call = ", ".join(call)

    @property
    def first(self) -> str | None:
        """See the class."""
        names = self.names()
        return names[0] if names and names[0] in ("self", "cls") else None

    def names(self) -> list[str]:
        """The parameters that a marker may name."""
        if self.plain and not self._hides():
            return self.own
        signature = self._signature()
        return self.own if signature is None else list(signature.parameters)

    def _hides(self) -> bool:
        return bool(self._packed) and hasattr(self.function, "__wrapped__")

    def _signature(self) -> Any:
        import inspect

        try:
            return inspect.signature(self.function)
        except (TypeError, ValueError):
            return None

    def path(self, argument: str, given: str) -> str:
        """Return the text that evaluates a parameter or a dotted path from one, in the wrapper.

        Raises:
            ValueError: it is no such path, or names no parameter.
        """
        head, *tail = given.split(".")
        if not all(part.isidentifier() for part in (head, *tail)):
            raise ValueError(
                f"@{self.marker} on {self.qualname}: {argument}={given!r} is not the name of a parameter, or a dotted"
                " path from one"
            )
        names = self.names()
        if head not in names:
            have = f"its parameters are {', '.join(names)}" if names else "it has no parameters"
            raise ValueError(
                f"@{self.marker} on {self.qualname}: {argument}={given!r} names no parameter of it; {have}"
                f"{nearest(head, names)}"
            )
        tail = [self._mangle(part) for part in tail]
        if self.plain and head in self.own and not (head in self._packed and self._hides()):
            return ".".join((self._local_names.get(head, head), *tail))
        return self.calling(_Getter(self._signature(), head, tail))

    def calling(self, function: Callable[..., Any]) -> str:
        """Return the text that gives the call's arguments to ``function``."""
        name = f"_ctx_get{len(self.cells)}"
        self.cells[name] = function
        return f"{name}({self.call})"

    def _mangle(self, name: str) -> str:
        # `self.__lock` in a class body means `self._Class__lock`, and so it does in a path
        owner = self.qualname.rpartition(".")[0].rpartition(".")[2].lstrip("_")
        if name.startswith("__") and not name.endswith("__") and owner and owner != "<locals>":
            return f"_{owner}{name}"
        return name


@final
class _Getter:
    """Evaluates a path where the wrapper doesn't have the parameter by name."""

    __slots__ = ("_head", "_signature", "_tail")

    def __init__(self, signature: Any, head: str, tail: list[str]) -> None:
        self._signature: Any = signature
        self._head: str = head
        self._tail: list[str] = tail

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        value = bound.arguments[self._head]
        for name in self._tail:
            value = getattr(value, name)
        return value


def declaration(function: Any) -> Trace:
    """Where a function is defined: a trace whose only entry is its first line."""
    for _ in range(64):
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType) and not is_own(code):
            return Trace((code,), (0,))
        inner = getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)
        function = inner or getattr(function, "func", None)
        if function is None:
            break
    return EMPTY


def _kind(function: Any) -> Kind:
    while isinstance(function, (functools.partial, MethodType)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    said = getattr(function, "_is_coroutine_mark", None)
    if said is not None and said is getattr(sys.modules.get("inspect"), "_is_coroutine_mark", None):
        return "coroutine"  # inspect.markcoroutinefunction() says so
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    flags = code.co_flags if isinstance(code, CodeType) else 0
    if flags & _COROUTINE:
        return "coroutine"
    if flags & _ASYNC_GENERATOR:
        return "async generator"
    if flags & _ITERABLE_COROUTINE:
        return "awaitable"
    return "generator" if flags & _GENERATOR else "function"
