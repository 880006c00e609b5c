"""What turns a step that a rule forbids into a finding, and hands it out.

Each function is given the validator and the owner that took the step, which may be interrupted by what it raises.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ctxcheck.engine.classes import BLOCK, EVENT_LOOP, ContextStep, LockClass, Mode
from ctxcheck.engine.declared import Declared
from ctxcheck.engine.findings import (
    DeclaredFacts,
    Entry,
    Finding,
    ForbiddenFacts,
    HeldFacts,
    ReleaseFacts,
    SleepFacts,
)
from ctxcheck.engine.owner import Node, Owner, OwnerState
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import EMPTY, Trace, capture

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator


def report_sleep(
    engine: Validator,
    state: OwnerState,
    what: str,
    how: Any,
    trace: Trace,
    *,
    declared: Trace | None = None,
    mode: Mode | None = None,
    lock_class: LockClass | None = None,
    permission: int = BLOCK,
    why: str = "",
    grade: Grade = "certain",
    full: Trace = EMPTY,
) -> None:
    """Something that may wait is called where that isn't allowed (CTX101; CTX102 for an acquire, CTX103 on a loop)."""
    because = state.cur.because(permission)
    if because is None:
        return
    rule = "CTX103" if because.step is EVENT_LOOP else "CTX102" if how == "acquire" else "CTX101"
    chain = chain_of(engine, state)
    reason = engine.entry(because)
    subject = lock_class.key if lock_class is not None else what
    state.owner.learn_name()
    cause = because.step.lock_class.key if because.step.lock_class is not None else reason.name
    engine.emit(
        state,
        Finding(
            rule,
            grade,
            state.owner,
            trace,
            (subject, cause, trace.function()),
            SleepFacts(what, how, reason, chain, declared or EMPTY, mode, why, full),
            tuple(c for c in (lock_class, because.step.lock_class) if c is not None),
            engine.allowed(state.cur, rule),
        ),
    )


def report_forbidden(
    engine: Validator,
    state: OwnerState,
    what: str,
    category: str,
    because: Node,
    trace: Trace,
    declared: Trace = EMPTY,
    why: str = "",
) -> None:
    """A call is made inside of a context of the program's own that forbids its category (CTX106)."""
    reason = engine.entry(because)
    facts = ForbiddenFacts(what, category, reason, chain_of(engine, state), "calls", declared, why)
    allowed = engine.allowed(state.cur, "CTX106")
    state.owner.learn_name()
    identity = (what, reason.name, trace.function())
    engine.emit(state, Finding("CTX106", "certain", state.owner, trace, identity, facts, (), allowed))


def chain_of(engine: Validator, state: OwnerState) -> tuple[Entry, ...]:
    """What an owner is inside of, outermost first, without what it is to those who wait for it, nor where its test
    began: that is on the chain only if something was held by then."""
    return tuple(
        engine.entry(node)
        for node in reversed(list(state.cur.scope()))
        if not (is_test(node) if node.step.lock_class is None else node.step.lock_class.kind.awaited)
    )


def is_test(node: Node) -> bool:
    """Whether it is where a test, or a fixture, began."""
    return type(node.step) is ContextStep and node.step.kind == "test"


def report_held(engine: Validator, state: OwnerState, facts: HeldFacts, trace: Trace, key: str) -> None:
    """``requires_lock``, ``assert_held`` or ``assert_not_held`` fails (CTX301)."""
    # held the other way is another mistake than not held
    otherwise = ("otherwise",) if facts.wanted and facts.entry is not None else ()
    identity = (key, facts.function, str(facts.wanted), trace.function(), *otherwise)
    allowed = engine.allowed(state.cur, "CTX301")
    state.owner.learn_name()
    engine.emit(state, Finding("CTX301", "certain", state.owner, trace, identity, facts, (), allowed))


def report_release(
    engine: Validator, state: OwnerState, rule: str, lock_class: LockClass, holder: Owner | None, node: Node | None
) -> None:
    """A lock is released by another than its ``holder``, who holds it in ``node`` (CTX302), or that nobody holds
    (CTX305)."""
    trace = capture(2)
    state.owner.learn_name()
    engine.emit(
        state,
        Finding(
            rule,
            "certain",
            state.owner,
            trace,
            (lock_class.key, trace.function()),
            ReleaseFacts(lock_class, holder, engine.entry(node) if node is not None else None),
            (lock_class,),
            engine.allowed(state.cur, rule),
        ),
    )


def report_against(engine: Validator, state: OwnerState, declared: Declared, node: Node, held: list[Node]) -> bool:
    """Report the held locks that are declared to come after this one, or to be leaves (CTX007)."""
    found: dict[LockClass, Finding] = {}
    target, mode = node.step.lock_class, node.step.mode
    for entry in held:
        source = entry.step.lock_class
        if source is None or target is None or mode is None or source in found:
            continue
        breach = declared.breach(source, target)
        if breach is not None:
            facts = DeclaredFacts(target, engine.entry(entry), mode, breach)
            allowed = engine.allowed(node, "CTX007")
            found[source] = _declared_finding(state.owner, facts, node.trace, source, allowed)
    for finding in found.values():
        engine.emit(state, finding)
    return bool(found)


def redeclared(engine: Validator, state: OwnerState) -> None:
    """More was declared: report what went against it before, and look at each chain anew."""
    declared = engine.declared
    if declared is None:
        return
    engine.roster.forget_chains()
    known = [item for graph in engine.origins.graphs(state) for item in list(graph.evidence.items())]
    for (source, target), evidence in known:
        breach = declared.breach(source, target)
        if breach is not None and evidence.witnesses:
            w = evidence.witnesses[0]
            facts = DeclaredFacts(target, Entry(source.step(w.held_mode), w.held_at, False), w.taken_mode, breach)
            found = _declared_finding(w.owner, facts, w.taken_at, source, w.allowed)
            engine.emit(state, dataclasses.replace(found, origin=w.origin))


def _declared_finding(
    owner: Owner, facts: DeclaredFacts, trace: Trace, held: LockClass, allowed: str | None
) -> Finding:
    what = "leaf" if facts.breach.leaf else "order"
    identity = (what, held.key, facts.lock_class.key, trace.function())
    grade: Grade = "possible" if facts.mode.timed else "certain"
    return Finding("CTX007", grade, owner, trace, identity, facts, (facts.lock_class, held), allowed)
