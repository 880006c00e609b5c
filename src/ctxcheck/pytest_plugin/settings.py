"""What a run is asked for: pytest's options and keys over the environment and the project's configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ctxcheck import config as configuration
from ctxcheck import outputs
from ctxcheck.config import ConfigError
from ctxcheck.engine.rules import find_rule, rule_names
from ctxcheck.keys import KEYS, Config, Output
from ctxcheck.pytest_plugin import flag_of_ini
from ctxcheck.selection import one_of

_MODES = ("record", "warn", "raise")


@dataclass(frozen=True)
class Settings:
    """The merged configuration; ``place`` is the file that it is from, ``warnings`` are single lines on it, ``root`` is
    the folder that its paths go from, if not the working directory."""

    config: Config
    place: str
    warnings: tuple[str, ...]
    outputs: tuple[Output, ...]
    cwd: str
    root: str | None


def settle(config: pytest.Config, options: Any) -> Settings:
    """Merge everything.

    Raises:
        pytest.UsageError: for whatever isn't understood, in one line that names it.
    """
    given: dict[str, Any] = {
        "mode": options.ctxcheck_mode,
        "strict": options.ctxcheck_strict,
        "owners": options.ctxcheck_owners,
        "fail-on": options.ctxcheck_fail_on,
        "output": options.ctxcheck_output,
    }
    if given["mode"] is None and not os.environ.get("CTXCHECK_MODE"):
        given["mode"] = _mode_of_ini(config)
    if given["strict"] is None and not os.environ.get("CTXCHECK_STRICT") and flag_of_ini(config, "ctxcheck_strict"):
        given["strict"] = True
    cwd = os.getcwd()
    try:
        resolved = configuration.load(given, cwd=str(config.rootpath), config_path=_absolute(options, cwd))
    except ConfigError as error:
        raise pytest.UsageError(str(error).replace("command line: --", "command line: --ctxcheck-")) from None
    root, wanted_config = None, resolved.config
    if resolved.path is not None and not (options.ctxcheck_config or os.environ.get("CTXCHECK_CONFIG")):
        # found from pytest's root folder, which may lie above the one that it was started in
        root = os.path.dirname(os.path.abspath(resolved.path))
        source = resolved.sources["baseline"]
        if wanted_config.baseline and source != KEYS["baseline"].variable:
            path = os.path.relpath(os.path.join(root, wanted_config.baseline), cwd)
            wanted_config = replace(wanted_config, baseline=path)
    chosen = resolved.sources["output"] != "default"
    wanted = outputs.with_github(resolved.config.output, chosen=chosen)
    try:
        outputs.check(wanted, cwd=cwd)
    except ConfigError as error:
        raise pytest.UsageError(str(error).replace("--output", "--ctxcheck-output")) from None
    place = "default" if resolved.path is None else os.path.relpath(resolved.path, config.rootpath)
    return Settings(wanted_config, place, resolved.warnings, tuple(wanted), cwd, root)


def _absolute(options: Any, cwd: str) -> str | None:
    path: str | None = options.ctxcheck_config
    return None if path is None else os.path.join(cwd, path)


def _mode_of_ini(config: pytest.Config) -> str | None:
    mode = str(config.getini("ctxcheck_mode") or "").strip()
    if not mode:
        return None
    try:
        one_of("ctxcheck_mode", mode, _MODES)
    except ValueError as error:
        raise pytest.UsageError(f"pytest's configuration: {error}") from None
    return mode


def rule_called(name: object, where: str) -> str:
    """The code of a rule, by code or slug.

    Raises:
        ValueError: there is none; one line that begins with ``where`` and names the nearest.
    """
    import difflib

    rule = find_rule(name) if isinstance(name, str) else None
    if rule is not None:
        return rule.code
    near = difflib.get_close_matches(str(name).upper(), rule_names(), 1) or difflib.get_close_matches(
        str(name).lower(), rule_names(), 1
    )
    hint = f"; did you mean {near[0]!r}?" if near else "; allowed: a code or a slug, see `ctxcheck explain`"
    raise ValueError(f"{where}: unknown rule {name!r}{hint}")
