"""Which data files there are: those of a data directory, or of what a user names."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from ctxcheck.records import DataError

#: What ``ctxcheck combine`` writes where no other file is named.
COMBINED: Final = "combined.jsonl"

#: The names of data files; in a directory, nothing else is looked at.
_NAME: Final = re.compile(r"(run\..+|combined([.-].+)?)\.jsonl", re.ASCII)
#: Folders that are looked into below one that is named.
_MAX_FOLDERS: Final = 100_000


def is_data(name: str) -> bool:
    """Whether a file of this name in a data directory is one of ours."""
    return _NAME.fullmatch(name) is not None


def find(paths: Iterable[str]) -> Iterator[str]:
    """The data files that ``paths`` name, sorted within each: a file is taken as it is, of a directory all data files
    in it and below.  Links in a directory are not followed, and pipes, sockets and devices are no files.

    Raises:
        DataError: a path doesn't exist; one line that names it and its nearest match.
    """
    for path in paths:
        if os.path.isdir(path):
            yield from sorted(_below(path))
        elif os.path.lexists(path):
            yield path
        else:
            raise DataError(f"{_shown(path)}: no such file or folder{_near(path)}")


def erase(folder: str) -> int:
    """Remove the data files of a data directory, and itself if nothing else is in it; returns how many there were.

    Raises:
        DataError: one can't be removed.
    """
    number = 0
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if is_data(e.name) and not e.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise DataError(f"{_shown(folder)}: can't be read: {error.strerror or error}") from None
    for name in names:
        path = os.path.join(folder, name)
        try:
            os.unlink(path)
            number += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            raise DataError(f"{_shown(path)}: can't be removed: {error.strerror or error}") from None
    _remove_folder(folder)
    return number


def remove(paths: Iterable[str], folder: str, keep: str) -> int:
    """Remove those of these data files that are in a data directory, but for ``keep``; returns how many there were."""
    home, kept, number = os.path.realpath(folder), os.path.realpath(keep), 0
    for path in paths:
        real = os.path.realpath(path)
        if os.path.dirname(real) == home and real != kept and is_data(os.path.basename(real)):
            try:
                os.unlink(real)
                number += 1
            except OSError as error:
                raise DataError(f"{_shown(path)}: can't be removed: {error.strerror or error}") from None
    return number


def _remove_folder(folder: str) -> None:
    ignore = os.path.join(folder, ".gitignore")
    try:
        if os.listdir(folder) == [".gitignore"]:
            with open(ignore, "rb") as file:
                if file.read(3) != b"*\n":
                    return  # not the one that we wrote
            os.unlink(ignore)
        os.rmdir(folder)
    except OSError:
        pass  # something else is in it


def _below(folder: str) -> Iterator[str]:
    for number, (at, _, names) in enumerate(os.walk(folder)):
        if number >= _MAX_FOLDERS:
            raise DataError(f"{_shown(folder)}: more than {_MAX_FOLDERS:,} folders; name the data files' own")
        for name in names:
            path = os.path.join(at, name)
            if is_data(name) and _is_file(path):
                yield path


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False  # it has gone meanwhile


def _near(path: str) -> str:
    folder, name = os.path.split(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return ""
    match = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {os.path.join(folder, match[0])!r}?" if match else ""


def _shown(path: str) -> str:
    return path if path.isprintable() else repr(path)
