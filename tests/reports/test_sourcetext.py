from __future__ import annotations

import asyncio
import linecache
import os
import queue
import subprocess
import sys
import threading
import types
import unittest
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck.engine.sites import EMPTY, PACKAGE_DIR, Trace, capture
from ctxcheck.reports.sourcetext import (
    MAX_TEXT,
    Sources,
    Spot,
    as_call,
    call_name,
    code,
    function_name,
    is_program,
    is_with,
    outline,
    plain,
    short_name,
    visible,
)

from .programs import marked

#: What the programs below call: a block, a function and a method that remember where they were called.
HERE = """\
class Here:
    def __enter__(self): seen.append(capture(2))
    def __exit__(self, *exc): pass
    async def __aenter__(self): seen.append(capture(2))
    async def __aexit__(self, *exc): pass
def here(*args): seen.append(capture(2)); return Here()
"""


def trace_of(
    folder: Path, source: str, *, file: str = "app.py", write: bool = True, filename: str | None = None
) -> Trace:
    """Run a program, and return the trace of the first place in it that calls or enters ``Here``."""
    seen: list[Trace] = []
    names: dict[str, Any] = {"seen": seen, "capture": capture, "asyncio": asyncio}
    exec(HERE, names)
    path = folder / file
    if write:
        path.write_text(source, encoding="utf-8")
    exec(compile(source, str(path) if filename is None else filename, "exec"), names)
    return seen[0]


@pytest.mark.parametrize(
    ("source", "line", "expression"),
    [
        ("here()\n", 1, "here()"),
        ("x = 1 if here() else 2\n", 1, "here()"),
        ("ünï = '日本語'; here('ä')\n", 1, "here('ä')"),
        ("if 1:\n\there()\n", 2, "here()"),
        ("x = [\n    here(\n        1,\n    ),\n]\n", 2, "here("),
        ("x = here(  # why\n    1)\n", 1, "here("),
        # the versions of Python don't agree on what of a with statement is the place; the first line is it
        ("with Here():\n    pass\n", 1, "with Here():"),
        ("with Here() as h: x = {1: 2}  # a: b\n", 1, "with Here() as h:"),
        ("h = Here()\nif h:\n    with h, h:\n        pass\n", 3, "with h, h:"),
        ("h = {':': Here()}\nwith h[':']:\n    pass\n", 2, "with h[':']:"),
        ("h = Here()\nwith (\n    h as x,\n    h,\n):\n    pass\n", 2, "with ("),
        ("h = Here()\nwith h, \\\n        h:\n    pass\n", 2, "with h, \\"),
        ("async def f():\n    async with Here():\n        pass\nasyncio.run(f())\n", 2, "async with Here():"),
    ],
)
def test_what_is_marked(tmp_path: Path, source: str, line: int, expression: str) -> None:
    site = Sources(str(tmp_path)).site("now", trace_of(tmp_path, source), "label")
    assert (site.file, site.line, marked(site)) == ("app.py", line, expression)
    assert site.text == source.split("\n")[line - 1]
    assert site.before == (source.split("\n")[line - 2] if line > 1 else "")


def test_only_the_primary_site_has_the_line_above(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, "x = 1\nhere()\n")
    sources = Sources(str(tmp_path))
    assert sources.site("now", trace, "").before == "x = 1"
    assert sources.site("then", trace, "").before == ""


def test_a_long_line_is_cut(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, f"x = {'1 + ' * MAX_TEXT}1; here()\n")
    site = Sources(str(tmp_path)).site("now", trace, "")
    assert len(site.text) == MAX_TEXT
    assert (site.column, site.end_column) == (-1, -1)


# --- no source, no columns


def test_code_without_source(tmp_path: Path) -> None:
    for filename in ("<string>", "<frozen something>", "<>", "", "nowhere.py", str(tmp_path), "nul\0nul"):
        trace = trace_of(tmp_path, "\n\nhere()\n", write=False, filename="<string>")
        trace = Trace((trace.codes[0].replace(co_filename=filename),), trace.lastis[:1])
        spot = Sources(str(tmp_path)).head(trace)
        assert spot.line == 3
        assert (spot.text, spot.column, spot.end_column) == ("", -1, -1)
        assert spot.file in (filename, filename.removeprefix(f"{tmp_path}/"))


def test_a_file_that_is_gone_is_remembered(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, "here()\n")
    assert Sources(str(tmp_path)).head(trace).text == "here()"
    (tmp_path / "app.py").unlink()
    assert Sources(str(tmp_path)).head(trace).text == "here()"
    linecache.clearcache()
    assert Sources(str(tmp_path)).head(trace) == Spot("app.py", 1, "<module>", filename=str(tmp_path / "app.py"))


def test_a_file_that_was_written_anew_is_read_again(tmp_path: Path) -> None:
    sources = Sources(str(tmp_path))
    assert sources.head(trace_of(tmp_path, "here()\n")).text == "here()"
    assert Sources(str(tmp_path)).head(trace_of(tmp_path, "x = 1; here()\n")).text == "x = 1; here()"


def test_a_file_that_does_not_decode(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, "here()\n")
    (tmp_path / "app.py").write_bytes(b"\xff\xfe\x00here()\n")
    assert Sources(str(tmp_path)).head(trace).text in ("", "here()")


def test_a_damaged_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = trace_of(tmp_path, "here()\n", write=False)

    def broken() -> str:
        raise ZeroDivisionError

    monkeypatch.setitem(linecache.cache, str(tmp_path / "app.py"), (broken,))
    assert Sources(str(tmp_path)).head(trace).text == ""
    monkeypatch.setitem(linecache.cache, str(tmp_path / "app.py"), (1, 2))
    assert Sources(str(tmp_path)).head(trace).text == ""


def test_a_module_in_a_zip_file(tmp_path: Path) -> None:
    archive = tmp_path / "lib.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped_for_ctxcheck.py", "def call(f):\n    return f()\n")
    sys.path.insert(0, str(archive))
    try:
        import zipped_for_ctxcheck as zipped

        trace: Trace = zipped.call(lambda: capture(2))
    finally:
        sys.path.remove(str(archive))
    spot = Sources(str(tmp_path)).head(trace)
    assert spot[:3] == (os.path.join("lib.zip", "zipped_for_ctxcheck.py"), 2, "call")


def test_code_without_positions(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from ctxcheck.engine.sites import capture; from ctxcheck.reports.sourcetext import Sources\n"
        "print(Sources().head(capture(1))[3:6])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(PACKAGE_DIR))}
    command = [sys.executable, "-X", "no_debug_ranges", "app.py"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert done.stdout == "('print(Sources().head(capture(1))[3:6])', -1, -1)\n"


def test_code_with_a_damaged_line_table(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, "x = 1\nhere()\n")
    bare = trace.codes[0].replace(co_linetable=b"")
    spot = Sources(str(tmp_path)).head(Trace((bare,), trace.lastis[:1]))
    assert (spot.file, spot.line, spot.column) == ("app.py", bare.co_firstlineno, -1)
    for lasti in (-1, 10**6):
        assert Sources(str(tmp_path)).head(Trace((trace.codes[0],), (lasti,))).line == 1


def test_nothing_at_all() -> None:
    sources = Sources()
    assert sources.where(EMPTY) == ""
    assert sources.site("now", EMPTY, "label").file == ""
    assert sources.stack("stack", "thread 'x'", EMPTY, 20).frames == ()
    assert not is_program(EMPTY)


# --- paths


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = Sources(os.path.join(os.sep, "home", "me", "project"))
    inside = os.path.join(os.sep, "home", "me", "project", "a", "b.py")
    assert sources.file(inside) == os.path.join("a", "b.py")
    for outside in (os.path.join(os.sep, "home", "me", "project2", "b.py"), "relative.py", "<string>", ""):
        assert sources.file(outside) == outside
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert Sources().file(inside) == inside


def test_where() -> None:
    assert Spot("a.py", 3, "f").where() == "a.py:3"
    assert Spot("a.so", 0, "f").where() == "a.so"


# --- stacks


def functions(trace: Trace) -> list[str]:
    return [code.co_name for code, _ in visible(trace)]


def test_the_librarys_plumbing_is_left_out() -> None:
    found: queue.Queue[Trace] = queue.Queue()

    class Tell:
        def put(self, item: object) -> None:
            found.put(capture(1))

    def work() -> None:
        with threading.Condition() as _:
            Tell().put(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert functions(found.get()) == ["put", "work"]


def test_a_site_is_the_programs_own_line() -> None:
    class Inner:
        trace = EMPTY

        def acquire(self, *_args: object) -> bool:
            self.trace = capture(2)
            return True

        __enter__ = acquire

        def __exit__(self, *_exc: object) -> None:
            pass

        release = __exit__

    inner = Inner()
    with threading.Condition(inner):
        pass
    assert inner.trace.codes[0].co_filename == threading.__file__
    assert marked(Sources().site("now", inner.trace, "")) == "with threading.Condition(inner):"


def test_event_loops_are_left_out() -> None:
    async def main() -> Trace:
        return await asyncio.create_task(task())

    async def task() -> Trace:
        return capture(1)

    assert functions(asyncio.run(main()))[:2] == ["task", "test_event_loops_are_left_out"]


def test_what_runs_the_test_is_left_out() -> None:
    assert functions(capture(1)) == ["test_what_runs_the_test_is_left_out"]


def test_a_unittest_case() -> None:
    seen: list[Trace] = []

    class Case(unittest.TestCase):
        def test_it(self) -> None:
            self.assertRaises(ZeroDivisionError, self.helper)

        def helper(self) -> None:
            seen.append(capture(1))
            raise ZeroDivisionError

    assert Case("test_it").run() is not None
    names = functions(seen[0])
    assert names[0] == "helper"
    # what assertRaises does in between is a call like any other
    assert names[-1] == "test_it"


def test_what_runs_the_program_is_left_out() -> None:
    def program() -> Trace:
        return capture(1)

    runner: dict[str, Any] = {"program": program}
    exec(compile("def _run_script(): return program()", PACKAGE_DIR + "runner.py", "exec"), runner)
    assert functions(runner["_run_script"]()) == ["program"]


def test_all_is_kept_if_nothing_else_is_there() -> None:
    plumbing: dict[str, Any] = {"capture": capture}
    exec(compile("def run(): return capture(1, 1)", threading.__file__, "exec"), plumbing)
    trace = plumbing["run"]()
    assert functions(trace) == ["run"]
    assert not is_program(trace)
    assert is_program(capture(1))


@pytest.mark.parametrize(
    ("file", "name", "left"),
    [
        ("runner.py", "runtestprotocol", False),
        ("main.py", "pytest_runtestloop", False),
        ("python.py", "pytest_pyfunc_call", False),
        ("python.py", "importtestmodule", False),
        ("assertion/rewrite.py", "exec_module", False),
        ("raises.py", "raises", True),
        ("monkeypatch.py", "setattr", True),
    ],
)
def test_what_runs_the_tests_is_left_out_and_what_they_call_is_not(file: str, name: str, left: bool) -> None:
    runner: dict[str, Any] = {}
    exec(compile(f"def {name}(call): return call()", f"/site-packages/_pytest/{file}", "exec"), runner)

    def inside() -> Trace:
        return capture(1)

    here = "test_what_runs_the_tests_is_left_out_and_what_they_call_is_not"
    assert functions(runner[name](inside)) == (["inside", name, here] if left else ["inside"])


def test_a_stack_is_cut_to_the_innermost_calls() -> None:
    def down(depth: int) -> Trace:
        return down(depth - 1) if depth else capture(1)

    trace = down(50)
    for depth, expected in ((20, 20), (1, 1), (0, 1), (1000, 52)):
        stack = Sources().stack("stack", "thread 'x'", trace, depth)
        assert len(stack.frames) == expected
    assert stack.frames[-1].text == "return down(depth - 1) if depth else capture(1)"
    assert stack.frames[0].function == "test_a_stack_is_cut_to_the_innermost_calls"


# --- what is inside of what


def _held_and_now(folder: Path, source: str) -> tuple[Trace, Trace]:
    """The first and the last place of a program that call or enter ``Here``."""
    seen: list[Trace] = []
    names: dict[str, Any] = {"seen": seen, "capture": capture}
    exec(HERE, names)
    (folder / "app.py").write_text(source, encoding="utf-8")
    exec(compile(source, str(folder / "app.py"), "exec"), names)
    return seen[0], seen[-1]


@pytest.mark.parametrize(
    ("source", "inside"),
    [
        ("with Here():\n    here()\n", True),
        ("with Here(): here()\n", True),
        ("with Here(), Here(): pass\n", True),
        ("with Here():\n\n  # why\n# not\n    if 1:\n        here()\n", True),
        ("with (\n    Here(),\n):\n    here()\n", True),
        ("def f(): here()\nwith Here():\n    f()\n", True),
        ("def f():\n    with Here():\n        g()\ndef g(): here()\nf()\n", True),
        # the block is over, and the call is made from another one
        ("with Here():\n    pass\nhere()\n", False),
        ("with Here():\n    pass\nwith Here():\n    here()\n", False),
        ("if 1:\n\twith Here():\n\t\tpass\n\tx = 1\nhere()\n", False),
        ("for i in range(2):\n    if i: here()\n    else:\n        with Here(): pass\n", False),
        # the function is over
        ("def f(): here()\ndef g():\n    with Here(): pass\ng()\nf()\n", False),
        # not known to be a block
        ("here()\nhere()\n", True),
    ],
)
def test_what_encloses_a_call(tmp_path: Path, source: str, inside: bool) -> None:
    assert Sources(str(tmp_path)).encloses(*_held_and_now(tmp_path, source)) is inside


def test_what_encloses_a_call_without_source(tmp_path: Path) -> None:
    held, now = _held_and_now(tmp_path, "with Here():\n    pass\nhere()\n")
    (tmp_path / "app.py").unlink()
    linecache.clearcache()
    assert Sources(str(tmp_path)).encloses(held, now)
    assert not Sources(str(tmp_path)).encloses(EMPTY, now)


# --- names


@pytest.mark.parametrize(
    ("qualname", "shown", "called", "short"),
    [
        ("f", "f", "f()", "f"),
        ("Ledger.total", "Ledger.total", "Ledger.total()", "Ledger.total"),
        ("test.<locals>.f", "test.f", "f()", "f"),
        ("test.<locals>.C.f", "test.C.f", "C.f()", "C.f"),
        ("f.<locals>.<lambda>", "f.<lambda>", "", "<lambda>"),
        # a function of its own before 3.12 only
        ("f.<locals>.<listcomp>", "f", "f()", "f"),
        ("<module>", "<module>", "", "<module>"),
        ("?", "", "", "?"),
        ("", "", "", ""),
    ],
)
def test_names_of_functions(qualname: str, shown: str, called: str, short: str) -> None:
    assert (function_name(qualname), call_name(qualname), short_name(qualname)) == (shown, called, short)


def test_names_in_sentences() -> None:
    assert as_call("queue.get") == "queue.get()"
    assert as_call("range_('mmu')") == "`range_('mmu')`"
    assert code("a`b") == "`a'b`"


class Hostile(str):
    """A text whose every method is the program's own."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(name)

    def _fail(self, *_args: object) -> Any:
        raise AssertionError

    __str__ = __repr__ = __format__ = __eq__ = __hash__ = __len__ = __add__ = __contains__ = _fail


def test_plain_runs_no_code_of_the_program() -> None:
    text = plain(Hostile("name"))
    assert type(text) is str
    assert text == "name"
    for other in (None, 3, object(), types.SimpleNamespace()):
        assert plain(other) == "?"


# --- a line's outline


@pytest.mark.parametrize(
    ("line", "before_colon", "comment"),
    [
        ("with a:", "with a", ""),
        ("with a[1:2]: pass", "with a[1:2]", ""),
        ("with f({'#': ':'}, \"it's #1\"):  # why: x", "with f({'#': ':'}, \"it's #1\")", "# why: x"),
        ('x = """a # b"""  # c', "", "# c"),
        (r"x = 'it\'s # no'", "", ""),
        ("# all", "", "# all"),
        ("", "", ""),
    ],
)
def test_outline(line: str, before_colon: str, comment: str) -> None:
    found = outline(line)
    assert (line[: found.colon] if found.colon >= 0 else "") == before_colon
    assert (line[found.comment :] if found.comment >= 0 else "") == comment


@given(st.text("with (a[{:\"'#\\ \t}])é日", max_size=40))
def test_an_outline_lies_in_the_line(line: str) -> None:
    found = outline(line)
    assert -1 <= found.colon < max(len(line), 1)
    assert -1 <= found.comment < max(len(line), 1)


def test_is_with() -> None:
    for yes in ("with a:", "  with(a):", "async with a:", "\tasync   with a:"):
        assert is_with(yes)
    for no in ("within(a)", "x = with_(a)", "async def f():", "", "withal:"):
        assert not is_with(no)


_wide: Callable[..., Any] = st.text(st.sampled_from("aé日\u0301\U0001f600 "), max_size=12)


@settings(deadline=None)  # it compiles
@given(_wide, _wide)
def test_columns_count_characters(before: str, argument: str) -> None:
    source = f"x = '{before}'; here('{argument}')"
    seen: list[Trace] = []
    exec(compile(source, "<columns>", "exec"), {"here": lambda _: seen.append(capture(2))})
    linecache.cache["<columns>"] = (len(source), None, [source + "\n"], "<columns>")
    try:
        assert marked(Sources().site("now", seen[0], "")) == f"here('{argument}')"
    finally:
        del linecache.cache["<columns>"]
