# SPDX-License-Identifier: Apache-2.0
"""Four constants, fitted to published steps, and how far they miss a step that they were not fitted to.

A phase takes `floor + amount * constant` seconds. The floor and the amount follow from work and data sheets; the
constant is the geometric mean of what the published steps show for it, which is the least-squares fit of the logarithms
of what they took beyond the floor. One constant a phase: so few steps do not bear more.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipe.plan.counts import counts_of
from recipe.plan.published import FITTED, GENERATION, LOG_PROB, REF, REWARD, UPDATE, PublishedStep
from recipe.plan.work import Work, work
from recipe.runfile.schema import HARDWARE, Hardware

# The constant that each phase depends on.
ENGINE_STEP, GRADE, PASS, TRAINING = "engine step", "grade", "pass", "update"
CONSTANT = {GENERATION: ENGINE_STEP, REWARD: GRADE, LOG_PROB: PASS, REF: PASS, UPDATE: TRAINING}

Rates = Mapping[str, float]


@dataclass(frozen=True)
class Observation:
    """What a published phase shows for its constant."""

    row: PublishedStep
    phase: str
    value: float


@dataclass(frozen=True)
class Range:
    """An estimate, and how far the published steps say it may be off; in seconds, or tokens a second."""

    estimate: float
    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        return Range(self.estimate + other.estimate, self.low + other.low, self.high + other.high)


def terms(phase: str, done: Work, hardware: Hardware) -> tuple[float, float]:
    """Seconds of a phase that data sheets leave no way around, and the amount that its constant is for.

    Generation: weights in each engine step, cache, exchange in a node and between nodes, and products at their peak
    rates; an engine step takes its constant longer. Reward: answers. Passes and update: seconds that their products
    take at the peak rate.
    """
    memory, peak = hardware.memory_gb_s * 1e9, hardware.tflops_bf16 * 1e12
    if phase == GENERATION:
        read = (done.engine_steps * done.weight_bytes + done.cache_bytes) / memory
        sent = done.node_bytes / (hardware.node_link_gb_s * 1e9) + done.network_bytes / (hardware.network_gb_s * 1e9)
        return read + sent + done.generation_flops / peak, done.engine_steps
    if phase == REWARD:
        return 0.0, float(done.answers)
    return 0.0, (done.update_flops if phase == UPDATE else done.pass_flops) / peak


def seconds(phase: str, done: Work, hardware: Hardware, rates: Rates) -> float:
    """The time of a phase."""
    floor, amount = terms(phase, done, hardware)
    return floor + amount * rates[CONSTANT[phase]]


def observations(rows: Sequence[PublishedStep]) -> list[Observation]:
    """What the published phases show, each for its constant."""
    out = []
    for row in rows:
        hardware = HARDWARE[row.hardware]
        done = work(counts_of(row.model), row.setting, row.mean, hardware.dies_per_node)
        for phase, took in row.seconds.items():
            floor, amount = terms(phase, done, hardware)
            out.append(Observation(row, phase, (took - row.dispatch_s.get(phase, 0) - floor) / amount))
    return out


def fit(rows: Sequence[PublishedStep]) -> Rates:
    """The constants that these steps show; none for a phase that none of them has."""
    shown: dict[str, list[float]] = {}
    for one in observations(rows):
        shown.setdefault(CONSTANT[one.phase], []).append(math.log(one.value))
    return {name: math.exp(sum(logs) / len(logs)) for name, logs in shown.items()}


@functools.cache
def fitted() -> Rates:
    """The constants from all published steps that any are fitted to."""
    return fit(FITTED)


def without_row(row: PublishedStep, rows: Sequence[PublishedStep] = FITTED) -> Rates:
    """The constants that the other steps show."""
    return fit([other for other in rows if other.name != row.name])


def without_source(row: PublishedStep, rows: Sequence[PublishedStep] = FITTED) -> Rates:
    """The constants that the steps of other publications show: other code, run by others."""
    return fit([other for other in rows if other.source != row.source])


def predicted(row: PublishedStep, rates: Rates) -> dict[str, float]:
    """Seconds of each phase of a published step, also of those that were not published separately."""
    hardware = HARDWARE[row.hardware]
    done = work(counts_of(row.model), row.setting, row.mean, hardware.dies_per_node)
    return {
        phase: seconds(phase, done, hardware, rates) + row.dispatch_s.get(phase, 0)
        for phase in row.phases
        if phase in row.seconds or row.step_s is not None
    }


@functools.cache
def misses() -> Mapping[str, tuple[float, float]]:
    """By constant, the least and the largest ratio of published to predicted seconds, each step's publication left out.

    Not less than a range around 1: that all steps were missed in one direction does not make the next one so.
    """
    ratios: dict[str, list[float]] = {}
    for row in FITTED:
        told = predicted(row, without_source(row))
        for phase, took in row.seconds.items():
            ratios.setdefault(CONSTANT[phase], [1.0]).append(took / told[phase])
    return {name: (min(values), max(values)) for name, values in ratios.items()}


def ranged(phase: str, done: Work, hardware: Hardware) -> Range:
    """The time of a phase with its range."""
    value = seconds(phase, done, hardware, fitted())
    low, high = misses()[CONSTANT[phase]]
    return Range(value, value * low, value * high)
