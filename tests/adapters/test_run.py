"""Contexts and adapters, as a user meets them: real processes, exit statuses, last lines."""

from __future__ import annotations

from tests.conftest import Run

BANK = """
import sqlite3
import ctxcheck

@ctxcheck.might_sleep
def ask(): ...

db = sqlite3.connect(":memory:")
db.execute("create table t (x)")
db.execute("insert into t values (1)")
ask()
db.commit()
ask()
"""

SHOP = """
import ctxcheck

@ctxcheck.requires("transaction")
def save(): ...

with ctxcheck.context("transaction"):
    for _ in range(3):
        save()
"""


def test_an_adapter_is_asked_for(ctxcheck: Run) -> None:
    result = ctxcheck("run", "program.py", code=BANK)
    assert result.returncode == 0
    assert "no violations" in result.stdout
    result = ctxcheck("run", "--adapters", "sqlite3", "program.py", code=BANK)
    assert result.returncode == 1
    assert result.stdout.count("error[CTX106]") == 1
    assert "`ask` is called inside `sqlite3 transaction`, which forbids sleep calls" in result.stdout


def test_an_adapter_that_is_unknown(ctxcheck: Run) -> None:
    result = ctxcheck("run", "--adapters", "sqlite", "program.py", code=BANK)
    assert result.returncode == 2
    assert "ctxcheck: there is no adapter 'sqlite'; there are: sqlite3; did you mean 'sqlite3'?" in result.stdout


def test_marked_calls_count_as_something_that_was_checked(ctxcheck: Run) -> None:
    result = ctxcheck("run", "program.py", code=SHOP)
    assert result.returncode == 0
    assert result.stdout.endswith("ctxcheck: no violations; 2 contexts checked\n")


def test_a_thread_that_dies_with_a_context_open_is_told(ctxcheck: Run) -> None:
    code = """
import threading, ctxcheck
txn = ctxcheck.context("transaction")
threading.Thread(target=txn.enter, name="w").start()
"""
    result = ctxcheck("run", "program.py", code=code)
    assert result.returncode == 1
    assert "context left open: thread 'w' still had `transaction` open when it finished" in result.stdout
