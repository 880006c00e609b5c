"""Child interpreters that check themselves: ``CTXCHECK_PROCESS_START``.

While that variable is set, each Python that starts with this package installed begins to check before its
program's first line (``ctxcheck_children.pth``, which :mod:`site` runs, asks for the variable and does nothing else
without it): subprocesses, and the children of :mod:`multiprocessing` however they are started.  Each leaves a data
file.  Its value is the path of the configuration, or 1 for that which is found from the child's working directory.

``ctxcheck run`` passes on where its own data goes, and to which run it belongs (``CTXCHECK_RUN``), so that it can say
at its end what its children found, and what all of them come to together.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from os import write as _write
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from ctxcheck.config import Config
    from ctxcheck.datafile import DataFile
    from ctxcheck.engine.violations import Violation
    from ctxcheck.session import Session

VARIABLE: Final = "CTXCHECK_PROCESS_START"
RUN: Final = "CTXCHECK_RUN"

#: The checks of this process, if it was asked for them when it started.
_checks: Final[list[_Checks]] = []
_was_asked: bool = False


def start() -> None:
    """Begin to check this process, as the environment asks; what is wrong is said in one line.  Raises nothing."""
    global _was_asked
    if _was_asked:
        return  # a folder of packages that goes by two names has the file that calls this twice
    _was_asked = True
    try:
        if not _runs_ctxcheck() and os.environ.get("CTXCHECK") != "0":
            _checks.append(_Checks(os.environ[VARIABLE]))
    except Exception as error:
        message = " ".join(str(error).split()) or type(error).__name__
        sys.stderr.write(f"ctxcheck: this process is not checked: {VARIABLE}: {message}\n")


def _runs_ctxcheck() -> bool:
    """Whether this interpreter was started for the command line, which does its own checking."""
    words = sys.orig_argv[1:3]
    return words[:2] == ["-m", "ctxcheck"] or any(os.path.basename(word) == "ctxcheck" for word in words[:1])


@final
class _Checks:
    """What is checked in a process from its start to its end."""

    def __init__(self, config_path: str) -> None:
        from ctxcheck.config import load

        path = None if config_path == "1" else config_path
        self._config: Config = load(config_path=path).config
        self._data: DataFile = self._data_file()
        self._session: Session = self._make_session()
        self._done: int = 0
        self._begin()

    def _data_file(self) -> DataFile:
        from ctxcheck.datafile import DataFile

        facts = {"owners": self._config.owners or "observed", "run": os.environ.get(RUN, "")}
        return DataFile(self._config.data_dir, sys.orig_argv, facts)

    def _make_session(self) -> Session:
        from ctxcheck.config import declared
        from ctxcheck.locks import naming, scope
        from ctxcheck.selection import Allowance
        from ctxcheck.session import Session

        config = self._config
        naming.factories.update(config.factories)
        scope.set_scope(config.include, config.exclude)
        return Session(
            mode=config.mode,
            owners=config.owners or "observed",
            deadlock_after=config.deadlock_after,
            fail_on=config.fail_on,
            select=config.select,
            ignore=config.ignore,
            allow=[Allowance(a.rule, a.locks, a.reason, a.path) for a in config.allow],
            stack_depth=config.stack_depth,
            declared=declared(config),
            sink=self._data,
            at_once=_print,
        )

    def _begin(self) -> None:
        from ctxcheck import adapters, unittests
        from ctxcheck.probes import install
        from ctxcheck.targets import Targets, shipped

        install.install(blocking=self._config.blocking, not_blocking=self._config.not_blocking)
        adapters.install(self._config.adapters)
        said = (*self._config.may_sleep, *self._config.atomic, *self._config.requires_lock)
        # whoever started this process has told of those that don't resolve
        Targets((*said, *shipped(_ignore)), _ignore).install()
        unittests.install()
        self._session.start()
        # registered before the program can register anything: called after all of that
        atexit.register(self._finish)
        self._at_os_exit()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._at_os_exit)

    def _at_os_exit(self) -> None:
        """This process, too, may leave by ``os._exit``, as those of :mod:`multiprocessing` do."""
        from ctxcheck.runner import before_os_exit

        before_os_exit(self._leave).__enter__()

    def _leave(self, status: int) -> int:
        self._finish()
        return status

    def _finish(self) -> None:
        """Write what is known at the end; once a process."""
        pid = os.getpid()
        if self._done == pid:
            return
        self._done = pid
        try:
            self._write_end()
        except Exception as error:  # what was written until now counts
            sys.stderr.write(f"ctxcheck: {self._data.path or self._data.directory} has no end: {error!r}\n")

    def _write_end(self) -> None:
        from dataclasses import asdict

        from ctxcheck.locks.install import unchecked_locks

        self._session.stop("run")
        counts = asdict(self._session.counts())
        if self._data.path is not None or not self._session.counts().nothing():
            self._data.write({"type": "end", "counts": {**counts, "unchecked": unchecked_locks()}})
        self._data.close()


def _ignore(_: str) -> None:
    pass


def _print(violation: Violation) -> None:
    """Say what is certain while the program runs: it may never come to its end."""
    from ctxcheck.reports import text

    _write(2, f"{text.render(violation)}\n\n".encode(errors="backslashreplace"))


# --- the parent --------------------------------------------------------------------------------


def asked() -> bool:
    """Whether child processes are to be checked."""
    return bool(os.environ.get(VARIABLE))


def share(data: DataFile, config_path: str | None, *, ask: bool = False) -> None:
    """Let children that check themselves write to the same place, as part of the same run.

    ``ask``: ask them to, with this configuration, if nobody has.
    """
    if ask and not asked():
        os.environ[VARIABLE] = config_path or "1"
    if not asked():
        return
    # what the end needs: by then the program may have given up the right to read it
    from ctxcheck import datadir, merged

    del datadir, merged
    if os.environ[VARIABLE] != "1":
        os.environ[VARIABLE] = os.path.abspath(os.environ[VARIABLE])
    os.environ["CTXCHECK_DATA_DIR"] = data.directory
    os.environ[RUN] = data.run


def together(
    data: DataFile, session: Session, own: list[Violation], cwd: str
) -> tuple[list[Violation], int, list[str]]:
    """The findings of a run with those of its children, and of all of them together; how many children took part; and
    what is wrong with their files, a line each.

    Children that are still running count with what they have written.
    """
    from ctxcheck import datadir, merged, records
    from ctxcheck.store import Store

    children = 0
    problems: list[str] = []
    with Store() as store:
        for path in datadir.find([data.directory]) if os.path.isdir(data.directory) else ():
            try:
                header = records.header_of(path)
                if header is None or header.get("run") != data.run:
                    continue
                store.add(path)
                children += header.get("pid") != os.getpid()
            except records.DataError as error:
                problems.append(str(error))
        if not children:
            return own, 0, problems
        found = merged.verdict(store, session.engine.owners, root=cwd, trusted=True, accept=session.accept)
        problems += store.problems.told()
    return _merged(own, [session.accept(v) for v in found if session.wanted(v)], merged.weight), children, problems


def _merged(own: list[Violation], all_: list[Violation], weight: Callable[[Violation], Any]) -> list[Violation]:
    result = {violation.fingerprint: violation for violation in own}
    for violation in all_:
        known = result.get(violation.fingerprint)
        if known is None or weight(known) < weight(violation):
            result[violation.fingerprint] = violation
    return list(result.values())
