"""``pytest --ctxcheck``: each test is checked, and fails for what it shows by itself.

Inert until it is asked for (``--ctxcheck``, ``ctxcheck = true`` in pytest's configuration, ``CTXCHECK=1``): then
nothing of ctxcheck's but this module is loaded, and ``threading.Lock`` is what it was.  Options, keys and markers are
known even so, so that a suite that uses them runs without.

What tests show together is told at the end, and fails the session: see :mod:`~ctxcheck.pytest_plugin.results`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from ctxcheck.pytest_plugin.handle import Handle

#: The name that the running plugin is registered under.
RUN = "ctxcheck-run"

#: The names that pytest may know this module by: its entry point's, and its own (``-p``, ``pytest_plugins``).
_NAMES: Final = ("ctxcheck", __name__)

_MARKERS = (
    "ctxcheck(mode=None, allow=(), reason=None, isolated=False): how ctxcheck checks this test: its mode, rules that "
    "are accepted in it and why, whether its orders count for this test only",
    "no_ctxcheck(reason=None): don't check locks in this test",
)


def pytest_plugin_registered(plugin: object, manager: pytest.PytestPluginManager) -> None:
    """This module is registered: who asks for it by its other name has it, since pytest refuses it a second time; who
    has turned that name off (``-p no:...``) has turned it off."""
    if plugin is sys.modules[__name__]:
        name = manager.get_name(plugin)
        others = [other for other in _NAMES if other != name]
        if any(map(manager.is_blocked, others)):
            manager.unregister(plugin)
        for other in others:
            manager.set_blocked(other)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and the keys, which are known also where nothing is checked."""
    group = parser.getgroup("ctxcheck", "lock-context validation")
    add = group.addoption
    add("--ctxcheck", action="store_true", dest="ctxcheck", help="validate lock contexts in this run (ini: ctxcheck)")
    add("--no-ctxcheck", action="store_true", dest="no_ctxcheck", help="don't, whatever the configuration says")
    add(
        "--ctxcheck-mode", metavar="MODE", dest="ctxcheck_mode",
        help="record (default): fail the test afterwards; warn; raise at the offending call (ini: ctxcheck_mode)",
    )  # fmt: skip
    add(
        "--ctxcheck-strict", action="store_const", const=True, dest="ctxcheck_strict",
        help="also fail on warnings, unused allows and missing worker data (ini: ctxcheck_strict)",
    )  # fmt: skip
    add(
        "--ctxcheck-owners", metavar="OWNERS", dest="ctxcheck_owners",
        help="who may run a critical section: assumed (default): any number of threads at once; observed: those seen",
    )  # fmt: skip
    add(
        "--ctxcheck-fail-on", metavar="GRADE", dest="ctxcheck_fail_on",
        help="the least grade that fails: certain, possible (default), unlikely",
    )  # fmt: skip
    add(
        "--ctxcheck-output", metavar="TYPE[:PATH]", action="append", dest="ctxcheck_output",
        help="a report, to the terminal without a path; may be repeated",
    )  # fmt: skip
    add("--ctxcheck-config", metavar="PATH", dest="ctxcheck_config", help="the TOML file with the configuration")
    parser.addini("ctxcheck", "validate lock contexts", type="bool", default=False)
    parser.addini("ctxcheck_mode", "record, warn or raise", default="")
    parser.addini("ctxcheck_strict", "also fail on warnings and unused allows", type="bool", default=False)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """Put the checks in place before the first conftest can import a lock."""
    options = early_config.known_args_namespace
    # known here too: `-p ctxcheck.pytest_plugin` may come before the option is parsed
    if not wanted(early_config, options):
        return (yield)
    from ctxcheck.pytest_plugin.checks import Checks
    from ctxcheck.pytest_plugin.settings import settle

    checks = Checks(early_config, settle(early_config, options))
    early_config.pluginmanager.register(checks, RUN)
    checks.start()
    outcome: Any = None
    try:
        outcome = yield
    except BaseException:
        if not checks.refused:
            raise
    if checks.refused:
        raise pytest.UsageError(checks.refused)
    return outcome


def wanted(config: pytest.Config, options: Any) -> bool:
    """Whether anything is to be checked."""
    import os

    switch = os.environ.get("CTXCHECK", "")
    if switch not in ("", "0", "1"):
        raise pytest.UsageError(f"environment: CTXCHECK is {switch!r}; allowed: 1 (on), 0 (off)")
    if switch == "0" or getattr(options, "no_ctxcheck", False):
        return False
    return switch == "1" or bool(getattr(options, "ctxcheck", False)) or flag_of_ini(config, "ctxcheck")


def flag_of_ini(config: pytest.Config, name: str) -> bool:
    """The value of a key that is true or false.

    Raises:
        pytest.UsageError: it is neither; one line that names it.
    """
    try:
        return bool(config.getini(name))
    except (ValueError, TypeError, pytest.UsageError) as error:
        said = " ".join(str(error).split())
        raise pytest.UsageError(f"pytest's configuration: {name}: {said}; allowed: true, false") from None


def _in_vain(options: Any) -> list[str]:
    """Options that were given although nothing is checked."""
    names = ("mode", "strict", "owners", "fail_on", "output", "config")
    return [f"--ctxcheck-{name.replace('_', '-')}" for name in names if getattr(options, f"ctxcheck_{name}", None)]


def pytest_report_header(config: pytest.Config) -> str | None:
    """Nothing, but where the options ask for what isn't on."""
    import os

    if config.pluginmanager.hasplugin(RUN):
        return None
    asked = [*(["--ctxcheck"] if config.option.ctxcheck else []), *_in_vain(config.option)]
    if not asked or config.option.no_ctxcheck:
        return None
    why = "CTXCHECK=0 in the environment" if os.environ.get("CTXCHECK") == "0" else "there is no --ctxcheck"
    return f"ctxcheck: off ({why}); {', '.join(asked)} {'does' if len(asked) == 1 else 'do'} nothing"


def pytest_configure(config: pytest.Config) -> None:
    """The markers are known also where nothing is checked.

    Raises:
        pytest.UsageError: something is to be checked, and a conftest is loaded: what it has imported isn't seen.
    """
    if wanted(config, config.option) and not config.pluginmanager.hasplugin(RUN):
        raise pytest.UsageError(
            "ctxcheck comes too late to check the run: a conftest names it in pytest_plugins; "
            "use -p ctxcheck.pytest_plugin"
        )
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture
def ctxcheck(request: pytest.FixtureRequest) -> Generator[Handle, None, None]:
    """What ctxcheck has found in this test so far, and what it should expect or accept there."""
    from ctxcheck.pytest_plugin.handle import Handle

    checks = cast("Any", request.config.pluginmanager.get_plugin(RUN))
    handle = Handle(checks, cast("Any", request).node)
    yield handle
    handle.end()
