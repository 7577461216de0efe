# SPDX-License-Identifier: Apache-2.0
"""The verdicts of the reward among the metrics of a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from verl import DataProto


def step(**columns: Any) -> DataProto:
    ones = torch.ones(3, 2)
    names = ("token_level_scores", "token_level_rewards", "advantages", "returns", "response_mask")
    tensors = {name: ones for name in names}
    tensors |= {"responses": ones.long(), "attention_mask": torch.ones(3, 4).long()}
    return DataProto.from_dict(tensors=tensors, non_tensors={name: np.array(value) for name, value in columns.items()})


@pytest.mark.proves("verl_patches.trainer.ppo.metric_utils:compute_data_metrics")
def test_the_trainer_logs_how_many_samples_had_each_verdict() -> None:
    from verl.trainer.ppo.ray_trainer import compute_data_metrics

    data = step(verdict=["correct", "unparseable", "unparseable"], lost_workers=[0, 2, 1])
    metrics = compute_data_metrics(batch=data, use_critic=False)
    assert {name: value for name, value in metrics.items() if name.startswith("reward/")} == {
        "reward/correct": 1, "reward/wrong": 0, "reward/no_answer": 0, "reward/unparseable": 2, "reward/timeout": 0,
        "reward/error": 0, "reward/copied": 0, "reward/lost_workers": 3,
    }  # fmt: skip
    assert metrics["critic/score/mean"] == 2.0


def test_without_verdicts_there_is_nothing_to_count() -> None:
    from verl.trainer.ppo.metric_utils import compute_data_metrics

    assert not [name for name in compute_data_metrics(step(), use_critic=False) if name.startswith("reward/")]
