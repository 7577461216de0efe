# SPDX-License-Identifier: Apache-2.0
"""verl's trainer as far as `init_workers` goes, with a worker group that starts nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import verl.trainer.ppo.ray_trainer as ray_trainer


def trainer_without_ray(config: Any, workers: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `RayPPOTrainer.init_workers` touches; `workers` becomes the actor's and rollout's group."""
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
            spawn=lambda prefix_set: dict.fromkeys(prefix_set, workers)
        ),
    )
