"""Handlers of signals run in a context of their own; to the program nothing is different."""

from __future__ import annotations

import _thread
import contextlib
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest

import ctxcheck
from ctxcheck import wording
from ctxcheck.locks import assigned
from ctxcheck.probes import collector, later, signals

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Each test leaves the handlers and the mask as it found them."""
    before = {number: signal.getsignal(number) for number in (USR1, USR2, signal.SIGINT)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        signal.signal(number, handler)


def rules(session: ctxcheck.Session, *, all_grades: bool = False) -> list[str]:
    return [v.rule for v in (session.violations if all_grades else session.failures)]


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


# --- what a program can ask ------------------------------------------------------------------------------------------


class Callable:
    def __call__(self, number: int, frame: object) -> None: ...


def handler(number: int, frame: object) -> None: ...


@pytest.mark.parametrize(
    "given", [handler, functools.partial(handler), Callable(), lambda n, f: None, print, signal.SIG_IGN, signal.SIG_DFL]
)
def test_what_was_set_is_what_is_told(given: Any) -> None:
    signal.signal(USR1, given)
    assert signal.getsignal(USR1) is given
    assert signal.signal(USR1, signal.SIG_IGN) is given
    assert signal.getsignal(USR1) is signal.SIG_IGN


def test_the_default_handler_of_the_keyboard_is_itself() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    get: Any = vars(signal.getsignal)["__wrapped__"]
    assert get(signal.SIGINT) is signal.default_int_handler


def test_a_number_stays_one() -> None:
    set_it: Any = signal.signal
    set_it(USR1, int(signal.SIG_IGN))
    assert signal.getsignal(USR1) is signal.SIG_IGN

    class Number:
        def __call__(self) -> None: ...

        def __int__(self) -> int:
            return int(signal.SIG_DFL)

    set_it(USR1, Number())
    assert signal.getsignal(USR1) is signal.SIG_DFL


@pytest.mark.parametrize(
    "arguments", [(USR1, "x"), (USR1, None), ("x", handler), (0, handler), (999, handler), (9, handler), ()]
)
def test_errors_are_the_interpreters(arguments: Any) -> None:
    before = signal.getsignal(USR1)
    told = []
    for function in (signal.signal, vars(signal.signal)["__wrapped__"]):
        with pytest.raises((TypeError, ValueError, OSError)) as caught:
            function(*arguments)
        told.append((caught.type, str(caught.value).replace("make_signal.<locals>.", "")))
    assert told[0][0] is told[1][0]
    assert told[0][1] == told[1][1] or not arguments
    assert signal.getsignal(USR1) is before


def test_in_another_thread_it_is_refused_as_before() -> None:
    told: list[str] = []

    def work() -> None:
        try:
            signal.signal(USR1, handler)
        except ValueError as error:
            told.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == ["signal only works in main thread of the main interpreter"]


def test_a_handler_is_given_its_number_and_the_frame_it_has_interrupted() -> None:
    seen: list[Any] = []
    signal.signal(signalnum=USR1, handler=lambda *given: seen.append(given))
    signal.raise_signal(USR1)
    ((number, frame),) = seen
    assert number == USR1
    assert frame.f_code.co_name == "test_a_handler_is_given_its_number_and_the_frame_it_has_interrupted"


def test_what_a_handler_raises_comes_out_and_the_context_is_left() -> None:
    def fail(number: int, frame: object) -> None:
        raise LookupError

    signal.signal(USR1, fail)
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        for _ in range(2):
            with pytest.raises(LookupError):
                signal.raise_signal(USR1)
            with lock:
                assert session.held_locks() == [session.held_locks()[0]]
    assert session.violations == []


def test_sigwait_and_raise_signal_work() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {USR1})
    os.kill(os.getpid(), USR1)
    assert signal.sigwait({USR1}) == USR1


# --- in place, and out again -----------------------------------------------------------------------------------------


def test_handlers_from_before_are_checked_and_handlers_go_on_when_the_probes_are_gone() -> None:
    ctxcheck.uninstall()
    calls: list[str] = []

    def early(number: int, frame: object) -> None:
        calls.append("early")
        with lock:
            pass

    def late(number: int, frame: object) -> None:
        calls.append("late")

    signal.signal(USR1, early)
    ctxcheck.install()
    assert signal.getsignal(USR1) is early
    signal.signal(USR2, late)
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        with lock:
            pass
        signal.raise_signal(USR1)
    assert rules(session) == ["CTX004"]
    ctxcheck.uninstall()
    assert (signal.getsignal(USR1), signal.getsignal(USR2)) == (early, late)
    signal.raise_signal(USR2)
    assert calls == ["early", "late"]


def test_from_another_thread_the_probes_go_and_handlers_stay_as_they_are() -> None:
    calls: list[int] = []
    signal.signal(USR1, lambda number, frame: calls.append(number))
    thread = threading.Thread(target=ctxcheck.uninstall)
    thread.start()
    thread.join()
    signal.raise_signal(USR1)
    assert calls == [USR1]
    ctxcheck.install()
    signal.raise_signal(USR1)
    assert calls == [USR1, USR1]
    assert type(signal.getsignal(USR1)) is type(lambda: None)


def test_system_calls_that_are_to_be_restarted_still_are() -> None:
    code = """
import os, signal, threading, ctxcheck
ctxcheck.install()
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
signal.siginterrupt(signal.SIGUSR1, False)
ctxcheck.uninstall()
import ctypes
read, write = os.pipe()
libc = ctypes.CDLL(None, use_errno=True)
main = threading.get_ident()
def disturb():
    import time
    for _ in range(5):
        time.sleep(0.02); signal.pthread_kill(main, signal.SIGUSR1)
    os.write(write, b"x")
thread = threading.Thread(target=disturb); thread.start()
print(libc.read(read, ctypes.create_string_buffer(1), 1))
thread.join()
"""
    assert run(code).stdout == "1\n"


def test_a_failure_half_way_puts_the_handlers_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ctxcheck.uninstall()
    signal.signal(USR1, handler)
    signal.signal(USR2, handler)
    names = {name: vars(signal)[name] for name in ("signal", "getsignal", "siginterrupt", "pthread_sigmask")}
    made: list[Any] = []
    real = signals._Handler

    def fail(*given: Any) -> Any:
        if made:
            raise RuntimeError("half-way")
        made.append(given)
        return real(*given)

    monkeypatch.setattr(signals, "_Handler", fail)
    monkeypatch.setattr(signals, "plain", lambda h: h.handler if type(h) is real else h)
    monkeypatch.setattr(signals, "_is_checked", lambda h: h is handler)
    with pytest.raises(RuntimeError, match="half-way"):
        ctxcheck.install()
    assert {name: vars(signal)[name] for name in names} == names
    assert signal.getsignal(USR1) is signal.getsignal(USR2) is handler


def test_what_somebody_else_put_in_between_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = signal.signal
    monkeypatch.setattr(signal, "signal", lambda number, new: ours(number, new))
    theirs = signal.signal
    ctxcheck.uninstall()
    assert signal.signal is theirs
    calls: list[int] = []
    signal.signal(USR1, lambda number, frame: calls.append(number))
    assert type(signal.getsignal(USR1)) is type(lambda: None)
    signal.raise_signal(USR1)
    assert calls == [USR1]
    monkeypatch.undo()
    signal.signal = vars(ours)["__wrapped__"]


def test_what_asyncio_does_with_signals() -> None:
    code = """
import asyncio, os, signal, ctxcheck
ctxcheck.install()
with ctxcheck.checking() as session:
    lock, calls = ctxcheck.Lock(), []
    def callback():
        with lock: calls.append(signal.getsignal(signal.SIGUSR1).__module__)
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, callback)
        with lock: os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0.01)
        while not calls: await asyncio.sleep(0)
        loop.remove_signal_handler(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    try: asyncio.run(main())
    except KeyboardInterrupt: calls.append("interrupted")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print(calls, [v.rule for v in session.violations if v.rule in ("CTX002", "CTX004", "CTX005")])
"""
    assert run(code).stdout == "['asyncio.unix_events', 'interrupted'] []\n"


def test_our_own_handlers_are_not_the_programs(tmp_path: Any) -> None:
    from ctxcheck.dumps import dump_on

    undo = dump_on("SIGUSR1")
    get: Any = vars(signal.getsignal)["__wrapped__"]
    assert type(get(USR1)) is type(lambda: None)
    undo()
    assert signal.getsignal(USR1) is signal.SIG_DFL


# --- what a handler raises where it would be lost --------------------------------------------------------------------


class Alarm(Exception):
    pass


def raise_alarm(number: int, frame: object) -> None:
    raise Alarm


def strike(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, number: int) -> list[object]:
    """Send a signal, once, while this function of ours runs; returns what was printed and dropped."""
    real, todo = getattr(where, name), [number]

    def struck(*args: Any, **kwargs: Any) -> Any:
        if todo:
            os.kill(os.getpid(), todo.pop())
        return real(*args, **kwargs)

    lost: list[object] = []
    monkeypatch.setattr(where, name, struck)
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    return lost


def wait() -> None:
    for _ in range(600):
        threading.Event().wait(0.01)


@pytest.mark.parametrize("name", ["_arrange", "_leave", "enter"])
@pytest.mark.parametrize("number", [USR1, signal.SIGINT])
def test_what_a_handler_raises_while_we_follow_the_collector_comes_out(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    if number == USR1:
        signal.signal(number, raise_alarm)
    gc.collect()  # so that nothing is finalized while the signal is on its way
    with ctxcheck.checking() as session, ctxcheck.Lock(name="held"):
        if name == "_arrange":
            gc.callbacks.append(gc.callbacks.pop(0))
        lost = strike(monkeypatch, collector, name, number)
        with pytest.raises(Alarm if number == USR1 else KeyboardInterrupt):
            gc.collect()
            wait()
        monkeypatch.undo()
        gc.collect()
        assert not collector.collecting()
        assert session.held_locks() == ["held"]
    assert lost == []
    assert [gc.callbacks.count(each) for each in (collector._first, collector._last)] == [1, 1]


def test_what_a_handler_raises_while_a_lock_gets_its_name_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(USR1, raise_alarm)
    with ctxcheck.checking():
        strike(monkeypatch, assigned, "_read", USR1)
        with pytest.raises(Alarm):
            named_after_all = ctxcheck.Lock()
            wait()
        assert named_after_all.step.lock_class.key.endswith(".named_after_all")  # type: ignore[attr-defined]


def test_what_a_handler_raises_while_a_finding_is_put_into_words_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    signal.signal(USR1, raise_alarm)
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock(name="twice")
        strike(monkeypatch, wording, "compose", USR1)
        with pytest.raises(Alarm):
            lock.acquire()
            lock.acquire(timeout=0.01)
            with ctxcheck.atomic("here"):
                ctxcheck.might_sleep()
            wait()
        lock.release()
    assert [(v.rule, len(v.sites) > 0) for v in session.violations] == [("CTX101", True)]


def test_when_no_thread_can_be_started_a_handler_runs_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    signal.signal(USR1, lambda number, frame: called.append(number))

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with ctxcheck.checking():
        monkeypatch.setattr(later, "_start", refuse)
        assert strike(monkeypatch, collector, "enter", USR1) == []
        gc.collect()
        assert called == [USR1]


@pytest.mark.parametrize("make", ["Lock", "RLock", "Semaphore"])
def test_no_handler_runs_in_the_finalizer_of_a_lock(make: str) -> None:
    """It could only be lost there; as for :func:`ctxcheck.engine.raw.uninterrupted`, where that can be had."""
    made = getattr(ctxcheck, make)()
    record = getattr(made, "_record", made)
    del made
    signal.signal(USR1, raise_alarm)
    holder = [record]
    del record
    with pytest.raises(Alarm):
        # a finalizer begins before anything looks for the signal
        for _ in map(_thread.interrupt_main, (USR1,)):
            holder = holder[:0]
            wait()


# --- what is found ---------------------------------------------------------------------------------------------------


def test_a_lock_of_a_handler_and_of_ordinary_code() -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock(name="stats")

        def show(number: int, frame: object) -> None:
            with lock:
                pass

        signal.signal(USR1, show)
        with lock:
            pass
        signal.raise_signal(USR1)
    (found,) = session.failures
    assert found.rule == "CTX004"
    assert "`signal` (SIGUSR1) code waits for `stats`" in found.message


def test_one_handler_of_two_signals_is_one_finding() -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()

        def show(number: int, frame: object) -> None:
            with lock:
                pass

        for number in (USR1, USR2):
            signal.signal(number, show)
            signal.raise_signal(number)
        with lock:
            pass
    assert rules(session, all_grades=True) == ["CTX004"]
    assert session.failures


def test_it_is_a_deadlock_when_it_happens() -> None:
    signal.signal(USR1, lambda number, frame: lock.__enter__())
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        with lock, pytest.raises(ctxcheck.DeadlockError):
            signal.raise_signal(USR1)
    assert "CTX002" in rules(session)
    assert "interrupted by `signal` (SIGUSR1)" in next(v.message for v in session.failures if v.rule == "CTX002")


def test_what_only_other_threads_hold_is_not_open_to_signals() -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()

        def work() -> None:
            with lock:
                pass

        def show(number: int, frame: object) -> None:
            with lock:
                pass

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        signal.signal(USR1, show)
        signal.raise_signal(USR1)
        assert rules(session) == []
        assert [v.grade for v in session.violations] == ["unlikely"]  # a second signal, while the first is handled
        with lock:
            pass
        assert rules(session) == ["CTX004"]


def test_but_such_a_thread_may_wait_for_the_main_one() -> None:
    with ctxcheck.checking() as session:
        wanted, held = ctxcheck.Lock(name="wanted"), ctxcheck.Lock(name="held")

        def work() -> None:
            with wanted, held:
                pass

        def show(number: int, frame: object) -> None:
            with wanted:
                pass

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        signal.signal(USR1, show)
        signal.raise_signal(USR1)
        with held:
            pass
    assert rules(session) == ["CTX005"]


def test_a_handler_that_another_signal_interrupts() -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()

        def first(number: int, frame: object) -> None:
            with lock:
                pass
            signal.raise_signal(USR2)

        def second(number: int, frame: object) -> None:
            with lock:
                pass

        signal.signal(USR1, first)
        signal.signal(USR2, second)
        signal.raise_signal(USR1)
    assert rules(session) == ["CTX004", "CTX004"]  # either may interrupt the other one


@pytest.mark.parametrize("make", [ctxcheck.RLock, None])
def test_silent(make: Any) -> None:
    with ctxcheck.checking() as session:
        lock = make() if make else ctxcheck.Lock()

        def show(number: int, frame: object) -> None:
            if make is None:
                if lock.acquire(blocking=False):
                    lock.release()
            else:
                with lock:
                    pass

        signal.signal(USR1, show)
        with lock:
            signal.raise_signal(USR1)
        signal.raise_signal(USR1)
    assert session.violations == []


def test_a_handler_that_only_tells_others() -> None:
    import queue

    signal.signal(USR1, lambda number, frame: (event.set(), items.put(number)))
    with ctxcheck.checking() as session:
        event, items = threading.Event(), queue.SimpleQueue()
        lock = ctxcheck.Lock()
        with lock:
            signal.raise_signal(USR1)
            assert event.wait(60)
        assert items.get() == USR1
    assert session.violations == []


def test_a_handler_that_logs() -> None:
    # its locks are RLocks, and the orders of logging's own locks are the library's
    code = """
import logging, signal, threading, ctxcheck
ctxcheck.install()
with ctxcheck.checking() as session:
    logging.basicConfig(filename="/dev/null", level=0)
    signal.signal(signal.SIGUSR1, lambda *_: logging.info("signal"))
    thread = threading.Thread(target=logging.info, args=("thread",))
    thread.start(); thread.join()
    logging.info("main")
    signal.raise_signal(signal.SIGUSR1)
    logging.shutdown()
    print([v.message for v in session.violations])
    lock = threading.Lock()
    class Handler(logging.Handler):
        def emit(self, record):
            with lock: pass
    logging.getLogger().addHandler(Handler())
    thread = threading.Thread(target=logging.info, args=("thread",))
    thread.start(); thread.join()
    with lock: pass
    logging.getLogger().setLevel(100)
    last = logging.getLogger().handlers[-1]
    signal.signal(signal.SIGUSR1, lambda *_: (last.acquire(), last.release()))
    signal.raise_signal(signal.SIGUSR1)
print([v.rule for v in session.failures])
"""
    assert run(code).stdout == "[]\n['CTX005']\n"


# --- masks -----------------------------------------------------------------------------------------------------------


def locked_by(number: int, lock: Any) -> None:
    def show(number: int, frame: object) -> None:
        with lock:
            pass

    signal.signal(number, show)
    signal.raise_signal(number)


@pytest.mark.parametrize(
    ("blocked", "found"), [({USR1}, []), ({USR1, USR2}, []), ({USR2}, ["CTX004"]), (set(), ["CTX004"])]
)
def test_what_is_blocked_cant_interrupt(blocked: set[signal.Signals], found: list[str]) -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        with lock:
            pass
        assert signal.pthread_sigmask(signal.SIG_SETMASK, before) >= blocked
        locked_by(USR1, lock)
    assert rules(session) == found


def test_a_mask_that_ends_too_early() -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        signal.pthread_sigmask(signal.SIG_BLOCK, {USR1, USR2})
        with lock:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {USR2})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {USR1})
        locked_by(USR1, lock)
        assert rules(session) == []
        locked_by(USR2, lock)
        assert rules(session) == ["CTX004"]


def test_a_mask_that_crosses_the_lock() -> None:
    with ctxcheck.checking() as session:
        outer, inner = ctxcheck.Lock(), ctxcheck.Lock()
        outer.acquire()
        signal.pthread_sigmask(signal.SIG_BLOCK, {USR1})
        inner.acquire()
        outer.release()
        inner.release()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {USR1})
        assert session.held_locks() == []
        locked_by(USR1, inner)
        assert rules(session) == []
        locked_by(USR1, outer)
        assert rules(session) == ["CTX004"]


def test_a_handler_runs_under_the_mask_of_what_it_has_interrupted() -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        with signal_blocked(USR2):
            locked_by(USR1, lock)  # it holds it while USR2 is blocked
        locked_by(USR2, lock)
    assert rules(session) == ["CTX004"]  # USR1's handler interrupts that of USR2, not the other way round
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        with signal_blocked(USR2):
            locked_by(USR1, lock)
        with signal_blocked(USR1):
            locked_by(USR2, lock)
    assert rules(session) == []


class signal_blocked:  # noqa: N801
    def __init__(self, *numbers: signal.Signals) -> None:
        self.numbers = numbers

    def __enter__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.numbers)


@pytest.mark.parametrize(("names", "found"), [(("signal",), []), (("signal SIGUSR1",), []), (("gc",), ["CTX004"])])
def test_masked_by_the_programs_own_word(names: tuple[str, ...], found: list[str]) -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        with ctxcheck.masked(*names), lock:
            pass
        locked_by(USR1, lock)
    assert rules(session) == found


def test_a_mask_set_in_another_thread_is_that_ones() -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()

        def work() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {USR1})

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with lock:
            pass
        locked_by(USR1, lock)
    assert rules(session) == ["CTX004"]


def test_a_handler_that_raises_when_it_is_let_through() -> None:
    def fail(number: int, frame: object) -> None:
        raise LookupError

    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()
        signal.signal(USR1, fail)
        signal.pthread_sigmask(signal.SIG_BLOCK, {USR1, USR2})
        signal.raise_signal(USR1)
        with pytest.raises(LookupError):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {USR1, USR2})
        with lock:
            pass
        locked_by(USR2, lock)
    assert rules(session) == ["CTX004"]


def test_it_leaves_with_sys_exit_and_forks_inside() -> None:
    code = """
import os, signal, sys, ctxcheck
ctxcheck.install()
with ctxcheck.checking() as session:
    lock = ctxcheck.Lock()
    def stop(number, frame):
        pid = os.fork()
        if not pid:
            with lock: pass
            os._exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        sys.exit(5)
    signal.signal(signal.SIGUSR1, stop)
    try: signal.raise_signal(signal.SIGUSR1)
    finally: print(session.held_locks(), session.violations, flush=True)
"""
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (5, "7\n[] []\n", "")


def test_a_handler_that_is_marked_is_one_as_well() -> None:
    lock = ctxcheck.Lock(name="s.marked")

    @ctxcheck.allow("CTX004", reason="known")
    def handler(number: int, frame: object) -> None:
        with lock:
            pass

    with ctxcheck.checking() as session:
        signal.signal(USR1, handler)
        signal.raise_signal(USR1)
        with lock:
            pass
    assert [(v.rule, v.allowed_by) for v in session.violations] == [("CTX004", "known")]


# --- guards that can be seen -----------------------------------------------------------------------------------------


class Guarded:
    """A lock that isn't waited for where a flag of the thread says that it may be held, as a writer of a log has it."""

    def __init__(self) -> None:
        self.lock = ctxcheck.Lock(name="Guarded")
        self.flags = threading.local()

    @contextlib.contextmanager
    def protected(self) -> Generator[None]:
        if getattr(self.flags, "busy", False):
            raise RuntimeError("in the middle of itself")
        self.flags.busy = True
        try:
            with self.lock:
                yield
        finally:
            self.flags.busy = False

    def write(self) -> None:
        with self.protected():
            pass

    def careless(self) -> None:
        with self.lock:
            pass


def graded(session: ctxcheck.Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def test_a_flag_of_the_thread_that_the_holder_sets() -> None:
    with ctxcheck.checking() as session:
        guarded = Guarded()
        signal.signal(USR1, lambda number, frame: guarded.write())
        guarded.write()
        signal.raise_signal(USR1)
        guarded.write()
    assert graded(session) == [("CTX004", "unlikely")]


def test_a_flag_that_another_holder_does_not_set() -> None:
    with ctxcheck.checking() as session:
        guarded = Guarded()
        signal.signal(USR1, lambda number, frame: guarded.write())
        guarded.write()
        signal.raise_signal(USR1)
        guarded.careless()
    assert graded(session) == [("CTX004", "possible")]


def test_a_handler_that_looks_only_the_first_time() -> None:
    with ctxcheck.checking() as session:
        guarded = Guarded()
        signal.signal(USR1, lambda number, frame: guarded.write())
        guarded.write()
        signal.raise_signal(USR1)
        signal.signal(USR1, lambda number, frame: guarded.careless())
        signal.raise_signal(USR1)
    assert graded(session) == [("CTX004", "possible")]


def test_what_the_interrupted_code_looks_at_guards_nothing() -> None:
    with ctxcheck.checking() as session:
        guarded = Guarded()
        signal.signal(USR1, lambda number, frame: guarded.careless())

        def interrupted() -> None:
            if not getattr(guarded.flags, "busy", False):
                signal.raise_signal(USR1)

        interrupted()
        guarded.write()
    assert graded(session) == [("CTX004", "possible")]


def test_whoever_asks_first_whether_it_is_taken() -> None:
    with ctxcheck.checking() as session:
        lock = ctxcheck.Lock()

        def show(number: int, frame: object) -> None:
            if not lock.locked():
                with lock:
                    pass

        signal.signal(USR1, show)
        with lock:
            pass
        signal.raise_signal(USR1)
    assert graded(session) == [("CTX004", "unlikely")]
