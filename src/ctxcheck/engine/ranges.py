"""What happens to brackets: opened, closed, used, crossed, left open (CTX201-CTX205)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctxcheck.engine.brackets import Bracket, Point, Span, covers, describe_key, describe_span, same_key, same_span
from ctxcheck.engine.findings import Entry, Finding, Moment, RangeFacts
from ctxcheck.engine.owner import Node, OwnerState
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
) -> Bracket:
    """Open a bracket for this owner.

    ``sleepable``: whether the owner could sleep when the start was called; ``because``: what forbade it.
    A ``shared`` one counts for every owner and may be closed by any; it is on nobody's chain.
    """
    state.settle()
    state.owner.learn_name()
    moment = Moment("opens", function, trace, state.owner)
    bracket = Bracket(name, key, span, state, moment, shared=shared, why=why)
    bracket.sleepable = sleepable
    bracket.because = because
    engine.book.opened(bracket)
    engine.book.note(name, moment)
    if not shared:
        step = engine.book.step(name)
        # not cached: a bracket stands for itself
        bracket.node = Node(state.cur, step, state, trace)
        state.cur = bracket.node
        state.brackets.append(bracket)
    return bracket


def close_range(
    engine: Validator,
    state: OwnerState,
    name: str,
    key: Any,
    span: Span | None,
    *,
    function: str,
    declared: Trace,
    trace: Trace,
    why: str = "",
) -> None:
    """Close the innermost open bracket of this name, key and span; CTX202 if there is none."""
    state.settle()
    state.owner.learn_name()
    candidates = engine.book.find_open(state, name, key, anyone=False)
    fitting = [b for b in candidates if same_span(b.span, span)]
    if not fitting:
        near = candidates[0] if candidates else None
        moment = Moment("UNPAIRED", function, trace, state.owner)
        engine.book.note(name, moment)
        _report(
            engine, state, "CTX202", name, "other span" if near else "unpaired", function, declared, key, span,
            near or _lately_closed(engine, name, key), trace, why,
        )  # fmt: skip
        return
    bracket = fitting[0]
    moment = Moment("closes", function, trace, state.owner)
    engine.book.note(name, moment)
    try:
        if bracket.node is not None:
            _check_crossing(engine, state, bracket, function, declared, trace)
    finally:
        # closed all the same where the report of a crossing raises
        if bracket.node is not None:
            state.unlink(bracket.node)
            state.brackets.remove(bracket)
        engine.book.close(bracket, moment)


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
            engine.book.note(name, Moment("inside", function, capture(1, 1), state.owner))
            return
    state.settle()
    candidates = engine.book.find_open(state, name, key, anyone=anyone)
    covering = [b for b in candidates if covers(b.span, span)]
    if covering:
        if not sleepable or any(b.sleepable for b in covering):
            engine.book.note(name, Moment("inside", function, capture(1, 1), state.owner))
            return
        bracket, reason = covering[0], "opened atomic"
    elif candidates:
        bracket, reason = candidates[0], "outside span"
    else:
        everywhere = [b for b in list(engine.book.everywhere) if b.name == name]
        others = [b for b in engine.book.find_open(state, name, key, anyone=True) if b.state is not state]
        elsewhere = [b for b in everywhere if b.state is state]
        closed = _lately_closed(engine, name, key)
        if others:
            bracket, reason = others[0], "other owner"
        elif elsewhere:
            bracket, reason = elsewhere[0], "other key"
        elif closed is not None:
            bracket, reason = closed, "closed"
        elif everywhere:
            bracket, reason = everywhere[0], "other key"
        else:
            bracket, reason = None, "never opened"
    state.owner.learn_name()
    trace = capture(1)
    engine.book.note(name, Moment("OUTSIDE", function, trace, state.owner))
    _report(engine, state, "CTX201", name, reason, function, declared, key, span, bracket, trace, why)


def left_open(engine: Validator, state: OwnerState, bracket: Bracket, how: str) -> None:
    """An owner finishes with a bracket open (CTX203)."""
    trace = bracket.opened.trace
    engine.book.note(bracket.name, Moment("STILL OPEN", how, trace, state.owner))
    _report(
        engine, state, "CTX203", bracket.name, "left open", bracket.opened.function, EMPTY, bracket.key, bracket.span,
        bracket, trace, bracket.why, other=how,
    )  # fmt: skip
    state.brackets.remove(bracket)
    engine.book.close(bracket, bracket.opened)


def _lately_closed(engine: Validator, name: str, key: Any) -> Bracket | None:
    for bracket in reversed(list(engine.book.closed.get(name, ()))):
        by_value = bracket.key_text == describe_key(key) and not bracket.key_text.startswith("<")
        if by_value or (bracket.key_ref is not None and bracket.key_ref() is key):
            return bracket
    return None


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
    other: str = "",
) -> None:
    if bracket is not None and not other:
        other = " ".join(t for t in (bracket.key_text, describe_span(bracket.span)) if t)
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
        engine.book.timeline(name),
        other,
        bracket.because if bracket else None,
        lock,
    )
    classes = (lock.step.lock_class,) if lock is not None and lock.step.lock_class is not None else ()
    identity = (name, reason, function, trace.function(), *(c.key for c in classes))
    allowed = engine.allowed(state.cur, rule)
    engine.emit(state, Finding(rule, "certain", state.owner, trace, identity, facts, classes, allowed))
