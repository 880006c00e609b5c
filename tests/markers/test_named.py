"""``context``, ``requires``, ``forbids``, ``ambient`` and ``thread_role``."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ctxcheck import fastpath, session, tasks
from ctxcheck.engine import contexts
from ctxcheck.engine.blocking import Blocking
from ctxcheck.engine.errors import ViolationError
from ctxcheck.markers import (
    ambient,
    assert_context,
    assert_no_context,
    atomic,
    context,
    context_end,
    context_start,
    forbids,
    interrupt,
    might_sleep,
    range_,
    range_end,
    range_start,
    region,
    requires,
    thread_role,
)
from ctxcheck.markers.named import Context
from ctxcheck.probes.blocking import before

from .conftest import Check, make_lock

txn = context("txn")
NETWORK = Blocking("socket.recv", "network")
SLEEP = Blocking("time.sleep", "sleep")


@requires("txn")
def save() -> str:
    return "saved"


@forbids("txn", why="mail can't be rolled back")
def mail() -> str:
    return "sent"


@might_sleep
def slow() -> None: ...


@might_sleep
async def wait() -> None: ...


def in_thread(work: Callable[[], object], name: str = "somebody") -> None:
    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()


@pytest.fixture
def watched(check: Check) -> Iterator[Check]:
    tasks.watch()
    yield check
    tasks.unwatch()


@pytest.fixture(autouse=True)
def no_roles() -> Iterator[None]:
    yield
    contexts._here.roles = ()
    assert contexts.unseen == []


# --- inside and outside --------------------------------------------------------------------------


def test_inside_and_outside(check: Check) -> None:
    with txn:
        assert save() == "saved"
        assert save() == "saved"
    assert check.rules == []
    assert save() == "saved"
    assert check.rules == ["CTX107"]
    assert mail() == "sent"
    assert check.rules == []
    with txn:
        assert mail() == "sent"
    assert check.rules == ["CTX106"]


def test_what_is_reported(check: Check) -> None:
    def caller() -> None:
        save()

    caller()
    (finding,) = check.findings
    assert (finding.rule, finding.grade) == ("CTX107", "certain")
    assert finding.identity == ("txn", "save", caller.__qualname__)
    facts = check.facts()
    assert (facts.names, facts.anyone, facts.function, facts.here) == (("txn",), False, "save", False)
    assert facts.declared.head().line == save.__wrapped__.__code__.co_firstlineno  # type: ignore[attr-defined]
    assert (facts.elsewhere, facts.earlier, facts.chain) == ((), (), ())
    with txn:
        mail()
    (finding,) = check.findings
    assert (finding.rule, finding.grade) == ("CTX106", "certain")
    facts = check.facts()
    assert (facts.what, facts.how, facts.because.name, facts.why) == (
        "mail",
        "marked",
        "txn",
        "mail can't be rolled back",
    )
    save()
    assert [opening.name for opening in check.facts().earlier] == ["txn"]


def test_every_way_in(check: Check) -> None:
    @txn
    def function() -> str:
        return save()

    @txn
    def generator() -> Iterator[str]:
        yield save()
        save()

    @txn
    async def coroutine() -> str:
        return save()

    @txn
    async def async_generator() -> AsyncIterator[str]:
        yield save()

    class Service:
        @context("txn")
        def method(self) -> str:
            return save()

        @classmethod
        @txn
        def of_class(cls) -> str:
            return save()

        @staticmethod
        @txn
        def static() -> str:
            return save()

    async def main() -> None:
        assert await coroutine() == "saved"
        assert [each async for each in async_generator()] == ["saved"]
        async with txn:
            save()

    assert function() == Service().method() == Service.of_class() == Service.static() == "saved"
    assert list(generator()) == ["saved"]
    asyncio.run(main())
    assert check.rules == []
    assert fastpath.current().cur is fastpath.current().root


def test_reentry(check: Check) -> None:
    with txn, txn:
        with txn:
            save()
        save()
    assert check.rules == []
    save()
    assert check.rules == ["CTX107"]


def test_left_by_an_exception(check: Check) -> None:
    with contextlib.suppress(KeyError), txn:
        raise KeyError
    save()
    assert check.rules == ["CTX107"]


def test_all_or_any(check: Check) -> None:
    both = requires("one", "two")
    either = requires("one", "two", any=True)
    with context("one"):
        assert_context("one")
        both(lambda: None)()
        assert check.facts().names == ("two",)
        either(lambda: None)()
        assert check.rules == []
        with context("two"):
            both(lambda: None)()
    assert check.rules == []
    either(lambda: None)()
    facts = check.facts()
    assert (facts.names, facts.anyone) == (("one", "two"), True)


def test_a_context_is_as_good_as_its_name(check: Check) -> None:
    needs = requires(txn)(lambda: None)
    with context("txn"):
        needs()
        assert check.rules == []
        forbids(txn)(lambda: None)()
    assert check.rules == ["CTX106"]


# --- statements ------------------------------------------------------------------------------------


def test_statements(check: Check) -> None:
    def body() -> None:
        requires("txn")
        forbids("txn")

    body()
    assert check.rules == ["CTX107"]
    with txn:
        body()
    (finding,) = check.findings
    assert (finding.rule, finding.facts.how) == ("CTX106", "here")  # type: ignore[union-attr]
    check.findings.clear()


def test_decorating_is_no_statement(check: Check) -> None:
    @requires("nowhere")
    def one() -> None: ...

    with txn:

        @forbids("txn")
        def two() -> None: ...

    assert check.rules == []
    one()
    assert check.rules == ["CTX107"]
    two()
    assert check.rules == []


def test_assertions(check: Check) -> None:
    checks: list[Any] = []
    checks.append(assert_context("txn"))  # in whatever place
    assert check.rules == ["CTX107"]
    with txn:
        assert_context(txn)
        assert_context("txn", "other", any=True)
        assert check.rules == []
        assert_no_context("other", "txn")
    assert check.rules == ["CTX106"]
    assert_no_context("txn")
    assert check.rules == []


def test_a_body_that_starts_later_is_checked_then(check: Check) -> None:
    @requires("txn")
    def generator() -> Iterator[int]:
        yield 1

    @requires("txn")
    async def coroutine() -> None: ...

    made, later = generator(), coroutine()
    assert check.rules == []
    with txn:
        assert next(made) == 1
        with pytest.raises(StopIteration):
            later.send(None)
    assert check.rules == []
    next(generator())
    assert check.rules == ["CTX107"]


# --- a name is a name --------------------------------------------------------------------------------


def test_other_things_that_have_a_name(check: Check) -> None:
    inside = [range_("thing"), atomic("thing"), region("thing"), interrupt("thing"), thread_role("thing")]
    for block in inside:
        with block:  # type: ignore[attr-defined]
            assert_context("thing")
            assert check.rules == [], block
            assert_no_context("thing")
            assert check.rules == ["CTX106"], block
        assert_context("thing")
        assert check.rules == ["CTX107"], block


def test_ranges_that_functions_open(check: Check) -> None:
    class Table:
        @range_start("scan")
        def begin(self) -> None: ...

        @range_end("scan")
        def end(self) -> None: ...

    table = Table()
    table.begin()
    assert_context("scan")
    table.end()
    assert check.rules == []
    assert_context("scan")
    assert check.rules == ["CTX107"]


def test_a_range_of_everybody(check: Check) -> None:
    block = range_("free", owner="any")
    block.start()
    in_thread(lambda: assert_context("free"))
    block.end()
    assert check.rules == []
    in_thread(lambda: assert_context("free"))
    assert check.rules == ["CTX107"]


def test_the_event_loop(watched: Check) -> None:
    async def main() -> None:
        assert_context("event loop")
        assert watched.rules == []
        assert_no_context("event loop")

    asyncio.run(main())
    assert watched.rules == ["CTX106"]


# --- what is forbidden inside ------------------------------------------------------------------------


def test_categories_of_calls(check: Check) -> None:
    quiet = context("quiet", forbids=("network", "sleep"))
    with quiet:
        before(NETWORK)
        facts = check.facts()
        assert (facts.what, facts.category, facts.how, facts.because.name) == (
            "socket.recv",
            "network",
            "calls",
            "quiet",
        )
        before(Blocking("open", "file"))
        assert check.rules == []
        slow()
        facts = check.facts()
        assert (facts.what, facts.category) == ("slow", "sleep")
        might_sleep()
        assert check.rules == ["CTX106"]
    before(NETWORK)
    slow()
    assert check.rules == []
    with txn:  # forbids nothing
        before(NETWORK)
        slow()
    assert check.rules == []


def test_what_a_coroutine_is_marked_with(watched: Check) -> None:
    async def main() -> None:
        async with context("quiet", forbids=("sleep",)):
            await wait()
        await wait()

    asyncio.run(main())
    assert watched.rules == ["CTX106"]


def test_nested_in_itself_is_told_once(check: Check) -> None:
    quiet = context("quiet", forbids=("sleep",))
    with quiet:
        first = fastpath.current().cur
        with quiet, context("loud", forbids=("sleep",)):
            slow()
    assert sorted(f.facts.because.name for f in check.findings) == ["loud", "quiet"]  # type: ignore[union-attr]
    (of_quiet,) = [f.facts for f in check.findings if f.facts.because.name == "quiet"]  # type: ignore[union-attr]
    assert of_quiet.because.trace is first.trace  # type: ignore[union-attr]


def test_contexts_that_dont_go_together(check: Check) -> None:
    reading = context("reading", forbids=("writing",))
    writing = context("writing", forbids=(reading,))
    for _ in range(2):  # what was wrong isn't remembered as fine
        with reading, writing:
            pass
        facts = check.facts()
        assert (facts.how, facts.what, facts.because.name) == ("enters", "writing", "reading")
    with writing:
        pass
    with reading:
        pass
    assert check.rules == []


def test_no_second_one(check: Check) -> None:
    once = context("once", forbids=("once",))
    with once:
        assert check.rules == []
        with once:
            assert check.rules == ["CTX106"]


def test_locks_are_taken_as_ever(check: Check) -> None:
    lock = make_lock()
    with context("quiet", forbids=("sleep", "wait", "network")), lock:
        pass
    assert check.rules == []


# --- whose it is ---------------------------------------------------------------------------------------


def test_another_thread_isnt_inside(check: Check) -> None:
    with txn:
        in_thread(save)
    facts = check.facts()
    (other,) = facts.elsewhere
    assert (other.name, other.owner.name) == ("txn", threading.current_thread().name)
    in_thread(txn(save))
    assert check.rules == []


def test_tasks(watched: Check) -> None:
    async def inside() -> None:
        save()

    async def main() -> None:
        async with txn:
            save()
            await asyncio.sleep(0)
            save()
            task = asyncio.create_task(inside())
            await asyncio.sleep(0)
            assert watched.rules == ["CTX107"]
            await task
            await asyncio.to_thread(save)
            assert watched.rules == ["CTX107"]
            save()
            await inside()
        save()

    asyncio.run(main())
    assert watched.rules == ["CTX107"]


def test_tasks_that_take_turns(watched: Check) -> None:
    async def one() -> None:
        async with txn:
            for _ in range(3):
                save()
                await asyncio.sleep(0)

    async def other() -> None:
        for _ in range(3):
            mail()
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(one(), other(), one(), other())

    asyncio.run(main())
    assert watched.rules == []


def test_a_suspended_generator_takes_its_context_with_it(check: Check) -> None:
    @txn
    def generator() -> Iterator[None]:
        while True:
            save()
            yield

    made = generator()
    for _ in range(3):
        next(made)
        mail()
    with txn:
        next(made)
        save()
    assert check.rules == []
    in_thread(lambda: next(made))
    assert check.rules == []
    made.close()


def test_a_context_manager_of_the_programs_own(check: Check) -> None:
    @contextlib.contextmanager
    def transaction() -> Iterator[None]:
        with txn:
            yield

    with transaction():
        save()
    mail()
    assert check.rules == []


def test_left_by_another_thread(check: Check) -> None:
    block = context("txn")
    in_thread(block.__enter__)
    block.__exit__()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(block.__enter__).result()
        block.__exit__()
        pool.submit(mail).result()
    assert check.rules == []


# --- opened by one call, closed by another ---------------------------------------------------------------


class Connection:
    @context_start("connection", forbids=("sleep",))
    def begin(self) -> None: ...

    @context_end("connection")
    def commit(self) -> None: ...

    @requires("connection")
    def query(self) -> None: ...


def test_a_pair_of_functions(check: Check) -> None:
    one, two = Connection(), Connection()

    def start() -> None:
        one.begin()

    start()
    one.query()
    two.begin()
    one.commit()
    two.query()
    assert check.rules == []
    slow()
    facts = check.facts()
    assert (facts.because.name, facts.because.step.kind) == ("connection", "bracket")
    two.commit()
    two.query()
    assert check.rules == ["CTX107"]
    two.commit()
    facts = check.facts()
    assert facts.of_context
    assert facts.function == "Connection.commit"


def test_a_start_is_no_sleep_point(check: Check) -> None:
    with atomic("quick"):
        Connection().begin()
    assert check.rules == []


def test_left_open(check: Check) -> None:
    in_thread(Connection().begin)
    (finding,) = check.findings
    assert (finding.rule, finding.facts.of_context) == ("CTX203", True)  # type: ignore[union-attr]
    check.findings.clear()


def test_enter_and_exit(check: Check) -> None:
    txn.enter()
    txn.enter()
    save()
    txn.exit()
    save()
    assert check.rules == []
    txn.exit()
    txn.exit()
    assert check.rules == ["CTX202"]
    in_thread(txn.enter)
    assert check.rules == ["CTX203"]
    txn.enter()
    in_thread(txn.exit)
    assert check.rules == ["CTX202"]
    txn.exit()


def test_a_start_inside_of_what_forbids_it(check: Check) -> None:
    only = context("only", forbids=("only",))
    only.enter()
    only.enter()
    assert check.facts().how == "enters"
    only.exit()
    only.exit()
    check.raises = True
    with only, pytest.raises(ViolationError):
        only.enter()
    assert check.inside == []
    check.findings.clear()


def test_an_open_handle(check: Check) -> None:
    one, two = txn.open(), txn.open()
    save()
    one.close()
    one.close()
    save()
    assert two.mine
    two.close()
    assert not two.mine
    mail()
    handles = []
    in_thread(lambda: handles.append(txn.open()))
    assert not handles[0].mine
    handles[0].close()
    assert check.rules == []


def test_a_handle_that_another_thread_closes(check: Check) -> None:
    handle = txn.open()
    in_thread(handle.close)
    mail()
    slow()
    with make_lock():
        save()
    assert check.rules == ["CTX107"]


# --- the surroundings --------------------------------------------------------------------------------------


def test_ambient(check: Check) -> None:
    quiet = context("quiet", forbids=("sleep",))
    with quiet, txn:
        with ambient("quiet"):
            slow()
            save()
            assert_no_context("quiet")
            assert check.rules == []
            with quiet:
                slow()
                assert check.rules == ["CTX106"]
            assert_context("quiet")
            assert check.rules == ["CTX107"]
        slow()
        assert check.rules == ["CTX106"]
        with ambient():
            mail()
            slow()
    assert check.rules == []


def test_entered_before_anything_was_checked(idle: Check) -> None:
    @context("outer")
    def run() -> None:
        idle.start()
        assert_context("outer")
        assert idle.rules == []
        assert_context("inner")
        assert idle.rules == ["CTX107"]
        idle.stop()

    with txn:
        idle.start()
        save()
        assert idle.rules == []
        in_thread(save)
        assert idle.rules == ["CTX107"]
        idle.stop()
        with ambient("other"), txn, ambient("txn"), ambient("other"):
            idle.start()
            save()
            assert idle.rules == ["CTX107"]
            idle.stop()
    run()
    idle.start()
    save()
    assert_context("outer")
    assert idle.rules == ["CTX107", "CTX107"]


def test_a_session_inside_of_another_one() -> None:
    with session.checking() as outer, txn:
        with session.checking() as inner:
            save()
        assert inner.violations == []
        assert inner.counts().marked_calls == 1
        save()
    assert outer.violations == []
    assert outer.counts().marked_calls == 2


# --- interrupting contexts -----------------------------------------------------------------------------------


def test_what_is_interrupted_isnt_around(check: Check) -> None:
    finalizer = interrupt("gc")
    with context("quiet", forbids=("sleep",)), txn:
        for _ in range(2):
            with finalizer:
                slow()
                mail()
                assert check.rules == []
                save()
                assert check.rules == ["CTX107"]
    with finalizer:
        save()
    assert check.rules == ["CTX107"]


def test_a_role_is_around_whatever_runs_on_the_thread(check: Check) -> None:
    role = thread_role("ui", forbids=("network",))
    finalizer = interrupt("gc")
    for _ in range(2):
        with role, finalizer:
            assert_context("ui")
            assert check.rules == []
            before(NETWORK)  # by chance on this thread
            assert check.rules == []
            assert_no_context("ui")
            assert check.rules == ["CTX106"]
        with role:
            before(NETWORK)
            assert check.rules == ["CTX106"]
        with finalizer:  # the same place in the trie
            assert_context("ui")
            assert check.rules == ["CTX107"]
            assert_no_context("ui")
            assert check.rules == []


# --- roles -------------------------------------------------------------------------------------------------------


@requires("ui")
def draw() -> None: ...


@forbids("ui")
def download() -> None: ...


def test_a_role_as_a_statement(check: Check) -> None:
    def work() -> None:
        with txn:
            with make_lock():
                thread_role("ui")
                draw()
            save()
            draw()
        draw()
        assert check.rules == []
        download()
        assert check.rules == ["CTX106"]

    in_thread(work)
    draw()
    assert check.rules == ["CTX107"]


def test_a_role_that_is_only_named(check: Check) -> None:
    ui = thread_role("ui")
    draw()
    assert check.rules == ["CTX107"]

    @ui
    def loop() -> None:
        draw()

    in_thread(loop)
    with ui:
        draw()
    assert check.rules == []
    draw()
    assert check.rules == ["CTX107"]


def test_a_role_ends(check: Check) -> None:
    ui = thread_role("ui").enter()
    with make_lock():
        draw()
        ui.exit()
        assert check.rules == []
        draw()
        assert check.rules == ["CTX107"]
    ui.exit()


def test_who_has_the_role(check: Check) -> None:
    thread_role("ui")
    in_thread(draw)
    (other,) = check.facts().elsewhere
    assert (other.name, other.role, other.owner.name) == ("ui", True, threading.current_thread().name)


def test_roles_of_pool_threads(check: Check) -> None:
    with ThreadPoolExecutor(2, initializer=thread_role, initargs=("ui",)) as pool:
        for _ in range(4):
            pool.submit(draw).result()
    assert check.rules == []


def test_tasks_have_the_role_of_their_thread(watched: Check) -> None:
    async def work() -> None:
        draw()
        async with txn:
            await asyncio.sleep(0)
            draw()
            save()

    async def main() -> None:
        await asyncio.gather(work(), work())
        await asyncio.to_thread(draw)

    thread_role("ui")
    asyncio.run(main())
    assert watched.rules == ["CTX107"]


def test_a_role_that_a_task_takes(watched: Check) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        draw()

    async def main() -> None:
        async with txn:
            other = asyncio.create_task(work())
            thread_role("ui")
            draw()
            await asyncio.sleep(0)
            draw()
            save()
            await other

    asyncio.run(main())
    draw()
    assert watched.rules == []


def test_a_role_from_before(idle: Check) -> None:
    async def main() -> None:
        draw()
        await asyncio.sleep(0)
        draw()

    thread_role("ui")
    idle.start()
    draw()
    idle.stop()
    tasks.watch()
    idle.start()
    asyncio.run(main())
    tasks.unwatch()
    assert idle.rules == []


# --- accepted, raised ------------------------------------------------------------------------------------------------


def test_raised_before_the_body(check: Check) -> None:
    ran = []

    @requires("txn")
    def body() -> None:
        ran.append(1)

    check.raises = True
    with pytest.raises(ViolationError):
        body()
    assert ran == []
    with txn:
        body()
    assert ran == [1]
    check.findings.clear()


def test_allowed() -> None:
    from ctxcheck.markers import allow

    with session.checking() as run:
        with allow("CTX107", reason="a script"):
            save()
        with allow("forbidden-context", reason="the outbox"), txn:
            mail()
    assert [v.allowed_by for v in run.violations] == ["a script", "the outbox"]
    assert run.failures == []


def test_what_was_fine_isnt_asked_again(check: Check) -> None:
    with txn:
        save()
        asked = check.engine.contexts
        for _ in range(100):
            save()
        assert check.engine.contexts == asked
    assert asked


# --- wrong use -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: context(""), ValueError, "context: the context's name is empty"),
        (lambda: context(3), TypeError, "context: the context's name must be a string, not 3"),  # type: ignore[arg-type]
        (lambda: context(save), TypeError, 'context needs the name of a context: context("transaction")'),  # type: ignore[arg-type]
        (lambda: context("network"), ValueError, "context: 'network' is a category of blocking calls; give the context"
         " another name"),
        (lambda: context("a", forbids="sleep"), TypeError, "context('a'): forbids='sleep' is a string; write"
         " forbids=('sleep',)"),
        (lambda: context("a", forbids=3), TypeError, "context('a'): forbids=3 is no tuple of categories and contexts"),  # type: ignore[arg-type]
        (lambda: context("a", forbids=("netwrok",)), ValueError, "context('a'): forbids='netwrok' is no category of"
         " calls (sleep, wait, network, process, file, metadata, database); did you mean 'network'? If it is a context,"
         " name that first: context('netwrok')"),
        (lambda: thread_role(None), TypeError, "thread_role: the context's name must be a string, not None"),  # type: ignore[arg-type]
        (lambda: requires(), TypeError, 'requires: it names no context; say which: requires("transaction")'),
        (lambda: requires(save), TypeError, 'requires needs the name of a context: requires("transaction")'),  # type: ignore[arg-type]
        (lambda: requires(["a"]), TypeError, "requires: the context's name must be a string, not a value of type list"),  # type: ignore[arg-type]
        (lambda: requires("a", any=1), TypeError, "requires: any must be True or False, not 1"),  # type: ignore[arg-type]
        (lambda: forbids("a", why=1), TypeError, "forbids: why must be a string, not 1"),  # type: ignore[arg-type]
        (lambda: ambient(2), TypeError, "ambient: the context's name must be a string, not 2"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_wrong_use(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_a_context_may_be_called_nearly_as_a_category() -> None:
    context("files")
    assert context("a", forbids=("files",)).forbids == {"files"}
    assert isinstance(context("a"), Context)


def test_reprs() -> None:
    handle = txn.open()
    assert [repr(each) for each in (txn, thread_role("ui"), requires("txn"), ambient("txn"), handle)] == [
        "<context 'txn'>", "<thread_role 'ui'>", "<requires 'txn'>", "<ambient 'txn'>", "<closed ''>",
    ]  # fmt: skip


def test_a_generators_context_manager_that_two_threads_drive(check: Check) -> None:
    # as a web framework runs the two halves of a dependency in a thread pool
    @contextlib.contextmanager
    def dependency() -> Iterator[None]:
        with context("request"):
            yield

    first, second = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    needs = requires("request")(lambda: None)
    with first, second:
        manager = dependency()
        first.submit(manager.__enter__).result()
        first.submit(needs).result()
        assert check.rules == []
        second.submit(manager.__exit__, None, None, None).result()
        first.submit(forbids("request")(lambda: None)).result()
        assert check.rules == []
        first.submit(needs).result()
    assert check.rules == ["CTX107"]


def test_eager_tasks_run_inside_of_their_creator(watched: Check) -> None:
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("has no eager tasks")

    async def child() -> None:
        save()  # before the creator goes on
        await asyncio.sleep(0)
        save()

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with txn:
            task = asyncio.create_task(child())
        await task

    asyncio.run(main())
    assert watched.rules == ["CTX107"]


def test_a_lock_that_outlives_the_context(check: Check) -> None:
    lock = make_lock()
    with txn:
        lock.acquire()
        save()
    mail()
    lock.release()
    assert check.rules == []
    save()
    assert check.rules == ["CTX107"]


def test_the_answer_is_kept_per_place_and_not_for_ever(check: Check) -> None:
    lock = make_lock()
    for _ in range(3):
        with txn, lock:
            save()
        with lock:
            mail()
            save()
        assert check.rules == ["CTX107"]


def test_roles_and_their_threads_answers(check: Check) -> None:
    ui = thread_role("ui")
    for _ in range(2):
        download()
        ui.enter()
        draw()
        assert check.rules == []
        download()
        assert check.rules == ["CTX106"]
        ui.exit()


def test_a_role_for_a_thread_in_an_interrupting_context(check: Check) -> None:
    with interrupt("signal"):
        thread_role("ui")
        draw()
    draw()
    assert check.rules == []


def test_forbidden_in_a_role(check: Check) -> None:
    calm = thread_role("calm", forbids=("sleep", "panic"))
    with calm:
        slow()
        facts = check.facts()
        assert (facts.because.name, facts.because.step.kind) == ("calm", "role")
        with context("panic"):
            assert check.rules == ["CTX106"]
        with interrupt("gc"), context("panic"):
            assert check.rules == []


def test_what_a_generator_opens_stays_open(check: Check) -> None:
    connection = Connection()

    @txn
    def generator() -> Iterator[None]:
        connection.begin()
        with thread_role("ui"), context("inner"):
            yield
            save()
            yield

    made = generator()
    next(made)
    connection.query()
    draw()
    assert check.rules == []
    assert_no_context("txn", "inner")
    assert check.rules == []
    next(made)
    made.close()
    connection.commit()
    assert check.rules == []
    assert check.inside == []


def test_names_beyond_those_that_are_remembered(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    from ctxcheck.markers import contexts as blocks

    monkeypatch.setattr(blocks, "MAX_LABELS", 0)
    once = context("made up", forbids=("made up", "sleep"))
    for _ in range(2):
        with once:
            assert_context("made up")
            assert check.rules == []
            slow()
            assert check.rules == ["CTX106"]
            with once:
                assert check.rules == ["CTX106"]
