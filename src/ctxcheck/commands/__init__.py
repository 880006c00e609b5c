"""The commands that work on data: ``combine``, ``report``, ``graph``, ``erase``, ``debug``.

Each module has ``add(commands)``, which adds the command's options, and ``run(parsed)``, which returns the exit status.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

NAMES: Final = ("combine", "report", "graph", "erase", "debug")


def add(commands: Any) -> None:
    """Add the commands to those of the command line."""
    from ctxcheck.commands import debug, erase, graph, report

    report.add(commands)
    graph.add(commands)
    erase.add(commands)
    debug.add(commands)


def run(parsed: argparse.Namespace) -> int:
    """Run the command that was asked for.

    Raises:
        CtxcheckError: what is wrong, in one line.
    """
    from ctxcheck.commands import debug, erase, graph, report

    if parsed.command in ("report", "combine"):
        return report.run(parsed)
    if parsed.command == "graph":
        return graph.run(parsed)
    return erase.run(parsed) if parsed.command == "erase" else debug.run(parsed)
