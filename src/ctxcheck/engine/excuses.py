"""What a test accepts of what it shows by itself, and what becomes of its share in what all tests show together.

A marker that accepts a circle in one test says that this test's own orders are no mistake; it says nothing of what
others do.  So its orders on that circle are accepted ones from then on, as if it had made them inside of an ``allow``
block: a circle that needs one of them is accepted, and one that others close without it is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.grading import edges_of
from ctxcheck.engine.slow import Over, Taken

if TYPE_CHECKING:
    from ctxcheck.engine.findings import Finding
    from ctxcheck.engine.graph import Edge, Witness
    from ctxcheck.engine.uses import Use
    from ctxcheck.engine.waits import Slot


@final
class Excuses:
    """``accepted`` are the findings of one origin that are accepted there and nowhere else, each with the reason.

    What was accepted by a block keeps that one's reason.
    """

    __slots__ = ("_classes", "_orders")

    def __init__(self, accepted: Iterable[tuple[Finding, str]] = ()) -> None:
        self._orders: dict[Edge, str] = {}
        self._classes: dict[tuple[str, LockClass], str] = {}
        for finding, reason in accepted:
            for edge in edges_of(finding.classes) if finding.rule in ("CTX001", "CTX006") else ():
                self._orders.setdefault(edge, reason)
            for lock_class in finding.classes:
                self._classes.setdefault((finding.rule, lock_class), reason)

    def order(self, edge: Edge, seen: Witness) -> Witness:
        """How an order counts."""
        return seen if seen.allowed is not None else seen._replace(allowed=self._orders.get(edge))

    def use(self, lock_class: LockClass, seen: Use) -> Use:
        """How a use or a hold counts."""
        same, others = seen.allowed
        same = self._classes.get(("CTX004", lock_class)) if same is None else same
        others = self._classes.get(("CTX005", lock_class)) if others is None else others
        return seen._replace(allowed=(same, others))

    def place(self, lock_class: LockClass, seen: Taken | Over) -> Taken | Over:
        """How a place of a slow lock counts."""
        reason = self._classes.get(("CTX105", lock_class)) if seen.allowed is None else seen.allowed
        return seen._replace(allowed=reason)

    def slot(self, seen: Slot) -> Slot:
        """How jobs count that wait in their own pool."""
        reason = self._orders.get((seen.pool, seen.job)) if seen.allowed is None else seen.allowed
        return seen._replace(allowed=reason)
