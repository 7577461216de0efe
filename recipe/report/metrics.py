# SPDX-License-Identifier: Apache-2.0
"""Reading verl's metrics file (`metrics.jsonl`: one `{"step": k, "data": {...}}` per step)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.recorder import read_lines

REWARD = "critic/score/mean"
SCORE_MIN, SCORE_MAX = "critic/score/min", "critic/score/max"
ADVANTAGE_MIN, ADVANTAGE_MAX = "critic/advantages/min", "critic/advantages/max"
RESPONSE_LENGTH = "response_length/mean"
STEP_SECONDS = "timing_s/step"
CUT_OFF = "response_length/clip_ratio"
ENTROPY = "actor/entropy"
LOSS = "actor/pg_loss"
REFERENCE_KL = "actor/kl_loss"
GRADIENT_NORM = "actor/grad_norm"
PEARSON = "training/rollout_actor_probs_pearson_corr"
# The largest difference between the two probabilities of a sampled token.
PROBABILITY_GAP = "training/rollout_probs_diff_max"
# Of the choices of experts that the actor replays, the share that it followed, and the share that it would have made
# otherwise by itself: megatron_patches/core/transformer/moe/replay.py.
REPLAYED, FLIPS = "training/routing_replayed", "training/routing_flips"
# Ours, then verl's rollout-correction estimate: both are means of log p(rollout) - log p(actor) over sampled tokens.
KL_KEYS = ("training/rollout_actor_kl", "rollout_corr/kl")
_LARGEST_STEP = 10**9
# Metrics of the machine: times, speeds, memory, lost grading processes. All others follow from a run's seed.
OF_THE_MACHINE = re.compile(r"timing_(s|per_token_ms)/.+|perf/(?!total_num_tokens$).+|reward/lost_workers")
VALIDATION = re.compile(r"val-core/.*/(?:acc|reward|score)/mean@\d+")


@dataclass(frozen=True)
class Step:
    """The metrics of one step; step 0 is the validation before training.

    `unreadable`: those that its line has, but not as a number.
    """

    number: int
    values: Mapping[str, float]
    unreadable: frozenset[str] = frozenset()

    def get(self, *names: str) -> float | None:
        """The first of these metrics that was logged."""
        return next((self.values[name] for name in names if name in self.values), None)

    @property
    def validation_score(self) -> float | None:
        """The mean of verl's core validation scores over the data sources; None where there was no validation."""
        scores = [value for name, value in self.values.items() if VALIDATION.fullmatch(name)]
        return sum(scores) / len(scores) if scores else None

    @property
    def trained(self) -> bool:
        """Whether the step trained, which the validation before training does not."""
        return STEP_SECONDS in self.values


def _number(value: Any) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return None


def parse(line: Mapping[str, Any]) -> Step | None:
    """The step of one line of the file; None when it is not one."""
    number, data = line.get("step"), line.get("data")
    if not isinstance(number, int) or abs(number) > _LARGEST_STEP or not isinstance(data, dict):
        return None
    numbers = {name: read for name, value in data.items() if (read := _number(value)) is not None}
    return Step(number, numbers, frozenset(data.keys() - numbers.keys()))


def read_steps(path: Path) -> list[Step]:
    """All steps of a metrics file, in order; lines of the same step are merged."""
    merged: dict[int, Step] = {}
    for line in read_lines(path):
        step = parse(line)
        if step is not None:
            before = merged.get(step.number, Step(step.number, {}))
            kept = {name: value for name, value in before.values.items() if name not in step.unreadable}
            unreadable = (before.unreadable - step.values.keys()) | step.unreadable
            merged[step.number] = Step(step.number, {**kept, **step.values}, unreadable)
    return [step for _, step in sorted(merged.items())]


def unequal_metrics(left: Sequence[Step], right: Sequence[Step]) -> list[str]:
    """One line for each step that only one of two runs has, and for each metric of the training in which they differ.

    Metrics that match OF_THE_MACHINE are left out; everything else is compared to the last digit, NaN equal to NaN.
    """
    left_values, right_values = ({step.number: step.values for step in steps} for steps in (left, right))
    lines = [f"step {number}: only one of them has it" for number in sorted(left_values.keys() ^ right_values.keys())]
    for number in sorted(left_values.keys() & right_values.keys()):
        for name in sorted(left_values[number].keys() | right_values[number].keys()):
            left_value, right_value = left_values[number].get(name), right_values[number].get(name)
            if not OF_THE_MACHINE.fullmatch(name) and repr(left_value) != repr(right_value):
                lines.append(f"step {number}: {name} is {left_value!r} and {right_value!r}")
    return lines
