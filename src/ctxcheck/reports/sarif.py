"""Findings as SARIF 2.1.0, the format that code scanning services take.

A finding becomes a result: where it happened is its location, every other place a related location that the message
links to, and what each thread did a thread flow.  Names and labels are made safe like everywhere else, since viewers
print them; only a snippet keeps its tabs.  Columns count UTF-16 code units from 1, and the end is exclusive.
Specification: OASIS, "Static Analysis Results Interchange Format (SARIF) Version 2.1.0"; numbers in comments are its
sections.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ctxcheck.engine.rules import RULES, Rule
from ctxcheck.engine.violations import Counts, Frame, Site, Stack, Timeline, Violation
from ctxcheck.reports import explain, rulepages
from ctxcheck.reports.cells import safe, safe_char
from ctxcheck.reports.json import version
from ctxcheck.reports.places import uri

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

#: The name of the folder that relative URIs are relative to: the top of the checkout.
BASE: Final = "%SRCROOT%"

#: The key of our fingerprint.  Not ``primaryLocationLineHash``: GitHub computes that one from the source itself, and
#: warns of each that differs.
FINGERPRINT: Final = "ctxcheck/v1"

_LEVELS: Final = {"certain": "error", "possible": "error", "unlikely": "warning"}
#: How much a finding should matter, from 0 to 100.
_RANKS: Final = {"certain": 100.0, "possible": 60.0, "unlikely": 10.0}

#: The weakness, by its number in the CWE, that a rule is about.
_CWE: Final = {
    **dict.fromkeys(("CTX001", "CTX003", "CTX005", "CTX006", "CTX007"), (833, "Deadlock")),
    "CTX002": (764, "Multiple Locks of a Critical Resource"),
    "CTX004": (663, "Use of a Non-reentrant Function in a Concurrent Context"),
    "CTX301": (414, "Missing Lock Check"),
    "CTX302": (832, "Unlock of a Resource that is not Locked"),
    "CTX305": (765, "Multiple Unlocks of a Critical Resource"),
    **dict.fromkeys(("CTX303", "CTX304", "CTX306"), (667, "Improper Locking")),
}


def document(
    violations: Sequence[Violation],
    counts: Counts,
    *,
    run: Mapping[str, Any],
    prefix: str = "",
) -> dict[str, Any]:
    """Return the whole report as plain data, ready for :func:`ctxcheck.reports.json.dumps`.

    Args:
        violations: all findings; accepted ones are suppressed, and an internal fault (CTX901) is a notification.
        counts: what was checked; of it, only what a limit cut is told.
        run: facts on the run; ``exit_status`` and ``platform`` are looked at.
        prefix: the folder that the findings' paths are relative to, from the top of the checkout.
    """
    writer = _Writer(prefix, str(run.get("platform", "")).startswith("win"))
    faults = [violation for violation in violations if violation.rule == "CTX901"]
    found = [violation for violation in violations if violation.rule != "CTX901"]
    codes = list(dict.fromkeys(violation.rule for violation in found))
    results = [writer.result(violation, codes.index(violation.rule)) for violation in found]
    invocation: dict[str, Any] = {"executionSuccessful": not faults}
    if isinstance(run.get("exit_status"), int):
        invocation["exitCode"] = run["exit_status"]
    notes = [_notification(violation.message, "error", violation.rule) for violation in faults]
    if counts.dropped:
        notes.append(_notification(f"{counts.dropped:,} events beyond a limit were not fully checked", "warning"))
    if counts.nothing() and not violations:
        notes.append(_notification("nothing was checked: no lock was taken, and no marked call was made", "warning"))
    if notes:
        invocation["toolExecutionNotifications"] = notes
    weaknesses = dict(sorted(_CWE[code] for code in codes if code in _CWE))
    driver: dict[str, Any] = {
        "name": "ctxcheck",
        "version": version(),
        "rules": [_rule(code, list(weaknesses)) for code in codes],
    }
    if faults:
        driver["notifications"] = [_rule("CTX901", [])]
    if weaknesses:
        driver["supportedTaxonomies"] = [{"name": "CWE", "index": 0}]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "utf16CodeUnits",
                "originalUriBaseIds": {BASE: {"description": {"text": "The top of the checkout."}}},
                "invocations": [invocation],
                "artifacts": writer.artifacts,
                "results": results,
                **({"taxonomies": [_taxonomy(weaknesses)]} if weaknesses else {}),
            }
        ],
    }


# -- the tool


def _rule(code: str, weaknesses: list[int]) -> dict[str, Any]:
    rule = RULES.get(code)
    if rule is None:  # of a later version, in a data file
        return {"id": _text(code) or "unknown"}
    number = _CWE.get(code, (0, ""))[0]
    tags = ["concurrency", "correctness", *([f"external/cwe/cwe-{number}"] if number else [])]
    entry: dict[str, Any] = {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.slug.split("-")),
        "shortDescription": {"text": _sentence(rule.title)},
        "fullDescription": {"text": _braces(" ".join(_first(rule).split()))},
        "help": {"text": _braces(explain.page(code)), "markdown": _braces(rulepages.markdown(code))},
        "helpUri": rulepages.help_uri(rule),
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": tags, "precision": "high", "problem.severity": "error"},
    }
    if number:
        target = {"id": str(number), "index": weaknesses.index(number), "toolComponent": {"name": "CWE", "index": 0}}
        entry["relationships"] = [{"target": target, "kinds": ["superset"]}]
    return entry


def _first(rule: Rule) -> str:
    """The first paragraph of what the rule says."""
    _, _, blocks = next(iter(explain.sections(rule.code)))
    return blocks[0] if isinstance(blocks[0], str) else ""


def _taxonomy(weaknesses: Mapping[int, str]) -> dict[str, Any]:
    return {
        "name": "CWE",
        "organization": "MITRE",
        "shortDescription": {"text": "The MITRE Common Weakness Enumeration."},
        "informationUri": "https://cwe.mitre.org/",
        "taxa": [{"id": str(number), "shortDescription": {"text": f"{name}."}} for number, name in weaknesses.items()],
    }


def _notification(text: str, level: str, code: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {"level": level, "message": {"text": _sentence(safe(text))}}
    if code:
        entry["descriptor"] = {"id": code, "index": 0}
    return entry


# -- results


class _Writer:
    """Writes results, and collects the files that they name."""

    def __init__(self, prefix: str, windows: bool) -> None:
        self.artifacts: list[dict[str, Any]] = []
        self._prefix: str = prefix
        self._windows: bool = windows
        self._index: dict[str, int] = {}

    def result(self, violation: Violation, rule_index: int) -> dict[str, Any]:
        first, *others = violation.sites or (None,)
        result: dict[str, Any] = {
            "ruleId": _text(violation.rule) or "unknown",
            "ruleIndex": rule_index,
            "level": _LEVELS[violation.grade],
            "rank": _RANKS[violation.grade],
            "message": {"text": _message(violation)},
            "locations": list(self._primary(violation, first)),
        }
        related = [self._site(site, number) for number, site in enumerate(others, 1) if site is not None]
        if related:
            result["relatedLocations"] = related
        flows = [*self._flows(violation)]
        if flows:
            result["codeFlows"] = flows
        stacks: list[dict[str, Any]] = []
        for stack in violation.stacks:
            entry = self._stack(stack)
            if stack.frames and entry not in stacks:  # the schema wants them to differ
                stacks.append(entry)
        if stacks:
            result["stacks"] = stacks
        if violation.fingerprint:
            result["partialFingerprints"] = {FINGERPRINT: _text(violation.fingerprint)}
        if violation.count > 1:
            result["occurrenceCount"] = violation.count
        if violation.allowed_by is not None:
            result["suppressions"] = [self._suppression(violation, violation.allowed_by)]
        elif violation.baselined:
            result["suppressions"] = [
                {"kind": "external", "status": "accepted", "justification": "in the baseline"}
            ]
        result["properties"] = {
            "grade": violation.grade,
            "slug": safe(violation.slug),
            **{
                name: [safe(text) for text in texts]
                for name, texts in (
                    ("locks", violation.locks), ("keys", violation.keys), ("owners", violation.owners),
                    ("held", violation.held), ("tests", violation.tests), ("notes", violation.notes),
                    ("helps", violation.helps),
                )
                if texts
            },
        }  # fmt: skip
        return result

    def _suppression(self, violation: Violation, reason: str) -> dict[str, Any]:
        outside = violation.allowed_kind == "configuration"
        entry: dict[str, Any] = {"kind": "external" if outside else "inSource", "status": "accepted"}
        if reason:
            entry["justification"] = safe(reason)
        return entry

    def _primary(self, violation: Violation, site: Site | None) -> Iterator[dict[str, Any]]:
        """Where it happened; of a finding that doesn't know, the innermost call that it does know."""
        if site is not None and site.file:
            yield self._site(site)
            return
        places: list[Site | Frame] = [*violation.sites]
        places += [frame for stack in violation.stacks for frame in reversed(stack.frames)]
        for place in places:
            if place.file:
                yield self._site(place) if isinstance(place, Site) else self._frame(place)
                return

    # -- places

    def _site(self, site: Site, number: int | None = None) -> dict[str, Any]:
        location = self._location(site.file, site.function, _region(site))
        physical = location.get("physicalLocation")
        if physical is not None and "region" in physical and site.before.strip() and site.line > 1:
            text = f"{_snippet(site.before)}\n{_snippet(site.text)}"
            physical["contextRegion"] = {"startLine": site.line - 1, "endLine": site.line, "snippet": {"text": text}}
        if site.label:
            location["message"] = {"text": _text(site.label)}
        return {"id": number, **location} if number is not None else location

    def _frame(self, frame: Frame) -> dict[str, Any]:
        region: dict[str, Any] = {"startLine": frame.line} if frame.line > 0 else {}
        if region and frame.text:
            region["snippet"] = {"text": _snippet(frame.text)}
        return self._location(frame.file, frame.function, region)

    def _location(self, file: str, function: str, region: Mapping[str, Any]) -> dict[str, Any]:
        location: dict[str, Any] = {}
        if file:
            location["physicalLocation"] = {"artifactLocation": self._artifact(file)}
            if region:
                location["physicalLocation"]["region"] = dict(region)
        if function:
            location["logicalLocations"] = [{"fullyQualifiedName": safe(function), "kind": "function"}]
        return location

    def _artifact(self, file: str) -> dict[str, Any]:
        address = uri(file, self._prefix, windows=self._windows)
        place: dict[str, Any] = {"uri": address.text, **({"uriBaseId": BASE} if address.relative else {})}
        index = self._index.setdefault(address.text, len(self.artifacts))
        if index == len(self.artifacts):
            self.artifacts.append({"location": dict(place), "sourceLanguage": "python"})
        return {**place, "index": index}

    def _stack(self, stack: Stack) -> dict[str, Any]:
        title = ", ".join(filter(None, (stack.title, stack.owner)))
        entry: dict[str, Any] = {"frames": [{"location": self._frame(frame)} for frame in reversed(stack.frames)]}
        return {"message": {"text": _text(title)}, **entry} if title else entry

    # -- flows

    def _flows(self, violation: Violation) -> Iterator[dict[str, Any]]:
        """What each thread did, side by side; and, apart from it, what happened to a range."""
        flows = [*self._thread_flows(violation)]
        if flows:
            title = violation.scenario.outcome if violation.scenario is not None else ""
            yield {**({"message": {"text": _text(title)}} if title else {}), "threadFlows": flows}
        if violation.timeline is not None and violation.timeline.events:
            yield self._timeline(violation.timeline)

    def _thread_flows(self, violation: Violation) -> Iterator[dict[str, Any]]:
        groups = _groups(violation.sites)
        order = violation.scenario is not None and all(len(group) == 2 for group in groups) and len(groups) > 1
        for index, group in enumerate(groups):
            stack = violation.stacks[index] if index < len(violation.stacks) else None
            last, *earlier = group
            steps = _steps(last, earlier, stack)
            flow: dict[str, Any] = {"id": str(index + 1)}
            title = group[0].heading or (stack.owner if stack is not None else "")
            if title:
                flow["message"] = {"text": _text(title)}
            locations: list[dict[str, Any]] = []
            for depth, place in steps:
                entry: dict[str, Any] = {
                    "location": self._site(place) if isinstance(place, Site) else self._frame(place),
                    "nestingLevel": depth,
                    "importance": "essential" if isinstance(place, Site) else "unimportant",
                }
                if order and isinstance(place, Site):
                    # first everyone takes what he has, then everyone waits
                    entry["executionOrder"] = index + 1 + (len(groups) if place is last else 0)
                locations.append(entry)
            yield {**flow, "locations": locations}

    def _timeline(self, timeline: Timeline) -> dict[str, Any]:
        locations: list[dict[str, Any]] = []
        for event in timeline.events:
            location = self._location(event.file, event.function, {"startLine": event.line} if event.line > 0 else {})
            times = f" ({event.times:,} times)" if event.times > 1 else ""
            location["message"] = {"text": _text(event.what + times)}
            locations.append({"location": location, "importance": "essential" if event.here else "important"})
        return {"message": {"text": _text(timeline.title)}, "threadFlows": [{"locations": locations}]}


def _groups(sites: Sequence[Site]) -> list[list[Site]]:
    """The sites by thread: one with a heading begins another's.  The first of a group is where it ends up."""
    groups: list[list[Site]] = []
    for site in sites:
        if site.heading or not groups:
            groups.append([])
        groups[-1].append(site)
    return groups


def _steps(last: Site, earlier: Sequence[Site], stack: Stack | None) -> list[tuple[int, Site | Frame]]:
    """What one thread did, in time: the calls of its stack with its earlier sites among them, up to the last.

    A site in a function of the stack came before that function's call which the stack shows; one in a function that
    has returned came before them all.
    """
    frames = stack.frames if stack is not None else ()
    if frames and (frames[-1].file, frames[-1].line) == (last.file, last.line):
        frames = frames[:-1]
    left = [*earlier]
    steps: list[tuple[int, Site | Frame]] = []
    calls: list[Site | Frame] = [*frames, last]
    for depth, frame in enumerate(calls):
        here = [site for site in left if (site.file, site.function) == (frame.file, frame.function)]
        steps += [(depth, site) for site in here]
        left = [site for site in left if site not in here]
        steps.append((depth, frame))
    return [*((0, site) for site in left), *steps]


# -- texts


def _message(violation: Violation) -> str:
    """The headline, what happened where (linked to the places), and what to do first."""
    parts = [_sentence(_text(violation.message))]
    sites = [
        _link(site.label, number) if number else _text(site.label)
        for number, site in enumerate(violation.sites)
        if site.label
    ]
    if sites:
        parts.append(_sentence("; ".join(sites)))
    if violation.grade == "unlikely":
        parts.append(_sentence("Unlikely: " + _text(next(iter(violation.notes), "what was seen speaks against it"))))
    parts += [_sentence("Help: " + _text(help_)) for help_ in violation.helps[:1]]
    return "\n".join(parts)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _text(text: str) -> str:
    """Return a text that is safe, and holds no link and no placeholder (3.11.5, 3.11.6)."""
    return _braces(safe(text).replace("](", "] ("))


def _link(text: str, number: int) -> str:
    """Return a link to a related location."""
    escaped = safe(text).replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    return f"[{_braces(escaped)}]({number})"


def _braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _snippet(text: str) -> str:
    return "".join(char if char == "\t" else safe_char(char) for char in text.rstrip("\r\n"))


def _region(site: Site) -> dict[str, Any]:
    """Return what a site marks; a whole line where no columns are known, nothing where no line is."""
    if site.line <= 0:
        return {}
    region: dict[str, Any] = {"startLine": site.line}
    text = site.text.rstrip("\r\n")
    if 0 <= site.column < site.end_column <= len(text):
        region |= {"startColumn": _units(text[: site.column]) + 1, "endColumn": _units(text[: site.end_column]) + 1}
        if text.strip():
            region["endLine"] = site.line
            region["snippet"] = {"text": _snippet(text[site.column : site.end_column])}
    elif text.strip():
        region["snippet"] = {"text": _snippet(text)}
    return region


def _units(text: str) -> int:
    """Return how many UTF-16 code units a text takes; a lone surrogate is one."""
    return len(text) + sum(char > "\uffff" for char in text)


__all__ = ["BASE", "FINGERPRINT", "SCHEMA", "document"]
