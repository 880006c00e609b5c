"""What a test's markers ask for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ctxcheck.pytest_plugin.settings import rule_called
from ctxcheck.selection import Allowance, one_of

_KEYS = ("mode", "allow", "reason", "isolated")


@dataclass
class Wishes:
    """``mode`` if another one than the session's is wanted, ``off`` for no checks at all, ``isolated`` for orders that
    count for this test only, ``allow`` for what is accepted."""

    mode: str | None = None
    off: bool = False
    isolated: bool = False
    allow: list[Allowance] = field(default_factory=list[Allowance])


def wishes_of(item: pytest.Item) -> Wishes:
    """Read an item's markers: the nearest one wins, but lists of ``allow`` add up.

    Raises:
        pytest.UsageError: a marker isn't understood; one line that names it.
    """
    wishes = Wishes()
    for mark in item.iter_markers("no_ctxcheck"):
        _check(item, mark, ("reason",))
        wishes.off = True
    seen: set[str] = set()
    for mark in item.iter_markers("ctxcheck"):
        where = _check(item, mark, _KEYS)
        wanted = cast("dict[str, Any]", mark.kwargs)
        try:
            if wanted.get("mode") is not None:
                one_of("mode", wanted["mode"], ("record", "warn", "raise"))
                if "mode" not in seen:
                    wishes.mode = wanted["mode"]
            if not isinstance(isolated := wanted.get("isolated", False), bool):
                raise TypeError(f"isolated={isolated!r} is neither True nor False")
            if "isolated" in wanted and "isolated" not in seen:
                wishes.isolated = isolated
            wishes.allow += _allowed(wanted, where)
        except (TypeError, ValueError) as error:
            text = str(error)
            raise pytest.UsageError(text if text.startswith(where) else f"{where}: {text}") from None
        seen.update(wanted)
    return wishes


def _check(item: pytest.Item, mark: pytest.Mark, keys: tuple[str, ...]) -> str:
    where = f"{item.nodeid}: @pytest.mark.{mark.name}"
    if mark.args:
        raise pytest.UsageError(f"{where} takes keywords only: {', '.join(keys)}")
    for key in mark.kwargs:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(keys)}"
            raise pytest.UsageError(f"{where}: unknown argument {key!r}; {hint}")
    reason: Any = mark.kwargs.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise pytest.UsageError(f"{where}: reason={reason!r} is no text")
    return where


def _allowed(wanted: dict[str, Any], where: str) -> list[Allowance]:
    names: Any = wanted.get("allow", ())
    if not isinstance(names, (list, tuple, set, frozenset)):
        raise TypeError(f"allow={names!r} is no list of rules; write allow=[{names!r}]")
    rules = [rule_called(name, where) for name in cast("Iterable[object]", names)]
    reason: Any = wanted.get("reason")
    if rules and not (isinstance(reason, str) and reason.strip()):
        raise ValueError(f"allow={list(cast('Iterable[Any]', names))!r} needs a reason: reason='...'")
    return [Allowance(rule, (), reason, None, where) for rule in rules]
