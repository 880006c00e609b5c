"""The hot path: everything that runs on each acquire and release, and nothing else.

A checked ``with lock:`` that its owner has done before costs two reads of
thread-local state, one lookup and a few stores; no allocation, no call but the raw lock's.
What the code relies on:

* ``_local.st`` is the calling owner's state.  Starting and stopping a session replaces ``_local``
  itself, so "off" is no test here: it is a state whose chain leads everywhere back to itself.
* ``st.cur[step]`` is ``None`` for a chain that this owner hasn't taken yet; the slow path validates it.
* ``lock.node`` is written only while the raw lock is held by the writer, and set back to
  ``None`` *before* the raw release.
* A signal handler may raise.  It runs at calls, at the entry of functions and at backward jumps (3.11-3.13), so the
  raw lock is taken by a step of a ``for`` loop over an iterator that acquires, where there is none of these between the
  acquire and the stores that record it; and the releases are entered without one.

Without the GIL each of these is still one atomic operation on an object that only its own thread
writes, but for ``lock.node``, which the raw lock orders.  The acquisition count may then lose some.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import starmap
from types import FunctionType, TracebackType
from typing import Any, Final, TypeVar

from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import WITH, LockClass, Step, Token
from ctxcheck.engine.instances import credit, crediting
from ctxcheck.engine.owner import OFF, OwnerState
from ctxcheck.engine.postponed import postpones
from ctxcheck.engine.raw import RLockType, allocate_lock, get_ident, local, uninterrupted
from ctxcheck.engine.slowpath import turnstile
from ctxcheck.engine.validator import Validator

_L = TypeVar("_L")


class _OffLocal:
    """Stands in for the thread-local state while nothing is checked."""

    __slots__ = ("st",)

    def __init__(self) -> None:
        self.st = OFF


class _End:
    """Lives in a thread's local state, and dies with the thread."""

    __slots__ = ("state",)

    def __init__(self, state: OwnerState) -> None:
        self.state: OwnerState = state

    @postpones
    @uninterrupted
    def __del__(self) -> None:
        try:
            state = self.state
        except AttributeError:
            return  # a signal handler raised before it was made
        engine = state.engine
        if engine.closed or engine.broken or state.ended:
            return
        # in a forked child the other threads' states die too, in the one thread that is left
        if state.owner.ident == get_ident():
            slowpath.consult(engine.roster.end, state)


_OFF_LOCAL: Final[Any] = _OffLocal()
_local: Any = _OFF_LOCAL
_engine: Validator | None = None
#: Whether a session is active; read by the markers.
active: bool = False


#: Finds the state of the task whose step the calling thread is in; set as long as steps are followed.
task_state: Callable[[Any, Validator], OwnerState | None] | None = None


def begin() -> OwnerState:
    """Make the calling owner's state, at its first step in this session."""
    where, engine = _local, _engine
    if engine is None:
        return OFF
    state = None if task_state is None else task_state(where, engine)
    if state is None:
        state = thread_state(where, engine)
    where.st = state
    return state


def thread_state(where: Any, engine: Validator) -> OwnerState:
    """The calling thread's own state, whatever task it runs; made, if need be."""
    try:
        state: OwnerState = where.end.state
        if engine.roster.unseen:
            engine.roster.seen(state)
    except AttributeError:
        state = engine.roster.new_state()
        where.end = _End(state)
    return state


def current() -> OwnerState:
    """The calling owner's state."""
    try:
        state: OwnerState = _local.st
    except AttributeError:
        state = begin()
    return state


def known() -> OwnerState | None:
    """The calling owner's state, if it has taken a step in this session; to ask is none."""
    state: OwnerState | None = getattr(_local, "st", None)
    return state


def engine() -> Validator | None:
    """The validator that events go to."""
    return _engine


def activate(engine: Validator | None, where: Any = None) -> Any:
    """Make ``engine`` the one that events go to (``None``: nobody), and return its thread-local state.

    ``where`` is the thread-local state to go on with, as returned before.
    """
    global _local, _engine, active
    _engine = engine
    _local = _OFF_LOCAL if engine is None else (where if where is not None else local())
    active = engine is not None
    return _local


_slow_acquire: Final = slowpath.acquire
_slow_release: Final = slowpath.release


class BaseLock:
    """A checked lock that isn't re-entrant: the record, and the hot methods."""

    __slots__ = ("__weakref__", "_raw", "_taking", "node", "order_key", "step", "token")

    node: Any
    step: Step

    def _setup(self, lock_class: LockClass, order_key: Any = None) -> None:
        self._raw = raw = allocate_lock()
        # each step of this iterator counts an acquisition (it takes its arguments, which are none, from the
        # turnstile), and acquires the raw lock
        self._taking = starmap(raw.acquire, turnstile)
        self._join(lock_class, order_key)

    def _join(self, lock_class: LockClass, order_key: Any = None) -> None:
        self.node = None
        self.step = lock_class.step(WITH)
        self.token: Token = lock_class.token
        self.order_key: Any = order_key
        lock_class.created += 1
        if crediting:
            credit(lock_class)

    @property
    @uninterrupted
    def _release(self) -> Callable[[], None]:
        return self._raw.release

    @property
    def _acquire(self) -> Callable[..., bool]:
        return self._raw.acquire

    @postpones
    @uninterrupted
    def __del__(self, forget: Callable[[Any], None] = slowpath.forget) -> None:
        # a lock that goes while it is held must not stay on its holder's chain; one that was never finished has none.
        # What a signal handler raises here is lost, and a real lock has no finalizer: so none may run, as at a call
        try:
            node = self.node
        except AttributeError:
            return
        if node is not None:
            forget(self)

    def __enter__(self) -> bool:
        try:
            st = _local.st
        except AttributeError:
            st = begin()
        if self.node is not None or (n := st.cur[self.step]) is None:
            return _slow_acquire(self, st, self.step)
        for taken in self._taking:
            st.cur = self.node = n
            return taken
        raise AssertionError  # an acquire without a timeout doesn't fail

    @uninterrupted
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            st = _local.st
        except AttributeError:
            st = begin()
        n = self.node
        if st.cur is not n:
            try:
                return _slow_release(self, st)
            except RecursionError:
                # there was stack left for the acquire, but not for this: calls of C code must do
                if self.node is n is not None:
                    self.node = None
                    n.state.drops.append(n)
                    self._raw.release()
                raise
        self.node = None
        st.cur = n.parent
        self._raw.release()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As :meth:`threading.Lock.acquire`; validated before it can block."""
        try:
            st = _local.st
        except AttributeError:
            st = begin()
        if (
            blocking is True
            and timeout == -1
            and self.node is None
            and (n := st.cur[self.step.by_call]) is not None
        ):
            for taken in self._taking:
                st.cur = self.node = n
                return taken
        return _slow_acquire(self, st, self.step.by_call, blocking, timeout)

    @uninterrupted
    def release(self) -> None:
        """As :meth:`threading.Lock.release`."""
        try:
            st = _local.st
        except AttributeError:
            st = begin()
        n = self.node
        if st.cur is not n:
            try:
                return _slow_release(self, st)
            except RecursionError:
                # there was stack left for the acquire, but not for this: calls of C code must do
                if self.node is n is not None:
                    self.node = None
                    n.state.drops.append(n)
                    self._raw.release()
                raise
        self.node = None
        st.cur = n.parent
        self._raw.release()


def own_code(cls: type[_L]) -> type[_L]:
    """Give a subclass its own copy of the hot methods' code: the interpreter specialises code, not methods, and for one
    type of ``self`` only; a program that mixes two would pay for both (measured: 0.5x)."""
    for name in ("__enter__", "__exit__", "acquire", "release"):
        method = getattr(cls, name)
        copy = FunctionType(method.__code__.replace(), method.__globals__, name, method.__defaults__)
        copy.__qualname__, copy.__doc__ = f"{cls.__qualname__}.{name}", method.__doc__
        setattr(cls, name, copy)
    return cls


_rlock_acquire: Final = RLockType.acquire
_rlock_release: Final = RLockType.release


class RLock(RLockType):  # type: ignore[misc, valid-type]  # pyright: ignore[reportGeneralTypeIssues, reportUntypedBaseClass]
    """A checked re-entrant lock: the interpreter's own, with the record beside it.

    A subclass, so that what tests for or derives from the type of ``threading.RLock()`` goes on
    working.  Re-entry puts a :class:`~ctxcheck.engine.slowpath.Reentry` in place of the node, so that the
    path without re-entry has no test for it.
    """

    __slots__ = ("node", "order_key", "step", "token")

    node: Any
    step: Step

    _acquire = _rlock_acquire
    _release = _rlock_release
    #: `~lock` acquires: an operator is the one way to call it after which no signal handler can run before the next
    #: store.  (An iterator, as plain locks have, would refer back to the lock and keep it alive.)
    __invert__ = _rlock_acquire

    def _join(self, lock_class: LockClass, order_key: Any = None) -> None:
        self.node = None
        self.step = lock_class.step(WITH)
        self.token: Token = lock_class.token
        self.order_key: Any = order_key
        lock_class.created += 1
        if crediting:
            credit(lock_class)

    @postpones
    @uninterrupted
    def __del__(self, forget: Callable[[Any], None] = slowpath.forget) -> None:
        try:
            node = self.node
        except AttributeError:
            return
        if node is not None:
            forget(self)

    def __enter__(self) -> bool:
        try:
            st = _local.st
        except AttributeError:
            st = begin()
        if self.node is not None or (n := st.cur[self.step]) is None:
            return _slow_reacquire(self, st, self.step)
        for _ in turnstile:
            break
        taken = ~self
        st.cur = self.node = n
        return taken

    @uninterrupted
    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            st = _local.st
        except AttributeError:
            st = begin()
        n = self.node
        if st.cur is not n:
            return _slow_rerelease(self, st)
        self.node = None
        st.cur = n.parent
        _rlock_release(self)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As :meth:`threading.RLock.acquire`; validated before it can block."""
        try:
            st = _local.st
        except AttributeError:
            st = begin()
        if (
            blocking is True
            and timeout == -1
            and self.node is None
            and (n := st.cur[self.step.by_call]) is not None
        ):
            for _ in turnstile:
                break
            taken = ~self
            st.cur = self.node = n
            return taken
        return _slow_reacquire(self, st, self.step.by_call, blocking, timeout)

    @uninterrupted
    def release(self) -> None:
        """As :meth:`threading.RLock.release`."""
        try:
            st = _local.st
        except AttributeError:
            st = begin()
        n = self.node
        if st.cur is not n:
            return _slow_rerelease(self, st)
        self.node = None
        st.cur = n.parent
        _rlock_release(self)

    # What threading.Condition uses, so that a wait is seen as a release and an acquire.

    def _release_save(self) -> Any:
        return slowpath.release_save(self, current())

    def _acquire_restore(self, saved: Any) -> None:
        slowpath.acquire_restore(self, current(), saved)

    def _at_fork_reinit(self) -> None:
        if self.node is not None:
            slowpath.renew(self, current())
        RLockType._at_fork_reinit(self)  # type: ignore[attr-defined]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("cannot pickle '_thread.RLock' object")


_slow_reacquire: Final = slowpath.reacquire
_slow_rerelease: Final = slowpath.rerelease
