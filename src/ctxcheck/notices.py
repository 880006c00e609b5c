"""What a session says at once, where somebody listens: a warning, an event of structlog, a line on standard error."""

from __future__ import annotations

import os
import sys
from os import write as _write

from ctxcheck.engine.errors import ViolationWarning
from ctxcheck.engine.findings import Finding
from ctxcheck.engine.rules import RULES
from ctxcheck.engine.violations import Site, Violation


def warn(violation: Violation) -> None:
    """A warning at the place of the violation."""
    import warnings

    site = violation.sites[0] if violation.sites else None
    warnings.warn_explicit(
        f"{violation.rule} {violation.message}",
        ViolationWarning,
        site.file if site else "<unknown>",
        site.line if site else 0,
    )


def log(violation: Violation) -> None:
    """A structlog event, for programs that configure structlog."""
    structlog = sys.modules["structlog"]
    configured = getattr(structlog, "is_configured", None)
    if configured is None or not configured():
        return
    site = violation.sites[0] if violation.sites else None
    structlog.get_logger("ctxcheck").warning(
        "ctxcheck.violation",
        rule=violation.rule,
        slug=violation.slug,
        grade=violation.grade,
        message=violation.message,
        locks=list(violation.locks),
        site=f"{site.file}:{site.line}" if site else "",
        fingerprint=violation.fingerprint,
    )


def bare(finding: Finding, error: Exception) -> Violation:
    """A finding that couldn't be put into words, in the few that are there."""
    place = finding.trace.head()
    return Violation(
        finding.rule,
        RULES[finding.rule].slug,
        finding.grade,
        RULES[finding.rule].title,
        tuple(c.name for c in finding.classes),
        (Site("now", place.filename, place.line, place.function),),
        fingerprint=f"{finding.rule}-{'-'.join(finding.identity)}",
        allowed_by=None if finding.allowed is None else str.__str__(finding.allowed),
        notes=(f"the full report could not be composed ({type(error).__name__}); please report this as a bug",),
    )


def fault(error: BaseException) -> Violation:
    """The validator broke inside (CTX901)."""
    text = f"{type(error).__name__}: {error}"
    return Violation(
        "CTX901",
        RULES["CTX901"].slug,
        "certain",
        f"checking was switched off by an internal fault: {text}",
        fingerprint=f"CTX901-{type(error).__name__}",
        notes=("what was found before stands; nothing was checked after it, so the results are incomplete",),
        helps=("this is a bug in ctxcheck: please report it, with the output under CTXCHECK_DEBUG=1",),
    )


def say_fault(violation: Violation, error: BaseException) -> None:
    """Tell whoever looks on; with the traceback under CTXCHECK_DEBUG."""
    lines = [f"ctxcheck: {violation.message}"]
    if os.environ.get("CTXCHECK_DEBUG"):
        import traceback

        lines += traceback.format_exception(error)
    to_standard_error("\n".join(lines) + "\n")


def to_standard_error(text: str) -> None:
    """Write it past whatever the program made of ``sys.stderr``."""
    data = text.encode(errors="backslashreplace")
    try:
        while data:
            data = data[_write(2, data) :]
    except OSError:
        pass
