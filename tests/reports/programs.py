"""Small programs, written to a file and run under the real engine, and the reports on what it finds in them."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctxcheck import aio, fastpath, markers, tasks
from ctxcheck.engine import declared
from ctxcheck.engine.classes import LOCK, RECURSIVE, RLOCK, SHARED, SPIN, Kind, LockClass, Mode
from ctxcheck.engine.findings import Finding
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.validator import Validator
from ctxcheck.engine.violations import Site, Violation
from ctxcheck.locks.composite import Event
from ctxcheck.probes import collector, finalizers
from ctxcheck.probes.patches import Patches
from ctxcheck.reports import concise, text
from ctxcheck.reports.compose import compose
from ctxcheck.reports.json import dumps, violation_from_dict

_serials = itertools.count(1)


class Lock(fastpath.BaseLock):
    __slots__ = ()


class Run:
    """One program's run: what was found, and the report on each."""

    def __init__(self, folder: Path, *, depth: int = 20, **options: Any) -> None:
        self.folder = folder
        self.depth = depth
        self.findings: list[Finding] = []
        self.violations: list[Violation] = []
        self.withdrawn: list[Finding] = []
        self.engine = Validator(self._found, self.withdrawn.append, **options)
        self._classes: dict[str, LockClass] = {}

    def _found(self, finding: Finding) -> Violation:
        self.findings.append(finding)
        self.violations.append(self.compose(finding))
        return self.violations[-1]

    def compose(self, finding: Finding) -> Violation:
        violation = compose(finding, cwd=str(self.folder), stack_depth=self.depth)
        assert not any("details are missing" in note for note in violation.notes), violation.notes
        # whatever was found can be printed, stored and read back
        for width in (40, 100):
            text.render(violation, width=width)
            text.render_short(violation, width=width)
        concise.line(violation)
        assert violation_from_dict(json.loads(dumps({"v": violation.to_dict()}))["v"]) == violation
        return violation

    def verdict(self) -> list[Violation]:
        return [self.compose(finding) for finding in self.engine.orders.verdict()]

    def of(self, rule: str) -> list[Violation]:
        return [violation for violation in self.violations if violation.rule == rule]

    def only(self, rule: str) -> Violation:
        """The one finding that there is, which is of this rule."""
        assert [violation.rule for violation in self.violations] == [rule], self.violations
        return self.violations[0]

    # --- what programs are given

    def lock(self, key: str, kind: Kind = LOCK, *, mode: Mode | None = None, order_key: Any = None) -> Lock:
        lock_class = self._classes.get(key)
        if lock_class is None:
            frame = sys._getframe(1)
            made_at = Trace((frame.f_code,), (frame.f_lasti,))
            name = key.partition(":")[2] or key
            lock_class = self._classes[key] = LockClass(key, name, kind, made_at)
        lock = Lock()
        lock._setup(lock_class, order_key)
        if mode is not None:
            lock.step = lock_class.step(mode)
        return lock

    def until(self, rule: str, grade: str = "certain", count: int = 1) -> None:
        """Wait for findings, at most half a minute."""
        end = time.monotonic() + 30
        while sum((v.rule, v.grade) == (rule, grade) for v in self.violations) < count:
            assert time.monotonic() < end, f"no {grade} {rule} in sight"
            time.sleep(0.01)

    def load(self, file: str) -> dict[str, Any]:
        """Run another file of the program's folder, and return its names."""
        path = self.folder / file
        names = self.names()
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
        return names

    def names(self) -> dict[str, Any]:
        return {
            "__name__": f"program_{next(_serials)}",
            "aio": aio,
            "Event": Event,
            "asyncio": asyncio,
            "engine": self.engine,
            "finalizers_seen": finalizers_seen,
            "in_thread": in_thread,
            "load": self.load,
            "lock": self.lock,
            "threading": threading,
            "until": self.until,
            "SPIN": SPIN,
            "RECURSIVE": RECURSIVE,
            "RLOCK": RLOCK,
            "SHARED": SHARED,
            **{name: getattr(markers, name) for name in markers.__all__},
        }

    def execute(self, code: Any, names: dict[str, Any]) -> None:
        fastpath.activate(self.engine)
        declared.begin(self.engine)
        tasks.watch()
        try:
            exec(code, names)
        finally:
            self.engine.roster.end(fastpath.current(), "program")
            self.engine.close()
            tasks.unwatch()
            declared.finish(self.engine)
            fastpath.activate(None)


@contextmanager
def finalizers_seen() -> Iterator[None]:
    """With the probes for finalizers in place."""
    patches = Patches()
    try:
        collector.watch(patches)
        finalizers.watch(patches)
        yield
    finally:
        patches.restore()


def in_thread(function: Callable[..., Any], *args: Any, name: str = "worker") -> None:
    """Run a function to its end in a thread of that name; what it raises is left to the thread."""

    def run() -> None:
        try:
            function(*args)
        except RuntimeError:
            pass

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()


def run(folder: Path, source: str, *, file: str = "bank.py", **options: Any) -> Run:
    """Run a program; its first line is line 1 of ``file``."""
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    program = textwrap.dedent(source).removeprefix("\n")
    path.write_text(program, encoding="utf-8")
    result = Run(folder, **options)
    result.execute(compile(program, str(path), "exec"), result.names())
    return result


def marked(site: Site) -> str:
    """What the carets stand under."""
    return site.text[site.column : site.end_column] if site.column >= 0 else ""


def places(violation: Violation) -> list[tuple[str, str, int, str]]:
    return [(site.role, site.file, site.line, site.function) for site in violation.sites]


def labels(violation: Violation) -> list[str]:
    return [site.label for site in violation.sites]
