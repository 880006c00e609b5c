"""How many instances of a class can have taken part in one origin.

Those count that were made by its own owners, whoever ran meanwhile, and those that were there for it: made by imports,
and while the fixtures that it asks for were set up.  What a fixture makes when it is torn down, or a thread that it has
started makes later, meets no test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from ctxcheck.engine.classes import LockClass

#: What happens while modules are imported, before the first test.
IMPORT: Final = "<import>"
#: What belongs to no test.
BACKGROUND: Final = "<background>"


def test_of(origin: str) -> str:
    """The test that an origin is, or that was outlived by it; empty if it is none: a fixture, say."""
    name = origin.removeprefix(f"{BACKGROUND} of ")
    return "" if name.startswith("<") else name


#: For each session that tells origins apart: whose the next instance will be that the calling owner makes.
crediting: Final[list[Callable[[], Callable[[LockClass], None]]]] = []


def credits_here() -> list[Callable[[LockClass], None]]:
    """What counts an instance for the calling owner, to be called when its class is known."""
    return [ask() for ask in crediting]


def credit(lock_class: LockClass) -> None:
    """The calling owner has made an instance."""
    for count in credits_here():
        count(lock_class)


@final
class Instances:
    """The instances of each class that each origin has made.  Needs no lock: each change is one atomic operation."""

    __slots__ = ("_lent", "_made", "_most")

    def __init__(self) -> None:
        #: an item for each instance: to append one is atomic, to add to a number isn't
        self._made: dict[str, dict[LockClass, list[None]]] = {}
        self._lent: dict[str, dict[LockClass, int]] = {}
        self._most: dict[str, dict[LockClass, int]] = {}

    def add(self, origin: str, lock_class: LockClass) -> None:
        """One was made."""
        self._made.setdefault(origin, {}).setdefault(lock_class, []).append(None)

    def add_all(self, origin: str, other: str) -> None:
        """What another origin has made is there for this one as well."""
        for lock_class, made in list(self._made.get(other, {}).items()):
            self._made.setdefault(origin, {}).setdefault(lock_class, []).extend(made)

    def anew(self, origin: str) -> None:
        """It begins once more, with instances of its own; the most of any time is remembered."""
        most = self._most.setdefault(origin, {})
        for lock_class, made in self._made.pop(origin, {}).items():
            most[lock_class] = max(most.get(lock_class, 0), len(made))
        if not most:
            del self._most[origin]

    def lend(self, origin: str) -> None:
        """What it has made by now is there for those that ask for it."""
        self._lent[origin] = {lock_class: len(made) for lock_class, made in list(self._made.get(origin, {}).items())}

    def of(self, origin: str, lock_class: LockClass) -> int:
        """How many it has made itself, at one time."""
        return max(
            len(self._made.get(origin, {}).get(lock_class, ())), self._most.get(origin, {}).get(lock_class, 0)
        )

    def classes(self, origin: str) -> list[LockClass]:
        """The classes that it has made instances of."""
        return list(self._made.get(origin, ()))

    def lent(self, origin: str, lock_class: LockClass) -> int:
        """How many of an origin's are there for those that ask for it."""
        return self._lent.get(origin, {}).get(lock_class, 0)

    def forget(self, origin: str) -> None:
        """It is over."""
        for known in (self._made, self._lent, self._most):
            known.pop(origin, None)
