"""Orders that a project declares, and what goes against them (CTX007).

A declaration is a chain of names of lock classes, earlier before later, or a leaf: nothing may be waited for
under it.  All of them together are a small DAG, closed transitively: what it says holds though no other order was
ever seen.  Checked where an owner takes a chain of locks for the first time, so it costs nothing later.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, final

from ctxcheck.engine.classes import REGION, LockClass
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.sites import EMPTY, Trace

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator


class Declaration(NamedTuple):
    """One declaration: ``names`` are display names or keys, in order, or each a ``leaf``.

    ``source`` says where it stands if that is no place in the code, ``made_at`` if it is.
    """

    names: tuple[str, ...]
    leaf: bool = False
    reason: str = ""
    source: str = ""
    made_at: Trace = EMPTY

    def says(self) -> tuple[tuple[str, ...], bool]:
        """What makes two declarations the same one."""
        return self.names, self.leaf


class Breach(NamedTuple):
    """What an acquisition goes against: ``path`` leads from the name of what comes first to that of what comes last,
    and ``declarations[i]`` declares its step ``i``; of a leaf, the path is its name."""

    path: tuple[str, ...]
    declarations: tuple[Declaration, ...]
    leaf: bool


@final
class Declared:
    """Declarations that hold together.

    Raises:
        ConfigError: they contradict each other; the message names the cycle.
    """

    __slots__ = ("_after", "_leaves", "_names", "_reach", "declarations")

    def __init__(self, declarations: Iterable[Declaration]) -> None:
        self.declarations: tuple[Declaration, ...] = tuple(declarations)
        self._after: dict[str, dict[str, Declaration]] = {}
        self._leaves: dict[str, Declaration] = {}
        self._names: dict[LockClass, tuple[str, ...]] = {}
        for declaration in self.declarations:
            for name in declaration.names:
                self._after.setdefault(name, {})
            if declaration.leaf:
                for name in declaration.names:
                    self._leaves.setdefault(name, declaration)
            else:
                for first, then in itertools.pairwise(declaration.names):
                    self._after[first].setdefault(then, declaration)
        self._reach: dict[str, frozenset[str]] = {name: self._closure(name) for name in self._after}
        self._refuse_contradictions()

    def _closure(self, start: str) -> frozenset[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            for name in self._after[todo.pop()]:
                if name not in found:
                    found.add(name)
                    todo.append(name)
        return frozenset(found)

    def _refuse_contradictions(self) -> None:
        for name in self._after:
            if name in self._reach[name]:
                raise ConfigError(f"the declared orders form a cycle: {' -> '.join(self.path(name, name))}")
            if name in self._leaves and self._after[name]:
                then = next(iter(self._after[name]))
                raise ConfigError(f"{name!r} is declared a leaf, and to come before {then!r}: {name} -> {then}")

    def path(self, first: str, last: str) -> tuple[str, ...]:
        """The fewest declared steps from one name to another (at least one), with both ends."""
        before: dict[str, str] = {}
        todo = deque([first])
        while todo and last not in before:
            name = todo.popleft()
            for then in self._after[name]:
                if then not in before:
                    before[then] = name
                    todo.append(then)
        path = [last]
        while len(path) == 1 or path[-1] != first:
            path.append(before[path[-1]])
        return tuple(reversed(path))

    def names_of(self, lock_class: LockClass) -> tuple[str, ...]:
        """The declared names that mean this class; what is said of a class holds for its levels."""
        known = self._names.get(lock_class)
        if known is None:
            base = lock_class.base
            names = dict.fromkeys((lock_class.name, lock_class.key, base.name, base.key))
            known = self._names[lock_class] = tuple(name for name in names if name in self._after)
        return known

    def breach(self, held: LockClass, taken: LockClass) -> Breach | None:
        """What it goes against to wait for ``taken`` while ``held`` is held; ``None`` if nothing."""
        if held is taken:
            return None
        outer = self.names_of(held)
        for name in self.names_of(taken):
            for other in outer:
                if other in self._reach[name]:
                    path = self.path(name, other)
                    steps = tuple(self._after[a][b] for a, b in itertools.pairwise(path))
                    return Breach(path, steps, leaf=False)
        if taken.kind is not REGION:
            for name in outer:
                if name in self._leaves:
                    return Breach((name,), (self._leaves[name],), leaf=True)
        return None

    def missing(self, seen: Iterable[LockClass], closeness: float = 0.0) -> list[str]:
        """A line for each declared name that means none of these classes; with a ``closeness`` (0 to 1), for those only
        that come so near to one."""
        classes = list(seen)
        met = {name for lock_class in classes for name in self.names_of(lock_class)}
        return [
            f"a declared order names {name!r}, and no lock of that name was taken{near}"
            for name, near in ((name, hint(name, classes, closeness)) for name in self._after if name not in met)
            if near or not closeness
        ]


def hint(name: str, classes: Iterable[LockClass], closeness: float = 0.0) -> str:
    """``"; did you mean 'x'?"``, for the name or key of a class that comes near; else empty."""
    import difflib

    have = [each for lock_class in classes for each in (lock_class.name, lock_class.key)]
    near = difflib.get_close_matches(name, have, 1, closeness or 0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


#: Declared by the program itself, for as long as it runs.
_in_code: Final[list[Declaration]] = []
#: The validators of the sessions that are running.
_running: Final[list[Validator]] = []


def begin(engine: Validator) -> None:
    """A session begins: what the program has declared holds in it, together with what its configuration says."""
    engine.declared = _of(engine, ())
    _running.append(engine)


def finish(engine: Validator) -> None:
    """A session is over."""
    if engine in _running:
        _running.remove(engine)


def _of(engine: Validator, more: tuple[Declaration, ...]) -> Declared | None:
    every = (*engine.configured, *_in_code, *more)
    return Declared(every) if every else None


def declare(new: Declaration) -> list[Validator]:
    """Add a declaration of the program's; returns the validators that it is new to.

    Raises :class:`ConfigError` if it contradicts an older one; then nothing was added.
    """
    if any(old.says() == new.says() for old in _in_code):
        return []
    Declared((*_in_code, new))
    changed = [(engine, _of(engine, (new,))) for engine in _running]
    _in_code.append(new)
    for engine, declared in changed:
        engine.declared = declared
    return [engine for engine, _ in changed]
