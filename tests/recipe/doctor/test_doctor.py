# SPDX-License-Identifier: Apache-2.0
"""The doctor: what it says of a machine, which checks it makes, and that it needs nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipe.checks.catalogue import every_check
from recipe.checks.declaration import NODE, RUNS
from recipe.checks.facts.dies import DieFacts
from recipe.doctor import diagnose
from recipe.doctor.typical import device_of
from recipe.runfile.schema import GIB
from tests.recipe.checks.patient import Patient

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def test_it_makes_the_checks_of_a_machine_that_need_no_run_file(patient: Patient) -> None:
    report = patient.diagnosis().report
    made = {*report.passed, *report.without_matter, *(finding.id for finding in report.findings)}
    assert made == {check.id for check in every_check() if check.any_run or check.needs == RUNS}
    assert {check.needs for check in every_check() if check.any_run} == {NODE}
    # X002 and X005 say what these say.
    assert not made & {"N012", "E005"}


def test_a_healthy_laptop_has_nothing_wrong_and_an_inventory(patient: Patient) -> None:
    found = patient.diagnosis()
    assert found.report.errors == () and found.report.warnings == (), found.lines()
    assert found.report.exit_code == 0 and len(found.report.passed) > 25
    for name in ("python", "packages", "sources", "overlay", "memory", "disk", "shm", "limits", "processes"):
        assert found.inventory[name]
    assert "0 do not" in found.inventory["overlay"] and "npu-sim 0.1.0" in found.inventory["device"]
    json.dumps(found.as_json())


@pytest.mark.parametrize(
    ("dies", "told"),
    [
        (DieFacts((int(60.95 * GIB),) * 8, "Ascend910B3"), '8 x Ascend910B3 of 60.9 GiB: [cluster] hardware = "a2_64"'),
        (
            DieFacts((int(29.5 * GIB),) * 8, "Ascend910B4"),
            '8 x Ascend910B4 of 29.5 GiB: [cluster] hardware = "custom", with [hardware]',
        ),
        (DieFacts((int(61.27 * GIB),) * 8), "8 x simulated die of 61.3 GiB: no hardware"),
        (DieFacts(problem="it sees none"), "not known: it sees none"),
        (None, "not known: torch was not asked"),
    ],
)
def test_the_hardware_of_a_node_is_named_and_that_of_a_simulated_one_is_not(
    dies: DieFacts | None, told: str, patient: Patient
) -> None:
    patient.npu()
    found = diagnose(machine=patient.machine, upstream=patient.upstream, runs=patient.runs, dies=dies)
    assert found.inventory["dies"] == told


def test_a_run_that_finished_is_no_reason_for_complaint(patient: Patient) -> None:
    patient.failed_run("ValueError: No available memory for the cache blocks.", status="finished")
    assert patient.diagnosis().report.errors == ()


def test_preflights_findings_are_among_the_doctors(patient: Patient) -> None:
    patient.set(python=(3, 9, 0), limits={"nofile": 256, "nproc": None, "memlock": None})
    assert {"P001", "N007"} <= {finding.id for finding in patient.diagnosis().report.errors}


def test_the_device_is_found_out(patient: Patient) -> None:
    assert device_of(patient.machine) == "sim"
    patient.set(gpus=8)
    assert device_of(patient.machine) == "sim"  # set up for the simulator, which a GPU beside it does not change
    patient.set(packages={})
    assert device_of(patient.machine) == "cuda"
    assert "X009" in patient.diagnosis().report.without_matter
    patient.npu()
    assert device_of(patient.machine) == "npu"


def test_without_sources_it_says_what_to_type(patient: Patient, tmp_path: Path) -> None:
    patient.upstream = tmp_path / "nothing"
    lines = patient.diagnosis().lines()
    assert any(line.startswith("P003 error") and "python -m recipe sync" in line for line in lines)
    assert any(line.startswith("not run (") and "X001" in line for line in lines)


def toml_reader(factory: pytest.TempPathFactory) -> list[str]:
    """On Python 3.10 the reader of TOML is the one package that is needed; later it is in Python's own library."""
    if sys.version_info >= (3, 11):
        return []
    found = importlib.util.find_spec("tomli")
    assert found is not None and found.submodule_search_locations
    place = factory.mktemp("toml")
    (place / "tomli").symlink_to(found.submodule_search_locations[0])
    return [str(place)]


def test_it_works_without_a_single_package_and_ends_no_process(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`python -S` sees Python's own library only. A process that looks like a leftover is still there afterwards."""
    mark = {**os.environ, "RECIPE_RUN_ID": "left-over"}
    leftover = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=mark)
    try:
        while b"RECIPE_RUN_ID" not in Path(f"/proc/{leftover.pid}/environ").read_bytes():
            time.sleep(0.01)
        path = os.pathsep.join([str(REPO), *toml_reader(tmp_path_factory)])
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "RECIPE_UPSTREAM": str(tmp_path / "none")}
        done = subprocess.run(
            [sys.executable, "-S", "-m", "recipe", "doctor", "--json"], env=environment, cwd=tmp_path,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        found = json.loads(done.stdout)
        ids = {one["id"] for one in found["findings"] if one["level"] == "error"}
        assert {"P002", "P003", "P008"} <= ids
        told = [one["found"] for one in found["findings"] if one["id"] == "X002"]
        assert any("run left-over" in line and str(leftover.pid) in line for line in told)
        assert leftover.poll() is None
        assert list(tmp_path.iterdir()) == []
    finally:
        leftover.kill()
        leftover.wait()
