from __future__ import annotations

from pathlib import Path

import pytest

from ctxcheck.engine.violations import Context, Frame, Violation
from ctxcheck.selection import Allowance

from .programs import labels, marked, places, run

GATEWAY = """
@might_sleep
def backoff(delay): pass

def route(packet):
    if not packet:
        backoff(0.01)

@atomic("rx softirq")
def on_packet(packet):
    route(packet)

def test_empty_packet():
    on_packet(b"")

test_empty_packet()
"""


def test_a_marked_call_in_an_atomic_context(tmp_path: Path) -> None:
    violation = run(tmp_path, GATEWAY, file="gateway.py").only("CTX101")
    assert violation.message == "sleep in atomic context: `backoff` may sleep, but it runs inside `rx softirq`"
    assert (violation.slug, violation.grade) == ("sleep-in-atomic", "certain")
    assert places(violation) == [
        ("now", "gateway.py", 6, "route"),
        ("entered", "gateway.py", 13, "test_empty_packet"),
    ]
    assert [marked(site) for site in violation.sites] == ["backoff(0.01)", 'on_packet(b"")']
    assert violation.sites[0].before == "    if not packet:"
    assert labels(violation) == [
        "may sleep: declared @might_sleep at gateway.py:1",
        "entered atomic context `rx softirq` here: @atomic at gateway.py:8",
    ]
    assert violation.contexts_title == "context stack of thread 'MainThread' (outermost first)"
    assert violation.contexts == (
        Context("atomic", "rx softirq", "entered at", "gateway.py", 13, allows="nothing that waits"),
        Context("sleeps", "backoff", "called at", "gateway.py", 6, here=True),
    )
    assert violation.held == ()
    assert violation.stacks[0].frames[-3:] == (
        Frame("gateway.py", 13, "test_empty_packet", 'on_packet(b"")'),
        Frame("gateway.py", 10, "on_packet", "route(packet)"),
        Frame("gateway.py", 6, "route", "backoff(0.01)"),
    )
    assert violation.notes == (
        "the rule is about the declaration, so it fires even when this call would return at once",
    )
    assert violation.helps == (
        "do the waiting outside: let route() return what is to be done, and call backoff() after `rx softirq` has "
        "ended",
        "or hand the work to a thread or task that may sleep (queue, executor, loop.call_soon)",
        "or, if `rx softirq` may wait after all, remove @atomic at gateway.py:8",
    )
    assert violation.allow == (
        "at this line only:",
        "backoff(0.01)  # ctxcheck: allow[CTX101] reason",
        'or around a block: with ctxcheck.allow("CTX101", reason="..."):',
    )


def test_what_an_installed_package_does_is_accepted_in_the_configuration(tmp_path: Path) -> None:
    file = "env/lib/python3.12/site-packages/gate/way.py"
    violation = run(tmp_path, GATEWAY, file=file).only("CTX101")
    assert violation.sites[0].file == file
    assert violation.allow == (
        "in this file, say why in pyproject.toml:",
        "[[tool.ctxcheck.allow]]",
        'rule = "CTX101"',
        'path = "*/gate/way.py"',
        'reason = "..."',
        'or around a block: with ctxcheck.allow("CTX101", reason="..."):',
    )
    assert Allowance("CTX101", (), "...", "*/gate/way.py").covers(violation)


def found(tmp_path: Path, source: str, rule: str = "CTX101") -> Violation:
    prelude = """
import asyncio
s, l = lock("r:Ring.lock", SPIN), lock("r:stats")
@might_sleep
def backoff(): pass
@range_start("mmu")
def begin(): pass
@range_end("mmu")
def end(): pass
"""
    return run(tmp_path, prelude + source).only(rule)


def test_a_marked_call_under_a_spin_lock(tmp_path: Path) -> None:
    violation = found(tmp_path, "with l, s:\n    backoff()\n")
    assert violation.message == (
        "sleep in atomic context: `backoff` may sleep, but it runs while spin lock `Ring.lock` is held"
    )
    assert violation.sites[1].role == "held_now"
    assert violation.sites[1].label == "while holding spin lock `Ring.lock`, acquired here"
    assert [(c.kind, c.label, c.verb, c.allows) for c in violation.contexts] == [
        ("lock", "stats", "acquired at", ""),
        ("spin", "Ring.lock", "acquired at", "nothing that waits"),
        ("sleeps", "backoff", "called at", ""),
    ]
    assert violation.held == ("stats", "Ring.lock")
    assert violation.helps[0] == "call backoff() before `Ring.lock` is taken (bank.py:9) or after it is released"
    assert violation.helps[-1] == "or make `Ring.lock` a Lock, if its holders may wait"
    assert "who holds `Ring.lock` must not sleep: others count on getting it at once" in violation.notes


def test_a_check_in_the_function_that_entered_the_context(tmp_path: Path) -> None:
    source = """
def work():
    with {}:
        might_sleep()
def outer():
    work()
outer()
"""
    violation = found(tmp_path, source.format('atomic("softirq")'))
    assert violation.helps[0] == "do what may wait at bank.py:12 before `softirq` begins or after it ends"
    violation = found(tmp_path, source.format("s"))
    assert violation.helps[0] == (
        "do what may wait at bank.py:12 before `Ring.lock` is taken (bank.py:11) or after it is released"
    )


def test_the_statement_is_named_after_its_function(tmp_path: Path) -> None:
    source = "def wait_for_it():\n    might_sleep()\ndef step():\n    wait_for_it()\nwith atomic('tick'):\n    step()\n"
    violation = found(tmp_path, source)
    assert violation.message == "sleep in atomic context: `wait_for_it` may sleep, but it runs inside `tick`"
    assert violation.sites[0].label == "may sleep"
    assert violation.sites[1].label == "entered atomic context `tick` here"
    # not by the function that is the sleep point itself, but by its caller
    assert violation.helps[0] == (
        "do the waiting outside: let step() return what is to be done, and call wait_for_it() after `tick` has ended"
    )
    assert violation.helps[-1] == "or, if `tick` may wait after all, don't mark it as atomic"


@pytest.mark.parametrize(
    ("source", "message", "label", "help_"),
    [
        (
            "def f():\n    with s:\n        begin()\nf(), end()\n",
            "sleep in atomic context: `begin` opens a range, which may sleep, but it runs while spin lock "
            "`Ring.lock` is "
            "held",
            "opens a range, which may sleep: declared @range_start at bank.py:5",
            "call begin() before `Ring.lock` is taken (bank.py:10): a range goes around the locked region",
        ),
        (
            "begin()\nwith atomic('tick'):\n    end()\n",
            "sleep in atomic context: `end` closes a range, which may sleep, but it runs inside `tick`",
            "closes a range, which may sleep: declared @range_end at bank.py:7",
            "call end() after `tick` ends: a range goes around the locked region",
        ),
    ],
)
def test_the_ends_of_a_range(tmp_path: Path, source: str, message: str, label: str, help_: str) -> None:
    result = run(tmp_path, _with_prelude(source))
    violation = result.of("CTX101")[0]
    assert (violation.message, violation.sites[0].label, violation.helps[0]) == (message, label, help_)


def _with_prelude(source: str) -> str:
    return f"""
s = lock("r:Ring.lock", SPIN)



@range_start("mmu")
def begin(): pass
@range_end("mmu")
def end(): pass
{source}"""


def test_a_wait_for_something_else(tmp_path: Path) -> None:
    source = """
    from ctxcheck.engine.sites import capture
    from ctxcheck.engine.telling import report_sleep
    from ctxcheck.fastpath import current
    def get():
        report_sleep(engine, current(), "queue.Queue.get", "wait", capture(1))
    with atomic("tick"):
        get()
    """
    violation = run(tmp_path, source).only("CTX101")
    assert violation.message == "sleep in atomic context: `queue.Queue.get` waits, but it runs inside `tick`"
    assert violation.sites[0].label == "waits here"
    assert (violation.contexts[-1].kind, violation.contexts[-1].label) == ("waits", "queue.Queue.get")
    assert "queue.Queue.get()" in violation.helps[0]


def test_an_atomic_coroutine_that_suspends(tmp_path: Path) -> None:
    source = """
@atomic
async def handler():
    await asyncio.sleep(0)
asyncio.run(handler())
"""
    violation = found(tmp_path, source)
    assert violation.message == "suspended in atomic context: `handler` awaits, and is atomic itself"
    assert violation.sites[0].label == "suspends here"
    assert marked(violation.sites[0]) == "await asyncio.sleep(0)"
    assert violation.contexts[-1].kind == "suspends"
    # the loop that runs it is of no interest
    assert not any("asyncio" in frame.file for frame in violation.stacks[0].frames)


@pytest.mark.parametrize(
    ("source", "message", "first_help"),
    [
        (
            "with s:\n    with l: pass\n",
            "blocking acquire of `stats` in atomic context: it may sleep, but it runs while spin lock `Ring.lock` "
            "is held",
            "take `stats` first and `Ring.lock` inside of it: that order is allowed",
        ),
        (
            "with atomic('tick'):\n    l.acquire()\nl.release()\n",
            "blocking acquire of `stats` in atomic context: it may sleep, but it runs inside `tick`",
            "take `stats` before `tick` begins or after it ends",
        ),
        (
            "with atomic('tick'):\n    l.acquire(timeout=5)\nl.release()\n",
            "blocking acquire of `stats` with a timeout in atomic context: it may sleep, but it runs inside `tick`",
            "take `stats` before `tick` begins or after it ends",
        ),
    ],
)
def test_a_blocking_acquire(tmp_path: Path, source: str, message: str, first_help: str) -> None:
    violation = found(tmp_path, source, "CTX102")
    assert violation.message == message
    assert violation.slug == "block-in-atomic"
    assert violation.sites[0].label == "may wait for `stats` here"
    assert violation.contexts[-1].kind == "acquires"
    assert violation.helps[0] == first_help
    assert "or try, `acquire(blocking=False)`, with a way to go on when `stats` is taken" in violation.helps
    assert violation.notes[0] == "`stats` may have been free this time; the rule is about the time when it isn't"


def test_an_acquire_of_something_that_is_no_lock_class(tmp_path: Path) -> None:
    source = """
    from ctxcheck.engine.sites import capture
    from ctxcheck.engine.telling import report_sleep
    from ctxcheck.fastpath import current
    s = lock("r:Ring.lock", SPIN)
    with s:
        report_sleep(engine, current(), "Semaphore", "acquire", capture(1))
    """
    violation = run(tmp_path, source).only("CTX102")
    assert violation.message.startswith("blocking acquire of `Semaphore` in atomic context")
    assert violation.locks == ("Ring.lock",)


def test_what_may_still_be_done_inside(tmp_path: Path) -> None:
    source = """
    from ctxcheck.engine.classes import AWAIT, BLOCK, ContextStep
    from ctxcheck.engine.sites import capture
    from ctxcheck.engine.telling import report_sleep
    from ctxcheck.fastpath import current
    state = current()
    for step in (ContextStep("loop", "the loop", BLOCK), ContextStep("sync", "a callback", AWAIT)):
        state.cur = engine.enter(state, step)
    report_sleep(engine, state, "pause", "marked", capture(1))
    state.cur = state.root
    """
    violation = run(tmp_path, source).only("CTX101")
    assert [(context.kind, context.allows) for context in violation.contexts[:-1]] == [
        ("loop", "await, but nothing that blocks the thread"),
        ("sync", "what blocks the thread, but no await"),
    ]
    assert violation.sites[1].label.startswith("entered context `the loop` here")


def test_one_name_for_both_locks(tmp_path: Path) -> None:
    source = """
    a, b = lock("one:L", SPIN), lock("two:L")
    with a:
        with b: pass
    """
    violation = run(tmp_path, source).only("CTX102")
    assert violation.message == (
        "blocking acquire of `two.L` in atomic context: it may sleep, but it runs while spin lock `one.L` is held"
    )
    assert [context.label for context in violation.contexts] == ["one.L", "two.L"]


def test_the_whole_chain_is_shown(tmp_path: Path) -> None:
    source = """
with allow("CTX201", reason="not about ranges"):
    with range_("mmu"):
        with atomic("tick"):
            backoff()
"""
    violation = run(tmp_path, _with_prelude("@might_sleep\ndef backoff(): pass\n" + source)).of("CTX101")[0]
    assert [(c.kind, c.label, c.verb) for c in violation.contexts] == [
        ("allow", "not about ranges", "entered at"),
        ("range", "mmu", "opened at"),
        ("atomic", "tick", "entered at"),
        ("sleeps", "backoff", "called at"),
    ]
    assert violation.allowed_by is None


def test_a_reason_given_around_it(tmp_path: Path) -> None:
    source = "with atomic('tick'), allow('CTX101', reason='it is cached'):\n    backoff()\n"
    assert found(tmp_path, source).allowed_by == "it is cached"


def test_local_functions_are_named_without_the_functions_around_them(tmp_path: Path) -> None:
    source = """
def test():
    @might_sleep
    def pause(): pass
    @atomic
    def tick():
        pause()
    tick()
test()
"""
    violation = found(tmp_path, source)
    assert violation.message == "sleep in atomic context: `pause` may sleep, but it runs inside `tick`"
    assert violation.sites[0].function == "test.tick"
    assert violation.helps[0].startswith("do the waiting outside: let tick() return")
