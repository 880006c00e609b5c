"""The table of configuration keys: a row for each key of ``[tool.ctxcheck]``.

The checks (:mod:`ctxcheck.config`), the environment variables, ``--help`` and the documentation are all
made from :data:`KEYS`; the defaults stand in :class:`Config`, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from ctxcheck.engine.blocking import CATEGORIES
from ctxcheck.engine.rules import GRADES, RULES, Grade, selects
from ctxcheck.probes.catalogue import DEFAULT


@dataclass(frozen=True, slots=True)
class Output:
    """One ``TYPE[:PATH]``: a kind of report, and the file it goes to (``None``: standard error)."""

    type: str
    path: str | None = None

    def __str__(self) -> str:
        return self.type if self.path is None else f"{self.type}:{self.path}"


@dataclass(frozen=True, slots=True)
class Allow:
    """One ``[[tool.ctxcheck.allow]]``: findings of ``rule`` (a code) that are accepted, and the reason.

    ``locks`` are display names of lock classes, ``path`` is a glob for the file of the finding's
    first site; what is not given is not looked at.
    """

    rule: str
    reason: str
    locks: tuple[str, ...] = ()
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One ``[[tool.ctxcheck.order]]``, by display names or keys of lock classes: ``locks`` are taken in this order,
    ``leaf`` ones last; and the reason."""

    locks: tuple[str, ...] = ()
    leaf: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """One ``[[tool.ctxcheck.may-sleep]]``, ``atomic`` or ``requires-lock``: the dotted name of a function or method of
    somebody else's, and what is said about it.

    ``category`` is what it waits for; ``label`` the name of the atomic section; ``lock`` the path to the lock.
    """

    marker: Literal["may-sleep", "atomic", "requires-lock"]
    target: str
    category: str = ""
    label: str = ""
    lock: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """The merged values; the fields are the keys of :data:`KEYS` with ``_`` for ``-``.

    ``owners`` is ``None`` where nothing was said: ``run`` then takes "observed", everything else "assumed".
    """

    mode: Literal["record", "warn", "raise"] = "record"
    owners: Literal["assumed", "observed"] | None = None
    fail_on: Grade = "possible"
    strict: bool = False
    select: tuple[str, ...] = ("CTX",)
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    factories: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    stack_depth: int = 20
    max_reports: int = 50
    deadlock_after: float = 1.0
    dump_signal: str = ""
    data_dir: str = ".ctxcheck"
    baseline: str = ""
    output: tuple[Output, ...] = (Output("text"),)
    color: Literal["auto", "always", "never"] = "auto"
    allow: tuple[Allow, ...] = ()
    order: tuple[Order, ...] = ()
    leaf: tuple[str, ...] = ()
    blocking: tuple[str, ...] = DEFAULT
    not_blocking: tuple[str, ...] = ()
    may_sleep: tuple[Target, ...] = ()
    atomic: tuple[Target, ...] = ()
    requires_lock: tuple[Target, ...] = ()

    def selects(self, code: str) -> bool:
        """Is the rule with this code to be reported?"""
        return selects(code, self.select, self.ignore)

    def misses(self) -> str:
        """A line on ``select`` and ``ignore``, if they leave no rule that could be broken; else empty."""
        if any(self.selects(code) for code in RULES if code != "CTX901"):
            return ""
        return f"no rule is left by select = {[*self.select]} and ignore = {[*self.ignore]}: nothing can be found"


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table.

    ``name`` is the key in the file and, with ``--``, the option; ``kind`` says how a value is read:
    "choice", "flag", "count" (a whole number, at least 1), "seconds" (above 0), "text", "signal" (a name), or a list
    of "globs", "names" (dotted), "adapters", "locks", "rules", "outputs", "categories", "calls" of the catalogue, or
    tables ("allows", "orders", "targets").  ``allowed`` are a choice's words.
    ``variable`` is the environment variable, empty if there is none; it separates the items of a list by commas.
    """

    name: str
    kind: str
    allowed: tuple[str, ...]
    variable: str
    help: str

    @property
    def attribute(self) -> str:
        """The field of :class:`Config`."""
        return self.name.replace("-", "_")

    @property
    def default(self) -> Any:
        """The value where nothing else is said."""
        return getattr(_DEFAULTS, self.attribute)


_DEFAULTS: Final = Config()

#: Kinds of tables, which no variable can hold.
_TABLES: Final = ("allows", "orders", "targets")

#: What :mod:`ctxcheck.reports.formats` can render; a test holds the two to each other.
_FORMATS: Final = ("text", "concise", "json", "jsonl", "sarif", "github", "none")

#: Every key, in the order of the documentation.
KEYS: Final[dict[str, Key]] = {
    name: Key(name, kind, allowed, "" if kind in _TABLES else f"CTXCHECK_{name.replace('-', '_').upper()}", text)
    for name, kind, allowed, text in (
        ("mode", "choice", ("record", "warn", "raise"), "what is done with a finding; raise: at the offending call"),
        ("owners", "choice", ("assumed", "observed"), "who may run a critical section: anyone, or whoever was seen"),
        ("fail-on", "choice", tuple(reversed(GRADES)), "the least grade that fails the run"),
        ("strict", "flag", (), "also fail on warnings and on an allow that accepts nothing"),
        ("select", "rules", (), "rules to report: codes, prefixes of codes, or slugs"),
        ("ignore", "rules", (), "rules to leave out; the longer prefix wins"),
        ("include", "globs", (), "modules whose locks are checked, by where they are made; none means all"),
        ("exclude", "globs", (), "modules whose locks are not checked"),
        ("factories", "names", (), "your functions that make locks: a lock belongs to their caller"),
        ("adapters", "adapters", (), "what libraries open becomes a context of the program's: sqlite3, or a package's"),
        ("stack-depth", "count", (), "how many calls of a stack are kept"),
        ("max-reports", "count", (), "how many findings are printed in full"),
        ("deadlock-after", "seconds", (), "how long a blocked re-acquire waits before it is reported, in seconds"),
        ("dump-signal", "signal", (), "print who waits for whom when this signal comes, such as SIGUSR2"),
        ("data-dir", "text", (), "the folder of the data files"),
        ("baseline", "text", (), "the file of the findings that are known: only new ones fail"),
        ("output", "outputs", _FORMATS, "a report, TYPE or TYPE:PATH; may be repeated"),
        ("color", "choice", ("auto", "always", "never"), "colour in the text report"),
        ("allow", "allows", (), "findings that are accepted: rule, reason, and which: locks, path"),
        ("order", "orders", (), "orders that locks are to be taken in: locks or leaf, and a reason if you like"),
        ("leaf", "locks", (), "locks under which no other one is waited for, by name or key"),
        ("blocking", "categories", CATEGORIES, "calls that count as blocking, by what they wait for"),
        ("not-blocking", "calls", (), "calls of the standard library that don't, by name: see `ctxcheck probes`"),
        ("may-sleep", "targets", (), "functions of others that may block: target, and category, reason"),
        ("atomic", "targets", (), "functions of others that mustn't: target, and label"),
        ("requires-lock", "targets", (), "functions of others that need a lock held: target, lock"),
    )
}

#: Keys that a later version will know: not typing errors, but nothing that this one can do.
LATER: Final = ("sites", "patch")

#: Environment variables of ours that are no keys.
OTHER_VARIABLES: Final = ("CTXCHECK", "CTXCHECK_CONFIG", "CTXCHECK_DEBUG", "CTXCHECK_PROCESS_START", "CTXCHECK_RUN")
