"""What is learned, a piece at a time, for who writes it down meanwhile: a process that is killed tells nothing later.

Each fact is told when it is news to what has learned it (an origin's ledger), and may be told again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from ctxcheck.engine.classes import LockClass
    from ctxcheck.engine.graph import Edge, Witness
    from ctxcheck.engine.slow import Over, Taken
    from ctxcheck.engine.uses import Use
    from ctxcheck.engine.waits import Slot


class OrderFact(NamedTuple):
    """One way in which an order was seen."""

    edge: Edge
    witness: Witness


class UseFact(NamedTuple):
    """Code in a context waits for a class, or a class is held while these can't interrupt."""

    lock_class: LockClass
    context: str | None
    masked: frozenset[str] | None
    use: Use


class FlagsFact(NamedTuple):
    """Code in a context that waits for a class looks first at thread-locals: holds that set them differ from now on,
    also those that were told before."""

    lock_class: LockClass


class PlaceFact(NamedTuple):
    """A class is taken where nobody may wait for long, or held over a call that may block."""

    lock_class: LockClass
    place: Taken | Over


class SenderFact(NamedTuple):
    """A place sends a signal, having needed these locks."""

    target: LockClass
    place: tuple[str, str, int]
    needs: frozenset[LockClass]
    woke: bool


class SlotFact(NamedTuple):
    """Jobs of a pool wait for later ones of the same pool."""

    slot: Slot


class ClassFact(NamedTuple):
    """A lock of a class is released by another than its holder ("handed_over"), or held around and waited for inside of
    another one of its class ("joins")."""

    what: str
    lock_class: LockClass


Fact = OrderFact | UseFact | FlagsFact | PlaceFact | SenderFact | SlotFact | ClassFact


class Listener(Protocol):
    """Who is told what was learned."""

    def take(self, fact: Fact, /) -> object:
        """Something is news.  May be called under the mutex: it may not wait, and not raise."""

    def flush(self) -> object:
        """See to what was taken.  Called by any thread, also in the middle of itself; may not wait, and not raise."""
