"""One checked run of a program: from the locks put in place to the last line.

Everything printed goes to standard error: standard output is the program's.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from os import write as _write
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ctxcheck.config import Config, Resolved, declared
from ctxcheck.engine import slowpath
from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.runner import Outcome, Program, before_os_exit, leave

if TYPE_CHECKING:
    from ctxcheck.engine.allows import UnusedAllow

#: Statuses to leave with: usage or configuration; ctxcheck itself broke.
USAGE, BROKEN = 2, 3
#: Lines on comments that are wrong, and allows that are named as unused, at the end of a run.
MAX_LINES: Final = 3


class Run:
    """One checked run of a program, from the locks put in place to the last line."""

    def __init__(self, parsed: argparse.Namespace, resolved: Resolved, program: Program, command: list[str]) -> None:
        from ctxcheck import baseline, outputs
        from ctxcheck.datafile import DataFile
        from ctxcheck.keys import Output
        from ctxcheck.locks import naming, scope
        from ctxcheck.selection import Allowance
        from ctxcheck.session import Session
        from ctxcheck.targets import Targets, shipped

        #: what was warned of, a line each; strict: it fails
        self.warned: list[str] = []
        self.config: Config = resolved.config
        self.parsed: argparse.Namespace = parsed
        self.program: Program = program
        self.command: list[str] = command
        self.cwd: str = os.getcwd()
        self.printed: dict[str, str] = {}
        # -q: what would go to the terminal as text goes there one a line
        self.outputs: list[Output] = [
            Output("concise") if parsed.quiet and o == Output("text") else o
            for o in outputs.with_github(self.config.output, chosen=resolved.sources["output"] != "default")
        ]
        outputs.check(self.outputs, cwd=self.cwd)
        for warning in resolved.warnings:
            self._warn(warning)
        said = (*self.config.may_sleep, *self.config.atomic, *self.config.requires_lock)
        marked = (*said, *shipped(self._warn))
        self.targets: Targets = Targets(marked, _warn)
        self._marks: bool = bool(marked)
        self.never: list[str] = []
        self.reported: bool = False
        self.refused: str = ""
        self._pid = os.getpid()
        self.config_path: str | None = os.path.abspath(resolved.path) if resolved.path is not None else None
        naming.factories.update(self.config.factories)
        scope.set_scope(self.config.include, self.config.exclude)
        self.data: DataFile = DataFile(
            self.config.data_dir, command, {"owners": self.config.owners or "observed"}
        )
        self.baseline: baseline.Baseline | None = baseline.load(self.config.baseline) if self.config.baseline else None
        self.session: Session = Session(
            mode=self.config.mode,
            owners=self.config.owners or "observed",
            deadlock_after=self.config.deadlock_after,
            fail_on=self.config.fail_on,
            select=self.config.select,
            ignore=self.config.ignore,
            allow=[Allowance(a.rule, a.locks, a.reason, a.path, _name(resolved.path)) for a in self.config.allow],
            stack_depth=self.config.stack_depth,
            declared=declared(self.config),
            sink=self.data,
            at_once=self._print_at_once,
            known=self.baseline.known if self.baseline is not None else None,
        )

    def _warn(self, line: str, *, at_the_end: bool = False) -> None:
        self.warned.append(line)
        if not (at_the_end and self.config.strict):  # then it is told as what fails
            _warn(line)

    def go(self) -> NoReturn:
        """Run, report, and leave."""
        from ctxcheck import adapters, children, forked, unittests
        from ctxcheck.dumps import dump_on
        from ctxcheck.greenlets import Watch
        from ctxcheck.probes import install
        from ctxcheck.reports import formats, text

        del text, forked
        for output in self.outputs:  # what it imports, before the program can be in the way
            formats.render(output.type, formats.Report([]))
            if output.type == "sarif":  # the help of rules, for machines
                from ctxcheck.reports import explain

                explain.preload()
        watch = Watch(self._refuse)
        outcome = Outcome(0)
        children.share(self.data, self.config_path, ask=self.parsed.processes)
        install.install(blocking=self.config.blocking, not_blocking=self.config.not_blocking)
        adapters.install(self.config.adapters)
        self.targets.install()
        unittests.install()
        self.session.start()
        watch.install()
        undo = dump_on(self.config.dump_signal)
        with before_os_exit(self._at_os_exit, self._at_childs_os_exit):
            try:
                outcome = self.program.run()
            finally:
                undo()
                watch.remove()
                self.session.stop("run")
                self.never = self.targets.never_imported()
                self.targets.uninstall()
                unittests.uninstall()
                adapters.uninstall()
                install.uninstall()
        if self.refused:
            say(self.refused)
            leave(USAGE)
        try:
            status = self._report(outcome.status)
        except Exception as error:  # the program may have left a process in which nothing can be opened any more
            what = " ".join(f"{type(error).__name__}: {error}".split())
            say(f"ctxcheck: can't report what was found; {self.data.path or self.data.directory} has it: {what}")
            status = outcome.status or BROKEN
        leave(status, interrupted=outcome.interrupted)

    def _refuse(self, package: str) -> NoReturn:
        from ctxcheck.greenlets import refusal

        self.refused = f"ctxcheck: {refusal(package)}"
        raise SystemExit(USAGE)

    def _at_os_exit(self, status: int) -> int:
        self.session.stop("run")
        return self._report(status)

    def _at_childs_os_exit(self) -> None:
        """A forked child leaves: it may have put a lock right since it began."""
        slowpath.consult(self.session.engine.forks.answer)

    def _print_at_once(self, violation: Violation) -> None:
        """Print what is certain while the program runs: it may never come to its end."""
        if os.getpid() != self._pid or len(self.printed) >= self.config.max_reports:
            return
        from ctxcheck.reports.formats import Report, render

        for output in self.outputs:
            if output.path is None and output.type in ("text", "concise"):
                self.printed[violation.fingerprint] = violation.grade
                text = render(output.type, Report([violation]), color=self._color())
                if text:
                    say(text + "\n" * (output.type == "text"))

    def _report(self, program_status: int) -> int:
        """Write every report, print the last line, and return the status to leave with."""
        if self.reported:
            return program_status
        self.reported = True
        if os.getpid() != self._pid:
            # a forked child that fell off the end of the program: its findings are in its own file
            self.data.close()
            return program_status
        with _no_signal_kills():
            return self._report_all(program_status)

    def _report_all(self, program_status: int) -> int:
        from ctxcheck.locks import scope

        everything = self._with_children(self.session.violations)
        violations = everything[: self.config.max_reports]
        counts = self._counts()
        failing = any(self.session.fails(v) for v in everything)
        unused, refused = self.session.unused_allows, self.session.refused_allows
        complaints = [*refused, *map(str, unused), *self._strict(counts, everything)] if self.config.strict else []
        if self.data.path is not None or not counts.nothing():
            self.data.write({"type": "end", "counts": _plain(counts), "graph": self.session.graph()})
            self.data.close()
        if self.data.error:
            self._warn(self.data.error, at_the_end=True)
        for missed in filter(None, (self.config.misses(), scope.misses())):
            self._warn(missed, at_the_end=True)
        complaints += self.warned if self.config.strict else []
        status = program_status
        if status == 0 and self.session.engine.broken:
            status = BROKEN
        elif status == 0 and (failing or complaints) and not self.parsed.exit_zero:
            status = self.parsed.error_exitcode
        if not self._emit(everything, counts, program_status, status, unused) and status == 0:
            status = USAGE
        for line in complaints:
            say(f"ctxcheck: strict: {line}")
        if not self.config.strict:
            self._say_of_allows(refused, unused)
            for line in self.session.misnamed()[:MAX_LINES]:
                say(f"ctxcheck: note: {line}")
        self._last_lines(everything, counts, program_status, status, len(everything) - len(violations))
        return status

    def _with_processes(self, own: list[Violation]) -> list[Violation]:
        """What the child processes that checked themselves found, too, and what all come to together."""
        from ctxcheck import children

        if not children.asked():
            return own
        found, number, problems = children.together(self.data, self.session, own, self.cwd)
        for problem in problems:
            self._warn(problem, at_the_end=True)
        say(f"ctxcheck: {number or 'no'} child process{'es' if number != 1 else ''} took part")
        return found

    def _with_children(self, own: list[Violation]) -> list[Violation]:
        """What the children that the program forked have found, too."""
        from ctxcheck import children as processes

        if processes.asked():  # the forked ones are among them
            return self._with_processes(own)
        if not self.session.has_forked:
            return own
        from ctxcheck import forked

        children, problems = forked.collect(self.data.directory, self.data.run, self._pid)
        for problem in problems:
            self._warn(problem, at_the_end=True)
        return forked.merge(own, children)

    def _last_lines(
        self, violations: list[Violation], counts: Counts, program_status: int, status: int, hidden: int
    ) -> None:
        from ctxcheck.reports import text

        if hidden:
            say(f"ctxcheck: {hidden} more not shown; raise max-reports, or see --output json")
        if not self.config.strict:
            for line in self._stale(violations):
                say(f"ctxcheck: note: in the baseline, and no longer found: {line}")
        unchecked = text.unchecked(counts)
        if unchecked:
            say(f"ctxcheck: {unchecked}")
        say(text.summary(violations, counts, program_status=program_status, exit_status=status))

    def _say_of_allows(self, refused: list[str], unused: list[UnusedAllow]) -> None:
        """A few lines on comments that are wrong, and on what accepted nothing."""
        for line in refused[:MAX_LINES]:
            say(f"ctxcheck: warning: {line}")
        if len(refused) > MAX_LINES:
            say(f"ctxcheck: warning: {len(refused) - MAX_LINES} more comments like these")
        if unused and any(output.type in ("text", "concise") for output in self.outputs):
            where = [f"{u.file}:{u.line}" if u.line else f"{u.file} ({u.rules[0]})".strip() for u in unused]
            more = f" and {len(where) - MAX_LINES} more" if len(where) > MAX_LINES else ""
            many = f"{len(where)} allows" if len(where) > 1 else "1 allow"
            say(
                f"ctxcheck: note: {many} accepted nothing in this run, and can go if what they are for has run: "
                + ", ".join(where[:MAX_LINES])
                + more
            )

    def _strict(self, counts: Counts, violations: list[Violation]) -> list[str]:
        engine = self.session.engine
        lines = engine.declared.missing(engine.seen) if engine.declared is not None else []
        lines += [line for line in self.session.misnamed() if line not in lines]
        lines += self.targets.unresolved
        lines += [f"the module of target {name!r} was never imported" for name in self.never]
        if counts.nothing():
            lines.append("nothing was checked")
        lines += [f"in the baseline, and no longer found: {line}" for line in self._stale(violations)]
        return lines

    def _stale(self, violations: list[Violation]) -> list[str]:
        from ctxcheck import baseline

        if self.baseline is None:
            return []
        return [baseline.describe(entry) for entry in self.baseline.stale(violations)]

    def _counts(self) -> Counts:
        from dataclasses import replace

        from ctxcheck import children
        from ctxcheck.locks.install import unchecked_locks

        counts = replace(self.session.counts(), unchecked=unchecked_locks())
        others = self.session.has_forked or children.asked()  # who count for themselves
        if counts.threads == 1 and not (others or self._marks or _asks_for_markers()):
            # the main thread came by at a call that may block: without a lock or a context that is nothing to go by
            counts = replace(counts, threads=0)
        return counts

    def _emit(
        self, violations: list[Violation], counts: Counts, program_status: int, status: int, unused: list[UnusedAllow]
    ) -> bool:
        from ctxcheck import outputs
        from ctxcheck.reports.formats import Report

        report = Report(
            violations,
            counts,
            run={
                "argv": self.command[1:],
                "python": sys.version.split()[0],
                "platform": sys.platform,
                "program_status": program_status,
                "exit_status": status,
            },
            graph=self.session.graph(),
            most=self.config.max_reports,
            told=self.printed,
            unused_allows=unused,
            prefix=outputs.prefix(self.cwd),
        )
        return outputs.emit(
            self.outputs,
            report,
            say=say,
            cwd=self.cwd,
            color=self._color(),
            always_color=self.config.color == "always",
        )

    def _color(self) -> bool:
        if self.config.color != "auto":
            return self.config.color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        if os.environ.get("FORCE_COLOR"):
            return True
        try:
            return os.isatty(2)
        except OSError:
            return False


class _no_signal_kills:  # noqa: N801  # reads as a statement
    """While open, a pipe that nobody reads and a file that is too long are errors of ours, no end of the process,
    whatever the program has said about those signals."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        import signal

        for name in ("SIGPIPE", "SIGXFSZ"):
            number = getattr(signal, name, None)
            try:
                if number is not None and signal.getsignal(number) is not None:
                    self._before.append((number, signal.signal(number, signal.SIG_IGN)))
            except ValueError:  # another thread than the main one ends the process
                return

    def __exit__(self, *exc_info: object) -> None:
        import signal

        for number, handler in self._before:
            signal.signal(number, handler)


def _name(path: str | None) -> str:
    return os.path.basename(path) if path else ""


def _asks_for_markers() -> bool:
    """Whether the program has looked up a marker: ``ctxcheck`` keeps the names that it was asked for."""
    from ctxcheck import markers

    return not vars(sys.modules["ctxcheck"]).keys().isdisjoint(markers.__all__)


def _plain(counts: Counts) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(counts)


def _warn(line: str) -> None:
    say(f"ctxcheck: warning: {line}")


def say(text: str) -> None:
    """Print to standard error, past whatever the program made of ``sys.stderr``."""
    # a stream of the program's own making may take locks, and we may be called under them
    if type(sys.stderr) is io.TextIOWrapper:
        try:
            sys.stderr.flush()
        except Exception:  # closed, or interrupted in the middle of a write; ours doesn't depend on it
            pass
    data = (text + "\n").encode(errors="backslashreplace")
    try:
        while data:
            data = data[_write(2, data) :]
    except OSError:
        pass
