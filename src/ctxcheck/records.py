"""The records of a data file, read back.

Nothing is trusted: sizes are bounded, and a damaged line costs that line only.  A line is in memory at a time, so that
a combined file may be as long as it likes.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from os import close as _close
from os import fstat as _fstat
from os import open as _open
from typing import Any, Final, cast

from ctxcheck.datafile import SCHEMA_VERSION
from ctxcheck.engine.errors import ConfigError

#: The reader's bounds, in bytes.
MAX_LINE: Final = 16 * 2**20
MAX_FILE: Final = 64 * 2**20
#: Of a combined file, which is read a line at a time by those who know what to do with it.
MAX_COMBINED: Final = 16 * 2**30
#: Lines of one file that are read, and how many of those may be damaged: beyond that it is no data file.
MAX_LINES: Final = 1_000_000
MAX_DAMAGED: Final = 10_000
#: Lists and objects in one line, and half of the quotes: what takes far more memory than it takes text.
MAX_PARTS: Final = 1_000_000
#: How many damaged lines are named one by one.
MAX_PROBLEMS: Final = 100

_BINARY: Final = getattr(os, "O_BINARY", 0)  # Windows only


class DataError(ConfigError):
    """A data file can't be used at all.  The message is one line that names the file."""


def read(
    path: str, *, max_line: int = MAX_LINE, max_file: int = MAX_FILE
) -> tuple[dict[str, Any] | None, list[dict[str, Any]], list[str]]:
    """Read a data file: its header (``None`` if that line is damaged), its records, and what is wrong with it.

    Each problem is one line that says where; after a hundred, they are only counted.  Lines over
    ``max_line`` bytes are skipped, and nothing is read beyond ``max_file`` bytes.

    Raises :class:`DataError` if the file can't be read, or was written by a newer version.
    """
    header: dict[str, Any] | None = None
    records: list[dict[str, Any]] = []
    problems: list[str] = []
    damaged = 0
    for number, record, problem in scan(path, max_line=max_line, max_file=max_file):
        if problem:
            damaged += 1
            if damaged <= MAX_PROBLEMS:
                problems.append(f"line {number}: {problem}")
        elif record is not None and record["type"] == "header":
            header = record
        elif record is not None:
            records.append(record)
    if damaged > MAX_PROBLEMS:
        problems.append(f"and {damaged - MAX_PROBLEMS} more damaged lines")
    return header, records, problems


def scan(
    path: str, *, max_line: int = MAX_LINE, max_file: int = MAX_FILE
) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    """Go through a data file a line at a time: for each its number, and the record or else what is wrong with it.

    The first record is the header, of a version that can be read, if that line is whole.  Bounds and errors as for
    :func:`read`; no more than one line is in memory.
    """
    left = [max_file]
    damaged = 0
    for number, line in _lines(path, max_line, left):
        record, problem = _parse(line) if isinstance(line, bytes) else (None, line)
        if record is not None and number == 1:
            record, problem = _check_header(path, record)
            if record is not None and record.get("combined") is True:
                left[0] += max(MAX_COMBINED - max_file, 0)
        elif record is not None and record["type"] == "header":
            record, problem = None, "a second header"
        yield number, record, problem
        damaged += record is None
        if damaged > MAX_DAMAGED:
            yield number, None, f"more than {MAX_DAMAGED:,} lines are damaged: nothing is read beyond"
            return


def header_of(path: str) -> dict[str, Any] | None:
    """The header of a data file; ``None`` if its first line isn't one.  Raises as :func:`read`."""
    for number, line in _lines(path, MAX_LINE, [MAX_LINE]):
        record = _parse(line)[0] if number == 1 and isinstance(line, bytes) else None
        return None if record is None else _check_header(path, record)[0]
    return None


def _check_header(path: str, record: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    version = record.get("schema_version")
    if record["type"] != "header" or not isinstance(version, int) or isinstance(version, bool) or version < 1:
        return None, "not a header of ctxcheck"
    if version > SCHEMA_VERSION:
        known = f"this version of ctxcheck reads up to {SCHEMA_VERSION}"
        raise DataError(f"{_shown(path)}: data of schema version {str(version)[:20]}; {known}")
    return record, ""


def _parse(line: bytes) -> tuple[dict[str, Any] | None, str]:
    if len(line) > MAX_PARTS and line.count(b"[") + line.count(b"{") + line.count(b'"') // 2 > MAX_PARTS:
        return None, f"more than {MAX_PARTS:,} parts"
    try:
        value: Any = json.loads(line.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
    except UnicodeDecodeError:
        return None, "not UTF-8"
    except RecursionError:
        return None, "nested too deeply"
    except ValueError:
        return None, "not JSON" if line.endswith(b"\n") else "cut short"
    if not isinstance(value, dict) or not isinstance(cast("dict[str, Any]", value).get("type"), str):
        return None, "not a record"
    return cast("dict[str, Any]", value), ""


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(text)
    return value


def _lines(path: str, max_line: int, left: list[int]) -> Iterator[tuple[int, bytes | str]]:
    """The lines that are not blank, with their numbers; a text instead of a line says why it was skipped.

    ``left[0]`` is how many bytes may still be read.
    """
    start = left[0]
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        descriptor = _open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
        if not stat.S_ISREG(_fstat(descriptor).st_mode):
            _close(descriptor)
            raise DataError(f"{_shown(path)}: not a data file")
        with os.fdopen(descriptor, "rb") as file:
            number = 0
            while left[0] > 0 and (line := file.readline(min(max_line + 1, left[0]))):
                number += 1
                left[0] -= len(line)
                if number > MAX_LINES:
                    yield number, f"nothing is read beyond {MAX_LINES:,} lines"
                    return
                if len(line) <= max_line or line.endswith(b"\n"):
                    if line.strip():
                        yield number, line
                    continue
                while left[0] > 0 and not line.endswith(b"\n") and (line := file.readline(min(max_line, left[0]))):
                    left[0] -= len(line)
                yield number, f"longer than {max_line} bytes"
            if file.read(1):
                yield number + 1, f"nothing is read beyond {start} bytes"
    except OSError as error:
        raise DataError(f"{_shown(path)}: can't be read: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{_shown(path)}: can't be read: {error}") from None


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)
