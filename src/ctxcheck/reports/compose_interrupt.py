"""Reports on code that interrupts other code of its thread: CTX004 and CTX005."""

from __future__ import annotations

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.finalizing import finalizer_of
from ctxcheck.engine.findings import InterruptFacts
from ctxcheck.engine.graph import Witness
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.usage import Hazard, family
from ctxcheck.engine.violations import Scenario, Step
from ctxcheck.reports.draft import Draft, and_list, context_name, context_text, here
from ctxcheck.reports.sourcetext import call_name, plain

#: One order on the way: what was held, what was asked for, and how that was seen.
_Order = tuple[LockClass, LockClass, Witness]


def write_interrupt(draft: Draft, facts: InterruptFacts) -> None:
    """CTX004 and CTX005."""
    hazard = facts.hazard
    context = context_name(hazard.context)
    orders = _orders(hazard)
    held, wanted = draft.quote(hazard.held), draft.quote(hazard.wanted)
    if orders:
        others = f"{context} code waits for {wanted}, whose holder may wait for {held}"
        what = f"{others}, which is held where {context} can interrupt"
    else:
        what = f"{context} code waits for {wanted}, which is also held where {context} can interrupt"
    doubt, why = _doubt(draft, hazard)
    draft.message = f"{what} (unlikely: {doubt})" if doubt else f"possible deadlock: {what}"
    draft.note(why)
    finalizer = finalizer_of(hazard.interrupted.taken_at)
    if finalizer:
        draft.note(
            f"`{call_name(finalizer)}` is a finalizer: it runs where the last reference goes, or wherever the "
            "collector happens to find a circle that nobody refers to"
        )
    _sites(draft, hazard, orders)
    if hazard.cycle.reason not in ("guarded", "handed over", "flag", "asks"):
        draft.scenario = _scenario(draft, hazard, orders)
    interrupted = hazard.interrupted
    draft.stack(f"stack in {context_text(hazard.context)}", hazard.by, interrupted.taken_at)
    draft.stack("stack of the code that it can interrupt", interrupted.owner, interrupted.held_at)
    for index, (_, _, witness) in enumerate(orders, 1):
        number = f"order {index}" if len(orders) > 1 else "the order"
        draft.stack(f"stack of {number}", witness.owner, witness.taken_at)
    if not doubt:
        second = "" if orders else ", and no second thread"
        draft.note(f"this run has not hung on it so far; it takes {context} to come at one bad moment{second}")
    draft.made_at(hazard.cycle.classes)
    _helps(draft, hazard, orders)
    draft.allow_locks(hazard.cycle.classes, f"if {context} can't come while {held} is held")


def _orders(hazard: Hazard) -> list[_Order]:
    """The orders that lead from what the context waits for to what the interrupted code holds."""
    classes, witnesses = hazard.cycle.classes, hazard.cycle.witnesses
    size = len(classes)
    way = [(hazard.at + step) % size for step in range(1, size)]
    return [(classes[i], classes[(i + 1) % size], witnesses[i]) for i in way]


def _sites(draft: Draft, hazard: Hazard, orders: list[_Order]) -> None:
    context = context_name(hazard.context)
    held, wanted = draft.quote(hazard.held), draft.quote(hazard.wanted)
    interrupted = hazard.interrupted
    timeout = ", with a timeout" if interrupted.taken_mode.timed else ""
    shared = ", shared" if interrupted.taken_mode.shared else ""
    draft.site("now", interrupted.taken_at, f"{context} code waits for {wanted} here{shared}{timeout}")
    owner = draft.owner(interrupted.owner)
    heading = "" if not orders else f"{held} is held where {context} can interrupt"
    shared = " shared" if interrupted.held_mode.shared else ""
    draft.site("then", interrupted.held_at, f"{owner} holds {held}{shared} from here on, open to {context}", heading)
    for index, (source, target, witness) in enumerate(orders, 1):
        first, second = draft.quote(source), draft.quote(target)
        number = f"order {index} of {len(orders)}: " if len(orders) > 1 else ""
        heading = f"{number}{first} then {second}, by {draft.owner(witness.owner)}"
        draft.site("then", witness.taken_at, f"acquired {second} here", heading)
        exact = here(draft.sources.encloses(witness.held_at, witness.taken_at))
        draft.site("held_then", witness.held_at, f"while holding {first}, {exact}")


def _scenario(draft: Draft, hazard: Hazard, orders: list[_Order]) -> Scenario:
    interrupted = hazard.interrupted
    # a lock may be held from a function on that has returned since, but where it was taken is what can be shown
    functions = [_function(interrupted.held_at), *(_function(witness.held_at) for _, _, witness in orders)]
    titles: list[str] = []
    for index, function in enumerate(functions):
        letter = chr(ord("A") + index) if index < 26 else str(index + 1)
        name = f"thread {letter}" if orders else "one thread"
        titles.append(f"{name}: {function}" if function else name)
    steps = [Step(0, f"lock({draft.name(hazard.held)})")]
    steps += [Step(i, f"lock({draft.name(source)})") for i, (source, _, _) in enumerate(orders, 1)]
    steps.append(Step(0, f"<{context_text(hazard.context)} interrupts>"))
    steps.append(Step(0, f"lock({draft.name(hazard.wanted)})", titles[1 % len(titles)]))
    steps += [
        Step(i, f"lock({draft.name(target)})", titles[(i + 1) % len(titles)])
        for i, (_, target, _) in enumerate(orders, 1)
    ]
    until = " until the wait gives up" if hazard.cycle.reason == "timed" else " for ever"
    every = {0: "it waits for itself", 1: "both wait"}.get(len(orders), f"all {len(titles)} wait")
    return Scenario(tuple(titles), tuple(steps), every + until)


def _function(trace: Trace) -> str:
    return call_name(trace.function()) if trace.codes else ""


def _doubt(draft: Draft, hazard: Hazard) -> tuple[str, str]:
    """Why it is graded unlikely: in a few words, and as a sentence."""
    cycle, context, held = hazard.cycle, context_name(hazard.context), draft.quote(hazard.held)
    if cycle.grade != "unlikely":
        return "", ""
    if cycle.reason == "guarded":
        if cycle.guard is None:
            return "a common lock keeps them apart", "in every way in which this was seen, some lock was held around it"
        guard = draft.quote(cycle.guard)
        return f"always under {guard}", (
            f"{guard} is held on both sides: {context} code gets here only if nobody holds it, and then it has "
            "interrupted none of the code that is under it"
            if len(cycle.classes) == 1
            else f"{guard} is held around two of these steps, so that no two threads can be in them at once"
        )
    if cycle.reason == "within":
        return f"only {context} code holds it there", (
            f"where {held} is held open to {context}, that is {context} code itself: it takes a second signal that "
            "comes before the first one is dealt with"
        )
    if cycle.reason == "timed":
        return "a wait has a timeout", "a wait has a timeout: it gives up by itself, so this stalls and doesn't hang"
    if cycle.reason == "handed over":
        names = and_list([draft.quote(c) for c in cycle.handed])
        return f"{names} is handed from thread to thread", (
            f"{names} was released by another thread than the one that acquired it, so to hold it is no critical "
            "section"
        )
    if cycle.reason == "asks":
        return "it asks first whether the lock is taken", (
            f"{context} code asks whether a lock is taken (`locked()`, `_is_owned()`) before it waits for "
            f"{draft.quote(hazard.wanted)}: if it goes on only when it isn't, it can't wait for what it has interrupted"
        )
    if cycle.reason == "flag":
        return "a flag of the thread keeps it out", (
            f"{context} code looks at a thread-local first that is set by the code which holds "
            f"{draft.quote(hazard.held)}: if it goes on only when that is clear, it can't wait for what it has "
            "interrupted"
        )
    if cycle.reason == "library":
        return "the standard library's own finalizer", (
            "from the finalizer to the lock it is the standard library's code alone that runs"
        )
    return "too few threads take these locks", (
        "fewer threads than it takes were seen with these locks, and one thread that takes them one after the other "
        "doesn't wait for itself"
    )


def _helps(draft: Draft, hazard: Hazard, orders: list[_Order]) -> None:
    context = context_name(hazard.context)
    held, wanted = draft.quote(hazard.held), draft.quote(hazard.wanted)
    signal = hazard.context.partition(" ")[2] if hazard.context.startswith("signal ") else ""
    if signal:
        draft.help(
            f"take no lock in {context} code: set a flag, put the work on a `queue.SimpleQueue` (it may be used "
            "there), or let `loop.add_signal_handler` run it as ordinary code"
        )
    else:
        draft.help(
            f"take no lock in {context} code: put the work on a `queue.SimpleQueue` or a `collections.deque` (both may "
            "be used there), and let ordinary code do it"
        )
    if finalizer_of(hazard.interrupted.taken_at):
        draft.help(
            "close what has to be closed by `close()` or `with`, and let the finalizer do no more than to warn, or to "
            "set a flag for ordinary code to see"
        )
    draft.help(f"try, `acquire(blocking=False)`, in {context} code, and put the work off when {wanted} is taken")
    if not orders and hazard.held.kind.name != "spin":
        draft.help(f"make {wanted} an RLock; then {context} code sees the data as its holder has left it in the middle")
    for source, target, witness in orders[:1]:
        draft.help(draft.leave(source, witness.held_at, f"taking {draft.quote(target)}", witness.taken_at))
    if signal:
        block = f"`signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.{signal}}})`"
        draft.help(f"block the signal while {held} is held, {block}, and set the mask back after it")
    draft.help(f"if {context} can be kept out while {held} is held, say so: {_masked(hazard.context)}")


def _masked(context: str) -> str:
    text = family(plain(context))
    quoted = f'"{text}"' if text.isprintable() and not set(text) & set('"`\\') else "..."
    return f"`with ctxcheck.masked({quoted}):`"
