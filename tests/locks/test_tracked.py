"""``track``: anything that is acquired and released takes part, and its own methods do the work."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking, track
from ctxcheck.session import Session
from tests.oracle import in_thread


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def edges(session: Session) -> set[tuple[str, str]]:
    return {(e["from"], e["to"]) for e in session.graph()["edges"]}


class Log:
    """Something that can be acquired, and remembers what was asked of it."""

    def __init__(self, answer: Any = True, error: type[BaseException] | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answer = answer
        self.error = error
        self.colour = "red"

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(("acquire", args, kwargs))
        if self.error:
            raise self.error
        return self.answer

    def release(self, *args: Any, **kwargs: Any) -> str:
        self.calls.append(("release", args, kwargs))
        return "released"

    def read(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(("read", args, kwargs))
        return self.answer

    def unread(self) -> str:
        self.calls.append(("unread", (), {}))
        return "unread"

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]


# --- what the object sees --------------------------------------------------------------------


@pytest.mark.parametrize("checked", [False, True], ids=["off", "on"])
def test_arguments_and_results_go_through(checked: bool) -> None:
    log = Log(answer="token")
    tracked = track(log, name="log")
    session = Session()
    if checked:
        session.start()
    try:
        assert tracked.acquire(1, where="there", timeout=2) == "token"
        assert tracked.release("now", why="done") == "released"
        with tracked as value:
            assert value == "token"
        assert tracked.colour == "red"
        with pytest.raises(AttributeError):
            tracked.nonsense  # noqa: B018
    finally:
        session.stop()
    assert log.calls == [
        ("acquire", (1,), {"where": "there", "timeout": 2}),
        ("release", ("now",), {"why": "done"}),
        ("acquire", (), {}),
        ("release", (), {}),
    ]


@pytest.mark.parametrize(
    ("shared", "calls"),
    [
        (True, [("acquire", (), {"shared": True}), ("release", (), {})]),
        ("recursive", [("acquire", (), {"shared": True}), ("release", (), {})]),
        (("read", "unread"), [("read", (), {}), ("unread", (), {})]),
    ],
)
def test_shared_holds_go_to_their_own_methods(shared: Any, calls: list[Any]) -> None:
    for checked in (False, True):
        log = Log()
        tracked = track(log, name="rw", shared=shared)
        session = Session()
        if checked:
            session.start()
        try:
            with tracked.shared():
                pass
            assert log.calls == calls
            log.calls.clear()
            tracked.acquire(shared=True)
            tracked.release(shared=True)
            assert log.calls == calls
            log.calls.clear()
            with tracked:
                pass
            assert log.names == ["acquire", "release"]
        finally:
            session.stop()
        assert found(session) == []


@pytest.mark.parametrize("answer", [False, 0, "", None, True, 1, object()])
def test_a_false_answer_other_than_none_means_not_acquired(answer: Any) -> None:
    tracked = track(Log(answer), name="answers")
    with checking() as session:
        assert tracked.acquire() is answer
        got = answer is None or bool(answer)
        assert session.held_locks() == (["answers"] if got else [])
        if got:
            tracked.release()
        assert session.held_locks() == []
    assert found(session) == []


def test_what_it_raises_comes_out_and_nothing_is_held() -> None:
    tracked = track(Log(error=ConnectionError), name="raises")
    with checking() as session:
        for _ in range(2):
            with pytest.raises(ConnectionError):
                tracked.acquire()
            with pytest.raises(ConnectionError), tracked:
                raise AssertionError("not reached")
        assert session.held_locks() == []
    assert found(session) == []


def test_bad_arguments_are_one_clear_line() -> None:
    for arguments, error, message in (
        ({"kind": "rlok"}, ValueError, "kind='rlok' is not one of .*; did you mean 'rlock'"),
        ({"shared": 7}, TypeError, "shared=7 is not True, False, 'recursive' or a pair"),
        ({"shared": ("read", "nope")}, TypeError, r"Log object has no method nope\(\)"),
        ({"name": ""}, TypeError, "name='' is not a non-empty string"),
    ):
        with pytest.raises(error, match=message):
            track(Log(), **arguments)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"int object has no method acquire\(\)"):
        track(1)
    with pytest.raises(TypeError, match="`plain` has no shared mode"):
        track(Log(), name="plain").acquire(shared=True)


# --- orders -------------------------------------------------------------------------------------


def test_it_takes_part_in_the_order_of_locks() -> None:
    tracked, lock = track(threading.Lock(), name="tracked"), ctxcheck.Lock(name="lock")
    with checking() as session:
        with tracked, lock:
            pass
        with lock, tracked:
            pass
    assert found(session) == [("CTX001", "possible")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("CTX001", "possible")),
        ((False,), None),
        ((True, 60), ("CTX001", "unlikely")),
        ((True, 0), None),
    ],
)
def test_try_and_timed_as_for_a_lock(arguments: tuple[Any, ...], expected: tuple[str, str] | None) -> None:
    tracked, lock = track(threading.Lock(), name="tracked"), ctxcheck.Lock(name="lock")
    with checking() as session:
        with tracked, lock:
            pass
        with lock:
            assert tracked.acquire(*arguments)
            assert session.held_locks() == ["lock", "tracked"]
            tracked.release()
    assert found(session) == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("shared", "grades"), [(True, ["possible"]), ("recursive", []), (("read", "unread"), ["possible"])]
)
def test_readers_in_both_orders(shared: Any, grades: list[str]) -> None:
    a, b = (track(Log(), name=f"rw.{name}", shared=shared) for name in "AB")
    with checking() as session:
        with a.shared(), b.shared():
            pass
        with b.shared(), a.shared():
            pass
    assert found(session) == [("CTX001", grade) for grade in grades]


def test_the_mode_belongs_to_the_acquisition() -> None:
    # one of two readers that is let in is enough
    for modes, rules in (((True, True), ["CTX001"]), (("recursive", "recursive"), []), ((True, "recursive"), [])):
        a, b = (track(Log(), name=f"rw.{name}", shared=True) for name in "AB")
        with checking() as session:
            for outer, inner in ((a, b), (b, a)):
                outer.acquire(shared=True)
                inner.acquire(shared=modes[outer is b])
                inner.release()
                outer.release()
        assert [v.rule for v in session.violations] == rules


def test_a_reader_that_comes_again_may_wait_behind_a_writer() -> None:
    a = track(Log(), name="rw.A", shared=True)
    with checking() as session:
        a.acquire(shared=True)
        a.acquire(shared="recursive")
        a.release()
        assert found(session) == []
        a.acquire(shared=True, timeout=5)
        a.release()
        assert found(session) == [("CTX002", "unlikely")]
        a.acquire(shared=True)
        a.release()
        a.release()
    assert found(session) == [("CTX002", "possible")]


def test_a_shared_hold_is_no_guard_and_an_exclusive_one_is() -> None:
    for hold, grade in (("shared", "possible"), ("exclusive", "unlikely")):
        gate, a, b = track(Log(), name=f"gate.{hold}", shared=True), ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
        with checking() as session:
            for first, second in ((a, b), (b, a)):
                with gate.shared() if hold == "shared" else gate, first, second:
                    pass
        assert found(session) == [("CTX001", grade)]


def test_a_writer_that_waits_for_its_own_read_is_a_self_deadlock() -> None:
    tracked = track(Log(), name="upgrade", shared=True)
    with checking() as session:
        with tracked.shared():
            with pytest.raises(ctxcheck.DeadlockError):
                tracked.__enter__()
            assert session.held_locks() == ["upgrade"]
    assert [rule for rule, _ in found(session)] == ["CTX002"]


def test_a_recursive_read_is_fine() -> None:
    tracked = track(Log(), name="again", shared="recursive")
    with checking() as session:
        with tracked.shared(), tracked.shared():
            assert session.held_locks() == ["again"]
        assert session.held_locks() == []
    assert found(session) == []


def test_after_a_downgrade_it_is_held_shared() -> None:
    """S-59: exclusive, shared inside it, the exclusive one released: what follows comes after a reader's hold."""
    tracked, b = track(Log(), name="down", kind="rlock", shared="recursive"), ctxcheck.Lock(name="down.B")
    with checking() as session:
        tracked.acquire()
        tracked.acquire(shared=True)
        tracked.release(shared=False)
        assert session.held_locks() == ["down"]
        ctxcheck.assert_held(tracked, "shared")
        with b:
            pass
        tracked.release(shared=True)
        assert session.held_locks() == []
        with b, tracked.shared():  # readers let each other in
            pass
        assert found(session) == []
        with b, tracked:
            pass
    assert found(session) == [("CTX001", "possible")]
    assert not tracked._holds


# --- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), (False,), (True, 60)])
def test_an_rlock_is_reentered_without_an_effect_however_it_is_asked(how: tuple[Any, ...]) -> None:
    lock = ctxcheck.Lock(name="other")
    tracked = track(threading.RLock(), name="tracked.rlock", kind="rlock")
    with checking() as session:
        tracked.acquire()
        with lock:
            assert tracked.acquire(*how)
            assert session.held_locks() == ["tracked.rlock", "other"]
            tracked.release()
        assert session.held_locks() == ["tracked.rlock"]
        tracked.release()
        assert session.held_locks() == []
        assert not tracked.lock_class.nested
    assert edges(session) == {("tracked.rlock", "other")}
    assert found(session) == []


def test_a_spin_lock_takes_the_right_to_sleep() -> None:
    tracked, lock = track(Log(), name="tracked.spin", kind="spin"), ctxcheck.Lock(name="lock")
    with checking() as session:
        with lock, tracked:
            pass
        assert found(session) == []
        with tracked, lock:
            pass
    assert {rule for rule, _ in found(session)} == {"CTX001", "CTX102"}


def test_a_semaphore_has_no_owner() -> None:
    tracked = track(threading.Semaphore(2), name="tracked.sem", kind="semaphore")
    with checking() as session:
        with tracked, tracked:
            pass
        tracked.acquire()
        in_thread(tracked.release)
        tracked.release()
    assert found(session) == []


def test_a_plain_lock_taken_twice_is_a_self_deadlock() -> None:
    tracked = track(Log(), name="tracked.twice")
    with checking() as session:
        with tracked, pytest.raises(ctxcheck.DeadlockError):
            tracked.acquire()
        assert session.held_locks() == []
    assert found(session) == [("CTX002", "certain")]


# --- releases ----------------------------------------------------------------------------------------


def test_releases_by_others_and_by_nobody() -> None:
    plain, owned = track(Log(), name="foreign"), track(Log(), name="owned", kind="rlock")
    with checking() as session:
        plain.acquire()
        in_thread(plain.release)
        assert session.held_locks() == []
        assert found(session) == []
        plain.release()
        owned.acquire()
        in_thread(owned.release)
        owned.release()
    assert found(session) == [("CTX305", "certain"), ("CTX302", "certain")]


@pytest.mark.parametrize("kind", ["lock", "rlock", "spin", "semaphore"])
@pytest.mark.parametrize(
    ("taken", "released"),
    [("before", "in"), ("outer", "inner"), ("inner", "outer"), ("in", "after")],
)
def test_taken_in_one_session_and_released_in_another(kind: str, taken: str, released: str) -> None:
    tracked = track(Log(), name=f"across.{kind}", kind=kind)
    select = {"select": ["CTX001", "CTX002", "CTX302", "CTX305", "CTX901"]}
    if taken == "before":
        tracked.acquire()
    with checking(**select) as outer:
        if taken in ("outer", "in"):
            tracked.acquire()
        with checking(**select) as inner:
            if taken == "inner":
                tracked.acquire()
            if released == "inner":
                tracked.release()
        if released in ("outer", "in"):
            tracked.release()
            assert outer.held_locks() == []
    if released == "after":
        tracked.release()
    with checking(**select) as last, tracked:
        assert last.held_locks() == [f"across.{kind}"]
    assert [found(s) for s in (outer, inner, last)] == [[], [], []]
    assert not tracked._holds


@pytest.mark.parametrize("broken", ["acquire", "release"])
def test_it_is_given_back_whatever_the_checking_raises(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    tracked = track(log, name="given.back")

    class Theirs(Exception):
        pass

    def fail(*args: Any) -> Any:
        raise Theirs

    with checking() as session:
        if broken == "acquire":
            monkeypatch.setattr(type(session.engine), "acquire", fail)
            with pytest.raises(Theirs):
                tracked.acquire(False)  # asked only when it is taken
            assert log.names == ["acquire", "release"]
        else:
            tracked.acquire()
            # what isn't the innermost thing that is held
            with ctxcheck.Lock(name="given.inside"):
                monkeypatch.setattr("ctxcheck.engine.slowpath.drop", fail)
                with pytest.raises(Theirs):
                    tracked.release()
                monkeypatch.undo()
                assert session.held_locks() == ["given.inside"]
            assert log.names == ["acquire", "release"]
        monkeypatch.undo()
    assert not tracked._holds


def test_a_violation_that_is_raised_leaves_it_untaken() -> None:
    log = Log()
    tracked, lock = track(log, name="refused"), ctxcheck.Lock(name="refusing")
    with checking(mode="raise") as session:
        with tracked, lock:
            pass
        log.calls.clear()
        with lock:
            with pytest.raises(ctxcheck.ViolationError):
                tracked.acquire()
            assert session.held_locks() == ["refusing"]
    assert log.calls == []
    assert not tracked._holds


# --- what is kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", [lambda t: t.acquire(), lambda t: t.acquire(shared=True)])
def test_one_that_goes_while_it_is_held_leaves_no_phantom(hold: Callable[[Any], object]) -> None:
    lock = ctxcheck.Lock(name="phantom.lock")
    with checking() as session:
        tracked = track(Log(), name="phantom.tracked", shared=True)
        gone = weakref.ref(tracked)
        hold(tracked)
        del tracked
        assert gone() is None
        with lock:
            assert session.held_locks() == ["phantom.lock"]
    assert edges(session) == set()
    assert found(session) == [("CTX304", "possible")]


def test_threads_share_it_without_mixing_their_holds() -> None:
    tracked = track(Log(), name="crowd", shared=True)
    errors: list[object] = []
    start = threading.Barrier(6)
    with checking() as session:

        def read() -> None:
            start.wait()
            for _ in range(200):
                with tracked.shared():
                    if session.held_locks() != ["crowd"]:
                        errors.append(session.held_locks())
                if session.held_locks():
                    errors.append(session.held_locks())

        threads = [threading.Thread(target=read) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert found(session) == []
    assert not tracked._holds
