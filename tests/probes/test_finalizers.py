"""Real finalizers, run by real references and by the real collector."""

from __future__ import annotations

import abc
import asyncio
import builtins
import dataclasses
import enum
import gc
import inspect
import logging
import queue
import sys
import threading
import typing
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ctxcheck
from ctxcheck import fastpath
from ctxcheck.probes import finalizers, install

ON = install.install


def found(session: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(v.rule, v.grade, v.locks) for v in session.violations]


def in_thread(function: Callable[[], object]) -> None:
    thread = threading.Thread(target=function, name="worker")
    thread.start()
    thread.join()


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    gc.collect()
    yield
    assert gc.isenabled()


# --- __del__ ----------------------------------------------------------------------------------


def holder(lock: Any) -> type:
    class Holder:
        def __del__(self) -> None:
            with lock:
                pass

    return Holder


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("first", ["hold", "finalizer"])
@pytest.mark.parametrize("thread", [False, True])
def test_a_lock_that_is_held_where_a_finalizer_that_takes_it_can_run(cycle: bool, first: str, thread: bool) -> None:
    lock = ctxcheck.Lock(name="f.A")
    kind = holder(lock)

    def finalize() -> None:
        thing: Any = kind()
        if cycle:
            thing.me = thing
            del thing
            gc.collect()

    def hold() -> None:
        with lock:
            pass

    with ctxcheck.checking() as session:
        steps = [hold, finalize] if first == "hold" else [finalize, hold]
        for step in steps:
            if thread:
                in_thread(step)
            else:
                step()
    assert found(session) == [("CTX004", "possible", ("f.A",))]
    assert any("Holder.__del__()" in note for v in session.violations for note in v.notes)


def test_a_finalizer_that_is_marked_is_one_as_well() -> None:
    lock = ctxcheck.Lock(name="f.marked")

    class Marked:
        @ctxcheck.allow("CTX004", reason="known")
        def __del__(self) -> None:
            with lock:
                pass

    with ctxcheck.checking() as session:
        Marked()
        with lock:
            pass
    assert [(v.rule, v.allowed_by) for v in session.violations] == [("CTX004", "known")]


@pytest.mark.parametrize(
    "take",
    [
        lambda lock: lock.acquire(blocking=False) and lock.release(),
        lambda lock: lock.acquire(timeout=0) and lock.release(),
        lambda lock: None,
    ],
)
def test_what_cant_wait_is_fine(take: Any) -> None:
    lock = ctxcheck.Lock(name="f.Try")

    class Tries:
        def __del__(self) -> None:
            take(lock)

    with ctxcheck.checking() as session:
        Tries()
        with lock:
            pass
    assert found(session) == []


def test_an_rlock_and_a_simple_queue_are_fine() -> None:
    lock, jobs = ctxcheck.RLock(name="f.R"), queue.SimpleQueue[int]()

    class Careful:
        def __del__(self) -> None:
            with lock:
                jobs.put(1)

    with ctxcheck.checking() as session, lock:
        Careful()
        jobs.put(1)
    assert found(session) == []


def test_a_queue_that_others_use_is_not() -> None:
    jobs = queue.Queue[int]()

    class Reports:
        def __del__(self) -> None:
            jobs.put(1)

    with ctxcheck.checking() as session:
        Reports()
        jobs.put(2)
    ((rule, grade, _),) = found(session)
    assert (rule, grade) == ("CTX004", "possible")


def test_through_a_second_lock() -> None:
    a, b = ctxcheck.Lock(name="f.P"), ctxcheck.Lock(name="f.Q")
    kind = holder(a)
    with ctxcheck.checking() as session:
        kind()
        with ctxcheck.masked("gc"), a, b:
            pass
        with b:
            pass
    assert found(session) == [("CTX005", "possible", ("f.P", "f.Q"))]


def test_nothing_of_what_it_interrupts_counts_inside() -> None:
    a, b, spin = ctxcheck.Lock(name="f.in.A"), ctxcheck.Lock(name="f.in.B"), ctxcheck.SpinLock(name="f.in.S")
    kind = holder(b)
    with ctxcheck.checking() as session:
        with ctxcheck.masked("gc"), a:
            kind()
        with ctxcheck.masked("gc"), b, a:
            pass
        with spin, ctxcheck.atomic("tick"):
            kind()
        assert [(e["from"], e["to"]) for e in session.graph()["edges"]] == [("f.in.B", "f.in.A")]
    assert found(session) == []


def test_a_finalizer_that_is_called_is_no_finalizer() -> None:
    lock, outer = ctxcheck.Lock(name="f.Called"), ctxcheck.Lock(name="f.Outer")

    class Base:
        def __del__(self) -> None:
            with lock:
                pass

        def close(self) -> None:
            self.__del__()

    class Derived(Base):
        def __del__(self) -> None:
            with outer:
                super().__del__()

    thing = Derived()
    with ctxcheck.checking() as session:
        with outer:
            Base.close(Base.__new__(type("Other", (Base,), {"__del__": Base.__dict__["__del__"].__wrapped__})))
        with outer, lock:
            pass
        edges = {(e["from"], e["to"]) for e in session.graph()["edges"]}
        assert edges == {("f.Outer", "f.Called")}
    with ctxcheck.checking() as session:
        del thing
        edges = {(e["from"], e["to"]) for e in session.graph()["edges"]}
        assert edges == {("f.Outer", "f.Called")}


def test_it_runs_once_with_its_result_and_its_exceptions() -> None:
    calls: list[object] = []

    class Fails:
        def __del__(self) -> None:
            calls.append(self.__class__.__name__)
            raise LookupError("gone")

    hooked: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda info: hooked.append((info.exc_type, info.object))
    try:
        with ctxcheck.checking():
            Fails()
        Fails()
    finally:
        sys.unraisablehook = before
    assert calls == ["Fails", "Fails"]
    assert hooked == [(LookupError, vars(Fails)["__del__"])] * 2


def test_what_it_leaves_held_belongs_to_what_it_interrupted() -> None:
    lock = ctxcheck.RLock(name="f.Left")

    class Leaves:
        def __del__(self) -> None:
            lock.acquire()

    with ctxcheck.checking() as session:
        Leaves()
        assert ctxcheck.held_locks() == ["f.Left"]
        lock.release()
        assert ctxcheck.held_locks() == []
    assert found(session) == []


def test_a_deadlock_with_the_interrupted_code_is_no_hang() -> None:
    lock = ctxcheck.Lock(name="f.Dead")
    kind = holder(lock)
    errors: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda info: errors.append(info.exc_type)
    try:
        with ctxcheck.checking(mode="raise") as session, lock:
            kind()
    finally:
        sys.unraisablehook = before
    assert errors == [ctxcheck.DeadlockError]
    assert ("CTX002", "certain", ("f.Dead",)) in found(session)


def test_violations_are_never_raised_in_a_finalizer() -> None:
    lock, other = ctxcheck.Lock(name="f.Raise"), ctxcheck.Lock(name="f.Raise2")
    done: list[str] = []

    class Sleeps:
        def __del__(self) -> None:
            with ctxcheck.atomic("in a finalizer"):
                ctxcheck.might_sleep()
            with lock:
                pass
            for first, second in ((lock, other), (other, lock)):
                with first, second:
                    pass
            done.append("done")

    errors: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda info: errors.append(info.exc_type)
    try:
        with ctxcheck.checking(mode="raise") as session:
            with lock:
                pass
            Sleeps()
            with pytest.raises(ctxcheck.ViolationError), ctxcheck.atomic("outside"):
                ctxcheck.might_sleep()
    finally:
        sys.unraisablehook = before
    assert (errors, done) == ([], ["done"])
    assert {"CTX001", "CTX004", "CTX101"} <= {rule for rule, _, _ in found(session)}


def test_nor_in_any_context_that_interrupts() -> None:
    with ctxcheck.checking(mode="raise") as session:
        with ctxcheck.interrupt("signal"), ctxcheck.atomic("handler"):
            ctxcheck.might_sleep()
    assert [v.rule for v in session.violations] == ["CTX101"]


# --- whose lock it is --------------------------------------------------------------------------


class Own:
    """Takes its own lock, and that of a part of its own, in its finalizer."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.jobs: queue.Queue[int] = queue.Queue()
        self.box = {"inner": [threading.Lock()]}

    def use(self) -> None:
        with self.lock:
            self.jobs.put(1)
        with self.box["inner"][0]:
            pass

    def __del__(self) -> None:
        self.use()


@pytest.mark.parametrize("cycle", [False, True])
def test_nobody_else_has_the_lock_of_what_is_being_finalized(cycle: bool) -> None:
    with ctxcheck.checking() as session:
        for _ in range(3):
            thing: Any = Own()
            thing.use()
            if cycle:
                thing.me = [thing]
            del thing
            gc.collect()
    assert found(session) == []


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("where", ["list", "frame", "thread", "global"])
def test_somebody_else_has_it(cycle: bool, where: str) -> None:
    kept: list[Any] = []
    go, ready = threading.Event(), threading.Event()

    def keep(jobs: object) -> None:
        ready.set()
        go.wait(60)
        del jobs

    with ctxcheck.checking() as session:
        for number in range(3):
            thing: Any = Own()
            thing.use()
            mine = None
            if number == 2:  # after two that were their own
                if where == "list":
                    kept.append(thing.jobs)
                elif where == "frame":
                    mine = thing.jobs
                elif where == "thread":
                    threading.Thread(target=keep, args=(thing.jobs,)).start()
                    ready.wait(60)
                else:
                    Own.shared = thing.jobs  # type: ignore[attr-defined]
            if cycle:
                thing.me = thing
            del thing
            gc.collect()
            del mine
        go.set()
    assert [(rule, grade) for rule, grade, _ in found(session)] == [("CTX004", "possible")]
    if where == "global":
        del Own.shared  # type: ignore[attr-defined]


def test_a_lock_that_others_wait_for_isnt_its_own() -> None:
    lock, ready, go = ctxcheck.Lock(name="f.Contended"), threading.Event(), threading.Event()
    kind = holder(lock)

    def hold() -> None:
        with lock:
            ready.set()
            go.wait(60)

    with ctxcheck.checking() as session:
        thread = threading.Thread(target=hold)
        thread.start()
        ready.wait(60)
        original = type(lock)._acquire  # let go as soon as the finalizer waits
        del original
        timer = threading.Timer(0.01, go.set)
        timer.start()
        kind()
        thread.join()
        timer.join()
    assert found(session) == [("CTX004", "possible", ("f.Contended",))]


# --- guards that can be seen -----------------------------------------------------------------


def test_a_flag_of_the_thread_that_the_holder_sets() -> None:
    lock, flags = ctxcheck.Lock(name="f.Flag"), threading.local()

    def work() -> None:
        flags.busy = True
        with lock:
            pass
        flags.busy = False

    class Looks:
        def __del__(self) -> None:
            if not getattr(flags, "busy", False):
                with lock:
                    pass

    with ctxcheck.checking() as session:
        Looks()
        work()
    assert found(session) == [("CTX004", "unlikely", ("f.Flag",))]
    with ctxcheck.checking() as session:
        Looks()
        work()
        with lock:  # not in the code that sets it
            pass
    assert found(session) == [("CTX004", "possible", ("f.Flag",))]


def test_a_flag_that_the_holder_has_nothing_to_do_with() -> None:
    lock, flags = ctxcheck.Lock(name="f.OtherFlag"), threading.local()

    class Looks:
        def __del__(self) -> None:
            if not getattr(flags, "busy", False):
                with lock:
                    pass

    def work() -> None:
        flags.other = True
        with lock:
            pass

    with ctxcheck.checking() as session:
        Looks()
        work()
    assert found(session) == [("CTX004", "possible", ("f.OtherFlag",))]


class Tidy:
    """A flag that is an attribute."""

    lock = ctxcheck.Lock(name="f.Tidy")

    def __init__(self) -> None:
        self.flags = threading.local()

    def work(self) -> None:
        self.flags.busy = True
        with Tidy.lock:
            pass
        self.flags.busy = False

    def __del__(self) -> None:
        if not hasattr(self.flags, "busy") or not self.flags.busy:
            with Tidy.lock:
                pass


def test_a_flag_that_is_an_attribute() -> None:
    with ctxcheck.checking() as session:
        thing = Tidy()
        thing.work()
        del thing
    assert found(session) == [("CTX004", "unlikely", ("f.Tidy",))]


def test_whoever_asks_first_whether_it_is_taken() -> None:
    lock = ctxcheck.Lock(name="f.Asks")

    class Asks:
        def __del__(self) -> None:
            if not lock.locked():
                with lock:
                    pass

    with ctxcheck.checking() as session:
        Asks()
        with lock:
            pass
    assert found(session) == [("CTX004", "unlikely", ("f.Asks",))]


# --- weakref.finalize, weak references ----------------------------------------------------------


class Thing:
    pass


def _drain(jobs: queue.Queue[int]) -> None:
    while True:
        try:
            jobs.get(block=False)
        except queue.Empty:
            return


@pytest.mark.parametrize("cycle", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_finalize_with_what_the_object_had(cycle: bool, shared: bool) -> None:
    kept: list[Any] = []
    with ctxcheck.checking() as session:
        for _ in range(2):
            thing: Any = Thing()
            thing.jobs = queue.Queue()
            thing.jobs.put(1)
            weakref.finalize(thing, _drain, thing.jobs)
            if shared:
                kept.append(thing.jobs)
            if cycle:
                thing.me = thing
            del thing
            gc.collect()
        for jobs in kept:
            assert jobs.empty()
    assert [(rule, grade) for rule, grade, _ in found(session)] == [("CTX004", "possible")] * shared


def test_finalize_called_by_the_program_is_no_finalizer() -> None:
    lock = ctxcheck.Lock(name="f.Finalize")

    def clean() -> str:
        with lock:
            return "clean"

    with ctxcheck.checking() as session:
        thing = Thing()
        finalizer = weakref.finalize(thing, clean)
        with lock:
            pass
        assert finalizer() == "clean"
        assert finalizer() is None
        del thing
        assert found(session) == []
        thing = Thing()
        weakref.finalize(thing, clean)
        del thing
    assert found(session) == [("CTX004", "possible", ("f.Finalize",))]


def test_a_generator_that_the_collector_closes() -> None:
    lock = ctxcheck.Lock(name="f.Generator")

    def body() -> Iterator[int]:
        me = []
        me.append(me)
        try:
            yield 1
        finally:
            with lock:
                pass
            del me

    with ctxcheck.checking() as session:
        generator: Any = body()
        next(generator)
        box = [generator]
        box.append(box)
        del generator, box
        gc.collect()
        with lock:
            pass
    assert found(session) == [("CTX004", "possible", ("f.Generator",))]


def test_multiprocessings_finalizers() -> None:
    from multiprocessing import util

    lock = ctxcheck.Lock(name="f.Finalize2")

    def clean() -> None:
        with lock:
            pass

    with ctxcheck.checking() as session:
        thing = Thing()
        finalizer = util.Finalize(thing, clean)  # type: ignore[no-untyped-call]
        with lock:
            pass
        assert finalizer.still_active()
        del thing
        assert not finalizer.still_active()
    assert found(session) == [("CTX004", "possible", ("f.Finalize2",))]


# --- classes -------------------------------------------------------------------------------------


def is_wrapped(cls: Any) -> bool:
    return hasattr(vars(cls)["__del__"], "__wrapped__")


def test_a_finalizer_looks_like_what_it_was() -> None:
    install.uninstall()
    try:

        class Before:
            def __del__(self, warn: object = warnings.warn) -> None:
                """Let go."""

        original = vars(Before)["__del__"]
        original.tag = 1
        keys = list(vars(Before))
        ON()
        ours = vars(Before)["__del__"]
        assert ours is not original
        assert list(vars(Before)) == keys
        assert inspect.signature(ours) == inspect.signature(original)
        for name in ("__name__", "__qualname__", "__module__", "__doc__", "tag"):
            assert getattr(ours, name) == getattr(original, name)
        assert ours.__wrapped__ is original
        assert Before().__del__.__func__ is ours  # type: ignore[attr-defined]
        install.uninstall()
        assert vars(Before)["__del__"] is original
        assert list(vars(Before)) == keys
    finally:
        ON()


def test_classes_of_all_sorts() -> None:
    made: list[Any] = []

    class Meta(type):
        def __setattr__(cls, name: str, value: object) -> None:
            raise AssertionError(f"{name} was set")

        def __new__(mcs, name: str, bases: Any, namespace: Any, **_: Any) -> Any:
            made.append(name)
            return super().__new__(mcs, name, bases, namespace)

    class Odd(metaclass=Meta):
        def __del__(self) -> None:
            made.append("odd")

    assert is_wrapped(Odd)
    Odd()
    assert made == ["Odd", "odd"]

    class Base:
        def __init_subclass__(cls, **_: Any) -> None:
            made.append(cls.__name__)

    class Sub(Base, tag=1):
        def __del__(self) -> None:
            made.append(__class__)  # type: ignore[name-defined]  # noqa: F821

    Sub()
    assert made[2:] == ["Sub", Sub]

    @dataclasses.dataclass(slots=True)
    class Slotted:
        value: int = 0

        def __del__(self) -> None:
            made.append(self.value)

    Slotted(7)
    assert made[4:] == [7]
    assert is_wrapped(Slotted)

    class Row(typing.NamedTuple):
        value: int

    class Color(enum.Enum):
        RED = 1

    class Listed(list[int]):
        __slots__ = ()

        def __del__(self) -> None:
            made.append(len(self))

    Listed([1, 2])
    assert made[5:] == [2]
    assert (Row(1).value, Color.RED.value) == (1, 1)

    def close(self: object) -> None:
        made.append("close")

    class Alias:
        shut = close
        __del__ = close

    assert Alias.shut is close
    Alias()
    assert made[6:] == ["close"]
    with pytest.raises(ZeroDivisionError):

        class Raises:
            def __del__(self) -> None: ...

            1 / 0


def test_finalizers_that_are_reassigned_and_deleted() -> None:
    calls: list[str] = []

    class Changes:
        def __del__(self) -> None:
            calls.append("first")

    with ctxcheck.checking():
        Changes()
        Changes.__del__ = lambda self: calls.append("second")  # type: ignore[method-assign, assignment]
        Changes()
        del Changes.__del__
        Changes()
        assert calls == ["first", "second"]
    install.uninstall()
    assert "__del__" not in vars(Changes)
    ON()


def test_whoever_makes_a_class_sees_who_asked() -> None:
    """Pydantic and others look for local types in the caller of the metaclass."""
    callers: list[str] = []

    class Meta(type):
        def __new__(mcs, name: str, bases: Any, namespace: Any) -> Any:
            callers.append(sys._getframe(1).f_code.co_name)
            return super().__new__(mcs, name, bases, namespace)

    class Warns:
        def __init_subclass__(cls) -> None:
            warnings.warn("don't", UserWarning, stacklevel=2)

    def plain() -> None:
        class Plain(metaclass=Meta):
            def method(self) -> None: ...

        class Sibling:
            def __del__(self) -> None: ...

        assert is_wrapped(Sibling)

    plain()
    assert callers == ["plain"]
    with pytest.warns(UserWarning) as caught:

        class Finalized(Warns):
            def __del__(self) -> None: ...

    assert caught[0].filename == __file__
    assert is_wrapped(Finalized)


def test_somebody_who_wraps_the_making_of_classes() -> None:
    ours = builtins.__build_class__
    made: list[str] = []

    def theirs(function: Any, name: str, /, *bases: Any, **options: Any) -> Any:
        made.append(name)
        return ours(function, name, *bases, **options)

    builtins.__build_class__ = theirs
    try:

        class First:
            def __del__(self) -> None: ...

        assert is_wrapped(First)
        install.uninstall()
        assert builtins.__build_class__ is theirs

        class Second:
            def __del__(self) -> None: ...

        assert not is_wrapped(First)
        assert not is_wrapped(Second)
        assert made == ["First", "Second"]
    finally:
        builtins.__build_class__ = ours.__class__.__call__.__get__(None)._original  # type: ignore[attr-defined]
        ON()


def test_a_finalizer_that_somebody_else_has_wrapped() -> None:
    lock = ctxcheck.Lock(name="f.Theirs")
    kind: Any = holder(lock)
    ours = vars(kind)["__del__"]
    kind.__del__ = lambda self: ours(self)
    install.uninstall()
    try:
        with ctxcheck.checking() as session:
            kind()
            with lock:
                pass
        assert found(session) == []
    finally:
        ON()


def test_everything_is_put_back_also_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    install.uninstall()
    places = [
        *((cls, "__del__") for cls, _ in finalizers._with_finalizer()),
        (builtins, "__build_class__"),
        (weakref.finalize, "__call__"),
        (gc, "enable"),
        (gc, "disable"),
    ]
    before = [vars(owner)[name] for owner, name in places]
    callbacks = list(gc.callbacks)
    ON()
    changed = [vars(owner)[name] is not old for (owner, name), old in zip(places, before, strict=True)]
    assert all(changed[-4:])
    assert sum(changed) > 5
    install.uninstall()
    assert all(vars(owner)[name] is old for (owner, name), old in zip(places, before, strict=True))
    assert gc.callbacks == callbacks

    count = iter(range(3))
    real = finalizers.adopt

    def fail(cls: type, live: list[bool]) -> None:
        if next(count, None) is None:
            raise RuntimeError("half-way")
        real(cls, live)

    monkeypatch.setattr(finalizers, "adopt", fail)
    with pytest.raises(RuntimeError, match="half-way"):
        ON()
    assert all(vars(owner)[name] is old for (owner, name), old in zip(places, before, strict=True))
    assert gc.callbacks == callbacks
    monkeypatch.setattr(finalizers, "adopt", real)
    ON()


def test_what_makes_classes_looks_like_what_it_was() -> None:
    ours: Any = builtins.__build_class__
    assert repr(ours) == "<built-in function __build_class__>"
    options = {"metaclass": abc.ABCMeta}
    with pytest.raises(TypeError, match=r"^__build_class__\(\) got multiple values"):

        class C(metaclass=abc.ABCMeta, **options): ...  # type: ignore[misc]

    install.uninstall()
    original: Any = builtins.__build_class__
    assert ours.__wrapped__ is original
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        assert getattr(ours, name) == getattr(original, name)
    ON()


@pytest.mark.parametrize("cycle", [False, True])
def test_whoever_is_told_may_raise(cycle: bool) -> None:
    lock = ctxcheck.Lock(name="f.Told")
    kind = holder(lock)
    told: list[Any] = []
    errors: list[Any] = []

    def tell(violation: Any) -> None:
        told.append(violation.rule)
        raise LookupError("told")

    before, sys.unraisablehook = sys.unraisablehook, lambda info: errors.append(info.exc_type)
    try:
        with ctxcheck.checking(mode=tell) as session:
            with lock:
                pass
            thing: Any = kind()
            thing.me = thing if cycle else None
            del thing
            gc.collect()
            state = fastpath.known()
            assert state is not None
            assert state.cur is state.root
    finally:
        sys.unraisablehook = before
    assert (told, errors) == (["CTX004"], [LookupError])
    assert found(session) == [("CTX004", "possible", ("f.Told",))]


def test_threads_that_end_are_let_go_of() -> None:
    states: list[Any] = []
    kept: list[Any] = []

    def work() -> None:
        thing: Any = Own()
        thing.use()
        kept.append(thing.jobs)
        thing.me = thing
        del thing
        gc.collect(0)
        state = fastpath.known()
        states.append(weakref.ref(state))

    with ctxcheck.checking():
        in_thread(work)
        gc.collect()
        assert states[0]() is None


def test_a_finalizer_that_logs() -> None:
    """Logging's own locks, in the library's own hands, are no finding; a handler's own lock is one."""

    class Quiet(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            pass

    class Locks(Quiet):
        def __init__(self) -> None:
            super().__init__()
            self.mine = threading.Lock()

        def emit(self, record: logging.LogRecord) -> None:
            with self.mine:
                pass

    class Noisy:
        def __del__(self) -> None:
            logger.warning("gone")

    logger = logging.getLogger("test_finalizers")
    logger.propagate = False
    for kind, expected in ((Quiet, []), (Locks, [("CTX004", "possible")])):
        handler = kind()
        logger.addHandler(handler)
        with ctxcheck.checking() as session:
            logger.warning("here")
            logging.getLogger("test_finalizers.other")
            Noisy()
            thing: Any = Noisy()
            thing.me = thing
            del thing
            gc.collect()
            logger.warning("here")
            logger.removeHandler(handler)
            handler.acquire()
            handler.close()  # takes logging's lock
            handler.release()
        assert [(v.rule, v.grade) for v in session.failures] == expected


def test_a_coroutine_that_the_collector_closes_waits_for_no_lock_of_asyncios() -> None:
    """It has it at once, or can't await it, and is told so (``coroutine ignored GeneratorExit``): nothing hangs."""

    async def serve(lock: asyncio.Lock) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            async with lock:
                pass

    async def main() -> None:
        lock = asyncio.Lock()
        async with lock:
            await asyncio.sleep(0)
        serving = serve(lock)
        serving.send(None)
        circle: list[object] = [serving]
        circle.append(circle)
        del serving, circle
        gc.collect()

    with ctxcheck.checking() as session:
        asyncio.run(main())
    assert [v.rule for v in session.violations] == []
