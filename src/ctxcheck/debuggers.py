"""Whether a debugger is at this thread: then nothing is raised that the program wouldn't raise itself."""

from __future__ import annotations

import sys
from typing import Any, cast

_MODULES = ("bdb", "pdb", "pydevd", "_pydevd", "debugpy")


def attached() -> bool:
    """Whether a debugger traces the calling thread: one built on ``bdb`` (``pdb``, IDLE's) or on ``pydevd``.

    Others that trace, coverage say, are no debuggers.
    """
    trace = sys.gettrace()
    if trace is not None:
        of: Any = getattr(trace, "__self__", None)
        kinds = cast("Any", type(of)).__mro__ if of is not None else (trace,)
        if any(_is_debuggers(getattr(kind, "__module__", None)) for kind in kinds):
            return True
    monitoring: Any = getattr(sys, "monitoring", None)
    return monitoring is not None and monitoring.get_tool(monitoring.DEBUGGER_ID) is not None


def _is_debuggers(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0].startswith(_MODULES)
