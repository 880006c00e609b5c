"""Orders that the interpreter's own library makes among its own locks: nobody who runs a program can mend them.

``logging.config`` takes handlers' locks under the one of the module, ``logging.shutdown`` the other way round.
Such orders stay in the graph, since a program's own may close a circle with them; a circle of nothing else isn't told.

An order is the library's own if both locks were made by its code, and are taken by it, and whoever holds the
first is part of it too.  Who that is, can't be asked for: a hold remembers where it was *first* taken.  But it is a
function of the library that is running, of the package that takes the lock.  If all of those that are running were
called, through the library alone, from one place of the program, then no code of the program ran between the two;
and if the program called what takes the lock and returns with it (``Handler.acquire``), it is the holder itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from types import FrameType
from typing import Any, Final

from ctxcheck.engine.classes import LockClass
from ctxcheck.engine.graph import Edge, Evidence, Witness
from ctxcheck.engine.sites import Trace

#: Where the library lives; ``test`` lies there, and isn't of it.
_HOME: Final = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def is_librarys(classes: tuple[LockClass, ...], evidence: dict[Edge, Evidence]) -> bool:
    """Whether the library alone makes this circle of orders: each of them, in every way that it was seen."""
    edges = zip(classes, (*classes[1:], classes[0]), strict=True)
    return all(nests_its_own(edge[0], evidence[edge].witnesses) for edge in edges)


def nests_its_own(lock_class: LockClass, witnesses: Iterable[Witness]) -> bool:
    """Whether a class's locks were made by the library, and others taken under them by it alone, each time.

    What is waited for is another matter (CTX006): whom the library waits for may run anything.
    """
    ours = lock_class.base.library and not lock_class.kind.awaited
    return ours and all(map(_made_by_library, witnesses))


def interrupts_library(held: LockClass, interrupted: Witness, orders: Iterable[Witness]) -> bool:
    """Whether what is interrupted is the library at its own lock, and the library alone makes the orders that lead
    there: a finalizer that logs can't but run into those of ``logging``."""
    holder = _packages(interrupted.held_at)[:1]
    return held.base.library and all(holder) and bool(holder) and all(map(_made_by_library, orders))


def _made_by_library(witness: Witness) -> bool:
    held, stack = _packages(witness.held_at), _packages(witness.taken_at)
    holder = held[0] if held else ""
    if not holder or (not witness.held_mode.scoped and not all(held[1:2])):
        return False
    # the calls within the library, from the acquire out to the place in the program that they came from
    inside = next((index for index, package in enumerate(stack) if not package), len(stack))
    return holder in stack[:inside] and holder not in stack[inside:]


def _packages(trace: Trace) -> list[str]:
    return [package_of(code.co_filename) for code in trace.codes]


@lru_cache(maxsize=4096)
def package_of(filename: str) -> str:
    """The top-level package or module of the standard library that a file belongs to, "" if it is none of its."""
    if filename.startswith("<frozen "):
        name = filename[len("<frozen ") : -1]
    elif filename.startswith(_HOME):
        name = filename[len(_HOME) :].replace(os.sep, ".").removesuffix(".py")
    else:
        return ""
    top = name.partition(".")[0]
    return top if top in sys.stdlib_module_names else ""


def is_made_up(frame: FrameType) -> bool:
    """Whether a function runs that was made from text, in no file and no module, as the standard library makes the
    methods of its proxies (``multiprocessing.managers``): nobody can look it up."""
    # the dict may be of a class of the program's, whose methods must not run here
    return frame.f_code.co_filename.startswith("<") and dict[str, Any].get(frame.f_globals, "__name__") is None
