"""What a probe of a call that may block says before it makes the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.blocking import Blocking, judge
from ctxcheck.engine.classes import EVERYTHING
from ctxcheck.engine.owner import OFF, VOID, OwnerState
from ctxcheck.engine.raw import get_frame
from ctxcheck.engine.sites import PACKAGE_DIR

#: What calls from here is the checker itself: it reads the program's source, and writes its own files.
_MACHINERY: Final = tuple(
    PACKAGE_DIR + room
    for room in (
        "engine", "reports", "datafile", "records", "session", "wording", "books", "acceptance", "recorder", "evidence",
        "baseline", "outputs", "dumps", "notices", "children", "forked", "runner", "running", "cli", "pytest_plugin",
    )
)  # fmt: skip


def before(call: Blocking) -> None:
    """The calling owner is about to make ``call``, which may block the thread.

    Judged whether or not it would block this time.  Costs a read of the owner's state where nothing is held and nothing
    is forbidden, one lookup more where the same was found to be fine before.  May raise what the session's mode says.
    """
    try:
        st = fastpath._local.st
    except AttributeError:
        st = begin()
    cur = st.cur
    if cur.allows != EVERYTHING and cur.get(call.step) is None and cur is not VOID and st.engine is not None:
        slowpath.consult(judge, st.engine, st, call)


def begin(fast: Any = fastpath, off: OwnerState = OFF) -> OwnerState:
    """The calling owner's state at its first step; also when the interpreter has taken its modules apart already."""
    return off if getattr(fast, "_local", None) is None else fast.begin()


def ahead(
    call: Blocking, quick: Callable[[Any, Any], bool] | None, args: Any, kwargs: Any, state: OwnerState
) -> None:
    """As :func:`before`, for a call with these arguments, made by the caller's caller, who isn't allowed everything;
    ``quick`` says whether it can't block."""
    cur = state.cur
    if cur.get(call.step) is not None or cur is VOID or state.engine is None:
        return
    if quick is not None:
        try:
            if quick(args, kwargs):
                return
        except Exception:  # it is the call itself that refuses wrong arguments
            return
    if not get_frame(2).f_code.co_filename.startswith(_MACHINERY):
        slowpath.consult(judge, state.engine, state, call)
