"""From a finding of the engine to a violation: put into words, with what accepts it, or marked as one of the baseline.

Imported when a session is made, not when something is found: that may be in a finalizer, or while the interpreter
shuts down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, final

from ctxcheck import notices
from ctxcheck.acceptance import Acceptance
from ctxcheck.engine.postponed import postpones
from ctxcheck.engine.rules import selects
from ctxcheck.reports.compose import as_known, compose, fingerprint

if TYPE_CHECKING:
    from ctxcheck.engine.findings import Finding
    from ctxcheck.engine.graph import Edge, Evidence
    from ctxcheck.engine.validator import Validator
    from ctxcheck.engine.violations import Violation
    from ctxcheck.selection import Allowance


@final
class Wording:
    """How one session says what was found.

    Args:
        engine: whose findings they are.
        select, ignore: prefixes of rule codes; ``allow``: what is accepted from outside of the program.
        cwd: the folder that paths are shown relative to, wherever the program goes.
        stack_depth: how many calls of a stack are shown.
        known: whether a violation is in the baseline.
    """

    def __init__(
        self,
        engine: Validator,
        *,
        select: Iterable[str],
        ignore: Iterable[str],
        allow: Iterable[Allowance],
        cwd: str | None,
        stack_depth: int,
        known: Callable[[Violation], bool] | None,
    ) -> None:
        self._engine: Validator = engine
        self._select: tuple[str, ...] = tuple(select)
        self._ignore: tuple[str, ...] = tuple(ignore)
        self._cwd: str | None = cwd
        self._stack_depth: int = stack_depth
        self._known: Callable[[Violation], bool] | None = known
        self.acceptance: Acceptance = Acceptance(allow, self._is_selected, cwd)

    def fingerprint(self, finding: Finding) -> str:
        """The name that the finding has in every run."""
        return fingerprint(finding)

    @postpones
    def compose(self, finding: Finding, seen: Mapping[Edge, Evidence] | None = None) -> Violation:
        """The report on a finding; ``seen`` is where its orders were seen, if not here.  Raises nothing."""
        # of a name that many places give to their locks, the first one is that of whichever test came first
        first_made = not self._engine.origins.default
        try:
            violation = compose(finding, cwd=self._cwd, stack_depth=self._stack_depth, first_made=first_made)
        except Exception as error:  # a finding that can't be put into words is still a finding
            return notices.bare(finding, error)
        try:
            violation = self.acceptance.apply(violation, finding, self._engine, seen)
        except Exception:  # a damaged source cache, say: then it isn't accepted, and told
            pass
        if seen and self._known is not None:
            violation = as_known(violation, finding, seen, self._known)
        return self._mark(violation)

    def accept(self, violation: Violation) -> Violation:
        """A finding of several processes together, with what accepts it, or marked as one of the baseline."""
        return self._mark(self.acceptance.by_configuration(violation))

    def wanted(self, violation: Violation) -> bool:
        """Whether a finding's rule is selected."""
        return self._is_selected(violation.rule)

    def _is_selected(self, code: str) -> bool:
        return selects(code, self._select, self._ignore)

    def _mark(self, violation: Violation) -> Violation:
        if violation.allowed_by is None and self._known is not None and self._known(violation):
            return violation.replace(baselined=True)
        return violation
