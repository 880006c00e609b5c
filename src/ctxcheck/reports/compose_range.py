"""Reports on brackets: CTX201 to CTX205."""

from __future__ import annotations

import dataclasses
import re
from typing import Final

from ctxcheck.engine.findings import Entry, Moment, RangeFacts
from ctxcheck.engine.violations import Event, Timeline
from ctxcheck.reports.draft import Draft, at_end_of, here
from ctxcheck.reports.sourcetext import as_call, code, plain, short_name

#: What the row of a timeline is called that a finding is about.
_MARKED: Final = {"CTX201": "OUTSIDE", "CTX202": "UNPAIRED", "CTX203": "STILL OPEN"}

#: Rows of a timeline that doesn't begin with an opening.
_MAX_ROWS: Final = 8


def write_range(draft: Draft, facts: RangeFacts) -> None:
    """CTX201 to CTX205."""
    finding = draft.finding
    draft.owner(finding.owner)
    draft.note(plain(facts.why))
    {
        "never opened": _never_opened,
        "closed": _closed,
        "other key": _end_of_other_key if finding.rule == "CTX202" else _other_key,
        "other owner": _end_of_other_owner if finding.rule == "CTX202" else _other_owner,
        "outside span": _outside_span,
        "opened atomic": _opened_atomic,
        "unpaired": _unpaired,
        "other span": _other_span,
        "left open": _left_open,
        "never closed": _never_closed,
        "inner still open": _inner_still_open,
        "lock released inside": _lock_released_inside,
        "lock held at end": _lock_held_at_end,
    }[facts.reason](draft, facts)
    if facts.of_context:
        _say_context(draft)
    _timeline(draft, facts)
    draft.stack("stack", finding.owner, finding.trace)
    if facts.opened is not None and facts.opened.owner is not finding.owner:
        draft.stack("stack of the opening", facts.opened.owner, facts.opened.trace)
    draft.allow_line(finding.trace)


# --- words -------------------------------------------------------------------------------

_RANGE: Final = re.compile(r"(`[^`]*`)|@range_(start|end)\b|\brange(s?)\b")


def _say_context(draft: Draft) -> None:
    """A context that is opened by one call and closed by another is a range, and isn't called so."""

    def word(match: re.Match[str]) -> str:
        quoted, marker, plural = match.groups()
        return str(quoted or (f"@context_{marker}" if marker else f"context{plural}"))

    def said(text: str) -> str:
        return _RANGE.sub(word, text.removeprefix("whoever keeps off the range keeps off for ever; "))

    draft.message = said(draft.message)
    draft.sites = [dataclasses.replace(s, label=said(s.label), heading=said(s.heading)) for s in draft.sites]
    draft.notes = [said(note) for note in draft.notes]
    # a context has no `owner=`
    draft.helps = [said(text) for text in draft.helps if 'owner="any"' not in text]


def _name(facts: RangeFacts) -> str:
    return code(facts.name)


def _function(facts: RangeFacts) -> str:
    return code(short_name(facts.function))


def _needed(facts: RangeFacts) -> str:
    """`` on <MM> [0, 16)``: what the call is about, as far as it is known."""
    return (f" on {plain(facts.key)}" if plain(facts.key) else "") + (f" {_place(facts)}" if plain(facts.span) else "")


def _place(facts: RangeFacts) -> str:
    """``[0, 16)``, or ``at 4`` for a single address."""
    span = plain(facts.span)
    return span if span.startswith("[") else f"at {span}"


def _found(facts: RangeFacts) -> str:
    """The same of the bracket that is there."""
    other = plain(facts.other)
    if not other:
        return ""
    return f" {other}" if other.startswith("[") else f" on {other}"


def _declared(draft: Draft, facts: RangeFacts, marker: str) -> str:
    where = draft.where(facts.declared)
    return f": declared @{marker} at {where}" if where else ""


def _by(draft: Draft, moment: Moment) -> str:
    return "" if moment.owner is draft.finding.owner else f" by {draft.owner(moment.owner)}"


def _show_opened(draft: Draft, facts: RangeFacts, what: str = "the range was opened here") -> None:
    if facts.opened is not None:
        draft.site("opened", facts.opened.trace, what + _by(draft, facts.opened))


def _show_closed(draft: Draft, facts: RangeFacts, what: str = "the range was closed here") -> None:
    # an owner that ended without closing it is entered with the opening
    if facts.closed is not None and facts.closed.what == "closes":
        draft.site("closed", facts.closed.trace, what + _by(draft, facts.closed))


def _pair(facts: RangeFacts) -> str:
    """`` begin() ... end()``: the calls that open and close a bracket of this name, as far as they were seen."""
    start, end = (as_call(function) if function else "" for function in facts.pair)
    return f": {start or 'the start'} ... {end or 'the end'}" if start or end else ""


# --- CTX201 ------------------------------------------------------------------------------


def _never_opened(draft: Draft, facts: RangeFacts) -> None:
    draft.message = f"call outside range: {_function(facts)} needs an open {_name(facts)} range, and none is open"
    draft.site("now", draft.finding.trace, f"called without it{_declared(draft, facts, 'within_range')}")
    if facts.pair[0]:
        draft.note(f"no range was opened{_needed(facts)} lately")
    else:
        draft.note(f"this run never opened {_name(facts)} before this call")
    draft.help(f"open the range before the call, and close it after, best in a `with` block{_pair(facts)}")
    _own_by_any(draft, facts)


def _closed(draft: Draft, facts: RangeFacts) -> None:
    trace = draft.finding.trace
    draft.message = (
        f"call outside range: {_function(facts)} needs an open {_name(facts)} range, and it is closed already"
    )
    draft.site("now", trace, f"called after it{_declared(draft, facts, 'within_range')}")
    _show_closed(draft, facts)
    _show_opened(draft, facts)
    here_ = f"the call{draft.at(trace)}"
    if facts.closed is not None and facts.closed.what == "closes":
        draft.help(f"move {here_} above {as_call(facts.closed.function)}{draft.at(facts.closed.trace)}")
    else:
        draft.help(f"move {here_} to where the range is open")
    draft.help(f"open a range of its own around it{_pair(facts)}")
    _own_by_any(draft, facts)


def _keys(facts: RangeFacts) -> tuple[str, str, str]:
    """The key that is asked for, that of the bracket which is open, and the same with its span."""
    key = plain(facts.key)
    open_on = _found(facts) or " without a key"
    if key.startswith("<") and plain(facts.other).startswith(key):
        # described by their type: two objects of one
        return f"on this {key}", f" on another {key}", open_on
    return f"on {key}" if key else "without a key", open_on, open_on


def _note_keys(draft: Draft) -> None:
    draft.note("keys are the same if they are the same object; text, integers and tuples of them are compared by value")


def _other_key(draft: Draft, facts: RangeFacts) -> None:
    wanted, found, open_on = _keys(facts)
    draft.message = (
        f"call outside range: {_function(facts)} needs an open {_name(facts)} range {wanted}, but the open one is"
        f"{found}"
    )
    draft.site("now", draft.finding.trace, f"called for another key{_declared(draft, facts, 'within_range')}")
    _show_opened(draft, facts, f"a range{open_on} was opened here")
    _note_keys(draft)
    draft.help("open the range on the very object that the call is about, and pass on that one")
    draft.help(
        "name what is compared with `key=`, in all three of start, end and use, if two objects stand for one thing"
    )


def _other_owner(draft: Draft, facts: RangeFacts) -> None:
    opener = draft.owner(facts.opened.owner) if facts.opened is not None else "another one"
    me = draft.owner(draft.finding.owner)
    needs = f"{_function(facts)} needs an open {_name(facts)} range of {me}"
    draft.message = f"call outside range: {needs}, but the open one is that of {opener}"
    draft.site("now", draft.finding.trace, f"called by {me}{_declared(draft, facts, 'within_range')}")
    _show_opened(draft, facts)
    draft.note(f"a range counts for who opened it: {opener} may close it at any moment, and doesn't wait for {me}")
    draft.help(f"open a range in {me} around the call{_pair(facts)}")
    draft.help(f"make the call in {opener}, which has the range open")
    _own_by_any(draft, facts)


def _own_by_any(draft: Draft, facts: RangeFacts) -> None:
    kind = draft.finding.owner.kind if draft.finding.owner is not None else "thread"
    draft.help(
        f"if another {kind} holds the range open meanwhile, declare that{draft.at(facts.declared)}: "
        f'`@within_range("{plain(facts.name)}", owner="any")`'
    )


def _outside_span(draft: Draft, facts: RangeFacts) -> None:
    span = plain(facts.span) or "more"
    draft.message = (
        f"call outside range: {_function(facts)} is about {span}, which the open {_name(facts)} range doesn't cover"
    )
    draft.site("now", draft.finding.trace, f"called for {span}{_declared(draft, facts, 'within_range')}")
    _show_opened(draft, facts, f"the range{_found(facts)} was opened here")
    draft.note(f"the call is about {span}; the open range is{_found(facts)}; the end of a span is outside")
    draft.help("open the range for all that will be touched")
    draft.help(f"open a second range for the rest{_pair(facts)}")
    draft.help("check the span that is passed to the call; one range has to cover all of it")


def _opened_atomic(draft: Draft, facts: RangeFacts) -> None:
    draft.message = (
        f"call outside range: {_function(facts)} needs a {_name(facts)} range that was opened where sleeping is allowed"
    )
    draft.site("now", draft.finding.trace, f"called in this range{_declared(draft, facts, 'within_range')}")
    _show_opened(draft, facts, f"{_name(facts)} was opened here, where sleeping was not allowed")
    because = facts.because
    before = ""
    if because is not None:
        name = draft.entry_name(because)
        if because.step.lock_class is not None:
            draft.site("held_now", because.trace, f"while holding {name}, {here(because.exact)}")
            before = f" before {name} is taken"
        else:
            draft.site("entered", because.trace, f"inside {name}, {here(because.exact, 'entered')}")
            before = f" before {name} begins"
    draft.note("who listens to the start of a range may have to wait; opened here, they could not have been waited for")
    draft.help(f"open the range{before}, where sleeping is allowed: it goes around the locked region")


# --- CTX202, CTX203 ----------------------------------------------------------------------


def _unpaired(draft: Draft, facts: RangeFacts) -> None:
    again = facts.closed is not None and facts.closed.what == "closes"
    state = "it is closed already" if again else "none is open"
    draft.message = (
        f"range end without its start: {_function(facts)} closes {_name(facts)}{_needed(facts)}, and {state}"
    )
    label = "closes it again" if again else "closes what isn't open"
    draft.site("now", draft.finding.trace, f"{label}{_declared(draft, facts, 'range_end')}")
    _show_closed(draft, facts)
    _show_opened(draft, facts)
    if not again:
        draft.note("since checking started there was no start with this name and key that this owner could close")
    draft.help("call the end once for each start, from the same place: a `with` block, or a `finally`")
    draft.help("pass the end the same key as the start, best from one variable")
    draft.help("if the start failed, don't call the end: no range was opened")


def _end_of_other_key(draft: Draft, facts: RangeFacts) -> None:
    wanted, found, open_on = _keys(facts)
    closes = f"{_function(facts)} closes {_name(facts)} {wanted}"
    draft.message = f"range end without its start: {closes}, but the open one is{found}"
    draft.site("now", draft.finding.trace, f"closes another key's{_declared(draft, facts, 'range_end')}")
    _show_opened(draft, facts, f"a range{open_on} was opened here")
    _note_keys(draft)
    draft.note("an end with another key closes nothing: that range stays open")
    draft.help("pass the end the same key as the start, best from one variable")
    draft.help("name what is compared with `key=`, in both start and end, if two objects stand for one thing")


def _end_of_other_owner(draft: Draft, facts: RangeFacts) -> None:
    opener = draft.owner(facts.opened.owner) if facts.opened is not None else "another one"
    me = draft.owner(draft.finding.owner)
    draft.message = (
        f"range end without its start: {me} closes {_name(facts)}{_needed(facts)}, but the open one is that of {opener}"
    )
    draft.site("now", draft.finding.trace, f"closed by {me}{_declared(draft, facts, 'range_end')}")
    _show_opened(draft, facts)
    draft.note(f"a range is closed by who opened it: this end closes nothing, and {opener} still has it open")
    draft.help(f"call the end in {opener}, which opened the range")
    _free(draft, facts)


def _free(draft: Draft, facts: RangeFacts) -> None:
    """How a range is declared that another owner may close."""
    kind = draft.finding.owner.kind if draft.finding.owner is not None else "thread"
    draft.help(f'if another {kind} closes it, declare the start so: `@range_start("{plain(facts.name)}", owner="any")`')


def _other_span(draft: Draft, facts: RangeFacts) -> None:
    span = plain(facts.span) or "no span"
    closes = f"{_function(facts)} closes {_name(facts)} for {span}"
    draft.message = f"range end without its start: {closes}, but the open one is{_found(facts)}"
    draft.site("now", draft.finding.trace, f"closes {span}{_declared(draft, facts, 'range_end')}")
    _show_opened(draft, facts, f"the open range{_found(facts)} was opened here")
    draft.note("an end with another span closes nothing: its own range stays open")
    draft.help("pass the end the same span as the start; keep it in one variable")


def _left_open(draft: Draft, facts: RangeFacts) -> None:
    owner = draft.owner(draft.finding.owner)
    when = at_end_of(facts.other)
    draft.message = f"range left open: {owner} still had {_name(facts)}{_needed(facts)} open {when}"
    draft.site("now", draft.finding.trace, f"opened here, and still open {when}")
    draft.note(
        "whoever keeps off the range keeps off for ever; an exception or an early return may have skipped the end"
    )
    draft.help("put the end into a `finally`, or use a `with` block for the pair")
    _free(draft, facts)


def _never_closed(draft: Draft, facts: RangeFacts) -> None:
    owner = draft.owner(draft.finding.owner)
    when = at_end_of(facts.other)
    draft.message = f"range left open: nobody has closed {_name(facts)}{_needed(facts)}, which {owner} opened, {when}"
    draft.site("now", draft.finding.trace, f"opened here, and still open {when}")
    draft.note('it may be closed by any thread (`owner="any"`); until then none did')
    draft.note("whoever keeps off the range keeps off for ever; an exception may have skipped the end")
    draft.help("see that the end is called once for each start, also where the work fails or is never done")
    draft.help("wait for who is to close it before the program ends")


# --- CTX204 ------------------------------------------------------------------------------


def _inner_still_open(draft: Draft, facts: RangeFacts) -> None:
    inner = facts.inner
    if inner is None:
        return
    name, words = code(inner.name), plain(inner.words)
    found_ = "" if not words else f" {words}" if words.startswith("[") else f" on {words}"
    outer, within = f"{_name(facts)}{_needed(facts)}", f"{name}{found_}"
    draft.message = f"crossed ranges: {outer} is closed while {within}, which was opened inside it, is still open"
    draft.site("now", draft.finding.trace, f"{_name(facts)} is closed here{_declared(draft, facts, 'range_end')}")
    draft.site("opened", inner.opened.trace, f"{within} was opened here, inside it")
    _show_opened(draft, facts, f"{outer} was opened here")
    one, around = (within, outer) if name == _name(facts) else (name, _name(facts))
    draft.note(f"both are declared to nest (`nested=True`); what is done in {one} from here on is outside {around}")
    if inner.how_many > 1:
        draft.note(f"it is the innermost of {inner.how_many} ranges that were opened inside and are still open")
    draft.help(f"close {one} first; `with` blocks one inside the other close in the right order")
    draft.help(f"open {one} before {around}, if it is meant to outlast it")
    draft.help("if the two may overlap, take `nested=True` away from the start of one of them")


# --- CTX205 ------------------------------------------------------------------------------


def _lock(draft: Draft, facts: RangeFacts) -> tuple[str, Entry | None]:
    return (draft.entry_name(facts.lock) if facts.lock is not None else "a lock"), facts.lock


def _lock_released_inside(draft: Draft, facts: RangeFacts) -> None:
    lock, entry = _lock(draft, facts)
    draft.message = (
        f"range crosses lock: {lock} was acquired before the {_name(facts)} range opened, and is released inside it"
    )
    draft.site("now", draft.finding.trace, f"{lock} is released here, while the range is still open")
    _show_opened(draft, facts)
    if entry is not None:
        draft.site("held_now", entry.trace, f"{lock} was {here(draft.exact(entry))}, before the range opened")
    draft.note("from here to the end of the range, what the lock protects can change under it")
    draft.help(f"acquire {lock} after the start of the range, and release it before the end")
    draft.help(f"hold {lock} over the whole range, until after its end")
    _note_lock(draft, entry)


def _lock_held_at_end(draft: Draft, facts: RangeFacts) -> None:
    lock, entry = _lock(draft, facts)
    draft.message = (
        f"range crosses lock: {lock} was acquired inside the {_name(facts)} range, and is still held at its end"
    )
    draft.site(
        "now", draft.finding.trace, f"the range is closed here, with {lock} held{_declared(draft, facts, 'range_end')}"
    )
    if entry is not None:
        draft.site("held_now", entry.trace, f"{lock} was {here(draft.exact(entry))}, inside the range")
    _show_opened(draft, facts)
    draft.note(f"after the end others may enter the range, while what {lock} protects still changes")
    draft.help(f"release {lock} before the range is closed{draft.at(draft.finding.trace)}")
    draft.help(f"acquire {lock} before the range opens, and hold it over the whole range")
    _note_lock(draft, entry)


def _note_lock(draft: Draft, entry: Entry | None) -> None:
    if entry is not None and entry.step.lock_class is not None:
        draft.held.append(draft.name(entry.step.lock_class))
        draft.made_at([entry.step.lock_class])


# --- the timeline ------------------------------------------------------------------------


def _timeline(draft: Draft, facts: RangeFacts) -> None:
    finding = draft.finding
    moments = _story(draft, facts)
    released = facts.reason == "lock released inside"
    events: list[Event] = []
    for index, moment in enumerate(moments):
        elsewhere = any(moment is other for other in facts.elsewhere)
        event = _event(draft, facts, moment, elsewhere=elsewhere, here_=not released and index == len(moments) - 1)
        last = events[-1] if events else None
        if last is not None and not event.here and _same(last, event):
            events[-1] = Event(last.file, last.line, last.function, last.what, last.times + event.times)
        else:
            events.append(event)
    if released:
        lock, _ = _lock(draft, facts)
        spot = draft.sources.head(finding.trace)
        events.append(Event(spot.file, spot.line, spot.function, f"RELEASES {lock}", here=True))
    if events:
        on = f" on {plain(facts.key)}" if plain(facts.key) else ""
        draft.timeline = Timeline(f"{_name(facts)}{on}, {draft.owner(finding.owner)}", tuple(events))


def _story(draft: Draft, facts: RangeFacts) -> list[Moment]:
    """The moments that matter here, the last of which is the finding itself."""
    finding = draft.finding
    owners = {finding.owner, *(moment.owner for moment in (facts.opened, facts.closed) if moment is not None)}
    moments = [
        moment
        for moment in sorted((*facts.timeline, *facts.elsewhere), key=lambda moment: moment.serial)
        if moment.owner in owners
    ]
    if facts.reason != "lock released inside":
        wanted = _MARKED.get(finding.rule, "closes")
        matching = [i for i, moment in enumerate(moments) if moment.what == wanted]
        # another thread may have gone on meanwhile: the row of this very trace, else the last that fits
        mine = [i for i in matching if moments[i].trace is finding.trace] or matching
        if mine:
            moments = moments[: mine[-1] + 1]
    opened = next((i for i, moment in enumerate(moments) if moment is facts.opened), None)
    return moments[-_MAX_ROWS:] if opened is None else moments[opened:]


def _event(draft: Draft, facts: RangeFacts, moment: Moment, *, elsewhere: bool, here_: bool) -> Event:
    spot = draft.sources.head(moment.trace)
    function = short_name(moment.function)
    what = plain(moment.what)
    if moment.what == "STILL OPEN":
        # its place is the opening; the function that it names is the way in which its owner ended
        function, what = "", f"STILL OPEN at the end of the {function or 'owner'}"
    inner = "" if facts.inner is None else code(facts.inner.name)
    if elsewhere and inner not in ("", _name(facts)):
        what += f" {inner}"
    elif elsewhere:
        what += ", for another key"
    if moment.owner is not draft.finding.owner:
        what += f" ({draft.owner(moment.owner)})"
    return Event(spot.file, spot.line, function, what, moment.times, here=here_)


def _same(a: Event, b: Event) -> bool:
    return (a.file, a.line, a.function, a.what) == (b.file, b.line, b.function, b.what)
