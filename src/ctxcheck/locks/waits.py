"""Waits and signals, as the checked primitives and the probes tell of them.

Where nothing is held, and where what is told is known, a wait or a signal costs a look at the owner's chain.
"""

from __future__ import annotations

from typing import Any, Final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.blocking import call_named, judge
from ctxcheck.engine.classes import ACQUIRE, EVERYTHING, FAILING, INSIDE, TIMED, Kind, LockClass
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, Node, Reentry
from ctxcheck.engine.raw import get_frame
from ctxcheck.locks.naming import classify
from ctxcheck.locks.scope import in_scope

#: What these make for themselves is one with what it is part of, and is told of by that.
_PARTS_OF: Final = frozenset({"threading", "queue", "concurrent.futures._base", "concurrent.futures.thread"})


def awaited_class(kind: Kind, name: str | None, *, depth: int = 1) -> LockClass | None:
    """The class of something to wait for that is made ``depth`` calls above the caller; ``None`` if it has none."""
    if name is None:
        frame = get_frame(1)
        for _ in range(depth):
            frame = frame.f_back or frame
        if frame.f_globals.get("__name__") in _PARTS_OF or not in_scope():
            return None
    return classify(kind, name, depth=depth + 2)[0]


def is_wait(timeout: Any) -> bool:
    """Whether a call with this timeout waits at all: none waits for ever, zero is a poll."""
    try:
        return timeout is None or bool(timeout > 0)
    except Exception:  # not a number: the call itself will say so
        return False


def before_wait(
    target: LockClass | None,
    what: str,
    *,
    timed: bool,
    fails: bool = False,
    released: Any = None,
    over: bool = False,
) -> None:
    """The caller is about to wait for ``target``, by the call ``what``; ``released`` is a lock that it gives back.

    ``timed``: it gives up by itself; ``fails``: by raising, and after a time that is long enough to be stuck.
    ``over``: what is waited for is known to be over, so that nothing blocks.

    Reports a sleep where that isn't allowed, and a wait for what needs a lock that is held.  May raise what the
    session's mode says.
    """
    st = fastpath.current()
    cur = st.cur
    if cur is VOID or st.engine is None:
        return
    own = getattr(released, "node", None)
    if type(own) is Reentry:
        own = own.node
    if cur.allows != EVERYTHING and not over:
        slowpath.consult(judge, st.engine, st, call_named(what, "wait"), own)
    if target is None or cur is st.root:
        return
    mode = FAILING if fails else TIMED if timed else ACQUIRE
    lock_class = cur.step.lock_class
    if lock_class is not None and lock_class.kind.awaited == "party":
        # nothing in its hands
        if target.kind.awaited == "party" and cur[target.step(mode)] is None:
            slowpath.consult(st.engine.of(st).waits.wait, st, target, mode)
        slowpath.consult(st.engine.of(st).waits.idle, st)
    elif cur[target.step(mode)] is None:
        slowpath.consult(st.engine.of(st).waits.wait, st, target, mode, own)


def rested(lock: Any) -> None:
    """The caller has waited on a condition, and holds nothing but its ``lock``: it begins something new."""
    st = fastpath.current()
    node = st.cur
    base = node.parent
    party = base.step.lock_class
    if node is VOID or st.engine is None or party is None or party.kind.awaited != "party":
        return
    own = getattr(lock, "node", None)
    if node.stands_for is (own.node if type(own) is Reentry else own):
        st.cur = base
        slowpath.consult(st.engine.of(st).waits.idle, st)
        st.cur = node if st.cur is base else Node(st.cur, node.step, st, node.trace, stands_for=node.stands_for)


def before_signal(target: LockClass | None, *, woke: bool, own: Any = None, alike: bool = False) -> None:
    """The caller sends ``target``'s signal, and somebody is waiting for it (``woke``).

    ``own`` is the lock that goes with the signal; ``alike``: senders and waiters are the same code, so that only a lock
    of which there is one keeps them apart.
    """
    if target is None:
        return
    st = fastpath.current()
    cur = st.cur
    if cur is VOID or st.engine is None:
        return
    known = cur[target.step(INSIDE)]
    if known is not None and (not woke or known.trace.codes):
        return
    held = getattr(own, "node", None)
    if type(held) is Reentry:
        held = held.node
    try:
        slowpath.consult(lambda: st.engine.of(st).waits.signal(st, target, woke=woke, own=held, alike=alike))
    except ViolationError:
        pass  # it is recorded; who sends does nothing wrong, and a signal that isn't sent is waited for in vain
