"""Which places are told of, when there are many: not those that happened to come first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck.engine.slow import MAX_PLACES
from ctxcheck.session import checking

PLACES = MAX_PLACES + 8


def places(lock: Any) -> tuple[list[Callable[[], None]], list[Callable[[], Any]]]:
    """Functions that hold the lock over a sleep, and coroutines that take it: each with a name of its own."""
    source = "\n".join(
        f"def slow_{i}():\n    with lock:\n        ctxcheck.might_sleep()\nasync def quick_{i}():\n    with lock: pass"
        for i in range(PLACES)
    )
    names: dict[str, Any] = {"lock": lock, "ctxcheck": ctxcheck}
    exec(source, names)
    return [names[f"slow_{i}"] for i in range(PLACES)], [names[f"quick_{i}"] for i in range(PLACES)]


@pytest.mark.parametrize("seed", range(6))
def test_the_order_in_which_places_are_seen_changes_nothing(seed: int) -> None:
    slow, quick = places(ctxcheck.Lock(name="many"))
    shuffled = random.Random(seed)
    shuffled.shuffle(slow)
    shuffled.shuffle(quick)

    async def main() -> None:
        for coroutine in quick:
            await asyncio.create_task(coroutine())

    parts: list[Callable[[], Any]] = [lambda: asyncio.run(main()), lambda: [function() for function in slow]]
    shuffled.shuffle(parts)
    with checking() as session:
        for part in parts:
            part()
    (violation,) = session.violations
    functions = {site.role: site.function for site in violation.sites}
    assert (functions["now"], functions["then"]) == ("slow_0", "quick_0")


def test_what_is_known_of_one_place_is_no_more_after_a_thousand_calls() -> None:
    lock = ctxcheck.Lock(name="once")
    told: list[object] = []

    async def main() -> None:
        with lock:
            pass

    with checking(mode=told.append) as session:
        asyncio.run(main())
        for _ in range(1000):
            with lock:
                ctxcheck.might_sleep()
    assert len(told) == 1
    assert [v.count for v in session.violations] == [1]
