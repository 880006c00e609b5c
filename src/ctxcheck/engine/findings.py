"""What the engine says when a rule is broken: facts only, unrendered and unresolved.

A :class:`Finding` carries traces and classes; ``reports.compose`` turns it into a
:class:`~ctxcheck.engine.violations.Violation` with sentences and source lines, outside the validator's mutex.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, final

from ctxcheck.engine.classes import ContextStep, LockClass, Mode, Step
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import EMPTY, Trace

if TYPE_CHECKING:
    from ctxcheck.engine.declared import Breach
    from ctxcheck.engine.grading import Cycle
    from ctxcheck.engine.slow import Over, Taken
    from ctxcheck.engine.usage import Hazard

    Tally = itertools.repeat[None]

What = Literal["opens", "inside", "closes", "OUTSIDE", "UNPAIRED", "STILL OPEN"]


class Entry(NamedTuple):
    """A snapshot of one entry of an owner's chain.

    ``trace`` is where the owner took it; ``exact`` says whether that is this very time, or the
    first time on this path (the chain is recorded once).
    """

    step: Step
    trace: Trace
    exact: bool

    @property
    def name(self) -> str:
        """The lock class's display name, or the context's label."""
        if self.step.lock_class is not None:
            return self.step.lock_class.name
        return self.step.label if isinstance(self.step, ContextStep) else "?"


class Waiter(NamedTuple):
    """One owner of a wait-for cycle: ``owner`` holds ``holds`` and waits, at ``trace``, for ``waits_for``."""

    owner: Owner
    holds: LockClass
    waits_for: LockClass
    trace: Trace


@final
@dataclass(frozen=True, slots=True)
class OrderFacts:
    """CTX001 and CTX006: a cycle of the order graph; ``stuck`` are the owners that wait for each other right now."""

    cycle: Cycle
    stuck: tuple[Waiter, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class SelfDeadlockFacts:
    """CTX002.  ``why_certain`` says which of the proofs holds; ``waited`` seconds have passed otherwise.

    ``context`` is what has interrupted the holder, where that is who wants it again.  ``shared``: both holds are, so
    that it hangs only if a writer waits in between.  ``holder`` is another task of the thread that blocks, if it is
    that one's hold.
    """

    lock_class: LockClass
    held: Entry
    why_certain: Literal["", "with", "alone", "owned"]
    waited: float = 0.0
    context: str = ""
    shared: bool = False
    holder: Owner | None = None


@final
@dataclass(frozen=True, slots=True)
class InterruptFacts:
    """CTX004 and CTX005: what interrupts the holder of what, and waits for what."""

    hazard: Hazard

    @property
    def cycle(self) -> Cycle:
        """The classes that take part."""
        return self.hazard.cycle


@final
@dataclass(frozen=True, slots=True)
class NestingFacts:
    """CTX003.  ``reason``: "descending" against the class's order key, "both" opposite orders of two
    instances were seen, "once" only one order, "equal" keys."""

    lock_class: LockClass
    held: Entry
    reason: Literal["descending", "equal", "both", "once"]
    keys: tuple[str, str] | None = None


@final
@dataclass(frozen=True, slots=True)
class SleepFacts:
    """CTX101 to CTX103.  ``what`` is the call that may sleep, ``how`` of what sort it is, ``declared`` where it is
    marked; ``because`` the entry that took the permission away; ``chain`` the whole context stack, outermost first;
    ``why`` the reason that the mark gives; ``full`` the stack with the library's functions on top, if there are any."""

    what: str
    how: Literal["marked", "start", "end", "wait", "acquire", "suspends", "blocks"]
    because: Entry
    chain: tuple[Entry, ...]
    declared: Trace = EMPTY
    mode: Mode | None = None
    why: str = ""
    full: Trace = EMPTY


#: More than anybody will ever count.
_MANY: Final = 1 << 62


def tally() -> Tally:
    """Return something that counts how often it was stepped: the one counter whose step can't be interrupted."""
    return itertools.repeat(None, _MANY)


@final
class Moment:
    """One event of a bracket's life, for its timeline; ``serial`` rises from one to the next.

    ``again`` counts the times that the same came once more, with nothing in between.
    """

    __slots__ = ("again", "function", "owner", "serial", "trace", "what")

    def __init__(
        self, what: What, function: str, trace: Trace, owner: Owner, serial: int = 0, again: Tally | None = None
    ) -> None:
        self.what: What = what
        self.function: str = function
        self.trace: Trace = trace
        self.owner: Owner = owner
        self.serial: int = serial
        self.again: Tally | None = again

    @property
    def times(self) -> int:
        """How often it came."""
        return 1 if self.again is None else 1 + _MANY - self.again.__length_hint__()


class Inner(NamedTuple):
    """A bracket that is still open while the one around it is closed: its name, its key and span in words, where it
    was opened, and how many there are that were opened inside the outer one."""

    name: str
    words: str
    opened: Moment
    how_many: int


@final
@dataclass(frozen=True, slots=True)
class RangeFacts:
    """CTX201-CTX205.

    ``reason`` tells the variants of a rule apart.  ``function`` was called, ``declared`` is where it is
    marked, ``key`` and ``span`` describe what it needed; ``other`` is the bracket that nearly fits
    (its key, span, owner, where it was opened and closed); ``lock`` the lock, ``inner`` the bracket that crosses it.
    ``timeline`` is that of the key, ``elsewhere`` that of the other key or bracket where the finding is about one;
    ``pair`` names the functions that opened and closed a bracket of this name last.  ``of_context``: it is a context
    that one call opens and another one closes.
    """

    name: str
    reason: Literal[
        "never opened", "closed", "other key", "other owner", "outside span", "opened atomic",
        "unpaired", "other span", "left open", "never closed", "inner still open", "lock released inside",
        "lock held at end",
    ]  # fmt: skip
    function: str
    declared: Trace
    key: str
    span: str
    why: str
    opened: Moment | None
    closed: Moment | None
    timeline: tuple[Moment, ...]
    other: str = ""
    because: Entry | None = None
    lock: Entry | None = None
    elsewhere: tuple[Moment, ...] = ()
    pair: tuple[str, str] = ("", "")
    inner: Inner | None = None
    of_context: bool = False


@final
@dataclass(frozen=True, slots=True)
class HeldFacts:
    """CTX301.  ``wanted`` is false for ``assert_not_held``; ``by`` tells who holds it instead, in words; ``nested`` is
    the lock that was acquired under it."""

    lock: str
    wanted: bool
    function: str
    declared: Trace
    held: tuple[str, ...]
    by: str = ""
    entry: Entry | None = None
    nested: str = ""


@final
@dataclass(frozen=True, slots=True)
class ReleaseFacts:
    """CTX302, CTX303 and CTX305: what happened to whose hold."""

    lock_class: LockClass
    holder: Owner | None = None
    held: Entry | None = None
    at_end: str = ""


@final
@dataclass(frozen=True, slots=True)
class DeclaredFacts:
    """CTX007: ``lock_class`` is acquired in ``mode`` while ``held`` is, against what is declared."""

    lock_class: LockClass
    held: Entry
    mode: Mode
    breach: Breach


@final
@dataclass(frozen=True, slots=True)
class DestroyedFacts:
    """CTX304.  ``holder`` had the lock when it went; ``dropped`` is what ran then, ``held`` where it was acquired."""

    lock_class: LockClass
    how: Literal["collected", "re-initialised", "replaced"]
    holder: Owner
    held: Entry
    dropped: Trace


@final
@dataclass(frozen=True, slots=True)
class ForkFacts:
    """CTX306.  ``by`` forked at ``forked`` while ``holder`` had the lock (``held``), and was at ``now``.

    ``blocked``: this is the child, which waits for it; ``unanswered``: whether the child puts it right isn't known.
    """

    lock_class: LockClass
    holder: Owner
    held: Entry
    now: Trace
    by: Owner
    forked: Trace
    blocked: bool
    unanswered: bool = False


@final
@dataclass(frozen=True, slots=True)
class SuspendFacts:
    """CTX104: ``held`` is the thread lock's hold, ``thread`` the one that keeps it while the task waits.

    ``generator`` is the name of the generator that took it, if one did, and ``yields`` where that is suspended; or
    ``greenlet`` is where the greenlet has switched away that took it.  ``way``: the task "awaits"; ``holder`` ended at
    ``at_end`` and "left" the generator as it was; somebody else "closed" it.
    """

    lock_class: LockClass
    held: Entry
    thread: Owner
    generator: str = ""
    yields: Trace = EMPTY
    greenlet: Trace = EMPTY
    way: Literal["awaits", "left", "closed"] = "awaits"
    holder: Owner | None = None
    at_end: str = ""


@final
@dataclass(frozen=True, slots=True)
class SlotFacts:
    """CTX006, in a pool that is full: ``waiting``, a job of ``pool`` that runs since ``began_at``, waits for ``job``,
    which still waits for one of the pool's ``workers`` (at most so many); ``inside`` of them waited like that."""

    pool: LockClass
    job: LockClass
    waiting: LockClass | None
    began_at: Trace
    workers: int
    inside: int
    timed: bool


@final
@dataclass(frozen=True, slots=True)
class SlowFacts:
    """CTX105: the class is ``taken`` where nobody may wait for long, and held ``over`` a call that may block.

    ``why`` it is unlikely: "alone" (one thread takes it), "timed", "handed over"; else empty."""

    lock_class: LockClass
    taken: Taken
    over: Over
    why: Literal["", "alone", "timed", "handed over"]


@final
@dataclass(frozen=True, slots=True)
class ForbiddenFacts:
    """CTX106: ``what`` happens inside of ``because``, which forbids it or is forbidden to it; ``chain`` is the whole
    context stack, outermost first.

    ``how``: it "calls" what is of the ``category``; it is "marked" so; that is said "here"; or ``what`` is the context
    that it "enters".  ``declared`` is where a marker says so, with the reason ``why``."""

    what: str
    category: str
    because: Entry
    chain: tuple[Entry, ...]
    how: Literal["calls", "marked", "here", "enters"] = "calls"
    declared: Trace = EMPTY
    why: str = ""


class Opening(NamedTuple):
    """A context that was entered: its name, by whom and where; ``role``: it is that of a thread."""

    name: str
    owner: Owner
    trace: Trace
    role: bool = False


@final
@dataclass(frozen=True, slots=True)
class RequiredFacts:
    """CTX107: ``function``, which is marked at ``declared`` (or, if it is said ``here``, nothing), needs the contexts
    ``names``, or any of them, and is inside of none of these.

    ``elsewhere`` are other owners that are inside of one now, ``earlier`` the first entries of this run, ``known`` the
    names that something is called by."""

    names: tuple[str, ...]
    anyone: bool
    function: str
    here: bool
    declared: Trace
    chain: tuple[Entry, ...]
    elsewhere: tuple[Opening, ...]
    earlier: tuple[Opening, ...]
    known: tuple[str, ...]
    why: str = ""


@final
@dataclass(frozen=True, slots=True)
class FaultFacts:
    """CTX901: the exception that switched checking off, in one line."""

    error: str


Facts = (
    OrderFacts
    | SelfDeadlockFacts
    | InterruptFacts
    | NestingFacts
    | SleepFacts
    | RangeFacts
    | HeldFacts
    | ReleaseFacts
    | DeclaredFacts
    | DestroyedFacts
    | ForkFacts
    | SuspendFacts
    | SlotFacts
    | SlowFacts
    | ForbiddenFacts
    | RequiredFacts
    | FaultFacts
)


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule.  ``identity`` is what makes two findings the same one (the fingerprint is its hash):
    names and keys only, no lines.  ``origin`` is where it counts."""

    rule: str
    grade: Grade
    owner: Owner | None
    trace: Trace
    identity: tuple[str, ...]
    facts: Facts
    classes: tuple[LockClass, ...] = ()
    allowed: str | None = None
    origin: str = ""


def origins_of(finding: Finding) -> set[str]:
    """Where what makes a finding was seen, as far as it is made of several things."""
    facts = finding.facts
    if isinstance(facts, (OrderFacts, InterruptFacts)):
        return {w.origin for w in facts.cycle.witnesses} - {""}
    if isinstance(facts, SlowFacts):
        return {facts.taken.origin, facts.over.origin} - {""}
    return set()
