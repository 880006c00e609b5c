"""Writes what of the documentation is generated: ``docs/rules/``, a page a rule, from the table of rules.

``python -m docs.make`` from the top of the checkout; with ``--check`` it only says what isn't up to date (status 1).
"""

from __future__ import annotations

import sys
from pathlib import Path

from ctxcheck.engine import rules
from ctxcheck.reports import rulepages

TOP = Path(__file__).resolve().parent.parent
RULES = TOP / "docs" / "rules"


def pages() -> dict[str, str]:
    """The text of each file of ``docs/rules/``, by name."""
    programs = sorted(path.name for path in (TOP / "examples" / "rules").glob("ctx*.py"))
    texts = {"README.md": rulepages.index()}
    for code in rules.RULES:
        own = [f"../../examples/rules/{name}" for name in programs if name.startswith(f"{code.lower()}_")]
        texts[f"{code}.md"] = rulepages.markdown(code, own).rstrip("\n") + "\n"
    return texts


def stale(folder: Path = RULES) -> list[str]:
    """The files that would be written or removed."""
    wanted = pages()
    names = [name for name, text in wanted.items() if not _has(folder / name, text)]
    return names + sorted(path.name for path in folder.glob("*.md") if path.name not in wanted)


def write(folder: Path = RULES) -> None:
    """Write the pages, and remove those of rules that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name in stale(folder):
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()


def _has(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        names = stale()
        sys.stdout.writelines(f"not up to date: docs/rules/{name}\n" for name in names)
        sys.exit(bool(names))
    write()
