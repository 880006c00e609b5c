"""Who else has a lock, and what a finalizer's code looks at first."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.engine.finalizing import accesses, is_island, look, reach, set_by
from ctxcheck.engine.sites import capture


class Thing:
    """Something that refers to others."""

    def __init__(self, *others: Any) -> None:
        self.others = list(others)


class Slots:
    __slots__ = ("__weakref__", "a", "b")

    def __init__(self, a: Any = None, b: Any = None) -> None:
        self.a, self.b = a, b


def graph(edges: list[tuple[int, int]], roots: list[int], size: int) -> tuple[list[Any], list[Any], Any]:
    """Things 0 (that dies) to ``size`` - 1 (the lock) and what refers to what; those of ``roots`` are kept."""
    things = [Thing() if number % 2 else Slots([]) for number in range(size)]
    for source, target in edges:
        holder = things[source]
        (holder.others if isinstance(holder, Thing) else holder.a).append(things[target])
    return things, [things[number] for number in roots], weakref.ref(things[-1])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 7).flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=14),
            st.lists(st.integers(1, size - 1), max_size=2, unique=True),
        )
    )
)
def test_against_what_can_be_reached(case: tuple[int, list[tuple[int, int]], list[int]]) -> None:
    size, edges, roots = case
    things, kept, lock = graph(edges, roots, size)
    dying = things[0]
    del things
    gc.collect()  # garbage refers to things, too

    def reachable(start: list[int], without: set[int]) -> set[int]:
        found = set(start) - without
        todo = list(found)
        while todo:
            at = todo.pop()
            for source, target in edges:
                if source == at and target not in found and target not in without:
                    found.add(target)
                    todo.append(target)
        return found

    wanted = size - 1
    from_dying, from_kept = reachable([0], set()), reachable(roots, set())
    said = reach(lock, (dying,))
    if wanted not in from_dying | from_kept:
        assert said == ("private" if lock() is None else "elsewhere")
        assert is_island(lock, ())
    elif wanted not in from_dying:
        assert said == "elsewhere"
        assert not is_island(lock, (dying,))
    else:
        # what keeps the dying thing itself isn't asked for: it is dying
        others = wanted in reachable(roots, {0})
        assert said == ("shared" if others else "private")
        assert is_island(lock, (dying,)) is not others
    assert kept is not None
    assert dying is not None


def test_a_variable_of_a_function_that_runs_counts() -> None:
    inner = Slots()
    lock = weakref.ref(inner)
    dying = Thing(inner)
    assert reach(lock, (dying,)) == "shared"
    assert not is_island(lock, (dying,))
    del inner
    assert reach(lock, (dying,)) == "private"
    assert is_island(lock, (dying,))


def test_a_variable_of_another_thread_counts() -> None:
    inner: Any = Slots()
    lock, dying = weakref.ref(inner), Thing(inner)
    ready, go = threading.Event(), threading.Event()

    def keep(mine: object) -> None:
        ready.set()
        go.wait(60)
        del mine

    thread = threading.Thread(target=keep, args=(inner,))
    del inner
    thread.start()
    ready.wait(60)
    assert reach(lock, (dying,)) == "shared"
    assert not is_island(lock, (dying,))
    go.set()
    thread.join()
    del thread, keep
    assert reach(lock, (dying,)) == "private"


def test_garbage_of_an_exception_is_an_island() -> None:
    def fail(inner: object) -> None:
        kept: list[Any] = [inner]
        kept.append(kept)
        raise KeyError(*kept[:1])

    gc.disable()
    try:
        inner = Slots()
        lock = weakref.ref(inner)
        try:
            fail(inner)
        except KeyError as error:
            error.args = (error,)
        del inner
        assert lock() is not None
        assert is_island(lock, ())
    finally:
        gc.enable()
    gc.collect()
    assert lock() is None


def test_too_much_to_look_at_is_unknown() -> None:
    inner = Slots()
    dying = Thing(*([n] for n in range(3_000)))
    dying.others.append(inner)
    lock = weakref.ref(inner)
    del inner
    assert reach(lock, (dying,)) == "unknown"


def test_nothing_is_kept_alive() -> None:
    inner = Slots()
    lock, dying = weakref.ref(inner), Thing(inner)
    before = sys.getrefcount(inner)
    for _ in range(10):
        reach(lock, (dying,))
        is_island(lock, (dying,))
    assert sys.getrefcount(inner) == before


# --- what code looks at -----------------------------------------------------------------------


FLAGS = threading.local()


class Owner:
    flags = threading.local()

    def __init__(self) -> None:
        self.mine = threading.local()
        self.lock = threading.Lock()

    def reads_global(self) -> Any:
        if getattr(FLAGS, "busy", False):
            return None
        return looked()

    def reads_class(self) -> Any:
        return looked() if not self.flags.inside else None

    def reads_own(self) -> Any:
        return looked() if not hasattr(self.mine, "deep") else None

    def reads_in_a_helper(self) -> Any:
        return looked() if not self.is_busy() else None

    def is_busy(self) -> bool:
        return bool(FLAGS.busy)

    def asks(self) -> Any:
        return looked() if not self.lock.locked() else None

    def nothing(self) -> Any:
        return looked()


def looked() -> Any:
    frame: FrameType | None = sys._getframe(1)
    outer = frame.f_back if frame is not None else None
    return look(frame, outer)


@pytest.mark.parametrize(
    ("method", "flags", "asks"),
    [
        ("reads_global", {"FLAGS.busy"}, False),
        ("reads_class", {"flags.inside"}, False),
        ("reads_own", {"mine.deep"}, False),
        ("reads_in_a_helper", {"FLAGS.busy"}, False),
        ("asks", set(), True),
        ("nothing", set(), False),
    ],
)
def test_what_is_looked_at(method: str, flags: set[str], asks: bool) -> None:
    FLAGS.busy = Owner.flags.inside = False
    found = getattr(Owner(), method)()
    assert (found.flags, found.asks, found.library) == (flags, asks, False)


def test_a_variable_around_a_function() -> None:
    mine = threading.local()

    def check() -> Any:
        return looked() if not getattr(mine, "x", 0) else None

    assert check().flags == {"mine.x"}


def test_no_code_of_the_program_runs() -> None:
    class Odd:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        def method(self) -> Any:
            return looked(), self.anything  # type: ignore[attr-defined]

    odd: Any = Odd()
    frames: list[Any] = []

    def method(self: Any) -> Any:
        frames.append(looked())
        return self.anything if frames is None else None

    method(odd)
    assert frames[0].flags == set()


def test_what_a_holder_sets() -> None:
    def sets(thing: Any) -> Any:
        FLAGS.busy = True
        thing.flags.deep = 1
        setattr(FLAGS, "by_name", 2)  # noqa: B010
        return capture(0)

    assert set_by(sets(Owner())) >= {"FLAGS.busy", "flags.deep", "FLAGS.by_name"}
    reads, stores = accesses(sets.__code__)
    assert "FLAGS.busy" in stores
    assert "FLAGS.busy" not in reads


def test_the_library_alone() -> None:
    import queue

    def library(function: Callable[[], Any]) -> bool:
        return bool(function().library)

    assert not library(lambda: looked())

    class Probe(queue.Queue[int]):
        def _put(self, item: int) -> None:
            found.append(look(sys._getframe(1), sys._getframe(2)))

    found: list[Any] = []
    Probe().put(1)
    assert found[0].library


class Lazy:
    """A stand-in for something that isn't there: it raises when it is asked what it is."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("not now")


STAND_IN: Any = Lazy()


def test_nothing_is_asked_what_it_is() -> None:
    hidden = STAND_IN

    def looks() -> tuple[frozenset[str], Any, Any]:
        looked = look(sys._getframe(), None)
        return looked.flags, hidden, STAND_IN

    assert looks()[0] == frozenset()
    lock = threading.RLock()
    holder, keeper = Thing(STAND_IN, Slots(lock)), [Lazy(), lock]
    assert reach(lambda: lock, (holder,)) == "shared"
    assert not is_island(lambda: lock, (holder,))
    del keeper
