"""Whether markers are on, how they are used at a call, and the words for wrong use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from types import FrameType
from typing import Final, Literal

#: Read once: a function that was handed back as it is can't be marked later.
ENABLED: Final = os.environ.get("CTXCHECK") != "0"

Use = Literal["decorator", "with", "async with", "value"]

_CALL: Final = "PRECALL" if sys.version_info < (3, 12) else "CALL"
#: Entries of the stack from a callable up to its first argument, with itself.
_BELOW_ARGUMENTS: Final = 1 if sys.version_info < (3, 13) else 2
_TRANSPARENT: Final = ("NOP", "CACHE", "EXTENDED_ARG", "PUSH_NULL", "BUILD_MAP", "BUILD_TUPLE", "JUMP_FORWARD")
_WITH: Final[dict[str, Use]] = {"BEFORE_WITH": "with", "BEFORE_ASYNC_WITH": "async with"}
#: Instructions looked at before giving up: an annotation or a default may hold a lot of code, but not this much.
_FAR: Final = 2_000


def nearest(given: str, allowed: Iterable[str], cutoff: float = 0.5) -> str:
    """Return "; did you mean 'x'?" if one of ``allowed`` is close to ``given``, else nothing."""
    import difflib

    found = difflib.get_close_matches(given, list(allowed), 1, cutoff)
    return f"; did you mean {found[0]!r}?" if found else ""


def describe(value: object) -> str:
    """A value for an error message: itself if it is plain, else its type."""
    if value is None or isinstance(value, (str, int, float, bytes)):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"a value of type {type(value).__qualname__}"


def check_text(marker: str, argument: str, value: object, *, empty: bool = False) -> str:
    """Refuse what isn't a string, or is an empty one."""
    if not isinstance(value, str):
        raise TypeError(f"{marker}: {argument} must be a string, not {describe(value)}")
    if not value.strip() and not empty:
        raise ValueError(f"{marker}: {argument} is empty")
    return value


def check_choice(marker: str, argument: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse what isn't one of ``allowed``."""
    if value not in allowed:
        words = " or ".join(repr(word) for word in allowed)
        raise ValueError(f"{marker}: {argument}={describe(value)}: must be {words}{nearest(str(value), allowed)}")


def used_as(frame: FrameType) -> Use:
    """What the caller does with the result of the call that ``frame`` is in the middle of.

    Tells ``@might_sleep()``, which says something about a function that is being defined, from a line
    ``might_sleep()``, which is the sleep point itself: both are the same call, and only the bytecode after it
    differs.  Where the value goes anywhere else (a variable, an argument, a ``return``) the answer is "value".

    Takes some hundred microseconds: only for calls that are about to be reported.
    """
    import dis

    code = list(dis.get_instructions(frame.f_code))
    at = next((i for i in range(len(code) - 1, -1, -1) if code[i].offset <= frame.f_lasti), len(code))
    at += 2 if at < len(code) and code[at].opname == "PRECALL" else 1
    index = {instruction.offset: i for i, instruction in enumerate(code)}
    depth = 1  # of the stack, counted from our value
    for _ in range(_FAR):
        if at >= len(code):
            break
        op = code[at]
        if op.opname == _CALL:
            # the value is what is called: `might_sleep()(function)`, or as a decorator, where the function that
            # is being defined takes the place of `self`
            spelled_out = op.arg and depth == _BELOW_ARGUMENTS + op.arg
            if spelled_out or (not op.arg and depth == 2):
                return "decorator"
        elif depth == 1 and op.opname not in _TRANSPARENT:
            if op.opname in _WITH:
                return _WITH[op.opname]
            if not op.opname.startswith("LOAD_") or op.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                break
        jump = op.opname in ("JUMP_FORWARD", "FOR_ITER")
        depth += dis.stack_effect(op.opcode, op.arg, jump=jump)
        if depth < 1:
            break
        at = index.get(op.argval, len(code)) if jump else at + 1
    return "value"


def is_statement(frame: FrameType) -> bool:
    """Whether the call that ``frame`` is in the middle of is a statement, whose value nobody takes.

    Takes about a tenth of a millisecond.
    """
    import dis

    code = list(dis.get_instructions(frame.f_code))
    at = next((i for i in range(len(code) - 1, -1, -1) if code[i].offset <= frame.f_lasti), len(code))
    # 3.11 calls in two steps; any other call that follows takes the value
    at += 2 if at < len(code) and code[at].opname == "PRECALL" else 1
    behind = (i.opname for i in code[at:] if i.opname not in ("CACHE", "EXTENDED_ARG", "NOP"))
    return next(behind, "") == "POP_TOP"
