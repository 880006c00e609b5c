"""What was learned in one origin: the whole session's, or a test's of its own.

An **origin** is what an owner's steps count for: a test, a fixture, the import of a module.  Each has its own orders,
so that what one test comes to doesn't depend on which others ran before; what they come to together is the union's
business (``union.py``).  A session that tells no origins apart has one, which goes by the empty name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from ctxcheck.engine.graph import Edge, OrderGraph
from ctxcheck.engine.interrupts import Interrupts
from ctxcheck.engine.latches import Latches
from ctxcheck.engine.nesting import Nesting
from ctxcheck.engine.slow import Slow
from ctxcheck.engine.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from ctxcheck.engine.classes import LockClass
    from ctxcheck.engine.findings import Finding
    from ctxcheck.engine.validator import Validator


@final
class Ledger:
    """The orders, instances, uses and waits of one origin.

    ``made`` says how many instances of a class can have taken part in it.
    """

    __slots__ = ("broken", "graph", "interrupts", "latches", "made", "nesting", "origin", "slow", "waits")

    def __init__(self, engine: Validator, origin: str, made: Callable[[LockClass], int]) -> None:
        self.origin: str = origin
        self.made: Callable[[LockClass], int] = made
        self.graph: OrderGraph = OrderGraph()
        self.nesting: Nesting = Nesting(engine, self)
        self.interrupts: Interrupts = Interrupts(engine, self)
        self.waits: Waits = Waits(engine)
        self.slow: Slow = Slow(engine, self)
        self.latches: Latches = Latches(made)
        #: the orders that closed a cycle when they came
        self.broken: dict[Edge, Finding] = {}

    def is_single(self, lock_class: LockClass) -> bool:
        """Whether one instance at most can have taken part, so that holding it keeps others out."""
        return self.made(lock_class.base) <= 1
