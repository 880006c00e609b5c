"""The data file: what was written can be read, whatever happens to the process or to the file."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctxcheck import datafile, records
from ctxcheck.datafile import DataFile
from ctxcheck.records import DataError, read

SRC = str(Path(datafile.__file__).resolve().parent.parent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("run.*.jsonl"))


def on_disk(folder: Path) -> list[dict[str, Any]]:
    """The records of all files, which have to be without a fault."""
    found: list[dict[str, Any]] = []
    for path in files(folder):
        header, some, problems = read(path)
        assert header is not None
        assert problems == []
        found += some
    return found


def python(source: str, folder: Path, status: int = 0) -> None:
    """Run a program that has ``data``; it must say nothing and end with ``status``."""
    start = "import os, sys\nfrom ctxcheck.datafile import DataFile\ndata = DataFile(sys.argv[1], sys.argv)\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", start + source, str(folder)],
        env={**os.environ, "PYTHONPATH": SRC},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", status)


# ---- what is in a file


def test_a_record_comes_back(folder: Path) -> None:
    data = DataFile(str(folder), ["app.py", "-v"])
    data.write({"type": "violation", "rule": "CTX001", "locks": ["A", "B"], "count": 1})
    data.write({"type": "end", "status": None})
    data.close()
    assert files(folder) == [data.path]
    assert data.error is None
    header, found, problems = read(str(data.path))
    assert header is not None
    assert (header["type"], header["schema_version"], header["tool"]) == ("header", 1, "ctxcheck")
    assert (header["argv"], header["pid"]) == (["app.py", "-v"], os.getpid())
    assert header["python"] == sys.version.split()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", header["started"])
    assert found == [
        {"type": "violation", "rule": "CTX001", "locks": ["A", "B"], "count": 1},
        {"type": "end", "status": None},
    ]
    assert problems == []


def test_the_name_has_the_host_and_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("", "my host/é..", "", "", "")))
    data = DataFile(str(folder), [])
    data.write({"type": "x"})
    assert files(folder) == [f"{folder}/run.my_host____.{os.getpid()}.jsonl"]


def test_an_existing_file_is_never_overwritten(folder: Path) -> None:
    for number in range(3):
        DataFile(str(folder), []).write({"type": "x", "number": number})
    names = [os.path.basename(path) for path in files(folder)]
    assert sorted(name.partition(f".{os.getpid()}")[2] for name in names) == [".2.jsonl", ".3.jsonl", ".jsonl"]
    assert sorted(record["number"] for record in on_disk(folder)) == [0, 1, 2]


def test_nothing_is_created_before_the_first_record(folder: Path) -> None:
    data = DataFile(str(folder), [])
    data.close()
    assert not folder.exists()
    assert data.path is None


def test_a_new_directory_hides_itself_from_git(folder: Path) -> None:
    deep = folder / "a" / "b"
    DataFile(str(deep), []).write({"type": "x"})
    assert (deep / ".gitignore").read_text() == "*\n"
    assert not (folder / ".gitignore").exists()


def test_a_directory_that_was_there_is_not_hidden(folder: Path) -> None:
    folder.mkdir()
    DataFile(str(folder), []).write({"type": "x"})
    assert [str(path) for path in folder.iterdir()] == files(folder)


def test_a_program_that_changes_its_directory_does_not_move_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    data = DataFile("data", [])
    monkeypatch.chdir("/")
    data.write({"type": "x"})
    assert on_disk(folder) == [{"type": "x"}]


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ("lone \udc80 surrogate \ud800", "lone \udc80 surrogate \ud800"),
        ("two\nlines\r\0\x85\u2028", "two\nlines\r\0\x85\u2028"),
        (b"bytes", "b'bytes'"),
        ((1, 2), [1, 2]),
        ({1: {None: 2.5}}, {"1": {"null": 2.5}}),
        ({(1, 2): "tuple"}, {"(1, 2)": "tuple"}),
        ([math.nan, -math.inf, 1.5], ["nan", "-inf", 1.5]),
        (10**20, 10**20),
        ([10**5000], [hex(10**5000)]),
    ],
)
def test_odd_values_are_written(folder: Path, value: object, back: object) -> None:
    data = DataFile(str(folder), ["\udc80"])
    data.write({"type": "x", "value": value})
    assert data.error is None
    assert on_disk(folder) == [{"type": "x", "value": back}]


def test_hopeless_values_are_written_too(folder: Path) -> None:
    cycle: list[object] = [1]
    cycle.append(cycle)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    data = DataFile(str(folder), [])
    loop: dict[str, object] = {}
    loop["loop"] = loop
    for value in (loop, cycle, deep, Unprintable(), {Unprintable(): math.nan}):
        data.write({"type": "x", "value": value})
    assert data.error is None
    zeroth, first, second, third, fourth = on_disk(folder)
    assert "loop" in zeroth["value"]["loop"]
    assert first["value"][1][0] == 1
    assert isinstance(second["value"], list)
    assert "Unprintable object" in third["value"]
    assert [*fourth["value"].values()] == ["nan"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.text(st.characters()), JSON), max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("data")
    data = DataFile(str(folder), [])
    written = [{**value, "type": "x"} for value in values]
    for record in written:
        data.write(record)
    data.close()
    assert data.error is None
    assert on_disk(folder) == written


# ---- whatever happens to the process


def test_a_killed_process_loses_nothing(folder: Path) -> None:
    python("for n in range(50): data.write({'type': 'x', 'n': n})\nos.kill(os.getpid(), 9)", folder, -signal.SIGKILL)
    assert [record["n"] for record in on_disk(folder)] == [*range(50)]


def test_os_exit_loses_nothing(folder: Path) -> None:
    python("data.write({'type': 'x'}); os._exit(3)", folder, 3)
    assert on_disk(folder) == [{"type": "x"}]


def test_a_forked_child_writes_its_own_file(folder: Path) -> None:
    source = """
data.write({"type": "x", "who": "parent"})
if not os.fork():
    data.write({"type": "x", "who": "child"})
    if not os.fork():
        data.write({"type": "x", "who": "grandchild"})
        os._exit(0)
    os.wait()
    os._exit(0)
os.wait()
data.write({"type": "x", "who": "parent"})
data.close()
"""
    python(source, folder)
    by_file = [[record["who"] for record in read(path)[1]] for path in files(folder)]
    assert sorted(by_file) == [["child"], ["grandchild"], ["parent", "parent"]]
    for path in files(folder):
        header = read(path)[0]
        assert header is not None
        assert f".{header['pid']}." in path


def test_a_fork_while_other_threads_write_stops_nobody(folder: Path) -> None:
    source = """
import threading
stop = threading.Event()
def work():
    while not stop.is_set(): data.write({"type": "x"})
threads = [threading.Thread(target=work) for _ in range(3)]
for t in threads: t.start()
for n in range(5):
    if not os.fork():
        data.write({"type": "child", "n": n})
        os._exit(0)
    assert os.wait()[1] == 0
stop.set()
for t in threads: t.join()
"""
    python(source, folder)
    assert sorted(record["n"] for record in on_disk(folder) if record["type"] == "child") == [*range(5)]


def test_a_forked_child_that_writes_nothing_has_no_file(folder: Path) -> None:
    python(
        "data.write({'type': 'x'})\nif not os.fork(): data.close(); os._exit(0)\nos.wait()\ndata.write({'type': 'y'})",
        folder,
    )
    assert [record["type"] for record in on_disk(folder)] == ["x", "y"]
    assert len(files(folder)) == 1


def test_a_daemon_that_closes_everything_is_not_written_into(folder: Path) -> None:
    """The number of the descriptor is soon somebody else's."""
    source = """
data.write({"type": "before"})
os.closerange(3, 256)
mine = [open(sys.argv[1] + f"/mine{n}", "w") for n in range(20)]
data.write({"type": "after"})
data.close()
"""
    python(source, folder)
    assert [path.read_text() for path in sorted(folder.glob("mine*"))] == [""] * 20
    assert sorted(record["type"] for record in on_disk(folder)) == ["after", "before"]


def test_a_program_that_patches_os_breaks_nothing(folder: Path) -> None:
    source = """
data.write({"type": "x"})
for name in ("open", "write", "close", "fstat", "mkdir", "unlink"): setattr(os, name, None)
os.getpid = os.getppid = lambda: 1
import time; time.time = time.gmtime = time.strftime = None
data.write({"type": "x"}); data.close()
data = DataFile(sys.argv[1], []); data.write({"type": "x"})
"""
    python(source, folder)
    assert on_disk(folder) == [{"type": "x"}] * 3
    assert len(files(folder)) == 2


def test_finalizers_may_write_until_the_very_end(folder: Path) -> None:
    source = """
class Late:
    def __init__(self, name, data=data): self.name, self.data = name, data
    def __del__(self): self.data.write({"type": "late", "name": self.name})
kept = Late("global"); loop = Late("loop"); loop.me = loop
sys.modules["late"] = Late("module")
del data, Late
"""
    python(source, folder)
    assert {"type": "late", "name": "global"} in on_disk(folder)


def test_a_handler_in_the_middle_of_the_first_write_writes_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal or the collector may interrupt any step, on the same thread."""
    for step in ("_mkdir", "_open", "_fstat", "_getppid", "_write"):
        data = DataFile(str(folder / step), [])
        real = getattr(datafile, step)
        inside: list[int] = []

        def interrupted(*args: Any, data: DataFile = data, real: Any = real, inside: list[int] = inside) -> Any:
            if len(inside) < 2:
                inside.append(len(inside))
                data.write({"type": "inner", "n": inside[-1]})
            return real(*args)

        monkeypatch.setattr(datafile, step, interrupted)
        data.write({"type": "outer"})
        monkeypatch.undo()
        data.write({"type": "later"})
        data.close()
        found = [record["type"] for record in on_disk(folder / step)]
        assert sorted(found) == ["inner", "inner", "later", "outer"], step
        assert found[-1] == "later"
        assert len(files(folder / step)) == 1
        assert data.error is None


def test_threads_that_begin_together_share_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataFile(str(folder), [])
    together = threading.Barrier(8)
    real = os.mkdir
    waited = threading.local()

    def mkdir(path: str, mode: int) -> None:
        if not hasattr(waited, "once"):
            waited.once = True
            together.wait(30)
        real(path, mode)

    monkeypatch.setattr(datafile, "_mkdir", mkdir)

    def work(number: int) -> None:
        for n in range(50):
            data.write({"type": "x", "thread": number, "n": n, "text": "é" * 1000})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data.close()
    assert data.error is None
    assert files(folder) == [data.path]
    found = on_disk(folder)
    assert len(found) == 400
    for number in range(8):
        assert [record["n"] for record in found if record["thread"] == number] == [*range(50)]


def test_after_close_records_are_dropped(folder: Path) -> None:
    data = DataFile(str(folder), [])
    data.write({"type": "x"})
    data.close()
    data.close()
    data.write({"type": "y"})
    assert data.error is None
    assert on_disk(folder) == [{"type": "x"}]


def test_neither_does_a_child_that_was_forked_after_it(folder: Path) -> None:
    python("data.write({'type': 'x'}); data.close()\nif os.fork(): os.wait()\nelse: data.write({'type': 'y'})", folder)
    assert on_disk(folder) == [{"type": "x"}]


def test_a_file_that_is_cut_goes_on_at_its_end(folder: Path) -> None:
    """As a log that is rotated; writing where we were would leave a hole of null bytes."""
    data = DataFile(str(folder), [])
    data.write({"type": "x"})
    os.truncate(files(folder)[0], 0)
    data.write({"type": "y"})
    assert Path(files(folder)[0]).read_text() == '{"type":"y"}\n'


# ---- whatever happens to the disk


@pytest.mark.parametrize("kind", ["file", "below a file", "link to nowhere", "below a link to nowhere", "null byte"])
def test_a_directory_that_can_not_be_is_said_once(folder: Path, kind: str) -> None:
    (folder.parent / "file").write_text("")
    (folder.parent / "nowhere").symlink_to("nonesuch/at/all")
    place = {
        "file": "file",
        "below a file": "file/a/b",
        "link to nowhere": "nowhere",
        "below a link to nowhere": "nowhere/a",
        "null byte": "a\0b",
    }[kind]
    data = DataFile(str(folder.parent / place), [])
    data.write({"type": "x"})
    first = data.error
    assert first is not None
    assert first.startswith("can't write data file ")
    assert "\n" not in first
    data.write({"type": "y"})
    data.close()
    assert data.error is first
    assert data.path is None


def test_a_full_disk_costs_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = DataFile(str(folder), [])
    data.write({"type": "first"})
    room = [10]

    def short(descriptor: int, line: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = os.write(descriptor, line[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(datafile, "_write", short)
    data.write({"type": "lost", "text": "x" * 1000})
    assert data.error == f"can't write data file {data.path}: No space left on device"
    room[0] = 1_000_000
    data.write({"type": "second"})
    data.write({"type": "third"})
    data.close()
    header, found, problems = read(str(data.path))
    assert header is not None
    assert [record["type"] for record in found] == ["first", "second", "third"]
    assert problems == ["line 3: not JSON"]


def test_a_disk_that_is_full_from_the_start_gets_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datafile, "_write", lambda descriptor, line: os.write(descriptor, line[:5]))
    data = DataFile(str(folder), [])
    data.write({"type": "lost"})
    assert data.error is not None
    assert "No space left" in data.error
    assert (data.path, files(folder)) == (None, [])


LIMITED = """
import resource, signal
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # as a program that is no Python has it: it dies
"""


def test_a_limit_of_the_size_of_files_costs_the_records_beyond_it_and_nothing_else(folder: Path) -> None:
    source = f"""{LIMITED}
data.write({{"type": "first"}})
limit(os.path.getsize(data.path) + 100)
data.write({{"type": "lost", "text": "x" * 1000}})
assert data.error == f"can't write data file {{data.path}}: File too large", data.error
for number in range(100): data.write({{"type": "small"}})
limit(resource.RLIM_INFINITY)
data.write({{"type": "second"}})
"""
    python(source, folder)
    types = [record["type"] for record in on_disk(folder)]
    assert (types[0], types[-1], {*types[1:-1]}) == ("first", "second", {"small"})
    assert 2 < len(types) < 20


def test_a_limit_below_the_header_means_no_file_until_it_is_gone(folder: Path) -> None:
    source = f"""{LIMITED}
limit(50)
for number in range(3): data.write({{"type": "lost"}})
assert data.error and data.path is None and not os.path.exists(sys.argv[1])
limit(resource.RLIM_INFINITY)
for number in range(8): data.write({{"type": "later"}})
"""
    python(source, folder)
    assert {record["type"] for record in on_disk(folder)} == {"later"}


def test_a_program_gets_the_descriptors_that_it_would_have_without_us(folder: Path) -> None:
    source = """
free = os.open("/dev/null", os.O_RDONLY)
os.close(free)
data.write({"type": "x"})
assert os.open("/dev/null", os.O_RDONLY) == free
os.close(0)  # what a daemon does, to open another one in its place
data._begin(); data.write({"type": "y"})
assert os.open("/dev/null", os.O_RDONLY) == 0
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
data._begin(); data.write({"type": "z"})
assert data.error is None, data.error
"""
    python(source, folder)
    assert sorted(record["type"] for record in on_disk(folder)) == ["x", "y", "z"]


def test_with_no_descriptor_left_a_standard_stream_isnt_taken(folder: Path) -> None:
    source = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))
os.closerange(3, 20)
while os.open("/dev/null", os.O_RDONLY) < 9: pass
os.close(0)
data.write({"type": "lost"})
assert data.error and "Too many open files" in data.error, data.error
assert os.open("/dev/null", os.O_RDONLY) == 0
os.closerange(3, 10)
for number in range(3): data.write({"type": "found"})
"""
    python(source, folder)
    assert {record["type"] for record in on_disk(folder)} == {"found"}


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may change its root directory")
def test_nothing_is_created_in_another_root_directory(folder: Path) -> None:
    folder.mkdir()
    source = """
os.mkdir(sys.argv[1] + "/jail"); os.chroot(sys.argv[1] + "/jail")
data.write({"type": "lost"})
assert "gone to another root directory" in data.error, data.error
"""
    python(source, folder)
    assert list((folder / "jail").iterdir()) == []


# ---- reading

HEADER = b'{"type":"header","schema_version":1}\n'


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run.host.1.jsonl")


def put(path: str, data: bytes) -> str:
    Path(path).write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"nonsense\n", "not JSON"),
        (b'{"type": "x", "n": 1\n', "not JSON"),
        (b'{"type": "x"} {"type": "y"}\n', "not JSON"),
        (b'{"type": "x", "n": NaN}\n', "not JSON"),
        (b'{"type": "x", "n": 1e999}\n', "not JSON"),
        (b'{"type": "x", "n": ' + b"1" * 10_000 + b"}\n", "not JSON"),
        (b'{"type": "x", "text": "\xff"}\n', "not UTF-8"),
        (b"[" * 200_000 + b"\n", "nested too deeply"),
        (b"[1, 2]\n", "not a record"),
        (b"17\n", "not a record"),
        (b"{}\n", "not a record"),
        (b'{"type": 3}\n', "not a record"),
        (HEADER, "a second header"),
        (b"\0\0\0\0\n", "not JSON"),
    ],
)
def test_a_damaged_line_is_skipped_and_named(path: str, line: bytes, problem: str) -> None:
    put(path, HEADER + b'{"type":"x"}\n\n' + line + b'{"type":"y"}\n')
    header, found, problems = read(path)
    assert header == {"type": "header", "schema_version": 1}
    assert found == [{"type": "x"}, {"type": "y"}]
    assert problems == [f"line 4: {problem}"]


def test_a_last_line_that_was_cut_is_named(path: str) -> None:
    put(path, HEADER + b'{"type":"x"}\n{"type":"y","locks":["A')
    assert read(path)[1:] == ([{"type": "x"}], ["line 3: cut short"])


@pytest.mark.parametrize(
    "first", [b'{"type":"x"}\n', b"broken\n", b'{"type":"header","schema_version":true}\n', b'{"type":"header"}\n']
)
def test_a_file_without_a_header_still_has_records(path: str, first: bytes) -> None:
    put(path, first + b'{"type":"y"}\n')
    header, found, problems = read(path)
    assert header is None
    assert found == [{"type": "y"}]
    assert len(problems) == 1
    assert problems[0].startswith("line 1: ")


def test_an_empty_file_has_nothing(path: str) -> None:
    assert read(put(path, b"")) == (None, [], [])


@pytest.mark.parametrize("version", ["2", "9" * 400])
def test_a_newer_version_is_refused(path: str, version: str) -> None:
    put(path, b'{"type":"header","schema_version":%b}\n{"type":"y"}\n' % version.encode())
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: data of schema version {version[:20]}; this version of ctxcheck reads up to 1"


def test_a_line_that_is_too_long_is_skipped(path: str) -> None:
    long, exact = b'{"type":"%b"}\n' % (b"x" * 5000), b'{"type":"%b"}\n' % (b"y" * 89)
    put(path, HEADER + long + exact + b'{"type":"z"}\n' + long.rstrip())
    _, found, problems = read(path, max_line=100)
    assert [record["type"][0] for record in found] == ["y", "z"]
    assert problems == ["line 2: longer than 100 bytes", "line 5: longer than 100 bytes"]


def test_a_file_that_is_too_long_is_read_to_the_bound(path: str) -> None:
    put(path, HEADER + b'{"type":"x"}\n' * 1000)
    _, found, problems = read(path, max_file=len(HEADER) + 135)
    assert len(found) == 10
    assert problems == ["line 12: cut short", f"line 13: nothing is read beyond {len(HEADER) + 135} bytes"]


def test_many_damaged_lines_are_counted(path: str) -> None:
    put(path, HEADER + b"x\n" * 1000)
    problems = read(path)[2]
    assert len(problems) == 101
    assert problems[-1] == "and 900 more damaged lines"


def test_a_file_of_damage_is_not_read_to_its_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_DAMAGED", 3)
    _, found, problems = read(put(path, HEADER + b'x\n{"type": "a"}\n' * 10))
    assert len(found) == 3
    assert len(problems) == 5
    assert problems[-1] == "line 8: more than 3 lines are damaged: nothing is read beyond"


def test_lines_are_bounded_blank_ones_too(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINES", 5)
    _, found, problems = read(put(path, HEADER + b'\n\n{"type": "a"}\n\n\n{"type": "b"}\n'))
    assert found == [{"type": "a"}]
    assert problems == ["line 6: nothing is read beyond 5 lines"]


@pytest.mark.parametrize("part", [b"[],", b"{},", b'"",', b'{"":[]},'])
def test_a_line_of_many_parts_would_take_far_more_memory_than_text(path: str, part: bytes) -> None:
    line = b'{"type": "a", "x": [' + part * records.MAX_PARTS + b"0]}\n"
    _, found, problems = read(put(path, HEADER + line + b'{"type": "b"}\n'))
    assert found == [{"type": "b"}]
    assert problems == ["line 2: more than 1,000,000 parts"]


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("nonesuch", "can't be read: No such file or directory"),
        (".", "not a data file"),
        ("pipe", "not a data file"),
        ("null\0byte", "embedded null"),
        ("two\nlines", "can't be read: No such file or directory"),
    ):
        with pytest.raises(DataError) as caught:
            read(f"{tmp_path}/{name}")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def check_reading(path: str, data: bytes) -> None:
    try:
        header, found, problems = read(put(path, data), max_line=200, max_file=2000)
    except DataError as error:
        assert "schema version" in str(error)
        return
    assert header is None or header["type"] == "header"
    for record in found:
        assert isinstance(record["type"], str)
        json.dumps(record, allow_nan=False)
    for problem in problems:
        assert problem.startswith(("line ", "and "))
        assert "\n" not in problem


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
@example(b"\n" * 3000)
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    check_reading(str(tmp_path_factory.getbasetemp() / "fuzz.jsonl"), data)


GOOD = HEADER + b'{"type":"violation","rule":"CTX001","locks":["A","B"],"count":-1.5e3,"x":null}\n' * 3


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 20), st.binary(max_size=20)), max_size=5))
def test_no_damage_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, bytes]]
) -> None:
    data = GOOD
    for start, length, new in changes:
        data = data[:start] + new + data[start + length :]
    check_reading(str(tmp_path_factory.getbasetemp() / "fuzz.jsonl"), data)
