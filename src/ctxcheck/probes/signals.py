"""Handlers of signals: each runs in an interrupting context, ``signal SIGALRM``, whatever it has interrupted.

``signal.signal`` installs a stand-in for the program's handler, and nothing that a program can ask shows it: it and
``signal.getsignal`` give the handler itself.  ``signal.pthread_sigmask`` puts what it blocks on the chain of the main
thread, which alone runs handlers.  A handler may raise, may never return, may be interrupted by another one, and by
another signal of its own number: CPython calls handlers between any two bytecodes, also between those of a handler.
A signal that strikes where an exception would be lost by our doing is put off.

Not touched: what isn't a Python callable, ``signal.default_int_handler`` (it takes no lock), and asyncio's, which does
nothing (the callbacks of ``loop.add_signal_handler`` are ordinary code).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast, final

from ctxcheck import fastpath
from ctxcheck.engine import interrupts, slowpath
from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.finalizing import handler_calls
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.postponed import strikes
from ctxcheck.engine.raw import get_ident, is_main_thread
from ctxcheck.engine.sites import PACKAGE_DIR
from ctxcheck.engine.usage import WITHIN
from ctxcheck.probes import later
from ctxcheck.probes.patches import Patches

#: Steps that are remembered; a program may block any set of signals.
_MAX_STEPS: Final = 1_000
_handler_steps: Final[dict[tuple[str, frozenset[str]], ContextStep]] = {}
_mask_steps: Final[dict[frozenset[str], ContextStep]] = {}
#: On a chain: signals that are blocked in this thread.
_LABEL: Final = "signals blocked"
_NOTHING: Final[frozenset[str]] = frozenset()


@final
class _Handler:
    """What the interpreter calls in the place of the program's handler."""

    __slots__ = ("handler", "live")

    def __init__(self, handler: Any, live: Callable[[], bool]) -> None:
        self.handler: Any = handler
        self.live: Callable[[], bool] = live

    def __call__(self, number: Any, frame: Any) -> Any:
        if strikes(frame) and later.again(number):
            return None
        node, state = None, None
        if fastpath.active and self.live():
            state = fastpath.current()
            if state.cur is not VOID:
                node = slowpath.consult(_begin, state, number)
                if node is not None:
                    # no call from here on: another handler may raise at each
                    state.cur = node
        try:
            return self.handler(number, frame)
        finally:
            if node is not None and state is not None:
                if state.cur is node:
                    state.cur = node.parent
                else:
                    # locks that are still held belong to what was interrupted
                    state.unlink(node)
                interrupts.end(state, node)


handler_calls.append(_Handler.__call__.__code__)


def plain(handler: Any) -> Any:
    """What the program itself has set."""
    return handler.handler if type(handler) is _Handler else handler


def watch(patches: Patches) -> Callable[[], None]:
    """Put the probes in place; what is returned puts the handlers back that the program has set meanwhile.

    That is for the main thread only, as is :func:`signal.signal`; elsewhere the handlers that are there stay, and
    those that are ours do nothing any more but call the program's.
    """
    import signal

    set_handler, get_handler = signal.signal, signal.getsignal
    #: signals whose system calls are to be restarted, which setting a handler ends
    restarting: set[int] = set()

    def make_signal(original: Any, live: Callable[[], bool]) -> Any:
        def signal(signalnum: Any, handler: Any) -> Any:
            before = original(signalnum, _Handler(handler, live) if live() and _is_checked(handler) else handler)
            restarting.discard(int(signalnum))
            return plain(before)

        return signal

    def make_getsignal(original: Any, live: Callable[[], bool]) -> Any:  # noqa: ARG001
        def getsignal(signalnum: Any) -> Any:
            return plain(original(signalnum))

        return getsignal

    def make_siginterrupt(original: Any, live: Callable[[], bool]) -> Any:  # noqa: ARG001
        def siginterrupt(signalnum: Any, flag: Any, /) -> None:
            original(signalnum, flag)
            (restarting.discard if flag else restarting.add)(int(signalnum))

        return siginterrupt

    def make_sigmask(original: Any, live: Callable[[], bool]) -> Any:
        def pthread_sigmask(how: Any, mask: Any) -> Any:
            try:
                return original(how, mask)
            finally:
                # also if a handler of what was let through has raised
                if live() and fastpath.active and is_main_thread(get_ident()):
                    note_mask(original(signal.SIG_BLOCK, ()))

        return pthread_sigmask

    def each(change: Callable[[Any], Any]) -> None:
        """Set each handler anew that is to be another one."""
        for number in sorted(signal.valid_signals()):
            handler = get_handler(number)
            new = change(handler)
            if new is not handler:
                restarts = number in restarting
                set_handler(number, new)
                if restarts:
                    interrupting(number, False)

    interrupting = getattr(signal, "siginterrupt", None) or _ignore

    def restore() -> None:
        if is_main_thread(get_ident()):
            each(plain)

    patches.wrap(signal, "signal", make_signal)
    patches.wrap(signal, "getsignal", make_getsignal)
    patches.wrap(signal, "siginterrupt", make_siginterrupt)
    if interrupting is not _ignore:
        # as each function of that module that isn't written in C
        signal.siginterrupt.__module__ = "signal"
    patches.wrap(signal, "pthread_sigmask", make_sigmask)
    if is_main_thread(get_ident()):
        try:
            each(lambda handler: _Handler(plain(handler), patches.live) if _is_checked(plain(handler)) else handler)
        except BaseException:
            restore()
            raise
    return restore


def _ignore(*_: object) -> None:
    pass


def _is_checked(handler: Any) -> bool:
    if not callable(handler) or isinstance(handler, int) or type(handler) is _Handler:
        return False
    if any(hasattr(type(handler), name) for name in ("__int__", "__index__", "__trunc__")):
        return False  # what `int()` makes a number of is one to `signal.signal`
    code = getattr(handler, "__code__", None)
    if code is None:
        import signal

        return handler is not signal.default_int_handler
    # a marker's wrapper is the program's function
    ours = code.co_filename.startswith(PACKAGE_DIR)
    return not ours and getattr(handler, "__module__", "") != "asyncio.unix_events"


def name_of(number: Any) -> str:
    """``SIGALRM``; the number, of one that has no name."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return str(int(number))


def _begin(state: OwnerState, number: Any) -> Node:
    """The node of the context in which this signal's handler runs."""
    context = f"signal {name_of(number)}"
    masked = _mask_of(state)[1] | {WITHIN + context}
    step = _handler_steps.get((context, masked))
    if step is None:
        step = ContextStep("interrupt", context, detail=masked, boundary=True)
        if len(_handler_steps) < _MAX_STEPS:
            step = _handler_steps.setdefault((context, masked), step)
    return interrupts.begin(state, step)


def _mask_of(state: OwnerState) -> tuple[Node | None, frozenset[str]]:
    """The entry of the chain that says what is blocked in this thread, and what that is."""
    for node in state.cur.chain():
        step = node.step
        if isinstance(step, ContextStep) and step.kind == "masked" and step.label == _LABEL:
            return node, cast("frozenset[str]", step.detail)
    return None, _NOTHING


def note_mask(blocked: Any) -> None:
    """These signals, and no others, are blocked in the calling thread."""
    state = fastpath.current()
    if state.cur is not VOID:
        slowpath.consult(_note_mask, state, frozenset(f"signal {name_of(number)}" for number in blocked))


def _note_mask(state: OwnerState, names: frozenset[str]) -> None:
    state.settle()
    old, before = _mask_of(state)
    if names == before:
        return
    if old is not None:
        state.unlink(old.stands_for)
    if names:
        step = _mask_steps.get(names)
        if step is None:
            step = ContextStep("masked", _LABEL, detail=names)
            if len(_mask_steps) < _MAX_STEPS:
                step = _mask_steps.setdefault(names, step)
        node = state.cur[step]
        state.cur = state.engine.enter(state, step) if node is None else node
    if before - names:
        state.engine.of(state).interrupts.unmasked(state)
