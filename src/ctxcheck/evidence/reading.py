"""From any number of documents to one union.  Nothing in them is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast

from ctxcheck.engine.classes import EVENT_LOOP, EVERYTHING, ContextStep, Level, LockClass, Mode
from ctxcheck.engine.findings import Entry
from ctxcheck.engine.graph import Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import EMPTY, MAX_DEPTH
from ctxcheck.engine.slow import Over, Taken
from ctxcheck.engine.union import Union
from ctxcheck.engine.uses import DOUBTS, Doubt, Use
from ctxcheck.engine.waits import Slot
from ctxcheck.evidence.format import (
    KINDS,
    MAX_COLUMN,
    MAX_LINE,
    MODES,
    SCHEMA_VERSION,
    Document,
    EvidenceError,
    from_portable,
)
from ctxcheck.evidence.places import Places, Point

_DOUBTS: Final[dict[str, Doubt]] = {doubt: doubt for doubt in DOUBTS}
_MAX_PLACES: Final = 2**16

_T = TypeVar("_T")


def load(documents: Iterable[object], *, file: Callable[[str], str] = str) -> Union:
    """Put documents together.

    ``file`` is given the name of each source file, and returns the one to show it under and to read it by.  Owners of
    different documents are different ones, but for their main threads.

    Raises:
        EvidenceError: a document isn't one of :func:`dump`'s, is damaged, or of a newer version.
    """
    reader = Reader(file)
    for index, document in enumerate(documents):
        try:
            reader.read(document)
        except EvidenceError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise EvidenceError(f"evidence {index + 1} is damaged: {what[:200]}") from None
    return reader.finish()


class Reader:
    """Documents on their way into one union."""

    def __init__(self, file: Callable[[str], str]) -> None:
        self._union: Union = Union()
        self._file: Callable[[str], str] = file
        self._classes: dict[str, LockClass] = {}
        self._main: Owner = Owner(0, 0)
        self._main.name = "MainThread"
        self._serial: int = 0
        #: what each code has, over all documents: instructions and what is known of them
        self._codes: dict[tuple[str, str, int], dict[int, tuple[int, int, int, int, str]]] = {}
        self._later: list[Callable[[Places], None]] = []

    def read(self, data: object) -> None:
        """Take one document in; what has places waits until all of them are known."""
        document = _mapping(data)
        version = document.get("schema_version")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise EvidenceError("not evidence of ctxcheck: no schema_version")
        if version > SCHEMA_VERSION:
            raise EvidenceError(
                f"evidence of schema version {str(version)[:20]}; this version of ctxcheck reads up to {SCHEMA_VERSION}"
            )
        codes = self._read_codes(document)
        places = [self._read_place(row, codes) for row in _rows(document, "places")]
        traces = [[_pick(places, index) for index in _list(row)][:MAX_DEPTH] for row in _rows(document, "traces")]
        classes: list[LockClass] = []
        for row in _rows(document, "classes"):
            classes.append(self._read_class(_list(row), classes, traces))
        owners: list[Owner] = []
        for row in _rows(document, "owners"):
            owners.append(self._read_owner(_list(row), owners))
        origins = [_text(row) for row in _rows(document, "origins")]
        guards = [frozenset(_pick(classes, i) for i in _list(row)) for row in _rows(document, "guards")]
        body = _Body(traces, classes, owners, origins, guards)
        for edge in _rows(document, "edges"):
            self._read_edge(_list(edge), body)
        for row in _rows(document, "uses"):
            context, lock_class, uses = _list(row)
            self._read_uses(_text(context), _pick(classes, lock_class), None, _list(uses), body)
        for row in _rows(document, "holds"):
            lock_class, masked, uses = _list(row)
            names = frozenset(map(_text, _list(masked)))
            self._read_uses(None, _pick(classes, lock_class), names, _list(uses), body)
        for row in _rows(document, "senders"):
            target, place, needs, woke = _list(row)
            file, function, position = _list(place)
            where = (self._own_name(_text(file)), _text(function), _number(position))
            needed = {_pick(classes, i) for i in _list(needs)}
            self._union.sender(_pick(classes, target), where, needed, woke=woke is True)
        for row in _rows(document, "taken"):
            lock_class, place = _list(row)
            self._read_taken(_pick(classes, lock_class), _list(place), body)
        for row in _rows(document, "over"):
            lock_class, place = _list(row)
            self._read_over(_pick(classes, lock_class), _list(place), body)
        for row in _rows(document, "slots"):
            self._read_slot(_list(row), body)
        self._union.joins.update(_pick(classes, i) for i in _rows(document, "joins"))
        self._union.handed_over.update(_pick(classes, i) for i in _rows(document, "handed_over"))
        self._union.several.update(_pick(classes, i) for i in _rows(document, "several"))
        self._union.seen.update(classes)

    def finish(self) -> Union:
        """All documents are in: the places get their code, and everything that has a place goes into the union."""
        places = Places(self._codes)
        for step in self._later:
            step(places)
        return self._union

    def _own_name(self, name: str) -> str:
        return from_portable(name) or self._file(name)

    def _read_codes(self, document: Document) -> list[tuple[str, str, int]]:
        files = [self._own_name(_text(row)) for row in _rows(document, "files")]
        codes: list[tuple[str, str, int]] = []
        for row in _rows(document, "codes"):
            file, function, first = _list(row)
            codes.append((_pick(files, file), _text(function), _number(first, 0, MAX_LINE)))
        return codes

    def _read_place(self, row: object, codes: list[tuple[str, str, int]]) -> Point:
        scope, lasti, line, end_line, column, end_column, enters = _list(row)
        code, at = _pick(codes, scope), _number(lasti, -1, MAX_LINE)
        known = self._codes.setdefault(code, {})
        if len(known) >= _MAX_PLACES and at not in known:
            return code, next(iter(known))  # some place in that function
        known.setdefault(
            at,
            (
                _number(line, 0, MAX_LINE), _number(end_line, -1, MAX_LINE),
                _number(column, -1, MAX_COLUMN), _number(end_column, -1, MAX_COLUMN), _text(enters),
            ),
        )  # fmt: skip
        return code, at

    def _read_class(self, row: list[Any], classes: list[LockClass], traces: list[list[Point]]) -> LockClass:
        key, name, kind, base, made_at, flags = row
        key, name = _text(key), _text(name)
        if base == -1 and kind not in KINDS:
            raise ValueError(f"unknown kind of lock {str(kind)[:40]!r}")
        found = self._classes.get(key)
        if found is not None:
            return found
        if base != -1:
            found = Level(_pick(classes, base), 1, key)
            found.name = name
        else:
            found = LockClass(key, name, KINDS[kind], unstable=bool(_number(flags) & 1))
            found.library = bool(flags & 2)
            trace, made = ([] if made_at == -1 else _pick(traces, made_at)), found
            self._later.append(lambda places: setattr(made, "made_at", places.trace(trace)))
        self._classes[key] = found
        return found

    def _read_owner(self, row: list[Any], owners: list[Owner]) -> Owner:
        kind, name, thread = row
        if name == "MainThread":
            return self._main
        self._serial += 1
        if thread == -1:
            owner = Owner(self._serial, 0, _text(kind))
        else:
            owner = _Afar(self._serial, _text(kind), _pick(owners, thread))
        owner.name = None if name is None else _text(name)
        return owner

    def _read_edge(self, row: list[Any], body: _Body) -> None:
        source, target, count, witnesses = row
        edge = _pick(body.classes, source), _pick(body.classes, target)
        if edge[0] is edge[1]:
            raise ValueError("an order between a class and itself")
        if not _list(witnesses):
            raise ValueError("an order without a witness")
        self._union.count(edge, _number(count))
        for witness in witnesses:
            owner, guards, origin, held_mode, taken_mode, held_at, taken_at, allowed = _list(witness)
            by, under, where = body.who(owner, guards, origin)
            held, taken = body.trace(held_at), body.trace(taken_at)
            held_how, taken_how = MODES[_text(held_mode)], MODES[_text(taken_mode)]
            reason = None if allowed is None else _text(allowed)
            made = Witness(by, under, where, held_how, taken_how, EMPTY, EMPTY, reason)

            def put(
                places: Places, made: Witness = made, held: list[Point] = held, taken: list[Point] = taken
            ) -> None:
                self._union.order(edge, made._replace(held_at=places.trace(held), taken_at=places.trace(taken)))

            self._later.append(put)

    def _read_uses(
        self, context: str | None, lock_class: LockClass, masked: frozenset[str] | None, uses: list[Any], body: _Body
    ) -> None:
        for row in uses:
            owner, guards, origin, mode, at, first, second, doubted, flagged = _list(row)
            by, under, where = body.who(owner, guards, origin)
            trace, how = body.trace(at), MODES[_text(mode)]
            allowed = (None if first is None else _text(first), None if second is None else _text(second))
            doubt, flags = _DOUBTS[_text(doubted)], frozenset(map(_text, _list(flagged)))

            def put(
                places: Places, by: Owner = by, under: frozenset[LockClass] = under, where: str = where,
                how: Mode = how, trace: list[Point] = trace, allowed: tuple[str | None, str | None] = allowed,
                doubt: Doubt = doubt, flags: frozenset[str] = flags,
            ) -> None:  # fmt: skip
                use = Use(by, under, where, how, places.trace(trace), allowed, doubt, flags)
                if context is not None:
                    self._union.use(context, lock_class, use)
                elif masked is not None:
                    self._union.hold(lock_class, masked, use)

            self._later.append(put)

    def _read_taken(self, lock_class: LockClass, row: list[Any], body: _Body) -> None:
        owner, guards, origin, label, began, at, timed, reason = row
        by, under, where = body.who(owner, guards, origin)
        step = ContextStep("atomic", _text(label), EVERYTHING) if label else EVENT_LOOP
        first, trace = body.trace(began), body.trace(at)
        allowed = None if reason is None else _text(reason)

        def put(places: Places) -> None:
            inside = Entry(step, places.trace(first), False)
            self._union.place(
                lock_class, Taken(by, inside, places.trace(trace), under, timed is True, allowed, where)
            )

        self._later.append(put)

    def _read_over(self, lock_class: LockClass, row: list[Any], body: _Body) -> None:
        owner, guards, origin, mode, began, call, at, reason = row
        by, under, where = body.who(owner, guards, origin)
        step = lock_class.step(MODES[_text(mode)])
        name, first, trace = _text(call), body.trace(began), body.trace(at)
        allowed = None if reason is None else _text(reason)

        def put(places: Places) -> None:
            held = Entry(step, places.trace(first), False)
            self._union.place(lock_class, Over(by, held, name, places.trace(trace), under, allowed, where))

        self._later.append(put)


    def _read_slot(self, row: list[Any], body: _Body) -> None:
        pool, job, waiting, owner, origin, began, at, timed, reason, workers, inside = row
        first, second = _pick(body.classes, pool), _pick(body.classes, job)
        third = None if waiting == -1 else _pick(body.classes, waiting)
        by, where = body.who_in(owner, origin)
        since, trace = body.trace(began), body.trace(at)
        allowed = None if reason is None else _text(reason)
        numbers = _number(workers), _number(inside)

        def put(places: Places) -> None:
            since_when, here = places.trace(since), places.trace(trace)
            self._union.slot(Slot(by, first, second, third, since_when, here, timed is True, allowed, where, *numbers))

        self._later.append(put)


class _Body:
    """The tables of one document that its facts refer to."""

    def __init__(
        self,
        traces: list[list[Point]],
        classes: list[LockClass],
        owners: list[Owner],
        origins: list[str],
        guards: list[frozenset[LockClass]],
    ) -> None:
        self.traces: list[list[Point]] = traces
        self.classes: list[LockClass] = classes
        self._owners: list[Owner] = owners
        self._origins: list[str] = origins
        self._guards: list[frozenset[LockClass]] = guards

    def trace(self, index: object) -> list[Point]:
        return _pick(self.traces, index)

    def who(self, owner: object, guards: object, origin: object) -> tuple[Owner, frozenset[LockClass], str]:
        return _pick(self._owners, owner), _pick(self._guards, guards), _pick(self._origins, origin)

    def who_in(self, owner: object, origin: object) -> tuple[Owner, str]:
        return _pick(self._owners, owner), _pick(self._origins, origin)


class _Afar(Owner):
    """A task of another process."""

    __slots__ = ("_thread",)

    def __init__(self, serial: int, kind: str, thread: Owner) -> None:
        super().__init__(serial, 0, kind)
        self._thread: Owner = thread

    @property
    def thread(self) -> Owner:
        return self._thread


# ---- checks


def _mapping(value: object) -> Document:
    if not isinstance(value, dict):
        raise EvidenceError("not evidence of ctxcheck: not an object")
    return cast("Document", value)


def _rows(document: Document, name: str) -> list[Any]:
    value = document.get(name, [])
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list")
    return value  # pyright: ignore[reportUnknownVariableType]


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a row is not a list")
    return value  # pyright: ignore[reportUnknownVariableType]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is not a text")
    return value


def _number(value: object, least: int = 0, most: int = 2**62) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"not a number from {least} to {most}")
    return value


def _pick(table: list[_T], index: object) -> _T:
    return table[_number(index, 0, len(table) - 1)]
