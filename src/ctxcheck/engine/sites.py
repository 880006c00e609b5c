"""Where something happened: captured cheaply, resolved when a report needs it.

A :class:`Trace` keeps ``(code, lasti)`` pairs only: no frames (they pin locals),
no line numbers (decoding the line table is dearer than the whole capture), no
text.  Code objects are kept alive and compared by identity: hashing one hashes
its contents.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from gc import get_referents
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from ctxcheck.engine import behalf
from ctxcheck.engine.raw import get_frame

#: Frames whose code lives here are the validator's own and never part of a trace's head.
PACKAGE_DIR: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
#: Whoever is called from here is the program; what this was called by says how it was started.
RUNNER: Final = PACKAGE_DIR + "runner.py"
#: The file name of generated wrappers; they count as ours.
GENERATED: Final = "<ctxcheck marker>"

MAX_DEPTH: Final = 64


def is_own(code: CodeType) -> bool:
    """Whether this code belongs to ctxcheck itself."""
    name = code.co_filename
    return name.startswith(PACKAGE_DIR) or name == GENERATED


class Place(NamedTuple):
    """One resolved entry of a trace.  Lines count from 1, columns (of UTF-8 bytes) from 0; -1 is unknown."""

    filename: str
    line: int
    function: str
    end_line: int = -1
    column: int = -1
    end_column: int = -1


def portable_key(filename: str, function: str, position: int) -> tuple[str, str, int, str]:
    """What a place is sorted by, wherever its file lies: see :meth:`Trace.sort_key`."""
    return (filename.replace("\\", "/").rpartition("/")[2], function, position, filename)


def resolve(code: CodeType, lasti: int) -> Place:
    """Return file, line, function and, where the interpreter kept them, columns of one instruction."""
    line, end_line, column, end_column = code.co_firstlineno, -1, -1, -1
    for index, position in enumerate(code.co_positions()):
        if index == lasti // 2:
            line = position[0] or line
            end_line, column, end_column = (-1 if p is None else p for p in position[1:])
            break
    return Place(code.co_filename, line, code.co_qualname, end_line, column, end_column)


class Trace:
    """A captured stack, innermost call first.

    ``codes`` and ``lastis`` run in parallel.  ``test`` is the one that its thread or task worked for, where that is
    known.  Immutable by convention; shared freely between owners and findings.
    """

    __slots__ = ("codes", "lastis", "test")

    def __init__(self, codes: tuple[CodeType, ...], lastis: tuple[int, ...], test: str = "") -> None:
        self.codes: tuple[CodeType, ...] = codes
        self.lastis: tuple[int, ...] = lastis
        self.test: str = test

    def places(self) -> list[Place]:
        """Resolve every entry, innermost first.  Costs tens of microseconds a frame: for reports only."""
        return [resolve(code, lasti) for code, lasti in zip(self.codes, self.lastis, strict=True)]

    def head(self) -> Place:
        """Resolve the innermost entry; an empty trace gives a place with an empty file name."""
        if not self.codes:
            return Place("", 0, "?")
        return resolve(self.codes[0], self.lastis[0])

    def function(self) -> str:
        """The innermost function's qualified name, for fingerprints."""
        return self.codes[0].co_qualname if self.codes else "?"

    def spot(self) -> tuple[str, str, int]:
        """What tells the innermost place from others: file, function, position in it."""
        if not self.codes:
            return ("", "", 0)
        return (self.codes[0].co_filename, self.codes[0].co_qualname, self.lastis[0])

    def sort_key(self) -> tuple[str, str, int, str]:
        """An order between traces: the file's own name, function, position in it.

        The folder comes last: a project, its environment and the library lie in other places on every machine, and
        which of two traces is shown mustn't depend on where.
        """
        return portable_key(*self.spot())

    def begins_as(self, other: Trace) -> bool:
        """Whether both are of one place of the program, in one process."""
        return self._begins() == other._begins()

    def _begins(self) -> tuple[int, int]:
        return next(((id(code), lasti) for code, lasti in self._own()), (0, 0))

    def _own(self) -> Iterator[tuple[CodeType, int]]:
        """The entries from the first one that isn't in the standard library on; if there is none, all."""
        pairs = list(zip(self.codes, self.lastis, strict=True))
        first = next((i for i, code in enumerate(self.codes) if not _is_library(code.co_filename)), 0)
        return iter(pairs[first:])

    def place_key(self) -> tuple[str, str, int, str]:
        """As :meth:`sort_key`, of the innermost place that isn't in the standard library: what a report shows."""
        code, lasti = next(self._own(), (None, 0))
        return ("", "", 0, "") if code is None else portable_key(code.co_filename, code.co_qualname, lasti)

    def way_key(self) -> tuple[tuple[str, str, int, str], ...]:
        """What tells traces apart that end at one place: how it was come to, from the inside out."""
        pairs = zip(self.codes[1:], self.lastis[1:], strict=False)
        return tuple(portable_key(code.co_filename, code.co_qualname, lasti) for code, lasti in pairs)


EMPTY: Final = Trace((), ())


def capture(depth: int = 1, limit: int = MAX_DEPTH) -> Trace:
    """Capture the stack from ``depth`` frames up, without ctxcheck's own innermost frames.

    Costs about 50 ns a frame; ``limit`` bounds it.
    """
    trace = capture_frame(get_frame(depth), limit)
    if behalf.active:
        trace.test = behalf.now()
    return trace


def capture_frame(frame: FrameType | None, limit: int = MAX_DEPTH) -> Trace:
    """As :func:`capture`, from a frame that is given (another thread's, say)."""
    while frame is not None and is_own(frame.f_code):
        frame = frame.f_back
    codes: list[CodeType] = []
    lastis: list[int] = []
    while frame is not None and len(codes) < limit:
        codes.append(frame.f_code)
        lastis.append(frame.f_lasti)
        frame = frame.f_back
    return Trace(tuple(codes), tuple(lastis))


def capture_place(depth: int = 1) -> Trace:
    """As ``capture(depth, 1)``, in half the time: the one place that a call comes from."""
    frame: FrameType | None = get_frame(depth)
    while frame is not None and is_own(frame.f_code):
        frame = frame.f_back
    return EMPTY if frame is None else Trace((frame.f_code,), (frame.f_lasti,))


#: Up to 3.12 a function's ``f_locals`` is a dict that its frame keeps; later it is a view (PEP 667).
_SNAPSHOTS: Final = sys.version_info < (3, 13)
#: References to such a dict that :func:`local` counts where the program has none: the frame's, its own, its argument's.
_UNSHARED: Final = 3


def local(frame: FrameType, name: str) -> Any:
    """Return what a variable of a function that the calling thread runs, or has suspended, is bound to, else ``None``.

    As ``frame.f_locals.get(name)``, which up to 3.12 leaves a copy of all variables with the frame: whatever they
    were bound to would live until the function returns, ``del`` or not.  That copy is emptied again, unless
    somebody else may be looking at it (who called ``locals()``, a debugger).
    """
    values = frame.f_locals
    found = values.get(name)
    if _SNAPSHOTS and sys.gettrace() is None and sys.getrefcount(values) <= _UNSHARED:
        code = frame.f_code
        for names in (code.co_varnames, code.co_cellvars, code.co_freevars):
            for each in names:
                values.pop(each, None)
    return found


_LIBRARY: Final = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def suspended_at(body: Any) -> Trace:
    """Where a coroutine or async generator waits: its own frames, which aren't on the stack now, and who resumed it."""
    own, around = chain_of(body), capture(1)
    return Trace((*own.codes, *around.codes)[:MAX_DEPTH], (*own.lastis, *around.lastis)[:MAX_DEPTH], around.test)


def chain_of(body: Any) -> Trace:
    """Where a coroutine or async generator waits, innermost first, from what awaits in the program's own code.

    It may be another thread's, and go on meanwhile: then what is returned was so a moment ago.
    """
    codes: list[CodeType] = []
    lastis: list[int] = []
    for frame in frames_of(body):
        if not is_own(frame.f_code):
            codes.append(frame.f_code)
            lastis.append(frame.f_lasti)
            greenlet = greenlet_in(frame)
            codes.extend(reversed(greenlet.codes))
            lastis.extend(reversed(greenlet.lastis))
        if len(codes) >= MAX_DEPTH:
            break
    # the place that says something is the last one outside the standard library
    while len(codes) > 1 and _is_library(codes[-1].co_filename):
        codes.pop()
        lastis.pop()
    return Trace(tuple(reversed(codes)), tuple(reversed(lastis)))


def frames_of(body: Any) -> Iterator[Any]:
    """The frames of a suspended coroutine or generator and of what each waits for, outermost first."""
    for _ in range(4 * MAX_DEPTH):
        if body is None:
            return
        frame: Any = _first(body, *_FRAMES)
        if frame is None:
            # one step of an async generator, say, which doesn't tell what it steps
            body = next((o for o in get_referents(body) if _first(o, *_FRAMES)), None) if _is_step(body) else None
            continue
        yield frame
        waits_for = local(frame, "_ctx_it") if is_own(frame.f_code) else None
        body = waits_for or _first(body, "cr_await", "ag_await", "gi_yieldfrom")


def greenlet_in(frame: FrameType) -> Trace:
    """Where a greenlet stands that a suspended coroutine runs, and awaits in the place of: a bridge from code that
    can't await (SQLAlchemy's ``greenlet_spawn``) keeps it in a variable.  Without the bridge's own calls."""
    module = sys.modules.get("greenlet")
    kind: Any = getattr(module, "greenlet", None)
    if not isinstance(kind, type):
        return EMPTY
    for name in frame.f_code.co_varnames:
        value = local(frame, name)
        if not issubclass(type(value), kind) or (inner := value.gr_frame) is None:
            continue
        bridge = inner.f_code.co_filename
        while inner is not None and inner.f_code.co_filename == bridge and inner.f_back is not None:
            inner = inner.f_back
        return capture_frame(inner)
    return EMPTY


def _is_library(filename: str) -> bool:
    return filename.startswith(_LIBRARY) and "site-packages" not in filename


_FRAMES: Final = ("cr_frame", "ag_frame", "gi_frame")


def _is_step(thing: Any) -> bool:
    return type(thing).__name__ in ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper")


def _first(thing: Any, *names: str) -> Any:
    return next((getattr(thing, name) for name in names if getattr(thing, name, None) is not None), None)


def still_running(trace: Trace) -> FrameType | None:
    """Return the frame of this stack that runs ``trace``'s innermost code, if it is still on the stack.

    Tells "acquired here" from "first acquired on this path here": a chain is
    recorded once, and the code that made it may have returned since.
    """
    if not trace.codes:
        return None
    code = trace.codes[0]
    frame: FrameType | None = get_frame(1)
    while frame is not None:
        if frame.f_code is code:
            return frame
        frame = frame.f_back
    return None
