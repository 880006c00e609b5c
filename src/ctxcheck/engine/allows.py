"""What the ``allow`` blocks and decorators of a session have accepted.

A block is a context on its owner's chain, so it accepts what that owner does inside, and nobody else.  That it ran is
seen when an owner first takes that chain; that it accepted something, when a finding asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, cast, final

from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.owner import Node

AllowKind = Literal["block", "comment", "configuration"]

#: Blocks of one session that are remembered; those beyond are never called unused.
MAX_BLOCKS: Final = 10_000


@final
class Grant(str):
    """The reason of the ``allow`` that accepts a finding, which also knows which one that is.

    A string, since to whoever passes it on it is the reason and nothing else.
    """

    __slots__ = ("step",)

    step: ContextStep

    @staticmethod
    def by(step: ContextStep) -> Grant:
        """What this ``allow`` grants."""
        grant = Grant(step.label)
        grant.step = step
        return grant


@final
@dataclass(frozen=True, slots=True)
class UnusedAllow:
    """An ``allow`` that has accepted nothing in this run, though it could have.

    ``kind`` is "block" (also a decorator; it ran), "comment" (in a file of the project's that was imported) or
    "configuration"; ``rules`` are codes; ``file`` and ``line`` where it stands, "" and 0 where that isn't known.
    Another run, of other parts of the program, may need it.
    """

    kind: AllowKind
    rules: tuple[str, ...]
    reason: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where + ': ' if where else ''}an allow of {', '.join(self.rules)} accepted nothing: {self.reason!r}"


@final
class Allows:
    """The ``allow`` blocks of one session: which ran, and which of them accepted something.

    Needs no lock: each change is one atomic operation.
    """

    __slots__ = ("_ran", "_used")

    def __init__(self) -> None:
        self._ran: dict[ContextStep, None] = {}
        self._used: dict[ContextStep, None] = {}

    def entered(self, step: ContextStep) -> None:
        """An owner is inside of this one."""
        if len(self._ran) < MAX_BLOCKS:
            self._ran[step] = None

    def grant(self, node: Node, rule: str) -> Grant | None:
        """The innermost ``allow`` on this chain that covers ``rule``, if there is one.  O(its length)."""
        if not self._ran:
            return None
        for entry in node.chain():
            step = entry.step
            if isinstance(step, ContextStep) and step.kind == "allow" and rule in codes_of(step):
                return Grant.by(step)
        return None

    def grant_of(self, steps: Iterable[object], rule: str) -> Grant | None:
        """The last of these steps that is an ``allow`` which covers ``rule``, if there is one."""
        if not self._ran:
            return None
        found = [step for step in steps if isinstance(step, ContextStep) and step.kind == "allow"]
        return next((Grant.by(step) for step in reversed(found) if rule in codes_of(step)), None)

    def used(self, grant: str | None) -> None:
        """A finding was accepted by it."""
        if type(grant) is Grant:
            self._used[grant.step] = None

    def every(self) -> list[tuple[ContextStep, bool]]:
        """Those that ran, in the order in which they first did, and whether they have accepted anything."""
        return [(step, step in self._used) for step in list(self._ran)]


def codes_of(step: ContextStep) -> frozenset[str]:
    """The codes of the rules that an ``allow`` covers."""
    return cast("frozenset[str]", step.detail)
