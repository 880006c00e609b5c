"""CTX107: a worker draws, which only the user interface's thread may do.  In the near miss it hands the work over."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

import ctxcheck

EXPECT = ["CTX107"]


@ctxcheck.requires("ui", why="the toolkit isn't thread-safe")
def set_title(title: str) -> None: ...


@ctxcheck.thread_role("ui")
def user_interface(todo: "SimpleQueue[Callable[[], None] | None]") -> None:
    while (work := todo.get()) is not None:
        work()


def load(done: Callable[[str], None]) -> None:
    done("loaded")


def run(done: Callable[..., None]) -> None:
    todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
    ui = Thread(target=user_interface, args=(todo,), name="ui")
    ui.start()
    worker = Thread(target=load, args=(lambda title: done(todo, title),))
    worker.start()
    worker.join()
    todo.put(None)
    ui.join()


def broken() -> None:
    run(lambda todo, title: set_title(title))


def near_miss() -> None:
    run(lambda todo, title: todo.put(lambda: set_title(title)))


if __name__ == "__main__":
    broken()
