"""Reports on waits: the whole text for each way to wait, and what it says in each case."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctxcheck
from ctxcheck.engine.classes import REGISTRY

from . import goldens
from .programs import Run, labels, places, run
from .test_compose_goldens import shown

HEAD = """
__name__ = "bank"
import concurrent.futures, queue, threading
import ctxcheck

lock, other = lock("bank:Ledger.lock"), lock("bank:other")
ran = ctxcheck.Event(name="ran")

"""

JOIN = """
def audit():
    with lock:
        pass
    ran.set()

def stop():
    with lock:
        thread.join()

thread = threading.Thread(target=audit, name="auditor")
thread.start()
ran.wait()
stop()
"""

PROGRAMS: dict[str, str] = {
    "join": JOIN,
    "join_timed": JOIN.replace("join()", "join(60)"),
    "future": """
        def fetch():
            with lock:
                pass
            ran.set()

        def main():
            with concurrent.futures.ThreadPoolExecutor(2, "pool") as pool:
                future = pool.submit(fetch)
                ran.wait()
                with lock:
                    future.result(30)

        main()
    """,
    "shutdown": """
        def fetch():
            with lock:
                pass

        def main():
            pool = concurrent.futures.ThreadPoolExecutor(2, "pool")
            pool.submit(fetch).result()
            lock.acquire()
            pool.shutdown()
            lock.release()

        main()
    """,
    "pool": """
        def fetch():
            return 1

        def total(pool):
            return pool.submit(fetch).result()

        def main():
            with concurrent.futures.ThreadPoolExecutor(2, "pool") as pool:
                pool.submit(total, pool).result()

        main()
    """,
    "event": """
        ready = ctxcheck.Event(name="ready")

        def start():
            with lock:
                ready.set()

        def use():
            with lock:
                ready.wait()

        in_thread(start)
        use()
    """,
    "condition": """
        changed = ctxcheck.Condition(name="changed")

        def change():
            with lock:
                with changed:
                    changed.notify_all()

        def see():
            with lock:
                with changed:
                    changed.wait(0.001)

        in_thread(change)
        see()
    """,
    "barrier": """
        both = ctxcheck.Barrier(2, name="both")

        def arrive():
            with lock:
                pass
            both.wait()

        def meet():
            with lock:
                both.wait()

        thread = threading.Thread(target=arrive, name="other")
        thread.start()
        while not both.n_waiting:
            pass
        meet()
        thread.join()
    """,
    "queue_join": """
        def consume():
            while work.get():
                with lock:
                    pass
                work.task_done()

        def flush():
            with lock:
                work.join()

        def main():
            global work
            work = queue.Queue()
            thread = threading.Thread(target=consume, name="consumer")
            thread.start()
            work.put("item")
            work.join()
            flush()
            work.put("")
            thread.join()

        main()
    """,
    "three": """
        def audit():
            with other:
                pass
            ran.set()

        def stop():
            with lock:
                thread.join()

        def between():
            with other:
                with lock:
                    pass

        thread = threading.Thread(target=audit, name="auditor")
        thread.start()
        ran.wait()
        between()
        stop()
    """,
}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(REGISTRY, "_classes", {})  # where the classes were first made is part of the reports
    ctxcheck.install()
    yield
    ctxcheck.uninstall()


def program(tmp_path: Path, name: str) -> Run:
    return run(tmp_path, HEAD + textwrap.dedent(PROGRAMS[name]), file="app.py")


@pytest.mark.parametrize("name", PROGRAMS)
def test_report(tmp_path: Path, name: str) -> None:
    violation = program(tmp_path, name).of("CTX006")[-1]
    goldens.check(f"program_ctx006_{name}", shown(violation))


def test_the_wait_comes_first_whoever_was_seen_last(tmp_path: Path) -> None:
    found = program(tmp_path, "join")
    (said,) = found.of("CTX006")
    (settled,) = [v for v in found.verdict() if v.rule == "CTX006"]
    assert said == settled
    assert places(said) == [
        ("now", "app.py", 16, "stop"),
        ("held_now", "app.py", 15, "stop"),
        ("then", "app.py", 10, "audit"),
        ("held_then", "app.py", 9, "audit"),
    ]
    assert labels(said) == [
        "thread 'MainThread' joins thread `audit()` here",
        "while holding `Ledger.lock`, acquired here",
        "acquires `Ledger.lock` here",
        "thread `audit()` runs this",
    ]
    assert said.scenario is not None
    assert said.scenario.columns == ("thread A: stop()", "thread B: audit()")
    assert [(s.column, s.action, s.waits_for) for s in said.scenario.steps] == [
        (0, "lock(Ledger.lock)", ""),
        (0, "join(thread audit())", "thread B: audit()"),
        (1, "lock(Ledger.lock)", "thread A: stop()"),
    ]


def test_how_sure_it_is(tmp_path: Path) -> None:
    (timed,) = program(tmp_path, "join_timed").of("CTX006")
    assert (timed.grade, timed.message) == (
        "unlikely",
        "thread `audit()` is joined under `Ledger.lock`, which it takes (unlikely: a wait has a timeout)",
    )
    (fails,) = program(tmp_path, "future").of("CTX006")
    assert fails.grade == "possible"
    assert fails.scenario is not None
    assert fails.scenario.outcome == "both wait until one fails"
