"""``track``: any object that is acquired and released takes part without being ours.

A readers-writer lock, a file lock, a lock on another machine: its own methods do the work, and a
stand-in tells the validator.  Several owners may hold it at once (shared), so the holds are kept a list an owner;
there is no fast path.
"""

from __future__ import annotations

import difflib
from functools import partial
from itertools import repeat, starmap
from types import TracebackType
from typing import Any, Final, Literal, final

from ctxcheck import fastpath
from ctxcheck.engine import levels, slowpath, waiting
from ctxcheck.engine.classes import (
    ACQUIRE,
    ENTER,
    KINDS,
    RECURSIVE,
    RECURSIVE_TIMED,
    RECURSIVE_TRY,
    REGION,
    REGISTRY,
    SHARED,
    SHARED_TIMED,
    SHARED_TRY,
    TIMED,
    TRY,
    WITH,
    LockClass,
    Mode,
    Step,
    Token,
)
from ctxcheck.engine.instances import credit, crediting
from ctxcheck.engine.owner import OFF, VOID, Node, OwnerState
from ctxcheck.engine.postponed import postpones
from ctxcheck.engine.raw import get_ident, uninterrupted
from ctxcheck.engine.sites import capture
from ctxcheck.locks import replaced
from ctxcheck.locks.naming import classify
from ctxcheck.locks.plain import check_name

Shared = bool | Literal["recursive"] | tuple[str, str]

#: (waits, timed) -> mode, for each way of sharing.
_EXCLUSIVE: Final = {(True, False): ACQUIRE, (True, True): TIMED, (False, False): TRY}
_SHARED: Final = {(True, False): SHARED, (True, True): SHARED_TIMED, (False, False): SHARED_TRY}
_RECURSIVE: Final = {(True, False): RECURSIVE, (True, True): RECURSIVE_TIMED, (False, False): RECURSIVE_TRY}


def track(obj: Any, *, name: str | None = None, kind: str = "lock", shared: Shared = False) -> Tracked:
    """Return a stand-in for ``obj`` whose acquisitions are validated.

    Args:
        obj: anything with ``acquire`` and ``release``; its other attributes are reached through the stand-in.
        name: the lock class's key and display name; by default the place that calls ``track`` tells.
        kind: "lock" (its holder may sleep), "rlock" (re-entrant), "spin" (its holder may not sleep), "semaphore", or
            "region" (no lock: a stretch of code that has its place in the order of locks).
        shared: whether it can be held shared, by ``acquire(shared=True)`` or ``with tracked.shared():``.
            ``True``: obj's own ``acquire`` takes ``shared=True``.  ``"recursive"``: as well, and a reader is let in
            while a writer waits, so that readers never hold each other up.  A pair of method names, such as
            ``("acquire_read", "release_read")``: those are called for shared holds.

    Raises:
        TypeError: if obj can't be acquired and released, or lacks a named method.
        ValueError: for an unknown kind.
    """
    check_name("track", name)
    if kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"track: kind={kind!r} is not one of {', '.join(KINDS)}{hint}")
    pair = ("acquire", "release") if shared in (True, False, "recursive") else shared
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
        raise TypeError(f"track: shared={shared!r} is not True, False, 'recursive' or a pair of method names")
    for method in ("acquire", "release", *pair):
        if not callable(getattr(obj, method, None)):
            raise TypeError(f"track: {type(obj).__qualname__} object has no method {method}()")
    return Tracked(obj, classify(KINDS[kind], name)[0], shared, pair)


@final
class Tracked:
    """A stand-in made by :func:`track`."""

    __slots__ = (
        "__weakref__", "_holds", "_modes", "_obj", "_shared_call", "_shared_methods", "_sharers", "lock_class",
        "order_key", "token",
    )  # fmt: skip

    def __init__(self, obj: Any, lock_class: LockClass, shared: Shared, pair: tuple[str, str]) -> None:
        self._renew()
        self._obj: Any = obj
        self._shared_methods: tuple[str, str] = pair
        #: each step looks up what gives a shared hold back
        self._sharers: Any = starmap(getattr, repeat((obj, pair[1])))
        self._shared_call: dict[str, Any] = {"shared": True} if shared in (True, "recursive") else {}
        self._modes = None if shared is False else _RECURSIVE if shared == "recursive" else _SHARED
        self._holds: dict[int, list[Node]] = {}
        self.lock_class: LockClass = lock_class
        self.token: Token = lock_class.token
        self.order_key: Any = None
        lock_class.created += 1
        if crediting:
            credit(lock_class)

    @postpones
    @uninterrupted
    def __del__(self) -> None:
        # what goes while it is held must not stay on its holders' chains
        for node in self._all_holds():
            slowpath.bury(node)
            node.state.drops.append(node)

    def _all_holds(self) -> list[Node]:
        """The holds of everybody who is still there."""
        try:
            everyone: dict[int, list[Node]] = object.__getattribute__(self, "_holds")
        except AttributeError:
            return []  # it was never finished
        return [
            node for holds in list(everyone.values()) for node in holds if node is not VOID and not node.state.ended
        ]

    def _at_fork_reinit(self) -> None:
        """Nobody holds it any more: made anew in a forked child, or, which is CTX304, elsewhere."""
        self._renew()
        renew = getattr(self._obj, "_at_fork_reinit", None)
        if renew is not None:
            renew()

    def _renew(self) -> None:
        holds = self._all_holds()
        if holds:
            state = fastpath.current()
            slowpath.destroy(state, holds[-1], "re-initialised")
            self._holds.clear()
            for node in holds:
                if node.state is not state or not state.unlink(node):
                    node.state.drops.append(node)

    def acquire(
        self, *args: Any, shared: bool | Literal["recursive"] = False, nest_under: Any = None, **kwargs: Any
    ) -> Any:
        """Acquire the object, with its own arguments; ``shared=True`` for a shared hold; ``nest_under`` as for
        :func:`~ctxcheck.nested`.

        ``shared="recursive"``: one that is let in while a writer waits, where that depends on the acquisition (a lock
        whose readers are preferred in some contexts only).  ``blocking`` and ``timeout`` are understood as
        ``threading.Lock.acquire`` has them.  Returns what the object's method returns; a false value other than
        ``None`` means that it wasn't acquired.
        """
        if shared not in (True, False, "recursive"):
            raise ValueError(f"{self.lock_class.name}.acquire: shared={shared!r} is not True, False or 'recursive'")
        if nest_under is not None:
            levels.check_outer("track", nest_under)
        return self.take(args, kwargs, shared=shared, under=nest_under)

    @uninterrupted
    def release(self, *args: Any, shared: bool | None = None, **kwargs: Any) -> Any:
        """Release the caller's innermost hold; ``shared=True`` the innermost shared one.

        Returns what the object's method returns.
        """
        # Looked up first, while nothing has been done.  From here to the end no signal handler can come in between but
        # at a call: so the usual hold is taken off the record without one, and whatever is raised by then comes out
        # after the object was given back.
        give = unshare = self._obj.release
        if self._modes is not None:
            for found in self._sharers:
                unshare = found
                break
        st: OwnerState | None = None
        node: Node | None = None
        stray = dropped = False
        try:
            try:
                st = fastpath._local.st
            except AttributeError:
                st = fastpath.begin()
            assert st is not None
            everyone, serial = self._holds, st.owner.serial
            if serial in everyone:
                mine = everyone[serial]
                last = mine[-1]
                if shared is None or last is VOID or (last.step.mode is not None and last.step.mode.shared == shared):
                    del mine[-1]
                    node = last
                    if not mine:
                        del everyone[serial]
                    if st.cur is node is not VOID and not st.instances:
                        # the innermost thing that is held
                        st.cur = node.parent
                        dropped = True
            if node is None:
                node = self._pop(st, shared)
            if dropped:
                pass
            elif node is None:
                stray = st.engine is not None and st.cur is not VOID
                if stray:
                    self._stray(st)
            elif node is not VOID and not slowpath.consult(slowpath.drop, self.lock_class, node, st):
                node.state.drops.append(node)  # it couldn't be taken off now
        except BaseException:
            if node is None and not stray:
                node = self._pop(fastpath.current() if st is None else st, shared)
            if node is not None and node is not VOID:
                if not dropped:
                    node.state.drops += (node,)
                if node.step.mode is not None and node.step.mode.shared:
                    give = unshare
            elif shared is True:
                give = unshare
            give(*args, **kwargs)
            if st is not None and node is not None and node in st.drops and st.find(node) is None:
                st.drops.remove(node)  # it had been taken off before that was raised
            raise
        if node is None or node is VOID:
            if shared is True:
                give = unshare
        elif node.step.mode is not None and node.step.mode.shared:
            give = unshare
        return give(*args, **kwargs)

    @property
    def step(self) -> Step:
        """Its class, as an acquire by call takes it."""
        return self.lock_class.step(ACQUIRE)

    def shared(self) -> SharedHold:
        """A shared hold, for a ``with`` block."""
        return SharedHold(self)

    def held_by(self, state: OwnerState) -> Node | None:
        """The node of this owner's innermost hold, if it has one."""
        serial = self._mine(state)
        holds = None if serial is None else self._holds.get(serial)
        return holds[-1] if holds else None

    def holders(self) -> list[Node]:
        """The nodes of all that hold it, for who waits for whom."""
        return [holds[-1] for holds in list(self._holds.values()) if holds]

    def is_held_in(self, node: Node) -> bool:
        """Whether one of its holds is this node."""
        return any(node in holds for holds in list(self._holds.values()))

    @property
    def node(self) -> Node | None:
        """The node of some holder, for who waits for whom."""
        for holds in list(self._holds.values()):
            if holds:
                return holds[-1]
        return None

    def __enter__(self) -> Any:
        return self.take((), {}, shared=False, scoped=True)

    @uninterrupted
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release(shared=False if self._modes is not None else None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._obj, name)

    def __repr__(self) -> str:
        return f"<tracked {self.lock_class.name}>"

    # --- how -------------------------------------------------------------------

    def take(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        shared: bool | Literal["recursive"],
        scoped: bool = False,
        level: int = 0,
        under: Any = None,
    ) -> Any:
        """As :meth:`acquire`; ``scoped`` by ``with``, at a nesting ``level``, under another lock."""
        if shared and self._modes is None:
            raise TypeError(f"track: `{self.lock_class.name}` has no shared mode; pass shared=... to track()")
        if shared:
            method = getattr(self._obj, self._shared_methods[0])
            kwargs = {**kwargs, **self._shared_call}
        else:
            method = self._obj.acquire
        is_shared = bool(shared)
        # by a step of a loop: between the acquire and the record of it no signal handler can raise
        attempt: Any = starmap(partial(method, **kwargs), (args,))
        st = fastpath.current()
        serial = st.owner.serial
        engine = st.engine
        if engine is None or st.cur is VOID:
            for result in attempt:
                if result is True or result is None or (result is not False and result):
                    self._claim(serial, VOID)
                return result
            raise AssertionError  # it is asked once
        if st.drops:
            st.settle()
        mode = self._mode(args, kwargs, shared=shared, scoped=scoped)
        reentered = self._check_own(st, mode)
        node: Node | None = self._reenter(st, mode) if reentered else None
        if mode.waits and not reentered:
            node = self._step(st, mode, level, under)
        taken, result = False, None
        try:
            if mode.waits:
                timeout = kwargs.get("timeout", args[1] if len(args) > 1 else None)
                st.blocks_on(self, timeout if mode.timed else None)
                if self._holds and not mode.timed:
                    engine.watchdog.wake()
            for result in attempt:
                if result is True or result is None or (result is not False and result):
                    self._claim(serial, VOID if node is None else node)
                    taken = True
                break
            if taken and node is not VOID:
                if node is None:
                    # who only tried learns of what it means when it has it
                    node = self._step(st, mode, level, under)
                    self._holds[serial][-1] = node
                slowpath.stand_on(self, st, node)
                if node is not VOID and (mode.timed or not mode.waits):
                    slowpath.consult(engine.of(st).interrupts.obtained, st, node)
            st.waiting = None
            engine.no_longer_blocked(st)
        except BaseException:
            st.waiting = None
            if taken:
                self.release(shared=is_shared)  # the caller never hears that it has it
            raise
        return result

    @uninterrupted
    def _claim(self, serial: int, node: Node) -> None:
        """Say that it is held: without a call, so that this is done whole."""
        everyone = self._holds
        if serial not in everyone:
            everyone[serial] = []
        everyone[serial] += (node,)

    def _mode(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, shared: bool | Literal["recursive"], scoped: bool
    ) -> Mode:
        blocking = kwargs.get("blocking", args[0] if args else True)
        timeout = kwargs.get("timeout", args[1] if len(args) > 1 else None)
        waits = bool(blocking) and timeout != 0
        timed = waits and isinstance(timeout, (int, float)) and timeout >= 0
        if self.lock_class.kind is REGION:
            return ENTER
        if scoped and not shared:
            return WITH
        modes = _RECURSIVE if shared == "recursive" else (self._modes or _SHARED) if shared else _EXCLUSIVE
        return modes[waits, timed]

    def _step(self, st: OwnerState, mode: Mode, level: int, under: Any) -> Node:
        step = REGISTRY.level(self.lock_class, level).step(mode)
        node = slowpath.step_on(st, step, self, under)
        return VOID if node.parent is not st.cur else node

    def _reenter(self, st: OwnerState, mode: Mode) -> Node:
        """The hold of a re-entry, which adds no order: one of its own only if it is another way to hold it.

        So after a downgrade (shared inside exclusive, the exclusive hold released first) it is held shared.
        """
        mine = [n for n in self._holds.get(st.owner.serial, ()) if n is not VOID]
        held = mine[-1].step.mode if mine else None
        if held is None or held.shared == mode.shared:
            return VOID
        return Node(st.cur, self.lock_class.step(mode), st, capture(2))

    def _check_own(self, st: OwnerState, mode: Mode) -> bool:
        """Whether the caller re-enters it, which adds nothing; what can never succeed is CTX002."""
        mine = self._holds.get(st.owner.serial, ())
        if mine and self.lock_class.kind.reentrant:
            return True
        holds = [n for n in mine if n is not VOID]
        if not holds or not mode.waits:
            return False
        both_shared = mode.shared and all(n.step.mode is not None and n.step.mode.shared for n in holds)
        if both_shared:
            if not mode.recursive and st.find(holds[-1]) is not None:
                slowpath.consult(waiting.shared_twice, st.engine, st, self.lock_class, holds[-1], mode)
            return mode.recursive
        if not mode.timed and not self.lock_class.kind.resource and st.find(holds[-1]) is not None:
            slowpath.consult(waiting.self_deadlock, st.engine, st, self.lock_class, holds[-1])
        return False

    def _mine(self, st: OwnerState) -> int | None:
        """Where the calling thread's holds are: its own, else those that it took while another session looked."""
        if self._holds.get(st.owner.serial):
            return st.owner.serial
        ident = get_ident()
        for serial, holds in list(self._holds.items()):
            if holds and holds[-1] is not VOID and holds[-1].state.owner.ident == ident:
                return serial
        return None

    def _pop(self, st: OwnerState, shared: bool | None) -> Node | None:
        serial = self._mine(st)
        # else it may be a hold that was taken while nobody looked, whoever took it
        serial = OFF.owner.serial if serial is None else serial
        holds = self._holds.get(serial)
        if not holds:
            return None
        index = len(holds) - 1
        if shared is not None:
            fitting = [
                i
                for i, node in enumerate(holds)
                if node is VOID or (node.step.mode is not None and node.step.mode.shared == shared)
            ]
            index = fitting[-1] if fitting else index
        # without a call from here on: popped is told
        node = holds[index]
        del holds[index]
        if not holds and serial in self._holds:
            del self._holds[serial]
        return node

    def _stray(self, st: OwnerState) -> None:
        """A release by somebody who doesn't hold it."""
        for serial, holds in list(self._holds.items()):
            if holds and holds[-1] is not VOID:
                node = holds[-1]
                slowpath.consult(st.engine.foreign_release, st, self.lock_class, node)
                if not self.lock_class.kind.owned:
                    self._holds.pop(serial, None)
                return
        if not self.lock_class.kind.resource:
            slowpath.consult(st.engine.unbalanced_release, st, self.lock_class)


replaced.kinds.append(Tracked)


@final
class SharedHold:
    """``with tracked.shared():``"""

    __slots__ = ("_tracked",)

    def __init__(self, tracked: Any) -> None:
        self._tracked: Any = tracked

    def __enter__(self) -> Any:
        return self._tracked.acquire(shared=True)

    @uninterrupted
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tracked.release(shared=True)
