"""Contexts by name: what needs to be inside of one, and what must not be (CTX106, CTX107).

On a chain nearly everything has a name: a context of the program's own ("context"; "bracket", if one call opens it and
another one closes it), an open range, the role of a thread, an atomic section, an interrupting context, the event loop,
a region.  One walk over the chain answers for all of them, and what was found to be fine is remembered under the
:class:`Need` in the node, so that it is asked once for each place in a chain.

A context is the owner's: what an interrupting context interrupts isn't around it.  A role is the thread's, so it is
there whatever runs on that thread.  An "ambient" entry hides what was entered before it: a test's own transaction
isn't one to the code that is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal, cast, final

from ctxcheck.engine.classes import REGION, ContextStep, Step
from ctxcheck.engine.findings import Finding, ForbiddenFacts, Opening, RequiredFacts
from ctxcheck.engine.owner import ROOT_STEP, VOID, Node, OwnerState
from ctxcheck.engine.raw import get_frame, get_ident, local
from ctxcheck.engine.sites import EMPTY, GENERATED, Trace, capture
from ctxcheck.engine.sites import local as variable
from ctxcheck.engine.telling import chain_of

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator

#: Kinds of entries that a name means.
NAMED: Final = frozenset({"context", "bracket", "range", "role", "atomic", "interrupt", "loop"})
#: Kinds that say what is forbidden inside.
FORBIDDING: Final = frozenset({"context", "bracket", "role"})
#: Names that are remembered; a program that makes them up at run time must not fill the memory.
MAX_NAMES: Final = 10_000

How = Literal["calls", "marked", "here", "enters"]


@final
class Need(Step):
    """What a marked function, or a statement, says of the contexts around it; in the trie it stands for "is fine".

    ``wanted``: it is to be inside of them (of one, if ``anyone`` will do), else of none.
    """

    __slots__ = ("anyone", "names", "wanted")

    def __init__(self, names: tuple[str, ...], *, wanted: bool, anyone: bool = False) -> None:
        super().__init__(None, None, 0)
        self.names: tuple[str, ...] = names
        self.wanted: bool = wanted
        self.anyone: bool = anyone


def _make_fine() -> Node:
    nobody: Any = None
    return Node(None, ROOT_STEP, nobody, EMPTY)


#: In place of a node, under a need that is met there.
_FINE: Final = _make_fine()


# --- what is around a node --------------------------------------------------------------------


def name_of(step: Step) -> str:
    """The name that an entry is asked for by; empty if it has none."""
    if isinstance(step, ContextStep):
        return step.label if step.kind in NAMED else ""
    lock_class = step.lock_class
    return lock_class.name if lock_class is not None and lock_class.kind is REGION else ""


def _is_role(step: Step) -> bool:
    return isinstance(step, ContextStep) and step.kind == "role"


def entries(node: Node) -> Iterator[tuple[Node, str, bool]]:
    """The named entries around a node, innermost first, each with its name, and whether it lies beyond the
    interrupting context that this is in."""
    beyond = False
    hidden: set[str] = set()
    for entry in node.chain():
        step = entry.step
        if isinstance(step, ContextStep) and step.kind == "ambient":
            hidden |= _texts(step) or {""}
            continue
        name = name_of(step)
        if name and (_is_role(step) or not (beyond or name in hidden or "" in hidden)):
            yield entry, name, beyond
        if step.boundary:
            beyond = True


def find(node: Node, names: tuple[str, ...]) -> tuple[dict[str, Node], bool]:
    """The innermost entry of each name that is around ``node``, and whether that is so whenever an owner stands there.

    In an interrupting context it isn't, where it depends on what that has interrupted.
    """
    found: dict[str, Node] = {}
    for entry, name, beyond in entries(node):
        if name in names and name not in found:
            if beyond:
                return {**found, name: entry, **_rest(node, names, found)}, False
            found[name] = entry
    lasting = len(found) == len(names) or not any(entry.step.boundary for entry in node.chain())
    return found, lasting


def _rest(node: Node, names: tuple[str, ...], found: dict[str, Node]) -> dict[str, Node]:
    rest: dict[str, Node] = {}
    for entry, name, _ in entries(node):
        if name in names and name not in found:
            rest.setdefault(name, entry)
    return rest


def forbidding(node: Node, what: str) -> list[Node]:
    """The entries around ``node`` that forbid a category of calls, or a context by its name: one each, the outermost
    of those that were entered again inside themselves.  What an interrupting context interrupts forbids nothing in it,
    nor does the role of its thread: there it is by chance."""
    found: dict[str, Node] = {}
    for entry, name, beyond in entries(node):
        step = entry.step
        if beyond:
            break
        if isinstance(step, ContextStep) and step.kind in FORBIDDING and what in _texts(step):
            found[name] = entry
    return list(found.values())


def _texts(step: ContextStep) -> frozenset[str]:
    return cast("frozenset[str]", step.detail or frozenset())


# --- what one session knows -------------------------------------------------------------------

#: Names that the program has given to contexts, in whatever session; for "did you mean".
declared: Final[dict[str, None]] = {}
#: Blocks that were entered while nothing was checked, and haven't been left yet, by thread: the name of a context, or
#: those that are ambient.
unseen: Final[list[tuple[int, str | frozenset[str]]]] = []


def declare(name: str) -> None:
    """Note that the program knows a context of this name."""
    if len(declared) < MAX_NAMES:
        declared[name] = None


@final
class Named:
    """The contexts of one session: who opened which first, and the session around it, which may know of more."""

    __slots__ = ("_engine", "opened", "outer")

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self.opened: dict[str, Opening] = {}
        #: the thread-local state of the session that this one suspends
        self.outer: Any = None

    def entered(self, state: OwnerState, node: Node) -> bool:
        """``state`` is about to enter ``node``; returns whether that is fine each time (else CTX106).

        May raise what ``on_finding`` raises.
        """
        name = name_of(node.step)
        if not name:
            return True
        if name not in self.opened and len(self.opened) < MAX_NAMES:
            self.opened[name] = Opening(name, state.owner, node.trace, _is_role(node.step))
        by = forbidding(node.parent, name)
        for entry in by:
            _report_forbidden(self._engine, state, name, "enters", entry, node.trace)
        return not by

    def known(self) -> tuple[str, ...]:
        """Every name that something in this process is called by."""
        regions = (c.name for c in list(self._engine.seen) if c.kind is REGION)
        return tuple(dict.fromkeys((*list(self.opened), *list(declared), *list(self._engine.book.steps), *regions)))

    def elsewhere(self, state: OwnerState, names: tuple[str, ...]) -> tuple[Opening, ...]:
        """The other owners that are inside of one of these now, or whose role it is."""
        found: list[Opening] = []
        for other in self._engine.roster.live_states():
            if other is state or other.cur is VOID:
                continue
            for entry, name, _ in entries(other.cur):
                if name in names and entry.stands_for.state is other:
                    other.owner.learn_name()
                    found.append(Opening(name, other.owner, entry.trace, _is_role(entry.step)))
                    break
        return tuple(found)


def is_unseen(state: OwnerState, name: str) -> bool:
    """Whether the caller may be inside of a context that was entered before this session began."""
    here = get_ident()
    for ident, what in reversed(unseen):
        if ident == here:
            if what == name:
                return True
            if not what or (isinstance(what, frozenset) and name in what):
                return False
    outer = state.engine.named.outer
    while outer is not None:
        around = getattr(outer, "st", None)
        if not isinstance(around, OwnerState) or around.engine is None:
            break
        if any(other == name for _, other, _ in entries(around.cur)):
            return True
        outer = around.engine.named.outer
    frame: Any = get_frame(1)
    while frame is not None:
        if frame.f_code.co_filename == GENERATED and _entered_in(frame) == name:
            return True
        frame = frame.f_back
    return False


def _entered_in(frame: Any) -> str:
    """The context that the wrapper of a marked function has entered, unless that is known."""
    names = frame.f_code.co_varnames + frame.f_code.co_freevars
    if "_ctx_step" not in names or variable(frame, "node") is not None:
        return ""
    step = variable(frame, "_ctx_step")
    return name_of(step) if isinstance(step, Step) else ""


# --- the check --------------------------------------------------------------------------------


def check(state: OwnerState, need: Need, what: str, how: How, place: Trace = EMPTY, why: str = "") -> None:
    """``what``, declared at ``place``, is called where ``state`` stands: is it inside of what it needs, and of nothing
    that it forbids?

    May raise what ``on_finding`` raises.  Costs a walk over the chain, once for each place in it where all is fine.
    """
    engine: Validator = state.engine
    state.settle()
    cur = state.cur
    if cur is VOID or cur.get(need) is not None:
        return
    engine.contexts += 1
    found, lasting = find(cur, need.names)
    if not need.wanted:
        for entry in found.values():
            _report_forbidden(engine, state, what, how, entry, capture(1), place, why)
        fine = not found
    else:
        missing = tuple(name for name in need.names if name not in found)
        fine = bool(found) if need.anyone else not missing
        if not fine:
            shared = {b.name for b in list(engine.book.everywhere) if b.shared}
            left = tuple(name for name in missing if name not in shared and not is_unseen(state, name))
            if left and not (need.anyone and len(left) < len(missing)):
                _report_required(engine, state, left, need, what, how, place, why)
            return
    if fine and lasting and state.cur is cur and engine.room():
        cur[need] = _FINE


def _report_required(
    engine: Validator,
    state: OwnerState,
    names: tuple[str, ...],
    need: Need,
    what: str,
    how: How,
    place: Trace,
    why: str,
) -> None:
    trace = capture(1)
    state.owner.learn_name()
    named = engine.named
    facts = RequiredFacts(
        names,
        need.anyone,
        what,
        how == "here",
        place,
        chain_of(engine, state),
        named.elsewhere(state, names),
        tuple(named.opened[name] for name in names if name in named.opened),
        named.known(),
        why,
    )
    identity = (*names, what if how == "marked" else "", trace.function())
    allowed = engine.allowed(state.cur, "CTX107")
    engine.emit(state, Finding("CTX107", "certain", state.owner, trace, identity, facts, (), allowed))


def _report_forbidden(
    engine: Validator,
    state: OwnerState,
    what: str,
    how: How,
    because: Node,
    trace: Trace,
    place: Trace = EMPTY,
    why: str = "",
) -> None:
    reason = engine.entry(because)
    facts = ForbiddenFacts(what, "", reason, chain_of(engine, state), how, place, why)
    state.owner.learn_name()
    identity = ("" if how == "here" else what, name_of(because.step), trace.function())
    allowed = engine.allowed(state.cur, "CTX106")
    engine.emit(state, Finding("CTX106", "certain", state.owner, trace, identity, facts, (), allowed))


# --- roles of threads -------------------------------------------------------------------------

_here: Final[Any] = local()


def roles() -> tuple[ContextStep, ...]:
    """The roles that the calling thread has from now on, whoever checks."""
    found: tuple[ContextStep, ...] = getattr(_here, "roles", ())
    return found


def take_role(step: ContextStep, thread: OwnerState | None, state: OwnerState | None) -> None:
    """The calling thread has a role from now on.  ``thread`` is its state in the running session, ``state`` the calling
    owner's: the same, but in a task."""
    mine = roles()
    if step not in mine:
        _here.roles = (*mine, step)
    if thread is None or state is None:
        return
    bottom = stand_in_role(thread, step)
    if state is not thread and bottom is not None:
        _hang(state, Node(state.root, step, state, bottom.trace, stands_for=bottom))


def stand_in_role(state: OwnerState, step: ContextStep) -> Node | None:
    """Put a role under all that a thread is inside of; None if it is there already."""
    if state.cur is VOID or any(entry.step is step for entry in state.cur.chain()):
        return None
    state.settle()
    state.owner.learn_name()
    bottom: Node | None = state.root[step]
    if bottom is None:
        state.engine.contexts += 1
        bottom = Node(state.root, step, state, capture(1))
        if state.engine.room():
            state.root[step] = bottom
    state.engine.named.entered(state, bottom)
    _hang(state, bottom)
    return bottom


def _hang(state: OwnerState, bottom: Node) -> None:
    """Hang all that ``state`` is inside of upon ``bottom``."""
    at = bottom
    for old in reversed(list(state.cur.chain())):
        at = Node(at, old.step, state, old.trace, stands_for=old.stands_for)
    state.cur = at


def drop_role(step: ContextStep, thread: OwnerState | None, state: OwnerState | None) -> None:
    """The calling thread has a role no longer."""
    _here.roles = tuple(each for each in roles() if each is not step)
    for each in (thread, state):
        for entry in [] if each is None or each.cur is VOID else list(each.cur.chain()):
            if entry.step is step and each is not None:
                each.unlink(entry.stands_for)
