"""Whether a run is of the whole test suite: only then it says something that a finding didn't come, or an ``allow``
accepted nothing."""

from __future__ import annotations

import glob
import os
from typing import Final

import pytest

#: Options that choose some of the tests, as they can stand on the command line; those of the configuration hold for
#: every run, and are no choice.
_CHOOSING: Final = (
    "-k", "-m", "--deselect", "--lf", "--last-failed", "--sw", "--stepwise", "--ignore", "--co", "--collect-only",
    "--setup-only", "--setup-plan",
)  # fmt: skip


def is_whole(session: pytest.Session, *, left_out: int) -> bool:
    """Whether all tests have run: none were chosen on the command line, and the run wasn't cut short.

    ``left_out``: how many of the tests that were collected somebody took out.  Where the configuration has pytest's own
    ``-k``, ``-m`` or ``--deselect``, that is so in every run; else it is a plugin's choice (a shard, what has changed).
    """
    config = session.config
    if session.shouldstop or session.shouldfail or session.exitstatus in _CUT_SHORT:
        return False
    words = config.invocation_params.args
    if any(_chooses(str(word)) for word in words):
        return False
    if left_out and not (config.option.keyword or config.option.markexpr or config.option.deselect):
        return False
    # a test that is named isn't a folder
    return all(os.path.isdir(config.invocation_params.dir / path) for path in config.args) and _has_test_paths(config)


def _has_test_paths(config: pytest.Config) -> bool:
    """Whether the folders on the command line, if there are any, have all of pytest's ``testpaths`` in them."""
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        return True
    paths: list[str] = config.getini("testpaths")
    given = [os.path.realpath(config.invocation_params.dir / path) for path in config.args]
    found = [path for name in paths for path in glob.glob(str(config.rootpath / name), recursive=True)]
    wanted = map(os.path.realpath, found)
    return all(any(os.path.commonpath([path, folder]) == folder for folder in given) for path in wanted)


#: Interrupted, or never begun: also where a file couldn't be collected.
_CUT_SHORT: Final = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR)


def _chooses(word: str) -> bool:
    if word.startswith("--"):
        option = word.partition("=")[0]
        return option in _CHOOSING or option == "--ignore-glob"
    return word.startswith(("-k", "-m"))  # -kword is one word
