"""Which lock class a new lock belongs to: found from the code that makes it.

A class key must survive edits, Python versions and processes, so it holds no line, no id and
no path: it is (module, owner, target, ordinal), as ``bank:Ledger.lock``.  The owner is the class of
``self`` where the lock is assigned to an attribute of it (so that subclasses differ), else the
function that makes it; the target is what it is assigned to, read from the source once per place;
without a target, the ordinal of the call in its function tells two locks of one line apart.
"""

from __future__ import annotations

import sys
import weakref
from types import CodeType, FrameType
from typing import Any, Final

from ctxcheck import fastpath
from ctxcheck.engine.classes import REGISTRY, WITH, Kind, LockClass
from ctxcheck.engine.instances import credits_here
from ctxcheck.engine.owner import Unused
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import Trace, is_own, local
from ctxcheck.locks import replaced
from ctxcheck.locks.assigned import NOWHERE, Target, target_of
from ctxcheck.locks.modules import MAIN, import_name, module_of

#: Functions that make locks for their callers, by dotted name: the caller counts as the place.
factories: Final[set[str]] = set()
_factory_codes: Final[set[int]] = set()
_keep: Final[list[CodeType]] = []


_STDLIB: Final = sys.stdlib_module_names
#: Scopes that the compiler makes a function of on some versions and not on others (PEP 709).
_INLINED: Final = ("<listcomp>", "<dictcomp>", "<setcomp>")
_TRANSPARENT: Final = (*_INLINED, "<genexpr>")


#: Per place and kind, where the code itself makes the lock: the class, by the type of ``self`` where that counts.
_known: Final[dict[tuple[int, int, str], dict[type | None, LockClass]]] = {}


def classify(kind: Kind, name: str | None, *, depth: int = 2) -> tuple[LockClass, Unused | None]:
    """Return the class of a lock that is being made ``depth`` frames up, and, if its name isn't known until it is
    used, what settles that.

    ``name`` given explicitly is the key, and the display name.  Costs a few microseconds, and the parse of a source
    file the first time that a lock is made in it.
    """
    start = caller(depth + 1)
    if fastpath.active:
        _check_replaced(start)
    place = (id(start.f_code), start.f_lasti, kind.name)
    if name is None:
        known = _known.get(place)
        if known is not None:
            found = known.get(_owner_type(start) if None not in known else None)
            if found is not None:
                return found, None
    frame, suffixes = maker(start)
    trace = Trace((frame.f_code,), (frame.f_lasti,))
    if name is not None:
        return REGISTRY.get(name, name, kind, trace), None
    code = frame.f_code
    target = target_of(code, frame.f_lasti)
    module = module_of(frame.f_globals)
    scope = frame
    while scope.f_code.co_name in _INLINED and scope.f_back is not None:
        scope = scope.f_back
    me = _first_argument(scope)
    tail = "".join(f".{part}" for part in reversed(suffixes))
    if code.co_filename.startswith("<") and me is not None and code.co_name == "__init__" and not target.name:
        return _generated(kind, module, me, target, tail, trace)
    if target.base and me is not None and target.base == scope.f_code.co_varnames[0]:
        owner, by_type = _type_name(me), True
    else:
        owner, by_type = _strip(code.co_qualname), False
    what = target.name or (f"#{target.ordinal}" if target.ordinal else "")
    made = _found(kind, module, owner, what, tail, trace, unstable=target is NOWHERE)
    made.library = (bool(suffixes) or module.partition(".")[0] in _STDLIB) and (made.library or not made.created)
    if frame is start is scope:
        _known.setdefault(place, {})[_owner_type(frame) if by_type else None] = made
    return made, None


def _check_replaced(frame: FrameType) -> None:
    me = _first_argument(frame)
    if me is None or isinstance(me, type):
        return
    target = target_of(frame.f_code, frame.f_lasti)
    if target.name and target.base == frame.f_code.co_varnames[0]:
        replaced.check(frame, me, target.name)


def caller(depth: int) -> FrameType:
    """The frame ``depth`` calls up, or the outermost one: C code may make a lock where no Python code runs."""
    frame = get_frame()
    for _ in range(depth):
        if frame.f_back is None:
            break
        frame = frame.f_back
    return frame


def _owner_type(frame: FrameType) -> type | None:
    me = _first_argument(frame)
    return me if isinstance(me, type) else type(me)


def lock_factory(function: Any) -> Any:
    """Mark a function that makes locks for its callers: their place, not its own, names the lock's class.

    A decorator; returns the function itself.
    """
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        raise TypeError(f"lock_factory: {function!r} is not a Python function")
    _keep.append(code)
    _factory_codes.add(id(code))
    return function


def _found(
    kind: Kind, module: str, owner: str, what: str, tail: str, trace: Trace, *, unstable: bool = False
) -> LockClass:
    path = ".".join(part for part in (owner if owner != "<module>" else "", what) if part) + tail
    path = path.removeprefix(".") or "<unnamed>"
    key = f"{module}:{path}"
    display = path.replace(".<locals>", "")
    if display.startswith(("#", "<")) or (owner == "<module>" and module != import_name(MAIN[0])):
        display = f"{module}.{display}"
    return REGISTRY.get(key, display, kind, trace, unstable=unstable)


def maker(frame: FrameType) -> tuple[FrameType, list[str]]:
    """The frame that makes the lock: the first outside ctxcheck, the standard library and declared factories.

    A library's own attribute (``Queue.mutex``) becomes a suffix.  What the library makes while it is being
    imported is its own.
    """
    suffixes: list[str] = []
    while True:
        code = frame.f_code
        back = frame.f_back
        if back is None:
            return frame, suffixes
        if is_own(code):
            frame = back
            continue
        module = frame.f_globals.get("__name__")
        module = module if isinstance(module, str) else "?"
        if id(code) in _factory_codes or f"{module}.{code.co_qualname}" in factories:
            frame = back
            continue
        returned = target_of(code, frame.f_lasti).returned and not is_own(back.f_code)
        if returned and target_of(back.f_code, back.f_lasti).name:
            # `return Lock()`: made for the caller, who gives it a name
            frame = back
            continue
        if module.partition(".")[0] in _STDLIB and module != "__main__" and code.co_name != "<module>":
            if _in_import(frame):
                return frame, suffixes
            name = target_of(code, frame.f_lasti).name
            if name:
                suffixes.append(name)
            frame = back
            continue
        return frame, suffixes


def _in_import(frame: FrameType) -> bool:
    """Whether a library frame runs because its own module is being imported (a lock made by a helper at import)."""
    walk: FrameType | None = frame
    while walk is not None:
        module = walk.f_globals.get("__name__")
        if not isinstance(module, str) or module.partition(".")[0] not in _STDLIB:
            return False
        if walk.f_code.co_name == "<module>":
            return True
        walk = walk.f_back
    return False


def _first_argument(frame: FrameType) -> Any:
    code = frame.f_code
    if not code.co_argcount:
        return None
    name = code.co_varnames[0]
    scope = code.co_qualname.rpartition(".")[0]
    # any first argument may be the instance by another name, but a plain function's isn't
    plain = not scope or scope.endswith("<locals>")
    if plain and name not in ("self", "cls") and not code.co_filename.startswith("<"):
        return None
    return local(frame, name)


def _type_name(me: Any) -> str:
    kind = me if isinstance(me, type) else type(me)
    return str(kind.__qualname__)


def _strip(qualname: str) -> str:
    parts = [part for part in qualname.split(".") if part not in _TRANSPARENT]
    while parts and parts[-1] == "<locals>":
        parts.pop()
    return ".".join(parts) or "<module>"


# --- generated code -----------------------------------------------------------------


def _generated(
    kind: Kind, module: str, me: Any, target: Target, tail: str, trace: Trace
) -> tuple[LockClass, Unused | None]:
    """A lock made in a generated ``__init__`` (dataclasses, attrs): its field is found when it is first taken."""
    owner_module = import_name(str(getattr(me.__class__, "__module__", module)))
    owner = _type_name(me)
    what = f"#{target.ordinal}"
    provisional = _found(kind, owner_module, owner, what, tail, trace, unstable=True)
    try:
        reference = weakref.ref(me)
    except TypeError:
        return provisional, None  # no weak references: stays known by its place in the generated code

    first = [True]
    count_here = credits_here()

    def settle(lock: Any) -> None:
        holder = reference()
        field = _field_of(holder, lock)
        if field:
            better = _found(kind, owner_module, owner, field, tail, trace)
            try:
                first.pop()
            except IndexError:
                return  # another thread asks for it at the same time
            provisional.created -= 1
            better.created += 1
            for count in count_here:
                count(better)
            # not its node: the other thread may hold it by now
            lock.step, lock.token = better.step(WITH), better.token

    return provisional, Unused(settle)


def _field_of(holder: Any, lock: Any) -> str:
    if holder is None:
        return ""
    fields: dict[str, Any] = {}
    if hasattr(holder, "__dict__"):
        fields.update(holder.__dict__)
    for kind in type(holder).__mro__:
        for slot in getattr(kind, "__slots__", ()):
            descriptor = kind.__dict__.get(slot)
            if type(descriptor).__name__ == "member_descriptor":
                try:
                    fields[slot] = descriptor.__get__(holder)  # type: ignore[union-attr]
                except AttributeError:
                    continue
    for name, value in fields.items():
        if value is lock or any(
            getattr(value, inner, None) is lock for inner in ("_lock", "_record", "_ctxcheck_record")
        ):
            return str(name)
    return ""
