"""What speaks against a hazard that a finalizer shows: who else can have the lock, and what it looks at first.

Pure functions of what is on the stack and of what refers to what, asked when a finalizer takes a lock on a chain that
isn't known yet; what it looks at first is asked of the handlers of signals, too.  Nothing of the program's is called;
nothing here keeps anything of it alive.
"""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final, Literal, NamedTuple, cast

from ctxcheck.engine.blame import package_of
from ctxcheck.engine.raw import local as thread_local
from ctxcheck.engine.sites import Trace, is_own, local

#: Objects looked at from a dying one, and back from a lock; the latter takes a walk over the whole heap each step.
MAX_OBJECTS: Final = 2_000
MAX_ISLAND: Final = 500
MAX_STEPS: Final = 16
#: Functions between the finalizer and the lock that are looked at.
MAX_FRAMES: Final = 32
#: Frames around a hold in which the flag that guards it is looked for.
MAX_HOLDERS: Final = 8

#: The code of the probes' functions that call a finalizer: what is further in, on a stack, belongs to it.
wrappers: Final[list[CodeType]] = []
#: Likewise of the function that calls the handler of a signal.
handler_calls: Final[list[CodeType]] = []

_SHARED: Final = (type, ModuleType, CodeType, FrameType, FunctionType, BuiltinFunctionType)
_CALLS: Final = ("finalize.__call__", "Finalize.__call__")
_ASKS: Final = frozenset({"locked", "_is_owned"})


Reach = Literal["private", "shared", "elsewhere", "unknown"]


class Looks(NamedTuple):
    """What the code of a context does before it asks for a lock: the thread-locals that it reads, whether it asks if
    the lock is taken, and whether all of it is the standard library's; ``whole``: it was looked at to its begin."""

    flags: frozenset[str]
    asks: bool
    library: bool
    whole: bool


def is_wrapper(code: CodeType) -> bool:
    """Whether this is the code of a probe that calls a finalizer."""
    return any(code is each for each in wrappers)


def finalizer_of(trace: Trace) -> str:
    """The qualified name of the finalizer that a stack is in; empty where that isn't known."""
    for index, code in enumerate(trace.codes):
        if is_wrapper(code):
            # between the two there is the library's own, where it is a callback
            inside = (each for each in reversed(trace.codes[:index]) if each.co_qualname not in _CALLS)
            return next((each.co_qualname for each in inside), "")
    return ""


def look(frame: FrameType | None, outer: FrameType | None) -> Looks:
    """Look at the calls from ``frame`` out to where the context began: a probe's, or ``outer``, the interrupted one."""
    flags: set[str] = set()
    asks, library, whole, seen = False, True, False, 0
    while frame is not None and frame is not outer and seen < MAX_FRAMES:
        code = frame.f_code
        if is_wrapper(code) or any(code is each for each in handler_calls):
            whole = True
            break
        if not is_own(code):
            seen += 1
            package = package_of(code.co_filename)
            library = library and bool(package)
            asks = asks or (package != "threading" and not _ASKS.isdisjoint(code.co_names))
            flags.update(_flags(code, frame.f_globals, frame))
        frame = frame.f_back
    return Looks(frozenset(flags), asks, library and seen > 0, whole or (frame is outer and outer is not None))


def _flags(code: CodeType, namespace: dict[str, Any], frame: FrameType | None) -> Iterable[str]:
    """The attributes of thread-locals that a function reads, or one that it calls does, as ``name.attribute``."""
    me = local(frame, code.co_varnames[0]) if frame is not None and code.co_argcount else None
    for name in code.co_names:
        for found in (namespace.get(name), _attribute(me, name)):
            if issubclass(type(found), thread_local):  # isinstance() may ask the program's code
                yield from _after(code, name)
            elif frame is not None and type(found) is FunctionType:
                yield from _flags(found.__code__, found.__globals__, None)
    if frame is not None:
        for name in code.co_freevars:
            if issubclass(type(local(frame, name)), thread_local):
                yield from _after(code, name)


def _after(code: CodeType, name: str) -> Iterable[str]:
    return (pair for pair in accesses(code)[0] if pair.startswith(f"{name}."))


@lru_cache(maxsize=512)
def accesses(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The attributes of variables and attributes that a function reads, and those that it sets: ``name.attribute``.

    So is what it names to ``getattr``, ``hasattr`` and ``setattr``.
    """
    reads: set[str] = set()
    stores: set[str] = set()
    before = ""
    function = ""
    for instruction in dis.get_instructions(code):
        op, value = instruction.opname, instruction.argval
        if op in _NAMED and isinstance(value, str):
            if before:
                (stores if op == "STORE_ATTR" else reads).add(f"{before}.{value}")
            function = value if value in ("getattr", "hasattr", "setattr") else function
            before = value
        elif op == "LOAD_CONST" and isinstance(value, str) and before and function:
            (stores if function == "setattr" else reads).add(f"{before}.{value}")
            before = function = ""
        elif op not in _SILENT:
            before = ""
    return frozenset(reads), frozenset(stores)


#: Instructions that name what they load or set, and those that change nothing about that.
_NAMED: Final = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"})
_SILENT: Final = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PUSH_NULL", "PRECALL"})


def _attribute(thing: Any, name: str) -> Any:
    """An attribute, without running any code of the program."""
    if thing is None:
        return None
    kind: Any = cast("Any", type(thing))
    try:
        own = cast("dict[str, Any]", object.__getattribute__(thing, "__dict__"))
    except AttributeError:
        own = {}
    if type(own) is dict and name in own:
        return own[name]
    for each in type.__dict__["__mro__"].__get__(kind):
        found = type.__dict__["__dict__"].__get__(each).get(name)
        if found is not None:
            return found
    return None


def set_by(holder: Trace) -> frozenset[str]:
    """What the code that holds a lock sets, as ``name.attribute``."""
    return frozenset[str]().union(*(accesses(code)[1] for code in holder.codes[:MAX_HOLDERS]))


# --- who else refers to it ------------------------------------------------------------------


def reach(lock: Callable[[], Any], dying: tuple[Any, ...]) -> Reach:
    """Whether anything refers to a lock but what is ``dying`` and what only that refers to.

    As the collector does it: of everything that can be reached from there the references are counted that come from
    within; who has more has another one.  "shared": something else has it, which may be dying too; "elsewhere": what is
    dying doesn't have it; "unknown": it is too much to say.

    Costs about a microsecond an object, of ``MAX_OBJECTS`` at most.
    """
    found = lock()
    if found is None:
        return "private"
    wanted = id(found)
    del found
    things: list[Any] = []
    inside: set[int] = set()
    for thing in dying:
        if id(thing) not in inside:
            inside.add(id(thing))
            things.append(thing)
    roots = frozenset(inside)
    at = 0
    while at < len(things):
        for thing in gc.get_referents(things[at]):
            if id(thing) not in inside and not issubclass(type(thing), _SHARED) and _holds_references(thing, wanted):
                if len(things) >= MAX_OBJECTS:
                    return "unknown"
                inside.add(id(thing))
                things.append(thing)
        at += 1
    thing = None
    if wanted not in inside:
        return "elsewhere"
    if wanted in roots:
        return "unknown"
    return "private" if _is_closed(things, inside, wanted, roots) else "shared"


def _holds_references(thing: Any, wanted: int) -> bool:
    return id(thing) == wanted or gc.is_tracked(thing) or type(thing) in (tuple, dict)


def _is_closed(things: list[Any], inside: set[int], wanted: int, roots: frozenset[int]) -> bool:
    """Whether everything that leads to ``wanted`` is referred to from ``inside`` only."""
    counts: dict[int, int] = {}
    before: dict[int, list[int]] = {}
    for thing in things:
        mine = id(thing)
        for other in gc.get_referents(thing):
            its = id(other)
            if its in inside:
                counts[its] = counts.get(its, 0) + 1
                before.setdefault(its, []).append(mine)
    thing = other = None
    leads = {wanted}
    todo = [wanted]
    while todo:
        for mine in before.get(todo.pop(), ()):
            if mine not in leads and mine not in roots:
                leads.add(mine)
                todo.append(mine)
    return all(
        extra <= 0 for extra in [_count(things, at) - counts.get(id(things[at]), 0)
                                 for at in range(len(things)) if id(things[at]) in leads]
    )  # fmt: skip


def _count(things: list[Any], at: int) -> int:
    """The references to one of these objects but for those of the list and of this call."""
    return _references(things, at) - _OURS


def _references(things: list[Any], at: int) -> int:
    return sys.getrefcount(things[at])


_OURS: Final = _references([object()], 0)


def is_island(lock: Callable[[], Any], dying: tuple[Any, ...]) -> bool:
    """Whether a lock goes with what is ``dying``, or is garbage that the collector hasn't come to yet: whether nothing
    else refers to it, back through whatever refers to it.

    Each step back walks over the whole heap (some ten milliseconds a million objects): for the few that are in doubt.
    """
    found = lock()
    if found is None:
        return True
    things: list[Any] = [found]
    del found
    inside = {id(things[0])}
    ends = frozenset(map(id, dying))
    ours = {id(things), id(inside), id(dying)}
    layer = [things[0]]
    end = object()
    for _ in range(MAX_STEPS):
        ours.add(id(layer))
        following: list[Any] = []
        ours.add(id(following))
        for thing in gc.get_referrers(*layer, end):
            its = id(thing)
            # functions that run refer to nothing here
            if its in ours or its in inside or its in ends or _ends_in(thing, end):
                continue
            if issubclass(type(thing), (type, ModuleType)) or len(things) >= MAX_ISLAND:
                return False
            inside.add(its)
            things.append(thing)
            following.append(thing)
        thing = None
        layer = following
        if not following:
            break
    else:
        return False
    del layer, following
    counts: dict[int, int] = {}
    for thing in (*things, *dying):
        for other in gc.get_referents(thing):
            counts[id(other)] = counts.get(id(other), 0) + 1
    thing = other = None
    return all(_count(things, at) - counts.get(id(things[at]), 0) <= 0 for at in range(len(things)))


def _ends_in(thing: Any, end: object) -> bool:
    """Whether it is the arguments of the call that is going on, which 3.13 counts as well."""
    return type(thing) is tuple and len(thing) > 0 and thing[-1] is end  # pyright: ignore[reportUnknownArgumentType]
