"""Find and compile a script as the interpreter does: paths, importers, code, nearest matches.

The lower half of :mod:`ctxcheck.runner`.  The rules are CPython's own, odd ones included: the
script's path is made absolute but not normalized, its folder is resolved through all links,
and the errors of a file that can't be decoded differ from those of a string.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType


def absolute(path: str) -> str:
    """Return the interpreter's absolute form of a path: not normalized, symbolic links kept."""
    if os.name == "nt":
        return os.path.abspath(path)
    folder = "" if path.startswith("/") else current_folder()
    if not folder:
        return path
    if path == ".":
        return folder
    return f"{folder.rstrip('/')}/{path}"


def current_folder() -> str | None:
    """Return the working directory, or ``None`` if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def script_folder(path: str) -> str:
    """Return the folder of a script with all links followed: what ``sys.path[0]`` is."""
    try:
        path = os.path.realpath(path, strict=True)
    except (OSError, ValueError):
        pass  # a pipe, as in `<(...)`; or nothing at all, which is found out next
    return os.path.dirname(path)


def importer_for(path: str) -> object | None:
    """Return the importer of a directory or zip file, ``None`` for anything else.

    The interpreter remembers the answer in ``sys.path_importer_cache``, and so does this.
    """
    cache = sys.path_importer_cache
    if path in cache:
        return cache[path]
    importer = None
    for hook in sys.path_hooks:
        try:
            importer = hook(path)
            break
        except (ImportError, ValueError):
            continue
    cache[path] = importer
    return importer


def compile_script(data: bytes, path: str) -> CodeType:
    """Compile a script's bytes, encoding cookie and all.

    Raises :class:`SyntaxError` with the words that the interpreter has for a *file*.
    """
    if b"\0" in data:
        before = data[: data.index(b"\0")].decode("utf-8", "replace")
        line = before.rpartition("\n")[2]
        raise SyntaxError("source code cannot contain null bytes", (path, before.count("\n") + 1, 0, line))
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = error.start
    else:
        bad = -1
    if bad >= 0 and not _declares_encoding(data):
        number = data.count(b"\n", 0, bad) + 1
        raise SyntaxError(
            f"Non-UTF-8 code starting with '\\x{data[bad]:02x}' in file {path} on line {number}, "
            "but no encoding declared; see https://peps.python.org/pep-0263/ for details"
        )
    try:
        return compile(data, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        if error.lineno != 0:
            raise
        # Line 0: the encoding itself is wrong.  Of a file, that is said without a place.
        text = error.msg.replace("unknown encoding", "encoding problem", 1)
    raise SyntaxError(text)


def _declares_encoding(data: bytes) -> bool:
    """Is there an encoding cookie in the first line, or in the second after a comment?"""
    import re

    first = rb"(?:[ \t\f]*(?:#[^\r\n]*)?(?:\r?\n|\r))?"
    return re.match(first + rb"[ \t\f]*#[^\r\n]*?coding[:=][ \t]*[-\w.]+", data) is not None


def load_compiled(data: bytes) -> CodeType:
    """Return the code in a ``.pyc`` file's bytes; :class:`RuntimeError` if it is another version's."""
    import _frozen_importlib_external as external
    import marshal

    if data[:4] != external.MAGIC_NUMBER:
        raise RuntimeError("Bad magic number in .pyc file")
    code: object = marshal.loads(data[16:])
    if not isinstance(code, type(load_compiled.__code__)):
        raise RuntimeError("Bad code object in .pyc file")  # as the interpreter does
    return code


def near_file(folder: str, name: str) -> str:
    """Return ``"; did you mean 'x.py'?"`` for the file in ``folder`` that is called most like ``name``, or ``""``."""
    try:
        names = os.listdir(folder or ".")
    except (OSError, ValueError):
        return ""
    return _near(name, (other for other in names if other != name))


def near_module(name: str) -> str:
    """Return the same for the first part of a dotted module name that does not exist.

    Looks into the packages on the way, which imports them; to be called after that has been tried anyway.
    """
    from importlib.util import find_spec
    from pkgutil import iter_modules

    known, folders = "", None
    for part in name.split("."):
        names = {module.name for module in iter_modules(folders)}
        if not known:
            names |= sys.stdlib_module_names
        if part not in names:
            return _near(known + part, sorted(known + other for other in names))
        known += part
        try:
            spec = find_spec(known)
        except Exception:
            return ""
        if spec is None or spec.submodule_search_locations is None:
            return ""
        known, folders = f"{known}.", list(spec.submodule_search_locations)
    return ""


def _near(name: str, names: Iterable[str]) -> str:
    import difflib

    matches = difflib.get_close_matches(name, [*names], n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
