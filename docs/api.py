"""The text of ``docs/api.md``: every public name, its arguments and what its docstring says."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

import ctxcheck

_HEAD: Final = """\
# The Python interface

Everything here is `ctxcheck.NAME`, and typed. `import ctxcheck` is cheap: what a name needs is imported when it is
first used. The texts are those that `help()` prints. [The README](../README.md#say-what-your-code-promises) says in a
line what each is for.
"""

#: The names of each section, in the order in which people meet them.
_SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Check a part of a program": (
        "checking", "install", "uninstall", "Session", "Violation", "UnusedAllow", "allow", "dump", "held_locks",
    ),
    "Locks": (
        "Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier", "SpinLock", "track",
        "lock_factory", "nested", "region", "declare_order", "declare_leaf",
    ),
    "What a function promises": (
        "might_sleep", "atomic", "nonblocking", "requires_lock", "might_lock", "might_enter", "assert_held",
        "assert_not_held",
    ),
    "Ranges": ("range_start", "range_end", "range_", "within_range"),
    "Contexts of your own": (
        "context", "context_start", "context_end", "thread_role", "requires", "forbids", "assert_context",
        "assert_no_context", "ambient", "interrupt", "masked",
    ),
    "Errors and warnings": (
        "CtxcheckError", "ConfigError", "DeadlockError", "ViolationError", "CtxcheckWarning", "ViolationWarning",
    ),
}  # fmt: skip

#: Made by ctxcheck, not by you: what can be asked of them matters.
_GIVEN: Final = ("Session", "Violation", "UnusedAllow")

#: What of a session is of use to people who didn't write ctxcheck.
_OF_SESSIONS: Final = (
    "violations", "failures", "unused_allows", "refused_allows", "counts", "graph", "held_locks", "start", "stop",
)  # fmt: skip

_ROLE: Final = re.compile(r":\w+:`~?(?:ctxcheck\.)?([^`<]*?)(?: <[^`]*>)?`")


def text() -> str:
    """The whole page.

    Raises:
        ValueError: a public name has no section, or a section a name that isn't public.
    """
    named = [name for names in _SECTIONS.values() for name in names]
    if sorted(named) != sorted(ctxcheck.__all__):
        raise ValueError(f"docs/api.py and ctxcheck.__all__ differ: {sorted({*named} ^ {*ctxcheck.__all__})}")
    parts = [_HEAD]
    for title, names in _SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [_entry(name) for name in names]
    parts.append("This page is generated: `python -m docs.make`.\n")
    return "\n".join(parts)


def _entry(name: str) -> str:
    value: Any = getattr(ctxcheck, name)
    given = name in _GIVEN or (isinstance(value, type) and issubclass(value, BaseException))
    heading = f"### `{name}{'' if given else _arguments(value)}`"
    said = _plain(inspect.getdoc(value) or "")
    return f"{heading}\n\n```text\n{said}\n{_members(value) if name == 'Session' else ''}```\n"


def _plain(said: str) -> str:
    return _ROLE.sub(r"`\1`", said).replace("``", "`")


def _arguments(value: Any) -> str:
    """The arguments, without their types, which make a line that nobody reads."""
    kinds = inspect.Parameter
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(value).parameters.values():
        if parameter.name in ("args", "kwargs", "misplaced", "self"):
            continue
        shown.append(parameter.replace(annotation=kinds.empty))
    return str(inspect.Signature(shown))


def _members(value: type) -> str:
    lines = [""]
    for name in _OF_SESSIONS:
        member = vars(value)[name]
        function = member.fget if isinstance(member, property) else member
        first = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
        lines.append(f"{name}{'' if isinstance(member, property) else '()'}: {_plain(first)}")
    return "\n".join(lines) + "\n"
