"""The adapter for ``sqlite3``, with the real module: whoever uses a connection in a transaction is inside of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck import adapters, fastpath
from ctxcheck.adapters import sqlite3 as adapter
from ctxcheck.engine import contexts
from ctxcheck.engine.blocking import Blocking
from ctxcheck.probes.blocking import before
from ctxcheck.session import Session

NAME = "sqlite3 transaction"
ORIGINAL = sqlite3.connect
NETWORK, FILE = Blocking("socket.recv", "network"), Blocking("open", "file")


@ctxcheck.might_sleep
def slow() -> None: ...


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    adapters.install(["sqlite3"])
    yield
    adapters.uninstall()
    assert sqlite3.connect is ORIGINAL
    assert sqlite3.dbapi2.connect is ORIGINAL  # type: ignore[attr-defined]
    assert adapter._open == {}


@pytest.fixture
def run() -> Iterator[Session]:
    with ctxcheck.checking() as session:
        yield session


@contextlib.contextmanager
def made(*args: Any, **kwargs: Any) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(*(args or (":memory:",)), **kwargs)
    connection.execute("create table if not exists t (x integer primary key)")
    if connection.in_transaction:
        connection.commit()
    try:
        yield connection
    finally:
        connection.close()


def in_transaction(run: Session) -> bool:
    """Whether the caller is in a transaction, as the engine sees it."""
    state = fastpath.current()
    assert state.engine is run.engine
    state.settle()
    return NAME in contexts.find(state.cur, (NAME,))[0]


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def insert(connection: Any, value: int | None = None) -> Any:
    return connection.execute("insert into t values (?)", (value,))


def test_no_network_call_and_no_sleep_inside(run: Session) -> None:
    with made() as connection:
        slow()
        before(NETWORK)
        assert run.violations == []
        insert(connection)
        before(FILE)
        assert run.violations == []
        slow()
        before(NETWORK)
        connection.commit()
        slow()
        before(NETWORK)
    assert [(v.rule, v.grade) for v in run.violations] == [("CTX106", "certain")] * 2
    assert run.violations[0].message == (
        "forbidden in context: `slow` is called inside `sqlite3 transaction`, which forbids sleep calls"
    )
    assert run.violations[0].sites[1].text.strip() == 'return connection.execute("insert into t values (?)", (value,))'


ENDS: dict[str, Callable[[Any], object]] = {
    "commit": lambda c: c.commit(),
    "rollback": lambda c: c.rollback(),
    "close": lambda c: c.close(),
    "COMMIT": lambda c: c.execute("commit"),
    "ROLLBACK": lambda c: c.execute("rollback"),
    "END by another cursor": lambda c: c.cursor().execute("end"),
    "executescript, which commits first": lambda c: c.executescript("select 1"),
    "isolation_level": lambda c: setattr(c, "isolation_level", None),
    "with": lambda c: c.__exit__(None, None, None),
    "with, failed": lambda c: c.__exit__(KeyError, KeyError(), None),
}


@pytest.mark.parametrize("end", ENDS)
def test_ends(run: Session, end: str) -> None:
    with made() as connection:
        insert(connection)
        assert in_transaction(run)
        ENDS[end](connection)
        assert not in_transaction(run)


BEGINS: dict[str, Callable[[Any], object]] = {
    "insert": insert,
    "cursor": lambda c: insert(c.cursor()),
    "BEGIN": lambda c: c.execute("begin"),
    "BEGIN IMMEDIATE": lambda c: c.execute("begin immediate"),
    "executemany": lambda c: c.executemany("insert into t values (?)", [(1,), (2,)]),
    "executescript": lambda c: c.executescript("begin; insert into t values (1)"),
    "savepoint": lambda c: c.execute("savepoint one"),
    "a cursor that execute made": lambda c: c.execute("select 1").execute("begin"),
}


@pytest.mark.parametrize("begin", BEGINS)
def test_begins(run: Session, begin: str) -> None:
    with made() as connection:
        connection.execute("select 1").fetchall()
        assert not in_transaction(run)
        BEGINS[begin](connection)
        assert in_transaction(run)
        connection.rollback()
        assert not in_transaction(run)


def test_savepoints(run: Session) -> None:
    with made() as connection:
        connection.execute("savepoint one")
        connection.execute("savepoint two")
        insert(connection)
        connection.execute("rollback to two")
        assert in_transaction(run)
        connection.execute("release two")
        assert in_transaction(run)
        connection.execute("release one")
        assert not in_transaction(run)


def test_with_connection(run: Session) -> None:
    with made() as connection:
        with connection:
            assert not in_transaction(run)
            insert(connection)
            assert in_transaction(run)
        assert not in_transaction(run)
        with pytest.raises(KeyError), connection:
            insert(connection)
            raise KeyError
        assert not in_transaction(run)
        assert connection.execute("select count(*) from t").fetchone() == (1,)


def test_a_statement_that_fails_leaves_the_transaction_open(run: Session) -> None:
    with made() as connection:
        insert(connection, 1)
        connection.commit()
        with pytest.raises(sqlite3.IntegrityError):
            insert(connection, 1)
        assert connection.in_transaction
        assert in_transaction(run)
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("no such thing")
        assert in_transaction(run)
        connection.rollback()
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("no such thing")
        assert not in_transaction(run)


def test_without_implicit_transactions(run: Session) -> None:
    with made(isolation_level=None) as connection:
        insert(connection)
        assert not in_transaction(run)
        connection.execute("begin")
        insert(connection)
        assert in_transaction(run)
        connection.execute("commit")
        assert not in_transaction(run)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="has no autocommit=")
def test_autocommit(run: Session) -> None:
    with made(autocommit=False) as connection:
        # the next transaction has begun, and locks nothing until it is used
        assert connection.in_transaction
        assert not in_transaction(run)
        connection.execute("select * from t").fetchall()
        assert in_transaction(run)
        connection.commit()
        assert connection.in_transaction
        assert not in_transaction(run)
        insert(connection)
        connection.autocommit = True  # type: ignore[attr-defined]
        assert not in_transaction(run)
        insert(connection)
        assert not in_transaction(run)


def test_several_connections(run: Session) -> None:
    with made() as one, made() as two:
        insert(one)
        insert(two)
        one.commit()
        assert in_transaction(run)
        two.commit()
        assert not in_transaction(run)


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # from 3.13 on
def test_a_connection_that_is_dropped(run: Session) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table t (x)")
    insert(connection)
    assert in_transaction(run)
    del connection
    gc.collect()
    assert not in_transaction(run)


def test_another_thread_goes_on(run: Session) -> None:
    with made(check_same_thread=False) as connection:
        insert(connection)
        seen: list[bool] = []

        def work() -> None:
            seen.append(in_transaction(run))
            insert(connection)
            seen.append(in_transaction(run))

        in_thread(work)
        assert seen == [False, True]
        assert not in_transaction(run)  # it is the other one's now
        insert(connection)
        assert in_transaction(run)
        in_thread(connection.commit)
        assert not in_transaction(run)
    assert run.violations == []


def test_a_thread_that_ends_in_it(run: Session) -> None:
    with made(check_same_thread=False) as connection:
        in_thread(lambda: insert(connection))
        assert connection.in_transaction
        connection.rollback()
    assert run.violations == []


def test_tasks(run: Session) -> None:
    async def one(connection: Any) -> None:
        insert(connection)
        await asyncio.sleep(0)
        assert in_transaction(run)
        connection.commit()

    async def other() -> None:
        assert not in_transaction(run)
        await asyncio.sleep(0)
        assert not in_transaction(run)

    async def main() -> None:
        with made() as connection:
            await asyncio.gather(one(connection), other())

    asyncio.run(main())


def test_a_generator_between(run: Session) -> None:
    def rows(connection: Any) -> Iterator[int]:
        insert(connection)
        yield 1
        connection.commit()
        yield 2

    with made() as connection:
        seen = [in_transaction(run) for _ in rows(connection)]
    assert seen == [True, False]


def test_a_session_that_begins_in_a_transaction() -> None:
    with made() as connection:
        insert(connection)
        for _ in range(2):
            with ctxcheck.checking() as run:
                assert not in_transaction(run)
                insert(connection)
                assert in_transaction(run)
        connection.commit()
        with ctxcheck.checking() as run:
            assert not in_transaction(run)


# --- what is handed out -------------------------------------------------------------------------------------


def test_types(run: Session) -> None:
    with made() as connection:
        assert isinstance(connection, sqlite3.Connection)
        assert repr(connection).startswith("<sqlite3.Connection object at ")
        cursor = connection.cursor()
        assert isinstance(cursor, sqlite3.Cursor)
        assert repr(cursor).startswith("<sqlite3.Cursor object at ")
        assert cursor.connection is connection
        assert connection.execute("select 1").fetchone() == (1,)
        connection.row_factory = sqlite3.Row
        assert connection.execute("select 1 as one").fetchone()["one"] == 1
        assert sqlite3.Row(cursor, (1,))


class Mine(sqlite3.Connection):
    """A program's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.committed = 0

    def cursor(self) -> Any:  # type: ignore[override]
        return super().cursor(MyCursor)

    def commit(self) -> None:
        self.committed += 1
        super().commit()


class MyCursor(sqlite3.Cursor):
    def first(self) -> Any:
        return self.fetchone()[0]


class Slotted(sqlite3.Connection):
    __slots__ = ("name",)


@pytest.mark.parametrize("position", [False, True])
def test_a_factory_of_the_programs_own(run: Session, position: bool) -> None:
    if position:
        with pytest.warns(DeprecationWarning) if sys.version_info >= (3, 13) else contextlib.nullcontext():
            connection = sqlite3.connect(":memory:", 5.0, 0, "", True, Mine)
    else:
        connection = sqlite3.connect(":memory:", factory=Mine)
    with contextlib.closing(connection):
        assert isinstance(connection, Mine)
        assert type(connection).__name__ == "Mine"
        cursor = connection.cursor()
        assert isinstance(cursor, MyCursor)
        assert cursor.execute("select 3").first() == 3
        connection.execute("create table t (x)")
        insert(cursor)
        assert in_transaction(run)
        connection.commit()
        assert connection.committed == 1
        assert not in_transaction(run)
        insert(connection)
        assert in_transaction(run)
    assert not in_transaction(run)


def test_slots(run: Session) -> None:
    with contextlib.closing(sqlite3.connect(":memory:", factory=Slotted)) as connection:
        connection.name = "a"
        connection.execute("begin")
        assert in_transaction(run)


def test_what_is_no_class_is_left_alone(run: Session) -> None:
    factory = functools.partial(sqlite3.Connection)
    with contextlib.closing(sqlite3.connect(":memory:", factory=factory)) as connection:  # type: ignore[call-overload]
        assert type(connection) is sqlite3.Connection
        connection.execute("begin")
        assert not in_transaction(run)
    with made() as connection:
        assert type(connection.cursor(lambda c: sqlite3.Cursor(c))) is sqlite3.Cursor


def test_wrong_calls_fail_as_ever(run: Session) -> None:
    with pytest.raises(TypeError):
        sqlite3.connect()  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        sqlite3.connect(":memory:", factory=3)  # type: ignore[call-overload]
    with made() as connection:
        with pytest.raises(TypeError):
            connection.execute()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            connection.cursor(int)  # type: ignore[type-var]
        with pytest.raises(TypeError):
            connection.isolation_level = 3  # type: ignore[assignment]
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("select 1")
    with pytest.raises(sqlite3.ProgrammingError):
        connection.cursor()


def test_taken_out_while_connections_are_there(run: Session) -> None:
    with made() as connection:
        insert(connection)
        adapters.uninstall()
        assert not in_transaction(run)
        insert(connection)
        assert not in_transaction(run)
        adapters.install(["sqlite3"])


def test_nothing_is_looked_at_while_nothing_is_checked() -> None:
    with made() as connection:
        insert(connection)
        assert adapter._open == {}


def test_what_requires_a_transaction(run: Session, tmp_path: Path) -> None:
    @ctxcheck.requires(NAME)
    def transfer(connection: sqlite3.Connection) -> None:
        insert(connection)

    with made(tmp_path / "a.db") as connection:
        transfer(connection)
        connection.commit()
        connection.execute("begin")
        transfer(connection)
    assert [v.rule for v in run.violations] == ["CTX107"]


def test_what_a_statement_raises_is_what_is_seen() -> None:
    with made() as connection, ctxcheck.checking(mode="raise") as run:
        insert(connection, 1)
        connection.commit()
        with ctxcheck.context("pure", forbids=(NAME,)):
            with pytest.raises(sqlite3.IntegrityError):
                insert(connection, 1)
            connection.rollback()
            with pytest.raises(ctxcheck.ViolationError):
                insert(connection, 2)
            assert connection.in_transaction
    assert [v.rule for v in run.violations] == ["CTX106"]
