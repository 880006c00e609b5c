"""Who waits for whom: what a dump says, from anywhere and whatever hangs, and that it leaves the process alone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck.engine import raw, waitgraph
from ctxcheck.session import Session

# --- in this process ----------------------------------------------------------------------


class Stuck:
    """Threads that wait for something until the test lets them go."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.threads: list[threading.Thread] = []
        self.let_go: list[Callable[[], object]] = []

    def start(self, work: Callable[[], object], name: str) -> None:
        def run() -> None:
            try:
                work()
            except ctxcheck.ViolationError:
                pass

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self.threads.append(thread)

    def until_waiting(self, *names: str) -> None:
        while True:
            waiting = {s.owner.ident for s in self.session.engine.roster.live_states() if s.waiting is not None}
            if {t.ident for t in self.threads if t.name in names} <= waiting:
                return
            time.sleep(0.001)

    def end(self) -> None:
        for release in self.let_go:
            release()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    with Session(owners="observed", deadlock_after=60) as session:
        threads = Stuck(session)
        try:
            yield threads
        finally:
            threads.end()


def dump() -> str:
    return ctxcheck.dump(io.StringIO())


def part(text: str, name: str) -> str:
    """What is said of one thread."""
    (found,) = [p for p in text.split("\n\n") if p.startswith(f"thread '{name}'\n")]
    return found


def test_who_holds_who_waits_since_when_and_where(stuck: Stuck) -> None:
    lock = ctxcheck.Lock(name="ledger")
    lock.acquire()
    stuck.let_go.append(lock.release)

    def wait() -> None:
        with lock:
            pass

    stuck.start(wait, "waiter")
    stuck.until_waiting("waiter")
    out = io.StringIO()
    text = ctxcheck.dump(out)
    assert out.getvalue() == text + "\n"
    assert "1 of 2 owners waiting" in text.splitlines()[0]
    assert "deadlock: " not in text
    waiter = part(text, "waiter")
    assert "waits for `ledger` since 0." in waiter
    assert "test_dump.py" in waiter
    assert "in test_who_holds_who_waits_since_when_and_where.<locals>.wait\n        with lock:\n" in waiter
    assert "held by thread 'MainThread'" in waiter
    assert "holds nothing" in waiter
    main = part(text, "MainThread")
    assert "waits for no checked lock" in main
    assert "text = ctxcheck.dump(out)" in main, "what the holder is doing now"
    assert "holds `ledger`, first taken on this path at" in main
    assert "lock.acquire()" in main


def test_a_lock_that_was_taken_where_nothing_was_checked_has_no_known_holder(stuck: Stuck) -> None:
    lock = ctxcheck.Lock(name="early")
    lock._raw.acquire()
    stuck.let_go.append(lock._raw.release)
    stuck.start(lambda: lock.acquire() and lock.release(), "waiter")
    stuck.until_waiting("waiter")
    assert "held by somebody who isn't known" in part(dump(), "waiter")


def test_a_holder_that_has_ended(stuck: Stuck) -> None:
    lock = ctxcheck.Lock(name="orphan")
    gone = threading.Thread(target=lock.acquire, name="gone")
    gone.start()
    gone.join()
    stuck.let_go.append(lock.release)
    stuck.start(lambda: lock.acquire() and lock.release(), "waiter")
    stuck.until_waiting("waiter")
    assert "held by thread 'gone', which has ended: nobody will release it" in part(dump(), "waiter")


@pytest.mark.parametrize("value", [1, 2])
def test_nobody_owns_a_semaphore(stuck: Stuck, value: int) -> None:
    semaphore = ctxcheck.Semaphore(value, name="slots")
    for _ in range(value):
        semaphore.acquire()
        stuck.let_go.append(semaphore.release)
    stuck.start(lambda: semaphore.acquire() and semaphore.release(), "waiter")
    stuck.until_waiting("waiter")
    text = part(dump(), "waiter")
    assert f"waits for `{'slots' if value == 1 else 'Semaphore'}` since" in text
    assert "nobody owns it: whoever releases it next ends the wait" in text


def test_a_condition_that_takes_its_lock_back(stuck: Stuck) -> None:
    condition = ctxcheck.Condition(name="state")

    def wait() -> None:
        with condition:
            condition.wait()

    stuck.start(wait, "waiter")
    while not condition._waiters:  # type: ignore[attr-defined]
        time.sleep(0.001)
    condition.acquire()
    condition.notify()
    stuck.let_go.append(condition.release)
    stuck.until_waiting("waiter")
    text = part(dump(), "waiter")
    assert "waits for `state`" in text
    assert "held by thread 'MainThread'" in text
    assert "condition.wait()" in text


class Shareable:
    """A readers-writer lock that does what it is told."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def acquire(self, *, shared: bool = False) -> bool:
        return shared or self.free.wait()

    def release(self) -> None: ...


def test_a_writer_waits_for_all_readers_and_one_of_them_for_the_writer(stuck: Stuck) -> None:
    real = Shareable()
    stuck.let_go.append(real.free.set)
    tracked = ctxcheck.track(real, name="table", shared=True)
    lock = ctxcheck.Lock(name="row")
    ready = [threading.Event() for _ in range(3)]

    def idle() -> None:
        with tracked.shared():
            ready[0].set()
            real.free.wait()

    def read() -> None:
        with tracked.shared():
            ready[1].set()
            ready[2].wait()
            with lock:
                pass

    def write() -> None:
        with lock:
            ready[2].set()
            ready[1].wait()
            with tracked:
                pass

    for work, name in ((idle, "idle"), (read, "reader"), (write, "writer")):
        stuck.start(work, name)
    ready[0].wait()
    stuck.until_waiting("reader", "writer")
    text = dump()
    (line,) = [line for line in text.splitlines() if line.startswith("deadlock:")]
    assert "thread 'writer' holds `row` and waits for `table`" in line
    assert "thread 'reader' holds `table` and waits for `row`" in line
    assert "idle" not in line
    writer = part(text, "writer")
    assert "held by thread 'idle'" in writer
    assert "held by thread 'reader'" in writer


def test_who_gives_up_by_itself_is_in_no_deadlock(stuck: Stuck) -> None:
    a, b = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
    a.acquire()
    both = threading.Event()

    def wait() -> None:
        with b:
            both.set()
            with a:
                pass

    stuck.start(wait, "waiter")
    both.wait()
    stuck.until_waiting("waiter")
    said: list[str] = []

    def look() -> None:
        while not any(s.until for s in stuck.session.engine.roster.live_states() if s.waiting is b):
            time.sleep(0.001)
        said.append(dump())
        a.release()

    stuck.start(look, "looks")
    assert b.acquire(timeout=60)
    b.release()
    assert "stall (somebody in it gives up by itself): " in said[0]
    assert "deadlock: " not in said[0]
    assert "s more at most" in part(said[0], "MainThread")
    assert all(v.grade != "certain" for v in stuck.session.failures)


def test_a_cycle_that_is_gone_at_the_second_look_is_not_said(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Any] = []

    def waits(states: Any) -> Any:
        looks.append(states)
        return [([], (float(len(looks)),))]  # another wait each time

    monkeypatch.setattr(waitgraph, "waits", waits)
    assert "deadlock: " not in dump()
    assert len(looks) == 2


def test_while_the_validator_is_at_work_and_from_a_signal_handler() -> None:
    said: list[str] = []
    before = signal.signal(signal.SIGUSR2, lambda *_: said.append(dump()))
    try:
        with ctxcheck.checking() as session:
            lock = ctxcheck.Lock(name="held")
            with lock, session.engine.orders._mutex:
                signal.raise_signal(signal.SIGUSR2)
                assert session.held_locks() == ["held"]
        assert "holds `held`" in said[0]
        assert session.violations == []
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_the_stream_may_lock() -> None:
    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            with outer, inner:
                return super().write(text)

    with ctxcheck.checking() as session:
        outer, inner = ctxcheck.Lock(name="outer"), ctxcheck.Lock(name="inner")
        with inner:
            pass
        ctxcheck.dump(Stream())
        assert session.counts().orders == 0
    assert session.violations == []


def test_where_nothing_is_checked_it_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    text = ctxcheck.dump()
    assert text == "ctxcheck: who waits for whom: nothing is checked, no session is active"
    assert capfd.readouterr().err == text + "\n"


# --- real deadlocks ---------------------------------------------------------------------------

TWO = """
import threading, time
a, b = threading.Lock(), threading.Lock()
meet = threading.Barrier(2)

def first():
    with a:
        meet.wait()
        with b: pass

def second():
    with b:
        meet.wait()
        with a: pass

for work in (first, second):
    threading.Thread(target=work).start()
"""

THREE = """
import threading
a, b, c = threading.RLock(), threading.Lock(), threading.RLock()
meet = threading.Barrier(3)

def work(mine, other):
    with mine:
        meet.wait()
        with other: pass

for pair in ((a, b), (b, c), (c, a)):
    threading.Thread(target=work, args=pair).start()
"""

READERS = """
import threading
import ctxcheck

class Both:  # readers keep a writer out
    def __init__(self):
        self.changed, self.readers = threading.Condition(), 0
    def acquire(self, shared=False):
        with self.changed:
            while self.readers and not shared:
                self.changed.wait()
            self.readers += shared
        return True
    def release(self): ...

table, row = ctxcheck.track(Both(), name="table", shared=True), threading.Lock()
meet = threading.Barrier(3)

def idle():
    with table.shared():
        meet.wait()
        threading.Event().wait()

def reads():
    with table.shared():
        meet.wait()
        with row: pass

def writes():
    with row:
        meet.wait()
        with table: pass

for f in (idle, reads, writes):
    threading.Thread(target=f).start()
"""

TRACKED = """
import threading
import ctxcheck

a, b = (ctxcheck.track(threading._allocate_lock(), name=name) for name in "ab")
meet = threading.Barrier(2)

def work(mine, other):
    with mine:
        meet.wait()
        with other: pass

for pair in ((a, b), (b, a)):
    threading.Thread(target=work, args=pair).start()
"""

AFTER_A_WAIT = """
import threading
import ctxcheck

row, state = ctxcheck.track(threading._allocate_lock(), name="row"), ctxcheck.Condition(name="state")

def waits():
    with row, state:
        ready.set()
        state.wait()

def wakes():
    ready.wait()
    with state:
        state.notify()
        with row: pass

ready = threading.Event()
for f in (waits, wakes):
    threading.Thread(target=f).start()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="no such signal here")
@pytest.mark.parametrize(
    ("source", "locks"),
    [
        (TWO, {"a", "b"}),
        (THREE, {"a", "b", "c"}),
        (READERS, {"table", "row"}),
        (TRACKED, {"a", "b"}),
        (AFTER_A_WAIT, {"row", "state"}),
    ],
    ids=["two threads", "three threads", "readers", "tracked objects", "after a wait"],
)
def test_a_process_that_hangs_has_said_why_and_says_more_when_asked(
    source: str, locks: set[str], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(textwrap.dedent(source))
    process = subprocess.Popen(
        [sys.executable, "-m", "ctxcheck", "run", "--deadlock-after", "0.1", "--dump-signal", "usr2", "app.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(ctxcheck.__file__).parent.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        report = _lines_until(process.stderr, "fingerprint: ")
        assert "error[CTX001]" in report
        assert "certain" in report
        files = (tmp_path / ".ctxcheck").glob("*.jsonl")
        records = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        (found,) = [
            r["violation"] for r in records if r["type"] == "violation" and r["violation"]["grade"] == "certain"
        ]
        assert {name.rpartition(".")[2] for name in found["locks"]} == locks
        assert process.poll() is None
        process.send_signal(signal.SIGUSR2)
        line = _lines_until(process.stderr, "deadlock: ").splitlines()[-1]
        assert line.count(" and waits for ") == len(locks)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _lines_until(stream: Any, text: str) -> str:
    lines: list[str] = []
    while not lines or text not in lines[-1]:
        line = stream.readline()
        assert line, "".join(lines)
        lines.append(line)
    return "".join(lines)


def test_the_watch_ends_when_nobody_waits_and_leaves_threads_that_wait_alone() -> None:
    while raw.watchers:  # those of other tests
        time.sleep(0.001)
    with ctxcheck.checking(deadlock_after=0.01) as session:
        tracked = ctxcheck.track(threading.Lock(), name="watched")
        watch = session.engine.watchdog
        with tracked:
            pass
        assert not raw.watchers, "nobody waited"
        tracked.acquire()
        thread = threading.Thread(target=lambda: [tracked.acquire(), tracked.release()])
        before = threading.active_count()
        thread.start()
        while not raw.watchers:
            time.sleep(0.001)
        assert threading.active_count() == before + 1
        tracked.release()
        thread.join()
        while raw.watchers:
            time.sleep(0.001)
        while not watch._running.acquire(False):
            time.sleep(0.001)
        watch._running.release()
    assert session.violations == []
