"""Text that is safe to print, and its width on a terminal.

A report shows source lines, thread names, reprs and whatever a data file holds.  Any of them
may carry an escape sequence, a bidirectional override or a lone surrogate, so everything goes
through :func:`safe` before it is laid out, and every layout counts terminal cells, not
characters: a CJK letter takes two, a combining accent none.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

#: Cells between two tab stops of a shown source line.
TAB: Final = 4

#: The two joiners are invisible, but scripts and emoji need them, and they can't reorder a line.
_JOINERS: Final = "\u200c\u200d"

#: A word is a run of spans in backticks and of characters that aren't spaces: `with a.lock:` stays in one piece.
_WORD: Final = re.compile(r"(?:`[^`\n]{1,40}`|\S)+")


def safe_char(char: str) -> str:
    """Return ``char`` as it may be printed: itself, or an escape such as ``\\x1b``."""
    if char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs":
        return char
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def safe(text: str) -> str:
    """Return ``text`` on one line, with everything that a terminal could act on escaped."""
    if text.isprintable():
        return text
    return "".join(map(safe_char, text))


def safe_lines(text: str) -> list[str]:
    """Return the lines of ``text``, each safe, with tabs as spaces; at least one."""
    return [safe(line.rstrip("\r").expandtabs(TAB)) for line in text.split("\n")]


def char_cells(char: str) -> int:
    """Return how many terminal cells a safe character takes: 0, 1 or 2."""
    if char.isascii():
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf") or "\u1160" <= char <= "\u11ff":
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def cells(text: str) -> int:
    """Return how many terminal cells a safe text takes."""
    return len(text) if text.isascii() else sum(map(char_cells, text))


def pad(text: str, width: int) -> str:
    """Return ``text`` with spaces up to ``width`` cells."""
    return text + " " * (width - cells(text))


def crop(text: str, width: int) -> str:
    """Return ``text`` cut to ``width`` cells, ending in ``...`` if something was cut."""
    if cells(text) <= width:
        return text
    room = max(width - 3, 1)
    kept: list[str] = []
    for char in text:
        room -= char_cells(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept).rstrip() + "..."


def wrap(text: str, width: int) -> list[str]:
    """Return ``text`` in lines of at most ``width`` cells, broken at spaces; at least one line.

    A word that is too long stays whole: a path that was broken in two can't be clicked or copied.
    """
    lines: list[str] = []
    line = ""
    for word in _WORD.findall(safe(text)):
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


class Paint:
    """ANSI colours, or nothing at all when ``on`` is false.

    Colour goes on last, on text that is already laid out, so that no width ever counts an
    escape sequence.
    """

    ERROR: Final = "1;31"
    WARNING: Final = "1;33"
    GUTTER: Final = "1;34"
    HELP: Final = "1;36"
    BOLD: Final = "1"

    __slots__ = ("on",)

    def __init__(self, on: bool) -> None:
        self.on: bool = on

    def __call__(self, style: str, text: str) -> str:
        """Return ``text`` in a style, if colour is on."""
        return f"\x1b[{style}m{text}\x1b[0m" if self.on and text else text

    def strong(self, text: str) -> str:
        """Return ``text`` in the colour of what is wrong."""
        return self(self.ERROR, text)


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Return for instance ``1 order`` or ``9,112 orders``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
