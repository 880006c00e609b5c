"""CTX001: two locks are taken in two orders.  The near miss takes both under one common lock."""

from threading import Lock, Thread

EXPECT = ["CTX001"]


def run(*works: object) -> None:
    for work in works:
        thread = Thread(target=work)  # type: ignore[arg-type]
        thread.start()
        thread.join()


def broken() -> None:
    ledger, audit = Lock(), Lock()

    def transfer() -> None:
        with ledger, audit:
            pass

    def reconcile() -> None:
        with audit, ledger:
            pass

    run(transfer, reconcile)


def near_miss() -> None:
    gate, ledger, audit = Lock(), Lock(), Lock()

    def transfer() -> None:
        with gate, ledger, audit:
            pass

    def reconcile() -> None:
        with gate, audit, ledger:
            pass

    run(transfer, reconcile)


if __name__ == "__main__":
    broken()
