"""What a module is called, however it came in: a program's own one goes by another name while it runs."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

#: What a program's own module is called while it runs, and in children that :mod:`multiprocessing` spawns.
MAIN: Final = ("__main__", "__mp_main__")
#: Names of modules that are run, by how they are run: what their spec says, and their file.
_run_as: Final[dict[tuple[object, object], str]] = {}


def module_of(namespace: Any) -> str:
    """The name of the module with these globals.

    That of a program is the one that it would have if it were imported (``app`` for ``python app.py``, ``pkg.app`` for
    ``python -m pkg.app`` and ``python pkg/app.py``), so that a lock has one key however its module comes in.
    """
    name = namespace.get("__name__")
    if not isinstance(name, str):
        return "?"
    if name not in MAIN:
        return name
    spec = getattr(namespace.get("__spec__"), "name", None)
    file = namespace.get("__file__")
    if type(file) is not str:
        file = None
    known = _run_as.get((spec, file))
    if known is None:
        known = _run_as[spec, file] = _import_name(spec, file)
    return known


def _import_name(spec: object, file: str | None) -> str:
    if isinstance(spec, str) and spec not in MAIN:
        return spec
    if file is None or file.startswith("<"):
        return MAIN[0]
    folder, base = os.path.split(os.path.abspath(file))
    name = base.rpartition(".")[0] or base
    while name.isprintable() and os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        name = f"{package}.{name}"
    return name


def import_name(module: str) -> str:
    """The name of a module that goes by this one, which may be the program's own: see :func:`module_of`."""
    main = sys.modules.get(module) if module in MAIN else None
    return module_of(vars(main)) if main is not None else module
