# SPDX-License-Identifier: Apache-2.0
"""What the doctor looks at: what preflight looks at on a node, and what the latest run left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.preflight.catalogue import CannotTell
from recipe.preflight.facts import Facts
from recipe.preflight.machine import Machine
from recipe.runfile.config import load
from recipe.runfile.schema import CUDA, NPU, SIM
from recipe.text import plain

if TYPE_CHECKING:
    from recipe.audit.fit import Fit

# The run whose needs stand for those of every run on such a machine.
TYPICAL = {SIM: "sim.toml", NPU: "a3_256die.toml", CUDA: "h20_128gpu_math_lighteval.toml"}
_TAIL_BYTES = 4 * 2**20


def device_of(machine: Machine) -> str:
    """What this machine trains on: NPUs where there are any, or their torch_npu is installed; GPUs where there are any
    and no simulated NPU was set up; else, or where that cannot be read, simulated ones."""
    try:
        if machine.dies or machine.version("torch-npu"):
            return NPU
        return CUDA if machine.gpus and machine.version("npu-sim") is None else SIM
    except CannotTell:
        return SIM


def node_facts(machine: Machine, device: str, upstream: Path, repo: Path) -> Facts:
    """Preflight's facts of this machine as a node of a typical run."""
    return Facts(load(repo / "configs" / TYPICAL[device]), machine, True, upstream, repo)


@dataclass(frozen=True)
class DoctorFacts:
    """`node`: this machine as preflight sees it; `runs`: the directory with what runs have left."""

    node: Facts
    runs: Path

    @property
    def machine(self) -> Machine:
        return self.node.machine

    @property
    def device(self) -> str:
        return self.node.device

    @cached_property
    def fits(self) -> dict[str, Fit]:
        """Whether each patch fits the sources, by its id. CannotTell where there are no sources."""
        from recipe.audit.declarations import collect
        from recipe.audit.fit import check

        if not (self.node.upstream / "verl").is_dir():
            raise CannotTell(f"{self.node.upstream} holds no verl; run: python -m recipe sync")
        # Not fit.verify, which keeps what it found on the disk.
        return {one.id: check(one, [self.node.upstream]) for one in collect()}

    @cached_property
    def latest_run(self) -> Path:
        """The directory of the run that wrote last. CannotTell where there is none."""
        logs = [log for log in self.runs.glob("*/logs/driver.log") if log.is_file()]
        if not logs:
            raise CannotTell(f"no run has left a log in {self.runs} yet")
        return max(logs, key=lambda log: log.stat().st_mtime).parents[1]

    @cached_property
    def failed_log(self) -> list[str]:
        """The last lines of the latest run's log; none if that run finished."""
        try:
            result: Any = json.loads((self.latest_run / "result.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            result = {}
        if isinstance(result, dict) and result.get("status") == "finished":
            return []
        with open(self.latest_run / "logs" / "driver.log", "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return [plain(line) for line in file.read().decode("utf-8", "replace").splitlines()]
