"""Threads: each runs inside of its class, and to join it is a wait for that."""

from __future__ import annotations

import sys
import threading
from types import MethodType
from typing import Any, NamedTuple, cast

from ctxcheck import fastpath
from ctxcheck.engine import behalf, slowpath
from ctxcheck.engine.classes import THREAD, LockClass
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.raw import get_ident
from ctxcheck.locks.waits import before_wait, is_wait
from ctxcheck.probes.parties import KEY, fields, party_of
from ctxcheck.probes.patches import Patches


class _Known:
    """What is known of one thread: its class, what it counts for, the test that it works for, the event loop that it is
    a part of (its ``id``, to keep nothing alive; 0 for none), and whether somebody has seen that it is over."""

    __slots__ = ("loop", "origin", "over", "party", "test")

    def __init__(self, party: LockClass, loop: int) -> None:
        self.loop: int = loop
        self.origin: str = origin_here()
        self.test: str = behalf.now()
        self.party: LockClass = party
        self.over: bool = False


def watch(patches: Patches) -> None:
    """Put the probes in place."""
    thread = threading.Thread
    is_alive = thread.is_alive

    def start(original: Any, live: Any) -> Any:
        def start(self: Any) -> None:
            if live() and KEY not in fields(self):
                party = slowpath.consult(_party, self) or party_of(THREAD, original)
                fields(self)[KEY] = _Known(party, slowpath.consult(_loop_of, self) or 0)
            original(self)

        return start

    def bootstrap(original: Any, live: Any) -> Any:
        def _bootstrap_inner(self: Any) -> None:
            known = fields(self).get(KEY)
            inside = enter(known.party, known.origin) if known is not None and live() else None
            before = behalf.begin(known.test if known is not None else "")
            try:
                original(self)
            finally:
                behalf.begin(before)
                if inside is not None:
                    leave(inside)

        return _bootstrap_inner

    def join(original: Any, live: Any) -> Any:
        def join(self: Any, timeout: Any = None) -> None:
            known = fields(self).get(KEY)
            if not live():
                original(self, timeout)
                return
            if is_wait(timeout) and (known is None or not known.over) and fields(self).get("_ident") != get_ident():
                target = None if known is None else known.party
                own = known is not None and known.loop and slowpath.consult(_is_running, known.loop)
                before_wait(target, "Thread.join", timed=timeout is not None, over=bool(own))
            original(self, timeout)
            if known is not None and not known.over:
                known.over = not is_alive(self)

        return join

    def alive(original: Any, live: Any) -> Any:
        def is_alive(self: Any) -> bool:
            answer: bool = original(self)
            if not answer and live() and fields(self).get("_ident") is not None:
                known = fields(self).get(KEY)
                if known is not None:
                    known.over = True
            return answer

        return is_alive

    patches.wrap(thread, "start", start)
    patches.wrap(thread, "_bootstrap_inner", bootstrap)
    patches.wrap(thread, "join", join, covers=True)
    patches.wrap(thread, "is_alive", alive)


def _party(thread: Any) -> LockClass:
    own = fields(thread)
    run = cast("Any", type(thread)).run
    if run is threading.Thread.run and own.get("_target") is not None:
        args = own.get("_args", ())
        executor = args[0]() if _is_worker(own["_target"]) and args else None
        pool = fields(executor).get(KEY) if executor is not None else None
        return pool.lock_class if pool is not None else party_of(THREAD, own["_target"], args)
    if run is threading.Timer.run and "function" in own:
        return party_of(THREAD, own["function"], own.get("args") or ())
    return party_of(THREAD, thread.run)


def _loop_of(thread: Any) -> int:
    """The event loop whose own thread this is, by its ``id``: it runs a method of the loop that is private.

    So loops shut their default pool down.  uvloop does it in C: no frame says that the loop itself joins that thread,
    which has told it by then that it is done.
    """
    target = fields(thread).get("_target")
    events: Any = sys.modules.get("asyncio.events")
    if type(target) is not MethodType or events is None:
        return 0
    loop, name = target.__self__, getattr(target.__func__, "__name__", "")
    return id(loop) if isinstance(loop, events.AbstractEventLoop) and name.startswith("_") else 0


def _is_running(loop: int) -> bool:
    events: Any = sys.modules.get("asyncio.events")
    return events is not None and id(events._get_running_loop()) == loop


def _is_worker(target: Any) -> bool:
    return (getattr(target, "__module__", ""), getattr(target, "__name__", "")) == (
        "concurrent.futures.thread",
        "_worker",
    )


class Inside(NamedTuple):
    """What :func:`leave` needs: the owner, where it stands, and what it counted for before."""

    state: OwnerState
    node: Node
    before: str
    lent: bool


def origin_here() -> str:
    """What the calling owner counts for, empty where no origins are told apart."""
    engine = fastpath.engine()
    if engine is None or not engine.origins.default:
        return ""
    return engine.of(fastpath.current()).origin


def enter(party: LockClass, origin: str = "", *, lent: bool = False) -> Inside | None:
    """The calling thread is this party from now on, and counts for ``origin``; what :func:`leave` needs, or ``None``
    where nothing is checked.  ``lent``: for as long as it is that party only."""
    state = fastpath.current()
    if state.engine is None or state.cur is VOID:
        return None
    before = state.origin
    if origin:
        before = slowpath.consult(_belongs, state, origin, lent) or before
    node = slowpath.consult(state.engine.of(state).waits.enter, state, party)
    if node is None:
        return None
    state.cur = node
    return Inside(state, node, before, lent and bool(origin))


def _belongs(state: OwnerState, origin: str, lent: bool) -> str:
    origins = state.engine.origins
    origin = origins.living(origin)
    if lent:
        state.lent += 1
        state.served = True
    else:
        state.home = origin
    return str(origins.move(state, origin))


def leave(inside: Inside) -> None:
    """It is no longer."""
    state, node, before, lent = inside
    if not state.ended and state.cur is not VOID:
        slowpath.consult(state.engine.of(state).waits.leave, state, node)
        if lent:
            state.lent -= 1
            slowpath.consult(state.engine.origins.move, state, before if state.lent else state.home)
