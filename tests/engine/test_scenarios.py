"""The literature's scenarios, as data: what each owner does, and what is said of it under both settings of ``owners``.

One line is what one thread does, and the lines run one after the other.  ``A`` acquires A, ``A?`` tries, ``A~`` has
a timeout, ``rA`` takes it shared and ``qA`` recursively shared, ``A2`` is another lock of A's class, ``A^1`` is A at
level 1, ``/A`` releases A (``/rA`` a shared hold), ``<F`` enters region F, ``>F`` leaves it, ``!F`` may enter it.
Locks named R, S are RLocks, P, Q spin locks, and those that are taken shared anywhere are readers' locks.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Literal

import pytest

import ctxcheck
from ctxcheck import checking, might_enter, nested, region, track

_TOKEN: Final = re.compile(r"(/?)([rq]?)([A-Z])(\d?)(?:\^(\d))?([?~]?)$")


class Worker:
    """A thread that does one thing after the other."""

    def __init__(self, name: str) -> None:
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name)
        self._thread.start()

    def _run(self) -> None:
        while (call := self._todo.get()) is not None:
            try:
                call()
            except BaseException as error:
                self._done.put(error)
            else:
                self._done.put(None)

    def do(self, call: Callable[[], None]) -> None:
        self._todo.put(call)
        error = self._done.get()
        if error is not None:
            raise error

    def end(self) -> None:
        self._todo.put(None)
        self._thread.join()


class Anything:
    """A readers' lock that lets everybody in: what is asked is what counts."""

    def acquire(self, *_: Any, **__: Any) -> bool:
        return True

    def release(self) -> None:
        pass


class World:
    """The locks of one scenario, by name."""

    def __init__(self, text: str) -> None:
        self._shared = {name: kind for kind, name in re.findall(r"([rq])([A-Z])", text)}
        self._locks: dict[str, Any] = {}
        self._regions: dict[str, list[Any]] = {}

    def lock(self, letter: str, number: str) -> Any:
        key = letter + number
        if key not in self._locks:
            if letter in self._shared:
                shared: Any = "recursive" if self._shared[letter] == "q" else True
                made: Any = track(Anything(), name=f"scenario.{letter}", shared=shared)
            elif letter in "RS":
                made = ctxcheck.RLock(name=f"scenario.{letter}")
            elif letter in "PQ":
                made = ctxcheck.SpinLock(name=f"scenario.{letter}")
            else:
                made = ctxcheck.Lock(name=f"scenario.{letter}")
            self._locks[key] = made
        return self._locks[key]

    def play(self, line: str) -> None:
        for token in line.split():
            if token[0] in "<>!":
                self._region(token[0], token[1:])
                continue
            match = _TOKEN.match(token)
            assert match is not None, token
            releases, mode, letter, number, level, how = match.groups()
            lock = self.lock(letter, number)
            options: dict[str, Any] = {"shared": mode != ""} if letter in self._shared else {}
            if releases:
                lock.release(**options)
                continue
            taken = nested(lock, int(level)) if level else lock
            arguments = {"?": (False,), "~": (True, 60), "": ()}[how]
            try:
                taken.acquire(*arguments, **options)
            except ctxcheck.DeadlockError:
                pass  # refused: it isn't taken, and the scenario ends there

    def _region(self, what: str, name: str) -> None:
        if what == "!":
            might_enter(region(name))
        elif what == "<":
            self._regions.setdefault(name, []).append(region(name))
            self._regions[name][-1].__enter__()
        else:
            self._regions[name].pop().__exit__(None, None, None)


def verdict(program: str, owners: Literal["assumed", "observed"]) -> str:
    lines = [line.strip() for line in program.strip().splitlines()]
    world = World(program)
    workers: dict[str, Worker] = {}
    with checking(owners=owners) as session:
        for line in lines:
            name, _, text = line.partition(":")
            if name not in workers:
                workers[name] = Worker(name)
            workers[name].do(lambda text=text: world.play(text))
        for worker in workers.values():
            worker.end()
    return ", ".join(sorted(f"{v.rule} {v.grade}" for v in session.violations))


POSSIBLE, UNLIKELY = "CTX001 possible", "CTX001 unlikely"

#: scenario -> (program, verdict for any owners, verdict for those that were seen)
SCENARIOS: dict[str, tuple[str, str, str]] = {
    # --- two and three locks, exclusive
    "S-19 both orders, one thread": ("T1: A B /B /A B A /A /B", POSSIBLE, UNLIKELY),
    "S-20 three in a ring, one thread": ("T1: A B /B /A B C /C /B C A /A /C", POSSIBLE, UNLIKELY),
    "S-21 two threads, never together": ("T1: A B /B /A\nT2: B A /A /B", POSSIBLE, POSSIBLE),
    "S-22 three threads in a ring": ("T1: A B /B /A\nT2: B C /C /B\nT3: C A /A /C", POSSIBLE, POSSIBLE),
    "S-26 always under a gate": ("T1: A B C /C /B /A\nT2: A C B /B /C /A", UNLIKELY, UNLIKELY),
    "S-27 the gate is left out once": (
        "T1: A B C /C /B /A\nT2: A C B /B /C /A\nT3: C B /B /C", POSSIBLE, POSSIBLE,
    ),
    "S-28 a gate held shared is none": ("T1: rG A B /B /A /rG\nT2: rG B A /A /B /rG", POSSIBLE, POSSIBLE),
    "S-29 two of three edges share a gate": (
        "T1: G A B /B /A /G\nT2: G B C /C /B /G\nT3: C A /A /C", UNLIKELY, UNLIKELY,
    ),
    "gates of one class that are two locks are none": ("T1: G A B /B /A /G\nT2: G2 B A /A /B /G2", POSSIBLE, POSSIBLE),
    "S-31 three owners are needed and two were seen": (
        "T1: A B /A C /C /B\nT2: C A /A /C", "CTX001 possible", "CTX001 unlikely",
    ),
    "S-32 hand over hand, and back": ("T1: A B /A A /A /B", POSSIBLE, UNLIKELY),
    "S-32 and a second thread on that path": ("T1: A B /A A /A /B\nT2: A B /A A /A /B", POSSIBLE, POSSIBLE),
    "S-37 one order, many threads": ("T1: A B C /C /B /A\nT2: A C /C /A\nT3: B C /B /C", "", ""),
    # --- out-of-order release
    "released in the order of taking": ("T1: A B /A /B\nT2: A B /A /B", "", ""),
    "what was released in the middle orders nothing": ("T1: A B /A C /C /B\nT2: C A /A /C", POSSIBLE, UNLIKELY),
    "the tail is still held after it": ("T1: A B /A C /B /C\nT2: C B /B /C", POSSIBLE, POSSIBLE),
    "only the tail, and all under A": ("T1: A B C /B D /A /C /D\nT2: D B /B /D", UNLIKELY, UNLIKELY),
    # --- try and timed
    "S-42 tries both ways": ("T1: A B? /B /A B? A /B /A", "", ""),
    "S-43 a try in the second order": ("T1: A? B /B /A\nT2: B A? /A /B", "", ""),
    "S-44 what a try has got orders what follows": ("T1: A? B /B /A\nT2: B A /A /B", POSSIBLE, POSSIBLE),
    "S-44 the other way round": ("T1: A B /B /A\nT2: B? A /A /B", POSSIBLE, POSSIBLE),
    "S-45 a try under a lock": ("T1: A B? C /C /B /A\nT2: C A? /A /C\nT3: B A? /A /B", "", ""),
    "S-45 and what it gave": ("T1: A B? C /C /B /A\nT2: C B /B /C", POSSIBLE, POSSIBLE),
    "S-46 the blocking one counts": ("T1: A? B /B /A B A? /A A /A /B", POSSIBLE, UNLIKELY),
    "S-47 tries, then shared": ("T1: A? B? /B /A B rA /rA /B", "", ""),
    "S-50 a timed acquire against the order": ("T1: A B /B /A\nT2: B A~ /A /B", UNLIKELY, UNLIKELY),
    "and a blocking one as well": ("T1: A B /B /A\nT2: B A~ /A A /A /B", POSSIBLE, POSSIBLE),
    # --- re-entry
    "S-53 re-entered in the middle": ("T1: R A R /R /A /R", "", ""),
    "S-53 and both orders": ("T1: R R R S /S /R /R /R\nT2: S S S R /R /S /S /S", POSSIBLE, POSSIBLE),
    "S-54 still held after one release": ("T1: R A R /A /R C /C /R\nT2: C R /R /C", POSSIBLE, POSSIBLE),
    "S-56 re-entry adds no order": ("T1: R S R S /S /R /S /R\nT2: R S /S /R", "", ""),
    "S-55 a plain lock twice": ("T1: P P /P", "CTX002 certain", "CTX002 certain"),
    # --- readers and writers
    "S-58 a reader's lock inside, a writer's lock outside": ("T1: rA B /B /rA\nT2: B rA /rA /B", POSSIBLE, POSSIBLE),
    "S-58 recursive readers let each other in": ("T1: qA B /B /qA\nT2: B qA /qA /B", "", ""),
    "and a writer as well": ("T1: qA B /B /qA\nT2: B qA /qA /B\nT3: B A /A /B", POSSIBLE, POSSIBLE),
    "S-59 writer and reader": ("T1: A B /B /A\nT2: B rA /rA /B", POSSIBLE, POSSIBLE),
    "S-58 two readers' locks": ("T1: rA rB /rB /rA\nT2: rB rA /rA /rB", POSSIBLE, POSSIBLE),
    "S-63 readers in one order": ("T1: rA rB /rB /rA\nT2: rA rB /rB /rA", "", ""),
    "kernel W1R2 R2R3 W3R1 all": ("T1: A qB /qB /A\nT2: B qC /qC /B\nT3: C qA /qA /C", POSSIBLE, POSSIBLE),
    "kernel W1W2 R2R3 W3R1": ("T1: A B /B /A\nT2: qB qC /qC /qB\nT3: C qA /qA /C", POSSIBLE, POSSIBLE),
    "kernel W1R2 R2R3 W3W1": ("T1: A qB /qB /A\nT2: qB qC /qC /qB\nT3: C A /A /C", "", ""),
    "kernel W1W2 R2R3 R3W1": ("T1: A B /B /A\nT2: qB qC /qC /qB\nT3: qC A /A /qC", "", ""),
    # --- one class, several locks
    "kernel AA of two locks, exclusive": ("T1: A A2 /A2 /A", "CTX003 unlikely", "CTX003 unlikely"),
    "both ways": ("T1: A A2 /A2 /A\nT2: A2 A /A /A2", "CTX003 possible", "CTX003 possible"),
    "both ways by tries": ("T1: A A2? /A2 /A\nT2: A2 A? /A /A2", "", ""),
    "kernel AA1B recursive readers of two locks": ("T1: qA qA2 /qA2 /qA", "", ""),
    "recursive readers of two locks, both ways": ("T1: qA qA2 /qA2 /qA\nT2: qA2 qA /qA /qA2", "", ""),
    "kernel AA1B fair readers of two locks": ("T1: rA rA2 /rA2 /rA", "CTX003 unlikely", "CTX003 unlikely"),
    "kernel AA2 reader, then writer": ("T1: qA A2 /A2 /qA", "CTX003 unlikely", "CTX003 unlikely"),
    "kernel AA3 writer, then reader": ("T1: A qA2 /qA2 /A", "CTX003 unlikely", "CTX003 unlikely"),
    "a reader's order does close a writer's circle": (
        "T1: qA qA2 /qA2 /qA\nT2: A2 A /A /A2", "CTX003 possible", "CTX003 possible",
    ),
    # --- one lock, several times
    "kernel AA1 a fair reader again": ("T1: rA rA /rA /rA", "CTX002 possible", "CTX002 possible"),
    "a fair reader tries again": ("T1: rA rA? /rA /rA", "", ""),
    "kernel AA1 a recursive reader again": ("T1: qA qA /qA /qA", "", ""),
    # --- levels
    "parent, child": ("T1: A A2^1 /A2 /A\nT2: A2 A^1 /A /A2", "", ""),
    "child, parent": ("T1: A A2^1 /A2 /A\nT2: A2^1 A /A /A2", POSSIBLE, POSSIBLE),
    # --- regions
    "caller and callee that never met": ("T1: A !F /A\nT1: <F A /A >F", POSSIBLE, POSSIBLE),
    "and one who enters without the lock": ("T1: A /A !F\nT1: <F A /A >F", "", ""),
    # --- misuse
    "S-87 released by another": ("T1: P\nT2: R /R\nT1: /P", "", ""),
    "S-89 a thread leaves with two": ("T1: P Q", "CTX303 certain, CTX303 certain", "CTX303 certain, CTX303 certain"),
    "and with a shared hold": ("T1: rA", "CTX303 possible", "CTX303 possible"),
    "and with two": ("T1: rA rB", "CTX303 possible, CTX303 possible", "CTX303 possible, CTX303 possible"),
    "and with a try's": ("T1: P?", "CTX303 certain", "CTX303 certain"),
    "a reader of several leaves with one": ("T1: rA /rA\nT2: rA\nT1: rA /rA", "CTX303 possible", "CTX303 possible"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario(name: str) -> None:
    program, assumed, observed = SCENARIOS[name]
    assert (verdict(program, "assumed"), verdict(program, "observed")) == (assumed, observed)


@pytest.mark.parametrize("size", [5, 10, 20, 100])
def test_rings_of_any_size(size: int) -> None:
    """S-23: built pair by pair, closed at the end."""
    locks = [ctxcheck.Lock(name=f"ring.{i}") for i in range(size)]
    with checking() as session:
        for i in range(size):
            with locks[i], locks[(i + 1) % size]:
                pass
    assert [(v.rule, v.grade, len(v.locks)) for v in session.violations] == [("CTX001", "possible", size)]


def test_all_starting_points_of_a_ring_of_45() -> None:
    """S-24: many inversions; a bounded number of reports, and no crash."""
    locks = [ctxcheck.Lock(name=f"round.{i:02}") for i in range(45)]
    with checking() as session:
        for start in range(45):
            order = locks[start:] + locks[:start]
            for lock in order:
                lock.acquire()
            for lock in reversed(order):
                lock.release()
    assert session.violations
    assert {v.rule for v in session.violations} == {"CTX001"}
    assert len(session.violations) <= 45 * 44 / 2


def test_an_order_that_follows_from_others_closes_the_shorter_cycle() -> None:
    """A -> C follows from A -> B -> C; seen by itself it isn't lost, and the shortest cycle is told."""
    a, b, c = (ctxcheck.Lock(name=f"follows.{n}") for n in "abc")
    with checking() as session:
        for locks in ((a, b), (b, c), (a, c), (c, a)):
            with locks[0], locks[1]:
                pass
    assert session.violations[0].locks == ("follows.a", "follows.c")


def test_classes_outlive_their_locks() -> None:
    """S-84: what was learned of locks that are gone holds for new ones of their class, and for no others."""

    def make(name: str) -> Any:
        return ctxcheck.Lock(name=f"outlives.{name}")

    with checking() as session:
        with make("a"), make("b"):
            pass
        with make("c"), make("a"):
            pass
        assert session.violations == []
        with make("b"), make("a"):
            pass
    assert [(v.rule, v.grade) for v in session.violations] == [("CTX001", "possible")]


def test_without_a_session_nothing_is_asserted_and_nothing_is_learned() -> None:
    a, b = ctxcheck.Lock(name="off.a"), ctxcheck.Lock(name="off.b")
    ctxcheck.assert_held(a)
    with a, nested(b), region("off.region"):
        ctxcheck.assert_not_held(a)
        might_enter("off.other")
    with checking() as session, b, a:
        pass
    assert session.violations == []
