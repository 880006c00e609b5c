"""``interrupt`` and ``masked``: code that runs in the middle of other code of its thread, and stretches where it can't.

See :mod:`ctxcheck.engine.interrupts` for what that means to the rules.
"""

from __future__ import annotations

from typing import Any, Final, Self, cast, final

from ctxcheck import fastpath
from ctxcheck.engine import interrupts, slowpath
from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.raw import uninterrupted
from ctxcheck.markers.contexts import MAX_LABELS, Section
from ctxcheck.markers.shapes import leave
from ctxcheck.markers.usage import ENABLED, check_text, describe

_steps: Final[dict[tuple[str, str, frozenset[str]], ContextStep]] = {}


def _step(kind: str, label: str, names: frozenset[str]) -> ContextStep:
    """The step of a context: one for all uses, up to ``MAX_LABELS``."""
    key = (kind, label, names)
    found = _steps.get(key)
    if found is None:
        found = ContextStep(kind, label, detail=names, boundary=kind == "interrupt")
        if len(_steps) < MAX_LABELS:
            found = _steps.setdefault(key, found)
    return found


class _Block(Section):
    """A block, or a pair of calls."""

    __slots__ = ("_what",)

    def __init__(self, what: ContextStep) -> None:
        super().__init__()
        self._what: ContextStep = what

    def enter(self) -> Self:
        """As the beginning of a ``with`` block, for code that can't be one; :meth:`exit` is its end."""
        return self.__enter__()

    def exit(self) -> None:
        """As the end of a ``with`` block.

        Raises:
            RuntimeError: there was no :meth:`enter`, or each was left already.
        """
        if not self._entered:
            raise RuntimeError(f"{self!r}.exit() without enter()")
        self.__exit__()

    # as that of a section; no call and no entry before the context is left: a signal handler may raise at each
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
        else:
            at = next((i for i in range(len(entered) - 1, -1, -1) if entered[i].state is state), -1)
            node = entered.pop(at)
            leave(state, node)
        if node is not VOID and state.cur is not VOID:
            slowpath.consult(self._left, state, node)

    def _left(self, state: OwnerState, node: Node) -> None:
        """It was left by ``state``, which stood in ``node``."""
        raise NotImplementedError


@final
class Interrupt(_Block):
    """What ``interrupt(...)`` returns: a context manager."""

    __slots__ = ()

    def __enter__(self) -> Self:
        if ENABLED and fastpath.active:
            state = fastpath.current()
            if state.cur is not VOID:
                node = slowpath.consult(interrupts.begin, state, self._what)
                if node is not None:
                    # no call from here on, and the chain last: as for any section
                    self._entered += (node,)
                    state.cur = node
                    return self
        self._entered.append(VOID)
        return self

    def _left(self, state: OwnerState, node: Node) -> None:
        interrupts.end(state, node)

    def __repr__(self) -> str:
        return f"<ctxcheck.interrupt({self._what.label!r})>"


@final
class Masked(_Block):
    """What ``masked(...)`` returns: a context manager."""

    __slots__ = ()

    def _step(self) -> tuple[ContextStep, bool]:
        return self._what, True

    def _left(self, state: OwnerState, node: Node) -> None:  # noqa: ARG002
        state.engine.of(state).interrupts.unmasked(state)

    def __repr__(self) -> str:
        return f"<ctxcheck.masked({self._what.label})>"


def interrupt(name: str, /, *, masks: tuple[str, ...] = ()) -> Interrupt:
    """Say that this thread is now inside an interrupting context: code that ran in the middle of other code.

    ``with ctxcheck.interrupt("gc"):`` around the body of a finalizer, a callback of the collector or a signal handler;
    or ``enter()`` and ``exit()`` of what is returned.  A lock that such code waits for must not be held where the
    context could come (CTX004), nor be taken before such a lock (CTX005); as Linux ``lockdep`` has it for interrupts.

    The block begins with nothing held and everything allowed, whatever it has interrupted, and nothing is learned of
    that: when it comes depends on chance.  Meanwhile the same context can't interrupt, nor can those of ``masks``.
    Locks that are still held at its end belong to what was interrupted.

    Costs some microseconds at its beginning and end.

    Args:
        name: what to call it; a context is made when its name is first used.
        masks: other contexts that can't interrupt this one.

    Raises:
        TypeError: a name that is no string.
        ValueError: an empty name.
    """
    check_text("interrupt", "the name", name)
    if isinstance(masks, str):
        raise TypeError(f"interrupt: masks={masks!r} is a string; write masks=({masks!r},)")
    return Interrupt(_step("interrupt", name, frozenset((name, *_names("interrupt", masks)))))


def masked(*names: str) -> Masked:
    """Say that these contexts can't interrupt here: ``with ctxcheck.masked("gc"):``, or ``enter()`` and ``exit()``.

    What is held by then stays as it was; what is acquired in the block isn't open to them until the block is left.
    Blocks nest: a context can interrupt again when the last one that names it is left.  This only *says* so: it
    switches neither the collector nor signals off.

    Args:
        names: of contexts, as given to :func:`interrupt`.

    Raises:
        TypeError: no name, or one that is no string.
        ValueError: an empty name.
    """
    if not names:
        raise TypeError('masked: it names no context; say which: masked("gc")')
    found = _names("masked", names)
    return Masked(_step("masked", ", ".join(sorted(found)), frozenset(found)))


def _names(marker: str, names: Any) -> list[str]:
    if not isinstance(names, (tuple, list, set, frozenset)):
        raise TypeError(f"{marker}: masks={describe(names)} is no tuple of names")
    return [check_text(marker, "a name", name) for name in cast("tuple[Any, ...]", names)]
