"""Which test of :mod:`unittest` runs: so that findings of its threads, tasks and jobs name it, too.

``unittest`` has no plugins.  When the program imports it, those of its methods are wrapped that run a test, and the
fixtures of a class or module.  Their results, and what they raise, are as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ctxcheck import imports, steps
from ctxcheck.engine import behalf
from ctxcheck.probes.patches import Patches

_patches: Final[list[Patches]] = []


def install() -> None:
    """Look out for tests, as soon as there are any.  A second call does nothing."""
    if not _patches:
        _patches.append(Patches())
        imports.when_imported("unittest.case", _watch_cases)
        imports.when_imported("unittest.suite", _watch_suites)


def uninstall() -> None:
    """Give everything back."""
    for action in (_watch_cases, _watch_suites):
        imports.forget(action)
    while _patches:
        _patches.pop().restore()
    behalf.switch(False)


def _watch_cases(module: Any) -> None:
    for name in ("__call__", "run"):  # the one is the suite's way, the other one anybody's
        _patches[0].wrap(module.TestCase, name, _named(_test_of))


def _watch_suites(module: Any) -> None:
    for name, name_of in _FIXTURES.items():
        _patches[0].wrap(module.TestSuite, name, _named(name_of))


def _named(name_of: Callable[..., str]) -> Callable[[Any, Any], Any]:
    """What wraps a method that runs something of this name."""

    def make(original: Any, live: Callable[[], bool]) -> Any:
        def run(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            if not live():
                return original(self, *args, **kwargs)
            if not behalf.active:
                behalf.switch(True, steps.running_task)
            try:
                name = name_of(self, *args, **kwargs)
            except Exception:  # a test of another make: then it has no name
                name = ""
            before = behalf.begin(name)
            try:
                return original(self, *args, **kwargs)
            finally:
                behalf.begin(before)

        return run

    return make


def _test_of(case: Any, *_: Any, **__: Any) -> str:
    return f"{_class_of(case)}.{case._testMethodName}"


def _set_up_class(_: Any, test: Any, __: Any) -> str:
    return f"{_class_of(test)}.setUpClass"


def _tear_down_class(_: Any, __: Any, result: Any) -> str:
    previous: Any = result._previousTestClass
    return f"{previous.__module__}.{previous.__qualname__}.tearDownClass"


def _set_up_module(_: Any, test: Any, __: Any) -> str:
    return f"{type(test).__module__}.setUpModule"


def _tear_down_module(_: Any, result: Any) -> str:
    return f"{result._previousTestClass.__module__}.tearDownModule"


#: What runs the fixtures of classes and modules, and what each of them is called.
_FIXTURES: Final[dict[str, Callable[..., str]]] = {
    "_handleClassSetUp": _set_up_class,
    "_tearDownPreviousClass": _tear_down_class,
    "_handleModuleFixture": _set_up_module,
    "_handleModuleTearDown": _tear_down_module,
}


def _class_of(case: object) -> str:
    return f"{type(case).__module__}.{type(case).__qualname__}"
