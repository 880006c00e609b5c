from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctxcheck.engine.violations import Context, Frame, Scenario, Site, Stack, Step, Violation
from ctxcheck.reports import text
from ctxcheck.reports.cells import Paint, cells, safe
from ctxcheck.reports.tables import scenario_rows

from . import findings, goldens
from .strategies import any_text, scenarios, violations


@pytest.mark.parametrize(
    ("name", "violation"),
    [
        ("inversion", findings.INVERSION),
        ("inversion_of_three", findings.cycle(3)),
        ("inversion_of_five", findings.cycle(5)),
        ("sleep_in_atomic", findings.SLEEP_IN_ATOMIC),
        ("outside_range", findings.OUTSIDE_RANGE),
        ("self_deadlock", findings.SELF_DEADLOCK),
        ("hostile", findings.HOSTILE),
    ],
)
def test_full_reports(name: str, violation: Violation) -> None:
    goldens.check(name, text.render(violation))


def test_short_report() -> None:
    goldens.check("unlikely_short", text.render_short(findings.UNLIKELY))


def test_allowed_report() -> None:
    goldens.check("allowed", text.render(findings.INVERSION.replace(allowed_by="tellers start after reconcile()")))


def test_narrow_report() -> None:
    goldens.check("inversion_narrow", text.render(findings.INVERSION, width=60))


@pytest.mark.parametrize(
    ("name", "violation"),
    [("inversion_color", findings.INVERSION), ("outside_range_color", findings.OUTSIDE_RANGE)],
)
def test_color(name: str, violation: Violation) -> None:
    colored = text.render(violation, color=True)
    goldens.check(name, colored)
    assert _plain(colored) == text.render(violation)


def test_short_report_color() -> None:
    assert _plain(text.render_short(findings.UNLIKELY, color=True)) == text.render_short(findings.UNLIKELY)


# -- what may never happen, whatever a finding holds


@given(violations, st.integers(20, 120))
def test_nothing_that_a_terminal_could_act_on_is_printed(violation: Violation, width: int) -> None:
    for report in (text.render(violation, width=width), text.render_short(violation, width=width)):
        for row in report.split("\n"):
            assert safe(row) == row


@given(violations)
def test_color_changes_nothing_but_color(violation: Violation) -> None:
    assert _plain(text.render(violation, color=True)) == text.render(violation)


@given(any_text, any_text, st.sampled_from([40, 100, 400]))
@example("x" * 29, "x" * 5, 40)
def test_carets_stand_under_the_expression(before: str, after: str, width: int) -> None:
    source = f"{before}MARK{after}".replace("\n", "").replace("\r", "")
    column = source.index("MARK")
    site = Site("now", "a.py", 3, "f", text=source, column=column, end_column=column + 4)
    rows = text.render(_at(site), width=width).split("\n")
    shown = next(row for row in rows if row.startswith(" 3 |"))
    marks = next(row for row in rows if row.strip().endswith("^^^^"))
    assert cells(shown[: shown.index("MARK")]) == marks.index("^")


# -- snippets


def test_a_long_line_is_cut_around_its_expression() -> None:
    source = " " * 8 + "x = " + "a + " * 60 + "wait(lock)" + " + b" * 60
    column = source.index("wait")
    site = Site("now", "a.py", 3, "f", text=source, column=column, end_column=column + 10, label="waits here")
    rows = text.render(_at(site), width=80).split("\n")
    shown, marks = rows[3], rows[4]
    assert len(shown) <= 80
    assert shown.startswith(" 3 | ...")
    assert shown.endswith("...")
    assert shown[marks.index("^") :][: marks.count("^")] == "wait(lock)"
    assert marks.endswith("^^^^^^^^^^ waits here")


def test_deep_indentation_is_taken_off_before_anything_is_cut() -> None:
    indent = " " * 60
    site = Site("now", "a.py", 3, "f", text=f"{indent}    wait(lock)", before=f"{indent}if this_is_a_condition:")
    rows = text.render(_at(site), width=60).split("\n")
    assert rows[3:6] == [" 2 | if this_is_a_condition:", " 3 |     wait(lock)", "   |     ^^^^^^^^^^"]


def test_a_label_that_does_not_fit_goes_below() -> None:
    site = Site("now", "a.py", 3, "f", text="    wait(lock)", label="one two three four five six seven eight nine")
    rows = text.render(_at(site), width=50).split("\n")
    assert rows[4:][:3] == ["   |     ^^^^^^^^^^", "   |     one two three four five six seven eight", "   |     nine"]


def test_two_expressions_of_one_line_share_it() -> None:
    source = "    with a, b:"
    held = Site("held_now", "a.py", 3, "f", text=source, column=9, end_column=10, label="held")
    now = Site("now", "a.py", 3, "f", text=source, column=12, end_column=13, label="acquired")
    assert text.render(_at(now, held)).split("\n")[1:7] == [
        "  --> a.py:3 in f",
        "   |",
        " 3 |     with a, b:",
        "   |             ^ acquired",
        "   |          - held",
        "",
    ]


@pytest.mark.parametrize(
    "other",
    [
        Site("held_now", "b.py", 2, "f", text="with a:"),
        Site("held_now", "a.py", 2, "g", text="with a:"),
        Site("held_now", "a.py", 1, "f", text="with a:"),
        Site("held_now", "a.py", 2, "f", text="with a:", heading="before that"),
        Site("held_now", "a.py", 2, "f"),
    ],
)
def test_only_neighbours_in_one_function_share_a_snippet(other: Site) -> None:
    report = text.render(_at(Site("now", "a.py", 3, "f", text="  with b:"), other))
    assert report.count("-->") + report.count(":::") == 2


def test_an_expression_that_goes_on_in_the_next_line_is_marked_to_the_end_of_its_first() -> None:
    site = Site("now", "a.py", 3, "f", text="    with lock(  ", column=9, end_column=5)
    assert text.render(_at(site)).split("\n")[4] == "   |          ^^^^^"


@pytest.mark.parametrize("column", [99, 4])
def test_columns_outside_the_line_mark_what_there_is(column: int) -> None:
    site = Site("now", "a.py", 3, "f", text="    wait()", column=column, end_column=200)
    assert text.render(_at(site)).split("\n")[4] == "   |     ^^^^^^"


def test_a_site_without_source_shows_its_label() -> None:
    report = text.render(_at(Site("now", "<string>", 3, "f", label="acquired here")))
    assert report.split("\n")[1:3] == ["  --> <string>:3 in f", "   | acquired here"]


def test_a_finding_without_sites_is_shown() -> None:
    report = text.render(Violation("CTX901", "checker-disabled", "certain", "checking was switched off"))
    assert report.startswith("error[CTX901]: checking was switched off\n\n  = grade: certain")
    assert text.render_short(Violation("CTX901", "checker-disabled", "certain", "off")).count("\n") == 2


# -- headline and notes


@pytest.mark.parametrize(
    ("grade", "allowed_by", "word"),
    [
        ("certain", None, "error"),
        ("possible", None, "error"),
        ("unlikely", None, "warning"),
        ("certain", "reason", "warning"),
        ("certain", "", "warning"),
    ],
)
def test_only_what_fails_is_called_an_error(grade: str, allowed_by: str | None, word: str) -> None:
    violation = findings.INVERSION.replace(grade=grade, allowed_by=allowed_by)
    assert text.render(violation).startswith(f"{word}[CTX001]: possible deadlock")
    assert text.render_short(violation).startswith(f"{word}[CTX001]: possible deadlock")


def test_an_accepted_finding_shows_the_reason_and_not_how_to_accept_it() -> None:
    report = text.render(findings.INVERSION.replace(allowed_by="only at start-up"))
    assert "  = allowed: only at start-up\n" in report
    assert "[[tool.ctxcheck.allow]]" not in report


def test_each_grade_is_explained() -> None:
    for grade in ("certain", "possible", "unlikely"):
        assert f"  = grade: {grade} - " in text.render(findings.INVERSION.replace(grade=grade))


def test_repeats_are_counted() -> None:
    assert "  = note: seen 1,200 times\n" in text.render(findings.INVERSION.replace(count=1200))
    assert "seen 1 time" not in text.render(findings.INVERSION)


def test_an_unlikely_finding_says_why_in_short() -> None:
    report = text.render_short(findings.UNLIKELY.replace(notes=("all under `Gate.lock`", "more")))
    assert "  = unlikely: all under `Gate.lock`\n" in report
    assert "more\n" not in report
    assert "bank.py:25" not in report
    assert "= unlikely: the pattern is there" in text.render_short(findings.UNLIKELY.replace(notes=()))


def test_code_to_copy_is_never_wrapped() -> None:
    line = 'locks = ["' + "Accounts.lock " * 20 + '"]'
    assert line in text.render(findings.INVERSION.replace(allow=("say why:", line)), width=60)


# -- tables


def test_a_table_that_is_too_wide_becomes_a_list() -> None:
    owners = tuple(f"thread {letter}: " + "module.Class." * 4 + "run()" for letter in "AB")
    lock = "lock(" + "package.module." * 4 + "Lock)"
    scenario = Scenario(owners, (Step(0, lock), Step(1, lock), Step(0, lock, owners[1])), "both wait for ever")
    report = text.render(findings.INVERSION.replace(scenario=scenario))
    assert f"     1. thread A: {lock}\n     2. thread B: {lock}\n" in report
    assert f"     3. thread A: {lock}  waits for thread B\n        *** both wait for ever ***\n" in report


def test_titles_take_two_rows_before_the_table_is_given_up() -> None:
    owners = tuple(f"thread {letter}: " + "Class." * 6 + "run()" for letter in "ABC")
    scenario = Scenario(owners, (Step(0, "lock(x)"), Step(2, "lock(y)", owners[0])), "stop")
    rows = text.render(_at().replace(scenario=scenario), width=170).split("\n")
    assert "thread A: Class." in rows[4]
    rows = text.render(_at().replace(scenario=scenario), width=150).split("\n")
    assert rows[4].split() == ["thread", "A:", "thread", "B:", "thread", "C:"]
    assert rows[5].split() == ["Class." * 6 + "run()"] * 3


@given(scenarios, st.integers(40, 120))
def test_a_table_never_passes_the_width(scenario: Scenario, width: int) -> None:
    rows = scenario_rows(scenario, width=width, paint=Paint(False))
    if rows and rows[0] == "how it deadlocks:":
        assert all(cells(row) <= width for row in rows if "***" not in row)


def test_steps_of_columns_that_do_not_exist_are_left_out() -> None:
    scenario = Scenario(("thread A", "thread B"), (Step(0, "lock(x)"), Step(7, "lock(gone)")), "")
    assert "gone" not in text.render(_at().replace(scenario=scenario))
    assert "deadlocks" not in text.render(_at().replace(scenario=Scenario((), (Step(0, "x"),), "stop")))


def test_context_stack_with_locks() -> None:
    violation = _at().replace(
        contexts=(
            Context("spin", "Ring.lock", "acquired at", "ring.py", 3, allows="spin locks"),
            Context("acquires", "Stats.lock", "called at", "ring.py", 14, here=True),
        ),
        held=("Ring.lock",),
    )
    assert (
        "context stack (outermost first):\n"
        "    spin       Ring.lock    acquired at ring.py:3    allows: spin locks\n"
        " -> acquires   Stats.lock   called at   ring.py:14\n"
        "locks held: Ring.lock\n"
    ) in text.render(violation)


def test_each_stack_has_its_own_column_and_a_long_place_does_not_move_the_others() -> None:
    long_place = "a/very/deep/directory/of/some/package/and/its/module.py"
    stack = Stack(
        "stack", "", (Frame(long_place, 10, "f", "g()"), Frame("b.py", 2, "g", "wait()"), Frame("c.py", 3, ""))
    )
    assert (
        f"stack (most recent call last):\n    {long_place}:10 in f    g()\n    b.py:2 in g    wait()\n    c.py:3\n"
    ) in text.render(_at().replace(stacks=(stack,)))


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; import ctxcheck.reports.text, ctxcheck.reports.json, ctxcheck.reports.concise;"
        "import ctxcheck.reports.explain;"
        "heavy = {'structlog', 'wrapt', 'asyncio', 'logging', 'importlib.metadata', 'tomllib', 'difflib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _at(*sites: Site) -> Violation:
    return Violation("CTX101", "sleep-in-atomic", "certain", "sleep in atomic context", sites=sites)


def _plain(colored: str) -> str:
    for code in ("1;31", "1;33", "1;34", "1;36", "1", "0"):
        colored = colored.replace(f"\x1b[{code}m", "")
    return colored
