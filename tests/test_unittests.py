"""`ctxcheck run -m unittest`: what threads, tasks and jobs show is said to be of the test that sent them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctxcheck.engine import behalf

SUITE = """
import asyncio, threading, unittest
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(1)

class Pair:
    def __init__(self, name):
        import ctxcheck
        self.a, self.b = ctxcheck.Lock(name=f"{name}.a"), ctxcheck.Lock(name=f"{name}.b")
    def forth(self):
        with self.a, self.b: pass
    def back(self):
        with self.b, self.a: pass

def in_thread(work):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

async def as_task(work):
    async def task():
        work()
    await asyncio.create_task(task())

threads, jobs, tasks, fixtures, modules, nested, left, later = map(
    Pair, ("threads", "jobs", "tasks", "fixtures", "modules", "nested", "left", "later")
)
loop = asyncio.new_event_loop()

def setUpModule():
    in_thread(modules.forth)

def tearDownModule():
    in_thread(modules.back)
    pool.shutdown()
    loop.close()

class TestA(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        in_thread(fixtures.forth)

    @classmethod
    def tearDownClass(cls):
        in_thread(fixtures.back)

    def test_forth(self):
        in_thread(threads.forth)
        pool.submit(jobs.forth).result()
        in_thread(lambda: in_thread(nested.forth))

    def test_leave(self):
        async def main():
            self.addCleanup(lambda: None)
            async def work():
                await asyncio.sleep(0)
                left.forth()
            type(self).task = loop.create_task(work())
        loop.run_until_complete(main())

    def test_run_what_was_left(self):
        loop.run_until_complete(type(self).task)

class TestB(unittest.IsolatedAsyncioTestCase):
    async def test_back(self):
        in_thread(threads.back)
        pool.submit(jobs.back).result()
        await asyncio.to_thread(lambda: in_thread(nested.back))
        await as_task(tasks.back)
        left.back()

    async def test_forth(self):
        await as_task(tasks.forth)

    def setUp(self):
        in_thread(later.forth)

    async def asyncTearDown(self):
        await as_task(later.back)

if __name__ == "__main__":
    unittest.main()
"""

TESTS = {
    "threads": {"TestA.test_forth", "TestB.test_back"},
    "jobs": {"TestA.test_forth", "TestB.test_back"},
    "nested": {"TestA.test_forth", "TestB.test_back"},
    "tasks": {"TestB.test_forth", "TestB.test_back"},
    # the task is of the test that created it
    "left": {"TestA.test_leave", "TestB.test_back"},
    "fixtures": {"TestA.setUpClass", "TestA.tearDownClass"},
    "modules": {"setUpModule", "tearDownModule"},
    "later": {"TestB.test_back"},
}


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize(
    ("target", "module"),
    [(("-m", "unittest", "-v", "test_pairs"), "test_pairs"), (("test_pairs.py", "-v"), "__main__")],
)
def test_a_finding_names_the_tests_that_sent_its_threads_tasks_and_jobs(
    tmp_path: Path, target: tuple[str, ...], module: str
) -> None:
    (tmp_path / "test_pairs.py").write_text(SUITE)
    outputs = ("--output", "json:found.json", "--output", "text:found.txt", "--output", "sarif:found.sarif")
    done = run(tmp_path, "ctxcheck", "run", "--owners", "assumed", *outputs, *target)
    assert done.returncode == 1, done.stderr
    document: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    found = {v["locks"][0].partition(".")[0]: v for v in document["violations"] if v["rule"] == "CTX001"}
    assert {name: set(v["tests"]) for name, v in found.items()} == {
        name: {f"{module}.{test}" for test in tests} for name, tests in TESTS.items()
    }
    words = " ".join((tmp_path / "found.txt").read_text().replace("  = ", "").split())
    assert f"seen in `{module}.TestA.tearDownClass` and `{module}.TestA.setUpClass`" in words
    results = json.loads((tmp_path / "found.sarif").read_text())["runs"][0]["results"]
    assert [r["properties"]["tests"] for r in results] == [v["tests"] for v in document["violations"]]
    assert "\nOK\n" in done.stderr


def _told(stderr: str) -> list[str]:
    """What the suite says, but for how long it took."""
    lines = stderr.partition("ctxcheck: ")[0].splitlines()
    return [re.sub(r" in [0-9.]+s", "", line) for line in lines if "DeprecationWarning" not in line]


WRONG = """
import unittest
class TestWrong(unittest.TestCase):
    def test_wrong(self):
        self.assertEqual(1, 2)
    def test_error(self):
        raise ValueError("as it was")
    @unittest.skip("not now")
    def test_skipped(self): ...
    @unittest.expectedFailure
    def test_expected(self):
        self.fail()
    def test_sub(self):
        for n in range(2):
            with self.subTest(n=n):
                self.assertEqual(n, 0)
class TestSetUp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        raise RuntimeError("no class")
    def test(self): ...
class TestOdd(unittest.TestCase):
    def run(self, result=None):
        self._testMethodName = "test_other"
        return super().run(result)
    def test_one(self): ...
    def test_other(self): ...
"""


def test_failures_errors_and_their_tracebacks_are_as_without(tmp_path: Path) -> None:
    (tmp_path / "test_wrong.py").write_text(WRONG)
    checked = run(tmp_path, "ctxcheck", "run", "-m", "unittest", "-v", "test_wrong")
    alone = run(tmp_path, "unittest", "-v", "test_wrong")
    assert _told(checked.stderr) == _told(alone.stderr)
    assert checked.returncode == alone.returncode


def test_nothing_is_left_and_nothing_is_wrapped_by_a_program_without_tests(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import sys\nassert 'unittest' not in sys.modules\n"
        "from ctxcheck.engine import behalf\nassert not behalf.active\n"
        "import unittest\nassert unittest.TestCase.run.__wrapped__\nassert not behalf.active\n"
        "class T(unittest.TestCase):\n    def runTest(self): self.seen = behalf.now()\n"
        "test = T()\ntest.run()\nassert test.seen == '__main__.T.runTest', test.seen\nassert behalf.now() == ''\n"
    )
    done = run(tmp_path, "ctxcheck", "run", "app.py")
    assert done.returncode == 0, done.stderr
    assert not behalf.active
