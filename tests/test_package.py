"""The package from outside: what importing it loads, what it exports, that both say the same."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import ctxcheck

HEAVY = {"structlog", "wrapt", "asyncio", "logging", "typing_extensions", "pytest"}


def _modules_after(code: str, **env: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import ctxcheck",
        "import ctxcheck; [getattr(ctxcheck, name) for name in ctxcheck.__all__]",
        "import ctxcheck\nwith ctxcheck.checking():\n with ctxcheck.Lock(): pass",
    ],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert not _modules_after(code) & HEAVY


def test_importing_it_loads_nothing_else_of_it() -> None:
    assert {name for name in _modules_after("import ctxcheck") if name.startswith("ctxcheck.")} == set()


def test_exports_exist_and_are_what_type_checkers_see() -> None:
    tree = ast.parse(Path(ctxcheck.__file__).read_text())
    typed = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
        if alias.asname
    }
    assert typed == set(ctxcheck.__all__)
    assert ctxcheck.__all__ == sorted(ctxcheck.__all__)
    for name in ctxcheck.__all__:
        assert getattr(ctxcheck, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Lok'"):
        ctxcheck.Lok  # noqa: B018


def test_errors_pickle_with_their_violation() -> None:
    violation = ctxcheck.Violation("CTX001", "lock-order-inversion", "possible", "two orders")
    for kind in (ctxcheck.ViolationError, ctxcheck.DeadlockError):
        error = pickle.loads(pickle.dumps(kind(violation)))
        assert type(error) is kind
        assert error.violation == violation
        assert str(error) == "CTX001 two orders"
        assert isinstance(error, AssertionError)
        assert isinstance(error, ctxcheck.CtxcheckError)
        assert kind.__module__ == "ctxcheck"
