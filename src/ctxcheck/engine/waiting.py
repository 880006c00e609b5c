"""Waiting for oneself, and for each other (CTX002, and orders that are deadlocks by now)."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from ctxcheck.engine import interrupts
from ctxcheck.engine.classes import BLOCK, LockClass, Mode
from ctxcheck.engine.errors import DeadlockError
from ctxcheck.engine.findings import Finding, NestingFacts, SelfDeadlockFacts, Waiter
from ctxcheck.engine.grading import Cycle
from ctxcheck.engine.graph import OrderGraph, Witness
from ctxcheck.engine.orders import order_finding
from ctxcheck.engine.owner import Node, OwnerState
from ctxcheck.engine.raw import allocate_lock, thread_count
from ctxcheck.engine.sites import capture
from ctxcheck.engine.waitgraph import WaitCycle, cycle_from

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator

#: Between two looks at whether another thread has come, in seconds.
ALONE_STEP: Final = 0.02


def self_deadlock(engine: Validator, state: OwnerState, lock_class: LockClass, node: Node) -> None:
    """The owner asks, without a limit, for a lock that it holds in ``node`` (CTX002), or that another task of the very
    thread holds which this call blocks.

    Raises :class:`~ctxcheck.engine.errors.DeadlockError` when nothing but this owner could release it.
    Otherwise notes that it may be waiting for a hand-off and returns: the caller blocks, as the program asked.
    """
    mode = node.step.mode
    why: Any = ""
    if lock_class.kind.owned:
        why = "owned"
    elif lock_class.kind.abroad:
        pass  # another process may release it
    elif mode is not None and mode.scoped:
        why = "with"
    elif lock_class.kind.needs == BLOCK and _stays_alone(state, node, engine.deadlock_after):
        why = "alone"
    if not why and node.state is state and state.find(node.stands_for) is None:
        return  # it was released meanwhile
    trace = capture(2)
    state.owner.learn_name()
    holder = node.stands_for.state
    holder.owner.learn_name()
    finding = Finding(
        "CTX002",
        "certain" if why else "possible",
        state.owner,
        trace,
        (lock_class.key, trace.function()),
        SelfDeadlockFacts(
            lock_class,
            engine.entry(node),
            why,
            0.0 if why else engine.deadlock_after,
            interrupts.interrupted_by(state, node),
            holder=holder.owner if holder.owner.kind == "task" and holder is not state else None,
        ),
        (lock_class,),
        engine.allowed(state.cur, "CTX002"),
    )
    if why:
        violation = engine.emit(state, finding)
        raise DeadlockError(violation)
    engine.provisional[state] = finding


def _stays_alone(state: OwnerState, node: Node, seconds: float) -> bool:
    """Whether no other thread is there for so long, in which the hold isn't given up either.

    A thread that is just starting isn't counted before it runs, and may be the one that releases; so may a signal
    handler.
    """
    pause, left = allocate_lock(), seconds
    pause.acquire()
    while thread_count() == 0 and state.owner.ident == threading.main_thread().ident:
        state.settle()  # a thread may have come, released it and gone
        if state.find(node.stands_for) is None:
            break
        if left <= 0:
            return True
        pause.acquire(True, min(left, ALONE_STEP))
        left -= ALONE_STEP
    return False


def shared_twice(engine: Validator, state: OwnerState, lock_class: LockClass, node: Node, mode: Mode) -> None:
    """The owner asks once more for a shared hold of a lock that it holds shared, and is queued behind writers (CTX002).

    It hangs if a writer has begun to wait since the first hold, and not otherwise: so it isn't stopped.
    """
    trace = capture(2)
    state.owner.learn_name()
    facts = SelfDeadlockFacts(
        lock_class, engine.entry(node), "", 0.0, interrupts.interrupted_by(state, node), shared=True
    )
    engine.emit(
        state,
        Finding(
            "CTX002",
            "unlikely" if mode.timed else "possible",
            state.owner,
            trace,
            (lock_class.key, "shared", trace.function()),
            facts,
            (lock_class,),
            engine.allowed(state.cur, "CTX002"),
        ),
    )


def still_blocked(engine: Validator, state: OwnerState, lock: Any, seen: WaitCycle | None) -> None:
    """The owner has been blocked on ``lock`` for ``deadlock_after`` seconds: say so if it is for ever.

    ``seen`` is what :func:`~ctxcheck.engine.waitgraph.cycle_from` said a moment ago: a chain of owners changes under
    one's eyes, so a cycle counts only if it is found twice.
    """
    provisional = engine.provisional.pop(state, None)
    if provisional is not None:
        engine.emit(state, provisional)
        return
    if seen is None or seen != cycle_from(state, lock):
        return
    if len(seen) >= 2:  # else it waits for itself: a hand-off may still come
        report_cycle(engine, state, seen)


def report_cycle(engine: Validator, teller: OwnerState, seen: WaitCycle) -> None:
    """Owners wait for each other, and will for ever (CTX001, or CTX003 for two locks of one class); ``teller`` says
    so: one of them, or somebody who looks on."""
    frames = sys._current_frames()
    for owner in [link[0].owner for link in seen]:
        owner.learn_name()
    waiters = tuple(Waiter(s.owner, holds, wants, s.stack(frames)) for s, holds, wants in seen)
    state = seen[0][0]
    trace = waiters[0].trace
    classes = tuple(w.holds for w in waiters)
    repeated = next((c for c in classes if classes.count(c) > 1), None)
    if repeated is not None:
        held = next((n for n in state.cur.held() if n.step.lock_class is repeated), state.cur)
        facts = NestingFacts(repeated, engine.entry(held), "both")
        engine.emit(teller, Finding("CTX003", "certain", state.owner, trace, (repeated.key,), facts, (repeated,)))
        return
    cycle = _stuck_cycle(engine.origins.graphs(state), classes)
    if cycle is not None:
        engine.emit(teller, order_finding(cycle, state.owner, trace, waiters))


def _stuck_cycle(graphs: list[OrderGraph], classes: tuple[LockClass, ...]) -> Cycle | None:
    smallest = min(range(len(classes)), key=lambda i: classes[i].key)
    classes = classes[smallest:] + classes[:smallest]
    witnesses: list[Witness] = []
    counts: list[int] = []
    for i, source in enumerate(classes):
        edge = (source, classes[(i + 1) % len(classes)])
        evidence = next((graph.evidence[edge] for graph in graphs if edge in graph.evidence), None)
        if evidence is None or not evidence.witnesses:
            return None
        witnesses.append(min(evidence.witnesses, key=Witness.sort_key))
        counts.append(evidence.count)
    return Cycle(classes, tuple(witnesses), "certain", counts=tuple(counts))
