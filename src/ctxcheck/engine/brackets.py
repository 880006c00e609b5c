"""Brackets: a range that one call opens and another closes, and the calls that need it open.

After the kernel's MMU notifiers (``mmu_notifier.h``): a start and an end must pair up,
both are sleep points, and per-page work is only meaningful in between.  An open
bracket is an entry of its owner's chain, so that a lock which crosses it is noticed where it is
released, without any test on the hot path.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any, Final, NamedTuple, final

from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.findings import Entry, Moment
from ctxcheck.engine.owner import Node, OwnerState

#: Moments kept for the timeline of one bracket name.
TIMELINE: Final = 32

Span = tuple[Any, Any]


class Point(NamedTuple):
    """One place, for a call that isn't about a span."""

    value: Any


@final
class Bracket:
    """An open (or lately closed) bracket.

    ``sleepable`` remembers whether it was opened where its owner could sleep, ``because`` what forbade
    it.  ``key`` is held strongly only while the bracket is open.
    """

    __slots__ = (
        "because", "closed", "key", "key_ref", "key_text", "name", "node", "opened", "shared", "sleepable", "span",
        "state", "why",
    )  # fmt: skip

    def __init__(
        self, name: str, key: Any, span: Span | None, state: OwnerState, opened: Moment, *, shared: bool, why: str
    ) -> None:
        self.name: str = name
        self.key: Any = key
        self.key_ref: weakref.ref[Any] | None = None
        self.key_text: str = describe_key(key)
        self.span: Span | None = span
        self.state: OwnerState = state
        self.opened: Moment = opened
        self.closed: Moment | None = None
        self.shared: bool = shared
        self.sleepable: bool = True
        self.because: Entry | None = None
        self.why: str = why
        self.node: Node | None = None


def same_key(a: Any, b: Any) -> bool:
    """Keys are compared by identity; strings, integers and tuples of them by value.

    Never by ``==`` of anything else: that would run the program's own code in the middle of a check.
    """
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) in (str, int, bytes, bool):
        return bool(a == b)
    if type(a) is tuple:
        return len(b) == len(a) and all(map(same_key, a, b))  # pyright: ignore[reportUnknownArgumentType]
    return False


def covers(outer: Span | None, inner: Span | Point | None) -> bool:
    """Whether a half-open span or a point lies in ``outer``; a bracket without a span covers everything.

    What can't be compared with the bracket's ends doesn't lie in it.
    """
    if outer is None or inner is None:
        return True
    try:
        if isinstance(inner, Point):
            return bool(outer[0] <= inner.value and inner.value < outer[1])
        return bool(outer[0] <= inner[0] and inner[1] <= outer[1])
    except Exception:  # the program's own comparison
        return False


def same_span(a: Span | None, b: Span | None) -> bool:
    """Whether an end names the span of a start."""
    if a is None or b is None:
        return a is b
    try:
        return all(bool(x is y or x == y) for x, y in zip(a, b, strict=True))
    except Exception:  # the program's own comparison
        return False


def describe_key(key: Any) -> str:
    """A key in words: its value if it is plain, else its type (a ``repr`` could run anything)."""
    if type(key) in (str, int, bytes, bool):
        return repr(key)
    if key is None:
        return ""
    return f"<{type(key).__qualname__}>"


def describe_span(span: Span | Point | None) -> str:
    """A span in words, half-open, or a point; empty where there is none."""
    if isinstance(span, Point):
        return _end(span.value)
    return "" if span is None else f"[{_end(span[0])}, {_end(span[1])})"


def _end(value: Any) -> str:
    if type(value) is int and abs(value) >= 4096:
        return hex(value)
    return repr(value) if type(value) in (int, float, str, bytes) else f"<{type(value).__qualname__}>"


@final
class BracketBook:
    """The brackets that no single owner's state can hold: freed ones, and what happened lately, by name.

    Needs no lock: each change is one atomic operation of a list, a deque or a dict.
    """

    __slots__ = ("_lately", "closed", "everywhere", "steps")

    def __init__(self) -> None:
        self._lately: dict[str, deque[Moment]] = {}
        self.everywhere: list[Bracket] = []
        self.closed: dict[str, deque[Bracket]] = {}
        self.steps: dict[str, ContextStep] = {}

    def step(self, name: str) -> ContextStep:
        """The chain entry of an open bracket; always the same object for a name."""
        found = self.steps.get(name)
        return found or self.steps.setdefault(name, ContextStep("range", name))

    def note(self, name: str, moment: Moment) -> None:
        """Add to the timeline of ``name``."""
        lately = self._lately.get(name) or self._lately.setdefault(name, deque(maxlen=TIMELINE))
        lately.append(moment)

    def timeline(self, name: str) -> tuple[Moment, ...]:
        """What happened to ``name`` lately, oldest first."""
        for _ in range(3):
            try:
                return tuple(self._lately.get(name, ()))
            except RuntimeError:  # another thread appended meanwhile
                continue
        return ()

    def opened(self, bracket: Bracket) -> None:
        """Enter a bracket into the book of all that are open."""
        self.everywhere.append(bracket)

    def close(self, bracket: Bracket, moment: Moment) -> None:
        """Move a bracket to those lately closed and let go of its key."""
        bracket.closed = moment
        try:
            self.everywhere.remove(bracket)
        except ValueError:
            pass
        closed = self.closed.get(bracket.name) or self.closed.setdefault(bracket.name, deque(maxlen=4))
        closed.append(bracket)
        try:
            bracket.key_ref = weakref.ref(bracket.key)
        except TypeError:
            bracket.key_ref = None
        bracket.key = None

    def find_open(self, state: OwnerState, name: str, key: Any, *, anyone: bool) -> list[Bracket]:
        """Open brackets of this name and key that count for this owner, innermost first."""
        own = [b for b in reversed(state.brackets) if b.name == name and same_key(b.key, key)]
        rest = [
            b
            for b in list(self.everywhere)
            if b.name == name and (b.shared or (anyone and b.state is not state)) and same_key(b.key, key)
        ]
        return own + rest
