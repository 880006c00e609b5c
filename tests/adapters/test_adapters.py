"""Adapters are put in place by name, and taken out again."""

from __future__ import annotations

import importlib.metadata
import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from ctxcheck import adapters
from ctxcheck.engine.errors import ConfigError

ORIGINAL = sqlite3.connect


class Recorder:
    """An adapter of a package."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def install(self) -> None:
        self.calls.append("install")

    def uninstall(self) -> None:
        self.calls.append("uninstall")


class Breaks(Recorder):
    def install(self) -> None:
        raise OSError


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What packages ship, by entry-point name."""
    found: dict[str, Any] = {}

    def entry_points(*, group: str) -> list[Any]:
        assert group == "ctxcheck.adapters"
        return [SimpleNamespace(name=n, value=f"pkg:{n}", load=lambda a=a: a) for n, a in found.items()]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return found


def test_a_package_ships_one(shipped: dict[str, Any]) -> None:
    adapter = shipped["orm"] = Recorder()
    assert adapters.available() == ["orm", "sqlite3"]
    adapters.install(["orm", "sqlite3"])
    adapters.install(["orm"])
    assert sqlite3.connect is not ORIGINAL
    adapters.uninstall()
    adapters.uninstall()
    assert sqlite3.connect is ORIGINAL
    assert adapter.calls == ["install", "uninstall"]


def test_one_that_is_unknown() -> None:
    message = r"^there is no adapter 'sqlite'; there are: .*sqlite3; did you mean 'sqlite3'\?$"
    with pytest.raises(ConfigError, match=message):
        adapters.install(["sqlite3", "sqlite"])
    assert sqlite3.connect is ORIGINAL


def test_one_that_is_none(shipped: dict[str, Any]) -> None:
    shipped["half"] = SimpleNamespace(install=lambda: None)
    with pytest.raises(ConfigError, match=r"^the adapter 'half' \(pkg:half\) has no uninstall\(\)$"):
        adapters.install(["half"])


def test_one_that_breaks(shipped: dict[str, Any]) -> None:
    shipped["breaks"], first = Breaks(), Recorder()
    shipped["first"] = first
    with pytest.raises(OSError):
        adapters.install(["first", "sqlite3", "breaks"])
    assert first.calls == ["install", "uninstall"]
    assert sqlite3.connect is ORIGINAL
