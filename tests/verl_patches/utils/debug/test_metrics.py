# SPDX-License-Identifier: Apache-2.0
"""The divergence of the rollout's probabilities from the actor's."""

from __future__ import annotations

import math

import pytest
import torch
from verl.protocol import DataProto
from verl.utils.debug.metrics import calculate_debug_metrics

from verl_patches.utils.debug.metrics import rollout_actor_kl


def batch(rollout: list[list[float]], actor: list[list[float]], **masks: torch.Tensor) -> DataProto:
    tensors = {
        "rollout_log_probs": torch.tensor(rollout),
        "old_log_probs": torch.tensor(actor),
        "responses": torch.zeros(len(rollout), len(rollout[0]), dtype=torch.long),
    }
    return DataProto.from_dict(tensors=tensors | masks)


@pytest.mark.proves("verl_patches.utils.debug.metrics:calculate_debug_metrics")
def test_the_divergence_stands_beside_verls_metrics() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    data = batch([[-1.0, -2.0, 9.0], [-1.0, -3.0, -2.0]], [[-1.5, -2.0, 0.0], [-1.0, -2.0, -2.5]], response_mask=mask)
    metrics = calculate_debug_metrics(data)
    assert metrics["training/rollout_actor_kl"] == pytest.approx((0.5 + 0 + 0 - 1.0 + 0.5) / 5)
    assert "training/rollout_actor_probs_pearson_corr" in metrics


def test_the_response_is_the_end_of_an_attention_mask() -> None:
    mask = torch.tensor([[1, 1, 0, 1, 0]])
    data = batch([[0.0, -1.0, 5.0]], [[7.0, -3.0, 0.0]], attention_mask=mask)
    assert rollout_actor_kl(data) == pytest.approx(2.0)


def test_on_samples_of_the_rollout_it_estimates_the_kl_divergence() -> None:
    torch.manual_seed(0)
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    tokens = torch.multinomial(p, 200_000, replacement=True)
    data = batch([p.log()[tokens].tolist()], [q.log()[tokens].tolist()])
    exact = float((p * (p / q).log()).sum())
    assert math.isclose(rollout_actor_kl(data), exact, rel_tol=0.05)
