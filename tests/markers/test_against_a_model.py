"""Random programs of one thread: what is found, and where the thread stands, against a list of what it is inside of."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from ctxcheck import fastpath
from ctxcheck.markers import (
    assert_held,
    assert_not_held,
    atomic,
    might_sleep,
    range_,
    range_end,
    range_start,
    requires_lock,
    within_range,
)

from .conftest import Check, make_lock, make_rlock, make_spin

SPANS = [(0, 4), (4, 8), (0, 8)]
LOCKS = [make_lock, make_lock, make_rlock, make_spin, make_spin]
SPIN = 3  # the first of those whose holder may not sleep


@might_sleep
def nap() -> None: ...


@range_start("r", key="key", span=("a", "b"))
def start(key: int, a: int, b: int) -> None: ...


@range_end("r", key="key", span=("a", "b"))
def end(key: int, a: int, b: int) -> None: ...


@range_start("r", key="key", span=("a", "b"), sleeps=False)
def start_nonblock(key: int, a: int, b: int) -> None: ...


@range_end("r", key="key", span=("a", "b"), sleeps=False)
def end_nonblock(key: int, a: int, b: int) -> None: ...


@within_range("r", key="key", at="x")
def page(key: int, x: int) -> None: ...


@within_range("r", key="key", span=("x", "y"), sleepable=False)
def pages(key: int, x: int, y: int) -> None: ...


@within_range("r", key="key")
def anywhere(key: int) -> None: ...


@atomic
def naps() -> Iterator[None]:
    while True:
        yield
        nap()


class Inside(NamedTuple):
    """One thing that the thread is inside of.  ``what`` is the lock's index, the block, or the key of the range."""

    kind: str
    what: Any
    span: tuple[int, int] = (0, 0)
    sleepable: bool = True
    nested: bool = False


class Program:
    def __init__(self, check: Check, seed: int) -> None:
        self.check = check
        self.random = random.Random(seed)
        self.chain: list[Inside] = []
        self.locks: list[Any] = [make(f"lock{i}") for i, make in enumerate(LOCKS)]
        self.generators: list[Any] = []
        self.steps: list[Any] = []

    def run(self) -> None:
        moves: list[Callable[[], None]] = [
            self.sleep, self.acquire, self.release, self.enter, self.leave, self.open, self.close, self.use,
            self.suspended, self.ask,
        ]  # fmt: skip
        for _ in range(self.random.randint(3, 25)):
            self.random.choice(moves)()
            kinds = [getattr(node.step, "kind", "lock") for node in fastpath.current().cur.chain()][::-1]
            assert kinds == [entry.kind for entry in self.chain], self.steps
        for entry in reversed(self.chain):
            if entry.kind == "lock":
                self.locks[entry.what].release()
            elif entry.kind == "atomic":
                entry.what.__exit__(None, None, None)
            else:
                end(entry.what, *entry.span)
        for generator in self.generators:
            generator.close()
        self.check.findings.clear()
        state = fastpath.current()
        assert state.cur is state.root
        assert state.brackets == self.check.engine.book.everywhere == []

    def expect(self, *rules: str, reason: str = "") -> None:
        # orders of locks are another matter
        found = [f for f in self.check.findings if f.rule not in ("CTX001", "CTX003")]
        self.check.findings.clear()
        assert sorted(f.rule for f in found) == sorted(rules), self.steps
        if reason:
            assert reason in [getattr(f.facts, "reason", "") for f in found], self.steps

    def may_sleep(self) -> bool:
        return not any(e.kind == "atomic" or (e.kind == "lock" and e.what >= SPIN) for e in self.chain)

    def of(self, kind: str, what: Any = None) -> list[int]:
        return [i for i, e in enumerate(self.chain) if e.kind == kind and what in (None, e.what)]

    # --- what it does ---------------------------------------------------------

    def sleep(self) -> None:
        self.steps.append("sleep")
        if self.random.random() < 0.5:
            nap()
        else:
            might_sleep()
        self.expect(*([] if self.may_sleep() else ["CTX101"]))

    def acquire(self) -> None:
        index, blocking = self.random.randrange(len(LOCKS)), self.random.random() < 0.7
        if self.of("lock", index):
            return
        self.steps.append(("acquire", index, blocking))
        assert self.locks[index].acquire(blocking)
        self.expect(*(["CTX102"] if blocking and index < SPIN and not self.may_sleep() else []))
        self.chain.append(Inside("lock", index))

    def release(self) -> None:
        held = self.of("lock")
        if held:
            at = self.random.choice(held)
            self.steps.append(("release", self.chain[at]))
            crossed = ["CTX205" for entry in self.chain[at:] if entry.kind == "range"]
            self.locks[self.chain.pop(at).what].release()
            self.expect(*crossed)

    def enter(self) -> None:
        block = atomic(f"block {self.random.randrange(2)}")
        self.steps.append("enter")
        block.__enter__()
        self.chain.append(Inside("atomic", block))
        self.expect()

    def leave(self) -> None:
        blocks = self.of("atomic")
        if blocks:
            self.steps.append("leave")
            self.chain.pop(self.random.choice(blocks)).what.__exit__(None, None, None)
            self.expect()

    def open(self) -> None:
        key, span, blocks = self.random.randrange(2), self.random.choice(SPANS), self.random.random() < 0.7
        nested = self.random.random() < 0.4
        self.steps.append(("open", key, span, blocks, nested))
        sleepable = self.may_sleep()
        if nested:
            range_("r", key=key, span=span, sleeps=blocks, nested=True).start()
        else:
            (start if blocks else start_nonblock)(key, *span)
        self.expect(*([] if sleepable or not blocks else ["CTX101"]))
        self.chain.append(Inside("range", key, span, sleepable, nested))

    def close(self) -> None:
        key, span, blocks = self.random.randrange(2), self.random.choice(SPANS), self.random.random() < 0.7
        self.steps.append(("close", key, span, blocks))
        rules = [] if self.may_sleep() or not blocks else ["CTX101"]
        (end if blocks else end_nonblock)(key, *span)
        fitting = [i for i in self.of("range", key) if self.chain[i].span == span]
        if fitting:
            closed, *inside = self.chain[fitting[-1] :]
            rules += ["CTX205" for entry in inside if entry.kind == "lock"]
            rules += ["CTX204"] if closed.nested and any(entry.nested for entry in inside) else []
            del self.chain[fitting[-1]]
            self.expect(*rules)
        else:
            self.expect(*rules, "CTX202", reason="other span" if self.of("range", key) else "")

    def use(self) -> None:
        key, x = self.random.randrange(2), self.random.randrange(9)
        y = x + self.random.randint(1, 5)
        self.steps.append(("use", key, x, y))
        ranges = [self.chain[i] for i in self.of("range", key)]
        pages(key, x, y)
        any_covers = any(r.span[0] <= x and y <= r.span[1] for r in ranges)
        self.expect(*([] if any_covers else ["CTX201"]))
        page(key, x)
        covering = [r for r in ranges if r.span[0] <= x < r.span[1]]
        if any(r.sleepable for r in covering):
            self.expect()
        else:
            near = "opened atomic" if covering else "outside span" if ranges else ""
            self.expect("CTX201", reason=near or ("other key" if self.of("range") else ""))
        for _ in range(2):
            # the second time it may be known from the first
            anywhere(key)
            good = any(r.sleepable for r in ranges)
            near = "opened atomic" if ranges else "other key" if self.of("range") else ""
            self.expect(*([] if good else ["CTX201"]), reason="" if good else near)

    def suspended(self) -> None:
        """A generator is atomic while it runs itself, and only then."""
        self.steps.append("generator")
        if len(self.generators) < 2:
            self.generators.append(naps())
            next(self.generators[-1])
            self.expect()
        elif self.random.random() < 0.7:
            next(self.random.choice(self.generators))
            self.expect("CTX101")
        else:
            self.generators.pop(self.random.randrange(2)).close()
            self.expect()

    def ask(self) -> None:
        index = self.random.randrange(len(LOCKS))
        lock = self.locks[index]
        self.steps.append(("ask", index))

        @requires_lock(lock)
        def needs() -> None: ...

        needs()
        assert_held(lock)
        self.expect(*([] if self.of("lock", index) else ["CTX301", "CTX301"]))
        assert_not_held(lock)
        self.expect(*(["CTX301"] if self.of("lock", index) else []))


@pytest.mark.parametrize("seed", range(20))
def test_random_programs(check: Check, seed: int) -> None:
    for number in range(20):
        Program(check, 1000 * seed + number).run()
