# SPDX-License-Identifier: Apache-2.0
"""The catalogue: its form, its page, and that every check in it is tripped by a test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.preflight import every_check, page
from recipe.preflight.catalogue import CannotTell, Catalogue, NoMatter, bad, doubtful
from recipe.preflight.report import examine

HERE = Path(__file__).parent
REPO = HERE.parents[2]


def test_there_are_checks_of_every_subject_and_each_says_why_and_what_to_do() -> None:
    checks = every_check()
    assert len(checks) >= 100
    assert {one.id[0] for one in checks} == set(page.SUBJECTS)
    for one in checks:
        assert one.title and len(one.why) > 20 and len(one.fix) > 10, one.id


def test_every_check_is_tripped_by_a_test() -> None:
    """Tables have a line `"L001": (`, and tests of single checks have the id in their names."""
    text = "".join(file.read_text(encoding="utf-8") for file in HERE.glob("test_*_checks.py"))
    tripped = set(re.findall(r'^    "([A-Z]\d{3})": \(', text, re.MULTILINE))
    tripped |= {id.upper() for id in re.findall(r"^def test_([a-z]\d{3})_", text, re.MULTILINE)}
    assert {one.id for one in every_check()} == tripped


def test_the_page_is_current() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(), "run: python -m recipe.preflight.page"


def test_the_static_part_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from recipe.__main__ import main\n"
        "code = main(['preflight', 'configs/a3_256die.toml', '--no-cluster', '--json'])\n"
        "heavy = sorted({'torch', 'transformers', 'ray', 'torch_npu', 'vllm'} & set(sys.modules))\n"
        "print(heavy, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 2)
    assert len(report["passed"]) > 40


def test_the_command_lists_and_refuses(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "recipe", "preflight", *arguments], cwd=REPO, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    listed = command("--list")
    assert listed.returncode == 0 and "L001  static" in listed.stdout
    assert len(json.loads(command("--list", "--json").stdout)) == len(every_check())
    assert command().returncode == 2
    broken = tmp_path / "run.toml"
    broken.write_text("[run\n")
    refused = command(str(broken))
    assert refused.returncode == 2 and "C001 error" in refused.stdout


def _catalogue() -> Catalogue:
    catalogue = Catalogue()

    def declare(id: str, function: object) -> None:
        catalogue.check(id, f"title of {id}", needs="static", why="because", fix="type this")(function)  # type: ignore[arg-type]

    def absent(facts: object) -> None:
        raise CannotTell("no file")

    def no_matter(facts: object) -> None:
        raise NoMatter

    declare("A001", lambda facts: iter([bad("two\nlines", "one")]))
    declare("A002", lambda facts: iter([doubtful("x", "y", "type that")]))
    declare("A003", absent)
    declare("A004", no_matter)
    declare("A005", lambda facts: None)
    return catalogue


def test_what_a_report_says_of_every_outcome() -> None:
    report = examine(_catalogue(), None)
    assert report.lines() == [
        "A001 error: two lines; expected one; type this",
        "A002 warning: x; expected y; type that",
        "not run (A003): no file",
        "1 checks passed, 1 failed, 1 warn, 1 could not be run here, 1 do not matter to this run",
    ]
    assert (report.exit_code, report.passed, report.without_matter) == (2, ("A005",), ("A004",))
    assert [one["level"] for one in report.as_json()["findings"]] == ["error", "warning", "not run"]


def test_warnings_alone_do_not_stop_a_run() -> None:
    report = examine([one for one in _catalogue() if one.id != "A001"], None)
    assert report.ok and report.exit_code == 0


@pytest.mark.parametrize(("id", "needs"), [("A001", "static"), ("A1", "static"), ("B001", "luck")])
def test_an_id_given_twice_or_badly_formed_is_refused(id: str, needs: str) -> None:
    with pytest.raises(ValueError, match="expected a new id"):
        _catalogue().check(id, "t", needs=needs, why="w", fix="f")
