"""CTX006: an event is waited for under a lock that its setter takes first.  In the near miss it is set before that."""

from threading import Event, Lock, Thread

EXPECT = ["CTX006"]


def run(first: bool) -> None:
    lock, ready, over = Lock(), Event(), Event()

    def set_up() -> None:
        if first:
            ready.set()
        with lock:
            pass
        if not first:
            ready.set()
        over.set()

    thread = Thread(target=set_up)
    thread.start()
    over.wait()
    with lock:
        ready.wait()  # hangs if set_up() hasn't had the lock yet, and needs it first
    thread.join()


def broken() -> None:
    run(first=False)


def near_miss() -> None:
    run(first=True)


if __name__ == "__main__":
    broken()
