"""What is locked: kinds, modes, lock classes, and the steps that a held chain is made of.

A **lock class** is all locks that obey one ordering rule: those made by the same
code for the same purpose.  Orders are learned per class, never per instance, so
an order need only be seen once (Linux ``lockdep``, ``lockdep-design.rst``).  Classes are
kept for ever; instances are not.

A **step** is one entry of a held chain: a class taken in a mode, or a context
entered.  Steps are made once and compared by identity, so a chain is followed
with one dictionary lookup a step.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final, Literal, final

from ctxcheck.engine.sites import EMPTY, Trace

# --- what an owner may still do -------------------------------------------------
# A set, not a scale: a thread may block but not await, a task may await but must
# not block its loop, atomic code may do neither.
BLOCK: Final = 1  #: park this thread
AWAIT: Final = 2  #: suspend this task
#: Block the thread, and nobody has to be asked: nothing is held that others wait for, and nothing forbids anything.
FREE: Final = 4
EVERYTHING: Final = BLOCK | AWAIT | FREE


@final
@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What sort of thing a lock class is.

    ``sleeps``: a blocking acquire may wait, for which it ``needs`` this permission.  ``takes``: the
    permissions that its holder loses.  ``reentrant``: its owner may take it again.  ``owned``: only its
    owner may release it (a plain Lock may be handed to another thread).  ``guards``: holding it keeps
    others out.  ``resource``: something to wait for, without an owner (a semaphore).  ``abroad``: another
    process may release it, which this one doesn't see.  ``confined``: no other thread ever takes it, so that nobody
    can wait for its holder but what interrupts it.  ``awaited``: no lock, but what a wait is for: a "party" (a thread,
    a job, a pool: what it does, it does inside of this class) or a "signal" (an event, a queue: whoever comes by sends
    it).
    """

    name: str
    sleeps: bool = True
    takes: int = 0
    reentrant: bool = False
    owned: bool = False
    guards: bool = True
    resource: bool = False
    abroad: bool = False
    confined: bool = False
    needs: int = BLOCK
    awaited: Literal["", "party", "signal"] = ""


LOCK: Final = Kind("lock")
RLOCK: Final = Kind("rlock", reentrant=True, owned=True)
SPIN: Final = Kind("spin", sleeps=False, takes=EVERYTHING, owned=True)
PROCESS_LOCK: Final = Kind("process lock", abroad=True)
PROCESS_RLOCK: Final = Kind("process rlock", reentrant=True, owned=True)
SEMAPHORE: Final = Kind("semaphore", guards=False, resource=True)
#: asyncio's, which a task waits for by `await`.
AIO_LOCK: Final = Kind("aio lock", needs=AWAIT)
AIO_SEMAPHORE: Final = Kind("aio semaphore", guards=False, resource=True, needs=AWAIT)
#: No lock at all: a stretch of code that others wait for, or that may be entered from many places.  It has a
#: place in the order of locks, and that is all it has.
REGION: Final = Kind("region", sleeps=False, guards=False, reentrant=True)
THREAD: Final = Kind("thread", sleeps=False, guards=False, reentrant=True, resource=True, awaited="party")
JOB: Final = Kind("job", sleeps=False, guards=False, reentrant=True, resource=True, awaited="party")
POOL: Final = Kind("pool", sleeps=False, guards=False, reentrant=True, resource=True, awaited="party")
EVENT: Final = Kind("event", sleeps=False, guards=False, reentrant=True, resource=True, awaited="signal")
CONDITION: Final = Kind("condition", sleeps=False, guards=False, reentrant=True, resource=True, awaited="signal")
BARRIER: Final = Kind("barrier", sleeps=False, guards=False, reentrant=True, resource=True, awaited="signal")
#: What is waited for at a queue: an item (``get``), a place for one (``put``), the end of all work (``join``).
ITEM: Final = Kind("item", sleeps=False, guards=False, reentrant=True, resource=True, awaited="signal")
PLACE: Final = Kind("place", sleeps=False, guards=False, reentrant=True, resource=True, awaited="signal")
ALL_DONE: Final = Kind("all done", sleeps=False, guards=False, reentrant=True, resource=True, awaited="signal")
#: Those that a program can ask for by name.
KINDS: Final = {kind.name: kind for kind in (LOCK, RLOCK, SPIN, SEMAPHORE, REGION)}


@final
@dataclass(frozen=True, slots=True, eq=False)
class Mode:
    """How a class is acquired.  The mode belongs to the acquisition, not to the lock.

    ``waits``: a blocking acquire (a try-acquire can't wait, so nothing leads *to* it).
    ``timed``: it gives up after a while.  ``shared``: others may hold it too.  ``recursive``: a shared
    arrival that isn't held up by a waiting writer.  ``scoped``: held by ``with``, so that only
    its own block releases it.  ``judged``: it ends a wait that was itself asked whether it may sleep.
    ``enters``: of a region, which is no wait: what is done inside it is done by whoever entered it.
    """

    name: str
    waits: bool = True
    timed: bool = False
    shared: bool = False
    recursive: bool = False
    scoped: bool = False
    judged: bool = False
    enters: bool = False


WITH: Final = Mode("with", scoped=True)
ACQUIRE: Final = Mode("acquire")
RESTORE: Final = Mode("after a wait", scoped=True, judged=True)
TIMED: Final = Mode("timed", timed=True)
#: By ``async with``, in a task that something around it cancels after a while.
TIMED_WITH: Final = Mode("timed with", timed=True, scoped=True)
TRY: Final = Mode("try", waits=False)
SHARED: Final = Mode("shared", shared=True)
SHARED_TIMED: Final = Mode("shared timed", shared=True, timed=True)
SHARED_TRY: Final = Mode("shared try", shared=True, waits=False)
RECURSIVE: Final = Mode("recursive shared", shared=True, recursive=True)
RECURSIVE_TIMED: Final = Mode("recursive shared timed", shared=True, recursive=True, timed=True)
RECURSIVE_TRY: Final = Mode("recursive shared try", shared=True, recursive=True, waits=False)
ENTER: Final = Mode("enter", scoped=True, enters=True)
MIGHT_ENTER: Final = Mode("may enter", scoped=True, enters=True)
#: A wait that raises when its time is over: what it waits for had to come, so to run out of time is a failure.
FAILING: Final = Mode("until it fails")
#: To be what others wait for: entered without a wait, so nothing leads to it.
INSIDE: Final = Mode("inside", waits=False)


class Step:
    """One entry of a held chain.  Hashed and compared by identity: it is the key of the hot path's lookup.

    ``lock_class`` and ``mode`` for a lock; a :class:`ContextStep` has neither.
    ``takes`` are the permissions that it removes for what is inside.  ``boundary``: a new chain begins with it, to
    which what is held below means nothing (see :mod:`ctxcheck.engine.interrupts`).
    """

    __slots__ = ("boundary", "by_call", "lock_class", "mode", "takes")

    def __init__(self, lock_class: LockClass | None, mode: Mode | None, takes: int) -> None:
        self.lock_class: LockClass | None = lock_class
        self.mode: Mode | None = mode
        self.takes: int = takes
        self.boundary: bool = False
        #: The same class taken by ``acquire()`` instead of ``with``; read by the hot path.
        self.by_call: Step = self

    def __repr__(self) -> str:
        mode = self.mode.name if self.mode else "context"
        return f"<Step {self.lock_class.name if self.lock_class else '?'} {mode}>"


@final
class ContextStep(Step):
    """A context on the chain: an atomic section, an open bracket, an ``allow``.

    ``kind`` is "atomic", "range", "interrupt", "masked", ...; ``label`` is for people; ``declared`` is where a marker
    stands.
    """

    __slots__ = ("declared", "detail", "kind", "label")

    def __init__(
        self,
        kind: str,
        label: str,
        takes: int = 0,
        declared: Trace = EMPTY,
        detail: object = None,
        *,
        boundary: bool = False,
    ) -> None:
        super().__init__(None, None, takes)
        self.kind: str = kind
        self.boundary = boundary
        self.label: str = label
        self.declared: Trace = declared
        self.detail: object = detail

    def __repr__(self) -> str:
        return f"<ContextStep {self.kind} {self.label!r}>"


#: While an event loop runs a callback, or a task's step, in this thread: the thread may not be blocked.
EVENT_LOOP: Final = ContextStep("loop", "event loop", BLOCK)


class Token:
    """Referenced by each live lock of one class and by nothing else but the class: its
    reference count is the number of live instances, kept by the interpreter for nothing."""

    __slots__ = ()


def _count_references(token: object) -> int:
    return sys.getrefcount(token)


#: References to a token that no lock holds: the class's own, and what the call of the counter adds.
#: Measured, since interpreters differ.
class _Probe:
    __slots__ = ("token",)

    def __init__(self) -> None:
        self.token = Token()

    def baseline(self) -> int:
        return _count_references(self.token)


_BASELINE: Final = _Probe().baseline()


class LockClass:
    """All locks that share one ordering rule.

    ``key`` is stable between runs, processes and Python versions (no line numbers, no ids);
    ``name`` is for people and may repeat.  ``created`` counts instances ever made,
    ``live()`` those that exist now.  ``handed_over``: some lock of it was released by an owner
    that didn't hold it, so its holds aren't critical sections.  ``nested``: two of its
    instances were held at once.  Never removed.
    """

    __slots__ = (
        "_steps", "created", "handed_over", "key", "kind", "levels", "library", "made_at", "name", "nested", "ordered",
        "token", "unstable",
    )  # fmt: skip

    def __init__(self, key: str, name: str, kind: Kind, made_at: Trace = EMPTY, *, unstable: bool = False) -> None:
        self.key: str = key
        self.name: str = name
        self.kind: Kind = kind
        self.made_at: Trace = made_at
        self.unstable: bool = unstable
        self.created: int = 0
        self.handed_over: bool = False
        self.nested: bool = False
        self.ordered: bool = False
        #: made by the standard library's own code
        self.library: bool = False
        self.token: Token = Token()
        #: the nesting levels that it was taken at, but for itself
        self.levels: tuple[LockClass, ...] = ()
        self._steps: dict[Mode, Step] = {}

    def step(self, mode: Mode) -> Step:
        """Return this class's step for ``mode``; always the same object."""
        step = self._steps.get(mode)
        if step is None:
            # setdefault is atomic: two threads get one step
            kind = self.kind
            waited_for = kind.sleeps and kind.needs == BLOCK and not mode.shared
            step = self._steps.setdefault(mode, Step(self, mode, kind.takes | (FREE if waited_for else 0)))
            if mode is WITH:
                step.by_call = self.step(ACQUIRE)
        return step

    def steps(self) -> list[Step]:
        """Its steps, in the modes that it was ever taken in."""
        return list(self._steps.values())

    @property
    def base(self) -> LockClass:
        """The class that its instances are made in: itself, but for a nesting level."""
        return self

    def hand_over(self) -> None:
        """Note that a lock of it was released by an owner that didn't hold it, at whatever level."""
        for lock_class in (self.base, *self.base.levels):
            lock_class.handed_over = True

    def live(self) -> int:
        """The number of instances that exist now."""
        return max(0, _count_references(self.token) - _BASELINE)

    def __repr__(self) -> str:
        return f"<LockClass {self.key}>"


#: Levels of one class, itself among them.
MAX_LEVELS: Final = 8


@final
class Level(LockClass):
    """A nesting level of another class: the same locks, taken where one of that class is held already.

    To the order of locks it is a class of its own (``KEY/1``); what counts instances goes by :attr:`base`.
    """

    __slots__ = ("_base",)

    def __init__(self, base: LockClass, level: int, key: str) -> None:
        super().__init__(key, f"{base.name}/{level}", base.kind, base.made_at, unstable=base.unstable)
        self._base: LockClass = base
        self.handed_over: bool = base.handed_over

    @property
    def base(self) -> LockClass:
        """See :attr:`LockClass.base`."""
        return self._base


@final
class ClassRegistry:
    """Every lock class of the process, by key.  Needs no lock: each change is one atomic ``setdefault``."""

    __slots__ = ("_classes",)

    def __init__(self) -> None:
        self._classes: dict[str, LockClass] = {}

    def get(self, key: str, name: str, kind: Kind, made_at: Trace = EMPTY, *, unstable: bool = False) -> LockClass:
        """Return the class with this key, made if need be.

        One piece of code may make locks of two kinds (``Lock() if x else RLock()``);
        they don't obey one rule, so the second kind gets a key of its own.  What is waited for (a condition, which is
        there beside its lock) has one in any case.
        """
        if kind.awaited:
            key = f"{kind.name} {key}"
        found = self._classes.get(key)
        if found is not None and (found.kind is not kind or found.base is not found):
            key = f"{key}/{kind.name}"
            found = self._classes.get(key)
        if found is None:
            found = self._classes.setdefault(key, LockClass(key, name, kind, made_at, unstable=unstable))
        return found

    def level(self, lock_class: LockClass, level: int) -> LockClass:
        """Return the class of this class's locks at a nesting level, 0 to ``MAX_LEVELS`` - 1; 0 is itself."""
        base = lock_class.base
        if level == 0:
            return base
        key = f"{base.key}/{level}"
        found = self._classes.get(key)
        if found is not None and found.base is not base:
            key = f"{base.key}/level {level}"  # that name was given to other locks
            found = self._classes.get(key)
        if found is None:
            found = self._classes.setdefault(key, Level(base, level, key))
            if found not in base.levels:
                base.levels = (*base.levels, found)
        return found

    def all(self) -> list[LockClass]:
        """A snapshot of the classes made so far."""
        return list(self._classes.values())


#: Classes outlive sessions: a lock made before checking starts keeps its class.
REGISTRY: Final = ClassRegistry()
