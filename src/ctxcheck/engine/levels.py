"""What a program says so that two locks of one class may be held: a nesting level, or a lock around them.

A level makes a lock's acquisition one of another class (``lockdep``'s subclasses).  A lock taken *under* an outer one
needs no order among its class: whoever takes two of them holds the outer one, so nobody takes them the other way
round meanwhile (``lockdep``'s ``nest_lock``).
"""

from __future__ import annotations

from typing import Any, Final

from ctxcheck.engine.classes import LockClass, Step
from ctxcheck.engine.findings import HeldFacts
from ctxcheck.engine.owner import VOID, Node, OwnerState, Reentry
from ctxcheck.engine.raw import ORIGINALS
from ctxcheck.engine.sites import EMPTY, capture
from ctxcheck.engine.telling import report_held

_Condition: Final[Any] = ORIGINALS["Condition"]


class StandIn:
    """Stands for ``lock``, taken in ``lock_class`` (its own, or a level of it) and under the lock ``under``."""

    __slots__ = ("__weakref__", "level", "lock", "under")

    def __init__(self, lock: Any, level: int, under: Any) -> None:
        self.lock: Any = lock
        self.level: int = level
        self.under: Any = under

    @property
    def lock_class(self) -> LockClass:
        """The class that it is taken in."""
        raise NotImplementedError


def real(lock: Any) -> Any:
    """The lock itself, for what stands for it."""
    if isinstance(lock, StandIn):
        lock = lock.lock
    return lock._lock if isinstance(lock, _Condition) else lock


def check_outer(function: str, under: Any) -> None:
    """Refuse a ``nest_under`` that nobody could hold."""
    if not hasattr(under, "acquire"):
        raise TypeError(f"{function}: nest_under={under!r} is no lock: it has no acquire()")


def held_in(state: OwnerState, lock: Any) -> Node | None:
    """Where ``state`` stands since it took ``lock``: None if it doesn't hold it, VOID if that isn't known."""
    held_by = getattr(lock, "held_by", None)
    if held_by is not None:
        mine: Node | None = held_by(state)
        return mine
    node = getattr(lock, "node", VOID)
    if type(node) is Reentry:
        node = node.node
    if not isinstance(node, Node):
        return None
    if node is VOID or (node.state is not state and node.state.is_current()):
        return VOID  # taken while nothing, or another session, looked
    return node if node.state is state else None


def outer_hold(state: OwnerState, step: Step, under: Any) -> Node | None:
    """The hold of the lock that an acquire is nested under; None, and CTX301, where the caller doesn't hold it."""
    outer = real(under)
    outer = getattr(outer, "_ctxcheck_record", None) or outer  # what stands beside a lock of asyncio's
    node = held_in(state, outer)
    if node is VOID:
        return state.root  # held since before anything was checked: around everything, as far as one can say
    if node is not None and state.find(node) is not None:
        return node
    outer_class, inner_class = _class_of(outer), step.lock_class
    assert inner_class is not None
    name = outer_class.name if outer_class is not None else type(outer).__qualname__
    key = outer_class.key if outer_class is not None else name
    engine = state.engine
    held = tuple(engine.entry(entry).name for entry in reversed(list(state.cur.held())))
    holder = getattr(outer, "node", None)
    by = ""
    if isinstance(holder, (Node, Reentry)) and holder.state is not None:
        holder.state.owner.learn_name()
        by = f"{holder.state.owner} holds it"
    function = f"nested {inner_class.key}"
    facts = HeldFacts(name, True, function, EMPTY, held, by or "nobody holds it", nested=inner_class.name)
    report_held(engine, state, facts, capture(1), key)
    return None


def _class_of(lock: Any) -> LockClass | None:
    step = getattr(lock, "step", None)
    return step.lock_class if isinstance(step, Step) else None


def excuse(cacheable: bool, held: list[Node], lock_class: LockClass, under: Node) -> tuple[bool, list[Node]]:
    """What counts of the held locks for an acquire under ``under``, and whether its chain may be cached.

    Where locks of its class were taken inside the outer one, it adds no order to what was: as in ``lockdep``, those
    that use this set are kept apart by the outer lock.
    """
    inside = next((i for i, entry in enumerate(held) if entry.stands_for is under), len(held))
    if all(entry.step.lock_class is not lock_class for entry in held[:inside]):
        return cacheable, held
    # never cached: the chain says nothing of what it was under
    return False, held[inside:]
