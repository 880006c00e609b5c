from __future__ import annotations

from pathlib import Path

import pytest

from ctxcheck.engine.errors import DeadlockError
from ctxcheck.engine.violations import Scenario, Step

from .programs import Run, labels, marked, places, run

SELF = """
l = lock("bank:Ledger.lock")

def transfer():
    {take}
    total()

def total():
    try:
        {again}
    except Exception as error:
        assert type(error).__name__ == "DeadlockError", error

transfer()
{after}
"""


def self_deadlock(tmp_path: Path, take: str, again: str = "l.acquire()", after: str = "") -> Run:
    return run(tmp_path, SELF.format(take=take, again=again, after=after))


def test_a_with_block_that_is_entered_again(tmp_path: Path) -> None:
    source = """
    l = lock("bank:Ledger.lock")
    def transfer():
        with l:
            total()
    def total():
        with l: pass
    """
    result = run(tmp_path, source + "\n    try: transfer()\n    except Exception as e: error = e\n")
    violation = result.only("CTX002")
    assert violation.message == "deadlock: thread 'MainThread' re-acquires `Ledger.lock`, which it already holds"
    assert (violation.grade, violation.slug) == ("certain", "self-deadlock")
    assert (violation.locks, violation.held) == (("Ledger.lock",), ("Ledger.lock",))
    assert places(violation) == [("now", "bank.py", 6, "total"), ("held_now", "bank.py", 3, "transfer")]
    assert [marked(site) for site in violation.sites] == ["with l:", "with l:"]
    assert labels(violation) == [
        "waits for itself: `Ledger.lock` is a plain Lock, which its holder can't take again",
        "`Ledger.lock` was acquired here, and is held until this block ends",
    ]
    title = "thread 'MainThread': total()"
    assert violation.scenario == Scenario(
        (title,),
        (Step(0, "lock(Ledger.lock)"), Step(0, "lock(Ledger.lock)", title)),
        "it waits for itself for ever",
    )
    assert violation.notes[0] == (
        "`Ledger.lock` is held by a `with` block, which only its own end releases, and thread 'MainThread' can't "
        "get there"
    )
    assert any("raises `DeadlockError`" in note for note in violation.notes)
    assert violation.helps == (
        "split total(): one that takes `Ledger.lock`, and `total_locked()`, which expects it to be held "
        "(`@ctxcheck.requires_lock`) and is called from under the lock",
        "or leave the `with l:` block (bank.py:3) before calling total()",
        "or make `Ledger.lock` an RLock, if its holder may well enter again; the data has to be consistent each time",
    )
    # nothing can accept what would hang
    assert violation.allow == ()


def test_a_lock_that_nobody_else_could_release(tmp_path: Path) -> None:
    result = self_deadlock(tmp_path, "l.acquire()", after="l.release()")
    violation = result.only("CTX002")
    assert violation.grade == "certain"
    assert violation.notes[0] == "no other thread is alive that could release `Ledger.lock`"
    assert violation.sites[1].label == "`Ledger.lock` was acquired here"


def test_a_lock_that_has_an_owner(tmp_path: Path) -> None:
    source = """
    l = lock("mm:Page.lock", SPIN)
    def touch():
        l.acquire()
        l.acquire()
    try: touch()
    except Exception: l.release()
    """
    violation = run(tmp_path, source).only("CTX002")
    assert violation.notes[0] == "nobody but its holder may release a SpinLock"
    assert violation.helps == ("take `Page.lock` once, around both places",)


def test_a_wait_that_may_be_for_a_hand_off(tmp_path: Path) -> None:
    source = """
    l = lock("bank:Ledger.lock")
    def work():
        l.acquire()
        l.acquire()
        l.release()
    thread = threading.Thread(target=work, name="w")
    thread.start()
    until("CTX002", "possible")
    l._release()
    thread.join()
    """
    violation = run(tmp_path, source, deadlock_after=0.05).of("CTX002")[0]
    assert violation.message == (
        "possible deadlock: thread 'w' re-acquires `Ledger.lock`, which it already holds, and nobody has released "
        "it for "
        "0.05 s"
    )
    assert violation.scenario is not None
    assert violation.scenario.outcome == "it waits until another thread releases Ledger.lock"
    assert violation.notes[0].startswith("a plain Lock may be released by another thread; within 0.05 s none did")
    assert violation.helps[-1] == (
        "or, if another thread is meant to release `Ledger.lock`, use an Event or a Semaphore, which say so"
    )
    assert violation.allow[1] == "l.acquire()  # ctxcheck: allow[CTX002] reason"


def test_a_lock_that_might_be_taken_again(tmp_path: Path) -> None:
    source = """
    l = lock("bank:Ledger.lock")
    l.acquire()
    might_lock(l)
    l.release()
    """
    violation = run(tmp_path, source).only("CTX002")
    # nobody waited: there is no time to tell of
    assert violation.message == (
        "possible deadlock: thread 'MainThread' re-acquires `Ledger.lock`, which it already holds"
    )
    assert violation.notes[0] == "a plain Lock may be released by another thread"


def test_the_error_carries_the_report(tmp_path: Path) -> None:
    with pytest.raises(DeadlockError) as caught:
        run(tmp_path, 'l = lock("bank:Ledger.lock")\nwith l:\n    with l: pass\n')
    assert caught.value.violation.message.startswith("deadlock: ")


# --- two locks of one class

ACCOUNTS = """
def account(key=None):
    return lock("bank:Account.lock", order_key=key)

def move(source, target):
    with source:
        with target: pass

"""


@pytest.mark.parametrize(
    ("program", "options", "message", "grade", "note"),
    [
        pytest.param(
            "move(account(2), account(1))",
            {},
            "possible deadlock: `Account.lock` with order key 1 is acquired while one with 2 is held",
            "possible",
            "`Account.lock` has an order key: a lock with a smaller one comes first, and 1 is smaller than 2",
            id="descending",
        ),
        pytest.param(
            "move(account(7), account(7))",
            {},
            "possible deadlock: two locks of class `Account.lock` with the same order key 7 are nested",
            "possible",
            "with equal keys nothing says which of the two comes first; both are 7",
            id="equal",
        ),
        pytest.param(
            "move(account(), account())",
            {},
            "two locks of class `Account.lock` are nested with no declared order (unlikely: only one order was seen)",
            "unlikely",
            "only one order of these instances was seen; nothing in the code says that it is always this one",
            id="once",
        ),
        pytest.param(
            "a, b = account(), account(); move(a, b); move(b, a)",
            {},
            "possible deadlock: two locks of class `Account.lock` are taken in both orders",
            "possible",
            "the same instances were held before in the opposite order, on this or another thread",
            id="both",
        ),
        pytest.param(
            "a, b = account(), account(); move(a, b); move(b, a)",
            {"owners": "observed"},
            "two locks of class `Account.lock` are taken in both orders (unlikely: only by one thread, or always "
            "under one "
            "lock)",
            "unlikely",
            "both orders of these instances were seen, but by one thread only, or always under one common lock, so "
            "that they "
            "can't meet",
            id="both, unlikely",
        ),
    ],
)
def test_nesting(tmp_path: Path, program: str, options: dict[str, str], message: str, grade: str, note: str) -> None:
    violation = run(tmp_path, ACCOUNTS + program, **options).of("CTX003")[-1]
    assert (violation.message, violation.grade, violation.notes[0]) == (message, grade, note)
    assert places(violation) == [("now", "bank.py", 6, "move"), ("held_now", "bank.py", 5, "move")]
    assert violation.sites[0].label.startswith("thread 'MainThread' acquires another `Account.lock` here")
    assert violation.sites[1].label.startswith("while holding one")
    assert violation.allow[3] == 'locks = ["Account.lock"]'
    if "both orders" in message and grade == "unlikely":
        assert violation.scenario is None
    else:
        assert violation.scenario is not None
        assert violation.scenario.columns == ("thread A: move()", "thread B: move()")


def test_nesting_helps(tmp_path: Path) -> None:
    keyed = run(tmp_path, ACCOUNTS + "move(account(2), account(1))").only("CTX003")
    assert keyed.helps[0] == "sort the objects by their order keys, and take their locks in ascending order"
    assert keyed.scenario is not None
    assert keyed.scenario.steps[0].action == "lock(Account.lock, key 2)"
    free = run(tmp_path, ACCOUNTS + "move(account(), account())").only("CTX003")
    assert "`ctxcheck.Lock(order_key=...)`" in free.helps[0]
    assert "or leave the `with source:` block (bank.py:5) before taking the other one" in free.helps


def test_two_locks_of_one_class_that_are_waited_for_in_a_circle(tmp_path: Path) -> None:
    source = (
        ACCOUNTS
        + """
a, b = account(), account()
barrier = threading.Barrier(2)

def work(first, second):
    with first:
        barrier.wait()
        try:
            with second: pass
        except RuntimeError: pass

threads = [threading.Thread(target=work, args=pair, name=name) for pair, name in (((a, b), "w0"), ((b, a), "w1"))]
for thread in threads: thread.start()
until("CTX003")
while any(thread.is_alive() for thread in threads):
    for l in (a, b):
        try: l._release()
        except RuntimeError: pass
for thread in threads: thread.join()
"""
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threading.excepthook", lambda _args: None)
        result = run(tmp_path, source, deadlock_after=0.05)
    violation = next(v for v in result.of("CTX003") if v.grade == "certain")
    owner = violation.owners[0]
    assert violation.message == (
        f"deadlock: {owner} and another thread wait for each other for two locks of class `Account.lock`"
    )
    assert violation.sites[0].label == f"{owner} waits for another `Account.lock` here"
    assert violation.sites[0].line == 16
    assert violation.notes[0].startswith("this is happening now")
