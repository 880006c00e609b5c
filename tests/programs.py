"""Random programs for the oracle: owners, locks and operations within bounds, of several kinds."""

from __future__ import annotations

import random
from typing import Final

from tests.oracle import READERS, Lock, Program, Take

MOST_OWNERS: Final = 4
MOST_OPERATIONS: Final = 14

#: What locks a program has, by its kind: five at most, as (class, instance).
KINDS: Final[dict[str, tuple[Lock, ...]]] = {
    "exclusive": (("A", 0), ("B", 0), ("C", 0), ("D", 0), ("E", 0)),
    "readers, writers preferred": (("P", 0), ("Q", 0), ("A", 0), ("B", 0)),
    "readers preferred": (("X", 0), ("Y", 0), ("A", 0), ("B", 0)),
    "both": (("P", 0), ("X", 0), ("A", 0), ("Q", 0), ("Y", 0)),
    "instances, a single guard": (("A", 0), ("A", 1), ("B", 0), ("B", 1), ("G", 0)),
    "instances, guards of several": (("A", 0), ("B", 0), ("B", 1), ("G", 0), ("G", 1)),
    "one class": (("A", 0), ("A", 1), ("A", 2), ("A", 3)),
    "readers of instances": (("X", 0), ("X", 1), ("P", 0), ("P", 1), ("A", 0)),
}


def program(rng: random.Random, kind: str, *, owners: int = MOST_OWNERS, operations: int = MOST_OPERATIONS) -> Program:
    """A program of ``kind``, of up to so many owners and operations (an operation is an acquire with its release)."""
    locks = KINDS[kind]
    left = rng.randint(3, operations)
    guarded = rng.random() < 0.4

    def take(free: tuple[Lock, ...], depth: int) -> Take:
        nonlocal left
        left -= 1
        lock = rng.choice(free)
        free = tuple(other for other in free if other != lock)
        body: list[Take] = []
        while left > 0 and free and depth < 4 and rng.random() < (0.75 if depth == 1 else 0.5):
            body.append(take(free, depth + 1))
        mode = rng.choice(("block",) * 6 + ("timed", "try"))
        return Take(lock, tuple(body), mode, lock[0] in READERS and rng.random() < 0.6)

    sections: list[list[Take]] = [[] for _ in range(rng.randint(2, owners))]
    while left > 0:
        guards = tuple(lock for lock in locks if lock[0] == "G")
        if guards and guarded and left > 1:
            left -= 1
            guard = rng.choice(guards)
            section = Take(guard, (take(tuple(lock for lock in locks if lock != guard), 2),))
        else:
            section = take(locks, 1)
        rng.choice(sections).append(section)
    return tuple(tuple(owner) for owner in sections if owner)
