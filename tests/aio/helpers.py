"""What the tests of asyncio share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ctxcheck.session import Session


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def edges(session: Session) -> set[tuple[str, str]]:
    return {(e["from"], e["to"]) for e in session.graph()["edges"]}


async def task(coro: Coroutine[Any, Any, Any], name: str = "T") -> Any:
    """Run in a task of its own, to the end."""
    return await asyncio.create_task(coro, name=name)


async def turns(n: int = 3) -> None:
    """Let the others run."""
    for _ in range(n):
        await asyncio.sleep(0)


def clean(session: Session) -> None:
    """Nothing is left of any task, and the validator is well."""
    assert not session.engine.broken
    assert not session.engine.roster.tasks
