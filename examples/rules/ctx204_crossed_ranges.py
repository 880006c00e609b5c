"""CTX204: a transaction is committed while a savepoint that was set in it is still open.  The near miss releases the
savepoint first; and what isn't declared to nest may overlap."""

import ctxcheck

EXPECT = ["CTX204"]


class Database:
    @ctxcheck.range_start("transaction", nested=True)
    def begin(self) -> None: ...

    @ctxcheck.range_end("transaction")
    def commit(self) -> None: ...

    @ctxcheck.range_start("savepoint", key="name", nested=True)
    def save(self, name: str) -> None: ...

    @ctxcheck.range_end("savepoint", key="name")
    def release(self, name: str) -> None: ...

    @ctxcheck.range_start("progress")
    def start_progress(self) -> None: ...

    @ctxcheck.range_end("progress")
    def stop_progress(self) -> None: ...


def broken() -> None:
    database = Database()
    database.begin()
    database.save("before the rows")
    database.commit()
    database.release("before the rows")


def near_miss() -> None:
    database = Database()
    database.begin()
    database.save("before the rows")
    database.start_progress()
    database.release("before the rows")
    database.commit()
    database.stop_progress()


if __name__ == "__main__":
    broken()
