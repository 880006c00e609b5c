"""The cyclic collector: what runs while it is at work, runs in the context "gc"; while it is off, nothing does.

Two entries in ``gc.callbacks``, the first of all to enter and the last of all to leave, so that other people's
callbacks run inside.  If others change the list, they are put back in their places at the next collection.
"""

from __future__ import annotations

import gc
from signal import SIGINT
from typing import Any, Final, cast

from ctxcheck import fastpath
from ctxcheck.engine import interrupts, slowpath
from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.destroyed import COLLECTING
from ctxcheck.engine.interrupts import Begun
from ctxcheck.engine.owner import VOID, OwnerState
from ctxcheck.engine.postponed import postpones
from ctxcheck.engine.raw import get_frame, get_ident, uninterrupted
from ctxcheck.engine.usage import COLLECTOR
from ctxcheck.engine.validator import Validator
from ctxcheck.probes import later
from ctxcheck.probes.patches import Patches

STEP: Final = ContextStep("interrupt", COLLECTOR, detail=frozenset({COLLECTOR}), boundary=True)

#: The collection that is going on: there is one at a time in a process.
_open: Final[list[tuple[OwnerState, Begun]]] = []
#: The session in which the collector was switched off, until it is switched on again.
_paused: Final[list[Validator]] = []


def watch(patches: Patches) -> None:
    """Put the probes in place."""

    def disable(original: Any, live: Any) -> Any:
        def disable() -> None:
            was_on = gc.isenabled()
            original()
            engine = fastpath.engine()
            if was_on and engine is not None and live():
                _paused[:] = [engine]
                engine.finalizers.pause()

        return disable

    def enable(original: Any, live: Any) -> Any:
        def enable() -> None:
            if _paused and not gc.isenabled() and live():
                _proceed(_paused.pop())
            original()

        return enable

    patches.wrap(gc, "disable", disable)
    patches.wrap(gc, "enable", enable)
    patches.when_restored(_remove)
    gc.callbacks.insert(0, _first)
    gc.callbacks.append(_last)


def collecting() -> bool:
    """Whether the calling thread is in the middle of a collection."""
    return bool(_open) and _open[-1][0].owner.ident == get_ident()


def _proceed(engine: Validator) -> None:
    state = fastpath.current()
    if not engine.closed and not engine.broken:
        if state.engine is engine and state.cur is not VOID:
            slowpath.consult(engine.finalizers.proceed, state)
        else:
            slowpath.consult(engine.finalizers.proceed, fastpath.thread_state(fastpath._local, engine))


@postpones
@uninterrupted
def _first(phase: str, info: dict[str, Any]) -> None:  # noqa: ARG001
    if phase != "start":
        return
    try:
        _enter()
    except KeyboardInterrupt:  # by the interpreter's own handler: nobody could catch it here
        if not later.again(SIGINT):
            raise


@postpones
@uninterrupted
def _last(phase: str, info: dict[str, Any]) -> None:
    if phase != "stop":
        return
    try:
        _exit(info)
    except KeyboardInterrupt:
        later.pending.append(SIGINT)
    if later.pending:
        COLLECTING.clear()
        later.collected()


def _enter() -> None:
    COLLECTING.append(get_ident())
    callbacks = gc.callbacks
    if not callbacks or callbacks[0] is not _first or callbacks[-1] is not _last:
        _arrange()
    if _open:
        _leave()  # whoever removed the other entry
    entry = enter(STEP) if fastpath.active else None
    if entry is not None:
        state, begun = entry
        try:
            begun.outer = get_frame(2)
        except ValueError:  # no function is running
            begun.outer = None
        _open.append(entry)
        state.cur = begun


def _exit(info: dict[str, Any]) -> None:
    COLLECTING.clear()
    if _open:
        _leave(full=info.get("generation") == 2)
    callbacks = gc.callbacks
    if not callbacks or callbacks[0] is not _first:
        _arrange()


def _leave(*, full: bool = False) -> None:
    state, begun = _open.pop()
    begun.outer = None
    engine = state.engine
    if state.owner.ident != get_ident():
        state.drops.append(begun)
        return
    try:  # who is told may raise
        if begun.deferred:
            slowpath.consult(lambda: engine.finalizers.finalized(state, begun, (), alone=False))
        if full:
            slowpath.consult(engine.finalizers.collected, state)
    finally:
        leave(state, begun)


def enter(step: ContextStep) -> tuple[OwnerState, Begun] | None:
    """Let a context begin: the calling owner's state, and where it is to stand; ``None`` where nothing is checked.

    Whoever hasn't taken a step isn't made to count by it.
    """
    where = fastpath._local
    passing = not hasattr(where, "st")
    state: OwnerState = fastpath.current()
    if passing:
        passing = state is getattr(where, "end", _NOBODY).state and state.cur is state.root
    if state.cur is VOID:
        return None
    begun = cast("Begun | None", slowpath.consult(interrupts.begin, state, step, Begun))
    if begun is None:
        return None
    begun.passing = passing and not len(begun)
    return state, begun


class _Nobody:
    state = None


_NOBODY: Final = _Nobody()


def leave(state: OwnerState, begun: Begun) -> None:
    """The context is over: the owner goes back to where it was."""
    if state.cur is begun:
        state.cur = begun.parent
    elif not state.unlink(begun):
        return  # it ended meanwhile
    interrupts.end(state, begun)
    if begun.passing and not len(begun) and state.cur is state.root:
        where = fastpath._local
        if getattr(where, "st", None) is state:
            del where.st  # it is found again when it takes a step
            state.engine.roster.unsee(state)


def _arrange() -> None:
    """Put the two entries where they belong.

    The interpreter goes through the list by number, now: what it has called and what it will call must stay on their
    sides.  So from the first entry, which only moves to the front, the last one is moved only if its turn is to come.
    """
    callbacks = gc.callbacks
    places = [index for index, each in enumerate(callbacks) if each is _first]
    here = places[0] if places else -1
    after = [index for index, each in enumerate(callbacks) if each is _last]
    if not after:
        callbacks.append(_last)
    elif after[0] > here and after[0] != len(callbacks) - 1:
        del callbacks[after[0]]
        callbacks.append(_last)
    if here > 0:
        del callbacks[here]
    if here != 0:
        callbacks.insert(0, _first)


def _remove() -> None:
    for index in range(len(gc.callbacks) - 1, -1, -1):
        if gc.callbacks[index] is _first or gc.callbacks[index] is _last:
            del gc.callbacks[index]
    if _open:
        _leave()
    COLLECTING.clear()
    later.collected()
    _paused.clear()
