from __future__ import annotations

from pathlib import Path

from ctxcheck.engine.findings import FaultFacts, Finding
from ctxcheck.engine.sites import EMPTY
from ctxcheck.reports import text
from ctxcheck.reports.compose import compose

from .programs import labels, marked, places, run

LEDGER = """
l, other = lock("bank:Ledger.lock"), lock("bank:other")

@requires_lock(l)
def add(amount): pass

def deposit():
    add(1)

"""


def test_a_lock_that_has_to_be_held(tmp_path: Path) -> None:
    violation = run(tmp_path, LEDGER + "with other:\n    deposit()").only("CTX301")
    assert violation.message == (
        "lock not held: `add` needs `Ledger.lock` to be held, and thread 'MainThread' doesn't hold it"
    )
    assert (violation.slug, violation.grade) == ("lock-not-held", "certain")
    assert places(violation) == [("now", "bank.py", 7, "deposit")]
    assert marked(violation.sites[0]) == "add(1)"
    assert labels(violation) == ["called without `Ledger.lock`: declared @requires_lock at bank.py:3"]
    assert violation.held == ("other",)
    assert violation.notes == ("`Ledger.lock`: nobody holds it", "locks that this owner holds: `other`")
    assert violation.helps == (
        "acquire `Ledger.lock` around the call of add()",
        "or, if nobody else can know of the object yet, do this work in a function that isn't marked",
    )


def test_a_lock_that_another_one_holds(tmp_path: Path) -> None:
    violation = run(tmp_path, LEDGER + "with l:\n    in_thread(deposit, name='w')").only("CTX301")
    assert violation.message.endswith("and thread 'w' doesn't hold it")
    assert violation.notes[0] == "`Ledger.lock`: thread 'MainThread' holds it"
    assert violation.helps[1] == ("or, if that one holds it on purpose and waits meanwhile, let it do this work itself")


def test_a_lock_that_is_held_in_another_way(tmp_path: Path) -> None:
    source = """
    l = lock("bank:Ledger.lock", mode=RECURSIVE)
    with l:
        assert_held(l, mode="exclusive")
    """
    violation = run(tmp_path, source).only("CTX301")
    assert violation.message.endswith("and thread 'MainThread' doesn't hold it in that way")
    assert labels(violation)[1] == "`Ledger.lock` was acquired here"
    assert violation.helps == ("acquire `Ledger.lock` in the way that is asked for, around this place",)


def test_assert_held(tmp_path: Path) -> None:
    violation = run(tmp_path, 'l = lock("bank:Ledger.lock")\nassert_held(l)').only("CTX301")
    assert violation.message == (
        "lock not held: `Ledger.lock` must be held here, and thread 'MainThread' doesn't hold it"
    )
    assert labels(violation) == ["checked without `Ledger.lock`"]


def test_assert_not_held(tmp_path: Path) -> None:
    source = """
    l = lock("bank:Ledger.lock")
    with l:
        assert_not_held(l)
    """
    violation = run(tmp_path, source).only("CTX301")
    assert violation.message == "lock held: `Ledger.lock` must not be held here, and thread 'MainThread' holds it"
    assert labels(violation) == ["checked with `Ledger.lock` held", "`Ledger.lock` was acquired here"]
    assert violation.helps == ("leave the `with l:` block (bank.py:2) before this check",)


def test_foreign_release(tmp_path: Path) -> None:
    source = """
    s = lock("mm:Page.lock", SPIN)
    def stop():
        s.release()
    with s:
        in_thread(stop, name="w")
    """
    violation = run(tmp_path, source).only("CTX302")
    assert violation.message == "foreign release: thread 'w' releases `Page.lock`, which thread 'MainThread' holds"
    assert (violation.slug, violation.grade) == ("foreign-release", "certain")
    assert violation.owners == ("thread 'w'", "thread 'MainThread'")
    assert places(violation) == [("now", "bank.py", 3, "stop"), ("held_now", "bank.py", 4, "<module>")]
    assert labels(violation)[1].endswith("by thread 'MainThread'")
    assert [stack.title for stack in violation.stacks] == ["stack now", "stack of the holder"]


def test_left_held_by_its_only_owner(tmp_path: Path) -> None:
    source = """
    s = lock("mm:Page.lock", SPIN)
    def work():
        s.acquire()
    in_thread(work, name="w")
    """
    violation = run(tmp_path, source).only("CTX303")
    assert violation.message == "lock left held: thread 'w' still held `Page.lock` when it finished"
    assert (violation.slug, violation.grade) == ("lock-left-held", "certain")
    assert places(violation) == [("now", "bank.py", 3, "work")]
    assert violation.held == ("Page.lock",)
    assert "`Page.lock` is any lock created at bank.py:1" in violation.notes


def test_left_held_though_another_one_might_release_it(tmp_path: Path) -> None:
    violation = run(tmp_path, 'l = lock("bank:Ledger.lock")\nl.acquire()').only("CTX303")
    assert violation.message == (
        "lock left held: thread 'MainThread' still held `Ledger.lock` at the end of the program"
    )
    assert violation.grade == "possible"
    assert "a plain Lock may be released by another thread; by the end of the run none did" in violation.notes


def test_unbalanced_release(tmp_path: Path) -> None:
    source = """
    l = lock("bank:Ledger.lock")
    def stop():
        try: l.release()
        except RuntimeError: pass
    stop()
    """
    violation = run(tmp_path, source).only("CTX305")
    assert violation.message == "unbalanced release: thread 'MainThread' releases `Ledger.lock`, which nobody holds"
    assert (violation.slug, marked(violation.sites[0])) == ("unbalanced-release", "l.release()")
    assert violation.helps[0] == "use `with`, which pairs the two"


def test_an_internal_fault() -> None:
    finding = Finding("CTX901", "certain", None, EMPTY, ("KeyError",), FaultFacts("KeyError: 3"))
    violation = compose(finding)
    assert violation.message == "checking was switched off by an internal fault"
    assert (violation.slug, violation.sites, violation.owners) == ("checker-disabled", (), ())
    assert violation.notes[0] == "KeyError: 3"
    assert violation.allow == ()
    assert "KeyError: 3" in text.render(violation)
