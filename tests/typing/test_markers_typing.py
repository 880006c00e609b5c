"""What type checkers see of marked functions: what they saw without the marker.  Checked, never run."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar, assert_type, overload

from ctxcheck.markers import (
    allow,
    ambient,
    assert_context,
    assert_held,
    assert_no_context,
    assert_not_held,
    atomic,
    context,
    context_end,
    context_start,
    forbids,
    might_lock,
    might_sleep,
    nonblocking,
    range_,
    range_end,
    range_start,
    requires,
    requires_lock,
    thread_role,
    within_range,
)

T = TypeVar("T")


def first(a: int, b: int) -> int:
    return a


def both(a: int, b: int) -> tuple[int, int]:
    return a, b


@might_sleep
def bare(a: int, b: str = "", *, c: bool = False) -> list[int]:
    return [a]


@might_sleep("why")
@atomic("why")
@nonblocking
@allow("CTX101", reason="r")
@range_start("r", key="a", span=("a", "b"), why="w")
@range_end("s", key=first, span=both, owner="any", sleeps=False)
@within_range("t", at="a", owner="any", sleepable=False)
@requires_lock("a", threading.Lock(), first, mode="exclusive")
@might_lock("a.b", mode="shared")
@context("txn", forbids=("sleep", "network"))
@context_start("txn", key="a", forbids=["file"], nested=True, why="w")
@context_end("txn", key=first, why="w")
@requires("txn", "other", any=True, why="w")
@forbids("txn", why="w")
@thread_role("ui")
def many(a: int, b: int) -> str:
    return ""


@might_sleep()
async def coroutine(a: int) -> bytes:
    return b""


@atomic
def generator(a: int) -> Iterator[int]:
    yield a


@atomic()
async def async_generator(a: int) -> AsyncIterator[int]:
    yield a


@atomic
def generic(value: T) -> T:
    return value


@overload
def overloaded(value: int) -> int: ...
@overload
def overloaded(value: str) -> str: ...
@might_sleep
def overloaded(value: int | str) -> int | str:
    return value


class Some:
    @might_sleep
    def method(self, a: int) -> str:
        return ""

    @atomic("why")
    @classmethod
    def above_class(cls, a: int) -> str:
        return ""

    @classmethod
    @range_start("r")
    def below_class(cls, a: int) -> str:
        return ""

    @might_sleep
    @staticmethod
    def above_static(a: int) -> str:
        return ""

    @staticmethod
    @requires_lock("a")
    def below_static(a: int) -> str:
        return ""

    @property
    @might_sleep
    def value(self) -> int:
        return 1


def functions() -> None:
    assert_type(bare(1, "x", c=True), list[int])
    assert_type(many(1, b=2), str)
    assert_type(generator(1), Iterator[int])
    assert_type(async_generator(1), AsyncIterator[int])
    assert_type(generic(1), int)
    assert_type(generic("x"), str)
    assert_type(overloaded(1), int)
    assert_type(overloaded("x"), str)
    kept: Callable[[int, int], str] = many
    kept(1, 2)
    waits: Callable[[int], Coroutine[Any, Any, bytes]] = coroutine
    del waits


def methods(some: Some) -> None:
    assert_type(some.method(1), str)
    assert_type(Some.above_class(1), str)
    assert_type(some.above_class(1), str)
    assert_type(Some.below_class(1), str)
    assert_type(Some.above_static(1), str)
    assert_type(some.below_static(1), str)
    assert_type(some.value, int)


def refused() -> None:
    bare("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    many(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    many(1, 2, c=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    range_start(bare)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    range_start("r", owner="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    allow("CTX101")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    might_sleep(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert_held(threading.Lock(), "x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


txn = context("txn")


@txn
@requires(txn)
async def in_context(a: int) -> str:
    return ""


@forbids(txn)
def each_in_context(a: int) -> Iterator[str]:
    yield ""


def contexts() -> None:
    waits: Callable[[int], Coroutine[Any, Any, str]] = in_context
    del waits
    assert_type(each_in_context(1), Iterator[str])
    requires("txn")
    forbids(txn)
    thread_role("ui")
    assert_type(assert_context("txn", "other", any=True), None)
    assert_type(assert_no_context(txn), None)
    txn.enter()
    txn.exit()
    entry = txn.open()
    assert_type(entry.mine, bool)
    entry.close()
    thread_role("ui").enter().exit()
    with txn, ambient("txn", txn), thread_role("ui"):
        pass
    context("a", forbids="sleep")  # refused when it runs: a string is a sequence of strings
    context(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    requires(first)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    forbids("a", any=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def blocks(lock: threading.Lock) -> int:
    might_sleep()
    might_sleep("why")
    assert_held(lock)
    assert_not_held(lock, mode="shared")
    might_lock(lock)
    assert_type(await coroutine(1), bytes)
    with atomic("why"), might_sleep(), allow("CTX101", "CTX102", reason="r"):
        pass
    async with atomic(), might_sleep("why"), range_("r", key=lock, span=(1, 2)):
        pass
    bracket = range_("r")
    bracket.start()
    bracket.end()
    with range_("r"):
        return 1
