"""The command line: ``ctxcheck run``, ``explain`` and ``probes``; the other commands are in :mod:`ctxcheck.commands`.

Exit statuses: 0 fine; the program's own if it isn't 0; 1 (or ``--error-exitcode``) violations; 2 usage or
configuration; 3 ctxcheck itself broke.  Everything printed goes to standard error: standard output is the program's.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import sys
from collections.abc import Sequence
from os import write as _write
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ctxcheck.config import KEYS, Config, ConfigError, Resolved, declared, load
from ctxcheck.engine import slowpath
from ctxcheck.engine.errors import CtxcheckError
from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.runner import Outcome, Program, RunnerError, before_os_exit, leave

if TYPE_CHECKING:
    from ctxcheck.engine.allows import UnusedAllow

USAGE, BROKEN = 2, 3
#: Lines on comments that are wrong, and allows that are named as unused, at the end of a run.
MAX_LINES: Final = 3

_RUN_OPTIONS: Final = (
    "mode", "owners", "fail-on", "strict", "select", "ignore", "include", "exclude", "factories", "adapters",
    "stack-depth", "max-reports", "deadlock-after", "dump-signal", "data-dir", "baseline", "color", "blocking",
    "not-blocking",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave the process with its status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _dispatch(arguments)
    except (ConfigError, RunnerError, CtxcheckError) as error:
        _say(f"ctxcheck: {error}")
        leave(USAGE)


def _dispatch(arguments: list[str]) -> NoReturn:
    parser, run_parser = _parsers(every=arguments[:1] != ["run"])
    if arguments[:1] == ["run"]:
        options, program = _split(arguments[1:], run_parser)
        parsed = run_parser.parse_args(options)
        if program is None:
            run_parser.error("no program given: ctxcheck run [options] script.py|directory|-m module [arguments]")
        _run(parsed, program)
    from ctxcheck import commands
    from ctxcheck.commands.parsing import put

    parsed = parser.parse_args(arguments)
    if parsed.command in commands.NAMES:
        leave(commands.run(parsed))
    if parsed.command == "explain":
        from ctxcheck.reports import explain

        try:
            put(explain.page(parsed.rule) if parsed.rule else explain.index())
        except ValueError as error:
            _say(f"ctxcheck: {error}")
            leave(USAGE)
        leave(0)
    if parsed.command == "probes":
        from ctxcheck import listing

        config = load({}, config_path=parsed.config).config
        leave(listing.show(config, put, everything=parsed.all, test=parsed.selftest))
    parser.print_help(sys.stderr)
    leave(USAGE)


def _parsers(*, every: bool = True) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    from ctxcheck.commands import parsing

    parser = parsing.Parser(
        prog="ctxcheck", description="A runtime validator of locks, contexts and brackets: lockdep for Python."
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="command")
    run = commands.add_parser(
        "run",
        help="run a program with checked locks and report what it breaks",
        usage="ctxcheck run [options] script.py|directory|-m module [arguments]",
        allow_abbrev=False,
    )
    run.add_argument("--config", metavar="FILE", help="the configuration; default: the nearest pyproject.toml")
    run.add_argument(
        "--output",
        action="append",
        metavar="TYPE[:PATH]",
        help=f"a report: {', '.join(KEYS['output'].allowed)}; to standard error without a path; may be repeated",
    )
    for name in _RUN_OPTIONS:
        key = KEYS[name]
        if key.kind == "flag":
            run.add_argument(f"--{name}", action="store_const", const=True, help=key.help)
        else:
            run.add_argument(f"--{name}", metavar=_metavar(key.kind, key.allowed), help=f"{key.help}{_default(key)}")
    run.add_argument("--exit-zero", action="store_true", help="report, but don't let violations change the status")
    run.add_argument(
        "--error-exitcode", type=_status, default=1, metavar="N", help="the status for violations, 1 to 255 (default 1)"
    )
    run.add_argument("--processes", action="store_true", help="check the Python processes that it starts, too")
    run.add_argument("-q", "--quiet", action="store_true", help="print findings one a line")
    probes = commands.add_parser("probes", help="which calls count as blocking, and how they are seen")
    probes.add_argument("--config", metavar="FILE", help="the configuration; default: the nearest pyproject.toml")
    probes.add_argument("--all", action="store_true", help="also those that aren't active, and why")
    probes.add_argument("--selftest", action="store_true", help="make each call, and see whether it is told")
    explain = commands.add_parser("explain", help="what a rule means, why it hurts, how to fix it")
    explain.add_argument("rule", nargs="?", help="a code (CTX001) or a slug (lock-order-inversion); none: list them")
    if every:
        from ctxcheck import commands as others

        others.add(commands)
    return parser, run


def _metavar(kind: str, allowed: tuple[str, ...]) -> str:
    if allowed and kind == "choice":
        return "|".join(allowed)
    return {"count": "N", "seconds": "SECONDS", "text": "PATH", "signal": "NAME"}.get(kind, "A,B")


def _status(text: str) -> int:
    """An exit status that says that something is wrong: a process has no others than these."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= 255):
        raise argparse.ArgumentTypeError(f"is {text[:60]!r}; allowed: 1 to 255 (--exit-zero for 0)")
    return int(text)


def _default(key: Any) -> str:
    value = "observed" if key.name == "owners" else key.default  # the one that depends on who asks
    return f" (default: {value})" if value and isinstance(value, (str, int, float)) and value is not True else ""


class _Version(argparse.Action):
    """Look the version up only when it is asked for: that imports half of the standard library."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import ctxcheck

        sys.stdout.write(f"ctxcheck {ctxcheck.__getattr__('__version__')}\n")
        parser.exit()


def _split(
    arguments: list[str], parser: argparse.ArgumentParser
) -> tuple[list[str], tuple[str, list[str], bool] | None]:
    """Tell our options from the program and its own: ours end at the first word that isn't one."""
    takes_value = {
        option for action in parser._actions if action.nargs is None for option in action.option_strings
    }
    known = [option for action in parser._actions for option in action.option_strings]
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word == "-m":
            rest = arguments[index + 1 :]
            if not rest:
                parser.error("argument -m: a module name is missing")
            return arguments[:index], (rest[0], rest[1:], True)
        if word == "--":
            rest = arguments[index + 1 :]
            return arguments[:index], ((rest[0], rest[1:], False) if rest else None)
        if not word.startswith("-") or word == "-":
            return arguments[:index], (word, arguments[index + 1 :], False)
        option = word.partition("=")[0]
        if option not in known:
            if option[2:] in KEYS:
                parser.error(f"{option} is no option: {option[2:]!r} stands in the configuration file only")
            near = difflib.get_close_matches(option, known, 1)
            parser.error(f"unknown option {option}{f'; did you mean {near[0]}?' if near else ''}")
        index += 2 if word in takes_value else 1
    return arguments, None


def _warn(line: str) -> None:
    _say(f"ctxcheck: warning: {line}")


# --- run ------------------------------------------------------------------------------


def _run(parsed: argparse.Namespace, program: tuple[str, list[str], bool]) -> NoReturn:
    cli = {name.replace("-", "_"): getattr(parsed, name.replace("-", "_")) for name in (*_RUN_OPTIONS, "output")}
    resolved = load(cli, config_path=parsed.config)
    target, args, is_module = program
    runnable = Program(target, args, module=is_module)
    command = list(sys.argv)
    runnable.prepare()
    if resolved.enabled is False:
        outcome = runnable.run()
        leave(outcome.status, interrupted=outcome.interrupted)
    Run(parsed, resolved, runnable, command).go()


class Run:
    """One checked run of a program, from the locks put in place to the last line."""

    def __init__(self, parsed: argparse.Namespace, resolved: Resolved, program: Program, command: list[str]) -> None:
        from ctxcheck import baseline, outputs
        from ctxcheck.datafile import DataFile
        from ctxcheck.keys import Output
        from ctxcheck.locks import naming
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
        self.targets: Targets = Targets((*said, *shipped(self._warn)), _warn)
        self.never: list[str] = []
        self.reported: bool = False
        self.refused: str = ""
        self._pid = os.getpid()
        self.config_path: str | None = os.path.abspath(resolved.path) if resolved.path is not None else None
        naming.factories.update(self.config.factories)
        naming.set_scope(self.config.include, self.config.exclude)
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
            _say(self.refused)
            leave(USAGE)
        try:
            status = self._report(outcome.status)
        except Exception as error:  # the program may have left a process in which nothing can be opened any more
            what = " ".join(f"{type(error).__name__}: {error}".split())
            _say(f"ctxcheck: can't report what was found; {self.data.path or self.data.directory} has it: {what}")
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
                    _say(text + "\n" * (output.type == "text"))

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
        from ctxcheck.locks import naming

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
        if missed := naming.misses():
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
            _say(f"ctxcheck: strict: {line}")
        if not self.config.strict:
            self._say_of_allows(refused, unused)
            for line in self.session.misnamed()[:MAX_LINES]:
                _say(f"ctxcheck: note: {line}")
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
        _say(f"ctxcheck: {number or 'no'} child process{'es' if number != 1 else ''} took part")
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
            _say(f"ctxcheck: {hidden} more not shown; raise max-reports, or see --output json")
        if not self.config.strict:
            for line in self._stale(violations):
                _say(f"ctxcheck: note: in the baseline, and no longer found: {line}")
        unchecked = text.unchecked(counts)
        if unchecked:
            _say(f"ctxcheck: {unchecked}")
        _say(text.summary(violations, counts, program_status=program_status, exit_status=status))

    def _say_of_allows(self, refused: list[str], unused: list[UnusedAllow]) -> None:
        """A few lines on comments that are wrong, and on what accepted nothing."""
        for line in refused[:MAX_LINES]:
            _say(f"ctxcheck: warning: {line}")
        if len(refused) > MAX_LINES:
            _say(f"ctxcheck: warning: {len(refused) - MAX_LINES} more comments like these")
        if unused and any(output.type in ("text", "concise") for output in self.outputs):
            where = [f"{u.file}:{u.line}" if u.line else f"{u.file} ({u.rules[0]})".strip() for u in unused]
            more = f" and {len(where) - MAX_LINES} more" if len(where) > MAX_LINES else ""
            many = f"{len(where)} allows" if len(where) > 1 else "1 allow"
            _say(
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

        from ctxcheck.locks.install import unchecked_locks

        return replace(self.session.counts(), unchecked=unchecked_locks())

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
            say=_say,
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


def _plain(counts: Counts) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(counts)


def _say(text: str) -> None:
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
