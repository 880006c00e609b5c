"""One run of the validator: what it found, and what is done about it.

What the engine finds is put into words (:mod:`ctxcheck.wording`), kept and written before anything can swallow it
(:mod:`ctxcheck.books`), and then recorded, warned of, raised or called back with, as the session's mode says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from os import getcwd as _getcwd
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from ctxcheck import debuggers, fastpath, notices, steps, tasks
from ctxcheck.books import Books, Sink
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import REGION, LockClass
from ctxcheck.engine.declared import Declaration
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.excuses import Excuses
from ctxcheck.engine.findings import Finding
from ctxcheck.engine.grading import Owners
from ctxcheck.engine.instances import BACKGROUND, crediting
from ctxcheck.engine.origins import Phase
from ctxcheck.engine.owner import VOID, Owner
from ctxcheck.engine.raw import get_frame, get_ident
from ctxcheck.engine.rules import GRADES, Grade
from ctxcheck.engine.validator import Validator
from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.selection import Allowance, codes_of, one_of

if TYPE_CHECKING:
    from typing import Self

    from ctxcheck.engine.allows import UnusedAllow
    from ctxcheck.engine.graph import Edge, Evidence
    from ctxcheck.recorder import Recorder

_T = TypeVar("_T")

Mode = Literal["record", "warn", "raise"]
MODES: Final = ("record", "warn", "raise")
OWNERS: Final = ("assumed", "observed")

#: Found while an owner is being torn down, or has just been suspended, where an exception has nowhere to go.
_NEVER_RAISED: Final = frozenset({"CTX104", "CTX203", "CTX303", "CTX901"})
#: What is told at once although it is in the baseline: the program stands still.
_HANGS: Final = frozenset({"CTX001", "CTX002", "CTX003", "CTX006"})
#: How near a name comes to another one that was meant: most end in the same word.
_NEARLY: Final = 0.85
#: Who wants to wait longer for a report than a day waits a day; a clock can't be asked for any number of seconds.
_MAX_WAIT: Final = 86_400


class Session:
    """What one run of the validator found.

    Args:
        mode: "record" (default), "warn" (a :class:`~ctxcheck.ViolationWarning`), "raise" (a
            :class:`~ctxcheck.ViolationError` at the offending call), or a callable that is given each new
            :class:`~ctxcheck.Violation`.  Whatever the mode, a finding is recorded first.
        owners: "assumed" takes it that any critical section may run in any number of threads at once, as a test suite
            runs in one what production runs in many; "observed" goes by the threads that were seen.
        deadlock_after: seconds after which a blocked owner is looked at.
        fail_on: the least grade that warns, raises or fails.
        select, ignore: prefixes of rule codes, or slugs; what isn't selected isn't recorded.
        declared: orders that locks are to be taken in (CTX007).
        known: whether a finding is in the baseline: such a one is recorded and counted, but fails, warns and raises
            nothing.

    Raises:
        ValueError: for an unknown mode, owners, grade or rule.
    """

    def __init__(
        self,
        *,
        mode: Mode | Callable[[Violation], object] = "record",
        owners: Owners = "assumed",
        deadlock_after: float = 1.0,
        fail_on: Grade = "possible",
        select: Iterable[str] = ("CTX",),
        ignore: Iterable[str] = (),
        allow: Iterable[Allowance] = (),
        stack_depth: int = 20,
        declared: Iterable[Declaration] = (),
        sink: Sink | None = None,
        at_once: Callable[[Violation], object] | None = None,
        known: Callable[[Violation], bool] | None = None,
    ) -> None:
        if not callable(mode):
            one_of("mode", mode, MODES, "or a callable")
        one_of("owners", owners, OWNERS)
        one_of("fail_on", fail_on, GRADES)
        if not isinstance(deadlock_after, (int, float)) or not deadlock_after > 0:
            raise ValueError(f"deadlock_after={deadlock_after!r} is not a number of seconds above 0")
        self.mode: Mode | Callable[[Violation], object] = mode
        self.fail_on: Grade = fail_on
        self._sink: Sink | None = sink
        self._recorder: Recorder | None = None
        self._at_once: Callable[[Violation], object] | None = at_once
        self._where: Any = None
        self._verdict: list[Finding] | None = None
        self._acquisitions: int = 0
        self._started: bool = False
        self._stopped: bool = False
        #: whether this process has forked
        self.has_forked: bool = False
        after = float(min(deadlock_after, _MAX_WAIT))
        self.engine: Validator = Validator(self._record, self._withdraw, owners=owners, deadlock_after=after)
        self.engine.insistent = mode == "raise"
        self.engine.configured = tuple(declared)
        # not when something is found: that may be in a finalizer, or while the interpreter shuts down
        from ctxcheck.wording import Wording

        self._wording: Wording = Wording(
            self.engine,
            select=codes_of("select", select),
            ignore=codes_of("ignore", ignore),
            allow=allow,
            cwd=_here(),
            stack_depth=stack_depth,
            known=known,
        )
        self._books: Books = Books(self._wording, sink, self._tell)

    # --- running ---------------------------------------------------------------

    def start(self) -> None:
        """Become the session that events go to; an outer one is suspended until :meth:`stop`.

        Raises:
            RuntimeError: it was started before; a session is one run.
        """
        if self._started:
            state = "has ended" if self._stopped else "is running"
            raise RuntimeError(f"this session {state}: make a new one for each run, with ctxcheck.checking()")
        self._started = True
        self.engine.begin()
        if self._sink is not None:
            from ctxcheck.recorder import Recorder

            self._recorder = self.engine.orders.listener = Recorder(self._sink, self.engine)
        slowpath.on_fault.append(self._fault)
        self._acquisitions = slowpath.acquisitions()
        self.engine.named.outer = fastpath._local
        self._where = fastpath.activate(self.engine)
        _sessions.append(self)
        tasks.watch()
        if steps.running_loop() is not None:  # in the middle of a step
            here = fastpath.current()
            inside = steps.enter_loop(here)
            if inside is not None:
                here.cur = inside

    def tell_origins_apart(self) -> None:
        """From now on what belongs to no origin is of the background, and each instance counts for whoever makes it.

        See :mod:`~ctxcheck.engine.origins`.
        """
        self.engine.origins.default = BACKGROUND
        crediting.append(self._credit)

    def _credit(self) -> Callable[[LockClass], None]:
        # a task may make a lock before it has taken any step
        if fastpath.engine() is self.engine:
            return self.engine.origins.credit(fastpath.current())
        return self.engine.origins.credit(fastpath.thread_state(self._where, self.engine))

    def stop(self, how: str = "checking block") -> None:
        """End the session: the calling thread finishes, what was provisional is settled.  Violations stay readable.

        Sessions may end in any order: events go to the one that began last among those that are left.  What a
        callback raises meanwhile comes out when all is done.
        """
        if self._stopped or self not in _sessions:
            return
        self._stopped = True
        if self._credit in crediting:
            crediting.remove(self._credit)
        self._acquisitions = slowpath.acquisitions() - self._acquisitions
        active = fastpath.engine() is self.engine
        try:
            state = fastpath.known()
            if active and state is not None and state.engine is self.engine:
                self.engine.roster.end(state, how)
                if state.owner.thread is not state.owner:  # a task: its thread stops as well
                    self.engine.roster.end(fastpath.thread_state(fastpath._local, self.engine), how)
        finally:
            try:
                # closed first: to leave the thread-local state behind looks like the end of every thread that has one
                self.engine.close(how)
                self._verdict = None if self.engine.broken else slowpath.consult(self.engine.orders.verdict)
                self._books.settle(self.violations)
            finally:
                self.engine.finish()
                if self._recorder is not None:
                    self._recorder.finish()
                tasks.unwatch()
                _sessions.remove(self)
                slowpath.on_fault.remove(self._fault)
                if active or self.engine.broken:
                    top = _sessions[-1] if _sessions else None
                    usable = top is not None and not top.engine.broken
                    fastpath.activate(top.engine if top and usable else None, top._where if top else None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # --- what was found ----------------------------------------------------------

    @property
    def violations(self) -> list[Violation]:
        """Every violation so far, one a fingerprint, in the order in which they were found.

        Computed from all orders seen so far: grades may still rise while the session runs.  Works inside
        the block and after it.  Allowed and unlikely ones are among them (``allowed_by``, ``grade``).
        """
        verdict = self._verdict
        if not (self.engine.broken or self._stopped):
            verdict = slowpath.consult(self.engine.orders.verdict)
        return self._books.come_to(verdict, self.engine.pending())

    def violations_in(
        self, origin: str, without: Iterable[Owner] = (), *, pending: bool = True
    ) -> list[Violation]:
        """As :attr:`violations`, of one origin (see :mod:`~ctxcheck.engine.origins`), but for what only the owners
        ``without`` have shown; ``pending``: with what may yet turn out to be none."""
        gone = set(without)
        verdict = None if self.engine.broken else slowpath.consult(self.engine.orders.verdict, origin, gone)
        return self._books.come_to(verdict, self.engine.pending() if pending else (), origin, gone)

    def end_origin(
        self, phase: Phase, *, keep: bool = True, expected: Container[str] = (), allowed: Iterable[Allowance] = ()
    ) -> list[Violation]:
        """An origin is over, for the calling owner and altogether: its violations.

        What owners have shown that outlive it counts for the background.  ``keep``: its orders count together with
        those of others.  ``expected``: fingerprints of those that are no mistake there; ``allowed`` is what accepts
        findings there and nowhere else.  Neither says anything of what others do.
        """
        origins, origin = self.engine.origins, phase.origin
        gone = origins.alive(origin)
        verdict = None if self.engine.broken else slowpath.consult(self.engine.orders.verdict, origin, gone)
        left = slowpath.consult(lambda: origins.end(phase, over=True)) or []
        violations = self._books.come_to(verdict, self.engine.pending(), origin, gone)
        self._books.keep(violations, origin)
        self._books.stand(violations, origin, expected)
        self._books.close(origin, gone, keep=keep)
        here = {(a.reason, a.where) for a in allowed}
        reasons = {v.fingerprint: v.allowed_by for v in violations if (v.allowed_by, v.allowed_at) in here}
        reasons.update((v.fingerprint, f"expected by {origin}") for v in violations if v.fingerprint in expected)
        named = ((finding, reasons.get(self._wording.fingerprint(finding))) for finding in verdict or ())
        excuses = Excuses((finding, reason) for finding, reason in named if reason is not None)
        slowpath.consult(
            lambda: self.engine.orders.quietly(lambda: origins.close(origin, left, keep=keep, excuses=excuses))
        )
        return violations

    @property
    def allowances(self) -> list[Allowance]:
        """What is accepted from outside of the program; may be changed while the session runs."""
        return self._wording.acceptance.allowances

    @property
    def local(self) -> Any:
        """The thread-local state that this session goes by, also while another one is inside of it."""
        return self._where

    def found_in(self, origin: str) -> list[Violation]:
        """What was told of one origin so far."""
        return list(self._books.book(origin).found.values())

    def put_into_words(self, finding: Finding, seen: Mapping[Edge, Evidence] | None = None) -> Violation | None:
        """The report on a finding that was made elsewhere, ``None`` if its rule isn't asked for; it isn't recorded.
        ``seen`` is where its orders were seen, if not here."""
        violation = self._books.compose(finding, seen)
        return violation if self._wording.wanted(violation) else None

    def is_judged(self, violation: Violation) -> bool:
        """Whether a verdict over the evidence tells of it, or of another one instead."""
        return self._books.is_judged(violation)

    def origins(self) -> list[str]:
        """The origins that have violations and aren't over, but for the empty one."""
        return self._books.origins()

    @property
    def failures(self) -> list[Violation]:
        """The violations that count: not allowed, and of at least the grade ``fail_on``."""
        return [v for v in self.violations if self.fails(v)]

    def fails(self, violation: Violation) -> bool:
        """Whether this violation counts."""
        if violation.baselined or violation.allowed_by is not None:
            return False
        return GRADES.index(violation.grade) >= GRADES.index(self.fail_on)

    @property
    def unused_allows(self) -> list[UnusedAllow]:
        """The ``allow``s that have accepted nothing so far: entries of the configuration, blocks and decorators that
        ran, comments in the project's own files (below the working directory, of modules that were imported).

        Only of rules that are selected.  A run of a part of the program says nothing about the rest: what its allows
        are for may not have run.  Reads those files, at most 2,000.
        """
        return self._unwatched(lambda: self._wording.acceptance.unused(self.engine))

    @property
    def refused_allows(self) -> list[str]:
        """What is wrong with the ``allow`` comments in the project's own files that accept nothing for it, a line each:
        no reason, no rule or one that doesn't exist."""
        return self._unwatched(self._wording.acceptance.refused)

    def allows(self) -> list[tuple[UnusedAllow, bool]]:
        """Every ``allow`` that ran or stands in the project's files, and whether it accepted anything; as for
        :attr:`unused_allows`."""
        return self._unwatched(lambda: self._wording.acceptance.every(self.engine))

    def uses_comment(self, allow: UnusedAllow) -> bool:
        """Whether a comment, of whatever process, has accepted something in this one."""
        return allow.kind == "comment" and self._wording.acceptance.is_used(allow)

    def misnamed(self, classes: Iterable[LockClass] | None = None) -> list[str]:
        """A line for each lock that the configuration names and that is none of these classes (by default, those that
        were seen), but nearly one: a typing error, most likely."""
        seen = list(self.engine.seen if classes is None else classes)
        orders = self.engine.declared.missing(seen, _NEARLY) if self.engine.declared is not None else []
        return [*orders, *self._wording.acceptance.misnamed(seen, _NEARLY)]

    def _unwatched(self, ask: Callable[[], list[_T]]) -> list[_T]:
        """Ask for something that reads files, which is none of the program's doing."""
        self.violations  # noqa: B018  # what is accepted shows when it is composed
        state = fastpath.known()
        if state is None:
            return ask()
        saved = state.cur
        state.cur = VOID
        try:
            return ask()
        finally:
            state.cur = saved

    def held_locks(self) -> list[str]:
        """The display names of the locks that the calling owner holds, in the order of their acquisition."""
        state = tasks.owner_state() if steps.running_task() is not None else fastpath.known()
        if state is None:
            return []
        state.settle()
        classes = [n.step.lock_class for n in state.cur.all_held()]
        names = [c.name for c in classes if c is not None and c.kind is not REGION and not c.kind.awaited]
        return names[::-1]

    def counts(self) -> Counts:
        """What was checked."""
        total = self._acquisitions if self._stopped else slowpath.acquisitions() - self._acquisitions
        engine = self.engine
        return Counts(
            lock_classes=len(engine.seen),
            orders=sum(not (a.kind.awaited or b.kind.awaited) for a, b in list(engine.graph.evidence)),
            chains=engine.chains,
            acquisitions=total,
            marked_calls=engine.contexts,
            dropped=engine.dropped + engine.cut + engine.graph.folded,
            uncached=engine.uncached,
            threads=engine.roster.begun,
        )

    def graph(self) -> dict[str, Any]:
        """The lock classes and orders seen, as plain data."""
        evidence = self.engine.graph.evidence
        # what nobody waits for with a lock in his hands orders nothing
        awaited = {target for _, target in evidence if target.kind.awaited}
        shown = {
            edge: count for edge, count in evidence.items() if not edge[0].kind.awaited or edge[0] in awaited
        }
        classes = [
            {"key": c.key, "name": c.name, "kind": c.kind.name}
            for c in sorted(self.engine.seen.union(*shown), key=lambda c: c.key)
        ]
        edges = [
            {"from": source.key, "to": target.key, "count": found.count}
            for (source, target), found in sorted(
                shown.items(), key=lambda item: (item[0][0].key, item[0][1].key)
            )
        ]
        return {"classes": classes, "edges": edges}

    # --- what is done about it --------------------------------------------------

    def _record(self, finding: Finding) -> Violation:
        self.engine.allows.used(finding.allowed)
        violation = self._books.record(finding)
        if (
            self.mode == "raise"
            and self.fails(violation)
            and violation.rule not in _NEVER_RAISED
            and finding.owner is not None
            and finding.owner.ident == get_ident()
            and self._wording.wanted(violation)
            and not debuggers.attached()
        ):
            raise ViolationError(violation)
        return violation

    def _withdraw(self, finding: Finding) -> None:
        self._books.withdraw(finding)

    def _tell(self, violation: Violation) -> None:
        # what is certain, and what hangs, though it may yet be let go (CTX002)
        urgent = violation.allowed_by is None and (violation.grade == "certain" or violation.rule == "CTX002")
        if violation.baselined and violation.rule not in _HANGS:
            urgent = False
        if self._at_once is not None and urgent:
            self._at_once(violation)
        if "structlog" in sys.modules:
            notices.log(violation)
        if callable(self.mode):
            self.mode(violation)
        elif self.mode == "warn" and self.fails(violation):
            notices.warn(violation)

    def accept(self, violation: Violation) -> Violation:
        """A finding of several processes together, with what accepts it, or marked as one of the baseline."""
        return self._wording.accept(violation)

    def wanted(self, violation: Violation) -> bool:
        """Whether a finding's rule is selected."""
        return self._wording.wanted(violation)

    def after_fork(self, engine: Validator | None) -> None:
        """In a forked child: what was found before is the parent's; ``engine`` is the one that events go to."""
        self._books.after_fork()
        self.has_forked = False
        self.engine.after_fork(fastpath.known() if self.engine is engine else None)

    def _fault(self, error: BaseException) -> None:
        """The validator broke inside: switch it off, say so once (CTX901), and let the program go on."""
        if self.engine.broken:
            return
        self.engine.broken = True
        if fastpath.engine() is self.engine:
            fastpath.activate(None)
        violation = notices.fault(error)
        self._books.put(violation)
        notices.say_fault(violation, error)


#: The sessions that are running, outermost first.
_sessions: Final[list[Session]] = []


def checking(
    *,
    mode: Mode | Callable[[Violation], object] = "record",
    owners: Owners = "assumed",
    deadlock_after: float = 1.0,
    fail_on: Grade = "possible",
    select: Iterable[str] = ("CTX",),
    ignore: Iterable[str] = (),
) -> Session:
    """Check what runs in a ``with`` block: ``with ctxcheck.checking() as session: ...``.

    Starts with nothing known, also inside another session (which sees nothing meanwhile).  Installs
    nothing: it sees checked locks and marked functions.  Arguments as for :class:`Session`.
    """
    return Session(
        mode=mode, owners=owners, deadlock_after=deadlock_after, fail_on=fail_on, select=select, ignore=ignore
    )


def current_session() -> Session | None:
    """The session that events go to now, if there is one."""
    return _sessions[-1] if _sessions else None


def held_locks() -> list[str]:
    """The display names of the checked locks that the calling owner holds, in the order of their acquisition."""
    session = current_session()
    return session.held_locks() if session is not None else []


def _here() -> str | None:
    try:
        return _getcwd()
    except OSError:  # it was removed
        return None


def _before_fork() -> None:
    frame = get_frame(1)  # who calls os.fork()
    if not fastpath.active or frame.f_globals.get("__name__") == "subprocess":
        return  # a child that subprocess forks executes another program
    here, engine = get_ident(), fastpath.engine()
    ask = [
        slowpath.consult(session.engine.forks.before, fastpath.known() if session.engine is engine else None, here)
        for session in _sessions
    ]
    if any(ask) and _registered[0] < MAX_REGISTERED:
        # anew each time, so that it comes after all that are registered by now; nothing can be taken back
        _registered[0] += 1
        _register(after_in_child=partial(_answer, _registered[0]))


def _after_fork_in_parent() -> None:
    for session in _sessions:
        session.has_forked = True
        session.engine.forks.in_parent()


def _after_fork_in_child() -> None:
    engine = fastpath.engine()
    for session in _sessions:
        session.after_fork(engine)


def _answer(number: int) -> None:
    if number == _registered[0]:  # the last of its kind
        for session in _sessions:
            slowpath.consult(session.engine.forks.answer)


#: How often a function is registered that runs in each child from then on.
MAX_REGISTERED: Final = 1_000
_registered: Final[list[int]] = [0]

if hasattr(os, "register_at_fork"):
    _register: Final = os.register_at_fork
    _register(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
