"""``CTXCHECK=0``, and what importing the markers loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ctxcheck

SOURCE = str(Path(ctxcheck.__file__).parents[1])


def run(program: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CTXCHECK")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**kept, "PYTHONPATH": SOURCE, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


SWITCHED_OFF = """
import threading
from ctxcheck import fastpath
from ctxcheck.engine.validator import Validator
from ctxcheck.markers import *

def function(self, a, b): ...
async def coroutine(self, a, b): ...
def generator(self, a, b): yield

for f in (function, coroutine, generator, print):
    for marker in (
        might_sleep, might_sleep(), might_sleep("why"), atomic, atomic("why"), nonblocking,
        allow("CTX101", reason="r"), range_start("r"), range_end("other", key=len),
        within_range("r"), requires_lock(threading.Lock()), might_lock(lambda *_: 3),
        context("c"), context_start("d"), context_end("e"), requires("c"), forbids("c"), thread_role("ui"),
    ):
        assert marker(f) is f
static = staticmethod(function)
assert might_sleep(static) is static

found = []
fastpath.activate(Validator(found.append, found.append))
section = atomic("why")
with section, might_sleep(), allow("CTX101", reason="r"), range_("r"):
    might_sleep()
    might_sleep("why")
    assert_held(threading.RLock())
    assert_not_held(threading.RLock())
    might_lock(threading.Lock())
    assert fastpath.current().cur is fastpath.current().root
bracket = range_("r")
bracket.end()
inside = context("c", forbids=("sleep",))
with inside, ambient(), thread_role("ui"):
    thread_role("ui")
    requires("nowhere")
    forbids("c")
    assert_context("nowhere")
    assert_no_context("c")
    inside.exit()
    inside.enter()
    entry = inside.open()
    assert not entry.mine
    entry.close()
    thread_role("ui").enter().exit()
    assert fastpath.current().cur is fastpath.current().root
assert found == []

for wrong in (
    lambda: might_sleep(3), lambda: atomic(int), lambda: range_start(function), lambda: range_start(3),
    lambda: range_start("r", span=("a", "c"))(function), lambda: requires_lock("x")(function),
    lambda: allow("CTX101", reason=""), lambda: assert_held(3), lambda: might_lock(3), lambda: range_("r", span=(1, 1)),
    lambda: context(3), lambda: requires(), lambda: forbids(function), lambda: thread_role(""), lambda: ambient(3),
):
    try:
        wrong()
    except (TypeError, ValueError):
        continue
    raise AssertionError(wrong)
print("done")
"""


def test_off_for_the_whole_process() -> None:
    assert run(SWITCHED_OFF, CTXCHECK="0") == "done\n"


@pytest.mark.parametrize("value", ["1", "", "00"])
def test_any_other_value_leaves_them_on(value: str) -> None:
    program = "from ctxcheck.markers import atomic\ndef f(): ...\nprint(atomic(f) is f)"
    assert run(program, CTXCHECK=value) == "False\n"


def test_read_once() -> None:
    program = """
import os
import ctxcheck.markers
os.environ["CTXCHECK"] = "0"
def f(): ...
print(ctxcheck.markers.atomic(f) is f)
"""
    assert run(program) == "False\n"


def test_imports() -> None:
    program = """
import sys
import threading, dataclasses
before = set(sys.modules)
import ctxcheck.markers as m

@m.range_start("r", key="a", span=("a", "b"))
def f(a, b): ...

@m.atomic
async def g(): ...

print(sorted({name.partition(".")[0] for name in set(sys.modules) - before} - {"ctxcheck"}))
"""
    loaded = set(run(program).strip("[]\n").replace("'", "").split(", "))
    assert not loaded & {"inspect", "asyncio", "wrapt", "structlog", "logging", "typing_extensions", "dis", "difflib"}
