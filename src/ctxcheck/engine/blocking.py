"""Calls that may block the thread: whether they may here, and what is held over them (CTX101, CTX103, CTX105, CTX106).

A call is judged where it is made, whether or not it would have blocked this time.  What is asked for is a permission,
:data:`~ctxcheck.engine.classes.BLOCK`: atomic code has lost it, and so has whatever an event loop runs.  The locks that
are held meanwhile are *slow*: whoever waits for one of them waits for that call (``slow.py``).  A context of the
program's own may forbid calls by their category.

Exempt on a loop, not in atomic code, is what nobody who writes for the loop decides on: asyncio's own machinery, the
import of a module, a job's way into a pool of processes, and what the standard library reads once and keeps.
"""

from __future__ import annotations

import os
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, final

from ctxcheck.engine import behalf
from ctxcheck.engine.blame import is_made_up, package_of
from ctxcheck.engine.classes import BLOCK, EVENT_LOOP, ContextStep
from ctxcheck.engine.contexts import forbidding
from ctxcheck.engine.owner import ROOT_STEP, VOID, Node, OwnerState
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.rules import Grade
from ctxcheck.engine.sites import EMPTY, MAX_DEPTH, RUNNER, Trace, is_own
from ctxcheck.engine.slow import holds
from ctxcheck.engine.telling import report_forbidden, report_sleep

if TYPE_CHECKING:
    from ctxcheck.engine.validator import Validator

Category = Literal["sleep", "wait", "network", "process", "file", "metadata", "database"]
#: What a call waits for: the clock, another thread, a peer, another process, the contents of a file, the names and
#: attributes of files, a database.
CATEGORIES: Final[tuple[Category, ...]] = ("sleep", "wait", "network", "process", "file", "metadata", "database")


@final
class Codes:
    """Code objects, by identity: to hash one hashes its contents."""

    __slots__ = ("_codes",)

    def __init__(self) -> None:
        self._codes: dict[int, CodeType] = {}

    def add(self, code: CodeType) -> None:
        """Take one in, for good."""
        self._codes[id(code)] = code

    def __contains__(self, code: CodeType) -> bool:
        return id(code) in self._codes


#: The code of those functions that run a step of an event loop: what called them is no part of what the step does.
steps_of_loops: Final = Codes()
#: The code of those probes inside of which nothing of the program's own runs: a call that they make is theirs.
covering: Final = Codes()


@final
class Blocking:
    """One call that may block: ``name`` for people, ``category``, and the step that says "judged here before".

    ``lasting``: it is made again and again, so that what was found to be fine is worth remembering.  ``ignored``: who
    runs the program doesn't want to hear of it.
    """

    __slots__ = ("category", "ignored", "lasting", "name", "step")

    def __init__(self, name: str, category: Category, *, lasting: bool = True) -> None:
        self.name: str = name
        self.category: Category = category
        self.lasting: bool = lasting
        self.ignored: bool = False
        self.step: ContextStep = ContextStep("call", name, detail=category)

    def __repr__(self) -> str:
        return f"<Blocking {self.name} {self.category}>"


def _make_known() -> Node:
    nobody: Any = None
    return Node(None, ROOT_STEP, nobody, EMPTY)


#: In place of a node, under the step of a call that was judged there, and found to be fine.
KNOWN: Final = _make_known()

#: Packages of the standard library that read something once and keep it, or serve a person who is looking.
_ONCE: Final = frozenset(
    {"encodings", "gettext", "importlib", "linecache", "locale", "mimetypes", "pkgutil", "platform", "sysconfig",
     "tokenize", "traceback", "uuid", "zoneinfo", "bdb", "cmd", "code", "pdb"}
)  # fmt: skip
#: Single functions that do so.
_ONCE_FUNCTIONS: Final = frozenset(
    {("tempfile", "_get_default_tempdir"), ("ssl", "load_default_certs"), ("random", "seed"), ("getpass", "getuser")}
)
#: Folders of what watches a program while it runs: what these call themselves is no part of it.
_TOOLS: Final = tuple(
    f"{os.sep}site-packages{os.sep}{name}{os.sep}"
    for name in (
        "coverage", "_pytest", "pluggy", "xdist", "execnet", "debugpy", "_pydevd_bundle", "_pydev_bundle",
        "pydevd_plugins",
    )
)  # fmt: skip
_STARTS: Final = ("threading", "Thread.start")
#: Calls that are remembered by their names; a program that makes them up at run time must not fill the memory.
MAX_NAMES: Final = 1_000


class Where(NamedTuple):
    """Where a call is made: the stack of the loop's step (all of it, where there is none), from the program's own code
    on (``trace``) and with the library's functions that it called (``full``); whether the call is exempt, and whether
    it writes a log."""

    trace: Trace
    full: Trace
    exempt: bool
    logs: bool


_named: Final[dict[tuple[str, Category], Blocking]] = {}


def call_named(name: str, category: Category) -> Blocking:
    """The call of this name: always the same one, up to :data:`MAX_NAMES`."""
    key = (name, category)
    found = _named.get(key)
    if found is None:
        found = Blocking(name, category, lasting=len(_named) < MAX_NAMES)
        if found.lasting:
            found = _named.setdefault(key, found)
    return found


def judge(
    engine: Validator,
    state: OwnerState,
    call: Blocking,
    released: Node | None = None,
    how: Literal["", "marked", "start", "end"] = "",
    declared: Trace = EMPTY,
    why: str = "",
) -> None:
    """``state`` is about to make ``call``; ``released`` is the hold of a lock that it gives back meanwhile.

    ``how``, ``declared`` and ``why`` tell of the marker that says so, where it is one.

    May raise what ``on_finding`` raises.  Costs a walk up the stack unless the same was judged, and found to be fine,
    where the owner stands now.
    """
    state.settle()
    cur = state.cur
    if cur is VOID or call.ignored or cur.get(call.step) is not None:
        return
    fine = call.lasting
    where: Where | None = None
    allowed = True
    # the hold that is given back takes nothing away meanwhile
    if not cur.allows & BLOCK and any(n.step.takes & BLOCK and n.stands_for is not released for n in cur.inside()):
        fine = allowed = False
        where = look_around()
        _not_allowed(engine, state, call, where, how, declared, why)
    for entry in forbidding(cur, call.category):
        fine = False
        where = where or look_around()
        if not where.exempt:
            report_forbidden(engine, state, call.name, call.category, entry, where.trace, declared, why)
    # what is wrong by itself says nothing of the locks that it is done under
    held = holds(cur, released) if allowed else []
    if held:
        where = where or look_around()
        if where.exempt or released is not None:
            fine = False  # the same call may come from elsewhere, or give back another one
        if not where.exempt:
            engine.of(state).slow.over(state, call, held, where)
    if fine and state.cur is cur and engine.room():
        cur[call.step] = KNOWN


def _not_allowed(
    engine: Validator, state: OwnerState, call: Blocking, where: Where, how: str, declared: Trace, why: str
) -> None:
    """Report it (CTX101, CTX103)."""
    because = state.cur.because(BLOCK)
    if because is None:
        return
    if because.step is EVENT_LOOP:
        if not where.exempt:
            logs = where.logs and call.category == "file"
            grade: Grade = "unlikely" if logs else "certain"
            how = how or "blocks"
            report_sleep(
                engine, state, call.name, how, where.trace, declared=declared, why=why, grade=grade, full=where.full
            )
    elif not any(code in covering for code in where.full.codes):
        report_sleep(engine, state, call.name, how or "wait", where.trace, declared=declared, why=why, full=where.full)


def _is_machinery(package: str, name: str, *, inside: bool) -> bool:
    """Whether a function of the standard library waits for nobody but its own: what asyncio itself and a thread's start
    call, and whatever a pool of processes does to take a job (the way off the loop), and multiprocessing's notes to the
    process that tidies up after it.  ``inside``: the call is made by another function, which this one called."""
    if not inside and (package == "asyncio" or (package, name) == _STARTS):
        return True
    if package == "concurrent":
        return name == "ProcessPoolExecutor.submit"
    return package == "multiprocessing" and name.startswith("ResourceTracker.")


def look_around() -> Where:
    """Look at who makes a call: up to the step of the event loop that it is part of."""
    frame: Any = get_frame(1)
    while frame is not None and is_own(frame.f_code) and frame.f_code not in covering:
        frame = frame.f_back
    if frame is not None and frame.f_code in covering:
        frame = frame.f_back
    codes: list[CodeType] = []
    lastis: list[int] = []
    exempt = logs = decided = False
    package, first = "", 0
    while frame is not None and len(codes) < MAX_DEPTH:
        code = frame.f_code
        if code in steps_of_loops:
            break
        if is_own(code) and code not in covering:
            if code.co_filename == RUNNER:
                break  # what called it is how the program was started
            frame = frame.f_back  # a probe or a wrapper in between
            continue
        inner, package = package, package_of(code.co_filename)
        if not package and inner and is_made_up(frame):
            package = inner  # made by the library, to call it
        # the first one that isn't the library's: it decides what is called
        watches = not (package or decided) and any(folder in code.co_filename for folder in _TOOLS)
        if not (package or decided):
            decided, first = True, len(codes)
        if watches or code in covering or package in _ONCE or (package, code.co_name) in _ONCE_FUNCTIONS:
            exempt = True
        elif package:
            if _is_machinery(package, code.co_qualname, inside=bool(codes)):
                exempt = True
            elif package == "logging":
                logs = True
        codes.append(code)
        lastis.append(frame.f_lasti)
        frame = frame.f_back
    full = trace = Trace(tuple(codes), tuple(lastis), behalf.now())
    if first:
        trace = Trace(full.codes[first:], full.lastis[first:], full.test)
    return Where(trace, full, exempt, logs)
