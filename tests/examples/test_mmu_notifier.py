"""The MMU-notifier example: every rule program gets what it declares, and its near miss gets nothing."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import ctxcheck

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "mmu_notifier"
RULES = EXAMPLE / "rules"
PROGRAMS = sorted(path.stem for path in RULES.glob("[sk][0-9]*.py"))

MAIL_RULES = set(range(1, 11))
KERNEL_RULES = {*range(1, 11), *range(14, 19), 23, 39}

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Import a module of the example as a script beside it would, and forget it afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.syspath_prepend(RULES)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and EXAMPLE in Path(file).parents:
            del sys.modules[name]


def run(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``ctxcheck run``, or plain Python, on a path of the example."""
    command = [sys.executable, *(["-m", "ctxcheck", "run"] if check else []), *arguments]
    source = str(Path(ctxcheck.__file__).parents[1])
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# --- the rule programs ----------------------------------------------------------------


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 20


@pytest.mark.parametrize("name", PROGRAMS)
def test_broken_rule_is_reported(name: str, load: Load) -> None:
    program = load(name)
    with ctxcheck.checking(mode="record") as session:
        program.broken()
    assert {violation.rule for violation in session.violations} == set(program.EXPECT)


@pytest.mark.parametrize("name", PROGRAMS)
def test_near_miss_is_silent(name: str, load: Load) -> None:
    program = load(name)
    with ctxcheck.checking(mode="record") as session:
        program.near_miss()
    assert [violation.message for violation in session.violations] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_both_keep_their_verdict_one_after_the_other(name: str, load: Load) -> None:
    """What one session has learned or cached must not leak into the next."""
    program = load(name)
    verdicts = []
    for work in (program.near_miss, program.broken, program.near_miss, program.broken):
        with ctxcheck.checking(mode="record") as session:
            work()
        verdicts.append({violation.rule for violation in session.violations})
    assert verdicts == [set(), set(program.EXPECT), set(), set(program.EXPECT)]


def test_every_way_to_be_outside_is_a_report_of_its_own(load: Load) -> None:
    program = load("s8_page_inside_range")
    with ctxcheck.checking(mode="record") as session:
        program.broken()
    places = {violation.sites[0].function for violation in session.violations}
    assert places == {
        "never_opened",
        "after_the_end",
        "outside_its_addresses",
        "of_another_address_space",
        "in_the_range_of_another_thread.work",
        "opened_where_nobody_may_sleep",
    }
    assert len({violation.message for violation in session.violations}) == 6


def test_each_crossing_is_reported_where_it_happens(load: Load) -> None:
    program = load("s5_range_encloses_lock")
    for crossing, codes in (
        (program.started_under_the_lock, {"CTX101", "CTX205"}),
        (program.ended_under_the_lock, {"CTX101", "CTX205"}),
        (program.dropped_inside, {"CTX205"}),
        (program.still_held_at_the_end, {"CTX205"}),
    ):
        with ctxcheck.checking(mode="record") as session:
            crossing(program.MM())
        assert {violation.rule for violation in session.violations} == codes, crossing.__name__


def test_start_and_end_are_both_sleep_points(load: Load) -> None:
    program = load("s4_start_is_a_sleep_point")
    with ctxcheck.checking(mode="record") as session:
        program.broken()
    text = " ".join(violation.message for violation in session.violations)
    assert "invalidate_range_start" in text
    assert "invalidate_range_end" in text


def test_a_bad_callback_is_named(load: Load) -> None:
    program = load("s9_drivers_are_held_to_it")
    with ctxcheck.checking(mode="record") as session:
        program.broken()
    (violation,) = session.violations
    assert "BadDriver.invalidate_page" in json.dumps(violation.to_dict())


def test_caller_and_callback_are_tied_by_the_start_of_a_range(load: Load) -> None:
    program = load("k16_callers_meet_callbacks")
    with ctxcheck.checking(mode="record") as session:
        program.broken()
    (violation,) = session.violations
    assert set(violation.locks) == {"Driver.lock", "mmu_notifier callbacks"}
    assert violation.grade == "possible"


def test_decorator_and_call_both_say_that_they_may_sleep(load: Load) -> None:
    program = load("s10_might_sleep_in_wrappers")
    with ctxcheck.checking(mode="record") as session:
        program.broken()
    assert len(session.violations) == 2


# --- the markers of the model, one by one ---------------------------------------------


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("register", ("driver",)),
        ("unregister", ("driver",)),
        ("invalidate_range_start", (0, 0x1000)),
        ("invalidate_range_end", (0, 0x1000)),
    ],
)
def test_wrapper_may_sleep(function: str, arguments: tuple[object, ...], load: Load) -> None:
    notifier, mm = load("notifier"), load("mm").MM()
    with ctxcheck.checking(mode="record") as session, ctxcheck.atomic("nobody sleeps here"):
        getattr(notifier, function)(mm, *arguments)
    assert f"`{function}`" in "".join(v.message for v in session.violations if v.rule == "CTX101")


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("mmap", (0, 0x1000)),
        ("munmap", (0, 0x1000)),
        ("fault", (0,)),
        ("migrate", (0,)),
        ("count_young", (0, 0x1000)),
    ],
)
def test_operation_may_sleep(operation: str, arguments: tuple[int, ...], load: Load) -> None:
    mm = load("mm").MM()
    mm.mmap(0, 0x1000)
    with ctxcheck.checking(mode="record") as session, ctxcheck.atomic("nobody sleeps here"):
        getattr(mm, operation)(*arguments)
    assert f"`MM.{operation}`" in "".join(v.message for v in session.violations if v.rule == "CTX101")


@pytest.mark.parametrize(("access", "arguments"), [("get", (0,)), ("set", (0, None)), ("clear", (0,))])
def test_entry_of_a_page_table_needs_its_lock(access: str, arguments: tuple[object, ...], load: Load) -> None:
    table = load("mm").PageTable()
    with ctxcheck.checking(mode="record") as session:
        getattr(table, access)(*arguments)
        with table.lock:
            getattr(table, access)(*arguments)
    assert [(v.rule, v.count) for v in session.violations] == [("CTX301", 1)]
    assert f"`PageTable.{access}`" in session.violations[0].message


@pytest.mark.parametrize(
    ("function", "arguments"), [("invalidate_page", (0,)), ("change_pte", (0, None)), ("clear_young", (0,))]
)
def test_page_level_is_atomic_even_if_the_caller_forgets_the_lock(
    function: str, arguments: tuple[object, ...], load: Load
) -> None:
    notifier, mm = load("notifier"), load("mm").MM()

    class Driver(notifier.Notifier):  # type: ignore[misc, name-defined]
        pass

    def callback(*_: object) -> bool:
        ctxcheck.might_sleep()
        return False

    setattr(Driver, function, callback)
    notifier.register(mm, Driver())
    with ctxcheck.checking(mode="record") as session:
        notifier.invalidate_range_start(mm, 0, 0x1000)
        getattr(notifier, function)(mm, *arguments)
        notifier.invalidate_range_end(mm, 0, 0x1000)
    messages = {v.rule: "" for v in session.violations}
    for violation in session.violations:
        messages[violation.rule] += violation.message
    assert set(messages) == {"CTX101", "CTX301"}
    assert f"inside `{function}`" in messages["CTX101"]
    assert f"`{function}` needs `page_table.lock`" in messages["CTX301"]


# --- the table in the README ------------------------------------------------------------


def table() -> list[tuple[str, str, str, set[str]]]:
    """The rows of the table of rules: mail rule, kernel rule, program, codes."""
    rows = []
    for line in (EXAMPLE / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and "(rules/" in cells[3]:
            mail, kernel, _, program, codes = cells
            rows.append((mail, kernel, program, set(codes.split(", "))))
    return rows


def test_readme_lists_every_program_once() -> None:
    linked = [re.fullmatch(r"\[`(\w+)\.py`\]\(rules/(\w+)\.py\)", program) for _, _, program, _ in table()]
    names = [match.groups() for match in linked if match]
    assert sorted(names) == [(name, name) for name in PROGRAMS]
    assert len(names) == len(table())


def test_readme_lists_every_rule() -> None:
    assert {int(mail[1:]) for mail, _, _, _ in table() if mail} == MAIL_RULES
    assert {int(kernel) for _, kernel, _, _ in table() if kernel} == KERNEL_RULES


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_says_what_the_readme_says(name: str, load: Load) -> None:
    program = load(name)
    ((mail, kernel, _, codes),) = [row for row in table() if f"`{name}.py`" in row[2]]
    assert codes == set(program.EXPECT)
    heading = ", ".join(filter(None, [mail, f"kernel rule {kernel}" if kernel else ""]))
    assert (program.__doc__ or "").startswith(f"{heading[0].upper()}{heading[1:]}: ")


def test_readme_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (EXAMPLE / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (EXAMPLE / link).exists()] == []


# --- the model itself -------------------------------------------------------------------


def load_demonstration(load: Load) -> ModuleType:
    """Import ``__main__.py``, whose name is taken by the test run."""
    load("notifier")  # puts its folder's modules in reach, and under the fixture's care
    spec = importlib.util.spec_from_file_location("mmu_notifier_demonstration", EXAMPLE / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_good_driver_is_clean_under_real_threads(load: Load) -> None:
    demonstration = load_demonstration(load)
    with ctxcheck.checking(mode="record") as session:
        demonstration.good_driver()
    assert [violation.message for violation in session.violations] == []


def test_good_driver_looks_again_when_a_range_was_open_meanwhile(load: Load) -> None:
    mm, drivers = load("mm"), load("drivers")

    class Slow(mm.MM):  # type: ignore[misc, name-defined]
        """The page is moved after it was looked up, and before the driver gets to use it."""

        moves = 0

        def fault(self, address: int, write: bool = False) -> object:
            pte = super().fault(address, write)
            if self.moves < 3:
                self.moves += 1
                self.migrate(address)
            return pte

    space = Slow()
    mirror = drivers.MirrorMMU(space)
    load("notifier").register(space, mirror)
    space.mmap(0, mm.PAGE)
    mirror.access(0, write=True)  # would raise UseAfterFreeError
    assert space.moves == 3


def test_reaper_gives_up_when_a_driver_would_have_to_sleep(load: Load) -> None:
    mm, drivers = load("mm"), load("drivers")
    space = mm.MM()
    mirror = drivers.MirrorMMU(space)
    load("notifier").register(space, mirror)
    space.mmap(0, mm.PAGE)
    with ctxcheck.checking(mode="record") as session:
        page = space.fault(0, write=True).page
        with mirror.commands:
            assert not space.reap(0, mm.PAGE)
        assert not page.freed
        assert space.reap(0, mm.PAGE)
        assert page.freed
        mirror.access(0)  # waits for ever if a range was left open
    assert [violation.message for violation in session.violations] == []


def test_who_heard_of_a_start_that_failed_hears_of_its_end(load: Load) -> None:
    notifier, mm = load("notifier"), load("mm").MM()
    heard: list[str] = []

    class Willing(notifier.Notifier):  # type: ignore[misc, name-defined]
        def range_start(self, *_: object, blockable: bool) -> str:
            heard.append("start")
            return "done"

        def range_end(self, *_: object) -> None:
            heard.append("end")

    class Unwilling(notifier.Notifier):  # type: ignore[misc, name-defined]
        def range_start(self, *_: object, blockable: bool) -> str:
            return "done" if blockable else "again"

        def range_end(self, *_: object) -> None:
            heard.append("an end without a start")

    notifier.register(mm, Willing())
    notifier.register(mm, Unwilling())
    with ctxcheck.checking(mode="record") as session:
        with pytest.raises(notifier.WouldSleepError, match="Unwilling"):
            notifier.invalidate_range_start_nonblock(mm, 0, 0x1000)
        assert heard == ["start", "end"]
    assert session.violations == []  # above all, no range was left open


@pytest.mark.parametrize(
    ("first", "second", "together"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_rwlock_lets_readers_share(load: Load, first: bool, second: bool, together: bool) -> None:
    lock = load("rwlock").RWLock()
    assert lock.acquire(shared=first)
    assert lock.acquire(shared=second, blocking=False) is together
    assert lock.acquire(shared=second, timeout=0) is together
    for _ in range(3 if together else 1):
        lock.release()
    assert lock.acquire(blocking=False)
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()


# --- as a user runs it ------------------------------------------------------------------


def test_demonstration_reports_the_bad_and_not_the_good(tmp_path: Path) -> None:
    result = run("--output", "text", "--output", "json:report.json", str(EXAMPLE), cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "no page was used after it had been freed" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    violations = report["violations"]
    assert {violation["rule"] for violation in violations} == {
        "CTX001",
        "CTX101",
        "CTX102",
        "CTX201",
        "CTX205",
        "CTX301",
    }
    assert "MirrorMMU" not in json.dumps(violations)
    assert "good_driver" not in json.dumps(violations)
    assert "SleepyMMU" in json.dumps(violations)
    for code in {violation["rule"] for violation in violations}:
        assert code in result.stderr


def test_demonstration_says_the_same_each_time(tmp_path: Path) -> None:
    results = [run("--output", "concise", str(EXAMPLE), cwd=tmp_path) for _ in range(2)]
    assert results[0].stdout == results[1].stdout
    findings = [[line for line in result.stderr.splitlines() if "CTX" in line] for result in results]
    assert findings[0] == findings[1]


def test_demonstration_runs_without_ctxcheck_too(tmp_path: Path) -> None:
    result = run(str(EXAMPLE), cwd=tmp_path, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_is_reported_by_the_command(name: str, load: Load, tmp_path: Path) -> None:
    result = run("--output", "json:report.json", str(RULES / f"{name}.py"), cwd=tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert {violation["rule"] for violation in report["violations"]} == set(load(name).EXPECT)
    grades = {violation["grade"] for violation in report["violations"]}
    assert result.returncode == (1 if grades - {"unlikely"} else 0), result.stderr
