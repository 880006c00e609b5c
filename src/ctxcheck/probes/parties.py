"""The classes of what runs: a thread is known by its target, a job by its function."""

from __future__ import annotations

import functools
from types import FunctionType, MethodType
from typing import Any, cast

from ctxcheck.engine.classes import REGISTRY, Kind, LockClass
from ctxcheck.engine.sites import EMPTY, Trace
from ctxcheck.locks.modules import import_name

#: Under this name an object's ``__dict__`` keeps what it is to the probes.
KEY = "_ctxcheck"


def party_of(kind: Kind, function: Any, args: Any = ()) -> LockClass:
    """The class of a party that runs ``function(*args)``: all that run one function are one, methods of one type too.

    ``functools.partial`` and ``Context.run`` run something else.
    """
    for _ in range(8):
        if isinstance(function, functools.partial):
            function, args = function.func, (*function.args, *args)  # pyright: ignore[reportUnknownVariableType]
        elif getattr(function, "__name__", "") == "run" and args and _is_context(getattr(function, "__self__", None)):
            function, args = args[0], args[1:]
        else:
            break
    owner = ""
    if isinstance(function, MethodType):
        me = function.__self__
        owner = (me if isinstance(me, type) else type(me)).__qualname__
        function = function.__func__
    if not isinstance(function, FunctionType):
        if hasattr(function, "__qualname__"):  # a function written in C, a class
            module, name = getattr(function, "__module__", None), function.__qualname__
        else:
            of: Any = cast("Any", type(function))
            module, name = of.__module__, f"{of.__qualname__}.__call__"
            function = getattr(of, "__call__", None)  # noqa: B004  # not whether: which
    else:
        module, name = function.__module__, function.__qualname__
    if owner:
        name = f"{owner}.{name.rpartition('.')[2]}"
    code = getattr(function, "__code__", None)
    trace = Trace((code,), (0,)) if code is not None else EMPTY
    if isinstance(module, str):
        module = import_name(module)
    return REGISTRY.get(f"{module}:{name}", f"{name.replace('.<locals>', '')}()", kind, trace)


def fields(thing: Any) -> dict[str, Any]:
    """An object's own attributes."""
    return cast("dict[str, Any]", vars(thing))


def _is_context(me: Any) -> bool:
    return type(me).__name__ == "Context" and type(me).__module__ in ("_contextvars", "contextvars")
