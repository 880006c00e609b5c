"""Places that came from afar: code objects that can only be looked at, so that whatever shows a place shows those."""

from __future__ import annotations

from opcode import opmap
from types import CodeType
from typing import Final

from ctxcheck.engine.sites import Trace

#: A code (file, function, first line) and an instruction in it.
Point = tuple[tuple[str, str, int], int]

_ENTERS: Final = {opmap[name]: name for name in ("BEFORE_WITH", "BEFORE_ASYNC_WITH") if name in opmap}


def enters(code: CodeType, lasti: int) -> str:
    """The name of the instruction there, if it is one that enters a ``with`` block."""
    instructions = code.co_code
    return _ENTERS.get(instructions[lasti], "") if 0 <= lasti < len(instructions) else ""


def position(code: CodeType, lasti: int) -> int:
    """The position of an instruction, in the code that this one stands for if it does."""
    return int(code.co_consts[1][lasti // 2]) if code.co_consts[:1] == (_STANDS_FOR,) else lasti


class Places:
    """Turns points into traces: each code becomes one object, in all traces."""

    def __init__(self, codes: dict[tuple[str, str, int], dict[int, tuple[int, int, int, int, str]]]) -> None:
        self._codes = codes
        self._made: dict[tuple[str, str, int], tuple[CodeType, dict[int, int]]] = {}
        self._traces: dict[tuple[Point, ...], Trace] = {}

    def trace(self, points: list[Point]) -> Trace:
        """One and the same trace for the same points."""
        key = tuple(points)
        trace = self._traces.get(key)
        if trace is None:
            pairs = [self._find(code, lasti) for code, lasti in points]
            trace = Trace(tuple(code for code, _ in pairs), tuple(lasti for _, lasti in pairs))
            self._traces[key] = trace
        return trace

    def _find(self, code: tuple[str, str, int], lasti: int) -> tuple[CodeType, int]:
        made = self._made.get(code)
        if made is None:
            # in the order that they had, so that what goes by position goes on the same way
            lastis = sorted(self._codes[code])
            scope = _scope(*code, {each: self._codes[code][each] for each in lastis})
            made = self._made[code] = scope, {each: 2 * index for index, each in enumerate(lastis)}
        return made[0], made[1][lasti]


def _nothing() -> None:
    """What a place's code is made from."""


#: The first constant of such a code; the second one has the positions that its instructions had.
_STANDS_FOR: Final = "ctxcheck: stands for another code"


def _scope(
    filename: str, function: str, first: int, positions: dict[int, tuple[int, int, int, int, str]]
) -> CodeType:
    """A code object that says of its instructions where they are, and does nothing: one instruction a position."""
    table = bytearray()
    instructions = bytearray()
    line = first
    for at, end, column, end_column, enters in positions.values():
        # an entry of the "long form" for one instruction: Objects/locations.md
        table.append(0x80 | 14 << 3)
        delta = at - line
        table += _varint(-delta << 1 | 1 if delta < 0 else delta << 1)
        table += _varint(max(end - at, 0)) + _varint(column + 1) + _varint(end_column + 1)
        line = at
        instructions += bytes((opmap.get(enters, opmap["NOP"]) if enters.startswith("BEFORE_") else opmap["NOP"], 0))
    return _nothing.__code__.replace(
        co_filename=filename, co_name=function.rpartition(".")[2], co_qualname=function, co_firstlineno=first,
        co_linetable=bytes(table), co_code=bytes(instructions), co_consts=(_STANDS_FOR, tuple(positions)),
    )  # fmt: skip


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= 64:
        digits.append(64 | number & 63)
        number >>= 6
    digits.append(number)
    return bytes(digits)
