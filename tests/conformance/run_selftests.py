"""Play the scenarios of the Linux kernel's lock validator self-test on the real engine.

    python tests/conformance/run_selftests.py FILE.json

FILE holds scenarios as abstract operations of one thread (its ``meta`` says what they mean).  Each applicable one is
played in a session of its own, with simulated locks: they never block, and are put through ``ctxcheck.track``'s
stand-in with a kind of the engine.  A scenario that is expected to be reported passes if anything was found by its
last step, whatever its grade; one that is expected to be clean, if nothing was.  Prints a line for each mismatch, then
``N passed, M failed``.  Exit status: 0, 1 if any failed, 2 for a file that can't be read or isn't of this form.

Knows operations and kinds of locks, and no scenario.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any, Final

import ctxcheck
from ctxcheck import DeadlockError, Session
from ctxcheck.engine.classes import EVERYTHING, REGISTRY, Kind
from ctxcheck.locks.tracked import Tracked

#: What the kinds of the file are to the engine.  All have owners, as the kernel's have.
KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("spinlock", sleeps=False, takes=EVERYTHING, owned=True),
        Kind("raw_spinlock", sleeps=False, takes=EVERYTHING, owned=True),
        Kind("rwlock", sleeps=False, takes=EVERYTHING, owned=True),
        Kind("mutex", owned=True),
        Kind("rtmutex", owned=True),
        Kind("ww", owned=True),
        Kind("rwsem", owned=True),
        Kind("rcu", sleeps=False, takes=EVERYTHING, owned=True),
        # a per-CPU lock: nobody else ever waits for it
        Kind("local_lock", sleeps=False, takes=EVERYTHING, owned=True, confined=True),
        # no lock: a place in the order, that one owner isn't in twice
        Kind("map", sleeps=False, owned=True, guards=False),
    )
}
MODES: Final[dict[str, Any]] = {"excl": False, "read": True, "read_rec": "recursive"}
#: What an asynchronous context can't be interrupted by, beside itself.
INTERRUPTS: Final = {"hard": ("soft",), "soft": ("hard",)}
#: What can't interrupt while a context is masked: without hard interrupts there are no soft ones.
MASKS: Final = {"hard": ("hard", "soft"), "soft": ("soft",)}
#: Allocations that may enter the file system's reclaim, and those that may not.
GFP: Final = {"KERNEL": True, "NOFS": False, "NOIO": False, "NOWAIT": False, "ATOMIC": False}

_serials: Final = itertools.count(1)


class IllFormedError(Exception):
    """The file isn't of the form that it should have."""


class UnknownError(Exception):
    """A scenario says something that this runner doesn't know."""


class SimulatedLock:
    """A lock that never blocks; ``grants`` is what a try-acquire comes to, where the scenario says it."""

    def __init__(self) -> None:
        self.holds = 0
        self.held_by_other = False
        self.grants: bool | None = None

    def acquire(self, blocking: bool = True, *, shared: bool = False) -> bool:
        """Take it."""
        granted = True if blocking else self.grants
        if granted is None:
            granted = not (self.holds or self.held_by_other)
        self.holds += granted
        return granted

    def release(self, *, shared: bool = False) -> None:
        """Let go of it; to do that once too often is for the engine to notice."""
        self.holds = max(0, self.holds - 1)


class Scenario:
    """One scenario that is being played: its locks by name, and what it has entered."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.number = next(_serials)
        self.locks: dict[str, Tracked] = {}
        self.specs: dict[str, dict[str, Any]] = case["locks"]
        self.names: dict[str, str] = {}
        self.suppressed: dict[str, int] = {}
        #: for each context that is running, outermost first: its name, how to leave it, and what it has masked
        self.contexts: list[tuple[str, list[Any], dict[str, Any]]] = [("", [], {})]
        for name, spec in self.specs.items():
            self.locks[name] = self._make(spec)
            self.names[name] = self.locks[name].lock_class.name

    def _make(self, spec: dict[str, Any], subclass: int = 0) -> Tracked:
        kind = KINDS.get(spec["kind"])
        if kind is None:
            raise UnknownError(f"unknown kind of lock {spec['kind']!r}; known are {', '.join(KINDS)}")
        key = f"selftest {self.number}: {spec['class']}" + (f"/{subclass}" if subclass else "")
        lock_class = REGISTRY.get(key, spec["class"], kind)
        return Tracked(SimulatedLock(), lock_class, True, ("acquire", "release"))

    def lock(self, name: object) -> Tracked:
        """A lock of the scenario."""
        if not isinstance(name, str) or name not in self.locks:
            raise UnknownError(f"unknown lock {name!r}; there are {', '.join(self.locks) or 'none'}")
        return self.locks[name]

    def play(self, step: list[Any]) -> None:
        """One operation."""
        op, *arguments = step
        method: Callable[..., None] | None = OPS.get(op)
        if method is None:
            raise UnknownError(f"unknown operation {op!r}; known are {', '.join(OPS)}")
        options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
        try:
            inspect.signature(method).bind(self, *arguments, **options)
        except TypeError as error:
            raise UnknownError(f"{op}: {error}") from None
        method(self, *arguments, **options)

    # --- locks

    def acquire(
        self, name: str, mode: str = "excl", *, nest: str | None = None, interruptible: bool = False,
        killable: bool = False,
    ) -> None:  # fmt: skip
        """A blocking acquire; to be interruptible or killable makes no difference to what it waits for."""
        shared = _one_of("mode", mode, MODES)
        if nest is None:
            self.lock(name).acquire(shared=shared)
        else:
            self.lock(name).acquire(shared=shared, nest_under=self.lock(nest))

    def try_acquire(self, name: str, mode: str = "excl", *, returns: bool | None = None) -> None:
        """An acquire that doesn't wait."""
        shared = _one_of("mode", mode, MODES)
        self.simulated(name).grants = returns
        self.lock(name).acquire(blocking=False, shared=shared)

    def release(self, name: str) -> None:
        """Let go of the innermost hold."""
        self.lock(name).release()

    def reinit(self, name: str) -> None:
        """Initialise the lock object again."""
        self.lock(name)._at_fork_reinit()

    def other_hold(self, name: str) -> None:
        """Somebody else holds it."""
        self.simulated(name).held_by_other = True

    def other_release(self, name: str) -> None:
        """Somebody else doesn't hold it any more."""
        self.simulated(name).held_by_other = False

    def simulated(self, name: str) -> SimulatedLock:
        """What is behind the stand-in."""
        found: SimulatedLock = self.lock(name)._obj
        return found

    def set_subclass(self, name: str, subclass: int) -> None:
        """From now on it follows the rules of another class of the same name."""
        self.lock(name)
        self.locks[name] = self._make(self.specs[name], subclass)

    def assert_name_unchanged(self, name: str) -> None:
        """What it is called must be the same as in the beginning."""
        now = self.lock(name).lock_class.name
        if now != self.names[name]:
            raise UnknownError(f"the lock {name} was called {self.names[name]!r}, and is called {now!r} now")

    # --- contexts

    def irq_enter(self, context: str, *, threaded: bool = True) -> None:
        """An asynchronous context begins, in which nobody may sleep, whether or not its handler has a thread."""
        masks = _one_of("context", context, INTERRUPTS)
        entered = [ctxcheck.interrupt(context, masks=masks).enter(), ctxcheck.atomic(context).__enter__()]
        self.contexts.append((context, entered, {}))

    def irq_exit(self, context: str) -> None:
        """It ends."""
        inside, entered, masked = self.contexts[-1]
        if inside != context:
            raise UnknownError(f"irq_exit: {context!r} isn't the context that is running")
        for section in (*reversed(masked.values()), *reversed(entered)):
            section.__exit__(None, None, None)
        self.contexts.pop()

    def irq_disable(self, context: str) -> None:
        """Mask a context; it doesn't count how often."""
        names = _one_of("context", context, MASKS)
        masked = self.contexts[-1][2]
        if context not in masked:
            masked[context] = ctxcheck.masked(*names).enter()

    def irq_enable(self, context: str) -> None:
        """Unmask a context."""
        _one_of("context", context, MASKS)
        section = self.contexts[-1][2].pop(context, None)
        if section is not None:
            section.exit()

    # --- pseudo-locks

    def might_enter(self, name: str, *, gfp: str = "KERNEL") -> None:
        """What follows could enter the context that the map stands for."""
        lock = self.lock(name)
        if _one_of("gfp", gfp, GFP) and not self.suppressed.get(name):
            lock.acquire()
            lock.release()

    def scope_suppress(self, name: str) -> None:
        """It can't be entered from here on."""
        self.lock(name)
        self.suppressed[name] = self.suppressed.get(name, 0) + 1

    def scope_restore(self, name: str) -> None:
        """It can be entered again."""
        self.lock(name)
        self.suppressed[name] = max(0, self.suppressed.get(name, 0) - 1)


OPS: Final[dict[str, Callable[..., None]]] = {
    **{
        name: getattr(Scenario, name)
        for name in (
            "acquire", "try_acquire", "release", "reinit", "other_hold", "other_release", "set_subclass",
            "assert_name_unchanged", "irq_enter", "irq_exit", "irq_disable", "irq_enable", "might_enter",
            "scope_suppress", "scope_restore",
        )
    },
    # without a context these are as other locks
    "ww_lock1": Scenario.acquire,
    "ww_trylock": lambda self, name, **options: self.try_acquire(name, **options),
    "ww_unlock": Scenario.release,
}  # fmt: skip


def _one_of(what: str, given: object, known: dict[str, Any]) -> Any:
    if not isinstance(given, str) or given not in known:
        raise UnknownError(f"unknown {what} {given!r}; known are {', '.join(known)}")
    return known[given]


def found_in(case: dict[str, Any]) -> list[str]:
    """Play a scenario; return what was found by its last step, a text each.

    Raises:
        UnknownError: it uses something unknown, or claims what isn't so.
    """
    with Session(owners="assumed") as session:
        scenario = Scenario(case)
        for number, step in enumerate(case["steps"], 1):
            try:
                scenario.play(step)
            except DeadlockError:
                pass  # it was found; a step never blocks, so the next one can follow
            except UnknownError as error:
                raise UnknownError(f"step {number}: {error}") from None
        # now, and not at the end of the session: what is still held then is a finding of its own
        return [f"{violation.rule} {violation.grade}: {violation.message}" for violation in session.violations]


def judge(case: dict[str, Any]) -> str | None:
    """Play a scenario; return in which way it doesn't match, or ``None``."""
    try:
        found = found_in(case)
    except UnknownError as error:
        return str(error)
    except Exception as error:  # a scenario that breaks the checker must not hide the others
        return f"{type(error).__name__}: {error}"
    if case["expect"] == "report":
        return None if found else "expected a report, nothing was found"
    return f"expected none, found {'; '.join(found)}" if found else None


def read(path: str) -> list[dict[str, Any]]:
    """Read a file of scenarios; return those that are applicable.

    Raises:
        IllFormedError: it can't be read, or isn't of this form.
    """
    try:
        with open(path, encoding="utf-8") as file:
            data: Any = json.load(file)
    except OSError as error:
        raise IllFormedError(error.strerror or str(error)) from None
    except ValueError as error:
        raise IllFormedError(f"not JSON: {error}") from None
    cases = data.get("cases") if isinstance(data, dict) else None
    if not isinstance(cases, list):
        raise IllFormedError('there is no list "cases" at the top')
    for number, case in enumerate(cases, 1):
        _check(case, number)
    return [case for case in cases if case.get("applicable", "yes") == "yes"]


def _check(case: Any, number: int) -> None:
    name = case.get("name") if isinstance(case, dict) else None
    where = f"case {number}" + (f" ({name})" if isinstance(name, str) else "")
    if not isinstance(case, dict):
        raise IllFormedError(f"{where} is not an object")
    for key, kind in (("name", str), ("locks", dict), ("steps", list)):
        if not isinstance(case.get(key), kind):
            raise IllFormedError(f"{where}: {key!r} is not {'an object' if kind is dict else f'a {kind.__name__}'}")
    if case.get("expect") not in ("report", "clean"):
        raise IllFormedError(f"{where}: 'expect' is {case.get('expect')!r}, not 'report' or 'clean'")
    if case.get("applicable", "yes") not in ("yes", "no"):
        raise IllFormedError(f"{where}: 'applicable' is {case['applicable']!r}, not 'yes' or 'no'")
    for lock, spec in case["locks"].items():
        if not isinstance(spec, dict) or not all(isinstance(spec.get(key), str) for key in ("kind", "class")):
            raise IllFormedError(f"{where}: lock {lock!r} has no kind and class")
    for at, step in enumerate(case["steps"], 1):
        if not isinstance(step, list) or not step or not isinstance(step[0], str):
            raise IllFormedError(f"{where}: step {at} is not a list that begins with an operation")


def main(arguments: list[str] | None = None) -> int:
    """Play a file; return the exit status."""
    parser = argparse.ArgumentParser(description="Play a file of lock validator scenarios on ctxcheck's engine.")
    parser.add_argument("file", help="such as lockdep_selftests.json")
    path = parser.parse_args(arguments).file
    try:
        cases = read(path)
    except IllFormedError as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 2
    failed = 0
    for case in cases:
        mismatch = judge(case)
        if mismatch is not None:
            failed += 1
            print(f"{case['name']}: {mismatch}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
