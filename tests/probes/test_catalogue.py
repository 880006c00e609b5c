"""Calls of the standard library that may block: each row fires, and only where it should."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import inspect
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck import selftest
from ctxcheck.engine.blocking import CATEGORIES
from ctxcheck.listing import markdown
from ctxcheck.probes import catalogue, install
from ctxcheck.session import Session, checking


def on_a_loop(function: Callable[[], Any]) -> list[str]:
    """The messages about calls that are made in a step of a loop."""
    async def main() -> None:
        function()

    with checking() as session:
        asyncio.run(main())
    return [v.message for v in session.violations if v.rule == "CTX103"]


def test_each_row_fires_and_does_not_where_it_should_not() -> None:
    ctxcheck.uninstall()
    ctxcheck.install(blocking=CATEGORIES)
    outcomes = list(selftest.run(install.active()))
    assert [o for o in outcomes if o.problem] == []
    tried = [o for o in outcomes if not o.skipped]
    assert {o.name for o in outcomes} == set(catalogue.ENTRIES)
    assert len(tried) > 100
    # what isn't there isn't there for a reason
    assert all(o.skipped.startswith(("not on", "new in", "gone since")) for o in outcomes if o.skipped)


def test_each_row_has_a_self_test_and_each_self_test_a_row() -> None:
    assert set(selftest.cases()["CASES"]) == set(catalogue.ENTRIES)


def test_the_selftest_sees_a_probe_that_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue.ENTRIES["time.sleep"].call, "ignored", True)
    problems = {o.name: o.problem for o in selftest.run(["time.sleep"]) if o.problem}
    assert problems == {"time.sleep": "doesn't fire on an event loop"}


def test_the_selftest_sees_a_predicate_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time.sleep, "_quick", None)
    problems = {o.name: o.problem for o in selftest.run(["time.sleep"]) if o.problem}
    assert problems == {"time.sleep": "fires with 0 seconds: it lets others run, and goes on"}


def test_metadata_is_not_even_replaced_by_default() -> None:
    assert not hasattr(os.stat, "__wrapped__")
    assert hasattr(time.sleep, "__wrapped__")
    ctxcheck.uninstall()
    ctxcheck.install(blocking=["metadata"])
    assert hasattr(os.stat, "__wrapped__")
    assert not hasattr(time.sleep, "__wrapped__")
    assert on_a_loop(lambda: os.stat("."))


def test_calls_are_left_out_by_name_also_those_of_other_probes() -> None:
    ctxcheck.uninstall()
    ctxcheck.install(not_blocking=["time.sleep", "threading.Event.wait"])
    assert not on_a_loop(lambda: (time.sleep(0.0001), threading.Event().wait(0.0001)))
    ctxcheck.uninstall()
    ctxcheck.install()
    assert len(on_a_loop(lambda: (time.sleep(0.0001), threading.Event().wait(0.0001)))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocking": ["slep"]}, "blocking: no category is called 'slep'; did you mean 'sleep'?"),
        ({"not_blocking": ["tim.sleep"]}, "not-blocking: no call is called 'tim.sleep'; did you mean 'time.sleep'?"),
    ],
)
def test_what_there_is_not_is_refused_with_the_nearest(arguments: dict[str, Any], message: str) -> None:
    ctxcheck.uninstall()
    with pytest.raises(ValueError, match=r".") as caught:
        ctxcheck.install(**arguments)
    assert str(caught.value) == message
    assert not install.installed()


# --- as the originals ------------------------------------------------------------


def places() -> list[tuple[Any, str]]:
    found = []
    for entry in catalogue.ENTRIES.values():
        if entry.how in ("function", "method") and not entry.absent() and entry.module in sys.modules:
            owner: Any = sys.modules[entry.module]
            *outer, name = entry.path.split(".")
            for part in outer:
                owner = getattr(owner, part)
            found.append((owner, name))
    return found


def test_all_of_it_is_put_back_also_what_the_library_imported_meanwhile() -> None:
    ctxcheck.uninstall()
    missing = object()
    before = [(owner, name, vars(owner).get(name, missing)) for owner, name in places()]
    import io
    import ssl

    captured = (ssl.create_connection, io.open)
    ctxcheck.install(blocking=CATEGORIES)
    assert ssl.create_connection is socket.create_connection is not captured[0]
    assert io.open is open is not captured[1]
    io.copied = time.sleep  # type: ignore[attr-defined]  # as `from time import sleep` does
    try:
        ctxcheck.uninstall()
        assert all(vars(owner).get(name, missing) is original for owner, name, original in before)
        assert (ssl.create_connection, io.open) == captured
        assert io.copied is time.sleep  # type: ignore[attr-defined]
    finally:
        del io.copied  # type: ignore[attr-defined]


def test_what_somebody_else_put_in_between_stays() -> None:
    ours: Any = time.sleep

    def theirs(seconds: float) -> None:
        ours(seconds)

    time.sleep = theirs
    try:
        ctxcheck.uninstall()
        assert time.sleep is theirs
        assert not on_a_loop(lambda: time.sleep(0.0001))
    finally:
        time.sleep = ours.__wrapped__


def test_a_failure_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ctxcheck.uninstall()
    before = [(owner, name, vars(owner).get(name)) for owner, name in places()]
    from ctxcheck.probes import calls

    real, seen = calls.watch, []

    def fails(patches: Any, module: Any, entries: Any, replaced: Any) -> None:
        real(patches, module, entries, replaced)
        seen.append(module)
        if len(seen) == 4:
            raise RuntimeError("half-way")

    monkeypatch.setattr(calls, "watch", fails)
    with pytest.raises(RuntimeError, match="half-way"):
        ctxcheck.install()
    assert all(vars(owner).get(name) is original for owner, name, original in before)
    assert not install.active()


def test_a_probe_looks_like_what_it_stands_for() -> None:
    ours = (time.sleep, os.read, open)
    looks = [(repr(f), f.__name__, f.__qualname__, f.__module__, f.__doc__, f.__self__) for f in ours]
    originals = [f.__wrapped__ for f in ours]  # type: ignore[attr-defined]
    assert looks == [(repr(f), f.__name__, f.__qualname__, f.__module__, f.__doc__, f.__self__) for f in originals]
    assert inspect.signature(os.read) == inspect.signature(os.read.__wrapped__)  # type: ignore[attr-defined]
    assert inspect.signature(open) == inspect.signature(open.__wrapped__)  # type: ignore[attr-defined]
    assert inspect.signature(socket.getaddrinfo).parameters["proto"].default == 0
    for function in ours:
        # what replaces functions for a test (pyfakefs) asks this first
        assert inspect.isbuiltin(function)
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.copy(function) is copy.deepcopy(function) is function


def test_a_function_that_was_pickled_is_the_original_where_ctxcheck_is_not() -> None:
    text = pickle.dumps([time.sleep, os.read, socket.getaddrinfo]).hex()
    code = f"import pickle, sys; print(pickle.loads(bytes.fromhex({text!r}))[0]); print('ctxcheck' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert answer.split("\n")[:2] == ["<built-in function sleep>", "False"]


def test_as_the_attribute_of_a_class_it_does_not_bind() -> None:
    class Clock:
        sleep = time.sleep
        open = open

    Clock().sleep(0)
    Clock().open(os.devnull).close()


def test_functions_that_the_library_knows_by_their_sets_are_still_in_them() -> None:
    import shutil

    assert shutil.rmtree.avoids_symlink_attacks is shutil.rmtree.__wrapped__.avoids_symlink_attacks  # type: ignore
    ctxcheck.uninstall()
    before = {name for name in dir(os) if _is_in(getattr(os, name), os.supports_dir_fd | os.supports_fd)}
    ctxcheck.install(blocking=CATEGORIES)
    assert {name for name in dir(os) if _is_in(getattr(os, name), os.supports_dir_fd | os.supports_fd)} == before
    assert {os.open, os.stat, os.unlink, os.rmdir} <= os.supports_dir_fd


def _is_in(value: Any, functions: Any) -> bool:
    try:
        return value in functions
    except TypeError:  # not hashable
        return False


def test_the_errors_are_the_originals() -> None:
    a, b = socket.socketpair()
    for call, args, kwargs in (
        (time.sleep, ("x",), {}), (time.sleep, (), {}), (os.read, (0,), {}), (os.read, ("x", 1), {}),
        (open, (), {}), (open, ("a",), {"bogus": 1}), (a.recv, ("x",), {}),
    ):  # fmt: skip
        original = super(socket.socket, a).recv if call == a.recv else call.__wrapped__
        messages = []
        for function in (call, original):
            with ctxcheck.atomic("strict"), pytest.raises(TypeError) as caught:
                function(*args, **kwargs)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]
    a.close()
    b.close()


# --- what is told ----------------------------------------------------------------


def test_the_outermost_call_that_people_wrote_is_told_and_no_other() -> None:
    messages = on_a_loop(lambda: subprocess.run([sys.executable, "-c", ""], check=False))
    assert len(messages) == 1
    assert "`subprocess.run`" in messages[0]
    assert "`os.popen`" in on_a_loop(lambda: os.popen("exit 0").close())[0]


def test_a_file_has_the_name_that_the_interpreter_gives_it(tmp_path: Path) -> None:
    class Number:
        def __init__(self, number: int) -> None:
            self.number = number

        def __index__(self) -> int:
            return self.number

    path = tmp_path / "file"
    path.write_text("x")
    opened: Any = open
    for file in (path, str(path), bytes(path)):
        for mode in ("r", "rb"):
            with opened(file, mode) as ours, opened.__wrapped__(file, mode) as theirs:
                assert ours.name == theirs.name
                assert type(ours.name) is type(theirs.name)
    with opened(path) as file, opened(Number(file.fileno()), closefd=False) as again:
        assert again.read() == "x"


def test_what_forbids_such_calls_itself_doesnt_reach_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> Any:
        raise RuntimeError("not here")

    def sleeps() -> None:
        with monkeypatch.context() as patch:
            for name in ("getcwd", "stat", "write"):
                patch.setattr(os, name, forbidden)
            time.sleep(0.001)

    (message,) = on_a_loop(sleeps)
    assert "`time.sleep`" in message


def test_nor_does_what_a_run_says_at_once_reach_the_program(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import asyncio, os, time\n"
        "def forbidden(*_): raise RuntimeError('not here')\n"
        "async def main():\n"
        "    os.getcwd = os.stat = os.write = forbidden\n"
        "    time.sleep(0.001)\n"
        "    print('through')\n"
        "try:\n"
        "    asyncio.run(main())\n"
        "finally:\n"
        "    os._exit(3)\n"
    )
    command = [sys.executable, "-m", "ctxcheck", "run", "--color", "never", str(program)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout == "through\n"
    assert "CTX103" in result.stderr
    assert "`time.sleep`" in result.stderr
    assert "not here" not in result.stderr


def test_what_is_opened_and_read_in_one_place_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x\n" * 5)

    def reads() -> None:
        with open(path) as file:
            for _ in file:
                pass

    def goes_on(file: Any) -> None:
        file.read()

    assert len(on_a_loop(reads)) == 1
    assert len(on_a_loop(path.read_text)) == 1
    with open(path) as file:
        (message,) = on_a_loop(lambda: goes_on(file))
    assert "`file.read`" in message


@pytest.mark.parametrize("leave", ["flush", "close", "with", "unbuffered", "iterate"])
def test_a_file_that_was_opened_elsewhere_is_seen_whenever_it_is_reached(tmp_path: Path, leave: str) -> None:
    path = tmp_path / "file"
    path.write_text("x\n")
    mode = "r" if leave == "iterate" else "wb"
    file: Any = open(path, mode, 0 if leave == "unbuffered" else -1)

    def use() -> None:
        if leave == "iterate":
            next(file)
        elif leave == "with":
            with file:
                file.write(b"x")
        else:
            file.write(b"x")
            if leave != "unbuffered":
                getattr(file, leave)()

    (message,) = on_a_loop(use)
    assert ("`file.read`" if leave == "iterate" else "`file.write`") in message
    file.close()
    assert leave == "iterate" or path.read_bytes() == b"x"


def test_a_write_that_no_call_of_that_name_makes_says_that_it_is_the_buffers(tmp_path: Path) -> None:
    def write(file: Any) -> None:
        file.write(b"x")

    def seek(file: Any) -> None:
        file.seek(0)

    def end(file: Any) -> None:
        with file:
            pass

    raw, *files = (open(tmp_path / "file", "wb", buffering) for buffering in (0, -1, -1))

    async def main() -> None:
        write(raw)
        for file, leave in zip(files, (seek, end), strict=True):
            file.write(b"x")
            leave(file)

    with checking() as session:
        asyncio.run(main())
    for file in (raw, *files):
        file.close()
    told = {v.sites[0].function.rpartition(".")[2]: "in its buffer" in " ".join(v.notes) for v in session.violations}
    assert told == {"write": False, "seek": True, "end": True}


def test_what_is_in_the_buffer_costs_nobody_anything(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x\n" * 5)
    with open(path) as file:
        next(file)
        assert not on_a_loop(lambda: next(file))
    with open(path, "w") as file:
        assert not on_a_loop(lambda: file.write("x"))


def test_in_mode_raise_what_a_buffer_holds_is_still_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    file = open(path, "w")
    with checking(mode="raise") as session, ctxcheck.atomic("strict"):
        file.write("kept")
        file.close()
    assert path.read_text() == "kept"
    assert [v.rule for v in session.violations] == ["CTX101"]


def test_asyncio_itself_is_silent() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        await reader.read()
        writer.close()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(input())", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert (await process.communicate(b"hello\n"))[0] == b"hello\n"
        await asyncio.to_thread(time.sleep, 0.0001)
        await asyncio.get_running_loop().getaddrinfo("localhost", 80)
        server.close()
        await server.wait_closed()

    with checking() as session:
        asyncio.run(main())
    assert session.violations == []


def test_a_pipe_that_does_not_block_and_a_terminal_are_silent() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    controller, terminal = os.openpty()
    with open(reader, "rb", 0) as nobody, open(writer, "wb", 0) as somebody:
        def use() -> None:
            assert nobody.read(1) is None
            os.write(terminal, b"x")
            print("hello", file=sys.__stderr__)

        assert not on_a_loop(use)
        assert on_a_loop(lambda: somebody.write(b"x"))
    os.close(controller)
    os.close(terminal)


def test_what_ends_a_block_is_no_function_to_be_called_in_a_thread() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(print)

    with checking() as session:
        asyncio.run(main())
    (violation,) = [v for v in session.violations if v.rule == "CTX103"]
    assert violation.helps == (
        "await `asyncio.to_thread(executor.shutdown)`, or `shutdown(wait=False)`",
        "or move all of it to a thread: put it into a function, and `await asyncio.to_thread(...)` that",
    )


def on_readable(fd: int, read: Callable[[asyncio.AbstractEventLoop], Any]) -> list[str]:
    """The messages about calls that are made in the callback of a loop that waits for ``fd``."""
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def callback() -> None:
            try:
                read(loop)
            finally:
                loop.remove_reader(fd)
                done.set_result(None)

        loop.add_reader(fd, callback)
        await done

    with checking() as session:
        asyncio.run(main())
    return [v.message for v in session.violations if v.rule == "CTX103"]


def test_what_a_loop_has_said_is_readable_is_read_at_once() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * 8)
    with open(reader, "rb", 0) as file, open(writer, "wb", 0):
        assert on_a_loop(lambda: os.read(reader, 1))
        assert not on_readable(reader, lambda loop: os.read(reader, 1))
        assert not on_readable(reader, lambda loop: file.read(1))
        # a reader that is for one time
        assert not on_readable(reader, lambda loop: (loop.remove_reader(reader), os.read(reader, 1)))
        a, b = socket.socketpair()
        with a, b:
            a.send(b"x" * 8)
            b.send(b"x" * 8)
            assert not on_readable(b.fileno(), lambda loop: b.recv(1))
            # another one, of which nobody has said anything, also if it is registered
            assert on_readable(reader, lambda loop: b.recv(1))
            assert on_readable(reader, lambda loop: (loop.add_reader(a, print), a.recv(1), loop.remove_reader(a)))
            # that there is room for something doesn't say that there is for all of it
            assert on_readable(b.fileno(), lambda loop: b.sendall(b"x"))


def test_where_output_is_captured_to_print_is_silent(tmp_path: Path) -> None:
    with open(tmp_path / "captured", "w") as file, contextlib.redirect_stdout(file):
        assert not on_a_loop(lambda: print("hello", flush=True))


def test_what_the_library_finds_out_once_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", None)
    assert not on_a_loop(tempfile.gettempdir)
    import zoneinfo

    with contextlib.suppress(zoneinfo.ZoneInfoNotFoundError):
        assert not on_a_loop(lambda: zoneinfo.ZoneInfo.no_cache("Europe/Berlin"))


def test_what_a_tool_calls_that_watches_the_program_is_silent(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    names: dict[str, Any] = {"path": path}
    text = "def use():\n    open(path).close()\n"
    exec(compile(text, "/usr/lib/python3/site-packages/coverage/data.py", "exec"), names)
    assert not on_a_loop(names["use"])
    exec(compile(text, "/usr/lib/python3/site-packages/coverages/data.py", "exec"), names)
    assert on_a_loop(names["use"])


class Fails:
    def __del__(self) -> None:
        raise ValueError("shown, with its line")


def test_the_source_that_the_interpreter_prints_is_silent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    assert not on_a_loop(Fails)
    assert 'raise ValueError("shown, with its line")' in capsys.readouterr().err
    assert on_a_loop(lambda: open(__file__, "rb").close())


def test_a_name_that_has_to_be_looked_up_blocks_also_on_a_socket_that_does_not() -> None:
    sock = socket.socket()
    sock.setblocking(False)
    with sock:
        def connect() -> None:
            with contextlib.suppress(OSError):
                sock.connect(("localhost", 9))

        assert on_a_loop(connect)


def test_what_is_under_a_lock_that_a_loop_takes_is_a_slow_call(tmp_path: Path) -> None:
    lock = ctxcheck.Lock(name="cache")

    async def main() -> None:
        with lock:
            pass

    with checking() as session:
        asyncio.run(main())
        with lock:
            (tmp_path / "file").write_text("x")
    (violation,) = session.violations
    assert violation.rule == "CTX105"
    assert "`open`" in violation.message or "`file.write`" in violation.message


def test_a_file_is_written_also_while_the_interpreter_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "import ctxcheck; ctxcheck.install(); from ctxcheck.session import Session; s = Session(); s.start()\n"
        f"import builtins; builtins.kept = open({str(path)!r}, 'w'); builtins.kept.write('kept')\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (answer.returncode, path.read_text()) == (0, "kept"), answer.stderr


def test_the_documentation_has_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "probes.md"
    assert markdown() in page.read_text(), "python -c 'from ctxcheck.listing import markdown; print(markdown())'"


def test_no_session_no_step() -> None:
    session = Session()
    assert not session.violations
    assert time.sleep(0) is None
