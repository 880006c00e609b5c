"""What a session makes of finalizers, whichever origin they count for, and of the collector being off.

A lock that goes with the object which is being finalized can't be held by anybody else.  So what a finalizer waits for
is *deferred* until it ends, unless it is contended; where it can't be told then, because more is dying at that moment,
it is in *doubt* until the next full collection, or the verdict.

While the collector is off, what is held may be open to it or not: that is settled when it is switched on again, or at
the end, if it never is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from ctxcheck.engine.finalizing import is_island, reach
from ctxcheck.engine.interrupts import Begun, Deferred, Resumed, UseEvent, surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctxcheck.engine.classes import LockClass, Step
    from ctxcheck.engine.owner import Node, OwnerState
    from ctxcheck.engine.validator import Validator

#: How often a chain that is in doubt is looked at anew, for one lock class at one place.
MAX_LOOKS: Final = 32
#: How many locks are looked for in the whole heap, while the program runs, and for a verdict.
MAX_WALKS: Final = 8
#: Acquires of one class that are looked at although their chain is known.
MAX_WATCHED: Final = 1_000
#: Locks that are in doubt at once; of more the rest isn't told of.
MAX_DOUBTFUL: Final = 1_000


@final
class Finalizers:
    """What one session knows of finalizers.  Needs no lock: each change is one atomic operation."""

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self._doubtful: list[tuple[Callable[[], Any], UseEvent]] = []
        self._looks: dict[tuple[str, LockClass, int], int] = {}
        self._walks: int = MAX_WALKS
        #: the classes of which each place that holds one matters, and how many more acquires are looked at
        self._watched: dict[LockClass, int] = {}
        #: for each class that a finalizer waits for, the thread-locals that it looks at first
        self.flags: dict[LockClass, frozenset[str]] = {}
        #: the chains that were cached since the collector was switched off, while it is
        self.section: list[tuple[Node, Step]] | None = None

    # --- the locks that finalizers wait for -----------------------------------------

    def contended(self, state: OwnerState, node: Node) -> None:
        """What is waited for in ``node`` is held by somebody: if that is a finalizer, others have the lock as well."""
        begun = surroundings(node.parent).begun
        if begun is not None and begun.deferred:
            for each in [each for each in begun.deferred if each.node is node]:
                begun.deferred.remove(each)
                self._engine.orders.queue(each.event)
            self._engine.orders.see_to(state)

    def finalized(self, state: OwnerState, begun: Begun, dying: tuple[Any, ...], *, alone: bool) -> None:
        """A finalizer is about to end; ``dying`` is what goes with it: see who else has the locks that it waited for.

        ``alone``: nothing else is being let go of at this moment.  Otherwise that may be who has them.
        """
        deferred, begun.deferred = begun.deferred, []
        for each in deferred:
            lock = each.lock
            found = "elsewhere" if lock is None else reach(lock, dying)
            if lock is not None and found == "shared" and alone and self._walks > 0:
                # perhaps by what is garbage already
                self._walks -= 1
                found = "private" if is_island(lock, dying) else "elsewhere"
            if found == "elsewhere":
                self._engine.orders.queue(each.event)
                if each.event.use.doubt or each.event.use.flags:
                    self._look_again(each)
                continue
            if found != "private" and lock is not None and len(self._doubtful) < MAX_DOUBTFUL:
                self._doubtful.append((lock, each.event))
            self._look_again(each)
        self._engine.orders.see_to(state)

    def _look_again(self, each: Deferred) -> None:
        """Validate this chain each time, for some time: another object's lock may be another matter."""
        if self.looks_again(each.event) and each.node.parent.pop(each.node.step, None) is not None:
            self._engine.freed(1)

    def looks_again(self, event: UseEvent) -> bool:
        """Whether a chain is to be validated once more, since what speaks against a use of it may not next time."""
        codes = event.use.trace.codes
        place = (event.context or "", event.lock_class, id(codes[0]) if codes else 0)
        looks = self._looks[place] = self._looks.get(place, 0) + 1
        return looks <= MAX_LOOKS

    def collected(self, state: OwnerState) -> None:
        """A full collection ends: what was in doubt is gone, or somebody has it."""
        if self._doubtful:
            self._resolve(0)
            self._engine.orders.see_to(state)

    def resolve(self) -> None:
        """For a verdict: what was in doubt and is still there is garbage, or somebody has it."""
        if self._doubtful:
            self._resolve(MAX_WALKS)

    def _resolve(self, walks: int) -> None:
        doubtful, self._doubtful = self._doubtful, []
        for lock, event in doubtful:
            if lock() is None:
                continue
            walks -= 1
            if walks < 0 or not is_island(lock, ()):
                self._engine.orders.queue(event)

    # --- the thread-locals that they look at ------------------------------------------

    def watch(self, lock_class: LockClass) -> None:
        """A finalizer asks what the code sets that holds this class: each place that does matters from now on."""
        if lock_class not in self._watched:
            self._watched[lock_class] = MAX_WATCHED
            self._engine.roster.forget_class(lock_class)

    def watches(self, lock_class: LockClass) -> bool:
        """Whether an acquire is to be looked at although its chain is known; counts it."""
        left = self._watched.get(lock_class, 0)
        if left:
            self._watched[lock_class] = left - 1
        return left > 0

    # --- the collector is switched off and on ------------------------------------------

    def pause(self) -> None:
        """The collector is switched off: what is held from now on isn't open to it, if it is ever switched on again."""
        self.section = []

    def proceed(self, state: OwnerState) -> None:
        """It is switched on again.  Chains that were taken meanwhile are looked at anew."""
        made, self.section = self.section, None
        if made is None:
            return
        for parent, step in made:
            if parent.pop(step, None) is not None:
                self._engine.freed(1)
        self._engine.orders.queue(Resumed())
        self._engine.of(state).interrupts.unmasked(state)
        self._engine.orders.see_to(state)

    def cached(self, parent: Node, step: Step) -> None:
        """A chain won't be looked at any more."""
        if self.section is not None:
            self.section.append((parent, step))

    def close(self) -> None:
        """The session is over: if the collector is off, it was so for good."""
        for ledger in self._engine.origins.ledgers():
            ledger.interrupts.usage.final = True
