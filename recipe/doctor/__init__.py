# SPDX-License-Identifier: Apache-2.0
"""What is installed here, what is wrong with it, and what to type. Reads only, and ends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.preflight.machine import Machine
from recipe.preflight.report import Report, examine
from recipe.text import printable

# Preflight's checks of a node that hold for any run. X002 and X005 say what N012 and E005 say.
OF_PREFLIGHT = (
    *("P001", "P002", "P003", "P004", "P005", "P006", "P007", "P008"),
    *("E002", "E003", "E004", "E006", "E009", "E010", "E011", "E012", "E013", "E014"),
    *("N002", "N003", "N004", "N006", "N007", "N008", "N009", "N013", "N014", "N015"),
)


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
    repo: Path | None = None, runs: Path | None = None,
) -> Diagnosis:  # fmt: skip
    """Examine this machine.

    Args:
        device: "sim", "npu" or "cuda"; found out if not given.
        machine, upstream, repo, runs: read here, of this checkout, if not given.
    """
    from recipe.doctor.facts import DoctorFacts, device_of, node_facts
    from recipe.doctor.inventory import inventory
    from recipe.doctor.pains import PAINS
    from recipe.preflight import every_check
    from recipe.preflight.machine import this_machine
    from recipe.runfile.paths import REPO, runs_dir, upstream_dir

    machine = machine or this_machine()
    node = node_facts(machine, device or device_of(machine), upstream or upstream_dir(), repo or REPO)
    facts = DoctorFacts(node, runs or runs_dir())
    general = examine([one for one in every_check() if one.id in OF_PREFLIGHT], node)
    return Diagnosis(inventory(facts), general + examine(PAINS, facts))
