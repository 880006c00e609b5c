"""Reports on the order of locks: CTX001, in a run that got past it and in one that hangs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ctxcheck.engine.classes import MIGHT_ENTER, REGION, LockClass, Mode
from ctxcheck.engine.findings import OrderFacts, Waiter
from ctxcheck.engine.grading import Cycle
from ctxcheck.engine.graph import Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import EMPTY, Trace
from ctxcheck.engine.violations import Scenario, Step
from ctxcheck.reports.draft import Draft, and_list, here, times
from ctxcheck.reports.sourcetext import call_name, plain

#: Names of a cycle that a headline lists; of a longer one the middle is left out.
_MAX_NAMES: Final = 8


class _Order(NamedTuple):
    """One order of a cycle: ``owner`` held ``source`` (``held_at``) when it asked for ``target`` (``taken_at``).

    Of an owner that is stuck it may not be known where it took what it holds; then that trace is empty.
    """

    source: LockClass
    target: LockClass
    owner: Owner
    held_at: Trace
    taken_at: Trace
    mode: Mode | None = None
    origin: str = ""

    def outer(self) -> str:
        """The function in which it all happens: the one that took the first lock, while it still ran."""
        codes = self.taken_at.codes
        if not self.held_at.codes or self.held_at.codes[0] in codes:
            return call_name((self.held_at if self.held_at.codes else self.taken_at).function())
        for scope in self.held_at.codes:
            if any(scope is other for other in codes):
                return call_name(scope.co_qualname)
        return call_name(self.held_at.function())

    def callee(self) -> str:
        """What the function with the first lock calls on the way to the second; empty if it takes that itself."""
        for index, scope in enumerate(self.taken_at.codes):
            if scope is self.held_at.codes[0]:
                return call_name(self.taken_at.codes[index - 1].co_qualname) if index else ""
        return ""


def write_order(draft: Draft, facts: OrderFacts) -> None:
    """CTX001."""
    if facts.stuck:
        orders = _stuck_orders(facts)
        _stuck(draft, orders)
    else:
        orders = _orders(draft, facts.cycle)
        _inversion(draft, facts.cycle, orders)
    for index, order in enumerate(orders):
        if len(orders) > 2:
            title = f"stack of order {index + 1}"
        elif facts.stuck:
            title = "stack now"
        else:
            title = "stack then" if index else "stack now"
        draft.stack(title, order.owner, order.taken_at)
    draft.made_at(facts.cycle.classes)
    _counts(draft, facts.cycle)
    _helps(draft, facts.cycle, orders)
    if not facts.stuck:
        draft.allow_locks(facts.cycle.classes, "if these can never run at the same time")


def _orders(draft: Draft, cycle: Cycle) -> list[_Order]:
    """The orders of a cycle, beginning with the one that the finding was made at."""
    trace = draft.finding.trace
    size = len(cycle.classes)
    now = next((i for i, w in enumerate(cycle.witnesses) if w.taken_at is trace), size - 1)
    orders: list[_Order] = []
    for step in range(size):
        index = (now + step) % size
        witness = cycle.witnesses[index]
        orders.append(
            _Order(
                cycle.classes[index],
                cycle.classes[(index + 1) % size],
                witness.owner,
                witness.held_at,
                witness.taken_at,
                witness.taken_mode,
                plain(witness.origin),
            )
        )
    return orders


def _stuck_orders(facts: OrderFacts) -> list[_Order]:
    cycle = facts.cycle
    witnesses: dict[tuple[LockClass, LockClass], Witness] = {}
    for index, witness in enumerate(cycle.witnesses):
        witnesses[cycle.classes[index], cycle.classes[(index + 1) % len(cycle.classes)]] = witness
    orders: list[_Order] = []
    for index, waiter in enumerate(facts.stuck):
        seen = witnesses.get((waiter.holds, waiter.waits_for))
        own = seen if seen is not None and _is_by(seen, waiter) else None
        # The first one is where it waits, looked at from its own thread.  Of the others only where they took
        # their last lock is known now; where they asked for the next one was recorded before they blocked.
        taken_at = waiter.trace if index == 0 or own is None else own.taken_at
        orders.append(
            _Order(waiter.holds, waiter.waits_for, waiter.owner, own.held_at if own is not None else EMPTY, taken_at)
        )
    return orders


def _is_by(witness: Witness, waiter: Waiter) -> bool:
    """Whether it was this owner that was seen to do what it is stuck in; of orders between thread locks only the thread
    is known, and where."""
    if witness.owner is waiter.owner:
        return True
    at = witness.taken_at.codes[:1]
    return witness.owner is waiter.owner.thread and any(code is a for code in waiter.trace.codes for a in at)


# --- the headline and the places ---------------------------------------------------------


def _inversion(draft: Draft, cycle: Cycle, orders: Sequence[_Order]) -> None:
    size = len(cycle.classes)
    names = [_named(draft, c) for c in cycle.classes]
    if size == 2:
        what = f"lock order inversion between {names[0]} and {names[1]}"
    else:
        what = f"lock order cycle of {size}: {_path(names)}"
    if cycle.grade == "unlikely":
        short, reason = _doubt(draft, cycle, orders)
        draft.message = f"{what} (unlikely: {short})"
        draft.note(reason)
    else:
        draft.message = f"possible deadlock: {what}"
    for index, order in enumerate(orders):
        source, target = _named(draft, order.source), _named(draft, order.target)
        owner = draft.owner(order.owner)
        heading = ""
        if size > 2:
            heading = f"order {index + 1} of {size}: {source} then {target}, by {owner}"
        elif index:
            heading = f"the opposite order, {source} then {target}, was established by {owner}"
        how = _how(order.mode)
        did, does = _verbs(order)
        taken = f"{did} {target}{how} here" if index else f"{owner} {does} {target}{how} here"
        draft.site("then" if index else "now", order.taken_at, taken, heading)
        is_region = order.source.kind is REGION
        when = here(draft.sources.encloses(order.held_at, order.taken_at), "entered" if is_region else "acquired")
        held = f"while {'inside' if is_region else 'holding'} {source}, {when}"
        draft.site("held_then" if index else "held_now", order.held_at, held)
    if cycle.reason not in ("guarded", "readers", "handed over"):
        outcome = f"{_all_of(size)} wait for ever"
        if cycle.reason == "timed":
            outcome = f"{_all_of(size)} wait until one gives up"
        through = any(order.source.kind is REGION for order in orders)
        draft.scenario = _scenario_through(draft, orders, outcome) if through else _scenario(draft, orders, outcome)
    _when(draft, cycle, orders)


def _stuck(draft: Draft, orders: Sequence[_Order]) -> None:
    size = len(orders)
    owners = [draft.owner(order.owner) for order in orders]
    if size > _MAX_NAMES:
        draft.message = f"deadlock: {size} {orders[0].owner.kind}s wait for each other in a circle"
    else:
        # whoever notices it first, the headline is the same
        first = min(range(size), key=lambda i: plain(orders[i].source.key))
        circle = [*orders[first:], *orders[:first]]
        locks = and_list([draft.quote(order.source) for order in circle])
        how = "" if size == 2 else " in a circle"
        draft.message = f"deadlock: {_owners(draft, circle)} wait for each other{how} for {locks}"
    for index, order in enumerate(orders):
        source, target = draft.quote(order.source), draft.quote(order.target)
        heading = f"{owners[index]} holds {source} and waits for {target}" if index else ""
        label = f"{owners[index]} waits for {target} here"
        if index:
            label = f"waits for {target} here" if order.held_at.codes else "acquired its last lock here"
        draft.site("then" if index else "now", order.taken_at, label, heading)
        held = f"while holding {source}, {here(draft.sources.encloses(order.held_at, order.taken_at))}"
        draft.site("held_then" if index else "held_now", order.held_at, held)
    titles = tuple(
        f"{owner}: {order.outer()}" if order.outer() else owner for owner, order in zip(owners, orders, strict=True)
    )
    steps = [Step(i, f"holds {draft.name(order.source)}") for i, order in enumerate(orders)]
    steps += [Step(i, f"lock({draft.name(o.target)})", titles[(i + 1) % size]) for i, o in enumerate(orders)]
    draft.scenario = Scenario(titles, tuple(steps), f"{_all_of(size)} wait for ever")
    draft.note(
        "this is happening now: each of them holds what another one waits for, and none of the waits has a timeout"
    )


def _owners(draft: Draft, orders: Sequence[_Order]) -> str:
    kinds = {order.owner.kind for order in orders}
    texts = [draft.owner(order.owner) for order in orders]
    if len(kinds) > 1:
        return and_list(texts)
    kind = kinds.pop()
    return f"{kind}s {and_list([text.removeprefix(kind + ' ') for text in texts])}"


def _path(names: list[str]) -> str:
    path = [*names, names[0]]
    if len(path) > _MAX_NAMES + 1:
        path = [*path[: _MAX_NAMES - 2], "...", *path[-2:]]
    return " -> ".join(path)


def _how(mode: Mode | None) -> str:
    if mode is None:
        return ""
    words = [word for word, on in (("shared", mode.shared), ("with a timeout", mode.timed)) if on]
    return f" ({', '.join(words)})" if words else ""


def _named(draft: Draft, lock_class: LockClass) -> str:
    return f"region {draft.quote(lock_class)}" if lock_class.kind is REGION else draft.quote(lock_class)


def _verbs(order: _Order) -> tuple[str, str]:
    """What was done with the second one of an order, and what is done."""
    if order.target.kind is not REGION:
        return "acquired", "acquires"
    return ("might have entered", "may enter") if order.mode is MIGHT_ENTER else ("entered", "enters")


def _all_of(size: int) -> str:
    return {2: "both", 3: "all three"}.get(size, f"all {size}")


def _scenario(draft: Draft, orders: Sequence[_Order], outcome: str) -> Scenario:
    titles: list[str] = []
    for index, order in enumerate(orders):
        letter = chr(ord("A") + index) if index < 26 else str(index + 1)
        function = order.outer()
        titles.append(f"{order.owner.kind} {letter}" + (f": {function}" if function else ""))
    steps = [Step(i, f"lock({draft.name(order.source)})") for i, order in enumerate(orders)]
    steps += [
        Step(i, f"lock({draft.name(order.target)})", titles[(i + 1) % len(titles)]) for i, order in enumerate(orders)
    ]
    return Scenario(tuple(titles), tuple(steps), outcome)


def _scenario_through(draft: Draft, orders: Sequence[_Order], outcome: str) -> Scenario | None:
    """As :func:`_scenario`: whoever enters a region goes on as those did who were seen inside it."""
    first = next((i for i, order in enumerate(orders) if order.source.kind is not REGION), None)
    if first is None:
        return None
    # one line for each owner that waits: from the lock that it holds to the one that it asks for
    lines: list[list[_Order]] = []
    for order in (*orders[first:], *orders[:first]):
        if order.source.kind is REGION:
            lines[-1].append(order)
        else:
            lines.append([order])
    titles: list[str] = []
    for index, line in enumerate(lines):
        letter = chr(ord("A") + index) if index < 26 else str(index + 1)
        function = line[0].outer()
        titles.append(f"{line[0].owner.kind} {letter}" + (f": {function}" if function else ""))
    steps: list[Step] = []
    for i, line in enumerate(lines):
        steps.append(Step(i, f"lock({draft.name(line[0].source)})"))
        steps += [Step(i, f"enter({draft.name(order.target)})") for order in line[:-1]]
    steps += [
        Step(i, f"lock({draft.name(line[-1].target)})", titles[(i + 1) % len(titles)]) for i, line in enumerate(lines)
    ]
    end = " until " if outcome.endswith("gives up") else " for ever"
    until = ("it gives up" if len(lines) == 1 else "one gives up") if end == " until " else ""
    outcome = f"{'it waits for itself' if len(lines) == 1 else f'{_all_of(len(lines))} wait'}{end}{until}"
    return Scenario(tuple(titles), tuple(steps), outcome)


# --- facts ------------------------------------------------------------------------------


def _doubt(draft: Draft, cycle: Cycle, orders: Sequence[_Order]) -> tuple[str, str]:
    """Why a cycle is graded unlikely: in a few words, and as a sentence."""
    every = "both orders" if len(orders) == 2 else f"all {len(orders)} orders"
    if cycle.reason == "guarded":
        if cycle.guard is None:
            return (
                "a common lock keeps them apart",
                f"in every way in which {every} were seen, some lock was held around two of them, so no two threads "
                "can be in those at once",
            )
        guard = draft.quote(cycle.guard)
        under = sum(cycle.guard in witness.guards for witness in cycle.witnesses)
        which = every if under == len(orders) else f"{under} of the {len(orders)} orders"
        return (
            f"{'always ' if under == len(orders) else ''}under {guard}",
            f"{which} were only ever taken while holding {guard}, so no two threads can be in them at once",
        )
    if cycle.reason == "one owner":
        owners = {order.owner for order in orders}
        if len(owners) == 1:
            owner = draft.owner(orders[0].owner)
            return (
                f"only {owner} takes them",
                f"{every} were only ever taken by {owner}, and one {orders[0].owner.kind} that runs them one after the "
                "other doesn't wait for itself",
            )
        return (
            "too few threads take them",
            f"fewer threads than orders took these locks: {and_list(sorted(map(draft.owner, owners)))}",
        )
    if cycle.reason == "timed":
        timed = [order for order in orders if order.mode is not None and order.mode.timed]
        where = and_list([f"for {draft.quote(o.target)}{draft.paren(o.taken_at)}" for o in timed])
        return (
            "a wait has a timeout",
            f"the wait {where} has a timeout: it gives up by itself, so this stalls and doesn't hang",
        )
    if cycle.reason == "handed over":
        names = and_list([draft.quote(c) for c in cycle.handed])
        is_, was, it = ("is", "was", "it") if len(cycle.handed) == 1 else ("are", "were", "them")
        return (
            f"{names} {is_} handed from thread to thread",
            f"{names} {was} released by another thread than the one that acquired {it}, so to hold {it} is no critical "
            "section",
        )
    return "the evidence speaks against it", "what was seen speaks against a deadlock"


def _when(draft: Draft, cycle: Cycle, orders: Sequence[_Order]) -> None:
    """Note what kind of evidence this is: nothing hung, and who ran the orders."""
    every = "the two orders were" if len(orders) == 2 else "the orders were"
    origins = sorted({order.origin for order in orders} - {""})
    where = f", in {and_list(origins[:3])}" if origins else ""
    draft.note(f"this run has not hung on it so far; {every} seen at different times{where}")
    if cycle.grade == "unlikely":
        return
    regions = [c for c in cycle.classes if c.kind is REGION]
    if regions:
        names = and_list([_named(draft, c) for c in regions])
        draft.note(f"{names} is no lock: whoever enters it may do all that was done inside it, by whomever")
    elif len({order.owner for order in orders}) == 1:
        both = "both orders" if len(orders) == 2 else "all orders"
        draft.note(
            f"{both} were seen in {draft.owner(orders[0].owner)}; it becomes a deadlock when two "
            f"{orders[0].owner.kind}s run this code"
        )
    common = frozenset[LockClass].intersection(*(witness.guards for witness in cycle.witnesses)) - set(cycle.classes)
    if common:
        guard = min(common, key=lambda c: plain(c.key))
        draft.note(
            f"{draft.quote(guard)} was held around all of them, but there is more than one lock of that class, so it "
            "need not keep them apart"
        )
    elif not regions:
        draft.note("no common lock was held around these orders, so nothing keeps them apart")


def _counts(draft: Draft, cycle: Cycle) -> None:
    if len(cycle.counts) != len(cycle.classes):
        return
    size = len(cycle.classes)
    shown = [
        f"{draft.quote(cycle.classes[i])} -> {draft.quote(cycle.classes[(i + 1) % size])} {times(count)}"
        for i, count in enumerate(cycle.counts[:_MAX_NAMES])
    ]
    more = ", ..." if size > _MAX_NAMES else ""
    draft.note(f"orders recorded: {', '.join(shown)}{more} (once for each thread and path, not for each acquire)")


# --- what to do -------------------------------------------------------------------------


def _helps(draft: Draft, cycle: Cycle, orders: Sequence[_Order]) -> None:
    now, then = orders[0], orders[-1]
    if cycle.reason == "guarded" and cycle.guard is not None:
        draft.help(f"keep {draft.quote(cycle.guard)} around every place that takes these locks, or do what follows")
    if cycle.reason == "one owner":
        draft.help(f"nothing needs to change as long as one {now.owner.kind} at a time runs this code")
    source, target = draft.quote(now.source), draft.quote(now.target)
    entering = [order for order in orders if order.target.kind is REGION]
    if entering:
        _region_helps(draft, entering, orders)
        return
    left = _has_left(draft, now)
    if len(orders) == 2:
        outer, other = (call_name(o.taken_at.function()) if _has_left(draft, o) else o.outer() for o in (now, then))
        match = f"to match {other}, " if other and other != outer else ""
        inside = f" in {outer}" if outer else ""
        draft.help(
            f"pick one order and use it everywhere; {match}take {target} before {source}{inside}"
            f"{draft.paren(now.taken_at if left else now.held_at)}"
        )
    else:
        draft.help(
            "put these locks into one order, and take them in that order everywhere: one of the orders has to turn"
        )
    if left:
        draft.help(f"release {source} before taking {target}{draft.paren(now.taken_at)}")
    elif now.held_at.codes:
        callee = now.callee()
        step = f"calling {callee}" if callee else f"taking {target}"
        draft.help(draft.leave(now.source, now.held_at, step, now.taken_at))
        if callee and now.held_at.codes[0].co_filename != now.taken_at.codes[0].co_filename:
            draft.help(
                f"if {callee} is a callback or a hook, note under the lock what is to be called, and call it after the "
                "lock is released"
            )
    if len(orders) == 2:
        draft.help("use one lock for both, if they always protect the same data")
    if cycle.reason == "handed over":
        handed = and_list([draft.quote(c) for c in cycle.handed])
        draft.help(f"use a Semaphore or an Event in place of {handed}, if one thread waits there for another")


def _has_left(draft: Draft, order: _Order) -> bool:
    """Whether the block that is known to have taken the first lock was left since, on an earlier pass: to change that
    one would be no help."""
    return bool(draft.block(order.held_at)) and not draft.sources.encloses(order.held_at, order.taken_at)


def _region_helps(draft: Draft, entering: Sequence[_Order], orders: Sequence[_Order]) -> None:
    for order in entering:
        name = _named(draft, order.target)
        if order.source.kind is not REGION:
            draft.help(draft.leave(order.source, order.held_at, f"entering {name}", order.taken_at))
            draft.help(f"enter {name}{draft.paren(order.taken_at)} only where {draft.quote(order.source)} isn't held")
    for order in orders:
        if order.source.kind is REGION and order.target.kind is not REGION:
            name, target = _named(draft, order.source), draft.quote(order.target)
            where = draft.paren(order.taken_at)
            draft.help(f"inside {name}, don't take {target}{where}: try it, or leave it for later")
