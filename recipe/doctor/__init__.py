# SPDX-License-Identifier: Apache-2.0
"""What is installed here, what is wrong with it, and what to type. Reads only, and ends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.checks.catalogue import every_check
from recipe.checks.declaration import RUNS
from recipe.checks.facts import dies as dies_of
from recipe.checks.facts.dies import DieFacts
from recipe.checks.facts.machine import Machine, this_machine
from recipe.checks.facts.run import Facts
from recipe.checks.report import Report, examine
from recipe.runfile.paths import REPO, runs_dir, upstream_dir
from recipe.runfile.schema import SIM
from recipe.text import printable


@dataclass(frozen=True)
class Diagnosis:
    """What there is, and what is wrong."""

    inventory: dict[str, str]
    report: Report

    def lines(self) -> list[str]:
        width = max(map(len, self.inventory))
        inventory = [printable(f"{name:{width}}  {value}") for name, value in self.inventory.items()]
        return [*inventory, "", *self.report.lines()]

    def as_json(self) -> dict[str, Any]:
        return {"inventory": self.inventory} | self.report.as_json()


def diagnose(
    *, device: str | None = None, machine: Machine | None = None, upstream: Path | None = None,
    repo: Path | None = None, runs: Path | None = None, dies: DieFacts | None = None,
) -> Diagnosis:  # fmt: skip
    """Examine this machine.

    Args:
        device: "sim", "npu" or "cuda"; found out if not given.
        machine, upstream, repo, runs: read here, of this checkout, if not given.
        dies: what torch says of its dies; asked if not given, where they are not simulated and the machine is this one.
    """
    from recipe.doctor.inventory import inventory
    from recipe.doctor.typical import device_of, typical_run

    here, machine, repo = machine is None, machine or this_machine(), repo or REPO
    config = typical_run(device or device_of(machine), repo)
    if dies is None and here and config.cluster.device != SIM:
        dies = dies_of.ask_safely(config.cluster.device)
    facts = Facts(config, machine, True, upstream or upstream_dir(), repo, dies=dies, runs=runs or runs_dir())
    checks = [check for check in every_check() if check.any_run or check.needs == RUNS]
    return Diagnosis(inventory(facts), examine(checks, facts))
