# SPDX-License-Identifier: Apache-2.0
"""A run for checks that look at a machine without one: what it needs stands for what every run there needs."""

from __future__ import annotations

from pathlib import Path

from recipe.checks.facts.machine import Machine
from recipe.checks.finding import CannotTell
from recipe.runfile.config import load
from recipe.runfile.schema import CUDA, NPU, SIM, RunConfig

TYPICAL = {SIM: "sim.toml", NPU: "a3_256die.toml", CUDA: "h20_128gpu_math_lighteval.toml"}


def device_of(machine: Machine) -> str:
    """What this machine trains on: NPUs where there are any, or their torch_npu is installed; GPUs where there are any
    and no simulated NPU was set up; else, or where that cannot be read, simulated ones."""
    try:
        if machine.dies or machine.version("torch-npu"):
            return NPU
        return CUDA if machine.gpus and machine.version("npu-sim") is None else SIM
    except CannotTell:
        return SIM


def typical_run(device: str, repo: Path) -> RunConfig:
    """The run of a shipped run file for this device."""
    return load(repo / "configs" / TYPICAL[device])
