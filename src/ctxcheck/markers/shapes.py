"""The wrappers that decorators make: one shape for each sort of callable, written out as source and compiled.

A marker is a :class:`Plan`: lines that check something before the body runs, and a *treatment* of the
body: none, "held" (a context lasts as long as the body runs), "start" (something happens after it has
returned), "end" (something happens after it, however it ends).  What the body is, decides the rest:

* a function runs in one go;
* a coroutine, a generator or an async generator runs in pieces, perhaps interleaved with others and on
  whichever thread resumes it.  A context is on the chain of the resuming owner for each piece, and off it
  in between.  So the wrapper resumes the body itself, and hands everything on: what is sent, thrown and closed.

Written out, because a wrapper with the exact parameters costs half of one that passes ``*args, **kwargs`` on.
The code runs in the namespace of :mod:`ctxcheck.fastpath`, where ``_local`` and ``_engine`` are plain globals that it
reads afresh at each call: a function that was marked long ago is checked from the moment that checking starts.
(``_engine is not None`` is ``active``, in one instruction less.)
Names that begin with ``_ctx_`` are the wrapper's own; ``node`` is where it stands, by which a report finds
the very call that entered a context.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, Literal, TypeVar, cast, final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import ContextStep, Step
from ctxcheck.engine.errors import ViolationError
from ctxcheck.engine.owner import VOID, Node, OwnerState
from ctxcheck.engine.sites import GENERATED
from ctxcheck.markers.target import Kind, Target
from ctxcheck.markers.usage import ENABLED, describe

#: What a decorator takes, and hands back as the same type.
F = TypeVar("F", bound="Callable[..., Any] | classmethod[Any, Any, Any] | staticmethod[Any, Any]")

Treatment = Literal["none", "held", "start", "end"]

#: Globals of the wrapper, and how it gets at one that a parameter hides.
_GLOBALS: Final = {"_engine": "_ctx_fast._engine", "_local": "_ctx_fast._local", "begin": "_ctx_fast.begin"}


@final
class Plan:
    """What a marker makes of one function.

    ``checks`` are lines of the wrapper; they see the owner's state as ``_ctx_st`` and the ``cells`` by name.
    The treatment "held" needs the cells of :func:`held`; "start" needs a check that sets
    ``_ctx_token``, and ``_ctx_opened(token)``; "end" one that sets it, ``_ctx_sleep()`` and
    ``_ctx_closed(token, failed)``.  A token of None means that nothing is to be done.
    """

    __slots__ = ("cells", "checks", "treatment")

    def __init__(self, checks: list[str], treatment: Treatment = "none", **cells: Any) -> None:
        self.checks: list[str] = checks
        self.treatment: Treatment = treatment
        self.cells: dict[str, Any] = cells


def mark(function: F, marker: str, plan: Callable[[Target], Plan]) -> F:
    """Return ``function`` wrapped as ``plan`` says, or itself where markers are off.

    Raises:
        TypeError: it is a class, or can't be called.
    """
    marked: Any = function
    if isinstance(marked, (classmethod, staticmethod)):
        inner: Any = marked.__func__  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        wrapped = mark(inner, marker, plan)
        if wrapped is inner:
            return function
        return cast("F", type(marked)(wrapped))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(marked, type):
        raise TypeError(f"@{marker} marks functions, and {marked.__qualname__} is a class: mark its methods")
    if not callable(marked):
        hint = ": put the marker below it" if hasattr(marked, "__get__") else ""
        raise TypeError(f"@{marker} marks functions, not {describe(marked)}{hint}")
    target = Target(marked, marker)
    made = plan(target)
    return cast("F", _build(target, made)) if ENABLED else function


def _build(target: Target, plan: Plan) -> Callable[..., Any]:
    function = target.function
    body = _body_text(target, plan)
    cells = {"_ctx_fn": function, "_ctx_fast": fastpath, **plan.cells, **target.cells}
    cells = {name: value for name, value in cells.items() if name in body}
    checked: Any = _factory(_wrapper_text(target, body, list(cells)))(*cells.values())
    functools.update_wrapper(checked, function)
    # code of its own: the interpreter keeps in it what it has learned about the calls in it; and profilers name it
    checked.__code__ = checked.__code__.replace(co_name=checked.__name__, co_qualname=target.qualname)
    if target.plain and isinstance(function, FunctionType):
        checked.__defaults__ = function.__defaults__
        checked.__kwdefaults__ = function.__kwdefaults__
    if target.kind == "awaitable":
        checked = types.coroutine(checked)
    return cast("Callable[..., Any]", checked)


#: By text: functions of one shape are compiled once.
_factories: Final[dict[str, Callable[..., Any]]] = {}


def _factory(text: str) -> Callable[..., Any]:
    found = _factories.get(text)
    if found is None:
        made: dict[str, Any] = {}
        # the text is our own: of the program's there are only names in it, and those were checked
        exec(compile(text, GENERATED, "exec"), fastpath.__dict__, made)
        found = _factories.setdefault(text, made["_ctx_make"])
    return found


# --- the text -----------------------------------------------------------------------------


def _indent(text: str, depth: int) -> str:
    return "".join(f"{' ' * 4 * depth}{line}\n" for line in text.splitlines())


_READ: Final = """\
try:
    _ctx_st = {local}.st
except AttributeError:
    _ctx_st = {begin}()
"""

_ENTER: Final = """\
node = _ctx_st.cur[_ctx_step]
if node is None:
    node = _ctx_enter(_ctx_st, _ctx_step)
"""

# What is on the chain is put there and taken off by the same frame, but for locks that were
# taken inside and are still held, or the other way round: those go the slow way.
_HELD_FUNCTION: Final = f"""\
if {{engine}} is not None:
{_indent(_READ + _ENTER, 1)}\
    if node is not None:
        _ctx_st.cur = node
        try:
            return _ctx_fn({{call}})
        finally:
            if _ctx_st.cur is node:
                _ctx_st.cur = node.parent
            else:
                _ctx_leave(_ctx_st, node)
return _ctx_fn({{call}})
"""

# One piece of a body in a context, with what was left inside it the last time.
_BEFORE_PIECE: Final = f"""\
node = None
if {{engine}} is not None:
{_indent(_READ + _ENTER, 1)}\
    if node is not None:
        _ctx_st.cur = node
"""

_IN_PIECE: Final = """\
if _ctx_carried and node is not None:
    _ctx_resume(_ctx_st, _ctx_carried)
"""

_AFTER_PIECE: Final = """\
if node is not None:
    if _ctx_st.cur is node:
        _ctx_st.cur = node.parent
    else:
        _ctx_suspend(_ctx_st, node, _ctx_carried)
"""

# A generator resumed by hand: `yield from` would close the body where the caller throws GeneratorExit, and lose
# what the body returns then.  The box holds what goes in or out, so that nothing is kept alive by being
# remembered here, and an exception isn't kept in a cycle with its own traceback.
_LOOP: Final = """\
_ctx_it = _ctx_fn({call})
{first}\
while True:
{before}\
    try:
{inside}\
        _ctx_box.append({resumed})
    except {stop}:
        {result}
        break
{after}\
    try:
        _ctx_box.append((yield _ctx_box.pop()))
        _ctx_call = _ctx_it.{send}
    except BaseException as _ctx_error:
        _ctx_box.append(_ctx_error)
        _ctx_call = _ctx_it.{throw}
"""

# An awaitable that runs `_ctx_it` in the context, piece by piece.  A piece that ends in a yield has really
# suspended; that yield goes on to the event loop, unless the mode is to raise.
_DRIVE: Final = f"""\
def _ctx_make(_ctx_enter, _ctx_resume, _ctx_suspend):
    def drive(_ctx_it, _ctx_step, _ctx_carried, _ctx_suspends, _ctx_body):
        if not hasattr(_ctx_it, "throw"):
            _ctx_it = _ctx_it.__await__()
        _ctx_call = _ctx_it.send
        _ctx_box = [None]
        while True:
{_indent(_BEFORE_PIECE.format(engine="_engine", local="_local", begin="begin"), 3)}\
            _ctx_raised = None
            try:
{_indent(_IN_PIECE, 4)}\
                _ctx_box.append(_ctx_call(_ctx_box.pop()))
                if node is not None and _ctx_suspends is not None:
                    _ctx_raised = _ctx_suspends(_ctx_st, _ctx_body)
            except StopIteration as _ctx_stop:
                return _ctx_stop.value
            finally:
{_indent(_AFTER_PIECE, 4)}\
            if _ctx_raised is not None:
                _ctx_box[0], _ctx_raised = _ctx_raised, None
                _ctx_call = _ctx_it.throw
                _ctx_suspends = None
                continue
            try:
                _ctx_box.append((yield _ctx_box.pop()))
                _ctx_call = _ctx_it.send
            except BaseException as _ctx_error:
                _ctx_box.append(_ctx_error)
                _ctx_call = _ctx_it.throw
    return drive
"""

_START: Final = """\
if _ctx_token is not None:
    _ctx_opened(_ctx_token)
"""

_END: Final = """\
try:
    if _ctx_token is not None:
        _ctx_sleep()
{core}\
except BaseException:
    if _ctx_token is not None:
        _ctx_closed(_ctx_token, True)
    raise
if _ctx_token is not None:
    _ctx_closed(_ctx_token, False)
"""


def _wrapper_text(target: Target, body: str, cells: list[str]) -> str:
    header = "async def" if target.kind in ("coroutine", "async generator") else "def"
    return (
        f"def _ctx_make({', '.join(cells)}):\n"
        f"    {header} checked({target.params}):\n{_indent(body, 2)}"
        "    return checked\n"
    )


def _body_text(target: Target, plan: Plan) -> str:
    hidden = target.own if target.plain else ()
    names = {name: path if name in hidden else name for name, path in _GLOBALS.items()}
    names = {"engine": names["_engine"], "local": names["_local"], "begin": names["begin"], "call": target.call}
    body = "".join(f"{line}\n" for line in target.saved)
    treatment = plan.treatment
    if treatment in ("start", "end"):
        if target.kind == "function":
            # off costs no more than the test; whoever is inside when checking starts isn't looked at
            body += f"if {names['engine']} is None:\n    return _ctx_fn({names['call']})\n"
        body += "_ctx_token = None\n"
    if plan.checks:
        body += f"if {names['engine']} is not None:\n" + _indent(_READ.format(**names) + "\n".join(plan.checks), 1)
    if treatment == "held" and target.kind == "function":
        return body + _HELD_FUNCTION.format(**names)
    return body + _core(target.kind, treatment, names)


def _core(kind: Kind, treatment: Treatment, names: dict[str, str]) -> str:
    """The part of the wrapper that runs the body, but for a context held over a plain function."""
    drive = "_ctx_drive({it}, _ctx_step, _ctx_carried, _ctx_suspends, {body})"
    call = f"_ctx_fn({names['call']})"
    setup = ""
    if kind in ("generator", "async generator"):
        waits = kind == "async generator"
        resumed = "_ctx_call(_ctx_box.pop())"
        # the first step of an async generator is a special one: see first_step()
        first = "_ctx_call, _ctx_box = " + ("_ctx_first, [_ctx_it]\n" if waits else "_ctx_it.send, [None]\n")
        before = inside = after = ""
        if treatment == "held":
            first += "_ctx_carried = []\n"
            if waits:
                resumed = drive.format(it=resumed, body="_ctx_it")
            else:
                before = _indent(_BEFORE_PIECE.format(**names), 1)
                inside = _indent(_IN_PIECE, 2)
                after = "    finally:\n" + _indent(_AFTER_PIECE, 2)
        core = _LOOP.format(
            call=names["call"],
            first=first,
            before=before,
            inside=inside,
            after=after,
            resumed=f"await {resumed}" if waits else resumed,
            send="asend" if waits else "send",
            throw="athrow" if waits else "throw",
            stop="StopAsyncIteration" if waits else "StopIteration as _ctx_stop",
            result="pass" if waits else "_ctx_result = _ctx_stop.value",
        )
        value = "" if waits else "return _ctx_result\n"
    else:
        if treatment == "held":
            setup = f"_ctx_it = {call}\n_ctx_carried = []\n"
            call = drive.format(it="_ctx_it", body="_ctx_it")
        call = {"function": call, "coroutine": f"await {call}", "awaitable": f"(yield from {call})"}[kind]
        if treatment in ("none", "held"):
            return f"{setup}return {call}\n"
        core = f"_ctx_result = {call}\n"
        value = "return _ctx_result\n"
    if treatment == "start":
        core += _START
    elif treatment == "end":
        core = _END.format(core=_indent(core, 1))
    return core + value


# --- a context that lasts as long as the body runs ------------------------------------------


def enter(state: OwnerState, step: Step) -> Node | None:
    """Validate a context or region that is entered for the first time here; None where the validator can't say."""
    return slowpath.consult(state.engine.enter, state, step)


def leave(state: OwnerState, node: Node) -> None:
    """Take a context off the chain that isn't the innermost entry, or isn't the caller's."""
    if node is VOID or state.unlink(node):
        return
    owner = node.state
    if owner is state or owner.find(node) is None:
        return
    if not owner.is_current() or not owner.unlink(node):
        owner.drops.append(node)


#: What is the owner's, whoever runs.
_STAYS: Final = frozenset({"range", "bracket", "role"})


def suspend(state: OwnerState, node: Node, carried: list[Node]) -> None:
    """The body stops for now: take its context off the chain, and those that it has entered inside.

    Locks and brackets stay: they are the owner's, whoever runs.
    """
    inside: list[Node] = []
    for entry in state.cur.chain():
        if entry.stands_for is node:
            break
        step = entry.step
        if step.kind not in _STAYS if isinstance(step, ContextStep) else step.mode is not None and step.mode.enters:
            inside.append(entry)
    else:
        return
    for entry in inside:
        state.unlink(entry.stands_for)
    carried.extend(reversed(inside))
    state.unlink(node)


def resume(state: OwnerState, carried: list[Node]) -> None:
    """Enter what :func:`suspend` took off, for whoever resumes the body."""
    if state.cur is VOID:
        return
    for entry in carried:
        state.cur = Node(state.cur, entry.step, state, entry.trace, stands_for=entry.stands_for)
    carried.clear()


def first_step(body: Any) -> Any:
    """Start an async generator that is another one's body.

    The event loop is told of each async generator that starts, and closes those that are left over at its
    end, all at a time.  It mustn't hear of this one: the outer one closes it.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return body.asend(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


#: What the text above uses.  Globals of the wrappers, since a cell is copied at each call.
_TOOLS: Final = {
    "_ctx_enter": enter,
    "_ctx_leave": leave,
    "_ctx_suspend": suspend,
    "_ctx_resume": resume,
    "_ctx_first": first_step,
    "_ctx_drive": types.coroutine(_factory(_DRIVE)(enter, resume, suspend)),
}
fastpath.__dict__.update(_TOOLS)


def held(step: Step, suspends: Callable[[OwnerState, Any], ViolationError | None] | None = None) -> Plan:
    """The plan of a context or a region that is entered for as long as the body runs.

    ``suspends`` is asked when a coroutine's body really suspends in it, and returns what to raise in the body.
    """
    return Plan([], "held", _ctx_step=step, _ctx_suspends=suspends)
