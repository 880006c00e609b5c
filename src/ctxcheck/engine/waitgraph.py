"""Who waits for whom, right now.

The graph isn't kept: each owner knows the lock that it waits for, each lock who holds it, and that is followed when
somebody asks.  Nothing here takes a lock or waits, so it may run in a signal handler, whatever that interrupted, and
while every other thread is stuck.  What it sees may change under its eyes: a cycle counts only if it is seen twice
(:func:`same_waits`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Literal, cast, final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.owner import VOID, Node, Owner, OwnerState, Reentry
from ctxcheck.engine.raw import monotonic
from ctxcheck.engine.sites import Trace

#: (owner, what it holds, what it waits for), each waiting for the next one's
WaitCycle = list[tuple[OwnerState, LockClass, LockClass]]


def holders(lock: Any) -> list[Node]:
    """Where the owners stand that hold a lock, as far as they are known: several may share it."""
    lock_class = class_of(lock)
    if lock_class is not None and lock_class.kind.resource:
        return []  # whoever releases it ends the wait, not who acquired it
    kind = cast("Any", type(lock))
    several = getattr(kind, "holders", None)
    found = several(lock) if several is not None else [getattr(lock, "node", None)]
    nodes = [node.node if type(node) is Reentry else node for node in found]
    return [node for node in nodes if isinstance(node, Node) and node is not VOID and node.step.lock_class is not None]


def class_of(lock: Any) -> LockClass | None:
    """The class of a lock record."""
    found = getattr(lock, "lock_class", None)
    if found is None:
        found = getattr(getattr(lock, "step", None), "lock_class", None)
    return found if isinstance(found, LockClass) else None


def cycle_from(state: OwnerState, lock: Any, *, timed: bool = False) -> WaitCycle | None:
    """Follow "waits for a lock that is held by" from this owner, which waits for ``lock``; return the cycle back to it.

    A lock that is shared is waited for until all let go of it, so one way back is enough.  Owners that give up by
    themselves end nothing for ever, and are passed by only with ``timed``.  O(what is waited for).
    """
    # (owner, what it waits for) -> how it was come by: the owner before, and the node that it waits for
    came: dict[OwnerState, tuple[OwnerState, Node]] = {}
    todo = [(state, lock)]
    while todo:
        at, wanted = todo.pop()
        for node in holders(wanted):
            holder = node.state
            if holder is state:
                return _path(state, came, at, node)
            if holder in came or holder.waiting is None or (holder.until is not None and not timed):
                continue
            came[holder] = (at, node)
            todo.append((holder, holder.waiting))
    return None


def _path(state: OwnerState, came: dict[OwnerState, tuple[OwnerState, Node]], at: OwnerState, node: Node) -> WaitCycle:
    links: list[tuple[OwnerState, Node]] = [(at, node)]  # (who waits, for what)
    while at is not state:
        at, node = came[at]
        links.append((at, node))
    links.reverse()
    classes = [node.step.lock_class for _, node in links]
    # owner i holds what owner i - 1 waits for
    return [(links[i][0], classes[i - 1], classes[i]) for i in range(len(links))]  # type: ignore[misc]


# --- a snapshot -------------------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Held:
    """One lock that an owner holds: ``trace`` is where it first took it on this path."""

    lock_class: LockClass
    trace: Trace


@final
@dataclass(frozen=True, slots=True)
class Holder:
    """One holder of what somebody waits for: ``gone`` if it has ended."""

    owner: Owner
    gone: bool


@final
@dataclass(frozen=True, slots=True)
class Standing:
    """What one owner is doing: ``wants`` is the name of what it waits for, if it does.

    ``seconds`` is how long it has waited, ``left`` how long until it gives up (``None``: never).  ``by`` are the
    holders that are known; if there are none, ``unknown`` says why.  ``here`` is the owner's stack now, or where it is
    suspended.
    """

    owner: Owner
    held: tuple[Held, ...]
    here: Trace
    wants: str = ""
    seconds: float = 0.0
    left: float | None = None
    by: tuple[Holder, ...] = ()
    unknown: Literal["", "resource", "unchecked"] = ""
    suspended: bool = False


@final
@dataclass(frozen=True, slots=True)
class Link:
    """One owner of a cycle: it holds ``holds`` and waits for ``wants``; ``timed`` if it gives up by itself."""

    owner: Owner
    holds: LockClass
    wants: LockClass
    timed: bool


@final
@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every owner that holds or waits, or did; the cycles among them, and how many threads are not checked."""

    standings: tuple[Standing, ...]
    cycles: tuple[tuple[Link, ...], ...]
    others: int


def snapshot(states: list[OwnerState], cycles: list[WaitCycle]) -> Snapshot:
    """What these owners are doing now; ``cycles`` are those that were seen twice."""
    frames = sys._current_frames()
    now = monotonic()
    standings = tuple(
        _standing(state, frames, now)
        for state in sorted(states, key=lambda state: state.owner.serial)
        if not state.ended and state.owner.ident in frames
    )
    known = {state.owner.ident for state in states}
    linked = tuple(
        tuple(Link(state.owner, holds, wants, state.until is not None) for state, holds, wants in cycle)
        for cycle in cycles
    )
    return Snapshot(standings, linked, sum(ident not in known for ident in frames))


def _standing(state: OwnerState, frames: dict[int, Any], now: float) -> Standing:
    state.owner.learn_name()
    state.owner.thread.learn_name()
    released = set(state.drops)
    held = tuple(
        Held(node.step.lock_class, node.trace)
        for node in reversed(list(state.cur.held()))
        if node.step.lock_class is not None
        and node.stands_for not in released
        and node.stands_for.state is state
        and not node.step.lock_class.kind.awaited
    )
    here, suspended = state.stack(frames), state.is_suspended()
    lock, since, until = state.waiting, state.since, state.until
    if lock is None:
        return Standing(state.owner, held, here, suspended=suspended)
    lock_class = class_of(lock)
    by: list[Holder] = []
    for node in holders(lock):
        owner = node.state.owner
        owner.learn_name()
        by.append(Holder(owner, node.state.ended or owner.ident not in frames))
    unknown: Literal["", "resource", "unchecked"] = ""
    if not by:
        unknown = "resource" if lock_class is None or lock_class.kind.resource else "unchecked"
    left = None if until is None else max(0.0, until - now)
    name = type(lock).__name__ if lock_class is None else lock_class.name
    return Standing(state.owner, held, here, name, max(0.0, now - since), left, tuple(by), unknown, suspended)


def waits(states: list[OwnerState], *, timed: bool = True) -> list[tuple[WaitCycle, tuple[float, ...]]]:
    """Every cycle of owners that wait for each other, each once, and since when each of them waits.

    Without ``timed``, only those in which nobody gives up by himself.
    """
    found: list[tuple[WaitCycle, tuple[float, ...]]] = []
    told: set[OwnerState] = set()
    for state in states:
        lock = state.waiting
        if lock is None or state in told or state.ended or (state.until is not None and not timed):
            continue
        cycle = cycle_from(state, lock, timed=timed)
        if cycle is not None:
            told.update(link[0] for link in cycle)
            found.append((cycle, tuple(link[0].since for link in cycle)))
    return found


def same_waits(
    before: list[tuple[WaitCycle, tuple[float, ...]]], now: list[tuple[WaitCycle, tuple[float, ...]]]
) -> list[WaitCycle]:
    """The cycles that are there both times, by the same waits."""
    return [cycle for cycle, since in now if (cycle, since) in before]
