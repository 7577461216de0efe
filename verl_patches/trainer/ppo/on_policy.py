# SPDX-License-Identifier: Apache-2.0
"""Doing without the old log-probabilities: when that is right, and the metrics that verl computes from them."""

# NPU-ADAPTATION: no pass for old log-probabilities that equal the current ones

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from omegaconf import DictConfig, open_dict
from verl import DataProto

from recipe.mismatch.switch import steps_are_recorded
from verl_patches.workers.actor.update_sums import SUMS, Sums, metrics_of

LOSS_MODE = "npu_on_policy"
_MODE_KEY = f"actor_rollout_ref.actor.policy_loss.loss_mode={LOSS_MODE}"


def selected(actor: Any) -> bool:
    """Whether verl's configuration of the actor asks for the on-policy loss."""
    return actor.policy_loss.get("loss_mode", "vanilla") == LOSS_MODE


def require_on_policy(config: Any) -> None:
    """Check that a step makes exactly one optimizer step on what it sampled and uses old log-probabilities nowhere.

    Args:
        config: verl's trainer configuration.

    Raises:
        ValueError: names every setting that contradicts, and what it would have to be.
    """
    actor, rollout, algorithm = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout, config.algorithm
    correction = algorithm.get("rollout_correction", None) or {}
    wrong = []
    if actor.ppo_mini_batch_size != config.data.train_batch_size:
        wrong.append(
            f"actor.ppo_mini_batch_size is {actor.ppo_mini_batch_size}, not data.train_batch_size "
            f"({config.data.train_batch_size}): later mini-batches are off policy"
        )
    if actor.ppo_epochs != 1:
        wrong.append(f"actor.ppo_epochs is {actor.ppo_epochs}, not 1: later epochs are off policy")
    if not correction.get("bypass_mode"):
        wrong.append("algorithm.rollout_correction.bypass_mode is false: verl makes a pass for old log-probabilities")
    if not rollout.get("calculate_log_probs", False):
        wrong.append("rollout.calculate_log_probs is false: verl's bypass mode takes the rollout's log-probabilities")
    for name in ("rollout_is", "rollout_rs", "use_policy_gradient"):
        if correction.get(name):
            wrong.append(f"algorithm.rollout_correction.{name} is {correction[name]}: this loss corrects nothing")
    if algorithm.use_kl_in_reward:
        wrong.append("algorithm.use_kl_in_reward is true: it is computed from the old log-probabilities")
    if wrong:
        raise ValueError(f"{_MODE_KEY} is wrong for this configuration: {'; '.join(wrong)}")


def allow_bypass(policy_loss: DictConfig) -> None:
    """Make room for the key that verl's bypass mode sets in the trainer's own copy of `actor.policy_loss`."""
    with open_dict(policy_loss):
        policy_loss.setdefault("rollout_correction", None)


def with_agreement(workers: Any) -> Callable[[DataProto], DataProto]:
    """The `update_actor` of a group of workers, with metrics of the agreement in the place of its ranks' sums."""
    update_actor = workers.update_actor

    @wraps(update_actor)
    def update(batch: DataProto) -> DataProto:
        if steps_are_recorded():
            workers.compute_log_prob(batch)
        output = update_actor(batch)
        metrics = output.meta_info["metrics"]
        metrics |= {name: [value] for name, value in metrics_of(Sums.of_ranks(metrics.pop(SUMS))).items()}
        return output

    return update
