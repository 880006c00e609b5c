"""``requires_lock``, ``assert_held``, ``assert_not_held`` and ``might_lock``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ctxcheck import fastpath
from ctxcheck.engine.classes import ACQUIRE, SEMAPHORE, SHARED, LockClass
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import Node, OwnerState, Unused
from ctxcheck.locks.tracked import track
from ctxcheck.markers import assert_held, assert_not_held, atomic, might_lock, requires_lock

from .conftest import Check, PlainLock, make_lock, make_rlock, make_spin


class Table:
    def __init__(self, lock: Any = None) -> None:
        self.lock = make_lock("Table.lock") if lock is None else lock

    @requires_lock("self.lock")
    def get(self, key: int) -> int:
        return key

    @requires_lock("self.lock")
    async def fetch(self) -> int:
        return 1

    @requires_lock("self.lock")
    def each(self) -> Iterator[int]:
        yield 1


@requires_lock(lambda table, key: table.lock)
def lookup(table: Table, key: int) -> int:
    return table.get(key)


class Shared:
    """As a tracked lock: it says itself who holds it."""

    def __init__(self) -> None:
        self.lock_class = LockClass("rw", "rw", make_lock().step.lock_class.kind)  # type: ignore[union-attr]
        self.step = self.lock_class.step(ACQUIRE)
        self.holders: dict[OwnerState, Node] = {}

    def acquire(self, shared: bool = False) -> None:
        state = fastpath.current()
        step = self.lock_class.step(SHARED if shared else ACQUIRE)
        state.cur = self.holders[state] = state.engine.acquire(state, step, self)

    def release(self) -> None:
        state = fastpath.current()
        state.unlink(self.holders.pop(state))

    def held_by(self, state: OwnerState) -> Node | None:
        return self.holders.get(state)

    @property
    def node(self) -> Node | None:
        return next(iter(self.holders.values()), None)


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, name="somebody")
    thread.start()
    thread.join()


# --- requires_lock -----------------------------------------------------------------------------------


def test_held(check: Check) -> None:
    table = Table()
    with table.lock:
        assert table.get(3) == 3
        assert lookup(table, 4) == 4
        assert list(table.each()) == [1]
        with pytest.raises(StopIteration):
            table.fetch().send(None)
    assert check.rules == []


def test_not_held(check: Check) -> None:
    table = Table()

    def caller() -> None:
        table.get(3)

    caller()
    (finding,) = check.findings
    assert (finding.rule, finding.grade) == ("CTX301", "certain")
    assert finding.identity == ("Table.lock", "Table.get", "True", caller.__qualname__)
    facts = check.facts()
    assert (facts.lock, facts.wanted, facts.function, facts.held) == ("Table.lock", True, "Table.get", ())
    assert facts.by == "nobody holds it"
    assert facts.declared.head().line == Table.get.__wrapped__.__code__.co_firstlineno  # type: ignore[attr-defined]
    with make_lock("another"):
        lookup(table, 4)
    assert [finding.facts.held for finding in check.findings] == [("another",), ("another",)]  # type: ignore[union-attr]
    check.findings.clear()
    list(table.each())
    with pytest.raises(StopIteration):
        table.fetch().send(None)
    assert check.rules == ["CTX301", "CTX301"]


def test_held_by_another_thread(check: Check) -> None:
    table = Table()
    with table.lock:
        in_thread(lambda: table.get(1))
    assert check.facts().by == f"thread '{threading.current_thread().name}' holds it"


def test_several_locks(check: Check) -> None:
    one, two = make_lock("one"), make_lock("two")

    @requires_lock(one, "second")
    def both(second: PlainLock) -> None: ...

    with one:
        both(two)
    assert check.facts().lock == "two"
    with two:
        both(two)
    assert check.facts().lock == "one"
    with one, two:
        both(two)
    assert check.rules == []


@pytest.mark.parametrize("make", [make_lock, make_rlock, make_spin])
def test_every_kind(check: Check, make: Callable[[], Any]) -> None:
    lock = make()
    table = Table(lock)
    table.get(1)
    assert check.rules == ["CTX301"]
    lock.acquire()
    table.get(1)
    lock.release()
    table.get(1)
    assert check.rules == ["CTX301"]


def test_a_reentered_lock(check: Check) -> None:
    lock = make_rlock()
    table = Table(lock)
    with lock, lock:
        table.get(1)
        assert_held(lock)
        with lock:
            table.get(1)
    assert check.rules == []


def test_conditions(check: Check) -> None:
    condition = threading.Condition(make_lock("cond"))  # type: ignore[arg-type]
    table = Table(condition)
    table.get(1)
    assert check.facts().lock == "cond"
    with condition:
        table.get(1)
    plain = threading.Condition()
    assert_held(plain)
    assert check.rules == ["CTX301"]
    with plain:
        assert_held(plain)
    assert check.rules == []


def test_locks_that_are_not_checked(check: Check) -> None:
    lock, rlock = threading.Lock(), threading.RLock()
    assert_held(rlock)
    assert check.facts().lock == "RLock"
    with rlock:
        assert_held(rlock)
        assert check.rules == []
        assert_not_held(rlock)
        assert check.rules == ["CTX301"]
    # who holds an ordinary lock can't be known; that nobody does can
    with lock:
        assert_held(lock)
        assert_not_held(lock)
    assert_not_held(lock)
    assert check.rules == []
    assert_held(lock)
    assert check.facts().by == "nobody holds it"
    for other in (threading.Semaphore(), asyncio.Lock(), make_lock("sem", SEMAPHORE)):
        assert_held(other)
        assert_not_held(other)
    assert check.rules == []


def test_locks_taken_before_checking_started(idle: Check) -> None:
    lock, rlock = make_lock(), make_rlock()
    with lock, rlock:
        idle.start()
        assert_held(lock)
        assert_held(rlock)
        assert idle.rules == []
        assert_not_held(rlock)
        assert idle.rules == ["CTX301"]
    assert_held(lock)
    assert idle.rules == ["CTX301"]


def test_locks_of_the_same_thread_in_an_outer_session(check: Check) -> None:
    inner = Check()
    lock = make_lock()
    with lock:
        outer, where = fastpath.engine(), fastpath._local
        fastpath.activate(inner.engine)
        assert_held(lock)
        in_thread(lambda: assert_held(lock))
        fastpath.activate(outer, where)
    assert inner.rules == ["CTX301"]


def test_a_lock_that_was_never_used(check: Check) -> None:
    lock = make_lock()
    lock.node = Unused(lambda lock: None)
    assert_held(lock)
    assert check.facts().by == "nobody holds it"
    assert_not_held(lock)
    assert check.rules == []


# --- modes -------------------------------------------------------------------------------------------


def test_modes(check: Check) -> None:
    lock = Shared()

    @requires_lock(lock, mode="exclusive")
    def writes() -> None: ...

    @requires_lock(lock, mode="shared")
    def reads() -> None: ...

    @requires_lock(lock)
    def either() -> None: ...

    for function in (writes, reads, either):
        function()
    assert check.rules == ["CTX301"] * 3
    lock.acquire()
    writes()
    either()
    assert check.rules == []
    reads()
    assert check.facts().by == "this thread holds it exclusively"
    assert_not_held(lock, "shared")
    assert check.rules == []
    assert_not_held(lock, mode="exclusive")
    assert check.rules == ["CTX301"]
    lock.release()
    lock.acquire(shared=True)
    reads()
    either()
    assert check.rules == []
    writes()
    facts = check.facts()
    assert facts.by == "this thread holds it shared"
    assert facts.entry is not None
    in_thread(reads)
    assert check.facts().by == f"thread '{threading.current_thread().name}' holds it"
    in_thread(lambda: (lock.acquire(shared=True), reads(), lock.release()))
    assert check.rules == []
    lock.release()
    reads()
    assert check.facts().by == "nobody holds it"


# --- assert_held, assert_not_held -----------------------------------------------------------------------


def test_asserts(check: Check) -> None:
    lock = make_lock("L")
    assert_held(lock)
    facts = check.facts()
    assert (facts.lock, facts.wanted, facts.function) == ("L", True, "assert_held")
    assert_not_held(lock)
    assert check.rules == []
    with lock:
        assert_held(lock)
        assert check.rules == []
        assert_not_held(lock)
        facts = check.facts()
        assert (facts.wanted, facts.function, facts.held, facts.entry.name) == (False, "assert_not_held", ("L",), "L")
        in_thread(lambda: assert_not_held(lock))
    assert check.rules == []


def test_held_the_other_way_is_another_finding(check: Check) -> None:
    class Rw:
        def acquire(self, shared: bool = False) -> bool:
            return True

        def release(self) -> None: ...

    lock = track(Rw(), name="rw", shared=True)

    def write() -> None:
        assert_held(lock, "exclusive")

    with lock.shared():
        write()
    write()
    first, second = check.findings
    assert first.identity != second.identity
    assert check.rules == ["CTX301", "CTX301"]


def test_raise_mode(check: Check) -> None:
    check.raises = True
    ran: list[int] = []

    @requires_lock(make_lock())
    def body() -> None:
        ran.append(1)

    with pytest.raises(ViolationError):
        body()
    with pytest.raises(ViolationError):
        assert_held(make_lock())
    assert ran == []


# --- might_lock -----------------------------------------------------------------------------------------


def test_an_order_is_learned_without_an_acquire(check: Check) -> None:
    a, b = make_lock("a"), make_lock("b")
    with a:
        might_lock(b)
        assert check.inside == ["lock"]
        assert b.node is None
    assert check.rules == []
    with b, a:
        pass
    assert check.rules == ["CTX001"]


def test_the_asked_chain_is_not_where_a_lock_was_acquired(check: Check) -> None:
    a, spin = make_lock("a"), make_spin("s")
    might_lock(spin)
    with spin:
        assert_not_held(spin)
    assert check.facts().entry.trace.function() == test_the_asked_chain_is_not_where_a_lock_was_acquired.__qualname__
    with spin:
        might_lock(a)
    assert check.rules == ["CTX102"]


def test_a_spin_lock_may_be_asked_for_in_atomic_code(check: Check) -> None:
    with atomic("irq"):
        might_lock(make_spin())
        assert check.rules == []
        might_lock(make_lock())
        assert check.rules == ["CTX102"]
        might_lock(threading.Lock())
        facts = check.facts()
        assert (facts.what, facts.how) == ("lock", "acquire")
    assert check.rules == []


def test_asking_for_what_is_held(check: Check) -> None:
    lock, rlock, spin = make_lock("L"), make_rlock(), make_spin()
    with lock:
        might_lock(lock)
        (finding,) = check.findings
        assert (finding.rule, finding.grade, check.facts().why_certain) == ("CTX002", "certain", "with")
        in_thread(lambda: might_lock(lock))
    with rlock:
        might_lock(rlock)
    assert check.rules == []
    lock.acquire()
    might_lock(lock)
    assert [finding.grade for finding in check.findings] == ["possible"]
    check.findings.clear()
    lock.release()
    spin.acquire()
    might_lock(spin)
    assert check.facts().why_certain == "owned"
    spin.release()
    assert check.inside == []


def test_sharing_what_is_shared(check: Check) -> None:
    lock = Shared()
    lock.acquire(shared=True)
    might_lock(lock, "shared")
    assert check.rules == []
    might_lock(lock)
    assert check.rules == ["CTX002"]
    lock.release()
    might_lock(lock, mode="shared")
    assert check.rules == []


def test_two_locks_of_one_class(check: Check) -> None:
    lock_class = LockClass("twins", "twins", make_lock().step.lock_class.kind)  # type: ignore[union-attr]
    one, two = PlainLock(), PlainLock()
    one._setup(lock_class)
    two._setup(lock_class)
    with one:
        might_lock(two)
    assert check.rules == ["CTX003"]


def test_as_a_decorator(check: Check) -> None:
    @might_lock("table.lock")
    def flush(table: Table) -> str:
        return "flushed"

    @might_lock(lambda table: table.lock)
    async def drain(table: Table) -> str:
        return "drained"

    table = Table()
    with atomic("irq"):
        assert flush(table) == "flushed"
        assert check.rules == ["CTX102"]
        waiting = drain(table)
        assert check.rules == []
        with pytest.raises(StopIteration):
            waiting.send(None)
        assert check.rules == ["CTX102"]
    flush(table)
    assert check.rules == []


def test_a_condition_may_be_asked_for(check: Check) -> None:
    with atomic("irq"):
        might_lock(threading.Condition(make_lock("cond")))  # type: ignore[arg-type]
        assert check.facts().what == "cond"


def test_a_class_is_settled_when_it_is_asked_for(check: Check) -> None:
    settled: list[object] = []
    lock = make_lock()
    lock.node = Unused(settled.append)
    might_lock(lock)
    assert settled == [lock]
    assert lock.node is None


# --- wrong use -------------------------------------------------------------------------------------------


class SomeClass:
    pass


def plain(a: int) -> None: ...


@pytest.mark.parametrize("active", [True, False], ids=["on", "off"])
@pytest.mark.parametrize(
    ("use", "error", "words"),
    [
        (lambda: requires_lock(), TypeError, "requires_lock: it names no lock"),
        (lambda: requires_lock(3), TypeError, "requires_lock: 3 is no lock: it has no acquire()"),
        (lambda: requires_lock(SomeClass), TypeError, "the class SomeClass is no lock"),
        (lambda: requires_lock(type(make_lock())), TypeError, "the class PlainLock is no lock"),
        (lambda: assert_held(type(make_lock())), TypeError, "assert_held: the class PlainLock is no lock"),
        (lambda: requires_lock("a")(SomeClass), TypeError, "@requires_lock marks functions, and SomeClass is a class"),
        (lambda: requires_lock("b")(plain), ValueError, "lock='b' names no parameter of it; its parameters are a"),
        (lambda: requires_lock("a", mode="exclusiv"), ValueError, "did you mean 'exclusive'?"),
        (lambda: requires_lock(plain)(3), TypeError, "@requires_lock marks functions, not 3"),
        (lambda: assert_held(3), TypeError, "assert_held: 3 is no lock: it has no acquire()"),
        (lambda: assert_held(threading.Event()), TypeError, "assert_held: a value of type Event is no lock"),
        (lambda: assert_held(make_lock(), "x"), ValueError, "assert_held: mode='x': must be 'exclusive' or 'shared'"),  # type: ignore[arg-type]
        (lambda: assert_not_held("lock"), TypeError, "assert_not_held: 'lock' is no lock"),
        (lambda: might_lock(3), TypeError, "might_lock: 3 is no lock"),
        (lambda: might_lock(SomeClass), TypeError, "might_lock: the class SomeClass is no lock"),
        (lambda: might_lock("x")(plain), ValueError, "@might_lock on plain: lock='x' names no parameter"),
        (lambda: might_lock("a", "y"), ValueError, "might_lock: mode='y'"),  # type: ignore[call-overload]
    ],
)
def test_wrong_use(idle: Check, active: bool, use: Callable[[], object], error: type[Exception], words: str) -> None:
    if active:
        idle.start()
    with pytest.raises(error) as caught:
        use()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("marker", [requires_lock("a"), might_lock("a")])
def test_what_is_no_lock_at_the_call(check: Check, marker: Any) -> None:
    with pytest.raises(TypeError, match=r"on plain: a gives 3, which is no lock"):
        marker(plain)(3)
