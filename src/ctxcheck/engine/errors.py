"""The exceptions that ctxcheck raises into a program, and those for wrong use of its own interface."""

from __future__ import annotations

from ctxcheck.engine.violations import Violation


class CtxcheckError(Exception):
    """Base of everything that ctxcheck raises."""


class ConfigError(CtxcheckError, ValueError):
    """A configuration, an argument or a data file is wrong; the message is one line that names the thing."""


class ViolationError(CtxcheckError, AssertionError):
    """A rule is broken, and the mode says to raise.

    Attributes:
        violation: what was found.
    """

    def __init__(self, violation: Violation) -> None:
        super().__init__(f"{violation.rule} {violation.message}")
        self.violation: Violation = violation

    def __reduce__(self) -> tuple[type[ViolationError], tuple[Violation]]:
        # the default would call the class with the message
        return (type(self), (self.violation,))


class DeadlockError(ViolationError):
    """The call would wait for ever: raised in every mode, since the alternative is a hang."""


class CtxcheckWarning(UserWarning):
    """Base of ctxcheck's warnings."""


class ViolationWarning(CtxcheckWarning):
    """A rule is broken, and the mode says to warn."""


for _kind in (
    CtxcheckError, ConfigError, ViolationError, DeadlockError, CtxcheckWarning, ViolationWarning,
):  # fmt: skip
    # tracebacks, pickles and `-W error::ctxcheck.ViolationWarning` name the public path
    _kind.__module__ = "ctxcheck"
