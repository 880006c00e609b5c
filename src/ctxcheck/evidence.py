"""What a session learned, as plain data, and back: so that processes, shards and runs can be judged together.

:func:`dump` makes a document of dictionaries, lists, strings and numbers, :func:`load` puts any number of them together
into a :class:`~ctxcheck.engine.union.Union`, whose ``findings()`` are those that all of them make together.  Both
``pytest``'s workers and ``ctxcheck combine`` go by it, and so does a run of one process: the same evidence gives the
same findings, however it was split.

Everything is in tables, and refers to other tables by index: a program has many more orders than places.  Places become
code objects that can only be looked at (:func:`_scope`), so that whatever shows a finding shows one that came from
afar, too.

Nothing in a document is trusted: what doesn't fit is refused in one line.  Names of files are used to show source
lines; who loads what he doesn't know gives a ``file`` that says under which name each is to be looked for.

Left out: what goes by instances (CTX003), and what was found on the spot; those are told by the process that saw them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from opcode import opmap
from types import CodeType
from typing import Any, Final, TypeVar, cast

from ctxcheck.engine import classes as kinds
from ctxcheck.engine.classes import EVENT_LOOP, EVERYTHING, WITH, ContextStep, Kind, Level, LockClass, Mode
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.findings import Entry
from ctxcheck.engine.graph import Witness
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.sites import EMPTY, MAX_DEPTH, Trace, resolve
from ctxcheck.engine.slow import Over, Taken
from ctxcheck.engine.union import Union
from ctxcheck.engine.uses import DOUBTS, Doubt, Use
from ctxcheck.engine.validator import Validator
from ctxcheck.engine.waits import Slot

SCHEMA_VERSION: Final = 1

_KINDS: Final = {value.name: value for value in vars(kinds).values() if isinstance(value, Kind)}
_DOUBTS: Final[dict[str, Doubt]] = {doubt: doubt for doubt in DOUBTS}
_MODES: Final = {value.name: value for value in vars(kinds).values() if isinstance(value, Mode)}

#: Files of the standard library are written with this in front: it lives elsewhere on another machine.
_LIBRARY: Final = "<library>/"
_HOME: Final = os.path.dirname(os.path.abspath(os.__file__)) + os.sep

_ENTERS: Final = {opmap[name]: name for name in ("BEFORE_WITH", "BEFORE_ASYNC_WITH") if name in opmap}
_MAX_LINE: Final = 2**30
_MAX_COLUMN: Final = 2**20
_MAX_PLACES: Final = 2**16

_T = TypeVar("_T")

Document = dict[str, Any]
#: A code (file, function, first line) and an instruction in it.
_Point = tuple[tuple[str, str, int], int]


class EvidenceError(ConfigError):
    """A document can't be used; the message is one line that says where it is wrong."""


def dump(source: Validator | Union) -> Document:
    """Return what a session's validator, or a union, has learned, as plain data that JSON can hold.

    To be called when the validator is quiet: after its session ended.  O(what is kept); a hundred bytes or two an
    order, and as much again for each place.
    """
    return _Writer(source if isinstance(source, Union) else source.origins.everything()).document()


def load(documents: Iterable[object], *, file: Callable[[str], str] = str) -> Union:
    """Put documents together.

    ``file`` is given the name of each source file, and returns the one to show it under and to read it by.  Owners of
    different documents are different ones, but for their main threads.

    Raises:
        EvidenceError: a document isn't one of :func:`dump`'s, is damaged, or of a newer version.
    """
    reader = _Reader(file)
    for index, document in enumerate(documents):
        try:
            reader.read(document)
        except EvidenceError:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise EvidenceError(f"evidence {index + 1} is damaged: {what[:200]}") from None
    return reader.finish()


# ---- writing


class _Writer:
    """One document in the making: each table, and where in it a thing is."""

    def __init__(self, union: Union) -> None:
        self._union: Union = union
        self._tables: dict[str, list[Any]] = {
            name: [] for name in ("files", "codes", "places", "traces", "classes", "owners", "origins", "guards")
        }
        self._known: dict[tuple[str, Any], int] = {}

    def document(self) -> Document:
        union = self._union
        for lock_class in sorted(union.seen, key=lambda c: c.key):
            self._class(lock_class)
        body: Document = {
            "edges": [
                [self._class(a), self._class(b), pool.count, [self._witness(w) for w in pool.all()]]
                for (a, b), pool in sorted(union.edges.items(), key=lambda item: (item[0][0].key, item[0][1].key))
            ],
            "uses": [
                [context, self._class(c), [self._use(use) for alike in ways.values() for use in alike]]
                for (context, c), ways in union.used.items()
            ],
            "holds": [
                [self._class(c), sorted(masked), [self._use(use) for alike in ways.values() for use in alike]]
                for (c, masked), ways in union.held.items()
            ],
            "senders": [
                self._sender(target, place, sender.needs, woke=sender.woke)
                for target, places in union.senders.items()
                for place, sender in places.items()
            ],
            "taken": [
                [self._class(c), self._taken(place)] for c, places in union.taken.items() for place in places.values()
            ],
            "over": [
                [self._class(c), self._over(place)] for c, places in union.over.items() for place in places.values()
            ],
            "slots": [self._slot(slot) for slot in union.slots.values()],
            "joins": self._classes(union.joins),
            "handed_over": self._classes(union.handed_over),
        }
        return {"schema_version": SCHEMA_VERSION, **self._tables, **body}

    def _enter(self, table: str, key: Any, make: Callable[[], Any]) -> int:
        index = self._known.get((table, key))
        if index is None:
            row = make()  # may enter others
            rows = self._tables[table]
            index = self._known[table, key] = len(rows)
            rows.append(row)
        return index

    def _class(self, lock_class: LockClass) -> int:
        base = lock_class.base

        def row() -> list[Any]:
            if base is not lock_class:
                return [lock_class.key, lock_class.name, "", self._class(base), -1, 0]
            flags = lock_class.unstable | lock_class.library << 1
            return [lock_class.key, lock_class.name, lock_class.kind.name, -1, self._trace(lock_class.made_at), flags]

        return self._enter("classes", lock_class, row)

    def _classes(self, lock_classes: Iterable[LockClass]) -> list[int]:
        return [self._class(c) for c in sorted(lock_classes, key=lambda c: c.key)]

    def _guards(self, guards: frozenset[LockClass]) -> int:
        return self._enter("guards", guards, lambda: self._classes(guards))

    def _owner(self, owner: Owner) -> int:
        thread = owner.thread
        return self._enter(
            "owners", owner, lambda: [owner.kind, owner.name, -1 if thread is owner else self._owner(thread)]
        )

    def _origin(self, origin: str) -> int:
        return self._enter("origins", origin, lambda: origin)

    def _trace(self, trace: Trace) -> int:
        # by identity: equal ones are shared where it matters, and code objects are dear to hash
        key = (trace.lastis, *map(id, trace.codes))
        return self._enter("traces", key, lambda: list(map(self._place, trace.codes, trace.lastis)))

    def _place(self, code: CodeType, lasti: int) -> int:
        def row() -> list[Any]:
            place = resolve(code, lasti)
            name = _to_portable(place.filename)
            file = self._enter("files", name, lambda: name)
            first = code.co_firstlineno
            scope = self._enter("codes", (name, place.function, first), lambda: [file, place.function, first])
            instructions = code.co_code
            enters = _ENTERS.get(instructions[lasti], "") if 0 <= lasti < len(instructions) else ""
            # as it was in the code that this one stands for
            at = code.co_consts[1][lasti // 2] if code.co_consts[:1] == (_STANDS_FOR,) else lasti
            return [scope, at, place.line, place.end_line, place.column, place.end_column, enters]

        return self._enter("places", (id(code), lasti), row)

    def _witness(self, w: Witness) -> list[Any]:
        return [
            self._owner(w.owner), self._guards(w.guards), self._origin(w.origin), w.held_mode.name, w.taken_mode.name,
            self._trace(w.held_at), self._trace(w.taken_at), w.allowed,
        ]  # fmt: skip

    def _use(self, use: Use) -> list[Any]:
        return [
            self._owner(use.owner), self._guards(use.guards), self._origin(use.origin), use.mode.name,
            self._trace(use.trace), *use.allowed, use.doubt, sorted(use.flags),
        ]  # fmt: skip

    def _taken(self, place: Taken) -> list[Any]:
        step = place.inside.step
        label = step.label if isinstance(step, ContextStep) and step is not EVENT_LOOP else ""
        return [
            self._owner(place.owner), self._guards(place.guards), self._origin(place.origin), label,
            self._trace(place.inside.trace), self._trace(place.trace), place.timed, place.allowed,
        ]  # fmt: skip

    def _over(self, place: Over) -> list[Any]:
        mode = place.held.step.mode
        return [
            self._owner(place.owner), self._guards(place.guards), self._origin(place.origin),
            mode.name if mode is not None else WITH.name, self._trace(place.held.trace), place.call,
            self._trace(place.trace), place.allowed,
        ]  # fmt: skip

    def _sender(
        self, target: LockClass, place: tuple[str, str, int], needs: Iterable[LockClass], *, woke: bool
    ) -> list[Any]:
        return [self._class(target), [_to_portable(place[0]), *place[1:]], self._classes(needs), woke]

    def _slot(self, slot: Slot) -> list[Any]:
        return [
            self._class(slot.pool), self._class(slot.job), -1 if slot.waiting is None else self._class(slot.waiting),
            self._owner(slot.owner), self._origin(slot.origin), self._trace(slot.began_at), self._trace(slot.trace),
            slot.timed, slot.allowed, slot.workers, slot.inside,
        ]  # fmt: skip


def _to_portable(filename: str) -> str:
    if filename.startswith(_HOME):
        return _LIBRARY + filename[len(_HOME) :].replace(os.sep, "/")
    return filename


# ---- reading


class _Reader:
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
        self._later: list[Callable[[_Places], None]] = []

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
        self._union.seen.update(classes)

    def finish(self) -> Union:
        """All documents are in: the places get their code, and everything that has a place goes into the union."""
        places = _Places(self._codes)
        for step in self._later:
            step(places)
        return self._union

    def _own_name(self, name: str) -> str:
        if name.startswith(_LIBRARY):
            parts = name[len(_LIBRARY) :].split("/")
            return _HOME + os.sep.join(part for part in parts if part not in ("", ".", ".."))
        return self._file(name)

    def _read_codes(self, document: Document) -> list[tuple[str, str, int]]:
        files = [self._own_name(_text(row)) for row in _rows(document, "files")]
        codes: list[tuple[str, str, int]] = []
        for row in _rows(document, "codes"):
            file, function, first = _list(row)
            codes.append((_pick(files, file), _text(function), _number(first, 0, _MAX_LINE)))
        return codes

    def _read_place(self, row: object, codes: list[tuple[str, str, int]]) -> _Point:
        scope, lasti, line, end_line, column, end_column, enters = _list(row)
        code, at = _pick(codes, scope), _number(lasti, -1, _MAX_LINE)
        known = self._codes.setdefault(code, {})
        if len(known) >= _MAX_PLACES and at not in known:
            raise ValueError(f"more than {_MAX_PLACES} places in one function")
        known.setdefault(
            at,
            (
                _number(line, 0, _MAX_LINE), _number(end_line, -1, _MAX_LINE),
                _number(column, -1, _MAX_COLUMN), _number(end_column, -1, _MAX_COLUMN), _text(enters),
            ),
        )  # fmt: skip
        return code, at

    def _read_class(self, row: list[Any], classes: list[LockClass], traces: list[list[_Point]]) -> LockClass:
        key, name, kind, base, made_at, flags = row
        key, name = _text(key), _text(name)
        if base == -1 and kind not in _KINDS:
            raise ValueError(f"unknown kind of lock {str(kind)[:40]!r}")
        found = self._classes.get(key)
        if found is not None:
            return found
        if base != -1:
            found = Level(_pick(classes, base), 1, key)
            found.name = name
        else:
            found = LockClass(key, name, _KINDS[kind], unstable=bool(_number(flags) & 1))
            found.library = bool(flags & 2)
            trace, made = _pick(traces, made_at), found
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
            held_how, taken_how = _MODES[_text(held_mode)], _MODES[_text(taken_mode)]
            reason = None if allowed is None else _text(allowed)
            made = Witness(by, under, where, held_how, taken_how, EMPTY, EMPTY, reason)

            def put(
                places: _Places, made: Witness = made, held: list[_Point] = held, taken: list[_Point] = taken
            ) -> None:
                self._union.order(edge, made._replace(held_at=places.trace(held), taken_at=places.trace(taken)))

            self._later.append(put)

    def _read_uses(
        self, context: str | None, lock_class: LockClass, masked: frozenset[str] | None, uses: list[Any], body: _Body
    ) -> None:
        for row in uses:
            owner, guards, origin, mode, at, first, second, doubted, flagged = _list(row)
            by, under, where = body.who(owner, guards, origin)
            trace, how = body.trace(at), _MODES[_text(mode)]
            allowed = (None if first is None else _text(first), None if second is None else _text(second))
            doubt, flags = _DOUBTS[_text(doubted)], frozenset(map(_text, _list(flagged)))

            def put(
                places: _Places, by: Owner = by, under: frozenset[LockClass] = under, where: str = where,
                how: Mode = how, trace: list[_Point] = trace, allowed: tuple[str | None, str | None] = allowed,
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

        def put(places: _Places) -> None:
            inside = Entry(step, places.trace(first), False)
            self._union.place(
                lock_class, Taken(by, inside, places.trace(trace), under, timed is True, allowed, where)
            )

        self._later.append(put)

    def _read_over(self, lock_class: LockClass, row: list[Any], body: _Body) -> None:
        owner, guards, origin, mode, began, call, at, reason = row
        by, under, where = body.who(owner, guards, origin)
        step = lock_class.step(_MODES[_text(mode)])
        name, first, trace = _text(call), body.trace(began), body.trace(at)
        allowed = None if reason is None else _text(reason)

        def put(places: _Places) -> None:
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

        def put(places: _Places) -> None:
            since_when, here = places.trace(since), places.trace(trace)
            self._union.slot(Slot(by, first, second, third, since_when, here, timed is True, allowed, where, *numbers))

        self._later.append(put)


class _Body:
    """The tables of one document that its facts refer to."""

    def __init__(
        self,
        traces: list[list[_Point]],
        classes: list[LockClass],
        owners: list[Owner],
        origins: list[str],
        guards: list[frozenset[LockClass]],
    ) -> None:
        self.traces: list[list[_Point]] = traces
        self.classes: list[LockClass] = classes
        self._owners: list[Owner] = owners
        self._origins: list[str] = origins
        self._guards: list[frozenset[LockClass]] = guards

    def trace(self, index: object) -> list[_Point]:
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


class _Places:
    """Turns places into traces: each code becomes one object, in all traces."""

    def __init__(self, codes: dict[tuple[str, str, int], dict[int, tuple[int, int, int, int, str]]]) -> None:
        self._codes = codes
        self._made: dict[tuple[str, str, int], tuple[CodeType, dict[int, int]]] = {}
        self._traces: dict[tuple[_Point, ...], Trace] = {}

    def trace(self, points: list[_Point]) -> Trace:
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
