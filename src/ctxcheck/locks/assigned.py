"""What a call's value is assigned to, as the source says: read once per place, and no more of a file than it takes."""

from __future__ import annotations

import ast
import itertools
import linecache
import re
from types import CodeType
from typing import Any, Final, NamedTuple

from ctxcheck.engine.postponed import postpones


class Target(NamedTuple):
    """What the source says of one call: ``name`` it is assigned to ("" if none), whether that is an attribute of
    ``base``, the ordinal of the call among those of its function that have no name, and whether its value is
    what the function returns."""

    name: str
    base: str
    ordinal: int
    returned: bool = False


#: What isn't known.
NOWHERE: Final = Target("", "", 0)

#: A backslash in a string, and what follows it; one that means nothing makes the parser warn.
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_MEANT: Final = frozenset("\\'\"\r\nabfnrtv01234567xNuU")

#: Line, column, end line, end column of a call.
_Position = tuple[int, int, int, int]
#: Per place: (code, lasti) -> target.  Codes are kept, so that an id isn't used again.
_places: Final[dict[tuple[int, int], Target]] = {}
_keep: Final[list[CodeType]] = []
#: Per file: what is known of the calls of some of its functions.
_files: Final[dict[str, dict[_Position, Target]]] = {}
#: Per file that had to be parsed as a whole: its calls, if it could be.
_whole: Final[dict[str, dict[_Position, Target]]] = {}


@postpones
def target_of(code: CodeType, lasti: int) -> Target:
    """What the call at a place is assigned to.

    A dictionary lookup, but for the first time: then the source of the function is parsed, and that of its file where
    that doesn't do (a module's own code, lambdas, comprehensions).
    """
    place = (id(code), lasti)
    found = _places.get(place)
    if found is None:
        _keep.append(code)
        try:
            found = _read(code, lasti)
        except Exception:  # any file may hold anything; a place without a name still has an ordinal
            found = NOWHERE
        _places[place] = found
    return found


def give_name(code: CodeType, name: str) -> None:
    """What this function makes is stored under this name: so its source isn't read for that."""
    if (id(code), 0) not in _places:
        _keep.append(code)
    for lasti in range(0, len(code.co_code), 2):
        _places[id(code), lasti] = Target(name, "", 0)


def _read(code: CodeType, lasti: int) -> Target:
    position = next(itertools.islice(code.co_positions(), lasti // 2, None), (None, None, None, None))
    line, end_line, column, end_column = position
    if line is None:
        return NOWHERE
    filename = code.co_filename
    # what passes for the source of generated code may be somebody else's of the same made-up name
    if filename.startswith("<"):
        return _from_bytecode(code, lasti)
    known = _files.setdefault(filename, {})
    whole = _whole.get(filename)
    where = None
    if end_line is not None and column is not None and end_column is not None:
        where = (line, column, end_line, end_column)
        if where not in known and not whole:
            known.update(_calls_of(code, linecache.getlines(filename)))
        if where in known:
            return known[where]
    if whole is None:
        whole = _whole[filename] = _calls_in_file(filename)
    if not whole:
        return _from_bytecode(code, lasti)
    if where is None:
        return next((t for p, t in whole.items() if p[0] == line), NOWHERE)
    return whole.get(where, NOWHERE)


def _calls_in_file(filename: str) -> dict[_Position, Target]:
    """All calls of a file; nothing if there is none, or if it isn't Python."""
    try:
        return calls_in(_parse(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return {}


def _calls_of(code: CodeType, lines: list[str]) -> dict[_Position, Target]:
    """The calls of one function or class, from its own lines: to parse a long file takes tens of milliseconds, and many
    libraries make locks where they are imported.  Empty if these lines don't stand for themselves.

    Whatever comes after the last line of which there is code has no calls, and may be cut off.
    """
    first = code.co_firstlineno
    try:
        if code.co_name == "<module>":
            return calls_in(_parse(lines), nested=False)
        if code.co_name.startswith("<"):
            return {}
        text = lines[first - 1 : _last_line(code)]
        indented = text[0][:1].isspace()
        tree = _parse(["if 1:\n", *text] if indented else text)
    except (SyntaxError, ValueError, IndexError):
        return {}
    outer: Any = tree.body[0] if indented else tree
    if len(tree.body) != 1 or len(outer.body) != 1 or getattr(outer.body[0], "name", None) != code.co_name:
        return {}
    return calls_in(outer.body[0], first - 1 - indented)


def _parse(lines: list[str]) -> ast.Module:
    """The tree of a source, without the warnings of what is in its strings: they were given when it was compiled, and
    where warnings are errors there would be no tree."""
    return ast.parse(_ESCAPE.sub(_plain, "".join(lines)))


def _plain(escape: re.Match[str]) -> str:
    return escape[0] if escape[1] in _MEANT else f".{escape[1]}"  # as long as it was: places in a line stay


def _last_line(code: CodeType) -> int:
    inner = [_last_line(const) for const in code.co_consts if isinstance(const, CodeType)]
    return max(inner + [end or line or 0 for line, end, _, _ in code.co_positions()])


def calls_in(tree: ast.AST, offset: int = 0, *, nested: bool = True) -> dict[_Position, Target]:
    """The calls below a node, by where they are.

    ``offset`` is added to all lines.  Without ``nested`` those in functions and classes are left out, as far as
    the numbers of the others don't depend on them.
    """
    calls = _Calls(offset, nested=nested)
    calls.walk(tree)
    return calls.found


def _from_bytecode(code: CodeType, lasti: int) -> Target:
    """Without source: the name that the value is stored under right after the call, else the ordinal of the call."""
    import dis

    instructions = [i for i in dis.get_instructions(code) if i.opname not in ("CACHE", "EXTENDED_ARG")]
    # 3.11 points at the end of a call's inline cache while the called function runs
    index = sum(instruction.offset <= lasti for instruction in instructions) - 1
    if index < 0 or not instructions[index].opname.startswith("CALL"):
        return NOWHERE  # a call from C code, of which this code knows nothing
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


class _Calls:
    """Collects the calls of a file that are assigned to something, and numbers those that aren't."""

    def __init__(self, offset: int, *, nested: bool) -> None:
        self.found: dict[_Position, Target] = {}
        self.returned: set[ast.expr | None] = set()
        self._offset: int = offset
        self._nested: bool = nested

    def walk(self, tree: ast.AST) -> None:
        # (node, the name in force, its base, counters of the enclosing function)
        todo: list[tuple[ast.AST, str, str, dict[str, int]]] = [(tree, "", "", {})]
        while todo:
            node, name, base, counters = todo.pop()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                counters, name, base = dict[str, int](), "", ""
                if not self._nested and not any(map(_has_call, node.decorator_list)):
                    body = set(map(id, node.body))
                    around = [child for child in ast.iter_child_nodes(node) if id(child) not in body]
                    todo.extend([(child, "", "", counters) for child in reversed(around)])
                    continue
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
        first, last = node.lineno + self._offset, (node.end_lineno or node.lineno) + self._offset
        position = (first, node.col_offset, last, node.end_col_offset or 0)
        self.found[position] = Target(name, base, 0 if name else ordinal, node in self.returned)


def _has_call(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.Call) for inner in ast.walk(node))


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
