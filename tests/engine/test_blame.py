"""Circles that the standard library makes of its own locks are nobody's who runs a program; all others are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ctxcheck.engine.blame import package_of

SET_UP = """
import logging
import logging.config
import threading

log = logging.getLogger("somebody")

def configure():
    logging.config.dictConfig({
        "version": 1, "handlers": {"h": {"class": "logging.StreamHandler"}}, "root": {"handlers": ["h"]},
    })
"""


def found(tmp_path: Path, program: str) -> list[tuple[str, tuple[str, ...]]]:
    """The rule and the locks of each finding in a program."""
    path = tmp_path / "program.py"
    path.write_text(SET_UP + textwrap.dedent(program))
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "ctxcheck", "run", "--owners", "assumed", "--exit-zero"]
    done = subprocess.run(
        [*command, "--output", f"json:{report}", str(path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(v["rule"], tuple(v["locks"])) for v in json.loads(report.read_text())["violations"]]


def test_logging_is_configured_twice_and_shut_down(tmp_path: Path) -> None:
    assert found(tmp_path, "for _ in range(3): configure()\nlogging.shutdown()") == []


def test_a_handler_that_logs_while_another_thread_configures(tmp_path: Path) -> None:
    program = """
    class Handler(logging.StreamHandler):
        def emit(self, record):
            logging.getLogger(f"{record.name}.child")

    log.addHandler(Handler())
    log.warning("something")
    configure()
    """
    assert [rule for rule, _ in found(tmp_path, program)] == ["CTX001"]


def test_who_takes_a_handlers_lock_himself(tmp_path: Path) -> None:
    program = """
    for _ in range(2):
        handler = logging.StreamHandler()
        configure()
        handler.acquire()
        handler.close()
        handler.release()
    """
    assert [rule for rule, _ in found(tmp_path, program)] == ["CTX001"]


def test_conditions_of_the_programs_own_are_taken_by_the_librarys_code(tmp_path: Path) -> None:
    program = """
    one, other = threading.Condition(), threading.Condition()
    with one:
        with other: pass
    with other:
        with one: pass
    """
    assert [rule for rule, _ in found(tmp_path, program)] == ["CTX001"]


def test_the_library_nests_locks_of_one_class(tmp_path: Path) -> None:
    program = """
    from concurrent.futures import ThreadPoolExecutor, as_completed, wait
    from logging.handlers import MemoryHandler
    def handler(*args): return logging.StreamHandler() if not args else MemoryHandler(1, target=args[0])
    log.addHandler(handler(handler()))
    log.error("something")
    with ThreadPoolExecutor(2) as pool:
        wait([pool.submit(pow, 2, n) for n in range(3)])
    """
    assert found(tmp_path, program) == []


def test_a_handler_of_the_programs_own_hands_on(tmp_path: Path) -> None:
    program = """
    class Handler(logging.Handler):
        def __init__(self, target=None):
            super().__init__()
            self.target = target
        def emit(self, record):
            if self.target is not None: self.target.handle(record)

    log.addHandler(Handler(Handler()))
    log.error("something")
    """
    assert [rule for rule, _ in found(tmp_path, program)] == ["CTX003"]


@pytest.mark.parametrize(
    ("filename", "package"),
    [
        (os.__file__, "os"),
        (os.path.join(os.path.dirname(os.__file__), "logging", "config.py"), "logging"),
        (os.path.join(os.path.dirname(os.__file__), "test", "lock_tests.py"), ""),
        (os.path.join(os.path.dirname(os.__file__), "site-packages", "logging.py"), ""),
        ("<frozen importlib._bootstrap>", "importlib"),
        ("<string>", ""),
        (__file__, ""),
    ],
)
def test_what_is_the_librarys(filename: str, package: str) -> None:
    assert package_of(filename) == package
