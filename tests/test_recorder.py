"""The evidence in the data file: written as it is learned, by whoever comes by, in whatever state the program is."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck import fastpath, merged
from ctxcheck.datafile import DataFile
from ctxcheck.records import read
from ctxcheck.session import Session
from ctxcheck.store import Store


def locks(number: int = 2) -> list[Any]:
    return [ctxcheck.Lock(name=f"recorder {i}") for i in range(number)]


def nest(*some: Any) -> None:
    if some:
        with some[0]:
            nest(*some[1:])


def edges(*files: str) -> list[tuple[str, str]]:
    with Store() as store:
        for file in files:
            store.add(file)
        assert store.problems.told() == []
        return [(a.removeprefix("recorder "), b.removeprefix("recorder ")) for a, b, _ in store.edges()]


def test_an_order_is_on_disk_when_the_step_is_done_and_each_row_once(tmp_path: Path) -> None:
    data = DataFile(str(tmp_path), [])
    with Session(sink=data):
        a, b, c = locks(3)
        nest(a, b)
        assert edges(str(data.path)) == [("0", "1")]
        size = os.path.getsize(str(data.path))
        nest(a, b)
        assert os.path.getsize(str(data.path)) == size  # nothing new
        nest(a, b, c)
        assert edges(str(data.path)) == [("0", "1"), ("0", "2"), ("1", "2")]
        _, records, _ = read(str(data.path))
        names = [row[0] for record in records for row in record.get("classes", [])]
        assert sorted(names) == sorted(set(names))


def test_what_each_test_shows_anew_is_written_once(tmp_path: Path) -> None:
    data = DataFile(str(tmp_path), [])
    with Session(sink=data) as session:
        (lock,) = locks(1)
        nest(lock)
        for number in range(20):
            phase = session.engine.origins.begin(fastpath.current(), f"test {number}")
            nest(lock)
            session.end_origin(phase)
        _, records, _ = read(str(data.path))
        assert len([row for record in records for row in record.get("holds", [])]) == 1


def test_paths_are_those_that_other_machines_have(tmp_path: Path) -> None:
    data = DataFile(str(tmp_path), [])
    with Session(sink=data):
        thread = threading.Thread(target=nest, args=locks())
        thread.start()
        thread.join()
    _, records, _ = read(str(data.path))
    files = {name for record in records for name in record.get("files", [])}
    assert "tests/test_recorder.py" in files
    assert not any(str(Path(ctxcheck.__file__).parent) in name or os.__file__[:-5] in name for name in files)


def test_a_forked_child_writes_its_own_and_its_own_only(tmp_path: Path) -> None:
    data = DataFile(str(tmp_path), [])
    with Session(sink=data):
        a, b, c = locks(3)
        nest(a, b)
        parent = str(data.path)
        pid = os.fork()
        if not pid:
            try:
                nest(b, c)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        nest(c, a)
    [child] = [str(p) for p in tmp_path.glob("run.*.jsonl") if str(p) != parent]
    assert edges(child) == [("1", "2")]
    assert edges(parent) == [("0", "1"), ("2", "0")]
    with Store() as store:
        store.add(child)
        store.add(parent)
        assert [v.rule for v in merged.verdict(store)] == ["CTX001"]


def test_a_daemon_that_closed_the_file_goes_on_in_another_one_that_stands_alone(tmp_path: Path) -> None:
    data = DataFile(str(tmp_path), [])
    with Session(sink=data):
        a, b, c = locks(3)
        nest(a, b)
        first = shutil.copy(str(data.path), tmp_path / "first.jsonl")
        os.close(data._files[data._turn].descriptor)
        nest(b, c)
        nest(c, b)
        second = str(data.path)
        assert second != first
        assert edges(second) == [("1", "2"), ("2", "1")]
    assert edges(str(first)) == [("0", "1")]


@pytest.mark.parametrize("error", [OSError, ValueError, RecursionError])
def test_a_sink_that_fails_doesnt_touch_the_program(error: type[Exception]) -> None:
    class Sink:
        def write(self, record: dict[str, Any]) -> None:
            if record["type"] == "evidence":
                raise error

    with Session(sink=Sink()) as session:
        a, b = locks()
        nest(a, b)
        nest(b, a)
    assert [v.rule for v in session.violations] == ["CTX001"]
    assert not session.engine.broken


def test_whoever_comes_in_the_middle_leaves_it_to_whoever_is_at_it() -> None:
    """As a finalizer or a signal handler would: a write that takes new locks itself."""
    written: list[dict[str, Any]] = []

    class Sink:
        def write(self, record: dict[str, Any]) -> None:
            if len(written) == 1:
                written.append({})
                nest(*inner)
            written.append(json.loads(json.dumps(record)))

    inner = [ctxcheck.Lock(name=f"inner {i}") for i in range(2)]
    with Session(sink=Sink()):
        a, b, c = locks(3)
        nest(a, b)
        nest(b, c)
        seen = {row[0] for record in written for row in record.get("classes", [])}
    assert {"inner 0", "inner 1"} <= seen


def test_many_threads_write_each_row_once(tmp_path: Path) -> None:
    data = DataFile(str(tmp_path), [])
    with Session(sink=data):
        some = locks(40)
        start = threading.Barrier(6)

        def work(step: int) -> None:
            start.wait()
            for i in range(40 - step):
                nest(some[i], some[i + step])

        threads = [threading.Thread(target=work, args=(n + 1,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        killed = shutil.copy(str(data.path), tmp_path / "killed.jsonl")
    expected = {(str(i), str(i + step)) for step in range(1, 7) for i in range(40 - step)}
    assert set(edges(str(killed))) == expected
    assert set(edges(str(data.path))) == expected
