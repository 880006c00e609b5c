"""What the probes of calls that may block cost: ``python -m benchmarks.probes``.

Each call is timed without probes, with ours (where nothing is held, on an event loop, under a lock), and with
blockbuster's, where that is installed, all in turn in one process.  What is timed on a loop doesn't block.  Prints the
median over the rounds of nanoseconds a call, and of the ratio to the same round without probes.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

_LOOP: Final = "on a loop"


class _Things:
    """What the calls are made on; made anew for each condition, so that files are of the probes' own."""

    def __init__(self, stack: ExitStack) -> None:
        self.a, self.b = socket.socketpair()
        for sock in (self.a, self.b):
            sock.setblocking(False)
            stack.callback(sock.close)
        self.reader, self.writer = os.pipe()
        for fd in (self.reader, self.writer):
            os.set_blocking(fd, False)
            stack.callback(os.close, fd)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        self.path = os.path.join(folder, "file")
        with open(self.path, "w") as file:
            file.write("a line of a file\n" * 20_000)
        self.text = stack.enter_context(open(self.path))  # noqa: SIM115
        self.raw = stack.enter_context(open(os.devnull, "rb", 0))  # noqa: SIM115


def _socket(t: _Things) -> None:
    t.a.send(b"x")
    t.b.recv(1)


def _pipe(t: _Things) -> None:
    os.write(t.writer, b"x")
    os.read(t.reader, 1)


def _line(t: _Things) -> None:
    if not t.text.readline():
        t.text.seek(0)


def _raw(t: _Things) -> None:
    t.raw.read(1)


def _open(_: _Things) -> None:
    open(os.devnull).close()


def _sleep(_: _Things) -> None:
    time.sleep(0)


CALLS: Final[dict[str, Callable[[_Things], None]]] = {
    "send and recv, non-blocking": _socket,
    "os.write and os.read, non-blocking": _pipe,
    "readline of a text file": _line,
    "read(1) of a raw file": _raw,
    "open and close": _open,
    "time.sleep(0)": _sleep,
}


def _timed(call: Callable[[_Things], None], number: int, things: _Things) -> float:
    for _ in range(number // 10):
        call(things)
    clock = time.perf_counter_ns
    start = clock()
    for _ in range(number):
        call(things)
    return (clock() - start) / number


def _on_loop(call: Callable[[_Things], None], number: int, things: _Things) -> float:
    async def main() -> float:
        return _timed(call, number, things)

    return asyncio.run(main())


def _under_lock(call: Callable[[_Things], None], number: int, things: _Things) -> float:
    import ctxcheck

    with ctxcheck.Lock(name="benchmark"):
        return _timed(call, number, things)


@contextmanager
def _ours() -> Generator[None]:
    import ctxcheck

    ctxcheck.install()
    try:
        with ctxcheck.checking():
            yield
    finally:
        ctxcheck.uninstall()


@contextmanager
def _nothing() -> Generator[None]:
    yield


def _conditions() -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {
        "no probes": (_nothing, _timed),
        "ours, nothing held": (_ours, _timed),
        f"ours, {_LOOP}": (_ours, _on_loop),
        "ours, under a lock": (_ours, _under_lock),
    }
    if importlib.util.find_spec("blockbuster") is not None:
        from blockbuster import blockbuster_ctx

        found["blockbuster, no loop"] = (blockbuster_ctx, _timed)
        found[f"blockbuster, {_LOOP}"] = (blockbuster_ctx, _on_loop)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--number", type=int, default=3_000, help="calls in a round")
    options = parser.parse_args(arguments)
    conditions = _conditions()
    results: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for call_name, call in CALLS.items():
            for name, (around, timed) in conditions.items():
                try:
                    with around(), ExitStack() as stack:
                        nanoseconds = timed(call, options.number, _Things(stack))
                except Exception:  # blockbuster raises for what it takes for blocking
                    continue
                results.setdefault((call_name, name), []).append(nanoseconds)
    print(f"Python {sys.version.split()[0]}; nanoseconds a call, and the ratio to none")
    print(f"| call | {' | '.join(conditions)} |")
    print(f"|---|{'---:|' * len(conditions)}")
    for call_name in CALLS:
        plain = results[call_name, "no probes"]
        cells = [_cell(results.get((call_name, name), []), plain) for name in conditions]
        print(f"| {call_name} | {' | '.join(cells)} |")
    import ctxcheck

    ctxcheck.install()
    ctxcheck.uninstall()
    times: list[tuple[float, float]] = []
    for _ in range(options.rounds):
        start = time.perf_counter()
        ctxcheck.install()
        between = time.perf_counter()
        ctxcheck.uninstall()
        times.append((between - start, time.perf_counter() - between))
    put, taken = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    print(f"\ninstall() {put:.1f} ms, uninstall() {taken:.1f} ms")
    return 0


def _cell(values: list[float], plain: list[float]) -> str:
    if not values:
        return "raises"
    ratio = statistics.median(v / p for v, p in zip(values, plain, strict=False))
    return f"{statistics.median(values):,.0f} ({ratio:.2f})"


if __name__ == "__main__":
    sys.exit(main())
