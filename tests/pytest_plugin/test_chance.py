"""What could go by chance and mustn't: who comes first or last, when the collector runs, where a worker is."""

from __future__ import annotations

import json

import pytest

from tests.pytest_plugin.conftest import LEFT, ORDERS, Suite


def names(tests: dict[str, str]) -> dict[str, str]:
    return {name.partition("::")[2]: outcome for name, outcome in tests.items()}


LAST = """
import asyncio
import bank, pytest

KEPT, LOOP, TASKS = [], asyncio.new_event_loop(), []

@pytest.fixture(scope="session", autouse=True)
def served():
    yield
    bank.Cache()
    for event, task in TASKS:
        event.set()
        LOOP.run_until_complete(task)
    LOOP.close()

def test_guarded():
    gate, a, b = bank.Cache(), bank.Ledger(), bank.Audit()
    with gate.lock:
        bank.first(a, b)
    with gate.lock:
        bank.second(b, a)

def test_leaves_a_lock():
    KEPT.append(bank.Ledger())
    KEPT[0].lock.acquire()

def test_lets_go_of_it():
    KEPT.clear()

def test_leaves_a_task():
    async def later(event):
        await event.wait()
        bank.second(bank.Audit(), bank.Ledger())

    async def start():
        event = asyncio.Event()
        TASKS.append((event, asyncio.create_task(later(event))))
        await asyncio.sleep(0)

    bank.first(bank.Ledger(), bank.Audit())
    LOOP.run_until_complete(start())
"""


@pytest.mark.parametrize("order", ["", "reversed"])
def test_the_last_test_has_nothing_to_do_with_the_end_of_what_others_use(suite: Suite, order: str) -> None:
    suite.write(conftest=ORDERS, test_it=LAST)
    done = suite.run(ORDER=order)
    assert names(done.tests) == {
        "test_guarded": "PASSED",
        "test_leaves_a_lock": "ERROR",
        "test_lets_go_of_it": "PASSED",
        "test_leaves_a_task": "PASSED",
    }, done.text
    assert "was seen in <background> of test_it.py::test_leaves_a_task" in done.text
    assert [fingerprint.partition("-")[0] for fingerprint in done.found] == ["CTX001", "CTX303"]


def test_what_a_test_asks_for_is_not_asked_for_the_fixtures_that_it_is_the_first_to_use(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank, pytest

        @pytest.fixture(scope="module")
        def bad():
            a, b = bank.Ledger(), bank.Audit()
            bank.first(a, b)
            bank.second(b, a)

        @pytest.mark.ctxcheck(allow=["CTX001"], mode="raise", reason="its own")
        def test_allows(bad): pass

        @pytest.mark.no_ctxcheck(reason="its own")
        def test_off(bad): pass
        """
    )
    for one in ("allows", "off"):
        done = suite.run("-k", one)
        assert set(done.tests.values()) == {"PASSED"}, done.text
        assert (done.status, len(done.found)) == (1, 1), done.text


def test_texts(suite: Suite) -> None:
    suite.write(
        test_it="""
        import asyncio, gc, time, unittest
        import bank, ctxcheck, pytest

        @ctxcheck.might_sleep
        def nap(): pass

        @ctxcheck.atomic("softirq")
        def softirq(): nap()

        @pytest.fixture
        def held():
            with bank.Cache().lock:
                yield

        @pytest.fixture(scope="module")
        def more(): pass

        def test_context(held, more):
            softirq()

        def test_order():
            async def main():
                time.sleep(0.0001)
                softirq()
            asyncio.run(main())

        def test_name():
            with ctxcheck.SpinLock(name="spin"):
                nap()

        def test_collected():
            a = bank.Ledger()
            a.me = a
            a.lock.acquire()
            del a
            gc.collect()

        class TestFrames(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                a, b = bank.Ledger(), bank.Audit()
                bank.first(a, b)
                bank.second(b, a)

            async def test_it(self): pass
        """
    )
    done = suite.run()
    assert "    test " not in done.text
    assert "FAILED test_it.py::test_order - Failed: error[CTX101]" in done.text
    assert "with this name" in done.text
    assert "first created" not in done.text
    assert [f[:6] for f in done.found] == ["CTX001", *["CTX101"] * 2, "CTX103", "CTX303"]
    assert names(done.tests)["test_collected"] == "ERROR"
    assert "_pytest/" not in done.text
    assert "unittest/" not in done.text


@pytest.mark.parametrize("split", [(), ("-n2",)])
def test_what_accepts_a_finding_of_several_tests(suite: Suite, split: tuple[str, ...]) -> None:
    suite.write(
        test_it="""
        import bank, ctxcheck

        def test_here():
            with ctxcheck.allow("CTX001", reason="known"):
                bank.first(bank.Ledger(), bank.Audit())

        def test_there():
            bank.second(bank.Audit(), bank.Ledger())

        def test_idle():
            with ctxcheck.allow("CTX001", reason="idle"):
                pass
        """
    )
    done = suite.run("--ctxcheck-strict", *split, plugins=("xdist",) if split else ())
    assert done.status == 1
    assert "'known'" not in done.text
    assert done.text.count("accepted nothing: 'idle'") == 1
    report = json.loads((suite.path / "found.json").read_text())
    (found,) = report["violations"]
    assert (found["allowed_by"], found["allowed_at"]) == ("known", "test_it.py:4")
    assert not [c for c in report["graph"]["classes"] if "__channelexec__" in c["key"]]


def test_a_comment_that_stands_at_one_of_two_places_accepts_nothing(suite: Suite) -> None:
    suite.write(
        test_it="""
        import threading
        import bank

        def test_here():
            with bank.Ledger().lock:
                with bank.Audit().lock:  # ctxcheck: allow[CTX001] known
                    pass

        def without():
            with bank.Ledger().lock:
                with bank.Audit().lock:
                    pass

        def test_here_too():
            thread = threading.Thread(target=without)
            thread.start()
            thread.join()

        def test_there():
            bank.second(bank.Audit(), bank.Ledger())
        """
    )
    done = suite.run()
    assert done.status == 1
    assert "doesn't accept it" in " ".join(done.text.split())


@pytest.mark.parametrize("order", ["", "reversed"])
def test_that_some_test_nests_a_class_changes_no_other(suite: Suite, order: str) -> None:
    suite.write(
        conftest=ORDERS,
        test_it="""
        import bank

        def a_way(a, b):
            with a.lock:
                with b.lock:
                    pass

        def z_way(a, b):
            with a.lock:
                with b.lock:
                    pass

        def test_nests():
            with bank.Ledger().lock:
                with bank.Ledger().lock:
                    pass

        def test_both():
            a, b = bank.Ledger(), bank.Audit()
            z_way(a, b)
            a_way(a, b)  # the order is known by now
            bank.second(b, a)
        """,
    )
    done = suite.run(ORDER=order)
    assert names(done.tests)["test_both"] == "FAILED"
    assert "in z_way" in done.text
    assert "in a_way" not in done.text


@pytest.mark.parametrize("where", ["conftest", "test_it"])
def test_green_threads_are_refused_in_one_line(suite: Suite, where: str) -> None:
    (suite.path / "gevent").mkdir()
    (suite.path / "gevent" / "__init__.py").touch()
    (suite.path / "gevent" / "monkey.py").write_text("def patch_all(**kwargs): raise SystemExit('patched')\n")
    code = {
        "conftest": "from gevent import monkey\nmonkey.patch_all()\n",
        "test_it": """
        def test_first():
            try:
                from gevent import monkey
                monkey.patch_all()
            except Exception:
                pass

        def test_next(): pass
        """,
    }
    suite.write(**{"test_it": "def test_it(): pass", where: code[where]})
    done = suite.run()
    assert done.status == 4
    assert "gevent replaces threads with greenlets, and ctxcheck can't tell those apart: run the suite" in done.text
    assert "Traceback" not in done.text
    assert "patched" not in done.text.replace("monkey-patching", "").replace("monkey.patch_all", "")


def test_whether_the_collector_came_by_itself_says_nothing(suite: Suite) -> None:
    """What tests leave is collected before they are judged, in the process where they left it."""
    suite.write(test_it=LEFT, conftest=ORDERS)
    once = suite.run()
    assert once.found and once.status == 1 and "error[CTX004]" in once.text
    assert set(once.tests.values()) == {"PASSED"}
    assert suite.run(ORDER="reversed").verdict() == once.verdict()
    split = suite.run("-n", "2", plugins=("xdist",))
    assert (split.status, split.found) == (once.status, once.found)


def test_where_tests_switch_the_collector_off_it_stays_so(suite: Suite) -> None:
    suite.write(test_it=LEFT + "\n\ngc.disable()\n")
    done = suite.run()
    assert (done.status, done.found) == (0, [])
