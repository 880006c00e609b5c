"""The one writer of what is known: nothing is lost between threads, processes and sessions, and nothing is kept."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking, fastpath
from ctxcheck.engine import orders
from ctxcheck.engine.classes import LOCK, LockClass
from ctxcheck.engine.graph import Evidence
from ctxcheck.engine.validator import Validator
from ctxcheck.engine.violations import Violation
from ctxcheck.session import Session
from tests.engine.test_slowpath import found, is_free, python
from tests.oracle import in_thread


def edges(session: Session) -> set[tuple[str, str]]:
    return {(e["from"], e["to"]) for e in session.graph()["edges"]}


def together(count: int, work: Callable[[int], object]) -> None:
    """Run ``work(i)`` in ``count`` threads that start at once, and raise what one of them raises."""
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(i: int) -> None:
        try:
            start.wait()
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors.pop()


# --- threads at once ------------------------------------------------------------------------


def test_what_threads_learn_at_once_is_all_there() -> None:
    names = [f"all.{i:02}" for i in range(24)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with checking(owners="observed") as session:

            def work(i: int) -> None:
                own = [ctxcheck.Lock(name=name) for name in names]
                for a, b in itertools.combinations(range(i, 24, 4), 2):
                    with own[a], own[b]:
                        pass

            together(4, work)
            assert not session.engine.broken
    finally:
        sys.setswitchinterval(switch)
    expected = {(names[a], names[b]) for i in range(4) for a, b in itertools.combinations(range(i, 24, 4), 2)}
    assert edges(session) == expected
    session.engine.graph.check_invariants()
    assert found(session) == []


def test_each_of_many_threads_closes_a_cycle_and_each_is_told_once() -> None:
    told: list[Violation] = []
    with checking(mode=told.append) as session:

        def work(i: int) -> None:
            a, b = ctxcheck.Lock(name=f"close{i}.A"), ctxcheck.RLock(name=f"close{i}.B")
            for _ in range(3):
                with a, b:
                    pass
                with b, a:
                    pass

        together(8, work)
    assert sorted(v.locks for v in told) == [(f"close{i}.A", f"close{i}.B") for i in range(8)]
    assert len(session.violations) == 8


def test_s38_many_threads_on_one_inversion_are_one_finding() -> None:
    a, b = ctxcheck.Lock(name="s38.A"), ctxcheck.Lock(name="s38.B")
    with checking(owners="observed") as session:
        with a, b:
            pass

        def work(i: int) -> None:
            for _ in range(10):
                with b, a:
                    pass

        together(20, work)
    assert found(session) == [("CTX001", "possible")]


def test_an_owner_that_cant_have_the_mutex_leaves_its_event_to_the_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxcheck.engine.orders.PATIENCE", 0.001)
    a, b = ctxcheck.Lock(name="busy.A"), ctxcheck.Lock(name="busy.B")
    inside, go = threading.Event(), threading.Event()
    add = Evidence.add

    def slow(self: Evidence, witness: Any) -> bool:
        if threading.current_thread().name == "slow":
            inside.set()
            assert go.wait(60)
        return add(self, witness)

    monkeypatch.setattr(Evidence, "add", slow)
    with checking() as session:
        x, y = ctxcheck.Lock(name="busy.X"), ctxcheck.Lock(name="busy.Y")

        def hold() -> None:
            with x, y:
                pass

        thread = threading.Thread(target=hold, name="slow")
        thread.start()
        assert inside.wait(60)
        with a, b:  # doesn't wait for the thread that is stuck in the middle of the graph
            pass
        with b, a:
            pass
        assert session.graph()["edges"] == [] or edges(session) == {("busy.X", "busy.Y")}
        go.set()
        thread.join()
        assert found(session) == [("CTX001", "possible")]
    assert edges(session) == {("busy.X", "busy.Y"), ("busy.A", "busy.B"), ("busy.B", "busy.A")}


def test_a_callback_may_take_locks_ask_for_the_findings_and_raise() -> None:
    a, b, c = (ctxcheck.Lock(name=f"again.{n}") for n in "ABC")
    seen: list[list[str]] = []

    def callback(violation: Violation) -> None:
        with c, a:  # unchecked, or it would never end
            pass
        seen.append([v.rule for v in session.violations])
        raise RuntimeError("from the callback")

    with Session(mode=callback) as session:
        with a, b:
            pass
        with b, pytest.raises(RuntimeError, match="from the callback"), a:
            raise AssertionError("not reached")
        assert is_free(a)
        # the mutex was given back: what comes now is learned
        with a, c:
            pass
    assert seen == [["CTX001"]]
    assert ("again.A", "again.C") in edges(session)
    assert ("again.C", "again.A") not in edges(session)
    assert not session.engine.broken


# --- nothing is kept ------------------------------------------------------------------------


def test_twenty_thousand_threads_leave_nothing_behind() -> None:
    import _thread

    a, b = ctxcheck.Lock(name="short.A"), ctxcheck.RLock(name="short.B")
    done = _thread.allocate_lock()

    def work() -> None:
        with a, b:
            with b:
                pass
        done.release()

    def rounds(count: int) -> None:
        for _ in range(count):
            done.acquire()
            _thread.start_new_thread(work, ())
        done.acquire()
        done.release()
        # the last one's local state goes a moment after it says that it is done
        while _thread._count() > before:  # type: ignore[attr-defined]
            pass

    before = _thread._count()  # type: ignore[attr-defined]
    with checking(owners="observed") as session:
        rounds(200)
        gc.collect()
        blocks = sys.getallocatedblocks()
        rounds(20_000)
        gc.collect()
        grown = sys.getallocatedblocks() - blocks
        assert grown < 1_000, "a block for every twentieth thread at most"
        assert len(session.engine.roster._states) <= 1
        assert session.engine._nodes <= 2
        assert session.engine.dropped == session.engine.uncached == 0
        (evidence,) = session.engine.graph.evidence.values()
        assert len(evidence.witnesses) == 8
    assert found(session) == []


def test_states_and_locks_are_freed_by_reference_count_alone() -> None:
    gc.collect()
    gc.disable()
    try:
        with checking():
            locks = [ctxcheck.Lock(name="free"), ctxcheck.RLock(name="free.R"), ctxcheck.SpinLock(name="free.S")]
            states: list[weakref.ref[Any]] = []

            def work() -> None:
                with locks[0], locks[1], locks[1], locks[2]:
                    states.append(weakref.ref(fastpath.current()))

            in_thread(work)
            assert states[0]() is None
            gone = [weakref.ref(lock) for lock in locks]
            locks.clear()
            assert [g() for g in gone] == [None] * 3
    finally:
        gc.enable()


def test_the_node_count_is_capped_and_what_comes_beyond_is_checked_uncached() -> None:
    findings: list[Any] = []

    def record(finding: Any) -> Violation:
        findings.append(finding)
        return Violation(finding.rule, "", finding.grade, "")

    engine = Validator(record, lambda finding: None, max_nodes=3)
    locks = []
    for i in range(5):
        lock = fastpath.BaseLock()
        lock._setup(LockClass(f"cap{i}", f"cap{i}", LOCK))
        locks.append(lock)
    before = fastpath.activate(engine)
    assert before is not None
    try:
        for _ in range(2):
            for a, b in itertools.pairwise(locks):
                with a, b:
                    pass
        with locks[4], locks[0]:
            pass
    finally:
        fastpath.activate(None)
    assert engine._nodes == 3
    assert engine.uncached > 0
    assert [(f.rule, f.grade) for f in findings] == [("CTX001", "possible")]


def test_the_nodes_of_owners_that_are_gone_are_given_back() -> None:
    lock = ctxcheck.Lock(name="given.back")
    with checking() as session:
        session.engine._max_nodes = 5
        for _ in range(20):
            in_thread(lambda: (lock.acquire(), lock.release()))
        assert session.engine.dropped == session.engine.uncached == 0
        assert session.engine._nodes == 0


# --- owners that end -------------------------------------------------------------------------------


def test_a_thread_that_ends_with_locks_is_told_once_a_lock() -> None:
    kinds = {"Lock": ctxcheck.Lock, "RLock": ctxcheck.RLock, "SpinLock": ctxcheck.SpinLock}
    locks = [make(name=f"left.{kind}") for kind, make in kinds.items()]
    with checking(select=["CTX303"]) as session:
        in_thread(lambda: [lock.acquire() for lock in locks])
    rules = sorted((v.locks[0], v.grade) for v in session.violations)
    assert rules == [("left.Lock", "possible"), ("left.RLock", "certain"), ("left.SpinLock", "certain")]


def test_a_lock_left_held_is_redeemed_by_whoever_releases_it() -> None:
    lock = ctxcheck.Lock(name="redeemed")
    with checking() as session:
        in_thread(lock.acquire)
        assert found(session) == [("CTX303", "possible")]
        lock.release()
        assert found(session) == []
    assert found(session) == []


def test_locks_taken_by_the_finalizers_of_a_threads_own_values() -> None:
    a, b = ctxcheck.Lock(name="tls.A"), ctxcheck.RLock(name="tls.B")
    local = threading.local()

    class Value:
        def __del__(self) -> None:
            with a, b:
                pass

    def work() -> None:
        local.before = Value()
        with b:
            pass
        local.after = Value()

    with checking() as session:
        for _ in range(5):
            in_thread(work)
        assert is_free(a)
        assert is_free(b)
    assert not session.engine.broken
    assert found(session) == []


# --- sessions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "release_in"),
    [
        *((kind, "same thread") for kind in ("Lock", "RLock", "SpinLock", "Semaphore")),
        *((kind, "other thread") for kind in ("Lock", "SpinLock", "Semaphore")),
    ],
)
@pytest.mark.parametrize(
    ("taken", "released"),
    [("before", "in"), ("in", "after"), ("outer", "inner"), ("inner", "outer"), ("first", "second")],
)
def test_locks_taken_in_one_session_and_released_in_another(
    kind: str, release_in: str, taken: str, released: str
) -> None:
    lock = getattr(ctxcheck, kind)(name=f"across.{kind}")
    release = lock.release if release_in == "same thread" else (lambda: in_thread(lock.release))
    select = {"select": ["CTX001", "CTX002", "CTX302", "CTX305", "CTX901"]}
    sessions: list[Session] = []
    if taken == "before":
        lock.acquire()
    with checking(**select) as first:
        sessions.append(first)
        if taken in ("in", "outer", "first"):
            lock.acquire()
        if "inner" in (taken, released):
            with checking(**select) as inner:
                sessions.append(inner)
                if taken == "inner":
                    lock.acquire()
                if released == "inner":
                    release()
        if released in ("in", "outer"):
            release()
        assert released in ("after", "second") or first.held_locks() == []
    if released == "second":
        with checking(**select) as second:
            sessions.append(second)
            release()
    if released == "after":
        release()
    # it is free, and good for another round
    with checking(**select) as last:
        sessions.append(last)
        with lock:
            assert last.held_locks() == [f"across.{kind}"]
        assert last.held_locks() == []
    assert [found(session) for session in sessions] == [[]] * len(sessions)


def test_sessions_that_are_nested_and_end_in_any_order() -> None:
    for order in itertools.permutations(range(3)):
        sessions = [Session() for _ in range(3)]
        for session in sessions:
            session.start()
        alive = list(sessions)
        for i in order:
            sessions[i].stop()
            sessions[i].stop()
            alive.remove(sessions[i])
            expected = alive[-1].engine if alive else None
            assert fastpath.engine() is expected
            assert fastpath.active is (expected is not None)
            assert fastpath.current().engine is expected
            a, b = ctxcheck.Lock(name="nested.A"), ctxcheck.Lock(name="nested.B")
            with a, b:
                pass
            if alive:
                assert edges(alive[-1]) == {("nested.A", "nested.B")}
    assert fastpath.engine() is None


def test_a_callback_that_raises_while_a_session_ends_doesnt_keep_it_alive() -> None:
    def refuse(violation: Violation) -> None:
        raise ValueError(violation.rule)

    lock = ctxcheck.RLock(name="ends.badly")
    session = Session(mode=refuse)
    with pytest.raises(ValueError, match="CTX303"), session:
        lock.acquire()
    lock.release()
    assert fastpath.engine() is None
    with checking() as after, lock:
        pass
    assert found(after) == []


def test_a_hand_off_in_one_session_says_nothing_in_the_next() -> None:
    a, b = ctxcheck.Lock(name="memory.A"), ctxcheck.Lock(name="memory.B")
    with checking():
        a.acquire()
        in_thread(a.release)
    with checking() as session:
        with a, b:
            pass
        with b, a:
            pass
    assert found(session) == [("CTX001", "possible")]


def test_nesting_in_one_session_says_nothing_in_the_next() -> None:
    some = [ctxcheck.Lock(name="memory.nested") for _ in range(2)]
    with checking() as first:
        with some[0], some[1]:
            pass
    with checking() as second:
        with some[0]:
            pass
        with some[1]:
            pass
    assert found(first) == [("CTX003", "unlikely")]
    assert found(second) == []


# --- two locks of one class ---------------------------------------------------------------------


def test_nesting_is_unlikely_in_one_order_and_possible_in_both() -> None:
    x, y = (ctxcheck.Lock(name="pair") for _ in range(2))
    with checking() as session:
        with x, y:
            pass
        assert found(session) == [("CTX003", "unlikely")]
        with y, x:
            pass
        assert found(session) == [("CTX003", "possible")]


def test_the_order_key_declares_the_order() -> None:
    keyed = [ctxcheck.Lock(name="keyed", order_key=k) for k in (1, 2, 2, None)]
    with checking() as session:
        with keyed[0], keyed[1]:
            pass
        assert found(session) == []
        with keyed[1], keyed[0]:
            pass
        assert [v.grade for v in session.violations] == ["possible"]
    with checking() as session:
        with keyed[1], keyed[2]:
            pass
        assert [v.grade for v in session.violations] == ["possible"], "equal keys declare nothing"


def test_a_broken_comparison_of_keys_is_no_order_and_no_fault() -> None:
    class Key:
        def __lt__(self, other: object) -> bool:
            raise ZeroDivisionError

    x, y = (ctxcheck.Lock(name="broken.key", order_key=Key()) for _ in range(2))
    with checking() as session:
        with x, y:
            pass
        assert found(session) == [("CTX003", "unlikely")]
        assert not session.engine.broken


def test_instances_that_were_held_before_the_class_was_known_to_nest_are_found() -> None:
    x, y, z = (ctxcheck.RLock(name="known.late") for _ in range(3))
    with checking(owners="observed") as session:
        with x, x:
            with y, y:  # the first nesting: x was taken on the fast path's record, and re-entered
                with z:
                    pass
        in_thread(lambda: (z.acquire(), x.acquire(), x.release(), z.release()))
    assert found(session) == [("CTX003", "possible")]


def test_a_timed_wait_among_instances_is_unlikely() -> None:
    x, y = (ctxcheck.Lock(name="pair.timed") for _ in range(2))
    with checking() as session:
        with x, y:
            pass
        with y:
            assert x.acquire(timeout=60)
            x.release()
    assert found(session) == [("CTX003", "unlikely")]


# --- fork ---------------------------------------------------------------------------------------------


def test_fork_while_other_threads_learn() -> None:
    output = python("""
        import os, signal, sys, threading, warnings
        warnings.simplefilter("ignore")  # forking with threads is what this is about
        import ctxcheck
        from ctxcheck.session import Session

        session = Session()
        session.start()
        stop = []
        shared = [ctxcheck.Lock(name=f"shared{i}") for i in range(4)]
        held = ctxcheck.RLock(name="held")
        ready = threading.Event()

        def learn(seed):
            with held if not seed else ctxcheck.Lock(name="other"):
                ready.set()
                n = 0
                while not stop:
                    n += 1
                    with shared[seed], ctxcheck.Lock(name=f"new{seed}.{n % 200}"):
                        pass

        threads = [threading.Thread(target=learn, args=(i,)) for i in range(4)]
        for t in threads: t.start()
        ready.wait()
        a, b = ctxcheck.Lock(name="A"), ctxcheck.RLock(name="B")
        for round in range(25):
            with a:
                pid = os.fork()
                if pid == 0:
                    signal.alarm(30)
                    assert session.held_locks() == ["A"], session.held_locks()
            if pid == 0:
                with a, b: pass
                with b, a: pass
                t = threading.Thread(target=lambda: [a.acquire(), b.acquire(), b.release(), a.release()])
                t.start(); t.join()
                told = [(v.rule, v.locks) for v in session.violations]
                assert told == [("CTX001", ("A", "B"))], told
                assert not session.engine.broken
                session.stop()
                assert [v.rule for v in session.violations] == ["CTX001"]
                os._exit(0)
            status = os.waitpid(pid, 0)[1]
            assert status == 0, status
        stop.append(1)
        for t in threads: t.join()
        assert {v.rule for v in session.violations} == {"CTX306"}, session.violations
        session.stop()
        print("fine")
    """)
    assert output.stdout == "fine\n"


def test_fork_in_the_middle_of_the_graph() -> None:
    output = python("""
        import os
        import ctxcheck
        from ctxcheck.engine.graph import Evidence
        add = Evidence.add
        def forking(self, witness):
            Evidence.add = add
            global pid
            pid = os.fork()  # as a signal handler could
            return add(self, witness)
        a, b, c = (ctxcheck.Lock(name=n) for n in "ABC")
        with ctxcheck.checking() as session:
            Evidence.add = forking
            with a, b: pass
            with b, a: pass
            assert not session.engine.broken
        told = [(v.rule, v.locks) for v in session.violations]
        assert told == [("CTX001", ("A", "B"))], told
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("fine")
    """)
    assert output.stdout == "fine\n"


def test_fork_in_nested_sessions() -> None:
    output = python("""
        import os
        import ctxcheck
        a, b = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
        with ctxcheck.checking() as outer:
            a.acquire()
            with ctxcheck.checking() as inner:
                b.acquire()
                pid = os.fork()
                if pid == 0:
                    assert inner.held_locks() == ["B"]
                b.release()
                assert inner.held_locks() == []
            assert outer.held_locks() == ["A"], outer.held_locks()
            with b: pass
            a.release()
            with b, a: pass
        assert [v.rule for v in outer.violations] == ["CTX001"], outer.violations
        assert inner.violations == []
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("fine")
    """)
    assert output.stdout == "fine\n"


# --- the end of the interpreter ---------------------------------------------------------------------


def test_daemon_threads_hammer_locks_while_the_interpreter_goes() -> None:
    code = """
        import random, threading
        import ctxcheck
        from ctxcheck.session import Session
        session = Session()
        session.start()
        locks = [ctxcheck.Lock(name=f"{i}") for i in range(4)] + [ctxcheck.RLock(name="r")]
        running = threading.Semaphore(0)
        def hammer():
            rng = random.Random(1)
            first = True
            while True:
                i, j = sorted(rng.sample(range(5), 2))
                with locks[i], locks[j], ctxcheck.Lock(name="new"):
                    if first:
                        running.release()
                        first = False
        for _ in range(6): threading.Thread(target=hammer, daemon=True).start()
        for _ in range(6): running.acquire()
    """
    for _ in range(3):
        assert python(code).stdout == ""


def test_a_session_that_is_never_stopped_and_locks_that_are_held_at_the_end() -> None:
    output = python("""
        import builtins
        import ctxcheck
        from ctxcheck.session import Session
        session = Session()
        session.start()
        held, lock = ctxcheck.RLock(name="held"), ctxcheck.Lock(name="lock")
        held.acquire(), lock.acquire()
        class Late:
            def __del__(self):
                with held, ctxcheck_lock(name="late"): pass
        ctxcheck_lock = ctxcheck.Lock
        builtins.late = Late()
        cycle = Late()
        cycle.me = cycle
    """)
    assert output.stdout == ""


def test_orders_beyond_a_limit_are_counted_and_those_that_are_known_still_learn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orders, "MAX_EDGES", 2)
    with ctxcheck.checking(owners="observed") as session:
        a, b, c = (ctxcheck.Lock(name=f"limit.{name}") for name in "abc")
        with a, b:
            pass
        with b, a:
            pass
        with b, c:
            pass
        with a, c:
            pass
        assert session.counts().orders == 2
        assert session.counts().dropped == 2
        in_thread(lambda: [lock.acquire() for lock in (a, b)] and [lock.release() for lock in (b, a)])
    assert [v.grade for v in session.violations] == ["possible"], "another owner, on an order that is known"
