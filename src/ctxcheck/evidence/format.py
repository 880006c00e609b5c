"""What both sides of a document know: its version, what kinds and modes are called in it, how files are named."""

from __future__ import annotations

import os
from typing import Any, Final

from ctxcheck.engine import classes
from ctxcheck.engine.classes import Kind, Mode
from ctxcheck.engine.errors import ConfigError

SCHEMA_VERSION: Final = 1

#: The greatest line and column.
MAX_LINE: Final = 2**30
MAX_COLUMN: Final = 2**20

KINDS: Final = {value.name: value for value in vars(classes).values() if isinstance(value, Kind)}
MODES: Final = {value.name: value for value in vars(classes).values() if isinstance(value, Mode)}

#: Files of the standard library are written with this in front: it lives elsewhere on another machine.
LIBRARY: Final = "<library>/"
_HOME: Final = os.path.dirname(os.path.abspath(os.__file__)) + os.sep

Document = dict[str, Any]


class EvidenceError(ConfigError):
    """A document can't be used; the message is one line that says where it is wrong."""


def to_portable(filename: str) -> str:
    """The name of a file as other machines have it, if it is one of the standard library."""
    if filename.startswith(_HOME):
        return LIBRARY + filename[len(_HOME) :].replace(os.sep, "/")
    return filename


def from_portable(name: str) -> str | None:
    """The name that a file of the standard library has here; ``None`` for others."""
    if not name.startswith(LIBRARY):
        return None
    parts = name[len(LIBRARY) :].split("/")
    return _HOME + os.sep.join(part for part in parts if part not in ("", ".", ".."))
