"""Where the handlers of signals may not run, since what they raise would be lost: there they run a moment later.

CPython runs a handler between any two bytecodes of the main thread.  What it raises in a callback of the collector's is
printed and dropped; where we go on whatever happens, it would be taken for a fault of ours.  A test's timeout is
lost with it.  The handlers' probe (:mod:`ctxcheck.probes.signals`) asks whether that is so.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final, TypeVar

#: The code of such functions, kept, and by its identity: to hash a code takes as long as to go through the stack.
_kept: Final[list[CodeType]] = []
_codes: Final[set[int]] = set()
#: Calls that such a function may be in the middle of.
_DEPTH: Final = 100

_F = TypeVar("_F", bound=Callable[..., Any])


def postpones(function: _F) -> _F:
    """Mark a function: no handler runs while it does.  For what comes to its end soon; it costs nothing."""
    code = function.__code__
    _kept.append(code)
    _codes.add(id(code))
    return function


def strikes(frame: FrameType | None) -> bool:
    """Whether a signal that has interrupted this frame has to wait.  Some microseconds for a deep stack."""
    for _ in range(_DEPTH):
        if frame is None:
            break
        if id(frame.f_code) in _codes:
            return True
        frame = frame.f_back
    return False
