"""``self.lock = Lock()`` a second time, while the first one is held (CTX304).

The old lock doesn't know: whoever holds it keeps it alive.  What knows is the place that makes the new one, as it says
where it will be stored.
"""

from __future__ import annotations

from types import FrameType
from typing import Any, Final

from ctxcheck import fastpath
from ctxcheck.engine import slowpath
from ctxcheck.engine.raw import ORIGINALS

_Condition: Final[Any] = ORIGINALS["Condition"]
_MISSING: Final = object()
#: What is a checked lock.
kinds: Final[list[type[Any]]] = [fastpath.BaseLock, fastpath.RLock]


def check(frame: FrameType, me: Any, attribute: str) -> None:
    """A lock is being made in ``frame``, to be stored in this attribute of ``me``: say so if a held one is there.

    Only looks: none of the program's code runs.  May raise what the mode wants raised.
    """
    old = _stored(me, attribute)
    if old is _MISSING and attribute.startswith("__") and not attribute.endswith("__"):
        owner = frame.f_code.co_qualname.rpartition(".")[0].rpartition(".")[2].lstrip("_")
        old = _stored(me, f"_{owner}{attribute}")
    lock: Any = old.__dict__.get("_lock") if _is_a(old, _Condition) else old
    if any(_is_a(lock, kind) for kind in kinds):
        node = slowpath.hold_of(lock)
        if node is not None:
            slowpath.destroy(fastpath.current(), node, "replaced")


def _is_a(value: Any, kind: type[Any]) -> bool:
    # not isinstance(): that may ask the program's code for the class
    return issubclass(type(value), kind)


def _stored(me: Any, attribute: str) -> Any:
    """What an attribute of an instance holds, without running its type's code."""
    try:
        own: dict[str, Any] = object.__getattribute__(me, "__dict__")
    except AttributeError:
        own = {}
    if attribute in own:
        return own[attribute]
    for kind in type(me).__mro__:
        slot = kind.__dict__.get(attribute)
        if type(slot).__name__ == "member_descriptor":
            try:
                return slot.__get__(me)  # type: ignore[union-attr]
            except AttributeError:
                return _MISSING
    return _MISSING
