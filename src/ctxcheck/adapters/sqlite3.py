"""While a connection of :mod:`sqlite3` is in a transaction, whoever uses it is: no network call and no sleep there.

The database is locked for other writers from the first write of a transaction to its end, so whoever waits for a peer
in it makes all of them wait; and what the peer was told can't be rolled back.

``sqlite3.connect`` hands out a subclass of the connection's class, which hands out subclasses of the cursor's; after
each ``execute`` it is asked once whether a transaction is open.  So ``type(connection) is sqlite3.Connection`` is
false; ``isinstance`` is as ever.  A ``factory`` that is a class is derived from; another callable, and a
``sqlite3.Cursor(connection)`` made by hand, is left alone, and isn't seen.  Databases in memory count: a test that uses
one runs the code that is meant for a file.

The context is that of the thread or task which has used the connection last in this transaction.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final, cast, final

from ctxcheck import fastpath, imports
from ctxcheck.engine.errors import ViolationError
from ctxcheck.markers.named import Opened, context
from ctxcheck.probes.patches import Patches

#: What it is called in reports, and by ``requires()`` and ``forbids()``.
TRANSACTION: Final = context("sqlite3 transaction", forbids=("network", "sleep"))

#: Which argument of ``sqlite3.connect`` the factory is.
_FACTORY: Final = 5

_in_place: Final[list[Patches]] = []


def install() -> None:
    """See the transactions of connections that are made from now on."""
    if not _in_place:
        _in_place.append(Patches())
        imports.when_imported("sqlite3", _patch)


def uninstall() -> None:
    """Put ``sqlite3.connect`` back; connections that are there are no longer looked at."""
    imports.forget(_patch)
    while _in_place:
        _in_place.pop().restore()
    for open_ in list(_open.values()):
        open_.end()


def _patch(sqlite3: Any) -> None:
    if _in_place:
        patches = _in_place[-1]
        kinds = _Kinds(sqlite3, patches.live)
        patches.wrap(sqlite3, "connect", kinds.connect)
        if sqlite3.dbapi2.connect is not sqlite3.connect:
            patches.replace(sqlite3.dbapi2, "connect", sqlite3.connect)


# --- what is open -----------------------------------------------------------------------------


@final
class _Open:
    """A transaction that is open, of a connection that may go."""

    __slots__ = ("_connection", "_key", "_opened")

    def __init__(self, connection: Any) -> None:
        self._opened: Opened = TRANSACTION.open()
        self._key: int = id(connection)
        self._connection: weakref.ref[Any] = weakref.ref(connection, self._gone)
        _open[self._key] = self

    def used(self) -> None:
        """Whoever uses the connection now is inside."""
        if not self._opened.mine:
            self._opened.close()
            self._opened = TRANSACTION.open()

    def end(self) -> None:
        """Nobody is."""
        _open.pop(self._key, None)
        self._opened.close()

    def _gone(self, _: object) -> None:
        self.end()


#: By the connection's id.  Each change is one atomic operation.
_open: Final[dict[int, _Open]] = {}


def _used(connection: Any) -> None:
    """Something was executed."""
    if fastpath._engine is None:
        return
    known = _open.get(id(connection))
    if connection.in_transaction:
        if known is None:
            _Open(connection)
        else:
            known.used()
    elif known is not None:
        known.end()


def _ended(connection: Any) -> None:
    """Its transaction is over, whether or not the connection has begun the next one already (``autocommit=False``)."""
    known = _open.get(id(connection))
    if known is not None:
        known.end()


def _left(connection: Any) -> None:
    """Its transaction may be over, with the help of something else than ``execute``."""
    known = _open.get(id(connection))
    if known is not None and not connection.in_transaction:
        known.end()


# --- the subclasses ---------------------------------------------------------------------------


def _after(names: tuple[str, ...], base: type, done: Callable[[Any], None]) -> dict[str, Any]:
    """Methods that call ``base``'s and then ``done``, also where those raise."""

    def method(name: str) -> Any:
        original = getattr(base, name)

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                result = original(self, *args, **kwargs)
            except BaseException:
                try:
                    done(self)
                except ViolationError:  # it is recorded; what the statement raises is what the program is to see
                    pass
                raise
            done(self)
            return result

        call.__name__, call.__qualname__, call.__doc__ = name, f"{base.__qualname__}.{name}", original.__doc__
        return call

    return {name: method(name) for name in names if hasattr(base, name)}


@final
class _Kinds:
    """The classes of one installation."""

    def __init__(self, sqlite3: Any, live: Callable[[], bool]) -> None:
        self._live: Callable[[], bool] = live
        self._connection: type = sqlite3.Connection
        self._cursor: type = sqlite3.Cursor
        self._connections: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()
        self._cursors: weakref.WeakKeyDictionary[type, type] = weakref.WeakKeyDictionary()
        kinds = self
        plain_cursor: Any = sqlite3.Connection.cursor

        def used(cursor: Any) -> None:
            connection = cursor.connection
            if type(connection) in kinds._made and kinds._live():
                _used(connection)

        def cursor(self: Any, factory: Any = sqlite3.Cursor) -> Any:
            return plain_cursor(self, kinds.of_cursor(factory))

        cursor.__doc__ = plain_cursor.__doc__

        def at_once(name: str) -> Any:
            # the original makes a cursor of its own, which wouldn't tell of what it executes later
            def call(self: Any, *args: Any, **kwargs: Any) -> Any:
                return getattr(plain_cursor(self, kinds.of_cursor(sqlite3.Cursor)), name)(*args, **kwargs)

            call.__name__, call.__qualname__ = name, f"Connection.{name}"
            call.__doc__ = getattr(sqlite3.Connection, name).__doc__
            return call

        def settable(name: str) -> property:
            plain: Any = getattr(sqlite3.Connection, name)

            def set_(self: Any, value: Any) -> None:
                try:
                    plain.__set__(self, value)
                finally:
                    _left(self)

            return property(plain.__get__, set_, plain.__delete__, plain.__doc__)

        connection = _after(("commit", "rollback", "close", "__exit__"), sqlite3.Connection, _ended)
        # setting these may commit
        names = ("isolation_level", "autocommit")
        connection |= {name: settable(name) for name in names if hasattr(sqlite3.Connection, name)}
        connection["cursor"] = cursor
        connection |= {name: at_once(name) for name in ("execute", "executemany", "executescript")}
        statements = _after(("execute", "executemany", "executescript"), sqlite3.Cursor, used)
        self._made: set[type] = set()
        self._connection_mixin: type = type("Connection", (sqlite3.Connection,), connection)
        self._cursor_mixin: type = type("Cursor", (sqlite3.Cursor,), statements)

    def connect(self, original: Any, live: Callable[[], bool]) -> Any:
        """``sqlite3.connect``, which makes connections of ours."""

        def connect(*args: Any, **kwargs: Any) -> Any:
            if live():
                if len(args) > _FACTORY:
                    args = (*args[:_FACTORY], self.of_connection(args[_FACTORY]), *args[_FACTORY + 1 :])
                else:
                    kwargs["factory"] = self.of_connection(kwargs.get("factory", self._connection))
            return original(*args, **kwargs)

        return connect

    def of_connection(self, factory: Any) -> Any:
        """A subclass of ``factory``, or that itself, where it is no class of connections."""
        made = _derive(factory, self._connection, self._connection_mixin, self._connections)
        if made is not factory:
            self._made.add(made)
        return made

    def of_cursor(self, factory: Any) -> Any:
        """The same for cursors."""
        return _derive(factory, self._cursor, self._cursor_mixin, self._cursors)


def _derive(factory: Any, base: type, mixin: type, made: weakref.WeakKeyDictionary[type, type]) -> Any:
    if not isinstance(factory, type) or not issubclass(factory, base) or issubclass(factory, mixin):
        return factory
    found = made.get(factory)
    if found is None:
        bases = (mixin,) if factory is base else (factory, mixin)
        names = {"__module__": factory.__module__, "__qualname__": factory.__qualname__, "__doc__": factory.__doc__}
        try:
            make: Any = type(factory)
            found = cast("type", make(factory.__name__, bases, {**names, "__slots__": ()}))
        except TypeError:  # what has a metaclass, or a layout, of its own
            return factory
        made[factory] = found
    return found
