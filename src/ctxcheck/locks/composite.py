"""``Condition``, ``Semaphore``, ``BoundedSemaphore``, ``Event`` and ``Barrier``.

Subclasses of ``threading``'s own, so that everything which reads their attributes goes on working.
A Condition's lock is a lock of its own right.  The locks inside the others are one with their owner: never
held while anything else runs, so the interpreter's own serve, and what is checked is the wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import ACQUIRE, BLOCK, RLOCK, SEMAPHORE, TIMED, TRY
from ctxcheck.engine.owner import VOID, Node
from ctxcheck.engine.raw import ORIGINALS, RLockType, allocate_lock
from ctxcheck.engine.sites import capture
from ctxcheck.locks.naming import classify
from ctxcheck.locks.plain import CheckedRLock, check_name, set_up

if TYPE_CHECKING:
    from collections.abc import Callable
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


def _sleeps(what: str, released: Any = None) -> None:
    """A wait is a sleep, whether or not it would have slept this time; ``released`` is the lock that it gives back."""
    st = fastpath.current()
    if st.cur.allows & BLOCK:
        return
    own = getattr(released, "node", None)
    if any(node.step.takes & BLOCK and node.stands_for is not own for node in st.cur.inside()):
        slowpath.consult(st.engine.report_sleep, st, what, "wait", capture(2))


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
        _made_anew(vars(self).get("_lock"), lock)
        if lock is None:
            lock = RLockType.__new__(CheckedRLock)
            set_up(lock, RLOCK, name, None, depth=3)
        super().__init__(lock)

    def wait(self, timeout: float | None = None) -> bool:
        """As ``threading.Condition.wait``; a sleep, unless the timeout is zero."""
        if timeout is None or timeout > 0:
            _sleeps("Condition.wait", vars(self)["_lock"])
        return bool(super().wait(timeout))


class Event(_Look, _Event):
    """A checked ``threading.Event``: its wait is a sleep."""

    def __init__(self, *, name: str | None = None) -> None:
        check_name("Event", name)
        self._cond = _raw_condition()
        self._flag: bool = False

    def wait(self, timeout: float | None = None) -> bool:
        """As ``threading.Event.wait``; a sleep, unless the timeout is zero."""
        if timeout is None or timeout > 0:
            _sleeps("Event.wait")
        return bool(super().wait(timeout))


class Barrier(_Look, _Barrier):
    """A checked ``threading.Barrier``: its wait is a sleep."""

    def __init__(
        self, parties: int, action: Any = None, timeout: float | None = None, *, name: str | None = None
    ) -> None:
        check_name("Barrier", name)
        super().__init__(parties, action, timeout)
        self._cond = _raw_condition()

    def wait(self, timeout: float | None = None) -> int:
        """As ``threading.Barrier.wait``; a sleep."""
        _sleeps("Barrier.wait")
        return int(super().wait(timeout))


class Semaphore(_Look, _Semaphore):
    """A checked ``threading.Semaphore``: a resource to wait for, which nobody owns.

    Made with 1, it is ordered like a lock until somebody releases it who didn't acquire it.
    """

    def __init__(self, value: int = 1, *, name: str | None = None) -> None:
        check_name(type(self).__name__, name)
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        _made_anew(vars(self).get("_record"))
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

    def __del__(self, forget: Callable[[Any], None] = slowpath.forget) -> None:
        # one that goes while it is held must not stay on its holder's chain
        if getattr(self, "node", None) is not None:
            forget(self)
