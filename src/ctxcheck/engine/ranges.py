"""What happens to brackets: opened, closed, used, crossed, left open (CTX201-CTX205)."""

from __future__ import annotations

from types import CodeType
from typing import TYPE_CHECKING, Any

from ctxcheck.engine.brackets import (
    Bracket,
    Mark,
    Point,
    Span,
    covers,
    describe_key,
    describe_span,
    moment,
    same_key,
    same_span,
)
from ctxcheck.engine.findings import Entry, Finding, Inner, Moment, RangeFacts
from ctxcheck.engine.owner import NO_RUNS, Node, Owner, OwnerState
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import EMPTY, Trace, capture, capture_place

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator


def open_range(
    engine: Validator,
    state: OwnerState,
    mark: Mark,
    key: Any,
    span: Span | None,
    sleepable: bool,
    because: Entry | None,
    trace: Trace,
    made: list[Bracket],
) -> None:
    """Open a bracket for this owner.

    ``sleepable``: whether the owner could sleep when the start was called; ``because``: what forbade it.
    A shared one counts for every owner and may be closed by any; it is on nobody's chain.  It is put into ``made``
    first: a signal handler may raise at any moment, and a start that raises opens nothing.
    """
    owner = state.owner
    if state.drops:
        state.settle()
    if owner.name is None:
        owner.learn_name()
    bracket = Bracket(mark, key, span, state, moment("opens", mark.function, trace, owner), sleepable, because)
    made.append(bracket)
    if bracket.shared:
        bracket.allowed = engine.allowed(state.cur, "CTX203")
    engine.book.opened(bracket)
    state.runs = NO_RUNS
    if not bracket.shared:
        # not cached: a bracket stands for itself
        bracket.node = node = Node(state.cur, mark.step or engine.book.step(mark.name), state, trace)
        engine.named.entered(state, node)
        state.brackets.append(bracket)
        state.cur = node


def shut(engine: Validator, state: OwnerState, bracket: Bracket, closed: Moment | None = None) -> None:
    """Let a bracket be open no longer, whatever part of that is done already."""
    node, brackets = bracket.node, state.brackets
    state.runs = NO_RUNS
    if node is not None:
        if state.cur is node:
            state.cur = node.parent
        else:
            state.unlink(node)
    if bracket in brackets:
        brackets.remove(bracket)
    if bracket in engine.book.everywhere:
        engine.book.close(bracket, closed or bracket.opened)


def find_fitting(state: OwnerState, mark: Mark, key: Any, span: Span | None) -> Bracket | None:
    """The innermost open bracket of this name, key and span that this owner may close."""
    for own in reversed(state.brackets):
        if own.name == mark.name and same_key(own.key, key) and same_span(own.span, span):
            return own
    candidates = state.engine.book.find_open(state, mark.name, key, anyone=False)
    return next((b for b in candidates if same_span(b.span, span)), None)


def close_range(
    engine: Validator, state: OwnerState, bracket: Bracket | None, mark: Mark, key: Any, span: Span | None
) -> None:
    """Close ``bracket``, which :func:`find_fitting` found for this name, key and span; CTX202 if that is None."""
    if state.drops:
        state.settle()
    if state.owner.name is None:
        state.owner.learn_name()
    if bracket is None:
        _unpaired(engine, state, mark, key, span)
        return
    clean = bracket.node is None or state.cur is bracket.node
    # only its own line is ever shown, unless there is something to report
    closed = moment("closes", mark.function, capture_place(5) if clean else capture(1), state.owner)
    if bracket.closed is None:
        engine.book.history_of(bracket).note(closed)
    try:
        if not clean:
            if bracket.nested:
                _check_nesting(engine, state, bracket, mark, closed.trace)
            _check_crossing(engine, state, bracket, mark, closed.trace)
    finally:
        # closed all the same where the report of a crossing raises
        shut(engine, state, bracket, closed)


def _unpaired(engine: Validator, state: OwnerState, mark: Mark, key: Any, span: Span | None) -> None:
    """An end that closes nothing (CTX202)."""
    name, trace = mark.name, capture(1)
    candidates = engine.book.find_open(state, name, key, anyone=False)
    engine.book.note(state, name, key, moment("UNPAIRED", mark.function, trace, state.owner))
    near, reason = (candidates[0], "other span") if candidates else _nearest(engine, state, name, key)
    again = engine.book.lately_closed(name, key)
    if reason == "never opened" or (again is not None and reason in ("other key", "closed")):
        near, reason = again, "unpaired"
    _report(
        engine, state, "CTX202", name, reason, mark.function, mark.declared, key, span, near, trace, mark.why,
        of_context=mark.step is not None,
    )  # fmt: skip


def _check_nesting(engine: Validator, state: OwnerState, bracket: Bracket, mark: Mark, trace: Trace) -> None:
    """Brackets that were opened inside this one and are still open at its end, where both are declared to nest
    (CTX204).  Told of is the innermost: the one to be closed first."""
    inside = [b for b in state.brackets[state.brackets.index(bracket) + 1 :] if b.nested]
    if inside:
        inner = inside[-1]
        _report(
            engine, state, "CTX204", bracket.name, "inner still open", mark.function, mark.declared, bracket.key,
            bracket.span, bracket, trace, bracket.why,
            inner=Inner(inner.name, inner.words(), inner.opened, len(inside)), elsewhere=inner,
        )  # fmt: skip


def _check_crossing(engine: Validator, state: OwnerState, bracket: Bracket, mark: Mark, trace: Trace) -> None:
    """Locks taken inside the bracket and still held at its end (CTX205)."""
    for node in state.cur.chain():
        if node.stands_for is bracket.node:
            return
        if node.step.lock_class is not None and node.step.lock_class.kind.guards:
            entry = engine.entry(node)
            crossed(engine, state, bracket, entry, "lock held at end", mark.function, mark.declared, trace)


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
    mark: Mark,
    key: Any,
    place: Span | Point | None,
    code: CodeType | None,
    lasti: int,
) -> None:
    """Check that a call is covered by one open bracket, opened where its owner could sleep (CTX201).

    ``code`` and ``lasti`` tell who calls.
    """
    name, node = mark.name, state.cur
    for own in reversed(state.brackets):
        if (
            own.name == name
            and (own.sleepable or not mark.sleepable)
            and same_key(own.key, key)
            and covers(own.span, place)
        ):
            engine.book.inside(state, mark, own, node, code, lasti)
            return
    state.settle()
    candidates = engine.book.find_open(state, name, key, anyone=mark.anyone)
    covering = [b for b in candidates if covers(b.span, place)]
    bracket: Bracket | None
    if covering:
        good = next((b for b in covering if b.sleepable or not mark.sleepable), None)
        if good is not None:
            engine.book.inside(state, mark, good, None, code, lasti)
            return
        bracket, reason = covering[0], "opened atomic"
    elif candidates:
        bracket, reason = candidates[0], "outside span"
    else:
        bracket, reason = _nearest(engine, state, name, key)
    state.owner.learn_name()
    trace = capture(1)
    engine.book.note(state, name, key, moment("OUTSIDE", mark.function, trace, state.owner))
    _report(engine, state, "CTX201", name, reason, mark.function, mark.declared, key, place, bracket, trace, mark.why)


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
    if bracket.node is not None:
        # as it was opened: what was around that has been left
        bracket.allowed = engine.allowed(bracket.node, "CTX203")
    finding = _left(engine, bracket, "left open", how)
    state.brackets.remove(bracket)
    engine.book.close(bracket, bracket.opened)
    engine.emit(state, finding)


def never_closed(engine: Validator, how: str) -> list[Finding]:
    """Brackets that anybody may close, and nobody did until the end (CTX203): as a lock that was left to others."""
    return [_left(engine, b, "never closed", how) for b in list(engine.book.everywhere) if b.shared]


def _left(engine: Validator, bracket: Bracket, reason: Any, how: str) -> Finding:
    opened = bracket.opened
    engine.book.note(bracket.state, bracket.name, bracket.key, moment("STILL OPEN", how, opened.trace, opened.owner))
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
    inner: Inner | None = None,
    elsewhere: Bracket | None = None,
    of_context: bool = False,
) -> None:
    finding = _finding(
        engine, state.owner, rule, name, reason, function, declared, key, span, bracket, trace, why, lock=lock,
        inner=inner, elsewhere=elsewhere, of_context=of_context, allowed=engine.allowed(state.cur, rule),
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
    inner: Inner | None = None,
    elsewhere: Bracket | None = None,
    of_context: bool = False,
    other: str = "",
    allowed: str | None = None,
    grade: Grade = "certain",
) -> Finding:
    if bracket is not None and not other:
        other = bracket.words()
    if bracket is not None and reason == "other key":
        elsewhere = bracket
    if elsewhere is not None and elsewhere.name == name and same_key(elsewhere.key, key):
        elsewhere = None  # the same timeline
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
        engine.book.timeline(elsewhere.name, elsewhere.key) if elsewhere is not None else (),
        engine.book.pairs.get(name, ("", "")),
        inner,
        of_context or (bracket is not None and bracket.of_context),
    )
    classes = (lock.step.lock_class,) if lock is not None and lock.step.lock_class is not None else ()
    names = [c.key for c in classes] if inner is None else [inner.name]
    identity = (name, reason, function, trace.function(), *names)
    return Finding(rule, grade, owner, trace, identity, facts, classes, allowed)
