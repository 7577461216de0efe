# SPDX-License-Identifier: Apache-2.0
"""An estimate of a step's time, as a range: its work at the data sheet's rates, times what published steps took."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass

from recipe.plan.calibration import Range, ranged
from recipe.plan.published import LOG_PROB, PHASES
from recipe.plan.subject import Subject
from recipe.plan.traffic import Lengths
from recipe.plan.work import Work, work_of
from recipe.runfile.schema import Hardware


@dataclass(frozen=True)
class Estimate:
    """Seconds by phase, and the tokens of the step; `devices` are what is sold as one: an A3 NPU is two dies."""

    phases: Mapping[str, Range]
    tokens: float
    devices: float
    hardware: Hardware

    @property
    def step(self) -> Range:
        """All phases at their low ends together, and all at their high ends."""
        return functools.reduce(operator.add, self.phases.values())

    @property
    def tokens_per_second_per_device(self) -> Range:
        """Fewest where the step takes longest."""
        step, each = self.step, self.tokens / self.devices
        return Range(each / step.estimate, each / step.high, each / step.low)


def estimate(run: Subject, mean: Lengths, done: Work | None = None) -> Estimate | None:
    """The time of each phase of a step; None for simulated dies, about whose speed nothing can be said.

    Args:
        run: the run.
        mean: mean lengths, and the longest answer.
        done: the step's work where it was counted otherwise; by default what follows from sizes and layout.
    """
    hardware = run.config.node_hardware
    if hardware is None:
        return None
    done = work_of(run, mean) if done is None else done
    left_out = (LOG_PROB,) if run.on_policy else ()
    phases = {
        phase: Range(0.0, 0.0, 0.0) if phase in left_out else ranged(phase, done, hardware) for phase in PHASES
    }  # fmt: skip
    layout = run.layout
    return Estimate(
        phases, layout.sequences_per_step * mean.sequence, layout.dies / hardware.dies_per_device, hardware
    )  # fmt: skip
