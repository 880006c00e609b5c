"""Where a file is, for machines: as a URI, and as seen from the top of the checkout."""

from __future__ import annotations

import posixpath
import re
from typing import Final, NamedTuple
from urllib.parse import quote

#: What a path segment may hold as it is (RFC 3986), without the colon: first in a relative path, it ends a scheme.
_SAFE: Final = "/-._~!$&'()*+,;=@"

_DRIVE: Final = re.compile(r"[A-Za-z]:[\\/]")


class Uri(NamedTuple):
    """A URI, and whether it is relative to the top of the checkout."""

    text: str
    relative: bool


def located(file: str, prefix: str = "", *, windows: bool = False) -> tuple[str, bool]:
    """Return a file's name with ``/`` and from the top of the checkout, and whether it lies below that.

    Args:
        file: as a finding has it: relative to where the run was, or absolute.
        prefix: where the run was, from the top of the checkout; empty for the top itself.
        windows: whether the run was on Windows, where a backslash separates; elsewhere it is part of a name.
    """
    if _DRIVE.match(file) or file.startswith("\\\\"):
        return file.replace("\\", "/"), False
    if windows:
        file = file.replace("\\", "/")
    if file.startswith("/") or is_no_file(file):
        return file, False
    name = posixpath.normpath(posixpath.join(prefix, file))
    return name, not (name == ".." or name.startswith("../"))


def uri(file: str, prefix: str = "", *, windows: bool = False) -> Uri:
    """Return the URI of a file: relative for what lies in the checkout, ``file:`` for what is absolute.

    Whatever isn't allowed in a URI is percent-encoded: a name that isn't UTF-8 by its bytes.
    """
    name, below = located(file, prefix, windows=windows)
    if below:
        return Uri(_quoted(name), True)
    if _DRIVE.match(name):
        return Uri(f"file:///{name[0]}:{_quoted(name[2:])}", False)
    if file.startswith("\\\\"):  # a share: its host stands in front
        return Uri("file:" + _quoted(name), False)
    return Uri("file:///" + _quoted(name.lstrip("/")) if name.startswith("/") else _quoted(name), False)


def is_no_file(file: str) -> bool:
    """Whether the code was compiled from something else: ``<string>``, ``<frozen importlib._bootstrap>``."""
    return not file or (file.startswith("<") and file.endswith(">"))


def _quoted(name: str) -> str:
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, from a file system that isn't made of bytes
        data = name.encode("utf-8", "surrogatepass")
    return quote(data, safe=_SAFE)
