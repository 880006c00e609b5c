"""Hand-made findings for the renderers: what would be put together from a real run."""

from __future__ import annotations

from ctxcheck.engine.violations import Context, Event, Frame, Scenario, Site, Stack, Step, Timeline, Violation

INVERSION = Violation(
    rule="CTX001",
    slug="lock-order-inversion",
    grade="possible",
    message="possible deadlock: lock order inversion between `AuditLog.lock` and `Ledger.lock`",
    locks=("AuditLog.lock", "Ledger.lock"),
    keys=("bank:AuditLog.lock", "bank:Ledger.lock"),
    owners=("thread 'reconciler'", "thread 'teller-1'"),
    fingerprint="CTX001-7c41e0b2",
    sites=(
        Site(
            "now",
            "bank.py",
            30,
            "balance",
            text="    with ledger.lock:",
            label="thread 'reconciler' acquires `Ledger.lock` here",
            before="def balance(ledger: Ledger) -> None:",
        ),
        Site(
            "held_now",
            "bank.py",
            25,
            "reconcile",
            text="    with audit.lock:",
            label="while holding `AuditLog.lock`, acquired here",
        ),
        Site(
            "then",
            "bank.py",
            20,
            "record",
            text="    with audit.lock:",
            label="acquired `AuditLog.lock` here",
            heading="the opposite order, `Ledger.lock` then `AuditLog.lock`, was established by thread 'teller-1'",
        ),
        Site(
            "held_then",
            "bank.py",
            15,
            "transfer",
            text="    with ledger.lock:",
            label="while holding `Ledger.lock`, acquired here",
        ),
    ),
    scenario=Scenario(
        columns=("thread A: reconcile()", "thread B: transfer()"),
        steps=(
            Step(0, "lock(AuditLog.lock)"),
            Step(1, "lock(Ledger.lock)"),
            Step(0, "lock(Ledger.lock)", "thread B: transfer()"),
            Step(1, "lock(AuditLog.lock)", "thread A: reconcile()"),
        ),
        outcome="both wait for ever",
    ),
    stacks=(
        Stack(
            "stack now",
            "thread 'reconciler'",
            (
                Frame("bank.py", 26, "reconcile", "balance(ledger)"),
                Frame("bank.py", 30, "balance", "with ledger.lock:"),
            ),
        ),
        Stack(
            "stack then",
            "thread 'teller-1'",
            (
                Frame("bank.py", 16, "transfer", 'record(audit, "transfer")'),
                Frame("bank.py", 20, "record", "with audit.lock:"),
            ),
        ),
    ),
    notes=(
        "this run did not hang; the two orders were seen at different times, both in "
        "tests/test_bank.py::test_both_directions",
        "`Ledger.lock` is any lock created at bank.py:6, `AuditLog.lock` any lock created at bank.py:11",
        "orders seen: `Ledger.lock` -> `AuditLog.lock` 1 time, the reverse 1 time",
    ),
    helps=(
        "pick one order and use it everywhere; to match transfer(), take `Ledger.lock` before "
        "`AuditLog.lock` in reconcile() (bank.py:25)",
        "or leave the `with audit.lock:` block (bank.py:25) before calling balance()",
        "or use one lock for both, if they always protect the same data",
    ),
    allow=(
        "if these can never run at the same time, say why in pyproject.toml:",
        "[[tool.ctxcheck.allow]]",
        'rule = "CTX001"',
        'locks = ["AuditLog.lock", "Ledger.lock"]',
        'reason = "..."',
    ),
)


def cycle(size: int) -> Violation:
    """Return an inversion of ``size`` locks, `A.lock` -> `B.lock` -> ... -> `A.lock`, in shop.py."""
    names = [f"{letter}.lock" for letter in "ABCDE"[:size]]
    pairs = list(zip(names, [*names[1:], names[0]], strict=True))
    workers = [f"worker-{number}" for number in range(1, size + 1)]
    titles = tuple(f"thread {letter}: step_{letter.lower()}()" for letter in "ABCDE"[:size])
    sites: list[Site] = []
    for index, (held, taken) in enumerate(pairs):
        line = 10 * index + 12
        function = f"step_{held[0].lower()}"
        sites += [
            Site(
                "then" if index else "now",
                "shop.py",
                line,
                function,
                text=f"        with self.{taken[0].lower()}.lock:",
                label=f"thread '{workers[index]}' acquires `{taken}` here",
                heading=f"order {index + 1} of {size}: `{held}` then `{taken}`",
                column=13,
                end_column=24,
            ),
            Site(
                "held_then" if index else "held_now",
                "shop.py",
                line - 1,
                function,
                text=f"    with self.{held[0].lower()}.lock:",
                label=f"while holding `{held}`, acquired here",
                column=9,
                end_column=20,
            ),
        ]
    path = " -> ".join(f"`{name}`" for name in [*names, names[0]])
    return Violation(
        rule="CTX001",
        slug="lock-order-inversion",
        grade="possible",
        message=f"possible deadlock: {size} locks are taken in a circle: {path}",
        locks=tuple(names),
        fingerprint=f"CTX001-{size:08x}",
        sites=tuple(sites),
        scenario=Scenario(
            columns=titles,
            steps=(
                *(Step(index, f"lock({held})") for index, (held, _) in enumerate(pairs)),
                *(Step(index, f"lock({taken})", titles[(index + 1) % size]) for index, (_, taken) in enumerate(pairs)),
            ),
            outcome=f"all {size} wait for ever" if size > 3 else "all three wait for ever",
        ),
        stacks=tuple(
            Stack(
                f"stack of order {index + 1}",
                f"thread '{workers[index]}'",
                (Frame("shop.py", 10 * index + 12, f"step_{held[0].lower()}", f"with self.{taken[0].lower()}.lock:"),),
            )
            for index, (held, taken) in enumerate(pairs)
        ),
        helps=("put the locks in one order, and take them in that order everywhere",),
    )


SLEEP_IN_ATOMIC = Violation(
    rule="CTX101",
    slug="sleep-in-atomic",
    grade="certain",
    message="sleep in atomic context: `backoff` may sleep, but it runs inside `rx softirq`",
    owners=("thread 'MainThread'",),
    fingerprint="CTX101-19d5aa08",
    sites=(
        Site(
            "now",
            "gateway.py",
            13,
            "route",
            text="        backoff(0.01)",
            label="may sleep: declared @might_sleep at gateway.py:16",
            before="    if not packet:",
        ),
        Site(
            "entered",
            "tests/test_gateway.py",
            5,
            "test_empty_packet",
            text='    on_packet(b"")',
            label="entered atomic context `rx softirq` here: @atomic at gateway.py:6",
        ),
    ),
    contexts_title="context stack of thread 'MainThread' (outermost first)",
    contexts=(
        Context("atomic", "rx softirq", "entered at", "tests/test_gateway.py", 5, allows="nothing that waits"),
        Context("sleeps", "backoff", "called at", "gateway.py", 13, here=True),
    ),
    stacks=(
        Stack(
            "stack",
            "thread 'MainThread'",
            (
                Frame("tests/test_gateway.py", 5, "test_empty_packet", 'on_packet(b"")'),
                Frame("gateway.py", 8, "on_packet", "route(packet)"),
                Frame("gateway.py", 13, "route", "backoff(0.01)"),
            ),
        ),
    ),
    notes=("the rule is about the declaration, so it fires even when this call would return at once",),
    helps=(
        'do the waiting outside: let route() return "retry", and call backoff() after on_packet() returns',
        "or hand the work to a thread or task that may sleep (queue, executor, loop.call_soon)",
        "or, if on_packet() may in fact wait, remove @atomic at gateway.py:6",
    ),
    allow=(
        "at this line only:",
        "backoff(0.01)  # ctxcheck: allow[CTX101] reason",
        'or around a block: with ctxcheck.allow("CTX101", reason="..."):',
    ),
    count=3,
)

OUTSIDE_RANGE = Violation(
    rule="CTX201",
    slug="outside-range",
    grade="certain",
    message="call outside range: `invalidate_page` needs an open `mmu.invalidate` range",
    owners=("thread 'MainThread'",),
    fingerprint="CTX201-e2b7306f",
    sites=(
        Site(
            "now",
            "mmu.py",
            20,
            "try_to_unmap",
            text="    mmu.invalidate_page(pages[-1])",
            label="called after it: declared @within_range at mmu.py:11",
            before="    mmu.invalidate_range_end(pages[0], pages[-1])",
        ),
        Site(
            "closed",
            "mmu.py",
            19,
            "try_to_unmap",
            text="    mmu.invalidate_range_end(pages[0], pages[-1])",
            label="the range was closed here",
        ),
        Site(
            "opened",
            "mmu.py",
            16,
            "try_to_unmap",
            text="    mmu.invalidate_range_start(pages[0], pages[-1])",
            label="the range was opened here",
        ),
    ),
    timeline=Timeline(
        "`mmu.invalidate` on <SecondaryMMU #1>, thread 'MainThread'",
        (
            Event("mmu.py", 16, "invalidate_range_start", "opens"),
            Event("mmu.py", 18, "invalidate_page", "inside", times=3),
            Event("mmu.py", 19, "invalidate_range_end", "closes"),
            Event("mmu.py", 20, "invalidate_page", "OUTSIDE", here=True),
        ),
    ),
    stacks=(
        Stack(
            "stack",
            "thread 'MainThread'",
            (
                Frame("tests/test_mmu.py", 5, "test_unmap", "try_to_unmap(SecondaryMMU(), [1, 2, 3, 4])"),
                Frame("mmu.py", 20, "try_to_unmap", "mmu.invalidate_page(pages[-1])"),
            ),
        ),
    ),
    notes=(
        "between the end of one range and the start of the next, readers may already have mapped the page "
        "again; invalidating then is a race",
    ),
    helps=(
        "move the call at mmu.py:20 above invalidate_range_end() at mmu.py:19",
        "or open a range of its own around it: invalidate_range_start() ... invalidate_range_end()",
        "if the range is opened by another thread, declare that at mmu.py:11: "
        '`@within_range("mmu.invalidate", owner="any")`',
    ),
    allow=("mmu.invalidate_page(...)  # ctxcheck: allow[CTX201] reason",),
)

SELF_DEADLOCK = Violation(
    rule="CTX002",
    slug="self-deadlock",
    grade="certain",
    message="deadlock: thread 'MainThread' re-acquires `Ledger.lock`, which it already holds",
    locks=("Ledger.lock",),
    owners=("thread 'MainThread'",),
    fingerprint="CTX002-0b54c9d1",
    sites=(
        Site(
            "now",
            "bank.py",
            41,
            "Ledger.balance",
            text="        with self.lock:",
            label="waits for itself: `Ledger.lock` is a plain Lock, which its holder can't take again",
            before="    def balance(self) -> int:",
            column=13,
            end_column=22,
        ),
        Site(
            "held_now",
            "bank.py",
            36,
            "Ledger.transfer",
            text="        with self.lock:",
            label="`Ledger.lock` was acquired here, and is held until this block ends",
            column=13,
            end_column=22,
        ),
    ),
    held=("Ledger.lock",),
    stacks=(
        Stack(
            "stack",
            "thread 'MainThread'",
            (
                Frame("bank.py", 60, "<module>", "ledger.transfer(100)"),
                Frame("bank.py", 37, "Ledger.transfer", "if self.balance() < amount:"),
                Frame("bank.py", 41, "Ledger.balance", "with self.lock:"),
            ),
        ),
    ),
    notes=("`DeadlockError` was raised at bank.py:41: without it, the thread would have waited for ever",),
    helps=(
        "let balance() expect the lock to be held (`@requires_lock`), and take it only in the public method",
        "or make `Ledger.lock` an RLock, if a method that holds it may call any other",
    ),
)

UNLIKELY = INVERSION.replace(
    grade="unlikely",
    notes=("both orders were only ever taken while holding `Bank.gate`, so no two threads can be in them at once",),
)

HOSTILE = Violation(
    rule="CTX101",
    slug="sleep-in-atomic",
    grade="certain",
    message="sleep in atomic context: `\x1b[2J` may sleep\r\nerror[CTX999]: forged",
    fingerprint="CTX101-\x9b31m",
    sites=(
        Site(
            "now",
            "we\nird.py",
            1000,
            "f\x07",
            text='\tnaïve(\t"日本語", "e\u0301\u0302", "\x1b]0;x\x07", wait())  # 終\n',
            label="\u202eesrever",
            before="\tif x:\x0c",
            column=36,
            end_column=42,
            heading="",
        ),
        Site("entered", "", 0, "", label="began in code that has no source\x1b[0m"),
        Site("held_now", "<string>", 7, "__init__"),
    ),
    stacks=(
        Stack(
            "stack\x1b[1m", "thread '\udcff'", (Frame("日本.py", 3, "f", "x = '\x1b'"), Frame("ab.py", 10, "g", "f()"))
        ),
    ),
    held=("\x1b[31mlock",),
    notes=("a note\nin two lines\x1b[5m",),
    allow=("\twith a tab\x1b[7m",),
)
