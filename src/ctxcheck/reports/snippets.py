"""The places of a finding: source lines with the expression underlined and labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ctxcheck.engine.violations import Site
from ctxcheck.reports.cells import TAB, Paint, cells, char_cells, safe, safe_char, wrap

#: Cells that stay in view to the left of an expression which lies far out on a long line.
_LEAD: Final = 12


def place(file: str, line: int) -> str:
    """Return ``file:line``, or what is known of it."""
    return f"{safe(file) or '<unknown>'}:{line}" if line > 0 else safe(file) or "<unknown>"


def place_in(file: str, line: int, function: str) -> str:
    """Return ``file:line in function``, or what is known of it."""
    where = place(file, line)
    return f"{where} in {safe(function)}" if function else where


def gutter_width(sites: Sequence[Site]) -> int:
    """Return the width of the line number column that suits all ``sites``."""
    return max([2, *(len(str(site.line)) for site in sites)])


class _Line:
    """A source line as it is shown, and where each of its characters begins, in cells.

    Attributes:
        pieces: what is shown for each character: itself, spaces for a tab, or an escape.
        edges: the cell where each piece begins, and the end of the last one.
        first, last: the range of characters without the white space around them.
    """

    __slots__ = ("edges", "first", "last", "pieces")

    def __init__(self, text: str) -> None:
        text = text.rstrip("\r\n")
        self.pieces: list[str] = []
        self.edges = [0]
        for char in text:
            at = self.edges[-1]
            piece = " " * (TAB - at % TAB) if char == "\t" else safe_char(char)
            self.pieces.append(piece)
            self.edges.append(at + (char_cells(piece) if len(piece) == 1 else len(piece)))
        self.last = len(text.rstrip())
        self.first = min(len(text) - len(text.lstrip()), self.last)

    @property
    def indent(self) -> int:
        return self.edges[self.first]

    @property
    def end(self) -> int:
        return self.edges[self.last]

    def span(self, site: Site) -> tuple[int, int]:
        """Return the cells that the site's expression takes: at least one.

        A column outside the line, or an end before its start (the expression goes on in the
        next line), falls back to the line's own ends.
        """
        first, last = self.first, self.last
        if 0 <= site.column < self.last:
            first = site.column
        if first < site.end_column < self.last:
            last = site.end_column
        start = self.edges[first]
        return start, max(self.edges[last], start + 1)

    def window(self, low: int, high: int) -> str:
        """Return what is shown between two cells; a character that is cut in half becomes a space."""
        shown: list[str] = []
        for piece, start, end in zip(self.pieces, self.edges, self.edges[1:], strict=False):
            if start >= high:
                break
            if low <= start and end <= high:
                shown.append(piece)
            elif end > low:
                shown.append(" " * (min(end, high) - max(start, low)))
        return "".join(shown).rstrip()


class _Snippet:
    """Sites in consecutive lines of one function, shown as one piece of source."""

    __slots__ = ("sites",)

    def __init__(self, site: Site) -> None:
        self.sites = [site]

    def takes(self, site: Site) -> bool:
        """Say whether ``site`` can be shown in this piece too."""
        head = self.sites[0]
        return (
            not site.heading
            and bool(site.text.strip() and head.text.strip())
            and (site.file, site.function) == (head.file, head.function)
            and any(abs(site.line - other.line) <= 1 for other in self.sites)
            and all(site.line != other.line or site.text == other.text for other in self.sites)
        )

    def render(self, gutter: int, width: int, paint: Paint, primary: Site | None) -> list[str]:
        """Return the rows below the place: source lines, marks and labels."""
        bar = paint(Paint.GUTTER, " " * gutter + " |")
        head = self.sites[0]
        room = max(width - gutter - 3, 24)
        if not head.text.strip():
            return [f"{bar} {row}" for row in wrap(head.label, room)] if head.label else []
        lines = {site.line: _Line(site.text) for site in self.sites}
        if head.before.strip() and head.line > 1:
            lines.setdefault(head.line - 1, _Line(head.before))
        low = 0
        if any(line.end > room for line in lines.values()):
            low = min(line.indent for line in lines.values())
        marks: dict[int, list[Site]] = {}
        for site in self.sites:
            marks.setdefault(site.line, []).append(site)
        rows = [bar]
        for number in sorted(lines):
            line = lines[number]
            marked = marks.get(number, [])
            start, end = line.span(marked[0]) if marked else (0, 0)
            left = low
            if line.end - low > room and min(end, start + _LEAD) - low > room - 3:
                left = max(start - _LEAD, low)
            cut_left, cut_right = left > low, line.end - left > room
            shown = line.window(left + 3 * cut_left, left + room - 3 * cut_right)
            shown = "..." * cut_left + shown + "..." * cut_right
            number_bar = paint(Paint.GUTTER, f"{number if number > 0 else '':>{gutter}} |")
            rows.append(f"{number_bar} {shown}".rstrip())
            for site in marked:
                start, end = line.span(site)
                first = min(max(start - left, 0), room - 1)
                last = max(min(end - left, room), first + 1)
                style, mark = (Paint.ERROR, "^") if site is primary else (Paint.GUTTER, "-")
                rows += [f"{bar} {row}" for row in _marks(first, mark * (last - first), site.label, room, style, paint)]
        return rows


def _marks(first: int, mark: str, label: str, room: int, style: str, paint: Paint) -> list[str]:
    """Return the row of carets with its label, on rows of its own where it wouldn't fit."""
    label = safe(label)
    if not label:
        return [" " * first + paint(style, mark)]
    if first + len(mark) + 1 + cells(label) <= room:
        return [" " * first + paint(style, f"{mark} {label}")]
    # Far out on the line there is too little room; a label may then begin further to the left.
    indent = first if room - first >= 32 else max(room - 48, 0)
    labels = [" " * indent + paint(style, row) for row in wrap(label, room - indent)]
    return [" " * first + paint(style, mark), *labels]


def render_sites(sites: Sequence[Site], *, width: int, paint: Paint) -> list[str]:
    """Return the rows for all sites: the first is the primary one, with carets.

    A site with a heading starts a new group.  Neighbouring sites that lie in consecutive lines
    of one function share a piece of source.
    """
    snippets: list[_Snippet] = []
    for site in sites:
        if snippets and snippets[-1].takes(site):
            snippets[-1].sites.append(site)
        else:
            snippets.append(_Snippet(site))
    gutter = gutter_width(sites)
    rows: list[str] = []
    for index, snippet in enumerate(snippets):
        head = snippet.sites[0]
        if index:
            rows.append(paint(Paint.GUTTER, " " * gutter + " |"))
        if head.heading:
            first, *rest = wrap(head.heading, width - 6)
            rows += [paint(Paint.BOLD, "note:") + f" {first}", *(f"      {row}" for row in rest)]
        arrow = ":::" if index and not head.heading else "-->"
        rows.append(paint(Paint.GUTTER, " " * gutter + arrow) + " " + place_in(head.file, head.line, head.function))
        rows += snippet.render(gutter, width, paint, sites[0])
    return rows
