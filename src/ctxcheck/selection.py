"""What a session is asked for: the rules that are selected, and the findings that are accepted."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

from ctxcheck.engine.rules import RULES
from ctxcheck.engine.violations import Violation


class Allowance:
    """An accepted finding, from the configuration: a rule, the locks that must take part, a glob for the file of
    the first site, a reason; ``where`` is the file that it stands in.  The glob is for the file as it is shown, or,
    given a ``root``, for its path from that folder."""

    __slots__ = ("cwd", "locks", "path", "reason", "root", "rule", "used", "where")

    def __init__(
        self, rule: str, locks: Iterable[str], reason: str, path: str | None = None, where: str = "",
        root: str | None = None,
    ) -> None:
        self.root: str | None = root
        self.cwd: str = os.getcwd() if root is not None else ""
        self.where: str = where
        self.rule: str = rule
        self.path: str | None = path
        self.locks: frozenset[str] = frozenset(locks)
        self.reason: str = reason
        self.used: int = 0

    def covers(self, violation: Violation) -> bool:
        """Whether it is about this violation."""
        if self.rule != violation.rule or not self.locks <= {*violation.locks, *violation.keys}:
            return False
        if self.path is None:
            return True
        import fnmatch

        file = violation.sites[0].file if violation.sites else ""
        if self.root is not None and file and not file.startswith("<"):
            file = os.path.relpath(os.path.join(self.cwd, file), self.root)
        return bool(file) and fnmatch.fnmatch(file, self.path)


def one_of(what: str, value: object, allowed: Iterable[str], more: str = "") -> None:
    """Refuse a value that isn't among those allowed; ``more`` says what else is."""
    choices = list(allowed)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what}={value!r} is not one of {', '.join(choices)}{f', {more}' if more else ''}{hint}")


def codes_of(what: str, names: Iterable[str]) -> list[str]:
    """The codes, or prefixes of codes, that these names stand for; slugs are names, too."""
    if isinstance(names, str):
        raise TypeError(f"{what}={names!r} is one string; give a list of rules: {what}=[{names!r}]")
    by_slug = {rule.slug: rule.code for rule in RULES.values()}
    codes: list[str] = []
    for name in names:
        code = by_slug.get(name.lower(), name.upper())
        if not any(rule.startswith(code) for rule in RULES):
            near = difflib.get_close_matches(name, [*RULES, *by_slug], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{what}: no rule is called {name!r}{hint}")
        codes.append(code)
    return codes
