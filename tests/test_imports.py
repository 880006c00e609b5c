"""Something is done to a module as soon as it is imported."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ctxcheck import imports


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "imported_later"
    (tmp_path / f"{name}.py").write_text("answer = 42\ndef function(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    before = list(sys.meta_path)
    yield name
    sys.modules.pop(name, None)
    assert sys.meta_path == before
    assert not imports._waiting


def test_right_after_the_import_and_once(module: str) -> None:
    seen: list[int] = []

    def action(loaded: Any) -> None:
        seen.append(loaded.answer)

    imports.when_imported(module, action)
    assert seen == []
    importlib.import_module(module)
    assert seen == [42]
    importlib.reload(sys.modules[module])
    assert seen == [42]
    imports.forget(action)


def test_at_once_if_it_is_there(module: str) -> None:
    importlib.import_module(module)
    seen: list[int] = []
    imports.when_imported(module, lambda loaded: seen.append(loaded.answer))
    assert seen == [42]


def test_the_module_looks_as_ever(module: str) -> None:
    plain = importlib.import_module(module)
    expected = type(plain.__loader__), type(plain.__spec__.loader), inspect.getsource(plain.function)  # type: ignore[union-attr]
    del sys.modules[module]
    action = print
    imports.when_imported(module, lambda loaded: None)
    imports.when_imported("never imported", action)
    watched = importlib.import_module(module)
    assert (type(watched.__loader__), type(watched.__spec__.loader), inspect.getsource(watched.function)) == expected  # type: ignore[union-attr]
    imports.forget(action)


def test_a_module_that_fails_is_waited_for_again(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('not now')\n")
    seen: list[Any] = []
    imports.when_imported(module, seen.append)
    with pytest.raises(RuntimeError, match="not now"):
        importlib.import_module(module)
    (tmp_path / f"{module}.py").write_text("answer = 1  # now it works\n")
    importlib.invalidate_caches()
    loaded = importlib.import_module(module)
    assert seen == [loaded]
    imports.forget(seen.append)


def test_a_module_that_does_not_exist_is_missed_as_ever() -> None:
    action = print
    imports.when_imported("no_such_module_at_all", action)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        importlib.import_module("no_such_module_at_all")
    imports.forget(action)
    assert not any(isinstance(finder, imports._Finder) for finder in sys.meta_path)
