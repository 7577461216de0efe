# SPDX-License-Identifier: Apache-2.0
"""The hardware of this node, as a run file names it."""

from __future__ import annotations

from recipe.checks.facts import dies as dies_of
from recipe.checks.facts.dies import DieFacts
from recipe.checks.facts.machine import Machine, this_machine
from recipe.checks.finding import CannotTell
from recipe.doctor.typical import device_of
from recipe.runfile.schema import SIM


def hardware_here(machine: Machine | None = None, dies: DieFacts | None = None) -> str:
    """The key of `HARDWARE` that this node's dies are, as `doctor` names it.

    Args:
        machine: this one, if not given.
        dies: what torch says of its dies; asked if not given, of NPUs or GPUs alone.

    Raises:
        CannotTell: there are none, torch sees none, or they are of no hardware that is known.
    """
    device = device_of(machine or this_machine())
    if device == SIM:
        raise CannotTell("this machine has neither NPUs nor GPUs")
    dies = dies or dies_of.ask_safely(device)
    if dies.untold:
        raise CannotTell(f"torch does not say what this machine has ({dies.untold})")
    if dies.hardware is None:
        raise CannotTell(f"this machine has {dies.text}, no hardware that has a name")
    return dies.hardware
