"""The checks of one run of pytest: what counts for which test, and which test fails.

Each test is an origin (:mod:`ctxcheck.engine.origins`), from its setup to its teardown; so is each fixture of a wider
scope, with its own setup and teardown, whichever test they come in, and so is all that is imported first.  What a test
shows by itself fails it, in the phase in which it shows.
"""

from __future__ import annotations

import dataclasses
import gc
import os
from collections.abc import Generator
from os import write as _write
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

from ctxcheck import adapters, baseline, fastpath, greenlets
from ctxcheck.baseline import Baseline
from ctxcheck.config import declared
from ctxcheck.datafile import DataFile
from ctxcheck.engine import slowpath
from ctxcheck.engine.errors import ConfigError
from ctxcheck.engine.instances import IMPORT
from ctxcheck.engine.origins import Phase
from ctxcheck.engine.owner import OwnerState
from ctxcheck.engine.violations import Violation
from ctxcheck.locks import naming, scope
from ctxcheck.probes import install
from ctxcheck.pytest_plugin import runners
from ctxcheck.pytest_plugin.failing import Broken, end_at_the_call, settle
from ctxcheck.pytest_plugin.marks import Wishes, wishes_of
from ctxcheck.pytest_plugin.notes import Notes
from ctxcheck.pytest_plugin.results import Results
from ctxcheck.pytest_plugin.settings import Settings
from ctxcheck.reports import json, text  # before anything can be in the way of an import
from ctxcheck.selection import Allowance
from ctxcheck.session import Session
from ctxcheck.targets import Targets, shipped

if TYPE_CHECKING:
    from _pytest.fixtures import FixtureDef, SubRequest


del json

#: How often is collected at the end, at most; as often as pytest does.
_COLLECTIONS: Final = 5

#: Whose locks are no business of a suite's.
_RUNNERS: Final = (
    "_pytest", "_pytest.*", "pytest", "pluggy", "pluggy.*", "xdist", "xdist.*", "execnet", "execnet.*",
    "__channelexec__",  # what execnet runs in a worker: the main part of xdist
    "pytest_timeout", "pytest_cov", "pytest_cov.*", "coverage", "coverage.*", "pytest_asyncio", "pytest_asyncio.*",
    "pytest_randomly", "pytest_randomly.*", "pytest_rerunfailures", "anyio.pytest_plugin", "hypothesis", "hypothesis.*",
    "_hypothesis_*",
)  # fmt: skip

#: What the markers of a test ask for, and what is wrong with them.  Not by its name: tests outside of pytest's root
#: folder, or of other people's collectors, may share one.
_WISHES: Final = pytest.StashKey[Wishes]()
_MISTAKE: Final = pytest.StashKey[str]()


class _Test:
    """What is known of the test that runs now."""

    def __init__(self, phase: Phase, wishes: Wishes) -> None:
        self.phase: Phase = phase
        self.wishes: Wishes = wishes
        #: whether what is left to be done is the teardown
        self.leaving: bool = False
        #: what was found in it, once it is over
        self.found: list[Violation] | None = None
        self.allow: list[Allowance] = []
        #: fingerprints of what was told, and of what was expected
        self.told: set[str] = set()
        self.expected: set[str] = set()


class Checks:
    """The plugin, once it is on."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self.config: pytest.Config = config
        self.settings: Settings = settings
        self.notes: Notes = Notes()
        self.results: Results = Results(self)
        wanted = settings.config
        owners = wanted.owners or "assumed"
        argv = ["pytest", *config.invocation_params.args]
        self.data: DataFile = DataFile(wanted.data_dir, argv, {"owners": owners})
        try:
            self.baseline: Baseline | None = baseline.load(wanted.baseline) if wanted.baseline else None
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
        self.session: Session = Session(
            mode=wanted.mode,
            owners=owners,
            deadlock_after=wanted.deadlock_after,
            fail_on=wanted.fail_on,
            select=wanted.select,
            ignore=wanted.ignore,
            allow=[Allowance(a.rule, a.locks, a.reason, a.path, settings.place, settings.root) for a in wanted.allow],
            stack_depth=wanted.stack_depth,
            declared=declared(wanted),
            sink=self.data,
            at_once=self._say_at_once,
            known=self.baseline.known if self.baseline is not None else None,
        )
        self._test: _Test | None = None
        #: the last one that was begun
        self._begun: pytest.Item | None = None
        #: fixtures of wider scopes that are being set up or torn down
        self.spans: int = 0
        #: what the phase of a test that has just ended was failed for
        self._raised: Broken | None = None
        self._import: Phase | None = None
        self._stderr: int = 2
        self._installed: bool = False
        self._stopped: bool = False
        self.targets: Targets | None = None
        self._green: greenlets.Watch = greenlets.Watch(self._refuse)
        #: why the suite can't be checked any further, if it can't
        self.refused: str = ""
        #: what there is to say of the configuration, a line each
        self.warned: list[str] = list(self.settings.warnings)
        self._pid: int = os.getpid()

    # --- the run --------------------------------------------------------------------

    def start(self) -> None:
        """Put the checks in place; what follows is the import of conftests and tests.

        Raises:
            pytest.UsageError: they can't be, in one line that says why.
        """
        if package := greenlets.patched():
            raise pytest.UsageError(greenlets.refusal(package, "suite"))
        naming.factories.update(self.settings.config.factories)
        scope.set_scope(self.settings.config.include, (*self.settings.config.exclude, *_RUNNERS))
        self._installed = not install.installed()
        try:
            adapters.install(self.settings.config.adapters)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
        wanted = self.settings.config
        install.install(blocking=wanted.blocking, not_blocking=wanted.not_blocking)
        said = (*wanted.may_sleep, *wanted.atomic, *wanted.requires_lock)
        self.targets = Targets((*said, *shipped(self.warned.append)), self.warned.append)
        self.targets.install()
        self.session.start()
        engine = self.session.engine
        self.session.tell_origins_apart()
        self._import = engine.origins.begin(self.state(), IMPORT)
        runners.follow(self.session)
        self._green.install()
        self.config.add_cleanup(self.stop)

    def _refuse(self, package: str) -> NoReturn:
        """The suite is about to replace threads with greenlets: before it has, it ends."""
        self.refused = greenlets.refusal(package, "suite")
        self._exit()

    def _exit(self) -> NoReturn:
        pytest.exit(f"ctxcheck: {self.refused}", returncode=pytest.ExitCode.USAGE_ERROR)

    def state(self) -> OwnerState:
        """The state of the thread that runs the tests, also where a test has left a session of its own behind."""
        return fastpath.thread_state(self.session.local, self.session.engine)

    def stop(self) -> None:
        """Take them away; nothing is left behind."""
        if self._stopped:
            return
        self._stopped = True
        runners.leave()
        self._green.remove()
        self._imported()
        self.session.stop("run")
        if self.data.path is not None:
            self.data.write({"type": "end", "counts": dataclasses.asdict(self.session.counts())})
        scope.set_scope((), ())
        if self.targets is not None:
            self.targets.uninstall()
        if self._installed:
            adapters.uninstall()
            install.uninstall()
        self.data.close()
        if self._stderr != 2:
            os.close(self._stderr)

    def _imported(self) -> None:
        phase, self._import = self._import, None
        if phase is not None:
            slowpath.consult(lambda: self.session.engine.origins.end(phase, over=False))

    def _say_at_once(self, violation: Violation) -> None:
        """What hangs has to be told before it does: pytest may never come to its report."""
        hangs = violation.rule in ("CTX001", "CTX003", "CTX006") or (
            violation.rule == "CTX002" and violation.grade != "certain"
        )
        if hangs and os.getpid() == self._pid:
            data = f"\n{text.render(violation)}\n".encode(errors="backslashreplace")
            try:
                _write(self._stderr, data)
            except OSError:
                pass

    @pytest.hookimpl
    def pytest_configure(self) -> None:
        """Output isn't captured now: what is told at once goes there."""
        try:
            self._stderr = os.dup(2)
        except OSError:
            pass
        # by what it does, not by its name: pytest-xdist is "xdist", or "xdist.plugin", as it was asked for
        if hasattr(self.config.hook, "pytest_testnodedown"):
            from ctxcheck.pytest_plugin.workers import Workers

            self.config.pluginmanager.register(Workers(self.results), "ctxcheck-workers")

    @pytest.hookimpl
    def pytest_report_header(self) -> str:
        """One line."""
        wanted = self.settings.config
        patched = "threading+asyncio"
        strict = ", strict" if wanted.strict else ""
        return f"ctxcheck: mode={wanted.mode}, locks={patched}, config={self.settings.place}{strict}"

    # --- collection -------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Generator[None, Any, Any]:
        """A marker that isn't understood is a mistake to be told before anything runs."""
        collected = len(items)
        outcome = yield
        self.results.left_out = max(0, collected - len(items))
        for item in items:
            try:
                item.stash[_WISHES] = wishes_of(item)
            except pytest.UsageError as error:
                if not hasattr(self.config, "workerinput"):
                    raise
                # the process that reports has no items, and one of xdist's workers can't tell it more than a test can
                item.stash[_MISTAKE] = str(error)
        return outcome

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        """What comes now isn't the import of modules any more."""
        self._imported()
        if self.refused:
            self._exit()

    # --- tests --------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """The test begins."""
        if self.refused:
            self._exit()  # the test before may have caught it
        if mistake := item.stash.get(_MISTAKE, ""):
            pytest.fail(mistake, pytrace=False)
        self._begin(item)
        return (yield from self._watch(item, "setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """It runs."""
        return (yield from self._watch(item, "call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """It ends."""
        if self._test is not None:
            self._test.leaving = True
        return (yield from self._watch(item, "teardown"))

    def _watch(self, item: pytest.Item, when: str) -> Generator[None, Any, Any]:
        self._raised = None  # whoever ran the last one asked for no report
        try:
            outcome = yield
        except (KeyboardInterrupt, pytest.exit.Exception):
            self._news(item, when)
            raise
        except BaseException as error:
            end_at_the_call(error)
            news = self._news(item, when)
            if not news:
                raise
            self._raised = Broken(news)
            if isinstance(error, pytest.skip.Exception):
                raise self._raised from None  # what wasn't to be run was found wanting
            raise
        news = self._news(item, when)
        if news:
            self._raised = Broken(news)
            raise self._raised
        return outcome

    def _begin(self, item: pytest.Item) -> None:
        if self._pid != os.getpid():
            self._begin_elsewhere()
        self._begun = item
        wishes = item.stash.get(_WISHES, None) or wishes_of(item)
        phase = self.session.engine.origins.begin(self.state(), item.nodeid, self._fixtures_of(item))
        self._test = _Test(phase, wishes)
        for allowance in wishes.allow:
            self.allow(item, allowance)
        self._grant(self._test)
        self.results.begun += 1

    def _begin_elsewhere(self) -> None:
        """A process was forked for a test: what was found before is its parent's to tell."""
        self._pid = os.getpid()
        self.results = Results(self, before=self.session.counts())
        self.session.engine.origins.leave_to_parent()

    def _of_this_process(self) -> dict[str, Any]:
        self._collect()
        return self.results.of_this_process()

    def _grant(self, test: _Test) -> None:
        """What a test asks for is so from now on."""
        if test.wishes.mode is not None:
            self._set_mode(test.wishes.mode)
        if test.wishes.off and fastpath.engine() is self.session.engine:
            fastpath.activate(None)

    def _revoke(self, test: _Test) -> None:
        """It isn't any more."""
        if test.wishes.off and fastpath.engine() is None:
            fastpath.activate(self.session.engine, self.session.local)
        self._set_mode(self.settings.config.mode)

    def enter_fixture(self) -> _Test | None:
        """What comes is the business of a fixture that serves several tests, whichever of them it comes in.  Returns
        what is to be given to :meth:`leave_fixture`.

        The first such teardown ends the test: what it has left behind runs on in it only if it happens to be the last
        one that asks for the fixture.
        """
        test = self._test
        if test is None or test.found is not None or self.spans:
            return None
        if test.leaving:
            self._end(test)
            return None
        self._revoke(test)
        for allowance in test.allow:
            self.session.allowances.remove(allowance)
        return test

    def leave_fixture(self, test: _Test | None) -> None:
        """The test goes on."""
        if test is not None and test is self._test:
            self._grant(test)
            self.session.allowances.extend(test.allow)

    def _fixtures_of(self, item: pytest.Item) -> list[str]:
        """The origins of those fixtures of wider scopes that a test asks for, also through others."""
        info: Any = getattr(item, "_fixtureinfo", None)
        definitions: dict[str, Any] = {} if info is None else info.name2fixturedefs
        return [origin_of(d) for ds in definitions.values() for d in ds if d.scope != "function"]

    def _set_mode(self, mode: Any) -> None:
        self.session.mode = mode
        self.session.engine.insistent = mode == "raise"

    def _news(self, item: pytest.Item, when: str) -> list[Violation]:
        """What fails the test and wasn't told of in an earlier phase; at the end of the last one, the test is over."""
        test = self._test
        if test is None or test.phase.origin != item.nodeid:
            return []
        found = self._end(test) if when == "teardown" else self.found_in(item, pending=False)
        if when == "teardown":
            self._test = None
        wanted = test.wishes.mode or self.settings.config.mode
        news = [
            v
            for v in found
            if self.session.fails(v) and v.fingerprint not in test.told | test.expected and wanted != "warn"
        ]
        news.sort(key=lambda v: (v.rule, v.fingerprint))  # which thread was the first to say so is chance
        test.told.update(v.fingerprint for v in news)
        for violation in news:
            item.user_properties.append(("ctxcheck.rule", violation.rule))
            item.user_properties.append(("ctxcheck.fingerprint", violation.fingerprint))
        return news

    def _end(self, test: _Test) -> list[Violation]:
        """The test is over, if it wasn't; what was found in it."""
        if test.found is not None:
            return test.found
        self._revoke(test)
        isolated = test.wishes.isolated or test.wishes.off
        every = self.session.end_origin(test.phase, keep=not isolated, expected=test.expected, allowed=test.allow)
        found = [] if test.wishes.off else [v for v in every if v.fingerprint not in test.expected]
        test.found = found
        for allowance in test.allow:
            self.session.allowances.remove(allowance)
            if not allowance.used:
                self.results.unused.append(f"{test.phase.origin}: an allow of {allowance.rule} accepted nothing")
        self.results.add_test(test.phase.origin, found)
        self.results.expected(v for v in every if v.fingerprint in test.expected)
        return found

    # --- what the fixture asks for -------------------------------------------------------

    def found_in(self, item: pytest.Item, *, pending: bool = True) -> list[Violation]:
        """What was found in a test so far, without what owners have shown that may yet outlive it; ``pending``: with
        what may yet turn out to be none."""
        test = self._test
        if test is None or test.wishes.off:
            return []
        if test.found is not None:
            return test.found
        origins = self.session.engine.origins
        found = self.session.violations_in(item.nodeid, origins.alive(item.nodeid, elsewhere=True), pending=pending)
        return [v for v in found if v.fingerprint not in test.expected]

    def allow(self, item: pytest.Item, allowance: Allowance) -> None:
        """Accept findings until the test ends."""
        del item
        if self._test is not None and self._test.found is None:
            self._test.allow.append(allowance)
            self.session.allowances.append(allowance)

    def consume(self, item: pytest.Item, violations: list[Violation]) -> None:
        """These were expected."""
        del item
        if self._test is not None:
            self._test.expected.update(v.fingerprint for v in violations)

    # --- fixtures of wider scopes ----------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: FixtureDef[Any], request: SubRequest) -> Generator[None, Any, Any]:
        """A fixture that serves several tests counts for itself: which of them comes first is chance."""
        del request
        if fixturedef.scope == "function":
            return (yield)
        own = _Span(self, fixturedef)
        fixturedef.addfinalizer(own.end)
        own.begin(again=False)
        try:
            outcome = yield
        finally:
            own.end()
        # finalizers run in reverse: this one before the fixture's own, the other one after them
        fixturedef.addfinalizer(own.begin)
        return outcome

    # --- reports ------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A finding is in it, whatever the test's own outcome is."""
        raised, self._raised = self._raised, None
        report = settle((yield), item, call, raised)
        if self._begun is item:
            told = [v.fingerprint for v in raised.violations] if raised is not None else []
            self.notes.attach(report, told, self._of_this_process)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's report has come to the process that tells."""
        if not (hasattr(self.config, "workerinput") or self.notes.elsewhere()):
            self.notes.take(report)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """When all tests have run, what they show together is known."""
        try:
            outcome = yield
        finally:
            self._imported()
            self._collect()
            if not session.config.option.collectonly:
                self.results.conclude(session)
            if hasattr(self.config, "workerinput"):
                self.stop()  # the one who has sent for this worker ends it as soon as it has said what it found
        return outcome

    def _collect(self) -> None:
        """Let the finalizers of all that the tests have left run, now: whether and in which process the collector
        would have come by itself is luck.  Pytest does the same, but later.  Where it is off, it is off for a reason.
        """
        engine = self.session.engine
        if gc.isenabled() and not engine.broken and not engine.closed:
            for _ in range(_COLLECTIONS):
                if not gc.collect():
                    break  # what a finalizer leaves may be garbage, too

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The findings that no test has by itself, and the last line."""
        self.results.show(terminalreporter)


def origin_of(fixturedef: Any) -> str:
    """What a fixture of a wider scope counts for."""
    base = f"{fixturedef.baseid}::" if fixturedef.baseid else ""
    return f"<fixture {base}{fixturedef.argname}>"


class _Span:
    """The stretches of time in which a fixture is set up and torn down."""

    def __init__(self, checks: Checks, fixturedef: FixtureDef[Any]) -> None:
        self._checks: Checks = checks
        self._fixturedef: FixtureDef[Any] = fixturedef
        self._phase: Phase | None = None
        self._test: _Test | None = None

    def begin(self, *, again: bool = True) -> None:
        """It counts for the fixture now."""
        engine = self._checks.session.engine
        if self._phase is not None or engine.broken or engine.closed:
            return
        self._test = self._checks.enter_fixture()
        self._checks.spans += 1
        self._phase = engine.origins.begin(self._checks.state(), origin_of(self._fixturedef), again=again)

    def end(self) -> None:
        """It doesn't any more."""
        phase, self._phase = self._phase, None
        if phase is not None:
            slowpath.consult(lambda: self._checks.session.engine.origins.end(phase, over=False))
            self._checks.spans -= 1
            self._checks.leave_fixture(self._test)
