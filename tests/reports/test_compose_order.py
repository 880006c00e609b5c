from __future__ import annotations

import dataclasses
import textwrap
import tomllib
from pathlib import Path

import pytest

from ctxcheck.engine.findings import OrderFacts, Waiter
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.violations import Frame, Scenario, Step, Violation
from ctxcheck.reports.compose import compose

from .programs import Run, labels, marked, places, run

BANK = """
audit = lock("bank:AuditLog.lock")
ledger = lock("bank:Ledger.lock")

def transfer():
    with ledger:
        record()

def record():
    with audit:
        pass

def reconcile():
    with audit:  # the books are closed
        balance()

def balance():
    with ledger:
        pass

in_thread(reconcile, name="reconciler")
in_thread(transfer, name="teller-1")
"""


def test_inversion(tmp_path: Path) -> None:
    violation = run(tmp_path, BANK).only("CTX001")
    assert violation.message == ("possible deadlock: lock order inversion between `AuditLog.lock` and `Ledger.lock`")
    assert (violation.slug, violation.grade) == ("lock-order-inversion", "possible")
    assert violation.locks == ("AuditLog.lock", "Ledger.lock")
    assert violation.keys == ("bank:AuditLog.lock", "bank:Ledger.lock")
    assert violation.owners == ("thread 'teller-1'", "thread 'reconciler'")
    assert violation.allowed_by is None
    assert places(violation) == [
        ("now", "bank.py", 9, "record"),
        ("held_now", "bank.py", 5, "transfer"),
        ("then", "bank.py", 17, "balance"),
        ("held_then", "bank.py", 13, "reconcile"),
    ]
    assert labels(violation) == [
        "thread 'teller-1' acquires `AuditLog.lock` here",
        "while holding `Ledger.lock`, acquired here",
        "acquired `Ledger.lock` here",
        "while holding `AuditLog.lock`, acquired here",
    ]
    assert [site.heading for site in violation.sites] == [
        "",
        "",
        "the opposite order, `AuditLog.lock` then `Ledger.lock`, was established by thread 'reconciler'",
        "",
    ]
    now, *_, held_then = violation.sites
    assert (now.text, now.before, marked(now)) == ("    with audit:", "def record():", "with audit:")
    assert (held_then.text, held_then.before) == ("    with audit:  # the books are closed", "")
    assert marked(held_then) == "with audit:"
    assert violation.scenario == Scenario(
        ("thread A: transfer()", "thread B: reconcile()"),
        (
            Step(0, "lock(Ledger.lock)"),
            Step(1, "lock(AuditLog.lock)"),
            Step(0, "lock(AuditLog.lock)", "thread B: reconcile()"),
            Step(1, "lock(Ledger.lock)", "thread A: transfer()"),
        ),
        "both wait for ever",
    )
    now_stack, then_stack = violation.stacks
    assert (now_stack.title, now_stack.owner) == ("stack now", "thread 'teller-1'")
    assert now_stack.frames[-2:] == (
        Frame("bank.py", 6, "transfer", "record()"),
        Frame("bank.py", 9, "record", "with audit:"),
    )
    assert (then_stack.title, then_stack.owner) == ("stack then", "thread 'reconciler'")
    assert violation.notes == (
        "this run has not hung on it so far; the two orders were seen at different times",
        "no common lock was held around these orders, so nothing keeps them apart",
        "`AuditLog.lock` is any lock created at bank.py:1, `Ledger.lock` any lock created at bank.py:2",
        "orders recorded: `AuditLog.lock` -> `Ledger.lock` 1 time, `Ledger.lock` -> `AuditLog.lock` 1 time "
        "(once for each thread and path, not for each acquire)",
    )
    assert violation.helps == (
        "pick one order and use it everywhere; to match reconcile(), take `AuditLog.lock` before `Ledger.lock` in "
        "transfer() (bank.py:5)",
        "or leave the `with ledger:` block (bank.py:5) before calling record()",
        "or use one lock for both, if they always protect the same data",
    )
    assert violation.allow == (
        "if these can never run at the same time, say why in pyproject.toml:",
        "[[tool.ctxcheck.allow]]",
        'rule = "CTX001"',
        'locks = ["AuditLog.lock", "Ledger.lock"]',
        'reason = "..."',
        'or around a block: with ctxcheck.allow("CTX001", reason="..."):',
    )


def test_the_verdict_says_the_same(tmp_path: Path) -> None:
    result = run(tmp_path, BANK)
    assert result.verdict() == result.violations


def test_what_is_now_is_the_order_that_the_finding_was_made_at(tmp_path: Path) -> None:
    result = run(tmp_path, BANK)
    finding = result.findings[0]
    assert isinstance(finding.facts, OrderFacts)
    for witness in finding.facts.cycle.witnesses:
        violation = result.compose(dataclasses.replace(finding, trace=witness.taken_at))
        assert violation.sites[0].function == witness.taken_at.function()
        assert violation.owners[0] == str(witness.owner)


def test_orders_of_one_thread(tmp_path: Path) -> None:
    source = BANK.replace('in_thread(reconcile, name="reconciler")', "reconcile()")
    violation = run(tmp_path, source.replace('in_thread(transfer, name="teller-1")', "transfer()")).only("CTX001")
    assert violation.owners == ("thread 'MainThread'",)
    assert "both orders were seen in thread 'MainThread'; it becomes a deadlock when two threads run this code" in (
        violation.notes
    )


def test_a_cycle_has_a_block_for_each_order(tmp_path: Path) -> None:
    source = """
    a, b, c = lock("m:a"), lock("m:b"), lock("m:c")
    def ab():
        with a:
            b.acquire()
            b.release()
    def bc():
        with b, c: pass
    def ca():
        with c:
            (lambda: a.acquire())()
        a.release()
    in_thread(ab, name="1"), in_thread(bc, name="2"), in_thread(ca, name="3")
    """
    violation = run(tmp_path, source).only("CTX001")
    assert violation.message == "possible deadlock: lock order cycle of 3: `a` -> `b` -> `c` -> `a`"
    assert [site.heading for site in violation.sites if site.heading] == [
        "order 1 of 3: `c` then `a`, by thread '3'",
        "order 2 of 3: `a` then `b`, by thread '1'",
        "order 3 of 3: `b` then `c`, by thread '2'",
    ]
    assert [site.role for site in violation.sites] == ["now", "held_now", "then", "held_then", "then", "held_then"]
    assert [marked(site) for site in violation.sites] == [
        "a.acquire()",
        "with c:",
        "b.acquire()",
        "with a:",
        "with b, c:",
        "with b, c:",
    ]
    assert violation.sites[0].function == "ca.<lambda>"
    assert violation.scenario is not None
    assert violation.scenario.columns == ("thread A: ca()", "thread B: ab()", "thread C: bc()")
    assert violation.scenario.steps[3:] == (
        Step(0, "lock(a)", "thread B: ab()"),
        Step(1, "lock(b)", "thread C: bc()"),
        Step(2, "lock(c)", "thread A: ca()"),
    )
    assert violation.scenario.outcome == "all three wait for ever"
    assert [stack.title for stack in violation.stacks] == [f"stack of order {n}" for n in (1, 2, 3)]
    assert [stack.owner for stack in violation.stacks] == ["thread '3'", "thread '1'", "thread '2'"]
    assert violation.helps == (
        "put these locks into one order, and take them in that order everywhere: one of the orders has to turn",
        "or leave the `with c:` block (bank.py:9) before taking `a`",
    )


def test_of_a_long_cycle_the_headline_names_both_ends(tmp_path: Path) -> None:
    source = """
    locks = [lock(f"m:l{n:02}") for n in range(30)]
    for n in range(30):
        with locks[n], locks[(n + 1) % 30]: pass
    """
    violation = run(tmp_path, source).only("CTX001")
    path = "`l00` -> `l01` -> `l02` -> `l03` -> `l04` -> `l05` -> ... -> `l29` -> `l00`"
    assert violation.message == f"possible deadlock: lock order cycle of 30: {path}"
    assert len(violation.sites) == 60
    assert violation.scenario is not None
    assert len(set(violation.scenario.columns)) == 30


def test_a_place_that_was_recorded_on_another_pass_is_called_so(tmp_path: Path) -> None:
    source = """
    a, b = lock("m:a"), lock("m:b")
    def first():
        with a: pass
    def second():
        with a:
            with b: pass
    def back():
        with b, a: pass
    def all():
        first(), second(), back()
    all()
    """
    violation = run(tmp_path, source).only("CTX001")
    then = next(site for site in violation.sites if "holding `a`" in site.label)
    # a chain is recorded once: that it was first() isn't wrong, but it isn't the place of this order either
    assert (then.line, then.label) == (3, "while holding `a`, first acquired on this path here")
    assert violation.scenario is not None
    assert any(title.endswith(": all()") for title in violation.scenario.columns)
    assert violation.helps[0].startswith("pick one order and use it everywhere; to match second(), take `a` before `b`")


def test_nobody_is_told_to_change_a_block_that_was_left_before(tmp_path: Path) -> None:
    source = """
    a, b = lock("m:a"), lock("m:b")
    def first():
        with a: pass
    def back():
        with b, a: pass
    def second():
        with a:
            with b: pass
    def all():
        first(), back(), second()
    all()
    """
    violation = run(tmp_path, source).only("CTX001")
    assert violation.sites[1].label == "while holding `a`, first acquired on this path here"
    assert [text.replace(str(tmp_path), "") for text in violation.helps[:2]] == [
        "pick one order and use it everywhere; to match back(), take `b` before `a` in second() (bank.py:8)",
        "or release `a` before taking `b` (bank.py:8)",
    ]


def test_a_callback_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text("def hook(a):\n    with a: pass\n")
    source = """
    a, b = lock("m:a"), lock("m:b")
    hook = load("hooks.py")["hook"]
    def notify():
        with b:
            hook(a)
    with a, b: pass
    notify()
    """
    violation = run(tmp_path, source).only("CTX001")
    assert violation.sites[0].file == "hooks.py"
    assert violation.helps[1:3] == (
        "or leave the `with b:` block (bank.py:4) before calling hook()",
        "or, if hook() is a callback or a hook, note under the lock what is to be called, and call it after the "
        "lock is "
        "released",
    )


def test_classes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    source = """
    a, b = lock("shop:Store.lock"), lock("bank:Store.lock")
    with a, b: pass
    with b, a: pass
    """
    violation = run(tmp_path, source).only("CTX001")
    assert violation.locks == ("bank.Store.lock", "shop.Store.lock")
    assert violation.message.endswith("between `bank.Store.lock` and `shop.Store.lock`")
    assert 'locks = ["bank.Store.lock", "shop.Store.lock"]' in violation.allow


def test_kinds_of_one_place_are_told_apart_by_their_keys(tmp_path: Path) -> None:
    source = """
    a, b = lock("m:f.lock"), lock("m:f.lock/rlock")
    b.step.lock_class.name = "f.lock"
    with a, b: pass
    with b, a: pass
    """
    assert run(tmp_path, source).only("CTX001").locks == ("m:f.lock", "m:f.lock/rlock")


def test_a_common_lock_of_many_instances_keeps_nobody_out(tmp_path: Path) -> None:
    source = """
    a, b, g, h = lock("m:a"), lock("m:b"), lock("m:G"), lock("m:G")
    with g, a, b: pass
    with h, b, a: pass
    """
    violation = run(tmp_path, source).only("CTX001")
    assert violation.grade == "possible"
    assert (
        "`G` was held around all of them, but there is more than one lock of that class, so it need not keep them apart"
    ) in violation.notes


@pytest.mark.parametrize(
    ("source", "options", "short", "note", "outcome"),
    [
        pytest.param(
            """
            g = lock("m:Gate")
            with g, a, b: pass
            with g, b, a: pass
            """,
            {},
            "always under `Gate`",
            "both orders were only ever taken while holding `Gate`, so no two threads can be in them at once",
            "",
            id="guarded",
        ),
        pytest.param(
            """
            with a, b: pass
            with b, a: pass
            """,
            {"owners": "observed"},
            "only thread 'MainThread' takes them",
            "both orders were only ever taken by thread 'MainThread', and one thread that runs them one after the "
            "other "
            "doesn't wait for itself",
            "both wait for ever",
            id="one owner",
        ),
        pytest.param(
            """
            with a, b: pass
            with b:
                if a.acquire(timeout=5):
                    a.release()
            """,
            {},
            "a wait has a timeout",
            "the wait for `a` (bank.py:4) has a timeout: it gives up by itself, so this stalls and doesn't hang",
            "both wait until one gives up",
            id="timed",
        ),
        pytest.param(
            """
            a.acquire()
            in_thread(a.release)
            with a, b: pass
            with b, a: pass
            """,
            {},
            "`a` is handed from thread to thread",
            "`a` was released by another thread than the one that acquired it, so to hold it is no critical section",
            "",
            id="handed over",
        ),
    ],
)
def test_why_a_cycle_is_unlikely(
    tmp_path: Path, source: str, options: dict[str, str], short: str, note: str, outcome: str
) -> None:
    program = 'a, b = lock("m:a"), lock("m:b")' + textwrap.dedent(source)
    violation = run(tmp_path, program, **options).only("CTX001")
    assert violation.grade == "unlikely"
    assert violation.message.startswith("lock order inversion between ")
    assert violation.message.endswith(f" (unlikely: {short})")
    # the short report shows the first note only
    assert violation.notes[0] == note
    # no table of how it deadlocks where it can't
    assert (violation.scenario.outcome if violation.scenario else "") == outcome


def test_readers_that_let_each_other_in_are_no_finding(tmp_path: Path) -> None:
    source = """
    a, b = lock("m:r1", mode=RECURSIVE), lock("m:r2", mode=RECURSIVE)
    with a, b: pass
    with b, a: pass
    """
    found = run(tmp_path, source)
    assert (found.violations, found.verdict()) == ([], [])


def test_helps_of_unlikely_cycles(tmp_path: Path) -> None:
    source = """
    a, b, g = lock("m:a"), lock("m:b"), lock("m:Gate")
    with g, a, b: pass
    with g, b, a: pass
    """
    violation = run(tmp_path, source).only("CTX001")
    assert violation.helps[0] == "keep `Gate` around every place that takes these locks, or do what follows"
    # both are taken by one statement: there is no block to leave in between
    assert not any("leave" in help_ for help_ in violation.helps)


def test_shared_and_timed_acquires_are_called_so(tmp_path: Path) -> None:
    source = """
    a, b = lock("m:a", mode=SHARED), lock("m:b")
    with a, b: pass
    with b:
        with a: pass
    """
    violation = run(tmp_path, source).only("CTX001")
    assert "acquires `a` (shared) here" in violation.sites[0].label


@pytest.mark.parametrize("size", [2, 3])
def test_owners_that_wait_for_each_other(tmp_path: Path, size: int) -> None:
    source = f"""
    size = {size}
    locks = [lock(f"m:l{{n}}") for n in range(size)]
    barrier = threading.Barrier(size)

    def work(n):
        with locks[n]:
            barrier.wait()
            reach(n)

    def reach(n):
        try:
            with locks[(n + 1) % size]: pass
        except RuntimeError: pass

    threads = [threading.Thread(target=work, args=(n,), name=f"w{{n}}", daemon=True) for n in range(size)]
    for thread in threads: thread.start()
    until("CTX001", count=1)
    for l in locks:  # let them go, behind the validator's back
        while any(t.is_alive() for t in threads):
            try: l._release()
            except RuntimeError: break
    for thread in threads: thread.join(30)
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threading.excepthook", lambda _args: None)
        result = run(tmp_path, source, deadlock_after=0.05)
    violation = next(v for v in result.of("CTX001") if v.grade == "certain")
    if size == 2:
        assert violation.message == "deadlock: threads 'w0' and 'w1' wait for each other for `l0` and `l1`"
    else:
        assert violation.message == (
            "deadlock: threads 'w0', 'w1' and 'w2' wait for each other in a circle for `l0`, `l1` and `l2`"
        )
    assert violation.scenario is not None
    assert len(violation.scenario.columns) == size
    assert set(violation.scenario.columns) == {f"thread 'w{n}': work()" for n in range(size)}
    for column, title in enumerate(violation.scenario.columns):
        holder = int(title[len("thread 'w")])
        steps = [step for step in violation.scenario.steps if step.column == column]
        assert [step.action for step in steps] == [f"holds l{holder}", f"lock(l{(holder + 1) % size})"]
        assert steps[1].waits_for.startswith(f"thread 'w{(holder + 1) % size}'")
    assert violation.notes[0].startswith("this is happening now")
    assert not any("has not hung" in note for note in violation.notes)
    assert violation.sites[0].role == "now"
    assert "waits for" in violation.sites[0].label
    assert violation.sites[0].function == "reach"
    assert violation.allow == ()
    # the same finding as the one that was made when the last order came
    possible = next(v for v in result.of("CTX001") if v.grade == "possible")
    assert violation.fingerprint == possible.fingerprint


def _stuck(result: Run, *, owners: tuple[Owner, Owner]) -> Violation:
    """The report on two owners that are stuck in the orders of a finding, by which others were seen."""
    finding = result.findings[0]
    assert isinstance(finding.facts, OrderFacts)
    cycle = dataclasses.replace(finding.facts.cycle, grade="certain")
    a, b = cycle.classes
    waiters = (
        Waiter(owners[0], a, b, cycle.witnesses[0].taken_at),
        Waiter(owners[1], b, a, cycle.witnesses[1].held_at),
    )
    return result.compose(dataclasses.replace(finding, grade="certain", facts=OrderFacts(cycle, waiters)))


def test_owners_that_are_stuck_where_others_were_seen(tmp_path: Path) -> None:
    task, thread = Owner(101, 1, "task"), Owner(102, 2)
    violation = _stuck(run(tmp_path, BANK), owners=(task, thread))
    assert violation.message == (
        "deadlock: task 'task-101' and thread 'thread-102' wait for each other for `AuditLog.lock` and `Ledger.lock`"
    )
    # where the second one waits isn't known: the order was recorded by somebody else
    assert [(site.role, site.label) for site in violation.sites] == [
        ("now", "task 'task-101' waits for `Ledger.lock` here"),
        ("then", "acquired its last lock here"),
    ]
    assert violation.sites[1].heading == "thread 'thread-102' holds `Ledger.lock` and waits for `AuditLog.lock`"
    assert violation.scenario is not None
    assert violation.scenario.columns == ("task 'task-101': balance()", "thread 'thread-102': transfer()")


def test_owners_that_are_stuck_where_they_were_seen(tmp_path: Path) -> None:
    result = run(tmp_path, BANK)
    facts = result.findings[0].facts
    assert isinstance(facts, OrderFacts)
    one, two = (witness.owner for witness in facts.cycle.witnesses)
    violation = _stuck(result, owners=(one, two))
    # a waiter's own trace is that of its last lock; where it asked for the next one is known from the order
    assert [(site.role, site.function) for site in violation.sites] == [
        ("now", "balance"),
        ("held_now", "reconcile"),
        ("then", "record"),
        ("held_then", "transfer"),
    ]
    assert violation.sites[2].label == "waits for `AuditLog.lock` here"


def test_a_lock_that_was_taken_on_a_stack_of_its_own(tmp_path: Path) -> None:
    source = """
    a, b = lock("m:a"), lock("m:b")
    def enter(): a.acquire()
    def work():
        with b: pass
        a.release()
    enter(), work()
    with b, a: pass
    """
    result = run(tmp_path, source)
    finding = result.findings[0]
    assert isinstance(finding.facts, OrderFacts)
    cycle = finding.facts.cycle
    # as if the two had nothing in common, as where a generator is resumed by another function
    first = cycle.witnesses[0]
    first = first._replace(held_at=Trace(first.held_at.codes[:1], first.held_at.lastis[:1]))
    cycle = dataclasses.replace(cycle, witnesses=(first, cycle.witnesses[1]))
    violation = result.compose(dataclasses.replace(finding, facts=OrderFacts(cycle)))
    assert violation.scenario is not None
    assert violation.scenario.columns == ("thread A", "thread B: enter()")


def test_an_allowed_cycle(tmp_path: Path) -> None:
    source = """
    a, b = lock("m:a"), lock("m:b")
    with a, b: pass
    with allow("CTX001", reason="one at a time"), b, a: pass
    """
    assert run(tmp_path, source).only("CTX001").allowed_by == "one at a time"


def test_names_in_the_configuration_are_escaped(tmp_path: Path) -> None:
    source = r"""
    a, b = lock('say "a"\n\\'), lock("b")
    with a, b: pass
    with b, a: pass
    """
    violation = run(tmp_path, source).only("CTX001")
    line = next(line for line in violation.allow if line.startswith("locks"))
    assert set(tomllib.loads(line)["locks"]) == {'say "a"\n\\', "b"}
    assert any("is any lock with this name, first created at bank.py:1" in note for note in violation.notes)


def test_compose_takes_the_working_directory_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = run(tmp_path, BANK).findings[0]
    monkeypatch.chdir(tmp_path)
    assert compose(finding).sites[0].file == "bank.py"
    monkeypatch.chdir("/")
    # below the root everything is relative, and nothing is gained by that
    assert compose(finding, cwd=str(tmp_path / "elsewhere")).sites[0].file == str(tmp_path / "bank.py")
