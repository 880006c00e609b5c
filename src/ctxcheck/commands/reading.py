"""The data that a command is about: all files of the data directory, or those that are named."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ctxcheck import datadir
from ctxcheck.commands.parsing import say
from ctxcheck.records import DataError
from ctxcheck.store import Store


class NoDataError(DataError):
    """There is no data where some was expected."""

    def __init__(self, paths: Sequence[str], data_dir: str) -> None:
        where = ", ".join(paths) or data_dir
        super().__init__(f"no data found in {where}: 'ctxcheck run' and 'pytest --ctxcheck' write it")


def read(paths: Sequence[str], data_dir: str) -> Store:
    """Read all of it into a store, and say what is wrong with which file.

    Raises:
        DataError: a path doesn't exist, or a file can't be read or is of a newer version.
    """
    if not paths and not os.path.isdir(data_dir):
        raise NoDataError(paths, data_dir)
    store = Store()
    try:
        for path in datadir.find(paths or [data_dir]):
            store.add(path)
    except BaseException:
        store.close()
        raise
    for line in store.problems.told():
        say(f"ctxcheck: warning: {line}")
    return store
