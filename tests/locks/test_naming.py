"""Which class a lock belongs to: found from the code that makes it, and the same everywhere."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ctxcheck
from ctxcheck.engine.owner import Unused
from ctxcheck.locks import naming

SOURCE = str(Path(ctxcheck.__file__).resolve().parent.parent)

#: One way to make a lock a line of EXPECTED.
SHAPES = '''
import collections
import dataclasses
import functools
import queue
import threading
import weakref
import ctxcheck
from ctxcheck import Lock, RLock, SpinLock, Semaphore, Condition, Event, track

found = {}

def note(label, lock):
    if hasattr(lock, "acquire") and not hasattr(lock, "wait"):
        with lock: pass
    step = getattr(lock, "step", None)
    lock_class = step.lock_class if step is not None else lock._record.lock_class
    found[label] = lock_class.key

module_level = Lock()
note("module level", module_level)
first, second = Lock(), RLock()
note("tuple 1", first); note("tuple 2", second)
note("no target 1", Lock()); note("no target 2", Lock())
annotated: object = Lock()
note("annotated", annotated)
if (walrus := Lock()):
    note("walrus", walrus)
in_list = [Lock(), Lock()]
note("list 1", in_list[0]); note("list 2", in_list[1])
comprehension = [Lock() for _ in range(3)]
note("comprehension", comprehension[2])
note("same class", comprehension[0])
mapping = {name: RLock() for name in "ab"}
note("dict comprehension", mapping["b"])
display = {"a": Lock(), "b": Lock()}
note("dict 1", display["a"]); note("dict 2", display["b"])
generated = list(Lock() for _ in range(2))
note("generator", generated[1])
made_by_lambda = lambda: Lock()
by_lambda = made_by_lambda()
note("lambda with a name for it", by_lambda)
table = {"x": lambda: Lock(), "y": lambda: Lock()}
note("lambda 1", (table["x"]())); note("lambda 2", (table["y"]()))
spin = SpinLock()
note("spin lock", spin)
semaphore = Semaphore()
note("semaphore", semaphore)
condition = Condition()
note("condition", condition._lock)
tracked = track(threading.Lock())
note("tracked", tracked)
conditional = Lock() if found else Lock()
note("conditional", conditional)

class Base:
    shared = Lock()
    def __init__(self):
        self.lock = Lock()
        self.a, self.b = Lock(), Lock()
        self.many = [Lock() for _ in range(2)]
        self.by_key = {}
        self.by_key["x"] = Lock()
        self.queue = queue.Queue()
        local = Lock()
        self.local = local
        self.made = make()
        setattr(self, "hidden", Lock())
    def grow(self):
        self.lock = Lock()
        return self.lock
    @classmethod
    def at_class(cls):
        cls.of_class = Lock()
        return cls.of_class

class Derived(Base):
    class Inner:
        def __init__(this):
            this.lock = Lock()

def make():
    return Lock()

def indirect():
    lock = make()
    return lock

def unnamed():
    return [make(), make()]

base, derived = Base(), Derived()
note("class body", Base.shared)
note("attribute", base.lock)
note("attribute of a subclass", derived.lock)
note("two attributes a", base.a); note("two attributes b", base.b)
note("attribute list", base.many[1])
note("attribute item", base.by_key["x"])
note("queue", base.queue.mutex)
note("queue of a subclass", derived.queue.mutex)
note("local variable", base.local)
note("made for an attribute", base.made)
note("setattr", base.hidden)
note("another method", base.grow())
note("classmethod", Derived.at_class())
note("inner class", Derived.Inner().lock)
note("returned for the caller", indirect())
note("returned for nobody 1", unnamed()[0])
def outer():
    def inner():
        nested = Lock()
        return nested
    return inner()
note("nested function", outer())
def several():
    use(Lock(), threading_like.Lock())
    return kept
def use(*locks):
    global kept
    kept = locks
threading_like = ctxcheck
note("two spellings 1", several()[0]); note("two spellings 2", several()[1])

@dataclasses.dataclass
class Plain:
    one: object = dataclasses.field(default_factory=Lock)
    two: object = dataclasses.field(default_factory=RLock)
    three: object = dataclasses.field(default_factory=lambda: Lock())
@dataclasses.dataclass(frozen=True)
class Frozen:
    one: object = dataclasses.field(default_factory=Lock)
    two: object = dataclasses.field(default_factory=Lock)
@dataclasses.dataclass(slots=True)
class Slots:
    one: object = dataclasses.field(default_factory=Lock)
    two: object = dataclasses.field(default_factory=Lock)
@dataclasses.dataclass(slots=True, frozen=True)
class Both:
    one: object = dataclasses.field(default_factory=Lock)
    two: object = dataclasses.field(default_factory=Lock)
for kind in (Plain, Frozen, Slots, Both):
    instance = kind()
    for field in dataclasses.fields(kind):
        note(f"dataclass {kind.__name__}.{field.name}", getattr(instance, field.name))

# as attrs does: a generated __init__, of a class of this module
space = {"Lock": Lock, "__name__": __name__}
exec("""def __init__(self, lock=None):
    self.first = Lock()
    self.second = Lock() if lock is None else lock
""", space)
class Attrs:
    __init__ = space["__init__"]
note("generated first", Attrs().first); note("generated second", Attrs().second)
exec("runtime = Lock()\\nnote('exec', runtime)")

defaults = collections.defaultdict(Lock)
defaults["x"]
note("defaultdict", defaults["x"])
maker = functools.partial(Lock)
by_partial = maker()
note("partial", by_partial)
named = Lock(name="explicit")
note("name", named)

@ctxcheck.lock_factory
def factory(n):
    lock = Lock()
    return lock
by_factory = factory(1)
note("declared factory", by_factory)
class Factory:
    def __init__(self):
        self.x = factory(1)
        self.y = factory(2)
note("factory attribute x", Factory().x); note("factory attribute y", Factory().y)
'''

EXPECTED = {
    "module level": "module_level",
    "tuple 1": "first",
    "tuple 2": "second",
    "no target 1": "#1",
    "no target 2": "#2",
    "annotated": "annotated",
    "walrus": "walrus",
    "list 1": "in_list",
    "list 2": "in_list#2",
    "comprehension": "comprehension",
    "same class": "comprehension",
    "dict comprehension": "mapping",
    "dict 1": "display",
    "dict 2": "display#2",
    "generator": "generated",
    "lambda with a name for it": "by_lambda",
    "spin lock": "spin",
    "semaphore": "semaphore",
    "condition": "condition",
    "tracked": "tracked",
    "conditional": "conditional",
    "class body": "Base.shared",
    "attribute": "Base.lock",
    "attribute of a subclass": "Derived.lock",
    "two attributes a": "Base.a",
    "two attributes b": "Base.b",
    "attribute list": "Base.many",
    "attribute item": "Base.by_key",
    "queue": "Base.queue.mutex",
    "queue of a subclass": "Derived.queue.mutex",
    "local variable": "Base.__init__.local",
    "made for an attribute": "Base.made",
    "another method": "Base.lock",
    "classmethod": "Derived.of_class",
    "inner class": "Derived.Inner.lock",
    "returned for the caller": "indirect.lock",
    "nested function": "outer.<locals>.inner.nested",
    "dataclass Plain.one": "Plain.one",
    "dataclass Plain.two": "Plain.two",
    "dataclass Plain.three": "Plain.three",
    "dataclass Frozen.one": "Frozen.one",
    "dataclass Frozen.two": "Frozen.two",
    "dataclass Slots.one": "Slots.one",
    "dataclass Slots.two": "Slots.two",
    "generated first": "Attrs.first",
    "generated second": "Attrs.second",
    "exec": "runtime",
    "partial": "by_partial",
    "declared factory": "by_factory",
    "factory attribute x": "Factory.x",
    "factory attribute y": "Factory.y",
}
#: Pairs that must not be one class, whatever they are called.
APART = [
    ("no target 1", "no target 2"),
    ("lambda 1", "lambda 2"),
    ("two spellings 1", "two spellings 2"),
    ("setattr", "attribute"),
    ("dataclass Both.one", "dataclass Both.two"),  # no weak references, no names in its code: numbers
    ("defaultdict", "module level"),
]


def keys(folder: Path, source: str, python: str = sys.executable, *options: str) -> dict[str, str]:
    """The keys that the module gives its locks, in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shapes.py").write_text(source)
    code = "import threading, ctxcheck, json; ctxcheck.install(); import shapes; print(json.dumps(shapes.found))"
    result = subprocess.run(
        [python, *options, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{SOURCE}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return keys(tmp_path_factory.mktemp("here"), SHAPES)


@pytest.mark.parametrize("label", EXPECTED)
def test_the_key_is_the_owner_and_the_target(here: dict[str, str], label: str) -> None:
    assert here[label] == f"shapes:{EXPECTED[label]}"


def test_an_explicit_name_is_the_key(here: dict[str, str]) -> None:
    assert here["name"] == "explicit"


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_must_not_be_one_class(here: dict[str, str], one: str, other: str) -> None:
    assert here[one] != here[other]


def test_no_key_holds_a_line_or_an_address(here: dict[str, str]) -> None:
    for label, found in here.items():
        numbers = [int(n) for n in re.findall(r"\d+", found)]
        assert all(n < 10 for n in numbers), (label, found)
        assert "0x" not in found


def test_keys_survive_edits_above_and_around(here: dict[str, str], tmp_path: Path) -> None:
    edited = "# a comment\n\n\nimport os\nother = os.sep\n" + SHAPES.replace(
        "\nclass Base:", "\n\ndef something_new():\n    return 1\n\n\nclass Base:"
    ).replace("def __init__(self):\n        self.lock", "def __init__(self):\n        '''Said.'''\n\n        self.lock")
    assert edited.count("\n") > SHAPES.count("\n") + 8
    assert keys(tmp_path, edited) == here


def test_keys_are_the_same_in_every_process(here: dict[str, str], tmp_path: Path) -> None:
    assert keys(tmp_path, SHAPES, sys.executable, "-X", "importtime", "-O") == here


def others() -> list[str]:
    """The other supported interpreters on the path."""
    found = []
    for minor in (11, 12, 13):
        python = shutil.which(f"python3.{minor}")
        if python is None or sys.version_info[:2] == (3, minor):
            continue
        test = subprocess.run([python, "-c", "import sys; print(sys.version_info[1])"], capture_output=True, text=True)
        if test.stdout.strip() == str(minor):
            found.append(python)
    return found


def test_keys_are_the_same_on_every_version(here: dict[str, str], tmp_path: Path) -> None:
    for python in others():
        other = keys(tmp_path / Path(python).name, SHAPES, python)
        assert other == here, python


def test_without_column_positions_named_locks_keep_their_keys(here: dict[str, str], tmp_path: Path) -> None:
    found = keys(tmp_path, SHAPES, sys.executable, "-X", "no_debug_ranges")
    for label in ("module level", "attribute", "attribute of a subclass", "class body", "dataclass Plain.one", "queue"):
        assert found[label] == here[label]


# --- in this process ----------------------------------------------------------------------


def load(tmp_path: Path, name: str, source: str) -> ModuleType:
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    module = ModuleType(name)
    module.__dict__.update(__file__=str(path), Lock=ctxcheck.Lock)
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    finally:
        del sys.modules[name]
    return module


def key(lock: Any) -> str:
    return str(lock.step.lock_class.key)


def test_a_module_without_a_name_is_no_error(tmp_path: Path) -> None:
    space: dict[str, Any] = {"Lock": ctxcheck.Lock, "__name__": None}
    exec("x = Lock()", space)
    assert key(space["x"]).startswith("?:")


def test_an_instance_with_a_hostile_class_is_no_error(tmp_path: Path) -> None:
    source = """
class Hostile:
    __slots__ = ("lock", "__weakref__")
    def __init__(self):
        self.lock = Lock()
    def __getattr__(self, name): raise ZeroDivisionError(name)
    def __eq__(self, other): raise ZeroDivisionError
    __hash__ = None
    def __repr__(self): raise ZeroDivisionError
    def __bool__(self): raise ZeroDivisionError
"""
    module = load(tmp_path, "hostile", source)
    lock = module.Hostile().lock
    assert key(lock) == "hostile:Hostile.lock"
    exec(compile("def __init__(self):\n    made = Lock(), 1\n    self.lock = made[0]", "<generated>", "exec"),
         module.__dict__)  # fmt: skip
    module.Hostile.__init__ = module.__dict__["__init__"]
    lock = module.Hostile().lock
    with ctxcheck.checking() as session, lock:
        pass
    assert session.violations == []
    assert key(lock).startswith("hostile:Hostile.")


def test_a_class_that_is_gone_when_its_lock_is_first_taken(tmp_path: Path) -> None:
    made = load(
        tmp_path, "leaving", "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass D:\n"
        "    lock: object = dataclasses.field(default_factory=Lock)\n",
    )  # fmt: skip
    lock = made.D().lock  # frozen: its name is known only to the instance
    with lock:
        pass
    assert key(lock).startswith("leaving:D.#")
    assert lock.step.lock_class.unstable


@pytest.mark.parametrize("make", [ctxcheck.Lock, ctxcheck.RLock, ctxcheck.SpinLock], ids=["Lock", "RLock", "SpinLock"])
def test_an_unsettled_lock_behaves_from_its_first_use(make: Callable[[], Any]) -> None:
    def fresh() -> Any:
        lock = make()
        lock.node = Unused(lambda lock: None)
        return lock

    with ctxcheck.checking(select=["CTX002", "CTX302", "CTX901"]) as session:
        lock = fresh()
        with pytest.raises(RuntimeError):
            lock.release()
        lock = fresh()
        with lock:
            assert session.held_locks() == [lock.step.lock_class.name]
        for arguments in ((), (False,), (True, 60)):
            lock = fresh()
            assert lock.acquire(*arguments)
            lock.release()
        del lock
        assert session.held_locks() == []
        condition = threading.Condition(fresh()) if make is not ctxcheck.SpinLock else None
        if condition is not None:
            with condition:
                assert not condition.wait(0.001)
    assert session.violations == []


def test_threads_that_take_an_unsettled_lock_at_once_settle_it_once(tmp_path: Path) -> None:
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    module = load(
        tmp_path, "racing", "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Racing:\n"
        "    lock: object = dataclasses.field(default_factory=Lock)\n",
    )  # fmt: skip
    try:
        with ctxcheck.checking() as session:
            for _ in range(60):
                thing = module.Racing()
                inside = [0]
                start = threading.Barrier(3)

                def take(thing: Any = thing, inside: list[int] = inside, start: threading.Barrier = start) -> None:
                    start.wait()
                    for _ in range(20):
                        with thing.lock:
                            inside[0] += 1
                            assert inside[0] == 1
                            inside[0] -= 1

                threads = [threading.Thread(target=take) for _ in range(3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        lock_class = thing.lock.step.lock_class
        assert lock_class.key == "racing:Racing.lock"
        assert lock_class.created == 60
        assert lock_class.live() == 1
        assert session.violations == []
    finally:
        sys.setswitchinterval(switch)


def test_the_library_s_own_locks_belong_to_who_made_the_object() -> None:
    import concurrent.futures

    ctxcheck.install()
    try:
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        here = f"{__name__}:test_the_library_s_own_locks_belong_to_who_made_the_object"
        assert key(future._condition._lock) == f"{here}.future._condition"
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: 7).result() == 7
            assert key(pool._shutdown_lock) == f"{here}.pool._shutdown_lock"
    finally:
        ctxcheck.uninstall()


def test_factories_by_dotted_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = (
        "def make(n):\n    made = Lock()\n    return made\n"
        "class C:\n    def __init__(self):\n        self.mine = make(1)\n"
    )
    module = load(tmp_path, "factory_by_name", source)
    assert key(module.C().mine) == "factory_by_name:make.made"
    monkeypatch.setattr(naming, "factories", {"factory_by_name.make"})
    other = load(tmp_path, "factory_by_name", source + "\n")
    assert key(other.C().mine) == "factory_by_name:C.mine"


def test_lock_factory_takes_functions_only() -> None:
    with pytest.raises(TypeError, match="is not a Python function"):
        ctxcheck.lock_factory(functools.partial(int))
    assert ctxcheck.lock_factory(others) is others


def test_a_lock_made_where_no_python_code_runs_above() -> None:
    import _thread

    done = _thread.allocate_lock()
    done.acquire()

    class Made(ctxcheck.Semaphore):
        def __del__(self) -> None:
            done.release()

    for thing in (Made, ctxcheck.SpinLock, ctxcheck.Condition):
        _thread.start_new_thread(thing, ())
    assert done.acquire(timeout=60)


def test_to_make_a_lock_keeps_nothing_alive() -> None:
    """The name of the class comes from the first argument of who makes it, and from nothing else of his."""

    class Thing:
        pass

    class Maker:
        def __init__(self) -> None:
            thing = Thing()
            gone = weakref.ref(thing)
            self.lock = ctxcheck.Lock()
            del thing
            self.left = gone()

    maker = Maker()
    assert maker.left is None
    assert maker.lock.step.lock_class.name.endswith("Maker.lock")  # type: ignore[attr-defined]
