"""Reports on waits for somebody who needs what is held meanwhile: CTX006."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ctxcheck.engine.classes import FAILING, LockClass
from ctxcheck.engine.findings import OrderFacts, SlotFacts
from ctxcheck.engine.grading import Cycle
from ctxcheck.engine.graph import Witness
from ctxcheck.engine.violations import Scenario, Step
from ctxcheck.reports.draft import Draft, here, times
from ctxcheck.reports.sourcetext import plain


class _Words(NamedTuple):
    """How a kind of wait is spoken of; ``{}`` is the name of what is waited for."""

    noun: str  # what it is
    waits: str  # what the waiting owner does
    headline: str  # the same, in the passive
    who: str  # who needs the lock
    call: str  # in the table
    sends: str  # what the awaited owner does in the end
    before: str  # "... before" what


_WORDS: Final = {
    "thread": _Words(
        "thread {}", "joins thread {}", "thread {} is joined", "it takes", "join(thread {})", "ends", "joining {}"
    ),
    "job": _Words(
        "job {}", "waits for job {}", "job {} is waited for", "it takes", "result(job {})", "returns", "waiting for {}"
    ),
    "pool": _Words(
        "pool {}", "waits for pool {}", "pool {} is waited for", "its jobs take", "wait(pool {})", "is idle",
        "waiting for {}",
    ),
    "event": _Words(
        "event {}", "waits for event {}", "event {} is waited for", "is taken before it is set", "wait(event {})",
        "sets {}", "waiting",
    ),
    "condition": _Words(
        "condition {}", "waits on condition {}", "condition {} is waited on", "is taken before it is notified",
        "wait(condition {})", "notifies {}", "waiting",
    ),
    "barrier": _Words(
        "barrier {}", "waits at barrier {}", "barrier {} is waited at", "the others take", "wait(barrier {})",
        "arrives at {}", "waiting",
    ),
    "item": _Words(
        "queue {}", "gets from queue {}, which is empty,", "an item of queue {} is waited for",
        "is taken before one is put", "get(queue {})", "puts into {}", "getting",
    ),
    "place": _Words(
        "queue {}", "puts into queue {}, which is full,", "a free place in queue {} is waited for",
        "is taken before one is freed", "put(queue {})", "gets from {}", "putting",
    ),
    "all done": _Words(
        "queue {}", "waits for the end of all work in queue {}", "the end of all work in queue {} is waited for",
        "is taken before it is done", "join(queue {})", "is done with an item of {}", "waiting",
    ),
}  # fmt: skip


class _Link(NamedTuple):
    """One order of the cycle."""

    source: LockClass
    target: LockClass
    witness: Witness


def write_wait(draft: Draft, facts: OrderFacts) -> None:
    """CTX006, a wait under a lock."""
    cycle = facts.cycle
    links = _links(cycle)
    wait = links[0]
    two = len(links) == 2
    words = _WORDS[wait.target.kind.name]
    if two:
        what = f"{words.headline.format(draft.quote(wait.target))} under {draft.quote(wait.source)}, which {words.who}"
    else:
        path = " -> ".join(draft.quote(c) for c in (*(link.source for link in links), wait.source))
        what = f"wait cycle of {len(links)}: {path}"
    if cycle.grade == "unlikely":
        short, reason = _doubt(draft, cycle, wait)
        draft.message = f"{what} (unlikely: {short})"
        draft.note(reason)
    else:
        draft.message = f"possible deadlock: {what}"
    for index, link in enumerate(links):
        _sites(draft, link, first=index == 0)
    if cycle.reason not in ("guarded", "readers", "handed over"):
        _scenario(draft, cycle, links)
    for index, link in enumerate(links):
        draft.stack("stack of the wait" if index == 0 else "stack then", link.witness.owner, link.witness.taken_at)
    if any(link.witness.taken_mode is FAILING for link in links):
        draft.note("the wait has a timeout, which ends in an exception: it stalls for all of that time, and then fails")
    draft.note("this run has not hung on it so far; the wait and what it waits for were seen at different times")
    _meant(draft, cycle)
    _counts(draft, cycle)
    _helps(draft, links)
    draft.allow_locks(cycle.classes, "if these can never meet")


def _links(cycle: Cycle) -> list[_Link]:
    """The orders, beginning with a wait under a lock."""
    size = len(cycle.classes)
    links = [_Link(c, cycle.classes[(i + 1) % size], cycle.witnesses[i]) for i, c in enumerate(cycle.classes)]
    first = next(
        (i for i, link in enumerate(links) if link.target.kind.awaited and not link.source.kind.awaited), 0
    )
    return [*links[first:], *links[:first]]


def _sites(draft: Draft, link: _Link, *, first: bool) -> None:
    source, target, witness = link
    owner = draft.owner(witness.owner)
    name, other = draft.quote(source), draft.quote(target)
    then, held = ("now", "held_now") if first else ("then", "held_then")
    timed = " (with a timeout)" if witness.timed or witness.taken_mode is FAILING else ""
    if target.kind.awaited:
        taken = f"{owner} {_WORDS[target.kind.name].waits.format(other)}{timed} here"
    else:
        taken = f"acquires {other}{timed} here"
    heading = ""
    if not first:
        if source.kind.awaited == "signal":
            heading = f"{owner} takes {other}, then {_WORDS[source.kind.name].sends.format(name)}"
        elif source.kind.awaited:
            heading = f"{owner} takes {other} in {_WORDS[source.kind.name].noun.format(name)}"
            if target.kind.awaited:
                heading = f"{_WORDS[source.kind.name].noun.format(name)} waits for {other}"
        else:
            heading = f"the order {name} then {other} was established by {owner}"
    draft.site(then, witness.taken_at, taken, heading)
    if source.kind.awaited == "signal":
        draft.site(held, witness.held_at, f"{_WORDS[source.kind.name].sends.format(name)} here")
    elif source.kind.awaited:
        what = "is made here" if source.kind.name == "pool" else "runs this"
        draft.site(held, witness.held_at, f"{_WORDS[source.kind.name].noun.format(name)} {what}")
    else:
        exact = draft.sources.encloses(witness.held_at, witness.taken_at)
        draft.site(held, witness.held_at, f"while holding {name}, {here(exact)}")


def _scenario(draft: Draft, cycle: Cycle, links: Sequence[_Link]) -> None:
    titles: list[str] = []
    for index, link in enumerate(links):
        letter = chr(ord("A") + index) if index < 26 else str(index + 1)
        party = link.source.kind.awaited == "party"
        function = draft.name(link.source) if party else draft.call(link.witness.held_at)
        titles.append(f"{link.witness.owner.kind} {letter}" + (f": {function}" if function else ""))
    steps = [Step(i, f"lock({draft.name(x.source)})") for i, x in enumerate(links) if not x.source.kind.awaited]
    for index, link in enumerate(links):
        name = draft.name(link.target)
        call = _WORDS[link.target.kind.name].call.format(name) if link.target.kind.awaited else f"lock({name})"
        steps.append(Step(index, call, titles[(index + 1) % len(titles)]))
    every = {2: "both", 3: "all three"}.get(len(links), f"all {len(links)}")
    outcome = f"{every} wait for ever" if cycle.reason != "timed" else f"{every} wait until one gives up"
    if cycle.reason != "timed" and any(link.witness.taken_mode is FAILING for link in links):
        outcome = f"{every} wait until one fails"
    draft.scenario = Scenario(tuple(titles), tuple(steps), outcome)


def _doubt(draft: Draft, cycle: Cycle, wait: _Link) -> tuple[str, str]:
    if cycle.reason == "guarded" and cycle.guard is not None:
        guard = draft.quote(cycle.guard)
        return (f"{guard} keeps them apart", f"{guard} was held in all of these places, so they can't meet")
    if cycle.reason == "one owner":
        owner = draft.owner(wait.witness.owner)
        return ("one thread does both", f"both were seen in {owner} only, which can't wait for itself here")
    if cycle.reason == "timed":
        return (
            "a wait has a timeout",
            "one of the waits has a timeout: it gives up by itself, so this stalls and doesn't hang",
        )
    if cycle.reason == "handed over":
        return (
            "a lock is handed from thread to thread",
            "one of these locks was released by another thread than the one that acquired it, so to hold it is no "
            "critical section",
        )
    return ("readers let each other in", "a shared acquire doesn't wait for a shared hold")


def _meant(draft: Draft, cycle: Cycle) -> None:
    draft.made_at([c for c in cycle.classes if not c.kind.awaited])
    for lock_class in cycle.classes:
        where = draft.where(lock_class.made_at)
        if not lock_class.kind.awaited or not where:
            continue
        noun = _WORDS[lock_class.kind.name].noun.partition(" ")[0]
        if noun in ("thread", "job"):
            draft.note(f"{noun} {draft.quote(lock_class)} is any {noun} that runs the function at {where}")
        else:
            draft.note(f"{draft.quote(lock_class)} is any {noun} created at {where}")


def _counts(draft: Draft, cycle: Cycle) -> None:
    size = len(cycle.classes)
    if len(cycle.counts) == size <= 8:
        shown = [
            f"{draft.quote(c)} -> {draft.quote(cycle.classes[(i + 1) % size])} {times(cycle.counts[i])}"
            for i, c in enumerate(cycle.classes)
        ]
        draft.note(f"orders recorded: {', '.join(shown)} (once for each thread and path, not for each time)")


def _helps(draft: Draft, links: Sequence[_Link]) -> None:
    wait = links[0]
    words = _WORDS[wait.target.kind.name]
    name = draft.quote(wait.target)
    draft.help(
        draft.leave(wait.source, wait.witness.held_at, words.before.format(name), wait.witness.taken_at)
        or f"release {draft.quote(wait.source)} before {words.before.format(name)}"
    )
    last = links[-1]
    lock, where = draft.quote(last.target), draft.paren(last.witness.taken_at)
    if len(links) == 2 and last.source.kind.awaited == "party":
        draft.help(f"do without {lock} in {name}{where}")
    elif len(links) == 2 and wait.target.kind.name == "place":
        draft.help(f"make the queue unbounded, or put with a timeout and say what happens when it is full{where}")
    elif len(links) == 2 and last.source.kind.name in ("event", "condition"):
        draft.help(f"let the signal come before {lock} is taken{where}, if it doesn't need what {lock} protects")


# --- a pool that waits for itself -----------------------------------------------------------------


def write_slot(draft: Draft, facts: SlotFacts) -> None:
    """CTX006, a job that waits for a later job of its own pool."""
    pool, job = draft.quote(facts.pool), draft.quote(facts.job)
    owner = draft.owner(draft.finding.owner)
    mine = draft.quote(facts.waiting) if facts.waiting is not None else "a job"
    what = f"{mine}, a job of pool {pool}, waits for {job}, a later job of the same pool"
    if draft.finding.grade == "unlikely":
        short = "the wait has a timeout" if facts.timed else "other workers are free"
        draft.message = f"{what} (unlikely: {short})"
    else:
        draft.message = f"possible deadlock: {what}"
    draft.site("now", draft.finding.trace, f"{owner} waits for {job} here")
    draft.site("held_now", facts.began_at, f"and keeps a worker of {pool} for {mine}, which is this")
    name = f": {plain(facts.waiting.name)}" if facts.waiting is not None else ""
    titles = (f"worker A{name}", f"job B: {plain(facts.job.name)}")
    draft.scenario = Scenario(
        titles,
        (
            Step(0, "takes the last free worker"),
            Step(0, f"result(job {draft.name(facts.job)})", titles[1]),
            Step(1, f"start(pool {draft.name(facts.pool)})", titles[0]),
        ),
        "both wait for ever" if not facts.timed else "both wait until one gives up",
    )
    draft.stack("stack now", draft.finding.owner, draft.finding.trace)
    workers = f"{facts.workers} worker{'' if facts.workers == 1 else 's'}"
    draft.note(
        f"the pool has at most {workers}, and {facts.inside} of its jobs waited like this: it hangs when every worker "
        "does so at once"
    )
    where = draft.where(facts.pool.made_at)
    draft.note(f"{pool} is any pool created at {where}" if where else "")
    if facts.timed:
        draft.note("the wait has a timeout: it gives up by itself, so this stalls and doesn't hang")
    draft.help(
        f"call {job} directly in {mine}, or return and let whoever submitted {mine} wait for both",
        f"run {job} in a pool of its own",
    )
    draft.allow_locks((facts.pool, facts.job), "if there are always enough workers")
