# SPDX-License-Identifier: Apache-2.0
"""What rules look at: a step, what was seen before it, and what is known of the run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recipe.report.metrics import RESPONSE_LENGTH, REWARD, SCORE_MAX, SCORE_MIN, VALIDATION, Step
from recipe.runfile.schema import Watch

# The key of a run's command.json for the vocabulary of its model, as in `Context`.
VOCABULARY = "vocabulary"
# Number of steps over which means are compared: single steps differ by their problems.
REWARD_WINDOW, LENGTH_WINDOW = 5, 5


@dataclass(frozen=True)
class Context:
    """What is known of a run beside its metrics.

    `vocabulary`: tokens of the model, None where not known. `kl_coefficient`: weight of the divergence from the
    reference in the loss. `learns`: False for a run that only measures speed.
    """

    vocabulary: int | None = None
    kl_coefficient: float = 0.0
    learns: bool = True


def context_of(config: Mapping[str, Any], vocabulary: int | None) -> Context:
    """The context of a run from its configuration, `dataclasses.asdict` of a RunConfig.

    Raises:
        KeyError, TypeError: it is not the configuration of a run.
    """
    return Context(
        vocabulary=vocabulary,
        kl_coefficient=float(config["train"]["kl_coefficient"]),
        learns=config["model"]["kind"] != "random_init" and not config["rollout"]["ignore_eos"],
    )


class Series:
    """The mean of the latest values of one figure, and the highest that this mean has been."""

    def __init__(self, window: int) -> None:
        self._latest: deque[float] = deque(maxlen=window)
        self.mean: float | None = None
        self.best: float | None = None
        self.best_step = 0

    def add(self, step: int, value: float | None) -> None:
        """Values that are missing or not finite are left out."""
        if value is None or not math.isfinite(value):
            return
        self._latest.append(value)
        if len(self._latest) < (self._latest.maxlen or 1):
            return
        self.mean = sum(self._latest) / len(self._latest)
        if self.best is None or self.mean > self.best:
            self.best, self.best_step = self.mean, step


class History:
    """What the steps so far have shown."""

    def __init__(self) -> None:
        self.reward, self.length, self.validation = Series(REWARD_WINDOW), Series(LENGTH_WINDOW), Series(1)
        self.lowest_score, self.highest_score = math.inf, -math.inf

    def add(self, step: Step) -> None:
        self.validation.add(step.number, step.validation_score)
        if not step.trained:
            return
        self.reward.add(step.number, step.get(REWARD))
        self.length.add(step.number, step.get(RESPONSE_LENGTH))
        low, high = step.get(SCORE_MIN), step.get(SCORE_MAX)
        if low is not None and math.isfinite(low):
            self.lowest_score = min(self.lowest_score, low)
        if high is not None and math.isfinite(high):
            self.highest_score = max(self.highest_score, high)


@dataclass(frozen=True)
class StepView:
    """A step as rules see it; `history` includes it."""

    step: Step
    history: History
    context: Context
    settings: Watch

    def value(self, name: str) -> float | None:
        """A metric of this step: None where its line does not have it, not-a-number where it is there and no number."""
        return math.nan if name in self.step.unreadable else self.step.get(name)

    @property
    def validation(self) -> float | None:
        """The validation score; None where there was no validation, not-a-number where a score is no number."""
        if any(VALIDATION.fullmatch(name) for name in self.step.unreadable):
            return math.nan
        return self.step.validation_score

    def all_of(self, *names: str) -> dict[str, float]:
        """Those of these metrics that the step has, by name."""
        return {name: value for name in names if (value := self.value(name)) is not None}
