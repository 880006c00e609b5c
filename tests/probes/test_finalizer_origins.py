"""Finalizers belong to no test: what they show together with a test's locks is the union's to tell."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ctxcheck
from ctxcheck import evidence, fastpath
from ctxcheck.engine.origins import BACKGROUND
from ctxcheck.reports.compose import compose


def found(findings: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(v.rule, v.grade, v.locks) for v in map(compose, findings)]


def together(session: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    """What all origins come to; the same when it is written down and read back."""
    union = session.engine.origins.everything()
    told = found(union.findings())
    document = json.loads(json.dumps(evidence.dump(session.engine)))
    assert found(evidence.load([document]).findings()) == told
    return told


def test(session: Any, origin: str, *steps: Callable[[], object]) -> list[str]:
    """One test: what it alone comes to."""
    phase = session.engine.origins.begin(fastpath.current(), origin)
    for step in steps:
        step()
    return [v.rule for v in session.end_origin(phase)]


test.__test__ = False  # type: ignore[attr-defined]


class Own:
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def use(self) -> None:
        with self.lock:
            pass

    def __del__(self) -> None:
        self.use()


def finalizing(lock: Any) -> Callable[[], None]:
    class Dies:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            with lock:
                pass

    def run() -> None:
        Dies()
        gc.collect()

    return run


def use(lock: Any) -> Callable[[], None]:
    def run() -> None:
        with lock:
            pass

    return run


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_finalizer_in_one_test_and_a_hold_in_another(order: tuple[int, int]) -> None:
    lock = ctxcheck.Lock(name="o.A")
    steps = [use(lock), finalizing(lock)]
    with ctxcheck.checking() as session:
        for index in order:
            assert test(session, f"test {index}", steps[index]) == []
        assert session.violations_in(BACKGROUND) == []
        assert test(session, "both", *steps) == []
    assert together(session) == [("CTX004", "possible", ("o.A",))]


def test_a_lock_that_goes_with_its_object() -> None:
    def make() -> None:
        own = Own()
        own.use()

    with ctxcheck.checking() as session:
        assert test(session, "one", make) == []
        assert test(session, "two", make) == []
    assert together(session) == []


def test_a_flag_that_the_holder_sets_in_another_test() -> None:
    lock, flags = ctxcheck.Lock(name="o.Flag"), threading.local()

    class Looks:
        def __del__(self) -> None:
            if not getattr(flags, "busy", False):
                with lock:
                    pass

    def work() -> None:
        flags.busy = True
        with lock:
            pass
        flags.busy = False

    for steps in ((work, Looks), (Looks, work)):
        with ctxcheck.checking() as session:
            for index, step in enumerate(steps):
                assert test(session, f"test {index}", step) == []
        assert together(session) == [("CTX004", "unlikely", ("o.Flag",))]
    with ctxcheck.checking() as session:
        for index, step in enumerate((Looks, work, use(lock))):
            assert test(session, f"test {index}", step) == []
    assert together(session) == [("CTX004", "possible", ("o.Flag",))]


@pytest.mark.parametrize("on_again", [True, False])
@pytest.mark.parametrize("across", [True, False])
def test_the_collector_is_off(on_again: bool, across: bool) -> None:
    lock = ctxcheck.Lock(name="o.Off")
    try:
        with ctxcheck.checking() as session:
            assert test(session, "finalizer", finalizing(lock)) == []
            steps: list[Any] = [gc.disable, use(lock)]
            if on_again and not across:
                steps.append(gc.enable)
            assert test(session, "hold", *steps) == []
            if on_again and across:
                gc.enable()
    finally:
        gc.enable()
    assert together(session) == [("CTX004", "possible", ("o.Off",))] * (not on_again)
