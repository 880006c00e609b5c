"""Put in place, and taken out again exactly, whatever happens in between."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.thread
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

import ctxcheck
from ctxcheck.probes import futures, install, queues

PLACES: list[tuple[Any, str]] = [
    (threading, "Lock"),
    (threading.Thread, "start"),
    (threading.Thread, "join"),
    (threading.Thread, "is_alive"),
    (threading.Thread, "_bootstrap_inner"),
    (queue, "SimpleQueue"),
    (queue.Queue, "__init__"),
    (queue.Queue, "get"),
    (queue.Queue, "put"),
    (queue.Queue, "join"),
    (queue.Queue, "task_done"),
    (signal, "signal"),
    (signal, "getsignal"),
    (signal, "siginterrupt"),
    (signal, "pthread_sigmask"),
    (os, "execv"),
    (os, "execve"),
    (concurrent.futures, "wait"),
    (concurrent.futures, "as_completed"),
    (concurrent.futures._base, "wait"),
    (concurrent.futures.Future, "result"),
    (concurrent.futures.Future, "exception"),
    (concurrent.futures.ThreadPoolExecutor, "submit"),
    (concurrent.futures.ThreadPoolExecutor, "shutdown"),
    (concurrent.futures.thread._WorkItem, "run"),
]


def everything() -> list[Any]:
    return [vars(owner)[name] for owner, name in PLACES]


def test_everything_is_put_back() -> None:
    ours = everything()
    ctxcheck.uninstall()
    originals = everything()
    assert all(a is not b for a, b in zip(ours, originals, strict=True))
    ctxcheck.install()
    ctxcheck.install()
    again = everything()
    assert all(a is not b for a, b in zip(again, originals, strict=True))
    ctxcheck.uninstall()
    assert all(a is b for a, b in zip(everything(), originals, strict=True))
    ctxcheck.uninstall()


def test_probes_look_like_what_they_stand_for() -> None:
    ours = everything()
    ctxcheck.uninstall()
    for new, old in zip(ours[1:], everything()[1:], strict=True):
        assert (new.__name__, new.__qualname__, new.__module__, new.__doc__) == (
            old.__name__,
            old.__qualname__,
            old.__module__ if old is not signal.siginterrupt else "signal",  # it is no builtin function any more
            old.__doc__,
        )
    assert repr(queue.SimpleQueue()).startswith("<_queue.SimpleQueue object")


@pytest.mark.parametrize("module", [queues, futures])
def test_a_failure_half_way_leaves_nothing_in_place(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ctxcheck.uninstall()
    originals = everything()

    def fail(*_: object) -> None:
        raise RuntimeError("half-way")

    monkeypatch.setattr(module, "watch" if module is queues else "watch_pools", fail)
    with pytest.raises(RuntimeError, match="half-way"):
        ctxcheck.install()
    assert all(a is b for a, b in zip(everything(), originals, strict=True))
    assert not install.installed()


def test_what_somebody_else_put_in_between_stays_and_ours_is_inert(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = threading.Thread.join
    calls: list[object] = []

    def join(self: threading.Thread, timeout: float | None = None) -> None:
        calls.append(timeout)
        ours(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    ctxcheck.uninstall()
    assert threading.Thread.join is join
    with ctxcheck.checking() as session:
        lock, ran = ctxcheck.Lock(), threading.Event()

        def work() -> None:
            with lock:
                pass
            ran.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert ran.wait(60)
        with lock:
            thread.join(60)
    assert calls == [60]
    assert session.violations == []


def test_a_program_that_imports_neither_gets_neither() -> None:
    code = (
        "import sys, ctxcheck; ctxcheck.install(); "
        "print(*{'queue', 'concurrent.futures', 'concurrent.futures.thread'} & set(sys.modules)); "
        "from concurrent.futures import ThreadPoolExecutor, as_completed, wait; import concurrent.futures._base as b; "
        "assert wait is b.wait and as_completed is b.as_completed and b.Future.result.__wrapped__; "
        "assert ThreadPoolExecutor.submit.__wrapped__; import queue; assert queue.Queue.get.__wrapped__; "
        "ctxcheck.uninstall(); assert not hasattr(b.Future.result, '__wrapped__'); "
        "assert not hasattr(ThreadPoolExecutor.submit, '__wrapped__')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (answer.stdout.strip(), answer.stderr) == ("", "")


def test_who_may_be_given_a_descriptor_is_the_same() -> None:
    assert os.execve in os.supports_fd
    ctxcheck.uninstall()
    before = set(os.supports_fd)
    assert os.execve in before
    ctxcheck.install()
    ctxcheck.uninstall()
    assert os.supports_fd == before
