"""Writes what of the documentation is generated, from the table of rules, that of configuration keys and docstrings:
``docs/rules/``, a page a rule, ``docs/configuration.md`` and ``docs/api.md``.

``python -m docs.make`` from the top of the checkout; with ``--check`` it only says what isn't up to date (status 1).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from docs import api

from ctxcheck import cli
from ctxcheck.engine import rules
from ctxcheck.keys import KEYS, Key
from ctxcheck.reports import rulepages

TOP = Path(__file__).resolve().parent.parent
DOCS = TOP / "docs"

_CONFIGURATION = """\
# Configuration

In `[tool.ctxcheck]` of `pyproject.toml` (the nearest one, or `--config FILE`), on the command line, or in the
environment. The command line wins, then the environment, then the file. A `-` in a key may be a `_`. A key or a value
that isn't known is an error that names the nearest one.

```toml
[tool.ctxcheck]
fail-on = "certain"
exclude = ["shop.vendored.*"]
output = ["text", "sarif:ctxcheck.sarif"]

[[tool.ctxcheck.allow]]
rule = "CTX001"
locks = ["Ledger.lock", "AuditLog.lock"]
reason = "reconcile() only runs before any teller thread is started"

[[tool.ctxcheck.order]]
locks = ["Orders.lock", "Stock.lock"]
reason = "docs/locking.md"
```

| key | default | meaning |
|---|---|---|
{rows}

`ctxcheck debug config` prints what holds where you are, and where each value comes from.

## The command line

For `ctxcheck run`, a key is an option with `--` before it, such as `--fail-on certain` (all but {no_option}).
The items of a list are separated by commas; `--output` is repeated. Paths are relative to the working directory.
`ctxcheck run` has four options more, which are no keys:

| option | meaning |
|---|---|
| `--exit-zero` | report, but don't let violations change the exit status |
| `--error-exitcode N` | the exit status for violations (1 to 255; default 1) |
| `--processes` | check [child processes](data.md#child-processes), too |
| `-q`, `--quiet` | a finding a line |

The options of `pytest --ctxcheck` are on [the page on pytest](pytest.md#options).

## The environment

There a key is `CTXCHECK_` and its name in capitals, with `_` for `-`, such as `CTXCHECK_FAIL_ON=certain` (all but
{no_variable}). The items of a list are separated by commas.

| variable | meaning |
|---|---|
| `CTXCHECK` | `0`: off, whatever else says so, and decorators hand back the function itself; `1`: on |
| `CTXCHECK_CONFIG` | the configuration file |
| `CTXCHECK_DEBUG` | `1`: the traceback of an internal fault |
| `CTXCHECK_PROCESS_START` | child interpreters [check themselves](data.md#child-processes) |
| `NO_COLOR`, `FORCE_COLOR` | colour, where `color` is `auto` |
| `GITHUB_ACTIONS`, `GITHUB_STEP_SUMMARY`, `GITHUB_WORKSPACE` | [GitHub Actions](ci.md) |

This page is generated: `python -m docs.make`.
"""


def configuration() -> str:
    """The text of ``docs/configuration.md``."""
    rows = "\n".join(f"| `{key.name}` | {_default(key)} | {_meaning(key)} |" for key in KEYS.values())
    _, parser = cli._parsers()
    no_option = [f"`{name}`" for name in KEYS if f"--{name}" not in parser._option_string_actions]
    no_variable = [f"`{key.name}`" for key in KEYS.values() if not key.variable]
    return _CONFIGURATION.format(rows=rows, no_option=", ".join(no_option), no_variable=", ".join(no_variable))


def _meaning(key: Key) -> str:
    words = f" ({', '.join(f'`{word}`' for word in key.allowed)})" if key.allowed else ""
    return (key.help + words).replace("|", "\\|")


def _default(key: Key) -> str:
    value = key.default
    if key.name == "owners":
        return "`observed` in `ctxcheck run`, else `assumed`"
    if isinstance(value, tuple):
        value = [str(item) for item in value]
    if value in (None, "", []):
        return ""
    return f"`{json.dumps(value)}`"


def pages() -> dict[str, str]:
    """The text of each generated file, by its path below ``docs/``."""
    programs = sorted(path.name for path in (TOP / "examples" / "rules").glob("ctx*.py"))
    texts = {"api.md": api.text(), "configuration.md": configuration(), "rules/README.md": rulepages.index()}
    for code in rules.RULES:
        own = [f"../../examples/rules/{name}" for name in programs if name.startswith(f"{code.lower()}_")]
        texts[f"rules/{code}.md"] = rulepages.markdown(code, own).rstrip("\n") + "\n"
    return texts


def stale(folder: Path = DOCS) -> list[str]:
    """The files that would be written or removed."""
    wanted = pages()
    names = [name for name, text in wanted.items() if not _has(folder / name, text)]
    return names + sorted(name for name in _in(folder / "rules") if name not in wanted)


def write(folder: Path = DOCS) -> None:
    """Write the pages, and remove those of rules that are no more."""
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for name in stale(folder):
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()


def _in(folder: Path) -> list[str]:
    return [f"{folder.name}/{path.name}" for path in folder.glob("*.md")]


def _has(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        names = stale()
        sys.stdout.writelines(f"not up to date: docs/{name}\n" for name in names)
        sys.exit(bool(names))
    write()
