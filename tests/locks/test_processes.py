"""``multiprocessing.Lock`` and ``RLock`` under ``ctxcheck.install()``."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROLOGUE = """
import multiprocessing, sys, threading
import ctxcheck

def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

def rules(session):
    return [(v.rule, v.grade, v.locks) for v in session.violations]
"""


def run(code: str, tmp_path: Path) -> str:
    script = tmp_path / "program.py"
    script.write_text(PROLOGUE + textwrap.dedent(code))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CTXCHECK")}
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=environment, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_it_has_its_place_in_the_order_of_locks(tmp_path: Path) -> None:
    output = run(
        """
        ctxcheck.install()
        with ctxcheck.checking(owners="observed") as session:
            shared, own = multiprocessing.Lock(), threading.Lock()
            def one():
                with shared, own:
                    pass
            def two():
                with own:
                    shared.acquire()
                    shared.release()
            def three():
                with own:
                    assert shared.acquire(False)
                    shared.release()
            in_thread(one)
            in_thread(three)
            assert not session.violations
            in_thread(two)
        print(rules(session))
        """,
        tmp_path,
    )
    assert output == "[('CTX001', 'possible', ('own', 'shared'))]\n"


def test_the_real_ones_come_back_and_nothing_is_imported_for_a_program_that_needs_none(tmp_path: Path) -> None:
    output = run(
        """
        assert "multiprocessing.synchronize" not in sys.modules
        ctxcheck.install()
        assert "multiprocessing.synchronize" not in sys.modules
        made = multiprocessing.Lock()
        import multiprocessing.synchronize as s
        ours = s.Lock, s.RLock
        assert type(made) is ours[0]
        ctxcheck.uninstall()
        assert isinstance(made, s.Lock) and s.Lock is not ours[0] and s.RLock is not ours[1]
        assert type(multiprocessing.Lock()) is s.Lock
        ctxcheck.install()
        assert (s.Lock, s.RLock) == ours
        ctxcheck.uninstall()
        # an install that is over before the import leaves no trace
        print(any(type(f).__module__.startswith("ctxcheck") for f in sys.meta_path))
        """,
        tmp_path,
    )
    assert output == "False\n"


@pytest.mark.parametrize("checked", [False, True])
def test_the_interface_is_the_real_ones(tmp_path: Path, checked: bool) -> None:
    output = run(
        f"""
        import contextlib, multiprocessing.synchronize as s
        real = [s.Lock, s.RLock]
        ctxcheck.install()
        def of(make):
            context = multiprocessing.get_context("fork")
            lock, seen = make(ctx=context), []
            def note(what, *args, **kwargs):
                try:
                    seen.append(getattr(lock, what)(*args, **kwargs))
                except Exception as error:
                    seen.append((type(error).__name__, str(error)))
            note("release")
            for args in [(), (False,), (True, 0.001), (True, 0), (True, -1), (False, 5)]:
                note("acquire", *args)
            note("acquire", block=False)
            note("acquire", timeout=0)
            note("acquire", "yes", "no")
            note("__repr__")
            for _ in range(8):
                note("release")
            with lock as taken:
                seen.append(taken)
                note("__repr__")
            note("__repr__")
            note("acquire")
            in_thread(lambda: note("acquire", False))
            in_thread(lambda: note("release"))
            seen.append(isinstance(lock, type(lock)))
            return seen
        with (ctxcheck.checking(select=["CTX9"]) if {checked} else contextlib.nullcontext()):
            for name, make in zip(("Lock", "RLock"), real):
                ours, theirs = of(getattr(s, name)), of(make)
                assert ours == theirs, (name, ours, theirs)
        print("same")
        """,
        tmp_path,
    )
    assert output == "same\n"


def test_a_re_acquire_is_possible_never_certain_since_another_process_may_release_it(tmp_path: Path) -> None:
    output = run(
        """
        ctxcheck.install()
        with ctxcheck.checking(deadlock_after=0.05) as session:
            context = multiprocessing.get_context("fork")
            lock = context.Lock()
            with lock:
                child = context.Process(target=lock.release)
                child.start()
                lock.acquire()
                child.join()
            assert session.held_locks() == [], session.held_locks()
            assert lock.acquire(False)
            assert session.held_locks() == ["lock"]
            lock.release()
        assert not [v for v in session.violations if v.grade == "certain"], session.violations
        print("fine")
        """,
        tmp_path,
    )
    assert output == "fine\n"


def test_an_rlock_is_re_entered(tmp_path: Path) -> None:
    output = run(
        """
        ctxcheck.install()
        with ctxcheck.checking() as session:
            lock, other = multiprocessing.RLock(), threading.Lock()
            with lock:
                with other:
                    with lock:
                        assert session.held_locks() == ["lock", "other"]
            assert session.held_locks() == []
        print(rules(session))
        """,
        tmp_path,
    )
    assert output == "[]\n"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_get_the_real_ones_and_pools_queues_and_conditions_work(tmp_path: Path, method: str) -> None:
    output = run(
        f"""
        def child(lock, rlock, queue, condition):
            with lock, rlock:
                queue.put(type(lock).__module__)
            with condition:
                condition.notify()

        if __name__ == "__main__":
            ctxcheck.install()
            with ctxcheck.checking() as session:
                context = multiprocessing.get_context("{method}")
                lock, rlock, queue, condition = context.Lock(), context.RLock(), context.Queue(), context.Condition()
                with condition:
                    process = context.Process(target=child, args=(lock, rlock, queue, condition))
                    process.start()
                    assert condition.wait(60)
                where = queue.get()
                process.join()
                assert process.exitcode == 0
                # a forked child shares the very object; another one is sent it
                assert where == ("multiprocessing.synchronize" if "{method}" == "spawn" else type(lock).__module__)
                with context.Pool(2) as pool:
                    assert pool.map(abs, [-1, -2]) == [1, 2]
                value = context.Value("i", 3)
                with value.get_lock():
                    value.value += 1
            print(rules(session))
        """,
        tmp_path,
    )
    assert output == "[]\n"


def test_what_is_out_of_scope_is_the_real_one(tmp_path: Path) -> None:
    output = run(
        """
        from ctxcheck.locks import scope
        ctxcheck.install()
        scope.set_scope([], ["__main__"])
        import multiprocessing.synchronize as s
        print(type(multiprocessing.Lock()) is s.Lock, type(multiprocessing.Lock()).__module__)
        """,
        tmp_path,
    )
    assert output == "False multiprocessing.synchronize\n"


def test_a_barrier_of_processes() -> None:
    output = subprocess.run(
        [sys.executable, "-c", """
import ctxcheck
ctxcheck.install()
import multiprocessing
context = multiprocessing.get_context("fork")
barrier = context.Barrier(2)
with ctxcheck.checking() as session:
    process = context.Process(target=barrier.wait)
    process.start(); barrier.wait(); process.join()
print(process.exitcode, session.violations)
"""], capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (output.stdout, output.stderr) == ("0 []\n", "")


def test_a_child_doesnt_hold_what_its_parent_holds() -> None:
    output = subprocess.run(
        [sys.executable, "-c", """
import ctxcheck
ctxcheck.install()
import multiprocessing, os
context = multiprocessing.get_context("fork")
with ctxcheck.checking() as session:
    lock, other = context.RLock(), ctxcheck.Lock()
    def child():
        with other: assert session.held_locks() == [session.held_locks()[0]], session.held_locks()
        print([v.rule for v in session.violations], flush=True)
    with lock:
        process = context.Process(target=child)
        process.start(); process.join()
print(process.exitcode, session.violations)
"""], capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (output.stdout, output.stderr) == ("[]\n0 []\n", "")
