# SPDX-License-Identifier: Apache-2.0
"""Preflight survives its own faults: what one check raises is that check's finding, and no other's."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from recipe import doctor, preflight
from recipe.checks.catalogue import every_check
from recipe.checks.crash import REQUEST, account
from recipe.checks.declaration import CATALOGUE, CLUSTER, NODE, Check
from recipe.checks.facts import cluster as cluster_facts
from recipe.checks.facts import machine
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CheckFinding
from recipe.checks.report import Report, examine
from recipe.doctor import inventory
from recipe.launch.cluster import require_ready
from recipe.runfile.config import load
from recipe.runfile.errors import Interrupted

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
# Those that look at hundreds of files, or start a process: once is enough for them.
SLOW = {"P004", "P006", "D008", "D009", "C002"}


class Panic(BaseException):
    """As the extensions written in Rust raise it: no Exception."""


class Unspeakable(Exception):
    """Its own message cannot be made."""

    def __str__(self) -> str:
        raise ValueError("no words")


def too_deep() -> None:
    too_deep()


def raised(error: BaseException | type[BaseException]) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Iterator[Any]:
        raise error

    return function


ERRORS = [
    ValueError("one\nof two lines"), KeyError("ground_truth"), AttributeError("get"),
    TypeError(), ZeroDivisionError("division by zero"), RecursionError("maximum recursion depth"), MemoryError(),
    AssertionError(), StopIteration(), SystemExit(3), GeneratorExit(), Panic("a panic"), Unspeakable(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), NotImplementedError(),
    BufferError("\x1b[2J\u202e"),
]  # fmt: skip


def quick() -> list[Check]:
    return [check for check in every_check() if check.needs != CLUSTER and check.id not in SLOW]


def told(report: Report) -> dict[str, list[CheckFinding]]:
    by_id: dict[str, list[CheckFinding]] = {id: [] for id in (*report.passed, *report.without_matter)}
    for finding in report.findings:
        by_id.setdefault(finding.id, []).append(finding)
    return by_id


@pytest.fixture
def facts(cluster: Any) -> Facts:
    return cluster.facts  # type: ignore[no-any-return]


def test_an_exception_in_any_one_check_is_its_finding_and_all_others_say_what_they_said(facts: Facts) -> None:
    usual = told(examine(quick(), facts))
    for place, spoilt in enumerate(every_check()):
        error = ERRORS[place % len(ERRORS)]
        broken = dataclasses.replace(spoilt, function=raised(error))
        found = told(examine([broken, *(check for check in quick() if check is not spoilt)], facts))
        (finding,) = found.pop(spoilt.id)
        assert finding.level == "not run" and type(error).__name__ in finding.found and REQUEST in finding.found
        assert found == {id: findings for id, findings in usual.items() if id != spoilt.id}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_is_raised_becomes_one_line_that_can_be_reported(error: BaseException) -> None:
    report = examine([dataclasses.replace(every_check()[0], function=raised(error))], None)
    assert report.ok and report.exit_code == 0
    line, summary = report.lines()
    assert line.startswith(f"not run (C001): could not look: {type(error).__name__}") and line.endswith(f"; {REQUEST}")
    assert "(at recipe/checks/declaration.py:" in line and line.isprintable()
    assert "1 could not be run here" in summary
    require_ready(report)


def test_endless_recursion_is_told() -> None:
    broken = dataclasses.replace(every_check()[0], function=lambda _: too_deep())
    (finding,) = examine([broken], None).findings
    assert "could not look: RecursionError" in finding.found


def test_what_a_check_found_before_it_broke_stays_found() -> None:
    from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad

    def check(error: Exception) -> Callable[[Any], Iterator[Complaint]]:
        def function(_: Any) -> Iterator[Complaint]:
            yield bad("a mistake", "none")
            raise error

        return function

    for error, levels in (
        (ValueError("x"), ["error", "not run"]),
        (CannotTell("no file"), ["error", "not run"]),
        (OSError(5, "Input/output error", "/x"), ["error", "not run"]),
        (NoMatter(), ["error"]),
    ):
        report = examine([dataclasses.replace(every_check()[0], function=check(error))], None)
        assert [finding.level for finding in report.findings] == levels and not report.ok


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(15)])
def test_who_stops_the_command_stops_it(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(error)):
        examine([dataclasses.replace(every_check()[0], function=raised(error))], None)
    monkeypatch.setattr(machine, "installed", raised(error))
    with pytest.raises(type(error)):
        machine.this_machine()


PROPERTIES = [name for name, value in vars(Facts).items() if isinstance(value, property | cached_property)]


@pytest.mark.parametrize("name", [*PROPERTIES, "here"])
def test_a_fact_that_cannot_be_made_is_told_by_those_that_look_at_it(
    name: str, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = quick()
    usual = told(examine(checks, facts))
    broken = raised(ValueError("spoilt")) if name == "here" else property(raised(ValueError("spoilt")))
    monkeypatch.setattr(Facts, name, broken)
    found = told(examine(checks, dataclasses.replace(facts)))
    for id, findings in found.items():
        crashed = [finding for finding in findings if "ValueError: spoilt" in finding.found]
        assert crashed or findings == usual[id], (id, findings)
        assert {finding.level for finding in crashed} <= {"not run"}


READINGS = sorted(machine._readings())


@pytest.mark.parametrize("name", READINGS)
def test_a_value_of_the_machine_that_cannot_be_read_costs_only_those_that_look_at_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = machine._readings() | {name: raised(ValueError("no such thing in /proc"))}
    monkeypatch.setattr(machine, "_readings", lambda: readings)
    here = machine.this_machine()
    assert list(here.failed) == [name] and "no such thing" in here.failed[name]
    config = load(CONFIGS / "a3_256die.toml")
    checks = [check for check in quick() if check.needs == NODE]
    report = examine(checks, Facts(config, here, True, Path("/none")))
    crashed = {finding.id for finding in report.findings if "no such thing" in finding.found}
    assert all(finding.level == "not run" for finding in report.findings if finding.id in crashed)
    assert len(checks) - len(crashed) >= len(checks) // 2
    if name not in ("now", "gpus", "path", "host"):  # this run has no check that asks for these
        assert crashed


def test_a_question_to_ray_that_fails_with_us_is_no_error_of_rays(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_facts, "ask", raised(KeyError("nodes")))
    report = preflight.run(cluster.config, node=False, cluster=True, machine=cluster.machine)
    of_ray = [finding for finding in report.findings if finding.id[0] == "R"]
    assert len(of_ray) >= 8 and {finding.level for finding in of_ray} == {"not run"}
    assert all("KeyError: 'nodes'" in finding.found for finding in of_ray)


def test_a_head_whose_name_no_network_can_have_is_an_answer() -> None:
    facts = cluster_facts.ask("a..b:6379", [], [], Path("/none"))
    assert "'a..b' is no name" in facts.problem or "nothing answers" in facts.problem


def test_a_run_file_that_breaks_the_reader_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.checks.facts.run_file.load", raised(IndexError("list index out of range")))
    (line, _) = preflight.run_file(tmp_path / "run.toml").lines()
    assert line.startswith("C001 error: could not look: IndexError: list index out of range")


def test_the_doctor_survives_the_same(monkeypatch: pytest.MonkeyPatch, cluster: Any, tmp_path: Path) -> None:
    spoilt = {**inventory._SUBJECTS, "sources": raised(KeyError("profile"))}
    monkeypatch.setattr(inventory, "_SUBJECTS", spoilt)
    why = "could not look: ValueError"
    here = dataclasses.replace(cluster.machine, failed={"processes": why, "packages": why})
    found = doctor.diagnose(machine=here, upstream=cluster.upstream, runs=tmp_path)
    assert "KeyError: 'profile'" in found.inventory["sources"]
    assert found.inventory["processes"] == found.inventory["packages"] == why
    assert found.inventory["machine"].startswith("node0") and found.lines()


def test_a_report_can_be_printed_where_letters_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    from recipe.__main__ import main

    assert main(["preflight", str(tmp_path / "\u8bad\u7ec3.toml")]) == 2
    sys.stdout.flush()
    assert b"\\u8bad\\u7ec3.toml: cannot be read" in written.getvalue()


def test_the_account_names_the_line_of_ours() -> None:
    try:
        CATALOGUE["X999"]
    except KeyError as error:
        assert account(error).startswith("could not look: KeyError: 'X999' (at recipe/checks/declaration.py:")
