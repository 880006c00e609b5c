"""``ctxcheck graph``: the orders that were seen, for something else to draw."""

from __future__ import annotations

import argparse
from typing import Any

from ctxcheck.commands.parsing import common, put, resolve
from ctxcheck.commands.reading import NoDataError, read


def add(commands: Any) -> None:
    """Add the command's options."""
    parser = commands.add_parser("graph", help="the lock orders that were seen, as a graph", allow_abbrev=False)
    common(parser)
    parser.add_argument("--format", choices=("dot", "mermaid", "json"), default="dot", help="default: dot")
    parser.add_argument("--only-cycles", action="store_true", help="only the orders that lie on a cycle")


def run(parsed: argparse.Namespace) -> int:
    """Print the graph; returns 0."""
    from ctxcheck.reports import graphs, json

    config = resolve(parsed, "data-dir").config
    with read(parsed.paths, config.data_dir) as store:
        if store.is_empty():
            raise NoDataError(parsed.paths, config.data_dir)
        graph = graphs.graph(
            (graphs.Class(*item) for item in store.classes()),
            (graphs.Order(*edge) for edge in store.edges()),
            only_cycles=parsed.only_cycles,
        )
    if parsed.format == "json":
        put(json.dumps(graphs.document(graph)))
    else:
        put(graphs.dot(graph) if parsed.format == "dot" else graphs.mermaid(graph))
    return 0
