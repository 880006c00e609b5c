"""The data directory: what each process found, on disk before the program can hang or be killed.

Every process writes a file of its own, ``run.<host>.<pid>.jsonl``: a header line, then a line of JSON for
each record.  A line is one ``write`` to a descriptor opened for appending, so nothing waits in
a buffer of ours, and lines of several threads don't mix.

The writer is called from wherever the program happens to be: under its locks, in a finalizer, in a
signal handler that interrupted this very code, after ``fork``, after a daemon closed all
descriptors.  So it has no lock and never waits: threads that create the file at the same time
each create one, and the losers remove theirs.  It lets no error out; the first is kept in
:attr:`DataFile.error`.  The functions of :mod:`os` are bound here, before the program can replace them.

The program mustn't notice: its descriptors have the numbers that they would have without us, which ours keeps out of
the way of; a limit on the size of files is asked for before each write, since to run into it raises a signal; and in
another root directory, after ``chroot``, nothing is created.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from os import close as _close
from os import fstat as _fstat
from os import getpid as _getpid
from os import getppid as _getppid
from os import mkdir as _mkdir
from os import open as _open
from os import stat as _stat
from os import unlink as _unlink
from os import urandom as _random
from os import write as _write
from typing import Any, Final, NamedTuple, cast

from ctxcheck.engine.postponed import postpones

if sys.platform != "win32":
    from fcntl import F_DUPFD_CLOEXEC as _DUPLICATE
    from fcntl import fcntl as _fcntl
    from resource import RLIM_INFINITY as _NO_LIMIT
    from resource import RLIMIT_FSIZE as _SIZE
    from resource import getrlimit as _getrlimit

SCHEMA_VERSION: Final = 1

_CREATE: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)  # Windows only
_NUMBERED: Final = 9  # then names are drawn: process numbers come back, in containers each time
_MAX_NAMES: Final = 100
#: Numbers from which on our descriptor has its own, the first that the system allows: a program gets the lowest that
#: are free, and counts on it where it closes one to open another in its place; daemons close the first few hundred.
_NUMBERS: Final = (700, 200, 50, 10)
_MAX_DEPTH: Final = 8

_now, _gmtime, _strftime = time.time, time.gmtime, time.strftime


class _Open(NamedTuple):
    """An open file of ours; device and inode tell whether the descriptor still is that file."""

    descriptor: int
    device: int
    inode: int
    path: str

    def is_ours(self) -> bool:
        """A daemon closes all descriptors that it finds, and the number may by now be a socket of the program."""
        return self.size() >= 0

    def size(self) -> int:
        """How long the file is by now; -1 if this is another file."""
        try:
            status = _fstat(self.descriptor)
        except OSError:
            return -1
        return status.st_size if (status.st_dev, status.st_ino) == (self.device, self.inode) else -1


class DataFile:
    """This process's file in ``directory``; nothing is created before the first record.

    ``argv`` and ``facts`` go into the header, with an ``id`` that no other process has, and the ``run`` that children
    have in common with it.  ``path`` is the file's path
    once there is one.  ``error`` is the first thing that went wrong, in one line, for the caller to say once: a record
    is lost then, but the program isn't disturbed.  A forked child begins a file of its own with its first record.
    """

    def __init__(self, directory: str, argv: Sequence[str], facts: Mapping[str, Any] | None = None) -> None:
        self.path: str | None = None
        self.error: str | None = None
        self._argv = [*argv]
        self._facts = {**(facts or {})}
        self.run: str = str(self._facts.pop("run", "")) or _random(8).hex()
        self.directory: str = directory
        try:
            self.directory = os.path.abspath(directory)  # the program may change its working directory
        except OSError:
            pass
        self._root: tuple[int, int] | None = _root()
        self._begin()

    def _begin(self) -> None:
        self._closed = self._torn = False
        self._failures = self._skipped = 0
        # A file is published under the number of its turn by dict.setdefault, which is atomic; a file that
        # was lost ends its turn.
        self._files: dict[int, _Open] = {}
        self._turn = 0
        self._pid = _getpid()
        self._id = _random(12).hex()

    @postpones
    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record as one line.

        When this returns, the system has the line, unless :attr:`error` says otherwise.  Values that
        JSON doesn't know are written as their ``repr``.  Raises nothing.
        """
        try:
            if self._pid != _getpid():
                self._leave_to_parent()
            if self._may_write():
                self._append(self._file(), _line(record))
        except Exception as error:
            self._remember("write", error)

    @postpones
    def begin(self) -> str | None:
        """The path of the file that the next record goes to, created if need be; ``None`` if there is none.

        It is another one than before in a forked child, and after the program has closed all descriptors.  Raises
        nothing.
        """
        try:
            if self._pid != _getpid():
                self._leave_to_parent()
            if self._may_write():
                return self._file().path
        except Exception as error:
            self._remember("write", error)
        return None

    def close(self) -> None:
        """Close the file.  Later records are dropped; a second call does nothing."""
        if self._closed or self._pid != _getpid():
            return
        self._closed = True
        file = self._files.get(self._turn)
        try:
            if file is not None and file.is_ours():
                _close(file.descriptor)
        except Exception as error:
            self._remember("close", error)

    def _leave_to_parent(self) -> None:
        """In a forked child: what is open belongs to the parent."""
        inherited, closed = self._files.get(self._turn), self._closed
        self.path = self.error = None
        self._begin()
        self._closed = closed
        if inherited is not None and inherited.is_ours():
            _close(inherited.descriptor)

    def _may_write(self) -> bool:
        """Whether to try: after the file couldn't be created, ever more seldom."""
        if self._closed:
            return False
        if self._failures:
            self._skipped += 1
            return self._skipped >> self._failures > 0
        return True

    def _file(self) -> _Open:
        turn = self._turn
        file = self._files.get(turn)
        if file is not None:
            if file.is_ours():
                return file
            turn += 1
            self._turn = turn  # the same for all who notice
        try:
            mine = self._create()
        except OSError:
            self._failures, self._skipped = min(self._failures + 1, 10), 0
            raise
        self._failures = 0
        file = self._files.setdefault(turn, mine)
        if file is mine:
            self.path, self._torn = file.path, False
        else:
            _close(mine.descriptor)
            _unlink(mine.path)
        return file

    def _append(self, file: _Open, line: bytes) -> None:
        if self._torn:
            line = b"\n" + line  # the last line stayed unfinished: keep the damage to that one
        while True:
            _make_sure_of_room(file.size() + len(line))
            written = _write(file.descriptor, line)
            if written >= len(line):
                break
            self._torn = True  # the disk is full, then: trying again says so
            line = line[written:]
        self._torn = False

    def _create(self) -> _Open:
        """Create a file that holds its header, and the directory if need be."""
        if _root() != self._root:
            raise OSError(errno.EXDEV, "the program has gone to another root directory")
        header = _line(self._header())
        _make_sure_of_room(len(header))
        make_folder(self.directory)
        stem = f"{self.directory}/run.{_host()}.{self._pid}"
        for number in range(1, _MAX_NAMES):
            more = "" if number == 1 else f".{number}" if number <= _NUMBERED else f".{_random(6).hex()}"
            path = f"{stem}{more}.jsonl"
            try:
                descriptor = _open(path, _CREATE | _BINARY, 0o666)
            except FileExistsError:
                continue
            try:
                descriptor = _out_of_the_way(descriptor)
                status = _fstat(descriptor)
                if _write(descriptor, header) != len(header):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                _close(descriptor)
                _unlink(path)
                raise
            return _Open(descriptor, status.st_dev, status.st_ino, path)
        raise FileExistsError(f"{_MAX_NAMES} files of this process's name")

    def _header(self) -> dict[str, Any]:
        return {
            "type": "header",
            "schema_version": SCHEMA_VERSION,
            "tool": "ctxcheck",
            "id": self._id,
            **self._facts,
            "argv": self._argv,
            "python": sys.version.split()[0],
            "implementation": sys.implementation.name,
            "platform": sys.platform,
            "pid": self._pid,
            "parent_pid": _getppid(),
            "run": self.run,
            "started": _strftime("%Y-%m-%dT%H:%M:%SZ", _gmtime(_now())),
        }

    def _remember(self, what: str, error: Exception) -> None:
        if self.error is None:
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            self.error = " ".join(f"can't {what} data file {self.path or self.directory}: {reason}".split())


def _root() -> tuple[int, int] | None:
    """Which root directory this process has."""
    try:
        status = _stat("/")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _make_sure_of_room(size: int) -> None:
    """Raise :class:`OSError` if a file mustn't become that long.

    A write beyond the limit raises ``SIGXFSZ``: the program may have a handler, and what is done by default is to die.
    """
    if sys.platform != "win32":
        limit = _getrlimit(_SIZE)[0]
        if size >= limit and limit != _NO_LIMIT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _out_of_the_way(descriptor: int) -> int:
    """The same file under a number that no program counts on.  Raises :class:`OSError`, with nothing closed, where
    that is one of the standard streams' and there is no other."""
    if sys.platform != "win32":
        for number in _NUMBERS:
            try:
                moved = _fcntl(descriptor, _DUPLICATE, number)
            except OSError as error:
                if error.errno == errno.EINVAL:  # beyond the limit
                    continue
                break
            _close(descriptor)
            return moved
    if descriptor <= 2:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return descriptor


def make_folder(path: str) -> None:
    """Create a data directory, hidden from git, unless it is there.  Raises :class:`OSError`."""
    if not _make_directory(path):
        return
    # Only in a folder that is ours: elsewhere it would hide the user's own files from git.
    try:
        descriptor = _open(f"{path}/.gitignore", _CREATE | _BINARY, 0o666)
        _write(descriptor, b"*\n")
        _close(descriptor)
    except OSError:
        pass  # a convenience; if it matters, the next call fails too


def _make_directory(path: str) -> bool:
    """Create the directory; ``False`` if it was there."""
    missing = [path]
    for _ in range(100):  # a path can't be longer; a link that leads nowhere could be tried for ever
        try:
            _mkdir(missing[-1], 0o777)
        except FileExistsError:
            if len(missing) == 1:
                return False
        except FileNotFoundError:
            missing.append(os.path.dirname(missing[-1]) or os.curdir)
            continue
        missing.pop()
        if not missing:
            return True
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _text(value: object) -> str:
    try:
        return repr(value)
    except Exception:
        return object.__repr__(value)


_encode = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), default=_text).encode


def _line(record: Mapping[str, Any]) -> bytes:
    try:
        text = _encode(record)
    except (TypeError, ValueError, RecursionError):
        text = _encode(_plain(record, 0))
    return f"{text}\n".encode("ascii")


def _plain(value: Any, depth: int) -> Any:
    """A copy that JSON can hold, of a record that it can't: a cycle, NaN, a key that is no text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**64 else hex(value)
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if depth < _MAX_DEPTH and isinstance(value, dict):
        items = cast("Mapping[Any, Any]", value).items()
        return {key if isinstance(key, str) else _text(key): _plain(item, depth + 1) for key, item in items}
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in cast("Sequence[Any]", value)]
    return "..." if depth == _MAX_DEPTH else _text(value)


def _host() -> str:
    """This machine's name, as far as it can stand in a file's name."""
    uname = getattr(os, "uname", None)
    name = str(uname().nodename) if uname is not None else os.environ.get("COMPUTERNAME", "")
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:64] or "host"
