# SPDX-License-Identifier: Apache-2.0
"""The doctor: what it says of a machine, that every known pain is found with its code, and that it needs nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipe.doctor import OF_PREFLIGHT, Diagnosis, diagnose
from recipe.doctor.facts import device_of
from recipe.doctor.pains import PAINS
from recipe.preflight import every_check
from recipe.preflight.machine import Machine, Process, this_machine
from recipe.preflight.packages import requirements
from recipe.runfile.paths import upstream_dir

REPO = Path(__file__).resolve().parents[3]
GIB = 2**30
SLEEP_MODE = "Sleep mode can only be used for one instance per process."  # vllm_ascend/worker/worker_v1.py


class Patient:
    """A laptop with nothing wrong; methods make it ill."""

    def __init__(self, root: Path) -> None:
        self.runs = root / "runs"
        self.upstream = upstream_dir()
        self.machine: Machine = replace(
            this_machine(),
            python=(3, 11, 9),
            packages={**requirements(REPO / "requirements-sim.txt", (3, 11)), "npu-sim": "0.1.0"},
            environ={"PATH": "/usr/bin"},
            memory=24 * GIB,
            memory_available=20 * GIB,
            shm_free=12 * GIB,
            limits={"nofile": 20000, "nproc": None, "memlock": None},
            dies=0,
            gpus=0,
            driver=None,
            interfaces={"lo": "127.0.0.1"},
            listening=frozenset({22}),
            ephemeral_ports=(32768, 60999),
            clock_set=True,
            processes=(),
            path=(),
            free_bytes=lambda path: 500 * GIB,
        )

    def set(self, **values: Any) -> None:
        self.machine = replace(self.machine, **values)

    def environ(self, **values: str) -> None:
        self.set(environ={**self.machine.environ, **values})

    def npu(self) -> None:
        self.set(dies=16, environ={**self.machine.environ, "ASCEND_HOME_PATH": "/"}, packages={"torch-npu": "2.5.1"})

    def failed_run(self, line: str, status: str = "failed") -> None:
        logs = self.runs / "sick" / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "driver.log").write_text(f"step 1\n{line}\nTraceback follows\n")
        (self.runs / "sick" / "result.json").write_text(json.dumps({"status": status}))

    def sources(self, **files: str) -> None:
        """A tree of the real sources with some files replaced, "a/b.py" by the name a__b.py."""
        tree = self.runs.parent / "tree"
        tree.mkdir()
        replaced = {name.replace("__", "/").replace("_py", ".py").replace("_json", ".json"): text
                    for name, text in files.items()}  # fmt: skip
        _mirror(self.upstream, tree, replaced)
        self.upstream = tree

    def diagnosis(self) -> Diagnosis:
        return diagnose(machine=self.machine, upstream=self.upstream, repo=REPO, runs=self.runs)


def _mirror(source: Path, target: Path, replaced: dict[str, str]) -> None:
    """Links to everything in `source`, except for the files replaced and the directories on the way to them."""
    for entry in source.iterdir():
        below = {name.partition("/")[2]: text for name, text in replaced.items() if name.split("/")[0] == entry.name}
        if "" in below:
            (target / entry.name).write_text(below[""])
        elif below:
            (target / entry.name).mkdir()
            _mirror(entry, target / entry.name, below)
        else:
            (target / entry.name).symlink_to(entry)


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def _no_rollout(one: Patient) -> None:
    one.sources(verl__workers__rollout__base_py="class BaseRollout: ...\n")


def _other_cache(one: Patient) -> None:
    one.sources(vllm_ascend__attention__mla_v1_py="class AscendMLAImpl:\n    def forward(self): ...\n")


def _no_prelude(one: Patient) -> None:
    file = one.upstream / "verl" / "workers" / "megatron_workers.py"
    text = file.read_text().replace("from verl_patches import prelude_patch\n", "")
    one.sources(verl__workers__megatron_workers_py=text)


def _patch_failed(one: Patient) -> None:
    one.failed_run("")
    lines = [
        {"host": "h", "pid": pid, "role": f"WorkerDict rank={pid}", "patch": "p", "status": status, "reason": "r",
         "fingerprint": "f", "version": "1"}
        for pid, status in ((1, "applied"), (2, "failed"))
    ]  # fmt: skip
    (one.runs / "sick" / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))


def _hccl_port(one: Patient) -> None:
    one.npu()
    one.set(listening=frozenset({61003}))


def _wide_ephemeral_range(one: Patient) -> None:
    one.npu()
    one.set(ephemeral_ports=(32768, 65535))


def _other_commit(one: Patient) -> None:
    manifest = json.loads((one.upstream / "MANIFEST.json").read_text())
    manifest["upstreams"]["verl"]["sha256"] = "0" * 64
    one.sources(MANIFEST_json=json.dumps(manifest))


PAINFUL: dict[str, list[tuple[Callable[[Patient], None], str, str]]] = {
    "X001": [
        (_no_rollout, "error", "sync_rollout"),
        (lambda one: one.failed_run(f"AssertionError: {SLEEP_MODE}"), "error", "sick: AssertionError"),
    ],
    "X002": [
        (lambda one: one.set(processes=(Process(77, "ray::WorkerDict", "a3-1"),)), "warning", "run a3-1 (pid 77)"),
        (lambda one: one.failed_run("torch.OutOfMemoryError: NPU out of memory"), "error", "out of memory"),
    ],
    "X003": [(_other_cache, "error", "AscendMLAImpl")],
    "X004": [(lambda one: one.environ(VLLM_DP_SIZE="64"), "error", "VLLM_DP_SIZE=64")],
    "X005": [
        (lambda one: one.environ(RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES="1"), "error", "NOSET"),
        (lambda one: one.failed_run("RuntimeError: Invalid device ID 9"), "error", "Invalid device ID 9"),
    ],
    "X006": [(_no_prelude, "error", "lacks the line"), (_patch_failed, "error", "p failed in WorkerDict rank=2")],
    "X007": [
        (_hccl_port, "error", "port 61003"),
        (_wide_ephemeral_range, "warning", "32768 to 65535"),
    ],
    "X008": [
        (lambda one: one.failed_run("ValueError: No available memory for the cache blocks."), "error", "No available"),
    ],
    "X009": [(lambda one: one.environ(VLLM_PLUGINS="other"), "error", "VLLM_PLUGINS=other")],
    "X010": [(_other_commit, "error", "verl at sha256 0000")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("id", "make_ill", "level", "said"),
    [(id, *case) for id, cases in PAINFUL.items() for case in cases],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_known_pain_is_found_with_its_code_and_a_fix(
    patient: Patient, id: str, make_ill: Callable[[Patient], None], level: str, said: str
) -> None:
    healthy = patient.diagnosis().report
    assert id not in {one.id for one in healthy.findings}
    make_ill(patient)
    found = [one for one in patient.diagnosis().report.findings if one.id == id]
    assert found and {one.level for one in found} == {level}
    assert any(said in one.found for one in found), found
    assert all(one.fix and one.expected for one in found)


def test_there_are_ten_and_each_names_its_reports() -> None:
    assert {one.id for one in PAINS} == set(PAINFUL) and len(PAINS) == 10
    reported = " ".join(one.why for one in PAINS)
    for number in ("#977", "#9563", "#9585", "#11548", "#8344", "#5152", "#6674", "#6135", "#405", "#4725", "#9372"):
        assert number in reported
    assert set(OF_PREFLIGHT) <= {one.id for one in every_check()}


def test_a_healthy_laptop_has_nothing_wrong_and_an_inventory(patient: Patient) -> None:
    found = patient.diagnosis()
    assert found.report.errors == () and found.report.warnings == (), found.lines()
    assert found.report.exit_code == 0 and len(found.report.passed) > 25
    for name in ("python", "packages", "sources", "overlay", "memory", "disk", "shm", "limits", "processes"):
        assert found.inventory[name]
    assert "0 do not" in found.inventory["overlay"] and "npu-sim 0.1.0" in found.inventory["device"]
    json.dumps(found.as_json())


def test_a_run_that_finished_is_no_reason_for_complaint(patient: Patient) -> None:
    patient.failed_run("ValueError: No available memory for the cache blocks.", status="finished")
    assert patient.diagnosis().report.errors == ()


def test_preflights_findings_are_among_the_doctors(patient: Patient) -> None:
    patient.set(python=(3, 9, 0), limits={"nofile": 256, "nproc": None, "memlock": None})
    assert {"P001", "N007"} <= {one.id for one in patient.diagnosis().report.errors}


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
