"""The table of rules: one row a code, and nothing else in the project invents one.

Codes and slugs are public: never reused, never renamed.  What a rule means to a
person (why it hurts, how to fix it) stands in ``ctxcheck.reports.explain``; here
is only what the engine decides with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Grade = Literal["certain", "possible", "unlikely"]

#: From the least to the most sure; a finding's grade may only rise.
GRADES: Final[tuple[Grade, ...]] = ("unlikely", "possible", "certain")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its public ``code`` and ``slug``, and a ``title`` of a few words."""

    code: str
    slug: str
    title: str


RULES: Final[dict[str, Rule]] = {
    rule.code: rule
    for rule in (
        Rule("CTX001", "lock-order-inversion", "lock classes are taken in orders that form a cycle"),
        Rule("CTX002", "self-deadlock", "an owner re-acquires a non-reentrant lock that it holds"),
        Rule("CTX003", "same-class-nesting", "two locks of one class are nested with no declared order"),
        Rule("CTX004", "interrupt-unsafe-lock", "a lock is taken in an interrupting context and outside it"),
        Rule("CTX005", "interrupt-order-inversion", "a dependency leads to a lock that an interrupting context needs"),
        Rule("CTX006", "wait-cycle", "an owner waits while it holds what the awaited party needs"),
        Rule("CTX007", "declared-order", "an acquisition goes against a declared order"),
        Rule("CTX101", "sleep-in-atomic", "a call that may sleep, where sleeping is not allowed"),
        Rule("CTX102", "block-in-atomic", "a blocking acquire of a sleepable lock, where sleeping is not allowed"),
        Rule("CTX103", "block-in-event-loop", "a call that may block the thread, on a running event loop"),
        Rule("CTX104", "await-holding-thread-lock", "a task is suspended while it holds a thread lock"),
        Rule("CTX105", "slow-under-lock", "a blocking call under a lock that atomic or event-loop code takes"),
        Rule("CTX106", "forbidden-context", "a function runs inside a context that it forbids"),
        Rule("CTX107", "required-context", "a function runs outside a context that it requires"),
        Rule("CTX201", "outside-range", "a call needs an open bracket that covers it"),
        Rule("CTX202", "unpaired-range-end", "a range end without its start"),
        Rule("CTX203", "range-left-open", "an owner finishes with a bracket open"),
        Rule("CTX204", "crossed-ranges", "brackets are closed in the wrong order"),
        Rule("CTX205", "range-crosses-lock", "a bracket does not enclose the locked region"),
        Rule("CTX301", "lock-not-held", "a lock that must be held is not, or one that must not be is"),
        Rule("CTX302", "foreign-release", "a lock is released by an owner that does not hold it"),
        Rule("CTX303", "lock-left-held", "an owner finishes while it holds a lock"),
        Rule("CTX304", "held-lock-destroyed", "a lock is collected or re-initialised while held"),
        Rule("CTX305", "unbalanced-release", "a release of a lock that nobody holds"),
        Rule("CTX306", "fork-with-held-lock", "fork() while another thread holds a lock"),
        Rule("CTX901", "checker-disabled", "an internal fault switched checking off"),
    )
}

_BY_SLUG: Final[dict[str, Rule]] = {rule.slug: rule for rule in RULES.values()}


def find_rule(name: str) -> Rule | None:
    """Return the rule with this code (any case) or slug, or ``None``."""
    return RULES.get(name.upper()) or _BY_SLUG.get(name.lower())


def rule_names() -> list[str]:
    """Every code and every slug, for messages that suggest the nearest match."""
    return [*RULES, *_BY_SLUG]


def selects(code: str, select: Iterable[str], ignore: Iterable[str]) -> bool:
    """Whether the rule with this code is to be reported.

    The longest matching prefix of ``select`` and ``ignore`` decides, ``ignore`` on a tie.
    CTX901 always is: it says that the other results are incomplete.
    """
    if code == "CTX901":
        return True
    chosen = max((len(prefix) for prefix in select if code.startswith(prefix)), default=0)
    dropped = max((len(prefix) for prefix in ignore if code.startswith(prefix)), default=0)
    return chosen > dropped
