"""Looks at who waits for whom on behalf of owners that can't do it themselves.

Whoever blocks on a plain lock wakes up after a while and looks.  A wait inside a tracked object's own method, or for
the lock of a Condition after a wait, can't be cut into pieces like that; nor can that of a task, without a timer in a
loop which is the program's.  So a thread looks, from the moment that such
a wait finds its lock held until nobody waits any more.  It isn't one of ``threading``'s: the program doesn't see it.
"""

from __future__ import annotations

import _thread
from typing import TYPE_CHECKING, Final, final

from ctxcheck.engine import waitgraph
from ctxcheck.engine.owner import VOID, Owner, OwnerState
from ctxcheck.engine.raw import allocate_lock, get_ident, monotonic, sleep, watchers
from ctxcheck.engine.slowpath import CONFIRM_AFTER, consult
from ctxcheck.engine.waiting import report_cycle

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator


#: How long it stays, at most, when nobody waits any more, in seconds.
_NAP: Final = 0.1


@final
class Watchdog:
    """The watch of one validator; starts when it is needed and ends by itself."""

    __slots__ = ("_engine", "_running", "_told")

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self._running = allocate_lock()
        self._told: set[tuple[int, float]] = set()

    def wake(self) -> None:
        """Somebody waits who can't look: see to it that somebody does.  Costs a thread at most every so often."""
        if self._running.acquire(False):
            watchers.append(None)
            try:
                _thread.start_new_thread(self._run, ())
            except RuntimeError:  # no thread to be had: then nobody looks
                watchers.pop()
                self._running.release()

    def _run(self) -> None:
        try:
            slept = 0.0
            while self._is_needed():
                nap = min(_NAP, self._engine.deadlock_after)
                sleep(nap)
                slept += nap
                if slept >= self._engine.deadlock_after:
                    slept = 0.0
                    consult(self._look)
        finally:
            watchers.pop()
            self._running.release()
        if self._is_needed():
            self.wake()  # it came while we were leaving

    def _is_needed(self) -> bool:
        engine = self._engine
        return not (engine.closed or engine.broken) and any(s.waiting is not None for s in engine.roster.live_states())

    def wake_for(self, state: OwnerState) -> None:
        """As :meth:`wake`, where ``state`` waits holding anything: who holds nothing is in no circle."""
        if next(state.cur.held(), None) is not None:
            self.wake()

    def _look(self) -> None:
        engine = self._engine
        # whoever has only just begun to wait may yet be cancelled
        ripe = monotonic() - engine.deadlock_after
        first = [
            found
            for found in waitgraph.waits(engine.roster.live_states(), timed=False)
            if len(found[0]) >= 2 and max(found[1]) <= ripe and not self._links(found[0]) <= self._told
        ]
        if not first or engine.closed:
            return
        sleep(CONFIRM_AFTER)
        for cycle in waitgraph.same_waits(first, waitgraph.waits(engine.roster.live_states(), timed=False)):
            links = self._links(cycle)
            self._told |= links
            looker = OwnerState(Owner(0, get_ident()), engine)
            looker.cur = VOID
            report_cycle(engine, looker, cycle)

    @staticmethod
    def _links(cycle: waitgraph.WaitCycle) -> set[tuple[int, float]]:
        return {(state.owner.serial, state.since) for state, _, _ in cycle}
