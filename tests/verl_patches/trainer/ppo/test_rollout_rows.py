# SPDX-License-Identifier: Apache-2.0
"""Rows come back from the engines as they went; the samples of a prompt go to different ones, each with its seed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import verl.trainer.ppo.ray_trainer as ray_trainer
from omegaconf import OmegaConf
from verl import DataProto

from tests.verl_patches.trainer.ppo.without_ray import trainer_without_ray
from verl_patches.trainer.ppo.rollout_rows import SPREAD_OPTION, around_rollout, row_seeds
from verl_patches.workers.rollout.vllm_rollout.request_seeds import SEEDS
from vllm_patches.draws import OPTION

ENGINES, PROMPTS, SAMPLES = 8, 6, 4
CONFIG = OmegaConf.create(
    {
        "data": {"seed": 7},
        "trainer": {"nnodes": 2, "n_gpus_per_node": 8},
        "actor_rollout_ref": {"rollout": {"tensor_model_parallel_size": 2}},
    }
)


class Engines:
    """Each is given as many consecutive rows, and answers with what tells prompt, seed and engine."""

    def __init__(self) -> None:
        self.rows: list[DataProto] = []

    def generate_sequences(self, prompts: DataProto) -> DataProto:
        self.rows = prompts.chunk(ENGINES)
        for engine, held in enumerate(self.rows):
            held.batch["engine"] = torch.full((len(held),), engine)
            held.batch["responses"] = held.batch["input_ids"] * 10
        return DataProto.concat(self.rows)


def batch(rows: int = PROMPTS * SAMPLES, **meta_info: Any) -> DataProto:
    names = np.array([f"prompt {row // SAMPLES}" for row in range(rows)], dtype=object)
    return DataProto.from_dict(
        {"input_ids": torch.arange(rows)[:, None]}, {"uid": names}, meta_info={"global_steps": 3} | meta_info
    )


@pytest.fixture(params=["spread", "as they come"])
def spread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setenv(SPREAD_OPTION, str(int(request.param == "spread")))
    monkeypatch.setenv(OPTION, "1")
    return bool(request.param == "spread")


def test_rows_come_back_in_their_order_with_all_that_they_had(spread: bool) -> None:
    engines, sent = Engines(), batch()
    output = around_rollout(engines.generate_sequences, CONFIG)(sent)
    assert output.batch["input_ids"].flatten().tolist() == list(range(PROMPTS * SAMPLES))
    assert output.batch["responses"].flatten().tolist() == [10 * row for row in range(PROMPTS * SAMPLES)]
    assert output.non_tensor_batch["uid"].tolist() == sent.non_tensor_batch["uid"].tolist()
    assert set(output.non_tensor_batch) == set(sent.non_tensor_batch) == {"uid"}, "the seeds went and came not back"
    assert output.meta_info == {"global_steps": 3}


def test_the_samples_of_a_prompt_are_on_different_engines(spread: bool) -> None:
    output = around_rollout(Engines().generate_sequences, CONFIG)(batch())
    of_prompt = output.batch["engine"].view(PROMPTS, SAMPLES)
    counts = [len(set(engines.tolist())) for engines in of_prompt]
    assert (min(counts) == SAMPLES) if spread else (max(counts) <= 2)
    assert torch.bincount(output.batch["engine"]).tolist() == [PROMPTS * SAMPLES // ENGINES] * ENGINES


def test_a_row_has_the_same_seed_on_whatever_engine(spread: bool) -> None:
    engines = Engines()
    around_rollout(engines.generate_sequences, CONFIG)(batch())
    found = {
        int(row): int(seed)
        for held in engines.rows
        for row, seed in zip(held.batch["input_ids"], held.non_tensor_batch[SEEDS], strict=True)
    }
    assert [found[row] for row in range(len(found))] == row_seeds(7, 3, PROMPTS * SAMPLES, validation=False).tolist()


def test_seeds_differ_by_run_step_row_and_validation() -> None:
    every = [
        seed
        for run, step, validation in ((7, 3, False), (8, 3, False), (7, 4, False), (7, 3, True))
        for seed in row_seeds(run, step, 1000, validation).tolist()
    ]
    assert len(set(every)) == len(every) and min(every) >= 0


def test_rows_that_cannot_be_dealt_alike_go_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPREAD_OPTION, "1")
    seen: list[DataProto] = []
    around_rollout(lambda prompts: seen.append(prompts) or prompts, CONFIG)(batch(rows=6))
    assert seen[0].batch["input_ids"].flatten().tolist() == list(range(6))
    assert SEEDS not in seen[0].non_tensor_batch


@pytest.mark.proves("verl_patches.trainer.ppo.ray_trainer:init_workers")
def test_the_trainer_sends_its_rows_that_way(monkeypatch: pytest.MonkeyPatch, spread: bool) -> None:
    config = OmegaConf.merge(
        CONFIG,
        {
            "trainer": {},
            "global_profiler": {},
            "actor_rollout_ref": {"actor": {"policy_loss": {}}, "rollout": {"mode": "sync"}},
        },
    )
    engines = SimpleNamespace(init_model=lambda: None, generate_sequences=Engines().generate_sequences)
    trainer = trainer_without_ray(config, engines, monkeypatch)
    ray_trainer.RayPPOTrainer.init_workers(trainer)
    output = trainer.actor_rollout_wg.generate_sequences(batch())
    assert (output.batch["engine"].view(PROMPTS, SAMPLES)[0].tolist() == [0, 1, 2, 3]) == spread
