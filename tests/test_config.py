"""The configuration: where a value comes from, and what is said about a bad one."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxcheck import config
from ctxcheck.config import KEYS, Allow, Config, ConfigError, Order, Output, Resolved, Target, load

SRC = str(Path(config.__file__).resolve().parent.parent)

FORMATS = "text, concise, json, jsonl, sarif, github, none"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "src" / "deep").mkdir(parents=True)
    return folder


def write(project: Path, text: str, name: str = "pyproject.toml") -> None:
    (project / name).write_text(text)


def from_file(project: Path, text: str) -> Resolved:
    write(project, f"[tool.ctxcheck]\n{text}\n")
    return load(environ={}, cwd=str(project))


def refusal(project: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        from_file(project, text)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- the table


def test_every_key_has_a_field_and_every_field_a_key() -> None:
    assert [key.attribute for key in KEYS.values()] == [field.name for field in dataclasses.fields(Config)]
    assert all(name == key.name for name, key in KEYS.items())
    assert all(key.help and not key.help.endswith(".") for key in KEYS.values())


def test_the_defaults(project: Path) -> None:
    resolved = load(environ={}, cwd=str(project))
    assert resolved.config == Config()
    assert {name: key.default for name, key in KEYS.items()} == {
        "mode": "record",
        "owners": None,
        "fail-on": "possible",
        "strict": False,
        "select": ("CTX",),
        "ignore": (),
        "include": (),
        "exclude": (),
        "factories": (),
        "adapters": (),
        "stack-depth": 20,
        "max-reports": 50,
        "deadlock-after": 1.0,
        "dump-signal": "",
        "data-dir": ".ctxcheck",
        "baseline": "",
        "output": (Output("text"),),
        "color": "auto",
        "allow": (),
        "order": (),
        "leaf": (),
        "blocking": ("sleep", "wait", "network", "process", "file", "database"),
        "not-blocking": (),
        "may-sleep": (),
        "atomic": (),
        "requires-lock": (),
    }
    assert set(resolved.sources.values()) == {"default"}
    assert (resolved.path, resolved.enabled, resolved.warnings) == (None, None, ())


def test_it_is_frozen_and_pickles() -> None:
    made = Config(allow=(Allow("CTX001", "why"),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.mode = "raise"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(made)) == made
    assert [str(output) for output in (Output("text"), Output("json", "a:b"))] == ["text", "json:a:b"]


# ---- where a value comes from


def test_a_file_with_every_key(project: Path) -> None:
    resolved = from_file(
        project,
        """
        mode = "raise"
        owners = "observed"
        fail-on = "certain"
        strict = true
        select = ["CTX0", "sleep-in-atomic", "ctx201"]
        ignore = ["CTX003"]
        include = ["app.*"]
        exclude = ["app.vendored.*"]
        factories = ["app.locks.make"]
        adapters = ["sqlite3"]
        stack-depth = 5
        max-reports = 7
        deadlock-after = 3
        dump-signal = "usr2"
        data-dir = "data"
        baseline = "known.json"
        output = ["text", "json:out/report.json", "concise:C:\\\\x", "none"]
        color = "never"
        leaf = ["Stats.lock"]
        blocking = ["sleep", "metadata"]
        not-blocking = ["time.sleep"]

        [[tool.ctxcheck.may-sleep]]
        target = "requests.sessions.Session.send"
        category = "network"

        [[tool.ctxcheck.atomic]]
        target = "pkg.mod.callback"
        label = "audio"

        [[tool.ctxcheck.requires-lock]]
        target = "pkg.mod.Class.method"
        lock = "self._lock"
        reason = "says its documentation"

        [[tool.ctxcheck.order]]
        locks = ["Ledger.lock", "app:AuditLog.lock"]
        leaf = ["Cache.lock"]
        reason = "the log is the inner one"

        [[tool.ctxcheck.allow]]
        rule = "CTX001"
        locks = ["Ledger.lock", "AuditLog.lock"]
        reason = "never at the same time"

        [[tool.ctxcheck.allow]]
        rule = "sleep-in-atomic"
        path = "tests/*"
        reason = "only in tests"
        """,
    )
    assert resolved.config == Config(
        mode="raise",
        owners="observed",
        fail_on="certain",
        strict=True,
        select=("CTX0", "CTX101", "CTX201"),
        ignore=("CTX003",),
        include=("app.*",),
        exclude=("app.vendored.*",),
        factories=("app.locks.make",),
        adapters=("sqlite3",),
        stack_depth=5,
        max_reports=7,
        deadlock_after=3.0,
        dump_signal="SIGUSR2",
        data_dir="data",
        baseline="known.json",
        output=(Output("text"), Output("json", "out/report.json"), Output("concise", "C:\\x"), Output("none")),
        color="never",
        allow=(
            Allow("CTX001", "never at the same time", ("Ledger.lock", "AuditLog.lock")),
            Allow("CTX101", "only in tests", (), "tests/*"),
        ),
        order=(Order(("Ledger.lock", "app:AuditLog.lock"), ("Cache.lock",), "the log is the inner one"),),
        leaf=("Stats.lock",),
        blocking=("sleep", "metadata"),
        not_blocking=("time.sleep",),
        may_sleep=(Target("may-sleep", "requests.sessions.Session.send", category="network"),),
        atomic=(Target("atomic", "pkg.mod.callback", label="audio"),),
        requires_lock=(
            Target("requires-lock", "pkg.mod.Class.method", lock="self._lock", reason="says its documentation"),
        ),
    )
    assert type(resolved.config.deadlock_after) is float
    assert set(resolved.sources.values()) == {"pyproject.toml"}
    assert resolved.path == str(project / "pyproject.toml")


def test_underscores_are_as_good_as_dashes(project: Path) -> None:
    write(project, "[tool.ctxcheck]\nstack_depth = 3\nfail_on = 'unlikely'")
    made = load({"max_reports": 4, "data-dir": "x"}, {}, str(project)).config
    assert (made.stack_depth, made.fail_on, made.max_reports, made.data_dir) == (3, "unlikely", 4, "x")


ENVIRONMENT = {
    "CTXCHECK_MODE": ("warn", "warn"),
    "CTXCHECK_OWNERS": ("assumed", "assumed"),
    "CTXCHECK_FAIL_ON": ("unlikely", "unlikely"),
    "CTXCHECK_STRICT": ("1", True),
    "CTXCHECK_SELECT": ("CTX1, lock-order-inversion,", ("CTX1", "CTX001")),
    "CTXCHECK_IGNORE": ("CTX303", ("CTX303",)),
    "CTXCHECK_INCLUDE": ("a.*,b", ("a.*", "b")),
    "CTXCHECK_EXCLUDE": ("c", ("c",)),
    "CTXCHECK_FACTORIES": ("a.b,c.d.e", ("a.b", "c.d.e")),
    "CTXCHECK_ADAPTERS": ("sqlite3, other", ("sqlite3", "other")),
    "CTXCHECK_STACK_DEPTH": ("9", 9),
    "CTXCHECK_MAX_REPORTS": ("1", 1),
    "CTXCHECK_DEADLOCK_AFTER": ("0.25", 0.25),
    "CTXCHECK_DUMP_SIGNAL": ("SIGUSR1", "SIGUSR1"),
    "CTXCHECK_DATA_DIR": ("some where", "some where"),
    "CTXCHECK_BASELINE": ("b.json", "b.json"),
    "CTXCHECK_OUTPUT": ("text,json:a.json", (Output("text"), Output("json", "a.json"))),
    "CTXCHECK_COLOR": ("always", "always"),
    "CTXCHECK_LEAF": ("a, b", ("a", "b")),
    "CTXCHECK_BLOCKING": ("sleep, metadata", ("sleep", "metadata")),
    "CTXCHECK_NOT_BLOCKING": ("time.sleep", ("time.sleep",)),
}


def test_every_scalar_and_list_has_a_variable() -> None:
    assert [key.variable for key in KEYS.values() if key.variable] == [*ENVIRONMENT]
    assert [key.name for key in KEYS.values() if not key.variable] == [
        "allow", "order", "may-sleep", "atomic", "requires-lock",
    ]  # fmt: skip


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_the_environment_goes_before_the_file(project: Path, variable: str) -> None:
    text, expected = ENVIRONMENT[variable]
    (key,) = (key for key in KEYS.values() if key.variable == variable)
    resolved = load(environ={variable: text}, cwd=str(project))
    assert getattr(resolved.config, key.attribute) == expected
    assert resolved.sources[key.name] == variable
    # An empty variable says nothing.
    assert load(environ={variable: ""}, cwd=str(project)).config == Config()


def test_each_place_goes_before_the_next(project: Path) -> None:
    write(project, "[tool.ctxcheck]\nmode = 'warn'\ncolor = 'never'\nignore = ['CTX1']\nstrict = true")
    resolved = load(
        {"mode": "record", "strict": None, "output": ["concise"]},
        {"CTXCHECK_MODE": "raise", "CTXCHECK_COLOR": "always"},
        str(project),
    )
    made, sources = resolved.config, resolved.sources
    assert (made.mode, sources["mode"]) == ("record", "--mode")
    assert (made.color, sources["color"]) == ("always", "CTXCHECK_COLOR")
    assert (made.ignore, sources["ignore"]) == (("CTX1",), "pyproject.toml")
    assert (made.strict, sources["strict"]) == (True, "pyproject.toml")
    assert (made.output, sources["output"]) == ((Output("concise"),), "--output")


def test_lists_on_the_command_line_may_be_one_text(project: Path) -> None:
    given = {"select": "CTX1,CTX2", "stack-depth": "3", "deadlock-after": "2.5", "fail-on": "certain"}
    made = load(given, {}, str(project)).config
    assert (made.select, made.stack_depth, made.deadlock_after) == (("CTX1", "CTX2"), 3, 2.5)


@pytest.mark.parametrize(("value", "enabled"), [("1", True), ("0", False), ("", None)])
def test_the_switch(project: Path, value: str, enabled: bool | None) -> None:
    assert load(environ={"CTXCHECK": value}, cwd=str(project)).enabled is enabled


def test_the_process_environment_and_directory_are_the_default(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project, "[tool.ctxcheck]\nstack-depth = 2")
    monkeypatch.chdir(project)
    monkeypatch.setenv("CTXCHECK_MODE", "warn")
    assert (load().config.mode, load().config.stack_depth) == ("warn", 2)


# ---- which file


def test_the_nearest_file_above_is_taken(project: Path) -> None:
    write(project.parent, "[tool.ctxcheck]\nstack-depth = 1")
    write(project, "[tool.ctxcheck]\nstack-depth = 2")
    resolved = load(environ={}, cwd=str(project / "src" / "deep"))
    assert resolved.config.stack_depth == 2
    assert resolved.sources["stack-depth"] == os.path.join("..", "..", "pyproject.toml")


def test_the_nearest_file_may_have_nothing_for_us(project: Path) -> None:
    write(project.parent, "[tool.ctxcheck]\nstack-depth = 1")
    write(project, "tool = 3\n[project]\nname = 'x'")
    resolved = load(environ={}, cwd=str(project))
    assert resolved.config == Config()
    assert resolved.path == str(project / "pyproject.toml")


def test_another_file_may_be_named(project: Path) -> None:
    write(project, "[tool.ctxcheck]\nstack-depth = 1")
    write(project, "stack-depth = 2\n[[allow]]\nrule = 'CTX001'\nreason = 'fine'", "ctxcheck.toml")
    write(project, "[tool.ctxcheck]\nstack-depth = 3", "other.toml")
    environ = {"CTXCHECK_CONFIG": "ctxcheck.toml"}
    resolved = load(environ=environ, cwd=str(project))
    assert (resolved.config.stack_depth, resolved.sources["stack-depth"]) == (2, "ctxcheck.toml")
    assert resolved.config.allow == (Allow("CTX001", "fine"),)
    assert load(None, environ, str(project), "other.toml").config.stack_depth == 3
    assert load(None, environ, "/", str(project / "other.toml")).config.stack_depth == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nonesuch.toml", None, "nonesuch.toml: can't read the configuration: No such file or directory"),
        ("src", None, "src: can't read the configuration: Is a directory"),
        ("pyproject.toml", "[project]", "pyproject.toml: has no table [tool.ctxcheck]"),
        ("pyproject.toml", "[tool]\nctxcheck = 3", "pyproject.toml: [tool.ctxcheck] is 3; it has to be a table"),
        ("pyproject.toml", "[[tool.ctxcheck]]", "pyproject.toml: [tool.ctxcheck] is [{}]; it has to be a table"),
        ("pyproject.toml", "mode =", "pyproject.toml: not valid TOML: Invalid value (at end of document)"),
        ("x.toml", "a = " + "[" * 100_000, "x.toml: not valid TOML: nested too deeply"),
        ("x.toml", "stack_dept = 3", "x.toml: unknown key 'stack_dept'; did you mean 'stack-depth'?"),
        ("x.toml", "[[allow]]\nrule = 'CTX001'", "x.toml: [[allow]] for CTX001 needs a 'reason': a text that says why"),
        ("x.toml", "[tools.ctxcheck]", "x.toml: unknown key 'tools'; allowed: mode, owners, fail-on"),
    ],
)
def test_a_file_that_is_no_good(project: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        write(project, text, name)
    with pytest.raises(ConfigError) as caught:
        load(environ={}, cwd=str(project), config_path=name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(project: Path) -> None:
    (project / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"^pyproject.toml: not valid TOML: .*utf-8"):
        load(environ={}, cwd=str(project))


# ---- bad keys and values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stack_dept = 3", "unknown key 'stack_dept'; did you mean 'stack-depth'?"),
        ("fail-om = 'certain'", "unknown key 'fail-om'; did you mean 'fail-on'?"),
        ("zzzzz = 1", "unknown key 'zzzzz'; allowed: " + ", ".join(KEYS)),
        ('"odd\\nname" = 1', "unknown key 'odd\\nname'; allowed: " + ", ".join(KEYS)),
        ("stack-depth = 1\nstack_depth = 2", "'stack_depth' is there twice, also as 'stack-depth'"),
        ("blocking = ['slep']", "blocking has an unknown category 'slep'; did you mean 'sleep'?"),
        ("not-blocking = ['tim.sleep']", "not-blocking has an unknown call 'tim.sleep'; did you mean 'time.sleep'?"),
        ("sites = 'every'", "'sites' is not supported by this version yet"),
        ("patch = ['threading']", "'patch' is not supported by this version yet"),
        ("mode = 'rais'", "mode is 'rais'; allowed: record, warn, raise; did you mean 'raise'?"),
        ("mode = 'Q'", "mode is 'Q'; allowed: record, warn, raise"),
        ("mode = true", "mode is true; allowed: record, warn, raise"),
        ("owners = 'all'", "owners is 'all'; allowed: assumed, observed"),
        ("fail-on = 'certian'", "fail-on is 'certian'; allowed: certain, possible, unlikely; did you mean 'certain'?"),
        ("strict = 1", "strict is 1; allowed: true, false"),
        ("strict = 'yes'", "strict is 'yes'; allowed: true, false"),
        ("stack-depth = 0", "stack-depth is 0; allowed: a whole number, at least 1"),
        ("stack-depth = true", "stack-depth is true; allowed: a whole number, at least 1"),
        ("stack-depth = 2.5", "stack-depth is 2.5; allowed: a whole number, at least 1"),
        ("max-reports = '3'", "max-reports is '3'; allowed: a whole number, at least 1"),
        ("deadlock-after = 0", "deadlock-after is 0; allowed: a number of seconds above 0"),
        (
            "dump-signal = 'SIGUSR3'",
            "dump-signal is 'SIGUSR3'; allowed: a name of a signal, such as SIGUSR2; did you mean 'SIGUSR2'?",
        ),
        ("dump-signal = 'when'", "dump-signal is 'when'; allowed: a name of a signal, such as SIGUSR2"),
        ("dump-signal = 12", "dump-signal is 12; allowed: a name of a signal, such as SIGUSR2"),
        ("deadlock-after = nan", "deadlock-after is nan; allowed: a number of seconds above 0"),
        ("deadlock-after = inf", "deadlock-after is inf; allowed: a number of seconds above 0"),
        ("deadlock-after = true", "deadlock-after is true; allowed: a number of seconds above 0"),
        ("deadlock-after = '1'", "deadlock-after is '1'; allowed: a number of seconds above 0"),
        ("deadlock-after = 1" + "0" * 400, f"deadlock-after is 1{'0' * 56}...; allowed: a number of seconds above 0"),
        ("data-dir = ' '", "data-dir is ' '; allowed: a text that is not empty"),
        ("data-dir = 3", "data-dir is 3; allowed: a text that is not empty"),
        ("include = 'app.*'", "include is 'app.*'; allowed: a list of module names, with * and ?"),
        ("exclude = ['']", "exclude has the item ''; allowed: module names, with * and ?"),
        ("exclude = [3]", "exclude has the item 3; allowed: module names, with * and ?"),
        ("factories = ['lock']", "factories has the item 'lock'; allowed: dotted names of functions, as"),
        ("factories = ['a.b()']", "factories has the item 'a.b()'; allowed: dotted names of functions, as"),
        ("select = 'CTX'", "select is 'CTX'; allowed: a list of codes, prefixes of codes, or slugs"),
        ("select = ['CTX7']", "select has an unknown rule 'CTX7'; did you mean 'CTX"),
        (
            "select = ['sleep-in-atomik']",
            "select has an unknown rule 'sleep-in-atomik'; did you mean 'sleep-in-atomic'?",
        ),
        ("ignore = ['E501']", "ignore has an unknown rule 'E501'; allowed: a code, a prefix of codes, or a slug"),
        ("ignore = ['']", "ignore has the item ''; allowed: codes, prefixes of codes, or slugs"),
        ("output = ['xml']", f"output has an unknown type 'xml'; allowed: {FORMATS}"),
        (
            "output = ['jsn:x']",
            f"output has an unknown type 'jsn'; allowed: {FORMATS}; did you mean 'json'?",
        ),
        ("output = ['json:']", "output has the item 'json:'; allowed: TYPE or TYPE:PATH (no PATH for none)"),
        ("output = ['none:x']", "output has the item 'none:x'; allowed: TYPE or TYPE:PATH (no PATH for none)"),
        ("color = 'sometimes'", "color is 'sometimes'; allowed: auto, always, never"),
        ("allow = 3", "allow is 3; allowed: a list of tables with rule, reason, and locks or path"),
        ("allow = ['CTX001']", "[[allow]] has the item 'CTX001'; allowed: tables with rule, reason, and locks or path"),
        (f"mode = '{'x' * 100}'", f"mode is '{'x' * 56}...; allowed: record, warn, raise"),
        ('mode = "a\\nb"', "mode is 'a\\nb'; allowed: record, warn, raise"),
    ],
)
def test_a_bad_key_or_value_is_named(project: Path, text: str, message: str) -> None:
    table = "[tool.ctxcheck] "
    if message.startswith("[[allow]] "):
        table, message = "[[tool.ctxcheck.allow]] ", message.removeprefix("[[allow]] ")
    said = refusal(project, text)
    assert said.startswith(f"pyproject.toml: {table}{message}")
    if not message.endswith(("as", "'CTX")):
        assert said == f"pyproject.toml: {table}{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = 'CTX001'", "for CTX001 needs a 'reason': a text that says why this is fine"),
        ("rule = 'CTX001'\nreason = ' '", "for CTX001 needs a 'reason': a text that says why this is fine, not ' '"),
        ("rule = 'CTX001'\nreason = 3", "for CTX001 needs a 'reason': a text that says why this is fine, not 3"),
        ("reason = 'x'", "needs a 'rule': a code or a slug"),
        ("rule = 'CTX0'\nreason = 'x'", "unknown rule 'CTX0'; did you mean 'CTX001'?"),
        ("rule = 'lock-order'\nreason = 'x'", "unknown rule 'lock-order'; did you mean 'lock-order-inversion'?"),
        ("rule = 1\nreason = 'x'", "unknown rule 1; allowed: a code or a slug"),
        ("rule = 'CTX001'\nreason = 'x'\nlock = 'A'", "unknown key 'lock'; did you mean 'locks'?"),
        ("rule = 'CTX001'\nreason = 'x'\nqqq = 'A'", "unknown key 'qqq'; allowed: rule, reason, locks, path"),
        ("rule = 'CTX001'\nreason = 'x'\nlocks = 'A'", "locks is 'A'; allowed: a list of names of lock classes"),
        ("rule = 'CTX001'\nreason = 'x'\nlocks = [3]", "locks is [3]; allowed: a list of names of lock classes"),
        ("rule = 'CTX001'\nreason = 'x'\nlocks = ['']", "locks is ['']; allowed: a list of names of lock classes"),
        ("rule = 'CTX001'\nreason = 'x'\npath = 3", "path is 3; allowed: a text that is not empty"),
    ],
)
def test_a_bad_allow_is_named(project: Path, text: str, message: str) -> None:
    said = refusal(project, f"[[tool.ctxcheck.allow]]\n{text}")
    assert said.startswith(f"pyproject.toml: [[tool.ctxcheck.allow]] {message}")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("CTXCHECK", "yes", "environment: CTXCHECK is 'yes'; allowed: 1 (on), 0 (off)"),
        (
            "CTXCHECK_MODE",
            "Raise",
            "environment: CTXCHECK_MODE is 'Raise'; allowed: record, warn, raise; did you mean 'raise'?",
        ),
        ("CTXCHECK_STRICT", "true", "environment: CTXCHECK_STRICT is 'true'; allowed: 1, 0"),
        (
            "CTXCHECK_STACK_DEPTH",
            "many",
            "environment: CTXCHECK_STACK_DEPTH is 'many'; allowed: a whole number, at least 1",
        ),
        (
            "CTXCHECK_DEADLOCK_AFTER",
            "-1",
            "environment: CTXCHECK_DEADLOCK_AFTER is -1.0; allowed: a number of seconds above 0",
        ),
        (
            "CTXCHECK_DEADLOCK_AFTER",
            "x",
            "environment: CTXCHECK_DEADLOCK_AFTER is 'x'; allowed: a number of seconds above 0",
        ),
        (
            "CTXCHECK_SELECT",
            "CTX1,XYZ",
            "environment: CTXCHECK_SELECT has an unknown rule 'XYZ'; allowed: a code, a prefix of codes, or a slug",
        ),
        ("CTXCHECK_CONFIG", "no.toml", "no.toml: can't read the configuration: No such file or directory"),
    ],
)
def test_a_bad_variable_is_named(project: Path, variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={variable: value}, cwd=str(project))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "wran"}, "command line: --mode is 'wran'; allowed: record, warn, raise; did you mean 'warn'?"),
        ({"stack_depth": 0}, "command line: --stack-depth is 0; allowed: a whole number, at least 1"),
        ({"stack-depth": "x"}, "command line: --stack-depth is 'x'; allowed: a whole number, at least 1"),
        (
            {"output": ["js"]},
            f"command line: --output has an unknown type 'js'; allowed: {FORMATS}; did you mean 'json'?",
        ),
        ({"colour": "never"}, "command line: unknown key 'colour'; did you mean 'color'?"),
    ],
)
def test_a_bad_option_is_named(project: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(given, {}, str(project))
    assert str(caught.value) == message


def test_a_variable_that_is_nearly_ours_is_mentioned(project: Path) -> None:
    environ = {"CTXCHECK_MODEE": "raise", "CTXCHECK_DEBUG": "1", "CTXCHECK_PROCESS_START": "x", "CTXCHECKER_HOME": "x"}
    resolved = load(environ=environ, cwd=str(project))
    assert resolved.warnings == (
        "environment: CTXCHECK_MODEE is not a variable of ctxcheck; did you mean 'CTXCHECK_MODE'?",
    )


# ---- select and ignore


@pytest.mark.parametrize(
    ("select", "ignore", "selected"),
    [
        (("CTX",), (), {"CTX001", "CTX101", "CTX102", "CTX201"}),
        (("CTX1",), (), {"CTX101", "CTX102"}),
        ((), (), set[str]()),
        (("CTX",), ("CTX1",), {"CTX001", "CTX201"}),
        (("CTX", "CTX101"), ("CTX1",), {"CTX001", "CTX101", "CTX201"}),
        (("CTX101",), ("CTX101",), set[str]()),
        (("CTX",), ("CTX",), set[str]()),
    ],
)
def test_the_longest_prefix_decides(select: tuple[str, ...], ignore: tuple[str, ...], selected: set[str]) -> None:
    made = Config(select=select, ignore=ignore)
    assert {code for code in ("CTX001", "CTX101", "CTX102", "CTX201") if made.selects(code)} == selected
    assert made.selects("CTX901")


# ---- the rest


def test_loading_defaults_loads_no_parser() -> None:
    code = "import sys; from ctxcheck.config import load; load(environ={}, cwd='/'); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SRC}, capture_output=True, text=True, check=True
    )
    assert {"tomllib", "difflib", "logging", "asyncio", "structlog", "wrapt"}.isdisjoint(done.stdout.split())


TOML = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rule", "reason", "locks", "path", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, "atomic", "x y"]), TOML, max_size=2))
def test_any_value_is_taken_or_refused_in_one_line(values: dict[str, Any]) -> None:
    try:
        resolved = load(values, {}, "/")
    except ConfigError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    else:
        hash(resolved.config)
        for code in ("CTX001", "CTX901"):
            assert isinstance(resolved.config.selects(code), bool)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("may-sleep = ['a.b']", "[[tool.ctxcheck.may-sleep]] has the item 'a.b'; allowed: tables with target"),
        ("[[tool.ctxcheck.may-sleep]]\ntarget = 'a'", "[[tool.ctxcheck.may-sleep]] needs a 'target'"),
        ("[[tool.ctxcheck.may-sleep]]\ntarget = 'a.b'\ncategory = 'netwrk'", "did you mean 'network'?"),
        ("[[tool.ctxcheck.atomic]]\ntarget = 'a.b'\nlabl = 'x'", "unknown key 'labl'; did you mean 'label'?"),
        ("[[tool.ctxcheck.requires-lock]]\ntarget = 'a.b'", "for a.b needs a 'lock'"),
    ],
)
def test_a_bad_target_is_named(project: Path, text: str, message: str) -> None:
    write(project, text if text.startswith("[[") else f"[tool.ctxcheck]\n{text}")
    with pytest.raises(ConfigError) as caught:
        load(environ={}, cwd=str(project))
    assert str(caught.value).startswith("pyproject.toml: [[tool.ctxcheck.")
    assert message in str(caught.value)
