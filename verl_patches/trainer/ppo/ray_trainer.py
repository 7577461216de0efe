# SPDX-License-Identifier: Apache-2.0
"""The trainer: no old log-probabilities when on policy, equal workers, checkpoints that are whole and go on exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recipe.overlay import patch
from verl_patches.trainer.ppo.checkpoint_manifest import begin_save, checkpoint_of, finish_save
from verl_patches.trainer.ppo.epochs import count_epochs
from verl_patches.trainer.ppo.on_policy import allow_bypass, require_on_policy, selected, with_agreement
from verl_patches.trainer.ppo.random_states import load_trainer, own_generator, resumed_from, save_trainer
from verl_patches.trainer.ppo.same_overlay import require_same_overlay


@patch(
    "verl.trainer.ppo.ray_trainer:RayPPOTrainer.init_workers",
    why="nothing checks that a run whose loss takes the current log-probabilities for the old ones is on policy; verl "
    "computes agreement and entropy only from a pass for the old ones; and its bypass mode, which makes none, stops at "
    "a key that its own configuration does not allow",
    upstream="verl==0.6.1",
    fingerprint="sha256:6753c44f7bf259517d7047ee2a60e69e34e2bcf19a36c5ccea3189c78944316d",
    remove_when="verl's Megatron actor detects on-policy steps as its FSDP actor does",
)
def init_workers(original: Callable[..., None], self: Any) -> None:
    # NPU-ADAPTATION: loss_mode=npu_on_policy is checked, and its metrics come from the update
    on_policy = selected(self.config.actor_rollout_ref.actor)
    if on_policy:
        require_on_policy(self.config)
    original(self)
    if on_policy:
        allow_bypass(self.config.actor_rollout_ref.actor.policy_loss)
        self.actor_rollout_wg.update_actor = with_agreement(self.actor_rollout_wg)


@patch(
    "verl.trainer.ppo.ray_trainer:RayPPOTrainer.fit",
    why="a worker that some patch has not reached would train unpatched, and its gradients are averaged with those of "
    "the others",
    upstream="verl==0.6.1",
    fingerprint="sha256:4caf2271ab2ffeaed829beba701531469f76cbe947f044d6004d55ce198ba479",
    remove_when="no patches are left",
)
def fit(original: Callable[..., Any], self: Any) -> Any:
    # NPU-ADAPTATION: before anything is sampled or trained, the workers' overlays are compared
    require_same_overlay(self)
    return original(self)


@patch(
    "verl.trainer.ppo.ray_trainer:RayPPOTrainer._save_checkpoint",
    why="nothing tells a whole checkpoint from one that lacks a file or the end of one: verl's note of the last step "
    "is written before the disk has the files, and is itself torn by a crash; and the random states of the trainer's "
    "process are in no checkpoint",
    upstream="verl==0.6.1",
    fingerprint="sha256:b8366961fd020e91dcedcda3b77c7c79dc5a9d7caca5a02db31e1926a0a2fe86",
    remove_when="verl saves them, and writes a list of a checkpoint's files with sizes and checksums, last of all",
)
def _save_checkpoint(original: Callable[..., None], self: Any) -> None:
    """Save the present step; it is whole once its metrics are logged, with which its manifest is written."""
    checkpoint = checkpoint_of(self)
    # NPU-ADAPTATION: random states beside verl's files; each worker brings its files to the disk and sums them
    begin_save(checkpoint)
    save_trainer(checkpoint)
    original(self)
    finish_save(checkpoint, self.global_steps, self.actor_rollout_wg.workers)


@patch(
    "verl.trainer.ppo.ray_trainer:RayPPOTrainer._load_checkpoint",
    why="the random states of the trainer's process are not restored, and training/epoch is counted from the process's "
    "start",
    upstream="verl==0.6.1",
    fingerprint="sha256:e0da6cefc8105e8970b5d86d1764737e0482d0e3aa34283a5212227da0203ec0",
    remove_when="verl restores them, and counts epochs from the step",
)
def _load_checkpoint(original: Callable[..., Any], self: Any) -> Any:
    # NPU-ADAPTATION: random states after everything else; what counts epochs is told how long one is
    own_generator(self.train_dataloader)
    result = original(self)
    count_epochs(len(self.train_dataloader))
    checkpoint = resumed_from(self)
    if checkpoint is not None:
        load_trainer(checkpoint)
    return result
