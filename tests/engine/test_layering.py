"""Imports run one way, from the bottom to the top, also those inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ctxcheck

PACKAGE = Path(ctxcheck.__file__).resolve().parent

#: What each room may import of the others (its own modules always).  What only types need isn't an import.
ROOMS: dict[str, set[str]] = {
    "engine": set(),
    "fastpath": {"engine"},
    "imports": set(),
    "debuggers": set(),
    "steps": {"engine", "fastpath"},
    "loops": {"engine", "fastpath", "steps"},
    "timeouts": {"fastpath"},
    "tasks": {"engine", "fastpath", "imports", "loops", "steps", "timeouts"},
    "locks": {"engine", "fastpath", "imports", "tasks"},
    "aio": {"locks"},
    "markers": {"engine", "fastpath", "locks"},
    "reports": {"engine"},
    "probes": {"engine", "fastpath", "imports", "locks"},
    "selection": {"engine"},
    "unittests": {"engine", "imports", "probes", "steps"},
    "adapters": {"engine", "fastpath", "imports", "markers", "probes"},
    "notices": {"engine"},
    # what sessions learned, between processes
    "evidence": {"engine"},
    "recorder": {"engine", "evidence"},
    "acceptance": {"engine", "reports", "selection"},
    "wording": {"acceptance", "engine", "notices", "reports", "selection"},
    "books": {"engine", "wording"},
    "session": {
        "books", "debuggers", "recorder", "wording", "engine", "fastpath", "notices", "reports", "selection", "steps",
        "tasks",
    },
    # names of rules, grades, errors: what a user types or reads
    "keys": {"engine.rules", "engine.blocking", "probes.catalogue"},
    "dumps": {"engine", "fastpath", "notices", "reports", "session"},
    "config": {"keys", "engine.rules", "engine.errors", "engine.declared", "engine.blocking", "probes.catalogue"},
    "targets": {"config", "keys", "imports", "markers", "probes"},
    "selftest": {"engine", "probes", "session"},
    "listing": {"keys", "probes", "selftest"},
    "datafile": {"engine.postponed", "engine.rules", "engine.errors", "engine.violations"},
    "records": {"datafile", "engine.errors"},
    "datadir": {"records"},
    "witnesses": {"engine", "evidence"},
    "intake": {"engine", "evidence", "witnesses"},
    "gathered": {"datafile", "reports", "witnesses", "engine"},
    "store": {"gathered", "intake", "records", "reports", "engine"},
    "merged": {"acceptance", "engine", "evidence", "recorder", "reports", "store", "unchanged", "witnesses"},
    "unchanged": set(),
    "commands": {
        "acceptance", "baseline", "config", "outputs", "datadir", "records", "keys", "merged", "probes", "reports",
        "selection", "store", "engine",
    },
    "baseline": {"reports", "engine.errors", "engine.violations"},
    "children": {
        "adapters", "config", "datadir", "datafile", "engine", "locks", "merged", "probes", "records", "reports",
        "runner", "selection", "session", "store", "targets", "unittests",
    },
    "outputs": {"keys", "reports", "engine.errors"},
    "forked": {"engine", "records", "reports"},
    "scripts": set(),
    "runner": {"scripts", "engine.errors", "engine.raw"},
    "greenlets": set(),
    "running": {
        "adapters", "baseline", "children", "config", "keys", "datafile", "dumps", "forked", "runner", "greenlets",
        "markers", "outputs", "selection", "session", "locks", "probes", "reports", "engine", "fastpath", "targets",
        "unittests",
    },
    "cli": {"commands", "config", "engine.errors", "listing", "reports", "runner", "running"},
    "pytest_plugin": {
        "baseline", "config", "keys", "datafile", "evidence", "selection", "session", "locks", "probes", "reports",
        "engine", "fastpath", "greenlets", "imports", "outputs", "adapters", "targets",
    },
    "__main__": {"cli"},
}
#: Packages that may be imported from outside the standard library, and by whom.
THIRD_PARTY = {"greenlets": {"wrapt"}, "pytest_plugin": {"pytest", "_pytest"}}
#: Too dear on the way to the program, so never at the top of a module.
HEAVY = {"structlog", "wrapt", "asyncio", "logging", "typing_extensions", "inspect"}


def modules() -> list[str]:
    return sorted(".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in PACKAGE.rglob("*.py"))


def imports(module: str, *, lazy: bool = True) -> set[str]:
    """What a module imports, by absolute dotted name; without ``lazy``, only what it does when it is imported."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    found: set[str] = set()
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        if not lazy and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo.extend(node.args.defaults)
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` is an import of the module, `from module import name` isn't one of a name
            found.update(name if _is_module(name) else node.module for name in names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                found.add(argument.value)
        todo.extend(ast.iter_child_nodes(node))
    return found


def _is_module(name: str) -> bool:
    if not name.startswith("ctxcheck."):
        return False
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.with_suffix(".py").exists() or path.is_dir()


def room(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("module", [m for m in modules() if m != "__init__"])
def test_a_module_imports_only_what_is_below_its_room(module: str) -> None:
    allowed = ROOMS[room(module)]
    for name in imports(module):
        package, _, inside = name.partition(".")
        if package != "ctxcheck":
            ours = THIRD_PARTY.get(room(module), set())
            assert package in sys.stdlib_module_names or package in ours, f"{module} imports {name}"
            continue
        if not inside:
            assert module in ("cli", "commands.debug"), f"{module} imports the package itself"  # for its version
            continue
        below = room(inside) == room(module) or any(inside == a or inside.startswith(f"{a}.") for a in allowed)
        assert below, f"{module} imports {name}"


def test_every_room_is_known_and_there_is_no_circle_of_rooms() -> None:
    assert {room(m) for m in modules()} - {"__init__"} == set(ROOMS)
    order: list[str] = []
    left = {name: {room(a) for a in allowed} for name, allowed in ROOMS.items()}
    while left:
        free = [name for name, needs in left.items() if not needs & set(left)]
        assert free, f"a circle among {sorted(left)}"
        order += free
        left = {name: needs for name, needs in left.items() if name not in free}
    assert order[0] in ("engine", "imports", "debuggers", "scripts", "greenlets")


def test_modules_of_one_room_dont_import_each_other_in_a_circle() -> None:
    needs = {m: {i.partition(".")[2] for i in imports(m, lazy=False) if i.startswith("ctxcheck.")} for m in modules()}
    left = dict(needs)
    while left:
        # a package is there before its modules
        free = [m for m, deps in left.items() if not (deps - {m}) & (set(left) | {f"{k}.__init__" for k in left} - {m})]
        assert free, f"a circle among {sorted(left)}"
        left = {m: d for m, d in left.items() if m not in free}


#: Imported by those only who have asyncio.
ASYNCIO = ("locks.aiolocks", "locks.aionested", "locks.aioqueues", "locks.aiorecords")


@pytest.mark.parametrize("module", [m for m in modules() if room(m) not in ("greenlets",) and m not in ASYNCIO])
def test_nothing_heavy_at_the_top_of_a_module(module: str) -> None:
    assert not {name.split(".")[0] for name in imports(module, lazy=False)} & HEAVY


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import ctxcheck", {"threading", "ctxcheck.engine", *HEAVY}),
        # `dataclasses` brings `inspect`
        ("import ctxcheck; ctxcheck.Lock; ctxcheck.checking; ctxcheck.might_sleep", HEAVY - {"inspect"}),
    ],
)
def test_what_an_import_brings_with_it(code: str, absent: set[str]) -> None:
    # -S: what an environment's own start-up files import isn't ours
    output = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {code}; "
         "print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert not set(output.split()) & absent
