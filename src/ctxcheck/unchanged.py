"""Whether a source file is still what it was when places in it were recorded.

A line of a file that was edited since is some other line.  No times are compared: a checkout makes files young, and
machines' clocks differ.  What is looked at is whether the functions still begin where they did, and have code in these
lines.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from types import CodeType
from typing import Final, NamedTuple

#: Scopes that are functions of their own in some versions of Python only (PEP 709).
_INLINED: Final = ("<listcomp>", "<dictcomp>", "<setcomp>")


class Spot(NamedTuple):
    """A recorded place: the qualified name and the first line of its function, and its own line."""

    function: str
    first: int
    line: int


def fits(text: str, spots: Iterable[Spot]) -> bool:
    """Whether a source file's text can have had these places; what this version can't compile is given the benefit of
    the doubt.

    An edit that leaves every function where it was, with code in the same lines, isn't seen.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lines = _lines(compile(text, "<source>", "exec", dont_inherit=True))
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
        return True
    for function, first, line in spots:
        if function.endswith(_INLINED):
            continue
        there = lines.get((function, first))
        if there is None or (line > 0 and line not in there):
            return False
    return True


def _lines(module: CodeType) -> dict[tuple[str, int], set[int]]:
    """The lines of each function that have code, by its name and first line."""
    found: dict[tuple[str, int], set[int]] = {}
    todo = [(module, (module.co_qualname, module.co_firstlineno))]
    while todo:
        code, key = todo.pop()
        found.setdefault(key, set()).update(line for _, _, line in code.co_lines() if line)
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                own = key if inner.co_name in _INLINED else (inner.co_qualname, inner.co_firstlineno)
                todo.append((inner, own))
    return found
