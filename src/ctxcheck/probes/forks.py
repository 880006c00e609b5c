"""A forked child that executes another program: then the locks that it was left with don't matter (CTX306)."""

from __future__ import annotations

import os
from typing import Any

from ctxcheck import fastpath
from ctxcheck.probes.patches import Patches


def watch(patches: Patches) -> None:
    """Put the probes in place: ``os.execv`` and ``os.execve``, which all others of the family call."""

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
