"""Programs that break one rule each: those of ``examples/rules``, and small ones for the rules that these leave out."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples" / "rules"

_MORE = {
    "CTX101": """
        @ctxcheck.might_sleep
        def nap(): pass

        def broken():
            with ctxcheck.atomic("tick"):
                nap()
    """,
    "CTX102": """
        lock = ctxcheck.Lock(name="A")

        def broken():
            with ctxcheck.atomic("tick"):
                with lock:
                    pass
    """,
    "CTX103": """
        import asyncio

        @ctxcheck.might_sleep
        def fetch(): pass

        async def main():
            fetch()

        def broken():
            asyncio.run(main())
    """,
    "CTX105": """
        import asyncio

        lock = ctxcheck.Lock(name="A")

        @ctxcheck.might_sleep
        def fetch(): pass

        def refresh():
            with lock:
                fetch()

        async def main():
            with lock:
                pass

        def broken():
            refresh()
            asyncio.run(main())
    """,
    "CTX201": """
        @ctxcheck.within_range("txn")
        def write(): pass

        def broken():
            write()
    """,
    "CTX202": """
        @ctxcheck.range_end("txn")
        def commit(): pass

        def broken():
            commit()
    """,
    "CTX203": """
        @ctxcheck.range_start("txn")
        def begin(): pass

        def work():
            begin()

        def broken():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    """,
    "CTX303": """
        lock = ctxcheck.RLock(name="A")

        def work():
            lock.acquire()

        def broken():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    """,
    "CTX205": """
        lock = ctxcheck.Lock(name="A")

        @ctxcheck.range_start("txn")
        def begin(): pass

        @ctxcheck.range_end("txn")
        def commit(): pass

        def broken():
            lock.acquire()
            begin()
            lock.release()
            commit()
    """,
    "CTX301": """
        lock = ctxcheck.Lock(name="A")

        @ctxcheck.requires_lock(lock)
        def change(): pass

        def broken():
            change()
    """,
}


def _text(body: str) -> str:
    lines = [line[8:] for line in body.splitlines()]
    return "import threading\nimport ctxcheck\n" + "\n".join(lines) + "\n"


#: Name -> (rule, source).
PROGRAMS: dict[str, tuple[str, str]] = {
    path.stem: (path.stem[:6].upper(), path.read_text()) for path in sorted(EXAMPLES.glob("ctx*.py"))
    # its thread has no function of its own
    if path.stem != "ctx303_left_held"
}
PROGRAMS |= {
    f"{rule.lower()}_small": (rule, _text(body))
    for rule, body in _MORE.items()
    if not any(found == rule for found, _ in PROGRAMS.values())
}


def load(path: Path, source: str) -> ModuleType:
    """Write the program, and import it, in the place of the one before."""
    forget()
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def with_comment(source: str, line: int, rule: str) -> str:
    """The source with a comment on one line."""
    lines = source.splitlines()
    lines[line - 1] = f"{re.sub(r'  #.*', '', lines[line - 1])}  # ctxcheck: allow[{rule}] it is a test"
    return "\n".join(lines) + "\n"


def with_decorator(source: str, line: int, rule: str) -> str:
    """The source with a decorator on the innermost function around a line; inside of an interrupting context, which
    begins with a chain of its own."""
    interrupt = 'ctxcheck.interrupt("gc"), '
    if interrupt in source:
        return source.replace(interrupt, f'{interrupt}ctxcheck.allow("{rule}", reason="it is a test"), ', 1)
    inside = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    node = max(inside, key=lambda node: node.lineno)
    lines = source.splitlines()
    text = f'{" " * node.col_offset}@__import__("ctxcheck").allow("{rule}", reason="it is a test")'
    lines.insert(node.lineno - 1, text)
    return "\n".join(lines) + "\n"


EDITS: dict[str, Callable[[str, int, str], str]] = {"comment": with_comment, "block": with_decorator}


def forget() -> None:
    """Forget the program that was imported, and its locks."""
    for name in [name for name in sys.modules if name.startswith("allowed_")]:
        del sys.modules[name]
