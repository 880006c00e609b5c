"""Whether a run is of the whole test suite: only then it says something that a finding didn't come, or an ``allow``
accepted nothing."""

from __future__ import annotations

import os
from typing import Final

import pytest

#: Options that choose some of the tests, as they can stand on the command line; those of the configuration hold for
#: every run, and are no choice.
_CHOOSING: Final = (
    "-k", "-m", "--deselect", "--lf", "--last-failed", "--sw", "--stepwise", "--ignore", "--co", "--collect-only",
)  # fmt: skip


def is_whole(session: pytest.Session) -> bool:
    """Whether all tests have run: none were chosen on the command line, and the run wasn't cut short."""
    config = session.config
    if session.shouldstop or session.shouldfail or session.exitstatus in _CUT_SHORT:
        return False
    words = config.invocation_params.args
    if any(_chooses(str(word)) for word in words):
        return False
    # a test that is named isn't a folder
    return all(os.path.isdir(config.invocation_params.dir / path) for path in config.args)


#: Interrupted, or never begun: also where a file couldn't be collected.
_CUT_SHORT: Final = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)


def _chooses(word: str) -> bool:
    if word.startswith("--"):
        option = word.partition("=")[0]
        return option in _CHOOSING or option == "--ignore-glob"
    return word.startswith(("-k", "-m"))  # -kword is one word
