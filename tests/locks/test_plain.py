"""``Lock`` and ``RLock`` do what the interpreter's own do, by comparison; ``SpinLock`` does what it says."""

from __future__ import annotations

import _thread
import copy
import gc
import inspect
import itertools
import pickle
import random
import re
import subprocess
import sys
import threading
import tracemalloc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxcheck
from ctxcheck import checking
from ctxcheck.engine.raw import ORIGINALS
from tests.oracle import in_thread

REAL = {"Lock": ORIGINALS["Lock"], "RLock": ORIGINALS["RLock"]}
OURS = {"Lock": ctxcheck.Lock, "RLock": ctxcheck.RLock}
BOTH = pytest.mark.parametrize("kind", ["Lock", "RLock"])


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    """What a call comes to: its value, or its exception's type and text, without addresses.

    The interpreter's own words for a missing attribute or a wrong argument name the kind of function that was called.
    """
    try:
        value = call()
    except AttributeError:
        return (AttributeError,)
    except TypeError as error:
        return (TypeError, "pickle" in str(error))
    except Exception as error:
        return (type(error), re.sub(r"0x[0-9a-f]+", "0x", str(error)))
    return (re.sub(r"0x[0-9a-f]+", "0x", repr(value)),)


def call_of(lock: Any, name: str, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: getattr(lock, name)(*args, **kwargs)


#: Everything that one may ask of a lock; what would block for ever isn't asked.
CALLS: list[tuple[Any, ...]] = [
    ("acquire", False),
    ("acquire", 0),
    ("acquire", True, 0),
    ("acquire", True, 0.0),
    ("acquire", True, 0.001),
    ("acquire", 1, 0.001),
    ("acquire", False, -1),
    ("acquire", False, 1),
    ("acquire", False, 0),
    ("acquire", True, -2),
    ("acquire", True, float("nan")),
    ("acquire", True, float("inf")),
    ("acquire", True, threading.TIMEOUT_MAX * 2),
    ("acquire", True, "1"),
    ("acquire", True, None),
    ("acquire", None, 0.001),
    ("acquire", "yes", 0.001),
    ("acquire", [], 0),
    ("acquire", 0.5, 0),
    ("acquire", 1, 2, 3),
    ("release",),
    ("release", 1),
    ("locked",),
    ("__exit__", None, None, None),
    ("__exit__",),
    ("__repr__",),
    ("_is_owned",),
    ("_recursion_count",),
    ("_at_fork_reinit",),
    ("acquire_lock", False),
    ("release_lock",),
    ("locked_lock",),
    ("nonsense",),
]


@BOTH
@pytest.mark.parametrize("checked", [False, True], ids=["off", "on"])
@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.data())
def test_any_sequence_of_calls_comes_to_the_same(kind: str, checked: bool, data: st.DataObject) -> None:
    real, ours = REAL[kind](), OURS[kind](name=f"same.{kind}")
    steps = data.draw(st.lists(st.sampled_from(CALLS + [("acquire", False), ("release",)] * 6), max_size=15))
    session = checking() if checked else None
    if session is not None:
        session.start()
    try:
        for step in steps:
            expected, got = outcome(call_of(real, *step)), outcome(call_of(ours, *step))
            if step[0] == "__repr__":
                got, expected = (got[0].replace("<", ""),), (expected[0].replace("<", ""),)
            assert got == expected, step
        free = outcome(call_of(real, "acquire", False))
        assert outcome(call_of(ours, "acquire", False)) == free
    finally:
        if session is not None:
            session.stop()
            assert not session.engine.broken


@BOTH
def test_keywords(kind: str) -> None:
    for kwargs in (
        {"blocking": False}, {"blocking": True, "timeout": 0.001}, {"timeout": 0.001}, {"blocking": 0},
        {"timeout": -1}, {"nonsense": 1},
    ):  # fmt: skip
        real, ours = REAL[kind](), OURS[kind]()
        expected = outcome(call_of(real, "acquire", **kwargs))
        got = outcome(call_of(ours, "acquire", **kwargs))
        assert got[:1] == expected[:1], kwargs


@BOTH
def test_by_with_it_gives_true_and_is_released_whatever_happens(kind: str) -> None:
    real, ours = REAL[kind](), OURS[kind]()
    for lock in (real, ours):
        with lock as value:
            assert value is True
        with pytest.raises(KeyError), lock:
            raise KeyError
        assert lock.acquire(False)
        assert lock.__exit__(None, None, None) is None
        assert lock.__exit__.__doc__ is not None or lock is ours


@BOTH
def test_reprs_look_alike(kind: str) -> None:
    real, ours = REAL[kind](), OURS[kind](name="repr")
    for _ in range(2):
        texts = [re.sub(r"0x[0-9a-f]+", "0x", repr(lock)) for lock in (real, ours)]
        assert texts[0] == texts[1]
        assert real.acquire(False) == ours.acquire(False)


@BOTH
def test_from_another_thread(kind: str) -> None:
    answers = []
    for lock in (REAL[kind](), OURS[kind]()):
        with checking():
            lock.acquire()
            try:
                in_thread(lock.release)
                answers.append("released")
            except RuntimeError as error:
                answers.append(str(error))
    assert answers[0] == answers[1]


# --- identity -----------------------------------------------------------------------------


@BOTH
def test_types_that_were_captured_before_still_recognise_them(kind: str) -> None:
    ours = OURS[kind]()
    assert isinstance(ours, type(REAL[kind]()))
    assert isinstance(ours, {"Lock": _thread.LockType, "RLock": _thread.RLock}[kind])
    assert type(ours).__name__ == type(REAL[kind]()).__name__
    assert type(ours).__qualname__ == type(REAL[kind]()).__qualname__
    assert type(ours).__module__ == "_thread"
    assert not isinstance(OURS["Lock" if kind == "RLock" else "RLock"](), type(REAL[kind]()))


@BOTH
def test_the_factory_is_of_the_interpreters_own_sort(kind: str) -> None:
    real, ours = REAL[kind], OURS[kind]
    assert isinstance(ours, type) is isinstance(real, type)
    assert callable(ours)
    assert getattr(ours, "__module__", None) in ("threading", "_thread")
    assert ours.__name__ in (kind, real.__name__)
    assert outcome(lambda: ours | None)[0] is outcome(lambda: real | None)[0] or isinstance(ours, type)

    class Holder:
        make = ours

    # a builtin and a class don't bind; a Python function does, and RLock's takes anything
    assert Holder().make().acquire(False)


@BOTH
def test_attributes_that_programs_probe_for(kind: str) -> None:
    real, ours = REAL[kind](), OURS[kind]()
    for name in ("locked", "_is_owned", "_release_save", "_acquire_restore", "_recursion_count", "_at_fork_reinit",
                 "acquire_lock", "release_lock", "locked_lock", "owner", "name", "wait", "__dict__"):  # fmt: skip
        assert hasattr(ours, name) is hasattr(real, name), name
    assert set(dir(real)) <= set(dir(ours))
    if kind == "Lock":
        assert dir(ours) == dir(real)


@BOTH
def test_no_attributes_can_be_added(kind: str) -> None:
    ours = OURS[kind]()
    with pytest.raises(AttributeError):
        ours.extra = 1
    with pytest.raises(AttributeError):
        ours.acquire = None


@BOTH
def test_pickle_and_copy_refuse_as_the_real_ones_do(kind: str) -> None:
    real, ours = REAL[kind](), OURS[kind]()
    for what in (pickle.dumps, copy.copy, copy.deepcopy):
        expected, got = outcome(lambda what=what: what(real)), outcome(lambda what=what: what(ours))
        assert got == expected == (TypeError, True)


@BOTH
def test_hash_comparison_truth_and_weak_references(kind: str) -> None:
    a, b = OURS[kind](), OURS[kind]()
    assert a == a  # noqa: PLR0124
    assert a != b
    assert len({a, b, a}) == 2
    assert bool(a) is True
    reference = weakref.ref(a)
    del a
    assert reference() is None


def test_the_type_of_a_lock_is_as_closed_as_the_real_one() -> None:
    real, ours = type(REAL["Lock"]()), type(OURS["Lock"]())
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (real,), {})
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (ours,), {})
    expected, got = outcome(real), outcome(ours)
    assert (got[0] is TypeError) == (expected[0] is TypeError)
    if expected[0] is TypeError:
        assert got == expected


def test_the_type_of_an_rlock_can_be_derived_from() -> None:
    class Mine(type(OURS["RLock"]())):  # type: ignore[misc]
        def __init__(self, label: str) -> None:
            super().__init__()
            self.label = label

        def __new__(cls, label: str) -> Any:
            return super().__new__(cls)

    lock = Mine("x")
    assert lock.label == "x"
    with checking() as session:
        with lock, lock:
            assert lock._recursion_count() == 2
            assert len(session.held_locks()) == 1
        with lock, threading.Condition(lock) as condition:
            assert condition is True
    assert session.violations == []


def test_arguments_of_rlock() -> None:
    with warnings.catch_warnings(record=True) as ours:
        warnings.simplefilter("always")
        OURS["RLock"](1, 2, x=3)
    with warnings.catch_warnings(record=True) as real:
        warnings.simplefilter("always")
        REAL["RLock"](1, 2, x=3)
    assert [w.category for w in ours] == [w.category for w in real]
    assert [str(w.message) for w in ours] == [str(w.message) for w in real]
    assert {w.filename for w in ours} <= {__file__}


@pytest.mark.parametrize("make", [ctxcheck.Lock, ctxcheck.RLock, ctxcheck.SpinLock], ids=["Lock", "RLock", "SpinLock"])
def test_a_name_is_a_non_empty_string(make: Any) -> None:
    for name in ("", 1, b"x"):
        with pytest.raises(TypeError, match=re.escape(f"name={name!r} is not a non-empty string")):
            make(name=name)
    assert make(name="ok").step.lock_class.key.startswith("ok")


def test_a_real_condition_over_ours_waits_and_notifies() -> None:
    for make in (*OURS.values(), ctxcheck.SpinLock):
        lock = make(name="conditioned")
        condition = ORIGINALS["Condition"](lock)
        with checking(select=["CTX001", "CTX002", "CTX302", "CTX305", "CTX901"]) as session:
            with pytest.raises(RuntimeError):
                condition.notify()

            def notify(condition: Any = condition) -> None:
                with condition:
                    condition.notify()

            with condition:
                thread = threading.Thread(target=notify)
                thread.start()
                assert condition.wait(60)
                assert session.held_locks() == ["conditioned"]
            thread.join()
            assert session.held_locks() == []
        assert session.violations == []


def test_dill_s_way_to_rebuild_an_rlock() -> None:
    for lock in (REAL["RLock"](), OURS["RLock"]()):
        lock.acquire()
        lock.acquire()
        owner, count = re.search(r"owner=(\d+) count=(\d+)", repr(lock)).groups()  # type: ignore[union-attr]
        twin = type(lock)()
        twin._acquire_restore((int(count), int(owner)))
        assert twin._recursion_count() == 2
        assert twin._release_save() == (2, _thread.get_ident())
        assert not twin._is_owned()
        with pytest.raises(RuntimeError):
            twin._release_save()


def test_signatures_take_what_the_real_ones_take() -> None:
    parameters = inspect.signature(ctxcheck.Lock().acquire).parameters
    assert [(p.name, p.default) for p in parameters.values()] == [("blocking", True), ("timeout", -1)]


# --- exclusion ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ctxcheck.Lock, ctxcheck.RLock, ctxcheck.SpinLock], ids=["Lock", "RLock", "SpinLock"])
@pytest.mark.parametrize("checked", [False, True], ids=["off", "on"])
def test_it_excludes(make: Any, checked: bool) -> None:
    lock = make(name=f"excludes.{make.__name__}")
    inside = total = 0
    switch = sys.getswitchinterval()

    def work() -> None:
        nonlocal inside, total
        rng = random.Random(threading.get_ident())
        for _ in range(2000):
            if rng.random() < 0.5:
                lock.acquire()
            elif rng.random() < 0.5:
                lock.__enter__()
            elif not lock.acquire(timeout=60):
                raise AssertionError("nobody holds it for a minute")
            inside += 1
            assert inside == 1
            total += 1
            inside -= 1
            lock.release()

    sys.setswitchinterval(1e-6)
    try:
        session = checking() if checked else None
        if session:
            session.start()
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if session:
            session.stop()
            assert session.violations == []
    finally:
        sys.setswitchinterval(switch)
    assert total == 8000
    assert lock.acquire(False)


# --- SpinLock -----------------------------------------------------------------------------------


def test_a_spin_lock_isnt_reentrant_and_only_its_owner_may_release_it() -> None:
    lock = ctxcheck.SpinLock(name="spin")
    with checking() as session:
        with lock:
            assert lock.locked()
            assert "locked ctxcheck.SpinLock" in repr(lock)
            with pytest.raises(ctxcheck.DeadlockError):
                lock.acquire()
            with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
                in_thread(lock.release)
            assert lock.locked()
        assert not lock.locked()
    assert [v.rule for v in session.violations] == ["CTX002", "CTX302"]


def test_taking_a_spin_lock_is_no_sleep_and_holding_it_forbids_one() -> None:
    spin, other, lock = ctxcheck.SpinLock(name="s"), ctxcheck.SpinLock(name="t"), ctxcheck.Lock(name="l")
    with checking() as session:
        with lock, spin, other:
            pass
        with spin:
            assert lock.acquire(False)
            lock.release()
        assert session.violations == []
        with spin, lock:
            pass
        assert {v.rule for v in session.violations} == {"CTX001", "CTX102"}


def test_a_spin_lock_can_be_derived_from_but_not_pickled() -> None:
    class Mine(ctxcheck.SpinLock):
        pass

    lock = Mine(name="mine")
    with lock:
        assert lock.locked()
    with pytest.raises(TypeError, match="cannot pickle"):
        pickle.dumps(lock)


# --- cost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ctxcheck.Lock, ctxcheck.RLock, ctxcheck.SpinLock], ids=["Lock", "RLock", "SpinLock"])
def test_a_lock_costs_at_most_400_bytes_all_told(make: Any) -> None:
    def many() -> list[Any]:
        return [make() for _ in range(10_000)]

    used = many()
    with checking():
        for lock in used:
            with lock:
                pass
    del used, lock
    gc.collect()
    tracemalloc.start()
    try:
        locks = many()
        size = tracemalloc.get_traced_memory()[0]
        with checking():
            for lock in locks:
                with lock:
                    pass
        gc.collect()  # the session is over; its own parts refer to each other
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert size / 10_000 <= 400
    assert used / 10_000 <= 400, "and no more for having been taken"


def test_with_ctxcheck_0_they_are_the_real_ones() -> None:
    code = (
        "import ctxcheck, _thread; print(type(ctxcheck.Lock()) is _thread.LockType, "
        "type(ctxcheck.RLock()) is _thread.RLock, type(ctxcheck.Lock(name='x')) is _thread.LockType)"
    )
    for value, expected in (("0", "True True True"), ("1", "False False False"), ("", "False False False")):
        result = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path), "CTXCHECK": value},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert result.stdout.strip() == expected, value


def test_the_cached_path_makes_no_garbage() -> None:
    locks = [ctxcheck.Lock(), ctxcheck.RLock(), ctxcheck.SpinLock()]
    with checking():
        for _ in range(3):
            for lock in locks:
                with lock:
                    pass
        gc.collect()
        before = sys.getallocatedblocks()
        for lock in itertools.chain.from_iterable(itertools.repeat(locks, 1000)):
            with lock:
                pass
        assert sys.getallocatedblocks() - before < 50
