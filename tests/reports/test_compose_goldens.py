"""What people get to read: for each rule, and each reason of a rule, the whole report on a small program.

The same on every version of Python.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ctxcheck.engine.violations import Violation
from ctxcheck.reports import text

from . import goldens
from .programs import run
from .test_compose_context import GATEWAY
from .test_compose_held import LEDGER
from .test_compose_order import BANK
from .test_compose_range import MMU
from .test_compose_self import ACCOUNTS

LOCKS = 'a, b, c = lock("m:a"), lock("m:b"), lock("m:c")\n'
CONTEXTS = """
ring, stats = lock("net:Ring.lock", SPIN), lock("net:stats")

@might_sleep
def backoff(): pass

@range_start("rx")
def begin(): pass

@range_end("rx")
def end(): pass

"""
DATABASE = """
class Database:
    @range_start("transaction", nested=True, why="a savepoint is nothing by itself")
    def begin(self): pass
    @range_end("transaction")
    def commit(self): pass
    @range_start("savepoint", key="name", nested=True)
    def save(self, name): pass
    @range_end("savepoint", key="name")
    def release(self, name): pass
    @within_range("transaction")
    def write(self): pass

db = Database()
"""
PAGE = """
from ctxcheck.engine.classes import LOCK
class Page:
    def __init__(self, kind=LOCK):
        self.lock = lock("mm:Page.lock", kind)

"""
FORK = """
from ctxcheck import fastpath
cache = lock("web:Cache.lock")
inside, done = threading.Event(), threading.Event()

def refresh():
    with cache:
        inside.set()
        done.wait()

worker = threading.Thread(target=refresh, name="worker")
worker.start(), inside.wait()

def fork():
    engine.forks.before(fastpath.current(), threading.get_ident())
    engine.forks.in_parent()

def leave():
    done.set(), worker.join()

"""
FINISH = """
until("CTX001")
while any(thread.is_alive() for thread in threads):
    for l in locks:
        try: l._release()
        except RuntimeError: pass
for thread in threads: thread.join()
"""

INTERRUPTS = """
pool, stats = lock("net:Pool.lock"), lock("net:stats")

class Handle:
    def close(self):
        with interrupt("gc"):
            with pool: pass

def grow():
    with pool: pass

def quiet():
    with masked("gc"), pool:
        count()

def count():
    with stats: pass

handle = Handle()
"""

FINALIZERS = """
import threading, weakref
pool, flags = lock("net:Pool.lock"), threading.local()

class Handle:
    def __del__(self):
        self.close()
    def close(self):
        with pool: pass

class Careful(Handle):
    def close(self):
        if not getattr(flags, "busy", False):
            super().close()

class Asks(Handle):
    def close(self):
        if not pool.locked():
            super().close()

class Empty: pass

def grow():
    flags.busy = True
    with pool: pass
    flags.busy = False

def shrink():
    with pool: pass

"""

RATES = """
l, gate = lock("fx:Rates.lock"), aio.Lock(name="fx:gate")

def go(coro, name="T1"):
    async def main():
        await asyncio.create_task(coro, name=name)
    asyncio.run(main())

async def enter():
    async with gate: pass

async def refresh():
    with l:
        await asyncio.sleep(0)

async def by_hand():
    r = lock("fx:Rates.rlock", RLOCK)
    r.acquire()
    await asyncio.sleep(0)
    r.release()
"""
GENERATOR = (
    RATES
    + """
def rates():
    with l:
        for rate in (1.1, 1.2):
            yield rate

async def convert():
    for rate in rates():
        await asyncio.sleep(0)

def first():
    generator = rates()
    next(generator)
    return generator

kept = []
"""
)

SHOP = """
transaction = context("transaction", forbids=("network", "sleep", "report"))

@requires("transaction", why="all of an order is saved, or nothing")
def save(order): pass

@forbids("transaction", why="a mail can't be rolled back")
def mail(order): pass

@might_sleep
def ask_agency(order): pass

def buy(order):
    with transaction:
        finish(order)

def finish(order):
    save(order)
"""

#: The rule, what all programs of a kind begin with, and the program.
CASES: dict[str, tuple[str, str, str]] = {
    "ctx001": ("CTX001", BANK, ""),
    "ctx001_three": (
        "CTX001",
        LOCKS,
        """
        def ab():
            with a:
                b.acquire()
                b.release()
        def bc():
            with b, c: pass
        def ca():
            with c:
                take()
        def take():
            if a.acquire(timeout=3):
                a.release()
        ab(), bc(), ca()
        """,
    ),
    "ctx001_guarded": (
        "CTX001",
        LOCKS,
        """
        with a, b, c: pass
        with a, c, b: pass
        """,
    ),
    "ctx001_two_passes": (
        "CTX001",
        LOCKS,
        """
        def three():
            with a, b: pass
            with a, b, c: pass
            with a, c: pass
        three()
        with c, a: pass
        """,
    ),
    "ctx001_handed_over": (
        "CTX001",
        LOCKS,
        """
        a.acquire()
        in_thread(a.release)
        with a, b: pass
        with b, a: pass
        """,
    ),
    "ctx001_region": (
        "CTX001",
        LOCKS,
        """
        def allocate():
            might_enter("reclaim")

        @region("reclaim")
        def shrink():
            with a: pass

        with a:
            allocate()
        shrink()
        """,
    ),
    "ctx001_region_three": (
        "CTX001",
        LOCKS,
        """
        def notify():
            with a, region("callbacks"): pass

        def callback():
            with region("callbacks"):
                b.acquire()
                b.release()

        def other():
            with b:
                a.acquire()
                a.release()

        notify(), callback(), other()
        """,
    ),
    "ctx002": (
        "CTX002",
        "",
        """
        l = lock("bank:Ledger.lock")

        class Ledger:
            def transfer(self):
                with l:
                    self.total()

            def total(self):
                with l:
                    pass

        try: Ledger().transfer()
        except Exception: pass
        """,
    ),
    "ctx002_alone": (
        "CTX002",
        "",
        """
        l = lock("bank:Ledger.lock")
        l.acquire()
        try: l.acquire()
        except Exception: pass
        l.release()
        """,
    ),
    "ctx002_owned": (
        "CTX002",
        "",
        """
        l = lock("bank:Ledger.lock", SPIN)
        l.acquire()
        try: l.acquire()
        except Exception: pass
        l.release()
        """,
    ),
    "ctx002_possible": (
        "CTX002",
        "",
        """
        l = lock("bank:Ledger.lock")
        def work():
            l.acquire()
            again()
        def again():
            l.acquire()
            l.release()
        thread = threading.Thread(target=work, name="w")
        thread.start()
        until("CTX002", "possible")
        l._release()
        thread.join()
        """,
    ),
    "ctx002_interrupt": (
        "CTX002",
        INTERRUPTS,
        """
        with pool:
            try: handle.close()
            except Exception: pass
        """,
    ),
    "ctx002_shared": (
        "CTX002",
        "",
        """
        from ctxcheck.locks.tracked import track
        class Fair:
            def acquire(self, shared=False): pass
            def release(self, shared=False): pass
        catalogue = track(Fair(), name="Catalogue.lock", shared=True)
        def find():
            with catalogue.shared():
                count()
        def count():
            with catalogue.shared(): pass
        find()
        """,
    ),
    "ctx004": ("CTX004", INTERRUPTS, "handle.close(); grow()"),
    "ctx004_guarded": (
        "CTX004",
        INTERRUPTS,
        """
        gate = lock("net:closing")
        def close():
            with interrupt("gc"):
                if gate.acquire(blocking=False):
                    with pool: pass
                    gate.release()
        def open_all():
            with gate, pool: pass
        close(), open_all()
        """,
    ),
    "ctx004_signal": (
        "CTX004",
        INTERRUPTS,
        """
        def on_alarm():
            with interrupt("signal SIGALRM"), pool: pass
        on_alarm(), grow()
        """,
    ),
    "ctx004_timed": (
        "CTX004",
        INTERRUPTS,
        """
        def on_alarm():
            with interrupt("signal"):
                if pool.acquire(timeout=1):
                    pool.release()
        on_alarm(), grow()
        """,
    ),
    "ctx004_del": ("CTX004", FINALIZERS, "with finalizers_seen(): Handle(); shrink()"),
    "ctx004_finalize": (
        "CTX004",
        FINALIZERS,
        """
        with finalizers_seen():
            thing = Empty()
            weakref.finalize(thing, shrink)
            del thing
            grow()
        """,
    ),
    "ctx004_flag": ("CTX004", FINALIZERS, "with finalizers_seen(): Careful(); grow()"),
    "ctx005": ("CTX005", INTERRUPTS, "handle.close(), quiet(), count()"),
    "ctx005_of_three": (
        "CTX005",
        INTERRUPTS,
        """
        log = lock("net:Log.lock")
        def flush():
            with stats:
                write()
        def write():
            with log: pass
        handle.close(), quiet(), write()
        with masked("gc"): flush()
        """,
    ),
    "ctx005_guarded": (
        "CTX005",
        INTERRUPTS,
        """
        gate = lock("net:gate")
        with gate, masked("gc"): quiet()
        with gate: count()
        handle.close()
        """,
    ),
    "ctx002_aio": (
        "CTX002",
        RATES.replace("fx:gate", "ctx002_aio:gate"),
        """
        async def main():
            async with gate:
                await enter()
        try: go(main())
        except Exception: pass
        """,
    ),
    "ctx002_two_tasks": (
        "CTX002",
        RATES.replace("fx:gate", "ctx002_two_tasks:gate"),
        """
        async def main():
            first = asyncio.create_task(refresh(), name="first")
            await asyncio.sleep(0)
            await refresh()
        try: go(main())
        except Exception: pass
        """,
    ),
    "ctx001_tasks": (
        "CTX001",
        RATES.replace("fx:gate", "ctx001_tasks:gate"),
        """
        async def first():
            async with gate:
                with l: pass
        async def second():
            with l:
                await enter()
        go(first())
        go(second(), "T2")
        """,
    ),
    "ctx003_descending": ("CTX003", ACCOUNTS, "move(account(2), account(1))"),
    "ctx003_equal": ("CTX003", ACCOUNTS, "move(account(2), account(2))"),
    "ctx003_once": ("CTX003", ACCOUNTS, "move(account(), account())"),
    "ctx003_both": ("CTX003", ACCOUNTS, "x, y = account(), account(); move(x, y); move(y, x)"),
    "ctx007": (
        "CTX007",
        LOCKS + "import ctxcheck\n",
        """
        ctxcheck.declare_order(a, b, reason="b is the inner table's")
        def update():
            with b:
                a.acquire()
                a.release()
        update()
        """,
    ),
    "ctx007_path": (
        "CTX007",
        LOCKS + "import ctxcheck\n",
        """
        ctxcheck.declare_order("a", "b")
        ctxcheck.declare_order("b", "c", reason="c is held for long")
        def update():
            with c:
                if a.acquire(timeout=5):
                    a.release()
        update()
        """,
    ),
    "ctx007_leaf": (
        "CTX007",
        LOCKS + "import ctxcheck\n",
        """
        ctxcheck.declare_leaf(b, reason="it is taken everywhere")
        def update():
            with b, c: pass
        update()
        """,
    ),
    "ctx101": ("CTX101", GATEWAY, ""),
    "ctx101_spin": ("CTX101", CONTEXTS, "with stats, ring:\n    backoff()\n"),
    "ctx101_start": ("CTX101", CONTEXTS, "with ring:\n    begin()\n"),
    "ctx101_end": ("CTX101", CONTEXTS, "begin()\nwith atomic('tick'):\n    end()\n"),
    "ctx102": ("CTX102", CONTEXTS, "with ring:\n    with stats: pass\n"),
    "ctx102_atomic": ("CTX102", CONTEXTS, "with atomic('tick'):\n    stats.acquire(timeout=1)\nstats.release()\n"),
    "ctx102_aio": (
        "CTX102",
        CONTEXTS + RATES,
        """
        pool = aio.Lock(name="net:Pool.lock")
        async def handler():
            with ring:
                async with pool: pass
        go(handler())
        """,
    ),
    "ctx103_wait": ("CTX103", RATES, "async def start():\n    Event().wait(0.001)\ngo(start())\n"),
    "ctx103_marked": (
        "CTX103",
        CONTEXTS + RATES,
        """
        @might_sleep("it asks the server")
        def ask(what): ...
        async def handler(request):
            return ask(request)
        async def serve():
            await handler("rates")
        go(serve())
        """,
    ),
    "ctx104": ("CTX104", RATES, "go(refresh())\n"),
    "ctx104_rlock": ("CTX104", RATES, "go(by_hand())\n"),
    "ctx104_generator": ("CTX104", GENERATOR, "go(convert())\n"),
    "ctx104_left": ("CTX104", GENERATOR, "in_thread(lambda: kept.append(first()), name='converter')\n"),
    "ctx104_closed": (
        "CTX104",
        GENERATOR,
        """
        def convert_some():
            kept.append(first())
            in_thread(lambda: kept.pop().close(), name="cleaner")
        in_thread(convert_some, name="converter")
        """,
    ),
    "ctx105": (
        "CTX105",
        CONTEXTS + RATES,
        """
        def flush():
            with stats:
                backoff()
        async def handler():
            with stats: pass
        go(handler())
        in_thread(flush)
        """,
    ),
    "ctx105_atomic": (
        "CTX105",
        CONTEXTS,
        """
        @atomic("rx softirq")
        def on_packet():
            with allow("CTX102", reason="held for a few lines"):
                with stats: pass
        on_packet()
        def flush():
            with stats:
                backoff()
        flush()
        """,
    ),
    "ctx106": ("CTX106", SHOP, "def finish(order):\n    mail(order)\nbuy(1)\n"),
    "ctx106_category": ("CTX106", SHOP, "def finish(order):\n    ask_agency(order)\nbuy(1)\n"),
    "ctx106_enters": ("CTX106", SHOP, 'def finish(order):\n    with context("report"): pass\nbuy(1)\n'),
    "ctx106_here": ("CTX106", SHOP, 'def finish(order):\n    forbids("transaction")\nbuy(1)\n'),
    "ctx106_role": (
        "CTX106",
        "",
        """
        @forbids("ui")
        def download(): pass
        @thread_role("ui")
        def loop():
            download()
        def start():
            loop()
        in_thread(start, name="ui")
        """,
    ),
    "ctx106_itself": (
        "CTX106",
        "",
        """
        class Db:
            @context_start("transaction", forbids=("transaction",))
            def begin(self): pass
            @context_end("transaction")
            def commit(self): pass
        db = Db()
        db.begin()
        db.begin()
        db.commit(), db.commit()
        """,
    ),
    "ctx107": ("CTX107", SHOP, "buy(1)\nfinish(2)\n"),
    "ctx107_thread": ("CTX107", SHOP, "def finish(order):\n    in_thread(later)\ndef later():\n    save(1)\nbuy(1)\n"),
    "ctx107_any": (
        "CTX107",
        SHOP,
        """
        @requires("transaction", "snapshot", any=True)
        def read(): pass
        with context("request"):
            read()
        """,
    ),
    "ctx107_here": ("CTX107", SHOP, 'def check():\n    requires("tranaction")\nwith transaction:\n    check()\n'),
    "ctx107_role": (
        "CTX107",
        "",
        """
        @requires("ui")
        def draw(): pass
        def load():
            draw()
        ui = thread_role("ui").enter()
        in_thread(load, name="loader")
        ui.exit()
        """,
    ),
    "ctx201_never_opened": ("CTX201", MMU, "m.drop()"),
    "ctx201_closed": (
        "CTX201",
        MMU,
        "m.begin()\nfor page in range(3): m.drop(page)\nm.end()\nm.drop()\n",
    ),
    "ctx201_other_key": ("CTX201", MMU, "m.begin()\nMMU().drop()\nm.end()\n"),
    "ctx201_other_owner": ("CTX201", MMU, "m.begin()\nin_thread(lambda: m.drop())\nm.end()\n"),
    "ctx201_outside_span": ("CTX201", MMU, "m.begin(0, 4096)\nm.drop(4096)\nm.end(0, 4096)\n"),
    "ctx201_opened_atomic": ("CTX201", MMU, "with s:\n    m.begin()\n    m.drop()\n    m.end()\n"),
    "ctx202": ("CTX202", MMU, "m.begin()\nm.end()\nm.end()\n"),
    "ctx202_never_opened": ("CTX202", MMU, "m.end()\n"),
    "ctx202_other_span": ("CTX202", MMU, "m.begin(0, 16)\nm.end(0, 8)\nm.end(0, 16)\n"),
    "ctx202_other_key": ("CTX202", MMU, "other = MMU()\nm.begin()\nother.end()\nm.end()\n"),
    "ctx202_other_owner": ("CTX202", MMU, "def work():\n    m.end()\nm.begin()\nin_thread(work)\nm.end()\n"),
    "ctx203_context": (
        "CTX203",
        "",
        'def work():\n    begin()\n@context_start("transaction")\ndef begin(): pass\nin_thread(work, name="w")\n',
    ),
    "ctx203": ("CTX203", MMU, "def work():\n    m.begin()\nin_thread(work)\n"),
    "ctx204": (
        "CTX204",
        DATABASE,
        "def load(rows):\n    db.begin()\n    db.save('rows')\n    db.write()\n    db.commit()\n"
        "    db.release('rows')\nload([])\n",
    ),
    "ctx204_spans": (
        "CTX204",
        DATABASE,
        "for span in ((0, 9), (2, 4), (2, 3)):\n    range_('pages', span=span, nested=True).start()\n"
        "for span in ((2, 4), (0, 9), (2, 3)):\n    range_('pages', span=span).end()\n",
    ),
    "ctx205_released": ("CTX205", MMU, "l.acquire()\nm.begin()\nl.release()\nm.end()\n"),
    "ctx205_held": ("CTX205", MMU, "m.begin()\nl.acquire()\nm.end()\nl.release()\n"),
    "ctx301": ("CTX301", LEDGER, "with l:\n    in_thread(deposit, name='w')\n"),
    "ctx301_not": ("CTX301", LEDGER, "with l:\n    assert_not_held(l)\n"),
    "ctx301_nested": (
        "CTX301",
        "from ctxcheck.locks.nested import nested\n",
        """
        tree, node = lock("fs:Tree.lock"), lock("fs:Node.lock")

        def move():
            with nested(node, nest_under=tree): pass

        move()
        """,
    ),
    "ctx302": (
        "CTX302",
        "",
        """
        l = lock("mm:Page.lock", SPIN)
        def stop():
            l.release()
        with l:
            in_thread(stop)
        """,
    ),
    "ctx303": ("CTX303", "", 'l = lock("mm:Page.lock", SPIN)\ndef work():\n    l.acquire()\nin_thread(work)\n'),
    "ctx303_possible": ("CTX303", "", 'l = lock("mm:Page.lock")\nl.acquire()\n'),
    "ctx304": (
        "CTX304",
        PAGE,
        "def work():\n    page = Page(SPIN)\n    page.lock.acquire()\nwork()\nwith lock('other'): pass\n",
    ),
    "ctx304_possible": ("CTX304", PAGE, "def work():\n    page = Page()\n    page.lock.acquire()\nwork()\n"),
    "ctx304_again": (
        "CTX304",
        "import ctxcheck\n",
        """
        ring = ctxcheck.SpinLock(name="ring")
        def reset(): ring.__init__()
        def work():
            ring.acquire()
            in_thread(reset, name="w")
        work()
        """,
    ),
    "ctx304_replaced": (
        "CTX304",
        "import ctxcheck\nclass Page:\n    def __init__(self):\n        self.lock = ctxcheck.Lock(name='Page.lock')\n",
        """
        def work(page):
            with page.lock:
                page.__init__()
        work(Page())
        """,
    ),
    "ctx306": ("CTX306", FORK, "fork()\nengine.forks._outstanding[0].answers[0] = 1\nleave()\n"),
    "ctx306_unanswered": ("CTX306", FORK, "fork()\nleave()\n"),
    "ctx306_blocked": (
        "CTX306",
        FORK,
        """
        engine.forks.before(fastpath.current(), threading.get_ident())
        engine.forks.in_child()
        def release():
            until("CTX306")
            leave()
        threading.Thread(target=release).start()
        def child():
            with cache: pass
        child()
        """,
    ),
    "ctx305": ("CTX305", "", 'l = lock("mm:Page.lock")\ntry: l.release()\nexcept RuntimeError: pass\n'),
}


def shown(violation: Violation) -> str:
    """The report, without those calls of the stacks that are the test's."""
    stacks = tuple(
        type(stack)(stack.title, stack.owner, tuple(frame for frame in stack.frames if frame.file == "app.py"))
        for stack in violation.stacks
    )
    return text.render(violation.replace(stacks=stacks))


@pytest.mark.parametrize("name", CASES)
def test_report(tmp_path: Path, name: str) -> None:
    rule, head, body = CASES[name]
    found = run(tmp_path, head + textwrap.dedent(body), file="app.py", deadlock_after=0.05)
    # what is unlikely by nature is told at the end
    told = found.of(rule) or [violation for violation in found.verdict() if violation.rule == rule]
    goldens.check(f"program_{name}", shown(told[-1]))


def test_every_rule_that_the_engine_finds_has_a_report() -> None:
    found_by_the_engine = {
        "CTX001", "CTX002", "CTX003", "CTX004", "CTX005", "CTX007",
        "CTX101", "CTX102", "CTX103", "CTX104", "CTX105", "CTX106", "CTX107",
        "CTX201", "CTX202", "CTX203", "CTX204", "CTX205", "CTX301", "CTX302", "CTX303", "CTX304", "CTX305",
        "CTX306",
    }  # fmt: skip
    assert {rule for rule, _, _ in CASES.values()} == found_by_the_engine


def test_a_deadlock_that_happens(tmp_path: Path) -> None:
    source = """
locks = one, two = lock("m:one"), lock("m:two")
held = threading.Event()

def first():
    with one:
        held.wait()
        second_lock(two)

def second():
    with two:
        held.set()
        second_lock(one)

def second_lock(l):
    try:
        with l: pass
    except RuntimeError: pass

threads = [threading.Thread(target=work, name="worker") for work in (first, second)]
for thread in threads: thread.start()
"""
    source += FINISH
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threading.excepthook", lambda _args: None)
        found = run(tmp_path, source, deadlock_after=0.05)
    violation = next(v for v in found.of("CTX001") if v.grade == "certain")
    # whoever looked first; the threads have one name, and are told apart all the same
    assert violation.owners == ("thread 'worker'", "thread 'worker' (2)")
    assert violation.scenario is not None
    assert len(set(violation.scenario.columns)) == 2
    message = "deadlock: threads 'worker' and 'worker' (2) wait for each other for `one` and `two`"
    assert sorted(violation.message.split()) == sorted(message.split())
