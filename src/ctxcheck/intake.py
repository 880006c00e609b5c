"""The evidence in a data file, on its way into a database: it may come from anywhere, so each piece is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast, final

from ctxcheck.engine.sites import MAX_DEPTH, portable_key
from ctxcheck.engine.uses import DOUBTS
from ctxcheck.evidence.format import KINDS, LIBRARY, MAX_COLUMN, MAX_LINE, MODES, SCHEMA_VERSION
from ctxcheck.witnesses import NAMED_ONLY, SHOWN_ONLY, TABLE_NAMES, Witnesses, blob_of, dump, remember

#: Characters of a name, a class key or an identity.
MAX_NAME: Final = 2_000
#: Items of one list in a record.
MAX_ITEMS: Final = 100_000
#: Rows of all tables of one file of a run.
MAX_ROWS: Final = 2_000_000

_MAX_NUMBER: Final = 2**53
_T = TypeVar("_T")


@final
class Intake:
    """The evidence in one file, on its way into the database.

    What is in the tables is looked at when it is referred to, once.  The orders of a run are kept until its
    end (:meth:`finish`), since only then it is known which locks really keep others out.
    """

    def __init__(self, into: Witnesses, run: str, *, combined: bool) -> None:
        self._into: Witnesses = into
        self._run: str = run
        self._combined: bool = combined
        self._rows: dict[str, dict[int, Any]] = {name: {} for name in TABLE_NAMES}
        self._number_of_rows: int = 0
        self._facts: list[tuple[str, Any]] = []
        self._final: list[tuple[str, Any]] = []
        #: whether the process has come to its end
        self.whole: bool = False
        self._plural: set[str] = set()
        #: which thread-locals that finalizers look at are set where a class is held, as it was found later
        self._sets: dict[tuple[int, int], set[str]] = {}
        self._ways: dict[tuple[str | None, ...], str] = {}
        self._memo: dict[str, dict[int, Any]] = {name: {} for name in (*TABLE_NAMES, "points", "spots")}
        self._pairs: dict[tuple[Any, Any], int] = {}
        self._rows["points"] = self._rows["spots"] = self._rows["traces"]
        self.lost: int = 0
        self.damaged: int = 0
        self.seen: bool = False

    def take(self, record: Mapping[str, Any]) -> None:
        """Take one record.

        Raises:
            ValueError: what is wrong with it.
        """
        version = number_in(record, "schema_version")
        if version > SCHEMA_VERSION:
            raise ValueError(f"evidence of schema version {version}; this version reads up to {SCHEMA_VERSION}")
        self.seen = True
        if self._combined and record.get("again") is True:
            for known in (*self._rows.values(), *self._memo.values()):
                known.clear()
            self._pairs.clear()
        starts = record.get("at", {})
        if not isinstance(starts, dict):
            raise ValueError("at: expected an object")
        at = cast("dict[str, Any]", starts)
        for name in TABLE_NAMES:
            rows = list_in(record, name)
            start = number_in(at, name)
            self._number_of_rows += len(rows)
            if self._number_of_rows > MAX_ROWS and not self._combined:
                raise ValueError(f"more than {MAX_ROWS:,} rows in one file")
            self._rows[name].update(enumerate(rows, start))
        if not self._combined:  # there the guards are those that keep others out
            for index in list_in(record, "plural"):
                try:
                    self._plural.add(self._key(index))
                except (ValueError, TypeError, KeyError, IndexError):
                    self.damaged += 1
        for row in list_in(record, "sets"):
            try:
                c, at, names = _list(row)
                self._sets.setdefault((_number(c), _number(at)), set()).update(map(_text, _list(names)))
            except (ValueError, TypeError):
                self.damaged += 1
        for name in ("seen", "joins", "handed_over", "edges", "uses", "holds", "senders", "taken", "over", "slots"):
            facts = self._final if record.get("final") is True else self._facts
            facts += [(name, row) for row in list_in(record, name)]
        self.whole = self.whole or record.get("whole") is True
        self.lost += number_in(record, "lost")
        if self._combined:
            self.finish()

    def finish(self) -> None:
        """All is there.  What a process wrote at its end stands for what it wrote until then."""
        rows: list[tuple[Any, ...]] = []
        if self.whole:
            self._facts.clear()
            self._plural.clear()
            self._sets.clear()
        for name, fact in (*self._facts, *self._final):
            try:
                self._enter(name, fact, rows)
            except (ValueError, TypeError, KeyError, IndexError):
                self.damaged += 1
        self._facts.clear()
        self._final.clear()
        self._into.add_witnesses(rows)

    def _enter(self, name: str, fact: Any, rows: list[tuple[Any, ...]]) -> None:
        into = self._into
        if name == "seen":
            self._class(fact)
        elif name in ("joins", "handed_over"):
            into.flag(self._class(fact), name)
        elif name == "edges":
            a, b, count, witnesses = _list(fact)
            classes = self._memo["classes"]
            source = (type(a) is int and classes.get(a)) or self._class(a)
            target = (type(b) is int and classes.get(b)) or self._class(b)
            if source == target:
                raise ValueError("an order between a class and itself")
            head = into.add_edge(source, target, _number(count))
            for witness in _list(witnesses):
                owner, guards, origin, held_mode, taken_mode, held_at, taken_at, allowed = _list(witness)
                way = self._ways.get((held_mode, taken_mode, allowed))
                if way is None:
                    way = self._way(_mode(held_mode), _mode(taken_mode), _text_or_none(allowed))
                rows.append(self._witness(head, way, owner, guards, origin, held_at, taken_at))
        elif name == "uses":
            context, c, uses = _list(fact)
            self._uses(into.spot("use", self._class(c), dump(_text(context))), uses, rows)
        elif name == "holds":
            c, masked, uses = _list(fact)
            names = sorted({_text(context) for context in _list(masked)})
            if self._sets:
                more = [(use, self._sets.get((c, use[4]), ())) for use in map(_list, _list(uses))]
                uses = [[*use[:8], [*_list(use[8]), *flags]] for use, flags in more]
            self._uses(into.spot("hold", self._class(c), dump(names)), uses, rows)
        elif name in ("taken", "over"):
            c, place = _list(fact)
            self._place_of(name, self._class(c), _list(place))
        elif name == "slots":
            self._slot(_list(fact))
        else:
            target, place, needs, woke = _list(fact)
            file, function, position = _list(place)
            where = dump([_text(file), _text(function), _number(position)])
            into.sender(self._class(target), where, map(self._class, _list(needs)), woke=woke is True)

    def _uses(self, head: int, uses: Any, rows: list[tuple[Any, ...]]) -> None:
        for use in _list(uses):
            owner, guards, origin, mode, at, first, second, doubt, flags = _list(use)
            if doubt not in DOUBTS:
                raise ValueError("unknown doubt")
            names = sorted(set(map(_text, _list(flags))))
            way = self._way(_mode(mode), _text_or_none(first), _text_or_none(second), cast("str", doubt), *names)
            rows.append(self._witness(head, way, owner, guards, origin, None, at))

    def _place_of(self, what: str, lock_class: int, place: list[Any]) -> None:
        """A class is taken where nobody may wait for long, or held over a call that may block.  Of one thread's places
        that are alike the first one is kept, in the order that they have wherever they are."""
        if what == "taken":
            owner, guards, origin, label, began, at, timed, allowed = place
            if not isinstance(timed, bool):
                raise ValueError("expected true or false")
            way = dump([_text(label, least=0), timed, _text_or_none(allowed)])
        else:
            owner, guards, origin, mode, began, call, at, allowed = place
            way = dump([_mode(mode), _text(call), _text_or_none(allowed)])
        by, where, first, trace, sort = self._where(owner, origin, began, at)
        thread = self._rows["owners"][owner][2]
        held_by = by if thread == -1 else self._owner(thread)[0]
        self._into.add_place((what, lock_class, way, self._guards(guards), held_by, sort, by, where, first, trace))

    def _slot(self, slot: list[Any]) -> None:
        """Jobs of a pool wait for later ones of the same pool."""
        pool, job, waiting, owner, origin, began, at, timed, allowed, workers, inside = slot
        if not isinstance(timed, bool):
            raise ValueError("expected true or false")
        by, where, first, trace, place = self._where(owner, origin, began, at)
        reason = dump(_text_or_none(allowed))
        third = -1 if waiting == -1 else self._class(waiting)
        sort = blob_of("" if allowed is None else reason) + b"\0" + place
        key = (self._class(pool), self._class(job), int(timed))
        self._into.add_slot(key, _number(workers), _number(inside), (sort, third, by, where, first, trace, reason))

    def _where(self, owner: Any, origin: Any, began: Any, at: Any) -> tuple[int, int, int, int, bytes]:
        """Who, counting for what, since where, where; and what sorts as the place does, wherever it is."""
        by, who = self._owner(owner)
        where, _ = self._origin(origin)
        first, since = self._trace(began)
        trace, path = self._trace(at)
        sort = f"{self._spot(at)}\0{self._rows['origins'][origin]}\0{path}{since}{who}"
        return by, where, first, trace, blob_of(sort)

    def _way(self, *parts: str | None) -> str:
        way = self._ways.get(parts)
        if way is None:
            way = self._ways[parts] = dump(parts)
        return way

    def _witness(
        self, head: int, way: str, owner: Any, guards: Any, origin: Any, held: Any, taken: Any
    ) -> tuple[Any, ...]:
        # nearly all of them are known: so the dictionaries are asked here
        memo = self._memo
        by, who = (type(owner) is int and memo["owners"].get(owner)) or self._owner(owner)
        under = (type(guards) is int and memo["guards"].get(guards)) or self._guards(guards)
        where, _ = (type(origin) is int and memo["origins"].get(origin)) or self._origin(origin)
        traces = memo["traces"]
        held_at, first = (0, "") if held is None else (type(held) is int and traces.get(held)) or self._trace(held)
        taken_at, second = (type(taken) is int and traces.get(taken)) or self._trace(taken)
        # as the engine sorts them
        spots = memo["spots"]
        inner = "" if held is None else spots.get(held) or self._spot(held)
        outer = spots.get(taken) or self._spot(taken)
        sort = blob_of(f"{outer}\0{inner}\0{self._rows['origins'][origin]}\0{second}{first}{who}")
        return (head, way, under, by, self._pair(held, taken), sort, where, held_at, taken_at)

    def _pair(self, held: Any, taken: Any) -> int:
        """The number that the two places of a witness have here, as a report shows them."""
        pair = (held, taken)
        number = self._pairs.get(pair)
        if number is None:
            places = [[] if index is None else self._shown(index) for index in pair]
            number = self._pairs[pair] = self._into.item(dump(places))[0]
        return number

    def _shown(self, trace: Any) -> list[Any]:
        """The innermost place that isn't in the standard library."""
        first: list[Any] = []
        for index in _list(self._rows["traces"][_number(trace)]):
            place = self._once("places", index, self._place)
            if not place[0].startswith(LIBRARY) or "site-packages" in place[0]:
                return place
            first = first or place
        return first

    # --- the tables -------------------------------------------------------------------

    def _once(self, table: str, index: Any, make: Callable[[Any], _T]) -> _T:
        memo = self._memo[table]
        found = memo.get(index) if type(index) is int else None
        if found is None:
            found = memo[index] = make(self._rows[table][_number(index)])
        return cast("_T", found)

    def _key(self, index: Any) -> str:
        return _text(_list(self._rows["classes"][_number(index)])[0])

    def _class(self, index: Any) -> int:
        return self._once("classes", index, self._add_class)

    def _add_class(self, row: Any) -> int:
        key, name, kind, base, made, flags = _list(row)
        points = self._points(made) if made != -1 else "[]"
        # processes of one program say the same of their classes
        same = (key, name, kind, points, flags) if base == -1 and type(flags) is int else None
        number = self._into.classes_alike.get(same) if same is not None else None
        if number is None:
            number = self._add_new_class(row, points)
            if same is not None:
                remember(self._into.classes_alike, same, number)
        return number

    def _add_new_class(self, row: list[Any], points: str) -> int:
        key, name, kind, base, _, flags = row
        below = ""
        if base != -1:
            below = self._key(base)
            # a name of its own makes sure that a chain of levels has an end, whatever other files say
            if not _text(key).startswith(f"{below}/") or _list(self._rows["classes"][_number(base)])[3] != -1:
                raise ValueError("no level of that class")
            self._class(base)
        elif kind not in KINDS:
            raise ValueError("unknown kind of lock")
        if _number(flags) & NAMED_ONLY:
            return self._into.class_number(_text(key))
        if flags & SHOWN_ONLY:
            return self._into.add_class(_text(key), _text(name), _text(kind))
        return self._into.add_class(
            _text(key), _text(name), "" if below else _text(kind), base=below, flags=_number(flags) & 3, made=points,
            known=1,
        )  # fmt: skip

    def _owner(self, index: Any) -> tuple[int, str]:
        return self._once("owners", index, lambda row: self._into.item(dump(self._owner_of(index, row))))

    def _owner_of(self, index: int, row: Any, depth: int = 0) -> list[Any]:
        kind, name, thread, *known = _list(row)
        if name == "MainThread":
            return [""]  # one owner, in all processes
        identity = _text(known[0]) if self._combined and known else f"{self._run} {index}"
        if thread == -1 or depth:
            return [identity, _text(kind), _text_or_none(name), None]
        below = self._owner_of(thread, self._rows["owners"][_number(thread)], 1)
        return [identity, _text(kind), _text_or_none(name), below]

    def _guards(self, index: Any) -> int:
        def make(row: Any) -> int:
            keys = {self._key(i) for i in _list(row)}
            for i in row:
                self._class(i)
            alike = tuple(sorted(keys - self._plural))
            number = self._into.guards_alike.get(alike)
            if number is None:
                number = remember(self._into.guards_alike, alike, self._into.item(dump(alike))[0])
            return number

        return self._once("guards", index, make)

    def _origin(self, index: Any) -> tuple[int, str]:
        return self._once("origins", index, lambda row: self._into.item(dump(_text(row, least=0))))

    def _trace(self, index: Any) -> tuple[int, str]:
        return self._once("traces", index, lambda _: self._into.item(self._points(index)))

    def _spot(self, index: Any) -> str:
        """What sorts as :meth:`ctxcheck.engine.sites.Trace.sort_key` does."""

        def make(row: Any) -> str:
            if not row:
                return "\0\0\0"
            file, function, _, position, *_ = self._place(self._rows["places"][row[0]])
            name, scope, at, whole = portable_key(file, function, position)
            return f"{name}\0{scope}\0{at + 1:012}\0{whole}"

        return self._once("spots", index, make)

    def _points(self, index: Any) -> str:
        return self._once("points", index, self._points_of)

    def _points_of(self, row: Any) -> str:
        return dump([self._once("places", place, self._place) for place in _list(row)[:MAX_DEPTH]])

    def _place(self, row: Any) -> list[Any]:
        scope, lasti, line, end_line, column, end_column, enters = _list(row)
        file, function, first = _list(self._rows["codes"][_number(scope)])
        name = _text(self._rows["files"][_number(file)], least=0)
        numbers = (_number(lasti, -1), _number(line), _number(end_line, -1))
        columns = (_number(column, -1, MAX_COLUMN), _number(end_column, -1, MAX_COLUMN))
        return [name, _text(function, least=0), _number(first), *numbers, *columns, _text(enters, least=0)]


# --- what a file may say ---------------------------------------------------------------------


def list_in(record: Mapping[str, Any], name: str) -> list[Any]:
    """A list of a record, empty if it isn't there."""
    value = record.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{name}: expected a list")
    items = cast("Sequence[Any]", value)
    if len(items) > MAX_ITEMS:
        raise ValueError(f"{name}: {len(items):,} items, at most {MAX_ITEMS:,} are allowed")
    return [*items]


def number_in(record: Mapping[str, Any], name: str) -> int:
    """A number of a record, 0 if it isn't there."""
    value = record.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"{name}: expected a whole number")
    return value


def _number(value: Any, least: int = 0, most: int = MAX_LINE) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError("expected a number")
    return value


def _text(value: Any, least: int = 1) -> str:
    if not isinstance(value, str) or not least <= len(value) <= MAX_NAME:
        raise ValueError("expected a text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value, least=0)


def _mode(value: Any) -> str:
    if value not in MODES:
        raise ValueError("unknown mode of an acquire")
    return cast("str", value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("expected a list")
    if len(value) > MAX_ITEMS:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError("too long a list")
    return value  # pyright: ignore[reportUnknownVariableType]
