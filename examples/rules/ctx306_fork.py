"""CTX306: a process forks while a thread holds a lock.  In the near miss the child gets a new one."""

import os
import threading

EXPECT = ["CTX306"]


class Cache:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = threading.Event()
        self.forked = threading.Event()

    def refresh(self) -> None:
        with self.lock:
            self.inside.set()
            self.forked.wait()

    def forget(self) -> None:
        self.lock = threading.Lock()


def fork_while_it_refreshes(cache: Cache) -> None:
    thread = threading.Thread(target=cache.refresh)
    thread.start()
    cache.inside.wait()
    pid = os.fork()
    if not pid:
        os._exit(0)  # it could have taken the lock, and hung
    os.waitpid(pid, 0)
    cache.forked.set()
    thread.join()


def broken() -> None:
    fork_while_it_refreshes(Cache())


def near_miss() -> None:
    cache = Cache()
    os.register_at_fork(after_in_child=cache.forget)
    fork_while_it_refreshes(cache)


if __name__ == "__main__":
    broken()
