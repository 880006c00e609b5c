"""What can deadlock, found out by trying every schedule; and the same programs, played through real locks.

A program is a few owners, each a sequence of critical sections, each of which may hold others.  The oracle
knows nothing of edges, guards or witnesses: it walks all interleavings and looks for owners that wait
for each other in a circle.  It is slow, obviously right, and what the engine's verdict is measured by.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import ctxcheck
from ctxcheck.session import Session

#: A lock is (class, instance): locks of one class obey one rule.
Lock = tuple[str, int]
#: A circle of locks: each was waited for by the holder of the one before it.  It begins anywhere.
Circle = tuple[Lock, ...]

#: Classes that can be held shared.  Where writers are preferred a reader waits for a writer who waits; where readers
#: are, they never hold each other up.
READERS: Final = {"P": "writers", "Q": "writers", "X": "readers", "Y": "readers"}


@dataclass(frozen=True)
class Take:
    """One critical section: ``lock`` is taken in ``mode`` ("block", "timed" or "try"), then ``body`` runs, then it is
    released.  A try that fails, and a timed acquire that gives up, skip the body.  ``shared``: others may share it; see
    :data:`READERS`."""

    lock: Lock
    body: tuple[Take, ...] = ()
    mode: str = "block"
    shared: bool = False

    def __str__(self) -> str:
        mark = {"block": "", "timed": "~", "try": "?"}[self.mode]
        name = f"{mark}{'r' if self.shared else ''}{self.lock[0]}{self.lock[1] or ''}"
        return f"{name}({' '.join(map(str, self.body))})" if self.body else name

    def locks(self) -> Iterator[Lock]:
        """Every lock that is taken in it."""
        yield self.lock
        for inner in self.body:
            yield from inner.locks()

    def depth(self) -> int:
        """How many locks are held at once."""
        return 1 + max((inner.depth() for inner in self.body), default=0)


Owner = tuple[Take, ...]
Program = tuple[Owner, ...]


def show(program: Program) -> str:
    """The program in one line an owner."""
    return "\n".join(f"T{i}: {' '.join(map(str, owner))}" for i, owner in enumerate(program, 1))


# --- the oracle ---------------------------------------------------------------------


@dataclass
class _Line:
    """One owner, flattened: at each position what is held (and whether shared), and what is wanted there."""

    #: (lock, mode, shared, where to go without it); ``None`` is a release
    wants: list[tuple[Lock, str, bool, int] | None] = field(default_factory=list)
    held: list[frozenset[tuple[Lock, bool]]] = field(default_factory=list)

    def add(self, sections: Iterable[Take], held: frozenset[tuple[Lock, bool]]) -> None:
        for section in sections:
            here = len(self.wants)
            self.wants.append(None)
            self.held.append(held)
            inside = held | {(section.lock, section.shared)}
            self.add(section.body, inside)
            self.wants.append(None)  # the release
            self.held.append(inside)
            self.wants[here] = (section.lock, section.mode, section.shared, len(self.wants))

    def close(self) -> None:
        self.wants.append(None)
        self.held.append(frozenset())


def deadlocks(program: Program) -> set[Circle]:
    """Every circle of locks in which owners can wait for each other, over all schedules of one run of the program."""
    lines = []
    for owner in program:
        line = _Line()
        line.add(owner, frozenset())
        line.close()
        lines.append(line)
    return _explore(lines)


#: What one owner does, step by step: locks are taken (True) and released (False) in any order.
Script = tuple[tuple[Lock, bool], ...]


def deadlocks_of_scripts(scripts: Sequence[Script]) -> set[Circle]:
    """As :func:`deadlocks`, for owners that release in any order."""
    lines = []
    for script in scripts:
        line = _Line()
        held: frozenset[tuple[Lock, bool]] = frozenset()
        for lock, takes in script:
            line.wants.append((lock, "block", False, 0) if takes else None)
            line.held.append(held)
            held = held | {(lock, False)} if takes else held - {(lock, False)}
        line.close()
        lines.append(line)
    return _explore(lines)


def _explore(lines: list[_Line]) -> set[Circle]:
    found: set[Circle] = set()
    start = (0,) * len(lines)
    seen = {start}
    todo = [start]
    while todo:
        state = todo.pop()
        holders: dict[Lock, list[tuple[int, bool]]] = {}
        for i, line in enumerate(lines):
            for lock, shared in line.held[state[i]]:
                holders.setdefault(lock, []).append((i, shared))
        waits: dict[int, list[tuple[int, Lock]]] = {}
        readers: list[tuple[int, Lock]] = []
        writers: dict[Lock, list[int]] = {}
        for i, line in enumerate(lines):
            at = state[i]
            if at == len(line.wants) - 1:
                continue
            want = line.wants[at]
            following: list[int] = []
            if want is None:
                following.append(at + 1)
            else:
                lock, mode, shared, skip = want
                by = [owner for owner, both in holders.get(lock, ()) if not (shared and both)]
                if not by:
                    following.append(at + 1)
                    if shared and mode == "block" and READERS.get(lock[0]) == "writers":
                        readers.append((i, lock))
                    elif shared and mode != "block" and READERS.get(lock[0]) == "writers":
                        following.append(skip)  # a writer may be waiting
                elif mode == "block":
                    waits[i] = [(owner, lock) for owner in by]
                    if not shared:
                        writers.setdefault(lock, []).append(i)
                else:
                    following.append(skip)
            for position in following:
                new = (*state[:i], position, *state[i + 1 :])
                if new not in seen:
                    seen.add(new)
                    todo.append(new)
        for i, lock in readers:
            # it comes after a writer who waits already, and so it waits for whom that one waits for
            if any(writer != i for writer in writers.get(lock, ())):
                waits[i] = [(owner, lock) for owner, _ in holders[lock] if owner != i]
        found |= _circles(waits)
    return found


def _circles(waits: dict[int, list[tuple[int, Lock]]]) -> set[Circle]:
    found: set[Circle] = set()

    def follow(start: int, at: int, path: list[int], locks: list[Lock]) -> None:
        for owner, lock in waits.get(at, ()):
            if owner == start:
                # owner i waits for lock i, which owner i + 1 holds: the edges go the same way
                circle = [*locks, lock]
                smallest = circle.index(min(circle))
                found.add((*circle[smallest:], *circle[:smallest]))
            elif owner > start and owner not in path:
                follow(start, owner, [*path, owner], [*locks, lock])

    for start in waits:
        follow(start, start, [start], [])
    return found


def deadlocks_of_sections(program: Program, *, at_once: int) -> set[Circle]:
    """As :func:`deadlocks`, where any number of owners (``at_once`` at most) may run any outermost section at once."""
    # a section that holds one lock at a time never waits while it holds, so it is on no circle
    sections = sorted({s for owner in program for s in owner if s.depth() > 1}, key=str)
    found: set[Circle] = set()
    for size in range(2, at_once + 1):
        for chosen in itertools.combinations_with_replacement(sections, size):
            found |= deadlocks(tuple((section,) for section in chosen))
    return found


# --- the engine ----------------------------------------------------------------------

_names: Final = itertools.count(1).__next__


def play(program: Program, *, owners: str) -> Session:
    """Run the program's owners, one after the other, each in a thread of its own, through real locks in a session.

    Every class of the program is a lock class of its own, told from those of other programs by a number.
    """
    named = {lock for owner in program for section in owner for lock in section.locks()}
    with Session(owners=owners) as session:  # type: ignore[arg-type]
        locks = _make(named)
        for owner in program:
            in_thread(lambda owner=owner: _run(owner, locks))
    return session


def play_scripts(scripts: Sequence[Script], *, owners: str) -> Session:
    """As :func:`play`, for owners that release in any order."""
    with Session(owners=owners) as session:  # type: ignore[arg-type]
        locks = _make({lock for script in scripts for lock, _ in script})

        def follow(script: Script) -> None:
            for lock, takes in script:
                if takes:
                    locks[lock].acquire()
                else:
                    locks[lock].release()

        for script in scripts:
            in_thread(lambda script=script: follow(script))
    return session


class _Open:
    """A readers-writer lock that nobody ever waits for: owners are played one after the other."""

    def acquire(self, blocking: bool = True, timeout: float = -1, shared: bool = False) -> bool:
        return True

    def release(self) -> None: ...


def _make(named: Iterable[Lock]) -> dict[Lock, Any]:
    tag = _names()
    made: dict[Lock, Any] = {}
    for lock in sorted(named):
        name, prefers = f"{lock[0]}.{tag}", READERS.get(lock[0])
        made[lock] = (
            ctxcheck.Lock(name=name)
            if prefers is None
            else ctxcheck.track(_Open(), name=name, shared=True if prefers == "writers" else "recursive")
        )
    return made


def _run(sections: Sequence[Take], locks: dict[Lock, Any]) -> None:
    for section in sections:
        lock = locks[section.lock]
        if section.mode == "block" and not section.shared:
            with lock:
                _run(section.body, locks)
            continue
        how: dict[str, Any] = {"block": {}, "timed": {"timeout": 60}, "try": {"blocking": False}}[section.mode]
        assert lock.acquire(**how, **({"shared": True} if section.shared else {}))
        _run(section.body, locks)
        lock.release()


def in_thread(work: Callable[[], object]) -> None:
    """Call ``work`` in a thread, and raise here what it raises there."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()


@dataclass(frozen=True)
class Reported:
    """What a session says of a program's locks: the class circles and nested classes that count, and those that
    don't."""

    possible: frozenset[tuple[str, ...]]
    unlikely: frozenset[tuple[str, ...]]
    nested: frozenset[str]

    @property
    def anything(self) -> bool:
        """Whether there is a finding that counts."""
        return bool(self.possible or self.nested)

    def covers(self, edge: tuple[str, str]) -> bool:
        """Whether an edge between two classes is part of a finding that counts."""
        return any(edge in _pairs(circle) for circle in self.possible)


def _pairs(circle: Sequence[str]) -> set[tuple[str, str]]:
    return {(a, circle[(i + 1) % len(circle)]) for i, a in enumerate(circle)}


def reported(session: Session) -> Reported:
    """Read a session's findings back into the program's names; anything but CTX001 and CTX003 is an error."""
    possible, unlikely, nested = set(), set(), set()
    for violation in session.violations:
        names = tuple(name.rpartition(".")[0] for name in violation.locks)
        if violation.rule == "CTX001":
            (possible if violation.grade != "unlikely" else unlikely).add(names)
        else:
            assert violation.rule == "CTX003", violation
            if violation.grade != "unlikely":
                nested.add(names[0])
    return Reported(frozenset(possible), frozenset(unlikely), frozenset(nested))


def missed(circles: set[Circle], report: Reported) -> list[Circle]:
    """The real deadlocks that no finding tells of."""
    lost = []
    for circle in circles:
        classes = [lock[0] for lock in circle]
        if len(set(classes)) == 1:
            told = classes[0] in report.nested
        else:
            told = all(a == b or report.covers((a, b)) for a, b in _pairs(classes))
        if not told:
            lost.append(circle)
    return lost
