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
from types import CodeType
from typing import Any, Final, NamedTuple, final

from ctxcheck.engine.classes import ContextStep
from ctxcheck.engine.findings import Entry, Moment, tally
from ctxcheck.engine.owner import NO_RUNS, Node, Owner, OwnerState, Run
from ctxcheck.engine.sites import EMPTY, Trace

#: Moments kept for the timeline of one bracket name and key.
TIMELINE: Final = 32
#: Places of an owner's calls that are told from each other while they are counted.
MAX_RUNS: Final = 64
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
class Mark:
    """What one function, or one block, says of its bracket: all that its calls share.

    ``function`` is how it is called in reports, ``declared`` where it is marked.  ``anyone``: a start's bracket is
    everybody's, a use is content with another owner's.  ``sleepable``: a use needs one that was opened where sleeping
    was allowed; ``sleeps``: a start or an end is a sleep point; ``nested``: a start's bracket and others that are
    declared so are closed in the reverse order of their opening.
    """

    __slots__ = ("anyone", "declared", "function", "name", "nested", "sleepable", "sleeps", "step", "why")

    def __init__(
        self,
        name: str,
        function: str,
        declared: Trace,
        *,
        anyone: bool,
        sleepable: bool,
        sleeps: bool,
        nested: bool,
        why: str,
        step: ContextStep | None = None,
    ) -> None:
        self.name: str = name
        self.function: str = function
        self.declared: Trace = declared
        self.anyone: bool = anyone
        self.sleepable: bool = sleepable
        self.sleeps: bool = sleeps
        self.nested: bool = nested
        self.why: str = why
        #: of a start: its chain entry, where that is another than any range's of this name
        self.step: ContextStep | None = step


@final
class Bracket:
    """An open (or lately closed) bracket.

    ``sleepable`` remembers whether it was opened where its owner could sleep, ``because`` what forbade
    it; ``allowed`` is, for one that is on nobody's chain, the reason of an ``allow`` around its start that accepts that
    it is left open.  ``key`` and ``span`` are held strongly only while the bracket is open; then they are words.
    """

    __slots__ = (
        "allowed", "because", "closed", "history", "key", "key_text", "name", "nested", "node", "of_context", "opened",
        "shared", "sleepable", "span", "span_text", "state", "why",
    )  # fmt: skip

    def __init__(
        self, mark: Mark, key: Any, span: Span | None, state: OwnerState, opened: Moment, sleepable: bool,
        because: Entry | None,
    ) -> None:  # fmt: skip
        self.name: str = mark.name
        self.key: Any = key
        self.key_text: str = ""
        self.span: Span | None = span
        self.span_text: str = ""
        self.state: OwnerState = state
        self.opened: Moment = opened
        self.closed: Moment | None = None
        self.shared: bool = mark.anyone
        self.nested: bool = mark.nested
        self.of_context: bool = mark.step is not None
        self.sleepable: bool = sleepable
        self.because: Entry | None = because
        self.allowed: str | None = None
        self.why: str = mark.why
        self.node: Node | None = None
        #: where its moments are noted while it is open
        self.history: History | None = None

    def words(self) -> str:
        """Its key and span, open or not."""
        key = self.key_text or describe_key(self.key)
        return " ".join(text for text in (key, self.span_text or describe_span(self.span)) if text)


def moment(what: Any, function: str, trace: Trace, owner: Owner, again: Any = None) -> Moment:
    """Something happens now to a bracket."""
    return Moment(what, function, trace, owner, _serials(), again)


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
        (start, end), (other_start, other_end) = a, b
        return bool(start is other_start or start == other_start) and bool(end is other_end or end == other_end)
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

    __slots__ = ("_references", "closed", "dropped", "moments", "remembers", "runs")

    def __init__(self, key: Any) -> None:
        references = [_reference(part) for part in _objects(key)]
        self.remembers: bool = None not in references
        self._references = [reference for reference in references if reference is not None]
        self.moments: deque[Moment] = deque(maxlen=TIMELINE)
        self.closed: Bracket | None = None
        #: no longer in the book
        self.dropped: bool = False
        #: what its last moments count
        self.runs: list[Run] = []

    def note(self, moment: Moment) -> None:
        """Add to the timeline."""
        if self.runs:
            self.stop()
        self.moments.append(moment)

    def stop(self) -> None:
        """Let no moment be counted any more: what comes next is another one."""
        runs, self.runs = self.runs, []
        for run in runs:
            run.node = run.history = None

    def is_of(self, key: Any) -> bool:
        """Whether this is the history of ``key``, which is known to be at the same place."""
        if not self._references:
            return True
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
    if key is None:
        return None
    if type(key) is tuple:
        return (tuple, *(_place(part) for part in key))  # pyright: ignore[reportUnknownVariableType]
    return (type(key), key) if type(key) in _BY_VALUE else id(key)  # pyright: ignore[reportUnknownVariableType]


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
                    gone = of_name.pop(next(iter(of_name)), None)
                    if gone is not None:
                        gone.dropped = True
                except (StopIteration, RuntimeError):  # another thread is at it
                    break
            found = of_name[place] = History(key)
        return found

    def note(self, state: OwnerState, name: str, key: Any, moment: Moment) -> None:
        """Add to the timeline of this name and key what ``state`` does."""
        state.runs = NO_RUNS
        self.history(name, key).note(moment)

    def history_of(self, bracket: Bracket) -> History:
        """As :meth:`history`, of one that is open."""
        history = bracket.history
        if history is None or history.dropped:
            history = bracket.history = self.history(bracket.name, bracket.key)
        return history

    def inside(
        self, state: OwnerState, mark: Mark, bracket: Bracket, node: Node | None, code: CodeType | None, lasti: int
    ) -> None:
        """Add a call to the timeline of a bracket that covers it, or count it with those before.

        ``node`` is where ``state`` stood when that was found, if the bracket is its own.
        """
        if bracket.closed is not None:
            return  # by a signal handler, just now
        history, runs = self.history_of(bracket), state.runs
        run = runs.get(lasti)
        if run is not None and run.history is history and run.mark is mark and run.code is code:
            for _ in run.again:
                break
        else:
            again = tally()
            run = Run(mark, code, again, history)
            if len(history.runs) >= TIMELINE - 1:
                history.stop()  # what is counted is still in the timeline
            # only its own line is ever shown
            trace = EMPTY if code is None else Trace((code,), (lasti,))
            history.moments.append(moment("inside", mark.function, trace, state.owner, again))
            history.runs.append(run)
            if runs is NO_RUNS or len(runs) >= MAX_RUNS:
                state.runs = runs = {}
            runs[lasti] = run
        run.bracket, run.node = bracket, node
        if bracket.closed is not None:
            history.stop()
            state.runs = NO_RUNS

    def timeline(self, name: str, key: Any) -> tuple[Moment, ...]:
        """What happened to this name and key lately, oldest first."""
        history = self.history(name, key)
        history.stop()
        moments = history.moments
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
        name, key, opened = bracket.name, bracket.key, bracket.opened
        bracket.history = history = self.history(name, key)
        self.everywhere.append(bracket)
        pair = self.pairs.get(name, ("", ""))
        if pair[0] != opened.function:
            self.pairs[name] = (opened.function, pair[1])
        of_name = self._histories[name]
        if len(of_name) > 1:
            # what is used stays: the oldest entries go first
            place = _place(key)
            of_name.pop(place, None)
            of_name[place] = history
        history.note(opened)

    def close(self, bracket: Bracket, moment: Moment) -> None:
        """Move a bracket to those lately closed and let go of its key."""
        bracket.closed = moment
        try:
            self.everywhere.remove(bracket)
        except ValueError:
            pass
        if moment.what == "closes":
            pair = self.pairs.get(bracket.name, ("", ""))
            if pair[1] != moment.function:
                self.pairs[bracket.name] = (pair[0], moment.function)
        history = self.history_of(bracket)
        history.stop()
        bracket.history = None  # it may come to refer to the bracket
        if history.remembers:
            history.closed = bracket
        else:
            history.dropped = True
            self._histories[bracket.name].pop(_place(bracket.key), None)
        if bracket.key is not None:
            bracket.key_text = describe_key(bracket.key)
        if bracket.span is not None:
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
