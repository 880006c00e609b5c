"""The evidence of many processes in a database: orders with their witnesses, and what else a verdict over all needs.

Rows come from data files (:mod:`ctxcheck.intake`) and go into documents of :mod:`ctxcheck.evidence`
(:class:`Assembler`), for a verdict or for a combined file.  Of the witnesses of one order that are alike those of the
first few owners are kept, as :class:`ctxcheck.engine.union.Pool` does it: always the same ones, in whatever order the
files come.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar, cast, final

from ctxcheck.engine.graph import ENOUGH_OWNERS, MAX_PLACES
from ctxcheck.evidence.format import KINDS, SCHEMA_VERSION

#: Flags of a class beside those of :mod:`ctxcheck.evidence`: no more is known than its key, or than a graph shows.
NAMED_ONLY: Final = 4
SHOWN_ONLY: Final = 8
#: Classes, texts, and so on, whose numbers are kept in memory.
REMEMBERED: Final = 50_000
#: After so many new rows those that are too many of their kind are taken out.
PRUNE_AFTER: Final = 500_000

TABLE_NAMES: Final = ("files", "codes", "places", "traces", "classes", "owners", "origins", "guards")
KIND_NAMES: Final = tuple(KINDS)
_AWAITED: Final = frozenset(kind.name for kind in KINDS.values() if kind.awaited)

TABLES: Final = """
create table class (id integer primary key, key blob unique, known int default 0, body text);
create table flag (class int, what text, primary key (class, what)) without rowid;
create table item (id integer primary key, digest blob unique, text text);
create table edge (id integer primary key, source int, target int, count int, unique (source, target));
create table spot (id integer primary key, what text, class int, detail text, unique (what, class, detail));
create table witness (
    head int, way text, guards int, owner int, place int, sort blob, origin int, held int, taken int,
    primary key (head, way, guards, owner, place)
) without rowid;
create table several (head int primary key);
create table sender (target int, place text, woke int, primary key (target, place)) without rowid;
create table need (target int, place text, class int, primary key (target, place, class)) without rowid;
create table place (
    what text, class int, way text, guards int, thread int, sort blob, owner int, origin int, began int, at int,
    primary key (what, class, way, guards, thread)
) without rowid;
create table slot (
    pool int, job int, timed int, workers int, inside int,
    sort blob, waiting int, owner int, origin int, began int, at int, allowed text,
    primary key (pool, job, timed)
) without rowid;
"""

#: Of what was seen at one place only, those stay that a verdict needs: of a few owners the first one each.
_PRUNE: Final = f"""
delete from witness where (head, way, guards, owner, place) in (
    select head, way, guards, owner, place from (
        select head, way, guards, owner, place,
            row_number() over (partition by head, way, guards order by sort) as nth
        from witness where head not in several
    ) where nth > {ENOUGH_OWNERS}
)
"""

#: Of the others, also the first one of each place, since what accepts an order at one accepts it at no other.  (Apart,
#: as it takes several times the memory.)
_PRUNE_SEVERAL: Final = f"""
delete from witness where (head, way, guards, owner, place) in (
    select head, way, guards, owner, place from (
        select head, way, guards, owner, place, own, there,
            row_number() over (partition by head, way, guards order by own > 1, sort) as nth,
            row_number() over (partition by head order by there > 1, sort) as spot
        from (
            select head, way, guards, owner, place, sort,
                row_number() over (partition by head, way, guards, owner order by sort) as own,
                row_number() over (partition by head, place, json_extract(way, '$[2]') order by sort) as there
            from witness where head in several
        )
    ) where (own > 1 or nth > {ENOUGH_OWNERS}) and (there > 1 or spot > {MAX_PLACES} or head < 0)
)
"""

_SEVERAL: Final = "insert into several select head from witness group by head having min(place) <> max(place)"

_PRUNE_PLACES: Final = f"""
delete from place where (what, class, way, guards, thread) in (
    select what, class, way, guards, thread from (
        select *, row_number() over (partition by what, class, way, guards order by sort) as nth from place
    ) where nth > {ENOUGH_OWNERS}
)
"""

_INSERT: Final = """
insert into witness values (?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update
set sort = excluded.sort, origin = excluded.origin, held = excluded.held, taken = excluded.taken
where excluded.sort < witness.sort
"""

_INSERT_PLACE: Final = """
insert into place values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update
set sort = excluded.sort, owner = excluded.owner, origin = excluded.origin, began = excluded.began, at = excluded.at
where excluded.sort < place.sort
"""

_INSERT_SLOT: Final = """
insert into slot values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict do update
set workers = min(workers, excluded.workers), inside = max(inside, excluded.inside)
"""

_FIRST_SLOT: Final = """
update slot set sort = ?, waiting = ?, owner = ?, origin = ?, began = ?, at = ?, allowed = ?
where pool = ? and job = ? and timed = ? and sort > ?
"""

_ORDER: Final = """
insert into edge (source, target, count) values (?, ?, ?)
on conflict do update set count = max(count, excluded.count) returning id, count
"""


_K = TypeVar("_K")
_V = TypeVar("_V")


@final
class Witnesses:
    """The tables of a database that evidence is in."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db: sqlite3.Connection = db
        db.executescript(TABLES)
        self._new: int = 0
        # what was asked for lately: processes of one program ask for the same
        self._numbers: dict[str, int] = {}
        self._bodies: dict[int, tuple[int, str]] = {}
        self._items: dict[bytes, int] = {}
        #: numbers of classes and of sets of guards by all that files say of them
        self.classes_alike: dict[tuple[Any, ...], int] = {}
        self.guards_alike: dict[tuple[str, ...], int] = {}
        self._edges: dict[tuple[int, int], tuple[int, int]] = {}

    def class_number(self, key: str) -> int:
        """The number that a class has here; what it is may be told later."""
        number = self._numbers.get(key)
        if number is None:
            blob = blob_of(key)
            row = self.db.execute("select id from class where key = ?", (blob,)).fetchone()
            if row is None:
                row = (self.db.execute("insert into class (key) values (?)", (blob,)).lastrowid,)
            number = remember(self._numbers, key, cast("int", row[0]))
        return number

    def add_class(
        self, key: str, name: str, kind: str, *, base: str = "", flags: int = 0, made: str = "[]", known: int = 0
    ) -> int:
        """Add a lock class; returns its number here.  Of two accounts the one that knows more wins, then the first."""
        number = self.class_number(key)
        new = f"{dump([name, kind, base, flags])[:-1]},{made}]"
        if self._bodies.get(number) == (known, new):
            return number
        old = self.db.execute("select known, body from class where id = ?", (number,)).fetchone()
        if old[1] is None or (-known, new) < (-old[0], old[1]):
            self.db.execute("update class set known = ?, body = ? where id = ?", (known, new, number))
            old = (known, new)
        remember(self._bodies, number, (cast("int", old[0]), cast("str", old[1])))
        return number

    def is_level(self, key: str) -> bool:
        """Whether a class is known as a level of another one."""
        row = self.db.execute("select json_extract(body, '$[2]') from class where key = ?", (blob_of(key),)).fetchone()
        return bool(row and row[0])

    def item(self, text: str) -> tuple[int, str]:
        """The number that a text has here, and its digest in any store."""
        digest = hashlib.blake2b(text.encode("ascii"), digest_size=16).digest()
        number = self._items.get(digest)
        if number is None:
            row = self.db.execute("select id from item where digest = ?", (digest,)).fetchone()
            if row is None:
                row = (self.db.execute("insert into item (digest, text) values (?, ?)", (digest, text)).lastrowid,)
            number = remember(self._items, digest, cast("int", row[0]))
        return number, digest.hex()

    def add_edge(self, source: int, target: int, count: int) -> int:
        """Add an order between two classes; of two counts the larger is kept.  Returns its number here."""
        number, known = self._edges.get((source, target), (0, -1))
        if known >= count:
            return number
        row = self.db.execute(_ORDER, (source, target, count)).fetchone()
        remember(self._edges, (source, target), cast("tuple[int, int]", row))
        return cast("int", row[0])

    def spot(self, what: str, lock_class: int, detail: str) -> int:
        """The number of a use or hold of a class, below zero."""
        key = (what, lock_class, detail)
        row = self.db.execute("select id from spot where what = ? and class = ? and detail = ?", key).fetchone()
        if row is None:
            row = (self.db.execute("insert into spot (what, class, detail) values (?, ?, ?)", key).lastrowid,)
        return -cast("int", row[0])

    def add_witnesses(self, rows: list[tuple[Any, ...]]) -> None:
        """Add witnesses: head, way, guards, owner, place, sort, origin, held, taken."""
        self.db.executemany(_INSERT, rows)
        self._new += len(rows)
        if self._new >= PRUNE_AFTER:
            self.prune()

    def add_place(self, row: tuple[Any, ...]) -> None:
        """Add a place of a slow lock: "taken" or "over", class, way, guards, thread, sort, owner, origin, since where,
        where."""
        self.db.execute(_INSERT_PLACE, row)
        self._new += 1

    def add_slot(self, key: tuple[int, int, int], workers: int, inside: int, first: tuple[Any, ...]) -> None:
        """Add jobs that wait in their own pool: (pool, job, whether timed), workers, how many of them, and of the first
        one sort, its own class, owner, origin, since where, where, and what accepts it."""
        self.db.execute(_INSERT_SLOT, (*key, workers, inside, *first))
        self.db.execute(_FIRST_SLOT, (*first, *key, first[0]))

    def prune(self) -> None:
        """Take out what is too many of its kind."""
        if self._new:
            self.db.execute("delete from several")
            self.db.execute(_SEVERAL)
            self.db.execute(_PRUNE)
            self.db.execute(_PRUNE_SEVERAL)
            self.db.execute(_PRUNE_PLACES)
            self._new = 0

    def every_class(self) -> Iterator[int]:
        """All classes of which more is known than the key, by key."""
        for (number,) in self.db.execute("select id from class where body is not null order by key"):
            yield number

    def flag(self, lock_class: int, what: str) -> None:
        """Note something of a class."""
        self.db.execute("insert or ignore into flag values (?, ?)", (lock_class, what))

    def sender(self, target: int, place: str, needs: Iterable[int], *, woke: bool) -> None:
        """Note a place that sends a signal."""
        self.db.execute(
            "insert into sender values (?, ?, ?) on conflict do update set woke = max(woke, excluded.woke)",
            (target, place, int(woke)),
        )
        self.db.executemany("insert or ignore into need values (?, ?, ?)", [(target, place, need) for need in needs])


# --- out -----------------------------------------------------------------------------------


@final
class Assembler:
    """Puts documents together from the database.  Rows of tables are taken once each, by :meth:`rows`."""

    def __init__(self, of: Witnesses) -> None:
        self._of: Witnesses = of
        self._known: dict[tuple[str, Any], int] = {}
        self._rows: dict[str, list[Any]] = {name: [] for name in TABLE_NAMES}
        self._done: dict[str, int] = dict.fromkeys(TABLE_NAMES, 0)
        self._again: bool = False

    def rows(self, *, forget: bool = False) -> dict[str, Any]:
        """The rows since the last time, and at which number they begin.

        ``forget``: if there are many, what comes after this begins anew, which its ``again`` says to who reads it.
        """
        again = self._again
        self._again = forget and len(self._known) >= REMEMBERED
        rows = {name: table for name, table in self._rows.items() if table}
        at = {name: self._done[name] for name in rows}
        for name, table in rows.items():
            self._done[name] += len(table)
            self._rows[name] = []
        if self._again:
            self._known.clear()
            self._done = dict.fromkeys(TABLE_NAMES, 0)
        return {"schema_version": SCHEMA_VERSION, "at": at, **rows, **({"again": True} if again else {})}

    def edges(self, numbers: Iterable[tuple[int, int, int, int]]) -> Iterator[list[Any]]:
        """The rows of edges: number, source, target, count."""
        for head, source, target, count in numbers:
            found = [
                [owner, guards, origin, way[0], way[1], self._trace(held), self._trace(taken), way[2]]
                for way, owner, guards, origin, held, taken in self._witnesses(head)
            ]
            yield [self.lock_class(source), self.lock_class(target), count, found]

    def spots(self, what: str) -> Iterator[list[Any]]:
        """The rows of "use" or of "hold"."""
        query = (
            "select s.id, s.class, s.detail from spot s join class c on c.id = s.class where what = ?"
            " order by c.key, s.detail"
        )
        for head, lock_class, detail in self._of.db.execute(query, (what,)).fetchall():
            uses = [
                [owner, guards, origin, way[0], self._trace(taken), way[1], way[2], way[3], way[4:]]
                for way, owner, guards, origin, _, taken in self._witnesses(-head)
            ]
            named, c = json.loads(detail), self.lock_class(lock_class)
            yield [named, c, uses] if what == "use" else [c, named, uses]

    def senders(self) -> Iterator[list[Any]]:
        """The rows of senders."""
        db = self._of.db
        query = "select s.target, s.place, s.woke from sender s join class c on c.id = s.target order by c.key, s.place"
        for target, place, woke in db.execute(query).fetchall():
            needs = db.execute(
                "select n.class from need n join class c on c.id = n.class where n.target = ? and n.place = ?"
                " order by c.key",
                (target, place),
            )
            row = [self.lock_class(number) for (number,) in needs.fetchall()]
            yield [self.lock_class(target), json.loads(place), row, bool(woke)]

    def places(self, what: str, *, paired: bool = False) -> Iterator[list[Any]]:
        """The rows of "taken" or of "over"; ``paired``: of those classes only that have both."""
        query = (
            "select p.class, p.way, p.guards, p.owner, p.origin, p.began, p.at from place p"
            " join class c on c.id = p.class join item g on g.id = p.guards where p.what = ?"
            " and (? or exists (select 1 from place o where o.class = p.class and o.what = ?))"
            " order by c.key, p.way, g.text, p.sort"
        )
        other = "over" if what == "taken" else "taken"
        for number, text, guards, owner, origin, began, at in self._of.db.execute(query, (what, not paired, other)):
            way = json.loads(text)
            who = [self._owner(owner), self._guards(guards), self._origin(origin), way[0], self._trace(began)]
            rest = [self._trace(at), *way[1:]] if what == "taken" else [way[1], self._trace(at), way[2]]
            yield [self.lock_class(number), [*who, *rest]]

    def slots(self) -> Iterator[list[Any]]:
        """The rows of jobs that wait in their own pool."""
        query = (
            "select s.* from slot s join class p on p.id = s.pool join class j on j.id = s.job"
            " order by p.key, j.key, s.timed"
        )
        for row in self._of.db.execute(query).fetchall():
            pool, job, timed, workers, inside, _, waiting, owner, origin, began, at, allowed = row
            classes = [-1 if number == -1 else self.lock_class(number) for number in (pool, job, waiting)]
            who = [self._owner(owner), self._origin(origin), self._trace(began), self._trace(at)]
            yield [*classes, *who, bool(timed), json.loads(allowed), workers, inside]

    def flagged(self, what: str) -> list[int]:
        """The classes of which something is known."""
        query = "select f.class from flag f join class c on c.id = f.class where f.what = ? order by c.key"
        return [self.lock_class(number) for (number,) in self._of.db.execute(query, (what,)).fetchall()]

    def _witnesses(self, head: int) -> list[tuple[list[Any], int, int, int, int, int]]:
        query = (
            "select w.way, w.owner, w.guards, w.origin, w.held, w.taken from witness w join item g on g.id = w.guards"
            " where w.head = ? order by w.way, g.text, w.sort"
        )
        return [
            (json.loads(way), self._owner(owner), self._guards(guards), self._origin(origin), held, taken)
            for way, owner, guards, origin, held, taken in self._of.db.execute(query, (head,)).fetchall()
        ]

    def _enter(self, table: str, key: Any, make: Callable[[], Any]) -> int:
        index = self._known.get((table, key))
        if index is None:
            row = make()  # may enter others
            index = self._known[table, key] = self._done[table] + len(self._rows[table])
            self._rows[table].append(row)
        return index

    def _text(self, number: int) -> Any:
        return json.loads(self._of.db.execute("select text from item where id = ?", (number,)).fetchone()[0])

    def lock_class(self, number: int) -> int:
        """The row of a class."""

        def row() -> list[Any]:
            query = "select key, known, body from class where id = ?"
            key, known, body = self._of.db.execute(query, (number,)).fetchone()
            text = text_of(key)
            if body is None:
                return [text, text, "lock", -1, -1, NAMED_ONLY]
            told: list[Any] = json.loads(body)
            name, kind, base, flags, made = told
            if not known:
                return [text, name, kind if kind in KINDS else "lock", -1, -1, SHOWN_ONLY]
            if base and not self._of.is_level(base):
                return [text, name, "", self.lock_class(self._of.class_number(base)), -1, 0]
            # a level of a level comes of files that contradict each other
            return [text, name, kind or "lock", -1, self._points(made), flags]

        return self._enter("classes", number, row)

    def _owner(self, number: int) -> int:
        return self._enter("owners", number, lambda: self._owner_row(self._text(number)))

    def _owner_row(self, owner: list[Any]) -> list[Any]:
        if len(owner) == 1:
            return ["thread", "MainThread", -1, ""]
        identity, kind, name, thread = owner
        below = -1 if thread is None else self._owner(self._of.item(dump(thread))[0])
        return [kind, name, below, identity]

    def _guards(self, number: int) -> int:
        return self._enter(
            "guards", number, lambda: [self.lock_class(self._of.class_number(key)) for key in self._text(number)]
        )

    def _origin(self, number: int) -> int:
        return self._enter("origins", number, lambda: self._text(number))

    def _trace(self, number: int) -> int:
        return self._enter("traces", number, lambda: [self._place(point) for point in self._text(number)])

    def _points(self, points: list[Any]) -> int:
        return self._trace(self._of.item(dump(points))[0])

    def _place(self, point: list[Any]) -> int:
        name, function, first, *numbers, enters = point

        def row() -> list[Any]:
            file = self._enter("files", name, lambda: name)
            scope = self._enter("codes", (name, function, first), lambda: [file, function, first])
            return [scope, *numbers, enters]

        return self._enter("places", tuple(point), row)


def remember(known: dict[_K, _V], key: _K, value: _V) -> _V:
    """Keep what was looked up, unless it is too much: then begin anew."""
    if len(known) >= REMEMBERED:
        known.clear()
    known[key] = value
    return value


# --- texts --------------------------------------------------------------------------------


def is_awaited(kind: str) -> bool:
    """Whether this is no lock, but what a wait is for."""
    return kind in _AWAITED


#: JSON in one line of ASCII, the same for equal values.
dump: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def blob_of(text: str) -> bytes:
    """A text for the database, whose own can't hold lone surrogates, as those of file names that aren't UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def text_of(blob: bytes) -> str:
    """The text of a blob."""
    return blob.decode("utf-8", "surrogatepass")
