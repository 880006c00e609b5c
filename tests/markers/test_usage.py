"""What a call's result is used for, read from the caller's bytecode."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ctxcheck.markers.usage import check_choice, check_text, describe, nearest, used_as

seen: list[str] = []


class Result:
    """What the call gives: can be anything."""

    def __call__(self, *args: Any) -> Any:
        return args[0] if args else None

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


def mark(*_: object, **__: object) -> Result:
    seen.append(used_as(sys._getframe(1)))
    return Result()


def same(value: Any, *_: Any) -> Any:
    return value


PROGRAMS = [
    # statements, and values that go elsewhere
    ("mark()", "value"),
    ("mark('why')", "value"),
    ("x = mark()", "value"),
    ("x = y = mark(why=1)", "value"),
    ("same(mark())", "value"),
    ("same(mark(), lambda: 0)", "value"),
    ("same(1, mark())", "value"),
    ("same(mark(), same(1))", "value"),
    ("mark() or 1", "value"),
    ("[mark(), lambda: 0]", "value"),
    ("x = {1: mark()}", "value"),
    ("for _ in range(2): mark()", "value value"),
    ("def f():\n    mark()\n    return 1\nf()", "value"),
    ("def f(): return mark()\nf()", "value"),
    ("(lambda: mark())()", "value"),
    ("[mark() for _ in (1,)]", "value"),
    ("same(mark())(1)", "value"),
    ("@same(mark())\ndef f(): pass", "value"),
    ("def f(a=mark()): pass", "value"),
    ("try:\n    mark()\nfinally:\n    same(1)", "value"),
    ("if 1:\n    mark()\n    @same\n    def f(): pass", "value"),
    ("x = 1 if same(1) else 2; mark(); (lambda: 0)()", "value"),
    # decorators
    ("@mark()\ndef f(): pass", "decorator"),
    ("@mark('why')\ndef f(a, b=1, *c, d: int=3, **e) -> 'x': pass", "decorator"),
    ("@mark('why')\ndef f(a, b=1 if seen else 2, *, d: int=same(3)): pass", "decorator"),
    ("@mark('why')\ndef f(a=(seen and 3), b=(not seen or 4), c=seen if seen else (1 if 0 else 2)): pass", "decorator"),
    ("@mark()\ndef f(a=[i for i in range(3)], b={**{}}, c=lambda: 0, d=f'{seen!r} {1:>3}'): pass", "decorator"),
    ("@mark()\ndef f(a=same(same)(1), *, b=same(seen).append): pass", "decorator"),
    ("@same\n@mark(1)\n@same\n@mark()\ndef f(): pass", "decorator decorator"),
    ("@mark()\nasync def f(): pass", "decorator"),
    ("@mark()\nclass C: pass", "decorator"),
    ("@mark()\nclass C(metaclass=type, **{}): x = 1", "decorator"),
    ("class C:\n    @mark()\n    def f(self): pass", "decorator"),
    ("class C:\n    @classmethod\n    @mark(1)\n    def g(self): pass", "decorator"),
    ("class C:\n    @mark()\n    @staticmethod\n    def f(): pass", "decorator"),
    ("def q():\n    z = 1\n    @mark()\n    def f(a=z): return z\nq()", "decorator"),
    ("f = mark()(same)", "decorator"),
    ("f = mark('why')(lambda: 0)", "decorator"),
    # blocks
    ("with mark(): pass", "with"),
    ("with mark('a') as x, mark('b'): pass", "with with"),
    ("def f():\n    with mark():\n        return 1\nf()", "with"),
    ("async def f():\n    async with mark(): pass\nrun(f())", "async with"),
]  # fmt: skip

if sys.version_info >= (3, 12):
    PROGRAMS += [
        ("@mark()\ndef f[T](a: T) -> T: pass", "decorator"),
        ("@mark()\ndef f[T](a: T = 3, *, k: T = 4) -> T: pass", "decorator"),
        ("@mark()\nclass C[T]: pass", "decorator"),
    ]


def run(coroutine: Any) -> None:
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize(("program", "uses"), PROGRAMS)
def test_used_as(program: str, uses: str) -> None:
    seen.clear()
    exec(compile(program, "<program>", "exec"), {"mark": mark, "same": same, "seen": [], "run": run})
    assert " ".join(seen) == uses


def test_a_call_that_no_instruction_makes() -> None:
    seen.clear()
    list(map(mark, ["x"]))
    assert seen in (["value"], ["decorator"])


def test_words() -> None:
    assert nearest("strat", ["start", "end"]) == "; did you mean 'start'?"
    assert nearest("x", ["start"]) == ""
    assert describe(3) == "3"
    assert describe("a") == "'a'"
    assert describe(int) == "the class int"
    assert describe(object()) == "a value of type object"
    assert check_text("m", "a", "x") == "x"
    assert check_text("m", "a", "", empty=True) == ""
    with pytest.raises(ValueError, match=r"m: a='b': must be 'x' or 'y'"):
        check_choice("m", "a", "b", ("x", "y"))
