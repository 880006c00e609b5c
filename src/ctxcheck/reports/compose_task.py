"""Reports on tasks: CTX104."""

from __future__ import annotations

from ctxcheck.engine.findings import SuspendFacts
from ctxcheck.engine.violations import Scenario, Step
from ctxcheck.reports.draft import Draft, here


def write_suspend(draft: Draft, facts: SuspendFacts) -> None:
    """CTX104."""
    finding = draft.finding
    lock, name = draft.quote(facts.lock_class), draft.name(facts.lock_class)
    task, thread = draft.owner(finding.owner), draft.owner(facts.thread)
    held = facts.held.trace
    draft.message = f"suspended with a thread lock held: {task} awaits while it holds {lock}"
    draft.site("now", finding.trace, f"{task} is suspended here")
    draft.site("held_now", held, f"while holding {lock}, {here(draft.exact(facts.held))}")
    function = draft.call(held)
    titles = (f"{task}: {function}" if function else task, f"another task of {thread}")
    draft.scenario = Scenario(
        titles,
        (Step(0, f"lock({name})"), Step(0, "await"), Step(1, f"lock({name})", titles[0])),
        f"{thread} is blocked, and with it the task that could release the lock",
    )
    draft.held.append(name)
    draft.stack("stack", finding.owner, finding.trace)
    draft.stack("stack of the acquire", finding.owner, held)
    draft.note(f"{thread} goes on with other tasks meanwhile, and {lock} stays held until this one is resumed")
    if facts.lock_class.kind.reentrant:
        draft.note(f"{lock} is re-entrant: another task of this thread that takes it gets in, though it is held")
    draft.made_at([facts.lock_class])
    draft.help("use `asyncio.Lock` and `async with`, if only tasks of one loop share the data")
    block = draft.block(held)
    if block:
        draft.help(f"await before or after {block}, and keep what is inside free of `await`")
    else:
        draft.help(f"release {lock}{draft.paren(held)} before the `await`, and take it again after it")
    draft.allow_line(finding.trace)
