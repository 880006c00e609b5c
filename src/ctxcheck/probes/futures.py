"""``concurrent.futures``: a job runs inside of its pool and of its function's class; to ask for its result is a wait.

A future that is known to be done (its owner was told so) is waited for no more, so that to collect results after
``wait``, ``as_completed``, a ``with`` block or a ``done()`` is fine under any lock.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

from ctxcheck import fastpath
from ctxcheck.engine import behalf, slowpath
from ctxcheck.engine.classes import JOB, POOL, LockClass
from ctxcheck.engine.owner import VOID
from ctxcheck.engine.raw import get_ident
from ctxcheck.locks.waits import awaited_class, before_wait, is_wait
from ctxcheck.probes.parties import KEY, fields, party_of
from ctxcheck.probes.patches import Patches
from ctxcheck.probes.threads import enter, leave, origin_here

_serials: Final = itertools.count(1).__next__
#: Jobs of one pool that nobody has seen the end of; with more than that, nobody is going to.
MAX_LEFT: Final = 1_000


class _Pool:
    """What is known of one executor: its class, its number of workers, whether it was shut down and waited for, which
    of its jobs have waited for later ones of its own, and which aren't known to be done (None: too many)."""

    __slots__ = ("joined", "left", "lock_class", "nested", "workers")

    def __init__(self, lock_class: LockClass, workers: int) -> None:
        self.lock_class: LockClass = lock_class
        self.workers: int = workers
        self.joined: bool = False
        self.nested: set[int] = set()
        self.left: set[int] | None = set()

    def takes(self, job: _Job) -> None:
        """A job is submitted."""
        job.pool = self
        if self.left is not None:
            self.left.add(job.serial)
            if job.done:  # by now
                self.left.discard(job.serial)
            elif len(self.left) > MAX_LEFT:
                self.left = None


class _Job:
    """What is known of one job: its class, what it counts for, the test that it works for, its place in the order of
    submission, its pool, and whether somebody has seen that it is done."""

    __slots__ = ("done", "lock_class", "origin", "pool", "serial", "test")

    def __init__(self, lock_class: LockClass) -> None:
        self.lock_class: LockClass = lock_class
        self.serial: int = _serials()
        self.origin: str = origin_here()
        self.test: str = behalf.now()
        self.pool: _Pool | None = None
        self.done: bool = False

    def seen(self) -> None:
        """Somebody has seen that it is done."""
        self.done = True
        left = None if self.pool is None else self.pool.left
        if left is not None:
            left.discard(self.serial)

    def known_done(self) -> bool:
        return self.done or (self.pool is not None and self.pool.joined)


#: The job that each thread runs now.
_running: Final[dict[int, _Job]] = {}


def _job(future: Any) -> _Job | None:
    job = getattr(future, "__dict__", {}).get(KEY)
    return job if type(job) is _Job else None


def _await(future: Any, what: str, timeout: Any, *, raises: bool) -> None:
    """The caller is about to wait for a future; ``raises``: when the time is over, a ``TimeoutError`` comes out."""
    if not is_wait(timeout):
        return
    job = _job(future)
    timed = timeout is not None
    engine = fastpath.engine()
    fails = raises and timed and engine is not None and timeout >= engine.deadlock_after
    if job is None:
        if not future.done():
            before_wait(None, what, timed=timed)
        return
    if job.known_done():
        return
    before_wait(job.lock_class, what, timed=timed, fails=fails)
    pool = job.pool
    if pool is None:
        return
    mine = _running.get(get_ident())
    if mine is not None and mine.pool is pool:
        if mine.serial < job.serial:
            _nested(pool, mine, job, timed and not fails)
    elif pool.workers == 1:
        # its turn comes when the jobs before it are done; what those may be isn't known before the end
        before_wait(pool.lock_class, what, timed=timed, fails=fails)


def _nested(pool: _Pool, mine: _Job, job: _Job, timed: bool) -> None:
    # an earlier job has a worker by the time that a later one runs, so only a later one can be kept from its own
    st = fastpath.current()
    if st.engine is None or st.cur is VOID:
        return
    pool.nested.add(mine.serial)
    waits, inside = st.engine.of(st).waits, len(pool.nested)
    slowpath.consult(lambda: waits.slot(st, pool.lock_class, job.lock_class, pool.workers, inside, timed=timed))


def _is_finished(future: Any) -> bool:
    """Whether a job's result is there: read, not asked for, which would take a lock."""
    return getattr(future, "_state", "") == "FINISHED"


def _seen(future: Any) -> None:
    job = _job(future)
    if job is not None and not job.done:
        job.seen()


def watch_base(patches: Patches, module: Any) -> None:
    """Put the probes for futures in place; ``module`` is ``concurrent.futures._base``."""
    future = module.Future
    is_done = future.done

    def waits(what: str) -> Any:
        def make(original: Any, live: Any) -> Any:
            def wait(self: Any, timeout: Any = None) -> Any:
                if live():
                    _await(self, what, timeout, raises=True)
                return original(self, timeout)

            return wait

        return make

    def done(original: Any, live: Any) -> Any:
        def done(self: Any) -> bool:
            answer: bool = original(self)
            if answer and live():
                _seen(self)
            return answer

        return done

    def callbacks(original: Any, live: Any) -> Any:
        def _invoke_callbacks(self: Any) -> None:
            if live() and self._done_callbacks:
                _seen(self)
            original(self)

        return _invoke_callbacks

    def adds(original: Any, live: Any) -> Any:
        def add_done_callback(self: Any, fn: Any) -> None:
            # it runs here and now, where its future is done already
            if live() and is_done(self):
                _seen(self)
            original(self, fn)

        return add_done_callback

    def wait(original: Any, live: Any) -> Any:
        def wait(fs: Iterable[Any], timeout: Any = None, return_when: str = module.ALL_COMPLETED) -> Any:
            if not live():
                return original(fs, timeout, return_when)
            fs = set(fs)
            for each in fs:
                _await(each, "concurrent.futures.wait", timeout, raises=False)
            answer = original(fs, timeout, return_when)
            for each in answer.done:
                _seen(each)
            return answer

        return wait

    def as_completed(original: Any, live: Any) -> Any:
        def as_completed(fs: Iterable[Any], timeout: Any = None) -> Iterator[Any]:
            if not live():
                yield from original(fs, timeout)
                return
            fs = set(fs)
            for each in fs:
                _await(each, "concurrent.futures.as_completed", timeout, raises=True)
                del each
            rest = original(fs, timeout)
            del fs  # a future that was handed out may go, result and all
            try:
                for each in rest:
                    _seen(each)
                    box = [each]
                    del each
                    yield box.pop()
            finally:
                rest.close()

        return as_completed

    patches.wrap(future, "result", waits("Future.result"), covers=True)
    patches.wrap(future, "exception", waits("Future.exception"), covers=True)
    patches.wrap(future, "done", done)
    patches.wrap(future, "_invoke_callbacks", callbacks)
    patches.wrap(future, "add_done_callback", adds)
    for name, make in (("wait", wait), ("as_completed", as_completed)):
        patches.wrap(module, name, make, covers=True)


def watch_package(patches: Patches, module: Any) -> None:
    """The package has names of its own for two of them; ``module`` is ``concurrent.futures``."""
    base = module._base
    for name in ("wait", "as_completed"):
        ours = getattr(base, name)
        if getattr(module, name, None) is getattr(ours, "__wrapped__", None):
            patches.replace(module, name, ours)


def watch_pools(patches: Patches, module: Any) -> None:
    """Put the probes for thread pools in place; ``module`` is ``concurrent.futures.thread``."""
    executor, item = module.ThreadPoolExecutor, module._WorkItem

    def init(original: Any, live: Any) -> Any:
        def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            lock_class = awaited_class(POOL, None) if live() else None
            if lock_class is not None:
                fields(self)[KEY] = _Pool(lock_class, self._max_workers)

        return initialise

    def item_init(original: Any, live: Any) -> Any:
        def initialise(self: Any, future: Any, fn: Any, args: Any, kwargs: Any) -> None:
            original(self, future, fn, args, kwargs)
            if live():
                lock_class = slowpath.consult(party_of, JOB, fn, args)
                if lock_class is not None:
                    fields(future)[KEY] = _Job(lock_class)

        return initialise

    def run(original: Any, live: Any) -> Any:
        def run(self: Any) -> Any:
            job = _job(self.future)
            if job is None or not live():
                return original(self)
            me = get_ident()
            before, inside, outer = _running.get(me), None, None
            test = behalf.begin(job.test)
            try:
                _running[me] = job
                inside = enter(job.lock_class, job.origin, lent=True)
                if inside is not None:
                    outer, inside.state.finished = inside.state.finished, partial(_is_finished, self.future)
                return original(self)
            finally:
                behalf.begin(test)
                if inside is not None:
                    leave(inside)
                    inside.state.finished = outer
                if before is None:
                    _running.pop(me, None)
                else:
                    _running[me] = before

        return run

    def submit(original: Any, live: Any) -> Any:
        def submit(self: Any, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            future = original(self, fn, *args, **kwargs)
            job = _job(future)
            if job is not None and live():
                pool = fields(self).get(KEY)
                if pool is not None:
                    pool.takes(job)
            return future

        return submit

    def shutdown(original: Any, live: Any) -> Any:
        def shutdown(self: Any, wait: Any = True, **kwargs: Any) -> Any:
            known = fields(self).get(KEY)
            if not wait or known is None or not live():
                return original(self, wait, **kwargs)
            if not known.joined and self._threads:
                before_wait(known.lock_class, "Executor.shutdown", timed=False, over=known.left == set())
            answer = original(self, wait, **kwargs)
            known.joined = True
            return answer

        return shutdown

    patches.wrap(executor, "__init__", init)
    patches.wrap(executor, "submit", submit)
    patches.wrap(executor, "shutdown", shutdown, covers=True)
    patches.wrap(item, "__init__", item_init)
    patches.wrap(item, "run", run)
