"""What a probe of a call that may block says before it makes the call."""

from __future__ import annotations

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.blocking import Blocking, judge
from ctxcheck.engine.classes import EVERYTHING
from ctxcheck.engine.owner import VOID


def before(call: Blocking) -> None:
    """The calling owner is about to make ``call``, which may block the thread.

    Judged whether or not it would block this time.  Costs a read of the owner's state where nothing is held and nothing
    is forbidden, one lookup more where the same was found to be fine before.  May raise what the session's mode says.
    """
    try:
        st = fastpath._local.st
    except AttributeError:
        st = fastpath.begin()
    cur = st.cur
    if cur.allows != EVERYTHING and cur.get(call.step) is None and cur is not VOID and st.engine is not None:
        slowpath.consult(judge, st.engine, st, call)
