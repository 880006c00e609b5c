"""How many instances of a class can have met in one origin."""

from __future__ import annotations

from ctxcheck.engine.classes import LOCK, LockClass
from ctxcheck.engine.instances import Instances

A, B = LockClass("a", "a", LOCK), LockClass("b", "b", LOCK)


def test_each_origin_has_its_own() -> None:
    known = Instances()
    for origin in ("one", "one", "other"):
        known.add(origin, A)
    assert [known.of(origin, A) for origin in ("one", "other", "third")] == [2, 1, 0]
    assert known.of("one", B) == 0
    known.forget("one")
    assert known.of("one", A) == 0


def test_only_what_was_there_when_it_was_lent_is_lent() -> None:
    known = Instances()
    known.add("fixture", A)
    known.lend("fixture")
    known.add("fixture", A)
    assert (known.lent("fixture", A), known.of("fixture", A)) == (1, 2)


def test_of_several_times_the_one_with_the_most_counts() -> None:
    known = Instances()
    for number in (2, 1):
        known.anew("fixture")
        for _ in range(number):
            known.add("fixture", A)
        known.lend("fixture")
    assert (known.lent("fixture", A), known.of("fixture", A)) == (1, 2)


def test_what_outlives_its_origin_takes_its_instances_along() -> None:
    known = Instances()
    known.add("test", A)
    known.add_all("later", "test")
    known.forget("test")
    known.add("later", A)
    known.add("later", B)
    assert (known.of("later", A), known.of("later", B)) == (2, 1)
    assert set(known.classes("later")) == {A, B}
