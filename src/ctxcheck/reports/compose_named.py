"""Reports on contexts of the program's own: CTX106 and CTX107."""

from __future__ import annotations

from typing import Final

from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.findings import Entry, ForbiddenFacts, Opening, RequiredFacts
from ctxcheck.reports.compose_context import context_here, context_rows
from ctxcheck.reports.draft import Draft, and_list
from ctxcheck.reports.sourcetext import as_call, code, plain, short_name

#: What the row of the context stack says of what breaks the rule, and where.
_ROWS: Final = {
    "calls": ("calls", "called at"),
    "marked": ("calls", "called at"),
    "here": ("checks", "checked at"),
    "enters": ("enters", "entered at"),
}
#: Kinds of entries that are recorded each time.
_EXACT: Final = ("bracket", "range")


def write_forbidden(draft: Draft, facts: ForbiddenFacts) -> None:
    """CTX106."""
    finding = draft.finding
    owner = draft.owner(finding.owner)
    context = draft.entry_name(facts.because)
    what = code(short_name(facts.what))
    itself = "inside itself" if what == context else ""
    kind = _kind(facts.because)
    inside = f"on a thread whose role is {context}" if kind == "role" else f"inside {context}"
    call = as_call(facts.what)
    declared = draft.where(facts.declared)
    draft.message = {
        "calls": f"forbidden in context: {what} is called {inside}, which forbids {facts.category} calls",
        "marked": f"forbidden context: {what} must not run {inside}, and it does",
        "here": f"forbidden context: this must not run {inside}, and it does",
        "enters": f"forbidden context: {what} is entered {itself or inside}, which forbids it",
    }[facts.how]
    by = "forbids" if facts.how == "marked" else "might_sleep"
    marker = f": declared @{by} at {declared}" if declared else ""
    label = {
        "calls": f"may sleep{marker}" if marker else f"a {facts.category} call",
        "marked": f"called {inside}{marker}",
        "here": f"checked {inside}",
        "enters": f"{what} is entered here",
    }[facts.how]
    draft.site("now", finding.trace, label)
    _entered(draft, facts.because)
    context_rows(draft, facts.chain, owner)
    row, verb = _ROWS[facts.how]
    context_here(draft, row, short_name(facts.what), verb)
    draft.stack("stack", finding.owner, finding.trace)
    draft.note(plain(facts.why))
    if facts.how == "calls":
        draft.note("it may have returned at once this time; the rule is about the time when it doesn't")
    if kind == "role":
        other = {"enters": f"enter {what}", "here": "do this"}.get(facts.how, f"call {call}")
        draft.help(f"{other} on another thread")
    elif kind == "loop":
        draft.help(f"move it to a thread: `await asyncio.to_thread({short_name(facts.what)}, ...)`")
    elif facts.how == "enters" and itself:
        draft.help(f"end the first {context}{draft.paren(facts.because.trace)} before another one begins")
        draft.help(f"let the inner code run in the {context} that there is, and pass it on")
    else:
        other = {"enters": f"enter {what}", "here": "do this"}.get(facts.how, f"call {call}")
        draft.help(f"{other} before {context} begins or after it ends")
        draft.help(f"collect inside {context} what is to be done, and do it when that has ended")
    if marker and facts.how == "marked":
        draft.help(f"if {call} may run there after all, remove @forbids at {declared}")
    elif marker:
        draft.help(f"if {call} never sleeps, remove @might_sleep at {declared}")
    draft.allow_line(finding.trace)


def write_required(draft: Draft, facts: RequiredFacts) -> None:
    """CTX107."""
    finding = draft.finding
    owner = draft.owner(finding.owner)
    names = [code(short_name(name)) for name in facts.names]
    listed = " or ".join(names) if facts.anyone else and_list(names)
    it = "it" if len(names) == 1 else "any of these" if facts.anyone else "these"
    what = "this" if facts.here else code(short_name(facts.function))
    call = as_call(facts.function)
    declared = draft.where(facts.declared)
    draft.message = f"required context: {what} needs {listed}, and {owner} isn't inside of {it}"
    marker = f": declared @requires at {declared}" if declared else ""
    draft.site("now", finding.trace, f"{'checked' if facts.here else 'called'} outside of {listed}{marker}")
    for other in facts.elsewhere[:1]:
        took = "took the role" if other.role else "has entered"
        draft.site("then", other.trace, f"{draft.owner(other.owner)} {took} {code(short_name(other.name))} here")
    there = {opening.name for opening in facts.elsewhere[:1]}
    earlier = [opening for opening in facts.earlier if opening.name not in there]
    for opening in earlier[:1]:
        name = code(short_name(opening.name))
        draft.site("earlier", opening.trace, f"{name} was first entered here{_by(draft, opening)}")
    if facts.chain:
        context_rows(draft, facts.chain, owner)
        row = ("checks", "checked at") if facts.here else ("calls", "called at")
        context_here(draft, row[0], short_name(facts.function), row[1])
    draft.stack("stack", finding.owner, finding.trace)
    for opening in (*facts.elsewhere[:1], *earlier[:1]):
        draft.stack("stack of the entry", opening.owner, opening.trace)
    draft.note(plain(facts.why))
    for other in facts.elsewhere:
        name = code(short_name(other.name))
        draft.note(f"{draft.owner(other.owner)} {f'has the role {name}' if other.role else f'is inside of {name} now'}")
    if any(not other.role for other in facts.elsewhere):
        draft.note("a context is its thread's or task's: what that one creates, or runs elsewhere, isn't inside of it")
    opened = {opening.name for opening in facts.earlier}
    for name in facts.names:
        if name not in opened:
            near = _nearest(name, facts.known)
            draft.note(f"nothing ever opened {code(short_name(name))}{f'; did you mean {near}?' if near else ''}")
            draft.help(f"if {near} is meant, name it so" if near else "")
    done = "do this" if facts.here else f"call {call}"
    for opening in earlier[:1]:
        draft.help(f"{done} inside of {code(short_name(opening.name))}, as{_who(draft, opening)} does")
    for other in facts.elsewhere[:1]:
        name = code(short_name(other.name))
        why = f"whose role is {name}" if other.role else f"which is inside of {name}"
        draft.help(f"hand this to {draft.owner(other.owner)}, {why}")
    if not draft.helps:
        draft.help(f"{done} inside of {listed}")
    if marker:
        draft.help(f"if {call} may run outside of {it}, remove @requires at {declared}")
    draft.allow_line(finding.trace)


def _kind(entry: Entry) -> str:
    return plain(entry.step.kind) if isinstance(entry.step, ContextStep) else ""


def _entered(draft: Draft, entry: Entry) -> None:
    """Show where the context was entered that forbids it."""
    step, name, kind = entry.step, draft.entry_name(entry), _kind(entry)
    declared = draft.where(step.declared) if isinstance(step, ContextStep) else ""
    marker = f": @{'thread_role' if kind == 'role' else kind} at {declared}" if declared else ""
    exact = kind in _EXACT or draft.exact(entry)
    entered, place = ("entered", "here") if exact else ("first entered", "on this path here")
    what = {"role": "took the role", "bracket": "opened", "range": "opened"}.get(kind, entered)
    draft.site("entered", entry.trace, f"{what} {name} {place}{marker}")


def _by(draft: Draft, opening: Opening) -> str:
    return "" if opening.owner is draft.finding.owner else f", by {draft.owner(opening.owner)}"


def _who(draft: Draft, opening: Opening) -> str:
    call = draft.call(opening.trace)
    return f" {call}{draft.paren(opening.trace)}" if call else f" the code{draft.at(opening.trace)}"


def _nearest(name: str, known: tuple[str, ...]) -> str:
    """The name that was meant, perhaps, in backticks, where nothing is called ``name``."""
    if name in known:
        return ""
    # Imported here: a name is rarely mistyped, and difflib isn't small.
    from difflib import get_close_matches

    near = get_close_matches(plain(name), map(plain, known), n=1, cutoff=0.6)
    return code(short_name(near[0])) if near else ""
