"""Many threads, many signals: exact exclusion, nothing lost, nothing found that isn't there."""

from __future__ import annotations

import random
import signal
import sys
import threading
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking
from tests.engine.test_slowpath import python

THREADS, OPERATIONS = 4, 100_000


def test_a_random_total_order_has_no_findings_and_exact_exclusion() -> None:
    makers = [ctxcheck.Lock, ctxcheck.RLock, ctxcheck.Lock, ctxcheck.SpinLock]
    # sleepable locks first: they may not be taken under spin locks
    count = 12
    kinds = sorted((makers[i % 4] for i in range(count)), key=lambda make: make is ctxcheck.SpinLock)
    locks: list[Any] = [make(name=f"total{i:02}") for i, make in enumerate(kinds)]
    protected = [0] * count
    done = [0] * THREADS
    errors: list[BaseException] = []

    def work(number: int) -> None:
        rng = random.Random(number)
        held: list[int] = []
        mine = [0] * count
        try:
            while done[number] < OPERATIONS:
                last = held[-1] if held else -1
                if held and (len(held) == 4 or last == count - 1 or rng.random() < 0.45):
                    # mostly the last one; what is left stays in order either way
                    index = held.pop(-1 if rng.random() < 0.95 else rng.randrange(len(held)))
                    value = protected[index]
                    mine[index] += 1
                    protected[index] = value + 1
                    locks[index].release()
                    continue
                index = rng.randint(last + 1, min(count - 1, last + 4))
                choice = rng.random()
                lock = locks[index]
                if choice < 0.7:
                    lock.__enter__()
                elif choice < 0.8:
                    lock.acquire()
                elif choice < 0.9:
                    if not lock.acquire(False):
                        continue
                elif not lock.acquire(timeout=600):
                    raise AssertionError("a deadlock")
                if rng.random() < 0.1 and hasattr(lock, "_is_owned"):
                    lock.acquire()
                    lock.release()
                held.append(index)
                done[number] += 1
            while held:
                index = held.pop()
                protected[index] += 1
                mine[index] += 1
                locks[index].release()
        except BaseException as error:
            errors.append(error)
        with total:
            for i in range(count):
                expected[i] += mine[i]

    total, expected = threading.Lock(), [0] * count
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with checking(owners="observed") as session:
            threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert errors == []
    assert session.violations == []
    assert protected == expected
    assert session.counts().acquisitions >= THREADS * OPERATIONS
    session.engine.graph.check_invariants()
    edges = session.graph()["edges"]
    assert len(edges) > 40
    assert all(edge["from"] < edge["to"] for edge in edges)


def test_s37_and_s41_private_locks_made_and_dropped_by_threads_at_once() -> None:
    with checking() as session:

        def work() -> None:
            for _ in range(500):
                own = [ctxcheck.Lock(name=f"private{i}") for i in range(4)]
                with own[0], own[1], own[2], own[3]:
                    pass

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert session.violations == []
    assert len(session.graph()["edges"]) == 6


def test_s97_many_locks_held_at_once() -> None:
    locks = [ctxcheck.Lock(name=f"deep{i:03}") for i in range(150)]
    with checking() as session:
        for lock in locks:
            lock.acquire()
        assert len(session.held_locks()) == 150
        for lock in reversed(locks):
            lock.release()
        with locks[149], locks[0]:
            pass
    assert [v.locks for v in session.violations] == [("deep000", "deep149")]


# --- signals -----------------------------------------------------------------------------------

STORM = '''
import signal, sys, threading, time
import ctxcheck
from ctxcheck import Condition, Lock, RLock, SpinLock, checking

class Boom(BaseException):
    """What the handler raises."""

# one that comes in the middle of a finalizer has nowhere to go
sys.unraisablehook = lambda what: None if what.exc_type is Boom else sys.__unraisablehook__(what)

def is_free(lock):
    answers = []
    def ask():
        if lock.acquire(timeout=20):
            answers.append(1)
            lock.release()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return bool(answers)

def storm(work, locks, raises, *, allowed=()):
    """Run work over and over while a handler raises in its middle; return how often one of the locks stayed held."""
    raised = left = 0
    def handler(number, frame):
        nonlocal raised
        raised += 1
        raise Boom
    signal.signal(signal.SIGALRM, handler)
    until = time.monotonic() + 20
    while raised < raises and time.monotonic() < until:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.00002 + 0.0000013 * (raised % 97), 0.0002)
            while True:
                work()
        except (Boom, *allowed):
            pass
        finally:
            while True:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    signal.signal(signal.SIGALRM, signal.SIG_IGN)
                    break
                except Boom:
                    pass
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        left += sum(not is_free(lock) for lock in locks)
        if left:
            break
        signal.signal(signal.SIGALRM, handler)
    return left, raised

a, b, r, s = Lock(name="a"), Lock(name="b"), RLock(name="r"), SpinLock(name="s")
condition = Condition(r)
number = 0

def plain():
    with a:
        pass
def nested():
    with a:
        with b:
            pass
def rlock():
    with r:
        pass
def reentered():
    with r:
        with r:
            with r:
                pass
def spin():
    with s:
        pass
def fresh():
    global number
    number += 1
    with a:
        with Lock(name=f"fresh{number % 500}"):
            with r:
                pass
def middle():
    b.__enter__()
    try:
        with a:
            try:
                pass
            finally:
                b.__exit__(None, None, None)
    except BaseException:
        # whether b was released already can't be known from here, with the real locks neither
        if b.locked():
            b.__exit__(None, None, None)
        raise
def contended():
    with a:
        with r:
            pass
def waited():
    with r:
        condition.wait(0.00001)
'''

OPERATIONS_UNDER_FIRE = ["plain", "nested", "rlock", "reentered", "spin", "fresh", "contended", "waited"]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("checked", [False, True], ids=["off", "on"])
@pytest.mark.parametrize("operation", OPERATIONS_UNDER_FIRE)
def test_a_handler_that_raises_leaves_no_lock_held(operation: str, checked: bool) -> None:
    rival = operation == "contended"
    # threading.Condition itself may lose its lock to such a handler, and says so when the block ends
    allowed = "(RuntimeError,)" if operation == "waited" else "()"
    output = python(
        STORM
        + f"""
with checking(deadlock_after=60) if {checked} else threading.Lock() as session:
    stop = False
    def other():
        while not stop:
            with a:
                with r:
                    pass
            time.sleep(0.00001)
    thread = threading.Thread(target=other)
    if {rival}:
        thread.start()
    left, raised = storm({operation}, [a, b, r, s], 250, allowed={allowed})
    stop = True
    if {rival}:
        thread.join()
    assert left == 0, (left, raised)
    assert raised >= 100, raised
    if {checked}:
        assert session.held_locks() == [], session.held_locks()
        assert not session.engine.broken
        assert not session.engine.orders._mutex.locked()
        # nothing of what is learned now is lost
        x, y = Lock(name="x"), Lock(name="y")
        with x, y: pass
        with y, x: pass
if {checked}:
    assert [(v.rule, v.locks) for v in session.violations] == [("CTX001", ("x", "y"))], session.violations
print("fine")
""",
        timeout=120,
    )
    assert output.stdout == "fine\n"


TRACKED = (
    STORM
    + """
import _thread
from ctxcheck import fastpath, track

class Both:
    \"""A lock of the interpreter's, exclusive and shared: its methods are C functions.\"""
    def __init__(self, raw):
        self.acquire = self.acquire_read = raw.acquire
        self.release = self.release_read = raw.release

class Counting:
    \"""A readers-writer lock in Python, which a signal handler can interrupt anywhere.\"""
    def __init__(self):
        self.changed, self.readers, self.writer = threading.Condition(threading.Lock()), 0, False
    def acquire(self):
        with self.changed:
            while self.writer or self.readers:
                self.changed.wait()
            self.writer = True
    def release(self):
        with self.changed:
            self.writer = False
            self.changed.notify_all()
    def acquire_read(self):
        with self.changed:
            while self.writer:
                self.changed.wait()
            self.readers += 1
    def release_read(self):
        with self.changed:
            self.readers -= 1
            self.changed.notify_all()

raw = _thread.allocate_lock()
again = _thread.RLock()
pair = ("acquire_read", "release_read")
t = track(raw, name="t")
u = track(Both(_thread.allocate_lock()), name="u", shared=pair)
v = track(again, name="v", kind="rlock")

def plain():
    with t:
        pass
def shared():
    with u.shared():
        pass
    with u:
        pass
def reentered():
    with v:
        with v:
            pass
def mixed():
    with a:
        with t:
            with v:
                with u.shared():
                    pass
def out_of_order():
    t.__enter__()
    with a:
        t.__exit__(None, None, None)
def fresh():
    global number
    number += 1
    with track(_thread.allocate_lock(), name=f"fresh{number % 500}"):
        with t:
            pass
"""
)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("checked", [False, True], ids=["off", "on"])
@pytest.mark.parametrize("operation", ["plain", "shared", "reentered", "mixed", "fresh"])
def test_a_handler_that_raises_leaves_nothing_tracked_held(operation: str, checked: bool) -> None:
    output = python(
        TRACKED
        + f"""
with checking(deadlock_after=60) if {checked} else threading.Lock() as session:
    for _ in range(5):
        left, raised = storm({operation}, [raw, u, again], 50)
        assert left == 0, (left, raised)
        assert raised >= 20, raised
        assert [dict(x._holds) for x in (t, u, v)] == [{{}}, {{}}, {{}}]
        if {checked}:
            assert session.held_locks() == [], session.held_locks()
            assert not session.engine.broken
if {checked}:
    assert session.violations == [], session.violations
print("fine")
""",
        timeout=120,
    )
    assert output.stdout == "fine\n"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_handler_that_raises_where_nothing_protects_the_hold() -> None:
    output = python(
        TRACKED
        + """
with checking(deadlock_after=60) as session:
    total = 0
    while total < 300:
        left, raised = storm(out_of_order, [], 1)
        total += raised
        # the program may leave it held; then it is held to everybody, else to nobody
        held = ["t"] if raw.locked() else []
        assert session.held_locks() == held, (session.held_locks(), held)
        assert sum(map(len, t._holds.values())) == len(held)
        if held:
            t.release()
            assert session.held_locks() == []
        assert not session.engine.broken
print("fine")
""",
        timeout=120,
    )
    assert output.stdout == "fine\n"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("how", ["w", "w.shared()"])
def test_a_tracked_lock_that_is_interrupted_itself(how: str) -> None:
    output = python(
        TRACKED
        + f"""
with checking(deadlock_after=60) as session:
    broken = 0
    def work():
        with {how}:
            pass
    total = 0
    while total < 200:
        mine = Counting()
        w = track(mine, name="w", shared=pair)
        left, raised = storm(work, [], 1)
        total += raised
        # what is recorded is held, and on the chain; the lock itself may have been left held where it was interrupted
        recorded = sum(map(len, w._holds.values()))
        assert recorded <= mine.readers + mine.writer, (recorded, mine.readers, mine.writer)
        assert recorded == len(session.held_locks()), (recorded, session.held_locks())
        assert not session.engine.broken
print("fine")
""",
        timeout=120,
    )
    assert output.stdout == "fine\n"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals to threads")
def test_handlers_that_take_locks_while_signals_rain() -> None:
    output = python("""
        import random, signal, threading, time
        import ctxcheck
        from ctxcheck import Lock, RLock, SpinLock, checking

        a, b, r, s = Lock(name="a"), Lock(name="b"), RLock(name="r"), SpinLock(name="s")
        inner, mine, handled = Lock(name="inner"), RLock(name="mine"), 0
        busy = False

        def handler(number, frame):
            global handled, busy
            # a handler may come in the middle of a handler
            if busy:
                return
            busy = True
            handled += 1
            try:
                with mine:
                    with mine:
                        with inner:
                            pass
                    with Lock(name=f"h{handled % 50}"):
                        pass
                    if a.acquire(False):
                        a.release()
                with r:
                    pass
            finally:
                busy = False

        main = threading.main_thread().ident
        stop = False
        def rain():
            while not stop:
                signal.pthread_kill(main, signal.SIGUSR1)
                time.sleep(0.00005)

        def contend():
            while not stop:
                with a, b:
                    pass
                with r, r:
                    pass

        # orders from what a signal interrupted depend on when it came: not what this is about
        with checking(deadlock_after=60, select=["CTX002", "CTX3", "CTX9"]) as session:
            signal.signal(signal.SIGUSR1, handler)
            threads = [threading.Thread(target=t) for t in (rain, contend)]
            for t in threads: t.start()
            count = 0
            rng = random.Random(3)
            while handled < 1500:
                count += 1
                with a:
                    with b:
                        pass
                with s:
                    pass
                with r:
                    with r:
                        with Lock(name=f"new{count % 200}"):
                            pass
                if rng.random() < 0.1:
                    b.acquire()
                    a.acquire(False) and a.release()
                    b.release()
                assert session.held_locks() == [], session.held_locks()
            stop = True
            for t in threads: t.join()
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            assert session.held_locks() == []
            assert not session.engine.broken
        assert session.violations == [], session.violations
        print("fine")
    """, timeout=120)
    assert output.stdout == "fine\n"
