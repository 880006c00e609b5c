"""``open``: files whose reads and writes are seen when they reach the operating system.

The file types are written in C, and can't be replaced.  But a file is a stack of three: text over a buffer over the raw
file, and all that goes to the disk goes through the raw one.  So ours is the same stack over a raw file of a class
derived from ``io.FileIO``: a read that is served from the buffer costs nothing and says nothing, while iteration,
``flush``, ``close`` and the end of a ``with`` block are seen.  Whatever isn't plainly valid is left to the
interpreter's own ``open``, and so are its errors.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple, cast

from ctxcheck import fastpath
from ctxcheck.engine.blame import package_of
from ctxcheck.engine.blocking import Blocking, call_named
from ctxcheck.engine.classes import BLOCK, EVERYTHING
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import OwnerState
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import is_own
from ctxcheck.probes import quick
from ctxcheck.probes.blocking import ahead, begin
from ctxcheck.probes.readers import is_ready
from ctxcheck.probes.standin import Standin


class _Mode(NamedTuple):
    raw: str
    binary: bool
    kind: Callable[..., Any]


def _modes() -> dict[str, _Mode]:
    found: dict[str, _Mode] = {}
    for main, plus, sort in itertools.product("rwax", ("", "+"), ("", "t", "b")):
        kind: Any = io.BufferedRandom if plus else io.BufferedReader if main == "r" else io.BufferedWriter
        for letters in itertools.permutations(main + plus + sort):
            found["".join(letters)] = _Mode(main + plus, sort == "b", kind)
    return found


_MODES: Final = _modes()
_NEWLINES: Final = (None, "", "\n", "\r", "\r\n")
#: Where a raw file's representation has the name of its class, it is without the module of a class made in Python.
_NAMED_BY_TYPE: Final = sys.version_info >= (3, 13)
_ABSENT: Final = object()
_OPEN: Final = call_named("open", "file")
_READ: Final = call_named("file.read", "file")
_WRITE: Final = call_named("file.write", "file")


def _quick_file(args: Any, kwargs: Any) -> bool:
    raw = args[0]
    # what is printed goes here: to a terminal in production, to a file where a test's output is captured
    for stream in (sys.stdout, sys.stderr):
        buffer = getattr(stream, "buffer", None)
        if buffer is raw or getattr(buffer, "raw", None) is raw:
            return True
    return quick.is_quick_fd(raw.fileno()) or quick.virtual((raw.name if isinstance(raw.name, (str, bytes)) else "",),
                                                            kwargs)  # fmt: skip


def _quick_read(args: Any, kwargs: Any) -> bool:
    return _quick_file(args, kwargs) or is_ready(args[0].fileno())


def _program() -> CodeType | None:
    """The code of the program's own that makes this call."""
    frame: FrameType | None = get_frame(1)
    while frame is not None and (is_own(frame.f_code) or package_of(frame.f_code.co_filename)):
        frame = frame.f_back
    return None if frame is None else frame.f_code


def _shows_source(file: Any) -> bool:
    """Whether the interpreter opens this file, to print a line of a traceback or a warning.

    It calls ``io.open`` by itself, wherever the program happens to be: in a function that has nothing of that name.
    """
    if type(file) is not str or not file.endswith(".py"):
        return False
    code = get_frame(2).f_code
    return "open" not in (*code.co_names, *code.co_varnames, *code.co_cellvars, *code.co_freevars)


def _raw_class(live: Callable[[], bool]) -> Any:
    """A class of raw files that say when they are read and written."""
    fast: Any = fastpath
    base = io.FileIO
    readinto_, readall_, read_, write_ = base.readinto, base.readall, base.read, base.write
    everything, look, first, represent = EVERYTHING, _reached, begin, base.__repr__
    reads, writes = _READ, _WRITE

    class FileIO(base):  # type: ignore[misc, valid-type]
        __slots__ = ("_opener_code",)
        __doc__ = base.__doc__

        def readinto(self, buffer: Any, /) -> Any:
            try:
                st = fast._local.st
            except AttributeError:
                st = first()
            if st.cur.allows != everything and live():
                look(self, reads, st)
            return readinto_(self, buffer)

        def readall(self) -> Any:
            try:
                st = fast._local.st
            except AttributeError:
                st = first()
            if st.cur.allows != everything and live():
                look(self, reads, st)
            return readall_(self)

        def read(self, size: Any = -1, /) -> Any:
            try:
                st = fast._local.st
            except AttributeError:
                st = first()
            if st.cur.allows != everything and live():
                look(self, reads, st)
            return read_(self, size)

        def write(self, b: Any, /) -> Any:
            try:
                st = fast._local.st
            except AttributeError:
                st = first()
            if st.cur.allows != everything and live():
                try:
                    look(self, writes, st)
                except ViolationError:
                    pass  # it is recorded; a buffer that isn't written when its file is closed would be lost
            return write_(self, b)

        if _NAMED_BY_TYPE:

            def __repr__(self) -> str:
                text = represent(self)
                return f"<{base.__module__}.{text[1:]}" if text.startswith("<FileIO") else text

        if sys.version_info < (3, 12):

            def __reduce_ex__(self, protocol: Any) -> Any:
                raise TypeError("cannot pickle '_io.FileIO' object")

    for name in ("readinto", "readall", "read", "write"):
        ours, theirs = vars(FileIO)[name], getattr(base, name)
        ours.__doc__, ours.__qualname__ = theirs.__doc__, theirs.__qualname__
    FileIO.__module__, FileIO.__qualname__ = base.__module__, base.__qualname__
    return FileIO


def _reached(raw: Any, call: Blocking, state: OwnerState) -> None:
    if not state.cur.allows & BLOCK:
        opened = getattr(raw, "_opener_code", None)
        if opened is not None and opened is _program():
            return  # it was opened there, and that was told
    ahead(call, _quick_read if call is _READ else _quick_file, (raw,), {}, state)


def opener(original: Any, live: Callable[[], bool]) -> Any:
    """A function to stand in for ``open``."""
    fast: Any = fastpath
    everything, look, first, opens, absent = EVERYTHING, ahead, begin, _OPEN, _ABSENT
    raw_class = _raw_class(live)
    modes, newlines = _MODES, _NEWLINES
    text_file: Any = io.TextIOWrapper
    is_virtual, default_size = quick.virtual, io.DEFAULT_BUFFER_SIZE

    class Open(Standin):
        def __call__(
            self,
            /,
            file: Any = absent,
            mode: Any = "r",
            buffering: Any = -1,
            encoding: Any = None,
            errors: Any = None,
            newline: Any = None,
            closefd: Any = True,
            opener: Any = None,
            **unknown: Any,
        ) -> Any:
            if file is absent:
                return original(**unknown)
            if unknown:
                return original(file, **unknown)
            if not live():
                return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
            try:
                st = fast._local.st
            except AttributeError:
                st = first()
            inside = st.cur.allows != everything
            if inside and not (mode == "rb" and _shows_source(file)):
                look(opens, is_virtual, (file,), {}, st)
            how = modes.get(mode) if type(mode) is str else None
            if (
                how is None
                or type(file) is bool
                or type(buffering) not in (int, bool)
                or buffering < -1
                or (encoding is not None and type(encoding) is not str)
                or (errors is not None and type(errors) is not str)
                or newline not in newlines
                or (how.binary and not (encoding is errors is newline is None))
                or (buffering == 0 and not how.binary)
            ):
                return original(file, mode, buffering, encoding, errors, newline, closefd, opener)
            if buffering == 1 and how.binary:
                import warnings

                warnings.warn(
                    "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
                    RuntimeWarning,
                    stacklevel=2,
                )
                buffering = -1
            if encoding is None and not how.binary and sys.flags.warn_default_encoding:
                import warnings

                warnings.warn("'encoding' argument not specified", EncodingWarning, stacklevel=2)
                encoding = "locale"
            if type(file) is not str and hasattr(file, "__fspath__"):
                file = cast("Any", os.fspath(file))  # a file's name is what is left of a path, never the path object
            raw = raw_class(file, how.raw, closefd, opener)
            if inside and not st.cur.allows & BLOCK:
                raw._opener_code = _program()
            result: Any = raw
            try:
                by_line = buffering == 1
                if buffering < 0:
                    by_line = raw.isatty()
                if buffering < 0 or by_line:
                    size = getattr(raw, "_blksize", 0)
                    buffering = size if size > 1 else default_size
                if buffering == 0:
                    return raw
                result = how.kind(raw, buffering)
                if how.binary:
                    return result
                result = text_file(result, encoding, errors, newline, by_line)
                result.mode = mode
            except BaseException:
                result.close()
                raise
            return result

    return Open(original, "builtins:open")
