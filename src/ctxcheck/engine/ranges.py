"""What happens to brackets: opened, closed, used, crossed, left open (CTX201-CTX205)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctxcheck.engine.brackets import (
    Bracket,
    Point,
    Span,
    covers,
    describe_key,
    describe_span,
    moment,
    same_key,
    same_span,
)
from ctxcheck.engine.findings import Entry, Finding, Moment, RangeFacts
from ctxcheck.engine.owner import Node, Owner, OwnerState
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import EMPTY, Trace, capture

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator


def open_range(
    engine: Validator,
    state: OwnerState,
    name: str,
    key: Any,
    span: Span | None,
    *,
    function: str,
    trace: Trace,
    shared: bool = False,
    sleepable: bool = True,
    because: Entry | None = None,
    why: str = "",
    made: list[Bracket],
) -> None:
    """Open a bracket for this owner.

    ``sleepable``: whether the owner could sleep when the start was called; ``because``: what forbade it.
    A ``shared`` one counts for every owner and may be closed by any; it is on nobody's chain.  It is put into ``made``
    first: a signal handler may raise at any moment, and a start that raises opens nothing.
    """
    state.settle()
    state.owner.learn_name()
    opened = moment("opens", function, trace, state.owner)
    bracket = Bracket(name, key, span, state, opened, shared=shared, why=why)
    bracket.sleepable = sleepable
    bracket.because = because
    bracket.allowed = engine.allowed(state.cur, "CTX203")
    made.append(bracket)
    engine.book.opened(bracket)
    if not shared:
        step = engine.book.step(name)
        # not cached: a bracket stands for itself
        bracket.node = Node(state.cur, step, state, trace)
        state.brackets.append(bracket)
        state.cur = bracket.node


def shut(engine: Validator, state: OwnerState, bracket: Bracket, closed: Moment | None = None) -> None:
    """Let a bracket be open no longer, whatever part of that is done already."""
    if bracket.node is not None:
        state.unlink(bracket.node)
    if bracket in state.brackets:
        state.brackets.remove(bracket)
    if bracket in engine.book.everywhere:
        engine.book.close(bracket, closed or bracket.opened)


def find_fitting(engine: Validator, state: OwnerState, name: str, key: Any, span: Span | None) -> Bracket | None:
    """The innermost open bracket of this name, key and span that this owner may close."""
    candidates = engine.book.find_open(state, name, key, anyone=False)
    return next((b for b in candidates if same_span(b.span, span)), None)


def close_range(
    engine: Validator,
    state: OwnerState,
    bracket: Bracket | None,
    name: str,
    key: Any,
    span: Span | None,
    *,
    function: str,
    declared: Trace,
    trace: Trace,
    why: str = "",
) -> None:
    """Close ``bracket``, which :func:`find_fitting` found for this name, key and span; CTX202 if that is None."""
    state.settle()
    state.owner.learn_name()
    if bracket is None:
        candidates = engine.book.find_open(state, name, key, anyone=False)
        engine.book.note(name, key, moment("UNPAIRED", function, trace, state.owner))
        near, reason = (candidates[0], "other span") if candidates else _nearest(engine, state, name, key)
        again = engine.book.lately_closed(name, key)
        if reason == "never opened" or (again is not None and reason in ("other key", "closed")):
            near, reason = again, "unpaired"
        _report(engine, state, "CTX202", name, reason, function, declared, key, span, near, trace, why)
        return
    closed = moment("closes", function, trace, state.owner)
    engine.book.note(name, key, closed)
    try:
        if bracket.node is not None:
            _check_crossing(engine, state, bracket, function, declared, trace)
    finally:
        # closed all the same where the report of a crossing raises
        shut(engine, state, bracket, closed)


def _check_crossing(
    engine: Validator, state: OwnerState, bracket: Bracket, function: str, declared: Trace, trace: Trace
) -> None:
    """Locks taken inside the bracket and still held at its end (CTX205)."""
    for node in state.cur.chain():
        if node.stands_for is bracket.node:
            return
        if node.step.lock_class is not None and node.step.lock_class.kind.guards:
            crossed(engine, state, bracket, engine.entry(node), "lock held at end", function, declared, trace)


def crossed(
    engine: Validator,
    state: OwnerState,
    bracket: Bracket,
    lock: Entry,
    reason: Any,
    function: str,
    declared: Trace,
    trace: Trace,
) -> None:
    """Report that a lock and a bracket cross (CTX205)."""
    _report(
        engine, state, "CTX205", bracket.name, reason, function, declared, bracket.key, bracket.span, bracket, trace,
        bracket.why, lock=lock,
    )  # fmt: skip


def released_inside(engine: Validator, state: OwnerState, node: Node, trace: Trace) -> None:
    """A lock is released that isn't the innermost entry: report the brackets that were opened under it (CTX205)."""
    lock_class = node.step.lock_class
    if lock_class is None or lock_class.kind.resource or not state.brackets:
        return
    for above in list(state.cur.chain()):
        if above.stands_for is node:
            return
        for bracket in state.brackets:
            if bracket.node is above.stands_for:
                entry = engine.entry(node)
                crossed(engine, state, bracket, entry, "lock released inside", trace.function(), EMPTY, trace)


def use_range(
    engine: Validator,
    state: OwnerState,
    name: str,
    key: Any,
    span: Span | Point | None,
    *,
    function: str,
    declared: Trace,
    anyone: bool = False,
    sleepable: bool = True,
    why: str = "",
) -> None:
    """Check that a call is covered by one open bracket, opened where its owner could sleep (CTX201)."""
    for mine in reversed(state.brackets):
        if (
            mine.name == name
            and (mine.sleepable or not sleepable)
            and same_key(mine.key, key)
            and covers(mine.span, span)
        ):
            # only its own line is ever shown
            engine.book.note(name, key, moment("inside", function, capture(1, 1), state.owner))
            return
    state.settle()
    candidates = engine.book.find_open(state, name, key, anyone=anyone)
    covering = [b for b in candidates if covers(b.span, span)]
    bracket: Bracket | None
    if covering:
        if not sleepable or any(b.sleepable for b in covering):
            engine.book.note(name, key, moment("inside", function, capture(1, 1), state.owner))
            return
        bracket, reason = covering[0], "opened atomic"
    elif candidates:
        bracket, reason = candidates[0], "outside span"
    else:
        bracket, reason = _nearest(engine, state, name, key)
    state.owner.learn_name()
    trace = capture(1)
    engine.book.note(name, key, moment("OUTSIDE", function, trace, state.owner))
    _report(engine, state, "CTX201", name, reason, function, declared, key, span, bracket, trace, why)


def _nearest(engine: Validator, state: OwnerState, name: str, key: Any) -> tuple[Bracket | None, str]:
    """The bracket that an owner may have meant which has none of this name and key, and what is wrong with it."""
    everywhere = [b for b in list(engine.book.everywhere) if b.name == name]
    others = [b for b in everywhere if b.state is not state and same_key(b.key, key)]
    if others:
        return others[0], "other owner"
    elsewhere = [b for b in everywhere if b.state is state]
    if elsewhere:
        return elsewhere[0], "other key"
    closed = engine.book.lately_closed(name, key)
    if closed is not None:
        return closed, "closed"
    return (everywhere[0], "other key") if everywhere else (None, "never opened")


def left_open(engine: Validator, state: OwnerState, bracket: Bracket, how: str) -> None:
    """An owner finishes with a bracket open (CTX203)."""
    finding = _left(engine, bracket, "left open", how)
    state.brackets.remove(bracket)
    engine.book.close(bracket, bracket.opened)
    engine.emit(state, finding)


def never_closed(engine: Validator, how: str) -> list[Finding]:
    """Brackets that anybody may close, and nobody did until the end (CTX203): as a lock that was left to others."""
    return [_left(engine, b, "never closed", how) for b in list(engine.book.everywhere) if b.shared]


def _left(engine: Validator, bracket: Bracket, reason: Any, how: str) -> Finding:
    opened = bracket.opened
    engine.book.note(bracket.name, bracket.key, moment("STILL OPEN", how, opened.trace, opened.owner))
    return _finding(
        engine, opened.owner, "CTX203", bracket.name, reason, opened.function, EMPTY, bracket.key, bracket.span,
        bracket, opened.trace, bracket.why, other=how, allowed=bracket.allowed,
        grade="possible" if reason == "never closed" else "certain",
    )  # fmt: skip


def _report(
    engine: Validator,
    state: OwnerState,
    rule: str,
    name: str,
    reason: Any,
    function: str,
    declared: Trace,
    key: Any,
    span: Span | Point | None,
    bracket: Bracket | None,
    trace: Trace,
    why: str,
    *,
    lock: Entry | None = None,
) -> None:
    finding = _finding(
        engine, state.owner, rule, name, reason, function, declared, key, span, bracket, trace, why, lock=lock,
        allowed=engine.allowed(state.cur, rule),
    )  # fmt: skip
    engine.emit(state, finding)


def _finding(
    engine: Validator,
    owner: Owner,
    rule: str,
    name: str,
    reason: Any,
    function: str,
    declared: Trace,
    key: Any,
    span: Span | Point | None,
    bracket: Bracket | None,
    trace: Trace,
    why: str,
    *,
    lock: Entry | None = None,
    other: str = "",
    allowed: str | None = None,
    grade: Grade = "certain",
) -> Finding:
    if bracket is not None and not other:
        other = " ".join(t for t in (bracket.key_text, bracket.span_text or describe_span(bracket.span)) if t)
    elsewhere = bracket is not None and reason == "other key"
    facts = RangeFacts(
        name,
        reason,
        function,
        declared,
        describe_key(key),
        describe_span(span),
        why or (bracket.why if bracket else ""),
        bracket.opened if bracket else None,
        bracket.closed if bracket else None,
        engine.book.timeline(name, key),
        other,
        bracket.because if bracket else None,
        lock,
        engine.book.timeline(name, bracket.key) if bracket is not None and elsewhere else (),
        engine.book.pairs.get(name, ("", "")),
    )
    classes = (lock.step.lock_class,) if lock is not None and lock.step.lock_class is not None else ()
    identity = (name, reason, function, trace.function(), *(c.key for c in classes))
    return Finding(rule, grade, owner, trace, identity, facts, classes, allowed)
