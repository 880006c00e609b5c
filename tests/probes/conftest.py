from __future__ import annotations

from collections.abc import Iterator

import pytest

import ctxcheck


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    ctxcheck.install()
    yield
    ctxcheck.uninstall()
