"""The collector's context, and the sections in which the collector is off."""

from __future__ import annotations

import asyncio
import bdb
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck import debuggers, fastpath
from ctxcheck.probes import collector, install


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    callbacks = list(gc.callbacks)
    assert callbacks[0] is collector._first
    assert callbacks[-1] is collector._last
    yield
    gc.enable()
    gc.callbacks[:] = callbacks


def found(session: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(v.rule, v.grade, v.locks) for v in session.violations]


def chain() -> list[str]:
    state = fastpath.known()
    assert state is not None
    return [repr(node.step) for node in state.cur.chain()]


def use(lock: Any) -> None:
    with lock:
        pass


class Dies:
    """Runs something when the collector finds it."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action, self.me = action, self

    def __del__(self) -> None:
        self.action()


# --- what runs inside -------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["start", "stop"])
def test_other_peoples_callbacks_run_inside(phase: str) -> None:
    lock = ctxcheck.Lock(name="c.Callback")

    def callback(now: str, info: Any) -> None:
        if now == phase:
            use(lock)

    gc.callbacks.append(callback)
    gc.callbacks.insert(0, callback)
    with ctxcheck.checking() as session:
        use(lock)
        gc.collect()  # puts ours where they belong
        gc.collect()
        assert chain() == []
        assert gc.callbacks[0] is collector._first
        assert gc.callbacks[-1] is collector._last
    assert found(session) == [("CTX004", "possible", ("c.Callback",))]


def test_a_weak_references_callback() -> None:
    lock = ctxcheck.Lock(name="c.Weakref")

    class Thing:
        pass

    with ctxcheck.checking() as session:
        use(lock)
        thing: Any = Thing()
        thing.me = thing
        reference = weakref.ref(thing, lambda _: use(lock))
        del thing
        gc.collect()
        assert reference() is None
    assert found(session) == [("CTX004", "possible", ("c.Weakref",))]


def test_others_may_change_the_list_as_they_like() -> None:
    seen: list[str] = []
    lock = ctxcheck.Lock(name="c.List")

    def noisy(phase: str, info: Any) -> None:
        seen.append(phase)

    def removes(phase: str, info: Any) -> None:
        if phase == "start":
            gc.callbacks.remove(collector._last)

    with ctxcheck.checking() as session:
        use(lock)
        for change in (
            lambda: gc.callbacks.insert(0, noisy),
            lambda: gc.callbacks.append(noisy),
            lambda: gc.callbacks.reverse(),
            lambda: gc.callbacks.remove(collector._last),
            lambda: gc.callbacks.remove(collector._first),
        ):
            gc.callbacks[:] = [collector._first, collector._last]
            change()
            del seen[:]
            expected = [phase for phase in ("start", "stop") for each in gc.callbacks if each is noisy]
            gc.collect()
            assert seen == expected
            assert chain() == []
            gc.collect()
            assert (gc.callbacks[0], gc.callbacks[-1]) == (collector._first, collector._last)
        gc.callbacks.insert(1, removes)
        gc.collect()  # entered, and nobody to leave
        gc.callbacks.remove(removes)
        gc.collect()
        assert chain() == []
        gc.callbacks.clear()
        gc.collect()
        assert chain() == []
    assert found(session) == []


def test_it_comes_at_any_bytecode() -> None:
    """Also in the middle of the validator itself: nothing is lost, nothing hangs."""
    locks = [ctxcheck.Lock(name=f"c.Any{number}") for number in range(20)]
    other = ctxcheck.RLock(name="c.AnyOther")
    ran: list[int] = []

    class Noise:
        def __del__(self) -> None:
            with other:
                ran.append(1)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with ctxcheck.checking() as session:
            for index, lock in enumerate(locks):
                for inner in locks[index + 1 :]:
                    noise: Any = Noise()
                    noise.me = noise
                    del noise
                    with lock, inner:
                        assert ctxcheck.held_locks() == [lock_name(lock), lock_name(inner)]
            assert chain() == []
            assert session.counts().orders == 190
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(ran) == 190
    assert found(session) == []


def lock_name(lock: Any) -> str:
    return str(lock.step.lock_class.name)


def test_while_the_state_of_a_task_is_made() -> None:
    """The collector comes after so many objects were made, from a task's first step on."""
    thresholds = gc.get_threshold()
    seen: list[list[str]] = []

    async def first(after: int) -> None:
        gc.set_threshold(after)
        fastpath.current()
        gc.set_threshold(100_000)
        seen.append(chain())

    with ctxcheck.checking() as session:
        gc.set_threshold(100_000)
        try:
            for after in range(1, 80):
                # a task whose code is known takes over what another one has left
                first.__code__ = first.__code__.replace(co_name=f"first_{after}")
                asyncio.run(first(after))
        finally:
            gc.set_threshold(*thresholds)
    assert seen == [seen[0]] * 79
    assert len(seen[0]) == 1
    assert found(session) == []


def test_each_thread_has_its_own() -> None:
    lock = ctxcheck.Lock(name="c.Thread")
    go, collected = threading.Barrier(2), threading.Event()

    def other() -> None:
        go.wait(60)
        collected.wait(60)
        use(lock)

    def callback(phase: str, info: Any) -> None:
        if phase == "stop":
            collected.set()

    with ctxcheck.checking() as session:
        thread = threading.Thread(target=other)
        thread.start()
        go.wait(60)
        gc.callbacks.insert(1, callback)
        gc.collect()
        gc.callbacks.remove(callback)
        thread.join()
        assert chain() == []
    assert found(session) == []


def test_a_thread_that_only_collects_doesnt_count() -> None:
    with ctxcheck.checking() as session:
        gc.collect()
        Dies(lambda: None)
        gc.collect()
        assert session.counts().nothing()
        ctxcheck.might_sleep()
        assert session.counts().threads == 1
        gc.collect()
        assert session.counts().threads == 1


def test_a_session_that_begins_and_one_that_ends_in_the_middle() -> None:
    sessions: list[Any] = []

    def begin(phase: str, info: Any) -> None:
        if phase == "start":
            session = ctxcheck.checking()
            session.start()
            sessions.append(session)

    def end(phase: str, info: Any) -> None:
        if phase == "start":
            sessions.pop().stop()

    lock = ctxcheck.Lock(name="c.Session")
    gc.callbacks.insert(1, begin)
    gc.collect()
    gc.callbacks.remove(begin)
    use(lock)
    assert chain() == []
    gc.callbacks.insert(1, end)
    gc.collect()
    gc.callbacks.remove(end)
    assert sessions == []
    with ctxcheck.checking():
        use(lock)
        assert chain() == []


# --- while it is off ------------------------------------------------------------------------------


def test_between_disable_and_enable_nothing_is_open_to_it() -> None:
    lock = ctxcheck.Lock(name="c.Off")
    with ctxcheck.checking() as session:
        Dies(lambda: use(lock))
        gc.collect()
        for _ in range(3):
            gc.disable()
            use(lock)
            gc.enable()
        assert found(session) == []
        use(lock)  # the same chain, outside
        assert found(session) == [("CTX004", "possible", ("c.Off",))]


def test_off_for_good_is_no_section() -> None:
    lock = ctxcheck.Lock(name="c.Never")
    with ctxcheck.checking() as session:
        gc.disable()
        use(lock)
        Dies(lambda: use(lock))
        gc.collect()
        assert found(session) == []  # it may be switched on yet
    gc.enable()
    assert found(session) == [("CTX004", "possible", ("c.Never",))]


def test_off_before_checking_began_is_no_section() -> None:
    lock = ctxcheck.Lock(name="c.Before")
    gc.disable()
    with ctxcheck.checking() as session:
        use(lock)
        gc.disable()
        Dies(lambda: use(lock))
        gc.collect()
        gc.enable()
    assert found(session) == [("CTX004", "possible", ("c.Before",))]


def test_what_is_held_when_it_is_switched_on_again_is_open() -> None:
    lock = ctxcheck.Lock(name="c.Held")
    with ctxcheck.checking() as session:
        Dies(lambda: use(lock))
        gc.collect()
        gc.disable()
        with lock:
            gc.enable()
    assert found(session) == [("CTX004", "possible", ("c.Held",))]


def test_what_is_held_when_it_is_switched_off_was_open() -> None:
    lock = ctxcheck.Lock(name="c.HeldBefore")
    with ctxcheck.checking() as session:
        Dies(lambda: use(lock))
        gc.collect()
        with lock:
            gc.disable()
        gc.enable()
    assert found(session) == [("CTX004", "possible", ("c.HeldBefore",))]


def test_it_is_off_for_all_threads() -> None:
    lock = ctxcheck.Lock(name="c.All")
    with ctxcheck.checking() as session:
        Dies(lambda: use(lock))
        gc.collect()
        gc.disable()
        thread = threading.Thread(target=use, args=(lock,))
        thread.start()
        thread.join()
        gc.enable()
    assert found(session) == []


def test_orders_through_a_lock_that_is_held_while_it_is_off() -> None:
    a, b = ctxcheck.Lock(name="c.A"), ctxcheck.Lock(name="c.B")
    with ctxcheck.checking() as session:
        Dies(lambda: use(a))
        gc.collect()
        gc.disable()
        with a, b:
            pass
        use(b)
        gc.enable()
        assert found(session) == []
        use(b)
    assert found(session) == [("CTX005", "possible", ("c.A", "c.B"))]


def test_the_functions_do_what_they_did() -> None:
    gc.disable()
    assert not gc.isenabled()
    gc.disable()
    gc.enable()
    assert gc.isenabled()
    assert gc.enable.__wrapped__.__name__ == "enable"  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        gc.disable(1)  # type: ignore[call-arg]


# --- put in place and taken out ------------------------------------------------------------------


def test_taken_out_in_the_middle_of_a_collection() -> None:
    def callback(phase: str, info: Any) -> None:
        if phase == "start":
            install.uninstall()

    gc.callbacks.insert(1, callback)
    with ctxcheck.checking():
        use(ctxcheck.Lock(name="c.Out"))
        gc.collect()
        assert chain() == []
    assert callback in gc.callbacks
    assert not {collector._first, collector._last} & set(gc.callbacks)
    gc.callbacks.remove(callback)
    install.install()


# --- a debugger --------------------------------------------------------------------------------------


def test_nothing_is_raised_under_a_debugger() -> None:
    class Debugger(bdb.Bdb):
        def trace_dispatch(self, frame: Any, event: str, arg: Any) -> Any:
            return None

    def trace(frame: Any, event: str, argument: Any) -> Any:
        return None

    before = sys.gettrace()
    try:
        with ctxcheck.checking(mode="raise") as session:
            sys.settrace(Debugger().trace_dispatch)
            assert debuggers.attached()
            with ctxcheck.atomic("looked at"):
                ctxcheck.might_sleep()
            sys.settrace(trace)  # a tracer is none
            assert not debuggers.attached()
            with pytest.raises(ctxcheck.ViolationError), ctxcheck.atomic("not looked at"):
                ctxcheck.might_sleep()
    finally:
        sys.settrace(before)
    assert [v.rule for v in session.violations] == ["CTX101", "CTX101"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
def test_a_debugger_that_monitors() -> None:
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    assert not debuggers.attached()
    monitoring.use_tool_id(monitoring.DEBUGGER_ID, "test")
    try:
        assert debuggers.attached()
    finally:
        monitoring.free_tool_id(monitoring.DEBUGGER_ID)


# --- the end of a process ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "import os; os._exit(0)", "raise SystemExit"])
def test_finalizers_at_the_end_of_a_program_are_quiet(ending: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import os, tempfile, threading, weakref

lock = threading.Lock()

def say(what):
    with lock:
        os.write(1, what.encode() + b" ")

class Thing:
    def __del__(self):
        say("del")

class Other: ...

thing, other = Thing(), Other()
weakref.finalize(other, say, "finalize")
directory = tempfile.TemporaryDirectory()
with lock:
    pass
{ending}
""")
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "ctxcheck", "run", "--owners", "assumed", str(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0
    assert "no violations" in answer.stderr
    assert "Exception ignored" not in answer.stderr
    assert ("finalize " in answer.stdout) == ("_exit" not in ending)
    assert ("del " in answer.stdout) == ("_exit" not in ending)
