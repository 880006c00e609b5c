"""The end of a run: the program may have left a process in which next to nothing works any more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import Run

FOUND = """
import os, signal, sys, threading
a, b = threading.Lock(), threading.Lock()
def there():
    with a:
        with b: pass
def back():
    with b:
        with a: pass
for function in there, back:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
"""
#: Nothing that isn't imported by now can be: the program went to another root, gave up its rights, ate all descriptors.
NO_IMPORTS = FOUND + "for x in (sys.meta_path, sys.path, sys.path_hooks, sys.path_importer_cache): x.clear()\n"


@pytest.mark.parametrize("output", ["text", "concise", "json", "jsonl", "sarif", "github"])
def test_every_format_is_written_where_nothing_can_be_imported_any_more(ctxcheck: Run, output: str) -> None:
    result = ctxcheck("run", "--output", output, "program.py", code=NO_IMPORTS)
    assert "CTX001" in result.stdout
    assert "ctxcheck: 1 violation (1 CTX001); program exited 0 -> exit 1" in result.stdout
    assert result.returncode == 1


@pytest.mark.parametrize("option", [(), ("--processes",)])
def test_children_count_where_nothing_can_be_imported_any_more(ctxcheck: Run, option: tuple[str, ...]) -> None:
    code = f"{FOUND}\nif not os.fork(): os._exit(0)\nos.wait()\n{NO_IMPORTS.removeprefix(FOUND)}"
    result = ctxcheck("run", *option, "program.py", code=code)
    assert "1 violation (1 CTX001)" in result.stdout, result.stdout
    assert result.returncode == 1


def test_if_it_cant_be_told_that_is_one_line_and_the_programs_own_status_wins(ctxcheck: Run) -> None:
    # what the program did to the standard library is its own affair, as long as it runs
    broken = FOUND + "import dataclasses\ndef replace(*a, **k): raise OSError('no')\ndataclasses.replace = replace\n"
    result = ctxcheck("run", "program.py", code=broken)
    lines = [line for line in result.stdout.splitlines() if line.startswith("ctxcheck: can't report")]
    assert len(lines) == 1, result.stdout
    assert lines[0].endswith(".jsonl has it: OSError: no")
    assert "Traceback" not in result.stdout
    assert result.returncode == 3
    assert ctxcheck("run", "program.py", code=broken + "sys.exit(7)\n").returncode == 7
    assert "CTX001" in ctxcheck("report", "--output", "concise").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signals_that_a_write_of_ours_could_raise_dont_end_the_process(ctxcheck: Run, tmp_path: Path) -> None:
    code = FOUND + """
import resource
for number in (signal.SIGPIPE, signal.SIGXFSZ): signal.signal(number, signal.SIG_DFL)
end, pipe = os.pipe()
os.close(end); os.dup2(pipe, 2)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
"""
    result = ctxcheck("run", "--exit-zero", "--output", "json:found.json", "--output", "text", "program.py", code=code)
    assert result.returncode == 2  # a report that is lost is no success; a signal would have been negative
