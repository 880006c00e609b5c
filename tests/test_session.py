"""Sessions: what is found, counted, told, raised, withdrawn, and when."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import checking, fastpath
from ctxcheck.session import Session


def in_thread(work: Callable[[], object]) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class Pair:
    """Two locks, and both ways to take them."""

    def __init__(self) -> None:
        self.a = ctxcheck.Lock(name="A")
        self.b = ctxcheck.Lock(name="B")

    def forth(self) -> None:
        with self.a:
            with self.b:
                pass

    def back(self) -> None:
        with self.b:
            with self.a:
                pass


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def test_an_inversion_by_one_thread_is_possible_when_owners_are_assumed() -> None:
    pair = Pair()
    with checking() as session:
        pair.forth()
        assert session.violations == []
        pair.back()
        assert found(session) == [("CTX001", "possible")]
    assert found(session) == [("CTX001", "possible")]
    assert session.violations[0].locks == ("A", "B")


def test_the_same_by_one_thread_is_unlikely_when_owners_are_observed_until_another_thread_comes() -> None:
    pair = Pair()
    with checking(owners="observed") as session:
        pair.forth()
        pair.back()
        assert found(session) == [("CTX001", "unlikely")]
        in_thread(pair.back)
        assert found(session) == [("CTX001", "possible")]
    assert session.failures == session.violations


def test_a_session_starts_with_nothing_known_and_the_inner_one_gets_the_events() -> None:
    pair = Pair()
    with checking() as outer:
        pair.forth()
        with checking() as inner:
            pair.back()
        assert inner.violations == []
        assert inner.counts().orders == 1
        assert outer.violations == []
        pair.back()
        assert found(outer) == [("CTX001", "possible")]


def test_a_session_is_one_run() -> None:
    session = checking()
    with session:
        with pytest.raises(RuntimeError, match="this session is running: make a new one for each run"), session:
            pass
        with checking() as inner:
            ctxcheck.assert_held(ctxcheck.Lock(name="reused"))
        assert [v.rule for v in inner.violations] == ["CTX301"]
    with pytest.raises(RuntimeError, match="this session has ended"), session:
        pass
    assert fastpath.engine() is None
    assert session.violations == []


def test_one_finding_a_fingerprint_with_a_count() -> None:
    @ctxcheck.might_sleep
    def nap() -> None: ...

    @ctxcheck.atomic
    def handler() -> None:
        nap()

    with checking() as session:
        for _ in range(3):
            handler()
    assert [(v.rule, v.count) for v in session.violations] == [("CTX101", 3)]


def test_fingerprints_hold_across_sessions() -> None:
    prints = set()
    for _ in range(2):
        pair = Pair()
        with checking() as session:
            pair.forth()
            in_thread(pair.back)
        prints |= {v.fingerprint for v in session.violations}
    assert len(prints) == 1


def test_mode_raise_raises_at_the_call_before_it_blocks_and_nothing_is_held() -> None:
    pair = Pair()
    with checking(mode="raise") as session:
        pair.forth()
        with pytest.raises(ctxcheck.ViolationError) as caught:
            pair.back()
        assert session.held_locks() == []
        assert pair.a.acquire(False)
        pair.a.release()
        assert pair.b.acquire(False)
        pair.b.release()
    assert caught.value.violation.rule == "CTX001"
    assert found(session) == [("CTX001", "possible")]


def test_mode_warn_warns_at_the_line() -> None:
    pair = Pair()
    with checking(mode="warn"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pair.forth()
        pair.back()
    assert [w.category for w in caught] == [ctxcheck.ViolationWarning]
    assert caught[0].filename.endswith("test_session.py")


def test_what_only_the_verdict_shows_is_told_and_written_at_the_end() -> None:
    written: list[Any] = []

    class Sink:
        def write(self, record: dict[str, Any]) -> None:
            if record["type"] == "violation":
                written.append(record)

    pair = Pair()
    session = Session(owners="observed", sink=Sink())
    with session:
        pair.forth()
        pair.back()
        assert [r["violation"]["grade"] for r in written] == ["unlikely"]
        in_thread(pair.forth)
    assert [r["violation"]["grade"] for r in written[:2]] == ["unlikely", "possible"]
    assert [written[-1]["violation"]] == [v.to_dict() for v in session.violations]


def test_a_callback_is_given_each_new_violation_and_may_take_checked_locks() -> None:
    pair = Pair()
    mine = ctxcheck.Lock(name="mine")
    told: list[str] = []

    def callback(violation: ctxcheck.Violation) -> None:
        with mine:
            told.append(violation.rule)

    with checking(mode=callback) as session:
        pair.forth()
        pair.back()
        pair.back()
    assert told == ["CTX001"]
    assert session.counts().lock_classes == 2  # what the callback took was not checked


def test_what_a_callback_raises_passes_through_and_isnt_taken_for_a_fault() -> None:
    pair = Pair()

    def callback(violation: ctxcheck.Violation) -> None:
        raise ZeroDivisionError(violation.rule)

    with checking(mode=callback) as session:
        pair.forth()
        with pytest.raises(ZeroDivisionError, match="CTX001"):
            pair.back()
    assert [v.rule for v in session.violations] == ["CTX001"]


def test_a_finding_cant_be_swallowed() -> None:
    pair = Pair()
    with checking(mode="raise") as session:
        pair.forth()
        try:
            pair.back()
        except Exception:
            pass
    assert [v.rule for v in session.violations] == ["CTX001"]


def test_select_and_ignore() -> None:
    pair = Pair()
    with checking(ignore=["lock-order-inversion"]) as ignoring, checking(select=["CTX1"]) as selecting:
        pair.forth()
        pair.back()
    assert ignoring.violations == selecting.violations == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "rais"}, r"mode='rais' is not one of record, warn, raise, or a callable; did you mean 'raise'\?"),
        ({"owners": "observd"}, r"owners='observd' .* did you mean 'observed'\?"),
        ({"fail_on": "likely"}, r"fail_on='likely' .* did you mean 'unlikely'\?"),
        ({"select": ["CTX9999"]}, "no rule is called 'CTX9999'"),
        ({"deadlock_after": 0}, "deadlock_after=0 is not a number of seconds above 0"),
    ],
)
def test_bad_options_are_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        checking(**options)
    assert "\n" not in str(caught.value)


def test_a_string_in_place_of_a_list_of_rules() -> None:
    with pytest.raises(TypeError, match=r"^select='CTX1' is one string; give a list of rules: select=\['CTX1'\]$"):
        checking(select="CTX1")


def test_held_locks_in_the_order_of_their_acquisition() -> None:
    pair = Pair()
    with checking() as session:
        with pair.a, pair.b:
            assert session.held_locks() == ctxcheck.held_locks() == ["A", "B"]
        assert session.held_locks() == []


def test_a_thread_that_ends_with_a_lock_is_reported_unless_somebody_releases_it() -> None:
    lock, signal = ctxcheck.Lock(name="kept"), ctxcheck.Lock(name="signal")
    with checking() as session:
        in_thread(lock.acquire)
        in_thread(signal.acquire)
        assert {(v.rule, v.locks) for v in session.violations} == {("CTX303", ("kept",)), ("CTX303", ("signal",))}
        signal.release()
    assert [(v.rule, v.locks) for v in session.violations] == [("CTX303", ("kept",))]
    lock.release()


def test_a_session_that_ends_doesnt_take_running_threads_for_ended() -> None:
    lock = ctxcheck.RLock(name="R")
    held, done = threading.Event(), threading.Event()

    def work() -> None:
        with lock:
            held.set()
            done.wait()

    with checking() as session:
        thread = threading.Thread(target=work)
        thread.start()
        held.wait()
    done.set()
    thread.join()
    assert session.violations == []


def test_self_deadlock_is_raised_in_every_mode_and_the_lock_stays_usable() -> None:
    lock = ctxcheck.Lock(name="L")
    with checking(mode="record") as session:
        with lock:
            with pytest.raises(ctxcheck.DeadlockError):
                lock.acquire()
        with lock:
            pass
    assert found(session) == [("CTX002", "certain")]


def test_allow_accepts_with_a_reason() -> None:
    pair = Pair()
    with checking() as session:
        pair.forth()
        with ctxcheck.allow("CTX001", reason="start-up only"):
            pair.back()
    assert [(v.rule, v.allowed_by) for v in session.violations] == [("CTX001", "start-up only")]
    assert session.failures == []


def test_what_is_left_behind_is_accepted_where_it_was_taken() -> None:
    lock, bracket = ctxcheck.RLock(name="left"), ctxcheck.range_("left")

    def leave() -> None:
        with ctxcheck.allow("CTX203", "CTX303", reason="the process ends with it"):
            lock.acquire()
            bracket.start()
        forgotten.acquire()

    forgotten = ctxcheck.RLock(name="forgotten")
    with checking(select=["CTX203", "CTX303"]) as session:
        in_thread(leave)
    assert sorted((v.rule, v.allowed_by) for v in session.violations if v.allowed_by) == [
        ("CTX203", "the process ends with it"),
        ("CTX303", "the process ends with it"),
    ]
    assert [v.locks for v in session.failures] == [("forgotten",)]


def test_a_free_range_that_nobody_closed_is_told_at_the_end() -> None:
    with checking() as session:
        ctxcheck.range_("batch", key="mails", owner="any").start()
        assert session.violations == []
    (violation,) = session.violations
    assert (violation.rule, violation.grade) == ("CTX203", "possible")
    assert violation.message == (
        "range left open: nobody has closed `batch` on 'mails', which thread 'MainThread' opened, at the end of the "
        "checking block"
    )
    assert session.failures == [violation]


def test_an_unallowed_way_to_the_same_finding_is_not_accepted() -> None:
    pair = Pair()
    with checking() as session:
        pair.forth()
        with ctxcheck.allow("CTX001", reason="start-up only"):
            pair.back()
        in_thread(pair.back)
    assert [v.allowed_by for v in session.violations] == [None]


def test_a_line_comment_accepts() -> None:
    @ctxcheck.might_sleep
    def nap() -> None: ...

    with checking() as session, ctxcheck.atomic("x"):
        nap()  # ctxcheck: allow[CTX101] a test of comments
    assert [v.allowed_by for v in session.violations] == ["a test of comments"]


def test_what_is_accepted_on_one_line_is_not_on_another() -> None:
    @ctxcheck.might_sleep
    def nap() -> None: ...

    with checking() as session, ctxcheck.atomic("x"):
        nap()  # ctxcheck: allow[CTX101] here it is fine
        nap()
        nap()  # ctxcheck: allow[CTX101] here it is fine
    assert [(v.allowed_by, v.count) for v in session.violations] == [(None, 3)]


def test_an_internal_fault_switches_checking_off_says_so_once_and_the_program_goes_on(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pair, others = Pair(), Pair()
    others.a, others.b = ctxcheck.Lock(name="C"), ctxcheck.Lock(name="D")
    with checking() as session:
        others.forth()
        others.back()
        session.engine.graph.evidence = None  # type: ignore[assignment]
        pair.forth()
        pair.back()
        with pair.a:
            pass
    assert [v.rule for v in session.violations] == ["CTX001", "CTX901"]
    assert capfd.readouterr().err.count("ctxcheck: checking was switched off") == 1
    assert not ctxcheck.held_locks()


def test_a_violation_goes_through_json() -> None:
    pair = Pair()
    with checking() as session:
        pair.forth()
        pair.back()
    data = json.loads(json.dumps(session.violations[0].to_dict()))
    assert {
        "rule", "slug", "grade", "message", "locks", "sites", "stacks", "owners", "count", "fingerprint", "allowed_by",
    } <= set(data)  # fmt: skip
    assert {"role", "file", "line", "function", "text"} <= set(data["sites"][0])


def test_a_structlog_event_for_programs_that_configure_structlog() -> None:
    program = """
        import structlog, ctxcheck
        from structlog.testing import LogCapture
        capture = LogCapture()
        structlog.configure(processors=[capture])
        a, b = ctxcheck.Lock(name="A"), ctxcheck.Lock(name="B")
        with ctxcheck.checking():
            with a, b: pass
            with b, a: pass
        [event] = capture.entries
        print(event["event"], event["rule"], event["grade"], event["locks"], event["fingerprint"][:7])
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "ctxcheck.violation CTX001 possible ['A', 'B'] CTX001-"


def test_what_was_handed_over_is_named_after_the_session_too() -> None:
    """Which classes are handed over is known while the session runs; its findings are asked for at any time."""
    a, b = (ctxcheck.Lock(name=f"handed {name}") for name in "ab")
    with checking() as session:
        a.acquire()
        thread = threading.Thread(target=a.release)
        thread.start()
        thread.join()
        with a, b:
            pass
        with b, a:
            pass
        within = session.violations
    for violations in (within, session.violations):
        (message,) = [v.message for v in violations if v.rule == "CTX001"]
        assert "(unlikely: `handed a` is handed from thread to thread)" in message
