from __future__ import annotations

from pathlib import Path

import pytest

from ctxcheck.engine.violations import Event, Violation

from .programs import Run, labels, marked, places, run

#: The program of each test begins in line 13.
MMU = """
class MMU:
    @range_start("mmu", span=("start", "end"))
    def begin(self, start=0, end=16): pass
    @range_end("mmu", span=("start", "end"))
    def end(self, start=0, end=16): pass
    @within_range("mmu", at="page", why="a page stands still only in between")
    def drop(self, page=4): pass
    @within_range("mmu", at="page", sleepable=False)
    def peek(self, page=4): pass

m = MMU()
l, s = lock("mm:L"), lock("mm:S", SPIN)
"""


def program(tmp_path: Path, source: str, file: str = "mmu.py") -> Run:
    return run(tmp_path, MMU + source, file=file)


def found(tmp_path: Path, source: str, rule: str) -> Violation:
    return program(tmp_path, source).of(rule)[-1]


def rows(violation: Violation) -> list[tuple[int, str, str, int, bool]]:
    assert violation.timeline is not None
    return [(e.line, e.function, e.what, e.times, e.here) for e in violation.timeline.events]


def test_more_calls_than_a_timeline_has_rows(tmp_path: Path) -> None:
    source = """
m.begin()
for page in [4] * 100:
    m.drop(page)
    m.peek(page)
m.end()
m.drop(3)
"""
    violation = program(tmp_path, source).only("CTX201")
    assert rows(violation) == [
        (14, "MMU.begin", "opens", 1, False),
        (16, "MMU.drop", "inside", 100, False),
        (17, "MMU.peek", "inside", 100, False),
        (18, "MMU.end", "closes", 1, False),
        (19, "MMU.drop", "OUTSIDE", 1, True),
    ]


def test_closed(tmp_path: Path) -> None:
    source = """
def unmap(pages):
    m.begin()
    for page in pages:
        m.drop(page)
    m.end()
    m.drop(3)
unmap([1, 2, 3])
"""
    violation = program(tmp_path, source).only("CTX201")
    assert violation.message == ("call outside range: `MMU.drop` needs an open `mmu` range, and it is closed already")
    assert (violation.slug, violation.grade) == ("outside-range", "certain")
    assert places(violation) == [
        ("now", "mmu.py", 19, "unmap"),
        ("closed", "mmu.py", 18, "unmap"),
        ("opened", "mmu.py", 15, "unmap"),
    ]
    assert [marked(site) for site in violation.sites] == ["m.drop(3)", "m.end()", "m.begin()"]
    assert labels(violation) == [
        "called after it: declared @within_range at mmu.py:6",
        "the range was closed here",
        "the range was opened here",
    ]
    assert violation.timeline is not None
    assert violation.timeline.title == "`mmu` on <MMU>, thread 'MainThread'"
    assert violation.timeline.events == (
        Event("mmu.py", 15, "MMU.begin", "opens"),
        Event("mmu.py", 17, "MMU.drop", "inside", times=3),
        Event("mmu.py", 18, "MMU.end", "closes"),
        Event("mmu.py", 19, "MMU.drop", "OUTSIDE", here=True),
    )
    assert violation.stacks[0].frames[-1].text == "m.drop(3)"
    assert violation.notes == ("a page stands still only in between",)
    assert violation.helps == (
        "move the call at mmu.py:19 above MMU.end() at mmu.py:18",
        "or open a range of its own around it: MMU.begin() ... MMU.end()",
        'or, if another thread holds the range open meanwhile, declare that at mmu.py:6: `@within_range("mmu", '
        'owner="any")`',
    )
    assert violation.allow[1] == "m.drop(3)  # ctxcheck: allow[CTX201] reason"


def test_never_opened(tmp_path: Path) -> None:
    violation = program(tmp_path, "m.drop()").only("CTX201")
    assert violation.message == "call outside range: `MMU.drop` needs an open `mmu` range, and none is open"
    assert places(violation) == [("now", "mmu.py", 13, "<module>")]
    assert violation.notes[1] == "this run never opened `mmu` before this call"
    assert rows(violation) == [(13, "MMU.drop", "OUTSIDE", 1, True)]
    assert violation.helps[0] == "open the range before the call, and close it after, best in a `with` block"


def test_never_opened_for_this_key(tmp_path: Path) -> None:
    violation = found(tmp_path, "m.begin(); m.end()\nMMU().drop()", "CTX201")
    assert violation.notes[1] == "no range was opened on <MMU> at 4 lately"


def test_opened_on_another_object(tmp_path: Path) -> None:
    violation = found(tmp_path, "m.begin()\nMMU().drop()\nm.end()", "CTX201")
    assert violation.message == (
        "call outside range: `MMU.drop` needs an open `mmu` range on this <MMU>, but the open one is on another <MMU>"
    )
    assert labels(violation)[1] == "a range on <MMU> [0, 16) was opened here"
    assert violation.sites[1].line == 13
    assert violation.helps[0] == "open the range on the very object that the call is about, and pass on that one"


def test_opened_on_another_key(tmp_path: Path) -> None:
    source = """
@within_range("batch", key="name")
def use(name): pass
with range_("batch", key="jobs"):
    use("mails")
"""
    violation = found(tmp_path, source, "CTX201")
    assert violation.message == (
        "call outside range: `use` needs an open `batch` range on 'mails', but the open one is on 'jobs'"
    )
    assert violation.timeline is not None
    assert violation.timeline.title == "`batch` on 'mails', thread 'MainThread'"


def test_opened_by_another_owner(tmp_path: Path) -> None:
    violation = found(tmp_path, "m.begin()\nin_thread(lambda: m.drop(), name='w')\nm.end()", "CTX201")
    assert violation.message == (
        "call outside range: `MMU.drop` needs an open `mmu` range of thread 'w', but the open one is that of thread "
        "'MainThread'"
    )
    assert violation.owners == ("thread 'w'", "thread 'MainThread'")
    assert labels(violation)[1] == "the range was opened here by thread 'MainThread'"
    assert [stack.title for stack in violation.stacks] == ["stack", "stack of the opening"]
    assert rows(violation) == [
        (13, "MMU.begin", "opens (thread 'MainThread')", 1, False),
        (14, "MMU.drop", "OUTSIDE", 1, True),
    ]


def test_outside_the_span(tmp_path: Path) -> None:
    violation = found(tmp_path, "m.begin(0, 16)\nm.drop(16)\nm.end(0, 16)", "CTX201")
    assert violation.message == ("call outside range: `MMU.drop` is about 16, which the open `mmu` range doesn't cover")
    assert labels(violation) == [
        "called for 16: declared @within_range at mmu.py:6",
        "the range on <MMU> [0, 16) was opened here",
    ]
    assert "the call is about 16; the open range is on <MMU> [0, 16); the end of a span is outside" in violation.notes


def test_opened_where_sleeping_was_not_allowed(tmp_path: Path) -> None:
    source = """
with s:
    m.begin()
    m.drop()
    m.end()
"""
    violation = found(tmp_path, source, "CTX201")
    assert violation.message == (
        "call outside range: `MMU.drop` needs a `mmu` range that was opened where sleeping is allowed"
    )
    assert [site.role for site in violation.sites] == ["now", "opened", "held_now"]
    assert labels(violation)[1:] == [
        "`mmu` was opened here, where sleeping was not allowed",
        "while holding `S`, acquired here",
    ]
    assert violation.helps == (
        "open the range before `S` is taken, where sleeping is allowed: it goes around the locked region",
    )


def test_opened_in_an_atomic_context(tmp_path: Path) -> None:
    violation = found(tmp_path, "with atomic('tick'):\n    m.begin()\nm.drop()\nm.end()\n", "CTX201")
    # the block is over: where it was entered is known, but not that it was this time
    assert labels(violation)[2] == "inside `tick`, entered here"
    assert violation.helps[0].startswith("open the range before `tick` begins")


def test_an_end_too_many(tmp_path: Path) -> None:
    violation = found(tmp_path, "m.begin()\nm.end()\nm.end()\n", "CTX202")
    assert violation.message == (
        "range end without its start: `MMU.end` closes `mmu` on <MMU> [0, 16), and it is closed already"
    )
    assert violation.slug == "unpaired-range-end"
    assert [site.role for site in violation.sites] == ["now", "closed", "opened"]
    assert labels(violation)[0] == "closes it again: declared @range_end at mmu.py:4"
    assert rows(violation)[-1] == (15, "MMU.end", "UNPAIRED", 1, True)


def test_an_end_without_any_start(tmp_path: Path) -> None:
    violation = program(tmp_path, "m.end()").only("CTX202")
    assert violation.message.endswith(", and none is open")
    assert labels(violation) == ["closes what isn't open: declared @range_end at mmu.py:4"]
    assert violation.notes == (
        "since checking started there was no start with this name and key that this owner could close",
    )


def test_an_end_with_another_span(tmp_path: Path) -> None:
    violation = found(tmp_path, "m.begin(0, 16)\nm.end(0, 8)\nm.end(0, 16)", "CTX202")
    assert violation.message == (
        "range end without its start: `MMU.end` closes `mmu` for [0, 8), but the open one is on <MMU> [0, 16)"
    )
    assert labels(violation)[1] == "the open range on <MMU> [0, 16) was opened here"


def test_left_open_by_a_thread(tmp_path: Path) -> None:
    violation = program(tmp_path, "def work():\n    m.begin()\nin_thread(work, name='w')\n").only("CTX203")
    assert violation.message == ("range left open: thread 'w' still had `mmu` on <MMU> [0, 16) open when it finished")
    assert violation.slug == "range-left-open"
    assert places(violation) == [("now", "mmu.py", 14, "work")]
    assert rows(violation) == [
        (14, "MMU.begin", "opens", 1, False),
        (14, "", "STILL OPEN at the end of the thread", 1, True),
    ]
    assert violation.helps[1] == (
        'or, if another thread closes it, declare the start so: `@range_start("mmu", owner="any")`'
    )


def test_left_open_at_the_end(tmp_path: Path) -> None:
    violation = program(tmp_path, "m.begin()").only("CTX203")
    assert violation.message.endswith("open at the end of the program")


def test_a_lock_that_is_released_inside(tmp_path: Path) -> None:
    source = """
m.begin(); m.end()
l.acquire()
m.begin()
l.release()
m.end()
"""
    violation = found(tmp_path, source, "CTX205")
    assert violation.message == (
        "range crosses lock: `L` was acquired before the `mmu` range opened, and is released inside it"
    )
    assert (violation.slug, violation.locks, violation.held) == ("range-crosses-lock", ("L",), ("L",))
    assert [(site.role, site.line) for site in violation.sites] == [("now", 17), ("opened", 16), ("held_now", 15)]
    assert rows(violation) == [(16, "MMU.begin", "opens", 1, False), (17, "<module>", "RELEASES `L`", 1, True)]
    assert violation.helps == (
        "acquire `L` after the start of the range, and release it before the end",
        "or hold `L` over the whole range, until after its end",
    )


def test_a_lock_that_is_held_at_the_end(tmp_path: Path) -> None:
    violation = found(tmp_path, "m.begin()\nl.acquire()\nm.end()\nl.release()\n", "CTX205")
    assert violation.message == (
        "range crosses lock: `L` was acquired inside the `mmu` range, and is still held at its end"
    )
    assert [(site.role, site.line) for site in violation.sites] == [("now", 15), ("held_now", 14), ("opened", 13)]
    assert rows(violation)[-1] == (15, "MMU.end", "closes", 1, True)
    assert violation.helps[0] == "release `L` before the range is closed at mmu.py:15"


def test_the_timeline_is_about_those_who_take_part(tmp_path: Path) -> None:
    source = """
def other():
    for _ in range(9):
        m.begin(); m.end()
for _ in range(9):
    m.begin(); m.drop(); m.end()
in_thread(other)
m.begin()
m.end()
m.drop()
"""
    violation = found(tmp_path, source, "CTX201")
    # nothing of the other thread, and nothing from before the range that this is about
    assert rows(violation) == [
        (20, "MMU.begin", "opens", 1, False),
        (21, "MMU.end", "closes", 1, False),
        (22, "MMU.drop", "OUTSIDE", 1, True),
    ]


def test_a_block_closes_its_range(tmp_path: Path) -> None:
    source = """
@within_range("batch")
def use(): pass
with range_("batch"):
    pass
use()
"""
    violation = found(tmp_path, source, "CTX201")
    assert violation.helps[0] == "move the call at mmu.py:18 above `range_('batch')` at mmu.py:16"


@pytest.mark.parametrize("reason", ["it is unmapped under the lock of the address space"])
def test_accepted_around_a_block(tmp_path: Path, reason: str) -> None:
    violation = program(tmp_path, f"with allow('CTX201', reason={reason!r}):\n    m.drop()").only("CTX201")
    assert violation.allowed_by == reason
