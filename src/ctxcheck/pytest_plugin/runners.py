"""Tasks that run one test after another.

anyio's plugin runs all tests and fixtures that share a loop in one task, which belongs to whoever came first.  What it
does next is told to it from outside of the loop: then it counts for who tells it.
"""

from __future__ import annotations

from typing import Any, Final

from ctxcheck import fastpath, imports
from ctxcheck.engine import slowpath
from ctxcheck.probes.patches import Patches
from ctxcheck.session import Session

_MODULE: Final = "anyio._backends._asyncio"
_in_place: Final[list[tuple[Patches, Session]]] = []


def follow(session: Session) -> None:
    """See who tells anyio's task what to do, once anyio is there."""
    _in_place.append((Patches(), session))
    imports.when_imported(_MODULE, _wrap)


def leave() -> None:
    """Don't any more."""
    imports.forget(_wrap)
    if _in_place:
        _in_place.pop()[0].restore()


def _wrap(module: Any) -> None:
    if not _in_place:
        return
    patches, session = _in_place[-1]

    def tell(original: Any, live: Any) -> Any:
        def _call_in_runner_task(self: Any, func: Any, *args: Any, **kwargs: Any) -> Any:
            task = getattr(self, "_runner_task", None)
            if live() and task is not None and fastpath.engine() is session.engine:
                slowpath.consult(session.engine.origins.serve, task, fastpath.current())
            return original(self, func, *args, **kwargs)

        return _call_in_runner_task

    runner = getattr(module, "TestRunner", None)
    if runner is not None:
        patches.wrap(runner, "_call_in_runner_task", tell)
