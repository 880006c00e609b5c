"""What a project says of functions of somebody else's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ctxcheck
from ctxcheck.keys import Target
from ctxcheck.session import checking
from ctxcheck.targets import Targets

MODULE = '''
import threading
def fetch(a, b=2): return (a, b)
async def wait(): return 1
class Client:
    def __init__(self): self._lock = threading.Lock()
    def send(self, x): return x
    @staticmethod
    def static(x): return x
    @classmethod
    def built(cls, x): return (cls, x)
    def change(self): return "changed"
class Derived(Client): pass
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "__init__.py").write_text("from theirs.mod import fetch\n")
    (folder / "mod.py").write_text(MODULE)
    (folder / "late.py").write_text("def sleepy(): return 'slept'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "theirs"
    for name in [n for n in sys.modules if n.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def made(*targets: Target) -> tuple[Targets, list[str]]:
    said: list[str] = []
    return Targets(targets, said.append), said


def told(function: Any) -> list[str]:
    with checking() as session, ctxcheck.atomic("strict"):
        function()
    return [v.rule for v in session.violations]


@pytest.mark.parametrize("early", [True, False])
def test_functions_and_methods_are_marked_when_their_module_comes_and_given_back(package: str, early: bool) -> None:
    if early:
        import theirs  # type: ignore[import-not-found]
    names = ("fetch", "Client.send", "Client.static", "Client.built", "Derived.send")
    targets, said = made(*(Target("may-sleep", f"theirs.mod.{name}", category="network") for name in names))
    targets.install()
    import theirs
    from theirs import mod

    assert theirs.fetch is mod.fetch
    client = mod.Client()
    for call, answer in (
        (lambda: theirs.fetch(1, b=3), (1, 3)),
        (lambda: client.send(4), 4),
        (lambda: mod.Client.static(5), 5),
        (lambda: mod.Client.built(6), (mod.Client, 6)),
        (lambda: mod.Derived().send(7), 7),
    ):
        assert call() == answer
        assert set(told(call)) == {"CTX101"}, call
    targets.uninstall()
    assert not told(lambda: (theirs.fetch(1), client.send(1), mod.Client.static(1), mod.Client.built(1)))
    assert "send" not in vars(mod.Derived)
    assert isinstance(vars(mod.Client)["static"], staticmethod)
    assert not hasattr(mod.fetch, "__wrapped__")
    assert said == []


def test_the_category_is_what_a_context_can_forbid_and_the_reason_is_told(package: str) -> None:
    targets, _ = made(Target("may-sleep", "theirs.mod.fetch", category="network", reason="it asks a server"))
    targets.install()
    from theirs import mod

    with checking() as session, ctxcheck.atomic("strict"):
        mod.fetch(1)
    (violation,) = session.violations
    assert any("it asks a server" in note for note in violation.notes)
    targets.uninstall()


def test_atomic_and_requires_lock(package: str) -> None:
    targets, _ = made(
        Target("atomic", "theirs.mod.Client.send", label="wire"),
        Target("requires-lock", "theirs.mod.Client.change", lock="self._lock"),
    )
    targets.install()
    from theirs import mod

    client = mod.Client()
    client._lock = ctxcheck.Lock()
    with checking() as session:
        client.change()
        with client._lock:
            assert client.change() == "changed"
    assert [v.rule for v in session.violations] == ["CTX301"]
    targets.uninstall()


def test_a_coroutine_is_marked_as_one(package: str) -> None:
    import asyncio

    targets, _ = made(Target("may-sleep", "theirs.mod.wait"))
    targets.install()
    from theirs import mod

    with checking() as session:
        assert asyncio.run(mod.wait()) == 1
    assert session.violations == []
    targets.uninstall()


def test_a_submodule_that_comes_later_is_waited_for(package: str) -> None:
    targets, said = made(Target("may-sleep", "theirs.late.sleepy"))
    targets.install()
    import theirs.late

    assert told(theirs.late.sleepy) == ["CTX101"]
    assert targets.never_imported() == []
    targets.uninstall()
    assert said == []


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("theirs.mod.fetsch", "theirs.mod has no 'fetsch'; did you mean 'fetch'?"),
        ("theirs.mod.Client.sendd", "theirs.mod.Client has no 'sendd'; did you mean 'send'?"),
        ("theirs.mood.fetch", "theirs has no 'mood'; did you mean 'mod'?"),
        ("theirs.mod.Client", "is a class"),
    ],
)
def test_a_name_that_there_is_not_is_one_line(package: str, name: str, line: str) -> None:
    targets, said = made(Target("may-sleep", name))
    targets.install()
    import theirs.mod

    assert len(said) == 1
    assert "\n" not in said[0]
    assert name in said[0]
    assert line in said[0]
    assert targets.unresolved == said
    targets.uninstall()
    del theirs


def test_a_module_that_never_comes_is_no_matter() -> None:
    targets, said = made(Target("may-sleep", "nobody_has_this.fetch"))
    targets.install()
    assert targets.never_imported() == ["nobody_has_this.fetch"]
    targets.uninstall()
    assert said == []


CONFIG = """
[tool.ctxcheck]
{more}
[[tool.ctxcheck.may-sleep]]
target = "theirs.mod.fetch"
category = "network"
"""
PROGRAM = "import asyncio, theirs.mod\nasync def main():\n    theirs.mod.fetch(1)\nasyncio.run(main())\n"


def run(tmp_path: Path, config: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    (tmp_path / "pyproject.toml").write_text(config)
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "ctxcheck", "run", "-q", "program.py"]
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)


def test_from_a_configuration(package: str, tmp_path: Path) -> None:
    answer = run(tmp_path, CONFIG.format(more=""))
    assert answer.returncode == 1
    assert "CTX103" in answer.stderr
    assert "`fetch`" in answer.stderr


def test_a_package_ships_its_own_and_a_bad_one_is_named_and_skipped(package: str, tmp_path: Path) -> None:
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[ctxcheck.catalogue]\ngood = theirs_rows:rows\nbad = theirs_rows:BAD\nworse = theirs_rows:nothing\n"
    )
    (tmp_path / "theirs_rows.py").write_text(
        "def rows(): return [{'marker': 'may-sleep', 'target': 'theirs.mod.fetch'}]\n"
        "BAD = [{'marker': 'may-slep', 'target': 'theirs.mod.fetch'}]\n"
    )
    answer = run(tmp_path, "[tool.ctxcheck]\n")
    assert answer.returncode == 1
    assert "`fetch`" in answer.stderr
    warnings = [line for line in answer.stderr.splitlines() if line.startswith("ctxcheck: warning:")]
    assert len(warnings) == 2
    assert "'bad'" in warnings[0]
    assert "'may-slep'" in warnings[0]
    assert "'worse'" in warnings[1]


def test_strictly_what_does_not_resolve_fails_the_run(package: str, tmp_path: Path) -> None:
    config = CONFIG.format(more="strict = true").replace("mod.fetch", "mod.fetsch")
    answer = run(tmp_path, config)
    assert answer.returncode == 1
    assert answer.stderr.count("did you mean 'fetch'?") == 2  # when it was imported, and at the end
