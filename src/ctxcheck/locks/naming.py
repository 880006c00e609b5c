"""Which lock class a new lock belongs to: found from the code that makes it.

A class key must survive edits, Python versions and processes, so it holds no line, no id and
no path: it is (module, owner, target, ordinal), as ``bank:Ledger.lock``.  The owner is the class of
``self`` where the lock is assigned to an attribute of it (so that subclasses differ), else the
function that makes it; the target is what it is assigned to, read from the source once per place;
without a target, the ordinal of the call in its function tells two locks of one line apart.
"""

from __future__ import annotations

import ast
import itertools
import linecache
import os
import sys
import weakref
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

from ctxcheck import fastpath
from ctxcheck.engine.classes import REGISTRY, WITH, Kind, LockClass
from ctxcheck.engine.instances import credits_here
from ctxcheck.engine.owner import Unused
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import Trace, is_own, local
from ctxcheck.locks import replaced

#: Functions that make locks for their callers, by dotted name: the caller counts as the place.
factories: Final[set[str]] = set()
_factory_codes: Final[set[int]] = set()
_keep: Final[list[CodeType]] = []

_include: tuple[str, ...] = ()
_exclude: tuple[str, ...] = ()


#: What the globs say of each module that makes locks.
_scopes: Final[dict[str, bool]] = {}


def set_scope(include: Iterable[str], exclude: Iterable[str]) -> None:
    """Check only locks that are made in modules that match ``include`` (globs; none means all) and not ``exclude``."""
    global _include, _exclude
    _include, _exclude = tuple(include), tuple(exclude)
    _scopes.clear()


def in_scope() -> bool:
    """Whether a lock that is being made now is to be checked."""
    if not _include and not _exclude:
        return True
    module = str(_maker(_frame(1))[0].f_globals.get("__name__"))
    known = _scopes.get(module)
    if known is None:
        known = _scopes[module] = _selects(module)
    return known


def _selects(module: str) -> bool:
    import fnmatch

    if any(fnmatch.fnmatchcase(module, glob) for glob in _exclude):
        return False
    return not _include or any(fnmatch.fnmatchcase(module, glob) for glob in _include)


def misses() -> str:
    """A line on ``include``, if it keeps all locks that were made from being checked; else empty."""
    made = sorted(_scopes)
    if not _include or not made or any(_scopes.values()):
        return ""
    import difflib

    plain = [glob.rstrip("*").rstrip(".") for glob in _include]
    near = [name for glob in plain for name in difflib.get_close_matches(glob, made, 1)]
    there = f"; did you mean {near[0]!r}?" if near else f"; they were made in: {', '.join(made[:_MAX_LISTED])}"
    return f"no lock was made in a module that include names ({', '.join(map(repr, _include))}){there}"


#: Modules that a message lists.
_MAX_LISTED: Final = 6

_STDLIB: Final = sys.stdlib_module_names
#: Scopes that the compiler makes a function of on some versions and not on others (PEP 709).
_INLINED: Final = ("<listcomp>", "<dictcomp>", "<setcomp>")
_TRANSPARENT: Final = (*_INLINED, "<genexpr>")


class Target(NamedTuple):
    """What the source says of one call: ``name`` it is assigned to ("" if none), whether that is an attribute of
    ``base``, the ordinal of the call among those of its function that have no name, and whether its value is
    what the function returns."""

    name: str
    base: str
    ordinal: int
    returned: bool = False


_NOWHERE: Final = Target("", "", 0)

#: Per file: the target of each call, by (line, column, end line, end column).
_targets: Final[dict[str, dict[tuple[int, int, int, int], Target]]] = {}
#: Per place and kind, where the code itself makes the lock: the class, by the type of ``self`` where that counts.
_known: Final[dict[tuple[int, int, str], dict[type | None, LockClass]]] = {}
#: Per place: (code, lasti) -> target.  Codes are kept, so that an id isn't used again.
_places: Final[dict[tuple[int, int], Target]] = {}


def classify(kind: Kind, name: str | None, *, depth: int = 2) -> tuple[LockClass, Unused | None]:
    """Return the class of a lock that is being made ``depth`` frames up, and, if its name isn't known until it is
    used, what settles that.

    ``name`` given explicitly is the key, and the display name.  Costs a few microseconds, and the parse of a source
    file the first time that a lock is made in it.
    """
    start = _frame(depth + 1)
    if fastpath.active:
        _check_replaced(start)
    place = (id(start.f_code), start.f_lasti, kind.name)
    if name is None:
        known = _known.get(place)
        if known is not None:
            found = known.get(_owner_type(start) if None not in known else None)
            if found is not None:
                return found, None
    frame, suffixes = _maker(start)
    trace = Trace((frame.f_code,), (frame.f_lasti,))
    if name is not None:
        return REGISTRY.get(name, name, kind, trace), None
    code = frame.f_code
    target = _target(code, frame.f_lasti)
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
    made = _found(kind, module, owner, what, tail, trace, unstable=target is _NOWHERE)
    made.library = (bool(suffixes) or module.partition(".")[0] in _STDLIB) and (made.library or not made.created)
    if frame is start is scope:
        _known.setdefault(place, {})[_owner_type(frame) if by_type else None] = made
    return made, None


def _check_replaced(frame: FrameType) -> None:
    me = _first_argument(frame)
    if me is None or isinstance(me, type):
        return
    target = _target(frame.f_code, frame.f_lasti)
    if target.name and target.base == frame.f_code.co_varnames[0]:
        replaced.check(frame, me, target.name)


def _frame(depth: int) -> FrameType:
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
    if display.startswith(("#", "<")) or (owner == "<module>" and module != import_name(_MAIN[0])):
        display = f"{module}.{display}"
    return REGISTRY.get(key, display, kind, trace, unstable=unstable)


#: What a program's own module is called while it runs, and in children that :mod:`multiprocessing` spawns.
_MAIN: Final = ("__main__", "__mp_main__")
#: Names of modules that are run, by how they are run: what their spec says, and their file.
_run_as: Final[dict[tuple[object, object], str]] = {}


def module_of(namespace: Any) -> str:
    """The name of the module with these globals.

    That of a program is the one that it would have if it were imported (``app`` for ``python app.py``, ``pkg.app`` for
    ``python -m pkg.app`` and ``python pkg/app.py``), so that a lock has one key however its module comes in.
    """
    name = namespace.get("__name__")
    if not isinstance(name, str):
        return "?"
    if name not in _MAIN:
        return name
    spec = getattr(namespace.get("__spec__"), "name", None)
    file = namespace.get("__file__")
    if type(file) is not str:
        file = None
    known = _run_as.get((spec, file))
    if known is None:
        known = _run_as[spec, file] = _import_name(spec, file)
    return known


def _import_name(spec: object, file: str | None) -> str:
    if isinstance(spec, str) and spec not in _MAIN:
        return spec
    if file is None or file.startswith("<"):
        return _MAIN[0]
    folder, base = os.path.split(os.path.abspath(file))
    name = base.rpartition(".")[0] or base
    while name.isprintable() and os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        name = f"{package}.{name}"
    return name


def import_name(module: str) -> str:
    """The name of a module that goes by this one, which may be the program's own: see :func:`module_of`."""
    main = sys.modules.get(module) if module in _MAIN else None
    return module_of(vars(main)) if main is not None else module


def _maker(frame: FrameType) -> tuple[FrameType, list[str]]:
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
        returned = _target(code, frame.f_lasti).returned and not is_own(back.f_code)
        if returned and _target(back.f_code, back.f_lasti).name:
            # `return Lock()`: made for the caller, who gives it a name
            frame = back
            continue
        if module.partition(".")[0] in _STDLIB and module != "__main__" and code.co_name != "<module>":
            if _in_import(frame):
                return frame, suffixes
            name = _target(code, frame.f_lasti).name
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


# --- what the source says -------------------------------------------------------------


def _target(code: CodeType, lasti: int) -> Target:
    place = (id(code), lasti)
    found = _places.get(place)
    if found is None:
        _keep.append(code)
        try:
            found = _read_target(code, lasti)
        except Exception:  # any file may hold anything; a place without a name still has an ordinal
            found = _NOWHERE
        _places[place] = found
    return found


def give_name(code: CodeType, name: str) -> None:
    """What this function makes is stored under this name: so its source isn't read for that."""
    if (id(code), 0) not in _places:
        _keep.append(code)
    for lasti in range(0, len(code.co_code), 2):
        _places[id(code), lasti] = Target(name, "", 0)


def _read_target(code: CodeType, lasti: int) -> Target:
    position = next(itertools.islice(code.co_positions(), lasti // 2, None), (None, None, None, None))
    line, end_line, column, end_column = position
    if line is None:
        return _NOWHERE
    # what passes for the source of generated code may be somebody else's of the same made-up name
    if code.co_filename.startswith("<"):
        return _from_bytecode(code, lasti)
    targets = _targets.get(code.co_filename)
    if targets is None:
        targets = _targets[code.co_filename] = _parse(code.co_filename)
    if not targets:
        return _from_bytecode(code, lasti)
    if end_line is None or column is None or end_column is None:
        return next((t for p, t in targets.items() if p[0] == line), _NOWHERE)
    return targets.get((line, column, end_line, end_column), _NOWHERE)


def _from_bytecode(code: CodeType, lasti: int) -> Target:
    """Without source: the name that the value is stored under right after the call, else the ordinal of the call."""
    import dis

    instructions = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "EXTENDED_ARG")]
    # 3.11 points at the end of a call's inline cache while the called function runs
    index = sum(instruction.offset <= lasti for instruction in instructions) - 1
    if index < 0 or not instructions[index].opname.startswith("CALL"):
        return _NOWHERE  # a call from C code, of which this code knows nothing
    ordinal = sum(instruction.opname.startswith("CALL") for instruction in instructions[: index + 1])
    base, resume = "", 0
    for instruction in instructions[index + 1 :]:
        name, value = instruction.opname, instruction.argval
        if instruction.offset < resume:
            continue
        if name == "JUMP_FORWARD":
            resume = value  # the end of `x if y else z`
        elif name.startswith("LOAD_FAST") and isinstance(value, str):
            base = value
        elif name.startswith("STORE_"):
            # 3.13 joins a store to the load behind it, and names both
            stored = str(value if isinstance(value, str) else value[0])
            return Target(stored, base if name == "STORE_ATTR" else "", 0)
        else:
            break
    return Target("", "", ordinal)


def _parse(filename: str) -> dict[tuple[int, int, int, int], Target]:
    lines = linecache.getlines(filename)
    found: dict[tuple[int, int, int, int], Target] = {}
    if lines:
        _Calls(found).walk(ast.parse("".join(lines)))
    return found


class _Calls:
    """Collects the calls of a file that are assigned to something, and numbers those that aren't."""

    def __init__(self, found: dict[tuple[int, int, int, int], Target]) -> None:
        self.found: dict[tuple[int, int, int, int], Target] = found
        self.returned: set[ast.expr | None] = set()

    def walk(self, tree: ast.AST) -> None:
        # (node, the name in force, its base, counters of the enclosing function)
        todo: list[tuple[ast.AST, str, str, dict[str, int]]] = [(tree, "", "", {})]
        while todo:
            node, name, base, counters = todo.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                counters, name, base = {}, "", ""
            elif isinstance(node, ast.Lambda):
                # all lambdas of a function have one name, so they share its counters
                name, base = "", ""
                self.returned.add(node.body)
            elif isinstance(node, ast.Assign):
                pairs = _parallel(node.targets[0], node.value)
                if pairs:
                    todo.extend((value, *_name(target), counters) for target, value in reversed(pairs))
                    continue
                name, base = _name(node.targets[0])
            elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
                name, base = _name(node.target)
            elif isinstance(node, ast.withitem):
                name, base = _name(node.optional_vars) if node.optional_vars is not None else ("", "")
            elif isinstance(node, ast.Return):
                name, base = "", ""
                self.returned.add(node.value)
            elif isinstance(node, ast.stmt):
                name, base = "", ""
            elif isinstance(node, ast.Call):
                self._call(node, name, base, counters)
            children = list(ast.iter_child_nodes(node))
            # a stack takes the last first: reversed, so that calls are numbered in source order
            todo.extend((child, name, base, counters) for child in reversed(children))

    def _call(self, node: ast.Call, name: str, base: str, counters: dict[str, int]) -> None:
        ordinal = 0
        # Lock() and threading.Lock() count as one: the name that they give doesn't say which it was
        function = getattr(node.func, "attr", None) or getattr(node.func, "id", "?")
        # several calls may share one name: locks = [Lock(), Lock()] are told apart, Lock() if x else Lock() too
        label = f"{name}={function}"
        counters[label] = counters.get(label, 0) + 1
        ordinal = counters[label]
        if name and ordinal > 1:
            name = f"{name}#{ordinal}"
        position = (node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0)
        self.found[position] = Target(name, base, 0 if name else ordinal, node in self.returned)


def _parallel(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    """The pairs of ``a, b = x, y``; none if the two sides don't correspond one to one."""
    if not isinstance(target, (ast.Tuple, ast.List)) or not isinstance(value, (ast.Tuple, ast.List)):
        return []
    both = [*target.elts, *value.elts]
    if len(target.elts) != len(value.elts) or any(isinstance(part, ast.Starred) for part in both):
        return []
    return list(zip(target.elts, value.elts, strict=True))


def _name(target: ast.expr) -> tuple[str, str]:
    """The name assigned to and, for an attribute of a plain name, that name."""
    if isinstance(target, ast.Name):
        return target.id, ""
    if isinstance(target, ast.Attribute):
        base = target.value.id if isinstance(target.value, ast.Name) else ""
        return target.attr, base
    if isinstance(target, (ast.Subscript, ast.Starred)):
        return _name(target.value)
    return "", ""
