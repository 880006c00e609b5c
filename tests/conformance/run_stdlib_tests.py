"""Runs CPython's own tests with all probes in place.

    python run_stdlib_tests.py [--off|--installed|--checking] MODULE...

Prints a line for each test that doesn't pass, and the number of tests.  ``--off``: without ctxcheck, to compare;
``--checking``: in a session.  Exits with 0 if all pass, 1 if one doesn't, 3 where the interpreter comes without its
tests, 9 if the validator broke.
"""

from __future__ import annotations

import importlib.util
import io
import sys
import unittest
from contextlib import nullcontext
from typing import Any


def main() -> int:
    if importlib.util.find_spec("test") is None:
        return 3
    how, modules = sys.argv[1], sys.argv[2:]
    session: Any = None
    if how != "--off":
        import ctxcheck
        from ctxcheck.session import Session

        ctxcheck.install(blocking=("sleep", "wait", "network", "process", "file", "metadata", "database"))
        session = Session() if how == "--checking" else None
    names = [f"test.{name}" for name in modules]
    with session or nullcontext():
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        result = unittest.TextTestRunner(verbosity=1, stream=io.StringIO()).run(suite)
    for kind, failures in (("FAIL", result.failures), ("ERROR", result.errors)):
        for test, text in failures:
            print(kind, test.id(), "|", text.strip().splitlines()[-1][:200])
    print(f"{result.testsRun} tests")
    if session is not None and session.engine.broken:
        return 9
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
