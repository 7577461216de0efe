# SPDX-License-Identifier: Apache-2.0
"""The hardware of a node is inferred from what torch says of its dies, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.checks.facts.dies import DieFacts
from recipe.checks.finding import CannotTell
from recipe.doctor.hardware import hardware_here
from recipe.runfile.schema import GIB, HARDWARE
from tests.recipe.checks.patient import Patient

NAMES = {"a2_64": "Ascend910B3", "a3_128": "Ascend910_9362", "h20_141": "NVIDIA H20-3e"}


@pytest.mark.parametrize("name", ["a2_64", "a3_128", "h100_80", "h20_96", "h20_141", "h200_141", "a100_80"])
def test_named_hardware_is_told(name: str, tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    hardware = HARDWARE[name]
    if hardware.device == "npu":
        patient.npu()
    else:
        patient.set(gpus=8, packages={})
    torch_name = NAMES.get(name, hardware.torch_name)
    dies = DieFacts((int(hardware.offered_gib * GIB),) * hardware.dies_per_node, torch_name)
    assert hardware_here(patient.machine, dies) == name


@pytest.mark.parametrize(
    ("dies", "said"),
    [
        (
            DieFacts((int(29.5 * GIB),) * 8, "Ascend910B4"),
            "has 8 x Ascend910B4 of 29.5 GiB, no hardware that has a name",
        ),
        (DieFacts((int(61.27 * GIB),) * 2), "has 2 x simulated die of 61.3 GiB, no hardware that has a name"),
        (DieFacts(problem="it sees none"), "torch does not say what this machine has (it sees none)"),
        (DieFacts(failed="a driver that fell"), "torch does not say what this machine has (a driver that fell)"),
    ],
)
def test_another_is_not_guessed(dies: DieFacts, said: str, tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    patient.npu()
    with pytest.raises(CannotTell) as told:
        hardware_here(patient.machine, dies)
    assert said in str(told.value)


def test_a_laptop_has_none_and_torch_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.checks.facts.dies.ask_safely", lambda device: pytest.fail(device))
    with pytest.raises(CannotTell, match="neither NPUs nor GPUs"):
        hardware_here(Patient(tmp_path).machine)
