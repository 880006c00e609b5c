"""Beside the tools that people run."""

from __future__ import annotations

import json

import pytest

from tests.pytest_plugin.conftest import APART, BOTH, ORDERS, Suite


def names(tests: dict[str, str]) -> dict[str, str]:
    return {name.partition("::")[2]: outcome for name, outcome in tests.items()}


ASYNC = """
import asyncio
import bank, pytest
{more}

class Lock:
    def __init__(self):
        self.lock = asyncio.Lock()

async def first(a, b):
    async with a.lock:
        async with b.lock:
            pass

@pytest.fixture
async def pair():
    yield Lock(), bank.Ledger()

{mark}
async def test_both(pair):
    class Other(Lock): pass
    a, b = pair[0], Other()
    await first(a, b)
    await first(b, a)

{mark}
async def test_one(pair):
    await first(Lock(), Lock.__new__(Lock)) if False else None
    with pair[1].lock:
        pass

{mark}
async def test_holds_over_an_await():
    with bank.Audit().lock:
        await asyncio.sleep(0)
"""


@pytest.mark.parametrize(
    ("plugins", "mark", "args"),
    [
        (("pytest_asyncio.plugin",), "@pytest.mark.asyncio", ("-o", "asyncio_mode=auto")),
        (("anyio.pytest_plugin",), "@pytest.mark.anyio", ()),
    ],
)
def test_tests_of_asyncio(suite: Suite, plugins: tuple[str, ...], mark: str, args: tuple[str, ...]) -> None:
    more = "@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n" if "anyio" in mark else ""
    suite.write(test_it=ASYNC.format(mark=mark, more=more))
    args = (*args, "-o", "asyncio_default_fixture_loop_scope=function") if "asyncio_mode=auto" in args else args
    done = suite.run(*args, plugins=plugins)
    assert names(done.tests) == {
        "test_both": "FAILED", "test_one": "PASSED", "test_holds_over_an_await": "FAILED",
    }, done.text  # fmt: skip
    assert suite.run(*args, plugins=plugins, on=False).status == 0


def test_a_loop_that_tests_share_blames_the_one_whose_task_it_is(suite: Suite) -> None:
    suite.write(
        test_it="""
        import asyncio
        import bank, pytest

        LOOP = asyncio.new_event_loop()
        TASKS = []

        async def later(event):
            await event.wait()
            bank.first(bank.Ledger(), bank.Audit())

        async def start():
            event = asyncio.Event()
            TASKS.append((event, asyncio.create_task(later(event))))
            await asyncio.sleep(0)

        def test_starts():
            LOOP.run_until_complete(start())

        def test_finishes():
            bank.second(bank.Audit(), bank.Ledger())
            event, task = TASKS.pop()
            event.set()
            LOOP.run_until_complete(task)
            LOOP.close()
        """
    )
    done = suite.run()
    assert names(done.tests) == {"test_starts": "PASSED", "test_finishes": "PASSED"}
    assert "was seen in <background> of test_it.py::test_starts" in done.text


@pytest.mark.parametrize("order", ["", "reversed"])
def test_tests_that_share_a_task_of_anyios(suite: Suite, order: str) -> None:
    suite.write(
        conftest=ORDERS,
        test_it="""
        import bank, pytest

        @pytest.fixture(scope="module")
        def anyio_backend():
            return "asyncio"

        @pytest.fixture(scope="module")
        async def shared(anyio_backend):
            bank.first(bank.Ledger(), bank.Cache())
            yield
            bank.first(bank.Ledger(), bank.Cache())

        @pytest.mark.anyio
        async def test_both(shared):
            bank.first(bank.Ledger(), bank.Audit())
            bank.second(bank.Audit(), bank.Ledger())

        @pytest.mark.anyio
        async def test_one(shared):
            bank.first(bank.Ledger(), bank.Audit())

        @pytest.mark.anyio
        async def test_against_the_fixture(shared):
            bank.second(bank.Cache(), bank.Ledger())
        """,
    )
    done = suite.run(plugins=("anyio.pytest_plugin",), ORDER=order)
    assert names(done.tests) == {
        "test_against_the_fixture": "PASSED",
        "test_both": "FAILED",
        "test_one": "PASSED",
    }, done.text
    assert "`Cache.lock` -> `Ledger.lock` was seen in test_it.py::test_against_the_fixture" in done.text
    assert "`Ledger.lock` -> `Cache.lock` was seen in <fixture test_it.py::shared>" in done.text
    assert done.text.count("how it deadlocks:") == 2


def test_unittest(suite: Suite) -> None:
    suite.write(
        test_it="""
        import asyncio, unittest
        import bank

        class TestPlain(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.a, cls.b = bank.Ledger(), bank.Audit()

            def setUp(self):
                bank.first(self.a, self.b)

            def test_one(self):
                pass

            def test_both(self):
                bank.second(self.b, self.a)

            def test_subtests(self):
                for n in range(2):
                    with self.subTest(n=n):
                        pass

        class TestAsync(unittest.IsolatedAsyncioTestCase):
            async def test_both(self):
                bank.first(bank.Audit(), bank.Cache())
                await asyncio.to_thread(bank.first, bank.Cache(), bank.Audit())

            async def test_one(self):
                bank.first(bank.Audit(), bank.Cache())
        """
    )
    done = suite.run()
    assert names(done.tests) == {
        "TestAsync::test_both": "FAILED",
        "TestAsync::test_one": "PASSED",
        "TestPlain::test_both": "FAILED",
        "TestPlain::test_one": "PASSED",
        "TestPlain::test_subtests": "PASSED",
    }, done.text
    assert "cross-test" not in done.text


def test_coverage_is_the_same(suite: Suite) -> None:
    suite.write(test_it=BOTH, test_apart=APART)

    def covered(**how: bool) -> object:
        path = suite.path / "coverage.json"
        suite.run("--cov=bank", "--cov-branch", f"--cov-report=json:{path}", plugins=("pytest_cov.plugin",), **how)
        files = json.loads(path.read_text())["files"]
        return {name: (f["executed_lines"], f.get("executed_branches")) for name, f in files.items()}

    assert covered(on=True) == covered(on=False)


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_timeouts(suite: Suite, method: str) -> None:
    suite.write(
        test_it="""
        import threading
        import bank

        def test_hangs():
            bank.Ledger().lock
            threading.Event().wait()

        def test_after():
            bank.first(bank.Ledger(), bank.Audit())
        """
    )
    done = suite.run("--timeout=1", f"--timeout-method={method}", plugins=("pytest_timeout",))
    assert done.status == 1
    assert "Timeout" in done.text
    if method == "signal":
        assert names(done.tests) == {"test_hangs": "FAILED", "test_after": "PASSED"}


def test_a_timeout_adds_no_lock_of_its_own(suite: Suite) -> None:
    suite.write(test_it="def test_it(): pass\n")
    done = suite.run("--timeout=60", "--timeout-method=thread", plugins=("pytest_timeout",))
    assert "ctxcheck: no violations" in done.text or "nothing was checked" in done.text
    assert done.status == 0


def test_randomly(suite: Suite) -> None:
    suite.write(test_it=BOTH, test_apart=APART)
    first = suite.run()
    for seed in ("1", "2", "3"):
        again = suite.run("-p", "no:cacheprovider", "--randomly-seed", seed, plugins=("pytest_randomly",))
        assert again.verdict() == first.verdict()


def test_rerun_failures(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank
        RUNS = []

        def test_both():
            a, b = bank.Ledger(), bank.Audit()
            bank.first(a, b)
            bank.second(b, a)

        def test_flaky():
            RUNS.append(None)
            if len(RUNS) == 1:
                a, b = bank.Ledger(), bank.Cache()
                bank.first(a, b)
                bank.second(b, a)
        """
    )
    done = suite.run("--reruns=2", plugins=("pytest_rerunfailures",))
    assert names(done.tests) == {"test_both": "FAILED", "test_flaky": "PASSED"}
    assert "3 rerun" in done.text


def test_hypothesis(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank
        from hypothesis import given, settings, strategies as st

        @settings(database=None, max_examples=30)
        @given(st.booleans())
        def test_both(swap):
            a, b = bank.Ledger(), bank.Audit()
            (bank.second(b, a) if swap else bank.first(a, b))

        @settings(database=None, max_examples=10)
        @given(st.booleans())
        def test_one(swap):
            bank.first(bank.Ledger(), bank.Audit())
        """
    )
    done = suite.run(plugins=("_hypothesis_pytestplugin",))
    assert names(done.tests) == {"test_both": "FAILED", "test_one": "PASSED"}
