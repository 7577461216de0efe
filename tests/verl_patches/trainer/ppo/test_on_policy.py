# SPDX-License-Identifier: Apache-2.0
"""The on-policy loss equals verl's where it may be used, and is refused where it may not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import verl.trainer.ppo.ray_trainer as ray_trainer
from omegaconf import DictConfig, OmegaConf
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.trainer.ppo.rollout_corr_helper import apply_rollout_correction
from verl.workers.config import ActorConfig

from tests.verl_patches.trainer.ppo.without_ray import trainer_without_ray
from verl_patches.trainer.ppo.on_policy import require_on_policy
from verl_patches.workers.actor.update_sums import SUMS, UpdateSums


def trainer_config(**changes: Any) -> DictConfig:
    config = OmegaConf.create(
        {
            "data": {"train_batch_size": 8},
            "algorithm": {"use_kl_in_reward": False, "rollout_correction": {"bypass_mode": True, "rollout_is": None}},
            "trainer": {},
            "global_profiler": {},
            "actor_rollout_ref": {
                "actor": {"ppo_mini_batch_size": 8, "ppo_epochs": 1, "policy_loss": {"loss_mode": "npu_on_policy"}},
                "rollout": {"calculate_log_probs": True, "temperature": 0.9, "mode": "sync"},
            },
        }
    )
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    OmegaConf.set_struct(config, True)
    return config


@pytest.mark.proves("verl_patches.trainer.ppo.core_algos:register_on_policy_loss")
def test_loss_and_gradient_equal_the_clipped_objective_with_equal_log_probabilities() -> None:
    torch.manual_seed(0)
    config = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio=0.2)
    advantages, mask = torch.randn(4, 6), torch.rand(4, 6) > 0.3
    results = []
    for mode in ("vanilla", "npu_on_policy"):
        log_prob = torch.linspace(-3, -0.1, 24).view(4, 6).requires_grad_()
        old = log_prob.detach() if mode == "vanilla" else torch.zeros(4, 6)
        loss, metrics = get_policy_loss_fn(mode)(
            old_log_prob=old,
            log_prob=log_prob,
            advantages=advantages,
            response_mask=mask,
            loss_agg_mode="token-mean",
            config=config,
            rollout_is_weights=None,
        )
        loss.backward()
        results.append((loss.item(), log_prob.grad, metrics))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1]) and results[0][1].abs().sum() > 0
    assert results[0][2] == results[1][2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actor_rollout_ref__actor__ppo_mini_batch_size": 4}, "ppo_mini_batch_size is 4"),
        ({"actor_rollout_ref__actor__ppo_epochs": 2}, "ppo_epochs is 2"),
        ({"algorithm__rollout_correction__bypass_mode": False}, "bypass_mode is false"),
        ({"algorithm__rollout_correction": None}, "bypass_mode is false"),
        ({"algorithm__rollout_correction__rollout_is": "token"}, "rollout_is is token"),
        ({"algorithm__rollout_correction__use_policy_gradient": True}, "use_policy_gradient is True"),
        ({"actor_rollout_ref__rollout__calculate_log_probs": False}, "calculate_log_probs is false"),
        ({"algorithm__use_kl_in_reward": True}, "use_kl_in_reward"),
    ],
)
def test_configurations_that_need_old_log_probabilities_are_refused(changes: dict[str, Any], message: str) -> None:
    require_on_policy(trainer_config())
    with pytest.raises(ValueError, match=message):
        require_on_policy(trainer_config(**changes))


def test_all_that_is_wrong_is_said_at_once() -> None:
    config = trainer_config(actor_rollout_ref__actor__ppo_epochs=3, algorithm__use_kl_in_reward=True)
    with pytest.raises(ValueError, match=r"ppo_epochs is 3.*use_kl_in_reward"):
        require_on_policy(config)


@pytest.fixture
def workers() -> SimpleNamespace:
    """A worker group of two ranks."""
    sums = UpdateSums(temperature=1.0)
    sums.add(torch.zeros(1, 2), torch.zeros(1, 2), torch.full((1, 2), 0.25), torch.ones(1, 2))
    metrics = {"actor/lr": [1e-6, 1e-6], SUMS: [sums.values(), sums.values()]}
    group = SimpleNamespace(
        init_model=lambda: None,
        passes=[],
        generate_sequences=lambda batch: None,
        compute_log_prob=lambda batch: group.passes.append(batch),
        update_actor=lambda batch: DataProto(meta_info={"metrics": dict(metrics)}),
    )
    return group


@pytest.mark.proves("verl_patches.trainer.ppo.ray_trainer:init_workers")
def test_the_metrics_of_the_agreement_come_with_the_update(
    workers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_without_ray(trainer_config(), workers, monkeypatch)
    ray_trainer.RayPPOTrainer.init_workers(trainer)
    metrics = trainer.actor_rollout_wg.update_actor(None).meta_info["metrics"]
    assert metrics["actor/lr"] == [1e-6, 1e-6] and metrics["actor/entropy"] == [0.25]
    assert "training/rollout_actor_probs_pearson_corr" not in metrics and SUMS not in metrics
    assert trainer.actor_rollout_wg.passes == []
    apply_rollout_correction(
        DataProto.from_dict(tensors={"rollout_log_probs": torch.zeros(1, 2)}),
        trainer.config.algorithm.rollout_correction,
        trainer.config.actor_rollout_ref.actor.policy_loss,
    )


def test_a_step_that_is_recorded_has_the_pass_all_the_same(
    workers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_without_ray(trainer_config(), workers, monkeypatch)
    ray_trainer.RayPPOTrainer.init_workers(trainer)
    monkeypatch.setenv("RECIPE_MISMATCH_STEPS", "1")
    trainer.actor_rollout_wg.update_actor("a batch")
    assert trainer.actor_rollout_wg.passes == ["a batch"]


def test_another_loss_leaves_the_trainer_alone(workers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    config = trainer_config(
        actor_rollout_ref__actor__policy_loss__loss_mode="vanilla", actor_rollout_ref__actor__ppo_epochs=2
    )
    trainer = trainer_without_ray(config, workers, monkeypatch)
    ray_trainer.RayPPOTrainer.init_workers(trainer)
    assert SUMS in trainer.actor_rollout_wg.update_actor(None).meta_info["metrics"]


def test_a_refused_configuration_starts_no_worker(workers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_without_ray(trainer_config(actor_rollout_ref__actor__ppo_epochs=2), workers, monkeypatch)
    with pytest.raises(ValueError, match="ppo_epochs"):
        ray_trainer.RayPPOTrainer.init_workers(trainer)
    assert not hasattr(trainer, "actor_rollout_wg")
