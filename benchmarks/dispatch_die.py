# SPDX-License-Identifier: Apache-2.0
"""The worker of benchmarks/dispatch.py: verl's methods with their signatures and results, and no model behind them.

A module of its own, as Ray's workers import it by name.
"""

from __future__ import annotations

import time

import torch
from verl import DataProto
from verl.single_controller.base import Worker
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register

VOCABULARY = 129_280


class Die(Worker):
    """Takes what verl's workers of a step take, and gives what they give, at once.

    Args:
        pipeline: stages of the actor; the dies of one stage follow each other, as in Megatron-core.
        rollout_tensor_parallel: dies of one rollout engine.
        response: tokens of every answer.
    """

    def __init__(self, pipeline: int, rollout_tensor_parallel: int, response: int) -> None:
        super().__init__()
        data_parallel = self.world_size // pipeline
        stage, tensor_rank = self.rank // data_parallel, self.rank % rollout_tensor_parallel
        self._register_dispatch_collect_info("actor", self.rank % data_parallel, is_collect=stage == pipeline - 1)
        self._register_dispatch_collect_info(
            "rollout", self.rank // rollout_tensor_parallel, is_collect=tensor_rank == 0
        )
        self._response = response
        self._at_work: tuple[float, float] = (0.0, 0.0)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def at_work(self) -> tuple[float, float]:
        """When the last method began and ended, seconds of this machine's clock."""
        return self._at_work

    def _log_probs(self, data: DataProto, *names: str) -> DataProto:
        began = time.time()
        shape = data.batch["responses"].shape
        given = DataProto.from_dict(tensors={name: torch.rand(shape) for name in names})
        self._at_work = began, time.time()
        return given

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="rollout"))
    def generate_sequences(self, prompts: DataProto) -> DataProto:
        """Answers of random tokens, all of the longest length."""
        began = time.time()
        ids = prompts.batch["input_ids"]
        answers = torch.randint(VOCABULARY, (len(ids), self._response))
        positions = torch.arange(self._response) + 1
        tensors = {
            "prompts": ids,
            "responses": answers,
            "input_ids": torch.cat([ids, answers], dim=-1),
            "attention_mask": torch.cat([prompts.batch["attention_mask"], torch.ones_like(answers)], dim=-1),
            "position_ids": torch.cat(
                [prompts.batch["position_ids"], prompts.batch["position_ids"][:, -1:] + positions], dim=-1
            ),
        }
        objects = {name: value for name, value in prompts.non_tensor_batch.items() if name != "raw_prompt_ids"}
        given = DataProto.from_dict(tensors=tensors, non_tensors=objects)
        self._at_work = began, time.time()
        return given

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_log_prob(self, data: DataProto) -> DataProto:
        """Every stage of the pipeline returns all of them: the last one broadcasts."""
        return self._log_probs(data, "old_log_probs", "entropys")

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def compute_ref_log_prob(self, data: DataProto) -> DataProto:
        return self._log_probs(data, "ref_log_prob")

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="actor"))
    def update_actor(self, data: DataProto) -> DataProto:
        began = time.time()
        given = DataProto(meta_info={"metrics": {"actor/pg_loss": [0.0]}})
        self._at_work = began, time.time()
        return given
