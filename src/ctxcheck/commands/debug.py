"""``ctxcheck debug config|sys``: what holds here, and why."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Sequence
from typing import Any, Final, cast

from ctxcheck.commands.parsing import put, resolve
from ctxcheck.keys import KEYS
from ctxcheck.reports.cells import safe

#: Modules in which :func:`ctxcheck.install` puts something in place.
_PATCHED: Final = ("_thread", "threading", "queue", "concurrent.futures", "asyncio", "multiprocessing", "logging")
_PACKAGES: Final = ("structlog", "wrapt", "typing-extensions", "pytest", "pytest-xdist")
_FLAGS: Final = ("Py_DEBUG", "Py_GIL_DISABLED", "WITH_PYMALLOC", "WITH_DTRACE", "Py_TRACE_REFS")


def add(commands: Any) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "debug", help="the configuration and where each value came from; versions and the interpreter",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("what", choices=("config", "sys"), help="keys, values and sources; or versions and probes")
    parser.add_argument("--config", metavar="FILE", help="the configuration; default: the nearest pyproject.toml")


def run(parsed: argparse.Namespace) -> int:
    """Print what is asked for; returns 0."""
    rows = _config(parsed) if parsed.what == "config" else _system()
    width = max(len(name) for name, _, _ in rows)
    middle = min(max(len(value) for _, value, source in rows if source), 60)
    put("\n".join(safe(f"{name:<{width}}  {value:<{middle}}  {source}".rstrip()) for name, value, source in rows))
    return 0


def _config(parsed: argparse.Namespace) -> list[tuple[str, str, str]]:
    resolved = resolve(parsed)
    rows = [("configuration file", resolved.path or "none", "")]
    enabled = {None: "not set", True: "on", False: "off"}[resolved.enabled]
    rows.append(("CTXCHECK", enabled, ""))
    for key in KEYS.values():
        value = getattr(resolved.config, key.attribute)
        shown = "observed by run, assumed by everything else" if value is None else _toml(value)
        rows.append((key.name, shown, resolved.sources[key.name]))
    return rows


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, cast("Sequence[Any]", value))) + "]"
    if hasattr(value, "__dataclass_fields__") and not hasattr(value, "type"):
        items = ((name, getattr(value, name)) for name in value.__dataclass_fields__)
        return "{" + ", ".join(f"{name} = {_toml(item)}" for name, item in items if item) + "}"
    return json.dumps(value if isinstance(value, (bool, int, float)) else str(value), ensure_ascii=False)


def _system() -> list[tuple[str, str, str]]:
    import ctxcheck

    rows = [
        ("ctxcheck", str(ctxcheck.__getattr__("__version__")), os.path.dirname(ctxcheck.__file__)),
        ("python", " ".join(sys.version.split()), sys.executable),
        ("implementation", sys.implementation.name, sys.implementation.cache_tag or ""),
        ("platform", platform.platform(), f"{os.cpu_count()} processors"),
        ("build", _build(), sysconfig.get_config_var("CC") or ""),
        ("interpreter lock", "on" if getattr(sys, "_is_gil_enabled", _true)() else "off", ""),
    ]
    rows += [(name, _version(name), "") for name in _PACKAGES]
    variables = sorted(name for name in os.environ if name.startswith(("CTXCHECK", "PYTHON")))
    rows += [(name, os.environ[name], "environment") for name in variables]
    rows += [(f"put in place in {name}", ", ".join(items), "") for name, items in _probes()]
    return rows


def _true() -> bool:
    return True


def _build() -> str:
    arguments = f"{sysconfig.get_config_var('CONFIG_ARGS') or ''} {sysconfig.get_config_var('PY_CFLAGS') or ''}"
    flags = [f"{name}={sysconfig.get_config_var(name)}" for name in _FLAGS if sysconfig.get_config_var(name)]
    for word, name in (("--enable-optimizations", "PGO"), ("-fprofile-use", "PGO"), ("--with-lto", "LTO")):
        if word in arguments and name not in flags:
            flags.append(name)
    return " ".join(flags) or "no flags that matter"


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _probes() -> list[tuple[str, list[str]]]:
    """The names that ``install()`` replaces in this interpreter, seen by doing it."""
    import importlib

    from ctxcheck.probes import install

    modules: dict[str, Any] = {}
    for name in _PATCHED:
        try:
            modules[name] = importlib.import_module(name)
        except ImportError:
            continue
    before: dict[str, dict[str, Any]] = {name: {**module.__dict__} for name, module in modules.items()}
    methods: dict[tuple[str, str], dict[str, Any]] = {}
    for name, things in before.items():
        for item, value in things.items():
            if isinstance(value, type):
                methods[name, item] = {**value.__dict__}
    install.install()
    try:
        found: list[tuple[str, list[str]]] = []
        for name, module in modules.items():
            items: list[str] = []
            for item, old in before[name].items():
                if getattr(module, item, None) is not old:
                    items.append(item)
                elif isinstance(old, type):
                    changed = (m for m, v in methods[name, item].items() if old.__dict__.get(m) is not v)
                    items += [f"{item}.{method}" for method in changed]
            if items:
                found.append((name, sorted(items)))
        return found
    finally:
        install.uninstall()
