"""Where something happened: captured without frames, resolved when it is asked for."""

from __future__ import annotations

import gc
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck.engine.sites import EMPTY, GENERATED, MAX_DEPTH, Trace, capture, is_own, local, resolve, still_running

HERE = str(Path(__file__).resolve())


def line() -> int:
    return sys._getframe(1).f_lineno


def test_the_head_is_where_it_was_called() -> None:
    trace, here = capture(), line()
    place = trace.head()
    assert (place.filename, place.line) == (HERE, here)
    assert place.function == "test_the_head_is_where_it_was_called"
    assert place.column > 0
    text = Path(HERE).read_text().splitlines()[here - 1]
    assert text[place.column : place.end_column] == "capture()"
    assert trace.function() == place.function


def test_a_trace_goes_from_the_inside_out() -> None:
    class Outer:
        def method(self) -> Trace:
            return inner()

    def inner() -> Trace:
        return capture()

    names = [place.function.rpartition(".")[2] for place in Outer().method().places()]
    assert names[:3] == ["inner", "method", "test_a_trace_goes_from_the_inside_out"]


def test_depth_leaves_out_the_innermost_calls_and_the_limit_the_outermost() -> None:
    def helper() -> tuple[Trace, Trace]:
        return capture(2), capture(1, 1)

    outside, short = helper()
    assert outside.function() == "test_depth_leaves_out_the_innermost_calls_and_the_limit_the_outermost"
    assert len(short.codes) == 1
    assert short.function().endswith("helper")


def test_a_deep_stack_is_cut() -> None:
    def down(n: int) -> Trace:
        return down(n - 1) if n else capture()

    assert len(down(300).codes) == MAX_DEPTH


def test_a_trace_keeps_no_frame_and_no_local_alive() -> None:
    class Thing:
        pass

    def make() -> tuple[Trace, weakref.ref[Thing]]:
        thing = Thing()
        return capture(), weakref.ref(thing)

    trace, gone = make()
    assert trace.codes
    assert gone() is None
    assert not any(type(o).__name__ == "frame" for o in gc.get_referents(trace))


def test_our_own_frames_are_not_the_head(tmp_path: Path) -> None:
    lock = ctxcheck.Lock(name="site.head")
    with ctxcheck.checking() as session:
        lock.acquire()
        here = line() - 1
        lock.release()
        with pytest.raises(RuntimeError):
            lock.release()
        (violation,) = session.violations
    assert violation.sites[0].line == here + 4
    assert violation.sites[0].file.endswith("test_sites.py")


@pytest.mark.parametrize(
    ("filename", "own"),
    [
        (str(Path(ctxcheck.__file__).parent / "fastpath.py"), True),
        (GENERATED, True),
        (str(Path(ctxcheck.__file__).parent) + "_plugin/x.py", False),
        (HERE, False),
        ("<string>", False),
    ],
)
def test_what_is_ours(filename: str, own: bool) -> None:
    assert is_own(compile("x = 1", filename, "exec")) is own


def test_an_empty_trace_is_harmless() -> None:
    assert EMPTY.places() == []
    assert EMPTY.head().filename == ""
    assert EMPTY.function() == "?"
    assert EMPTY.sort_key() == ("", "", 0, "")


def test_sort_keys_order_traces_by_file_function_and_position() -> None:
    first, second = capture(), capture()
    assert first.sort_key() < second.sort_key()
    assert first.sort_key()[:2] == second.sort_key()[:2]


def test_the_folder_of_a_file_decides_only_between_files_of_one_name() -> None:
    def at(filename: str, outer: str = "/m/o.py") -> Trace:
        return Trace((compile("", filename, "exec"), compile("", outer, "exec")), (0, 0))

    for early, late in (("/z/a.py", "/a/b.py"), ("C:\\z\\a.py", "C:\\a\\b.py"), ("/a/x.py", "/b/x.py")):
        assert at(early).sort_key() < at(late).sort_key()
        assert at("/m/i.py", early).way_key() < at("/m/i.py", late).way_key()


def test_code_without_positions_still_has_its_line() -> None:
    code = compile("def f():\n    a = 1\n    g()\n", "made.py", "exec")
    function = next(c for c in code.co_consts if hasattr(c, "co_code"))
    bare = function.replace(co_linetable=b"")
    assert resolve(bare, 2).line == function.co_firstlineno
    assert resolve(function, 10_000).line == function.co_firstlineno, "an instruction that isn't there"


def test_two_codes_that_are_equal_are_told_apart() -> None:
    source = textwrap.dedent("""
        def make(still_running, capture):
            trace = capture()
            return trace, lambda: still_running(trace)
    """)
    made: list[tuple[Trace, Callable[[], Any]]] = []
    for _ in range(2):
        space: dict[str, Any] = {}
        exec(compile(source, "twin.py", "exec"), space)
        made.append(space["make"](still_running, capture))
    assert made[0][0].codes[0] == made[1][0].codes[0]
    assert made[0][0].codes[0] is not made[1][0].codes[0]


def test_still_running_finds_the_frame_of_this_very_stack_only() -> None:
    def inside() -> tuple[Trace, bool]:
        trace = capture()
        frame = still_running(trace)
        return trace, frame is sys._getframe()

    trace, was_running = inside()
    assert was_running
    assert still_running(trace) is None, "it has returned"
    assert still_running(EMPTY) is None
    here = capture()
    assert still_running(here) is sys._getframe()
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(still_running(here)))
    thread.start()
    thread.join()
    assert answers == [None], "another thread's stack"


class Thing:
    """Something that is seen to go."""


def test_who_looks_at_a_local_keeps_none_of_them_alive() -> None:
    def maker(self: object) -> tuple[object, object]:
        thing, cell = Thing(), [Thing()]
        gone, gone_too = weakref.ref(thing), weakref.ref(cell[0])

        def inner() -> None:
            nonlocal cell
            cell = []

        assert local(sys._getframe(), "self") is self
        assert local(sys._getframe(), "nothing") is None
        del thing
        inner()
        return gone(), gone_too()

    assert maker(object()) == (None, None)


def test_who_has_called_locals_keeps_what_he_was_given() -> None:
    def maker(self: int) -> dict[str, object]:
        mine = locals()
        assert local(sys._getframe(), "self") == 1
        return mine

    assert maker(1)["self"] == 1


def test_a_debugger_keeps_the_variables_that_it_looks_at() -> None:
    def traced(first: int) -> int:
        second = 2
        return first + second

    def tracer(frame: Any, event: str, arg: object) -> Any:
        if frame.f_code is traced.__code__:
            local(frame, "first")
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        assert traced(1) == 3
    finally:
        sys.settrace(before)
