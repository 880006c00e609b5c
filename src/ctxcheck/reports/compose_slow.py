"""Reports on calls that block: CTX103 and CTX105."""

from __future__ import annotations

import re
from typing import Final

from ctxcheck.engine.classes import EVENT_LOOP
from ctxcheck.engine.findings import SleepFacts, SlowFacts
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.violations import Scenario
from ctxcheck.engine.violations import Step as Row
from ctxcheck.reports.compose_context import context_here, context_rows
from ctxcheck.reports.draft import Draft, here
from ctxcheck.reports.sourcetext import as_call, call_name, code, short_name, visible

#: A call as it is written: what is called, and its arguments.
_CALL: Final = re.compile(r"([A-Za-z_][\w.]*)\(([^()]*)\)")
_MAX_CALL: Final = 60
#: What to do instead on an event loop, by the name of the call.
_INSTEAD: Final = {
    "time.sleep": "await `asyncio.sleep(...)`",
    "Event.wait": "use `asyncio.Event`, and have a thread set it by `loop.call_soon_threadsafe(event.set)`",
    "Condition.wait": "use `asyncio.Condition`, if only tasks of one loop take part",
    "Queue.get": "use `asyncio.Queue`, and have a thread put by `loop.call_soon_threadsafe(queue.put_nowait, item)`",
    "Queue.put": "use `asyncio.Queue`, and have a thread get by `asyncio.run_coroutine_threadsafe(queue.get(), loop)`",
    "SimpleQueue.get": "use `asyncio.Queue`, and put by `loop.call_soon_threadsafe(queue.put_nowait, item)`",
    "Future.result": "await `asyncio.wrap_future(future)`",
    "Future.exception": "await `asyncio.wrap_future(future)`",
    "concurrent.futures.wait": "await `asyncio.wait([asyncio.wrap_future(f) for f in futures])`",
    "concurrent.futures.as_completed": "iterate over `asyncio.as_completed(map(asyncio.wrap_future, futures))`",
    "Executor.shutdown": "await `asyncio.to_thread(executor.shutdown)`, or `shutdown(wait=False)`",
    "subprocess.Popen": "await `asyncio.create_subprocess_exec(...)`",
    "Popen.wait": "await `asyncio.create_subprocess_exec(...)` and its `wait()`",
    "Popen.communicate": "await `asyncio.create_subprocess_exec(...)` and its `communicate()`",
    "os.system": "await `asyncio.create_subprocess_shell(...)`",
    "socket.getaddrinfo": "await `loop.getaddrinfo(...)`",
    "socket.gethostbyname": "await `loop.getaddrinfo(...)`",
    "socket.connect": "await `asyncio.open_connection(...)`, or `loop.sock_connect` on a non-blocking socket",
    "socket.recv": "await `loop.sock_recv(...)` on a non-blocking socket",
    "socket.send": "await `loop.sock_sendall(...)` on a non-blocking socket",
    "socket.sendall": "await `loop.sock_sendall(...)` on a non-blocking socket",
    "socket.accept": "await `loop.sock_accept(...)` on a non-blocking socket",
}


def write_loop(draft: Draft, facts: SleepFacts) -> None:
    """CTX103."""
    finding = draft.finding
    who = draft.owner(finding.owner)
    what = code(short_name(facts.what))
    draft.message = f"blocking call on an event loop: {what} may block the thread, and with it all tasks of the loop"
    declared = draft.where(facts.declared)
    marker = f": declared @might_sleep at {declared}" if declared and facts.how == "marked" else ""
    through = _through(facts, finding.trace)
    label = "may sleep" if facts.how in ("marked", "start", "end") else "may block the thread"
    draft.site("now", finding.trace, f"{label}{marker}{f', in {code(through)}' if through else ''}")
    first = _coroutine(finding.trace)
    if first.codes and draft.where(first) != draft.where(finding.trace):
        draft.site("entered", first, f"in a step of {who}" if who.startswith("task") else "in a callback of the loop")
    context_rows(draft, facts.chain, who)
    context_here(draft, "blocks", short_name(facts.what), "called at")
    draft.stack("stack", finding.owner, facts.full if facts.full.codes else finding.trace)
    if facts.why:
        draft.note(facts.why)
    if finding.grade == "unlikely":  # why, first: the short form shows that alone
        draft.note("it writes a log, a line at a time: rarely slow, unless the disk is")
    if facts.what == "file.write" and not through and _is_other_call(draft, "write"):
        draft.note("what is written here is what the file still has in its buffer")
    draft.note("it may have returned at once this time; the rule is about the time when it doesn't")
    if finding.grade == "unlikely":
        draft.help("let the loop's code log to a `logging.handlers.QueueHandler`, and a `QueueListener` write the file")
    else:
        draft.help(_INSTEAD.get(facts.what, ""))
        function = through[:-2] or short_name(facts.what)
        arguments = _as_arguments(draft)
        if not arguments and _is_inner(facts, finding.trace):  # nobody calls that by name
            draft.help("move all of it to a thread: put it into a function, and `await asyncio.to_thread(...)` that")
        else:
            draft.help(f"move it to a thread: `await asyncio.to_thread({arguments or f'{function}, ...'})`")
        if facts.declared.codes:
            draft.help(f"if {as_call(facts.what)} never blocks, remove @might_sleep{draft.at(facts.declared)}")
    draft.allow_line(finding.trace)


def _through(facts: SleepFacts, trace: Trace) -> str:
    """The library's function that the program called, if it isn't the call itself."""
    above = len(facts.full.codes) - len(trace.codes)
    return call_name(facts.full.codes[above - 1].co_qualname) if above > 0 else ""


def _is_inner(facts: SleepFacts, trace: Trace) -> bool:
    """Whether the library's function that the program called has no name for it: the end of a block, an iteration,
    what only the library calls by its name, a function within another."""
    above = len(facts.full.codes) - len(trace.codes)
    qualname = str(facts.full.codes[above - 1].co_qualname) if above > 0 else ""
    return "<locals>" in qualname or qualname.rpartition(".")[2].startswith("_")


def _as_arguments(draft: Draft) -> str:
    """``function, argument`` for the call that stands at the first site; empty if that isn't one plain call."""
    site = draft.sites[0]
    call = _CALL.fullmatch(site.text[site.column : site.end_column]) if 0 <= site.column < site.end_column else None
    if call is None or len(call[0]) > _MAX_CALL:
        return ""
    return ", ".join(part for part in (call[1], call[2].strip()) if part)


def _is_other_call(draft: Draft, name: str) -> bool:
    """Whether the text at the first site is known, and has no call of something with ``name`` in its own."""
    site = draft.sites[0]
    return 0 <= site.column < site.end_column and name not in site.text[site.column : site.end_column].partition("(")[0]


def _coroutine(trace: Trace) -> Trace:
    """The outermost of the program's own calls: the task's coroutine, or the callback."""
    entries = visible(trace)
    if not entries:
        return Trace((), ())
    scope, lasti = entries[-1]
    return Trace((scope,), (lasti,))


def write_slow(draft: Draft, facts: SlowFacts) -> None:
    """CTX105."""
    taken, over = facts.taken, facts.over
    lock, name = draft.quote(facts.lock_class), draft.name(facts.lock_class)
    call = code(short_name(over.call))
    on_loop = taken.inside.step is EVENT_LOOP
    holder, waiter = draft.owner(over.owner), draft.owner(taken.owner)
    where = "an event loop" if on_loop else f"atomic context {draft.entry_name(taken.inside)}"
    draft.message = f"slow call under a lock: {call} may block while {lock} is held, and {where} waits for {lock}"
    draft.site("now", over.trace, f"{holder} may block here")
    draft.site("held_now", over.held.trace, f"while holding {lock}, {here(draft.exact(over.held))}")
    heading = f"{waiter} waits for the same lock {'on its event loop' if on_loop else 'where it must not sleep'}"
    draft.site("then", taken.trace, f"may wait for {lock} here, until {call} returns", heading)
    functions = ((holder, draft.call(over.trace)), (waiter, draft.call(taken.trace)))
    columns = tuple(f"{owner}: {function}" if function else owner for owner, function in functions)
    stalled = "the loop and all its tasks are" if on_loop else "atomic code is"
    if columns[0] == columns[1]:
        columns = (f"{columns[0]} (1)", f"{columns[1]} (2)")
    draft.scenario = Scenario(
        columns,
        (
            Row(0, f"lock({name})"),
            Row(0, f"{short_name(over.call)} ..."),
            Row(1, f"lock({name})", columns[0]),
        ),
        f"{stalled} stalled for as long as {short_name(over.call)} takes",
    )
    draft.held.append(name)
    draft.stack("stack of the slow call", over.owner, over.trace)
    draft.stack("stack of the acquire", taken.owner, taken.trace)
    # the short form shows the first note alone: there, why it is doubted
    if facts.why == "alone":
        draft.note(f"only {holder} was seen to take {lock}, so that nobody waited for it")
    elif facts.why == "timed":
        draft.note("the acquire gives up after a while")
    elif facts.why == "handed over":
        draft.note(f"{lock} is released by others than took it, so that what is done meanwhile isn't under it")
    draft.note("neither place is wrong alone: a short critical section may be entered there")
    draft.made_at([facts.lock_class])
    block = draft.block(over.held.trace)
    outside = f"before or after {block}" if block else f"without {lock}"
    draft.help(f"make the slow call {outside}, and hold the lock only while the data changes")
    if on_loop:
        draft.help(f"take {lock} in a thread: put what needs it into a function, and `await asyncio.to_thread(...)` it")
        draft.help("use a lock for the slow part of its own, which no task takes")
    else:
        draft.help(f"try, `acquire(blocking=False)`, with a way to go on when {lock} is taken")
    draft.allow_locks([facts.lock_class], "if nobody is kept waiting")
