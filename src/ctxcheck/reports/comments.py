"""``# ctxcheck: allow[CTX103] reason``: which lines of a file accept findings, of which rules and why.

Read when a report is made, never before: a comment costs nothing while the program runs.  A file is told into its
tokens, so that what stands in a string is no comment, and a comment covers its whole statement.
"""

from __future__ import annotations

import linecache
import os
import re
import tokenize
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ctxcheck.engine.rules import find_rule, rule_names
from ctxcheck.engine.violations import Violation
from ctxcheck.reports.sourcetext import exists, outline, plain

#: Larger files are not read for comments, in characters.
MAX_FILE: Final = 2_000_000

_MARK: Final = re.compile(r"#\s*ctxcheck\s*:\s*")
_ALLOW: Final = re.compile(r"(?P<word>[A-Za-z_-]+)\s*(?:\[(?P<names>[^\]]*)\])?(?P<rest>.*)", re.DOTALL)
_FORM: Final = "# ctxcheck: allow[CTX103] reason"


class Comment(NamedTuple):
    """One such comment: it stands at ``line``, and covers the lines from ``first`` to ``last``.

    ``wrong`` says in a few words why it is refused, and accepts nothing; else it is empty.
    """

    line: int
    first: int
    last: int
    codes: frozenset[str]
    reason: str
    wrong: str = ""

    def covers(self, line: int) -> bool:
        """Whether it is about this line."""
        return self.first <= line <= self.last


def comments_in(filename: str, cwd: str | None = None) -> tuple[Comment, ...]:
    """The comments of a file, by the name that its code has, which may be relative to ``cwd`` (by default the working
    directory); empty for one that can't be read.

    Reads the file once, until it is written anew.  Never raises.
    """
    filename = full(filename, cwd)
    try:
        if exists(filename):  # of one that is gone, what was read is kept
            linecache.checkcache(filename)
        lines = linecache.getlines(filename)
    except Exception:  # a loader that fails
        return ()
    known = _files.get(filename)
    if known is not None and known[0] is lines:
        return known[1]
    found = tuple(_read(lines)) if lines else ()
    if lines:
        _files[filename] = (lines, found)
    return found


def known_to_have(filename: str) -> bool:
    """Whether a file that was read has any comments; asks for no file."""
    known = _files.get(full(filename))
    return known is not None and bool(known[1])


def full(filename: str, cwd: str | None = None) -> str:
    """The absolute name of a file, as seen from ``cwd``; what isn't one has the name that it has."""
    return filename if filename.startswith("<") else os.path.abspath(os.path.join(cwd or "", filename))


_files: Final[dict[str, tuple[list[str], tuple[Comment, ...]]]] = {}


def comment_on(text: str, line: int) -> tuple[Comment, ...]:
    """The comments on one line of a file that is gone: that line is all that they cover."""
    start = outline(text).comment
    return () if start < 0 else tuple(_parse(text[start:], line, line, line))


def _read(lines: Sequence[str]) -> Iterator[Comment]:
    if not any("ctxcheck" in line and _MARK.search(line) for line in lines) or sum(map(len, lines)) > MAX_FILE:
        return
    for text, line, first, last in _statements(lines):
        yield from _parse(text, line, first, last)


def _statements(lines: Sequence[str]) -> Iterator[tuple[str, int, int, int]]:
    """Each comment with its line, and the lines of the statement that it is about.

    That is the one that it stands in, or the one that begins directly below a block of nothing but comments.
    """
    inside: list[tuple[str, int]] = []
    above: list[tuple[str, int]] = []
    begun, bare = 0, 0  # where the statement began, and the last line with nothing but a comment
    try:
        for token in tokenize.generate_tokens(iter([*lines, ""]).__next__):
            kind, line = token.type, token.start[0]
            if kind == tokenize.COMMENT:
                if begun:
                    inside.append((token.string, line))
                    continue
                if line != bare + 1:
                    yield from ((text, at, at, at) for text, at in above)
                    above.clear()
                above.append((token.string, line))
                bare = line
            elif kind == tokenize.NEWLINE:
                yield from ((text, at, begun, max(line, begun)) for text, at in (*above, *inside))
                above.clear()
                inside.clear()
                begun = 0
            elif not begun and kind not in _NOTHING:
                if line != bare + 1:
                    yield from ((text, at, at, at) for text, at in above)
                    above.clear()
                begun = line
    except (SyntaxError, tokenize.TokenError, StopIteration, ValueError):
        pass  # not Python, or not yet: what came before it counts
    yield from ((text, at, at, at) for text, at in (*above, *inside))


_NOTHING: Final = frozenset({tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING})


def _parse(text: str, line: int, first: int, last: int) -> Iterator[Comment]:
    """The ``allow``s of one comment: each ends where the next begins."""
    marks = list(_MARK.finditer(text))
    for index, mark in enumerate(marks):
        end = marks[index + 1].start() if index + 1 < len(marks) else len(text)
        found = _ALLOW.match(text[mark.end() : end])
        if found is None:
            continue
        word, names, rest = found["word"], found["names"], found["rest"]
        if word.lower() != "allow":
            if names is not None:
                hint = _near(word.lower(), ["allow"]) or f"; the form is {_FORM}"
                yield Comment(line, first, last, frozenset(), "", f"ctxcheck knows no comment {word!r}{hint}")
            continue
        reason = rest.strip()
        reason = "" if reason.startswith("#") else reason
        codes, wrong = _codes(names)
        if not wrong and not reason:
            wrong = f"it gives no reason; the form is # ctxcheck: allow[{plain(names).strip()}] reason"
        yield Comment(line, first, last, frozenset() if wrong else codes, reason, wrong)


def _codes(names: str | None) -> tuple[frozenset[str], str]:
    """The codes that are named, and what is wrong with them."""
    wanted = [name.strip() for name in (names or "").split(",")]
    if not any(wanted):
        return frozenset(), f"it names no rule; the form is {_FORM}"
    codes: set[str] = set()
    for name in wanted:
        rule = find_rule(name)
        if rule is None:
            shown = [*rule_names()] if name.islower() else [n for n in rule_names() if n.isupper()]
            near = _near(name if name.islower() else name.upper(), shown)
            return frozenset(), f"there is no rule {name!r}{near}"
        codes.add(rule.code)
    return frozenset(codes), ""


def _near(name: str, names: list[str]) -> str:
    # only a mistake needs it, and it isn't small
    from difflib import get_close_matches

    near = get_close_matches(name, names, 1, 0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


#: The parts of a finding at which a comment accepts it: where it happened, and where the locks were acquired that take
#: part.  Not where a context began, a marker stands or a range was opened: that would accept whatever comes inside.
DECISIVE: Final = frozenset({"now", "held_now", "then", "held_then"})


def comments_at(file: str, line: int, text: str = "", cwd: str | None = None) -> tuple[Comment, ...]:
    """The comments that cover a line; ``text`` is that line, in case the file is gone."""
    found = comments_in(file, cwd)
    if not found and "ctxcheck" in text and not _is_there(full(file, cwd)):
        return comment_on(text, line)
    return tuple(comment for comment in found if comment.covers(line))


def _is_there(file: str) -> bool:
    try:
        return bool(linecache.getlines(file))
    except Exception:
        return False


def accepting(violation: Violation, cwd: str | None = None) -> list[tuple[str, Comment]]:
    """The comments that accept a finding, each with the name of its file as the finding shows it (from ``cwd``)."""
    return [found for found in covering(violation, cwd) if violation.rule in found[1].codes]


def covering(violation: Violation, cwd: str | None = None) -> list[tuple[str, Comment]]:
    """Every comment at the decisive places of a finding, also those that are refused or about other rules."""
    return [
        (site.file, comment)
        for site in violation.sites
        if site.role in DECISIVE
        for comment in comments_at(site.file, site.line, site.text, cwd)
    ]
