"""Reports on tasks, and on generators: CTX104."""

from __future__ import annotations

from typing import Final

from ctxcheck.engine.findings import SuspendFacts
from ctxcheck.engine.violations import Scenario, Step
from ctxcheck.reports.draft import Draft, at_end_of, here
from ctxcheck.reports.sourcetext import as_call, function_name

_ASYNC: Final = 0x200  # CO_ASYNC_GENERATOR


def write_suspend(draft: Draft, facts: SuspendFacts) -> None:
    """CTX104."""
    if facts.way == "awaits":
        _write_awaits(draft, facts)
    else:
        _write_left(draft, facts)


def _write_awaits(draft: Draft, facts: SuspendFacts) -> None:
    finding = draft.finding
    lock, name = draft.quote(facts.lock_class), draft.name(facts.lock_class)
    task, thread = draft.owner(finding.owner), draft.owner(facts.thread)
    held = facts.held.trace
    generator = as_call(function_name(facts.generator)) if facts.generator else ""
    if generator:
        what = f"awaits while the generator {generator} holds {lock}"
    elif facts.greenlet.codes:
        what = f"awaits, through a greenlet, while it holds {lock}"
    else:
        what = f"awaits while it holds {lock}"
    draft.message = f"suspended with a thread lock held: {task} {what}"
    draft.site("now", finding.trace, f"{task} is suspended here")
    draft.site("held_now", held, f"while holding {lock}, {here(draft.exact(facts.held))}")
    draft.site("then", facts.yields, f"the generator {generator} is suspended at this `yield`")
    function = draft.call(held)
    titles = (f"{task}: {function}" if function else task, f"another task of {thread}")
    first = (Step(0, f"lock({name})"), *((Step(0, "yield"),) if generator else ()), Step(0, "await"))
    draft.scenario = Scenario(
        titles,
        (*first, Step(1, f"lock({name})", titles[0])),
        f"{thread} is blocked, and with it the task that could release the lock",
    )
    draft.held.append(name)
    draft.stack("stack", finding.owner, finding.trace)
    draft.stack("stack of the generator", finding.owner, facts.yields)
    draft.stack("stack of the acquire", finding.owner, held)
    draft.note(f"{thread} goes on with other tasks meanwhile, and {lock} stays held until this one is resumed")
    if generator:
        draft.note(f"{generator} gives {lock} back when it is asked for its next item, or closed")
    if facts.greenlet.codes:
        draft.note("the greenlet runs code that can't await, which is suspended with its task all the same")
    if facts.lock_class.kind.reentrant:
        draft.note(f"{lock} is re-entrant: another task of this thread that takes it gets in, though it is held")
    draft.made_at([facts.lock_class])
    if generator:
        _help_generator(draft, facts, generator, "before the `await`")
    elif facts.greenlet.codes:
        _help_release(draft, facts, "and do what awaits (a query, say) before or after it")
    else:
        draft.help("use `asyncio.Lock` and `async with`, if only tasks of one loop share the data")
        block = draft.block(held)
        if block:
            draft.help(f"await before or after {block}, and keep what is inside free of `await`")
        else:
            draft.help(f"release {lock}{draft.paren(held)} before the `await`, and take it again after it")
    draft.allow_line(finding.trace)


def _write_left(draft: Draft, facts: SuspendFacts) -> None:
    """A generator was left suspended by the thread or task that ran it, or closed by another one."""
    finding = draft.finding
    lock, name = draft.quote(facts.lock_class), draft.name(facts.lock_class)
    generator = as_call(function_name(facts.generator))
    holder = draft.owner(facts.holder)
    held = facts.held.trace
    if facts.way == "left":
        when = at_end_of(facts.at_end)
        draft.message = f"generator left suspended with a lock held: {generator} of {holder} still held {lock} {when}"
    else:
        by = draft.owner(finding.owner)
        draft.message = (
            f"generator left suspended with a lock held: {generator} of {holder} held {lock} until {by} closed it"
        )
    was = "is" if facts.way == "left" else "was"
    draft.site("now", finding.trace, f"{generator} {was} suspended at this `yield`")
    draft.site("held_now", held, f"while holding {lock}, {here(draft.exact(facts.held))}")
    draft.held.append(name)
    title = "stack of the generator" if facts.way == "left" else "stack of its closing"
    draft.stack(title, finding.owner, finding.trace)
    draft.stack("stack of the acquire", facts.holder, held)
    stays = "stays" if facts.way == "left" else "stayed"
    draft.note(f"nobody has asked {generator} for its next item, and so {lock} {stays} held: whoever needs it waits")
    if facts.way == "closed":
        draft.note("a generator that nobody refers to is closed by the collector, in any thread and any time later")
    draft.made_at([facts.lock_class])
    _help_generator(draft, facts, generator, "and ask for all items, or close it")
    draft.allow_line(finding.trace)


def _help_generator(draft: Draft, facts: SuspendFacts, generator: str, then: str) -> None:
    block = draft.block(facts.held.trace)
    inside = f" inside {block}" if block else ""
    draft.help(f"collect the items{inside} into a list, and `yield` them after it")
    if then.startswith("before"):
        draft.help(f"make a list of {generator} {then}: then it is done, and has given the lock back")
    elif facts.yields.codes and facts.yields.codes[-1].co_flags & _ASYNC:
        draft.help(f"run it in `async with contextlib.aclosing({generator}):`, {then}")
    else:
        draft.help(f"run it in `with contextlib.closing({generator}):`, {then}")


def _help_release(draft: Draft, facts: SuspendFacts, then: str) -> None:
    block = draft.block(facts.held.trace)
    lock = draft.quote(facts.lock_class)
    draft.help(f"leave {block or lock + draft.paren(facts.held.trace)} first, {then}")
    draft.help("use `asyncio.Lock` around the call of the bridge, if only tasks of one loop share the data")
