"""Code that runs in the middle of other code of its thread: finalizers, the collector's callbacks, signal handlers.

An interrupting context begins a new chain, with all permissions: what it interrupts depends on when it came, so no
order leads from there into it, and nothing that is held there forbids anything in it or guards it.  Only three rules
look at what it interrupted: a lock that the same thread holds there can't be had (CTX002), and the rules on how lock
classes are used in such contexts and outside (``usage.py``: CTX004, CTX005).

On a chain a context is a :class:`~ctxcheck.engine.classes.ContextStep` of kind "interrupt", and a boundary; its
``detail`` names what can't interrupt it, itself among them.  One of kind "masked" names what can't interrupt for now.
An owner's node for a context hangs below its root while the context doesn't run, so that its chains are known
wherever it comes; its parent is what it has interrupted.  What a probe begins is a finalizer, see ``finalizers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, final

from ctxcheck.engine.allows import Grant
from ctxcheck.engine.blame import nests_its_own
from ctxcheck.engine.classes import BLOCK, TRY, ContextStep, LockClass, Step
from ctxcheck.engine.finalizing import look
from ctxcheck.engine.findings import Finding, InterruptFacts
from ctxcheck.engine.learned import FlagsFact, UseFact
from ctxcheck.engine.nesting import guards_of
from ctxcheck.engine.owner import VOID, Node, Owner, OwnerState
from ctxcheck.engine.raw import get_frame, is_main_thread
from ctxcheck.engine.rules import GRADES
from ctxcheck.engine.sites import Trace, capture
from ctxcheck.engine.usage import COLLECTOR, NO_SIGNALS, PAUSED, Hazard, Usage, family
from ctxcheck.engine.uses import Doubt, Use, Uses

if TYPE_CHECKING:
    from types import FrameType

    from ctxcheck.engine.ledger import Ledger
    from ctxcheck.engine.validator import Validator

_NOTHING: Final[frozenset[str]] = frozenset()
#: Of a thread that isn't the main one: that alone runs the handlers of signals.
_NO_HANDLERS: Final[frozenset[str]] = frozenset((NO_SIGNALS,))


class UseEvent(NamedTuple):
    """How a class is used where an owner stands: waited for in ``context``, held while ``masked`` can't interrupt."""

    owner: Owner
    lock_class: LockClass
    use: Use
    context: str | None
    masked: frozenset[str] | None


class Resumed(NamedTuple):
    """The collector is switched on again."""


@final
class Begun(Node):
    """Where an interrupting context stands that a probe has begun: ``outer`` is the function that it has interrupted,
    where no call of the probe shows it; ``deferred`` are the locks that it has waited for; ``passing``: its owner
    hasn't taken a step but for this."""

    __slots__ = ("deferred", "outer", "passing")

    def __init__(self, parent: Node, step: Step, state: OwnerState, trace: Trace) -> None:
        super().__init__(parent, step, state, trace)
        self.deferred: list[Deferred] = []
        self.outer: FrameType | None = None
        self.passing: bool = False


@final
class Deferred(NamedTuple):
    """A wait in a finalizer that nothing is made of yet: for which ``lock`` (a weak reference), in which ``node``."""

    node: Node
    lock: Callable[[], Any] | None
    event: UseEvent


class Surroundings(NamedTuple):
    """The interrupting context that a node is in, if it is in one, the contexts that can't interrupt there, and the
    reasons of ``allow`` blocks for CTX004 and CTX005; and where that context stands if a probe began it."""

    context: str | None = None
    masked: frozenset[str] = _NOTHING
    allowed: tuple[str | None, str | None] = (None, None)
    begun: Begun | None = None


def surroundings(node: Node) -> Surroundings:
    """Look at what is around a node."""
    masked = _NOTHING if is_main_thread(node.state.owner.ident) else _NO_HANDLERS
    first: str | None = None
    second: str | None = None
    while node.parent is not node:
        step = node.step
        if type(step) is ContextStep:
            if step.kind in ("masked", "interrupt"):
                names = cast("frozenset[str]", step.detail)
                masked = masked | names if masked else names
                if step.boundary:
                    begun = node.stands_for
                    return Surroundings(step.label, masked, (first, second), begun if type(begun) is Begun else None)
            elif step.kind == "allow":
                rules = cast("frozenset[str]", step.detail)
                first = Grant.by(step) if first is None and "CTX004" in rules else first
                second = Grant.by(step) if second is None and "CTX005" in rules else second
        node = node.parent
    return Surroundings(None, masked, (first, second)) if masked or first or second else _NOWHERE


_NOWHERE: Final = Surroundings()


def begin(state: OwnerState, step: ContextStep, make: type[Node] = Node) -> Node:
    """Return the node on which an interrupting context stands that begins here, which :func:`end` takes back."""
    # taken out while it is in use: the same context may come again in the middle of this
    node = state.root.pop(step, None)
    if node is None:
        state.engine.contexts += make is Node  # what a probe begins was marked by nobody
        state.owner.learn_name()
        node = make(state.cur, step, state, capture(1))
    node.parent = state.cur
    return node


def interrupts(node: Node) -> bool:
    """Whether what stands here is in the middle of other code of its thread."""
    return any(type(e.step) is ContextStep and e.step.kind == "interrupt" for e in node.chain())


def end(state: OwnerState, node: Node) -> None:
    """The context is over, and the owner doesn't stand there any more: keep the node for the next time."""
    root = state.root
    if root is not VOID and node.state is state:
        node.parent = root
        root[node.step] = node


def interrupted_by(state: OwnerState, held: Node) -> str:
    """The context whose code wants what its own thread holds in ``held``, below it; empty if there is none."""
    for entry in state.cur.chain():
        if entry.stands_for is held.stands_for:
            break
        if entry.step.boundary and isinstance(entry.step, ContextStep):
            return entry.step.label
    return ""


@final
class Interrupts:
    """What one origin knows of interrupting contexts; changes under the validator's mutex only."""

    __slots__ = ("_engine", "_origin", "usage")

    def __init__(self, engine: Validator, ledger: Ledger) -> None:
        self._engine: Validator = engine
        self._origin: str = ledger.origin
        self.usage: Usage = Usage(ledger.graph, engine.owners, ledger.is_single, engine.finalizers.flags)

    def note(self, state: OwnerState, node: Node, guards: frozenset[LockClass]) -> bool:
        """A class is waited for, for the first time on this chain, in ``node``; ``guards`` are held.

        What is waited for with a timeout is held when :meth:`obtained` says so.  Leaves events for the validator
        to see to.  Returns whether that is all there is to know of this chain.
        """
        known = True
        mode = node.step.mode
        assert mode is not None
        assert node.step.lock_class is not None
        around = surroundings(node.parent)
        # asyncio's stop no thread: what can't await one here (a coroutine that the collector closes) is told so
        if around.context is not None and node.step.lock_class.kind.needs & BLOCK:
            known = self._waits(state, node, guards, around)
        if not mode.timed:
            self._holds(state, node, guards, around)
        return known

    def obtained(self, state: OwnerState, node: Node) -> None:
        """What was tried in ``node``, or waited for with a timeout, is held now."""
        if node is not VOID and node.step.lock_class is not None:
            if node.step.mode is TRY:
                self._engine.of(state).latches.obtained(node.step.lock_class)
            self._holds(state, node, guards_of(list(node.parent.held())), surroundings(node.parent))
            self._engine.orders.see_to(state)

    def unmasked(self, state: OwnerState) -> None:
        """Something can interrupt again: all that is held here is held open to it from now on."""
        held = list(state.cur.held())
        if held:
            around = surroundings(state.cur)
            guards = guards_of(held)
            for node in held:
                self._holds(state, node, guards, around)
            self._engine.orders.see_to(state)

    def _waits(self, state: OwnerState, node: Node, guards: frozenset[LockClass], around: Surroundings) -> bool:
        lock_class, mode, context = node.step.lock_class, node.step.mode, around.context
        assert lock_class is not None
        assert mode is not None
        assert context is not None
        use = Use(state.owner, guards, self._origin, mode, node.trace, around.allowed)
        if _covers(self.usage.uses(lock_class, context), use):
            return True
        begun = around.begun
        looks = look(get_frame(1), None if begun is None else begun.outer)
        if begun is None:
            if looks.whole:  # a signal's handler; the program has set it, be it the library's
                use = use._replace(doubt="asks" if looks.asks else "", flags=looks.flags)
            event = UseEvent(state.owner, lock_class, use, context, None)
            self._engine.orders.queue(event)
            return not (use.doubt or use.flags) or not self._engine.finalizers.looks_again(event)
        if looks.library and lock_class.base.library:
            return True  # nobody who runs the program can mend it
        doubt: Doubt = "library" if looks.library else "asks" if looks.asks else ""
        use = use._replace(doubt=doubt, flags=looks.flags)
        begun.deferred.append(Deferred(node, node.made_for, UseEvent(state.owner, lock_class, use, context, None)))
        return True

    def _holds(self, state: OwnerState, node: Node, guards: frozenset[LockClass], around: Surroundings) -> None:
        lock_class, mode = node.step.lock_class, node.step.mode
        assert lock_class is not None
        assert mode is not None
        if lock_class.kind.guards and not mode.shared and not lock_class.handed_over:
            guards |= {lock_class.base}
        use = Use(state.owner, guards, self._origin, mode, node.trace, around.allowed)
        use, masked = self.usage.flagged(lock_class, use), around.masked
        if _covers(self.usage.holds(lock_class, masked), use):
            return
        if self._engine.finalizers.section is not None and COLLECTOR not in masked:
            masked = masked | {PAUSED}
            if _covers(self.usage.holds(lock_class, masked), use):
                return
        self._engine.orders.queue(UseEvent(state.owner, lock_class, use, None, masked))

    def apply(self, event: UseEvent) -> list[Finding]:
        """Enter an event, and say what it shows; under the validator's mutex."""
        found: list[Hazard] = []
        lock_class, listener = event.lock_class, self._engine.orders.listener
        if listener is not None:
            listener.take(UseFact(lock_class, event.context, event.masked, event.use))
        if event.context is not None:
            if event.use.flags:
                self._engine.finalizers.watch(lock_class)
            flags = self.usage.flags.get(lock_class)
            found += self.usage.add_use(lock_class, event.context, event.use)
            if listener is not None and self.usage.flags.get(lock_class) != flags:
                listener.take(FlagsFact(lock_class))
        if event.masked is not None:
            found += self.usage.add_hold(lock_class, event.masked, event.use)
        return [hazard_finding(hazard, event.owner) for hazard in found if not _is_librarys(hazard)]

    def ordered(self, source: LockClass, target: LockClass, owner: Owner) -> list[Finding]:
        """What a new order shows."""
        return [
            hazard_finding(hazard, owner) for hazard in self.usage.add_order(source, target) if not _is_librarys(hazard)
        ]

    def findings(self) -> list[Finding]:
        """What all of it comes to; under the validator's mutex."""
        hazards = self.usage.judge()
        self._engine.cut += hazards.cut
        return hazard_findings(hazards.found)


def _covers(uses: Uses | None, use: Use) -> bool:
    return uses is not None and uses.covers(use)


def _is_librarys(hazard: Hazard) -> bool:
    """Whether the interpreter's own library alone makes the orders of its own locks that lead back (CTX005)."""
    cycle, at = hazard.cycle, hazard.at
    orders = [pair for i, pair in enumerate(zip(cycle.classes, cycle.witnesses, strict=True)) if i != at]
    return (
        bool(orders)
        and hazard.held.base.library
        and all(nests_its_own(lock_class, (witness,)) for lock_class, witness in orders)
    )


def hazard_findings(hazards: Iterable[Hazard]) -> list[Finding]:
    """What a verdict's hazards are told as.

    One handler of several signals is one finding, as sure as the surest of them.
    """
    best: dict[tuple[str, ...], Finding] = {}
    for hazard in hazards:
        if not _is_librarys(hazard):
            finding = hazard_finding(hazard, hazard.by)
            known = best.setdefault((finding.rule, *finding.identity), finding)
            if GRADES.index(known.grade) < GRADES.index(finding.grade):
                best[finding.rule, *finding.identity] = finding
    return list(best.values())


def hazard_finding(hazard: Hazard, owner: Owner) -> Finding:
    """What a hazard is told as (CTX004, CTX005)."""
    cycle = hazard.cycle
    trace = hazard.interrupted.taken_at
    if hazard.rule == "CTX004":
        functions = [trace.function()]
    else:
        functions = [witness.taken_at.function() for witness in cycle.witnesses]
    identity: tuple[Any, ...] = (family(hazard.context), *(c.key for c in cycle.classes), *functions)
    return Finding(
        hazard.rule,
        cycle.grade,
        owner,
        trace,
        identity,
        InterruptFacts(hazard),
        cycle.classes,
        hazard.allowed,
    )
