"""Small makers that the engine's tests share."""

from __future__ import annotations

import itertools
from typing import Final

from ctxcheck.engine.classes import LOCK, WITH, Kind, LockClass, Mode
from ctxcheck.engine.graph import OrderGraph, Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import EMPTY, Trace

_serial: Final = itertools.count(1).__next__


def classes(*names: str | int, kind: Kind = LOCK) -> list[LockClass]:
    """Lock classes with these names, in no registry."""
    return [LockClass(f"{name:0>4}", str(name), kind) for name in names]


def owner(name: str = "") -> Owner:
    """An owner of its own."""
    made = Owner(_serial(), 0)
    made.name = name or f"owner {made.serial}"
    return made


SOMEBODY: Final = owner("somebody")


def witness(
    source: LockClass,
    *guards: LockClass,
    by: Owner = SOMEBODY,
    held: Mode = WITH,
    taken: Mode = WITH,
    allowed: str | None = None,
    at: Trace = EMPTY,
) -> Witness:
    """How an edge from ``source`` was seen: while it and ``guards`` were held."""
    return Witness(by, frozenset({source, *guards}), "", held, taken, EMPTY, at, allowed)


def add(graph: OrderGraph, source: LockClass, target: LockClass, *guards: LockClass, by: Owner = SOMEBODY) -> bool:
    """Record an edge; returns whether it lies on a cycle."""
    return graph.add(source, target, witness(source, *guards, by=by))[1]
