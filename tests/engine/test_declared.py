"""Declared orders: what they say together, what contradicts them, and CTX007 at the first acquisition against them."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxcheck
from ctxcheck import ConfigError, checking, declare_leaf, declare_order, might_lock, nested, region, track
from ctxcheck.engine.declared import Declaration, Declared
from ctxcheck.session import Session
from tests.conftest import Run
from tests.engine.conftest import classes
from tests.oracle import in_thread


def found(session: Session) -> list[tuple[str, str]]:
    return [(v.rule, v.grade) for v in session.violations]


def orders(*chains: str, leaf: str = "") -> list[Declaration]:
    return [*(Declaration(tuple(chain)) for chain in chains), *([Declaration(tuple(leaf), leaf=True)] if leaf else [])]


A, B, C, D = (ctxcheck.Lock(name=f"declared.{n}") for n in "ABCD")


def by_with(*locks: Any) -> None:
    if locks:
        with locks[0]:
            by_with(*locks[1:])


# --- what they say together --------------------------------------------------------------------

CHAINS = st.lists(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=4).map("".join), max_size=5)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(CHAINS, st.lists(st.sampled_from("abcdef"), max_size=2, unique=True))
def test_as_a_naive_closure_says(chains: list[str], leaves: list[str]) -> None:
    before = {pair for chain in chains for pair in itertools.pairwise(chain)}
    while True:
        more = {(a, d) for a, b in before for c, d in before if b == c} - before
        if not more:
            break
        before |= more
    contradicts = any(a == b for a, b in before) or any(a in leaves for a, _ in before)
    every = [*orders(*chains), *(Declaration((leaf,), leaf=True) for leaf in leaves)]
    if contradicts:
        with pytest.raises(ConfigError):
            Declared(every)
        return
    declared = Declared(every)
    known = classes(*"abcdefg")
    for held, taken in itertools.product(known, repeat=2):
        breach = declared.breach(held, taken)
        against = (taken.name, held.name) in before
        leaf = held.name in leaves and held is not taken
        assert (breach is not None) == (against or leaf)
        if breach is not None and not breach.leaf:
            assert breach.path[0] == taken.name
            assert breach.path[-1] == held.name
            for (a, b), declaration in zip(itertools.pairwise(breach.path), breach.declarations, strict=True):
                assert f"{a}{b}" in "".join(declaration.names)


@pytest.mark.parametrize(
    ("declarations", "message"),
    [
        (orders("aba"), "form a cycle: a -> b -> a"),
        (orders("aa"), "form a cycle: a -> a"),
        (orders("ab", "bc", "ca"), "form a cycle: a -> b -> c -> a"),
        (orders("xab", "bcd", "dya"), "form a cycle: a -> b -> c -> d -> y -> a"),
        (orders("ab", leaf="a"), "'a' is declared a leaf, and to come before 'b': a -> b"),
    ],
)
def test_a_contradiction_names_its_cycle(declarations: list[Declaration], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Declared(declarations)


def test_names_keys_and_levels_mean_their_classes() -> None:
    from ctxcheck.engine.classes import LOCK, ClassRegistry

    registry = ClassRegistry()
    ledger, audit = (registry.get(f"bank:{n}.lock", f"{n}.lock", LOCK) for n in ("Ledger", "Audit"))
    child = registry.level(ledger, 1)
    declared = Declared([Declaration(("Ledger.lock", "bank:Audit.lock"))])
    assert declared.breach(audit, ledger) is not None
    assert declared.breach(audit, child) is not None
    assert declared.breach(ledger, audit) is declared.breach(child, audit) is None
    levels = Declared([Declaration(("Ledger.lock", "Ledger.lock/1"))])
    assert levels.breach(child, ledger) is not None
    assert levels.breach(ledger, child) is levels.breach(child, child) is None


# --- CTX007 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["name", "lock"])
def test_the_first_acquisition_against_it_though_nothing_else_was_seen(by: str) -> None:
    declare_order(*(["declared.A", "declared.B", "declared.C"] if by == "name" else [A, B, C]), reason="inner tables")
    with checking() as session:
        by_with(A, B, C)
        by_with(A, C)
        assert found(session) == []
    with checking() as session:
        by_with(C, A)
    assert found(session) == [("CTX007", "certain")]
    violation = session.violations[0]
    assert violation.message == (
        "against the declared order: thread 'MainThread' acquires `declared.A` while holding `declared.C`"
    )
    assert any("`declared.A` comes before `declared.B`" in note and "inner tables" in note for note in violation.notes)
    assert any("together: `declared.A` -> `declared.B` -> `declared.C`" in note for note in violation.notes)
    assert set(violation.locks) == {"declared.A", "declared.C"}


def test_each_way_to_take_a_lock() -> None:
    declare_order("declared.A", "declared.B")
    tracked = track(threading.Lock(), name="declared.A")
    for take, expected in (
        (lambda: A.acquire(False) and A.release(), []),
        (lambda: A.acquire(timeout=60) and A.release(), [("CTX007", "possible")]),
        (lambda: by_with(A), [("CTX007", "certain")]),
        (lambda: by_with(tracked), [("CTX007", "certain")]),
        (lambda: by_with(nested(A, 3)), [("CTX007", "certain")]),
        (lambda: might_lock(A), [("CTX007", "certain")]),
    ):
        with checking() as session, B:
            take()
        assert found(session) == expected


def test_it_is_told_again_in_mode_raise_and_nothing_is_taken() -> None:
    declare_order(A, B)
    with checking(mode="raise") as session, B:
        for _ in range(3):
            with pytest.raises(ctxcheck.ViolationError, match="CTX007"):
                A.acquire()
            assert not A.locked()
    assert found(session) == [("CTX007", "certain")]


def test_one_finding_for_each_held_lock_and_place() -> None:
    declare_order(A, B)
    declare_order(A, C)
    with checking() as session:
        for _ in range(3):
            by_with(B, C, A)
        in_thread(lambda: by_with(B, C, A))
    assert found(session) == [("CTX007", "certain")] * 2


def test_leaves() -> None:
    declare_leaf("declared.D", reason="taken everywhere")
    again = ctxcheck.RLock(name="declared.leaf.again")
    declare_leaf(again)
    with checking() as session:
        by_with(B, C, D)
        with D:
            assert A.acquire(False)
            A.release()
            with region("declared.region"):
                pass
        by_with(again, again)
        assert found(session) == []
        by_with(D, A)
        by_with(again, nested(ctxcheck.RLock(name="declared.leaf.again"), 1))
    assert found(session) == [("CTX007", "certain")] * 2
    assert "against a declared leaf" in session.violations[0].message


def test_regions_have_their_place() -> None:
    inside = region("declared.reclaim")
    declare_order(inside, A)
    with checking() as session:
        with inside, A:
            pass
        assert found(session) == []
        with A:
            ctxcheck.might_enter("declared.reclaim")
    assert ("CTX007", "certain") in found(session)


def test_what_is_accepted() -> None:
    declare_order(A, B)
    with checking() as session, ctxcheck.allow("CTX007", reason="start-up"):
        by_with(B, A)
    assert [v.allowed_by for v in session.violations] == ["start-up"]
    with checking(ignore=["declared-order"]) as session:
        by_with(B, A)
    assert found(session) == []


# --- declared while it runs --------------------------------------------------------------------------


def test_what_was_done_before_the_declaration_is_reported_at_once_and_what_is_cached_is_looked_at_anew() -> None:
    with checking() as outer:
        by_with(C, D)
        with checking() as session:
            by_with(B, A)
            by_with(C, D)
            declare_order(A, B)
            assert found(session) == [("CTX007", "certain")]
            by_with(D, C)
            declare_leaf(D)
            by_with(C, D)
            with C:
                declare_leaf(C)
                by_with(D)
            assert session.held_locks() == []
        rules = [v.rule for v in session.violations if v.rule == "CTX007"]
        assert len(rules) == 3
        # it saw only one of them itself; what is declared meanwhile holds there too
        assert found(outer) == [("CTX007", "certain")]
        by_with(B, A)
    assert found(outer) == [("CTX007", "certain")] * 2


def test_a_contradiction_is_refused_and_nothing_has_changed() -> None:
    declare_order("declared.A", "declared.B", "declared.C")
    declare_order("declared.A", "declared.B", "declared.C", reason="said twice is said once")
    with checking() as session:
        with pytest.raises(ValueError, match=r"declare_order: .* declared\.A -> declared\.B -> declared\.C -> decl"):
            declare_order("declared.C", "declared.A")
        with pytest.raises(ConfigError, match="declare_leaf: 'declared.B' is declared a leaf"):
            declare_leaf("declared.B")
        by_with(A, C)
    assert found(session) == []
    with Session(declared=[Declaration(("declared.X", "declared.Y"))]):
        with pytest.raises(ConfigError, match=r"declared\.X -> declared\.Y -> declared\.X"):
            declare_order("declared.Y", "declared.X")
    declare_order("declared.Y", "declared.X")
    with pytest.raises(ConfigError):
        Session(declared=[Declaration(("declared.X", "declared.Y"))]).start()
    with checking() as session:  # the one that couldn't start has left nothing behind
        by_with(A, B)
    assert found(session) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: declare_order(), ValueError, "0 locks have no order"),
        (lambda: declare_order("a"), ValueError, "1 locks have no order"),
        (lambda: declare_leaf(), ValueError, "names no lock"),
        (lambda: declare_order("a", ""), ValueError, "a name is empty"),
        (lambda: declare_order("a", 5), TypeError, "5 is neither the name of a lock class nor a checked lock"),
        (lambda: declare_order("a", "b", reason=5), TypeError, "reason must be a string, not 5"),  # type: ignore[arg-type]
    ],
)
def test_wrong_use(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_locks_that_are_not_checked_have_no_order_to_keep() -> None:
    from ctxcheck.engine.raw import allocate_lock

    declare_order(allocate_lock(), A)
    declare_order(A, allocate_lock(), B)
    with checking() as session:
        by_with(B, A)
    assert found(session) == [("CTX007", "certain")]


def test_nothing_declared_costs_nothing_and_a_known_chain_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    with checking() as session:
        assert session.engine.declared is None
    declare_order("declared.A", "declared.B")
    with checking() as session:
        by_with(A, B)
        looked: list[Any] = []
        monkeypatch.setattr("ctxcheck.engine.validator.report_against", lambda *a: looked.append(a) or False)
        for _ in range(10):
            by_with(A, B)
    assert looked == []


# --- configuration ------------------------------------------------------------------------------------

PROGRAM = """
import threading
ledger, audit, stats = threading.Lock(), threading.Lock(), threading.Lock()
with audit, ledger: pass
with stats, audit: pass
"""


def test_declared_in_the_configuration(ctxcheck: Run, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("""
[tool.ctxcheck]
strict = true
leaf = ["stats"]
[[tool.ctxcheck.order]]
locks = ["ledger", "program:audit", "Audti.lock"]
reason = "the audit trail is the inner one"
""")
    result = ctxcheck("run", "program.py", code=PROGRAM)
    assert result.returncode == 1
    assert result.stdout.count("error[CTX007]") == 2
    assert "`ledger` comes before `program:audit` ([[tool.ctxcheck.order]] 1): the audit trail is the inner" in (
        " ".join(result.stdout.split())
    )
    assert "`stats` is a leaf" in result.stdout
    assert "ctxcheck: strict: a declared order names 'Audti.lock', and no lock of that name was taken" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('locks = ["a", "b", "a"]', "pyproject.toml: the declared orders form a cycle: a -> b -> a"),
        ('locks = ["a", "b"]\nleaf = ["a"]', "pyproject.toml: 'a' is declared a leaf, and to come before 'b': a -> b"),
        ('locks = ["a"]', "pyproject.toml: [[tool.ctxcheck.order]] locks is ['a']; one lock has no order"),
        ('lock = ["a", "b"]', "unknown key 'lock'; did you mean 'locks'?"),
        ('reason = "x"', "needs 'locks', earlier before later, or 'leaf'"),
        ("locks = 5", "locks is 5; allowed: a list of names or keys of lock classes"),
        ('leaf = ["a"]\nreason = 5', "reason is 5; allowed: a text"),
    ],
)
def test_a_wrong_configuration_is_one_line(ctxcheck: Run, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[[tool.ctxcheck.order]]\n{text}\n")
    result = ctxcheck("run", "program.py", code="print('ran')")
    assert result.returncode == 2
    assert message in result.stdout
    assert "ran" not in result.stdout
