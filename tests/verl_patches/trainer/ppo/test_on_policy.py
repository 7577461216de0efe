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
from verl.workers.config import ActorConfig

from verl_patches.trainer.ppo.on_policy import require_on_policy, stand_in_for_log_prob


def trainer_config(**changes: Any) -> DictConfig:
    config = OmegaConf.create(
        {
            "data": {"train_batch_size": 8},
            "algorithm": {"use_kl_in_reward": False, "rollout_correction": None},
            "trainer": {},
            "global_profiler": {},
            "actor_rollout_ref": {
                "actor": {"ppo_mini_batch_size": 8, "ppo_epochs": 1, "policy_loss": {"loss_mode": "npu_on_policy"}},
                "rollout": {"calculate_log_probs": False, "temperature": 0.9, "mode": "sync"},
            },
        }
    )
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value)
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
        ({"algorithm__rollout_correction": {"bypass_mode": True}}, "rollout_correction"),
        ({"algorithm__rollout_correction": {"rollout_is": "token"}}, "rollout_correction"),
        ({"actor_rollout_ref__rollout__calculate_log_probs": True}, "calculate_log_probs"),
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


def test_the_stand_in_has_shape_type_and_temperature() -> None:
    batch = DataProto.from_dict(tensors={"responses": torch.ones(3, 5, dtype=torch.long)})
    stand_in = stand_in_for_log_prob(0.9)(batch)
    assert stand_in.batch["old_log_probs"].dtype == torch.float32
    assert torch.equal(stand_in.batch["old_log_probs"], torch.zeros(3, 5))
    assert stand_in.batch["entropys"].isnan().all() and stand_in.batch["entropys"].shape == (3, 5)
    assert stand_in.meta_info == {"temperature": 0.9}


def trainer_without_ray(config: DictConfig, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `RayPPOTrainer.init_workers` touches, with worker groups that start nothing."""
    group = SimpleNamespace(
        init_model=lambda: None, compute_log_prob=lambda batch: "a forward pass", generate_sequences=lambda batch: None
    )
    monkeypatch.setattr(ray_trainer, "RayClassWithInitArgs", lambda **kwargs: kwargs)
    monkeypatch.setattr(ray_trainer, "create_colocated_worker_cls", lambda class_dict: class_dict)
    return SimpleNamespace(
        config=config,
        resource_pool_manager=SimpleNamespace(
            create_resource_pool=lambda: None, resource_pool_dict={"all": "pool"}, get_resource_pool=lambda role: "pool"
        ),
        hybrid_engine=True,
        role_worker_mapping={ray_trainer.Role.ActorRollout: object},
        use_critic=False,
        use_reference_policy=False,
        use_rm=False,
        device_name="npu",
        ray_worker_group_cls=lambda **kwargs: SimpleNamespace(
            spawn=lambda prefix_set: dict.fromkeys(prefix_set, group)
        ),
    )


@pytest.mark.proves("verl_patches.trainer.ppo.ray_trainer:init_workers")
def test_the_trainer_makes_no_forward_pass_for_old_log_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_without_ray(trainer_config(), monkeypatch)
    ray_trainer.RayPPOTrainer.init_workers(trainer)
    batch = DataProto.from_dict(tensors={"responses": torch.ones(2, 3, dtype=torch.long)})
    assert trainer.actor_rollout_wg.compute_log_prob(batch).meta_info["temperature"] == 0.9


def test_another_loss_leaves_the_trainer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = trainer_config(
        actor_rollout_ref__actor__policy_loss__loss_mode="vanilla", actor_rollout_ref__actor__ppo_epochs=2
    )
    trainer = trainer_without_ray(config, monkeypatch)
    ray_trainer.RayPPOTrainer.init_workers(trainer)
    assert trainer.actor_rollout_wg.compute_log_prob(None) == "a forward pass"


def test_a_refused_configuration_starts_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_without_ray(trainer_config(actor_rollout_ref__actor__ppo_epochs=2), monkeypatch)
    with pytest.raises(ValueError, match="ppo_epochs"):
        ray_trainer.RayPPOTrainer.init_workers(trainer)
    assert not hasattr(trainer, "actor_rollout_wg")
