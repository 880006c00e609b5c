"""``Lock``, ``RLock`` and ``SpinLock``.

``threading.Lock`` is a builtin function up to 3.12 and a class from 3.13 on, and programs can
tell: our ``Lock`` is of the same sort as the running interpreter's.  Its instances' type is called
``lock``, can't be derived from, and passes for the real one in ``isinstance``.
"""

from __future__ import annotations

import copyreg
import os
import sys
from typing import TYPE_CHECKING, Any, Final, Never, NoReturn, final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.classes import LOCK, RLOCK, SPIN, Kind, LockClass
from ctxcheck.engine.raw import ORIGINALS, LockType, RLockType, allocate_lock
from ctxcheck.fastpath import BaseLock
from ctxcheck.locks.naming import classify
from ctxcheck.locks.scope import in_scope

#: With ``CTXCHECK=0`` in the environment plain locks are made.
OFF_FOR_GOOD: Final = os.environ.get("CTXCHECK") == "0"
#: Whether ``threading.Lock`` is a class here (3.13 and later).
LOCK_IS_CLASS: Final = isinstance(ORIGINALS["Lock"], type)
RLOCK_IS_CLASS: Final = isinstance(ORIGINALS["RLock"], type)


def check_name(function: str, name: object) -> None:
    """Refuse a name that isn't a non-empty string."""
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"{function}: name={name!r} is not a non-empty string")


class _PlainLock(BaseLock):
    """What a ``threading.Lock()`` has beside acquiring and releasing."""

    __slots__ = ()

    def acquire_lock(self, blocking: bool = True, timeout: float = -1) -> bool:
        """The old name of :meth:`acquire`."""
        return self.acquire(blocking, timeout)

    def release_lock(self) -> None:
        """The old name of :meth:`release`."""
        self.release()

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return bool(self._raw.locked())

    def locked_lock(self) -> bool:
        """The old name of :meth:`locked`."""
        return self.locked()

    def _at_fork_reinit(self) -> None:
        if self.node is not None:
            slowpath.renew(self, fastpath.current())
        self._raw._at_fork_reinit()  # type: ignore[attr-defined]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("cannot pickle '_thread.lock' object")

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<{state} _thread.lock object at {id(self):#x}>"


def set_up(lock: Any, kind: Kind, name: str | None, order_key: Any, *, depth: int = 3) -> None:
    """Give a new lock its class, and its raw lock if it needs one."""
    lock_class, unused = classify(kind, name, depth=depth)
    if isinstance(lock, BaseLock):
        lock._setup(lock_class, order_key)
    else:
        lock._join(lock_class, order_key)
    if unused is not None:
        lock.node = unused


class _LockType(type):
    """The type of our ``lock``, for who pickles that (from 3.13 on it stands as ``threading.Lock``): it has the name of
    the interpreter's own, and isn't what is found there."""


def _by_its_place(kind: type) -> tuple[Any, ...]:
    del kind
    from pkgutil import resolve_name

    return resolve_name, ("threading:Lock" if LOCK_IS_CLASS else "_thread:LockType",)


copyreg.pickle(_LockType, _by_its_place)


@final
class lock(_PlainLock, metaclass=_LockType):  # noqa: N801  # the name that the interpreter's own has
    """A lock made by :func:`Lock`."""

    __slots__ = ()

    def __new__(cls, *misplaced: Never, name: str | None = None, order_key: Any = None) -> Any:  # noqa: D102
        if not LOCK_IS_CLASS:
            raise TypeError("cannot create '_thread.lock' instances")
        if misplaced:
            _refuse(misplaced[0])
        return _new_lock(name, order_key, depth=4)

    def __init_subclass__(cls, **_: Any) -> None:
        raise TypeError("type '_thread.lock' is not an acceptable base type")

    if not TYPE_CHECKING:

        @property
        def __class__(self):
            # isinstance() asks the type first and this second: a type that was captured before our locks
            # were put in place must still recognise them
            return LockType


lock.__module__ = "_thread"
lock.__qualname__ = "lock"


def _refuse(given: object) -> NoReturn:
    """Python's own takes no argument, and who gives one means a name."""
    raise TypeError(f"Lock takes no positional argument, and was given {given!r}; for a name: Lock(name=...)")


def _new_lock(name: str | None, order_key: Any, *, depth: int) -> Any:
    check_name("Lock", name)
    if OFF_FOR_GOOD or (name is None and not in_scope()):
        return allocate_lock()
    new = object.__new__(lock)
    set_up(new, LOCK, name, order_key, depth=depth)
    return new


class CheckedRLock(fastpath.RLock):
    """A lock made by :func:`RLock`; its type may be derived from, as that of the real one."""

    __slots__ = ()

    def __new__(cls, *args: Any, name: str | None = None, order_key: Any = None, **kwargs: Any) -> Any:  # noqa: D102
        return _new_rlock(cls, args, kwargs, name, order_key, depth=4)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __repr__(self) -> str:
        text = RLockType.__repr__(self)
        return text.replace(" RLock object", " _thread.RLock object", 1) if type(self) is CheckedRLock else text


CheckedRLock.__module__ = "_thread"
CheckedRLock.__name__ = CheckedRLock.__qualname__ = "RLock"


def _new_rlock(
    cls: type[Any], args: Any, kwargs: dict[str, Any], name: str | None, order_key: Any, *, depth: int
) -> Any:
    check_name("RLock", name)
    if OFF_FOR_GOOD or (name is None and cls is CheckedRLock and not in_scope()):
        return RLockType(*args, **kwargs)
    if (args or kwargs) and sys.version_info >= (3, 13):
        import warnings

        message = "Passing arguments to RLock is deprecated and will be removed in 3.15"
        warnings.warn(message, DeprecationWarning, stacklevel=3)
    new: CheckedRLock = RLockType.__new__(cls, *args, **kwargs)
    set_up(new, RLOCK, name, order_key, depth=depth)
    return new


class _Factory:
    """A callable that isn't a function: ``class C: make = threading.Lock`` must not bind it."""

    def __init__(self, name: str, doc: str) -> None:
        self.__name__ = self.__qualname__ = name
        self.__module__: str = "threading"
        self.__doc__ = doc

    def __repr__(self) -> str:
        return f"<function {self.__name__} of ctxcheck>"

    def __reduce__(self) -> str:
        return self.__name__


@final
class _LockFactory(_Factory):
    def __call__(self, *misplaced: Never, name: str | None = None, order_key: Any = None) -> Any:
        if misplaced:
            _refuse(misplaced[0])
        return _new_lock(name, order_key, depth=4)


@final
class _RLockFactory(_Factory):
    def __call__(self, *args: Any, name: str | None = None, order_key: Any = None, **kwargs: Any) -> Any:
        return _new_rlock(CheckedRLock, args, kwargs, name, order_key, depth=4)


@fastpath.own_code
class SpinLock(BaseLock):
    """A lock whose holder may not sleep: no blocking, no awaiting, until it is released.

    Taking it is not a sleep: it may be taken in atomic context, under other spin locks and on an event
    loop.  It excludes for real, isn't re-entrant, and only its owner may release it (another's
    release is a ``RuntimeError``).

    Args:
        name: the lock class's key and display name; by default the place that makes it tells.
        order_key: locks of one class are taken in ascending order of it.
    """

    __slots__ = ()

    def __init__(self, *, name: str | None = None, order_key: Any = None) -> None:
        check_name("SpinLock", name)
        if getattr(self, "node", None) is not None:
            slowpath.renew(self, fastpath.current())
        set_up(self, SPIN, name, order_key, depth=3)

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return bool(self._raw.locked())

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("cannot pickle 'SpinLock' object")

    def __repr__(self) -> str:
        return f"<{'locked' if self.locked() else 'unlocked'} ctxcheck.SpinLock object at {id(self):#x}>"


def inner_lock(lock_class: LockClass) -> Any:
    """A plain lock of a class that is already known, for what is one with its owner."""
    new = object.__new__(lock)
    new._setup(lock_class)
    return new


_DOC: Final = """Make a checked ``threading.{name}``.

Args:
    name: the lock class's key and display name; by default the place that makes it tells.
    order_key: locks of one class are taken in ascending order of it.
"""

if TYPE_CHECKING:

    class Lock(_PlainLock):
        """A checked ``threading.Lock``.

        Args:
            name: the lock class's key and display name; by default the place that makes it tells.
            order_key: locks of one class are taken in ascending order of it.
        """

        __slots__ = ()

        def __init__(self, *, name: str | None = None, order_key: Any = None) -> None: ...

    class RLock(fastpath.RLock):
        """A checked ``threading.RLock``; arguments as for :class:`Lock`."""

        __slots__ = ()

        def __init__(self, *, name: str | None = None, order_key: Any = None) -> None: ...

else:
    if LOCK_IS_CLASS:
        lock.__doc__ = _DOC.format(name="Lock")
    Lock = lock if LOCK_IS_CLASS else _LockFactory("Lock", _DOC.format(name="Lock"))
    RLock = CheckedRLock if RLOCK_IS_CLASS else _RLockFactory("RLock", _DOC.format(name="RLock"))
