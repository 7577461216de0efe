# SPDX-License-Identifier: Apache-2.0
"""X: each check passes on a laptop that is right, and finds what was spoilt on it or failed in its latest run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.checks.catalogue import checks_that_need
from recipe.checks.declaration import RUNS
from recipe.checks.facts.machine import Process
from tests.recipe.checks.patient import Patient

SLEEP_MODE = "Sleep mode can only be used for one instance per process."  # vllm_ascend/worker/worker_v1.py


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


def _no_rollout(patient: Patient) -> None:
    patient.sources(verl__workers__rollout__base_py="class BaseRollout: ...\n")


def _other_cache(patient: Patient) -> None:
    patient.sources(vllm_ascend__attention__mla_v1_py="class AscendMLAImpl:\n    def forward(self): ...\n")


def _no_prelude(patient: Patient) -> None:
    file = patient.upstream / "verl" / "workers" / "megatron_workers.py"
    text = file.read_text().replace("from verl_patches import prelude_patch\n", "")
    patient.sources(verl__workers__megatron_workers_py=text)


def _patch_failed(patient: Patient) -> None:
    patient.failed_run("")
    lines = [
        {"host": "h", "pid": pid, "role": f"WorkerDict rank={pid}", "patch": "p", "status": status, "reason": "r",
         "fingerprint": "f", "version": "1"}
        for pid, status in ((1, "applied"), (2, "failed"))
    ]  # fmt: skip
    (patient.runs / "sick" / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))


def _hccl_port(patient: Patient) -> None:
    patient.npu()
    patient.set(listening=frozenset({61003}))


def _wide_ephemeral_range(patient: Patient) -> None:
    patient.npu()
    patient.set(ephemeral_ports=(32768, 65535))


def _other_commit(patient: Patient) -> None:
    manifest = json.loads((patient.upstream / "MANIFEST.json").read_text())
    manifest["upstreams"]["verl"]["sha256"] = "0" * 64
    patient.sources(MANIFEST_json=json.dumps(manifest))


def _adopted(**entry: Any) -> Callable[[Patient], None]:
    """The sources with a verl that is adopted, and as its manifest says."""

    def spoil(patient: Patient) -> None:
        manifest = json.loads((patient.upstream / "MANIFEST.json").read_text())
        usual = {"path": "/src/verl", "compared": True, "line": False, "accepted": {}, "own": {}}
        patient.sources(MANIFEST_json=json.dumps(manifest | {"adopted": {"verl": usual | entry}}))

    return spoil


PAINFUL: dict[str, list[tuple[Callable[[Patient], None], str, str]]] = {
    "X001": [
        (_no_rollout, "error", "sync_rollout"),
        (lambda ill: ill.failed_run(f"AssertionError: {SLEEP_MODE}"), "error", "sick: AssertionError"),
    ],
    "X002": [
        (lambda ill: ill.set(processes=(Process(77, "ray::WorkerDict", "a3-1"),)), "warning", "run a3-1 (pid 77)"),
        (lambda ill: ill.failed_run("torch.OutOfMemoryError: NPU out of memory"), "error", "out of memory"),
    ],
    "X003": [(_other_cache, "error", "AscendMLAImpl")],
    "X004": [(lambda ill: ill.environ(VLLM_DP_SIZE="64"), "error", "VLLM_DP_SIZE=64")],
    "X005": [
        (lambda ill: ill.environ(RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES="1"), "error", "NOSET"),
        (lambda ill: ill.failed_run("RuntimeError: Invalid device ID 9"), "error", "Invalid device ID 9"),
    ],
    "X006": [(_no_prelude, "error", "lacks the line"), (_patch_failed, "error", "p failed in WorkerDict rank=2")],
    "X007": [
        (_hccl_port, "error", "port 61003"),
        (_wide_ephemeral_range, "warning", "32768 to 65535"),
    ],
    "X008": [
        (lambda ill: ill.failed_run("ValueError: No available memory for the cache blocks."), "error", "No available"),
    ],
    "X009": [(lambda ill: ill.environ(VLLM_PLUGINS="other"), "error", "VLLM_PLUGINS=other")],
    "X010": [
        (_other_commit, "error", "verl at sha256 0000"),
        (_adopted(accepted={"verl/a.py": "0", "verl/b.py": ""}), "warning", "differs in verl/a.py and 1 more"),
        (_adopted(compared=False), "warning", "verl, adopted from /src/verl, was not compared file by file"),
    ],
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
    assert id not in {finding.id for finding in healthy.findings}
    make_ill(patient)
    findings = [finding for finding in patient.diagnosis().report.findings if finding.id == id]
    assert findings and {finding.level for finding in findings} == {level}
    assert any(said in finding.found for finding in findings), findings
    assert all(finding.fix and finding.expected for finding in findings)


def test_each_names_the_reports_of_others() -> None:
    assert {check.id for check in checks_that_need(RUNS)} == set(PAINFUL)
    reported = " ".join(check.why for check in checks_that_need(RUNS))
    for number in ("#977", "#9563", "#9585", "#11548", "#8344", "#5152", "#6674", "#6135", "#405", "#4725", "#9372"):
        assert number in reported
