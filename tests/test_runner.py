"""The runner against the interpreter: each program runs under plain Python and under the runner,
in processes of their own, and what it prints, how it ends and what it sees of itself are compared."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import FunctionType

import pytest

from ctxcheck import runner as runner_module
from ctxcheck.runner import Outcome, Program, RunnerError, before_os_exit

SRC = str(Path(__file__).resolve().parent.parent / "src")

DRIVER = """\
import sys
from ctxcheck.runner import Program, RunnerError, leave
kind, target, *args = sys.argv[1:]
try:
    program = Program(target, args, module=kind == "-m")
    program.prepare()
    outcome = program.run()
except RunnerError as error:
    sys.exit(f"refused: {error}")
leave(outcome.status, interrupted=outcome.interrupted)
"""

#: Prints what a program can see of itself, without addresses and without what lies below its own frames.
VIEW = r"""
import json, re, sys

def shown(value):
    return re.sub(r" at 0x[0-9a-fA-F]+|\bid=\d+", "", repr(value))

def spec_of(spec):
    names = ("name", "origin", "cached", "parent", "has_location", "submodule_search_locations")
    return None if spec is None else {n: shown(getattr(spec, n)) for n in names} | {"loader": loader_of(spec.loader)}

def loader_of(loader):
    return [type(loader).__name__, getattr(loader, "name", None), getattr(loader, "path", None)]

def frames():
    frame, seen = sys._getframe(1), []
    while frame is not None and not frame.f_globals["__name__"].startswith("ctxcheck"):
        seen.append([frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno, frame.f_globals["__name__"]])
        frame = frame.f_back
    return seen

def view(namespace):
    import builtins, linecache, pickle
    main = sys.modules["__main__"]
    return {
        "keys": list(namespace),
        "values": {k: shown(namespace[k]) for k in list(namespace) if k.startswith("__") and k not in
                   ("__builtins__", "__loader__", "__spec__")},
        "builtins": namespace["__builtins__"] is builtins,
        "loader": loader_of(namespace["__loader__"]),
        "spec": spec_of(namespace["__spec__"]),
        "is main": vars(main) is namespace,
        "importer": repr(sys.path_importer_cache.get(namespace["__file__"], "none yet")),
        "module": [type(main).__name__, shown(main)],
        "argv": sys.argv,
        "path": sys.path,
        "frames": frames(),
        "exception": shown(sys.exc_info()),
        "source": linecache.getline(frames()[0][0], 2),
        "pickled": repr(pickle.dumps(namespace["Thing"])),
    }
"""

SHOW = '''"""A docstring."""
import sys
from __future__ import annotations
class Thing: pass
import view
print(view.json.dumps(view.view(globals()), indent=1))
'''.replace("import sys\nfrom __future__ import annotations\n", "from __future__ import annotations\nimport sys\n")


def interpreters() -> list[str]:
    """The running interpreter, and those of the versions we support that PATH really has."""
    found = {sys.version_info[:2]: sys.executable}
    for minor in (11, 12, 13):
        executable = shutil.which(f"python3.{minor}")
        if executable is None or (3, minor) in found:
            continue
        # A version manager's stub is on PATH even when there is nothing behind it.
        probe = subprocess.run(
            [executable, "-c", "import sys; print(sys.version_info[1])"], capture_output=True, text=True, check=False
        )
        if probe.stdout.strip() == str(minor):
            found[3, minor] = executable
    return list(found.values())


@pytest.fixture(params=interpreters(), ids=lambda path: Path(path).name)
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "view.py").write_text(VIEW)
    return tmp_path


def environment(place: Path, **more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CTXCHECK", "COV"))}
    return {**kept, "PYTHONPATH": os.pathsep.join([SRC, str(place / "lib")]), "PYTHONDONTWRITEBYTECODE": "1", **more}


def start(place: Path, *command: str, **more: str) -> tuple[int, str, str]:
    done = subprocess.run(
        command,
        cwd=place,
        env=environment(place, **more),
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def plain(python: str, place: Path, *target: str, **more: str) -> tuple[int, str, str]:
    return start(place, python, *target, **more)


def runner(python: str, place: Path, *target: str, **more: str) -> tuple[int, str, str]:
    kind = () if target[0] == "-m" else ("path",)
    return start(place, python, "-c", DRIVER, *kind, *target, **more)


def same(python: str, place: Path, *target: str, **more: str) -> tuple[int, str, str]:
    """Run it both ways, insist that nothing differs, and return what came out."""
    expected = plain(python, place, *target, **more)
    assert runner(python, place, *target, **more) == expected
    return expected


def script(place: Path, source: str, name: str = "program.py") -> str:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return name


# ---- what the program sees


@pytest.mark.parametrize(
    "spelling", ["scripts/show.py", "./scripts/show.py", "scripts/../scripts//show.py", "ABSOLUTE", "link.py"]
)
def test_a_script_sees_what_it_sees_under_python(python: str, place: Path, spelling: str) -> None:
    script(place, SHOW, "scripts/show.py")
    (place / "link.py").symlink_to("scripts/show.py")
    status, out, err = same(
        python, place, spelling.replace("ABSOLUTE", str(place / "scripts/show.py")), "-x", "two words"
    )
    seen = json.loads(out)
    assert (status, err) == (0, "")
    assert seen["path"][0] == str(place / "scripts")
    assert seen["argv"][1:] == ["-x", "two words"]
    assert seen["spec"] is None


@pytest.mark.parametrize("target", ["tool", "./tool/", "."])
def test_a_directory_with_a_main_does_too(python: str, place: Path, target: str) -> None:
    script(place, SHOW, "tool/__main__.py")
    script(place, SHOW, "__main__.py")
    status, out, _ = same(python, place, target, "a")
    assert status == 0
    assert json.loads(out)["spec"]["name"] == "'__main__'"


def test_a_zip_file_with_a_main_does_too(python: str, place: Path) -> None:
    with zipfile.ZipFile(place / "tool.pyz", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    status, out, _ = same(python, place, "tool.pyz", "a")
    assert status == 0
    assert json.loads(out)["path"][0] == str(place / "tool.pyz")


@pytest.mark.parametrize("name", ["module", "package", "package.inner", "package.deep.leaf"])
def test_a_module_does_too(python: str, place: Path, name: str) -> None:
    script(place, SHOW, "module.py")
    early = "import sys; main = vars(sys.modules['__main__'])\n"
    early += "print(sys.argv, sys.path, [*main], main['__loader__'], file=sys.stderr)"
    script(place, early, "package/__init__.py")
    for path in ("__main__", "inner", "deep/leaf"):
        script(place, SHOW, f"package/{path}.py")
    status, out, _ = same(python, place, "-m", name, "a", "-m")
    assert status == 0
    assert json.loads(out)["path"][0] == str(place)


@pytest.mark.parametrize("target", [("show.py",), ("-m", "show"), ("tool",)])
def test_safe_path_is_honoured(python: str, place: Path, target: tuple[str, ...]) -> None:
    for name in ("show.py", "tool/__main__.py", "lib/show.py"):
        script(place, SHOW, name)
    status, out, _ = same(python, place, *target, PYTHONSAFEPATH="1")
    assert status == 0
    assert (str(place / "tool") in json.loads(out)["path"]) == (target == ("tool",))
    assert str(place) not in json.loads(out)["path"]


def test_a_compiled_script_runs(python: str, place: Path) -> None:
    script(place, SHOW, "lib/show.py")
    build = "import py_compile; py_compile.compile('lib/show.py', 'show.pyc', doraise=True)"
    assert start(place, python, "-c", build)[0] == 0
    (place / "bad.pyc").write_bytes(b"\x00\x01\r\n" + bytes(20))
    (place / "unnamed").write_bytes((place / "show.pyc").read_bytes())
    assert same(python, place, "show.pyc")[0] == 0
    assert same(python, place, "unnamed")[0] == 0
    assert same(python, place, "bad.pyc")[0] == 1


def test_children_of_multiprocessing_find_the_program(python: str, place: Path) -> None:
    source = """
import multiprocessing as mp, os, pickle, sys
class Thing:
    def __init__(self, value): self.value = value
def work(queue, thing): queue.put([type(thing).__module__, thing.value, sys.argv, sys.path, __name__])
if __name__ == "__main__":
    assert pickle.loads(pickle.dumps(Thing(2))).value == 2
    for method in ("spawn", "forkserver", "fork"):
        context = mp.get_context(method)
        queue = context.SimpleQueue()
        child = context.Process(target=work, args=(queue, Thing(7)))
        child.start(); print(method, queue.get()); child.join(); print(child.exitcode)
"""
    script(place, source, "work.py")
    script(place, source, "package/job.py")
    for target in (("work.py", "x"), ("-m", "package.job", "x")):
        status, out, err = same(python, place, *target)
        assert (status, err, len(out.splitlines())) == (0, "", 6)


# ---- how the program ends

#: Small programs, each with its way to end.
ENDINGS = r"""
### nothing
print('done')
### exit
import sys; sys.exit()
### exit none
raise SystemExit(None)
### exit zero
import sys; sys.exit(0)
### exit seven
import sys; sys.exit(7)
### exit true
import sys; sys.exit(True)
### exit minus
import sys; sys.exit(-1)
### exit 256
import sys; sys.exit(256)
### exit text
import sys; sys.exit('no, thanks')
### exit tuple
import sys; sys.exit((1, 2))
### exit float
import sys; sys.exit(0.0)
### exit surrogate
import sys; sys.exit('\udc80')
### exit code deleted
e = SystemExit(3); del e.code; raise e
### exit subclass
class E(SystemExit): code = property(lambda self: 1 / 0)
raise E(4)
### exit to a closed stderr
import sys; sys.stderr.close(); sys.exit('lost')
### exit without stderr
import sys; sys.stderr = None; sys.exit('found')
### exception
def f(): raise ValueError('bad')
def g(): f()
g()
### chained
def f():
 try: 1 / 0
 except ZeroDivisionError as e: raise KeyError('k') from e
try: f()
finally: {}[1]
### context
try: 1 / 0
except ZeroDivisionError: import nonesuch
### group
def f():
 try: 1 / 0
 except Exception as e: return e
raise ExceptionGroup('g', [f(), ValueError(1)])
### note
e = ValueError(1); e.add_note('a note'); raise e
### loop
a, b = ValueError('a'), ValueError('b'); a.__cause__ = b; b.__cause__ = a; raise a
### bare base
raise BaseException('odd')
### generator exit
raise GeneratorExit
### keyboard interrupt
def f(): raise KeyboardInterrupt
f()
### sigint
import os, signal
def f(): os.kill(os.getpid(), signal.SIGINT); [0 for _ in range(10**6)]
f()
### sigterm
import os, signal; os.kill(os.getpid(), signal.SIGTERM); signal.pause()
### os exit
import os; print('lost'); os._exit(5)
### hook
import sys
def hook(*a): print(a[:2], a[2].tb_frame.f_lineno, sys.exc_info(), sys.last_value)
sys.excepthook = hook
1 / 0
### hook fails
import sys
def hook(*a): {}['k']
sys.excepthook = hook
1 / 0
### hook exits
import sys
def hook(*a): sys.exit(9)
sys.excepthook = hook
1 / 0
### hook exits on interrupt
import sys
def hook(*a): sys.exit(9)
sys.excepthook = hook
raise KeyboardInterrupt
### hook missing
import sys
del sys.excepthook
1 / 0
### audited
import sys
sys.addaudithook(lambda e, a: e == 'sys.excepthook' and print(e, a[1:3], a[3].tb_lineno))
1 / 0
### threads
import threading, time
def f(): threading.main_thread().join(); print('thread')
threading.Thread(target=f).start()
print('main')
### threads and failure
import threading, time
def f(): threading.main_thread().join(); 1 / 0
threading.Thread(target=f).start()
[][1]
### daemon
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
### main thread ends
import threading
def f(): m.join(); print(m.is_alive())
m = threading.main_thread()
threading.Thread(target=f).start()
### pool
from concurrent.futures import ThreadPoolExecutor as P
p = P(2)
for i in range(3): p.submit(print, i).result()
### exit callbacks
import atexit
for i in 1, 2: atexit.register(print, i)
print('main')
### exit callbacks fail
import atexit, sys
def a(): 1 / 0
def b(): sys.exit(4)
def c(): raise KeyboardInterrupt
def hook(u): print(u.err_msg[:36], repr(u.exc_value), u.exc_traceback.tb_frame.f_code.co_name)
sys.unraisablehook = hook
for f in a, b, c: atexit.register(f)
### exit callbacks register
import atexit
def a(): print(1); atexit.register(print, 2)
atexit.register(a)
### threads, then callbacks
import atexit, threading, time
def f(): threading.main_thread().join(); print('thread')
atexit.register(print, 'callback')
threading.Thread(target=f).start()
### interrupt while joining
import atexit, os, signal, threading, time
def f(): threading.main_thread().join(); time.sleep(.3); os.kill(os.getpid(), signal.SIGINT); time.sleep(60)
atexit.register(print, 'callback')
threading.Thread(target=f).start()
### threading's exit callbacks fail
import threading
def f(): 1 / 0
threading._register_atexit(f)
### unraisable hook
import sys, threading
def f(): 1 / 0
threading._register_atexit(f)
sys.unraisablehook = lambda u: print(u.err_msg, u.object, u.exc_value, u.exc_traceback.tb_frame.f_code.co_name)
### finalizers
class T:
 def __del__(self): print('gone')
t = T()
u = T(); u.me = u
### locals go at exit
import sys, atexit
class T:
 def __del__(self): print('gone')
def f():
 t = T(); sys.exit()
atexit.register(print, 'callback')
f()
### logging at exit
import logging; logging.basicConfig(); logging.error('x'); logging.getLogger().handlers[0].flush()
### asyncio
import asyncio
async def main(): await asyncio.sleep(0); 1 / 0
asyncio.run(main())
### unflushed
import sys; sys.stdout.write('no newline')
### main module removed
import sys; del sys.modules['__main__']; 1 / 0
### keyboard subclass
class K(KeyboardInterrupt): pass
raise K
"""


def endings() -> dict[str, str]:
    parts = (part.partition("\n") for part in ENDINGS.strip().removeprefix("### ").split("\n### "))
    return {name: source for name, _, source in parts}


@pytest.mark.parametrize("source", endings().values(), ids=endings().keys())
def test_it_ends_as_under_python(python: str, place: Path, source: str) -> None:
    same(python, place, script(place, source))


@pytest.mark.parametrize(
    "source",
    ["import sys; sys.exit(2**70)", "import sys\nclass B:\n def __str__(self): raise ValueError\nsys.exit(B())"],
    ids=["huge", "without text"],
)
def test_an_odd_exit_code_gives_pythons_status(python: str, place: Path, source: str) -> None:
    # Newer interpreters forget to clear the error on the way and complain about it later: not to be copied.
    name = script(place, source)
    assert runner(python, place, name)[0] == plain(python, place, name)[0] != 0


SYNTAX = {
    "latin-1 with a cookie": b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n",
    "latin-1 with a cookie in line 2": b"#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\nprint(ascii('\xe9'))\n",
    "latin-1 without one": b"x = 1\nprint('\xe9')\n",
    "latin-1 in a comment": b"x = 1\n# \xe9\n",
    "cookie in line 3": b"x = 1\n\n# coding: latin-1\nprint('\xe9')\n",
    "cookie after code": b"x = 1\n# coding: latin-1\nprint(ascii('\xe9'))\n",
    "unknown encoding": b"# coding: nonesuch\nprint(1)\n",
    "byte order mark": b"\xef\xbb\xbfprint('fine')\r\nprint(2)\r\n",
    "byte order mark against cookie": b"\xef\xbb\xbf# coding: latin-1\nx = 1\n",
    "bad utf-8": b"# coding: utf-8\nx = '\xff'\n",
    "null byte": b"x = 1\ny = 2\0\n",
    "unclosed": b"def f(:\n    pass\n",
    "tabs": b"if 1:\n\tx\n        y\n",
    "unterminated": b"print('",
    "in an import": b"import broken\n",
    "return outside": b"\nreturn 1\n",
    "future": b"from __future__ import nonesuch\n",
    "no future of ours": b"def f(x: nonesuch): pass\n",
    "empty": b"",
}


@pytest.mark.parametrize("source", SYNTAX.values(), ids=SYNTAX.keys())
def test_source_is_read_as_python_reads_it(python: str, place: Path, source: bytes) -> None:
    (place / "program.py").write_bytes(source)
    (place / "broken.py").write_text("x = = 1\n")
    same(python, place, "program.py")


@pytest.mark.parametrize(
    "target",
    [
        ("-m", "broken"),
        ("-m", "failing"),
        ("-m", "failing.inner"),
        ("-m", "needy.inner"),
        ("tool",),
        ("-m", "warned.inner"),
        ("-m", "starter"),
    ],
)
def test_tracebacks_of_modules_and_directories_are_pythons(python: str, place: Path, target: tuple[str, ...]) -> None:
    script(place, "x = = 1", "broken.py")
    script(place, "", "failing/inner.py")
    script(place, "1 / 0", "failing/__init__.py")
    script(place, "import nonesuch", "needy/__init__.py")
    script(place, "def f(): 1 / 0\nf()", "tool/__main__.py")
    script(place, "import warned.inner", "warned/__init__.py")
    script(place, "raise KeyError", "warned/inner.py")
    script(place, "import runpy; runpy._run_module_as_main('nonesuch')", "starter.py")
    assert same(python, place, *target)[0] == 1


def test_our_frames_go_from_chained_exceptions_too() -> None:
    def raised(error: BaseException) -> BaseException:
        """The error, as if a function of the runner had caught it."""
        scope: dict[str, Callable[[BaseException], None]] = {}
        code = compile("def own(error):\n  theirs(error)", "runner.py", "exec")
        exec(code, scope)
        own = FunctionType(scope["own"].__code__, runner_module.__dict__)
        try:
            own(error)
        except BaseException as caught:
            assert caught.__traceback__ is not None
            return caught.with_traceback(caught.__traceback__.tb_next)
        raise AssertionError

    def theirs(error: BaseException) -> None:
        raise error

    runner_module.__dict__["theirs"] = theirs
    try:
        cause, context, part = raised(KeyError()), raised(IndexError()), raised(ValueError())
        top = raised(BaseExceptionGroup("group", [ValueError(), part]))
    finally:
        del runner_module.__dict__["theirs"]
    top.__cause__, cause.__context__, context.__cause__ = cause, context, top
    runner_module._peel(top)  # pyright: ignore[reportPrivateUsage]
    for error in (top, cause, context, part):
        assert error.__traceback__ is not None
        assert error.__traceback__.tb_frame.f_code is theirs.__code__


def test_an_interrupted_program_is_killed_by_the_signal(python: str, place: Path) -> None:
    name = script(place, "raise KeyboardInterrupt")
    assert same(python, place, name)[0] == -signal.SIGINT
    assert same(python, place, "-m", "program")[0] == -signal.SIGINT


def test_the_caller_comes_last(python: str, place: Path) -> None:
    """A report printed after run() stands after everything that the program prints, on both streams."""
    name = script(
        place,
        "import atexit, threading, time\ndef f(): threading.main_thread().join(); print('thread')\n"
        "threading.Thread(target=f).start(); atexit.register(print, 'callback'); print('main')\n1 / 0",
    )
    report = DRIVER.replace("leave(", "print('report', outcome, file=sys.stderr); leave(")
    done = subprocess.run(
        [python, "-c", report, "path", name],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[-3:] == ["thread", "callback", "report Outcome(status=1, interrupted=False)"]
    assert done.returncode == 1


def test_a_closed_pipe_at_the_end_is_said_by_python(python: str, place: Path) -> None:
    name = script(place, "print('x' * 10)")
    results: list[tuple[int, bytes]] = []
    for command in ([python, name], [python, "-c", DRIVER, "path", name]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            command, cwd=place, env=environment(place), stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
        )
        os.close(writer)
        results.append((done.returncode, done.stderr))
    assert results[0] == results[1]
    assert results[0][0] == 120


# ---- what can't be started


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (("progam.py",), "can't open file 'progam.py': No such file or directory; did you mean 'program.py'?"),
        (("program",), "can't open file 'program': No such file or directory; did you mean 'program.py'?"),
        (("sub/modul.py",), "can't open file 'sub/modul.py': No such file or directory; did you mean 'module.py'?"),
        (("qqqqqqqq",), "can't open file 'qqqqqqqq': No such file or directory"),
        (("program.py/x",), "can't open file 'program.py/x': Not a directory"),
        (("loop.py",), "can't open file 'loop.py': Too many levels of symbolic links"),
        (("sub",), "can't find '__main__.py' in 'sub'; did you mean '__mian__.py'?"),
        (("empty",), "can't find '__main__.py' in 'empty'"),
        (("-m", "progam"), "no module named progam; did you mean 'program'?"),
        (("-m", "package.modul"), "no module named package.modul; did you mean 'package.module'?"),
        (("-m", "quiet.py"), "Try using 'quiet' instead of 'quiet.py' as the module name."),
        (("-m", "package"), "'package' is a package and cannot be directly executed"),
        (("-m", ".relative"), "relative module names not supported"),
        (("-m", "jsn.tool"), "did you mean 'json'?"),
        (("-m", "itertool"), "did you mean 'itertools'?"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(place: Path, target: tuple[str, ...], message: str) -> None:
    script(place, "print('ran')")
    script(place, "", "quiet.py")
    script(place, "", "sub/module.py")
    script(place, "", "sub/__mian__.py")
    script(place, "", "package/__init__.py")
    script(place, "", "package/module.py")
    (place / "empty").mkdir()
    (place / "loop.py").symlink_to("loop.py")
    status, out, err = runner(sys.executable, place, *target)
    assert (status, out) == (1, "")
    assert err.startswith("refused: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_null_byte_in_the_name_is_refused() -> None:
    with pytest.raises(RunnerError, match="null byte"):
        Program("a\0b").prepare()


def test_a_refused_script_leaves_the_process_alone(place: Path) -> None:
    before = sys.modules["__main__"], [*sys.argv], [*sys.path]
    with pytest.raises(RunnerError):
        Program(str(place / "nonesuch.py")).prepare()
    assert (sys.modules["__main__"], sys.argv, sys.path) == before


def test_a_program_may_use_the_runner_itself(place: Path) -> None:
    """Its errors are its own, not taken for ours."""
    inner = (
        "from ctxcheck.runner import Program, RunnerError\np = Program('nonesuch', module=True)\np.prepare()\np.run()"
    )
    status, _, err = runner(sys.executable, place, script(place, inner))
    assert status == 1
    assert "refused" not in err
    assert err.rstrip().endswith("ctxcheck.runner.RunnerError: no module named nonesuch")


def test_running_unprepared_is_a_mistake() -> None:
    code = "from ctxcheck.runner import Program\nimport sys\nsys.exit(Program('x.py').run().status)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SRC}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "needs Program.prepare() first" in done.stderr


def test_importing_the_runner_loads_next_to_nothing() -> None:
    code = "import sys; import ctxcheck.runner; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SRC}, capture_output=True, text=True, check=True
    )
    heavy = {
        "runpy",
        "importlib.util",
        "pkgutil",
        "difflib",
        "asyncio",
        "logging",
        "structlog",
        "wrapt",
        "tomllib",
    }
    assert heavy.isdisjoint(done.stdout.split())


# ---- before os._exit


class Left(BaseException):
    """Stands for the end of the process in these tests."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    statuses: list[int] = []

    def real(status: int) -> None:
        statuses.append(status)
        raise Left

    monkeypatch.setattr(os, "_exit", real)
    return statuses


def test_the_callback_sees_the_status_and_may_change_it(exits: list[int]) -> None:
    seen: list[int] = []
    with before_os_exit(lambda status: seen.append(status) or 3):  # type: ignore[func-returns-value]
        with pytest.raises(Left):
            os._exit(0)
        with pytest.raises(Left):
            os._exit(1)
    assert seen == [0], "once only"
    assert exits == [3, 1]


def test_a_failing_callback_changes_nothing(exits: list[int]) -> None:
    with before_os_exit(lambda status: 1 // 0), pytest.raises(Left):
        os._exit(6)
    assert exits == [6]


def test_a_call_from_inside_the_callback_goes_straight_through(exits: list[int]) -> None:
    def callback(status: int) -> int:
        os._exit(status + 1)

    with before_os_exit(callback), pytest.raises(Left):
        os._exit(1)
    assert exits[0] == 2


def test_a_bad_status_is_the_callers_error(exits: list[int]) -> None:
    seen: list[int] = []
    with before_os_exit(lambda status: seen.append(status) or 0), pytest.raises(TypeError):  # type: ignore[func-returns-value]
        os._exit("1")  # type: ignore[arg-type]
    assert seen == exits == []


def test_os_exit_is_put_back_exactly() -> None:
    real = os._exit
    with before_os_exit(lambda status: status):
        assert os._exit is not real
        assert (os._exit.__name__, os._exit.__module__) == (real.__name__, real.__module__)
    assert os._exit is real


def test_what_others_put_there_since_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(status: int) -> None:
        raise AssertionError

    monkeypatch.setattr(os, "_exit", os._exit)
    with before_os_exit(lambda status: status):
        os._exit = theirs  # type: ignore[assignment]
    assert os._exit is theirs


EXIT_DRIVER = """\
import os, sys
from ctxcheck.runner import Program, before_os_exit
def callback(status):
    os.write(2, f"report {status}\\n".encode())
    return status or 1
program = Program(sys.argv[1]); program.prepare()
with before_os_exit(callback):
    program.run()
"""


@pytest.mark.parametrize(
    ("source", "status", "err"),
    [
        ("import os; os._exit(0)", 1, "report 0\n"),
        ("import os; os._exit(4)", 4, "report 4\n"),
        ("import os; from os import _exit; _exit(status=4)", 4, "report 4\n"),
        # The child leaves as if nothing had been patched, and so does one of multiprocessing.
        (
            "import os\nif not os.fork(): os._exit(0)\nassert os.wait()[1] == 0\nos._exit(2)",
            2,
            "report 2\n",
        ),
        (
            (
                "import multiprocessing as m, os\nc = m.get_context('fork').Process(target=abs, args=(1,))\n"
                "c.start(); c.join(); os._exit(c.exitcode)"
            ),
            1,
            "report 0\n",
        ),
        (
            "import os, threading\nt = threading.Thread(target=os._exit, args=(5,))\nt.start(); t.join()",
            5,
            "report 5\n",
        ),
    ],
)
def test_a_program_that_calls_os_exit(python: str, place: Path, source: str, status: int, err: str) -> None:
    name = script(place, source)
    assert start(place, python, "-W", "ignore", "-c", EXIT_DRIVER, name) == (status, "", err)


def test_a_second_thread_waits_for_the_report(place: Path) -> None:
    """Otherwise its call would cut the report of the first one short."""
    source = """
import os, threading, sys
from ctxcheck.runner import before_os_exit
inside, other = threading.Event(), threading.Event()
def callback(status):
    inside.set(); other.wait(); other_thread.join(0.2)
    os.write(2, f"report {status}, other waits: {other_thread.is_alive()}\\n".encode())
    return status
def second():
    inside.wait(); other.set(); os._exit(9)
other_thread = threading.Thread(target=second, daemon=True)
with before_os_exit(callback):
    other_thread.start()
    os._exit(3)
"""
    assert start(place, sys.executable, "-c", source) == (3, "", "report 3, other waits: True\n")


def test_an_outcome_says_how_it_was() -> None:
    assert repr(Outcome(3)) == "Outcome(status=3, interrupted=False)"
