"""Where a trace points to, for people: files, lines, columns and the text that stands there.

Everything here works on code objects and on :mod:`linecache`; no frame, no object of the program and no code
of the program is touched.  What can't be found out is left empty.
"""

from __future__ import annotations

import linecache
import os
import sys
import threading
from opcode import opmap
from os import getcwd as _getcwd
from os import stat as _stat
from types import CodeType
from typing import Final, NamedTuple

from ctxcheck.engine.sites import RUNNER, Trace, is_own, resolve
from ctxcheck.engine.violations import Frame, Site, Stack

#: A longer source line (generated or minified) is cut here, in characters.
MAX_TEXT: Final = 2000

#: Lines above an item of a ``with`` statement in which its ``with`` is looked for.
_MAX_HEADER: Final = 30

#: Lines of a block that are looked at.
_MAX_BLOCK: Final = 500

_LIBRARY: Final = os.path.dirname(getattr(threading, "__file__", None) or os.__file__) + os.sep
_PLUMBING_FILES: Final = frozenset(_LIBRARY + name + ".py" for name in ("contextlib", "queue", "runpy", "threading"))
_PLUMBING: Final = (
    *(_LIBRARY + name + os.sep for name in ("asyncio", "importlib", os.path.join("concurrent", "futures"))),
    *("<frozen " + name for name in ("contextlib", "importlib", "runpy", "zipimport")),
)

_UNITTEST: Final = _LIBRARY + os.path.join("unittest", "case.py")
_ASYNC_UNITTEST: Final = _LIBRARY + os.path.join("unittest", "async_case.py")

#: Scopes that are functions of their own on some versions only (PEP 709), and say nothing to people.
_INLINED: Final = ("<listcomp>", "<dictcomp>", "<setcomp>")


def plain(text: object) -> str:
    """Return ``text`` as an exact ``str``, without running a method of a subclass; ``"?"`` for anything else."""
    return str.__str__(text) if issubclass(type(text), str) else "?"  # pyright: ignore[reportArgumentType]


def code(text: object) -> str:
    """Return a name in backticks."""
    return f"`{plain(text).replace('`', chr(39))}`"


def without_scopes(qualname: object) -> str:
    """Return a qualified name without the scopes that only some versions of Python have."""
    text = plain(qualname)
    if "comp>" not in text:
        return text
    parts = [part for part in text.split(".") if part not in _INLINED]
    while parts and parts[-1] == "<locals>":
        parts.pop()
    return ".".join(parts) or "<module>"


def function_name(qualname: object) -> str:
    """Return a function's name as reports show it: ``test_it.helper`` for ``test_it.<locals>.helper``."""
    text = without_scopes(qualname).replace(".<locals>", "")
    return "" if text == "?" else text


def call_name(qualname: object) -> str:
    """Return ``name()`` for use in a sentence, without the functions around it; empty if it has no name of its own."""
    text = without_scopes(qualname).rpartition("<locals>.")[2]
    return "" if not text or "<" in text or text == "?" else f"{text}()"


def short_name(name: object) -> str:
    """Return what a program calls a function or a thing, without the functions around it."""
    return without_scopes(name).rpartition("<locals>.")[2]


def as_call(name: object) -> str:
    """Return ``name()`` for the name of a function, and anything else in backticks."""
    text = short_name(name)
    return f"{text}()" if text.replace(".", "").isidentifier() else code(text)


class Outline(NamedTuple):
    """Where on a source line the first colon and the comment are, outside of strings and brackets; -1 for nowhere."""

    colon: int
    comment: int


def outline(text: str) -> Outline:
    """Look for the colon that ends a statement's head and for the comment.  One line is all that is looked at."""
    depth, quote, colon = 0, "", -1
    index = 0
    while index < len(text):
        char = text[index]
        if quote:
            if char == "\\":
                index += 1
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char == "#":
            return Outline(colon, index)
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == ":" and depth == 0 and colon < 0:
            colon = index
        index += 1
    return Outline(colon, -1)


def is_with(text: str) -> bool:
    """Whether a source line begins a ``with`` statement."""
    words = text.lstrip()
    if words.startswith("async "):
        words = words[6:].lstrip()
    return words.startswith(("with ", "with("))


class Spot(NamedTuple):
    """One resolved entry of a trace.  Columns count characters of ``text``, which keeps its indentation."""

    file: str
    line: int
    function: str
    text: str = ""
    column: int = -1
    end_column: int = -1
    filename: str = ""

    def where(self) -> str:
        """``file:line``, or what is known of it."""
        return f"{self.file}:{self.line}" if self.line > 0 else self.file


NOWHERE: Final = Spot("", 0, "")


def exists(filename: str) -> bool:
    """``os.path.exists`` by the interpreter's own call: reports are put together in the middle of the program, where
    others forbid such calls (blockbuster does)."""
    try:
        _stat(filename)
    except (OSError, ValueError):
        return False
    return True


class Sources:
    """Resolves traces.  Paths below ``cwd`` (by default the working directory) become relative to it."""

    __slots__ = ("_checked", "_root")

    def __init__(self, cwd: str | None = None) -> None:
        if cwd is None:
            try:
                cwd = _getcwd()
            except OSError:  # it was removed
                cwd = ""
        self._root = cwd.rstrip(os.sep) + os.sep if cwd else ""
        self._checked: set[str] = set()

    def file(self, filename: object) -> str:
        """Return a file's name as it is shown."""
        name = plain(filename)
        return name[len(self._root) :] if self._root and name.startswith(self._root) else name

    def spot(self, scope: CodeType, lasti: int) -> Spot:
        """Resolve one entry of a trace."""
        place = resolve(scope, lasti)
        filename = plain(place.filename)
        self._refresh(filename)
        line, text = place.line, _line(filename, place.line)
        head = _head_of_with(scope, lasti, filename, line)
        if head:
            line, text = head, _line(filename, head)
        column, end = _span(text, place.column, place.end_column if place.end_line == place.line else -1)
        return Spot(self.file(filename), line, function_name(place.function), text, column, end, filename)

    def _refresh(self, filename: str) -> None:
        """Forget what was read of a file that has been written anew since; of one that is gone it is kept."""
        if filename not in self._checked:
            self._checked.add(filename)
            try:
                if exists(filename):
                    linecache.checkcache(filename)
            except Exception:  # a damaged cache is not ours to mend
                pass

    def head(self, trace: Trace) -> Spot:
        """Resolve the innermost entry that is the program's own; an empty trace gives an empty spot."""
        for scope, lasti in visible(trace):
            return self.spot(scope, lasti)
        return NOWHERE

    def where(self, trace: Trace) -> str:
        """``file:line`` of the innermost entry; empty for an empty trace."""
        return self.head(trace).where()

    def encloses(self, held: Trace, now: Trace) -> bool:
        """Whether what was entered at ``held`` can be what the call at ``now`` is inside of.

        The code of ``held`` must still be running; and where it is a ``with`` block, the call must be made from
        inside of the block.  That goes by indentation, and gives the benefit of the doubt.
        """
        at = next((i for i, scope in enumerate(now.codes) if held.codes and scope is held.codes[0]), -1)
        if at < 0:
            return False
        head = self.spot(held.codes[0], held.lastis[0])
        call = self.spot(now.codes[at], now.lastis[at])
        if not is_with(head.text) or not call.text or head.line == call.line:
            return True
        margin = _indent(head.text)
        lines = [_line(head.filename, number) for number in range(head.line + 1, call.line + 1)][:_MAX_BLOCK]
        # a closing bracket may stand at the margin, where the head takes several lines
        return head.line < call.line and all(
            _indent(line) > margin for line in lines if line.strip() and line.lstrip()[0] not in "#)]}"
        )

    def site(self, role: str, trace: Trace, label: str, heading: str = "") -> Site:
        """Return a site of a report; the primary one (``now``) gets the line above it too."""
        spot = self.head(trace)
        before = _line(spot.filename, spot.line - 1) if role == "now" and spot.text else ""
        return Site(
            role, spot.file, spot.line, spot.function, spot.text, label, heading, spot.column, spot.end_column, before
        )

    def stack(self, title: str, owner: str, trace: Trace, depth: int) -> Stack:
        """Return the ``depth`` innermost calls of a trace, most recent last."""
        entries = visible(trace)[: max(depth, 1)]
        spots = [self.spot(scope, lasti) for scope, lasti in reversed(entries)]
        return Stack(title, owner, tuple(Frame(s.file, s.line, s.function, s.text.strip()) for s in spots))


def visible(trace: Trace) -> list[tuple[CodeType, int]]:
    """Return the entries of a trace that say something to people, innermost first; all of them if none does.

    Left out: ctxcheck itself, the library's plumbing, and whatever runs the program or the test.
    """
    entries = list(zip(trace.codes, trace.lastis, strict=False))
    return _program(entries) or entries


def is_program(trace: Trace) -> bool:
    """Whether some call of a trace is the program's own."""
    return bool(_program(list(zip(trace.codes, trace.lastis, strict=False))))


def _program(entries: list[tuple[CodeType, int]]) -> list[tuple[CodeType, int]]:
    kept: list[tuple[CodeType, int]] = []
    for scope, lasti in entries:
        name = plain(scope.co_filename)
        if _is_runner(name, plain(scope.co_qualname)):
            break
        if not (is_own(scope) or name in _PLUMBING_FILES or name.startswith(_PLUMBING)):
            kept.append((scope, lasti))
    return kept


def test_of(trace: Trace) -> str:
    """``test_bank.TestBank.test_transfer``, if that is the test of :mod:`unittest` that a call was made for; where only
    its stack tells, without the module; else empty."""
    if trace.test:
        return without_scopes(plain(trace.test))
    inner = ""
    for scope in trace.codes:
        if plain(scope.co_filename) == _UNITTEST and plain(scope.co_qualname).startswith("TestCase._call"):
            return without_scopes(inner)
        inner = plain(scope.co_qualname)
    return ""


#: Files of pytest's, and words in the names of their functions, that run a test, a fixture, a hook, or import a module.
#: Others (`raises`, `monkeypatch`) are called by tests, and call them.
_PYTEST: Final = {
    "fixtures.py": ("call",), "main.py": ("",), "python.py": ("call", "import"), "rewrite.py": ("exec_module",),
    "runner.py": ("",), "unittest.py": ("",),
}  # fmt: skip


def _is_runner(filename: str, qualname: str) -> bool:
    """Whether this is the call that runs the program, or one test: what called it is of no interest."""
    if filename == RUNNER:
        return True
    if filename == _UNITTEST:
        return qualname.startswith("TestCase._call")
    if filename == _ASYNC_UNITTEST:
        return qualname.startswith("IsolatedAsyncioTestCase.")
    *_, outer, inner, name = ["", "", *filename.split(os.sep)]
    if inner == "pluggy":
        return "_pytest" in sys.modules  # whoever it is that pytest asks; else it is the program's way to its plugins
    return "_pytest" in (outer, inner) and any(word in qualname for word in _PYTEST.get(name, ()))


def _line(filename: str, line: int) -> str:
    if line <= 0:
        return ""
    try:
        text = linecache.getline(filename, line)
    except Exception:  # a loader that fails; the report goes without the line
        return ""
    return plain(text).rstrip("\r\n")[:MAX_TEXT]


def _indent(text: str) -> int:
    text = text.expandtabs()
    return len(text) - len(text.lstrip())


def _span(text: str, column: int, end_column: int) -> tuple[int, int]:
    """Turn columns in bytes into columns in characters; the first line of the expression is all that is marked.

    Versions of Python don't agree on what of a ``with`` statement takes the lock; its whole head is marked.
    """
    if not text.strip():
        return -1, -1
    head = outline(text)
    code_end = len((text if head.comment < 0 else text[: head.comment]).rstrip())
    if is_with(text):
        return len(text) - len(text.lstrip()), head.colon + 1 if head.colon >= 0 else code_end
    start = _characters(text, column)
    end = _characters(text, end_column) if end_column >= 0 else code_end
    return (start, end) if 0 <= start < end <= len(text) else (-1, -1)


def _characters(text: str, column: int) -> int:
    if column < 0 or text.isascii():
        return column
    return len(text.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "ignore"))


#: The instructions that enter a ``with`` block.
_ENTERS: Final = frozenset(opmap[name] for name in ("BEFORE_WITH", "BEFORE_ASYNC_WITH") if name in opmap)


def _head_of_with(scope: CodeType, lasti: int, filename: str, line: int) -> int:
    """The line of the ``with`` whose item is entered at ``line``, where the head takes several lines; else 0.

    3.13 tells the item's own line, and the versions before it the statement's.
    """
    if sys.version_info < (3, 13) or lasti < 0 or is_with(_line(filename, line)):
        return 0
    instructions = scope.co_code
    if lasti >= len(instructions) or instructions[lasti] not in _ENTERS:
        return 0
    for above in range(line - 1, max(line - _MAX_HEADER, scope.co_firstlineno - 1), -1):
        text = _line(filename, above)
        if is_with(text):
            return above if outline(text).colon < 0 else 0
    return 0
