"""Contexts of the program's own: ``context``, ``context_start``, ``context_end``, ``ambient``, ``thread_role``.

A context has a name, and that is all that those who need it (``requires``) or mustn't be in it (``forbids``) have to
know.  See :mod:`ctxcheck.engine.contexts` for what the names mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Self, cast, final

from ctxcheck import fastpath
from ctxcheck.engine import contexts, slowpath
from ctxcheck.engine.blocking import CATEGORIES
from ctxcheck.engine.brackets import Bracket, Mark
from ctxcheck.engine.classes import FREE, ContextStep, Step
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.raw import get_frame, get_ident, uninterrupted
from ctxcheck.engine.sites import EMPTY, is_own
from ctxcheck.engine.taskstate import TaskState
from ctxcheck.markers.brackets import Options, check_flag, check_why, close_bracket, open_bracket, take_back
from ctxcheck.markers.contexts import MAX_LABELS, Section, interned
from ctxcheck.markers.ranges import Part, Range
from ctxcheck.markers.shapes import F, Plan, enter, held, leave, mark
from ctxcheck.markers.target import Target
from ctxcheck.markers.usage import ENABLED, check_text, describe, is_statement, nearest

_CATEGORIES: Final = frozenset(CATEGORIES)


# --- wrong use ---------------------------------------------------------------------------------


def check_context(marker: str, name: object) -> str:
    """Return a context's name; refuse what is no name, and what is that of a category of calls."""
    if isinstance(name, (Context, Role)):
        return name.name
    if (callable(name) and not isinstance(name, str)) or isinstance(name, (classmethod, staticmethod)):
        raise TypeError(f'{marker} needs the name of a context: {marker}("transaction")')
    text = check_text(marker, "the context's name", name)
    if text in _CATEGORIES:
        raise ValueError(f"{marker}: {text!r} is a category of blocking calls; give the context another name")
    return text


def check_forbids(marker: str, forbids: object) -> frozenset[str]:
    """Return what a context forbids: categories of blocking calls, and names of contexts."""
    if isinstance(forbids, str):
        raise TypeError(f"{marker}: forbids={forbids!r} is a string; write forbids=({forbids!r},)")
    if not isinstance(forbids, (tuple, list, set, frozenset)):
        raise TypeError(f"{marker}: forbids={describe(forbids)} is no tuple of categories and contexts")
    found: set[str] = set()
    for each in cast("Iterable[object]", forbids):
        if isinstance(each, str) and each in _CATEGORIES:
            found.add(each)
            continue
        name = check_context(marker, each)
        hint = "" if name in contexts.declared else nearest(name, CATEGORIES, 0.75)
        if hint:
            raise ValueError(
                f"{marker}: forbids={name!r} is no category of calls ({', '.join(CATEGORIES)}){hint}"
                f" If it is a context, name that first: context({name!r})"
            )
        found.add(name)
    return frozenset(found)


def _takes(forbids: frozenset[str]) -> int:
    return FREE if forbids & _CATEGORIES else 0


# --- context -----------------------------------------------------------------------------------


class _Known(Section):
    """A block that is remembered where it is entered while nothing is checked: who begins to check inside of it has to
    know that it is there."""

    __slots__ = ()

    def _said(self) -> str | frozenset[str]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        if ENABLED and not fastpath.active:
            contexts.unseen.append((get_ident(), self._said()))
        return super().__enter__()

    @uninterrupted
    def __exit__(self, *_: object) -> None:
        if contexts.unseen and self._entered and self._entered[-1] is VOID:
            _forget_unseen(self._said())
        super().__exit__()


def _forget_unseen(what: str | frozenset[str]) -> None:
    """Forget the last one of this thread, or, where another thread leaves it than has entered it, of any."""
    unseen, here = contexts.unseen, get_ident()
    if unseen[-1] == (here, what):
        del unseen[-1]
        return
    for pair in ((here, what), next((pair for pair in reversed(unseen) if pair[1] == what), None)):
        at = next((i for i in range(len(unseen) - 1, -1, -1) if unseen[i] == pair), -1)
        if at >= 0:
            del unseen[at]
            return


@final
class Opened:
    """A context that is open until it is closed: what :meth:`Context.open` returns."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node: Node = node

    @property
    def mine(self) -> bool:
        """Whether it is open, and the calling thread or task has opened it, in the session that is running."""
        node = self._node
        return node is not VOID and node.state is fastpath.known()

    @uninterrupted
    def close(self) -> None:
        """Leave the context, for whoever has entered it; does nothing the second time."""
        node = self._node
        if node is not VOID:
            self._node = VOID
            if not node.state.ended:
                leave(fastpath.known() or node.state, node)

    def __repr__(self) -> str:
        return f"<{'closed' if self._node is VOID else 'open'} {contexts.name_of(self._node.step)!r}>"


@final
class Context(_Known):
    """What :func:`context` returns: a decorator, a context manager, and a pair of calls.

    Attributes:
        name: what it is asked for by, and called in reports.
        forbids: the categories of calls, and the contexts, that are forbidden inside.
    """

    __slots__ = ("_mark", "_what", "forbids", "name")

    def __init__(self, name: str, forbids: frozenset[str]) -> None:
        super().__init__()
        self.name: str = name
        self.forbids: frozenset[str] = forbids
        self._what: tuple[ContextStep, bool] = interned(
            "context", name, FREE if forbids and forbids & _CATEGORIES else 0, forbids
        )
        self._mark: Mark | None = None

    def __call__(self, function: F, /) -> F:
        """Mark ``function``: its body runs inside."""
        return mark(function, "context", self._plan)

    def _plan(self, target: Target) -> Plan:
        return held(ContextStep("context", self.name, _takes(self.forbids), target.declared, self.forbids))

    def _step(self) -> tuple[Step, bool]:
        return self._what

    def _said(self) -> str:
        return self.name

    # --- without a block

    def enter(self) -> None:
        """Enter it; it is open until the same thread or task calls :meth:`exit`, in whatever function.

        An owner that ends without that is CTX203.
        """
        if not (ENABLED and fastpath.active) or fastpath.current().cur is VOID:
            return
        made: list[Bracket] = []
        try:
            open_bracket(self._bracket(), (None, None, True, None), made)
        except BaseException:
            take_back(made)
            raise

    def exit(self) -> None:
        """Leave what the last :meth:`enter` of this thread or task has entered; CTX202 if there is none."""
        if ENABLED and fastpath.active:
            close_bracket(self._bracket(), None, None)

    def open(self) -> Opened:
        """Enter it for the calling thread or task, until ``close()`` of what is returned, which any thread may call.

        For adapters, which see a library open and close something of its own, in whatever order and thread.  What is
        never closed is no finding: it ends with its owner.
        """
        node: Node | None = None
        if ENABLED and fastpath.active:
            state = fastpath.current()
            if state.cur is not VOID:
                step, lasting = bracket_step(self.name, self.forbids)
                node = state.cur.get(step) if lasting else None
                if node is None:
                    node = enter(state, step)
                if node is not None:
                    state.cur = node
        return Opened(VOID if node is None else node)

    def _bracket(self) -> Mark:
        found = self._mark
        if found is None:
            step, _ = bracket_step(self.name, self.forbids)
            options = Options(self.name, sleeps=False, step=step)
            found = self._mark = options.mark(f"context({self.name!r})", EMPTY)
        return found

    def __repr__(self) -> str:
        return f"<context {self.name!r}>"


def bracket_step(name: str, forbids: frozenset[str]) -> tuple[ContextStep, bool]:
    """The chain entry of a context that one call opens and another one closes."""
    return interned("bracket", name, _takes(forbids), forbids)


def context(name: str, /, *, forbids: Iterable[str | Context] = ()) -> Context:
    """Name a context: a transaction, a request, the part of a program that draws.

    ``with context("transaction"):``, ``async with``, or as a decorator of a function, method, coroutine, generator or
    async generator, whose body then runs inside.  ``enter()`` and ``exit()`` where one call begins what another one
    ends; so do :func:`context_start` and :func:`context_end`.  All of one name are one context.  It may be entered
    again from inside.

    It is the thread's or task's that has entered it: a task that is created inside isn't inside, nor is what runs in
    another thread (``asyncio.to_thread``).  While a marked coroutine or generator is suspended nobody is inside
    because of it; a block in a task stays the task's.

    Args:
        name: what :func:`requires` and :func:`forbids` ask for.
        forbids: what mustn't happen inside, however deep (CTX106): blocking calls of the categories "sleep", "wait",
            "network", "process", "file", "metadata" and "database", and contexts, by name.  What is marked with
            ``might_sleep`` is a "sleep".

    Costs what ``atomic`` costs.

    Raises:
        TypeError: a name that is no string, ``forbids`` that is no tuple.
        ValueError: an empty name, or one that is a category's; a category that is misspelt.
    """
    try:
        known = _known.get((name, forbids))
    except TypeError:  # a list or a set
        known = None
    if known is None:
        text = check_context("context", name)
        known = text, check_forbids(f"context({text!r})", forbids)
        contexts.declare(text)
        if len(_known) < MAX_LABELS and isinstance(forbids, (tuple, frozenset)) and isinstance(name, str):
            _known[name, forbids] = known
    return Context(*known)


#: By what :func:`context` was given: a block in a loop asks once.
_known: Final[dict[tuple[Any, Any], tuple[str, frozenset[str]]]] = {}


def context_start(
    name: str | Context,
    /,
    *,
    key: Part | None = None,
    forbids: Iterable[str | Context] = (),
    nested: bool = False,
    why: str = "",
) -> Range:
    """Decorate the function that opens the context ``name``, which the one that is decorated with :func:`context_end`
    closes.

    The context is a range (:func:`range_start`) that is opened without sleeping, and is checked as one: left open by
    its thread or task is CTX203, closed where none is open is CTX202.  Several may be open at once, each with a key of
    its own.  To :func:`requires` and :func:`forbids` it is as any other context of this name.

    Args:
        name: the context, or its name.
        key: which one: the name of a parameter, a dotted path from one, or a callable that is given the call's
            arguments.  By default ``self`` or ``cls``, if that is the first parameter.
        forbids: as for :func:`context`, which brings its own.
        nested, why: as for :func:`range_start`.

    Raises:
        TypeError, ValueError: when decorating, for wrong use.
    """
    text = check_context("context_start", name)
    forbidden = check_forbids(f"context_start({text!r})", forbids)
    if isinstance(name, Context):
        forbidden |= name.forbids
    contexts.declare(text)
    options = Options(
        text, sleeps=False, why=check_why("context_start", why), nested=check_flag("context_start", "nested", nested),
        step=bracket_step(text, forbidden)[0],
    )  # fmt: skip
    return Range("context_start", options, key, None)


def context_end(name: str | Context, /, *, key: Part | None = None, why: str = "") -> Range:
    """Decorate the function that closes the context ``name``; arguments as for :func:`context_start`.

    It is closed after the function has run, also if that raised.
    """
    text = check_context("context_end", name)
    contexts.declare(text)
    options = Options(text, sleeps=False, why=check_why("context_end", why), step=bracket_step(text, frozenset())[0])
    return Range("context_end", options, key, None)


# --- ambient -----------------------------------------------------------------------------------


@final
class Ambient(_Known):
    """What :func:`ambient` returns: a context manager."""

    __slots__ = ("names",)

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.names: frozenset[str] = names

    def _step(self) -> tuple[Step, bool]:
        return interned("ambient", ", ".join(sorted(self.names)) or "all contexts", 0, self.names)

    def _said(self) -> frozenset[str]:
        return self.names

    def __repr__(self) -> str:
        return f"<ambient {', '.join(map(repr, sorted(self.names)))}>"


def ambient(*names: str | Context) -> Ambient:
    """Say that the contexts that are open now belong to the surroundings: in the block it is as if they weren't there.

    For the fixture of a test, which runs each test inside of a transaction that is rolled back::

        with transaction(), ctxcheck.ambient("transaction"):
            yield

    Neither do they forbid anything in the block, nor is what needs such a context inside of one, until the code under
    test enters its own.  Roles of threads stay.

    Args:
        names: of the contexts; none means all of them.

    Raises:
        TypeError, ValueError: a name that is none.
    """
    return Ambient(frozenset(check_context("ambient", name) for name in names))


# --- thread_role ---------------------------------------------------------------------------------


@final
class Role(Section):
    """What :func:`thread_role` returns: a decorator, a context manager, and a pair of calls."""

    __slots__ = ("_what", "forbids", "name")

    def __init__(self, name: str, forbids: frozenset[str]) -> None:
        super().__init__()
        self.name: str = name
        self.forbids: frozenset[str] = forbids
        self._what: tuple[ContextStep, bool] = interned("role", name, _takes(forbids), forbids)

    def __call__(self, function: F, /) -> F:
        """Mark ``function``, which a thread runs: the thread has the role meanwhile."""
        return mark(function, "thread_role", self._plan)

    def _plan(self, target: Target) -> Plan:
        return held(ContextStep("role", self.name, _takes(self.forbids), target.declared, self.forbids))

    def _step(self) -> tuple[Step, bool]:
        return self._what

    def enter(self) -> Self:
        """Give the calling thread the role, until it ends or :meth:`exit` is called."""
        if ENABLED:
            slowpath.consult(contexts.take_role, _for_good(self.name, self.forbids), *_thread())
        return self

    def exit(self) -> None:
        """Take from the calling thread the role that :meth:`enter` has given to it, if it has it."""
        if ENABLED:
            slowpath.consult(contexts.drop_role, _for_good(self.name, self.forbids), *_thread())

    def __repr__(self) -> str:
        return f"<thread_role {self.name!r}>"


#: Roles that a thread has for good are other entries than those of blocks, so that neither ends the other.
_roles: Final[dict[tuple[str, frozenset[str]], ContextStep]] = {}


def _for_good(name: str, forbids: frozenset[str]) -> ContextStep:
    found = _roles.get((name, forbids))
    if found is None:
        found = _roles.setdefault((name, forbids), ContextStep("role", name, _takes(forbids), detail=forbids))
    return found


def _thread() -> tuple[OwnerState | None, OwnerState | None]:
    """The calling thread's state, and the calling owner's."""
    engine = fastpath.engine()
    if engine is None:
        return None, None
    state = fastpath.current()
    if state.cur is VOID:
        return None, None
    return (fastpath.thread_state(fastpath._local, engine) if isinstance(state, TaskState) else state), state


def thread_role(name: str, /, *, forbids: Iterable[str | Context] = ()) -> Role:
    """Give a thread a role: "ui", "loop", "worker".

    As a statement, ``thread_role("ui")``: the calling thread has it from now on, until it ends.  As a decorator of the
    function that a thread runs, or as a block, ``with thread_role("ui"):``, as long as that runs.  ``enter()`` and
    ``exit()`` of what is returned do the same as the statement, and end it.

    ``@requires("ui")`` then is CTX107 in any other thread, ``@forbids("ui")`` CTX106 in this one.  Whatever runs on
    the thread has its role: tasks of an event loop, finalizers, signal handlers.

    A statement is told from the other uses by the bytecode behind the call.

    Args:
        name, forbids: as for :func:`context`.

    Costs about a tenth of a millisecond; nothing afterwards.

    Raises:
        TypeError, ValueError: as for :func:`context`.
    """
    text = check_context("thread_role", name)
    role = Role(text, check_forbids(f"thread_role({text!r})", forbids))
    contexts.declare(text)
    frame: Any = get_frame(1)
    while frame is not None and is_own(frame.f_code):
        frame = frame.f_back
    if frame is not None and is_statement(frame):
        role.enter()
    return role
