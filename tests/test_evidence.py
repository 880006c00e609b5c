"""What a session learned, as plain data: nothing is lost on the way, and it doesn't matter how it was split."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctxcheck
from ctxcheck import evidence
from ctxcheck.engine.findings import Finding
from ctxcheck.engine.sites import Trace, capture, resolve
from ctxcheck.evidence.places import Places
from ctxcheck.reports.compose import compose
from ctxcheck.session import Session

#: Names of locks, the outermost first; a section takes them all, one inside the other.
Section = Sequence[str]

NAMES = "ABCD"


def take(locks: dict[str, Any], names: Section) -> None:
    if names:
        with locks[names[0]]:
            take(locks, names[1:])


def run_in_threads(work: Iterable[Callable[[], None]]) -> None:
    for one in work:
        thread = threading.Thread(target=one)
        thread.start()
        thread.join()


def checked(sections: Iterable[Section], *, owners: Any = "assumed") -> Session:
    """A session in which each section ran in a thread of its own."""
    with ctxcheck.checking(owners=owners) as session:
        locks = {name: ctxcheck.Lock(name=f"evidence {name}") for name in NAMES}
        run_in_threads([lambda s=s: take(locks, s) for s in sections])  # type: ignore[misc]
    return session


def dumped(session: Session) -> Any:
    return json.loads(json.dumps(evidence.dump(session.engine)))


def said(findings: Iterable[Finding]) -> list[tuple[str, str, str]]:
    return sorted((v.fingerprint, v.grade, v.message) for v in map(compose, findings))


def violations(session: Session) -> list[tuple[str, str, str]]:
    return sorted((v.fingerprint, v.grade, v.message) for v in session.violations)


sections = st.lists(st.permutations(NAMES).flatmap(lambda p: st.integers(2, 4).map(lambda n: p[:n])), max_size=6)


@settings(max_examples=20, deadline=None)
@given(sections, st.sampled_from(["assumed", "observed"]))
def test_what_comes_back_says_what_the_session_said(program: list[Section], owners: Any) -> None:
    session = checked(program, owners=owners)
    assert said(evidence.load([dumped(session)]).findings(owners)) == violations(session)


@settings(max_examples=20, deadline=None)
@given(sections, st.randoms(use_true_random=False))
def test_it_doesnt_matter_how_the_evidence_was_split_and_in_what_order_it_comes(
    program: list[Section], rng: random.Random
) -> None:
    whole = said(evidence.load([dumped(checked(program))]).findings())
    parts: list[list[Section]] = [[], [], []]
    for section in program:
        rng.choice(parts).append(section)
    documents = [dumped(checked(part)) for part in parts]
    rng.shuffle(documents)
    assert said(evidence.load(documents).findings()) == whole
    # and what was put together can be written, and put together again
    half = evidence.dump(evidence.load(documents[:2]))
    assert said(evidence.load([half, documents[2]]).findings()) == whole


@pytest.mark.parametrize("order", list(itertools.permutations([("A", "B"), ("B", "A"), ("B", "C"), ("C", "A")])))
def test_four_edges_in_every_order_give_one_verdict(order: Any) -> None:
    found = evidence.load([dumped(checked([edge])) for edge in order]).findings()
    assert [v.message.partition(":")[0] for v in map(compose, found)] == ["possible deadlock"] * 2
    assert said(found) == said(evidence.load([dumped(checked(sorted(order)))]).findings())


def test_two_processes_that_had_one_order_each() -> None:
    one, other = checked([("A", "B")]), checked([("B", "A")])
    assert not one.violations
    assert not other.violations
    (finding,) = evidence.load([dumped(one), dumped(other)]).findings()
    violation = compose(finding)
    assert violation.rule == "CTX001"
    assert violation.locks == ("evidence A", "evidence B")
    assert [site.text.strip() for site in violation.sites] == ["with locks[names[0]]:"] * 4
    assert {site.function for site in violation.sites} == {"take"}


def test_a_guard_is_one_only_where_it_was_the_only_one_of_its_class() -> None:
    def guarded(order: Section, locks: int) -> Any:
        with ctxcheck.checking() as session:
            every = [ctxcheck.Lock(name="evidence G") for _ in range(locks)]
            a = {name: ctxcheck.Lock(name=f"evidence {name}") for name in NAMES}
            with every[0]:
                take(a, order)
        return dumped(session)

    (apart,) = evidence.load([guarded("AB", 1), guarded("BA", 1)]).findings()
    assert apart.grade == "unlikely"
    (together,) = evidence.load([guarded("AB", 1), guarded("BA", 2)]).findings()
    assert together.grade == "possible"


def test_owners_are_told_apart_across_processes_but_for_main_threads() -> None:
    def here(order: Section) -> Any:
        with ctxcheck.checking(owners="observed") as session:
            take({name: ctxcheck.Lock(name=f"evidence {name}") for name in NAMES}, order)
        return dumped(session)

    (mine,) = evidence.load([here("AB"), here("BA")]).findings("observed")
    assert mine.grade == "unlikely"
    (others,) = evidence.load([dumped(checked([o], owners="observed")) for o in ("AB", "BA")]).findings("observed")
    assert others.grade == "possible"


def test_a_lock_that_is_handed_over_anywhere_guards_nothing_anywhere() -> None:
    with ctxcheck.checking() as session:
        lock, b = ctxcheck.Lock(name="evidence A"), ctxcheck.Lock(name="evidence B")
        lock.acquire()
        with b:
            pass
        thread = threading.Thread(target=lock.release)
        thread.start()
        thread.join()
    (finding,) = evidence.load([dumped(session), dumped(checked(["AB"])), dumped(checked(["BA"]))]).findings()
    assert finding.grade == "unlikely"
    assert "handed" in compose(finding).message


def test_a_use_in_one_process_and_a_hold_in_another() -> None:
    def use(*, inside: bool) -> Any:
        with ctxcheck.checking() as session:
            lock = ctxcheck.Lock(name="evidence handler's")
            if inside:
                with ctxcheck.interrupt("SIGUSR1"), lock:
                    pass
            else:
                with lock:
                    pass
        return dumped(session)

    (finding,) = evidence.load([use(inside=True), use(inside=False)]).findings()
    assert finding.rule == "CTX004"
    assert not evidence.load([use(inside=True)] * 2).findings()


def test_a_wait_in_one_process_and_what_it_waits_for_in_another() -> None:
    program = """
import sys, json, threading
import ctxcheck
from ctxcheck import evidence
ctxcheck.install()
lock = threading.Lock()
def work():
    if sys.argv[1] == "takes":
        with lock:
            pass
with ctxcheck.checking() as session:
    thread = threading.Thread(target=work)
    if sys.argv[1] == "waits":
        with lock:
            thread.start()
            thread.join()
    else:
        thread.start()
        thread.join()
assert not session.violations
print(json.dumps(evidence.dump(session.engine)))
"""
    documents = [
        json.loads(subprocess.run([sys.executable, "-c", program, how], capture_output=True, check=True).stdout)
        for how in ("waits", "takes")
    ]
    (finding,) = evidence.load(documents).findings()
    assert finding.rule == "CTX006"


# --- places -----------------------------------------------------------------------------


def test_a_place_comes_back_as_it_was() -> None:
    with ctxcheck.checking() as session:
        a, b = ctxcheck.Lock(name="evidence A"), ctxcheck.Lock(name="evidence B")
        with a:
            b.acquire()
            b.release()
    ((before, after),) = [
        (w.taken_at, v.taken_at)
        for w, v in zip(
            next(iter(session.engine.graph.evidence.values())).witnesses,
            next(iter(evidence.load([dumped(session)]).edges.values())).all(),
            strict=True,
        )
    ]
    assert [resolve(c, i) for c, i in zip(after.codes, after.lastis, strict=True)] == [
        resolve(c, i) for c, i in zip(before.codes, before.lastis, strict=True)
    ]


def test_places_keep_their_order_in_a_function() -> None:
    first, second = capture(0), capture(0)
    assert first.sort_key() < second.sort_key()
    codes = {("f.py", "f", 1): {9: (3, 3, 0, 4, ""), 2: (700, 702, 0, 4, ""), 400: (2, 2, -1, -1, "")}}
    places = Places(codes)
    early, late, last = (places.trace([(("f.py", "f", 1), at)]) for at in (2, 9, 400))
    assert early.sort_key() < late.sort_key() < last.sort_key()
    assert [t.head().line for t in (early, late, last)] == [700, 3, 2]
    assert early.codes[0] is late.codes[0]


def test_files_are_shown_under_the_name_that_whoever_loads_them_gives() -> None:
    documents = [dumped(checked([order])) for order in ("AB", "BA")]
    (finding,) = evidence.load(documents, file=lambda name: f"elsewhere/{os.path.basename(name)}").findings()
    assert {site.file for site in compose(finding).sites} == {"elsewhere/test_evidence.py"}


def test_the_librarys_own_files_are_those_of_the_machine_that_loads() -> None:
    document = dumped(checked(["AB"]))
    assert "<library>/threading.py" in document["files"]
    loaded = evidence.load([document], file=lambda name: "not asked")
    traces: list[Trace] = [w.taken_at for pool in loaded.edges.values() for w in pool.all()]
    assert any(code.co_filename == threading.__file__ for trace in traces for code in trace.codes)
    document["files"] = ["<library>/../../etc/passwd"]
    document["codes"] = [[0, *row[1:]] for row in document["codes"]]
    loaded = evidence.load([document])
    home = os.path.dirname(os.__file__)
    names = [c.co_filename for pool in loaded.edges.values() for w in pool.all() for c in w.taken_at.codes]
    assert names
    assert all(os.path.normpath(name).startswith(home) for name in names)


# --- what isn't evidence ------------------------------------------------------------------


@pytest.mark.parametrize("document", [None, [], "x", 1, {}, {"schema_version": "1"}, {"schema_version": True}])
def test_something_else_is_refused_in_one_line(document: object) -> None:
    with pytest.raises(evidence.EvidenceError, match=r"^not evidence of ctxcheck: .*$"):
        evidence.load([document])


def test_a_newer_version_is_refused() -> None:
    with pytest.raises(ctxcheck.ConfigError, match="schema version 2; this version of ctxcheck reads up to 1"):
        evidence.load([{"schema_version": 2}])


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for key, item in items for p in _paths(item, (*path, key)))]


_DOCUMENT = dumped(checked(["AB", "BA", "BC"]))
_PATHS = [path for path in _paths(_DOCUMENT) if path]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(_PATHS),
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 2**70), st.text(max_size=3), st.floats(), st.just([]), st.just({})
    ),
)
def test_damaged_evidence_is_refused_in_one_line_or_does_no_harm(path: tuple[Any, ...], value: Any) -> None:
    document = json.loads(json.dumps(_DOCUMENT))
    at = document
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    try:
        loaded = evidence.load([document])
    except evidence.EvidenceError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        for finding in loaded.findings():
            compose(finding)
