"""One run of the validator: what it found, and what is done about it.

A session composes the engine's findings into violations, keeps one a fingerprint, writes each to the data
file before anything can swallow it, and then records, warns, raises or calls back, as its mode says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from os import getcwd as _getcwd
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar

from ctxcheck import debuggers, fastpath, notices, steps, tasks
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import REGION, LockClass
from ctxcheck.engine.declared import Declaration
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.findings import Finding, InterruptFacts, OrderFacts, SlotFacts, SlowFacts
from ctxcheck.engine.grading import Owners
from ctxcheck.engine.origins import Phase, outliving
from ctxcheck.engine.owner import VOID, Owner
from ctxcheck.engine.raw import get_frame, get_ident
from ctxcheck.engine.rules import GRADES, Grade, selects
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
#: What is told when it first shows, and computed anew from everything that was seen.
_SETTLED: Final = frozenset({"CTX001", "CTX004", "CTX005", "CTX006", "CTX105"})
#: What is told at once although it is in the baseline: the program stands still.
_HANGS: Final = frozenset({"CTX001", "CTX002", "CTX003", "CTX006"})
_NOBODY: Final[set[Owner]] = set()
#: How near a name comes to another one that was meant: most end in the same word.
_NEARLY: Final = 0.85
#: Who wants to wait longer for a report than a day waits a day; a clock can't be asked for any number of seconds.
_MAX_WAIT: Final = 86_400


class _Book:
    """The violations of one origin, by fingerprint, and which owners made each."""

    __slots__ = ("by", "found")

    def __init__(self) -> None:
        self.found: dict[str, Violation] = {}
        self.by: dict[str, set[Owner | None]] = {}


class Sink(Protocol):
    """Where findings, and the orders that were learned, are written as they are made."""

    def write(self, record: dict[str, Any]) -> object:
        """Write one record, at once."""


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
        self._select = tuple(codes_of("select", select))
        self._ignore = tuple(codes_of("ignore", ignore))
        self._stack_depth: int = stack_depth
        self._sink: Sink | None = sink
        self._recorder: Recorder | None = None
        #: the fingerprints of what a verdict over the orders tells of, as it does over those of several processes
        self._judged: set[str] = set()
        self._at_once: Callable[[Violation], object] | None = at_once
        self._known_before: Callable[[Violation], bool] | None = known
        self._books: dict[str, _Book] = {"": _Book()}
        self._printed: set[str] = set()
        # imported now, not when something is found: that may be in a finalizer, or while the interpreter shuts down
        from ctxcheck.acceptance import Acceptance
        from ctxcheck.reports.compose import compose, fingerprint

        self._compose_finding, self._fingerprint = compose, fingerprint
        #: what paths are shown relative to, wherever the program goes
        self._cwd: str | None = _here()
        self._acceptance: Acceptance = Acceptance(
            allow, lambda code: selects(code, self._select, self._ignore), self._cwd
        )
        self._where: Any = None
        self._verdict: list[Finding] | None = None
        self._acquisitions: int = 0
        self._started: bool = False
        self._stopped: bool = False
        #: whether this process has forked
        self.has_forked: bool = False
        #: in a forked child: how often each finding was seen before
        self._inherited: dict[tuple[str, str], int] | None = None
        after = float(min(deadlock_after, _MAX_WAIT))
        self.engine: Validator = Validator(self._record, self._withdraw, owners=owners, deadlock_after=after)
        self.engine.insistent = mode == "raise"
        self.engine.configured = tuple(declared)

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

    def stop(self, how: str = "checking block") -> None:
        """End the session: the calling thread finishes, what was provisional is settled.  Violations stay readable.

        Sessions may end in any order: events go to the one that began last among those that are left.  What a
        callback raises meanwhile comes out when all is done.
        """
        if self._stopped or self not in _sessions:
            return
        self._stopped = True
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
                self._settle()
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

    def _settle(self) -> None:
        """Write and tell what only the verdict over all orders has shown, or has made of what was told before."""
        violations = self.violations
        self._keep(violations)
        told = {violation.fingerprint for violation in violations}
        told.update(f for origin, book in self._books.items() if origin for f in book.found)
        for fingerprint in [f for f in self._book("").found if f not in told]:
            # said when its edge came; a better cycle covers it now
            self._write({"type": "withdrawn", "fingerprint": fingerprint})

    def _keep(self, violations: Iterable[Violation], origin: str = "") -> None:
        book = self._book(origin)
        for violation in violations:
            known = book.found.get(violation.fingerprint)
            if known is None or known.grade != violation.grade or known.sites != violation.sites:
                # as it is told in the end, not as it was when it came
                book.found[violation.fingerprint] = violation
                self._write_found(violation, origin)
                if known is None:
                    self._tell(violation)

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
        return self._with(verdict, "")

    def violations_in(
        self, origin: str, without: Iterable[Owner] = (), *, pending: bool = True
    ) -> list[Violation]:
        """As :attr:`violations`, of one origin (see :mod:`~ctxcheck.engine.origins`), but for what only the owners
        ``without`` have shown; ``pending``: with what may yet turn out to be none."""
        gone = set(without)
        verdict = None if self.engine.broken else slowpath.consult(self.engine.orders.verdict, origin, gone)
        return self._with(verdict, origin, gone, pending=pending)

    def end_origin(self, phase: Phase, *, keep: bool = True) -> list[Violation]:
        """An origin is over, for the calling owner and altogether: its violations.

        What owners have shown that outlive it counts for the background.  ``keep``: its orders count together with
        those of others.
        """
        origins, origin = self.engine.origins, phase.origin
        gone = origins.alive(origin)
        verdict = None if self.engine.broken else slowpath.consult(self.engine.orders.verdict, origin, gone)
        left = slowpath.consult(lambda: origins.end(phase, over=True)) or []
        violations = self._with(verdict, origin, gone)
        self._keep(violations, origin)
        book = self._books.pop(origin, None)
        if book is not None and gone and keep:
            later = self._book(outliving(origin))
            for fingerprint, owners in book.by.items():
                if owners <= gone and fingerprint in book.found and book.found[fingerprint].rule not in _SETTLED:
                    later.found.setdefault(fingerprint, book.found[fingerprint])
        slowpath.consult(lambda: self.engine.orders.quietly(lambda: origins.close(origin, left, keep=keep)))
        return violations

    @property
    def allowances(self) -> list[Allowance]:
        """What is accepted from outside of the program; may be changed while the session runs."""
        return self._acceptance.allowances

    @property
    def local(self) -> Any:
        """The thread-local state that this session goes by, also while another one is inside of it."""
        return self._where

    def found_in(self, origin: str) -> list[Violation]:
        """What was told of one origin so far."""
        return list(self._book(origin).found.values())

    def put_into_words(self, finding: Finding, seen: Mapping[Edge, Evidence] | None = None) -> Violation | None:
        """The report on a finding that was made elsewhere, ``None`` if its rule isn't asked for; it isn't recorded.
        ``seen`` is where its orders were seen, if not here."""
        violation = self._compose(finding, seen)
        return violation if self._wanted(violation) else None

    def origins(self) -> list[str]:
        """The origins that have violations and aren't over, but for the empty one."""
        return sorted(origin for origin, book in self._books.items() if origin and book.found)

    def _with(
        self, verdict: list[Finding] | None, origin: str, gone: set[Owner] = _NOBODY, *, pending: bool = True
    ) -> list[Violation]:
        book = self._book(origin)
        found = {f: v for f, v in book.found.items() if not (gone and f in book.by and book.by[f] <= gone)}
        fresh: dict[str, Violation] = {}
        for finding in verdict or []:
            violation = self._compose(finding)
            if self._wanted(violation):
                fresh[violation.fingerprint] = violation
        for finding in self.engine.pending() if pending else ():
            if finding.origin != origin:
                continue
            violation = self._compose(finding)
            if self._wanted(violation):
                found.setdefault(violation.fingerprint, violation)
        result: list[Violation] = []
        for fingerprint, violation in found.items():
            settled = fresh.pop(fingerprint, None)
            if settled is not None and violation.grade != "certain":
                result.append(settled)
            elif verdict is not None and violation.rule in _SETTLED and violation.grade != "certain":
                continue  # said when its edge came; a better cycle covers it now
            else:
                result.append(violation)
        return result + list(fresh.values())

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
        return self._unwatched(lambda: self._acceptance.unused(self.engine))

    @property
    def refused_allows(self) -> list[str]:
        """What is wrong with the ``allow`` comments in the project's own files that accept nothing for it, a line each:
        no reason, no rule or one that doesn't exist."""
        return self._unwatched(self._acceptance.refused)

    def allows(self) -> list[tuple[UnusedAllow, bool]]:
        """Every ``allow`` that ran or stands in the project's files, and whether it accepted anything; as for
        :attr:`unused_allows`."""
        return self._unwatched(lambda: self._acceptance.every(self.engine))

    def uses_comment(self, allow: UnusedAllow) -> bool:
        """Whether a comment, of whatever process, has accepted something in this one."""
        return allow.kind == "comment" and self._acceptance.is_used(allow)

    def misnamed(self, classes: Iterable[LockClass] | None = None) -> list[str]:
        """A line for each lock that the configuration names and that is none of these classes (by default, those that
        were seen), but nearly one: a typing error, most likely."""
        seen = list(self.engine.seen if classes is None else classes)
        orders = self.engine.declared.missing(seen, _NEARLY) if self.engine.declared is not None else []
        return [*orders, *self._acceptance.misnamed(seen, _NEARLY)]

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

    # --- from finding to violation --------------------------------------------------

    def _record(self, finding: Finding) -> Violation:
        self.engine.allows.used(finding.allowed)
        book = self._book(finding.origin)
        violation = self._known(finding, book)
        if violation is None:
            violation = self._compose(finding)
            if not self._wanted(violation):
                return violation
            known = book.found.get(violation.fingerprint)
            if known is not None:  # seen before, but less sure, or accepted there
                if known.allowed_by is None and violation.allowed_by is not None:
                    violation = known  # accepted here is not accepted there
                violation = violation.replace(count=max(violation.count, known.count + 1))
            book.found[violation.fingerprint] = violation
            if known is None or (known.grade, known.allowed_by) != (violation.grade, violation.allowed_by):
                self._write_found(violation, finding.origin)
                self._tell(violation)
        if finding.origin:
            book.by.setdefault(violation.fingerprint, set()).add(finding.owner)
        if (
            self.mode == "raise"
            and self.fails(violation)
            and violation.rule not in _NEVER_RAISED
            and finding.owner is not None
            and finding.owner.ident == get_ident()
            and not debuggers.attached()
        ):
            raise ViolationError(violation)
        return violation

    def _book(self, origin: str) -> _Book:
        book = self._books.get(origin)
        return book if book is not None else self._books.setdefault(origin, _Book())

    def _known(self, finding: Finding, book: _Book) -> Violation | None:
        """The violation that says all this finding has to say, counted once more: to compose one takes a while."""
        fingerprint = self._fingerprint(finding)
        known = book.found.get(fingerprint)
        if known is None or GRADES.index(known.grade) < GRADES.index(finding.grade):
            return None
        if not self._acceptance.again(fingerprint, finding, known):
            return None
        count = known.count + (not isinstance(finding.facts, (OrderFacts, InterruptFacts)))
        # the count may lose a little where threads race; the finding itself can't
        known = book.found[known.fingerprint] = known.replace(count=count)
        if self._inherited is not None:
            # in a child, whose end nobody may see; not each time, as a program may find it as often as it likes
            own = count - self._inherited.get((finding.origin, known.fingerprint), 0)
            if own > 0 and own & (own - 1) == 0:
                self._write_found(known, finding.origin)
        return known

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

    def _withdraw(self, finding: Finding) -> None:
        violation = self._compose(finding)
        held = [book.found.pop(violation.fingerprint, None) for book in list(self._books.values())]
        if any(held):
            self._write({"type": "withdrawn", "fingerprint": violation.fingerprint})

    def _compose(self, finding: Finding, seen: Mapping[Edge, Evidence] | None = None) -> Violation:
        # of a name that many places give to their locks, the first one is that of whichever test came first
        first_made = not self.engine.origins.default
        try:
            violation = self._compose_finding(
                finding, cwd=self._cwd, stack_depth=self._stack_depth, first_made=first_made
            )
        except Exception as error:  # a finding that can't be put into words is still a finding
            return notices.bare(finding, error)
        if isinstance(finding.facts, (OrderFacts, InterruptFacts, SlowFacts, SlotFacts)):
            self._judged.add(violation.fingerprint)
        try:
            violation = self._acceptance.apply(violation, finding, self.engine, seen)
        except Exception:  # a damaged source cache, say: then it isn't accepted, and told
            pass
        return self._mark(violation)

    def accept(self, violation: Violation) -> Violation:
        """A finding of several processes together, with what accepts it, or marked as one of the baseline."""
        return self._mark(self._acceptance.by_configuration(violation))

    def _mark(self, violation: Violation) -> Violation:
        known = self._known_before
        if violation.allowed_by is None and known is not None and known(violation):
            return violation.replace(baselined=True)
        return violation

    def wanted(self, violation: Violation) -> bool:
        """Whether a finding's rule is selected."""
        return self._wanted(violation)

    def _wanted(self, violation: Violation) -> bool:
        return selects(violation.rule, self._select, self._ignore)

    def after_fork(self, engine: Validator | None) -> None:
        """In a forked child: what was found before is the parent's; ``engine`` is the one that events go to."""
        books = list(self._books.items())
        self._inherited = {(origin, f): v.count for origin, book in books for f, v in list(book.found.items())}
        self.has_forked = False
        self.engine.after_fork(fastpath.known() if self.engine is engine else None)

    def _write(self, record: dict[str, Any]) -> None:
        if self._sink is not None:
            self._sink.write(record)

    def _write_found(self, violation: Violation, origin: str) -> None:
        judged = violation.fingerprint in self._judged
        if self._inherited:
            own = violation.count - self._inherited.get((origin, violation.fingerprint), 0)
            violation = violation.replace(count=max(1, own))
        record: dict[str, Any] = {"type": "violation", "violation": violation.to_dict(), "judged": judged}
        self._write(record | {"origin": origin} if origin else record)

    def _fault(self, error: BaseException) -> None:
        """The validator broke inside: switch it off, say so once (CTX901), and let the program go on."""
        if self.engine.broken:
            return
        self.engine.broken = True
        if fastpath.engine() is self.engine:
            fastpath.activate(None)
        violation = notices.fault(error)
        self._book("").found[violation.fingerprint] = violation
        self._write_found(violation, "")
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
