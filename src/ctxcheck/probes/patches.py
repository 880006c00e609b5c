"""Functions that take other functions' places, and give them back exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast, final

from ctxcheck.engine.blocking import covering

_MISSING: Final = object()


def _own(owner: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", vars(owner))


@final
class Patches:
    """What one set of probes has replaced.

    A probe is made by a function that is given the original and ``live``, a function that says whether the probe is
    still to do anything: where somebody else has put something in the probe's place meanwhile, theirs stays, and what
    they call goes straight to the original.
    """

    __slots__ = ("_done", "_live", "_undo")

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []
        self._live: list[bool] = [True]
        self._undo: list[Callable[[], object]] = []

    def when_restored(self, action: Callable[[], object]) -> None:
        """Call this when everything is given back, however far things had got by then."""
        self._undo.append(action)

    def live(self) -> bool:
        """Whether the probes are in place."""
        return bool(self._live)

    def replace(self, owner: Any, name: str, new: Any) -> None:
        """Put ``new`` in the place of ``owner.name``."""
        self._done.append((owner, name, _own(owner).get(name, _MISSING), new))
        setattr(owner, name, new)

    def wrap(
        self, owner: Any, name: str, make: Callable[[Any, Callable[[], bool]], Any], *, covers: bool = False
    ) -> None:
        """Put ``make(original, live)`` in the place of ``owner.name``; it gets the original's name and docstring.

        ``covers``: nothing of the program's own runs inside, so that it is told of, and not the calls that it makes.
        Does nothing where there is no such function: other versions of Python may have none.
        """
        original = getattr(owner, name, None)
        if original is None:
            return
        new = make(original, self.live)
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            if hasattr(original, attribute):
                setattr(new, attribute, getattr(original, attribute))
        new.__wrapped__ = original
        if covers:
            covering.add(new.__code__)
        self.replace(owner, name, new)

    def restore(self) -> None:
        """Give every place back that is still ours; what others have replaced since is left to them."""
        self._live.clear()
        while self._undo:
            self._undo.pop()()
        while self._done:
            owner, name, original, new = self._done.pop()
            if _own(owner).get(name) is not new:
                continue
            if original is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
