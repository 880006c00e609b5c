"""Lines of files that were edited after they were recorded."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ctxcheck.merged
from ctxcheck.unchanged import Spot, fits
from tests.conftest import Run

SOURCE = """\
import functools

class Cache:
    @functools.lru_cache
    def get(self):
        with self.lock:
            return [x
                    for x in self.data]

    async def wait(self):
        call = lambda: 1
        async with self.lock:
            return call()

print(Cache)
"""
SPOTS = [
    Spot("<module>", 1, 15), Spot("Cache", 3, 4), Spot("Cache.get", 4, 6), Spot("Cache.get", 4, 8),
    Spot("Cache.get.<locals>.<listcomp>", 7, 8), Spot("Cache.wait", 10, 12),
    Spot("Cache.wait.<locals>.<lambda>", 11, 11),
]  # fmt: skip


def test_what_is_as_it_was_fits() -> None:
    assert fits(SOURCE, SPOTS)
    assert fits(SOURCE, [])
    assert fits(SOURCE.replace("return call()", "return call() + 1  # edited"), SPOTS)
    assert fits("def what(:", SPOTS)  # another version's syntax, say: nothing is known


@pytest.mark.parametrize("spot", [spot for spot in SPOTS if "<listcomp>" not in spot.function])
def test_what_stood_elsewhere_doesnt(spot: Spot) -> None:
    """An empty line above its own line is enough, wherever it stands."""
    lines = SOURCE.splitlines()
    edited = "\n".join([*lines[: spot.line - 1], "", *lines[spot.line - 1 :]])
    ast.parse(edited)
    assert not fits(edited, [spot])


def test_a_function_that_is_gone_or_has_another_name_doesnt() -> None:
    assert not fits(SOURCE.replace("def get", "def got"), SPOTS)
    assert not fits("", SPOTS)


def test_every_place_of_real_code_fits() -> None:
    text = Path(ctxcheck.merged.__file__).read_text("utf-8")
    spots: list[Spot] = []
    todo = [compile(text, "merged.py", "exec")]
    while todo:
        code = todo.pop()
        spots += [Spot(code.co_qualname, code.co_firstlineno, line) for _, _, line in code.co_lines() if line]
        todo += [inner for inner in code.co_consts if hasattr(inner, "co_lines")]
    assert len(spots) > 100
    assert fits(text, spots)


SHARD = """
import sys, threading

class Shop:
    def __init__(self):
        self.a, self.b = threading.Lock(), threading.Lock()
    def forth(self):
        with self.a:
            with self.b:
                pass
    def back(self):
        with self.b:
            with self.a:
                pass

getattr(Shop(), sys.argv[1])()
"""


def test_a_report_doesnt_show_other_lines_than_those_that_ran(ctxcheck: Run, tmp_path: Path) -> None:
    for way in ("forth", "back"):
        ctxcheck("run", "--owners", "assumed", "program.py", way, code=SHARD)
    before = ctxcheck("report").stdout
    assert "with self.a:" in before
    assert "has changed since" not in before
    program = tmp_path / "program.py"
    program.write_text("# a line more\n" + SHARD)
    after = ctxcheck("report").stdout
    assert "program.py has changed since: its lines aren't shown" in after
    assert "--> program.py:" in after
    assert "self.a" not in after
    assert "# a line more" not in after
    program.write_text(SHARD + "# an edit below: all places are where they were\n")
    assert ctxcheck("report").stdout == before
