"""``ctxcheck erase``: forget what was seen so far."""

from __future__ import annotations

import argparse
from typing import Any

from ctxcheck import datadir
from ctxcheck.commands.parsing import option, resolve, say


def add(commands: Any) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "erase", help="remove the data files, so that what was seen is forgotten", allow_abbrev=False
    )
    parser.add_argument("--config", metavar="FILE", help="the configuration; default: the nearest pyproject.toml")
    option(parser, "data-dir")


def run(parsed: argparse.Namespace) -> int:
    """Remove the data files; returns 0, also where there were none."""
    folder = resolve(parsed, "data-dir").config.data_dir
    number = datadir.erase(folder)
    say(f"ctxcheck: removed {number:,} data file{'s' if number != 1 else ''} from {folder}")
    return 0
