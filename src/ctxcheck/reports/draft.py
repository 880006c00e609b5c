"""A report that is being written: what every rule's writer needs, and the Violation that comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from ctxcheck.engine.allows import Grant
from ctxcheck.engine.classes import REGION, LockClass
from ctxcheck.engine.findings import Entry, Finding
from ctxcheck.engine.owner import Owner
from ctxcheck.engine.rules import RULES
from ctxcheck.engine.sites import Trace
from ctxcheck.engine.violations import Context, Scenario, Site, Stack, Timeline, Violation
from ctxcheck.reports.sourcetext import (
    Sources,
    call_name,
    code,
    is_program,
    is_with,
    outline,
    plain,
    short_name,
    test_of,
    visible,
)

#: The head of a ``with`` block that is quoted in a sentence, in characters.
_MAX_QUOTE: Final = 50


class Draft:
    """Collects the parts of one report.

    ``finding`` is what it is about.  The parts have the names of the fields of
    :class:`~ctxcheck.engine.violations.Violation`; :meth:`violation` puts them together.
    """

    __slots__ = (
        "_depth", "_first_made", "_names", "_owners", "_tests", "allow", "contexts", "contexts_title", "finding",
        "held", "helps", "message", "notes", "scenario", "sites", "sources", "stacks", "timeline",
    )  # fmt: skip

    def __init__(self, finding: Finding, sources: Sources, depth: int, *, first_made: bool = True) -> None:
        self._first_made: bool = first_made
        self.finding: Finding = finding
        self.sources: Sources = sources
        self._depth: int = depth
        self._names = display_names((*finding.classes, *_classes_in(finding.facts)))
        self._owners: dict[Owner, str] = {}
        self._tests: list[str] = []
        rule = RULES.get(finding.rule)
        self.message: str = rule.title if rule is not None else plain(finding.rule)
        self.sites: list[Site] = []
        self.stacks: list[Stack] = []
        self.scenario: Scenario | None = None
        self.timeline: Timeline | None = None
        self.contexts: list[Context] = []
        self.contexts_title: str = ""
        self.held: list[str] = []
        self.notes: list[str] = []
        self.helps: list[str] = []
        self.allow: list[str] = []

    # --- names ------------------------------------------------------------------

    def name(self, lock_class: LockClass) -> str:
        """A lock class's display name; with its module where another one of this report is called the same."""
        return self._names.get(lock_class) or plain(lock_class.name)

    def quote(self, lock_class: LockClass) -> str:
        """The name in backticks."""
        return code(self.name(lock_class))

    def entry_name(self, entry: Entry) -> str:
        """The name of an entry of a chain, in backticks."""
        return code(self.entry_text(entry))

    def entry_text(self, entry: Entry) -> str:
        """The name of an entry of a chain."""
        lock_class = entry.step.lock_class
        return self.name(lock_class) if lock_class is not None else short_name(entry.name)

    def owner(self, owner: Owner | None) -> str:
        """``thread 'MainThread'``: an owner that from now on takes part in the report.

        Threads may have one name; the second of them is "thread 'worker' (2)".
        """
        if owner is None:
            return "an unknown thread"
        text = self._owners.get(owner)
        if text is None:
            alike = sum(owner_text(other) == owner_text(owner) for other in self._owners)
            text = self._owners[owner] = owner_text(owner) + (f" ({alike + 1})" if alike else "")
        return text

    # --- places -----------------------------------------------------------------

    def where(self, trace: Trace) -> str:
        """``file:line``; empty if it isn't known."""
        return self.sources.where(trace)

    def at(self, trace: Trace) -> str:
        """`` at file:line``, for the end of a sentence."""
        where = self.where(trace)
        return f" at {where}" if where else ""

    def paren(self, trace: Trace) -> str:
        """`` (file:line)``."""
        where = self.where(trace)
        return f" ({where})" if where else ""

    def call(self, trace: Trace) -> str:
        """``function()`` of the innermost entry, or empty."""
        for scope, _ in visible(trace):
            return call_name(scope.co_qualname)
        return ""

    def line(self, trace: Trace) -> str:
        """The source line, without indentation and comment."""
        text = self.sources.head(trace).text
        end = outline(text).comment
        return (text if end < 0 else text[:end]).strip()

    def block(self, trace: Trace) -> str:
        """``the `with lock:` block (file:line)`` if that is what stands there, else empty."""
        text = self.line(trace)
        end = outline(text).colon
        if not is_with(text) or not 0 < end < _MAX_QUOTE:
            return ""
        return f"the {code(text[: end + 1])} block{self.paren(trace)}"

    def leave(self, lock_class: LockClass, trace: Trace, what: str, then: Trace) -> str:
        """``leave the `with lock:` block (file:line) before ...``; empty where one statement takes both locks."""
        spot, other = self.sources.head(trace), self.sources.head(then)
        if not trace.codes or (spot.filename, spot.line) == (other.filename, other.line):
            return ""
        return f"{self._give_back(lock_class, trace)} before {what}"

    def _give_back(self, lock_class: LockClass, trace: Trace) -> str:
        block = self.block(trace)
        if block:
            return f"leave {block}"
        where = self.where(trace)
        return f"release {self.quote(lock_class)}" + (f" (acquired at {where})" if where else "")

    # --- parts ------------------------------------------------------------------

    def exact(self, entry: Entry) -> bool:
        """Whether an entry's place is that of this very time, and not of an earlier pass."""
        trace = self.finding.trace
        return entry.exact and (
            entry.trace.codes[:1] == () or self.sources.encloses(entry.trace, trace) or not _shares(entry.trace, trace)
        )

    def site(self, role: str, trace: Trace, label: str, heading: str = "") -> None:
        """Add a place; one that isn't known is left out, unless it is the primary one."""
        if trace.codes or role == "now":
            self.sites.append(self.sources.site(role, trace, label, heading))

    def stack(self, title: str, owner: Owner | None, trace: Trace) -> None:
        """Add a stack; an empty one is left out."""
        if trace.codes:
            test = test_of(trace)
            if test and test not in self._tests:
                self._tests.append(test)
            self.stacks.append(self.sources.stack(title, self.owner(owner), trace, self._depth))

    def note(self, text: str) -> None:
        """Add a fact, unless it is empty."""
        if text:
            self.notes.append(text)

    def help(self, *texts: str) -> None:
        """Add what can be done, most likely first.  The second and the following ones begin with "or"."""
        for text in texts:
            if text:
                head = ("or, " if text.startswith("if ") else "or ") if self.helps else ""
                self.helps.append(head + text)

    def allow_line(self, trace: Trace) -> None:
        """Say how the finding is accepted at one line, or around it; in a file that isn't the project's own to edit, by
        the configuration."""
        rule = self.finding.rule
        line = self.line(trace)
        installed = installed_as(self.sources.head(trace).filename) if trace.codes else ""
        if installed and self.sites and self.sites[0].file == self.sources.head(trace).file:
            self.allow += [
                "in this file, say why in pyproject.toml:",
                "[[tool.ctxcheck.allow]]",
                f'rule = "{rule}"',
                f"path = {toml_text(f'*/{installed}')}",
                'reason = "..."',
            ]
        elif line and is_program(trace):
            self.allow += ["at this line only:", f"{line}  # ctxcheck: allow[{rule}] reason"]
        self.allow.append(f'{"or " if self.allow else ""}around a block: with ctxcheck.allow("{rule}", reason="..."):')

    def allow_locks(self, classes: Sequence[LockClass], why: str) -> None:
        """Say how the finding is accepted for certain locks, in the configuration or around a block."""
        rule = self.finding.rule
        names = ", ".join(toml_text(self.name(c)) for c in classes)
        self.allow += [
            f"{why}, say why in pyproject.toml:",
            "[[tool.ctxcheck.allow]]",
            f'rule = "{rule}"',
            f"locks = [{names}]",
            'reason = "..."',
            f'or around a block: with ctxcheck.allow("{rule}", reason="..."):',
        ]

    def made_at(self, classes: Iterable[LockClass]) -> None:
        """Note which locks are meant by the names."""
        known = [(c, self.where(c.made_at)) for c in _unique(classes)]
        parts: list[str] = []
        for lock_class, where in known[:5]:
            if not where:
                continue
            # a name that was given is the key itself
            named = "with this name, first created" if plain(lock_class.key) == plain(lock_class.name) else "created"
            what = f"any lock {named}" if lock_class.kind is not REGION else "a region, first named"
            told = self._first_made or named == "created"
            place = f"{what} at {where}" if told else what.partition(", first")[0]
            parts.append(f"{self.quote(lock_class)} {'' if parts else 'is '}{place}")
        self.note(", ".join(parts))

    def violation(self) -> Violation:
        """Put the parts together."""
        finding = self.finding
        rule = RULES.get(finding.rule)
        classes = _unique(finding.classes)
        return Violation(
            rule=plain(finding.rule),
            slug=rule.slug if rule is not None else "",
            grade=finding.grade,
            message=self.message,
            locks=tuple(map(self.name, classes)),
            sites=tuple(self.sites),
            stacks=tuple(self.stacks),
            owners=tuple(self._owners.values()),
            allowed_by=None if finding.allowed is None else plain(finding.allowed),
            keys=tuple(plain(c.key) for c in classes),
            scenario=self.scenario,
            timeline=self.timeline,
            contexts=tuple(self.contexts),
            contexts_title=self.contexts_title,
            held=tuple(self.held),
            notes=(*self.notes, *([f"seen in {and_list(list(map(code, self._tests)))}"] if self._tests else [])),
            helps=tuple(self.helps),
            allow=tuple(self.allow),
            tests=tuple(self._tests),
            allowed_kind="" if finding.allowed is None else "block",
            allowed_at=self.where(finding.allowed.step.declared) if type(finding.allowed) is Grant else "",
        )


def display_names(classes: Iterable[LockClass]) -> dict[LockClass, str]:
    """Return the name by which each class is shown; two classes of one name get their module in front of it."""
    unique = _unique(classes)
    names = {c: plain(c.name) for c in unique}
    for _ in range(2):
        shown = list(names.values())
        for lock_class in unique:
            if shown.count(names[lock_class]) > 1:
                module, colon, _ = plain(lock_class.key).partition(":")
                longer = f"{module}.{plain(lock_class.name)}" if colon else plain(lock_class.key)
                # still the same: two kinds of one place, which only the keys tell apart
                names[lock_class] = plain(lock_class.key) if names[lock_class] == longer else longer
    return names


def owner_text(owner: Owner) -> str:
    """Return ``thread 'MainThread'``; as ``str(owner)``, but whatever a name's type is, none of its methods run."""
    name = plain(owner.name) if owner.name is not None else f"{owner.kind}-{owner.serial}"
    return f"{owner.kind} '{name}'"


def context_text(context: str) -> str:
    """What an interrupting context is called: ``gc``, ``signal (SIGALRM)``."""
    name, space, signal = plain(context).partition(" ")
    return f"signal ({signal})" if space and name == "signal" else plain(context)


def context_name(context: str) -> str:
    """As :func:`context_text`, with the part in backticks that is a name in code."""
    text = context_text(context)
    return f"`signal`{text[6:]}" if text.startswith("signal (") and text.endswith(")") else code(text)


def times(number: int) -> str:
    """``1 time``, ``2 times``."""
    return f"{number:,} time{'' if number == 1 else 's'}"


def and_list(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def here(exact: bool, verb: str = "acquired") -> str:
    """``acquired here``, or what else can be said of an entry that was recorded on an earlier pass."""
    return f"{verb} here" if exact else f"first {verb} on this path here"


def at_end_of(how: object) -> str:
    """When something was left behind: the end of an owner, of a block, of the program."""
    text = plain(how)
    return "when it finished" if text in ("", "?", "thread", "task") else f"at the end of the {text}"


def toml_text(text: str) -> str:
    """Return a string as it is written in TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'


def installed_as(filename: str) -> str:
    """What a file of an installed package is called below the folder of such; empty for any other."""
    for folder in ("/site-packages/", "/dist-packages/"):
        _, found, name = filename.replace("\\", "/").rpartition(folder)
        if found:
            return name
    return ""


def _shares(held: Trace, now: Trace) -> bool:
    return any(scope is held.codes[0] for scope in now.codes)


def _unique(classes: Iterable[LockClass]) -> list[LockClass]:
    return list(dict.fromkeys(classes))


def _classes_in(facts: Any) -> Iterator[LockClass]:
    """Every lock class that a finding's facts mention."""
    entries = [getattr(facts, name, None) for name in ("held", "because", "lock", "entry")]
    for entry in (*entries, *(getattr(facts, "chain", None) or ())):
        # not isinstance(): one of these may be a text, and that asks its class
        if type(entry) is Entry and entry.step.lock_class is not None:
            yield entry.step.lock_class
    cycle = getattr(facts, "cycle", None)
    if cycle is not None:
        yield from cycle.classes
        if cycle.guard is not None:
            yield cycle.guard
    for waiter in getattr(facts, "stuck", None) or ():
        yield from (waiter.holds, waiter.waits_for)
    lock_class = getattr(facts, "lock_class", None)
    if lock_class is not None:
        yield lock_class
