"""``nested``: levels are classes of their own, an outer lock excuses what is taken inside it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking, nested, track
from ctxcheck.engine.classes import LOCK, REGISTRY, SPIN
from ctxcheck.session import Session
from tests.oracle import in_thread


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def edges(session: Session) -> set[tuple[str, str]]:
    return {(e["from"], e["to"]) for e in session.graph()["edges"]}


class Raw:
    """Something to track that anybody may hold as often as they like."""

    def acquire(self, **_: Any) -> bool:
        return True

    def release(self) -> None:
        pass


MAKERS: dict[str, Callable[[str], Any]] = {
    "lock": lambda name: ctxcheck.Lock(name=name),
    "rlock": lambda name: ctxcheck.RLock(name=name),
    "spin": lambda name: ctxcheck.SpinLock(name=name),
    "condition": lambda name: ctxcheck.Condition(name=name),
    "tracked": lambda name: track(Raw(), name=name),
    "tracked rlock": lambda name: track(Raw(), name=name, kind="rlock"),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes locks of one class, of each kind that can be nested; the class's name says which."""
    kind: str = request.param

    def make(name: str = "node") -> Any:
        return MAKERS[kind](f"nested.{kind}.{name}")

    return make


def by_with(*locks: Any) -> None:
    if locks:
        with locks[0]:
            by_with(*locks[1:])


def by_call(*locks: Any) -> None:
    for lock in locks:
        assert lock.acquire() in (True, None)
    for lock in reversed(locks):
        lock.release()


# --- levels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("take", [by_with, by_call])
def test_a_level_is_a_class_of_its_own(make: Callable[..., Any], take: Callable[..., None]) -> None:
    parent, child = make(), make()
    with checking() as session:
        take(parent, nested(child))
        take(child, nested(parent), nested(make(), 2))
    name = session.graph()["classes"][0]["name"]
    assert found(session) == []
    assert edges(session) == {(name, f"{name}/1"), (name, f"{name}/2"), (f"{name}/1", f"{name}/2")}
    with checking() as session:
        take(parent, nested(child))
        take(nested(child), parent)
    assert found(session) == [("CTX001", "possible")]
    assert session.violations[0].locks == (name, f"{name}/1")


def test_two_at_one_level_are_nested_without_an_order(make: Callable[..., Any]) -> None:
    a, b = make(), make()
    for level in (0, 3):
        with checking() as session:
            by_with(nested(a, level), nested(b, level))
            by_with(nested(b, level), nested(a, level))
        assert found(session) == [("CTX003", "possible")]
        # the violation names the level, and the class keeps its name
        assert session.violations[0].locks[0].endswith("/3") == (level == 3)
    with checking() as session, a:
        assert not session.held_locks()[0].endswith("/3")


@pytest.mark.parametrize("through", ["stand-in", "lock"])
def test_it_may_be_released_through_the_lock_itself(make: Callable[..., Any], through: str) -> None:
    lock = make()
    stand_in = nested(lock)
    with checking() as session:
        for _ in range(2):
            stand_in.acquire()
            assert session.held_locks()[0].endswith("/1")
            (stand_in if through == "stand-in" else lock).release()
            assert session.held_locks() == []
            lock.acquire()
            stand_in.release()
            assert session.held_locks() == []
    assert found(session) == []


def test_arguments_and_results_are_the_locks_own() -> None:
    lock = ctxcheck.Lock(name="nested.args")
    stand_in = nested(lock)
    with checking() as session:
        with stand_in as got:
            assert got is True
            assert stand_in.locked()
            answers: list[bool] = []
            in_thread(lambda: answers.append(stand_in.acquire(False)))
            in_thread(lambda: answers.append(stand_in.acquire(timeout=0.001)))
            assert answers == [False, False]
        for blocking, timeout in ((False, 1.0), (True, -5.0)):
            with pytest.raises(ValueError, match="timeout"):
                stand_in.acquire(blocking, timeout)
        assert stand_in.acquire(True, 60)
        lock.release()
        assert session.held_locks() == []
    assert found(session) == []
    assert stand_in.acquire()  # nothing is checked now
    stand_in.release()


def test_a_try_at_a_level_adds_no_order_and_a_timed_one_is_graded_lower() -> None:
    a, b = ctxcheck.Lock(name="level.try"), ctxcheck.Lock(name="level.try")
    for arguments, expected in (((False,), []), ((True, 60), [("CTX001", "unlikely")])):
        with checking() as session:
            by_with(a, nested(b))
            with nested(b):
                assert a.acquire(*arguments)
                a.release()
        assert found(session) == expected


def test_one_lock_taken_twice_is_a_self_deadlock_at_whatever_level() -> None:
    lock = ctxcheck.Lock(name="level.self")
    with checking() as session, lock, pytest.raises(ctxcheck.DeadlockError):
        nested(lock, 2).acquire()
    assert found(session) == [("CTX002", "certain")]
    again = ctxcheck.RLock(name="level.reentered")
    with checking() as session, again, nested(again, 2), again:
        assert session.held_locks() == ["level.reentered"]
    assert found(session) == []


def test_a_level_keeps_others_out_as_the_lock_itself_does() -> None:
    """One gate around both orders, once at a level: nobody can be in both."""
    gate, a, b = (ctxcheck.Lock(name=f"level.gate.{n}") for n in "gab")
    with checking() as session:
        by_with(gate, a, b)
        by_with(nested(gate), b, a)
    assert found(session) == [("CTX001", "unlikely")]
    with checking() as session:
        other = ctxcheck.Lock(name="level.gate.g")
        by_with(gate, a, b)
        by_with(nested(other), b, a)
    assert found(session) == [("CTX001", "possible")]


def test_a_hand_off_at_a_level_is_one_of_the_class() -> None:
    lock, other = ctxcheck.Lock(name="level.handed"), ctxcheck.Lock(name="level.handed.other")
    with checking() as session:
        nested(lock).acquire()
        in_thread(lock.release)
        assert session.held_locks() == []
        by_with(lock, other)
        by_with(other, lock)
    assert [grade for _, grade in found(session)] == ["unlikely"]


def test_a_lock_whose_name_is_found_at_its_first_use() -> None:
    import dataclasses

    @dataclasses.dataclass
    class Holder:
        lock: Any = dataclasses.field(default_factory=ctxcheck.Lock)

    with checking() as session, nested(Holder().lock, 4):
        assert session.held_locks()[0].endswith("Holder.lock/4")


def test_levels_and_names_that_look_alike_are_kept_apart() -> None:
    first = REGISTRY.get("alike", "alike", LOCK)
    level = REGISTRY.level(first, 1)
    assert REGISTRY.level(first, 1) is level is REGISTRY.level(level, 1)
    assert REGISTRY.level(level, 0) is first
    named = REGISTRY.get("alike/1", "alike/1", LOCK)
    assert named is not level
    assert named.key != level.key
    earlier = REGISTRY.get("sooner/1", "sooner/1", SPIN)
    assert REGISTRY.level(REGISTRY.get("sooner", "sooner", SPIN), 1) is not earlier


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((8,), ValueError, r"level=8 is not one of the levels 0 to 7"),
        ((-1,), ValueError, r"level=-1 is not one of"),
        (("1",), TypeError, r"level='1' is not a whole number, 0 to 7"),
        ((True,), TypeError, r"level=True is not a whole number"),
    ],
)
def test_levels_that_there_are_not(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nested(ctxcheck.Lock(name="level.bad"), *arguments)


def test_what_cannot_be_nested() -> None:
    for wrong in (1, "lock", ctxcheck.Event(), ctxcheck.Semaphore()):
        with pytest.raises(TypeError, match="can't be nested"):
            nested(wrong)
    with pytest.raises(TypeError, match="nest_under=5 is no lock"):
        nested(ctxcheck.Lock(name="level.bad"), nest_under=5)
    with pytest.raises(TypeError, match="nest_under=5 is no lock"):
        track(Raw(), name="level.bad.tracked").acquire(nest_under=5)


def test_where_nothing_is_checked_the_stand_in_is_the_lock() -> None:
    program = """
import threading, ctxcheck
lock, again = ctxcheck.Lock(), ctxcheck.RLock()
assert type(lock) is type(threading.Lock())
for raw in (lock, again):
    with ctxcheck.nested(raw) as got:
        assert got is True
    assert ctxcheck.nested(raw, 2, nest_under=lock).acquire(timeout=1)
    raw.release()
print("fine")
"""
    run = subprocess.run(
        [sys.executable, "-c", program], env={"CTXCHECK": "0"}, capture_output=True, text=True, check=False
    )
    assert run.stdout == "fine\n", run.stderr


# --- under an outer lock ------------------------------------------------------------------------


def test_an_outer_lock_excuses_what_is_taken_inside_it(make: Callable[..., Any]) -> None:
    outer, nodes = make("outer"), [make() for _ in range(4)]
    with checking() as session:
        for order in (nodes, nodes[::-1]):
            by_with(outer, *(nested(node, 0, nest_under=outer) for node in order))
    assert found(session) == []
    assert {target for _, target in edges(session)} == {session.graph()["classes"][0]["name"]}


def test_what_the_excused_acquire_adds_is_no_order_to_what_was_taken_inside() -> None:
    """As in the kernel's self-test (spin_nest_lock): outer; Y1 under it; A; Y2 under it."""
    outer, a = ctxcheck.Lock(name="under.outer"), ctxcheck.Lock(name="under.a")
    y1, y2 = (ctxcheck.Lock(name="under.y") for _ in range(2))
    # two outer locks, so that holding one keeps nobody out
    ctxcheck.Lock(name="under.outer")
    with checking() as session:
        by_with(outer, nested(y1, 0, nest_under=outer), a, nested(y2, 0, nest_under=outer))
    assert found(session) == []
    assert ("under.a", "under.y") not in edges(session)


def test_what_was_taken_before_the_outer_lock_is_not_excused(make: Callable[..., Any]) -> None:
    outer, a, b = make("outer"), make(), make()
    with checking() as session:
        by_with(a, outer, nested(b, 0, nest_under=outer))
        by_with(b, outer, nested(a, 0, nest_under=outer))
    assert ("CTX003", "unlikely") in found(session)  # one outer lock keeps them apart
    with checking() as session:
        other = make("outer")
        by_with(a, outer, nested(b, 0, nest_under=outer))
        by_with(b, other, nested(a, 0, nest_under=other))
    assert ("CTX003", "possible") in found(session)


def test_without_the_stand_in_nothing_is_excused(make: Callable[..., Any]) -> None:
    outer, a, b = make("outer"), make(), make()
    with checking() as session:
        by_with(outer, nested(a, 0, nest_under=outer), nested(b, 0, nest_under=outer))
        by_with(a, b)
        by_with(b, a)
    assert found(session) == [("CTX003", "possible")]


def test_the_outer_lock_must_be_held_each_time(make: Callable[..., Any]) -> None:
    outer, node = make("outer"), make()
    with checking() as session:
        by_with(outer, nested(node, 0, nest_under=outer))
        for _ in range(2):
            by_with(nested(node, 0, nest_under=outer))
    assert found(session) == [("CTX301", "certain")]
    violation = session.violations[0]
    assert violation.count == 2
    assert "outer lock not held: `nested." in violation.message
    with checking(mode="raise"):
        with pytest.raises(ctxcheck.ViolationError, match="CTX301"):
            nested(node, 0, nest_under=outer).acquire()
        with node:  # it wasn't taken
            pass


def test_an_outer_lock_that_another_thread_holds_is_not_held() -> None:
    outer, node = ctxcheck.Lock(name="under.theirs"), ctxcheck.Lock(name="under.theirs.node")
    with checking() as session, outer:
        in_thread(lambda: by_with(nested(node, 0, nest_under=outer)))
    assert found(session) == [("CTX301", "certain")]
    assert any("holds it" in note for note in session.violations[0].notes)


def test_an_outer_lock_taken_before_anything_was_checked_counts() -> None:
    outer, a, b = ctxcheck.Lock(name="under.before"), *(ctxcheck.Lock(name="under.before.node") for _ in range(2))
    with outer, checking() as session:
        by_with(nested(a, 0, nest_under=outer), nested(b, 0, nest_under=outer))
        by_with(nested(b, 0, nest_under=outer), nested(a, 0, nest_under=outer))
    assert found(session) == []


def test_the_outer_lock_may_be_reentered_a_level_or_a_readers_lock() -> None:
    tree = ctxcheck.RLock(name="under.tree")
    a, b = (ctxcheck.Lock(name="under.tree.node") for _ in range(2))
    readers = track(Raw(), name="under.readers", shared=True)
    with checking() as session:
        with tree, tree:
            by_with(*(nested(node, 0, nest_under=tree) for node in (a, b)))
            by_with(*(nested(node, 0, nest_under=tree) for node in (b, a)))
        level = nested(ctxcheck.Lock(name="under.level"), 3)
        with level:
            by_with(*(nested(node, 0, nest_under=level) for node in (a, b)))
        with readers.shared():
            by_with(*(nested(node, 0, nest_under=readers) for node in (a, b)))
    assert found(session) == []


def test_a_tracked_object_takes_nest_under_itself() -> None:
    outer = ctxcheck.Lock(name="under.direct")
    a, b = (track(Raw(), name="under.direct.node", shared=True) for _ in range(2))
    with checking() as session:
        for first, second in ((a, b), (b, a)):
            with outer:
                first.acquire(nest_under=outer)
                second.acquire(shared=True, nest_under=outer)
                second.release()
                first.release()
    assert found(session) == []
    with checking() as session:
        a.acquire(nest_under=outer)
        a.release()
    assert found(session) == [("CTX301", "certain")]


def test_many_at_once_under_one() -> None:
    outer, nodes = ctxcheck.Lock(name="under.many"), [ctxcheck.Lock(name="under.many.node") for _ in range(300)]
    with checking() as session:
        with outer:
            for node in nodes:
                nested(node, 0, nest_under=outer).acquire()
            assert len(session.held_locks()) == 301
            for node in nodes:  # the first one first
                node.release()
        assert session.held_locks() == []
        threads = [
            threading.Thread(target=by_with, args=(outer, nested(node, 0, nest_under=outer))) for node in nodes[:8]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found(session) == []
