"""Contexts by name against a naive model: a list of what was entered, looked through each time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ctxcheck.engine import contexts
from ctxcheck.markers import ambient, assert_context, assert_no_context, context, interrupt, thread_role
from ctxcheck.markers.contexts import Section

from .conftest import Check, make_lock

NAMES = ("one", "two", "three", "ui")


class Program:
    """One random program of one thread."""

    def __init__(self, check: Check, seed: int) -> None:
        self.check = check
        self.random = random.Random(seed)
        self.locks = [make_lock(f"lock {number}") for number in range(3)]
        #: outermost first: what it is, its names, and how it is left
        self.entered: list[tuple[str, frozenset[str], Callable[[], Any]]] = []
        self.sticky: set[str] = set()

    def run(self) -> None:
        moves = [self.enter, self.open, self.lock, self.role, self.sticky_role, self.ambient, self.interrupt]
        for _ in range(60):
            self.random.choice([*moves, self.leave, self.leave, self.leave, self.ask, self.ask, self.ask])()
        while self.entered:
            self.entered.pop()[2]()
            self.ask()
        for name in list(self.sticky):
            thread_role(name).exit()
        self.sticky.clear()
        self.ask()
        assert self.check.inside == []

    # --- what it does

    def name(self) -> str:
        return self.random.choice(NAMES)

    def block(self, kind: str, names: frozenset[str], block: Section | Any) -> None:
        block.__enter__()
        self.entered.append((kind, names, lambda: block.__exit__(None, None, None)))

    def enter(self) -> None:
        name = self.name()
        self.block("context", frozenset({name}), context(name))

    def role(self) -> None:
        name = self.name()
        self.block("role", frozenset({name}), thread_role(name))

    def ambient(self) -> None:
        names = self.random.sample(NAMES, self.random.randrange(3))
        self.block("ambient", frozenset(names), ambient(*names))

    def interrupt(self) -> None:
        if not any(kind == "interrupt" for kind, _, _ in self.entered):
            self.block("interrupt", frozenset({"gc"}), interrupt("gc"))

    def open(self) -> None:
        name = self.name()
        entry = context(name).open()
        self.entered.append(("context", frozenset({name}), entry.close))

    def lock(self) -> None:
        lock = self.random.choice(self.locks)
        if lock.node is None:
            lock.acquire()
            self.entered.append(("lock", frozenset(), lock.release))

    def sticky_role(self) -> None:
        name = self.name()
        if name in self.sticky:
            self.sticky.remove(name)
            thread_role(name).exit()
        else:
            self.sticky.add(name)
            thread_role(name).enter()

    def leave(self) -> None:
        """The innermost thing; or another one, if that is no block and no interrupting context lies between."""
        if self.entered:
            at = len(self.entered) - 1
            if self.random.random() < 0.3:
                at = self.random.randrange(len(self.entered))
            if any(kind == "interrupt" for kind, _, _ in self.entered[at:]):
                at = len(self.entered) - 1
            self.entered.pop(at)[2]()

    # --- what it is told

    def around(self, name: str) -> bool:
        if name in self.sticky:
            return True
        beyond = hidden = False
        for kind, names, _ in reversed(self.entered):
            if kind == "ambient":
                hidden = hidden or name in names or not names
            elif kind == "role" and name in names:
                return True
            elif kind == "context" and name in names and not (hidden or beyond):
                return True
            beyond = beyond or kind == "interrupt"
        return False

    def ask(self) -> None:
        self.check.findings.clear()  # orders of locks are another matter
        names = self.random.sample(NAMES, self.random.randrange(1, 3))
        here = [self.around(name) for name in names]
        what = [(kind, set(names)) for kind, names, _ in self.entered], self.sticky, names
        assert_context(*names)
        assert self.rules() == ([] if all(here) else ["CTX107"]), what
        assert_context(*names, any=True)
        assert self.rules() == ([] if any(here) else ["CTX107"]), what
        assert_no_context(*names)
        assert self.rules() == ["CTX106"] * sum(here), what

    def rules(self) -> list[str]:
        return self.check.rules


@pytest.mark.parametrize("seed", range(20))
def test_random_programs(check: Check, seed: int) -> None:
    try:
        for number in range(20):
            Program(check, 1000 * seed + number).run()
    finally:
        contexts._here.roles = ()
