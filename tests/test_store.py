"""Many data files as one: it doesn't matter in which order they come, how they were split, what was combined before."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import ctxcheck
from ctxcheck import baseline, datadir, merged, records
from ctxcheck.datafile import DataFile
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.grading import Owners
from ctxcheck.engine.violations import Violation
from ctxcheck.records import DataError, read
from ctxcheck.reports import graphs
from ctxcheck.reports.formats import Report, render
from ctxcheck.reports.json import dumps
from ctxcheck.session import Session
from ctxcheck.store import Store
from tests.reports import findings

#: Names of locks, the outermost first; a section takes them all, one inside the other.  "!" is a call that may block,
#: what comes after "@" is done on an event loop, what comes after "#" in the collector's callback.
Section = Sequence[str]

FORTH, BACK = "AB", "BA"
#: Four orders that give other findings online for each order of their arrival.
KNOT = ("AB", "BA", "BC", "CA")


def take(locks: dict[str, Any], names: Section) -> None:
    if names and names[0] == "!":
        ctxcheck.might_sleep()
    elif names and names[0] == "@":
        asyncio.run(on_loop(locks, names[1:]))
    elif names and names[0] == "#":
        with ctxcheck.interrupt("gc"):
            take(locks, names[1:])
    elif names:
        with locks[names[0]]:
            take(locks, names[1:])


async def on_loop(locks: dict[str, Any], names: Section) -> None:
    take(locks, names)


def process(folder: Path, sections: Iterable[Section], *, owners: Owners = "assumed", end: bool = True) -> str:
    """What a process leaves in which each section ran in a thread of its own; returns its file."""
    data = DataFile(str(folder), ["app.py"], {"owners": owners})
    session = Session(owners=owners, sink=data)
    with session:
        locks = {name: ctxcheck.Lock(name=f"store {name}") for name in "ABCDG"}
        for section in sections:
            thread = threading.Thread(target=take, args=(locks, section))
            thread.start()
            thread.join()
    if end:
        data.write({"type": "end", "counts": {"acquisitions": 1}})
    data.close()
    assert data.error is None
    assert data.path is not None
    return data.path


def pool(folder: Path, workers: int, times: int) -> str:
    """What a process leaves whose pool had so many workers, and jobs that waited for later ones of it."""
    data = DataFile(str(folder), ["pool.py"], {"owners": "observed"})
    ctxcheck.install()
    try:
        with Session(owners="observed", sink=data), ThreadPoolExecutor(workers) as executor:

            def outer() -> None:
                executor.submit(int).result()

            for _ in range(times):
                executor.submit(outer).result()
    finally:
        ctxcheck.uninstall()
    return str(data.path)


def combined(target: Path, files: Iterable[str]) -> bytes:
    with Store() as store:
        for file in files:
            store.add(file)
        assert store.problems.told() == []
        store.write(str(target))
    return target.read_bytes()


def verdict(files: Iterable[str], owners: Owners | None = None) -> list[Violation]:
    with Store() as store:
        for file in files:
            store.add(file)
        assert store.problems.told() == []
        return merged.verdict(store, owners)


def said(violations: Iterable[Violation]) -> list[tuple[str, str, str]]:
    return sorted((v.fingerprint, v.grade, v.message) for v in violations)


# --- what no single process had -------------------------------------------------------------------


def test_a_cycle_that_no_single_process_had_is_found_and_said_to_be(tmp_path: Path) -> None:
    files = [process(tmp_path, [FORTH]), process(tmp_path, [BACK])]
    for file in files:
        assert verdict([file]) == []
    (found,) = verdict(files)
    assert (found.rule, found.grade) == ("CTX001", "possible")
    assert found.notes[0] == "no single process had all of these orders: they were combined from several"
    whole = verdict([process(tmp_path / "whole", [FORTH, BACK])])
    assert said([found]) == said(whole)
    assert not any("combined" in note for note in whole[0].notes)
    # the places are those of the code, and the source is shown
    site = found.sites[0]
    assert (site.file, site.function) == ("tests/test_store.py", "take")
    assert site.text.strip() == "with locks[names[0]]:"


@pytest.mark.parametrize("owners", ["assumed", "observed"])
def test_every_split_of_every_order_gives_one_verdict(tmp_path: Path, owners: Owners) -> None:
    expected = said(verdict([process(tmp_path / "one", KNOT, owners=owners)]))
    assert expected
    for number, order in enumerate(itertools.permutations(KNOT)):
        for cut in range(1, 4):
            folder = tmp_path / f"{number}.{cut}"
            files = [process(folder, order[:cut], owners=owners), process(folder, order[cut:], owners=owners)]
            assert said(verdict(files)) == expected, (order, cut)


def test_a_lock_around_both_orders_prevents_it_in_the_union_as_in_one_process(tmp_path: Path) -> None:
    files = [process(tmp_path, ["GAB"]), process(tmp_path, ["GBA"])]
    assert [v.grade for v in verdict(files)] == ["unlikely"]
    # one of several locks keeps nobody out, which is known at the end only
    data = DataFile(str(tmp_path / "two"), [])
    with Session(sink=data):
        gates = [ctxcheck.Lock(name="store G") for _ in range(2)]
        locks = {name: ctxcheck.Lock(name=f"store {name}") for name in "AB"}
        take({**locks, "G": gates[0]}, "GAB")
        take({**locks, "G": gates[1]}, "GAB")
    assert [v.grade for v in verdict([str(data.path), files[1]])] == ["possible"]


def test_one_owner_alone_is_one_also_where_its_orders_are_in_two_files_of_one_process(tmp_path: Path) -> None:
    """A thread that did both is no deadlock by what was observed; its file being there twice makes no two of it."""
    data = DataFile(str(tmp_path), [], {"owners": "observed"})

    def both(locks: dict[str, Any]) -> None:
        take(locks, FORTH)
        take(locks, BACK)

    with Session(owners="observed", sink=data):
        locks = {name: ctxcheck.Lock(name=f"store {name}") for name in "AB"}
        thread = threading.Thread(target=both, args=(locks,))
        thread.start()
        thread.join()
    copy = shutil.copy(str(data.path), tmp_path / "copy.jsonl")
    once = combined(tmp_path / "combined.jsonl", [str(data.path)])
    assert once
    for files in ([str(data.path)], [str(data.path), copy], [str(data.path), str(tmp_path / "combined.jsonl")]):
        assert [v.grade for v in verdict(files)] == ["unlikely"]


def test_orders_that_were_written_by_a_killed_process_count(tmp_path: Path) -> None:
    """Each order is in the file when the step that showed it is done."""
    data = DataFile(str(tmp_path), [])
    session = Session(sink=data)
    with session:
        locks = {name: ctxcheck.Lock(name=f"store {name}") for name in "AB"}
        take(locks, FORTH)
        killed = shutil.copy(str(data.path), tmp_path / "killed.jsonl")
    assert [v.rule for v in verdict([killed, process(tmp_path, [BACK])])] == ["CTX001"]


# --- slow locks: taken on a loop by one process, held over a slow call by another one --------------


@pytest.mark.parametrize("owners", ["assumed", "observed"])
def test_a_slow_lock_that_no_single_process_had_is_found_and_said_to_be(tmp_path: Path, owners: Owners) -> None:
    files = [process(tmp_path, ["A!", "B!"], owners=owners), process(tmp_path, ["@A"], owners=owners)]
    for file in files:
        assert verdict([file]) == []
    (found,) = verdict(files)
    assert (found.rule, found.grade, found.locks) == ("CTX105", "possible", ("store A",))
    assert found.notes[0] == "no single process had both of these places: they were combined from several"
    (whole,) = verdict([process(tmp_path / "whole", ["A!", "@A"], owners=owners)])
    assert said([found]) == said([whole])
    assert [site.text for site in found.sites] == [site.text for site in whole.sites]
    assert not any("combined" in note for note in whole.notes)
    combined(tmp_path / "combined.jsonl", files)
    assert verdict([str(tmp_path / "combined.jsonl")]) == [found]


def test_who_has_a_lock_around_it_doesnt_wait_for_a_slow_one(tmp_path: Path) -> None:
    files = [process(tmp_path, ["GA!"]), process(tmp_path, ["@GA"])]
    # but for the outer one, which is as slow
    assert [v.locks for v in verdict(files)] == [("store G",)]
    data = DataFile(str(tmp_path / "two"), [])
    with Session(sink=data):
        locks = [{"G": ctxcheck.Lock(name="store G"), "A": ctxcheck.Lock(name="store A")} for _ in range(2)]
        for each in locks:
            take(each, "GA!")
    assert {v.locks for v in verdict([str(data.path), files[1]])} == {("store A",), ("store G",)}


@pytest.mark.parametrize("killed", [False, True])
def test_a_finding_that_the_evidence_tells_otherwise_is_told_once(tmp_path: Path, killed: bool) -> None:
    """The first of all places is told, whichever process had it."""

    def early(locks: dict[str, Any]) -> None:
        with locks["A"]:
            ctxcheck.might_sleep()

    def process_of(*functions: Any) -> str:
        data = DataFile(str(tmp_path), [])
        with Session(sink=data):
            locks = {"A": ctxcheck.Lock(name="store A")}
            take(locks, "@A")
            for function in functions:
                function(locks)
            copy = shutil.copy(str(data.path), f"{data.path}.killed")
        return str(copy if killed else data.path)

    def later(locks: dict[str, Any]) -> None:
        with locks["A"]:
            ctxcheck.might_sleep()

    files = [process_of(early), process_of(later)]
    assert len({verdict([file])[0].fingerprint for file in files}) == 2
    (found,) = verdict(files)
    assert found.fingerprint == verdict(files[:1])[0].fingerprint
    assert [found] == verdict(files[::-1])


# --- the union is a set ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Ten processes, of which some crashed, some took more owners than are kept, and one is of the first version."""
    folder = tmp_path_factory.mktemp("shards")
    draw = random.Random(3)
    files: list[str] = []
    for _ in range(9):
        sections = [
            draw.choice(["", "@", "#"]) + "".join(draw.sample("ABCDG", draw.randint(1, 4))) + draw.choice(["", "!"])
            for _ in range(draw.randint(1, 12))
        ]
        files.append(process(folder, sections, end=draw.random() < 0.7))
    files += [pool(folder, workers, times) for workers, times in ((2, 1), (4, 3))]
    old = folder / "run.old.1.jsonl"
    header = {"type": "header", "schema_version": 1, "tool": "ctxcheck", "argv": ["x"], "pid": 1, "started": "2026"}
    graph = {
        "classes": [{"key": "store A", "name": "store A", "kind": "lock"}],
        "edges": [{"from": "store A", "to": "z", "count": 3}],
    }
    violation = findings.INVERSION.to_dict()
    lines = [header, {"type": "violation", "violation": violation}, {"type": "end", "counts": {}, "graph": graph}]
    old.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [*files, str(old)]


@given(st.data())
@settings(max_examples=25, deadline=None, phases=[Phase.generate])
def test_order_grouping_and_repetition_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, shards: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("c")
    every = combined(folder / "every.jsonl", shards)
    order = data.draw(st.permutations(shards))
    assert combined(folder / "permuted.jsonl", order) == every
    cut = data.draw(st.integers(0, len(order)))
    overlap = data.draw(st.integers(0, len(order)))
    left, right = order[:cut], order[min(cut, overlap) :]
    combined(folder / "l.jsonl", left)
    combined(folder / "r.jsonl", right)
    more = data.draw(st.lists(st.sampled_from(shards), max_size=3))
    again = [str(folder / "r.jsonl"), str(folder / "l.jsonl"), *more]
    assert combined(folder / "both.jsonl", again) == every
    assert combined(folder / "twice.jsonl", [str(folder / "both.jsonl")]) == every
    assert said(verdict([str(folder / "both.jsonl")])) == said(verdict(shards))


def test_pruning_in_between_makes_no_difference(
    tmp_path: Path, shards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = combined(tmp_path / "a.jsonl", shards)
    monkeypatch.setattr("ctxcheck.witnesses.PRUNE_AFTER", 1)
    assert combined(tmp_path / "b.jsonl", shards) == every


def test_many_owners_of_one_order_dont_add_up(tmp_path: Path) -> None:
    files = [process(tmp_path, [FORTH] * 12) for _ in range(6)]
    size = len(combined(tmp_path / "one.jsonl", files[:1]))
    assert len(combined(tmp_path / "six.jsonl", files)) < 2 * size


# --- what isn't to be trusted -----------------------------------------------------------------------


def test_a_newer_version_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "run.a.1.jsonl"
    path.write_text('{"type":"header","schema_version":99,"tool":"ctxcheck"}\n')
    with Store() as store, pytest.raises(DataError, match=r"run\.a\.1\.jsonl: data of schema version 99"):
        store.add(str(path))


def test_a_damaged_line_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = Path(process(tmp_path, [FORTH, BACK]))
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"violation"' in line)
    lines[at] = lines[at][:50] + b"\n"
    path.write_bytes(b"".join(lines))
    with Store() as store:
        store.add(str(path))
        assert store.problems.told() == [f"{path}: line {at + 1}: not JSON"]
        assert [v.rule for v in merged.verdict(store)] == ["CTX001"]  # by its orders


def test_rows_that_refer_to_a_lost_line_are_counted(tmp_path: Path) -> None:
    path = Path(process(tmp_path, [FORTH, BACK]))
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if b'"evidence"' in line)
    path.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
    with Store() as store:
        store.add(str(path))
        (problem,) = store.problems.told()
        assert "of its orders are damaged" in problem
        assert "CTX001" in {v.rule for v in merged.verdict(store)}  # as the process itself told it


SLOW = [HealthCheck.too_slow]
EVIL = [
    None, True, -1, 2**63, 10**400, 1.5, "", "x" * 3_000, "\ud800", "\x1b]0;x\x07\u202e", [], [[]], {}, [0] * 5,
    {"a": []}, float("1e300"),
]  # fmt: skip


def spoil(value: Any, draw: random.Random) -> Any:
    """A copy of a record with one of its parts replaced, taken out or repeated."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.85:
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        key = draw.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
        if draw.random() < 0.1:
            del copy[key]
        else:
            copy[key] = spoil(copy[key], draw)
        return copy
    return draw.choice(EVIL)


def test_a_finding_of_no_rule_is_none(tmp_path: Path) -> None:
    path = Path(process(tmp_path, [FORTH, BACK]))
    path.write_text(path.read_text().replace('"rule":"CTX001"', '"rule":""'))
    with Store() as store:
        store.add(str(path))
        assert list(store.findings()) == []
        assert "violation.rule: missing, or too long" in store.problems.told()[0]


@given(st.integers(0, 10**9))
@example(0)
@settings(max_examples=100, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=SLOW)
def test_no_content_breaks_it(tmp_path_factory: pytest.TempPathFactory, shards: list[str], seed: int) -> None:
    draw = random.Random(seed)
    folder = tmp_path_factory.getbasetemp() / "evil"
    folder.mkdir(exist_ok=True)
    source = draw.choice(shards)
    if draw.random() < 0.3:
        combined(folder / "whole.jsonl", shards[:2])
        source = str(folder / "whole.jsonl")
    lines = Path(source).read_text().splitlines()
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(lines))
        try:
            lines[at] = json.dumps(spoil(json.loads(lines[at]), draw))
        except ValueError:
            pass
    path = folder / "evil.jsonl"
    path.write_text("\n".join(lines) + "\n")
    check_that_it_is_read(path, folder)


@given(st.data())
@settings(max_examples=40, deadline=None, phases=[Phase.generate])
def test_no_bytes_break_it(tmp_path_factory: pytest.TempPathFactory, shards: list[str], data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "bytes"
    folder.mkdir(exist_ok=True)
    content = bytearray(Path(data.draw(st.sampled_from(shards))).read_bytes())
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=20)):
        content[at] = byte
    cut = data.draw(st.integers(0, len(content)))
    path = folder / "bytes.jsonl"
    path.write_bytes(content[:cut])
    check_that_it_is_read(path, folder)


def check_that_it_can_be_shown(text: str) -> None:
    text.encode()
    for char in {*text} - {"\n", "\u200c", "\u200d"}:
        assert unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"), (char, text)


def check_that_it_is_read(path: Path, folder: Path) -> None:
    with Store() as store:
        try:
            store.add(str(path))
            violations = merged.verdict(store)
            report = Report(violations, store.counts(), graph={}, most=100)
            for kind in ("text", "concise", "json", "jsonl", "sarif", "github"):
                check_that_it_can_be_shown(render(kind, report))
            drawn = graphs.graph(
                (graphs.Class(*item) for item in store.classes()), (graphs.Order(*edge) for edge in store.edges())
            )
            for text in (graphs.dot(drawn), graphs.mermaid(drawn), dumps(graphs.document(drawn))):
                check_that_it_can_be_shown(text)
            check_that_it_can_be_shown(baseline.of(violations).dumps())
            store.write(str(folder / "out.jsonl"))
        except ConfigError as error:
            assert "\n" not in str(error)
        for line in store.problems.told():
            assert "\n" not in line
            assert str(path) in line or line.startswith(("and ", "more than "))


def test_a_source_file_outside_of_the_project_is_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside"
    for folder in (project, outside):
        folder.mkdir()
    (outside / "secret.py").write_text("# line 1\nSECRET = 1  # taken\n" * 50)
    (project / "link.py").symlink_to(outside / "secret.py")
    (project / "folder").symlink_to(outside)
    (project / "secret.txt").write_text("SECRET = 1\n" * 100)
    os.mkfifo(project / "pipe.py")
    (project / "big.py").write_text("SECRET = 1\n" * 600_000)
    # no version compiles it, so nothing says that it was edited since
    (project / "own.py").write_text("OWN = 1 +\n" * 200)
    (project / "latin.py").write_bytes(b"# -*- coding: nonsense -*-\n" + b"SECRET = '\xe9'\n" * 100)
    monkeypatch.chdir(project)
    monkeypatch.setattr("ctxcheck.merged.fits", lambda *_: True)  # else what isn't the file that ran is hidden anyway
    monkeypatch.syspath_prepend(str(outside))  # linecache looks there for what it doesn't find
    files = [Path(process(tmp_path / "data", [section])) for section in (FORTH, BACK)]
    names = [
        str(outside / "secret.py"), "../outside/secret.py", "link.py", "folder/secret.py", "secret.txt", "pipe.py",
        "big.py", "secret.py", "<library>/../outside/secret.py", "<ctxcheck>/../../outside/secret.py", "/dev/zero",
        "/dev/stdin", "", "a\0b.py", "own.py/../../outside/secret.py", f"<library>/{outside}/secret.py", "latin.py",
        "<library>/os.py", "<library>/json/__init__.py", "/proc/self/environ", "no\x1b[31m.py", ".", "..",
    ]  # fmt: skip
    for name in [*names, "own.py"]:
        for file in files:
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            for line in lines:
                if "files" in line:
                    line["files"] = [name] * len(line["files"])
            (tmp_path / f"spoilt.{file.name}").write_text("".join(json.dumps(line) + "\n" for line in lines))
        found = verdict([str(tmp_path / f"spoilt.{file.name}") for file in files])
        texts = [s.text + s.before for v in found for s in v.sites]
        texts += [f.text for v in found for k in v.stacks for f in k.frames]
        assert texts
        if name == "own.py":
            assert any(text.startswith("OWN") for text in texts)
        else:
            assert not any(texts), name


def test_a_comment_accepts_what_only_all_processes_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for name, (first, second) in (("forth", "AB"), ("back", "BA")):
        comment = "  # ctxcheck: allow[CTX001] never together" if name == "back" else ""
        head = f"def {name}(locks):\n    with locks[{first!r}]:\n"
        code = f"{head}        with locks[{second!r}]:{comment}\n            pass\n"
        path = tmp_path / f"{name}.py"
        path.write_text(code)
        scope: dict[str, Any] = {}
        exec(compile(code, str(path), "exec"), scope)
        monkeypatch.chdir(tmp_path)
        data = DataFile(str(tmp_path / "data"), [])
        with Session(sink=data):
            scope[name]({letter: ctxcheck.Lock(name=f"store {letter}") for letter in "AB"})
        files.append(str(data.path))
    (found,) = verdict(files)
    assert (found.allowed_by, found.allowed_kind, found.allowed_at) == ("never together", "comment", "back.py:3")


def test_what_one_test_accepts_and_another_does_not_is_not_accepted(tmp_path: Path) -> None:
    """Whichever comes last; what is said of one test takes the place of what was said of it before."""
    here, there, again = (None, "test_a"), ("known", "test_b"), ("known", "test_a")
    for accounts, expected in (
        ([here, there], None), ([there, here], None), ([here, again], "known"), ([here, there, again], "known"),
    ):  # fmt: skip
        data = DataFile(str(tmp_path), ["pytest"])
        for reason, origin in accounts:
            violation = findings.INVERSION.replace(allowed_by=reason).to_dict()
            data.write({"type": "violation", "violation": violation, "judged": False, "origin": origin})
        data.close()
        (found,) = verdict([str(data.path)])
        assert found.allowed_by == expected, accounts


SEVERAL = """
def forth(a, b):
    with a:
        with b:{0}
            pass

def also(a, b):
    with a:
        with b:{1}
            pass

def more(a, b):
    with a:
        with b:{2}
            pass

def back(a, b):
    with b:
        with a:
            pass
"""


def test_of_the_places_of_an_order_the_same_one_is_shown_and_each_has_to_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = set[tuple[str, tuple[str, ...], str | None]]()
    comment = "  # ctxcheck: allow[CTX001] at start-up only"
    for number, comments in enumerate([(comment, "", ""), ("", comment, comment), (comment,) * 3]):
        source = Path(f"several{number}.py")
        source.write_text(SEVERAL.format(*comments))
        made: dict[str, Any] = {}
        exec(compile(source.read_text(), str(source.absolute()), "exec"), made)
        files: list[str] = []
        for name in ("more", "forth", "back", "also"):
            data = DataFile(str(tmp_path / str(number)), ["app.py"], {"owners": "assumed"})
            with Session(sink=data):  # all by the main thread: that is one owner, in all processes
                made[name](ctxcheck.Lock(name="store A"), ctxcheck.Lock(name="store B"))
            files.append(str(data.path))
        for order in itertools.permutations(files):
            combined(tmp_path / "both.jsonl", order[:2])
            for ways in (order, [str(tmp_path / "both.jsonl"), *order[2:]]):
                (found,) = verdict(ways)
                told.add((found.fingerprint, tuple(site.function for site in found.sites), found.allowed_by))
        expected = "at start-up only" if all(comments) else None
        assert told == {(found.fingerprint, ("back", "back", "also", "also"), expected)}
        told.clear()


def test_a_file_of_nothing_else_is_one_problem_and_many_files_are_bounded(tmp_path: Path) -> None:
    with Store() as store:
        for number in range(30):
            path = tmp_path / f"run.a.{number}.jsonl"
            path.write_text("x\n" * 1_000)
            store.add(str(path))
        assert store.problems.told()[0].endswith("run.a.0.jsonl: line 1: not JSON; 999 more lines of it can't be read")
        assert len(store.problems.told()) == 21
        assert store.problems.told()[-1] == "and 10 more problems"


def test_a_run_that_is_too_long_is_said_to_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxcheck.recorder.MAX_ROWS", 10)
    path = process(tmp_path, [FORTH, BACK, "CD"])
    with Store() as store:
        store.add(path)
        assert any("of its orders were too many to be kept" in line for line in store.problems.told())
        assert [v.rule for v in merged.verdict(store)] == ["CTX001"]  # as the process itself told it


def test_the_first_version_of_a_record_is_still_read(shards: list[str]) -> None:
    with Store() as store:
        store.add(shards[-1])
        assert list(store.edges()) == [("store A", "z", 3)]
        assert list(store.classes()) == [("store A", "store A", "lock"), ("z", "z", "lock")]
        assert [v.fingerprint for v in merged.verdict(store)] == [findings.INVERSION.fingerprint]


def test_reading_a_combined_file_has_no_bound_that_a_run_has(tmp_path: Path, shards: list[str]) -> None:
    every = combined(tmp_path / "combined.jsonl", shards)
    _, _, problems = read(str(tmp_path / "combined.jsonl"), max_file=len(every) // 2)
    assert problems == []
    assert records.MAX_COMBINED > records.MAX_FILE


@pytest.mark.parametrize("rule", ["CTX001", "CTX004", "CTX006"])
def test_what_a_killed_process_has_told_is_not_lost(tmp_path: Path, rule: str) -> None:
    """Its evidence may be: that of CTX004 is written at the end, and there was none."""
    example = next((Path(__file__).parents[1] / "examples" / "rules").glob(f"{rule.lower()}_*.py"))
    program = example.read_text() + "\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "ctxcheck", "run", "program.py"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CTXCHECK")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    (file,) = (tmp_path / ".ctxcheck").glob("run.*.jsonl")
    assert [v.rule for v in verdict([str(file)])] == [rule]
    assert [v.rule for v in verdict([str(file), str(file)])] == [rule]
    combined(tmp_path / "combined.jsonl", [str(file)])
    assert [v.rule for v in verdict([str(tmp_path / "combined.jsonl")])] == [rule]


def test_a_finding_whose_orders_were_lost_is_kept(tmp_path: Path) -> None:
    file = Path(process(tmp_path, [FORTH, BACK], end=False))
    told = [line for line in file.read_text().splitlines() if '"type":"evidence"' not in line]
    file.write_text("\n".join(told) + "\n")
    assert [v.rule for v in verdict([str(file)])] == ["CTX001"]


def test_in_a_folder_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    file = process(tmp_path, [FORTH, BACK])
    os.mkfifo(tmp_path / "run.pipe.1.jsonl")
    (tmp_path / "run.link.1.jsonl").symlink_to("/dev/zero")
    (tmp_path / "run.folder.1.jsonl").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "run.socket.1.jsonl"))
        assert list(datadir.find([str(tmp_path)])) == [file]


TABLES: dict[str, Any] = {
    "files": ["a.py"], "codes": [[0, "f", 1]], "places": [[0, 0, 1, 1, 0, 5, ""]], "traces": [[0]],
    "owners": [["thread", "t", -1], ["thread", "u", -1]], "origins": [""], "guards": [[]],
    "classes": [["a", "a", "lock", -1, 0, 0], ["b", "b", "lock", -1, 0, 0]],
    "edges": [[a, 1 - a, 1, [[a, 0, 0, "with", "with", 0, 0, None]]] for a in (0, 1)],
}  # fmt: skip


def level(key: str, base: int) -> list[Any]:
    return [key, key, "", base, -1, 0]


@pytest.mark.parametrize(
    ("evil", "judged"),
    [
        ([{}], True),
        ([{"classes": [level("a", 1), level("b", 0)]}], False),
        ([{"classes": [level("a", 0), *TABLES["classes"][1:]]}], False),
        ([{"classes": [*(level("c" + "/1" * (900 - i), i + 1) for i in range(900)), TABLES["classes"][0]]}], False),
        # each of them is fine by itself
        (
            [
                {"classes": [level("c" + "/1" * (i + 1), 1), ["c" + "/1" * i, "c", "lock", -1, 0, 0]]}
                for i in range(50)
            ],
            True,
        ),
        ([{"classes": [*TABLES["classes"][1:], ["a", "a", "lock", -1, -1, 4]]}], True),  # no more is known than its key
        ([{"classes": [*TABLES["classes"][1:], ["a", "a", "lock", -1, -1, 8]]}], True),
        ([{"owners": [["task", f"t{i}", i + 1] for i in range(2_000)] + [["thread", "x", -1]]}], True),
        ([{"owners": [["task", "a", 1], ["task", "b", 0]]}], True),
        ([{"places": [[0, 0, 1, 1, 2**25, 5, ""]]}], False),
        ([{"places": [[0, 0, -1, 1, 0, 5, ""]]}], False),
        ([{"places": [[0, 2**30, 2**30, 2**30, 2**20, 2**20, "BEFORE_NOTHING"]]}], True),
    ],
)  # fmt: skip
def test_what_one_file_says_doesnt_keep_the_others_from_being_judged(
    tmp_path: Path, evil: list[dict[str, Any]], judged: bool
) -> None:
    """Tables that refer to each other in circles, numbers that no verdict takes: alone, and beside one that is fine."""
    good = process(tmp_path, [FORTH, BACK])
    files: list[str] = []
    for number, tables in enumerate(evil):
        path = tmp_path / f"run.evil.{number}.jsonl"
        records = [
            {"type": "header", "schema_version": 1, "tool": "ctxcheck", "id": str(number), "owners": "assumed"},
            {"type": "evidence", "schema_version": 1, "at": {}, **TABLES, **tables},
        ]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        files.append(str(path))
    for some, expected in ((files, judged), ([*files, good], True), ([good, *reversed(files)], True)):
        with Store() as store:
            for file in some:
                store.add(file)
            before = store.problems.number
            assert bool(merged.verdict(store)) is expected
            assert store.problems.number == before
            store.write(str(tmp_path / "combined.jsonl"))
        with Store() as store:
            store.add(str(tmp_path / "combined.jsonl"))
            assert bool(merged.verdict(store)) is expected
