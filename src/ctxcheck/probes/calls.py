"""The probes of functions and methods that may block.

Where nothing is held and nothing is forbidden, a probe costs a read of the owner's state, one compare, and the call of
a function.  It looks at arguments and at the stack only where it matters.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, CodeType, ModuleType
from typing import Any, Final, final

from ctxcheck import fastpath
from ctxcheck.engine.blocking import covering
from ctxcheck.engine.classes import EVERYTHING
from ctxcheck.probes import files
from ctxcheck.probes.blocking import ahead, begin
from ctxcheck.probes.catalogue import Entry
from ctxcheck.probes.patches import Patches
from ctxcheck.probes.standin import Standin


@final
class Function(Standin):
    """In place of a function that is written in C.

    (A bound method would be called a little faster, but can't have the original's signature, and is pickled as one.)
    """

    def __init__(self, entry: Entry, original: Any, live: Callable[[], bool]) -> None:
        super().__init__(original, f"{entry.module}:{entry.path}")
        self._original: Any = original
        self._call = entry.call
        self._quick = entry.quick
        self._live = live

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the original."""
        try:
            st = _fast._local.st
        except AttributeError:
            st = begin()
        if st.cur.allows != _ALL and self._live():
            ahead(self._call, self._quick, args, kwargs, st)
        try:
            return self._original(*args, **kwargs)
        except BaseException:
            del args, kwargs  # a traceback keeps this frame, where the original has none
            raise


_fast: Final[Any] = fastpath
_ALL: Final = EVERYTHING


def _plain(entry: Entry, original: Any, live: Callable[[], bool]) -> Any:
    """In place of a function that is written in Python, or of a method."""
    fast: Any = fastpath
    call, quick, everything, look, first = entry.call, entry.quick, EVERYTHING, ahead, begin

    def probe(*args: Any, **kwargs: Any) -> Any:
        try:
            st = fast._local.st
        except AttributeError:
            st = first()
        if st.cur.allows != everything and live():
            look(call, quick, args, kwargs, st)
        try:
            return original(*args, **kwargs)
        except BaseException:
            del args, kwargs
            raise

    if entry.covers:
        probe.__code__ = _covering_code(probe.__code__)
    return probe


_covering: Final[list[CodeType]] = []


def _covering_code(code: CodeType) -> CodeType:
    """The same code, in an object of its own: inside of it nothing of the program's runs."""
    if not _covering:
        _covering.append(code.replace(co_name="covering_probe"))
        covering.add(_covering[0])
    return _covering[0]


def _dress(new: Any, original: Any) -> Any:
    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__"):
        if hasattr(original, name):
            setattr(new, name, getattr(original, name))
    own: dict[str, Any] = getattr(original, "__dict__", {})
    new.__dict__.update(own)
    new.__wrapped__ = original
    return new


def watch(patches: Patches, module: ModuleType, entries: Iterable[Entry], replaced: dict[int, tuple[Any, Any]]) -> None:
    """Put the probes of one module's ``entries`` in place; ``replaced`` is told what was (by its id: itself, new)."""
    for entry in entries:
        if entry.absent() or entry.how in ("watched", "file"):
            continue
        owner: Any = module
        *outer, name = entry.path.split(".")
        for part in outer:
            owner = getattr(owner, part)
        original = getattr(owner, name)
        if entry.how == "function":
            if entry.module == "builtins" and name == "open":
                new: Any = files.opener(original, patches.live)
            elif isinstance(original, BuiltinFunctionType):
                new = Function(entry, original, patches.live)
            else:
                new = _dress(_plain(entry, original, patches.live), original)
            replaced[id(original)] = (original, new)
        else:
            new = _dress(_plain(entry, original, patches.live), original)
        patches.replace(owner, name, new)


def follow(patches: Patches, replaced: dict[int, tuple[Any, Any]]) -> None:
    """Replace the functions also where modules of the library have imported their names before."""
    for namespace, name, value in _library_names(replaced):
        new = replaced[id(value)][1]
        patches.replace(namespace, name, new)


def unfollow(replaced: dict[int, tuple[Any, Any]]) -> None:
    """Give the originals back to modules of the library that have imported the names since."""
    ours = {id(new): (new, original) for original, new in replaced.values()}
    for namespace, name, value in _library_names(ours):
        setattr(namespace, name, ours[id(value)][1])


def _library_names(wanted: dict[int, tuple[Any, Any]]) -> list[tuple[Any, str, Any]]:
    """Where modules of the library, those that are written in Python, have one of these objects."""
    found: list[tuple[Any, str, Any]] = []
    if not wanted:
        return found
    library = sys.stdlib_module_names
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in library or type(module) is not ModuleType:
            continue
        values = vars(module)
        if not str(values.get("__file__", "")).endswith(".py"):
            continue
        found += [
            (module, key, value)
            for key, value in list(values.items())
            if id(value) in wanted and wanted[id(value)][0] is value
        ]
    return found
