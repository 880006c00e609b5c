"""Reports on what goes against a declared order: CTX007."""

from __future__ import annotations

from ctxcheck.engine.classes import REGION, LockClass
from ctxcheck.engine.declared import Declaration
from ctxcheck.engine.findings import DeclaredFacts
from ctxcheck.reports.draft import Draft, here
from ctxcheck.reports.sourcetext import code, plain


def write_declared(draft: Draft, facts: DeclaredFacts) -> None:
    """CTX007."""
    finding = draft.finding
    owner = draft.owner(finding.owner)
    outer = facts.held.step.lock_class
    assert outer is not None
    held, taken = _named(draft, outer), _named(draft, facts.lock_class)
    leaf = facts.breach.leaf
    enters, inside = facts.lock_class.kind is REGION, outer.kind is REGION
    does = "enters" if enters else "acquires"
    while_held = f"{'inside' if inside else 'while holding'} {held}"
    if leaf:
        draft.message = f"against a declared leaf: {owner} {does} {taken} {while_held}"
    else:
        draft.message = f"against the declared order: {owner} {does} {taken} {while_held}"
    timed = " (with a timeout)" if facts.mode.timed else ""
    draft.site("now", finding.trace, f"{owner} {does} {taken}{timed} here")
    when = here(draft.exact(facts.held), "entered" if inside else "acquired")
    draft.site("held_now", facts.held.trace, f"{while_held}, {when}")
    draft.held.append(draft.name(outer))
    draft.stack("stack", finding.owner, finding.trace)
    if leaf:
        name, why = code(facts.breach.path[0]), _why(draft, facts.breach.declarations[0])
        draft.note(f"declared: {name} is a leaf, under which no other lock is waited for{why}")
    else:
        path = facts.breach.path
        for index, declaration in enumerate(facts.breach.declarations):
            first, then = code(path[index]), code(path[index + 1])
            draft.note(f"declared: {first} comes before {then}{_why(draft, declaration)}")
        if len(path) > 2:
            draft.note(f"together: {' -> '.join(map(code, path))}")
    draft.note("a declaration holds though nobody was seen to take these locks in another order")
    if facts.mode.timed:
        draft.note("the acquire has a timeout, so it can stall and not hang")
    draft.made_at([facts.lock_class, outer])
    step = f"{'entering' if enters else 'taking'} {taken}"
    if not leaf:
        draft.help(f"take the two as declared: {taken} first, then {held}")
    draft.help(draft.leave(outer, facts.held.trace, step, finding.trace))
    if leaf:
        draft.help(f"note under {held} what is to be done, and do it after that is released")
    what = "declaration" if leaf else "order"
    draft.help(f"if the new {what} is the better one, change the declaration, and every place that relies on it")
    draft.allow_locks([facts.lock_class, outer], "if this place is an exception")


def _named(draft: Draft, lock_class: LockClass) -> str:
    return f"region {draft.quote(lock_class)}" if lock_class.kind is REGION else draft.quote(lock_class)


def _why(draft: Draft, declaration: Declaration) -> str:
    where = draft.where(declaration.made_at) or plain(declaration.source)
    reason = plain(declaration.reason)
    return (f" ({where})" if where else "") + (f": {reason}" if reason else "")
