"""Run a program as the interpreter itself would, inside a process that is already running.

``ctxcheck run`` must be invisible to what it runs, so this module rebuilds what CPython does
between reading its command line and leaving: a new ``__main__``, ``sys.argv``, ``sys.path[0]``, the
compiled script, the handling of ``SystemExit`` and of uncaught exceptions, the wait for
threads, the exit callbacks.  Two parts are not rebuilt but borrowed: ``-m`` and directories go
through :mod:`runpy`, as in the interpreter (its frames are part of the tracebacks that people
know), and the end goes through the functions that the interpreter would call a moment later.

What can't be hidden: a program that walks its frames to the bottom finds ours below its own, and
they count for the recursion limit.

One program a process.  From :meth:`Program.prepare` on, ``sys`` belongs to the program; nothing
is put back, because daemon threads, exit callbacks and finalizers go on using it.

Everything here runs before the program's first line, so this module imports next to nothing; the rest is
imported where it is needed.
"""

from __future__ import annotations

import _frozen_importlib
import _frozen_importlib_external as _external
import atexit
import builtins
import io
import os
import sys
from _operator import index
from _thread import allocate_lock, get_ident
from typing import Any, Final, Literal, NoReturn, cast

from ctxcheck import scripts
from ctxcheck.engine.errors import CtxcheckError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

# Taken once, before the program can replace them.
_getpid = os.getpid
_display = sys.__excepthook__

#: Frames with these globals are ours.
_OWN_GLOBALS: Final = (globals(), vars(scripts))

#: How long a thread that calls ``os._exit`` waits for another one that is already leaving, in seconds.
_LEAVE_TIMEOUT: Final = 10.0


class RunnerError(CtxcheckError, ValueError):
    """The program can't be started: no such script or module, or one that can't be read.

    The message is one line that names it and, where there is one, its nearest match.
    """


class Outcome:
    """How a program ended.

    ``status`` is what the shell would see under plain Python.  ``interrupted`` says that a
    ``KeyboardInterrupt`` ended it: Python then kills itself with SIGINT after its clean-up, so that
    the shell knows; :func:`leave` does so.
    """

    __slots__ = ("interrupted", "status")

    def __init__(self, status: int, *, interrupted: bool = False) -> None:
        self.status: int = status
        self.interrupted: bool = interrupted

    def __repr__(self) -> str:
        return f"Outcome(status={self.status}, interrupted={self.interrupted})"


class Program:
    """A script, a directory or zip file with a ``__main__.py``, or (``module=True``) a module.

    ``target`` is the path or the module's name, ``args`` are the program's own arguments.
    Call :meth:`prepare`, put the checks in place, then call :meth:`run`.
    """

    def __init__(self, target: str, args: Iterable[str] = (), *, module: bool = False) -> None:
        self.target: str = target
        self.args: list[str] = [*args]
        self.kind: Literal["script", "folder", "module"] = "module" if module else "script"
        self._path: str = ""
        self._source: bytes | None = None
        # Whoever called us may still live in the interpreter's own __main__.
        self._previous_main: object = None

    def prepare(self) -> None:
        """Find the program and give it the process: ``__main__``, ``sys.argv``, ``sys.path[0]``.

        Runs no code of the program and imports nothing for it.
        Raises :class:`RunnerError` if a script or directory can't be found or read; a missing
        module is found out by :meth:`run` only, since looking for it imports its packages.
        """
        previous = sys.modules.get("__main__")
        main: Any = type(sys)("__main__")
        # Newer interpreters keep annotations elsewhere: do as this one did for its own __main__.
        if "__annotations__" in getattr(previous, "__dict__", ()):
            main.__annotations__ = {}
        main.__builtins__ = builtins
        main.__loader__ = _frozen_importlib.BuiltinImporter

        folder: str | None
        if self.kind == "module":
            argv0, folder = "-m", scripts.current_folder()
        else:
            argv0, self._path = self.target, scripts.absolute(self.target)
            if scripts.importer_for(self._path) is not None:
                self.kind, folder = "folder", self._path
            else:
                folder = scripts.script_folder(self.target)
                self._load(main)

        # With -P, -I or PYTHONSAFEPATH the interpreter put nothing in front, so there is
        # nothing to replace.  A directory or zip file goes in front even then.
        safe = sys.flags.safe_path
        wanted = folder is not None and (self.kind == "folder" or not safe)
        sys.path[: 0 if safe else 1] = [folder] if folder is not None and wanted else []
        sys.argv = [argv0, *self.args]
        self._previous_main = previous
        sys.modules["__main__"] = main

    def run(self) -> Outcome:
        """Run the program to its end, and say how it ended.

        An uncaught exception goes to ``sys.excepthook`` without our frames.  Then the non-daemon
        threads are joined and the exit callbacks run, with the output that Python gives if they fail.

        Raises :class:`RunnerError` if the module (or the directory's ``__main__``) does not exist.
        """
        caught: BaseException | None = None
        try:
            if self.kind == "script":
                self._run_script()
            else:
                self._run_module()
        except BaseException as error:
            if isinstance(error, RunnerError) and _ends_in(error, self._run_module):
                raise
            caught = error
        outcome = Outcome(0)
        if caught is not None:
            # Out of the except block: for the hooks, sys.exception() is None as in the interpreter.
            outcome = _conclude(caught)
            caught = None  # the frames of a SystemExit go now, as they do in Python
        _finish()
        return outcome

    def _load(self, main: Any) -> None:
        """Read the script, and set what the interpreter sets for a script only."""
        try:
            with io.open_code(self._path) as file:
                data = file.read()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            near = scripts.near_file(*os.path.split(self.target))
            raise RunnerError(f"can't open file {self.target!r}: {reason}{near}") from None
        compiled = self._path.endswith(".pyc") or data[:2] == _external.MAGIC_NUMBER[:2]
        loader = _external.SourcelessFileLoader if compiled else _external.SourceFileLoader
        main.__loader__ = loader("__main__", self._path)
        main.__file__ = self._path
        main.__cached__ = None
        self._source = data

    def _run_script(self) -> None:
        if self._source is None:
            raise RuntimeError("Program.run() needs Program.prepare() first")
        namespace = sys.modules["__main__"].__dict__
        if isinstance(namespace["__loader__"], _external.SourcelessFileLoader):
            code = scripts.load_compiled(self._source)
        else:
            code = scripts.compile_script(self._source, self._path)
        self._source = None
        sys.audit("cpython.run_file", self._path)
        exec(code, namespace)

    def _run_module(self) -> None:
        # What the interpreter itself calls for -m, directories and zip files.
        runpy: Any = __import__("runpy")
        try:
            if self.kind == "folder":
                runpy._run_module_as_main("__main__", False)
            else:
                sys.audit("cpython.run_module", self.target)
                runpy._run_module_as_main(self.target)
        except SystemExit as error:
            # runpy turns what it can't find into an exit with a message.
            reason = error.__context__
            if type(reason) is not runpy._Error or not _ends_in(error, runpy._run_module_as_main):
                raise
        else:
            return
        if self.kind == "folder":
            near = scripts.near_file(self.target, "__main__.py")
            raise RunnerError(f"can't find '__main__.py' in {self.target!r}{near}")
        text = str(reason)
        raise RunnerError(f"{text[:1].lower()}{text[1:]}{scripts.near_module(self.target)}")


def leave(status: int, *, interrupted: bool = False) -> NoReturn:
    """End the process as Python would: with ``status``, or killed by SIGINT if ``interrupted``.

    To be called as the last thing, from the main thread; it raises, so that the interpreter cleans up.
    """
    if interrupted:
        # The interpreter remembers that a KeyboardInterrupt reached the top, and after its
        # clean-up kills itself.  The traceback has been printed already.
        sys.excepthook = _nothing
        raise KeyboardInterrupt
    sys.exit(status)


def _nothing(*args: object) -> None:
    pass


# ---- before os._exit


class before_os_exit:  # noqa: N801  # reads as a statement
    """While open, ``os._exit(status)`` in this process first calls ``callback(status)``, once.

    What the callback returns is the status that the process leaves with; if it raises, the given one is
    kept.  A forked child calls ``in_child`` first, if that is given, and so goes straight to the real function a call
    from inside the callback.  Another thread that calls meanwhile waits for the first, at most ten seconds.
    """

    def __init__(self, callback: Callable[[int], int], in_child: Callable[[], object] | None = None) -> None:
        self._callback: Callable[[int], int] = callback
        self._in_child: Callable[[], object] | None = in_child
        self._real: Callable[[int], NoReturn] | None = None
        self._replacement: Callable[[int], NoReturn] | None = None

    def __enter__(self) -> None:
        real, callback, process, in_child = os._exit, self._callback, _getpid(), self._in_child
        gate = allocate_lock()
        first: list[int] = []

        def _exit(status: int) -> NoReturn:
            """Exit to the system with specified status, without normal exit processing."""
            status = index(status)
            if _getpid() == process:
                if gate.acquire(False):
                    first.append(get_ident())
                    try:
                        status = callback(status)
                    except BaseException:  # nothing may keep the program from leaving
                        pass
                elif get_ident() not in first:
                    gate.acquire(True, _LEAVE_TIMEOUT)
            elif in_child is not None:
                try:
                    in_child()
                except BaseException:
                    pass
            real(status)

        _exit.__module__, _exit.__qualname__ = real.__module__, "_exit"
        self._real, self._replacement = real, _exit
        self._put(_exit)

    def __exit__(self, *exc_info: object) -> None:
        # Whoever replaced it after us keeps what they put there.
        if os._exit is self._replacement and self._real is not None:
            self._put(self._real)

    @staticmethod
    def _put(function: Callable[[int], NoReturn]) -> None:
        os._exit = function  # type: ignore[assignment]


# ---- the end


def _conclude(error: BaseException) -> Outcome:
    """Do with the program's last exception what the interpreter does."""
    _peel(error)
    if isinstance(error, SystemExit):
        return Outcome(_exit_status(error))
    kind, trace = type(error), error.__traceback__
    interrupted = kind is KeyboardInterrupt  # not a subclass: the interpreter compares the types
    if sys.version_info >= (3, 12):
        sys.last_exc = error
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    hook: Any = getattr(sys, "excepthook", None)
    try:
        sys.audit("sys.excepthook", hook, kind, error, trace)
    except RuntimeError:
        return Outcome(1, interrupted=interrupted)
    if hook is None:
        _say("sys.excepthook is missing\n")
        _display(kind, error, trace)
        return Outcome(1, interrupted=interrupted)
    failure = _failure_of(lambda: hook(kind, error, trace))
    if failure is None:
        return Outcome(1, interrupted=interrupted)
    if isinstance(failure, SystemExit):
        return Outcome(_exit_status(failure))  # it leaves at once, without the signal
    _say("Error in sys.excepthook:\n")
    _display(type(failure), failure, failure.__traceback__)
    _say("\nOriginal exception was:\n")
    _display(kind, error, trace)
    return Outcome(1, interrupted=interrupted)


def _exit_status(error: SystemExit) -> int:
    """The exit status of a ``SystemExit``; a code that is no number is printed."""
    try:
        code: object = error.code
    except Exception:
        code = error
    if code is None:
        return 0
    if isinstance(code, int):
        number = int(code)
        if not -(2**63) <= number < 2**63:
            number = -1  # what C makes of a number that does not fit
        return number & 0xFF if os.name == "posix" else number
    stream = getattr(sys, "stderr", None)
    try:
        text = str(code)
        if stream is None:
            _say(text)
        else:
            stream.write(text)
    except Exception:
        pass  # with a broken stream Python loses the text too, though not the line's end
    _say("\n")
    return 1


def _finish() -> None:
    """Join the threads and run the exit callbacks, in the interpreter's order and with its words.

    Both are harmless when the interpreter comes to them itself: threading knows that it was
    shut down, and the exit callbacks are gone.
    """
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        failure = _failure_of(threading._shutdown)
        if failure is not None:
            # It may not have come to the point where it notes that it was called.
            threading._shutdown = _nothing
            if sys.version_info >= (3, 13):
                _unraisable(failure, "Exception ignored on threading shutdown", None)
            else:
                _unraisable(failure, None, threading)
    # A callback that fails is printed in there.
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass  # the interpreter tries again, and then says so


def _failure_of(function: Callable[[], object]) -> BaseException | None:
    """Call it, and return what it raised, without our frames."""
    try:
        function()
    except BaseException as error:
        _peel(error)
        return error
    return None


def _unraisable(error: BaseException, message: str | None, thing: object) -> None:
    """Give ``error`` to ``sys.unraisablehook`` as the interpreter does.

    The default hook takes nothing but the interpreter's own argument type, which has no public
    name: a finalizer that fails shows it.
    """
    kinds: list[Any] = []

    class Trigger:
        def __del__(self) -> None:
            raise RuntimeError

    hook = sys.unraisablehook
    sys.unraisablehook = lambda args: kinds.append(type(args))
    try:
        Trigger()
    finally:
        sys.unraisablehook = hook
    if kinds:
        hook(kinds[0]((type(error), error, error.__traceback__, message, thing)))


def _say(text: str) -> None:
    try:
        sys.stderr.write(text)
    except Exception:
        try:
            os.write(2, text.encode(errors="backslashreplace"))
        except OSError:
            pass


# ---- tracebacks


def _peel(error: BaseException) -> None:
    """Take our frames off the outer end of the traceback, and off those of the exceptions that
    ``error`` is chained to or groups."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        item = waiting.pop()
        if item is None or id(item) in seen:
            continue
        seen.add(id(item))
        trace = item.__traceback__
        while trace is not None and _is_ours(trace):
            trace = trace.tb_next
        if trace is not item.__traceback__:
            item.__traceback__ = trace
        waiting += (item.__cause__, item.__context__)
        if isinstance(item, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", item).exceptions


def _is_ours(trace: TracebackType) -> bool:
    return any(trace.tb_frame.f_globals is own for own in _OWN_GLOBALS)


def _ends_in(error: BaseException, function: Any) -> bool:
    """Was it raised in this function's own frame, with none but ours above?"""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and _is_ours(trace):
        trace = trace.tb_next
    return trace is not None and trace.tb_next is None and trace.tb_frame.f_code is function.__code__
