"""From what the engine found to what people read: a Finding becomes a Violation with sentences and source lines.

Done outside of the validator's mutex, when the finding is made and again for the final verdict; both give the
same report.  No code of the program runs in here, and nothing here raises.
"""

from __future__ import annotations

import binascii
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ctxcheck.engine.findings import (
    DeclaredFacts,
    DestroyedFacts,
    FaultFacts,
    Finding,
    ForbiddenFacts,
    ForkFacts,
    HeldFacts,
    InterruptFacts,
    NestingFacts,
    OrderFacts,
    RangeFacts,
    ReleaseFacts,
    RequiredFacts,
    SelfDeadlockFacts,
    SleepFacts,
    SlotFacts,
    SlowFacts,
    SuspendFacts,
)
from ctxcheck.engine.grading import edges_of
from ctxcheck.engine.rules import RULES
from ctxcheck.engine.violations import Violation
from ctxcheck.reports.comments import accepting
from ctxcheck.reports.compose_context import write_sleep
from ctxcheck.reports.compose_declared import write_declared
from ctxcheck.reports.compose_fork import write_fork
from ctxcheck.reports.compose_held import write_destroyed, write_fault, write_held, write_release
from ctxcheck.reports.compose_interrupt import write_interrupt
from ctxcheck.reports.compose_named import write_forbidden, write_required
from ctxcheck.reports.compose_order import write_order
from ctxcheck.reports.compose_range import write_range
from ctxcheck.reports.compose_self import write_nesting, write_self_deadlock
from ctxcheck.reports.compose_slow import write_loop, write_slow
from ctxcheck.reports.compose_task import write_suspend
from ctxcheck.reports.compose_wait import write_slot, write_wait
from ctxcheck.reports.draft import Draft
from ctxcheck.reports.sourcetext import Sources, plain, without_scopes

if TYPE_CHECKING:
    from ctxcheck.engine.graph import Edge, Evidence

#: Names that one circle may have, by the places where its orders were seen.
_MAX_NAMES: Final = 1_000


def compose(
    finding: Finding, *, cwd: str | None = None, stack_depth: int = 20, first_made: bool = True
) -> Violation:
    """Return the report on a finding.

    Args:
        finding: what the engine found.
        cwd: the folder that shown paths are relative to, where they are below it; by default the working directory.
        stack_depth: how many calls of a stack are kept, from the innermost on.
        first_made: whether to say where the first lock was made that goes by a name which the program gave.

    Costs about a millisecond, and the reading of source files that aren't in :mod:`linecache` yet.  Never raises:
    what can't be found out is left empty, and if all else fails the report has no more than the rule and its title.
    """
    try:
        draft = Draft(finding, Sources(cwd), stack_depth, first_made=first_made)
        _write(draft)
        return draft.violation().replace(fingerprint=fingerprint(finding))
    except Exception as error:  # a report without details is better than none
        return _bare(finding, error)


def fingerprint(finding: Finding) -> str:
    """Return the name that the finding has in every run: the rule, and eight digits that its identity gives."""
    rule = plain(finding.rule)
    text = "\0".join((rule, *map(without_scopes, finding.identity)))
    # a checksum will do, and `hashlib` would load a library of megabytes into the program at an odd moment
    return f"{rule}-{binascii.crc32(text.encode('utf-8', 'backslashreplace')):08x}"


def as_known(
    violation: Violation, finding: Finding, seen: Mapping[Edge, Evidence], known: Callable[[Violation], bool]
) -> Violation:
    """The report on a circle, under the name that it goes by where it is ``known``, if it is.

    A circle is told at the first places where its orders were seen, and has their functions in its name.  To come first
    is luck: once one of its orders is taken in a function that sorts earlier, too, it is the same circle still.  Where
    it is known at any of the places where it was ``seen``, it keeps that name.
    """
    if not isinstance(finding.facts, OrderFacts) or known(violation):
        return violation
    cycle = finding.facts.cycle
    functions = [
        sorted({witness.taken_at.function(), *(w.taken_at.function() for w in seen[edge].places())})
        for edge, witness in zip(edges_of(cycle.classes), cycle.witnesses, strict=True)
        if edge in seen
    ]
    if len(functions) < len(cycle.classes):
        return violation
    for at in itertools.islice(itertools.product(*functions), _MAX_NAMES):
        other = replace(finding, identity=(*(c.key for c in cycle.classes), *at))
        named = violation.replace(fingerprint=fingerprint(other))
        if known(named):
            return named
    return violation


def inline_allow(violation: Violation) -> str | None:
    """Return the reason of an ``allow`` comment on one of the finding's lines that accepts it, or ``None``.

    The comment is ``# ctxcheck: allow[CTX101] reason``: codes or slugs, several of them separated by
    commas.  Without a reason it doesn't count.  See :mod:`~ctxcheck.reports.comments`.
    """
    return next((comment.reason for _, comment in accepting(violation)), None)


def _write(draft: Draft) -> None:
    facts = draft.finding.facts
    match facts:
        case OrderFacts() if draft.finding.rule == "CTX006":
            write_wait(draft, facts)
        case OrderFacts():
            write_order(draft, facts)
        case SelfDeadlockFacts():
            write_self_deadlock(draft, facts)
        case InterruptFacts():
            write_interrupt(draft, facts)
        case NestingFacts():
            write_nesting(draft, facts)
        case SleepFacts() if draft.finding.rule == "CTX103":
            write_loop(draft, facts)
        case SleepFacts():
            write_sleep(draft, facts)
        case RangeFacts():
            write_range(draft, facts)
        case HeldFacts():
            write_held(draft, facts)
        case ReleaseFacts():
            write_release(draft, facts)
        case DeclaredFacts():
            write_declared(draft, facts)
        case DestroyedFacts():
            write_destroyed(draft, facts)
        case ForkFacts():
            write_fork(draft, facts)
        case SuspendFacts():
            write_suspend(draft, facts)
        case SlowFacts():
            write_slow(draft, facts)
        case ForbiddenFacts():
            write_forbidden(draft, facts)
        case RequiredFacts():
            write_required(draft, facts)
        case SlotFacts():
            write_slot(draft, facts)
        case FaultFacts():
            write_fault(draft, facts)


def _bare(finding: Finding, error: Exception) -> Violation:
    rule = RULES.get(finding.rule)
    note = f"the details are missing: putting them together failed with {type(error).__name__}"
    violation = Violation(
        finding.rule,
        rule.slug if rule is not None else "",
        finding.grade,
        rule.title if rule is not None else finding.rule,
        allowed_by=None if finding.allowed is None else plain(finding.allowed),
        notes=(note,),
    )
    try:
        classes = dict.fromkeys(finding.classes)
        return violation.replace(
            fingerprint=fingerprint(finding),
            locks=tuple(plain(c.name) for c in classes),
            keys=tuple(plain(c.key) for c in classes),
        )
    except Exception:
        return violation
