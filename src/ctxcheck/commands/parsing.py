"""Options of the command line: a parser whose errors are one line, and the options that several commands have."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from typing import Any, Final, NoReturn

from ctxcheck.config import Resolved, load
from ctxcheck.engine.errors import CtxcheckError
from ctxcheck.reports.cells import safe

#: The status of a usage or configuration error.
USAGE: Final = 2

_CHOICE: Final = re.compile(r"(argument .*: )?invalid choice: '?(.*?)'? \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line that says what is allowed, or what comes nearest."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore
        """Refuse here what isn't known, where the nearest option is known, if this is a command's own parser."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown and " " in self.prog:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave."""
        choice = _CHOICE.fullmatch(message)
        if choice is not None:
            what, given, listed = choice.groups()
            allowed = [word.strip().strip("'\"") for word in listed.split(",")]
            where = "" if what is None or what.startswith("argument command") else what
            near = difflib.get_close_matches(given, allowed, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            kind = "unknown command" if not where else "unknown value"
            message = f"{where}{kind} {given!r}; allowed: {', '.join(allowed)}{hint}"
        elif message.startswith("unrecognized arguments: "):
            given = message.removeprefix("unrecognized arguments: ").split()[0]
            known = [option for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(given.partition("=")[0], known, 1)
            hint = f"; did you mean {near[0]}?" if near and given.startswith("-") else ""
            message = f"unknown {'option' if given.startswith('-') else 'argument'} {given}{hint}"
        name = self.prog.removeprefix("ctxcheck").strip()
        say(f"ctxcheck: {f'{name}: ' if name else ''}{' '.join(message.split())}")
        sys.exit(USAGE)


def say(text: str) -> None:
    """Print one line to standard error, with nothing in it that a terminal could act on; if that fails, it is lost."""
    try:
        sys.stderr.write(f"{safe(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # full, closed, or there is none
        pass


def put(text: str) -> None:
    """Print a report, which is safe as it is, to standard output.

    Raises:
        CtxcheckError: it can't be written.
    """
    if not text:
        return
    data = (text.rstrip("\n") + "\n").encode("utf-8", "backslashreplace")
    try:
        if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - it is, where it was closed
            sys.stdout.flush()
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        pass  # `| head` has seen enough
    except OSError as error:
        raise CtxcheckError(f"can't write to standard output: {error.strerror or error}") from None


def option(parser: Any, name: str) -> None:
    """Add the option of a configuration key."""
    from ctxcheck.keys import KEYS

    key = KEYS[name]
    if key.kind == "flag":
        parser.add_argument(f"--{name}", action="store_const", const=True, help=key.help)
    else:
        parser.add_argument(
            f"--{name}", metavar="|".join(key.allowed) if key.kind == "choice" else "VALUE", help=key.help
        )


def common(parser: Any) -> None:
    """Add what all commands that read data take."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="data files, or folders of them; default: data-dir")
    parser.add_argument("--config", metavar="FILE", help="the configuration; default: the nearest pyproject.toml")
    option(parser, "data-dir")


def resolve(parsed: argparse.Namespace, *names: str) -> Resolved:
    """The configuration, with these keys as the command line has them; says what looks like a typing error."""
    given = {name: getattr(parsed, name.replace("-", "_"), None) for name in names}
    resolved = load(given, config_path=parsed.config)
    for warning in resolved.warnings:
        say(f"ctxcheck: warning: {warning}")
    return resolved
