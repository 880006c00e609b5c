"""What happens off the hot path never harms: deadlocks are told, hand-offs are let be, nothing is left held."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck import DeadlockError, checking
from ctxcheck.engine import slowpath, waiting
from ctxcheck.session import Session
from tests.oracle import in_thread

SOURCE = str(Path(ctxcheck.__file__).resolve().parent.parent)


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def is_free(lock: Any) -> bool:
    """Whether another thread can have it."""
    answers: list[bool] = []

    def ask() -> None:
        answers.append(lock.acquire(False))
        if answers[0]:
            lock.release()

    in_thread(ask)
    return answers[0]


def is_held(lock: Any) -> bool:
    """Whether anybody has it."""
    return lock.locked() if hasattr(lock, "locked") else not is_free(lock)


def python(code: str, *, timeout: float = 60, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; its output is merged."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": SOURCE, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check:
        assert result.returncode == 0, result.stdout
    return result


# --- waiting for oneself -----------------------------------------------------------------


def test_a_thread_that_is_only_just_starting_may_be_the_one_that_releases() -> None:
    # it isn't counted before it runs
    output = python("""
        import _thread, signal
        import ctxcheck
        with ctxcheck.checking() as session:
            lock = ctxcheck.Lock(name="handed")
            for _ in range(100):
                lock.acquire()
                _thread.start_new_thread(lock.release, ())
                lock.acquire()
                lock.release()
        assert session.violations == [], session.violations
        # and so may a signal handler
        with ctxcheck.checking() as session:
            lock = ctxcheck.Lock(name="signalled")
            signal.signal(signal.SIGALRM, lambda *_: lock.release())
            lock.acquire()
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            lock.acquire()
            assert session.held_locks() == ["signalled"]
            lock.release()
        assert session.violations == [], session.violations
        print("fine")
    """)
    assert output.stdout == "fine\n"


@pytest.mark.parametrize("again", ["with", "acquire"])
def test_a_hold_by_with_can_only_be_released_by_its_own_block(again: str) -> None:
    lock = ctxcheck.Lock(name=f"self.{again}")
    with checking() as session:
        with lock:
            with pytest.raises(DeadlockError) as caught:
                lock.__enter__() if again == "with" else lock.acquire()
            assert caught.value.violation.rule == "CTX002"
            assert session.held_locks() == [f"self.{again}"]
        assert is_free(lock)
        with lock:
            pass
    assert found(session) == [("CTX002", "certain")]


def test_a_try_or_a_timed_reacquire_is_no_self_deadlock() -> None:
    lock = ctxcheck.Lock(name="self.try")
    with checking() as session, lock:
        assert lock.acquire(False) is False
        assert lock.acquire(timeout=0) is False
        assert lock.acquire(timeout=0.001) is False
        assert lock.acquire(True, 0.001) is False
    assert found(session) == []


def test_a_hold_that_was_rehung_by_a_release_in_the_middle_is_still_known() -> None:
    a, b = ctxcheck.Lock(name="hung.A"), ctxcheck.Lock(name="hung.B")
    with checking() as session:
        a.acquire()
        b.__enter__()
        a.release()
        with pytest.raises(DeadlockError):
            b.acquire()
        b.__exit__(None, None, None)
        assert session.held_locks() == []
    assert found(session) == [("CTX002", "certain")]


def test_by_acquire_it_is_certain_only_where_no_other_thread_could_release_it() -> None:
    output = python("""
        import ctxcheck
        lock = ctxcheck.Lock(name="alone")
        with ctxcheck.checking() as session:
            lock.acquire()
            try:
                lock.acquire()
            except ctxcheck.DeadlockError as error:
                print(error.violation.rule, error.violation.grade, lock.locked())
            lock.release()
        print(len(session.violations))
    """).stdout
    assert output == "CTX002 certain True\n1\n"


class Looks:
    """Says when a blocked owner was looked at (after ``deadlock_after``), so that no test depends on a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen = threading.Semaphore(0)
        look = waiting.still_blocked

        def told(*args: Any) -> None:
            try:
                look(*args)
            finally:
                self.seen.release()

        monkeypatch.setattr(waiting, "still_blocked", told)

    def wait(self) -> None:
        assert self.seen.acquire(timeout=60)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def test_a_hand_off_is_no_finding_and_marks_the_class() -> None:
    lock = ctxcheck.Lock(name="handed")
    waits = threading.Event()
    with checking(deadlock_after=60) as session:
        lock.acquire()

        def other() -> None:
            assert waits.wait(60)
            lock.release()

        thread = threading.Thread(target=other)
        thread.start()
        waits.set()
        assert lock.acquire() is True, "CPython's own test_reacquire"
        thread.join()
        assert lock.step.lock_class.handed_over
        assert session.held_locks() == ["handed"]
        lock.release()
        assert session.held_locks() == []
    assert found(session) == []


def test_a_hand_off_that_comes_late_is_possible_first_and_the_program_is_left_waiting(looks: Looks) -> None:
    lock = ctxcheck.Lock(name="late")
    with checking(deadlock_after=0.01) as session:
        lock.acquire()

        def other() -> None:
            looks.wait()
            assert found(session) == [("CTX002", "possible")]
            lock.release()

        thread = threading.Thread(target=other)
        thread.start()
        assert lock.acquire() is True
        thread.join()
        lock.release()


def test_locks_of_a_class_that_is_handed_over_are_never_taken_for_deadlocked(looks: Looks) -> None:
    lock = ctxcheck.Lock(name="signal")
    with checking(deadlock_after=0.01) as session:
        for _ in range(2):
            lock.acquire()
            in_thread(lock.release)
        lock.acquire()

        def other() -> None:
            looks.wait()
            lock.release()

        thread = threading.Thread(target=other)
        thread.start()
        assert lock.acquire() is True
        thread.join()
        lock.release()
    assert found(session) == []


def test_a_thread_that_waits_for_itself_for_ever_is_told_while_it_waits(looks: Looks) -> None:
    lock = ctxcheck.Lock(name="stuck")
    with checking(deadlock_after=0.01) as session:

        def stuck() -> None:
            lock.acquire()
            lock.acquire()

        thread = threading.Thread(target=stuck)
        thread.start()
        looks.wait()
        assert found(session) == [("CTX002", "possible")]
        lock.release()
        thread.join()


def test_deadlock_error_in_a_finalizer_and_the_program_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ctxcheck.Lock(name="finalizer")
    ignored: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: ignored.append(args.exc_type))

    class Resource:
        def __del__(self) -> None:
            with lock:
                pass

    with checking() as session:
        with lock:
            resource = Resource()
            del resource
        assert ignored == [DeadlockError]
        assert is_free(lock)
        Resource()
        assert len(ignored) == 1
    assert found(session) == [("CTX002", "certain")]


# --- waiting for each other -------------------------------------------------------------------

DEADLOCK = """
    import sys, threading
    import ctxcheck
    from ctxcheck import Lock, RLock

    def deadlock(make, count, times):
        locks = [make(name=f"L{i}") for i in range(count)]
        together = threading.Barrier(count)
        def run(i):
            for _ in range(times):
                locks[i].acquire()
            together.wait()
            locks[(i + 1) % count].acquire()
        threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
"""


@pytest.mark.parametrize(
    ("make", "count", "times"), [("Lock", 2, 1), ("Lock", 3, 1), ("RLock", 2, 1), ("RLock", 3, 2)]
)
def test_a_real_deadlock_is_printed_and_on_disk_although_the_program_never_ends(
    tmp_path: Path, make: str, count: int, times: int
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(DEADLOCK) + f"\ndeadlock({make}, {count}, {times})\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "ctxcheck", "run", "--deadlock-after", "0.2", str(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SOURCE, "NO_COLOR": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    killer = threading.Timer(60, process.kill)
    killer.start()
    try:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            # the report is written at once; its last line starts the notes
            if line.strip().startswith("= help"):
                break
        assert process.poll() is None, "it waits for ever"
    finally:
        killer.cancel()
        process.kill()
        process.communicate()
    printed = "".join(lines)
    assert "CTX001" in printed
    assert "is happening" in printed or "deadlock" in printed
    (file,) = (tmp_path / ".ctxcheck").glob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    told = [r["violation"] for r in records if r.get("type") == "violation"]
    certain = [v for v in told if v["rule"] == "CTX001" and v["grade"] == "certain"]
    assert certain
    assert sorted(certain[0]["locks"]) == [f"L{i}" for i in range(count)]
    assert len(certain[0]["owners"]) == count


def test_a_wait_for_a_busy_lock_is_no_deadlock(looks: Looks) -> None:
    a, b = ctxcheck.Lock(name="busy.A"), ctxcheck.Lock(name="busy.B")
    held = threading.Event()
    with checking(deadlock_after=0.01) as session:

        def other() -> None:
            with b:
                held.set()
                looks.wait()

        thread = threading.Thread(target=other)
        thread.start()
        assert held.wait(60)
        with a, b:
            pass
        thread.join()
    assert found(session) == []


# --- what is held, and what isn't -----------------------------------------------------------------


def test_a_lock_collected_while_it_is_held_leaves_no_phantom() -> None:
    a, b = ctxcheck.Lock(name="phantom.A"), ctxcheck.Lock(name="phantom.B")
    for make in (ctxcheck.Lock, ctxcheck.RLock, ctxcheck.SpinLock):
        with checking() as session:
            with a, b:
                pass
            gone = make(name="phantom.gone")
            with a:
                gone.acquire()
            del gone
            assert session.held_locks() == []
            assert not [e for e in session.graph()["edges"] if e["from"] == "phantom.gone"]
            # with the phantom held these would be orders from it, and closed circles
            with b:
                pass
            with a, ctxcheck.Lock(name="phantom.gone"):
                pass
            if make is ctxcheck.SpinLock:
                ctxcheck.Event().wait(0.001)
        assert found(session) == [("CTX304", "possible" if make is ctxcheck.Lock else "certain")]


def test_one_that_somebody_else_held_leaves_none_either() -> None:
    a = ctxcheck.Lock(name="theirs.A")
    lock = ctxcheck.RLock(name="theirs")
    ready, go = threading.Event(), threading.Event()
    held: list[list[str]] = []
    with checking() as session:

        def other() -> None:
            box.pop().acquire()
            ready.set()
            assert go.wait(60)
            held.append(session.held_locks())
            with a:
                pass

        box = [lock]
        thread = threading.Thread(target=other)
        thread.start()
        assert ready.wait(60)
        del lock
        go.set()
        thread.join()
        assert held == [[]]
        assert session.graph()["edges"] == []


def test_a_generator_that_holds_a_lock() -> None:
    a, b = ctxcheck.Lock(name="gen.A"), ctxcheck.Lock(name="gen.B")

    def numbers() -> Iterator[int]:
        with a:
            yield 1
            yield 2

    with checking() as session:
        running = numbers()
        next(running)
        assert session.held_locks() == ["gen.A"]
        with b:
            next(running)
            running.close()
            assert session.held_locks() == ["gen.B"]
        assert session.held_locks() == []
        assert is_free(a)
        # A -> B was real while the generator was suspended
        with b, a:
            pass
    assert found(session) == [("CTX001", "possible")]


def test_a_generator_that_is_closed_by_another_thread() -> None:
    a = ctxcheck.Lock(name="far.A")

    def numbers() -> Iterator[int]:
        with a:
            yield 1

    with checking() as session:
        running = numbers()
        next(running)
        in_thread(running.close)
        assert session.held_locks() == []
        assert is_free(a)
    assert found(session) == [("CTX104", "possible")], "its lock was held until somebody else closed it"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_condition_waits_without_its_lock_however_often_it_is_held(depth: int) -> None:
    condition = ctxcheck.Condition(name="cond")
    outer = ctxcheck.Lock(name="cond.outer")
    with checking() as session:

        def notify() -> None:
            with condition:  # only if the waiter let go of all levels
                condition.notify()

        with outer:
            for _ in range(depth):
                condition.acquire()
            thread = threading.Thread(target=notify)
            thread.start()
            assert condition.wait(60)
            assert session.held_locks() == ["cond.outer", "cond"]
            for _ in range(depth):
                condition.release()
            assert session.held_locks() == ["cond.outer"]
        thread.join()
        assert is_free(condition)
    edges = [(e["from"], e["to"], e["count"]) for e in session.graph()["edges"]]
    assert edges.pop() == ("cond.outer", "condition cond", 1), "waited for, with another lock in hand"
    assert edges == [("cond.outer", "cond", 1)], "taken again after the wait, which is chance and not counted"
    [seen] = [e for (a, b), e in session.engine.graph.evidence.items() if (a.key, b.key) == ("cond.outer", "cond")]
    assert [w.taken_mode.name for w in seen.witnesses] == ["acquire"], "and not shown: whether it waited is chance"
    assert found(session) == []


def test_during_a_wait_the_lock_is_not_held_and_its_return_is_an_acquire() -> None:
    lock = ctxcheck.Lock(name="wait.L")
    condition = ctxcheck.Condition(lock)
    inner = ctxcheck.Lock(name="wait.inner")
    with checking() as session:
        with condition:
            inner.acquire()
            assert not condition.wait(0.001)
            inner.release()
    edges = {(e["from"], e["to"]) for e in session.graph()["edges"]}
    edges = {edge for edge in edges if not edge[1].startswith("condition ")}
    assert edges == {("wait.L", "wait.inner"), ("wait.inner", "wait.L")}
    assert found(session) == [("CTX001", "possible")], "another thread may hold it and want `inner`"


def test_s53_and_s54_reentry_adds_no_edge_and_one_release_doesnt_end_the_hold() -> None:
    locks = [ctxcheck.RLock(name=f"re{i}") for i in range(4)]
    with checking() as session:
        locks[0].acquire()
        locks[1].acquire()
        locks[0].acquire()
        locks[2].acquire()
        locks[0].release()
        locks[3].acquire()
        assert session.held_locks() == ["re0", "re1", "re2", "re3"]
        for lock in locks:
            lock.release()
        assert session.held_locks() == []
    edges = {(e["from"][2:], e["to"][2:]) for e in session.graph()["edges"]}
    assert edges == {("0", "1"), ("0", "2"), ("1", "2"), ("0", "3"), ("1", "3"), ("2", "3")}
    assert found(session) == []


def test_s56_a_recursive_reacquire_in_the_middle_makes_no_inversion() -> None:
    main, wallet, pool = (ctxcheck.RLock(name=name) for name in ("btc.main", "btc.wallet", "btc.pool"))
    with checking() as session:
        with main, wallet, pool, main, wallet:
            pass
        with main, wallet, pool:
            pass
    assert found(session) == []


def test_s57_a_release_too_many() -> None:
    lock = ctxcheck.RLock(name="many")
    with checking() as session:
        for _ in range(3):
            lock.acquire()
        for _ in range(3):
            lock.release()
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock.release()
    assert found(session) == [("CTX305", "certain")]


def test_s52_an_acquire_that_fails_leaves_everything_as_it_was() -> None:
    lock, held = ctxcheck.Lock(name="fails"), ctxcheck.Lock(name="fails.held")
    with checking() as session:
        with held:
            with pytest.raises(ValueError, match="can't specify a timeout"):
                lock.acquire(False, 1)
            with pytest.raises(OverflowError):
                lock.acquire(timeout=threading.TIMEOUT_MAX * 2)
            with pytest.raises(TypeError):
                lock.acquire(timeout="soon")
            assert session.held_locks() == ["fails.held"]
        busy = threading.Event(), threading.Event()

        def other() -> None:
            with lock:
                busy[0].set()
                assert busy[1].wait(60)

        thread = threading.Thread(target=other)
        thread.start()
        assert busy[0].wait(60)
        assert lock.acquire(timeout=0.001) is False
        assert lock.acquire(False) is False
        assert session.held_locks() == []
        busy[1].set()
        thread.join()
        assert is_free(lock)
    assert found(session) == []


def test_s87_releases_of_what_nobody_holds_or_somebody_else_does() -> None:
    plain, owned, spin = (
        make(name=f"misuse.{make.__name__}") for make in (ctxcheck.Lock, ctxcheck.RLock, ctxcheck.SpinLock)
    )
    with checking() as session:
        for lock in (plain, owned, spin):
            with pytest.raises(RuntimeError):
                lock.release()
        for lock in (owned, spin):
            with lock, pytest.raises(RuntimeError):
                in_thread(lock.release)
            assert is_free(lock)
        with plain:
            in_thread(lambda: (plain.release(), plain.acquire()))
    assert sorted(found(session)) == [("CTX302", "certain")] * 2 + [("CTX305", "certain")] * 3


# --- exceptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["with", "acquire", "try", "timed"])
def test_mode_raise_leaves_nothing_held_and_raises_each_time(how: str) -> None:
    a, b = ctxcheck.Lock(name=f"raise.{how}.A"), ctxcheck.Lock(name=f"raise.{how}.B")
    with checking(mode="raise", fail_on="unlikely") as session:
        with a, b:
            pass
        for _ in range(3):
            with b:
                if how == "try":
                    assert a.acquire(False)
                    a.release()
                    continue
                with pytest.raises(ctxcheck.ViolationError):
                    if how == "with":
                        a.__enter__()
                    elif how == "acquire":
                        a.acquire()
                    else:
                        a.acquire(timeout=60)
                assert session.held_locks() == [f"raise.{how}.B"]
                assert is_free(a)
            assert is_free(b)


def test_what_a_callback_raises_leaves_nothing_held() -> None:
    a, b = ctxcheck.Lock(name="cb.A"), ctxcheck.RLock(name="cb.B")

    def refuse(violation: ctxcheck.Violation) -> None:
        raise KeyError(violation.rule)

    with checking(mode=refuse) as session:
        with a, b:
            pass
        with b, pytest.raises(KeyError, match="CTX001"), a:
            raise AssertionError("not reached")
        assert session.held_locks() == []
        assert is_free(a)
        assert is_free(b)
    assert found(session) == [("CTX001", "possible")]


def test_a_violation_raised_in_a_wait_leaves_the_condition_consistent() -> None:
    condition, inner = ctxcheck.Condition(name="cw.cond"), ctxcheck.Lock(name="cw.inner")
    with checking(mode="raise") as session:
        with condition:
            with inner:
                with pytest.raises(ctxcheck.ViolationError):
                    condition.wait(0.001)
                    # held again, as it would be after a wait: the block around it is going to release it
                    assert not is_free(condition)
        assert session.held_locks() == []
        assert is_free(condition)


def limit() -> int:
    """How deep one can go from here before the interpreter gives up."""

    def down(n: int) -> int:
        try:
            return down(n + 1)
        except RecursionError:
            return n

    return down(0)


def at_depth(n: int, work: Callable[[], object]) -> object:
    return at_depth(n - 1, work) if n else work()


class Limits:
    """Operations that must leave nothing held, wherever the interpreter runs out of stack."""

    def __init__(self) -> None:
        self.a, self.b = ctxcheck.Lock(name="deep.A"), ctxcheck.Lock(name="deep.B")
        self.r, self.s = ctxcheck.RLock(name="deep.R"), ctxcheck.SpinLock(name="deep.S")
        self.fresh = [ctxcheck.Lock(name=f"deep.{i}") for i in range(80)]
        self.condition = ctxcheck.Condition(self.r)

    def cached(self) -> None:
        with self.a:
            with self.b:
                pass

    def first_time(self) -> None:
        lock = self.fresh.pop()
        with self.a:
            with lock:
                pass
        self.fresh.insert(0, lock)

    def reentered(self) -> None:
        with self.r:
            with self.r:
                with self.r:
                    pass

    def spinning(self) -> None:
        with self.s:
            pass

    def tried(self) -> None:
        if self.a.acquire(False):
            try:
                pass
            finally:
                self.a.release()

    def out_of_order(self) -> None:
        taken = False
        try:
            with self.a:
                taken = self.b.acquire()
        finally:
            if taken:
                self.b.release()

    def waited(self) -> None:
        with self.condition:
            with self.condition:
                self.condition.wait(0)

    def locks(self) -> list[Any]:
        return [self.a, self.b, self.r, self.s, *self.fresh]


@pytest.mark.parametrize(
    "operation", ["cached", "first_time", "reentered", "spinning", "tried", "out_of_order", "waited"]
)
def test_out_of_stack_nothing_is_left_held_and_checking_goes_on(operation: str) -> None:
    program = Limits()
    work = getattr(program, operation)
    bottom = limit()
    with checking() as session:
        if operation != "first_time":
            work()
        gave_up = 0
        for margin in range(80):
            try:
                at_depth(bottom - margin, work)
            except RecursionError:
                gave_up += 1
            assert [lock for lock in program.locks() if is_held(lock)] == [], margin
            assert session.held_locks() == [], margin
        assert gave_up > 0
        assert not session.engine.broken
        with program.b, program.a:
            pass
    assert ("CTX901", "certain") not in found(session)


# --- faults of our own -------------------------------------------------------------------------------


def test_a_fault_inside_is_told_once_and_the_program_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    a, b = ctxcheck.Lock(name="fault.A"), ctxcheck.RLock(name="fault.B")
    monkeypatch.setattr("ctxcheck.engine.graph.Evidence.add", lambda self, witness: {}["gone"])
    here = os.path.dirname(os.path.dirname(__file__)) + os.sep
    with checking() as outer:
        with checking() as session:
            monkeypatch.setattr("ctxcheck.engine.sites.PACKAGE_DIR", here)  # the line above is taken for ours
            for _ in range(3):
                with a, b, b:
                    pass
            monkeypatch.undo()
            assert is_free(a)
            assert is_free(b)
        assert [v.rule for v in session.violations] == ["CTX901"]
        with a, b:
            pass
        with b, a:
            pass
    assert found(outer) == [("CTX001", "possible")], "the session around it is none the worse"
    assert capfd.readouterr().err.count("internal fault") == 1


@pytest.mark.parametrize("where", ["acquire", "release"])
def test_what_isnt_ours_passes_through(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = ctxcheck.Lock(name=f"foreign.{where}")

    class Theirs(Exception):
        pass

    def handler(*args: object) -> Any:
        raise Theirs

    with checking() as session:
        if where == "acquire":
            monkeypatch.setattr(type(session.engine), "acquire", handler)
            with pytest.raises(Theirs):
                lock.acquire()
        else:
            lock.acquire()
            ctxcheck.Lock(name="foreign.other").acquire()
            monkeypatch.setattr(slowpath, "drop", handler)
            with pytest.raises(Theirs):
                lock.release()
        monkeypatch.undo()
        assert is_free(lock)
        assert not session.engine.broken


def test_reentry_of_the_slow_path_from_finalizers_at_any_allocation() -> None:
    before = gc.get_threshold()
    names = itertools_count()
    inside = ctxcheck.Lock(name="gc.inside")

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            # not the same lock twice in one stack: that would be a deadlock, and told
            if inside.acquire(False):
                try:
                    with ctxcheck.Lock(name=f"gc.{next(names)}"):
                        pass
                finally:
                    inside.release()

    a, b = ctxcheck.Lock(name="gc.A"), ctxcheck.RLock(name="gc.B")
    with checking() as session:
        gc.set_threshold(1)
        try:
            for i in range(120):
                Cycle()
                with a, b, ctxcheck.Lock(name=f"gc.new{i}"):
                    Cycle()
                assert session.held_locks() == []
        finally:
            gc.set_threshold(*before)
        gc.collect()
        assert is_free(inside)
        assert not session.engine.broken
        assert len(session.graph()["edges"]) > 120


def itertools_count() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number
