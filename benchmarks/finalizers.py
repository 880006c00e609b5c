"""The rows about finalizers: an object that is made and let go of, with a ``__del__`` that takes no lock, and what a
collection and a class statement cost."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import ctxcheck
from benchmarks.cases import Line
from benchmarks.measure import Case, Names, Setup

#: The most that an object with a finalizer may cost, as a ratio to the same without the probes.
ON: Final = 8.0
OFF: Final = 3.5


class _Finalized:
    def __del__(self) -> None:
        return None


def _using(**objects: Any) -> Setup:
    @contextmanager
    def setup() -> Generator[Names]:
        yield objects

    return setup


def _installed(**objects: Any) -> Setup:
    @contextmanager
    def setup() -> Generator[Names]:
        ctxcheck.install()
        try:
            with ctxcheck.Lock(name="finalizers"):  # whoever has taken no step at all is another matter
                pass
            yield objects
        finally:
            ctxcheck.uninstall()

    return setup


def lines() -> list[Line]:
    """The rows about finalizers, the probes in place ("installed") and while checking ("on")."""

    def line(what: str, case: Case, to: str = "", target: float | None = None) -> Line:
        return Line("finalizers", what, case, to or case.name, target, ("install", "uninstall"))

    collect: Callable[[], int] = _youngest
    return [
        line("raw: object with __del__", Case("del", "f()", _using(f=_Finalized))),
        line("object with __del__, installed", Case("del-installed", "f()", _installed(f=_Finalized)), "del", OFF),
        line("object with __del__, on", Case("del-on", "f()", _installed(f=_Finalized), checking=True), "del", ON),
        line("raw: collection of nothing", Case("collect", "f()", _using(f=collect))),
        line("collection of nothing, on", Case("collect-on", "f()", _installed(f=collect), checking=True), "collect"),
        line("raw: class statement", Case("class", "class C: pass", _using())),
        line("class statement, installed", Case("class-installed", "class C: pass", _installed()), "class"),
    ]


def _youngest() -> int:
    return gc.collect(0)
