"""CTX106: a mail is sent, and a peer asked, inside of a transaction.  In the near miss both wait until it has ended."""

import sqlite3
from contextlib import closing

import ctxcheck
from ctxcheck import adapters

EXPECT = ["CTX106", "CTX106"]


@ctxcheck.might_sleep
def ask_credit_agency(user: str) -> bool:
    return bool(user)


@ctxcheck.forbids("sqlite3 transaction", why="a mail can't be rolled back")
def send_mail(user: str) -> None: ...


def register(db: sqlite3.Connection, user: str) -> None:
    with db:
        db.execute("insert into users values (?)", (user,))
        ask_credit_agency(user)
        send_mail(user)


def register_better(db: sqlite3.Connection, user: str) -> None:
    if ask_credit_agency(user):
        with db:
            db.execute("insert into users values (?)", (user,))
        send_mail(user)


def run(what: object) -> None:
    adapters.install(["sqlite3"])
    try:
        with closing(sqlite3.connect(":memory:")) as db:
            db.execute("create table users (name)")
            what(db, "ann")  # type: ignore[operator]
    finally:
        adapters.uninstall()


def broken() -> None:
    run(register)


def near_miss() -> None:
    run(register_better)


if __name__ == "__main__":
    broken()
