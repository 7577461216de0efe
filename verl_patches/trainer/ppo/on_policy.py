# SPDX-License-Identifier: Apache-2.0
"""Doing without the old log-probabilities: when that is right, and what stands in for them."""

# NPU-ADAPTATION: no pass for old log-probabilities that equal the current ones

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from verl import DataProto

LOSS_MODE = "npu_on_policy"
_MODE_KEY = f"actor_rollout_ref.actor.policy_loss.loss_mode={LOSS_MODE}"


def selected(config: Any) -> bool:
    """Whether the trainer configuration asks for the on-policy loss."""
    return config.actor_rollout_ref.actor.policy_loss.get("loss_mode", "vanilla") == LOSS_MODE


def require_on_policy(config: Any) -> None:
    """Check that a step makes exactly one optimizer step on what it sampled and uses old log-probabilities nowhere.

    Args:
        config: verl's trainer configuration.

    Raises:
        ValueError: names every setting that contradicts, and what it would have to be.
    """
    actor, rollout, algorithm = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.algorithm
    wrong = []
    if actor.ppo_mini_batch_size != config.data.train_batch_size:
        wrong.append(
            f"actor.ppo_mini_batch_size is {actor.ppo_mini_batch_size}, not data.train_batch_size "
            f"({config.data.train_batch_size}): later mini-batches are off policy"
        )
    if actor.ppo_epochs != 1:
        wrong.append(f"actor.ppo_epochs is {actor.ppo_epochs}, not 1: later epochs are off policy")
    if algorithm.get("rollout_correction", None) and any(
        algorithm.rollout_correction.get(name) for name in ("bypass_mode", "rollout_is", "rollout_rs")
    ):
        wrong.append("algorithm.rollout_correction is set: it compares with the old log-probabilities")
    if rollout.get("calculate_log_probs", False):
        wrong.append("rollout.calculate_log_probs is true: its metrics compare with the old log-probabilities")
    if algorithm.use_kl_in_reward:
        wrong.append("algorithm.use_kl_in_reward is true: it is computed from the old log-probabilities")
    if wrong:
        raise ValueError(f"{_MODE_KEY} is wrong for this configuration: {'; '.join(wrong)}")


def stand_in_for_log_prob(temperature: float) -> Callable[[DataProto], DataProto]:
    """A replacement for the worker group's `compute_log_prob`, computed on the driver from shapes alone.

    The result has `old_log_probs` of zeros, which the on-policy loss does not read, and `entropys` of NaN, since none
    was computed, both float32 [batch, response length]; and the temperature in `meta_info`, which the actor's update
    takes from there.
    """

    def compute_log_prob(batch: DataProto) -> DataProto:
        shape = batch.batch["responses"].shape
        return DataProto.from_dict(
            tensors={
                "old_log_probs": torch.zeros(shape, dtype=torch.float32),
                "entropys": torch.full(shape, float("nan"), dtype=torch.float32),
            },
            meta_info={"temperature": temperature},
        )

    return compute_log_prob
