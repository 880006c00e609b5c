"""What a project's configuration, and packages that it uses, say of functions of somebody else's.

``[[tool.ctxcheck.may-sleep]] target = "requests.sessions.Session.send"`` is ``@might_sleep`` on that method, put there
as soon as its module is imported, and taken away exactly; ``atomic`` and ``requires-lock`` likewise.  Packages ship
theirs by the entry point group ``ctxcheck.catalogue``: what it names is a list of tables, or a function without
arguments that returns one; each has the keys of the configuration, and ``marker`` ("may-sleep", "atomic",
"requires-lock").
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Final, cast

from ctxcheck import imports
from ctxcheck.config import ConfigError, Place, read_target
from ctxcheck.keys import KEYS, Target
from ctxcheck.markers.contexts import Atomic, Sleeps
from ctxcheck.markers.held import requires_lock
from ctxcheck.probes.patches import Patches

GROUP: Final = "ctxcheck.catalogue"
_MARKERS: Final = ("may-sleep", "atomic", "requires-lock")


class Targets:
    """The marks of one run.

    ``warn`` is given a line for each target that doesn't resolve when its module comes; ``unresolved`` keeps them.
    """

    def __init__(self, targets: Iterable[Target], warn: Callable[[str], object]) -> None:
        self.unresolved: list[str] = []
        self._targets = tuple(targets)
        self._warn = warn
        self._patches: Patches = Patches()
        self._actions: list[Callable[[Any], None]] = []
        self._waiting: dict[Target, None] = {}
        self._marked: dict[int, tuple[Any, Any]] = {}

    def install(self) -> None:
        """Mark what is imported, and the rest when it is; if it fails, nothing is marked."""
        try:
            for target in self._targets:
                self._waiting[target] = None
                action = self._action(target)
                self._actions.append(action)
                parts = target.target.split(".")
                for length in range(1, len(parts)):
                    if target in self._waiting:
                        imports.when_imported(".".join(parts[:length]), action)
        except BaseException:
            self.uninstall()
            raise

    def uninstall(self) -> None:
        """Take all of it away; what somebody else has put in a place since is left to them."""
        while self._actions:
            imports.forget(self._actions.pop())
        self._patches.restore()
        self._patches = Patches()
        self._follow({id(new): (new, old) for old, new in self._marked.values()}, record=False)
        self._marked.clear()
        self._waiting.clear()

    def never_imported(self) -> list[str]:
        """The targets whose modules didn't come."""
        return [target.target for target in self._waiting]

    def _action(self, target: Target) -> Callable[[Any], None]:
        def action(module: Any) -> None:
            if target in self._waiting:
                try:
                    done = self._mark(target, module)
                except Exception as error:
                    done = True
                    self._complain(f"{target.marker} target {target.target!r}: {error}")
                if done:
                    self._waiting.pop(target, None)

        return action

    def _complain(self, line: str) -> None:
        self.unresolved.append(line)
        self._warn(line)

    def _mark(self, target: Target, module: Any) -> bool:
        """Mark it, if this is the module that has it; whether there is nothing to wait for any more."""
        rest = target.target[len(module.__name__) + 1 :].split(".")
        owner: Any = module
        for index, part in enumerate(rest):
            found = getattr(owner, part, None)
            if found is None:
                if owner is module and _has_submodule(module, part):
                    return False
                where = ".".join((module.__name__, *rest[:index]))
                self._complain(f"{target.marker} target {target.target!r}: {where} has no {part!r}{_near(part, owner)}")
                return True
            if index == 0 and isinstance(found, ModuleType) and len(rest) > 1:
                if found.__name__ == f"{module.__name__}.{part}":
                    return False  # its own import is waited for
                return self._mark_in(target, found, rest[1:])
            if index < len(rest) - 1:
                owner = found
        return self._mark_in(target, owner, rest[-1:])

    def _mark_in(self, target: Target, owner: Any, rest: list[str]) -> bool:
        for part in rest[:-1]:
            owner = getattr(owner, part)
        name = rest[-1]
        homes = owner.__mro__ if isinstance(owner, type) else (owner,)
        original = next((vars(home)[name] for home in homes if name in vars(home)), None)
        if original is None:
            original = getattr(owner, name)
        new = _marker(target)(original)
        if new is original:
            return True
        self._patches.replace(owner, name, new)
        if isinstance(owner, ModuleType):
            self._marked[id(original)] = (original, new)
            self._follow({id(original): (original, new)}, record=True)
        return True

    def _follow(self, wanted: dict[int, tuple[Any, Any]], *, record: bool) -> None:
        """Also where modules of the same package have imported the name."""
        if not wanted:
            return
        packages = {target.target.partition(".")[0] for target in self._targets}
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] not in packages or type(module) is not ModuleType:
                continue
            for key, value in list(vars(module).items()):
                pair = wanted.get(id(value))
                if pair is None or pair[0] is not value:
                    continue
                if record:
                    self._patches.replace(module, key, pair[1])
                else:
                    setattr(module, key, pair[1])


def _marker(target: Target) -> Callable[[Any], Any]:
    if target.marker == "may-sleep":
        return Sleeps(target.reason or None, cast("Any", target.category or "wait"))
    if target.marker == "atomic":
        return Atomic(target.label or None)
    return requires_lock(target.lock)


def _has_submodule(module: Any, name: str) -> bool:
    import importlib.util

    try:
        return hasattr(module, "__path__") and importlib.util.find_spec(f"{module.__name__}.{name}") is not None
    except (ImportError, ValueError):
        return False


def _near(word: str, owner: Any) -> str:
    import difflib

    found = difflib.get_close_matches(word, dir(owner), 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def shipped(warn: Callable[[str], object]) -> list[Target]:
    """What the installed packages say, by their entry points; one that is wrong is named to ``warn``, and skipped."""
    found: list[Target] = []
    if not _is_shipped():
        return found
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        where = f"entry point {point.name!r} of {GROUP} ({point.value})"
        try:
            rows: Any = point.load()
            rows = rows() if callable(rows) else rows
            for row in list(rows):
                found.append(_row(row, where))
        except Exception as error:
            warn(f"{where}: {error}" if isinstance(error, ConfigError) else f"{where}: {type(error).__name__}: {error}")
    return found


def _is_shipped() -> bool:
    """Whether any package in a folder of ``sys.path`` says something: `importlib.metadata` is dear to import."""
    for folder in dict.fromkeys(sys.path):
        try:
            with os.scandir(folder or ".") as entries:
                names = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for name in names:
            try:
                with open(os.path.join(name, "entry_points.txt"), encoding="utf-8", errors="replace") as file:
                    if f"[{GROUP}]" in file.read():
                        return True
            except OSError:
                continue  # it has none
    return False


def _row(row: Any, where: str) -> Target:
    if not isinstance(row, dict):
        raise ConfigError(f"has the item {row!r}; allowed: tables with marker and target")
    table = dict(cast("dict[str, Any]", row))
    marker = table.pop("marker", None)
    if marker not in _MARKERS:
        raise ConfigError(f"has the marker {marker!r}; allowed: {', '.join(_MARKERS)}")
    return read_target(table, KEYS[marker], Place(where, ""))
