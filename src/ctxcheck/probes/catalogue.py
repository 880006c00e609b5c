"""The calls of the standard library that may block: one row each, and how they are seen.

A row's name is what people write.  ``ctxcheck probes`` prints the table, ``docs/probes.md`` is made from it, and a test
holds that each row has a self-test (``selftest.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from ctxcheck.engine.blocking import CATEGORIES, Blocking, Category, call_named
from ctxcheck.probes import quick

How = Literal["function", "method", "file", "watched"]
#: What each way to see a call is, in words.
HOW: Final[dict[How, str]] = {
    "function": "the module's function is replaced",
    "method": "the class's method is replaced",
    "file": "seen by the file object that open() makes",
    "watched": "a checked class, or a probe that also follows who waits for whom",
}

#: Counted without being asked for: what waits for others, the contents of files, databases.
DEFAULT: Final[tuple[Category, ...]] = ("sleep", "wait", "network", "process", "file", "database")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row.

    ``module`` and ``path`` say where it is; ``said`` is its name in a report; ``quick`` whether a call can't block by
    its arguments; ``covers``: nothing of the program's own runs inside, so that what it calls itself isn't told again.
    ``since``: the first Python that has it; ``platform``: the start of ``sys.platform`` where it is, if not everywhere.
    """

    name: str
    category: Category
    how: How
    module: str
    path: str
    said: str
    quick: Callable[[Any, Any], bool] | None = None
    covers: bool = False
    since: tuple[int, int] = (3, 11)
    until: tuple[int, int] = (9, 0)
    call: Blocking = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "call", call_named(self.said, self.category))

    @property
    def unless(self) -> str:
        """When it doesn't block, in words; empty where it always may."""
        doc = (self.quick.__doc__ or "") if self.quick is not None else ""
        return " ".join(doc.split())

    def absent(self) -> str:
        """Why this interpreter doesn't have it; empty if it has, as far as that is known without an import."""
        version = sys.version_info[:2]
        if version < self.since:
            return f"new in Python {self.since[0]}.{self.since[1]}"
        if version > self.until:
            return f"gone since Python {self.until[0]}.{self.until[1] + 1}"
        module = sys.modules.get(self.module)
        if module is None or self.how in ("watched", "file"):
            return ""
        here: Any = module
        for part in self.path.split("."):
            here = getattr(here, part, None)
            if here is None:
                return f"not on {sys.platform}"
        return ""


def _rows(how: How, category: Category, module: str, paths: str, check: Any = None, *, public: str | None = None,
          covers: bool = False, said: str = "", called: str = "") -> list[Entry]:  # fmt: skip
    """A row for each of ``paths``, of one module; ``public`` is what people call the module, ``called`` the class."""
    prefix = module if public is None else public
    found: list[Entry] = []
    for path in paths.split():
        public_path = f"{called}.{path.rpartition('.')[2]}" if called else path
        name = f"{prefix}.{public_path}" if prefix else public_path
        if path.endswith(".__init__"):
            name = name.removesuffix(".__init__")
        short = said or (name if how == "function" or path.endswith(".__init__") else public_path)
        found.append(Entry(name, category, how, module, path, short, check, covers))
    return found


def _entries() -> list[Entry]:
    function: How = "function"
    method: How = "method"
    watched: How = "watched"
    q = quick
    return [
        # --- the clock
        *_rows(function, "sleep", "time", "sleep", q.no_time),
        # --- threads, and whatever is signalled
        *_rows(watched, "wait", "threading", "Thread.join Condition.wait Event.wait Barrier.wait", q.first_timeout),
        *_rows(watched, "wait", "queue", "Queue.get Queue.put Queue.join SimpleQueue.get", q.gets_at_once),
        *_rows(watched, "wait", "concurrent.futures._base", "Future.result Future.exception", q.first_timeout,
               public="concurrent.futures"),
        *_rows(watched, "wait", "concurrent.futures._base", "wait", q.first_timeout, public="concurrent.futures",
               said="concurrent.futures.wait"),
        *_rows(watched, "wait", "concurrent.futures._base", "as_completed", q.first_timeout,
               public="concurrent.futures", said="concurrent.futures.as_completed"),
        *_rows(watched, "wait", "concurrent.futures.thread", "ThreadPoolExecutor.shutdown", q.waits_not,
               public="concurrent.futures", said="Executor.shutdown"),
        *_rows(method, "wait", "concurrent.futures.process", "ProcessPoolExecutor.shutdown", q.waits_not,
               public="concurrent.futures", covers=True),
        *_rows(method, "wait", "asyncio.base_events", "BaseEventLoop.run_until_complete", public="asyncio",
               said="loop.run_until_complete"),
        *_rows(function, "wait", "signal", "sigwait sigwaitinfo pause"),
        *_rows(function, "wait", "signal", "sigtimedwait", q.first_timeout),
        *_rows(function, "wait", "builtins", "input", public=""),
        *_rows(function, "wait", "getpass", "getpass", covers=True),
        *_rows(function, "wait", "select", "select", q.fourth_timeout),
        *_rows(method, "wait", "selectors", "SelectSelector.select PollSelector.select EpollSelector.select "
               "DevpollSelector.select KqueueSelector.select", q.first_timeout, covers=True),
        *_rows(method, "wait", "select", "epoll.poll", q.polls_fds, said="epoll.poll"),
        # --- the network
        *_rows(method, "network", "socket", "socket.accept", q.non_blocking),
        *_rows(method, "network", "socket", "socket.connect socket.connect_ex", q.connects),
        *_rows(method, "network", "socket", "socket.recv socket.recvfrom", q.receives),
        *_rows(method, "network", "socket", "socket.recv_into socket.recvfrom_into socket.recvmsg "
               "socket.recvmsg_into", q.receives_into),
        *_rows(method, "network", "socket", "socket.send socket.sendall", q.sends),
        *_rows(method, "network", "socket", "socket.sendmsg", q.sends_message),
        *_rows(method, "network", "socket", "socket.sendto", q.sends_to),
        *_rows(method, "network", "socket", "socket.sendfile", q.non_blocking, covers=True),
        *_rows(method, "network", "ssl", "SSLSocket.accept SSLSocket.connect SSLSocket.do_handshake SSLSocket.recv "
               "SSLSocket.recv_into SSLSocket.read SSLSocket.send SSLSocket.sendall SSLSocket.write SSLSocket.unwrap",
               q.non_blocking, covers=True),
        *_rows(function, "network", "socket", "create_connection", covers=True),
        *_rows(function, "network", "socket", "getaddrinfo", q.numeric_host),
        *_rows(function, "network", "socket", "gethostbyname gethostbyname_ex", q.numeric_name),
        *_rows(function, "network", "socket", "gethostbyaddr"),
        *_rows(function, "network", "socket", "getfqdn", covers=True),
        *_rows(function, "network", "socket", "getnameinfo", q.numeric_answer),
        *_rows(function, "network", "urllib.request", "urlopen", covers=True),
        *_rows(method, "network", "http.client", "HTTPConnection.getresponse", covers=True),
        *_rows(method, "network", "smtplib", "SMTP.connect", covers=True),
        *_rows(method, "network", "ftplib", "FTP.connect", covers=True),
        *_rows(method, "network", "imaplib", "IMAP4.open", covers=True),
        # --- other processes
        *_rows(method, "process", "subprocess", "Popen.__init__", covers=True),
        *_rows(method, "process", "subprocess", "Popen.wait", q.has_returned, covers=True),
        *_rows(method, "process", "subprocess", "Popen.communicate", q.communicated, covers=True),
        *_rows(function, "process", "subprocess", "run call check_call check_output getoutput getstatusoutput",
               covers=True),
        *_rows(function, "process", "os", "system wait"),
        *_rows(function, "process", "os", "popen posix_spawn posix_spawnp", covers=True),
        *_rows(function, "process", "os", "spawnv spawnve spawnvp spawnvpe spawnl spawnle spawnlp spawnlpe", q.spawns,
               covers=True),
        *_rows(function, "process", "os", "waitpid wait4", q.waitpid_options),
        *_rows(function, "process", "os", "wait3", q.wait_options),
        *_rows(function, "process", "os", "waitid", q.waitid_options),
        *_rows(method, "process", "multiprocessing.process", "BaseProcess.start", public="multiprocessing",
               called="Process", covers=True),
        *_rows(method, "process", "multiprocessing.process", "BaseProcess.join", q.first_timeout,
               public="multiprocessing", called="Process", covers=True),
        *_rows(method, "process", "multiprocessing.queues", "Queue.get", q.gets_at_once, covers=True,
               public="multiprocessing", said="multiprocessing.Queue.get"),
        *_rows(method, "process", "multiprocessing.queues", "Queue.put", q.puts_at_once, covers=True,
               public="multiprocessing", said="multiprocessing.Queue.put"),
        *_rows(method, "process", "multiprocessing.queues", "SimpleQueue.get", covers=True,
               public="multiprocessing", said="multiprocessing.SimpleQueue.get"),
        *_rows(method, "process", "multiprocessing.connection", "_ConnectionBase.recv", covers=True,
               called="Connection"),
        *_rows(method, "process", "multiprocessing.connection", "_ConnectionBase.recv_bytes", covers=True,
               called="Connection"),
        *_rows(method, "process", "multiprocessing.connection", "_ConnectionBase.poll", q.poll_connection, covers=True,
               called="Connection"),
        *_rows(method, "process", "multiprocessing.pool", "ApplyResult.get ApplyResult.wait", q.first_timeout,
               covers=True, called="AsyncResult"),
        *_rows(method, "process", "multiprocessing.pool", "Pool.join", covers=True),
        # --- files: their contents
        *_rows(function, "file", "builtins", "open", q.virtual, public=""),
        *_rows("file", "file", "io", "FileIO.read", said="file.read"),
        *_rows("file", "file", "io", "FileIO.write", said="file.write"),
        *_rows(function, "file", "os", "open", q.opens_quickly),
        *_rows(function, "file", "os", "read readv", q.reads),
        *_rows(function, "file", "os", "write pread pwrite writev preadv pwritev", q.descriptor),
        *_rows(function, "file", "os", "sendfile copy_file_range splice", q.descriptors),
        *_rows(function, "file", "os", "fsync fdatasync sync"),
        *_rows(function, "file", "os", "lockf", q.tests_region),
        *_rows(function, "file", "fcntl", "flock lockf", q.unlocks),
        *_rows(function, "file", "shutil", "copyfile rmtree", covers=True),
        # --- databases
        *_rows(function, "database", "sqlite3", "connect", q.in_memory),
        # --- files: their names and attributes
        *_rows(function, "metadata", "os", "stat lstat access statvfs listdir scandir mkdir rmdir rename replace "
               "remove unlink link symlink readlink chmod chown utime truncate getcwd chdir"),
    ]  # fmt: skip


#: All rows, by name.
ENTRIES: Final[dict[str, Entry]] = {entry.name: entry for entry in _entries()}


def chosen(blocking: Iterable[str] = DEFAULT, not_blocking: Iterable[str] = ()) -> list[Entry]:
    """The rows of these categories, without those of these names.

    Raises:
        ValueError: there is no such category, or no such name; the message names the nearest one.
    """
    categories, without = frozenset(blocking), frozenset(not_blocking)
    for category in sorted(categories - {*CATEGORIES}):
        raise ValueError(f"blocking: no category is called {category!r}{_near(category, CATEGORIES)}")
    for name in sorted(without - ENTRIES.keys()):
        raise ValueError(f"not-blocking: no call is called {name!r}{_near(name, ENTRIES)}")
    return [e for e in ENTRIES.values() if e.category in categories and e.name not in without]


def _near(word: str, words: Iterable[str]) -> str:
    import difflib

    found = difflib.get_close_matches(word, [*words], 1)
    return f"; did you mean {found[0]!r}?" if found else f"; allowed: {', '.join(words)}" if len(word) else ""
