"""Reports on one lock or one class of locks that is taken twice: CTX002 and CTX003."""

from __future__ import annotations

from ctxcheck.engine.classes import AWAIT
from ctxcheck.engine.findings import NestingFacts, SelfDeadlockFacts
from ctxcheck.engine.violations import Scenario, Step
from ctxcheck.reports.draft import Draft, context_name, context_text, here
from ctxcheck.reports.sourcetext import plain

_KINDS = {"lock": "plain Lock", "spin": "SpinLock", "rlock": "RLock", "aio lock": "asyncio Lock"}


def write_self_deadlock(draft: Draft, facts: SelfDeadlockFacts) -> None:
    """CTX002."""
    finding = draft.finding
    lock, name = draft.quote(facts.lock_class), draft.name(facts.lock_class)
    if facts.shared:
        _write_shared_twice(draft, facts)
        return
    owner = draft.owner(finding.owner)
    kind = _KINDS.get(facts.lock_class.kind.name, f"{plain(facts.lock_class.kind.name)} lock")
    certain = bool(facts.why_certain)
    is_aio = facts.lock_class.kind.needs == AWAIT
    others = "another task" if is_aio else "another thread"
    holder = draft.owner(facts.holder) if facts.holder is not None else ""
    context = context_name(facts.context) if facts.context else ""
    what = f"{owner} re-acquires {lock}, which it already holds"
    if context:
        what = f"{owner}, interrupted by {context}, re-acquires {lock}, which the interrupted code holds"
    elif holder:
        what = f"{owner} blocks the thread for {lock}, which {holder} of the same thread holds"
    seconds = f"{facts.waited:g} s"
    draft.message = f"{'' if certain else 'possible '}deadlock: {what}"
    if facts.waited > 0 and not certain:
        draft.message += f", and nobody has released it for {seconds}"
    article = "an" if is_aio else "a"
    itself = f"waits for itself: {lock} is {article} {kind}, which its holder can't take again"
    draft.site("now", finding.trace, f"blocks the thread that {holder} needs to release {lock}" if holder else itself)
    held = facts.held.trace
    until = ", and is held until this block ends" if facts.why_certain == "with" and draft.block(held) else ""
    by = f" by {holder}" if holder else ""
    draft.site("held_now", held, f"{lock} was {here(draft.exact(facts.held))}{by}{until}")
    function = draft.call(finding.trace)
    title = f"{owner}: {function}" if function else owner
    outcome = "it waits for itself for ever" if certain else f"it waits until {others} releases {name}"
    titles = (title, holder) if holder else (title,)
    steps = [Step(0, f"lock({name})"), Step(0, f"lock({name})", title)]
    if holder:
        steps = [Step(1, f"lock({name})"), Step(1, "await"), Step(0, f"lock({name})", holder)]
        outcome = "the thread is blocked, and both wait for ever"
    elif context:
        steps.insert(1, Step(0, f"<{context_text(facts.context)} interrupts>"))
    draft.scenario = Scenario(titles, tuple(steps), outcome)
    draft.held.append(name)
    draft.stack("stack", finding.owner, finding.trace)
    draft.note(
        {
            "with": f"{lock} is held by {'an `async with`' if is_aio else 'a `with`'} block, which only its own end "
            f"releases, and {holder or owner} can't get there",
            "alone": f"no other thread is alive that could release {lock}",
            "owned": f"nobody but its holder may release a {kind}",
        }.get(
            facts.why_certain,
            f"{article} {kind} may be released by {others}"
            + (f"; within {seconds} none did, and {owner} still waits" if facts.waited > 0 else ""),
        )
    )
    if certain:
        draft.note(
            f"such an acquire raises `DeadlockError`, whatever the mode: without it, {owner} would wait for ever"
        )
    draft.made_at([facts.lock_class])
    _self_helps(draft, facts)
    if not certain:
        draft.allow_line(finding.trace)


def _write_shared_twice(draft: Draft, facts: SelfDeadlockFacts) -> None:
    finding = draft.finding
    lock, name = draft.quote(facts.lock_class), draft.name(facts.lock_class)
    owner = draft.owner(finding.owner)
    interrupted = f", interrupted by {context_name(facts.context)}," if facts.context else ""
    doubt = " (unlikely: the wait has a timeout)" if finding.grade == "unlikely" else ""
    begins = "" if doubt else "possible deadlock: "
    takes = f"{owner}{interrupted} takes {lock} shared a second time"
    draft.message = f"{begins}{takes}, and a writer may wait in between{doubt}"
    draft.site("now", finding.trace, f"waits behind a writer that waits for the first hold of {lock}")
    draft.site("held_now", facts.held.trace, f"{lock} was {here(draft.exact(facts.held))}, shared")
    function = draft.call(finding.trace)
    titles = (f"thread A: {function}" if function else "thread A", "thread B: a writer")
    draft.scenario = Scenario(
        titles,
        (
            Step(0, f"lock({name}) shared"),
            Step(1, f"lock({name})", titles[0]),
            Step(0, f"lock({name}) shared", titles[1]),
        ),
        "both wait" if doubt else "both wait for ever",
    )
    draft.held.append(name)
    draft.stack("stack", finding.owner, finding.trace)
    draft.note(f"readers of {lock} are queued behind a writer that waits already; this time none did")
    draft.made_at([facts.lock_class])
    draft.help(f"take {lock} once, around both places")
    draft.help(
        'if its readers are let in while a writer waits, say so: `ctxcheck.track(..., shared="recursive")`, or '
        '`acquire(shared="recursive")`'
    )
    draft.allow_line(finding.trace)


def _self_helps(draft: Draft, facts: SelfDeadlockFacts) -> None:
    lock = draft.quote(facts.lock_class)
    trace, held = draft.finding.trace, facts.held.trace
    inner, outer = draft.call(trace), draft.call(held)
    is_aio = facts.lock_class.kind.needs == AWAIT
    if facts.holder is not None:
        draft.help(f"don't hold {lock} over an `await`: await before it is taken, or after it is released")
        draft.help("use `asyncio.Lock` and `async with`, if only tasks of one loop share the data")
        return
    if facts.context:
        draft.help(
            f"take no lock in {context_name(facts.context)} code: put the work on a `queue.SimpleQueue` or a "
            "`collections.deque` (both may be used there), and let ordinary code do it"
        )
    elif inner and inner != outer:
        bare = inner.removesuffix("()").rpartition(".")[2]
        draft.help(
            f"split {inner}: one that takes {lock}, and `{bare}_locked()`, which expects it to be held "
            "(`@ctxcheck.requires_lock`) and is called from under the lock"
        )
        draft.help(draft.leave(facts.lock_class, held, f"calling {inner}", trace))
    else:
        draft.help(f"take {lock} once, around both places")
    if facts.lock_class.kind.name != "spin" and not is_aio:
        draft.help(f"make {lock} an RLock, if its holder may well enter again; the data has to be consistent each time")
    if not facts.context and held.codes and trace.codes and held.codes[0].co_filename != trace.codes[0].co_filename:
        draft.help(
            f"if {inner or 'this'} is a callback, a finalizer or a log handler, have it called after the lock is "
            "released"
        )
    if not facts.why_certain:
        other = "task" if is_aio else "thread"
        draft.help(f"if another {other} is meant to release {lock}, use an Event or a Semaphore, which say so")


def write_nesting(draft: Draft, facts: NestingFacts) -> None:
    """CTX003."""
    finding = draft.finding
    lock, name = draft.quote(facts.lock_class), draft.name(facts.lock_class)
    owner = draft.owner(finding.owner)
    outer_key, inner_key = map(plain, facts.keys or ("?", "?"))
    # an order between asyncio's locks is between tasks; any other is between threads
    kind = "task" if facts.lock_class.kind.needs == AWAIT else "thread"
    stuck = finding.grade == "certain"
    message = {
        "descending": f"{lock} with order key {inner_key} is acquired while one with {outer_key} is held",
        "equal": f"two locks of class {lock} with the same order key {inner_key} are nested",
        "both": f"two locks of class {lock} are taken in both orders",
        "once": f"two locks of class {lock} are nested with no declared order",
    }[facts.reason]
    if stuck:
        draft.message = f"deadlock: {owner} and another {kind} wait for each other for two locks of class {lock}"
    elif finding.grade == "unlikely":
        doubt = "only one order was seen" if facts.reason == "once" else "only by one thread, or always under one lock"
        draft.message = f"{message} (unlikely: {doubt})"
    else:
        draft.message = f"possible deadlock: {message}"
    keyed = facts.reason in ("descending", "equal")
    takes = "waits for another" if stuck else "acquires another"
    draft.site(
        "now", finding.trace, f"{owner} {takes} {lock} here" + (f", with order key {inner_key}" if keyed else "")
    )
    key = f" with order key {outer_key}" if keyed else ""
    draft.site("held_now", facts.held.trace, f"while holding one{key}, {here(draft.exact(facts.held))}")
    function = draft.call(finding.trace)
    titles = tuple(f"{kind} {letter}" + (f": {function}" if function else "") for letter in "AB")
    first, second = f"{name} #1", f"{name} #2"
    if facts.reason == "descending":
        first, second = f"{name}, key {outer_key}", f"{name}, key {inner_key}"
    if facts.reason != "both" or finding.grade != "unlikely":
        draft.scenario = Scenario(
            titles,
            (
                Step(0, f"lock({first})"),
                Step(1, f"lock({second})"),
                Step(0, f"lock({second})", titles[1]),
                Step(1, f"lock({first})", titles[0]),
            ),
            "both wait for ever",
        )
    draft.stack("stack now" if stuck else "stack", finding.owner, finding.trace)
    for note in _nesting_notes(facts, grade=finding.grade, lock=lock, keys=(outer_key, inner_key)):
        draft.note(note)
    draft.made_at([facts.lock_class])
    if keyed:
        draft.help("sort the objects by their order keys, and take their locks in ascending order")
        if facts.reason == "equal":
            draft.help("give each lock an order key of its own: `ctxcheck.Lock(order_key=...)`")
    else:
        draft.help(
            "give the locks an order: sort the objects by something that never changes, take their locks in that "
            "order, and declare it with `ctxcheck.Lock(order_key=...)`"
        )
    draft.help(draft.leave(facts.lock_class, facts.held.trace, "taking the other one", finding.trace))
    draft.help("hold one outer lock around every place that takes two of them")
    if not keyed:
        draft.help("if the two play different parts (a parent and its child), give each part a class: `Lock(name=...)`")
    draft.allow_locks([facts.lock_class], f"if no two {kind}s can take two of them the other way round")


def _nesting_notes(facts: NestingFacts, *, grade: str, lock: str, keys: tuple[str, str]) -> list[str]:
    if grade == "certain":
        return ["this is happening now: each holds what the other one waits for, and none of the waits has a timeout"]
    if facts.reason == "descending":
        return [
            f"{lock} has an order key: a lock with a smaller one comes first, and {keys[1]} is smaller than {keys[0]}"
        ]
    if facts.reason == "equal":
        return [f"with equal keys nothing says which of the two comes first; both are {keys[1]}"]
    if facts.reason == "both":
        if grade == "unlikely":
            return [
                "both orders of these instances were seen, but by one thread only, or always under one common lock, so "
                "that they can't meet"
            ]
        return [
            "the same instances were held before in the opposite order, on this or another thread",
            "this run has not hung on it so far",
        ]
    return [
        "only one order of these instances was seen; nothing in the code says that it is always this one",
        "a class is all locks made at one place, so the order of classes doesn't say which instance comes first",
    ]
