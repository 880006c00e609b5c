"""What a finding is to everyone outside the engine: one frozen, plain-data object.

A :class:`Violation` stands alone.  Every renderer (text, JSON, concise, the data
file) takes a Violation and nothing else, so what one format shows, another can
show too.  All fields are strings, numbers and tuples of them: a Violation
pickles, compares by value and goes through JSON without loss.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from ctxcheck.engine.rules import Grade


@dataclass(frozen=True, slots=True)
class Frame:
    """One call of a stack.  ``file`` is relative to the working directory where it can be;
    ``text`` is the source line without indentation, empty when the source is gone."""

    file: str
    line: int
    function: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """One place in the code, and the part that it plays in the finding.

    ``role`` is one of ``now`` (where it happened; always the first site of a
    violation), ``held_now`` (a lock held there, where it was acquired), ``then`` and
    ``held_then`` (the same of an earlier, opposite order), ``entered`` (where the context
    began), ``declared`` (a marker), ``opened``, ``closed``, ``earlier``.
    ``label`` says in a few words what happens at the place.  ``heading``, if any,
    starts a new group of sites with a sentence of its own.
    ``column`` and ``end_column`` (0-based, of ``text`` as stored, which keeps its
    indentation) mark the expression; -1 means the whole line.
    ``before`` is the source line above, kept for the primary site.
    """

    role: str
    file: str
    line: int
    function: str
    text: str = ""
    label: str = ""
    heading: str = ""
    column: int = -1
    end_column: int = -1
    before: str = ""


@dataclass(frozen=True, slots=True)
class Stack:
    """A titled stack, most recent call last: ``title`` is for instance "stack now"."""

    title: str
    owner: str
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One row of the table "how it deadlocks": ``column`` counts from 0; ``waits_for`` is the
    title of the column that is waited for, or empty."""

    column: int
    action: str
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """The table "how it deadlocks": a title a column, the steps in time order, and the end."""

    columns: tuple[str, ...]
    steps: tuple[Step, ...]
    outcome: str


@dataclass(frozen=True, slots=True)
class Event:
    """One row of a bracket's timeline.  ``what`` is "opens", "inside", "closes" or "OUTSIDE"...;
    ``here`` marks the row that the finding is about; ``times`` counts repeats."""

    file: str
    line: int
    function: str
    what: str
    times: int = 1
    here: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened to one bracket, in order.  ``title`` names the bracket, its key and the owner."""

    title: str
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """One row of an owner's context stack, outermost first.

    ``kind`` is "lock", "spin", "atomic", "range", "allow", ... and, for the row that breaks the
    rule, "sleeps" or "acquires"; ``verb`` with ``file`` and ``line`` says where ("entered at", "called at",
    "acquired at"); ``allows`` says what may still be done inside, in words; ``here`` marks the
    row that the finding is about.
    """

    kind: str
    label: str
    verb: str
    file: str
    line: int
    allows: str = ""
    here: bool = False


@dataclass(frozen=True, slots=True)
class Violation:
    """A finding.

    ``rule`` and ``slug`` name the rule, ``grade`` says how sure it is ("certain",
    "possible", "unlikely"), ``message`` is one sentence that stands alone (lower case, no full
    stop).  ``locks`` are the display names of the lock classes that take part, ``keys`` their stable
    keys.  ``sites[0]`` is where it happened.  ``owners`` name the threads or tasks.
    ``count`` counts how often it was seen.  ``fingerprint`` is the same for the same finding
    in every run, also after edits elsewhere: it holds no line numbers, thread names or absolute
    paths.  ``allowed_by`` is the reason of the ``allow`` that accepts the finding, or ``None``;
    ``allowed_kind`` then says of which sort that is ("block", "comment", "configuration"), ``allowed_at`` where it is.
    ``baselined`` says that it is in the baseline, which is what a report is asked with, not part of the finding.
    ``tests`` are those that its stacks were seen in, where that is known.
    ``notes`` are facts, ``helps`` say what to do (most likely first), ``allow`` are the lines that
    show how to accept the finding.
    """

    rule: str
    slug: str
    grade: Grade
    message: str
    locks: tuple[str, ...] = ()
    sites: tuple[Site, ...] = ()
    stacks: tuple[Stack, ...] = ()
    owners: tuple[str, ...] = ()
    count: int = 1
    fingerprint: str = ""
    allowed_by: str | None = None
    keys: tuple[str, ...] = ()
    scenario: Scenario | None = None
    timeline: Timeline | None = None
    contexts: tuple[Context, ...] = ()
    contexts_title: str = ""
    held: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    baselined: bool = False
    tests: tuple[str, ...] = ()
    allowed_kind: str = ""
    allowed_at: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the violation as plain dicts, lists and scalars, ready for :mod:`json`."""
        return dataclasses.asdict(self)

    def replace(self, **changes: Any) -> Violation:
        """Return a copy with these fields changed."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Counts:
    """What was checked: numbers for the last line of a report, so that a run that checked
    nothing isn't taken for a clean one.

    ``chains`` and ``marked_calls`` (contexts: ``atomic``, ``allow``, an event loop) count each path of each thread
    once.  ``threads`` are those that took any checked step: an acquire, or a call of anything marked.
    """

    lock_classes: int = 0
    orders: int = 0
    chains: int = 0
    acquisitions: int = 0
    marked_calls: int = 0
    dropped: int = 0
    uncached: int = 0
    unchecked: dict[str, int] = field(default_factory=dict[str, int])
    threads: int = 0

    def nothing(self) -> bool:
        """Whether nothing was checked at all."""
        return not (self.lock_classes or self.acquisitions or self.marked_calls or self.threads)
