"""What it costs to have ctxcheck in a program at all: measured in fresh processes, one after the other in turn."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ctxcheck
from benchmarks.measure import Spread
from benchmarks.table import Row

#: What nobody should have to load for our sake: large, and asyncio and logging take locks of their own.
HEAVY: Final = ("structlog", "wrapt", "asyncio", "logging")
#: The most that `import ctxcheck` may cost, as a ratio.
IMPORT: Final = 2.0

_GROUP: Final = "start-up"
_REFERENCE: Final = "import threading, dataclasses"
_TIMED: Final = {
    "bare": "",
    "reference": "import threading, dataclasses",
    "import-ctxcheck": "import ctxcheck",
    "import-everything": "from ctxcheck import *",
}
#: What a program of one line costs, by itself and checked.
_RUN: Final = {"script": [], "run-start-up": ["-m", "ctxcheck", "run"]}
#: The same for a test of one line.
_TEST: Final = {"test": [], "pytest-start-up": ["--ctxcheck"]}
#: Rows that fresh processes are timed for.
_TIMED_ROWS: Final = ("import-ctxcheck", "import-everything", "run-start-up", "pytest-start-up")

_NOT_MARKED: Final = """
import ctxcheck, json, threading

def function(address=0):
    pass

def is_itself(make):
    try:
        return make()(function) is function
    except (ImportError, AttributeError):
        return None

print(json.dumps({
    "might_sleep": is_itself(lambda: ctxcheck.might_sleep),
    "atomic": is_itself(lambda: ctxcheck.atomic),
    "nonblocking": is_itself(lambda: ctxcheck.nonblocking),
    "range_start": is_itself(lambda: ctxcheck.range_start("r")),
    "range_end": is_itself(lambda: ctxcheck.range_end("r")),
    "within_range": is_itself(lambda: ctxcheck.within_range("r", at="address")),
    "requires_lock": is_itself(lambda: ctxcheck.requires_lock(threading.Lock())),
    "allow": is_itself(lambda: ctxcheck.allow("CTX103", reason="none")),
}))
"""

_LOADED: Final = f"""
import sys
print([name for name in {HEAVY!r} if name in sys.modules])
"""

#: One way into the program each: what it imports by then must not be heavy.
_WAYS: Final = {
    "import ctxcheck": "import ctxcheck\n",
    "from ctxcheck import *": "from ctxcheck import *\n",
    "install(), a checked lock": (
        "import ctxcheck\nctxcheck.install()\nimport threading\nwith ctxcheck.checking(), threading.Lock():\n    pass\n"
    ),
}


class FailedError(RuntimeError):
    """A process that was to be measured has failed."""


class Processes:
    """Fresh interpreters that find ctxcheck where this one did, and keep what they compile for the next one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        home = str(Path(ctxcheck.__file__).resolve().parent.parent)
        # a compiler's run in each of them would be all that is measured
        drop = ("PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP", "PYTHONPROFILEIMPORTTIME", "PYTHONDEVMODE")
        self._environment = {k: v for k, v in os.environ.items() if k not in drop and not k.startswith("CTXCHECK")}
        self._environment |= {"PYTHONPATH": home, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}

    def run(self, *arguments: str, **environment: str) -> str:
        """Run the interpreter, and return what it prints.

        Raises:
            FailedError: it failed; with what it said.
        """
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self._environment | environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise FailedError(f"{' '.join(arguments)!r} failed: {done.stderr.strip()}")
        return done.stdout

    def last_line(self, *arguments: str) -> str:
        """The last line that it prints."""
        return self.run(*arguments).strip().splitlines()[-1]


def rows(rounds: int, wanted: Callable[[str], bool]) -> list[Row]:
    """The rows about start-up and about ``CTXCHECK=0``, those of them that are wanted by name."""
    with tempfile.TemporaryDirectory(prefix="ctxcheck-benchmarks-") as folder:
        processes = Processes(Path(folder))
        found: list[Row] = []
        if any(map(wanted, _TIMED_ROWS)):
            reference, *timed = _timed(processes, Path(folder), rounds)
            timed = [row for row in timed if wanted(row.name)]
            found += [reference, *timed] if any(row.to == _REFERENCE for row in timed) else timed
        if wanted("heavy-modules"):
            found.append(_heavy(processes, Path(folder)))
        if wanted("markers-disabled"):
            found.append(_disabled(processes))
        if wanted("locks-disabled"):
            found.append(_locks_disabled(processes))
    return found


NAMES: Final = (*_TIMED_ROWS, "heavy-modules", "markers-disabled", "locks-disabled")


_TEST_SCRIPT: Final = """
import atexit, time

atexit.register(lambda: print(time.process_time_ns()))

def test():
    pass
"""


def _timed(processes: Processes, folder: Path, rounds: int) -> list[Row]:
    # the process's own CPU time, read at its end: when it was started and how busy the machine is don't enter
    tail = "\nimport time\nprint(time.process_time_ns())\n"
    script = folder / "script.py"
    script.write_text(tail)
    # without site-packages: what an installed package has loaded by then would be free for both
    commands = {name: ["-S", "-c", text + tail] for name, text in _TIMED.items()}
    commands |= {name: [*way, str(script)] for name, way in _RUN.items()}
    test = folder / "test_script.py"
    test.write_text(_TEST_SCRIPT)
    pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(test)]
    has_pytest = importlib.util.find_spec("pytest") is not None
    commands |= {name: [*pytest, *options] for name, options in _TEST.items() if has_pytest}
    for command in commands.values():
        processes.run(*command)
    order = random.Random(1)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name in order.sample(list(commands), len(commands)):
            taken[name].append(int(processes.last_line(*commands[name])) / 1e6)

    def above(name: str, base: str) -> list[float]:
        return [cost - start for cost, start in zip(taken[name], taken[base], strict=True)]

    def row(name: str, what: str, target: float | None) -> Row:
        own, reference = above(name, "bare"), above("reference", "bare")
        # a negative difference is noise, and one that is next to nothing is no reference
        ratio = Spread.of(max(0.0, a) / max(0.1, b) for a, b in zip(own, reference, strict=True))
        cost = f"{Spread.of(own).median:.1f} ms"
        return Row(name, _GROUP, what, ratio, "x", _REFERENCE, cost, target)

    started = Spread.of(above("run-start-up", "script"))
    found = [
        Row(
            "raw-import", _GROUP, _REFERENCE, Spread(1.0, 1.0, 1.0), "x", "",
            f"{Spread.of(above('reference', 'bare')).median:.1f} ms",
        ),
        row("import-ctxcheck", "import ctxcheck", IMPORT),
        row("import-everything", "from ctxcheck import *", None),
        Row("run-start-up", _GROUP, "ctxcheck run script.py", started, "ms", "python script.py"),
    ]  # fmt: skip
    if has_pytest:
        tested = Spread.of(above("pytest-start-up", "test"))
        found.append(Row("pytest-start-up", _GROUP, "pytest --ctxcheck, of one test", tested, "ms", "pytest"))
    return found


def _heavy(processes: Processes, folder: Path) -> Row:
    script = folder / "loaded.py"
    script.write_text(_LOADED)
    said = {way: processes.last_line("-c", text + _LOADED) for way, text in _WAYS.items()}
    said["ctxcheck run"] = processes.last_line("-m", "ctxcheck", "run", str(script))
    loaded = {way: _names(text) for way, text in said.items()}
    count = len({name for names in loaded.values() for name in names})
    note = "; ".join(f"{way}: {', '.join(names)}" for way, names in loaded.items() if names) or "none"
    value = Spread(count, count, count)
    return Row("heavy-modules", _GROUP, f"loads of {', '.join(HEAVY)}", value, "", "", "", 0, note)


def _names(text: str) -> list[str]:
    return [str(name) for name in json.loads(text.replace("'", '"'))]


def _disabled(processes: Processes) -> Row:
    answers: dict[str, Any] = json.loads(processes.run("-c", _NOT_MARKED, CTXCHECK="0"))
    return _same("markers-disabled", "a marked function, CTXCHECK=0", "the function", answers)


def _locks_disabled(processes: Processes) -> Row:
    text = (
        "import ctxcheck, json, threading\n"
        "print(json.dumps({name: type(getattr(ctxcheck, name)()) is type(getattr(threading, name)())\n"
        "    for name in ('Lock', 'RLock')}))\n"
    )
    answers: dict[str, Any] = json.loads(processes.run("-c", text, CTXCHECK="0"))
    return _same("locks-disabled", "Lock(), RLock(), CTXCHECK=0", "the real ones", answers)


def _same(name: str, what: str, to: str, answers: dict[str, Any]) -> Row:
    """A row that is 1.00x because the thing is the very same object, or has no figure where it isn't."""
    other = [marker for marker, same in answers.items() if same is False]
    missing = [marker for marker, same in answers.items() if same is None]
    if missing:
        return Row(name, _GROUP, what, None, "x", to, "", 1.0, f"no {', '.join(missing)}")
    ratio = float("inf") if other else 1.0
    note = f"not the same: {', '.join(other)}" if other else "the same object"
    return Row(name, _GROUP, what, Spread(ratio, ratio, ratio), "x", to, "", 1.0, note)
