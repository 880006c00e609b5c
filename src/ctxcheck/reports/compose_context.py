"""Reports on what happens where sleeping isn't allowed: CTX101 and CTX102."""

from __future__ import annotations

from typing import Final

from ctxcheck.engine.classes import AWAIT, BLOCK, EVENT_LOOP, ContextStep
from ctxcheck.engine.findings import Entry, SleepFacts
from ctxcheck.engine.violations import Context
from ctxcheck.reports.draft import Draft, here
from ctxcheck.reports.sourcetext import as_call, call_name, code, plain, short_name, visible

#: How the call breaks the rule: its row in the context stack, and where it is.
_ROWS: Final = {
    "marked": ("sleeps", "called at"),
    "start": ("sleeps", "called at"),
    "end": ("sleeps", "called at"),
    "wait": ("waits", "called at"),
    "acquire": ("acquires", "called at"),
    "suspends": ("suspends", "awaits at"),
}
_MARKERS: Final = {"marked": "@might_sleep", "start": "@range_start", "end": "@range_end"}
_CONTEXTS: Final = {"atomic": "atomic context", "range": "range", "allow": "allow"}


def write_sleep(draft: Draft, facts: SleepFacts) -> None:
    """CTX101 and CTX102."""
    finding = draft.finding
    owner = draft.owner(finding.owner)
    what = _subject(draft, facts)
    timeout = " with a timeout" if facts.mode is not None and facts.mode.timed else ""
    cause = _cause(draft, facts.because)
    draft.message = {
        "marked": f"sleep in atomic context: {what} may sleep, but it runs {cause}",
        "start": f"sleep in atomic context: {what} opens a range, which may sleep, but it runs {cause}",
        "end": f"sleep in atomic context: {what} closes a range, which may sleep, but it runs {cause}",
        "wait": f"sleep in atomic context: {what} waits, but it runs {cause}",
        "acquire": f"blocking acquire of {what}{timeout} in atomic context: it may sleep, but it runs {cause}",
        "suspends": f"suspended in atomic context: {what} awaits, {_or_itself(draft, facts, what, cause)}",
    }[facts.how]
    declared = draft.where(facts.declared)
    marked = f": declared {_MARKERS[facts.how]} at {declared}" if declared and facts.how in _MARKERS else ""
    label = {
        "marked": f"may sleep{marked}",
        "start": f"opens a range, which may sleep{marked}",
        "end": f"closes a range, which may sleep{marked}",
        "wait": "waits here",
        "acquire": f"may wait for {what} here",
        "suspends": "suspends here",
    }[facts.how]
    draft.site("now", finding.trace, label)
    began(draft, facts.because)
    context_rows(draft, facts.chain, owner)
    row, verb = _ROWS[facts.how]
    context_here(draft, row, _subject(draft, facts)[1:-1], verb)
    draft.stack("stack", finding.owner, finding.trace)
    if facts.why:
        draft.note(facts.why)
    if facts.how == "acquire":
        draft.note(f"{what} may have been free this time; the rule is about the time when it isn't")
    elif facts.how in _MARKERS:
        draft.note("the rule is about the declaration, so it fires even when this call would return at once")
    if facts.because.step.lock_class is not None:
        draft.note(f"who holds {draft.entry_name(facts.because)} must not sleep: others count on getting it at once")
        draft.made_at([facts.because.step.lock_class])
    _helps(draft, facts, what)
    draft.allow_line(finding.trace)


def _subject(draft: Draft, facts: SleepFacts) -> str:
    """The name, in backticks, of what sleeps."""
    classes = draft.finding.classes
    if facts.how == "acquire" and classes and plain(classes[0].name) == plain(facts.what):
        return draft.quote(classes[0])
    return code(short_name(facts.what))


def _or_itself(draft: Draft, facts: SleepFacts, what: str, cause: str) -> str:
    return "and is atomic itself" if draft.entry_name(facts.because) == what else f"but it runs {cause}"


def _cause(draft: Draft, entry: Entry) -> str:
    name = draft.entry_name(entry)
    lock_class = entry.step.lock_class
    if lock_class is None:
        return f"inside {name}"
    return f"while {'spin lock ' if lock_class.kind.name == 'spin' else ''}{name} is held"


def began(draft: Draft, entry: Entry) -> None:
    """Show where the context began that forbids it."""
    name = draft.entry_name(entry)
    step = entry.step
    if step.lock_class is not None:
        spin = "spin lock " if step.lock_class.kind.name == "spin" else ""
        draft.site("held_now", entry.trace, f"while holding {spin}{name}, {here(draft.exact(entry))}")
        return
    kind = plain(step.kind) if isinstance(step, ContextStep) else ""
    words = _CONTEXTS.get(kind, "context")
    declared = draft.where(step.declared) if isinstance(step, ContextStep) else ""
    marker = f": @{kind} at {declared}" if declared and kind.isidentifier() else ""
    exact = draft.exact(entry)
    entered = "entered" if exact else "first entered"
    place = "here" if exact else "on this path here"
    draft.site("entered", entry.trace, f"{entered} {words} {name} {place}{marker}")


def context_rows(draft: Draft, chain: tuple[Entry, ...], owner: str) -> None:
    """The context stack of an owner, outermost first."""
    draft.contexts_title = f"context stack of {owner} (outermost first)"
    for entry in chain:
        step = entry.step
        spot = draft.sources.head(entry.trace)
        if step.lock_class is not None:
            kind = {"spin": "spin", "semaphore": "semaphore"}.get(step.lock_class.kind.name, "lock")
            verb = "acquired at"
            draft.held.append(draft.name(step.lock_class))
        else:
            kind = plain(step.kind) if isinstance(step, ContextStep) else "context"
            verb = "opened at" if kind in ("range", "bracket") else "taken at" if kind == "role" else "entered at"
            kind = "context" if kind == "bracket" else kind
        file, line = ("", 0) if step is EVENT_LOOP else (spot.file, spot.line)
        draft.contexts.append(Context(kind, draft.entry_text(entry), verb, file, line, allows=_allows(step.takes)))


def context_here(draft: Draft, kind: str, label: str, verb: str) -> None:
    """The last row: what breaks the rule."""
    spot = draft.sources.head(draft.finding.trace)
    draft.contexts.append(Context(kind, label, verb, spot.file, spot.line, here=True))


def _allows(takes: int) -> str:
    """What may still be done inside of something that takes these permissions away."""
    if takes & BLOCK and takes & AWAIT:
        return "nothing that waits"
    if takes & BLOCK:
        return "await, but nothing that blocks the thread"
    return "what blocks the thread, but no await" if takes & AWAIT else ""


def _caller(draft: Draft, call: str) -> str:
    """The function that makes the call; where that says of itself that it may sleep, the one that calls it."""
    names = [call_name(scope.co_qualname) for scope, _ in visible(draft.finding.trace)]
    return next((name for name in names if name != call), "")


def _helps(draft: Draft, facts: SleepFacts, what: str) -> None:
    because = facts.because
    name = draft.entry_name(because)
    lock_class = because.step.lock_class
    spin = lock_class is not None
    call = as_call(facts.what)
    at = draft.paren(because.trace)
    outside = (
        f"before {name} is taken{at} or after it is released" if spin else f"before {name} begins or after it ends"
    )
    if facts.how == "acquire":
        if spin:
            draft.help(f"take {what} first and {name} inside of it: that order is allowed")
            draft.help(f"collect under {name}, and take {what} after it is released{at}")
        else:
            draft.help(f"take {what} {outside}")
        if draft.finding.classes[0].kind.needs == AWAIT:
            draft.help(f"if {what} is never held over an `await`, it isn't needed: no other task runs meanwhile")
        else:
            draft.help(f"try, `acquire(blocking=False)`, with a way to go on when {what} is taken")
            draft.help(f"make {what} a SpinLock too, if it is only ever held for a few lines that don't wait")
    elif facts.how == "start":
        draft.help(
            f"call {call} before {name} {f'is taken{at}' if spin else 'begins'}: a range goes around the locked region"
        )
    elif facts.how == "end":
        draft.help(
            f"call {call} after {name} {f'is released{at}' if spin else 'ends'}: a range goes around the locked region"
        )
    elif facts.how == "suspends":
        draft.help(f"await {outside}, and keep what is inside free of `await`")
    elif facts.how == "marked" and not facts.declared.codes and draft.call(because.trace) == call:
        # a check in the very function that entered the context
        draft.help(f"do what may wait{draft.at(draft.finding.trace)} {outside}")
    else:
        function = _caller(draft, call)
        if function and function != draft.call(because.trace):
            end = "has been released" if spin else "has ended"
            draft.help(
                f"do the waiting outside: let {function} return what is to be done, and call {call} after {name} {end}"
            )
        else:
            draft.help(f"call {call} {outside}")
        draft.help("hand the work to a thread or task that may sleep (queue, executor, loop.call_soon)")
    if facts.how == "acquire":
        return
    if spin:
        draft.help(f"make {name} a Lock, if its holders may wait")
        return
    declared = draft.where(because.step.declared) if isinstance(because.step, ContextStep) else ""
    if declared and isinstance(because.step, ContextStep):
        draft.help(f"if {name} may wait after all, remove @{plain(because.step.kind)} at {declared}")
    else:
        draft.help(f"if {name} may wait after all, don't mark it as atomic")
