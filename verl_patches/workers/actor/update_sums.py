# SPDX-License-Identifier: Apache-2.0
"""What an update's own forward passes tell of rollout and actor: how well they agree, and the actor's entropy.

verl computes both from the pass for the old log-probabilities, which on-policy updates do without.
"""

# NPU-ADAPTATION: agreement and entropy from the passes of the update

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch

from recipe.report.metrics import ENTROPY, PEARSON, PROBABILITY_GAP
from verl_patches.utils.debug.metrics import KL

# Under this name a rank's sums travel among the metrics of its update.
SUMS = "on_policy_sums"
# Tokens whose logits are looked at together: of 129,280 float32 logits each, 63 MiB, and a few times that on the way.
TOKENS_AT_ONCE = 128


class UpdateSums:
    """Sums over the answers' tokens of one rank's update."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self._of_passes: list[torch.Tensor] = []
        self._entropy: torch.Tensor | None = None

    def note_entropy(self, entropy: torch.Tensor) -> None:
        """The entropies [batch, sequence length] of the forward pass whose loss is computed next."""
        self._entropy = entropy

    def take_entropy(self, responses: int) -> torch.Tensor:
        """Those of the last `responses` tokens of each sequence; the one at a place is of what comes after it."""
        assert self._entropy is not None, "a loss without the forward pass before it"
        entropy, self._entropy = self._entropy[:, -responses - 1 : -1], None
        return entropy

    def add(
        self, rollout_log_prob: torch.Tensor, log_prob: torch.Tensor, entropy: torch.Tensor, mask: torch.Tensor
    ) -> None:
        """Add a micro-batch; all are [batch, response length], and what `mask` leaves out is not looked at."""
        wanted = mask.bool()
        rollout, actor, entropies = (
            torch.where(wanted, column.detach().float(), 0.0) for column in (rollout_log_prob, log_prob, entropy)
        )
        x, y = -rollout.expm1(), -actor.expm1()
        distances = (x - y).abs()
        columns = [wanted, x, y, x * x, y * y, x * y, distances, distances**2, rollout - actor, entropies]
        self._of_passes.append(torch.stack([*(column.sum(dtype=torch.float32) for column in columns), distances.max()]))

    def values(self) -> list[float]:
        """The numbers of `Sums`, in their order: all 0 on a stage that computes no loss."""
        if not self._of_passes:
            return [0.0] * len(fields(Sums))
        passes = torch.stack(self._of_passes)
        return [number.item() for number in (*passes[:, :-1].sum(0), passes[:, -1].max())]


@dataclass(frozen=True)
class Sums:
    """Over all tokens of a step's answers; x and y are 1 less the probabilities that rollout and actor gave them: most
    are near 1, and little is lost in the differences of sums of small numbers."""

    tokens: float
    x: float
    y: float
    xx: float
    yy: float
    xy: float
    distance: float  # |x - y|
    distance_squared: float
    log_ratio: float  # log (1 - x) - log (1 - y)
    entropy: float
    largest_distance: float

    @classmethod
    def of_ranks(cls, values: Sequence[Sequence[float]]) -> Sums:
        """Of all ranks together, each of which has given its `UpdateSums.values`."""
        *columns, largest = zip(*values, strict=True)
        return cls(*(sum(column) for column in columns), largest_distance=max(largest))  # type: ignore[misc]


def metrics_of(sums: Sums) -> dict[str, float]:
    """verl's metrics of the agreement, by their names and formulas there (verl/utils/debug/metrics.py), our divergence,
    and the mean entropy; what cannot be told from so few tokens is left out."""
    n = sums.tokens
    if not n:
        return {}
    metrics = {
        ENTROPY: sums.entropy / n,
        "training/rollout_probs_diff_valid": 1,
        PROBABILITY_GAP: sums.largest_distance,
        "training/rollout_probs_diff_mean": sums.distance / n,
        KL: sums.log_ratio / n,
    }
    if n > 1:
        spread = max(0.0, sums.distance_squared - sums.distance**2 / n)
        metrics["training/rollout_probs_diff_std"] = math.sqrt(spread / (n - 1))
    spread_x, spread_y = sums.xx - sums.x**2 / n, sums.yy - sums.y**2 / n
    if spread_x > 0 and spread_y > 0:
        correlation = (sums.xy - sums.x * sums.y / n) / math.sqrt(spread_x * spread_y)
        metrics[PEARSON] = min(1.0, correlation)
    return metrics


_running: UpdateSums | None = None


@contextmanager
def summing(temperature: float) -> Iterator[UpdateSums]:
    """Within the block this process makes an update whose passes are summed up."""
    global _running
    _running = UpdateSums(temperature)
    try:
        yield _running
    finally:
        _running = None


def running_sums() -> UpdateSums | None:
    """The sums of the update that this process is in; None outside one, or where nobody wants them."""
    return _running


@torch.no_grad()
def entropy_of(logits: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """Entropy in nats of the distribution that each token's logits are of, where it is wanted; 0 elsewhere.

    Args:
        logits: [1, tokens, a tensor-parallel rank's share of the vocabulary], before the temperature; not changed.
        wanted: [1, tokens] bool.

    Returns:
        [1, tokens] of the type of the logits.
    """
    from verl.utils.megatron.tensor_parallel import vocab_parallel_entropy

    rows = logits.flatten(0, 1)
    entropy = rows.new_zeros(len(rows))
    for places in wanted.flatten().nonzero().squeeze(1).split(TOKENS_AT_ONCE):
        entropy[places] = vocab_parallel_entropy(rows[places].div_(temperature))
    return entropy.view(wanted.shape)
