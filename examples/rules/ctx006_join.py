"""CTX006: a thread is joined under a lock that it takes.  In the near miss the lock is released before the join."""

from threading import Event, Lock, Thread

EXPECT = ["CTX006"]


class Worker:
    def __init__(self) -> None:
        self.lock = Lock()
        self.ran = Event()
        self.thread = Thread(target=self.work)
        self.thread.start()

    def work(self) -> None:
        with self.lock:
            self.ran.set()

    def stop(self) -> None:
        with self.lock:
            self.thread.join()  # hangs if work() hasn't had the lock yet

    def stop_well(self) -> None:
        with self.lock:
            thread = self.thread
        thread.join()


def broken() -> None:
    worker = Worker()
    worker.ran.wait()
    worker.stop()


def near_miss() -> None:
    worker = Worker()
    worker.ran.wait()
    worker.stop_well()


if __name__ == "__main__":
    broken()
