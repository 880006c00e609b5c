"""Proves on this interpreter that each probe of a call that may block fires, and when it doesn't.

Each call is a real one, made three times: on an event loop, where it has to be reported; there again in the way that
can't block, if it has one; and on a thread that may block.  ``ctxcheck probes --selftest`` runs it, and so do the
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from ctxcheck.engine.violations import Violation
from ctxcheck.probes.catalogue import ENTRIES, Entry
from ctxcheck.session import checking

#: The name under which the calls are compiled: so they count as a program's.
_FILENAME: Final = "<selftest of ctxcheck>"


class Outcome(NamedTuple):
    """What became of one row: ``problem`` is empty if it is as it should be; ``skipped`` why it wasn't tried."""

    name: str
    problem: str = ""
    skipped: str = ""


def cases() -> dict[str, Any]:
    """The names of the module with the calls (``probes/cases.py``), as a program's own module."""
    import importlib.resources

    source = importlib.resources.files("ctxcheck.probes").joinpath("cases.py").read_text("utf-8")
    names: dict[str, Any] = {"__name__": "ctxcheck_selftest"}
    exec(compile(source, _FILENAME, "exec"), names)  # our own file
    return names


def run(active: Iterable[str]) -> Iterator[Outcome]:
    """Try each row of the catalogue; ``active`` are the names of those that are in place.  Costs some seconds."""
    there = frozenset(active)
    names = cases()
    for entry in ENTRIES.values():
        _import(entry.module)
        absent = entry.absent()
        if absent or entry.name not in there:
            yield Outcome(entry.name, skipped=absent or "not asked for")
        elif entry.name not in names["CASES"]:
            yield Outcome(entry.name, "has no self-test")
        else:
            yield Outcome(entry.name, "; ".join(_problems(entry, names["Scene"], *names["CASES"][entry.name])))


def _import(name: str) -> None:
    import importlib

    try:
        importlib.import_module(name)
    except ImportError:
        pass  # it is absent, then


def _problems(entry: Entry, scene: Any, call: Callable[[Any], Any], quick: Callable[[Any], Any] | None) -> list[str]:
    found: list[str] = []
    for what, function, on_loop, expected in (
        ("doesn't fire on an event loop", call, True, True),
        (f"fires {entry.unless}", quick, True, False),
        ("fires outside of any context", call, False, False),
    ):
        if function is None:
            continue
        try:
            fired = _fires(entry, scene, function, on_loop=on_loop)
        except Exception as error:
            found.append(f"the self-test broke: {type(error).__name__}: {error}")
            continue
        if fired is not expected:
            found.append(what)
    return found


def _fires(entry: Entry, scene: Any, function: Callable[[Any], Any], *, on_loop: bool) -> bool:
    import asyncio

    told: list[Violation] = []
    around = scene()
    with checking(mode=told.append):
        try:
            if on_loop:
                # a callback: a step of a task would show ours as the place
                loop = asyncio.new_event_loop()
                errors: list[Any] = []
                loop.set_exception_handler(lambda _, context: errors.append(context.get("exception")))
                try:
                    loop.call_soon(function, around)
                    loop.call_soon(loop.stop)
                    loop.run_forever()
                finally:
                    loop.close()
                if errors:
                    raise errors[0]
            else:
                function(around)
        finally:
            around.close()
    return any(f"`{entry.said}`" in violation.message for violation in told)
