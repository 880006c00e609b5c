"""``Condition``, ``Semaphore``, ``BoundedSemaphore``, ``Event`` and ``Barrier``.

Subclasses of ``threading``'s own, so that everything which reads their attributes goes on working.
A Condition's lock is a lock of its own right.  The locks inside the others are one with their owner: never
held while anything else runs, so the interpreter's own serve, and what is checked is the wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import ACQUIRE, BARRIER, CONDITION, EVENT, RLOCK, SEMAPHORE, TIMED, TRY
from ctxcheck.engine.instances import credit, crediting
from ctxcheck.engine.owner import VOID, Node
from ctxcheck.engine.postponed import postpones
from ctxcheck.engine.raw import ORIGINALS, RLockType, allocate_lock, get_ident, uninterrupted
from ctxcheck.locks.naming import classify
from ctxcheck.locks.plain import CheckedRLock, check_name, set_up
from ctxcheck.locks.waits import awaited_class, before_signal, before_wait, is_wait, rested

if TYPE_CHECKING:
    from threading import Barrier as _Barrier
    from threading import BoundedSemaphore as _BoundedSemaphore
    from threading import Condition as _Condition
    from threading import Event as _Event
    from threading import Semaphore as _Semaphore
else:
    _Condition = ORIGINALS["Condition"]
    _Semaphore = ORIGINALS["Semaphore"]
    _BoundedSemaphore = ORIGINALS["BoundedSemaphore"]
    _Event = ORIGINALS["Event"]
    _Barrier = ORIGINALS["Barrier"]

_is_owned: Final[Callable[[Any], bool]] = vars(_Condition)["_is_owned"]


def _sleeps(what: str) -> None:
    """A wait is a sleep, whether or not it would have slept this time."""
    before_wait(None, what, timed=False)


def _made_anew(old: Any, new: Any = None) -> None:
    """What is being initialised had the lock ``old`` before: CTX304 if that is held, and isn't kept."""
    if old is not None and old is not new:
        node = slowpath.hold_of(old)
        if node is not None:
            slowpath.destroy(fastpath.current(), node, "re-initialised")


def _raw_condition() -> Any:
    return _Condition(allocate_lock())


class _Look:
    """Their reprs say what they stand in for, as programs and tests expect it."""

    def __repr__(self) -> str:
        kind = type(self).__qualname__
        return super().__repr__().replace(f"<{type(self).__module__}.{kind} ", f"<threading.{kind} ", 1)


class Condition(_Look, _Condition):
    """A checked ``threading.Condition``; its default lock is a checked RLock.

    Args:
        lock: as for ``threading.Condition``.
        name: the class of the default lock.
    """

    def __init__(self, lock: Any = None, *, name: str | None = None) -> None:
        check_name("Condition", name)
        _made_anew(getattr(self, "_lock", None), lock)
        if lock is None:
            lock = RLockType.__new__(CheckedRLock)
            set_up(lock, RLOCK, name, None, depth=3)
        super().__init__(lock)
        self._awaited = awaited_class(CONDITION, name)

    def _is_owned(self) -> bool:
        # a plain lock is asked by a try, which would be a step to validate each time that somebody waits or notifies
        own = vars(self)["_lock"]
        return bool(own._raw.locked() if isinstance(own, fastpath.BaseLock) else _is_owned(self))

    def wait(self, timeout: float | None = None) -> bool:
        """As ``threading.Condition.wait``; a sleep, and a wait for a notification, unless the timeout is zero."""
        if not is_wait(timeout):
            return bool(super().wait(timeout))
        own = vars(self)["_lock"]
        before_wait(self._awaited, "Condition.wait", timed=timeout is not None, released=own)
        try:
            return bool(super().wait(timeout))
        finally:
            rested(own)

    def notify(self, n: int = 1) -> None:
        """As ``threading.Condition.notify``."""
        before_signal(self._awaited, woke=bool(vars(self)["_waiters"]), own=vars(self)["_lock"])
        super().notify(n)


class Event(_Look, _Event):
    """A checked ``threading.Event``: its wait is a sleep."""

    def __init__(self, *, name: str | None = None) -> None:
        check_name("Event", name)
        self._cond = _raw_condition()
        self._flag: bool = False
        self._awaited = awaited_class(EVENT, name)
        #: the threads that know that it is set: who set it, or has waited for it
        self._known_by: set[int] = set()

    def wait(self, timeout: float | None = None) -> bool:
        """As ``threading.Event.wait``; a sleep, and a wait for who sets it, unless the timeout is zero.

        No wait for anybody is that of a thread which has set it itself, or has waited for it before.
        """
        if is_wait(timeout):
            known = self._flag and get_ident() in self._known_by
            before_wait(None if known else self._awaited, "Event.wait", timed=timeout is not None)
        answer = bool(super().wait(timeout))
        if answer and self._awaited is not None:
            self._known_by.add(get_ident())
        return answer

    def set(self) -> None:
        """As ``threading.Event.set``."""
        if self._awaited is not None:
            if not self._flag:
                before_signal(self._awaited, woke=bool(self._cond._waiters))
            self._known_by.add(get_ident())
        super().set()

    def clear(self) -> None:
        """As ``threading.Event.clear``."""
        self._known_by.clear()
        super().clear()


class Barrier(_Look, _Barrier):
    """A checked ``threading.Barrier``: its wait is a sleep."""

    #: one that is made otherwise (multiprocessing's, which derives from it) waits for other processes
    _awaited: Any = None

    def __init__(
        self, parties: int, action: Any = None, timeout: float | None = None, *, name: str | None = None
    ) -> None:
        check_name("Barrier", name)
        super().__init__(parties, action, timeout)
        self._cond = _raw_condition()
        self._awaited = awaited_class(BARRIER, name) if parties > 1 else None

    def wait(self, timeout: float | None = None) -> int:
        """As ``threading.Barrier.wait``; a sleep, and a wait for the others, who wait for the caller too."""
        if self._awaited is not None:
            before_signal(self._awaited, woke=bool(self._cond._waiters), alike=True)
        timed = (timeout if timeout is not None else vars(self)["_timeout"]) is not None
        before_wait(self._awaited, "Barrier.wait", timed=timed)
        return int(super().wait(timeout))


class Semaphore(_Look, _Semaphore):
    """A checked ``threading.Semaphore``: a resource to wait for, which nobody owns.

    Made with 1, it is ordered like a lock until somebody releases it who didn't acquire it.
    """

    def __init__(self, value: int = 1, *, name: str | None = None) -> None:
        check_name(type(self).__name__, name)
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        _made_anew(getattr(self, "_record", None))
        self._cond = _raw_condition()
        self._value: int = value
        self._record = None
        if value == 1:
            self._record = _Record(classify(SEMAPHORE, name)[0])

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """As ``threading.Semaphore.acquire``; a sleep when it may wait, validated before it can."""
        st = fastpath.current()
        record = self._record
        node: Node | None = None
        if st.engine is not None and st.cur is not VOID:
            waits = blocking and timeout != 0
            if record is not None:
                step = record.lock_class.step(TRY if not waits else TIMED if timeout is not None else ACQUIRE)
                node = st.cur[step]
                if node is None:
                    node = slowpath.consult(st.engine.acquire, st, step, record)
            elif waits:
                _sleeps(f"{type(self).__name__}.acquire")
        if blocking and timeout != 0:
            st.blocks_on(record or self, timeout)
        try:
            if not _Semaphore.acquire(self, blocking, timeout):
                return False
        finally:
            st.waiting = None
        if record is not None:
            if node is not None and node.parent is st.cur:
                st.cur = record.node = node
            else:
                record.node = VOID
        return True

    __enter__ = acquire

    def release(self, n: int = 1) -> None:
        """As ``threading.Semaphore.release``."""
        record = self._record
        try:
            if record is not None:
                st = fastpath.current()
                node, record.node = record.node, None
                if node is not None and node is not VOID:
                    slowpath.consult(slowpath.drop, record.lock_class, node, st)
                elif node is None and st.engine is not None:
                    # released without an acquire: it signals, and orders nothing
                    record.lock_class.handed_over = True
        finally:
            self._raw_release(n)

    _raw_release = _Semaphore.release

    def __exit__(self, *exc: object) -> None:
        self.release()


class BoundedSemaphore(Semaphore, _BoundedSemaphore):
    """A checked ``threading.BoundedSemaphore``."""

    def __init__(self, value: int = 1, *, name: str | None = None) -> None:
        super().__init__(value, name=name)
        self._initial_value: int = value

    _raw_release = _BoundedSemaphore.release


class _Record:
    """What the slow path needs of a semaphore that is ordered."""

    __slots__ = ("__weakref__", "lock_class", "node", "token")

    def __init__(self, lock_class: Any) -> None:
        self.lock_class: Any = lock_class
        self.node: Any = None
        self.token = lock_class.token
        lock_class.created += 1
        if crediting:
            credit(lock_class)

    @postpones
    @uninterrupted
    def __del__(self, forget: Callable[[Any], None] = slowpath.forget) -> None:
        # one that goes while it is held must not stay on its holder's chain
        try:
            node = self.node
        except AttributeError:
            return
        if node is not None:
            forget(self)
