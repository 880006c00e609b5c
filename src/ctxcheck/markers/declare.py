"""``declare_order`` and ``declare_leaf``: the agreed order of locks, said in the code."""

from __future__ import annotations

from typing import Any

from ctxcheck import fastpath
from ctxcheck.engine import declared, levels, slowpath
from ctxcheck.engine.classes import LockClass, Step
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.owner import Unused
from ctxcheck.engine.raw import LockType, RLockType
from ctxcheck.engine.sites import capture
from ctxcheck.engine.telling import redeclared
from ctxcheck.markers.usage import ENABLED, check_text, describe


def declare_order(*locks: Any, reason: str = "") -> None:
    """Declare that these locks are taken in this order wherever two of them are held at once.

    The first acquisition against it is CTX007, whether or not the declared order was ever seen.  A try-acquire isn't
    against it.  Several declarations add up: from "a before b" and "b before c" follows "a before c".  It holds from
    now on, in every session of the process; what went against it in the running one is reported at once.

    Args:
        locks: two or more, each the display name or the key of a lock class ("Ledger.lock", "bank:Ledger.lock"), or a
            lock, which stands for its class.  What holds for a class holds for its nesting levels.
        reason: why, for the reports.

    Costs nothing where locks are taken as before; a look at each held lock where a new chain is validated.
    From Go's ``lockrank``, and WITNESS's order lists.

    Raises:
        TypeError: what is neither a name nor a lock.
        ValueError: fewer than two locks.
        ConfigError: it contradicts itself or another declaration (a ``ValueError``); the message names the cycle.
    """
    if len(locks) < 2:
        raise ValueError(f"declare_order: {len(locks)} locks have no order; name two or more")
    _declare("declare_order", locks, reason, leaf=False)


def declare_leaf(*locks: Any, reason: str = "") -> None:
    """Declare that no other lock is waited for while one of these is held (CTX007); else as :func:`declare_order`."""
    if not locks:
        raise ValueError("declare_leaf: it names no lock")
    _declare("declare_leaf", locks, reason, leaf=True)


def _declare(function: str, locks: tuple[Any, ...], reason: str, *, leaf: bool) -> None:
    check_text(function, "reason", reason, empty=True)
    named = [_name(function, lock) for lock in locks]
    names = tuple(name for name in named if name is not None)
    if not ENABLED or len(names) < (1 if leaf else 2):
        return  # what isn't checked has no order to keep
    new = declared.Declaration(names, leaf, reason, made_at=capture(1))
    try:
        changed = declared.declare(new)
    except ConfigError as error:
        raise ConfigError(f"{function}: {error}") from None
    state = fastpath.current()
    for engine in changed:
        if not (engine.closed or engine.broken):
            slowpath.consult(redeclared, engine, state)


def _name(function: str, lock: Any) -> str | None:
    """A lock class's key, or a name as it is; None for a lock that isn't checked."""
    if isinstance(lock, str):
        return check_text(function, "a name", lock)
    inner = levels.real(lock)
    node = getattr(inner, "node", None)
    if type(node) is Unused:
        node.settle_for(inner)  # its class is found at its first use
    step = getattr(lock if isinstance(lock, levels.StandIn) else inner, "step", None)
    lock_class: Any = step.lock_class if isinstance(step, Step) else getattr(inner, "lock_class", None)
    if lock_class is None:
        # a semaphore that is ordered, or a lock of asyncio's
        record = getattr(inner, "_ctxcheck_record", None) or getattr(inner, "_record", None)
        lock_class = getattr(record, "lock_class", None)
    if isinstance(lock_class, LockClass):
        return lock_class.key
    if isinstance(inner, (LockType, RLockType)):
        return None
    raise TypeError(f"{function}: {describe(lock)} is neither the name of a lock class nor a checked lock")
