"""CTX003: the locks of two accounts are nested both ways.  The near miss takes them in the order of their numbers."""

from ctxcheck import Lock

EXPECT = ["CTX003"]


class Account:
    def __init__(self, number: int, *, ordered: bool) -> None:
        self.number = number
        self.lock = Lock(name="Account.lock", order_key=number if ordered else None)


def transfer(source: Account, target: Account) -> None:
    with source.lock, target.lock:
        pass


def broken() -> None:
    mine, yours = Account(1, ordered=False), Account(2, ordered=False)
    transfer(mine, yours)
    transfer(yours, mine)


def near_miss() -> None:
    mine, yours = Account(1, ordered=True), Account(2, ordered=True)
    for pair in ((mine, yours), (yours, mine)):
        transfer(*sorted(pair, key=lambda account: account.number))


if __name__ == "__main__":
    broken()
