"""``interrupt`` and ``masked``: what runs in the middle of other code, and the rules about locks there."""

from __future__ import annotations

import _thread
import gc
import itertools
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import DeadlockError, Violation, fastpath


class Obj:
    """A lock for ``track`` that never blocks."""

    def __init__(self, grants: bool = True) -> None:
        self.grants = grants

    def acquire(self, blocking: bool = True, timeout: float = -1, *, shared: bool = False) -> bool:
        return self.grants

    def release(self, *, shared: bool = False) -> None: ...


def found(session: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(v.rule, v.grade, v.locks) for v in session.violations]


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function, name="worker")
    thread.start()
    thread.join()


def one(session: Any) -> Violation:
    (violation,) = session.violations
    return violation  # type: ignore[no-any-return]


# --- a chain of its own -----------------------------------------------------------------------


def test_nothing_of_what_it_interrupts_counts_inside() -> None:
    a, b, spin = ctxcheck.Lock(name="in.A"), ctxcheck.Lock(name="in.B"), ctxcheck.SpinLock(name="in.S")
    with ctxcheck.checking() as session:
        for first, second in ((a, b), (b, a)):  # no order between the two
            with first, ctxcheck.masked("gc", "signal"), ctxcheck.interrupt("other"), second:
                pass
        with spin, ctxcheck.atomic("tick"):
            with ctxcheck.interrupt("gc"):
                ctxcheck.might_sleep()
                with a:
                    ctxcheck.might_sleep()
            with ctxcheck.masked("gc"), a:  # CTX102, as before
                pass
        assert session.graph()["edges"] == [{"from": "in.S", "to": "in.A", "count": 1}]
    assert [v.rule for v in session.violations if v.rule not in ("CTX004", "CTX005")] == ["CTX102"]


def test_its_own_chain_counts() -> None:
    a, b = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
    with ctxcheck.checking() as session:
        for first, second in ((a, b), (b, a)):
            with ctxcheck.interrupt("gc"), first, second:
                pass
        with ctxcheck.interrupt("gc"), ctxcheck.atomic("tick"):
            ctxcheck.might_sleep()
    assert sorted(found(session)) == [("CTX001", "possible", ("A", "B")), ("CTX101", "certain", ())]


def test_what_the_interrupted_code_holds_is_still_held_by_the_thread() -> None:
    a = ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session, a:
        with ctxcheck.interrupt("gc"):
            assert session.held_locks() == ["A"]
            ctxcheck.assert_held(a)
        ctxcheck.assert_held(a)
    assert found(session) == []


@pytest.mark.parametrize("how", ["with", "acquire", "spin", "tracked"])
def test_a_lock_that_the_interrupted_code_holds_cant_be_had(how: str) -> None:
    a: Any = {"spin": ctxcheck.SpinLock, "tracked": lambda name: ctxcheck.track(Obj(), name=name, kind="spin")}.get(
        how, ctxcheck.Lock
    )(name="A")
    with ctxcheck.checking() as session:
        if how == "acquire":
            a.acquire()
        else:
            a.__enter__()
        with ctxcheck.interrupt("gc"), pytest.raises(DeadlockError):
            a.acquire()
        a.release()
        assert session.held_locks() == []
    violation = next(v for v in session.violations if v.rule == "CTX002")
    assert violation.grade == "certain"
    assert violation.message.endswith("interrupted by `gc`, re-acquires `A`, which the interrupted code holds")
    assert violation.scenario is not None
    assert [step.action for step in violation.scenario.steps] == ["lock(A)", "<gc interrupts>", "lock(A)"]


def test_an_rlock_is_re_entered() -> None:
    a = ctxcheck.RLock(name="A")
    with ctxcheck.checking() as session:
        with a, ctxcheck.interrupt("gc"), a:
            pass
        with ctxcheck.interrupt("gc"), a:
            pass
        with a:
            pass
    assert found(session) == []


def test_chains_are_known_wherever_it_comes() -> None:
    locks = [ctxcheck.Lock(name=f"L{i}") for i in range(20)]
    a = ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session:
        for lock in locks:
            with lock:
                for _ in range(3):
                    with ctxcheck.interrupt("gc"), a:
                        pass
        assert session.counts().chains == len(locks) + 1


def test_nesting_each_context_returns_to_what_it_interrupted() -> None:
    a, b, c = (ctxcheck.Lock(name=name) for name in "ABC")
    with ctxcheck.checking() as session:
        root = fastpath.current().cur
        for _ in range(2):
            with a:
                outer = fastpath.current().cur
                with ctxcheck.interrupt("signal"), b:
                    middle = fastpath.current().cur
                    with ctxcheck.interrupt("gc"), c:
                        with ctxcheck.interrupt("signal"):  # again, in the middle of itself
                            assert session.held_locks() == ["A", "B", "C"]
                        assert session.held_locks() == ["A", "B", "C"]
                    assert fastpath.current().cur is middle
                assert fastpath.current().cur is outer
        assert fastpath.current().cur is root


def test_locks_that_are_released_or_kept_across_its_end() -> None:
    a, b = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
    with ctxcheck.checking() as session:
        for _ in range(2):
            a.acquire()
            with ctxcheck.interrupt("gc"):
                a.release()  # of the interrupted code
                assert session.held_locks() == []
                b.acquire()
            assert session.held_locks() == ["B"]
            b.release()
            assert session.held_locks() == []
    assert not [v for v in session.violations if v.rule not in ("CTX004", "CTX005")]


def test_an_exception_leaves_it() -> None:
    with ctxcheck.checking():
        root = fastpath.current().cur
        with pytest.raises(KeyError), ctxcheck.interrupt("gc"), ctxcheck.masked("signal"):
            raise KeyError
        assert fastpath.current().cur is root


@pytest.mark.parametrize("make", [ctxcheck.interrupt, ctxcheck.masked])
def test_a_signal_at_its_end_comes_after_it(make: Any) -> None:
    def handler(*_: object) -> None:
        raise KeyError

    before = signal.signal(signal.SIGINT, handler)
    try:
        with ctxcheck.checking():
            root = fastpath.current().cur
            block = make("gc").enter()
            assert fastpath.current().cur is not root
            with pytest.raises(KeyError):  # noqa: PT012
                # pending, and looked for at the entry of a function at the earliest
                for _ in map(_thread.interrupt_main, (signal.SIGINT,)):
                    block.__exit__(None, None, None)
                    break
                len("")
            assert fastpath.current().cur is root
            with block:  # and it can be used again
                pass
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_object_in_many_threads() -> None:
    a = ctxcheck.Lock(name="A")
    section, mask = ctxcheck.interrupt("gc"), ctxcheck.masked("gc")
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(200):
                with section, a:
                    pass
                with mask, a:
                    pass
            barrier.wait()
            assert fastpath.current().cur is fastpath.current().root
        except BaseException as error:
            failures.append(error)

    with ctxcheck.checking() as session:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (failures, found(session)) == ([], [])


def test_a_thread_that_ends_inside_keeps_nothing_alive() -> None:
    class Marked: ...

    def work() -> None:
        ctxcheck.interrupt("gc").enter()

    with ctxcheck.checking() as session:
        in_thread(work)
        gc.collect()
        assert len(session.engine.roster.live_states()) <= 1


# --- used in it, and held where it can come (CTX004) ----------------------------------------------


def used_inside(lock: Any) -> None:
    with ctxcheck.interrupt("gc"), lock:
        pass


def held_open(lock: Any) -> None:
    with lock:
        pass


@pytest.mark.parametrize("steps", list(itertools.permutations([used_inside, held_open])))
@pytest.mark.parametrize("make", [ctxcheck.Lock, ctxcheck.SpinLock])
def test_used_inside_and_held_open_in_either_order(steps: Any, make: Any) -> None:
    lock = make(name="A")
    told: list[Violation] = []
    with ctxcheck.checking(mode=told.append) as session:
        for step in steps:
            step(lock)
        assert [v.rule for v in told] == ["CTX004"]  # at once
        assert found(session) == [("CTX004", "possible", ("A",))]
    assert found(session) == [("CTX004", "possible", ("A",))]
    violation = one(session)
    assert violation.fingerprint == told[0].fingerprint
    assert [(s.role, s.function) for s in violation.sites] == [("now", "used_inside"), ("then", "held_open")]
    assert violation.scenario is not None
    assert violation.scenario.columns == ("one thread: held_open()",)
    assert [(s.action, s.waits_for) for s in violation.scenario.steps] == [
        ("lock(A)", ""),
        ("<gc interrupts>", ""),
        ("lock(A)", "one thread: held_open()"),
    ]


def test_the_two_halves_may_be_seen_in_two_threads_and_the_first_places_are_shown() -> None:
    lock = ctxcheck.Lock(name="A")

    def another() -> None:
        with lock:
            pass

    shown: set[Any] = set()
    for steps in itertools.permutations([lambda: used_inside(lock), lambda: held_open(lock), another]):
        with ctxcheck.checking(owners="observed") as session:
            for step in steps:
                in_thread(step)
        violation = one(session)
        shown.add((violation.rule, violation.grade, violation.fingerprint, violation.sites))
    assert len(shown) == 1


def test_an_allow_names_its_rule() -> None:
    a, b = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
    with ctxcheck.checking() as session:
        with ctxcheck.interrupt("gc"), ctxcheck.allow("CTX004", reason="told"), a:
            pass
        held_open(a)
        with ctxcheck.masked("gc"), a, b:
            pass
        held_open(b)
        assert {v.rule: v.allowed_by for v in session.violations} == {"CTX004": "told", "CTX005": None}
        used_inside(a)
    assert {v.rule: v.allowed_by for v in session.violations} == {"CTX004": None, "CTX005": None}
    with ctxcheck.checking() as session:
        with ctxcheck.allow("CTX004", reason="of the interrupted code, which is chance"):
            used_inside(a)
        with ctxcheck.allow("interrupt-unsafe-lock", reason="held"):
            held_open(a)
    assert one(session).allowed_by == "held"


@pytest.mark.parametrize(
    ("inside", "outside", "rules"),
    [
        # (mode, blocking) of the acquire in the context; mode outside
        ((False, True), False, ["CTX004"]),
        ((True, True), False, ["CTX004"]),
        ((False, True), True, ["CTX004"]),
        ((True, True), True, ["CTX004"]),  # a writer may wait between the two
        (("recursive", True), False, ["CTX004"]),
        (("recursive", True), True, []),
        (("recursive", True), "recursive", []),
        ((False, False), False, []),  # it only tries
    ],
)
def test_readers_and_tries(inside: tuple[Any, bool], outside: Any, rules: list[str]) -> None:
    lock = ctxcheck.track(Obj(), name="A", shared=True)
    with ctxcheck.checking() as session:
        with ctxcheck.interrupt("gc"):
            lock.acquire(blocking=inside[1], shared=inside[0])
            lock.release()
        lock.acquire(shared=outside)
        lock.release()
    assert [v.rule for v in session.violations] == rules


@pytest.mark.parametrize("how", ["try", "timed"])
@pytest.mark.parametrize("grants", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_what_is_tried_is_held_open_only_if_it_was_had(how: str, grants: bool, tracked: bool) -> None:
    lock: Any = ctxcheck.track(Obj(), name="A") if tracked else ctxcheck.Lock(name="A")
    options: dict[str, Any] = {"blocking": False} if how == "try" else {"timeout": 0.001}
    with ctxcheck.checking() as session:
        used_inside(lock)
        if tracked:
            lock._obj.grants = grants
        elif not grants:
            lock._raw.acquire()
        with ctxcheck.masked("nothing that comes"):  # a chain that isn't known
            got = lock.acquire(**options)
        if got:
            lock.release()
        elif not tracked:
            lock._raw.release()
    assert got == grants
    assert [v.rule for v in session.violations] == (["CTX004"] if grants else [])


def test_a_wait_with_a_timeout_in_the_context_is_unlikely() -> None:
    lock = ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session:
        with ctxcheck.interrupt("gc"):
            assert lock.acquire(timeout=5)
            lock.release()
        held_open(lock)
        assert found(session) == [("CTX004", "unlikely", ("A",))]
        used_inside(lock)  # and one without
    assert found(session) == [("CTX004", "possible", ("A",))]


def test_a_lock_that_the_context_only_tries_to_take_guards() -> None:
    lock, gate = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="gate")
    with ctxcheck.checking() as session:
        with ctxcheck.interrupt("gc"):
            assert gate.acquire(blocking=False)
            with lock:
                pass
            gate.release()
        with gate, lock:
            pass
        assert found(session) == [("CTX004", "unlikely", ("A",))]
        ctxcheck.Lock(name="gate")  # with a second one, the two sides may hold different ones
        assert found(session) == [("CTX004", "possible", ("A",))]
    with ctxcheck.checking() as session:
        with ctxcheck.interrupt("gc"), lock:
            pass
        with gate, lock:  # on one side only
            pass
    assert found(session) == [("CTX004", "possible", ("A",))]


def test_resources_and_handed_over_locks() -> None:
    semaphore, lock = ctxcheck.Semaphore(1), ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session:
        for thing in (semaphore, lock):
            used_inside(thing)
            held_open(thing)
        lock.acquire()
        in_thread(lock.release)
    assert found(session) == [("CTX004", "unlikely", ("A",))]


# --- masked ---------------------------------------------------------------------------------------


def test_masked_stretches_dont_count() -> None:
    lock = ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session:
        used_inside(lock)
        with ctxcheck.masked("gc"):
            with lock:
                pass
            with ctxcheck.masked("gc"):
                pass
            with lock:  # it takes both to be left
                pass
        with ctxcheck.masked("gc", "signal"), lock:
            pass
        assert found(session) == []
        with ctxcheck.masked("signal"), lock:  # another one
            pass
    assert found(session) == [("CTX004", "possible", ("A",))]


def test_a_context_that_is_seen_later_conflicts_with_what_was_held_before() -> None:
    lock = ctxcheck.Lock(name="A")
    for mask, expected in (("gc", []), ("signal", ["CTX004"])):
        with ctxcheck.checking() as session:
            with ctxcheck.masked(mask), lock:
                pass
            used_inside(lock)
        assert [v.rule for v in session.violations] == expected


def test_a_lock_that_is_held_when_the_mask_ends_is_open_from_then_on() -> None:
    lock = ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session:
        used_inside(lock)
        for expected in ([], ["CTX004"]):
            outer, mask = ctxcheck.masked("gc").enter(), ctxcheck.masked("gc").enter()
            lock.acquire()
            mask.exit()
            if expected:
                outer.exit()
                lock.release()
            else:
                lock.release()
                outer.exit()
            assert [v.rule for v in session.violations] == expected


def test_a_mask_that_begins_while_the_lock_is_held_comes_too_late() -> None:
    lock = ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session:
        with lock, ctxcheck.masked("gc"):
            pass
        used_inside(lock)
    assert found(session) == [("CTX004", "possible", ("A",))]


def test_a_context_is_masked_for_itself_and_for_what_it_names() -> None:
    lock = ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session:
        for name, masks in (("hard", ("soft",)), ("soft", ("hard",))):
            with ctxcheck.interrupt(name, masks=masks), lock:
                pass
        assert found(session) == []
        with ctxcheck.interrupt("soft"), lock:  # here hard interrupts soft
            pass
    assert found(session) == [("CTX004", "possible", ("A",))]
    assert "`hard` code waits for `A`" in one(session).message


def test_what_the_interrupted_code_has_masked_is_chance() -> None:
    lock = ctxcheck.Lock(name="A")
    with ctxcheck.checking() as session:
        with ctxcheck.interrupt("signal"), lock:
            pass
        with ctxcheck.masked("signal"), ctxcheck.interrupt("gc"), lock:
            pass
    assert sorted(v.message.partition(" code")[0] for v in session.violations) == [
        "possible deadlock: `gc`",
        "possible deadlock: `signal`",
    ]


# --- orders between the two (CTX005) ----------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
@pytest.mark.parametrize("rlock", [True, False])
def test_a_way_from_what_is_used_inside_to_what_is_held_open(order: tuple[int, ...], rlock: bool) -> None:
    a, b, c = ((ctxcheck.RLock if rlock else ctxcheck.Lock)(name=name) for name in "ABC")

    def first() -> None:
        with ctxcheck.masked("gc"), a, b:
            pass

    def second() -> None:
        with ctxcheck.masked("gc"), b, c:
            pass

    steps = [lambda: used_inside(a), first, second, lambda: held_open(c)]
    told: list[Violation] = []
    with ctxcheck.checking(mode=told.append) as session:
        for number, index in enumerate(order, 1):
            assert told == []
            steps[index]()
            assert bool(told) == (number == 4)
    assert found(session) == [("CTX005", "possible", ("A", "B", "C"))]
    violation = one(session)
    assert violation.fingerprint == told[0].fingerprint
    assert violation.scenario is not None
    assert [step.action for step in violation.scenario.steps] == [
        "lock(C)", "lock(A)", "lock(B)", "<gc interrupts>", "lock(A)", "lock(B)", "lock(C)",
    ]  # fmt: skip


def test_it_stops_at_the_first_lock_of_a_way_that_is_held_open() -> None:
    a, b, c = (ctxcheck.Lock(name=name) for name in "ABC")
    with ctxcheck.checking() as session:
        used_inside(a)
        with ctxcheck.masked("gc"), a, b, c:
            pass
        held_open(b)
        held_open(c)
    # A -> C is an order too; B -> C lies behind B
    assert sorted(found(session)) == [("CTX005", "possible", ("A", "B")), ("CTX005", "possible", ("A", "C"))]


def test_what_is_only_held_under_the_lock_itself_comes_to_nothing_more() -> None:
    a, b = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
    with ctxcheck.checking() as session:
        used_inside(a)
        with a, b:  # B is held open, but always under A: who holds it is interrupted holding A
            pass
    assert found(session) == [("CTX004", "possible", ("A",))]


@pytest.mark.parametrize(
    ("inside", "held", "taken", "open_", "found_"),
    [
        # how A is taken in the context, how it is held for B, how B is taken then, how it is held open
        (False, False, False, False, True),
        ("recursive", True, False, False, False),  # let in beside the reader who waits for B
        ("recursive", False, False, False, True),
        (True, True, False, False, True),  # not let in where a writer waits
        (False, True, False, False, True),
        (False, False, "recursive", True, False),  # B is had beside the interrupted reader
        (False, False, "recursive", False, True),
        (False, False, True, True, True),
        ("recursive", False, False, True, True),  # both only read inside and open: they aren't one lock
    ],
)
def test_readers_on_the_way(inside: Any, held: Any, taken: Any, open_: Any, found_: bool) -> None:
    a, b = (ctxcheck.track(Obj(), name=name, shared=True) for name in "AB")
    with ctxcheck.checking() as session:
        with ctxcheck.interrupt("gc"):
            a.acquire(shared=inside)
            a.release()
        with ctxcheck.masked("gc"):
            a.acquire(shared=held)
            b.acquire(shared=taken)
            b.release()
            a.release()
        b.acquire(shared=open_)
        b.release()
    assert [v.rule for v in session.violations] == (["CTX005"] if found_ else [])


def test_grades_of_ways() -> None:
    a, b, gate = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B"), ctxcheck.Lock(name="gate")
    with ctxcheck.checking() as session:
        used_inside(a)
        with ctxcheck.masked("gc"), gate, a, b:
            pass
        with gate, b:
            pass
        assert found(session) == [("CTX005", "unlikely", ("A", "B"))]
        held_open(b)
        assert found(session) == [("CTX005", "possible", ("A", "B"))]
    with ctxcheck.checking(owners="observed") as session:
        used_inside(a)
        with ctxcheck.masked("gc"), a, b:
            pass
        held_open(b)
        assert found(session) == [("CTX005", "unlikely", ("A", "B"))]  # it takes a second thread
        in_thread(lambda: held_open(b))
        assert found(session) == [("CTX005", "possible", ("A", "B"))]


# --- wrong use, and off ----------------------------------------------------------------------------


def test_wrong_use() -> None:
    for call, error, words in (
        (lambda: ctxcheck.interrupt(""), ValueError, "interrupt: the name is empty"),
        (lambda: ctxcheck.interrupt(3), TypeError, "interrupt: the name must be a string, not 3"),
        (lambda: ctxcheck.interrupt("a", masks="b"), TypeError, "interrupt: masks='b' is a string; write masks=('b',)"),
        (lambda: ctxcheck.interrupt("a", masks=3), TypeError, "interrupt: masks=3 is no tuple of names"),
        (lambda: ctxcheck.interrupt("a", masks=(3,)), TypeError, "interrupt: a name must be a string, not 3"),
        (lambda: ctxcheck.masked(), TypeError, "masked: it names no context"),
        (lambda: ctxcheck.masked(None), TypeError, "masked: a name must be a string, not None"),
        (lambda: ctxcheck.masked("a").exit(), RuntimeError, "<ctxcheck.masked(a)>.exit() without enter()"),
        (lambda: ctxcheck.interrupt("a").exit(), RuntimeError, "<ctxcheck.interrupt('a')>.exit() without enter()"),
        (lambda: ctxcheck.track(Obj(), name="t", shared=True).acquire(shared="x"), ValueError, "shared='x' is not"),
    ):
        with pytest.raises(error) as caught:
            call()
        assert words in str(caught.value)


def test_while_nothing_is_checked_and_across_sessions() -> None:
    section, mask = ctxcheck.interrupt("gc"), ctxcheck.masked("gc")
    with section, mask:
        with ctxcheck.checking():
            with section, mask:
                pass
            section.enter()
            mask.enter()
    mask.exit()
    section.exit()
    assert fastpath.engine() is None


@pytest.mark.parametrize(("make", "grade"), [(ctxcheck.Lock, "unlikely"), (ctxcheck.RLock, "possible")])
def test_a_guard_that_lets_its_own_thread_in_again_keeps_nothing_out(make: Any, grade: str) -> None:
    gate, lock = make(name=f"gate {grade}"), ctxcheck.Lock(name=f"inside {grade}")
    with ctxcheck.checking() as session:
        with gate, lock:
            pass
        with ctxcheck.interrupt("gc"):
            if gate.acquire(blocking=False):
                with lock:
                    pass
                gate.release()
    assert found(session) == [("CTX004", grade, (f"inside {grade}",))]
