# SPDX-License-Identifier: Apache-2.0
"""A policy loss for exactly on-policy steps, in which the old log-probabilities are the current ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recipe.overlay import patch
from verl_patches.workers.actor.update_sums import running_sums


def on_policy_loss(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """verl's clipped objective with `log_prob.detach()` for the old log-probabilities.

    On the first and only optimizer step after a rollout the two are equal, so loss and gradient are too, and the
    forward pass that would compute the old ones is saved. All tensors are [batch, response length].

    Args:
        old_log_prob: the rollout's, as verl gives them in its bypass mode; only compared with `log_prob`.
    """
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    sums = running_sums()
    if sums is not None:
        sums.add(old_log_prob, log_prob, sums.take_entropy(log_prob.shape[1]), response_mask)
    vanilla: Callable[..., tuple[torch.Tensor, dict[str, Any]]] = get_policy_loss_fn("vanilla")
    return vanilla(log_prob.detach(), log_prob, advantages, response_mask, *args, **kwargs)


@patch(
    "verl.trainer.ppo.core_algos:POLICY_LOSS_REGISTRY",
    key="npu_on_policy",
    kind="registry",
    why="verl's Megatron actor always pays a forward pass for the old log-probabilities, also when they are the "
    "current ones (105 s of a 1045 s step in the reference run)",
    upstream="verl==0.6.1",
    fingerprint="sha256:d780a94dc5c9f1430713ad6797c7c1dda0924d7d0b164dcf8f7002c368c57d61",
    remove_when="verl's Megatron actor detects on-policy steps as its FSDP actor does",
)
def register_on_policy_loss() -> Callable[..., tuple[torch.Tensor, dict[str, Any]]]:
    # NPU-ADAPTATION: actor.policy_loss.loss_mode=npu_on_policy
    """The loss under the name that `actor_rollout_ref.actor.policy_loss.loss_mode` selects."""
    return on_policy_loss
