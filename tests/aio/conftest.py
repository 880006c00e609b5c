"""What the tests of asyncio share."""

from __future__ import annotations

import pytest

from ctxcheck.engine.classes import REGISTRY


@pytest.fixture(autouse=True)
def names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name stands for one kind of lock in a process: these tests' names mustn't be taken in those of others."""
    monkeypatch.setattr(REGISTRY, "_classes", {})
