"""CTX007: an acquisition against a declared order, that nobody else was seen to keep.  The near miss only tries."""

from ctxcheck import Lock, declare_order

EXPECT = ["CTX007"]

accounts = Lock(name="accounts")
audit = Lock(name="audit")
declare_order(accounts, audit, reason="audit is the inner table")


def broken() -> None:
    with audit, accounts:
        pass


def near_miss() -> None:
    with audit:
        if accounts.acquire(blocking=False):
            accounts.release()
    with accounts, audit:
        pass


if __name__ == "__main__":
    broken()
