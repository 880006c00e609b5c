"""Markers, the fixture, modes, and mistakes in any of them."""

from __future__ import annotations

import json
import os

import pytest

from tests.pytest_plugin.conftest import APART, BOTH, Suite

MARKED = """
import bank, pytest

def both():
    a, b = bank.Ledger(), bank.Audit()
    bank.first(a, b)
    bank.second(b, a)

@pytest.mark.ctxcheck(allow=["lock-order-inversion"], reason="they never meet")
def test_allowed():
    both()

@pytest.mark.ctxcheck(allow=["CTX303"], reason="another one")
@pytest.mark.ctxcheck(allow=["CTX001"], reason="they never meet")
def test_lists_add_up():
    both()
    bank.Cache().lock.acquire

@pytest.mark.no_ctxcheck(reason="too slow")
def test_off():
    both()

@pytest.mark.ctxcheck(mode="warn")
def test_warns():
    both()

@pytest.mark.ctxcheck(mode="raise")
def test_raises():
    with pytest.raises(Exception, match="CTX001"):
        both()

def test_fails():
    both()
"""


def test_markers(suite: Suite) -> None:
    suite.write(test_it=MARKED)
    done = suite.run()
    assert {n.partition("::")[2]: o for n, o in done.tests.items()} == {
        "test_allowed": "PASSED",
        "test_lists_add_up": "PASSED",
        "test_off": "PASSED",
        "test_warns": "PASSED",
        "test_raises": "FAILED",  # what was caught was found all the same
        "test_fails": "FAILED",
    }
    assert "ViolationWarning" in done.text
    assert "cross-test" not in done.text
    alone = suite.run("-k", "allowed or off or lists")
    assert alone.status == 0
    assert "1 allowed" in alone.text
    assert "1 unused allow" in alone.text
    assert "test_lists_add_up: an allow of CTX303 accepted nothing" in alone.text
    assert suite.run("-k", "lists", "--ctxcheck-strict").status == 1


def test_isolated_tests_count_for_themselves(suite: Suite) -> None:
    suite.write(test_it=APART.replace("def test_there", "@pytest.mark.ctxcheck(isolated=True)\ndef test_there").replace(
        "import bank", "import bank, pytest"))  # fmt: skip
    assert suite.run().status == 0
    suite.write(test_it=BOTH.replace("def test_both", "@pytest.mark.ctxcheck(isolated=True)\ndef test_both").replace(
        "import bank", "import bank, pytest"))  # fmt: skip
    assert suite.run().tests["test_it.py::test_both"] == "FAILED"


def test_the_fixture(suite: Suite) -> None:
    suite.write(
        test_it="""
        import bank, pytest

        def both():
            a, b = bank.Ledger(), bank.Audit()
            bank.first(a, b)
            bank.second(b, a)

        def test_expects(ctxcheck):
            with ctxcheck.expect("CTX001") as seen:
                both()
            assert [v.slug for v in seen] == ["lock-order-inversion"]
            assert ctxcheck.violations == []

        def test_expects_too_much(ctxcheck):
            with ctxcheck.expect("CTX001"):
                pass

        def test_expects_another(ctxcheck):
            with ctxcheck.expect("self-deadlock"):
                both()

        def test_allows(ctxcheck):
            ctxcheck.allow("CTX001", reason="they never meet")
            both()
            assert [v.allowed_by for v in ctxcheck.violations] == ["they never meet"]

        def test_held(ctxcheck):
            with bank.Ledger().lock:
                assert ctxcheck.held_locks() == ["Ledger.lock"]

        def test_forgets_with(ctxcheck):
            ctxcheck.expect("CTX001")

        def test_unknown(ctxcheck):
            with pytest.raises(ValueError, match="unknown rule 'self-deadlok'; did you mean 'self-deadlock'"):
                ctxcheck.expect("self-deadlok")
            with pytest.raises(ValueError, match="needs a reason"):
                ctxcheck.allow("CTX001", reason="")
        """
    )
    done = suite.run()
    assert {n.partition("::")[2]: o for n, o in done.tests.items()} == {
        "test_allows": "PASSED",
        "test_expects": "PASSED",
        "test_expects_another": "FAILED",
        "test_expects_too_much": "FAILED",
        "test_forgets_with": "ERROR",
        "test_held": "PASSED",
        "test_unknown": "PASSED",
    }
    assert "expected CTX001, but nothing broke it" in done.text
    assert "ctxcheck.expect('CTX001') does nothing by itself: with ctxcheck.expect('CTX001'): ..." in done.text
    assert "expected CTX002, but nothing broke it (found: CTX001)" in done.text
    assert "cross-test" not in suite.run("-k", "test_expects and not another and not much").text


def test_fail_on_and_owners(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    assert suite.run("--ctxcheck-owners=observed").status == 0
    assert suite.run("--ctxcheck-owners=observed", "--ctxcheck-fail-on=unlikely").status == 1
    assert suite.run("--ctxcheck-fail-on=certain").status == 0
    assert suite.run("--ctxcheck-mode=warn").status == 0


def test_allows_of_the_configuration_and_of_lines(suite: Suite) -> None:
    suite.write(test_it=BOTH, test_apart=APART)
    (suite.path / "pyproject.toml").write_text(
        '[[tool.ctxcheck.allow]]\nrule = "CTX001"\nlocks = ["Ledger.lock", "Audit.lock"]\nreason = "they never meet"\n'
    )
    done = suite.run()
    assert done.status == 0
    assert "config=pyproject.toml" in done.text
    assert "1 allowed" in done.text
    assert "accepted nothing" not in done.text
    (suite.path / "bank.py").write_text((suite.path / "bank.py").read_text().replace(
        "        with b.lock:\n            pass\n\ndef second",
        "        with b.lock:  # ctxcheck: allow[CTX303] no reason\n            pass\n\ndef second",
    ))  # fmt: skip
    part = suite.run("-k", "one or elsewhere", "--ctxcheck-strict")
    assert part.status == 0
    assert "accepted nothing" not in part.text, "a part of the suite says nothing of the rest"
    with (suite.path / "pyproject.toml").open("a") as file:
        file.write("[tool.pytest.ini_options]\naddopts = \"-k 'one or elsewhere'\"\n")
    for args in ((), ("-n2",)):
        done = suite.run(*args, plugins=("xdist",) if args else ())
        assert done.status == 0
        assert "pyproject.toml: an allow of CTX001 accepted nothing: 'they never meet'" in done.text
        assert "bank.py:17: an allow of CTX303 accepted nothing: 'no reason'" in done.text
    assert suite.run("--ctxcheck-strict").status == 1


def test_on_github_lines_are_annotated(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    (suite.path / "summary.md").touch()
    done = suite.run("--ctxcheck-output=github", GITHUB_STEP_SUMMARY=str(suite.path / "summary.md"))
    assert "::error file=bank.py,line=17," in done.text
    assert "CTX001" in (suite.path / "summary.md").read_text()
    done = suite.run(f"--ctxcheck-output=sarif:{suite.path / 'x' / 'found.sarif'}")
    assert json.loads((suite.path / "x" / "found.sarif").read_text())["version"] == "2.1.0"


def test_outputs(suite: Suite) -> None:
    suite.write(test_it=BOTH, test_apart=APART)
    done = suite.run("--ctxcheck-output=concise", f"--ctxcheck-output=json:{suite.path / 'x.json'}")
    assert "bank.py:17: CTX001 possible deadlock" in done.text
    document = json.loads((suite.path / "x.json").read_text())
    assert [v["rule"] for v in document["violations"]] == ["CTX001"]
    assert document["run"]["counts"]["lock_classes"] == 3
    assert {(e["from"], e["to"]) for e in document["graph"]["edges"]} >= {
        ("bank:Ledger.__init__.lock", "bank:Audit.__init__.lock")
    } or len(document["graph"]["edges"]) == 3


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        (["--ctxcheck-mode=recrod"], {}, "--ctxcheck-mode is 'recrod'; allowed: record, warn, raise; did you mean"),
        (["--ctxcheck-owners=seen"], {}, "--ctxcheck-owners is 'seen'; allowed: assumed, observed"),
        (["--ctxcheck-fail-on=sure"], {}, "--ctxcheck-fail-on is 'sure'; allowed: certain, possible, unlikely"),
        (["--ctxcheck-output=jsn"], {}, "did you mean 'json'?"),
        (["--ctxcheck-output=json:bank.py/x.json"], {}, "--ctxcheck-output json:bank.py/x.json: bank.py is no folder"),
        (["--ctxcheck-output=json:."], {}, "can't write --ctxcheck-output json:.: that is a folder"),
        (["--ctxcheck-config=none.toml"], {}, "none.toml: can't read the configuration"),
        ([], {"CTXCHECK": "yes"}, "environment: CTXCHECK is 'yes'; allowed: 1 (on), 0 (off)"),
        ([], {"CTXCHECK_MODE": "warm"}, "environment: CTXCHECK_MODE is 'warm'"),
        (["-o", "ctxcheck_mode=warm"], {}, "ctxcheck_mode='warm' is not one of record, warn, raise; did you mean"),
    ],
)
def test_mistakes_are_told_in_one_line(suite: Suite, args: list[str], env: dict[str, str], said: str) -> None:
    suite.write(test_it=BOTH)
    done = suite.run(*args, **env)
    assert done.status == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in done.text.splitlines() if line.startswith("ERROR: ")]
    assert said in line


def test_an_unknown_key_in_the_configuration(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    (suite.path / "pyproject.toml").write_text("[tool.ctxcheck]\nstack_dept = 3\n")
    done = suite.run()
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert "pyproject.toml: [tool.ctxcheck] unknown key 'stack_dept'; did you mean 'stack-depth'?" in done.text


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("ctxcheck(mood='warn')", "unknown argument 'mood'; did you mean 'mode'?"),
        ("ctxcheck('warn')", "takes keywords only"),
        ("ctxcheck(mode='warm')", "mode='warm' is not one of record, warn, raise"),
        ("ctxcheck(allow=['self-deadlok'], reason='x')", "unknown rule 'self-deadlok'; did you mean 'self-deadlock'?"),
        ("ctxcheck(allow='CTX001', reason='x')", "is no list of rules"),
        ("ctxcheck(allow=['CTX001'])", "needs a reason"),
        ("no_ctxcheck(why='x')", "unknown argument 'why'"),
    ],
)
@pytest.mark.parametrize("split", [[], ["-n1"]])
def test_mistakes_in_markers(suite: Suite, marker: str, said: str, split: list[str]) -> None:
    if split and "mood" not in marker:
        pytest.skip("one is enough")
    suite.write(test_it=f"import pytest\n@pytest.mark.{marker}\ndef test_it(): pass\n")
    done = suite.run(*split, plugins=("xdist",) if split else ())
    assert said in done.text
    assert "test_it.py::test_it: @pytest.mark." in done.text
    assert done.status != 0
    assert split or done.status == pytest.ExitCode.USAGE_ERROR


def test_a_run_that_checked_nothing_says_so(suite: Suite) -> None:
    suite.write(test_it="def test_it(): pass\n")
    done = suite.run()
    assert done.status == 0
    assert "nothing was checked" in done.text
    assert suite.run("--ctxcheck-strict").status == 1


def test_a_key_of_pytests_that_is_neither_true_nor_false_is_named(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    for name, on in (("ctxcheck", False), ("ctxcheck_strict", True)):
        done = suite.run("-o", f"{name}=maybe", on=on)
        assert done.status == 4
        assert f"ERROR: pytest's configuration: {name}: invalid truth value 'maybe'; allowed: true, false" in done.text


def test_isolated_is_true_or_false(suite: Suite) -> None:
    suite.write(test_it="import pytest\n@pytest.mark.ctxcheck(isolated='no')\ndef test_it(): pass\n")
    done = suite.run()
    assert done.status == 4
    assert "ERROR: test_it.py::test_it: @pytest.mark.ctxcheck: isolated='no' is neither True nor False" in done.text


def test_options_in_vain_are_said_to_be(suite: Suite) -> None:
    suite.write(test_it=BOTH)
    done = suite.run("--ctxcheck-mode=raise", "--ctxcheck-strict", on=False)
    assert done.status == 0
    assert "ctxcheck: off (there is no --ctxcheck); --ctxcheck-mode, --ctxcheck-strict do nothing\n" in done.text
    done = suite.run(CTXCHECK="0")
    assert "ctxcheck: off (CTXCHECK=0 in the environment); --ctxcheck, --ctxcheck-output do nothing\n" in done.text
    assert "ctxcheck: " not in suite.run("--no-ctxcheck", "--ctxcheck-mode=raise", on=False).text


@pytest.mark.parametrize(
    ("args", "env", "line"),
    [
        ([], {"CTXCHECK_MOED": "x"}, "environment: CTXCHECK_MOED is not a variable of ctxcheck"),
        ([], {"CTXCHECK_DATA_DIR": "test_it.py"}, "can't write data file"),
        ([], {"CTXCHECK_INCLUDE": "bnak"}, "no lock was made in a module that include names ('bnak'); did you"),
        ([], {"CTXCHECK_IGNORE": "CTX"}, "no rule is left by select = ['CTX'] and ignore = ['CTX']"),
    ],
)
def test_a_warning_fails_a_strict_session(suite: Suite, args: list[str], env: dict[str, str], line: str) -> None:
    suite.write(test_it="import bank\ndef test_it(): bank.first(bank.Ledger(), bank.Audit())\n")
    lax = suite.run(*args, **env)
    assert (lax.status, lax.text.count(f"ctxcheck: warning: {line}")) == (0, 1)
    strict = suite.run("--ctxcheck-strict", *args, **env)
    assert (strict.status, strict.text.count(f"ctxcheck: strict: {line}")) == (1, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_report_that_is_lost_fails_the_session(suite: Suite) -> None:
    suite.write(test_it="import bank\ndef test_it(): bank.first(bank.Ledger(), bank.Audit())\n")
    done = suite.run("--ctxcheck-output=sarif:/dev/full")
    assert done.status == 1
    assert done.text.count("ctxcheck: can't write --ctxcheck-output sarif:/dev/full: No space left on device\n") == 1


@pytest.mark.parametrize("split", ["", "-n2"])
def test_a_lock_that_the_configuration_nearly_names_is_told(suite: Suite, split: str) -> None:
    suite.write(test_it=APART)
    (suite.path / "pyproject.toml").write_text(
        '[[tool.ctxcheck.allow]]\nrule = "CTX001"\nlocks = ["Ledgr.lock", "Audit.lock"]\nreason = "x"\n'
    )
    done = suite.run(*split.split(), plugins=("xdist",) if split else ())
    line = "an allow of CTX001 names 'Ledgr.lock', and no lock of that name was made; did you mean 'Ledger.lock'?"
    assert done.text.count(f"ctxcheck: warning: pyproject.toml: {line}\n") == 1
