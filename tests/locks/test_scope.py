"""Which modules' locks are checked."""

from __future__ import annotations

import ctxcheck
from ctxcheck.locks import scope


def test_include_and_exclude() -> None:
    for include, exclude, checked in (
        ((), (), True),
        (("tests.*",), (), True),
        (("elsewhere",), (), False),
        ((), ("tests.locks.*",), False),
        (("tests.*",), ("*.test_scope",), False),
    ):
        scope.set_scope(include, exclude)
        try:
            for make in (ctxcheck.Lock, ctxcheck.RLock):
                lock = make()
                assert hasattr(lock, "step") is checked, (include, exclude)
                assert hasattr(make(name="in any case"), "step")
        finally:
            scope.set_scope((), ())
