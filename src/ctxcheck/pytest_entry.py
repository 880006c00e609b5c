"""What pytest loads by itself, by the name ``ctxcheck``: it brings :mod:`ctxcheck.pytest_plugin` along.

A plugin can be named by its module, too (``-p``, ``pytest_plugins``, ``PYTEST_PLUGINS``), and pytest refuses one that
is there under two names.  So the module goes by its own name only, and whoever comes second finds it.
"""

from __future__ import annotations

from typing import Any

#: What pytest calls the plugin if it is named.
NAME = "ctxcheck.pytest_plugin"


def pytest_plugin_registered(manager: Any) -> None:
    """This one is registered, or another one."""
    if not (manager.has_plugin(NAME) or manager.is_blocked(NAME)):
        from ctxcheck import pytest_plugin

        manager.register(pytest_plugin, NAME)
