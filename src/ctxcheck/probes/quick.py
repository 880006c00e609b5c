"""When a call that may block doesn't: what its arguments say, asked only where it would matter.

Each of these is given the arguments of one call and says whether that call can't block the thread.  They run nothing of
the program's own, and may raise anything for arguments that the call itself refuses: it is the one to say so.  The
first line of each docstring completes "doesn't block ..." in the table of the calls.
"""

from __future__ import annotations

import _socket
import os
import stat
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, cast

from ctxcheck.probes.readers import is_ready

Arguments: TypeAlias = "tuple[Any, ...]"
Named: TypeAlias = "Mapping[str, Any]"
Quick: TypeAlias = "Callable[[Arguments, Named], bool]"

_timeout_of: Final = cast("Callable[[Any], float | None]", _socket.socket.gettimeout)
_DONT_WAIT: Final[int] = getattr(_socket, "MSG_DONTWAIT", 0)
_FAMILIES: Final = (_socket.AF_INET, _socket.AF_INET6)
_is_blocking: Final = os.get_blocking
_fstat: Final = os.fstat
_status: Final = os.stat
_fspath: Final = os.fspath
_O_NONBLOCK: Final[int] = os.O_NONBLOCK

#: Trees that no disk is behind.
VIRTUAL: Final = ("/dev/", "/proc/", "/sys/")
#: Where time zones are: a class written in C reads each once, and keeps it.
_ZONES: Final = "/zoneinfo/"


def _argument(args: Arguments, kwargs: Named, index: int, name: str, default: Any = None) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def no_time(args: Arguments, kwargs: Named) -> bool:
    """with 0 seconds: it lets others run, and goes on"""
    return bool(_argument(args, kwargs, 0, "seconds") == 0)


def _timeout_at(index: int, name: str = "timeout") -> Quick:
    def polls(args: Arguments, kwargs: Named) -> bool:
        """with a timeout of 0"""
        timeout = _argument(args, kwargs, index, name)
        return timeout is not None and timeout <= 0

    return polls


first_timeout: Final = _timeout_at(1)
second_timeout: Final = _timeout_at(2)
fourth_timeout: Final = _timeout_at(3)


def polls_fds(args: Arguments, kwargs: Named) -> bool:
    """with a timeout of 0"""
    timeout = _argument(args, kwargs, 1, "timeout", -1)
    return bool(timeout == 0)


# --- descriptors -----------------------------------------------------------------


def is_quick_fd(fd: Any) -> bool:
    """Whether reads and writes of a descriptor wait for nobody: not blocking, a terminal or another character device,
    or standard output and error."""
    if not isinstance(fd, int):
        fd = fd.fileno()
    return fd in (1, 2) or not _is_blocking(fd) or stat.S_ISCHR(_fstat(fd).st_mode)


def descriptor(args: Arguments, kwargs: Named) -> bool:
    """on a descriptor with O_NONBLOCK, a terminal, standard output and error"""
    return is_quick_fd(_argument(args, kwargs, 0, "fd"))


def reads(args: Arguments, kwargs: Named) -> bool:
    """on a descriptor with O_NONBLOCK, a terminal, standard output and error; in the loop's callback for it"""
    fd = _argument(args, kwargs, 0, "fd")
    return is_quick_fd(fd) or is_ready(fd)


def descriptors(args: Arguments, kwargs: Named) -> bool:
    """where either descriptor has O_NONBLOCK"""
    return not all(_is_blocking(fd) for fd in (*args, *kwargs.values())[:2])


def virtual(args: Arguments, kwargs: Named) -> bool:
    """of a descriptor, in /dev, /proc and /sys, and of a time zone"""
    file = _argument(args, kwargs, 0, "file", kwargs.get("path"))
    if isinstance(file, int):
        return True
    name = os.fsdecode(_fspath(cast("str", file)))
    return name.startswith(VIRTUAL) or _ZONES in name


def opens_quickly(args: Arguments, kwargs: Named) -> bool:
    """with O_NONBLOCK, and in /dev, /proc and /sys"""
    return bool(_argument(args, kwargs, 1, "flags") & _O_NONBLOCK) or virtual(args, kwargs)


def unlocks(args: Arguments, kwargs: Named) -> bool:
    """with LOCK_NB, or to unlock"""
    import fcntl

    operation = _argument(args, kwargs, 1, "cmd", kwargs.get("operation"))
    return bool(operation & fcntl.LOCK_NB or operation == fcntl.LOCK_UN)


def tests_region(args: Arguments, kwargs: Named) -> bool:
    """with F_TLOCK, F_TEST and F_ULOCK"""
    return bool(_argument(args, kwargs, 1, "command") != os.F_LOCK)


# --- sockets ---------------------------------------------------------------------


def non_blocking(args: Arguments, kwargs: Named) -> bool:
    """on a non-blocking socket"""
    return _timeout_of(args[0]) == 0


def _receives_with_flags(index: int) -> Quick:
    def receives(args: Arguments, kwargs: Named) -> bool:
        """on a non-blocking socket, and with MSG_DONTWAIT; in the loop's callback for it"""
        sock = args[0]
        if _timeout_of(sock) == 0 or _argument(args, kwargs, index, "flags", 0) & _DONT_WAIT:
            return True
        return is_ready(sock.fileno())

    return receives


receives: Final = _receives_with_flags(2)
receives_into: Final = _receives_with_flags(3)


def _sends_with_flags(index: int) -> Quick:
    def sends(args: Arguments, kwargs: Named) -> bool:
        """on a non-blocking socket, with MSG_DONTWAIT, and of a datagram"""
        sock = args[0]
        if _timeout_of(sock) == 0 or sock.type == _socket.SOCK_DGRAM:
            return True
        return bool(_argument(args, kwargs, index, "flags", 0) & _DONT_WAIT)

    return sends


sends: Final = _sends_with_flags(2)
sends_message: Final = _sends_with_flags(3)


def sends_to(args: Arguments, kwargs: Named) -> bool:
    """on a non-blocking socket, and of a datagram, to a numeric address"""
    sock, address = args[0], args[-1]
    if not _resolved(sock, address):
        return False
    return _timeout_of(sock) == 0 or sock.type == _socket.SOCK_DGRAM


def connects(args: Arguments, kwargs: Named) -> bool:
    """on a non-blocking or a datagram socket, to a numeric address"""
    sock = args[0]
    if not _resolved(sock, args[1]):
        return False
    return _timeout_of(sock) == 0 or sock.type == _socket.SOCK_DGRAM


def _resolved(sock: Any, address: Any) -> bool:
    return sock.family not in _FAMILIES or is_numeric(address[0])


def is_numeric(host: Any) -> bool:
    """Whether to look this host up needs nobody: it is an address, or none at all."""
    if not host:
        return True
    text = host.decode("ascii") if isinstance(host, (bytes, bytearray)) else host
    if text in ("<broadcast>",):
        return True
    for family in _FAMILIES:
        try:
            _socket.inet_pton(family, text.partition("%")[0])
        except OSError:
            continue
        return True
    return False


def numeric_host(args: Arguments, kwargs: Named) -> bool:
    """for a numeric address, and with AI_NUMERICHOST"""
    host = _argument(args, kwargs, 0, "host")
    return is_numeric(host) or bool(_argument(args, kwargs, 5, "flags", 0) & _socket.AI_NUMERICHOST)


def numeric_name(args: Arguments, kwargs: Named) -> bool:
    """for a numeric address"""
    return is_numeric(_argument(args, kwargs, 0, "hostname"))


def numeric_answer(args: Arguments, kwargs: Named) -> bool:
    """with NI_NUMERICHOST"""
    return bool(args[1] & _socket.NI_NUMERICHOST)


# --- processes -------------------------------------------------------------------


def _options_at(index: int) -> Quick:
    def hangs_not(args: Arguments, kwargs: Named) -> bool:
        """with WNOHANG"""
        return bool(_argument(args, kwargs, index, "options") & os.WNOHANG)

    return hangs_not


wait_options: Final = _options_at(0)
waitpid_options: Final = _options_at(1)
waitid_options: Final = _options_at(2)


def spawns(args: Arguments, kwargs: Named) -> bool:
    """with P_NOWAIT"""
    return bool(_argument(args, kwargs, 0, "mode") == os.P_NOWAIT)


def has_returned(args: Arguments, kwargs: Named) -> bool:
    """for a process that is known to be over, and with a timeout of 0"""
    known = cast("dict[str, Any]", vars(args[0]))
    return known.get("returncode") is not None or first_timeout(args, kwargs)


def communicated(args: Arguments, kwargs: Named) -> bool:
    """with a timeout of 0"""
    return second_timeout(args, kwargs)


def waits_not(args: Arguments, kwargs: Named) -> bool:
    """with wait=False"""
    return not _argument(args, kwargs, 1, "wait", True)


# --- multiprocessing, databases --------------------------------------------------


def gets_at_once(args: Arguments, kwargs: Named) -> bool:
    """with block=False, and with a timeout of 0"""
    return not _argument(args, kwargs, 1, "block", True) or second_timeout(args, kwargs)


def puts_at_once(args: Arguments, kwargs: Named) -> bool:
    """into a queue without a limit, with block=False, and with a timeout of 0"""
    from multiprocessing import synchronize

    limit: int = vars(synchronize)["SEM_VALUE_MAX"]
    unlimited: bool = args[0]._maxsize >= limit
    return unlimited or not _argument(args, kwargs, 2, "block", True) or fourth_timeout(args, kwargs)


def poll_connection(args: Arguments, kwargs: Named) -> bool:
    """with a timeout of 0, its default"""
    timeout = _argument(args, kwargs, 1, "timeout", 0.0)
    return timeout is not None and timeout <= 0


def in_memory(args: Arguments, kwargs: Named) -> bool:
    """of a database in memory"""
    return str(_argument(args, kwargs, 0, "database")).startswith((":memory:", "file::memory:"))
