# SPDX-License-Identifier: Apache-2.0
"""How far the rollout's probabilities are from the actor's, as a divergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recipe.overlay import patch

KL = "training/rollout_actor_kl"


@patch(
    "verl.utils.debug.metrics:calculate_debug_metrics",
    why="verl reports differences and the correlation of the probabilities, but not the divergence, which says whether "
    "the sampler still samples from the policy that is trained",
    upstream="verl==0.6.1",
    fingerprint="sha256:6d629c703655163a742ea0293df2a3c41fbc159d85d945d96b2f41b8044dd7ff",
    remove_when="verl reports the divergence between rollout and actor among these metrics",
)
def calculate_debug_metrics(original: Callable[..., dict[str, Any]], data: Any) -> dict[str, Any]:
    # NPU-ADAPTATION: adds training/rollout_actor_kl to what verl computes
    metrics = original(data)
    metrics[KL] = rollout_actor_kl(data)
    return metrics


def rollout_actor_kl(data: Any) -> float:
    """KL(rollout || actor) in nats, estimated on the sampled tokens: the mean of log p_rollout - log p_actor.

    Args:
        data: a DataProto with `rollout_log_probs`, `old_log_probs` [batch, response length] and `response_mask` or
            `attention_mask`, whose last columns are the response's.
    """
    rollout, actor = data.batch["rollout_log_probs"], data.batch["old_log_probs"]
    masks = [data.batch[name] for name in ("response_mask", "attention_mask") if name in data.batch]
    mask = masks[0][:, -actor.shape[1] :].bool() if masks else torch.ones_like(actor, dtype=torch.bool)
    return float((rollout - actor)[mask].double().mean())
