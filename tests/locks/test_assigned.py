"""What a call's value is assigned to, as the source says."""

from __future__ import annotations

import ast
import asyncio.base_events
import concurrent.futures.thread
import inspect
import linecache
import logging.handlers
import queue
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

import ctxcheck
from ctxcheck.engine.raw import get_frame
from ctxcheck.locks import assigned
from ctxcheck.locks.assigned import NOWHERE, Target, calls_in, target_of


def key(lock: Any) -> str:
    return str(lock.step.lock_class.key)


def make() -> Target:
    """What the caller assigns the value of this call to."""
    frame: FrameType | None = get_frame(1)
    assert frame is not None
    return target_of(frame.f_code, frame.f_lasti)


def load(path: Path, source: str, written: str | None = None) -> dict[str, Any]:
    """Run a module of this source, whose file says something else if it is ``written``."""
    path.write_text(source if written is None else written)
    linecache.clearcache()
    space: dict[str, Any] = {"__name__": path.stem, "make": make}
    exec(compile(source, str(path), "exec", dont_inherit=True), space)
    return space


def test_without_source_the_ordinal_or_the_bytecode_tells(tmp_path: Path) -> None:
    space: dict[str, Any] = {"Lock": ctxcheck.Lock, "__name__": "gone"}
    exec(compile("class C:\n    def __init__(self):\n        self.x = Lock()\n        self.y = Lock()\n"
                 "def f():\n    return [Lock(), Lock()]\n", "/no/such/file.py", "exec"), space)  # fmt: skip
    made = space["C"]()
    assert [key(made.x), key(made.y)] == ["gone:C.x", "gone:C.y"]
    assert len({key(lock) for lock in space["f"]()}) == 2


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from codes(const)


@pytest.mark.parametrize(
    "module", [asyncio.base_events, concurrent.futures.thread, inspect, logging.handlers, queue, threading]
)
def test_a_functions_own_lines_say_what_the_whole_file_says(module: ModuleType) -> None:
    filename = str(module.__file__)
    lines = linecache.getlines(filename)
    whole = calls_in(ast.parse("".join(lines)))
    alone = 0
    for code in codes(compile("".join(lines), filename, "exec", dont_inherit=True)):
        found = assigned._calls_of(code, lines)
        assert {place: whole[place] for place in found} == found, code.co_qualname
        positions = {(line, column, end, last) for line, end, column, last in code.co_positions()}
        if not code.co_name.startswith("<") or code.co_name == "<module>":
            assert positions & set(whole) <= set(found), code.co_qualname
            alone += 1
    assert alone > 5


MODULE = """
import functools
first = make()
def decorated(call):
    return lambda function: call
@decorated(make())
def f(default=make()):
    made = make()
    return made
class C(list, metaclass=type(*[type][:1])):
    inside = make()
    def g(self):
        self.mine = [make(), make()]
        text = '''
at the margin'''; other = make()
        if False:
            never = make()
        else: pass
last = [make() for _ in range(1)] + [(lambda: make())()]
f2 = functools.partial(make)()
"""


def test_a_modules_own_calls_and_those_of_its_functions(tmp_path: Path) -> None:
    path = tmp_path / "whole.py"
    space = load(path, MODULE)
    assert space["first"] == Target("first", "", 0)
    assert space["f"].name == ""
    assert space["C"].inside == Target("inside", "", 0)
    instance = space["C"]()
    instance.g()
    assert instance.mine == [Target("mine", "self", 0), Target("mine#2", "self", 0)]
    assert str(path) not in assigned._whole, "a comprehension's and a lambda's calls are known from the module's"
    assert {t.name for t in space["last"]} == {"last", ""}
    whole = calls_in(ast.parse(MODULE))
    assert {place: whole[place] for place in assigned._files[str(path)]} == assigned._files[str(path)]


def test_a_long_file_isnt_parsed_for_one_of_its_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = load(tmp_path / "long.py", "def f():\n    x = make()\n    return x\n" + "def g():\n    h()\n" * 1000)
    parsed: list[int] = []
    real = ast.parse

    def parse(text: str) -> ast.Module:
        parsed.append(text.count("\n"))
        return real(text)

    monkeypatch.setattr(ast, "parse", parse)
    assert space["f"]() == Target("x", "", 0)
    assert parsed == [3]
    space["f"]()
    assert parsed == [3], "once"


@pytest.mark.parametrize(
    "written", ["this is ) not Python\n\n", "", "x = 1\n", "def f(\n", "def f():\n    longer = make()\n", "\0\n"]
)
def test_a_source_that_doesnt_parse_or_doesnt_fit_is_no_error(tmp_path: Path, written: str) -> None:
    found = load(tmp_path / "changed.py", "def f():\n    x = make()\n    return x\n", written)["f"]()
    # where there are calls elsewhere it isn't that file
    assert found == (NOWHERE if "make" in written else Target("x", "", 0))


@pytest.mark.parametrize("where", ["function", "module"])
def test_a_source_that_warns_is_read_without_a_warning(tmp_path: Path, where: str) -> None:
    strings = r'''"\d\é", r"\(\"", f"\N{DIGIT ONE}\%"'''
    source = f"x = [{strings}, make()][-1]\n"
    if where == "function":
        source = f"def f():\n    {source}    return x\n"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = compile(source, str(tmp_path / "warns.py"), "exec", dont_inherit=True)
    (tmp_path / "warns.py").write_text(source, "utf-8")
    space: dict[str, Any] = {"make": make}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, space)
        assert (space["f"]() if where == "function" else space["x"]) == Target("x", "", 0)
