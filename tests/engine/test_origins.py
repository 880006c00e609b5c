"""Origins: whose business it is what an owner does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import ctxcheck
from ctxcheck import evidence, fastpath
from ctxcheck.engine.origins import BACKGROUND, Phase, outliving
from ctxcheck.engine.violations import Violation
from ctxcheck.session import Session


class Runner:
    """Goes from test to test, as a runner of tests does."""

    def __init__(self, session: Session) -> None:
        self.session: Session = session
        self.origins: Any = session.engine.origins
        self.found: dict[str, list[Violation]] = {}

    def test(self, name: str, body: Callable[[], object], *parents: str) -> list[str]:
        """Run one, and say which rules it breaks by itself."""
        phase = self.origins.begin(fastpath.current(), name, parents)
        body()
        self.found[name] = self.session.end_origin(phase)
        return [v.rule for v in self.found[name] if v.grade != "unlikely"]

    @contextmanager
    def fixture(self, name: str, *, again: bool = False) -> Iterator[Phase]:
        phase = self.origins.begin(fastpath.current(), name, again=again)
        yield phase
        self.origins.end(phase, over=False)

    def together(self) -> list[tuple[str, list[str]]]:
        """What all of them show: the rule, and where its orders were seen."""
        union = evidence.load([evidence.dump(self.session.engine)])
        return sorted(
            (f.rule, sorted({w.origin for w in f.facts.cycle.witnesses}))  # type: ignore[union-attr]
            for f in union.findings()
            if f.grade != "unlikely"
        )


@pytest.fixture
def runner() -> Iterator[Runner]:
    ctxcheck.install()
    try:
        with ctxcheck.checking() as session:
            session.tell_origins_apart()
            fastpath.current()
            yield Runner(session)
    finally:
        ctxcheck.uninstall()


def lock(name: str) -> Any:
    return ctxcheck.Lock(name=f"origins {name}")


def take(*locks: Any) -> None:
    for each in locks:
        each.acquire()
    for each in reversed(locks):
        each.release()


def in_thread(*calls: Callable[[], object]) -> None:
    for call in calls:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()


def test_each_origin_begins_with_nothing(runner: Runner) -> None:
    a, b = lock("a"), lock("b")
    for _ in range(2):  # also when it is known to the owner's chains
        assert runner.test("one", lambda: take(a, b)) == []
        assert runner.test("other", lambda: take(b, a)) == []
        assert runner.test("both", lambda: (take(a, b), take(b, a))) == ["CTX001"]
    assert runner.together()[0][0] == "CTX001"


def test_the_smallest_places_are_those_that_are_told(runner: Runner) -> None:
    a, b = lock("a"), lock("b")
    for name in ("2", "1", "3"):
        runner.test(name, lambda: take(a, b))
        runner.test(f"x{name}", lambda: take(b, a))
    assert runner.together() == [("CTX001", ["1", "x1"])]


def test_who_sends_an_owner_is_whom_it_counts_for(runner: Runner) -> None:
    a, b = lock("a"), lock("b")
    pool = ThreadPoolExecutor(1)

    async def tasks() -> None:
        async def one() -> None:
            take(a, b)

        async def other() -> None:
            await asyncio.to_thread(take, b, a)

        await asyncio.gather(one(), asyncio.create_task(other()))

    assert runner.test("threads", lambda: in_thread(lambda: take(a, b), lambda: take(b, a))) == ["CTX001"]
    assert runner.test("tasks", lambda: asyncio.run(tasks())) == ["CTX001"]
    for _ in range(2):  # the worker is there, or comes with the first job
        assert runner.test("jobs", lambda: [pool.submit(take, *x).result() for x in ((a, b), (b, a))]) == ["CTX001"]
        assert runner.test("one job", lambda: pool.submit(take, a, b).result()) == []
    runner.test("shutdown", pool.shutdown)


def test_what_outlives_its_test_is_of_the_background(runner: Runner) -> None:
    a, b = lock("a"), lock("b")
    done, go = threading.Event(), threading.Event()

    def serve() -> None:
        take(a, b)
        done.set()
        go.wait()

    thread = threading.Thread(target=serve)

    def body() -> None:
        thread.start()
        done.wait()
        take(b, a)

    assert runner.test("starts", body) == []
    go.set()
    thread.join()
    assert runner.together() == [("CTX001", [outliving("starts"), "starts"])]
    assert outliving(outliving("starts")) == outliving("starts")


def test_what_interrupts_is_of_the_background(runner: Runner) -> None:
    a, b = lock("a"), lock("b")

    def body() -> None:
        take(a, b)
        with ctxcheck.interrupt("gc"):
            take(b, a)

    assert runner.test("one", body) == []
    assert ("CTX001", [BACKGROUND, "one"]) in runner.together()


def test_a_fixtures_hold_is_not_its_tests(runner: Runner) -> None:
    a, b, held = lock("a"), lock("b"), lock("held")

    def body() -> None:
        with runner.fixture("fixture"):
            held.acquire()
        take(b)
        assert runner.session.held_locks() == ["origins held"]

    assert runner.test("first", body) == []
    assert runner.test("second", lambda: take(a)) == []
    with runner.fixture("fixture", again=True):
        take(a)
        held.release()
    assert runner.session.held_locks() == []
    edges = {(s.name, t.name) for s, t in runner.session.engine.origins.everything().edges}
    assert edges == {("origins held", "origins a")}


def test_what_a_fixture_holds_cant_be_had(runner: Runner) -> None:
    held = lock("held")
    with runner.fixture("fixture"):
        held.acquire()

    def body() -> None:
        with pytest.raises(ctxcheck.DeadlockError), held:
            pass

    held_by_with = lock("with")
    with runner.fixture("another"):
        held_by_with.__enter__()
    held.release()
    held = held_by_with
    assert runner.test("takes it", body) == ["CTX002"]
    held.__exit__(None, None, None)


def test_what_a_test_leaves_held_is_no_part_of_the_next(runner: Runner) -> None:
    left, other = lock("left"), lock("other")
    assert runner.test("leaves", left.acquire) == ["CTX303"]
    assert runner.test("next", lambda: take(other)) == []
    assert not runner.session.engine.origins.everything().edges
    left.release()
    assert runner.test("after", lambda: take(other)) == []


def test_an_open_bracket_is_left_open_by_its_test(runner: Runner) -> None:
    begin = ctxcheck.range_start("origins range")(lambda: None)
    end = ctxcheck.range_end("origins range")(lambda: None)
    assert runner.test("opens", begin) == ["CTX203"]
    assert runner.test("closes", end) == ["CTX202"]
    with runner.fixture("fixture"):
        begin()
    assert runner.test("within", lambda: None) == []
    end()


def test_instances_count_for_the_test_that_made_them(runner: Runner) -> None:
    a, b = lock("a"), lock("b")
    with runner.fixture("<import>"):
        gate = lock("gate")

    def guarded(gate: Any) -> None:
        take(gate, a, b)
        take(gate, b, a)

    def two() -> None:
        take(lock("gate"), a, b)
        take(lock("gate"), b, a)

    for _ in range(2):
        assert runner.test("imported", lambda: guarded(gate)) == []
        assert runner.test("two", two) == ["CTX001"]
    with runner.fixture("fixture"):
        another = lock("gate")
    assert runner.test("without it", lambda: guarded(gate)) == []
    assert runner.test("with it", lambda: guarded(another), "fixture") == ["CTX001"]


def test_a_job_is_done_when_its_result_is_there(runner: Runner) -> None:
    a, b = lock("a"), lock("b")
    added, over = threading.Event(), threading.Event()

    def job() -> None:
        added.wait()
        take(a, b)
        take(b, a)

    with ThreadPoolExecutor(1) as pool:

        def body() -> None:
            future = pool.submit(job)
            future.add_done_callback(lambda _: over.wait())  # its worker is still there when the test is over
            added.set()
            future.result()

        found = runner.test("waits for it", body)
        over.set()
    assert found == ["CTX001"]


def test_a_hand_off_is_one_where_it_was_seen(runner: Runner) -> None:
    a, b = lock("a"), lock("b")

    def hands_over() -> None:
        a.acquire()
        in_thread(a.release)

    both = lambda: (take(a, b), take(b, a))  # noqa: E731
    assert runner.test("hands over", hands_over) == []
    assert runner.test("both", both) == ["CTX001"]
    with runner.fixture("fixture"):
        hands_over()
    assert runner.test("asks for it", both, "fixture") == []
    assert runner.test("both again", both) == ["CTX001"]


def test_nothing_is_kept_of_what_is_to_be_forgotten(runner: Runner) -> None:
    a, b = lock("a"), lock("b")
    phase = runner.origins.begin(fastpath.current(), "forgotten")
    take(a, b)
    runner.session.end_origin(phase, keep=False)
    runner.test("other", lambda: take(b, a))
    assert runner.together() == []


def test_a_thousand_tests_leave_no_more_than_one(runner: Runner) -> None:
    a, b = lock("a"), lock("b")
    for number in range(200):
        runner.test(f"test {number:03}", lambda: take(a, b))
    (pool,) = runner.session.engine.origins.everything().edges.values()
    assert pool.count == 200
    assert [w.origin for w in pool.all()] == ["test 000"]
    assert not runner.origins._ledgers
    assert set(runner.origins._instances._made) == {BACKGROUND}
    assert len(fastpath.current().root) <= 1
