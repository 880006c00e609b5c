"""A forked child that executes another program: then the locks that it was left with don't matter (CTX306)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ctxcheck import fastpath
from ctxcheck.probes.patches import Patches


def watch(patches: Patches) -> Callable[[], None]:
    """Put the probes in place: ``os.execv`` and ``os.execve``, which all others of the family call.

    What is returned undoes the rest: ``os.supports_fd`` has functions in it.
    """
    before = getattr(os, "execve", None)

    def execute(original: Any, live: Any) -> Any:
        def execute(*args: Any, **kwargs: Any) -> Any:
            engine = fastpath.engine() if live() else None
            if engine is None:
                return original(*args, **kwargs)
            engine.forks.becomes_another(True)
            try:
                return original(*args, **kwargs)
            finally:
                # it comes back only if there is no such program
                engine.forks.becomes_another(False)

        return execute

    patches.wrap(os, "execv", execute)
    patches.wrap(os, "execve", execute)
    if before not in os.supports_fd:
        return _nothing
    ours = os.execve
    os.supports_fd.add(ours)
    return lambda: os.supports_fd.discard(ours)


def _nothing() -> None:
    pass
