"""The fixture ``ctxcheck``."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, final

import pytest

from ctxcheck.engine.violations import Violation
from ctxcheck.pytest_plugin.settings import rule_called
from ctxcheck.selection import Allowance

if TYPE_CHECKING:
    from ctxcheck.pytest_plugin.checks import Checks


@final
class Handle:
    """What the fixture ``ctxcheck`` gives: of the test that asks for it.

    Where nothing is checked there are no violations, and what expects some is skipped.
    """

    def __init__(self, checks: Checks | None, item: pytest.Item) -> None:
        self._checks: Checks | None = checks
        self._item: pytest.Item = item
        self._expected: list[Expected] = []

    @property
    def violations(self) -> list[Violation]:
        """What was found in this test so far, accepted and unlikely findings among it."""
        return [] if self._checks is None else self._checks.found_in(self._item)

    def expect(self, rule: str) -> Expected:
        """``with ctxcheck.expect("CTX001") as seen:``: the block breaks this rule, and that is how it should be.

        ``seen`` is the list of violations, filled when the block is left; they don't fail the test.  If there are none,
        the test fails.

        Raises:
            ValueError: no such rule.
        """
        code = rule_called(rule, "ctxcheck.expect")
        if self._checks is None:
            pytest.skip(f"expects {code}, and ctxcheck is off: run with --ctxcheck")
        self._expected.append(Expected(self._checks, self._item, code))
        return self._expected[-1]

    def allow(self, rule: str, *, reason: str) -> None:
        """From now on this test may break this rule.

        Raises:
            ValueError: no such rule, or no reason.
        """
        code = rule_called(rule, "ctxcheck.allow")
        if not isinstance(reason, str) or not reason.strip():
            raise ValueError(f"ctxcheck.allow: {code} needs a reason: reason='...'")
        if self._checks is not None:
            self._checks.allow(self._item, Allowance(code, (), reason, None, self._item.nodeid))

    def held_locks(self) -> list[str]:
        """The names of the locks that the calling thread or task holds, in the order of their acquisition."""
        return [] if self._checks is None else self._checks.session.held_locks()

    def end(self) -> None:
        """The test is over: what it expects without a block is a mistake, which would pass for ever."""
        for rule in (expected.rule for expected in self._expected if not expected.entered):
            call = f"ctxcheck.expect({rule!r})"
            pytest.fail(f"{call} does nothing by itself: with {call}: ...", pytrace=False)


@final
class Expected:
    """A block that breaks a rule."""

    def __init__(self, checks: Checks, item: pytest.Item, rule: str) -> None:
        self._checks: Checks = checks
        self._item: pytest.Item = item
        self.rule: str = rule
        #: whether its block was entered
        self.entered: bool = False
        self._before: set[str] = set()
        self._seen: list[Violation] = []

    def __enter__(self) -> list[Violation]:
        self.entered = True
        self._before = {v.fingerprint for v in self._checks.found_in(self._item) if v.grade != "unlikely"}
        return self._seen

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        new = [v for v in self._checks.found_in(self._item) if v.fingerprint not in self._before]
        self._seen += [v for v in new if v.rule == self.rule]
        self._checks.consume(self._item, self._seen)
        if not self._seen and kind is None:
            others = ", ".join(sorted({v.rule for v in new}))
            pytest.fail(
                f"expected {self.rule}, but nothing broke it" + (f" (found: {others})" if others else ""),
                pytrace=False,
            )
