"""The verdict doesn't depend on luck: not on the order of the tests, nor on how they are split."""

from __future__ import annotations

import pytest

from tests.pytest_plugin.conftest import APART, BOTH, ORDERS, Outcome, Suite

#: Fixtures of every scope, threads, tasks, pools, hand-offs, guards, interrupts, a session's lock.
MANY = """
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor
import bank, ctxcheck, pytest

POOL = ThreadPoolExecutor(2)
GATE = bank.Cache()

@pytest.fixture(scope="session")
def held():
    with bank.Cache().lock:
        yield

@pytest.fixture(scope="module")
def made():
    a, b = bank.Ledger(), bank.Cache()
    bank.first(a, b)
    return a, b

@pytest.fixture
def own():
    lock = threading.Lock()
    with lock:
        yield lock

def test_held(held):
    bank.first(bank.Ledger(), bank.Audit())

def test_opposite():
    bank.second(bank.Audit(), bank.Ledger())

def test_made(made):
    bank.second(made[1], made[0])

def test_also_made(made):
    bank.first(*made)

def test_pool():
    POOL.submit(bank.first, bank.Audit(), bank.Cache()).result()

def test_pool_too():
    POOL.submit(bank.first, bank.Cache(), bank.Audit()).result()

def test_tasks(own):
    async def main():
        lock = asyncio.Lock()
        async with lock:
            with bank.Audit().lock:
                pass
    asyncio.run(main())

def test_alone():
    a, b, c = bank.Ledger(), bank.Audit(), bank.Cache()
    for one, other in ((a, b), (b, c), (c, a)):
        bank.first(one, other)

def test_hands_over():
    baton = threading.Lock()
    baton.acquire()
    thread = threading.Thread(target=baton.release)
    thread.start()
    thread.join()

@pytest.mark.parametrize("n", range(3))
def test_guarded(n):
    with GATE.lock:
        bank.first(bank.Ledger(), bank.Audit())
    with GATE.lock:
        bank.first(bank.Audit(), bank.Ledger())

def test_interrupts():
    with ctxcheck.interrupt("SIGUSR1"):
        with bank.Ledger().lock:
            pass

class TestMore:
    @classmethod
    def setup_class(cls):
        cls.a = bank.Audit()

    def test_leaves(self):
        self.a.lock.acquire()

    def test_after(self):
        bank.first(bank.Ledger(), bank.Cache())
"""


def fill(suite: Suite) -> None:
    suite.write(conftest=ORDERS, test_both=BOTH, test_apart=APART, test_many=MANY)


def differs(one: Outcome, other: Outcome) -> str:
    return "" if one.verdict() == other.verdict() else f"{one.verdict()}\n{other.verdict()}\n{other.text}"


def test_the_order_of_the_tests(suite: Suite) -> None:
    fill(suite)
    first = suite.run()
    assert first.status == 1
    assert len(first.found) >= 5
    assert "FAILED" in first.tests.values()
    assert "cross-test" in first.text
    for order in ("reversed", "1", "2"):
        assert not differs(first, suite.run(ORDER=order))


@pytest.mark.parametrize("split", ["-n2", "-n4 --dist=worksteal", "-n2 --dist=loadscope", "-n2 --dist=loadfile"])
def test_the_split_over_workers(suite: Suite, split: str) -> None:
    fill(suite)
    first = suite.run()
    assert not differs(first, suite.run(*split.split(), plugins=("xdist",)))


def test_every_order_of_four_edges(suite: Suite) -> None:
    suite.write(
        conftest=ORDERS,
        test_it="""
        import bank

        def test_ab(): bank.first(bank.Ledger(), bank.Audit())
        def test_ba(): bank.first(bank.Audit(), bank.Ledger())
        def test_bc(): bank.first(bank.Audit(), bank.Cache())
        def test_ca(): bank.first(bank.Cache(), bank.Ledger())
        """,
    )
    first = suite.run()
    assert len(first.found) == 2
    assert not differs(first, suite.run(ORDER="reversed"))
    assert not differs(first, suite.run("-n2", plugins=("xdist",)))


def test_what_a_crashed_worker_had_found_survives(suite: Suite) -> None:
    suite.write(
        test_it="""
        import os
        import bank, ctxcheck

        @ctxcheck.atomic("softirq")
        def test_finds():
            sleeps()

        @ctxcheck.might_sleep
        def sleeps():
            pass

        def test_crashes():
            os._exit(3)
        """
    )
    done = suite.run("-n1", plugins=("xdist",))
    assert done.status == 1
    assert "no lock data from gw0: it crashed" in done.text
    lines = [line for file in (suite.path / ".ctxcheck").glob("*.jsonl") for line in file.read_text().splitlines()]
    assert any('"CTX101"' in line and "test_it.py::test_finds" in line for line in lines)


SLOW = """
import asyncio, threading, time

lock = threading.Lock()

def test_thread():
    with lock:
        time.sleep(0.0001)

def test_loop():
    async def main():
        with lock:
            pass
    asyncio.run(main())
"""


@pytest.mark.parametrize("options", [(), ("test_slow.py::test_loop", "test_slow.py::test_thread"), ("-n", "2")])
def test_a_lock_that_one_test_holds_for_long_and_another_takes_on_a_loop(
    suite: Suite, options: tuple[str, ...]
) -> None:
    suite.write(test_slow=SLOW)
    found = suite.run(*options, plugins=("xdist",) if "-n" in options else ())
    assert found.status == 1
    assert "FAILED" not in found.tests.values()
    seen = "the slow call was seen in test_slow.py::test_thread, the acquire in test_slow.py::test_loop"
    assert seen in " ".join(found.text.split())


def test_that_nothing_was_checked_is_so_for_any_split(suite: Suite) -> None:
    suite.write(test_it="def test_one():\n    pass\n\ndef test_another():\n    pass\n")
    for how in ([], ["-n2"]):
        done = suite.run("--ctxcheck-strict", *how, plugins=("xdist",))
        assert done.status == 1
        assert "nothing was checked" in done.text
