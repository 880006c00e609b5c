"""The command line: ``ctxcheck run``, ``explain`` and ``probes``; the other commands are in :mod:`ctxcheck.commands`.

Exit statuses: 0 fine; the program's own if it isn't 0; 1 (or ``--error-exitcode``) violations; 2 usage or
configuration; 3 ctxcheck itself broke.  Everything printed goes to standard error: standard output is the program's.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from ctxcheck.config import KEYS, ConfigError, load
from ctxcheck.engine.errors import CtxcheckError
from ctxcheck.runner import Program, RunnerError, leave
from ctxcheck.running import USAGE, Run, say

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
        say(f"ctxcheck: {error}")
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
            say(f"ctxcheck: {error}")
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
