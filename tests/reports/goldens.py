"""Golden files: what a report looks like, to the letter.

Run the tests with ``UPDATE_GOLDEN=1`` to write them anew, then read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def check(name: str, text: str) -> None:
    """Assert that ``text`` is what ``golden/<name>.txt`` holds."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text + "\n", encoding="utf-8")
    assert not any(row.endswith(" ") for row in text.split("\n"))
    assert text + "\n" == path.read_text(encoding="utf-8")
