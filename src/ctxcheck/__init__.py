"""A runtime validator of locks, contexts and brackets: lockdep for Python.

Lock orders are learned per lock class from every run, so a deadlock is reported from two
orders that were seen at different times, by anyone, without any thread having to hang.
Marked functions are held to their promises: what may sleep isn't called where that isn't
allowed, what needs an open range is inside one.

Start with ``ctxcheck run app.py``, or with ``with ctxcheck.checking() as session: ...`` in a test.

It can't see locks made by C code or before it started, nor paths that never ran: no finding is no proof.

(For pytest, whose plugin this has, where a run has imported it before: PYTEST_DONT_REWRITE.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxcheck.dumps import dump as dump
    from ctxcheck.engine.allows import UnusedAllow as UnusedAllow
    from ctxcheck.engine.errors import ConfigError as ConfigError
    from ctxcheck.engine.errors import CtxcheckError as CtxcheckError
    from ctxcheck.engine.errors import CtxcheckWarning as CtxcheckWarning
    from ctxcheck.engine.errors import DeadlockError as DeadlockError
    from ctxcheck.engine.errors import ViolationError as ViolationError
    from ctxcheck.engine.errors import ViolationWarning as ViolationWarning
    from ctxcheck.engine.violations import Violation as Violation
    from ctxcheck.locks.composite import Barrier as Barrier
    from ctxcheck.locks.composite import BoundedSemaphore as BoundedSemaphore
    from ctxcheck.locks.composite import Condition as Condition
    from ctxcheck.locks.composite import Event as Event
    from ctxcheck.locks.composite import Semaphore as Semaphore
    from ctxcheck.locks.naming import lock_factory as lock_factory
    from ctxcheck.locks.nested import nested as nested
    from ctxcheck.locks.plain import Lock as Lock
    from ctxcheck.locks.plain import RLock as RLock
    from ctxcheck.locks.plain import SpinLock as SpinLock
    from ctxcheck.locks.tracked import track as track
    from ctxcheck.markers import allow as allow
    from ctxcheck.markers import ambient as ambient
    from ctxcheck.markers import assert_context as assert_context
    from ctxcheck.markers import assert_held as assert_held
    from ctxcheck.markers import assert_no_context as assert_no_context
    from ctxcheck.markers import assert_not_held as assert_not_held
    from ctxcheck.markers import atomic as atomic
    from ctxcheck.markers import context as context
    from ctxcheck.markers import context_end as context_end
    from ctxcheck.markers import context_start as context_start
    from ctxcheck.markers import declare_leaf as declare_leaf
    from ctxcheck.markers import declare_order as declare_order
    from ctxcheck.markers import forbids as forbids
    from ctxcheck.markers import interrupt as interrupt
    from ctxcheck.markers import masked as masked
    from ctxcheck.markers import might_enter as might_enter
    from ctxcheck.markers import might_lock as might_lock
    from ctxcheck.markers import might_sleep as might_sleep
    from ctxcheck.markers import nonblocking as nonblocking
    from ctxcheck.markers import range_ as range_
    from ctxcheck.markers import range_end as range_end
    from ctxcheck.markers import range_start as range_start
    from ctxcheck.markers import region as region
    from ctxcheck.markers import requires as requires
    from ctxcheck.markers import requires_lock as requires_lock
    from ctxcheck.markers import thread_role as thread_role
    from ctxcheck.markers import within_range as within_range
    from ctxcheck.probes.install import install as install
    from ctxcheck.probes.install import uninstall as uninstall
    from ctxcheck.session import Session as Session
    from ctxcheck.session import checking as checking
    from ctxcheck.session import held_locks as held_locks

#: Where each public name lives; imported when it is first asked for, so that ``import ctxcheck`` costs next to nothing.
_HOMES = {
    "ctxcheck.dumps": ("dump",),
    "ctxcheck.engine.allows": ("UnusedAllow",),
    "ctxcheck.engine.errors": (
        "ConfigError", "CtxcheckError", "CtxcheckWarning", "DeadlockError", "ViolationError", "ViolationWarning",
    ),
    "ctxcheck.engine.violations": ("Violation",),
    "ctxcheck.locks.composite": ("Barrier", "BoundedSemaphore", "Condition", "Event", "Semaphore"),
    "ctxcheck.probes.install": ("install", "uninstall"),
    "ctxcheck.locks.naming": ("lock_factory",),
    "ctxcheck.locks.nested": ("nested",),
    "ctxcheck.locks.plain": ("Lock", "RLock", "SpinLock"),
    "ctxcheck.locks.tracked": ("track",),
    "ctxcheck.markers": (
        "allow", "ambient", "assert_context", "assert_held", "assert_no_context", "assert_not_held", "atomic",
        "context", "context_end", "context_start", "declare_leaf", "declare_order", "forbids", "interrupt",
        "masked", "might_enter", "might_lock", "might_sleep", "nonblocking", "range_", "range_end",
        "range_start", "region", "requires", "requires_lock", "thread_role", "within_range",
    ),
    "ctxcheck.session": ("Session", "checking", "held_locks"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # computed below from the same table would hide it from type checkers
    "Barrier", "BoundedSemaphore", "Condition", "ConfigError", "CtxcheckError", "CtxcheckWarning", "DeadlockError",
    "Event", "Lock", "RLock", "Semaphore", "Session", "SpinLock", "UnusedAllow", "Violation", "ViolationError",
    "ViolationWarning", "allow", "ambient", "assert_context", "assert_held", "assert_no_context", "assert_not_held",
    "atomic", "checking", "context", "context_end", "context_start", "declare_leaf", "declare_order", "dump", "forbids",
    "held_locks", "install", "interrupt", "lock_factory", "masked", "might_enter", "might_lock", "might_sleep",
    "nested", "nonblocking", "range_", "range_end", "range_start", "region", "requires", "requires_lock",
    "thread_role", "track", "uninstall", "within_range",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("ctxcheck")
        except PackageNotFoundError:  # a source tree that was never installed
            return "0+unknown"
    home = _HOME_OF.get(name)
    if name in ("adapters", "aio"):  # modules; the import of `aio` brings asyncio with it
        import importlib

        return importlib.import_module(f"ctxcheck.{name}")
    if home is None:
        raise AttributeError(f"module 'ctxcheck' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
