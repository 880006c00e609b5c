"""``might_sleep``, ``atomic`` and ``allow``."""

from __future__ import annotations

from types import CodeType, FrameType
from typing import Any, Final, Self, final, overload

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.blocking import call_named, judge
from ctxcheck.engine.classes import AWAIT, BLOCK, EVERYTHING, FREE, ContextStep, Step
from ctxcheck.engine.contexts import forbidding
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.raw import get_frame, uninterrupted
from ctxcheck.engine.rules import find_rule, rule_names
from ctxcheck.engine.sites import EMPTY, Trace, capture, capture_place, is_own, suspended_at
from ctxcheck.engine.telling import report_forbidden, report_sleep
from ctxcheck.markers.shapes import F, Plan, enter, held, leave, mark
from ctxcheck.markers.target import Target
from ctxcheck.markers.usage import ENABLED, check_text, describe, nearest, used_as

#: To block the thread without a look at what is held.
BLOCKING: Final = BLOCK | FREE
#: Labels of blocks that are remembered; a program that makes them up at run time must not fill the memory.
MAX_LABELS: Final = 1_000


# --- sleep points -------------------------------------------------------------------------


def sleeps(
    state: OwnerState, what: str, how: Any, permission: int, declared: Trace = EMPTY, why: str = ""
) -> None:
    """Report that ``what`` may wait, unless this owner has the permission to (CTX101, CTX103); ``why`` is the mark's
    reason.  What may block the thread is noted for the locks that are held meanwhile (CTX105)."""
    if state.drops:
        state.settle()
    if permission == BLOCK:
        if state.cur.allows & BLOCKING != BLOCKING:
            call = call_named(what, "sleep")
            slowpath.consult(judge, state.engine, state, call, None, how, declared, why)
    elif not state.cur.allows & permission:
        slowpath.consult(_report_sleep, state, what, how, permission, declared, capture(1), why)
    elif not state.cur.allows & FREE:
        slowpath.consult(_report_forbidden, state, what, declared, capture(1), why)


def _report_sleep(
    state: OwnerState, what: str, how: Any, permission: int, declared: Trace, trace: Trace, why: str = ""
) -> None:
    report_sleep(state.engine, state, what, how, trace, declared=declared, permission=permission, why=why)


def _report_forbidden(state: OwnerState, what: str, declared: Trace, trace: Trace, why: str) -> None:
    """What may suspend the task is called: a context around it may forbid to sleep (CTX106)."""
    for entry in forbidding(state.cur, "sleep"):
        report_forbidden(state.engine, state, what, "sleep", entry, trace, declared, why)


@final
class _Declared:
    """The check of one function that is marked with ``might_sleep``."""

    __slots__ = ("_declared", "_permission", "_what", "_why")

    def __init__(self, target: Target, why: str) -> None:
        self._what = target.qualname
        self._permission = target.permission
        self._declared = target.declared
        self._why: str = why

    def __call__(self, state: OwnerState) -> None:
        sleeps(state, self._what, "marked", self._permission, self._declared, self._why)


@final
class Sleeps:
    """What ``might_sleep(...)`` returns: a decorator, and a context manager that checks at its entry."""

    __slots__ = ("reason",)

    def __init__(self, reason: str | None = None) -> None:
        self.reason: str | None = reason

    def __call__(self, function: F, /) -> F:
        """Mark ``function``."""
        return mark(function, "might_sleep", self._plan)

    def _plan(self, target: Target) -> Plan:
        mask = target.permission | FREE
        check = [f"if _ctx_st.cur.allows & {mask} != {mask}:", "    _ctx_report(_ctx_st)"]
        return Plan(check, _ctx_report=_Declared(target, self.reason or ""))

    def __enter__(self) -> None:
        if ENABLED:
            _here(fastpath.current(), BLOCK, self.reason or "")

    def __exit__(self, *_: object) -> None:
        return None

    async def __aenter__(self) -> None:
        if ENABLED:
            _here(fastpath.current(), AWAIT, self.reason or "")

    async def __aexit__(self, *_: object) -> None:
        return None


_SLEEPS: Final = Sleeps()


@overload
def might_sleep(function: F, /) -> F: ...
@overload
def might_sleep(reason: str | None = None, /) -> Sleeps: ...
def might_sleep(what: Any = None, /) -> Any:
    """Say that this may sleep: as a decorator of a function, as a call, or around a block.

    ``@might_sleep``, ``@might_sleep("why")``: a call of the function is CTX101 where its caller may not block the
    thread (for coroutines and async generators: may not await), before the body runs, whether or not this call would
    have slept.  A generator is checked when its body starts.

    ``might_sleep()``, ``might_sleep("why")`` as a statement: the same check, here and now.  ``with`` and
    ``async with`` check at the entry of the block.  Also in a coroutine the statement is about the thread: that
    something may be awaited, ``async with might_sleep():`` says.

    On an event loop what may block the thread is CTX103; and what may, while a lock is held, makes that lock slow
    (CTX105).

    ``@might_sleep()`` and the statement ``might_sleep()`` are the same call to Python.  Where that is about to be
    reported, the bytecode behind it tells whether the result decorates something; decorating is no sleep point.

    Args:
        what: the function, or the reason.

    Raises:
        TypeError: it is neither.
    """
    if what is None:
        if fastpath._engine is not None:
            try:
                st = fastpath._local.st
            except AttributeError:
                st = fastpath.begin()
            if st.cur.allows & 5 != 5:
                _statement(st)
        return _SLEEPS
    if isinstance(what, str):
        if not what:
            raise ValueError("might_sleep: the reason is empty")
        if fastpath.active:
            st = fastpath.current()
            if st.cur.allows & BLOCKING != BLOCKING:
                _statement(st, what)
        return Sleeps(what)
    return mark(what, "might_sleep", _SLEEPS._plan)


def _statement(state: OwnerState, why: str = "") -> None:
    """``might_sleep()`` was called where it has to be looked at: judge it, if that call is the sleep point."""
    frame: Any = get_frame(1)
    while frame is not None and is_own(frame.f_code):
        frame = frame.f_back
    if ENABLED and frame is not None and slowpath.consult(_is_sleep_point, frame):
        call = call_named(str(frame.f_code.co_qualname), "sleep")
        slowpath.consult(judge, state.engine, state, call, None, "marked", EMPTY, why)


#: Places of such calls, with the answer; the code is kept, so that its id stays its own.
_asked: Final[dict[tuple[int, int], tuple[CodeType, bool]]] = {}


def _is_sleep_point(frame: FrameType) -> bool:
    key = (id(frame.f_code), frame.f_lasti)
    known = _asked.get(key)
    if known is None:
        if len(_asked) >= MAX_LABELS:
            _asked.clear()
        known = _asked[key] = (frame.f_code, used_as(frame) == "value")
    return known[1]


def _here(state: OwnerState, permission: int, why: str) -> None:
    mask = permission | FREE
    if state.cur.allows & mask != mask:
        trace = capture(1)
        sleeps(state, trace.function(), "marked", permission, why=why)


# --- contexts around a block ----------------------------------------------------------------


class Section:
    """A context as a ``with`` or ``async with`` block.

    One object may be used many times, nested, and by many threads.  It is left by whoever leaves the block.
    """

    __slots__ = ("_entered",)

    def __init__(self) -> None:
        # where each block stands that is being run
        self._entered: list[Node] = []

    def _step(self) -> tuple[Step, bool]:
        """The step, and whether it will be the same the next time."""
        raise AssertionError

    def __enter__(self) -> Self:
        if ENABLED and fastpath.active:
            state = fastpath.current()
            if state.cur is not VOID:
                step, lasting = self._step()
                node = state.cur.get(step) if lasting else _once(state, step)
                if node is None:
                    node = enter(state, step)
                if node is not None:
                    # no call from here on, and the chain last: an exception from a signal handler must not leave us
                    # inside of a block that never began
                    self._entered += (node,)
                    state.cur = node
                    return self
        self._entered.append(VOID)
        return self

    # no call and no entry before the context is left: a signal handler may raise at each
    @uninterrupted
    def __exit__(self, *_: object) -> None:
        try:
            state = fastpath._local.st
        except AttributeError:
            state = fastpath.begin()
        entered = self._entered
        node = entered[-1]
        if state.cur is node:
            state.cur = node.parent
            del entered[-1]
            return
        # blocks of more than one thread, or what was taken inside is still held
        at = next((i for i in range(len(entered) - 1, -1, -1) if entered[i].state is state), -1)
        node = entered.pop(at)
        if state.cur is node and node is not VOID:
            state.cur = node.parent
        else:
            leave(state, node)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


def _once(state: OwnerState, step: Step) -> Node:
    """A node that isn't cached, for a step that won't come again."""
    state.settle()
    node = Node(state.cur, step, state, capture(1))
    slowpath.consult(state.engine.named.entered, state, node)
    return node


_steps: Final[dict[tuple[str, str, frozenset[str]], ContextStep]] = {}


def interned(kind: str, label: str, takes: int, detail: frozenset[str] = frozenset()) -> tuple[ContextStep, bool]:
    """The step of a context by its label: always the same one, up to ``MAX_LABELS``."""
    key = (kind, label, detail)
    found = _steps.get(key)
    if found is not None:
        return found, True
    made = ContextStep(kind, label, takes, detail=detail)
    if len(_steps) >= MAX_LABELS:
        return made, False
    return _steps.setdefault(key, made), True


# --- atomic -----------------------------------------------------------------------------------


@final
class Atomic(Section):
    """What ``atomic(...)`` returns: a decorator, and a context manager."""

    __slots__ = ("label",)

    def __init__(self, label: str | None = None) -> None:
        super().__init__()
        self.label: str | None = label

    def __call__(self, function: F, /) -> F:
        """Mark ``function``."""
        return mark(function, "atomic", self._plan)

    def _plan(self, target: Target) -> Plan:
        label = self.label or target.qualname
        step = ContextStep("atomic", label, EVERYTHING, target.declared)
        return held(step, _Suspends(label, target.declared) if target.permission == AWAIT else None)

    def _step(self) -> tuple[ContextStep, bool]:
        label = self.label
        if label is None:
            frame: Any = get_frame(1)
            while is_own(frame.f_code) and frame.f_back is not None:
                frame = frame.f_back
            label = str(frame.f_code.co_qualname)
        return interned("atomic", label, EVERYTHING)


@overload
def atomic(function: F, /) -> F: ...
@overload
def atomic(label: str | None = None, /) -> Atomic: ...
def atomic(what: Any = None, /) -> Any:
    """Say that this must not sleep: as a decorator of a function, or around a block.

    ``@atomic``, ``@atomic("why")``, ``with atomic("why"):``, ``async with atomic("why"):``.  Inside, however deep,
    nobody may block the thread or await: CTX101 for what may sleep, CTX102 for a blocking acquire of a lock that
    sleeps.  Nothing inside gives the permission back.

    It lasts as long as the body runs.  A generator or coroutine is inside only while it runs itself, not while it
    is suspended, whoever resumes it; a coroutine that really suspends is CTX101, a generator's ``yield`` is no wait.
    A block lasts until it is left, and is its task's: while the task is suspended in it, which is CTX101, nobody else
    is inside.

    Args:
        what: the function, or what the reports call the context; by default the function's qualified name.

    Raises:
        TypeError: it is neither.
    """
    if what is None:
        return Atomic()
    if isinstance(what, str):
        return Atomic(check_text("atomic", "the label", what))
    return mark(what, "atomic", Atomic()._plan)


nonblocking = atomic


@final
class _Suspends:
    """Reports that the body of a coroutine which is marked atomic has suspended."""

    __slots__ = ("_declared", "_what")

    def __init__(self, what: str, declared: Trace) -> None:
        self._what: str = what
        self._declared: Trace = declared

    def __call__(self, state: OwnerState, body: Any) -> ViolationError | None:
        """Report; what the mode wants raised is returned, to be raised in the body where it waits."""
        if state.cur.allows & AWAIT:
            return None
        trace = suspended_at(body)
        try:
            slowpath.consult(_report_sleep, state, self._what, "suspends", AWAIT, self._declared, trace)
        except ViolationError as error:
            return error
        return None


# --- allow ------------------------------------------------------------------------------------


#: By reason, rules and the place where ``allow`` is called, which each step keeps alive: those at two places are two,
#: so that it can be told which of them accepts nothing.
_allows: Final[dict[tuple[str, frozenset[str], int, int], ContextStep]] = {}


@final
class Allow(Section):
    """What ``allow(...)`` returns: a decorator, and a context manager."""

    __slots__ = ("_context", "_lasting", "codes", "reason")

    def __init__(self, codes: frozenset[str], reason: str, at: Trace = EMPTY) -> None:
        super().__init__()
        self.codes: frozenset[str] = codes
        self.reason: str = reason
        step = ContextStep("allow", reason, declared=at, detail=codes)
        key = (reason, codes, id(at.codes[0]) if at.codes else 0, at.lastis[0] if at.lastis else 0)
        self._lasting: bool = key in _allows or len(_allows) < MAX_LABELS
        self._context: ContextStep = _allows.setdefault(key, step) if self._lasting else step

    def __call__(self, function: F, /) -> F:
        """Mark ``function``."""
        return mark(function, "allow", self._plan)

    def _plan(self, target: Target) -> Plan:
        del target
        return held(self._context)

    def _step(self) -> tuple[ContextStep, bool]:
        return self._context, self._lasting


def allow(*rules: str, reason: str) -> Allow:
    """Accept findings of ``rules`` that are made inside: as a decorator of a function, or around a block.

    It covers what the owner (thread or task) does that runs the block, and no other owner; of an order of locks the
    acquires that are made inside; of what is left behind (CTX203, CTX303) what was opened or acquired inside.  One that
    ran and accepted nothing is listed in :attr:`Session.unused_allows <ctxcheck.Session.unused_allows>`.

    Args:
        rules: codes ("CTX103") or slugs ("block-in-event-loop").
        reason: why that is right here; shown with each finding that is accepted.

    Raises:
        TypeError: no rule, or a rule or reason that is no string.
        ValueError: an empty reason, or a rule that doesn't exist.
    """
    bare: object = rules[0] if rules else None
    if not isinstance(bare, str):
        what = f"{describe(bare)} is no rule" if rules else "it names no rule"
        raise TypeError(f'allow: {what}; say which, and why: allow("CTX103", reason="...")')
    codes: set[str] = set()
    for name in rules:
        check_text("allow", "a rule", name)
        rule = find_rule(name)
        if rule is None:
            raise ValueError(f"allow: there is no rule {name!r}{nearest(name, rule_names())}")
        codes.add(rule.code)
    text = check_text("allow", "reason", reason)
    return Allow(frozenset(codes), text, capture_place(1) if ENABLED else EMPTY)
