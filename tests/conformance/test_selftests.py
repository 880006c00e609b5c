"""The runner of the kernel's self-test: on the shared file, on scenarios of our own, and with rules switched off."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxcheck.engine import grading, graph, interrupts, search, usage
from ctxcheck.engine.classes import ACQUIRE, RECURSIVE, SHARED
from ctxcheck.engine.nesting import Nesting
from ctxcheck.locks import tracked

from . import run_selftests

RUNNER = Path(run_selftests.__file__)
SHARED_FILE = RUNNER.parents[3] / "shared" / "conformance" / "lockdep_selftests.json"


def case(name: str, kinds: dict[str, str], text: str, expect: str, **more: Any) -> dict[str, Any]:
    """A scenario.  ``kinds``: "X1=X" is a lock X1 of class X.  A step a word: ``A`` takes A, ``-A`` releases it,
    ``A:r`` in a mode, ``A?1`` tries; ``I:hard`` and ``-I:hard``, ``M:hard`` and ``-M:hard`` enter and mask; else
    JSON."""
    locks: dict[str, Any] = {}
    for names, kind in kinds.items():
        for lock in names.split():
            locks[lock.partition("=")[0]] = {"kind": kind, "class": lock.rpartition("=")[2]}
    return {"name": name, "locks": locks, "steps": [step(w) for w in text.split()], "expect": expect, **more}


def step(word: str) -> list[Any]:
    if word.startswith("["):
        return json.loads(word)  # type: ignore[no-any-return]
    end, word = word.startswith("-"), word.removeprefix("-")
    name, _, argument = word.partition(":")
    if name == "I":
        return ["irq_exit" if end else "irq_enter", argument]
    if name == "M":
        return ["irq_enable" if end else "irq_disable", argument]
    if end:
        return ["release", name]
    if "?" in word:
        name, _, granted = word.partition("?")
        return ["try_acquire", name, "excl", {"returns": granted == "1"}]
    return ["acquire", name, {"": "excl", "r": "read", "rr": "read_rec"}[argument]]


SPIN = {"A B C": "spinlock"}
RW = {"A B": "rwlock", "S": "rwsem"}

#: Ours: each rule once, and a near miss of it.
OWN: list[dict[str, Any]] = [
    case("inversion", {"A B": "mutex"}, "A B -B -A B A -A -B", "report"),
    case("one_order", {"A B": "mutex"}, "A B -B -A A B -A -B", "clean"),
    case("inversion_by_try", {"A B": "mutex"}, "A B -B -A B A?1 -A -B", "clean"),
    case("try_is_held", {"A B": "mutex"}, "A?1 B -B -A B A -A -B", "report"),
    case("failed_try_is_not_held", {"A B": "mutex"}, "A?0 B -B B A -A -B", "clean"),
    case("same_lock_twice", {"A": "mutex"}, "A A", "report"),
    case("class_twice", {"X1=X X2=X": "mutex"}, "X1 X2", "report"),
    case("reader_twice", {"A": "rwlock"}, "A:rr A:rr -A -A", "clean"),
    case("fair_reader_twice", {"A": "rwsem"}, "A:r A:r", "report"),
    case("readers_cross", RW, "A:rr B:rr -B -A B:rr A:rr -A -B", "clean"),
    case("fair_readers_cross", RW, "A:r B:r -B -A B:r A:r -A -B", "report"),
    case("mode_of_the_acquisition", RW, "A:r B -B -A B A:rr -A -B", "clean"),
    case("mode_of_the_acquisition_fair", RW, "A:rr B -B -A B A:r -A -B", "report"),
    case("unbalanced", {"A": "mutex"}, "A -A -A", "report"),
    case("sleep_under_spin", {"A": "spinlock", "m": "mutex"}, "A m", "report"),
    case("spin_under_spin", SPIN, "A B -B -A", "clean"),
    case("sleep_in_rcu", {"r": "rcu", "m": "mutex"}, "r:rr m", "report"),
    case("sleep_in_interrupt", {"m": "mutex"}, "I:soft m -m -I:soft", "report"),
    case("try_in_interrupt", {"m": "mutex"}, "I:soft m?1 -m -I:soft m -m", "clean"),
    case("used_in_hard", SPIN, "A -A I:hard A -A -I:hard", "report"),
    case("used_in_hard_masked", SPIN, "M:hard A -A -M:hard I:hard A -A -I:hard", "clean"),
    case("used_in_soft_hard_masked", SPIN, "M:hard A -A -M:hard I:soft A -A -I:soft", "clean"),
    case("used_in_hard_soft_masked", SPIN, "M:soft A -A -M:soft I:hard A -A -I:hard", "report"),
    case("unmasked_while_held", SPIN, "M:hard A -M:hard -A I:hard A -A -I:hard", "report"),
    case("masked_for_itself", SPIN, "I:hard A -A -I:hard I:soft A -A -I:soft", "clean"),
    case("no_order_into_an_interrupt", SPIN, "M:hard A I:soft B -B -I:soft -A B A -A -B -M:hard", "clean"),
    case("threaded", SPIN, '["irq_enter","hard",{"threaded":true}] A -A -I:hard M:hard A -A -M:hard', "clean"),
    case("way", SPIN, "I:hard A -A -I:hard M:hard A B -B -A -M:hard B -B", "report"),
    case("way_masked", SPIN, "I:hard A -A -I:hard M:hard A B -B -A B -B -M:hard", "clean"),
    case("way_of_readers", RW, "I:hard A:rr -A -I:hard M:hard A B:rr -B -A -M:hard B:rr -B", "clean"),
    case("way_of_a_reader", RW, "I:hard A:rr -A -I:hard M:hard A B -B -A -M:hard B:rr -B", "report"),
    case(
        "way_by_a_local_lock",
        {"A": "spinlock", "L": "local_lock"},
        "L -L I:hard A -A -I:hard M:hard A L -L -A -M:hard",
        "clean",
    ),
    case("enter_twice", {"m": "map"}, 'm ["might_enter","m",{"gfp":"KERNEL"}] -m', "report"),
    case("enter_nofs", {"m": "map"}, 'm ["might_enter","m",{"gfp":"NOFS"}] -m', "clean"),
    case(
        "enter_suppressed",
        {"m": "map"},
        'm ["scope_suppress","m"] ["scope_suppress","m"] ["scope_restore","m"] ["might_enter","m"] -m',
        "clean",
    ),
    case(
        "enter_restored",
        {"m": "map"},
        'm ["scope_suppress","m"] ["scope_restore","m"] ["might_enter","m"] -m',
        "report",
    ),
    case("map_in_the_order", {"m": "map", "A": "mutex"}, 'A ["might_enter","m"] -A m A -A -m', "report"),
    case("name_of_a_subclass", {"A": "rwsem"}, '["set_subclass","A",1] ["assert_name_unchanged","A"]', "clean"),
    case("subclasses", {"X1=X X2=X": "mutex"}, '["set_subclass","X2",1] X1 X2 -X2 -X1', "clean"),
    case(
        "other_hold",
        {"A": "ww"},
        '["other_hold","A"] ["try_acquire","A","excl"] ["other_release","A"] A -A',
        "clean",
    ),
    case("held_and_made_anew", {"A": "rwlock"}, 'A:rr ["reinit","A"]', "report"),
    case("made_anew", {"A": "rwlock"}, 'A:rr -A ["reinit","A"] A -A', "clean"),
    case(
        "nested_under_an_outer_lock",
        {"G": "mutex", "X1=X X2=X": "mutex"},
        'G ["acquire","X1","excl",{"nest":"G"}] ["acquire","X2","excl",{"nest":"G"}] -X1 -X2 -G',
        "clean",
    ),
    case(
        "nested_under_a_lock_that_is_not_held",
        {"G": "mutex", "X1=X": "mutex"},
        '["acquire","X1","excl",{"nest":"G"}] -X1',
        "report",
    ),
    case("not_applicable", {"A": "no kind"}, "no way", "report", applicable="no"),
]


def play(tmp_path: Path, cases: Any, capsys: Any) -> tuple[int, list[str]]:
    path = tmp_path / "cases.json"
    path.write_text(cases if isinstance(cases, str) else json.dumps({"cases": cases}))
    status = run_selftests.main([str(path)])
    printed = capsys.readouterr()
    return status, (printed.out + printed.err).replace(str(path), "FILE").splitlines()


def test_own_cases_pass(tmp_path: Path, capsys: Any) -> None:
    assert play(tmp_path, OWN, capsys) == (0, [f"{len(OWN) - 1} passed, 0 failed"])


def test_own_cases_with_the_other_expectation_all_fail(tmp_path: Path, capsys: Any) -> None:
    turned = [{**c, "expect": {"report": "clean", "clean": "report"}[c["expect"]]} for c in OWN]
    status, rows = play(tmp_path, turned, capsys)
    assert status == 1
    assert rows[-1] == f"0 passed, {len(OWN) - 1} failed"
    assert [row.partition(":")[0] for row in rows[:-1]] == [c["name"] for c in OWN[:-1]]
    assert rows[0].startswith("inversion: expected none, found CTX001 possible: possible deadlock: ")
    assert rows[1] == "one_order: expected a report, nothing was found"


def test_as_a_program(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"cases": OWN}))
    done = subprocess.run([sys.executable, str(RUNNER), str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(OWN) - 1} passed, 0 failed\n", "")


def test_the_shared_file_passes(capsys: Any) -> None:
    if not SHARED_FILE.exists():
        pytest.skip(f"{SHARED_FILE} isn't there: it is handed out beside the repository, not in it")
    status = run_selftests.main([str(SHARED_FILE)])
    assert (status, capsys.readouterr().out) == (0, "202 passed, 0 failed\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON: "),
        ("[]", 'there is no list "cases" at the top'),
        ('{"cases": 3}', 'there is no list "cases" at the top'),
        ('{"cases": [3]}', "case 1 is not an object"),
        ('{"cases": [{"locks": {}, "steps": [], "expect": "clean"}]}', "case 1: 'name' is not a str"),
        ('{"cases": [{"name": "n", "steps": [], "expect": "clean"}]}', "case 1 (n): 'locks' is not an object"),
        ('{"cases": [{"name": "n", "locks": {}, "steps": {}, "expect": "clean"}]}', "case 1 (n): 'steps' is not a li"),
        ('{"cases": [{"name": "n", "locks": {}, "steps": []}]}', "case 1 (n): 'expect' is None, not 'report' or 'cle"),
        (
            '{"cases": [{"name": "n", "locks": {"A": {"kind": "mutex"}}, "steps": [], "expect": "clean"}]}',
            "case 1 (n): lock 'A' has no kind and class",
        ),
        (
            '{"cases": [{"name": "n", "locks": {}, "steps": [[1]], "expect": "clean"}]}',
            "case 1 (n): step 1 is not a list that begins with an operation",
        ),
        (
            '{"cases": [{"name": "n", "locks": {}, "steps": [], "expect": "clean", "applicable": "maybe"}]}',
            "case 1 (n): 'applicable' is 'maybe', not 'yes' or 'no'",
        ),
    ],
)
def test_a_file_that_is_ill_formed(tmp_path: Path, capsys: Any, text: str, words: str) -> None:
    status, rows = play(tmp_path, text, capsys)
    assert status == 2
    assert len(rows) == 1
    assert rows[0].startswith(f"FILE: {words}")


def test_a_file_that_cant_be_read(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name, words in (("none.json", "No such file"), (".", "Is a directory"), ("binary.json", "not JSON")):
        assert run_selftests.main([str(tmp_path / name)]) == 2
        (row,) = capsys.readouterr().err.splitlines()
        assert words in row


@pytest.mark.parametrize(
    ("kinds", "text", "words"),
    [
        ({"A": "futex"}, "A", "unknown kind of lock 'futex'; known are spinlock"),
        ({"A": "mutex"}, "A -A -B", "step 3: unknown lock 'B'; there are A"),
        ({}, '["frobnicate"]', "step 1: unknown operation 'frobnicate'; known are acquire"),
        ({"A": "mutex"}, '["acquire","A","upgradable"]', "step 1: unknown mode 'upgradable'; known are excl, read"),
        ({"A": "mutex"}, '["acquire","A","excl",{"frob":1}]', "step 1: acquire: got an unexpected keyword argument"),
        ({"A": "mutex"}, '["acquire"]', "step 1: acquire: missing a required argument"),
        ({}, "I:nmi", "step 1: unknown context 'nmi'; known are hard, soft"),
        ({}, "-I:hard", "step 1: irq_exit: 'hard' isn't the context that is running"),
        ({"m": "map"}, '["might_enter","m",{"gfp":"X"}]', "step 1: unknown gfp 'X'; known are KERNEL"),
    ],
)
@pytest.mark.parametrize("expect", ["clean", "report"])
def test_what_is_unknown_is_a_mismatch(
    tmp_path: Path, capsys: Any, kinds: dict[str, str], text: str, words: str, expect: str
) -> None:
    cases = [case("odd", kinds, text, expect), OWN[0]]
    status, rows = play(tmp_path, cases, capsys)
    assert status == 1
    assert rows[0].startswith(f"odd: {words}")
    assert rows[1:] == ["1 passed, 1 failed"]


# --- with rules switched off, the runner fails: that is how we know that the cases say something ------------


def _modes(change: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = tracked.Tracked._mode

        def mode(*args: Any, **kwargs: Any) -> Any:
            return change(real(*args, **kwargs))

        monkeypatch.setattr(tracked.Tracked, "_mode", mode)

    return patch


def _patch(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda monkeypatch: monkeypatch.setattr(owner, name, value)


def _no_strong_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    real = grading.fits

    def fits(way: Any, chosen: Any, **options: Any) -> bool:
        def plain(one: Any) -> Any:
            return (one[0]._replace(taken_mode=ACQUIRE, held_mode=ACQUIRE), one[1], False)

        return real(plain(way), [plain(one) for one in chosen], **options)

    for module in (grading, search):
        monkeypatch.setattr(module, "fits", fits)


def _nothing(*_: Any, **__: Any) -> None:
    return None


ABLATIONS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    "all modes exclusive": (_modes(lambda m: ACQUIRE if m.shared else m), {"reader_twice", "readers_cross"}),
    "recursive readers as fair ones": (_modes(lambda m: SHARED if m.recursive else m), {"readers_cross"}),
    "fair readers as recursive ones": (_modes(lambda m: RECURSIVE if m.shared else m), {"fair_readers_cross"}),
    "tries wait": (_modes(lambda m: m if m.waits else ACQUIRE), {"inversion_by_try", "try_in_interrupt"}),
    "no strong paths": (_no_strong_paths, {"readers_cross", "mode_of_the_acquisition"}),
    "no orders": (_patch(graph.OrderGraph, "add", lambda *_: (False, False)), {"inversion", "way"}),
    "no usage": (_patch(interrupts.Interrupts, "note", _nothing), {"used_in_hard", "way"}),
    "no unmasking": (_patch(interrupts.Interrupts, "unmasked", _nothing), {"unmasked_while_held"}),
    "no ways": (_patch(usage.Usage, "_closed", _nothing), {"way", "way_of_a_reader"}),
    "no masks": (
        _patch(interrupts, "surroundings", lambda node: _unmasked(interrupts_around(node))),
        {"used_in_hard_masked", "masked_for_itself"},
    ),
    "no classes nested": (_patch(Nesting, "check", _nothing), {"class_twice"}),
}
interrupts_around = interrupts.surroundings


def _unmasked(around: Any) -> Any:
    return around._replace(masked=frozenset())


@pytest.mark.parametrize("name", ABLATIONS)
def test_without_a_rule_cases_fail(name: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ablate, must_fail = ABLATIONS[name]
    ablate(monkeypatch)
    status, rows = play(tmp_path, OWN, capsys)
    assert status == 1
    failed = {row.partition(":")[0] for row in rows[:-1]}
    assert must_fail <= failed
    assert not any("Error" in row for row in rows), rows
