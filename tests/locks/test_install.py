"""Checked locks in place of ``threading``'s, and out again exactly."""

from __future__ import annotations

import _thread
import copy
import pickle
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import ctxcheck
from ctxcheck.engine.raw import ORIGINALS
from ctxcheck.locks import install as module

NAMES = ["Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"]


@pytest.fixture(autouse=True)
def taken_out() -> Iterator[None]:
    before = {name: getattr(threading, name) for name in dir(threading)}
    yield
    ctxcheck.uninstall()
    assert {name: getattr(threading, name) for name in dir(threading)} == before


def test_every_name_is_ours_and_then_the_very_same_again() -> None:
    before = dict(vars(threading))
    ctxcheck.install()
    assert module.installed()
    for name in NAMES:
        assert getattr(threading, name) is getattr(ctxcheck, name)
    ctxcheck.uninstall()
    assert not module.installed()
    assert all(vars(threading)[name] is value for name, value in before.items())
    assert vars(threading).keys() == before.keys()


def test_twice_is_once() -> None:
    ctxcheck.install()
    ctxcheck.install()
    ctxcheck.uninstall()
    assert threading.Lock is ORIGINALS["Lock"]
    ctxcheck.uninstall()
    assert threading.Lock is ORIGINALS["Lock"]


def test_what_was_there_before_comes_back_also_where_it_isnt_the_interpreters() -> None:
    theirs = type("Theirs", (), {})
    with mock.patch("threading.Event", theirs):
        ctxcheck.install()
        assert threading.Event is ctxcheck.Event
        ctxcheck.uninstall()
        assert threading.Event is theirs


def test_a_name_that_somebody_replaced_since_is_left_to_them() -> None:
    ctxcheck.install()
    with mock.patch("threading.Event") as patched:
        assert threading.Event is patched
        ctxcheck.uninstall()
        assert threading.Event is patched
        assert threading.Lock is ORIGINALS["Lock"]
    # mock puts back what it had found, which was ours
    threading.Event = ORIGINALS["Event"]  # type: ignore[misc]


def test_what_the_interpreter_keeps_to_itself_stays_raw() -> None:
    ctxcheck.install()
    assert threading._allocate_lock is _thread.allocate_lock  # type: ignore[attr-defined]
    assert _thread.allocate_lock is ORIGINALS["Lock"] or _thread.allocate_lock() is not None
    assert type(_thread.allocate_lock()) is _thread.LockType
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert not thread.is_alive()


def test_modules_that_make_locks_get_ours_and_those_that_captured_the_name_dont() -> None:
    import queue

    captured = threading.Lock
    ctxcheck.install()
    assert hasattr(queue.Queue().mutex, "step")
    assert type(captured()) is _thread.LockType


def test_uninstalled_locks_go_on_working() -> None:
    ctxcheck.install()
    lock, condition = threading.Lock(), threading.Condition()
    ctxcheck.uninstall()
    with lock, condition:
        condition.notify()
    with ctxcheck.checking() as session:
        with lock, condition:
            pass
        with condition, lock:
            pass
    assert [v.rule for v in session.violations] == ["CTX001"]


def test_locks_that_nobody_checks_are_counted_by_module() -> None:
    made: Any = types.ModuleType("made_before")
    made.one, made.two, made.no = _thread.allocate_lock(), _thread.RLock(), 3

    class Holder:
        lock = _thread.allocate_lock()

    Holder.__module__ = "made_before"
    made.Holder = Holder
    made.ours = ctxcheck.Lock()
    hostile = mock.MagicMock(name="hostile", spec=[])
    with mock.patch.dict(sys.modules, {"made_before": made, "hostile_module": hostile, "none_module": None}):  # type: ignore[dict-item]
        assert module.unchecked_locks()["made_before"] == 3
    assert not any(name.startswith("ctxcheck") for name in module.unchecked_locks())


def test_what_a_module_holds_is_not_asked_what_it_is() -> None:
    """A stand-in for what isn't there yet (a lazy import, the request of this thread) raises when it is asked."""

    class Lazy:
        @property
        def __class__(self) -> Any:  # type: ignore[misc, override]
            raise RuntimeError("not installed")

    class Meta(type):
        @property
        def __module__(cls) -> Any:  # type: ignore[override]
            raise RuntimeError("nor this")

    class Odd(metaclass=Meta):
        pass

    made: Any = types.ModuleType("made_lazily")
    made.np, made.odd, made.lock = Lazy(), Odd, _thread.allocate_lock()
    with mock.patch.dict(sys.modules, {"made_lazily": made}):
        assert module.unchecked_locks()["made_lazily"] == 1


def test_importing_everything_threaded_under_our_locks() -> None:
    code = textwrap.dedent("""
        import ctxcheck
        ctxcheck.install()
        with ctxcheck.checking() as session:
            import asyncio, concurrent.futures, logging, multiprocessing, queue, subprocess, sched
            import socketserver, tempfile
            import concurrent.futures.thread, concurrent.futures.process, logging.handlers, multiprocessing.pool
            logging.basicConfig(stream=open(__import__("os").devnull, "w"))
            logging.getLogger("x").warning("hello")
            async def main():
                assert await asyncio.to_thread(lambda: 7) == 7
                await asyncio.get_running_loop().run_in_executor(None, int)
            asyncio.run(main())
            import os
            if hasattr(os, "fork"):
                pid = os.fork()  # runs the handlers that these modules registered with our locks' methods
                if pid == 0:
                    logging.getLogger("x").warning("child")
                    os._exit(0)
                assert os.waitpid(pid, 0)[1] == 0
        assert [v for v in session.violations if v.grade != "unlikely"] == [], session.violations
        ctxcheck.uninstall()
        import threading, _thread
        assert threading.Lock() is not None and type(threading.Lock()) is _thread.LockType
        print("fine")
    """)
    source = str(Path(ctxcheck.__file__).resolve().parent.parent)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env={"PYTHONPATH": source}, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "fine\n"), result.stderr
    assert result.stderr == ""


def test_while_they_stand_there_the_classes_say_that_they_are_from_there() -> None:
    names = [name for name in NAMES if isinstance(getattr(ctxcheck, name), type)]
    before = {name: getattr(ctxcheck, name).__module__ for name in names}
    ctxcheck.install()
    for name in {*names} - {"Lock", "RLock"}:
        assert threading.__dict__[name].__module__ == "threading"
        assert pickle.loads(pickle.dumps(threading.__dict__[name])) is getattr(ctxcheck, name)
    assert repr(threading.Event()).startswith("<threading.Event at")
    ctxcheck.uninstall()
    assert {name: getattr(ctxcheck, name).__module__ for name in names} == before


def test_what_stands_as_lock_and_its_type_can_be_pickled() -> None:
    ctxcheck.install()
    kind = type(threading.Lock())
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(threading.Lock, protocol)) is threading.Lock
        # Python's own pickler, and a type that passes for the interpreter's
        assert issubclass(pickle.loads(pickle._dumps(kind, protocol)), (kind, _thread.LockType))  # type: ignore[attr-defined] # pyright: ignore
    assert copy.deepcopy(kind) is kind
    ctxcheck.uninstall()
    assert pickle.loads(pickle.dumps(ctxcheck.Lock if isinstance(ctxcheck.Lock, type) else kind)) is _thread.LockType


def test_managers_of_every_start_method(tmp_path: Path) -> None:
    """Theirs are the functions that make locks, by name: they are pickled for a process that is spawned."""
    (tmp_path / "program.py").write_text("""
import multiprocessing
if __name__ == "__main__":
    for method in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context(method).Manager() as manager:
            with manager.Lock(), manager.RLock(), manager.Condition():
                print(method, len(manager.list()), manager.Event().is_set())
""")
    command = [sys.executable, "-W", "ignore", "-m", "ctxcheck", "run", "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted("fork 0 False forkserver 0 False spawn 0 False".split())
