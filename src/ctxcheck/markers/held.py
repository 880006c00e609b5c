"""``requires_lock``, ``assert_held``, ``assert_not_held`` and ``might_lock``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, Protocol, final, overload

from ctxcheck import fastpath
from ctxcheck.engine import levels, slowpath
from ctxcheck.engine.classes import (
    ACQUIRE,
    AWAIT,
    BLOCK,
    EVENT_LOOP,
    MIGHT_ENTER,
    REGION,
    SHARED,
    LockClass,
    Mode,
    Step,
)
from ctxcheck.engine.findings import Finding, HeldFacts, SelfDeadlockFacts
from ctxcheck.engine.owner import VOID, Node, OwnerState, Reentry, Unused
from ctxcheck.engine.raw import ORIGINALS, LockType
from ctxcheck.engine.sites import EMPTY, Trace, capture
from ctxcheck.engine.telling import report_held, report_sleep
from ctxcheck.markers.shapes import F, Plan, mark
from ctxcheck.markers.target import Target
from ctxcheck.markers.usage import ENABLED, check_choice, describe

#: How a lock is to be held; None: in any way.
Holding = Literal["exclusive", "shared"] | None


class Lockable(Protocol):
    """What a lock has at the least."""

    def acquire(self) -> Any:
        """Take it."""


_Condition: Final[Any] = ORIGINALS["Condition"]
_UNKNOWN: Final = object()


def _check_mode(marker: str, mode: object) -> None:
    if mode is not None:
        check_choice(marker, "mode", mode, ("exclusive", "shared"))


def _is_lock(value: Any) -> bool:
    if isinstance(value, type):
        return False  # it makes locks
    return hasattr(value, "acquire") or hasattr(value, "held_by") or isinstance(getattr(value, "step", None), Step)


def _check_lock(marker: str, value: Any) -> None:
    if not _is_lock(value):
        raise TypeError(f"{marker}: {describe(value)} is no lock: it has no acquire()")


# --- who holds it -------------------------------------------------------------------------------


class _Answer(NamedTuple):
    """What is known of a lock: whether this owner holds it, where, and who else does, in words."""

    held: bool | None
    node: Node | None
    by: str


_CANNOT_TELL: Final = _Answer(None, None, "")


def _subject(lock: Any) -> Any:
    """What the engine knows of: a Condition's lock, and what stands beside a lock of asyncio's."""
    if isinstance(lock, _Condition):
        lock = lock._lock
    return lock if isinstance(lock, levels.StandIn) else getattr(lock, "_ctxcheck_record", None) or lock


def _look(state: OwnerState, lock: Any) -> _Answer:
    """Find out whether ``state`` holds ``lock``; ``held`` is None where that can't be known."""
    lock = _subject(lock)
    lock_class = _class_of(lock)
    if lock_class is not None and lock_class.kind.resource:
        return _CANNOT_TELL  # nobody owns a semaphore
    held_by: Any = getattr(lock, "held_by", None)
    if held_by is not None:
        # there may be many holders; `node` below is any of them
        mine = held_by(state)
        if mine is not None:
            return _Answer(True, _entry_of(mine), "")
        if lock_class is not None and lock_class.kind is REGION:
            return _Answer(False, None, "")  # a region is inside or outside of, and nobody's
    node = getattr(lock, "node", _UNKNOWN) if lock_class is not None else _UNKNOWN
    if node is None or type(node) is Unused:
        return _Answer(False, None, "nobody holds it")
    if node is not VOID and isinstance(node, (Node, Reentry)):
        holder = node.state
        if lock_class is not None and lock_class.kind.needs == AWAIT:
            # the task's: its thread runs others too
            is_mine = holder.is_current()
        else:
            is_mine = holder is state or holder.is_current() or _below(state, node)
        if is_mine:
            return _Answer(True, _entry_of(node), "")
        holder.owner.learn_name()
        return _Answer(False, None, f"{holder.owner} holds it")
    # not checked, or taken while nothing was: the lock itself may know
    if hasattr(lock, "_is_owned") and not isinstance(lock, _Condition):
        return _Answer(bool(lock._is_owned()), None, "")
    if type(lock) is LockType and not lock.locked():
        return _Answer(False, None, "nobody holds it")
    return _CANNOT_TELL


def _below(state: OwnerState, node: Any) -> bool:
    """Whether it is held by whoever this owner runs inside of (the creator of an eager task)."""
    entry = _entry_of(node)
    return entry is not None and state.find(entry) is not None


def _entry_of(node: Any) -> Node | None:
    found = node.node if type(node) is Reentry else node
    return found if isinstance(found, Node) and found is not VOID else None


def _class_of(lock: Any) -> LockClass | None:
    step = getattr(lock, "step", None)
    return step.lock_class if isinstance(step, Step) else None


def _fits(node: Node | None, mode: Holding) -> bool:
    if mode is None or node is None or node.step.mode is None:
        return True
    return node.step.mode.shared == (mode == "shared")


def _check(state: OwnerState, lock: Any, name: str, wanted: bool, mode: Holding, what: str, declared: Trace) -> None:
    """CTX301 if ``lock`` is known not to be held as ``wanted``."""
    answer = _look(state, lock)
    if answer.held is None:
        return
    is_so = answer.held and _fits(answer.node, mode)
    if is_so == wanted:
        return
    lock_class = _class_of(_subject(lock))
    if lock_class is not None:
        name = lock_class.name
    by = answer.by
    if answer.held and not is_so:
        by = "this thread holds it shared" if mode == "exclusive" else "this thread holds it exclusively"
    slowpath.consult(_report, state, name, wanted, what, declared, by, answer.node, lock_class)


def _report(
    state: OwnerState,
    name: str,
    wanted: bool,
    what: str,
    declared: Trace,
    by: str,
    node: Node | None,
    lock_class: LockClass | None,
) -> None:
    engine = state.engine
    locks = [n for n in state.cur.held() if n.step.lock_class is None or not n.step.lock_class.kind.awaited]
    held = tuple(engine.entry(entry).name for entry in reversed(locks))
    entry = None if node is None else engine.entry(node)
    facts = HeldFacts(name, wanted, what, declared, held, by, entry)
    report_held(engine, state, facts, capture(1), lock_class.key if lock_class is not None else name)


# --- requires_lock --------------------------------------------------------------------------------


@final
class _Needs:
    """The check of one lock that one function needs."""

    __slots__ = ("_declared", "_mode", "_name", "_what")

    def __init__(self, target: Target, name: str, mode: Holding) -> None:
        self._what = target.qualname
        self._declared = target.declared
        self._name: str = name
        self._mode: Holding = mode

    def __call__(self, state: OwnerState, lock: Any) -> None:
        if state.cur is VOID:
            return
        if not _is_lock(lock):
            raise TypeError(f"@requires_lock on {self._what}: {self._name} gives {describe(lock)}, which is no lock")
        _check(state, lock, self._name or type(lock).__qualname__, True, self._mode, self._what, self._declared)


def _lock_text(target: Target, lock: Any) -> tuple[str, str]:
    """The text that gives a lock in the wrapper, and its name for people."""
    if isinstance(lock, str):
        return target.path("lock", lock), lock
    if _is_lock(lock):
        name = f"_ctx_lock{len(target.cells)}"
        target.cells[name] = lock
        return name, type(lock).__qualname__
    if callable(lock) and not isinstance(lock, type):
        return target.calling(lock), getattr(lock, "__qualname__", type(lock).__qualname__)
    raise TypeError(
        f"@{target.marker} on {target.qualname}: {describe(lock)} is no lock: give a lock, a dotted path from a"
        ' parameter ("self._lock"), or a callable that is given the call\'s arguments'
    )


#: The usual case, a checked lock that this owner holds, is seen in the wrapper itself.
_USUAL: Final = (
    "_ctx_lock = {lock}",
    "try:",
    "    _ctx_is_held = _ctx_lock.node.state is _ctx_st",
    "except AttributeError:",
    "    _ctx_is_held = False",
    "if not _ctx_is_held:",
    "    {needs}(_ctx_st, _ctx_lock)",
)


@final
class RequiresLock:
    """What ``requires_lock(...)`` returns: a decorator."""

    __slots__ = ("_locks", "_mode")

    def __init__(self, locks: tuple[Any, ...], mode: Holding) -> None:
        self._locks: tuple[Any, ...] = locks
        self._mode: Holding = mode

    def __call__(self, function: F, /) -> F:
        """Mark ``function``."""
        return mark(function, "requires_lock", self._plan)

    def _plan(self, target: Target) -> Plan:
        checks: list[str] = []
        cells: dict[str, Any] = {}
        for index, lock in enumerate(self._locks):
            text, name = _lock_text(target, lock)
            needs = f"_ctx_needs{index}"
            cells[needs] = _Needs(target, name, self._mode)
            if self._mode is None:
                checks += [line.format(lock=text, needs=needs) for line in _USUAL]
            else:
                checks.append(f"{needs}(_ctx_st, {text})")
        return Plan(checks, **cells)


def requires_lock(*locks: Any, mode: Holding = None) -> RequiresLock:
    """Decorate a function whose caller must hold ``locks``, all of them (CTX301).

    Checked when the body starts.  A lock that isn't checked is looked at as far as it can tell; where it
    can't (an ordinary Lock that somebody holds), nothing is reported.

    Args:
        locks: each a lock, a dotted path from a parameter ("self._lock", "mm.ptl"), or a callable that is
            given the call's arguments.
        mode: "exclusive" or "shared", for locks that know both; by default either will do.

    Raises:
        TypeError, ValueError: when decorating, for wrong use; at a call, TypeError for what is no lock.
    """
    _check_mode("requires_lock", mode)
    if not locks:
        raise TypeError('requires_lock: it names no lock; say which: @requires_lock("self._lock")')
    for lock in locks:
        if (not isinstance(lock, str) and not callable(lock)) or isinstance(lock, type):
            _check_lock("requires_lock", lock)
    return RequiresLock(locks, mode)


# --- assert_held, assert_not_held -------------------------------------------------------------------


def assert_held(lock: Any, mode: Holding = None) -> None:
    """Check that the caller holds ``lock`` (CTX301 if not).

    Args:
        lock: a lock, or a Condition.
        mode: "exclusive" or "shared"; by default either will do.

    Raises:
        TypeError: it is no lock.
        ValueError: an unknown mode.
    """
    if mode is None and fastpath._engine is not None:
        try:
            if lock.node.state is fastpath._local.st:
                return
        except AttributeError:
            pass
    _assert("assert_held", lock, True, mode)


def assert_not_held(lock: Any, mode: Holding = None) -> None:
    """Check that the caller doesn't hold ``lock`` (CTX301 if it does); otherwise as :func:`assert_held`."""
    _assert("assert_not_held", lock, False, mode)


def _assert(marker: str, lock: Any, wanted: bool, mode: Holding) -> None:
    _check_mode(marker, mode)
    _check_lock(marker, lock)
    if ENABLED and fastpath.active:
        state = fastpath.current()
        if state.cur is not VOID:
            _check(state, lock, type(lock).__qualname__, wanted, mode, marker, EMPTY)


# --- might_lock -------------------------------------------------------------------------------------

#: Steps of their own: a chain that was only asked about must not be taken for the place where a lock was acquired.
_asked: Final[dict[tuple[LockClass, Mode], Step]] = {}


def _asked_step(lock_class: LockClass, mode: Mode) -> Step:
    if lock_class.kind is REGION:
        return lock_class.step(MIGHT_ENTER)
    found = _asked.get((lock_class, mode))
    return found or _asked.setdefault((lock_class, mode), Step(lock_class, mode, lock_class.kind.takes))


def ask(state: OwnerState, lock: Any, mode: Holding) -> None:
    """Learn and validate what an acquire of ``lock`` would mean here, without one."""
    if state.cur is VOID:
        return
    lock = _subject(lock)
    node = getattr(lock, "node", None)
    if type(node) is Unused:
        # its class isn't known until it is first used; this is a use
        node.settle_for(levels.real(lock))
    lock_class, under = _class_of(lock), None
    if isinstance(lock, levels.StandIn):
        lock, under = lock.lock, lock.under
    if lock_class is None or lock_class.kind.resource:
        needs = BLOCK if lock_class is None else lock_class.kind.needs
        if not state.cur.allows & needs:
            because = state.cur.because(needs)
            if because is not None and because.step is not EVENT_LOOP:
                slowpath.consult(_blocks, state, type(lock).__qualname__, needs)
        return
    answer = _look(state, lock)
    if answer.held:
        if not lock_class.kind.reentrant and not lock_class.handed_over and not _both_shared(answer.node, mode):
            slowpath.consult(_self_deadlock, state, lock_class, answer.node)
        return
    step = _asked_step(lock_class, SHARED if mode == "shared" else ACQUIRE)
    if under is not None or step not in state.cur:
        # a region has no instances
        slowpath.step_on(state, step, None if lock_class.kind is REGION else lock, under)


def _both_shared(node: Node | None, mode: Holding) -> bool:
    return mode == "shared" and node is not None and node.step.mode is not None and node.step.mode.shared


def _blocks(state: OwnerState, name: str, needs: int) -> None:
    report_sleep(state.engine, state, name, "acquire", capture(1), permission=needs)


def _self_deadlock(state: OwnerState, lock_class: LockClass, node: Node | None) -> None:
    """As the engine's own, but nothing hangs here: it is reported, and the program goes on."""
    if node is None:
        return
    mode = node.step.mode
    why: Any = "owned" if lock_class.kind.owned else "with" if mode is not None and mode.scoped else ""
    trace = capture(1)
    state.owner.learn_name()
    engine = state.engine
    engine.emit(
        state,
        Finding(
            "CTX002",
            "certain" if why else "possible",
            state.owner,
            trace,
            (lock_class.key, trace.function()),
            SelfDeadlockFacts(lock_class, engine.entry(node), why),
            (lock_class,),
            engine.allowed(state.cur, "CTX002"),
        ),
    )


@final
class _Takes:
    """The check of the lock that one function may take."""

    __slots__ = ("_mode", "_name", "_what")

    def __init__(self, target: Target, name: str, mode: Holding) -> None:
        self._what = target.qualname
        self._name: str = name
        self._mode: Holding = mode

    def __call__(self, state: OwnerState, lock: Any) -> None:
        if not _is_lock(lock):
            raise TypeError(f"@might_lock on {self._what}: {self._name} gives {describe(lock)}, which is no lock")
        ask(state, lock, self._mode)


@final
class MightLock:
    """What ``might_lock("path")`` returns: a decorator."""

    __slots__ = ("_lock", "_mode")

    def __init__(self, lock: Any, mode: Holding) -> None:
        self._lock: Any = lock
        self._mode: Holding = mode

    def __call__(self, function: F, /) -> F:
        """Mark ``function``."""
        return mark(function, "might_lock", self._plan)

    def _plan(self, target: Target) -> Plan:
        text, name = _lock_text(target, self._lock)
        return Plan([f"_ctx_takes(_ctx_st, {text})"], _ctx_takes=_Takes(target, name, self._mode))


@overload
def might_lock(lock: str | Callable[..., Any], mode: Holding = None) -> MightLock: ...
@overload
def might_lock(lock: Lockable, mode: Holding = None) -> None: ...
def might_lock(lock: Any, mode: Holding = None) -> Any:
    """Say that this may acquire ``lock``: what an acquire would mean here is learned and checked, and nothing is taken.

    So an order of locks is known also where the acquire itself is rare: CTX001, CTX003 and CTX102 are as for
    an acquire, and CTX002 if the caller holds the lock and it isn't re-entrant.

    As a call, ``might_lock(lock)``; as a decorator with a path from a parameter, ``@might_lock("self._lock")``, or a
    callable that is given the call's arguments: checked at each call of the function, when its body starts.

    Raises:
        TypeError: it is no lock, path or callable.
        ValueError: an unknown mode; when decorating, a path that names no parameter.
    """
    _check_mode("might_lock", mode)
    if isinstance(lock, str) or (callable(lock) and not _is_lock(lock) and not isinstance(lock, type)):
        return MightLock(lock, mode)
    _check_lock("might_lock", lock)
    if ENABLED and fastpath.active:
        ask(fastpath.current(), lock, mode)
    return None
