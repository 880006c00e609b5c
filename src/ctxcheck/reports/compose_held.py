"""Reports on who holds a lock, and on the checker itself: CTX301 to CTX305, CTX901."""

from __future__ import annotations

from ctxcheck.engine.classes import AWAIT
from ctxcheck.engine.findings import DestroyedFacts, FaultFacts, HeldFacts, ReleaseFacts
from ctxcheck.reports.draft import Draft, at_end_of, here
from ctxcheck.reports.sourcetext import as_call, code, plain, short_name


def write_held(draft: Draft, facts: HeldFacts) -> None:
    """CTX301."""
    finding = draft.finding
    owner = draft.owner(finding.owner)
    lock = code(facts.lock)
    name = short_name(facts.function)
    # the calls of that name check for themselves; anything else is a function that was marked
    asked = name in ("", "assert_held", "assert_not_held")
    declared = draft.where(facts.declared)
    if facts.nested:
        _not_under(draft, facts)
    elif facts.wanted:
        subject = f"{lock} must be held here" if asked else f"{code(name)} needs {lock} to be held"
        by = plain(facts.by)
        # held, but shared where exclusive was asked for, or the other way round
        otherwise = facts.entry is not None
        draft.message = f"lock not held: {subject}, and {owner} doesn't hold it{' in that way' if otherwise else ''}"
        marked = f": declared @requires_lock at {declared}" if declared and not asked else ""
        draft.site("now", finding.trace, f"{'checked' if asked else 'called'} without {lock}{marked}")
        if facts.entry is not None:
            draft.site("earlier", facts.entry.trace, f"{lock} was {here(draft.exact(facts.entry))}")
        draft.note(f"{lock}: {by}" if by else "")
        around = "this place" if asked else f"the call of {as_call(name)}"
        draft.help(f"acquire {lock} {'in the way that is asked for, ' if otherwise else ''}around {around}")
        if by.endswith("' holds it"):
            draft.help("if that one holds it on purpose and waits meanwhile, let it do this work itself")
        elif not otherwise:
            draft.help("if nobody else can know of the object yet, do this work in a function that isn't marked")
    else:
        subject = f"{lock} must not be held here" if asked else f"{code(name)} must not run with {lock} held"
        draft.message = f"lock held: {subject}, and {owner} holds it"
        draft.site("now", finding.trace, f"{'checked' if asked else 'called'} with {lock} held")
        if facts.entry is not None:
            draft.site("held_now", facts.entry.trace, f"{lock} was {here(draft.exact(facts.entry))}")
            lock_class = facts.entry.step.lock_class
            if lock_class is not None:
                call = "this check" if asked else f"calling {as_call(name)}"
                draft.help(draft.leave(lock_class, facts.entry.trace, call, finding.trace))
        if not draft.helps:
            draft.help(f"release {lock} before this")
    draft.held += [plain(text) for text in facts.held]
    draft.stack("stack", finding.owner, finding.trace)
    draft.note("locks that this owner holds: " + (", ".join(code(text) for text in facts.held) or "none"))
    draft.allow_line(finding.trace)


def _not_under(draft: Draft, facts: HeldFacts) -> None:
    owner = draft.owner(draft.finding.owner)
    lock, inner = code(facts.lock), code(facts.nested)
    draft.message = f"outer lock not held: {inner} is nested under {lock}, and {owner} doesn't hold that"
    draft.site("now", draft.finding.trace, f"{owner} acquires {inner} here, with `nest_under` {lock}")
    draft.note(f"{lock}: {plain(facts.by)}" if facts.by else "")
    draft.note(
        f"`nest_under` says that whoever takes several locks of class {inner} holds {lock} meanwhile; where one "
        "doesn't, two of them can take these locks in opposite orders"
    )
    draft.help(f"acquire {lock} around this place")
    draft.help("if no two of these locks are ever held at once here, leave `nest_under` out")


def write_destroyed(draft: Draft, facts: DestroyedFacts) -> None:
    """CTX304."""
    finding = draft.finding
    lock = draft.quote(facts.lock_class)
    holder = draft.owner(facts.holder)
    how = facts.how
    draft.message = f"held lock destroyed: {lock} was {how} while {holder} held it"
    if how == "collected":
        draft.site("now", finding.trace, f"acquired by {holder} here, or on a later pass, and not released")
        draft.site("then", facts.dropped, f"{lock} was collected while this ran")
        draft.stack("stack of the acquire", facts.holder, finding.trace)
        draft.note(f"nothing refers to that lock any more, so nobody can release it; what {lock} protects may be torn")
        draft.note("what ran when it was collected need not have to do with it: the collector runs anywhere")
        if finding.grade == "possible":
            draft.note("a plain Lock may be released by another thread; by the end of the run none of this class was")
        draft.help("use `with`, which releases on every way out")
        draft.help("keep the lock where it lives as long as what it protects")
    else:
        owner = draft.owner(finding.owner)
        what = "initialises it again" if how == "re-initialised" else "puts a new lock in its place"
        draft.site("now", finding.trace, f"{owner} {what} here")
        whose = "" if facts.holder is finding.owner else f" by {holder}"
        draft.site("held_now", facts.held.trace, f"{lock} was {here(draft.exact(facts.held))}{whose}, and is held")
        draft.stack("stack now", finding.owner, finding.trace)
        draft.stack("stack of the acquire", facts.holder, facts.held.trace)
        draft.note(f"whoever acquires {lock} from now on doesn't wait for {holder}: both think that they are alone")
        draft.help("create the lock once, where the object is made, and reset the data under it")
    draft.made_at([facts.lock_class])
    draft.allow_line(finding.trace)


def write_release(draft: Draft, facts: ReleaseFacts) -> None:
    """CTX302, CTX303 and CTX305."""
    rule = draft.finding.rule
    if rule == "CTX302":
        _foreign(draft, facts)
    elif rule == "CTX303":
        _left_held(draft, facts)
    else:
        _unbalanced(draft, facts)
    draft.made_at([facts.lock_class])
    draft.allow_line(draft.finding.trace)


def _foreign(draft: Draft, facts: ReleaseFacts) -> None:
    finding = draft.finding
    lock = draft.quote(facts.lock_class)
    owner = draft.owner(finding.owner)
    holder = draft.owner(facts.holder) if facts.holder is not None else "another thread"
    draft.message = f"foreign release: {owner} releases {lock}, which {holder} holds"
    draft.site("now", finding.trace, f"{owner} releases {lock} here")
    if facts.held is not None:
        # recorded by another thread: when, isn't known
        draft.site("held_now", facts.held.trace, f"{lock} was {here(exact=False)} by {holder}")
    draft.stack("stack now", finding.owner, finding.trace)
    if facts.held is not None:
        draft.stack("stack of the holder", facts.holder, facts.held.trace)
    if facts.lock_class.kind.owned:
        draft.note(
            f"only its holder may release a lock of this kind; the call raises RuntimeError, and {holder} keeps it"
        )
    else:
        draft.note(f"{holder} still believes that it is alone, and somebody else can enter now")
    draft.help("let whoever acquired the lock release it, best with `with`")
    draft.help("use an Event, a Semaphore or a Condition to signal another thread: one sets it, another one waits")


def _left_held(draft: Draft, facts: ReleaseFacts) -> None:
    finding = draft.finding
    lock = draft.quote(facts.lock_class)
    owner = draft.owner(facts.holder or finding.owner)
    when = at_end_of(facts.at_end)
    draft.message = f"lock left held: {owner} still held {lock} {when}"
    draft.site("now", finding.trace, f"acquired here, or on a later pass of this path, and still held {when}")
    draft.held.append(draft.name(facts.lock_class))
    draft.stack("stack of the acquire", finding.owner, finding.trace)
    draft.note(f"nobody is left to release {lock}: the next one who needs it waits for ever")
    if finding.grade == "possible":
        is_aio = facts.lock_class.kind.needs == AWAIT
        kind, other = ("an asyncio Lock", "task") if is_aio else ("a plain Lock", "thread")
        draft.note(f"{kind} may be released by another {other}; by the end of the run none did")
    block = "async with" if facts.lock_class.kind.needs == AWAIT else "with"
    draft.help(f"use `{block}`, which releases on every way out")
    draft.help("put the release into a `finally`, with the acquire right before the `try`")


def _unbalanced(draft: Draft, facts: ReleaseFacts) -> None:
    finding = draft.finding
    lock = draft.quote(facts.lock_class)
    owner = draft.owner(finding.owner)
    draft.message = f"unbalanced release: {owner} releases {lock}, which nobody holds"
    draft.site("now", finding.trace, f"{lock} is released here, and isn't held")
    draft.stack("stack", finding.owner, finding.trace)
    draft.note("the call raises RuntimeError; at another moment it would free a lock that somebody else holds")
    block = "async with" if facts.lock_class.kind.needs == AWAIT else "with"
    draft.help(f"use `{block}`, which pairs the two")
    draft.help("put the acquire right before the `try` whose `finally` releases, never into a condition")


def write_fault(draft: Draft, facts: FaultFacts) -> None:
    """CTX901."""
    finding = draft.finding
    draft.message = "checking was switched off by an internal fault"
    if finding.trace.codes:
        draft.site("now", finding.trace, "checking ended here")
        draft.stack("stack", finding.owner, finding.trace)
    draft.note(plain(facts.error))
    draft.note("everything up to this moment was checked, and nothing after it")
    draft.help("this is a fault of ctxcheck, not of the program: report it, with what CTXCHECK_DEBUG=1 prints")
