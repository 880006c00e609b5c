"""Generators that hold a lock while they are suspended (CTX104).

``with lock: yield row`` gives the lock back when somebody comes for the next row, or closes the generator.  Nothing is
looked at while that works.  Where an owner waits or ends with the lock held, or somebody else closes the generator, the
place that took the lock tells whether that was a generator, and the collector, where it stands now.

What a context manager made of a generator holds is its user's: he is inside of the block.
"""

from __future__ import annotations

import gc
import os
import sys
from opcode import opmap
from types import AsyncGeneratorType, CodeType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, cast, final

from ctxcheck.engine.findings import Finding, SuspendFacts
from ctxcheck.engine.owner import Node, OwnerState
from ctxcheck.engine.sites import EMPTY, Trace, capture, chain_of

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator

_FLAGS: Final = 0x20 | 0x200  # CO_GENERATOR, CO_ASYNC_GENERATOR
_LIBRARY: Final = os.path.dirname(os.path.abspath(os.__file__))
_CONTEXTLIB: Final = (os.path.join(_LIBRARY, "contextlib.py"), "<frozen contextlib>")

#: How often the collector's list is searched: it may hold millions, and the report goes without the place then.
MAX_SEARCHES: Final = 32


def holding_generator(trace: Trace) -> CodeType | None:
    """The generator (or async generator) that took a lock at ``trace``, if one did itself, or by what it entered."""
    for index, code in enumerate(trace.codes):
        if not code.co_flags & _FLAGS:
            if code.co_name not in ("__enter__", "__aenter__") and code.co_filename not in _CONTEXTLIB:
                return None
        elif not _is_manager(trace.codes, index):
            return code
    return None


def _is_manager(codes: tuple[CodeType, ...], index: int) -> bool:
    """Whether a generator is run by a context manager: whoever enters that resumes it."""
    if index + 1 >= len(codes):
        return False
    by = codes[index + 1]
    return by.co_filename in _CONTEXTLIB and by.co_name in ("__enter__", "__aenter__")


@final
class Generators:
    """What one session knows of suspended generators."""

    __slots__ = ("_engine", "_searches")

    def __init__(self, engine: Validator) -> None:
        self._engine: Validator = engine
        self._searches: int = 0

    def suspended(self, node: Node) -> Trace | None:
        """Where the generator waits, at its ``yield``, that took the lock of ``node``; None if there is no such one.

        Costs a walk over all objects that the collector knows, some 50 ms a million; so often and no more.
        """
        code = holding_generator(node.trace)
        if code is None or self._searches >= MAX_SEARCHES:
            return None
        self._searches += 1
        found = next((thing for thing in _users(code) if _waits_in(thing, code)), None)
        return None if found is None else chain_of(found)

    def left(self, state: OwnerState, node: Node, how: str) -> Finding | None:
        """What is told of an owner that ends while a generator which it ran holds a lock, suspended."""
        where = self.suspended(node)
        return None if where is None else self._finding(state, node, node, where, "left", how)

    def closes(self, state: OwnerState, node: Node) -> bool:
        """Whether ``state`` releases the lock of another owner since it closes the generator that took it (or the
        collector does so in its thread, or a task of the loop's): then that is told."""
        code = holding_generator(node.trace)
        error = sys.exception()
        if code is None or error is None:
            return False
        thrown = error.__traceback__
        while thrown is not None and thrown.tb_next is not None:
            thrown = thrown.tb_next
        # thrown in at a `yield`, as close() does, and what cancels a task that closes it
        if thrown is None or thrown.tb_frame.f_code is not code or code.co_code[thrown.tb_lasti] not in _AT_YIELD:
            return False
        trace = capture(1)
        at = next((i for i, each in enumerate(trace.codes) if each is code), 0)
        where = Trace((code, *trace.codes[at + 1 :]), (thrown.tb_lasti, *trace.lastis[at + 1 :]), trace.test)
        self._engine.emit(state, self._finding(state, node, node.stands_for, where, "closed", ""))
        return True

    def _finding(
        self, state: OwnerState, node: Node, around: Node, where: Trace, way: Any, how: str
    ) -> Finding:
        lock_class = node.step.lock_class
        assert lock_class is not None
        holder = node.state.owner
        for owner in (holder, holder.thread, state.owner):
            owner.learn_name()
        code = holding_generator(node.trace)
        name = "?" if code is None else code.co_qualname
        held = self._engine.entry(node)._replace(exact=False)
        allowed = self._engine.allowed(around.stands_for, "CTX104") or self._engine.allowed(state.cur, "CTX104")
        return Finding(
            "CTX104",
            "possible",
            state.owner,
            where,
            (lock_class.key, node.trace.function(), "generator", name),
            SuspendFacts(lock_class, held, holder.thread, name, where, EMPTY, way, holder, how),
            (lock_class,),
            allowed,
        )


def _users(code: CodeType) -> list[Any]:
    return gc.get_referrers(code)


def _waits_in(thing: Any, code: CodeType) -> bool:
    """Whether it is a generator with this code that stands at a ``yield``."""
    kind = cast("object", type(thing))
    if kind not in _KINDS:
        return False
    if kind is _GENERATOR:
        return bool(thing.gi_code is code and thing.gi_suspended)
    if thing.ag_code is not code or thing.ag_running or thing.ag_frame is None:
        return False
    suspended = getattr(thing, "ag_suspended", None)
    if suspended is not None:
        return bool(suspended)
    at: int = thing.ag_frame.f_lasti  # 3.11 doesn't tell whether it has begun
    return at >= 0 and code.co_code[at] == _YIELD


_GENERATOR: Final[object] = GeneratorType
_KINDS: Final[tuple[object, ...]] = (GeneratorType, AsyncGeneratorType)
_YIELD: Final = opmap["YIELD_VALUE"]
#: Where an exception comes from that is thrown in: from 3.13 on it is the instruction after the yield.
_AT_YIELD: Final = (_YIELD, opmap["RESUME"])
