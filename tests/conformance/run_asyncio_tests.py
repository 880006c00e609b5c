"""Runs CPython's own tests of asyncio's locks and queues with ours in their place.

    python run_asyncio_tests.py [--checking]

Exits with 0 if all pass, 1 if one doesn't, 3 where the interpreter comes without its tests, 9 if the validator broke
or nothing was checked.
"""

from __future__ import annotations

import importlib.util
import sys
import unittest
from contextlib import nullcontext


def main() -> int:
    import ctxcheck
    from ctxcheck.session import Session

    if importlib.util.find_spec("test") is None or importlib.util.find_spec("test.test_asyncio") is None:
        return 3
    ctxcheck.install()
    import asyncio

    assert asyncio.Lock is ctxcheck.aio.Lock
    assert asyncio.locks.Condition is ctxcheck.aio.Condition
    session = Session() if "--checking" in sys.argv else None
    names = [f"test.test_asyncio.{name}" for name in ("test_locks", "test_queues", "test_taskgroups", "test_timeouts")]
    with session or nullcontext():
        result = unittest.TextTestRunner(verbosity=1).run(unittest.defaultTestLoader.loadTestsFromNames(names))
    if not result.wasSuccessful():
        return 1
    print(f"{result.testsRun} tests")
    if session is not None:
        for violation in session.failures:
            print(violation.rule, violation.message)
        if session.engine.broken or session.counts().acquisitions < 50:
            return 9
    return 0


if __name__ == "__main__":
    sys.exit(main())
