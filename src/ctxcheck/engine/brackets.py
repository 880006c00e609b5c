"""Brackets: a range that one call opens and another closes, and the calls that need it open.

After the kernel's MMU notifiers (``mmu_notifier.h``): a start and an end must pair up,
both are sleep points, and per-page work is only meaningful in between.  An open
bracket is an entry of its owner's chain, so that a lock which crosses it is noticed where it is
released, without any test on the hot path.
"""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from typing import Any, Final, NamedTuple, final

from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.findings import Entry, Moment
from ctxcheck.engine.owner import Node, Owner, OwnerState
from ctxcheck.engine.sites import Trace

#: Moments kept for the timeline of one bracket name and key.
TIMELINE: Final = 32
#: Keys of one bracket name whose timelines are kept.
MAX_KEYS: Final = 256
#: Parts of a key that are shown.
MAX_PARTS: Final = 4

#: What is compared by value: never a class of the program's, whose ``==`` could run anything.
_BY_VALUE: Final = frozenset((str, int, bytes, bool))

Span = tuple[Any, Any]

_serials: Final = itertools.count(1).__next__


class Point(NamedTuple):
    """One place, for a call that isn't about a span."""

    value: Any


@final
class Bracket:
    """An open (or lately closed) bracket.

    ``sleepable`` remembers whether it was opened where its owner could sleep, ``because`` what forbade
    it; ``allowed`` is the reason of an ``allow`` around its start that accepts that it is left open.
    ``key`` and ``span`` are held strongly only while the bracket is open.
    """

    __slots__ = (
        "allowed", "because", "closed", "key", "key_text", "name", "node", "opened", "shared", "sleepable", "span",
        "span_text", "state", "why",
    )  # fmt: skip

    def __init__(
        self, name: str, key: Any, span: Span | None, state: OwnerState, opened: Moment, *, shared: bool, why: str
    ) -> None:
        self.name: str = name
        self.key: Any = key
        self.key_text: str = describe_key(key)
        self.span: Span | None = span
        self.span_text: str = ""
        self.state: OwnerState = state
        self.opened: Moment = opened
        self.closed: Moment | None = None
        self.shared: bool = shared
        self.sleepable: bool = True
        self.because: Entry | None = None
        self.allowed: str | None = None
        self.why: str = why
        self.node: Node | None = None


def moment(what: Any, function: str, trace: Trace, owner: Owner) -> Moment:
    """Something happens now to a bracket."""
    return Moment(what, function, trace, owner, _serials())


def same_key(a: Any, b: Any) -> bool:
    """Keys are compared by identity; strings, integers and tuples of them by value.

    Never by ``==`` of anything else: that would run the program's own code in the middle of a check.
    """
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) in _BY_VALUE:
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
    if type(key) is tuple:
        everything: tuple[Any, ...] = key  # pyright: ignore[reportUnknownVariableType]
        parts = [describe_key(part) or "None" for part in everything[:MAX_PARTS]]
        if len(everything) > MAX_PARTS:
            parts.append("...")
        return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
    if type(key) in _BY_VALUE:
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
class History:
    """What happened lately to the brackets of one name and key, and the last of them that was closed.

    Keeps no key alive.  Once a key's brackets are closed its object may go, and another one may come to its place in
    memory: so what the key consists of is remembered by weak references.  Where it can't be (a list has none),
    nothing is remembered beyond the closing.
    """

    __slots__ = ("_references", "closed", "moments", "remembers")

    def __init__(self, key: Any) -> None:
        references = [_reference(part) for part in _objects(key)]
        self.remembers: bool = None not in references
        self._references = [reference for reference in references if reference is not None]
        self.moments: deque[Moment] = deque(maxlen=TIMELINE)
        self.closed: Bracket | None = None

    def is_of(self, key: Any) -> bool:
        """Whether this is the history of ``key``, which is known to be at the same place."""
        return not self.remembers or all(
            reference() is part for reference, part in zip(self._references, _objects(key), strict=True)
        )


def _objects(key: Any) -> list[Any]:
    """The parts of a key that are compared by identity."""
    if type(key) is tuple:
        return [part for each in key for part in _objects(each)]  # pyright: ignore[reportUnknownVariableType]
    return [] if key is None or type(key) in _BY_VALUE else [key]


def _reference(thing: Any) -> weakref.ref[Any] | None:
    try:
        return weakref.ref(thing)
    except TypeError:
        return None


def _place(key: Any) -> object:
    """Something to look a key up by, which is equal for keys that are the same."""
    if type(key) is tuple:
        return (tuple, *(_place(part) for part in key))  # pyright: ignore[reportUnknownVariableType]
    by_value: bool = key is None or type(key) in _BY_VALUE
    return (type(key), key) if by_value else id(key)  # pyright: ignore[reportUnknownVariableType]


@final
class BracketBook:
    """The brackets that no single owner's state can hold: freed ones, and what happened lately.

    Needs no lock: each change is one atomic operation of a list, a deque or a dict.
    """

    __slots__ = ("_histories", "everywhere", "pairs", "steps")

    def __init__(self) -> None:
        self._histories: dict[str, dict[object, History]] = {}
        self.everywhere: list[Bracket] = []
        #: by name: the functions that opened and closed one last
        self.pairs: dict[str, tuple[str, str]] = {}
        self.steps: dict[str, ContextStep] = {}

    def step(self, name: str) -> ContextStep:
        """The chain entry of an open bracket; always the same object for a name."""
        found = self.steps.get(name)
        return found or self.steps.setdefault(name, ContextStep("range", name))

    def history(self, name: str, key: Any) -> History:
        """What happened to the brackets of this name and key."""
        of_name = self._histories.get(name)
        if of_name is None:
            of_name = self._histories.setdefault(name, {})
        place = _place(key)
        found = of_name.get(place)
        if found is None or not found.is_of(key):
            while len(of_name) >= MAX_KEYS:
                try:
                    of_name.pop(next(iter(of_name)), None)
                except (StopIteration, RuntimeError):  # another thread is at it
                    break
            found = of_name[place] = History(key)
        return found

    def note(self, name: str, key: Any, moment: Moment) -> None:
        """Add to the timeline of this name and key."""
        self.history(name, key).moments.append(moment)

    def timeline(self, name: str, key: Any) -> tuple[Moment, ...]:
        """What happened to this name and key lately, oldest first."""
        moments = self.history(name, key).moments
        for _ in range(3):
            try:
                return tuple(moments)
            except RuntimeError:  # another thread appended meanwhile
                continue
        return ()

    def lately_closed(self, name: str, key: Any) -> Bracket | None:
        """The bracket of this name and key that was closed last, if that is known."""
        return self.history(name, key).closed

    def opened(self, bracket: Bracket) -> None:
        """Enter a bracket into the book of all that are open."""
        self.everywhere.append(bracket)
        self.pairs[bracket.name] = (bracket.opened.function, self.pairs.get(bracket.name, ("", ""))[1])
        # what is used stays: the oldest entries go first
        history = self.history(bracket.name, bracket.key)
        of_name, place = self._histories[bracket.name], _place(bracket.key)
        of_name.pop(place, None)
        of_name[place] = history
        history.moments.append(bracket.opened)

    def close(self, bracket: Bracket, moment: Moment) -> None:
        """Move a bracket to those lately closed and let go of its key."""
        bracket.closed = moment
        try:
            self.everywhere.remove(bracket)
        except ValueError:
            pass
        if moment.what == "closes":
            self.pairs[bracket.name] = (self.pairs.get(bracket.name, ("", ""))[0], moment.function)
        history = self.history(bracket.name, bracket.key)
        if history.remembers:
            history.closed = bracket
        else:
            self._histories[bracket.name].pop(_place(bracket.key), None)
        bracket.span_text = describe_span(bracket.span)
        bracket.key = bracket.span = bracket.node = None

    def find_open(self, state: OwnerState, name: str, key: Any, *, anyone: bool) -> list[Bracket]:
        """Open brackets of this name and key that count for this owner, innermost first."""
        own = [b for b in reversed(state.brackets) if b.name == name and same_key(b.key, key)]
        rest = [
            b
            for b in list(self.everywhere)
            if b.name == name and (b.shared or (anyone and b.state is not state)) and same_key(b.key, key)
        ]
        return own + rest
