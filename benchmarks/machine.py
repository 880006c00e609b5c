"""What a figure is worth depends on the interpreter's build and on what else the machine was doing."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import time
from typing import Any


def interpreter() -> dict[str, Any]:
    """The build of the running interpreter.

    ``pgo`` and ``lto`` tell what its own configure arguments and compiler flags say; a distributor may build with
    either and leave no trace there.
    """
    config = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    flags = " ".join(str(sysconfig.get_config_var(name) or "") for name in ("PY_CFLAGS", "PY_CORE_LDFLAGS", "LDFLAGS"))
    gil_enabled = getattr(sys, "_is_gil_enabled", lambda: True)
    return {
        "implementation": platform.python_implementation(),
        "version": platform.python_version(),
        "compiler": platform.python_compiler(),
        "pgo": "--enable-optimizations" in config or "-fprofile-use" in flags,
        "lto": ("--with-lto" in config and "--with-lto=no" not in config) or "-flto" in flags,
        "debug": hasattr(sys, "gettotalrefcount"),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "gil": gil_enabled(),
        "optimization": next((flag for flag in reversed(flags.split()) if flag.startswith("-O")), ""),
    }


def describe(build: dict[str, Any]) -> str:
    """The build in one line."""
    parts = [f"{build['implementation']} {build['version']}"]
    if build["debug"]:
        parts.append("debug build")
    parts.append(" ".join(filter(None, (build["compiler"], build["optimization"]))))
    parts.append("PGO" if build["pgo"] else "no PGO")
    parts.append("LTO" if build["lto"] else "no LTO")
    if build["free_threaded"]:
        parts.append(f"free-threaded, GIL {'on' if build['gil'] else 'off'}")
    else:
        parts.append("GIL")
    return ", ".join(parts)


def system() -> str:
    """The operating system, the processor and the number of cores that this process may use."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return f"{platform.system()} {platform.machine()}, {cores} core{'s' if cores != 1 else ''}"


def load() -> float | None:
    """The load average over the last minute, where the system has one."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def cpu_clock() -> tuple[str, Any]:
    """A clock for work that one thread does: its own CPU time where that is fine enough, else the wall clock's.

    Returns its name and the function that reads it, in nanoseconds.
    """
    try:
        if time.get_clock_info("thread_time").resolution <= 1e-6:
            return "the thread's CPU time", time.thread_time_ns
    except ValueError:  # not on every system
        pass
    return "wall time", time.perf_counter_ns
