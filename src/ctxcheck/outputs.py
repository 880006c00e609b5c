"""Where reports go: files, the terminal, and what GitHub Actions takes.

``ctxcheck run`` and everything else that reports goes through :func:`emit`; the texts come from
:func:`ctxcheck.reports.formats.render`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from ctxcheck.engine.errors import ConfigError
from ctxcheck.keys import Output
from ctxcheck.reports.formats import Report, render

#: Bytes of a step's summary that are kept free for whoever writes into it next.
_MARGIN: Final = 1024


def with_github(outputs: Sequence[Output], *, chosen: bool, environ: Mapping[str, str] = os.environ) -> list[Output]:
    """Return the outputs, and on GitHub Actions its annotations too, unless the outputs were chosen by somebody.

    Args:
        outputs: the configured ones.
        chosen: whether they were named on the command line, in the configuration or the environment; then they are all.
        environ: where ``GITHUB_ACTIONS`` is looked up.
    """
    added = not chosen and environ.get("GITHUB_ACTIONS") == "true"
    return [*outputs, *([Output("github")] if added else [])]


def prefix(cwd: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the folder ``cwd`` as seen from the top of the checkout, with ``/``; empty for the top itself.

    The top is ``GITHUB_WORKSPACE`` where that is set and ``cwd`` lies in it, else ``cwd``.
    """
    top = environ.get("GITHUB_WORKSPACE", "")
    if not top:
        return ""
    try:
        path = os.path.relpath(os.path.realpath(cwd), os.path.realpath(top))
    except (ValueError, OSError):  # another drive, or a folder that is gone
        return ""
    path = path.replace(os.sep, "/")
    return "" if path in (".", "..") or path.startswith("../") else path


def check(outputs: Iterable[Output], *, cwd: str) -> None:
    """See that every output with a path can be written, before anything is run.

    The folders on the way to it are made; the file is not.

    Raises:
        ConfigError: it is a folder, lies in something that isn't one or can't be written; or two go to one file.
    """
    taken: dict[str, Output] = {}
    for output in outputs:
        if output.path is None:
            continue
        path = os.path.join(cwd, output.path)
        if os.path.isdir(path):
            raise ConfigError(f"can't write --output {output}: that is a folder")
        there = path
        while there and not os.path.lexists(there):
            there = os.path.dirname(there)
        if there != path and not os.path.isdir(there):
            raise ConfigError(f"can't write --output {output}: {os.path.relpath(there, cwd)} is no folder")
        try:
            _try(path)
        except OSError as error:
            raise ConfigError(f"can't write --output {output}: {error.strerror or error}") from None
        if os.path.exists(path) and not os.path.isfile(path):
            continue  # a device or a pipe: as many as like
        other = taken.setdefault(os.path.realpath(path), output)
        if other is not output:
            raise ConfigError(f"can't write --output {output}: --output {other} goes to the same file")


def _try(path: str) -> None:
    """Open a file as if to write, which leaves what is there as it is.

    Nothing else tells what a file system makes of a name, and who may write where: root may nearly everywhere.
    """
    if not os.path.lexists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "ab"):
            pass
        os.unlink(path)
    elif os.path.isfile(path):
        with open(path, "ab"):
            pass
    elif not os.access(path, os.W_OK):  # a pipe would have to be read before it opens
        raise PermissionError("no permission to write there")


def emit(
    outputs: Iterable[Output],
    report: Report,
    *,
    say: Callable[[str], object],
    cwd: str,
    color: bool = False,
    always_color: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> bool:
    """Write every output, and the folders on the way to it; return whether all files could be written.

    What can't be written is said in one line, and the others are written all the same.

    Args:
        outputs: what is wanted.
        report: what there is to show.  What was ``told`` is left out on the terminal only.
        say: prints on the terminal, to standard error.
        cwd: what relative paths are relative to; the program may have changed the working directory.
        color: whether the terminal shows colours.
        always_color: whether a text in a file has them, too.
        environ: where GitHub's variables are looked up.
    """
    whole = _replace_told(report)
    written = True
    for output in outputs:
        path = output.path
        content = render(output.type, report if path is None else whole, color=color if path is None else always_color)
        if output.type == "github":
            _add_summary(report, say, environ)
        if output.type == "none":
            continue
        if path is None:
            if content:
                say(content + ("\n" if output.type == "text" else ""))
            continue
        try:
            os.makedirs(os.path.dirname(os.path.join(cwd, path)), exist_ok=True)
            with open(os.path.join(cwd, path), "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
                file.write(content.rstrip("\n") + "\n" if content else "")
        except OSError as error:
            written = False
            say(f"ctxcheck: can't write --output {output}: {error.strerror or error}")
    return written


def _replace_told(report: Report) -> Report:
    from dataclasses import replace

    return replace(report, told={}) if report.told else report


def _add_summary(report: Report, say: Callable[[str], object], environ: Mapping[str, str]) -> None:
    """Append what was found to the summary of the step, as far as that has room."""
    path = environ.get("GITHUB_STEP_SUMMARY", "")
    if not path:
        return
    from ctxcheck.reports import github

    try:
        with open(path, "ab") as file:
            room = github.MAX_SUMMARY - _MARGIN - file.tell()
            text = github.summary(report.violations, report.counts, room=room)
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        say(f"ctxcheck: can't write the summary of the step: {error.strerror or error}")
