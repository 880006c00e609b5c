"""Finalizers: ``__del__``, ``weakref.finalize`` and ``multiprocessing.util.Finalize`` run in the context "gc".

A ``__del__`` is wrapped where its class stands: when the class is made, and for those that are there already.  Classes
are made by ``builtins.__build_class__``, and who makes one may look at who called (pydantic looks for local types
there), so nothing of ours may be on the stack meanwhile: a descriptor looks at the code that is about to make one,
and hands the real function out, unless there is a ``__del__`` in the body of that class.
"""

from __future__ import annotations

import builtins
import weakref
from collections.abc import Callable, Iterator
from opcode import opmap
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, cast, final

from ctxcheck import fastpath as fast
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.finalizing import wrappers
from ctxcheck.engine.interrupts import Begun, begin
from ctxcheck.engine.owner import OFF, VOID, OwnerState
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import PACKAGE_DIR
from ctxcheck.engine.usage import COLLECTOR
from ctxcheck.probes.collector import collecting, enter, leave
from ctxcheck.probes.patches import Patches

STEP: Final = ContextStep("interrupt", COLLECTOR, detail=frozenset({COLLECTOR}), boundary=True)
NAME: Final = "__del__"

_attributes: Final = vars(type)["__dict__"].__get__
_subclasses: Final = type.__subclasses__
_set: Final = type.__setattr__


def watch(patches: Patches) -> None:
    """Put the probes for ``__del__`` and ``weakref.finalize`` in place."""
    live = [True]

    def gone() -> None:
        live.clear()
        for cls, found in _with_finalizer():
            if found.__code__ is _CODE:
                _replace(cls, found.__wrapped__)

    patches.when_restored(gone)
    for cls, _ in list(_with_finalizer()):
        adopt(cls, live)
    patches.replace(builtins, "__build_class__", _builder(builtins.__build_class__, live))
    patches.wrap(weakref.finalize, "__call__", _finalize)


def watch_processes(patches: Patches, module: Any) -> None:
    """Put the probe for ``multiprocessing``'s finalizers in place; ``module`` is ``multiprocessing.util``."""
    patches.wrap(module.Finalize, "__call__", _finalize_process)


# --- __del__ --------------------------------------------------------------------------------


def adopt(cls: type, live: list[bool]) -> None:
    """Wrap the ``__del__`` of a class, if it has one of its own that is a plain function and none of ours."""
    found = _attributes(cls).get(NAME)
    if type(found) is FunctionType and found.__code__ is not _CODE and not _is_ours(found.__code__):
        _replace(cls, _wrapped(found, live))


def _is_ours(code: CodeType) -> bool:
    # not a marker's wrapper: that is the program's function
    return code.co_filename.startswith(PACKAGE_DIR)


def _replace(cls: type, function: FunctionType) -> None:
    try:
        _set(cls, NAME, function)  # past the metaclass's own, which may do anything
    except TypeError:
        pass  # one that can't be changed


def _with_finalizer() -> Iterator[tuple[type, Any]]:
    """The classes that have a ``__del__`` of their own, which is a plain function."""
    seen: set[int] = {id(object)}
    todo: list[type] = [object]
    cls: type
    while todo:
        for cls in _subclasses(todo.pop()):
            if id(cls) not in seen:
                seen.add(id(cls))
                todo.append(cls)
                found = _attributes(cls).get(NAME)
                if type(found) is FunctionType:
                    yield cls, found


def _wrapped(original: Any, live: list[bool]) -> Any:
    def __del__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if not live or fast._engine is None:
            return original(self, *args, **kwargs)
        try:
            # `super().__del__()`, or `close()` that calls it: a call like any other
            called = NAME in get_frame(1).f_code.co_names
        except ValueError:
            called = False  # no function is running: the thread ends
        if called:
            return original(self, *args, **kwargs)
        node: Any
        try:
            st = fast._local.st
        except AttributeError:
            st, node = enter(STEP) or (OFF, None)
        else:
            node = st.root.pop(STEP, None)
        cur = st.cur
        if cur is VOID:
            return original(self, *args, **kwargs)
        if node is None:
            node = slowpath.consult(begin, st, STEP, Begun)
            if node is None:
                return original(self, *args, **kwargs)
        node.parent = cur
        # no call from here on to the end of it, but the original's
        st.cur = node
        try:
            return original(self, *args, **kwargs)
        finally:
            if st.cur is node and not node.deferred and not node.passing and st.root is not VOID:
                st.cur = cur
                st.root[STEP] = node
            else:
                _end(st, node, (self,))

    return _like(__del__, original)


def _like(new: Any, original: Any) -> Any:
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(new, attribute, getattr(original, attribute))
    new.__dict__.update(original.__dict__)
    new.__wrapped__ = original
    return new


def _end(state: OwnerState, begun: Any, dying: tuple[Any, ...], *, alone: bool = True) -> None:
    """A finalizer of an object ends, or is given up by an exception."""
    try:  # who is told may raise
        if begun.deferred and not state.ended:
            alone = alone and not collecting()
            slowpath.consult(lambda: state.engine.finalizers.finalized(state, begun, dying, alone=alone))
    finally:
        leave(state, begun)


_CODE: Final[CodeType] = _wrapped(_like, []).__code__
wrappers.append(_CODE)


# --- when a class is made -------------------------------------------------------------------


@final
class _Call:
    """The ``__call__`` of what stands for ``__build_class__``: says which function is called."""

    __slots__ = ("_checked", "_live", "_original")

    def __init__(self, original: Any, live: list[bool]) -> None:
        self._original: Any = original
        self._live: list[bool] = live
        self._checked: Any = _checked(original, live)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        try:
            checked = self._live and _makes_finalizer(get_frame(1))
        except ValueError:
            checked = True  # no function is running
        return self._checked if checked else self._original


def _builder(original: Any, live: list[bool]) -> Any:
    # as a function, it is known by these: also in the interpreter's messages
    names = ("__name__", "__qualname__", "__module__", "__doc__")
    known: dict[str, Any] = {name: getattr(original, name, None) for name in names}
    known["__wrapped__"] = original

    class Builder:
        __call__ = _Call(original, live)

        def __repr__(self) -> str:
            return repr(original)

        def __init__(self) -> None:
            self.__dict__.update(known)

    return Builder()


def _checked(original: Any, live: list[bool]) -> Any:
    def __build_class__(function: Any, name: str, /, *bases: Any, **options: Any) -> Any:  # noqa: A001, N807
        made = original(function, name, *bases, **options)
        if live and isinstance(made, type):
            adopt(made, live)
        return made

    # the interpreter doesn't count frames of these words for `warnings.warn(stacklevel=)`, in `__init_subclass__` say
    code = __build_class__.__code__
    __build_class__.__code__ = code.replace(co_filename=f"{code.co_filename} (no importlib._bootstrap)")
    return __build_class__


def _makes_finalizer(frame: FrameType) -> bool:
    """Whether the class that this function is about to make has a ``__del__`` in its body."""
    bodies = [each for each in frame.f_code.co_consts if type(each) is CodeType]
    if not bodies:
        return True  # somebody's function that calls ours
    if not any(NAME in body.co_names for body in bodies):
        return False
    body = _body(frame)
    return body is None or NAME in body.co_names


def _body(frame: FrameType) -> CodeType | None:
    """The body of the class that a function is about to make: the first code that it loads after LOAD_BUILD_CLASS."""
    code = frame.f_code.co_code
    at = frame.f_lasti
    while at >= 0 and code[at] != opmap["LOAD_BUILD_CLASS"]:
        at -= 2
    extended = 0
    while 0 <= at < frame.f_lasti:
        op, argument = code[at], code[at + 1] | extended
        extended = argument << 8 if op == opmap["EXTENDED_ARG"] else 0
        if op == opmap["LOAD_CONST"]:
            found = frame.f_code.co_consts[argument]
            return found if type(found) is CodeType else None
        at += 2
    return None


# --- weakref.finalize, multiprocessing.util.Finalize ----------------------------------------


def _finalize(original: Any, live: Callable[[], bool]) -> Any:
    def __call__(self: Any, _: Any = None) -> Any:  # noqa: N807
        # by the interpreter it is called with the weak reference, by the program without
        if _ is None or not live() or fast._engine is None:
            return original(self, _)
        entry = enter(STEP)
        if entry is None:
            return original(self, _)
        state, begun = entry
        dying = (_registry(self).get(self),)
        state.cur = begun
        try:
            return original(self, _)
        finally:
            _end(state, begun, dying, alone=False)

    wrappers.append(__call__.__code__)
    return __call__


def _registry(finalizer: Any) -> dict[Any, Any]:
    return cast("dict[Any, Any]", cast("Any", type(finalizer))._registry)


def _finalize_process(original: Any, live: Callable[[], bool]) -> Any:
    def __call__(self: Any, wr: Any = None, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if wr is None or not live() or fast._engine is None:
            return original(self, wr, *args, **kwargs)
        entry = enter(STEP)
        if entry is None:
            return original(self, wr, *args, **kwargs)
        state, begun = entry
        dying = tuple(getattr(self, name, None) for name in ("_callback", "_args", "_kwargs"))
        state.cur = begun
        try:
            return original(self, wr, *args, **kwargs)
        finally:
            _end(state, begun, dying, alone=False)

    wrappers.append(__call__.__code__)
    return __call__
