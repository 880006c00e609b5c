"""Decorated functions look, bind, fail and pickle as they did before."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import sys
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from ctxcheck.engine.sites import GENERATED
from ctxcheck.markers import (
    allow,
    atomic,
    might_lock,
    might_sleep,
    range_end,
    range_start,
    requires_lock,
    shapes,
    within_range,
)
from ctxcheck.markers.target import Target

from .conftest import Check, make_lock

LOCK = make_lock("shapes")

MARKERS: dict[str, Callable[[Any], Any]] = {
    "might_sleep": might_sleep,
    "might_sleep()": might_sleep("why"),
    "atomic": atomic,
    "atomic()": atomic("why"),
    "allow": allow("CTX101", reason="r"),
    "range_start": range_start("shapes"),
    "range_end": range_end("shapes"),
    "within_range": within_range("shapes"),
    "requires_lock": requires_lock(LOCK),
    "might_lock": might_lock(lambda *args, **kwargs: LOCK),
}
every_marker = pytest.mark.parametrize("marker", MARKERS.values(), ids=MARKERS)


@pytest.fixture(params=[True, False], ids=["on", "off"], autouse=True)
def checking(request: pytest.FixtureRequest, idle: Check) -> None:
    if request.param:
        idle.start()


def plain(a: int, b: str = "b", /, c: float = 3.0, *, d: list[int] | None = None, e: bytes = b"e") -> tuple[Any, ...]:
    """Says what it got."""
    return a, b, c, d, e


def star(a: int, *rest: int, k: int = 1, **more: int) -> tuple[Any, ...]:
    return a, rest, k, more


def nothing() -> tuple[Any, ...]:
    return ()


# parameters that have names of the wrapper's own
def hidden(node: int, _engine: int = 2, _local: int = 3, begin: int = 4, *, fn: int = 5) -> tuple[Any, ...]:
    return node, _engine, _local, begin, fn


def _odd(_ctx_st: int, StopIteration: int = 2) -> tuple[Any, ...]:  # noqa: N803
    return _ctx_st, StopIteration


def keyword_node(*, node: int, **_engine: int) -> tuple[Any, ...]:
    return node, _engine


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (plain, (1,), {}),
    (plain, (1, "x", 2.0), {"d": [1]}),
    (plain, (1,), {"c": 4.0, "e": b""}),
    (plain, (), {}),
    (plain, (1,), {"b": "x"}),
    (plain, (1, 2, 3, 4), {}),
    (star, (1, 2, 3), {"k": 4, "z": 5}),
    (star, (1,), {}),
    (star, (), {"a": 1}),
    (nothing, (), {}),
    (nothing, (1,), {}),
    (hidden, (1,), {}),
    (hidden, (), {"node": 1, "_engine": 0, "fn": 7}),
    (_odd, (1,), {}),
    (_odd, (), {"_ctx_st": 1}),
    (keyword_node, (), {"node": 1, "active": 2}),
]


@every_marker
@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
def test_arguments(
    marker: Callable[[Any], Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    marked = marker(function)
    try:
        expected = function(*args, **kwargs)
    except TypeError as error:
        with pytest.raises(TypeError) as caught:
            marked(*args, **kwargs)
        assert str(caught.value) == str(error)
    else:
        assert marked(*args, **kwargs) == expected


@every_marker
@pytest.mark.parametrize("function", [plain, star, nothing, hidden, keyword_node], ids=lambda f: f.__name__)
def test_looks(marker: Callable[[Any], Any], function: FunctionType) -> None:
    marked = marker(function)
    assert inspect.signature(marked) == inspect.signature(function)
    assert inspect.isfunction(marked)
    assert typing.get_type_hints(marked) == typing.get_type_hints(function)
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__"):
        assert getattr(marked, name) == getattr(function, name)
    assert marked.__wrapped__ is function
    assert inspect.getsourcelines(marked) == inspect.getsourcelines(function)
    if function is not keyword_node:
        # the wrapper itself has these parameters, not only its signature
        own = inspect.signature(marked, follow_wrapped=False)
        assert list(own.parameters) == list(inspect.signature(function).parameters)
        assert marked.__code__.co_filename == GENERATED


@every_marker
def test_all_in_a_class(marker: Callable[[Any], Any]) -> None:
    class Base:
        @marker
        def method(self, x: int) -> tuple[Any, ...]:
            return self, x

        @classmethod
        @marker
        def below_class(cls, x: int) -> tuple[Any, ...]:
            return cls, x

        @marker
        @classmethod
        def above_class(cls, x: int) -> tuple[Any, ...]:
            return cls, x

        @staticmethod
        @marker
        def below_static(x: int) -> tuple[Any, ...]:
            return ("static", x)

        @marker
        @staticmethod
        def above_static(x: int) -> tuple[Any, ...]:
            return ("static", x)

        @property
        @marker
        def value(self) -> Base:
            return self

        @marker
        def __private(self) -> str:
            return "private"

        def public(self) -> str:
            return self.__private()

    class Child(Base):
        @marker
        def method(self, x: int) -> tuple[Any, ...]:
            return ("child", *super().method(x))

        @marker
        @classmethod
        def above_class(cls, x: int) -> tuple[Any, ...]:
            return ("child", *super().above_class(x))

    child = Child()
    assert child.method(1) == ("child", child, 1)
    assert Child.method(child, 1) == ("child", child, 1)
    assert child.below_class(1) == Child.below_class(1) == (Child, 1)
    assert Child.above_class(1) == ("child", Child, 1)
    assert child.below_static(1) == child.above_static(1) == Base.above_static(1) == ("static", 1)
    assert child.value is child
    assert child.public() == "private"
    assert isinstance(Base.__dict__["above_class"], classmethod)
    assert isinstance(Base.__dict__["above_static"], staticmethod)
    assert child.method.__self__ is child  # type: ignore[attr-defined]


@every_marker
def test_abstract_methods_stay_abstract(marker: Callable[[Any], Any]) -> None:
    class Base(ABC):
        @marker
        @abstractmethod
        def method(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Base()  # type: ignore[abstract]


class Called:
    """Not a function, but can be called."""

    def __call__(self, a: int, b: int = 2) -> tuple[int, int]:
        return a, b


class CalledLater:
    async def __call__(self, a: int) -> int:
        return a


@every_marker
def test_what_is_no_function(marker: Callable[[Any], Any]) -> None:
    assert marker(Called())(1) == (1, 2)
    assert marker(functools.partial(plain, 1, c=9.0))("x") == (1, "x", 9.0, None, b"e")
    assert marker(len)([1, 2]) == 2
    assert marker(functools.lru_cache(nothing))() == ()
    assert marker(Called().__call__)(1, b=3) == (1, 3)
    assert inspect.iscoroutinefunction(marker(CalledLater()))
    with pytest.raises(StopIteration) as stopped:
        marker(CalledLater())(4).send(None)
    assert stopped.value.value == 4


@might_sleep
def by_reference() -> str:
    return "found"


class HasMethods:
    @atomic
    def method(self) -> str:
        return "method"

    @range_start("pickled")
    @staticmethod
    def static() -> str:
        return "static"


def test_pickle_and_copy() -> None:
    for function in (by_reference, HasMethods().method, HasMethods.static):
        again = pickle.loads(pickle.dumps(function))
        assert again() == function()
        assert copy.copy(function)() == copy.deepcopy(function)() == function()
    assert pickle.loads(pickle.dumps(by_reference)) is by_reference


def test_defaults_are_the_very_objects() -> None:
    default: list[int] = []

    def appends(x: int, to: list[int] = default, *, too: list[int] = default) -> None:
        to.append(x)
        too.append(x)

    might_sleep(appends)(1)
    assert default == [1, 1]


def test_markers_stack_in_any_order() -> None:
    import itertools

    def body(a: int, node: int = 2) -> tuple[int, int]:
        return a, node

    for order in itertools.permutations(MARKERS.values(), 3):
        marked = body
        for marker in order:
            marked = marker(marked)
        assert marked(1) == (1, 2)
        assert inspect.unwrap(marked) is body
        assert inspect.signature(marked) == inspect.signature(body)


def test_an_exception_passes_with_its_traceback() -> None:
    def fails() -> None:
        raise KeyError("the one")

    for marker in MARKERS.values():
        error = KeyError("the one")

        def raises(error: KeyError = error) -> None:
            raise error

        with pytest.raises(KeyError) as caught:
            marker(raises)()
        assert caught.value is error
        assert error.__context__ is None
        assert caught.traceback[-1].name == "raises"
        with pytest.raises(KeyError, match="the one"):
            marker(fails)()


def test_recursion() -> None:
    for marker in MARKERS.values():

        @marker
        def factorial(n: int) -> int:
            return 1 if n < 2 else n * int(factorial(n - 1))

        assert factorial(20) == 2432902008176640000


def test_functions_of_one_shape() -> None:
    before = len(shapes._factories)
    made = [might_sleep(lambda odd_x, odd_y, n=n: n) for n in range(5)]
    assert len(shapes._factories) <= before + 1
    assert [function(0, 0) for function in made] == [0, 1, 2, 3, 4]


def test_a_wrapper_has_the_name_of_its_function() -> None:
    def named() -> None:
        raise KeyError

    for marker in MARKERS.values():
        with pytest.raises(KeyError) as caught:
            marker(named)()
        assert {entry.name for entry in caught.traceback[1:]} == {"named"}


if sys.version_info >= (3, 12):

    def test_type_parameters() -> None:
        namespace: dict[str, Any] = {"might_sleep": might_sleep}
        exec("@might_sleep\ndef f[T](a: T, *, b: T | None = None) -> T:\n    return a", namespace)
        assert namespace["f"](3) == 3
        assert [str(p) for p in namespace["f"].__type_params__] == ["T"]


# --- paths ----------------------------------------------------------------------------------------


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def passes_on(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return passes_on


class Mm:
    def __init__(self) -> None:
        self.ptl = make_lock("ptl")
        self.__lock = make_lock("private")
        self.inner = self

    @requires_lock("self.inner.ptl")
    def path(self) -> None: ...

    @requires_lock("self.__lock")
    def mangled(self) -> None: ...

    def private(self) -> Any:
        return self.__lock


def test_paths(idle: Check) -> None:
    idle.start()
    mm = Mm()
    mm.path()
    assert idle.facts().lock == "ptl"
    mm.mangled()
    assert idle.facts().lock == "private"
    with mm.ptl, mm.private():
        mm.path()
        mm.mangled()
    assert idle.rules == []


@pytest.mark.parametrize("decorate", [lambda f: f, _decorated, functools.partial, lambda f: atomic(f)])
def test_paths_through_what_another_decorator_made(decorate: Callable[[Any], Any], idle: Check) -> None:
    idle.start()

    def uses(a: int, mm: Any, /, node: Any = None, *more: int, lock: Any = None) -> None: ...

    for path, call in (
        ("mm.ptl", lambda f, mm: f(1, mm)),
        ("node", lambda f, mm: f(1, 2, mm.ptl)),
        ("node", lambda f, mm: f(1, 2, node=mm.ptl)),
        ("lock", lambda f, mm: f(1, 2, lock=mm.ptl)),
    ):
        marked = requires_lock(path)(decorate(uses))
        mm = Mm()
        call(marked, mm)
        assert idle.facts().lock == "ptl"
        with mm.ptl:
            call(marked, mm)
        assert idle.rules == []


def test_a_parameter_with_the_name_of_what_packs_it(idle: Check) -> None:
    idle.start()

    def uses(args: Any, kwargs: Any = None) -> None: ...

    mm = Mm()
    requires_lock("args.ptl")(_decorated(uses))(mm)
    assert idle.facts().lock == "ptl"
    requires_lock("kwargs.ptl")(_decorated(uses))(1, kwargs=mm)
    assert idle.facts().lock == "ptl"


def test_callables_are_given_the_arguments(idle: Check) -> None:
    idle.start()
    given: list[object] = []

    @requires_lock(lambda *args, **kwargs: given.append((args, kwargs)) or LOCK)
    def uses(a: int, /, node: int, b: int = 3, *rest: int, k: int = 4, **more: int) -> None: ...

    uses(1, 2)
    uses(1, 2, 5, 6, k=7, z=8)
    assert given == [((1, 2, 3), {"k": 4}), ((1, 2, 5, 6), {"k": 7, "z": 8})]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("strat", "names no parameter of it; its parameters are start, end; did you mean 'start'?"),
        ("strat.x", "lock='strat.x' names no parameter"),
        ("start.", "is not the name of a parameter, or a dotted path from one"),
        ("start[0]", "is not the name of a parameter"),
        ("", "is not the name of a parameter"),
        ("start.x()", "is not the name of a parameter"),
    ],
)
def test_wrong_paths(path: str, words: str) -> None:
    def function(start: int, end: int) -> None: ...

    for decorate in (lambda f: f, _decorated):
        with pytest.raises(ValueError, match=r"^@requires_lock on .*function: ") as caught:
            requires_lock(path)(decorate(function))
        assert words in str(caught.value)


def test_a_function_without_parameters() -> None:
    with pytest.raises(ValueError, match="names no parameter of it; it has no parameters"):
        requires_lock("self")(nothing)


def test_target_reads_the_parameters() -> None:
    assert Target(plain, "m").params == "a, b, /, c, *, d, e"
    assert Target(plain, "m").call == "a, b, c, d=d, e=e"
    assert Target(star, "m").params == "a, *rest, k, **more"
    assert Target(star, "m").call == "a, *rest, k=k, **more"
    assert Target(keyword_node, "m").call == "node=_ctx_param_node, **_engine"
    assert Target(Called(), "m").plain is False
