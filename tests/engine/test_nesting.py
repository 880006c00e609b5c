"""Instances of one class: found, remembered while they are there, and forgotten with their locks."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

import ctxcheck
from ctxcheck.engine import nesting
from ctxcheck.session import Session


def orders(session: Session) -> int:
    """How many orders between instances are remembered."""
    return sum(len(o.graph.evidence) for o in session.engine.ledger.nesting._orders.values())


def pair(name: str) -> tuple[Any, Any]:
    return ctxcheck.Lock(name=name), ctxcheck.Lock(name=name)


def test_instances_that_are_gone_take_their_orders_with_them_and_the_class_stays() -> None:
    with ctxcheck.checking() as session:
        for _ in range(20 * nesting._MANY):
            a, b = pair("gone")
            with a, b:
                pass
        assert orders(session) <= 2 * nesting._MANY
        a_gone, b_gone = weakref.ref(a), weakref.ref(b)
        del a, b
        assert a_gone() is None
        assert b_gone() is None
        assert [(v.rule, v.grade) for v in session.violations] == [("CTX003", "unlikely")]
    assert session.counts().dropped == 0


def test_both_orders_of_instances_that_are_gone_are_still_told_of() -> None:
    with ctxcheck.checking() as session:
        a, b = pair("told")
        with a, b:
            pass
        with b, a:
            pass
        del a, b
        for _ in range(3 * nesting._MANY):
            a, b = pair("told")
            with a, b:
                pass
    assert [(v.rule, v.grade) for v in session.violations] == [("CTX003", "possible")]


def test_what_there_is_no_room_for_is_counted_until_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nesting, "MAX_INSTANCE_ORDERS", 50)
    monkeypatch.setattr(nesting, "_MANY", 8)
    monkeypatch.setattr(nesting, "LOOK_AGAIN", 10)
    with ctxcheck.checking() as session:
        locks = [ctxcheck.Lock(name="full") for _ in range(80)]
        for a, b in zip(locks, locks[1:], strict=False):
            with a, b:
                pass
        assert orders(session) == 50
        assert session.counts().dropped == 29
        del locks, a, b
        for _ in range(20):
            a, b = pair("full")
            with a, b:
                pass
        assert orders(session) <= 20
        with b, a:
            pass
    assert [(v.rule, v.grade) for v in session.violations] == [("CTX003", "possible")]


def test_a_lock_that_was_taken_before_its_class_was_known_to_nest_is_found() -> None:
    a, b = pair("found")
    with ctxcheck.checking() as session:
        with a:
            pass
        with b:  # known as a chain, which was made for the other lock
            with a:
                pass
        with a, b:
            pass
    assert [(v.rule, v.grade) for v in session.violations] == [("CTX003", "possible")]


def test_many_classes_that_nest_cost_one_look_each(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []

    def get_referrers(*what: object) -> list[Any]:
        looked.extend(what)
        return gc.get_referrers(*what)

    monkeypatch.setattr(nesting.gc, "get_referrers", get_referrers)  # type: ignore[attr-defined]
    with ctxcheck.checking() as session:
        for i in range(50):
            a, b = pair(f"first{i}")
            for _ in range(3):
                with a, b:
                    pass
    assert len(session.violations) == 50
    assert not looked, "the node was made for the lock that is asked for"


def test_one_class_that_nests_leaves_the_others_chains_alone() -> None:
    with ctxcheck.checking() as session:
        outer = ctxcheck.Lock(name="outer")
        a, b = pair("inner")
        others = [ctxcheck.Lock(name=f"other{i}") for i in range(5)]
        for other in others:
            with outer, other, a:
                pass
        chains = session.counts().chains
        with a, b:
            pass
        for other in others:
            with outer, other:
                pass
        assert session.counts().chains == chains + 2
        for other in others:
            with outer, other, a:
                pass
        assert session.counts().chains == chains + 7, "its own are asked for each time from now on"


def test_a_try_nests_nothing_and_what_is_waited_for_under_it_does() -> None:
    a, b = pair("tried")
    c = ctxcheck.Lock(name="tried")
    with ctxcheck.checking() as session:
        for _ in range(3):
            with a:
                assert b.acquire(False)
                b.release()
        before = session.counts().chains
        with a:
            pass
        assert session.counts().chains == before, "known: the class isn't asked for each time"
        assert session.violations == []
        with a:
            assert b.acquire(False)
            with c:
                pass
            b.release()
        assert orders(session) == 2, "of the one that is held, and of the one that was tried"
        with c, b:
            pass
        assert [(v.rule, v.grade) for v in session.violations] == [("CTX003", "possible")]
