"""What the self-test calls, for each row of the catalogue: a real call that may block, and one that can't.

This file is compiled under another name, so that its functions count as a program's: nothing here imports ctxcheck.
``CASES`` maps a row's name to (call, call that can't block or ``None``); each is given a :class:`Scene`.
"""

# mypy: ignore-errors
# pyright: basic, reportAttributeAccessIssue=false, reportFunctionMemberAccess=false, reportArgumentType=false
# pyright: reportReturnType=false, reportCallIssue=false
from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import os
import queue
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any


class Scene:
    """A folder, two sockets that are connected, two that aren't blocking, a server, a database, ...: made when asked
    for, and taken down at the end."""

    def __init__(self) -> None:
        self.stack: contextlib.ExitStack[bool | None] = contextlib.ExitStack()

    def close(self) -> None:
        self.stack.close()

    @functools.cached_property
    def folder(self) -> str:
        return self.stack.enter_context(tempfile.TemporaryDirectory())

    @functools.cached_property
    def path(self) -> str:
        path = os.path.join(self.folder, "file")
        fd = self.real_open(path, os.O_CREAT | os.O_RDWR)
        os.close(fd)
        return path

    def real_open(self, path: str, flags: int) -> int:
        return getattr(os.open, "__wrapped__", os.open)(path, flags)

    @functools.cached_property
    def fd(self) -> int:
        fd = self.real_open(self.path, os.O_RDWR)
        self.stack.callback(os.close, fd)
        return fd

    @functools.cached_property
    def other_fd(self) -> int:
        fd = self.real_open(os.path.join(self.folder, "other"), os.O_RDWR | os.O_CREAT)
        self.stack.callback(os.close, fd)
        return fd

    def _pipe(self, *, blocking: bool) -> tuple[int, int]:
        reader, writer = os.pipe()
        self.stack.callback(os.close, reader)
        self.stack.callback(os.close, writer)
        for fd in (reader, writer):
            os.set_blocking(fd, blocking)
        return reader, writer

    @functools.cached_property
    def pipe(self) -> tuple[int, int]:
        return self._pipe(blocking=False)

    @functools.cached_property
    def slow_pipe(self) -> tuple[int, int]:
        return self._pipe(blocking=True)

    def pair(self, *, timeout: float | None, filled: bool = True) -> tuple[socket.socket, socket.socket]:
        a, b = socket.socketpair()
        for sock in (a, b):
            self.stack.callback(sock.close)
            sock.setblocking(False)
        if filled:
            a.send(b"x" * 64)
            b.send(b"x" * 64)
        for sock in (a, b):
            sock.settimeout(timeout)
        return a, b

    @functools.cached_property
    def blocking(self) -> tuple[socket.socket, socket.socket]:
        return self.pair(timeout=None)

    @functools.cached_property
    def instant(self) -> tuple[socket.socket, socket.socket]:
        return self.pair(timeout=0)

    @functools.cached_property
    def listener(self) -> socket.socket:
        listener = socket.socket()
        self.stack.callback(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(32)
        return listener

    def client(self, timeout: float | None = None) -> socket.socket:
        sock = socket.socket()
        self.stack.callback(sock.close)
        sock.settimeout(timeout)
        return sock

    def datagram(self, timeout: float | None = None) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.stack.callback(sock.close)
        sock.settimeout(timeout)
        return sock

    def ssl_socket(self, timeout: float | None) -> Any:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        a, b = self.pair(timeout=timeout, filled=False)
        # whoever is at the other end has gone: each of these comes back at once, with an error
        wrapped = context.wrap_socket(a, server_hostname="localhost", do_handshake_on_connect=False)
        b.close()
        self.stack.callback(wrapped.close)
        return wrapped

    @functools.cached_property
    def address(self) -> tuple[str, int]:
        """A server that answers whatever it is told with something that is right for nobody, and hangs up."""
        listener = self.listener
        accept = getattr(socket.socket.accept, "__wrapped__", socket.socket.accept)

        def serve() -> None:
            while True:
                try:
                    sock, _ = accept(listener)
                except OSError:
                    return
                with sock:
                    sock.settimeout(10)
                    with contextlib.suppress(OSError):
                        sock.sendall(self.answer)
                        sock.shutdown(socket.SHUT_WR)
                        while sock.recv(1 << 16):
                            pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.stack.callback(lambda: listener.shutdown(socket.SHUT_RDWR))
        return listener.getsockname()

    answer = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"

    def child(self, code: str = "") -> subprocess.Popen[bytes]:
        with_stdin = subprocess.Popen([sys.executable, "-S", "-c", code])
        self.stack.callback(with_stdin.wait)
        return with_stdin

    def fork(self) -> int:
        return os.posix_spawn.__wrapped__(  # type: ignore[attr-defined]
            sys.executable, [sys.executable, "-S", "-c", ""], dict(os.environ)
        )

    def done(self) -> concurrent.futures.Future[int]:
        """Nobody has looked whether it is."""
        pool = concurrent.futures.ThreadPoolExecutor(1)
        self.stack.callback(pool.shutdown)
        return pool.submit(int)

    def pending_signal(self) -> set[int]:
        """A blocked signal that has come already."""
        wanted = {signal.SIGUSR2}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
        self.stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        os.kill(os.getpid(), signal.SIGUSR2)
        return wanted


def _fails(function: Any, *args: Any, **kwargs: Any) -> None:
    """The call is made; what comes of it is no matter."""
    with contextlib.suppress(Exception):
        function(*args, **kwargs)


def _started(function: Any = int) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def _barrier() -> None:
    barrier = threading.Barrier(1)
    barrier.wait()


def _condition(timeout: float) -> None:
    condition = threading.Condition()
    with condition:
        condition.wait(timeout)


def _queue(item: bool = True, *, kind: Any = queue.Queue) -> Any:
    q: Any = kind()
    if item:
        q.put(1)
    return q


def _pool(s: Scene) -> Any:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    pool.submit(int)
    s.stack.callback(pool.shutdown)
    return pool


def _process_pool() -> Any:
    from concurrent.futures import process

    return process.ProcessPoolExecutor(1)


def _loop_in_loop() -> None:
    import asyncio

    loop = asyncio.new_event_loop()
    coroutine = asyncio.sleep(0)
    try:
        _fails(loop.run_until_complete, coroutine)
    finally:
        coroutine.close()
        loop.close()


def _with_stdin(s: Scene, function: Any) -> None:
    before = sys.stdin
    path = s.path
    with open(path, "w") as file:
        file.write("x\n")
    try:
        with open(path) as sys.stdin:
            function()
    finally:
        sys.stdin = before


def _getpass() -> None:
    import getpass
    import warnings

    class Nobody:
        def readline(self) -> str:
            return "x\n"

    before = sys.stdin, sys.stderr
    sys.stdin = Nobody()  # type: ignore[assignment]
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as sys.stderr:
            warnings.simplefilter("ignore")
            getpass.getpass(stream=sys.stderr)
    finally:
        sys.stdin, sys.stderr = before


def _alarm() -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        signal.pause()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _selector(name: str, timeout: float) -> None:
    with getattr(selectors, name)() as selector:
        selector.select(timeout)


def _epoll(timeout: float) -> None:
    with select.epoll() as poll:
        poll.poll(timeout)


def _popen_waited(s: Scene, **kwargs: Any) -> None:
    s.child().wait(**kwargs)


def _returned(s: Scene) -> Any:
    child = s.child()
    getattr(child.wait, "__func__", child.wait).__wrapped__(child)
    return child


def _communicate(s: Scene, **kwargs: Any) -> None:
    _fails(s.child().communicate, **kwargs)


_PY = [sys.executable, "-S", "-c", ""]
_SHELL = "exit 0"


def _reaped(function: Any, *args: Any) -> None:
    pid = function(*args)
    getattr(os.waitpid, "__wrapped__", os.waitpid)(pid, 0)


def _mp() -> Any:
    import multiprocessing.connection
    import multiprocessing.pool
    import multiprocessing.queues

    return multiprocessing


def _process(s: Scene, timeout: float | None = None, *, join: bool = True) -> None:
    process = _mp().get_context("fork").Process(target=int)
    process.start()
    s.stack.callback(type(process).join.__wrapped__, process) if hasattr(type(process).join, "__wrapped__") else None
    if join:
        process.join(timeout)


def _mp_queue(s: Scene, kind: str = "Queue", *args: Any) -> Any:
    q = getattr(_mp().get_context("fork"), kind)(*args)
    s.stack.callback(q.close)
    return q


def _mp_filled(s: Scene, kind: str = "Queue") -> Any:
    q = _mp_queue(s, kind)
    q.put(1)
    return q


def _connections(s: Scene) -> Any:
    a, b = _mp().Pipe()
    s.stack.callback(a.close)
    s.stack.callback(b.close)
    os.write(b.fileno(), b"\0\0\0\4K\1.\0")  # the length of a message, and a pickled 1
    return a


def _applied() -> Any:
    import multiprocessing.pool as pools

    result = pools.ApplyResult.__new__(pools.ApplyResult)
    result._event = threading.Event()
    result._event.set()
    result._success, result._value = True, 1
    return result


def _pool_joined() -> None:
    from multiprocessing.pool import ThreadPool

    pool = ThreadPool(1)
    pool.close()
    pool.join()


def _elsewhere(s: Scene, mode: str, path: str = "") -> Any:
    """A file that was opened by another function than the one that uses it."""
    return open(path or s.path, mode)


def _read(s: Scene, path: str = "") -> None:
    file = s.stack.enter_context(_elsewhere(s, "rb", path))
    file.read(1)


def _write(s: Scene, path: str = "") -> None:
    file = s.stack.enter_context(_elsewhere(s, "wb", path))
    file.write(b"x")
    file.flush()


def _open(path: str, flags: int = os.O_RDONLY) -> None:
    os.close(os.open(path, flags))


def _builtin_open(path: Any) -> None:
    open(path).close()


def _scratch(s: Scene) -> str:
    return os.path.join(s.folder, f"scratch{time.monotonic_ns()}")


def _made(s: Scene) -> str:
    path = _scratch(s)
    os.close(s.real_open(path, os.O_CREAT | os.O_RDWR))
    return path


def _made_folder(s: Scene) -> str:
    path = _scratch(s)
    getattr(os.mkdir, "__wrapped__", os.mkdir)(path)
    return path


def _copy_range(s: Scene, source: int, target: int) -> None:
    _fails(os.copy_file_range, source, target, 0)


def _fcntl(function: str, fd: int, operation: int) -> None:
    import fcntl

    getattr(fcntl, function)(fd, operation)


def _nonblocking_flock() -> int:
    import fcntl

    return fcntl.LOCK_EX | fcntl.LOCK_NB


def _sqlite(path: str) -> None:
    import sqlite3

    sqlite3.connect(path).close()


def _urlopen(s: Scene) -> None:
    import urllib.request

    opener = f"http://127.0.0.1:{s.address[1]}/"
    _fails(urllib.request.urlopen, opener, timeout=10)


def _getresponse(s: Scene) -> None:
    import http.client

    connection = http.client.HTTPConnection(*s.address, timeout=10)
    s.stack.callback(connection.close)
    connection.request("GET", "/")
    _fails(connection.getresponse)


def _mail(s: Scene) -> None:
    import smtplib

    smtp = smtplib.SMTP(timeout=10)
    s.stack.callback(smtp.close)
    _fails(smtp.connect, *s.address)


def _ftp(s: Scene) -> None:
    import ftplib

    ftp = ftplib.FTP(timeout=10)
    s.stack.callback(ftp.close)
    _fails(ftp.connect, *s.address)


def _imap(s: Scene) -> None:
    import imaplib

    imap = imaplib.IMAP4.__new__(imaplib.IMAP4)
    _fails(imap.open, *s.address, 10)
    s.stack.callback(imap.sock.close)
    s.stack.callback(imap.file.close)


def _ssl(s: Scene, timeout: float | None, name: str, *args: Any) -> None:
    _fails(getattr(s.ssl_socket(timeout), name), *args)


def _ssl_plain(s: Scene, timeout: float | None, name: str, *args: Any) -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    wrapped = context.wrap_socket(s.client(timeout), do_handshake_on_connect=False)
    s.stack.callback(wrapped.close)
    _fails(getattr(wrapped, name), *args)


def _closed_port(s: Scene) -> tuple[str, int]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    address: tuple[str, int] = sock.getsockname()
    sock.close()
    return address


def _sendfile(s: Scene, sock: socket.socket) -> None:
    with _elsewhere(s, "rb") as file:
        _fails(sock.sendfile, file)


CASES: dict[str, tuple[Callable[[Scene], Any], Callable[[Scene], Any] | None]] = {
    "time.sleep": (lambda s: time.sleep(0.0001), lambda s: time.sleep(0)),
    "threading.Thread.join": (lambda s: _started(lambda: time.sleep(0.01)).join(), lambda s: _started().join(0)),
    "threading.Condition.wait": (lambda s: _condition(0.001), lambda s: _condition(0)),
    "threading.Event.wait": (lambda s: threading.Event().wait(0.001), lambda s: threading.Event().wait(0)),
    "threading.Barrier.wait": (lambda s: _barrier(), None),
    "queue.Queue.get": (lambda s: _queue().get(), lambda s: _queue().get(block=False)),
    "queue.Queue.put": (lambda s: queue.Queue(1).put(1), lambda s: queue.Queue(1).put(1, block=False)),
    "queue.Queue.join": (lambda s: queue.Queue().join(), None),
    "queue.SimpleQueue.get": (
        lambda s: _queue(kind=queue.SimpleQueue).get(), lambda s: _queue(kind=queue.SimpleQueue).get(block=False)
    ),
    "concurrent.futures.Future.result": (lambda s: s.done().result(), lambda s: _fails(s.done().result, 0)),
    "concurrent.futures.Future.exception": (lambda s: s.done().exception(), lambda s: _fails(s.done().exception, 0)),
    "concurrent.futures.wait": (
        lambda s: concurrent.futures.wait([s.done()]), lambda s: concurrent.futures.wait([s.done()], 0)
    ),
    "concurrent.futures.as_completed": (
        lambda s: list(concurrent.futures.as_completed([s.done()])), None
    ),
    "concurrent.futures.ThreadPoolExecutor.shutdown": (
        lambda s: _pool(s).shutdown(), lambda s: _pool(s).shutdown(wait=False)
    ),
    "concurrent.futures.ProcessPoolExecutor.shutdown": (
        lambda s: _process_pool().shutdown(), lambda s: _process_pool().shutdown(wait=False)
    ),
    "asyncio.BaseEventLoop.run_until_complete": (lambda s: _loop_in_loop(), None),
    "signal.sigwait": (lambda s: signal.sigwait(s.pending_signal()), None),
    "signal.sigwaitinfo": (lambda s: signal.sigwaitinfo(s.pending_signal()), None),
    "signal.sigtimedwait": (
        lambda s: signal.sigtimedwait(s.pending_signal(), 1), lambda s: signal.sigtimedwait([signal.SIGUSR2], 0)
    ),
    "signal.pause": (lambda s: _alarm(), None),
    "input": (lambda s: _with_stdin(s, input), None),
    "getpass.getpass": (lambda s: _getpass(), None),
    "select.select": (lambda s: select.select([], [], [], 0.001), lambda s: select.select([], [], [], 0)),
    **{
        f"selectors.{name}.select": (
            lambda s, name=name: _selector(name, 0.001), lambda s, name=name: _selector(name, 0)
        )
        for name in ("SelectSelector", "PollSelector", "EpollSelector", "DevpollSelector", "KqueueSelector")
    },
    "select.epoll.poll": (lambda s: _epoll(0.001), lambda s: _epoll(0)),
    "socket.socket.accept": (
        lambda s: (s.client(0).connect_ex(s.listener.getsockname()), s.listener.accept()[0].close()),
        lambda s: (s.listener.setblocking(False), _fails(s.listener.accept)),
    ),
    "socket.socket.connect": (
        lambda s: s.client().connect(s.listener.getsockname()),
        lambda s: (_fails(s.client(0).connect, s.listener.getsockname()), s.datagram().connect(("127.0.0.1", 9))),
    ),
    "socket.socket.connect_ex": (
        lambda s: s.client().connect_ex(s.listener.getsockname()),
        lambda s: s.client(0).connect_ex(s.listener.getsockname()),
    ),
    "socket.socket.recv": (
        lambda s: s.blocking[0].recv(1), lambda s: (s.instant[0].recv(1), s.blocking[0].recv(1, socket.MSG_DONTWAIT))
    ),
    "socket.socket.recvfrom": (lambda s: s.blocking[0].recvfrom(1), lambda s: s.instant[0].recvfrom(1)),
    "socket.socket.recv_into": (
        lambda s: s.blocking[0].recv_into(bytearray(1)), lambda s: s.instant[0].recv_into(bytearray(1))
    ),
    "socket.socket.recvfrom_into": (
        lambda s: s.blocking[0].recvfrom_into(bytearray(1)), lambda s: s.instant[0].recvfrom_into(bytearray(1))
    ),
    "socket.socket.recvmsg": (lambda s: s.blocking[0].recvmsg(1), lambda s: s.instant[0].recvmsg(1)),
    "socket.socket.recvmsg_into": (
        lambda s: s.blocking[0].recvmsg_into([bytearray(1)]), lambda s: s.instant[0].recvmsg_into([bytearray(1)])
    ),
    "socket.socket.send": (lambda s: s.blocking[0].send(b"x"), lambda s: s.instant[0].send(b"x")),
    "socket.socket.sendall": (lambda s: s.blocking[0].sendall(b"x"), lambda s: s.instant[0].sendall(b"x")),
    "socket.socket.sendmsg": (
        lambda s: s.blocking[0].sendmsg([b"x"]),
        lambda s: (s.instant[0].sendmsg([b"x"]), s.blocking[0].sendmsg([b"x"], [], socket.MSG_DONTWAIT)),
    ),
    "socket.socket.sendto": (
        lambda s: _fails(s.blocking[0].sendto, b"x", s.blocking[1].getsockname()),
        lambda s: s.datagram().sendto(b"x", ("127.0.0.1", 9)),
    ),
    "socket.socket.sendfile": (
        lambda s: _sendfile(s, s.blocking[0]), lambda s: _sendfile(s, s.instant[0])
    ),
    **{
        f"ssl.SSLSocket.{name}": (
            lambda s, name=name, args=args: _ssl(s, 10, name, *args),
            lambda s, name=name, args=args: _ssl(s, 0, name, *args),
        )
        for name, args in {
            "do_handshake": (), "recv": (1,), "recv_into": (bytearray(1),), "read": (1,), "send": (b"x",),
            "sendall": (b"x",), "write": (b"x",), "unwrap": (),
        }.items()
    },
    "ssl.SSLSocket.connect": (
        lambda s: _ssl_plain(s, 10, "connect", _closed_port(s)), lambda s: _ssl_plain(s, 0, "connect", _closed_port(s))
    ),
    "ssl.SSLSocket.accept": (
        lambda s: _ssl_plain(s, 10, "accept"), lambda s: _ssl_plain(s, 0, "accept")
    ),
    "socket.create_connection": (lambda s: socket.create_connection(s.listener.getsockname()).close(), None),
    "socket.getaddrinfo": (lambda s: socket.getaddrinfo("localhost", 80), lambda s: socket.getaddrinfo("::1", 80)),
    "socket.gethostbyname": (
        lambda s: socket.gethostbyname("localhost"), lambda s: socket.gethostbyname("127.0.0.1")
    ),
    "socket.gethostbyname_ex": (
        lambda s: socket.gethostbyname_ex("localhost"), lambda s: socket.gethostbyname_ex("127.0.0.1")
    ),
    "socket.gethostbyaddr": (lambda s: _fails(socket.gethostbyaddr, "127.0.0.1"), None),
    "socket.getfqdn": (lambda s: socket.getfqdn("localhost"), None),
    "socket.getnameinfo": (
        lambda s: _fails(socket.getnameinfo, ("127.0.0.1", 80), 0),
        lambda s: socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST),
    ),
    "urllib.request.urlopen": (_urlopen, None),
    "http.client.HTTPConnection.getresponse": (_getresponse, None),
    "smtplib.SMTP.connect": (_mail, None),
    "ftplib.FTP.connect": (_ftp, None),
    "imaplib.IMAP4.open": (_imap, None),
    "subprocess.Popen": (lambda s: s.child(), None),
    "subprocess.Popen.wait": (_popen_waited, lambda s: _returned(s).wait()),
    "subprocess.Popen.communicate": (_communicate, lambda s: _communicate(s, timeout=0)),
    "subprocess.run": (lambda s: subprocess.run(_PY, check=False), None),
    "subprocess.call": (lambda s: subprocess.call(_PY), None),
    "subprocess.check_call": (lambda s: subprocess.check_call(_PY), None),
    "subprocess.check_output": (lambda s: subprocess.check_output(_PY), None),
    "subprocess.getoutput": (lambda s: subprocess.getoutput(_SHELL), None),
    "subprocess.getstatusoutput": (lambda s: subprocess.getstatusoutput(_SHELL), None),
    "os.system": (lambda s: os.system(_SHELL), None),
    "os.popen": (lambda s: os.popen(_SHELL).close(), None),
    "os.posix_spawn": (lambda s: _reaped(os.posix_spawn, sys.executable, _PY, dict(os.environ)), None),
    "os.posix_spawnp": (lambda s: _reaped(os.posix_spawnp, sys.executable, _PY, dict(os.environ)), None),
    "os.spawnv": (
        lambda s: os.spawnv(os.P_WAIT, sys.executable, _PY),
        lambda s: _reaped(os.spawnv, os.P_NOWAIT, sys.executable, _PY),
    ),
    "os.spawnve": (lambda s: os.spawnve(os.P_WAIT, sys.executable, _PY, dict(os.environ)), None),
    "os.spawnvp": (lambda s: os.spawnvp(os.P_WAIT, sys.executable, _PY), None),
    "os.spawnvpe": (lambda s: os.spawnvpe(os.P_WAIT, sys.executable, _PY, dict(os.environ)), None),
    "os.spawnl": (lambda s: os.spawnl(os.P_WAIT, sys.executable, *_PY), None),
    "os.spawnle": (lambda s: os.spawnle(os.P_WAIT, sys.executable, *_PY, dict(os.environ)), None),
    "os.spawnlp": (lambda s: os.spawnlp(os.P_WAIT, sys.executable, *_PY), None),
    "os.spawnlpe": (lambda s: os.spawnlpe(os.P_WAIT, sys.executable, *_PY, dict(os.environ)), None),
    "os.wait": (lambda s: (s.fork(), os.wait()), None),
    "os.wait3": (
        lambda s: (s.fork(), os.wait3(0)), lambda s: _fails(os.wait3, os.WNOHANG)
    ),
    "os.waitpid": (
        lambda s: os.waitpid(s.fork(), 0), lambda s: _fails(os.waitpid, -1, os.WNOHANG)
    ),
    "os.wait4": (lambda s: os.wait4(s.fork(), 0), lambda s: _fails(os.wait4, -1, os.WNOHANG)),
    "os.waitid": (
        lambda s: os.waitid(os.P_PID, s.fork(), os.WEXITED),
        lambda s: _fails(os.waitid, os.P_ALL, 0, os.WEXITED | os.WNOHANG),
    ),
    "multiprocessing.Process.start": (lambda s: _process(s), None),
    "multiprocessing.Process.join": (lambda s: _process(s), lambda s: _process(s, 0)),
    "multiprocessing.Queue.get": (
        lambda s: _mp_filled(s).get(), lambda s: _fails(_mp_queue(s).get, block=False)
    ),
    "multiprocessing.Queue.put": (
        lambda s: _mp_queue(s, "Queue", 1).put(1),
        lambda s: (_mp_queue(s).put(1), _mp_queue(s, "Queue", 1).put(1, block=False)),
    ),
    "multiprocessing.SimpleQueue.get": (lambda s: _mp_filled(s, "SimpleQueue").get(), None),
    "multiprocessing.connection.Connection.recv": (lambda s: _fails(_connections(s).recv), None),
    "multiprocessing.connection.Connection.recv_bytes": (lambda s: _connections(s).recv_bytes(), None),
    "multiprocessing.connection.Connection.poll": (
        lambda s: _connections(s).poll(0.001), lambda s: _connections(s).poll()
    ),
    "multiprocessing.pool.AsyncResult.get": (lambda s: _applied().get(), lambda s: _applied().get(0)),
    "multiprocessing.pool.AsyncResult.wait": (lambda s: _applied().wait(), lambda s: _applied().wait(0)),
    "multiprocessing.pool.Pool.join": (lambda s: _pool_joined(), None),
    "open": (lambda s: _builtin_open(s.path), lambda s: _builtin_open(os.devnull)),
    "io.FileIO.read": (_read, lambda s: _read(s, os.devnull)),
    "io.FileIO.write": (_write, lambda s: _write(s, os.devnull)),
    "os.open": (lambda s: _open(s.path), lambda s: (_open(os.devnull), _open(s.path, os.O_NONBLOCK))),
    "os.read": (lambda s: os.read(s.fd, 1), lambda s: _fails(os.read, s.pipe[0], 1)),
    "os.write": (lambda s: os.write(s.fd, b"x"), lambda s: os.write(s.pipe[1], b"x")),
    "os.pread": (lambda s: os.pread(s.fd, 1, 0), None),
    "os.pwrite": (lambda s: os.pwrite(s.fd, b"x", 0), None),
    "os.readv": (lambda s: os.readv(s.fd, [bytearray(1)]), lambda s: _fails(os.readv, s.pipe[0], [bytearray(1)])),
    "os.writev": (lambda s: os.writev(s.fd, [b"x"]), lambda s: os.writev(s.pipe[1], [b"x"])),
    "os.preadv": (lambda s: os.preadv(s.fd, [bytearray(1)], 0), None),
    "os.pwritev": (lambda s: os.pwritev(s.fd, [b"x"], 0), None),
    "os.sendfile": (
        lambda s: os.sendfile(s.blocking[0].fileno(), s.fd, 0, 1),
        lambda s: os.sendfile(s.instant[0].fileno(), s.fd, 0, 1),
    ),
    "os.copy_file_range": (lambda s: _copy_range(s, s.fd, s.other_fd), lambda s: _copy_range(s, s.pipe[0], s.fd)),
    "os.splice": (
        lambda s: _fails(os.splice, s.fd, s.slow_pipe[1], 0), lambda s: _fails(os.splice, s.fd, s.pipe[1], 0)
    ),
    "os.fsync": (lambda s: os.fsync(s.fd), None),
    "os.fdatasync": (lambda s: os.fdatasync(s.fd), None),
    "os.sync": (lambda s: os.sync(), None),
    "os.lockf": (lambda s: os.lockf(s.fd, os.F_LOCK, 0), lambda s: os.lockf(s.fd, os.F_TLOCK, 0)),
    "fcntl.flock": (lambda s: _fcntl("flock", s.fd, 2), lambda s: _fcntl("flock", s.fd, _nonblocking_flock())),
    "fcntl.lockf": (lambda s: _fcntl("lockf", s.fd, 2), lambda s: _fcntl("lockf", s.fd, _nonblocking_flock())),
    "shutil.copyfile": (lambda s: shutil.copyfile(s.path, _scratch(s)), None),
    "shutil.rmtree": (lambda s: shutil.rmtree(_made_folder(s)), None),
    "sqlite3.connect": (lambda s: _sqlite(os.path.join(s.folder, "base")), lambda s: _sqlite(":memory:")),
    "os.stat": (lambda s: os.stat(s.path), None),
    "os.lstat": (lambda s: os.lstat(s.path), None),
    "os.access": (lambda s: os.access(s.path, os.R_OK), None),
    "os.statvfs": (lambda s: os.statvfs(s.folder), None),
    "os.listdir": (lambda s: os.listdir(s.folder), None),
    "os.scandir": (lambda s: os.scandir(s.folder).close(), None),
    "os.mkdir": (lambda s: os.mkdir(_scratch(s)), None),
    "os.rmdir": (lambda s: os.rmdir(_made_folder(s)), None),
    "os.rename": (lambda s: os.rename(_made(s), _scratch(s)), None),
    "os.replace": (lambda s: os.replace(_made(s), _scratch(s)), None),
    "os.remove": (lambda s: os.remove(_made(s)), None),
    "os.unlink": (lambda s: os.unlink(_made(s)), None),
    "os.link": (lambda s: os.link(s.path, _scratch(s)), None),
    "os.symlink": (lambda s: os.symlink(s.path, _scratch(s)), None),
    "os.readlink": (lambda s: _fails(os.readlink, s.path), None),
    "os.chmod": (lambda s: os.chmod(s.path, 0o600), None),
    "os.chown": (lambda s: os.chown(s.path, -1, -1), None),
    "os.utime": (lambda s: os.utime(s.path), None),
    "os.truncate": (lambda s: os.truncate(s.path, 0), None),
    "os.getcwd": (lambda s: os.getcwd(), None),
    "os.chdir": (lambda s: os.chdir(getattr(os.getcwd, "__wrapped__", os.getcwd)()), None),
}  # fmt: skip
