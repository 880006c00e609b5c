"""With pytest-xdist: what the workers have seen, and which of them never said."""

from __future__ import annotations

from typing import Any

import pytest

from ctxcheck.pytest_plugin.results import Results

#: Under this name a worker's results are among what it sends at its end.
KEY = "ctxcheck"


class Workers:
    """The hooks of pytest-xdist's that are needed, on both sides."""

    def __init__(self, results: Results) -> None:
        self._results: Results = results

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """A worker is done, or has crashed."""
        sent = getattr(node, "workeroutput", {}).get(KEY)
        name = str(getattr(getattr(node, "gateway", None), "id", "?"))
        if isinstance(sent, str):
            self._results.receive(name, sent)
        else:
            self._results.missing.append(name)
        del error
