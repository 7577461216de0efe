# SPDX-License-Identifier: Apache-2.0
"""The curves of a run over its steps, as the report and the picture draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recipe.report.metrics import (
    CUT_OFF,
    ENTROPY,
    GRADIENT_NORM,
    PEARSON,
    REFERENCE_KL,
    RESPONSE_LENGTH,
    REWARD,
    Step,
)

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """Points (step, value) under a title.

    Attributes:
        name: of the PNG, without its ending.
        label: what the values are.
        from_zero: whether the axis of values begins at 0, where none is below.
    """

    title: str
    name: str
    label: str
    points: Points
    from_zero: bool = True


def curves(steps: Sequence[Step]) -> list[Curve]:
    """All curves that the steps have points for."""
    trained = [step for step in steps if step.trained]
    scores = [(float(step.number), score) for step in steps if (score := step.validation_score) is not None]
    found = [
        Curve("Reward", "reward", "mean reward of the samples", _series(trained, REWARD)),
        Curve("Validation score", "validation_score", "score on unseen problems", scores),
        Curve("Response length", "response_length", "mean tokens", _series(trained, RESPONSE_LENGTH)),
        Curve("Answers cut off", "cut_off", "share at the length limit", _series(trained, CUT_OFF)),
        Curve("Entropy", "entropy", "nats per token", _series(trained, ENTROPY)),
        Curve("KL to the reference policy", "reference_kl", "estimate, nats per token", _series(trained, REFERENCE_KL)),
        Curve("Gradient norm", "gradient_norm", "before clipping", _series(trained, GRADIENT_NORM)),
        # An agreement a little below 1 is a flat line on an axis from 0.
        Curve(
            "Rollout against actor", "agreement", "Pearson of probabilities", _series(trained, PEARSON), from_zero=False
        ),
    ]
    return [curve for curve in found if curve.points]


def _series(steps: Sequence[Step], name: str) -> Points:
    return [(float(step.number), value) for step in steps if (value := step.get(name)) is not None]
