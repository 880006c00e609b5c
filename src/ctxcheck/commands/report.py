"""``ctxcheck report`` and ``ctxcheck combine``: what all runs together come to."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from ctxcheck import baseline, datadir, merged, outputs
from ctxcheck.acceptance import Acceptance
from ctxcheck.commands.parsing import USAGE, common, option, put, resolve, say
from ctxcheck.commands.reading import NoDataError, read
from ctxcheck.config import Config
from ctxcheck.engine.rules import GRADES, selects
from ctxcheck.engine.violations import Counts, Violation
from ctxcheck.keys import Output
from ctxcheck.reports.cells import count_of
from ctxcheck.reports.formats import Report
from ctxcheck.selection import Allowance
from ctxcheck.store import Store

_KEYS = ("data-dir", "output", "fail-on", "baseline", "strict", "color", "owners", "max-reports")


def add(commands: Any) -> None:
    """Add the options of both."""
    for name, text in (
        ("combine", "put the data of any number of runs and machines into one file, and check all of it together"),
        ("report", "report what was found by all runs, and by all of them together"),
    ):
        parser = commands.add_parser(name, help=text, allow_abbrev=False)
        common(parser)
        for key in ("fail-on", "strict", "baseline", "owners", "color", "max-reports"):
            option(parser, key)
        parser.add_argument(
            "--output", action="append", metavar="TYPE[:PATH]",
            help="a report; to standard output without a path; may be repeated; see ctxcheck run --help",
        )  # fmt: skip
        parser.add_argument("--exit-zero", action="store_true", help="don't let violations change the status")
        parser.add_argument("-q", "--quiet", action="store_true", help="print findings one a line")
        if name == "combine":
            parser.add_argument("--to", metavar="PATH", help=f"the file to write; default: {datadir.COMBINED}")
            parser.add_argument(
                "--remove", action="store_true", help="remove the files of data-dir that were combined"
            )
        else:
            parser.add_argument(
                "--write-baseline", nargs="?", const="", metavar="PATH",
                help=f"write what is found as the baseline; default: the one configured, or {baseline.DEFAULT_PATH}",
            )  # fmt: skip


def run(parsed: argparse.Namespace) -> int:
    """Report; returns the exit status."""
    resolved = resolve(parsed, *_KEYS)
    config, place = resolved.config, "" if resolved.path is None else os.path.relpath(resolved.path)
    wanted = [Output("concise") if parsed.quiet and o == Output("text") else o for o in config.output]
    outputs.check(wanted, cwd=os.getcwd())
    writes = getattr(parsed, "write_baseline", None)
    known = baseline.load(config.baseline) if config.baseline and writes is None else baseline.Baseline()
    with read(parsed.paths, config.data_dir) as store:
        if store.is_empty():
            raise NoDataError(parsed.paths, config.data_dir)
        if parsed.command == "combine":
            _combine(parsed, store, config.data_dir)
        told = store.problems.number
        violations = _violations(store, config, place, known)
        for line in store.problems.told(told):
            say(f"ctxcheck: warning: {line}")
        counts = store.counts()
        graph = _graph(store) if any(output.type.startswith("json") for output in config.output) else {}
        said = _about(store)
    if writes is not None:
        return _write_baseline(writes or config.baseline or baseline.DEFAULT_PATH, violations, config)
    violations = [v.replace(baselined=v.allowed_by is None and known.known(v)) for v in violations]
    failing = [v for v in violations if fails(v, config)]
    cwd = os.getcwd()
    written = outputs.emit(
        wanted,
        Report(
            violations, counts, run=about(), graph=graph, most=config.max_reports, prefix=outputs.prefix(cwd)
        ),
        say=put,
        cwd=cwd,
        color=_color(config),
        always_color=config.color == "always",
    )
    stale = known.stale(violations)
    for entry in stale:
        word = "strict" if config.strict else "note"
        say(f"ctxcheck: {word}: in the baseline, and no longer found: {baseline.describe(entry)}")
    bad = bool(failing) or (config.strict and bool(stale or store.problems.number))
    status = 1 if bad and not parsed.exit_zero else 0 if written else USAGE
    _last_lines(violations, counts, status, said, max(0, len(violations) - config.max_reports))
    return status


def fails(violation: Violation, config: Config) -> bool:
    """Whether a finding counts."""
    if violation.allowed_by is not None or violation.baselined:
        return False
    return GRADES.index(violation.grade) >= GRADES.index(config.fail_on)


def _combine(parsed: argparse.Namespace, store: Store, data_dir: str) -> None:
    target = parsed.to or os.path.join(data_dir, datadir.COMBINED)
    store.write(target)
    say(f"ctxcheck: combined {count_of(store.files, 'data file')} into {target}")
    if parsed.remove:
        removed = datadir.remove(store.read_from, data_dir, keep=target)
        say(f"ctxcheck: removed {removed:,} of them from {data_dir}")


def _violations(store: Store, config: Config, place: str, known: baseline.Baseline) -> list[Violation]:
    allowances = (Allowance(a.rule, a.locks, a.reason, a.path, place) for a in config.allow)
    acceptance = Acceptance(allowances, bool)
    return [
        acceptance.by_configuration(violation)
        for violation in merged.verdict(
            store, config.owners, accept=acceptance.by_configuration, in_baseline=known.known
        )
        if selects(violation.rule, config.select, config.ignore)
    ]


def _write_baseline(path: str, violations: list[Violation], config: Config) -> int:
    before = baseline.Baseline()
    if os.path.exists(path):
        before = baseline.load(path)
    written = baseline.write(path, violations)
    new = sum(not any(old.fingerprint == e.fingerprint for old in before.entries) for e in written.entries)
    gone = len(before.stale(violations))
    number = count_of(len(written.entries), "finding")
    say(f"ctxcheck: wrote {number} to {path}: {new:,} new, {gone:,} no longer there")
    if config.baseline != path:
        say(f"ctxcheck: to use it: baseline = {path!r} under [tool.ctxcheck], or --baseline {path}")
    return 0


def _about(store: Store) -> str:
    runs, complete = store.number_of_runs()
    first = min((run["facts"].get("started", "") for run in store.runs()), default="")
    text = count_of(runs, "process", "processes")
    if first:
        text += f" since {first}"
    if complete < runs:
        text += f", {runs - complete:,} of which did not come to an end: what they saw until then counts"
    return text


def _last_lines(violations: list[Violation], counts: Counts, status: int, said: str, hidden: int) -> None:
    from ctxcheck.reports import text

    if hidden:
        say(f"ctxcheck: {hidden} more not shown; raise max-reports, or see --output json")
    say(f"ctxcheck: {said}")
    say(text.summary(violations, counts, exit_status=status))


def _graph(store: Store) -> dict[str, Any]:
    return {
        "classes": [{"key": key, "name": name, "kind": kind} for key, name, kind in store.classes()],
        "edges": [{"from": source, "to": target, "count": count} for source, target, count in store.edges()],
    }


def about() -> dict[str, Any]:
    """What machines are told of the command itself."""
    return {"argv": sys.argv[1:], "python": sys.version.split()[0], "platform": sys.platform}


def _color(config: Config) -> bool:
    if config.color != "auto":
        return config.color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    try:
        return bool(os.environ.get("FORCE_COLOR")) or os.isatty(1)
    except OSError:
        return False
