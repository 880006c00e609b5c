"""A validator of its own for each test, and what it finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ctxcheck import fastpath
from ctxcheck.engine.classes import LOCK, RLOCK, SPIN, Kind, LockClass
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.findings import Finding
from ctxcheck.engine.slowpath import on_fault
from ctxcheck.engine.validator import Validator
from ctxcheck.engine.violations import Violation


class PlainLock(fastpath.BaseLock):
    """A checked lock of any kind."""

    __slots__ = ()


def make_lock(name: str = "lock", kind: Kind = LOCK) -> PlainLock:
    """Make a lock of a class of its own."""
    lock = PlainLock()
    lock._setup(LockClass(name, name, kind))
    return lock


def make_rlock(name: str = "rlock") -> fastpath.RLock:
    lock = fastpath.RLock()
    lock._join(LockClass(name, name, RLOCK))
    return lock


def make_spin(name: str = "spin") -> PlainLock:
    return make_lock(name, SPIN)


class Check:
    """What was found; ``raises`` puts the validator into the mode that raises."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.faults: list[BaseException] = []
        self.raises = False
        self.engine = Validator(self._found, lambda finding: None)

    def _found(self, finding: Finding) -> Violation:
        self.findings.append(finding)
        violation = Violation(finding.rule, "", finding.grade, "")
        if self.raises:
            raise ViolationError(violation)
        return violation

    @property
    def rules(self) -> list[str]:
        """The codes of what was found, in order; asking forgets them."""
        found = [finding.rule for finding in self.findings]
        self.findings.clear()
        return found

    def facts(self) -> Any:
        """What the only finding says; asking forgets it."""
        (finding,) = self.findings
        self.findings.clear()
        return finding.facts

    def start(self) -> None:
        fastpath.activate(self.engine)

    def stop(self) -> None:
        fastpath.activate(None)

    @property
    def inside(self) -> list[str]:
        """The contexts of the calling thread, outermost first."""
        return [getattr(node.step, "label", "lock") for node in fastpath.current().cur.chain()][::-1]


@pytest.fixture
def idle() -> Iterator[Check]:
    """A validator that hasn't been started yet."""
    check = Check()
    on_fault.append(check.faults.append)
    try:
        yield check
    finally:
        on_fault.remove(check.faults.append)
        fastpath.activate(None)
    assert check.faults == []


@pytest.fixture
def check(idle: Check) -> Check:
    """A validator that is checking."""
    idle.start()
    return idle
