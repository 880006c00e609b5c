"""Whatever can deadlock in some schedule is reported, over random programs of every kind."""

from __future__ import annotations

import random

import pytest

from tests.oracle import Program, Take, deadlocks, deadlocks_of_sections, missed, play, reported, show
from tests.programs import KINDS, program

#: Programs of each kind that deadlock; those that don't come along.
NUMBER = 6


def check(some: Program, owners: str, *, at_once: int = 3) -> bool:
    circles = deadlocks(some) if owners == "observed" else deadlocks_of_sections(some, at_once=at_once)
    report = reported(play(some, owners=owners))
    assert missed(circles, report) == [], f"{show(some)}\n{circles}\nreported: {report}"
    return bool(circles)


@pytest.mark.parametrize("kind", KINDS)
def test_every_deadlock_of_the_owners_that_were_seen(kind: str) -> None:
    rng = random.Random(kind)
    found = 0
    while found < NUMBER:
        found += check(program(rng, kind), "observed")


@pytest.mark.parametrize("kind", KINDS)
def test_every_deadlock_where_any_section_may_run_in_any_number_of_owners(kind: str) -> None:
    rng = random.Random(kind)
    found = 0
    while found < NUMBER // 2:
        found += check(program(rng, kind, owners=3, operations=9), "assumed")


X0, X1, B = ("X", 0), ("X", 1), ("B", 0)


def test_readers_of_two_instances_are_joined_by_who_waits_for_the_one_while_he_holds_the_other() -> None:
    reads_1, waits_for_0 = (Take(X1, (Take(B),), shared=True),), (Take(B, (Take(X0, shared=True),)),)
    joined: Program = ((Take(X0, (Take(X1),)),), reads_1, waits_for_0)
    assert check(joined, "observed")
    # the second one is let in beside the reader, so nobody waits for anybody
    apart: Program = ((Take(X0, (Take(X1, shared=True),)),), reads_1, waits_for_0)
    assert not check(apart, "observed")
    assert not reported(play(apart, owners="observed")).possible


def test_readers_hold_each_other_up_only_through_a_writer() -> None:
    for name, deadlocks_then in (("P", True), ("X", False)):
        lock, a, b = (name, 0), ("A", 0), ("B", 0)
        readers: Program = (
            (Take(a, (Take(lock, shared=True),)),),
            (Take(lock, (Take(a),), shared=True),),
        )
        assert deadlocks(readers) == set()
        assert bool(deadlocks((*readers, (Take(lock),)))) == deadlocks_then
        assert bool(deadlocks((*readers, (Take(b, (Take(lock),)),)))) == deadlocks_then
        assert bool(reported(play((*readers, (Take(lock),)), owners="observed")).possible) == deadlocks_then
