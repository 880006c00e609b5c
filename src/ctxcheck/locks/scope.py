"""Which modules' locks are checked: what ``include`` and ``exclude`` say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ctxcheck.locks.naming import caller, maker

_include: tuple[str, ...] = ()
_exclude: tuple[str, ...] = ()


#: What the globs say of each module that makes locks.
_scopes: Final[dict[str, bool]] = {}


def set_scope(include: Iterable[str], exclude: Iterable[str]) -> None:
    """Check only locks that are made in modules that match ``include`` (globs; none means all) and not ``exclude``."""
    global _include, _exclude
    _include, _exclude = tuple(include), tuple(exclude)
    _scopes.clear()


def in_scope() -> bool:
    """Whether a lock that is being made now is to be checked."""
    if not _include and not _exclude:
        return True
    module = str(maker(caller(1))[0].f_globals.get("__name__"))
    known = _scopes.get(module)
    if known is None:
        known = _scopes[module] = _selects(module)
    return known


def _selects(module: str) -> bool:
    import fnmatch

    if any(fnmatch.fnmatchcase(module, glob) for glob in _exclude):
        return False
    return not _include or any(fnmatch.fnmatchcase(module, glob) for glob in _include)


def misses() -> str:
    """A line on ``include``, if it keeps all locks that were made from being checked; else empty."""
    made = sorted(_scopes)
    if not _include or not made or any(_scopes.values()):
        return ""
    import difflib

    plain = [glob.rstrip("*").rstrip(".") for glob in _include]
    near = [name for glob in plain for name in difflib.get_close_matches(glob, made, 1)]
    there = f"; did you mean {near[0]!r}?" if near else f"; they were made in: {', '.join(made[:_MAX_LISTED])}"
    return f"no lock was made in a module that include names ({', '.join(map(repr, _include))}){there}"


#: Modules that a message lists.
_MAX_LISTED: Final = 6
