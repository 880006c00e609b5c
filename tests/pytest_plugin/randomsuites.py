"""Suites made by chance, for tests of what mustn't depend on chance.

What they do is the same whichever test comes first: threads, tasks and finalizers that outlive their test are let go of
by a fixture of the session, and a pool has one worker.
"""

from __future__ import annotations

import random
from collections.abc import Callable

LIB = """
import asyncio, gc, threading, time, weakref
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, RLock
import ctxcheck

class Res0:
    def __init__(self): self.lock = Lock()
class Res1:
    def __init__(self): self.lock = Lock()
class Res2:
    def __init__(self): self.lock = RLock()
class Shared:
    lock = Lock()
    other = RLock()
class Async0:
    def __init__(self): self.lock = asyncio.Lock()
class Async1:
    def __init__(self): self.lock = asyncio.Lock()
G0, GATE = RLock(), Lock()
with G0:
    with Shared.lock:
        pass
POOL = ThreadPoolExecutor(1, thread_name_prefix="pool")

def two(a, b):
    with a:
        with b:
            pass

def take(a):
    with a:
        pass

def in_thread(f, name):
    thread = threading.Thread(target=f, name=name)
    thread.start()
    thread.join()

def hand_over(lock):
    lock.acquire()
    thread = threading.Thread(target=lock.release, name="hand")
    thread.start()
    while lock.locked():
        time.sleep(0)
    thread.join()

LATER, TASKS, LOOPS = [], [], []

def later(f, name):
    event = threading.Event()
    def body():
        event.wait()
        f()
    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    LATER.append((event, thread))

def task_later(f, name):
    async def body(event):
        await event.wait()
        f()
    async def start():
        event = asyncio.Event()
        TASKS.append((event, asyncio.get_running_loop().create_task(body(event), name=name)))
        await asyncio.sleep(0)
    if not LOOPS:
        LOOPS.append(asyncio.new_event_loop())
    LOOPS[0].run_until_complete(start())

def let_go():
    while LATER:
        event, thread = LATER.pop()
        event.set()
        thread.join()
    while TASKS:
        event, task = TASKS.pop()
        event.set()
        LOOPS[0].run_until_complete(task)
    while LOOPS:
        LOOPS.pop().close()

@ctxcheck.might_sleep
def nap(): pass

@ctxcheck.atomic("softirq")
def softirq(f): f()

class Mmu:
    @ctxcheck.range_start("mmu")
    def start(self): pass
    @ctxcheck.range_end("mmu")
    def end(self): pass
    @ctxcheck.within_range("mmu")
    def page(self): pass

class Fin:
    def __init__(self, lock): self.lock = lock
    def __del__(self):
        with ctxcheck.interrupt("gc"):
            take(self.lock)

def wait_under(a, b):
    future = POOL.submit(take, b)
    while not future.done():
        time.sleep(0)
    with a:
        future.result()
"""

CONFTEST = """
import pytest, lib

@pytest.fixture(scope="session", autouse=True)
def lets_go():
    yield
    lib.let_go()
"""

HEAD = "import asyncio, gc, threading, time, unittest\nimport pytest, ctxcheck, lib\n"


class Maker:
    """Makes the text of one suite."""

    def __init__(self, seed: int) -> None:
        self._random: random.Random = random.Random(seed)
        self._names: int = 0

    def suite(self) -> dict[str, str]:
        """The files: module -> text."""
        shared = [f"shared{n}" for n in range(self._random.randint(1, 2))]
        scopes = ("session", "module")
        fixtures = "\n".join(self._fixture(name, self._random.choice(scopes)) for name in shared)
        made = {"lib": LIB, "conftest": HEAD + CONFTEST + fixtures}
        for n in range(2):
            made[f"test_random_{n}"] = self._module(n, shared)
        return made

    def _module(self, number: int, shared: list[str]) -> str:
        draw = self._random
        own = f"own{number}"
        parts = [HEAD, *self._nest(0), self._fixture(own, draw.choice(("function", "class", "module")))]
        for n in range(draw.randint(4, 6)):
            name = f"{number}_{n}"
            asked = draw.sample([own, *shared], draw.choice((0, 0, 1, 1, 2)))
            body = self._body(4)
            match draw.choice(("plain", "plain", "plain", "param", "class", "unittest", "async", "skips", "fails")):
                case "param":
                    mark = '@pytest.mark.parametrize("n", [1, 2])\n'
                    parts.append(f"{mark}def test_{name}({', '.join(['n', *asked])}):\n{body}")
                case "class":
                    parts.append(f"class Test{name}:\n    def setup_method(self):\n{self._body(8)}")
                    parts.append(f"    @classmethod\n    def setup_class(cls):\n{self._body(8)}")
                    parts.append(f"    def test_it({', '.join(['self', *asked])}):\n{self._body(8)}")
                case "unittest":
                    parts.append(f"class Test{name}(unittest.TestCase):\n    @classmethod\n    def setUpClass(cls):")
                    parts.append(f"{self._body(8)}\n    def tearDown(self):\n{self._body(8)}")
                    parts.append(f"    def test_it(self):\n{self._body(8)}\n    def test_too(self): pass")
                case "async":
                    parts.append(f"class Test{name}(unittest.IsolatedAsyncioTestCase):")
                    parts.append(f"    async def asyncSetUp(self):\n{self._body(8, True)}")
                    parts.append(f"    async def test_it(self):\n{self._body(8, True)}")
                case kind:
                    end = {"skips": "\n    pytest.skip('no')", "fails": "\n    assert 0, 'own'"}.get(kind, "")
                    parts.append(f"def test_{name}({', '.join(asked)}):\n{body}{end}")
        return "\n".join(parts)

    def _fixture(self, name: str, scope: str) -> str:
        parts = [f'@pytest.fixture(scope="{scope}")', f"def {name}():", self._body(4)]
        if self._random.random() < 0.4:
            parts.append(f"    with {self._random.choice(('lib.Res0().lock', 'lib.Res1().lock'))}:\n        yield")
        else:
            parts += ["    yield", self._body(4)]
        return "\n".join(parts) + "\n"

    def _body(self, indent: int, is_async: bool = False) -> str:
        return "\n".join(line for _ in range(self._random.randint(1, 2)) for line in self._statement(indent, is_async))

    def _name(self) -> str:
        self._names += 1
        return f"n{self._names}"

    def _locks(self, number: int) -> list[str]:
        names = ("Res0().lock", "Res1().lock", "Res2().lock", "Shared.lock", "Shared.other", "G0")
        return [f"lib.{name}" for name in self._random.sample(names, number)]

    def _nest(self, indent: int) -> list[str]:
        pad = " " * indent
        locks = self._locks(self._random.choice((2, 2, 3)))
        if self._random.random() < 0.4:
            return [f"{pad}lib.two({locks[0]}, {locks[1]})"]
        guard = [f"{pad}with lib.GATE:"] if self._random.random() < 0.2 else []
        locks = (["lib.GATE"] if guard else []) + locks
        return [*(f"{pad}{'    ' * n}with {lock}:" for n, lock in enumerate(locks)), f"{pad}{'    ' * len(locks)}pass"]

    def _statement(self, indent: int, is_async: bool) -> list[str]:
        pad, name = " " * indent, self._name()
        a, b = self._locks(2)
        own = self._random.choice(("lib.Res0()", "lib.Res1()"))
        function = [f"{pad}def {name}():", *self._nest(indent + 4)]
        kinds: list[Callable[[], list[str]]] = [
            *[lambda: self._nest(indent)] * 6,
            lambda: [*function, f'{pad}lib.in_thread({name}, "t{name}")'],
            lambda: [*function, f"{pad}lib.POOL.submit({name}).result()"],
            lambda: [*function, f'{pad}lib.later({name}, "t{name}")'],
            lambda: [f"{pad}try:", *self._nest(indent + 4), f"{pad}    1 / 0", f"{pad}except Exception: pass"],
            lambda: [f"{pad}lib.softirq(lib.nap)"],
            lambda: [f"{pad}lib.in_thread(lambda: lib.softirq(lib.nap), 't')", f"{pad}lib.softirq(lambda: lib.nap())"],
            lambda: [f"{pad}{name} = lib.Mmu(); {name}.start(); {name}.end(); {name}.page()"],
            lambda: [f"{pad}{name} = {own}; {name}.lock.acquire()"],
            lambda: [f"{pad}{name} = {own}; {name}.lock.acquire(); {name}.me = {name}; del {name}"],
            lambda: [f"{pad}{name} = {own}; lib.in_thread({name}.lock.acquire, 't')"],
            lambda: [f"{pad}lib.hand_over({own}.lock)"],
            lambda: [f"{pad}{name} = [{own}, {own}]; lib.two({name}[0].lock, {name}[1].lock)"],
            lambda: [f'{pad}with ctxcheck.interrupt("SIGUSR1"):', f"{pad}    lib.take({a})"],
            lambda: [f"{pad}lib.Fin({a})"],
            lambda: [f"{pad}{name} = lib.Fin({a}); {name}.me = {name}; del {name}; gc.collect()"],
            lambda: [f"{pad}with {a}:", f"{pad}    time.sleep(0.0001)"],
            lambda: [f"{pad}lib.wait_under({a}, {b})"],
            lambda: [f"{pad}with ctxcheck.SpinLock(name='spin'):", f"{pad}    lib.nap()"],
            lambda: [f'{pad}with ctxcheck.allow("CTX001", reason="known"):', f"{pad}    lib.two({a}, {b})"],
        ]
        if is_async:
            first, second = self._random.sample(("lib.Async0().lock", "lib.Async1().lock"), 2)
            kinds += [
                lambda: [f"{pad}with {a}:", f"{pad}    await asyncio.sleep(0)"],
                lambda: [f"{pad}async with {first}:", f"{pad}    async with {second}: lib.take({a})"],
                lambda: [*function, f"{pad}await asyncio.to_thread({name})"],
            ] * 3
        else:
            kinds += [
                lambda: [*function, f'{pad}lib.task_later({name}, "t{name}")'],
                lambda: [f"{pad}async def {name}():", self._body(indent + 4, True), f"{pad}asyncio.run({name}())"],
            ] * 2
        return self._random.choice(kinds)()
