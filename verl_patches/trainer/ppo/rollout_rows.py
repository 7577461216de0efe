# SPDX-License-Identifier: Apache-2.0
"""The batch on its way to the engines and back: each row's seed, and the samples of a prompt on different engines."""

# NPU-ADAPTATION: rows are dealt to the engines, with a seed each, and come back in their order

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from verl import DataProto

from verl_patches.workers.rollout.vllm_rollout.balance.spread import dealt_order
from verl_patches.workers.rollout.vllm_rollout.request_seeds import SEEDS
from vllm_patches.draws import asked_for as seeds_asked_for

SPREAD_OPTION = "RECIPE_SPREAD_SAMPLES"


def around_rollout(generate: Callable[..., DataProto], config: Any) -> Callable[..., DataProto]:
    """`generate`, the rollout of a worker group, with what the run asks for done to the rows before and undone after.

    Args:
        generate: gives each engine as many consecutive rows, and returns theirs in the same order.
        config: verl's trainer configuration.
    """

    def generate_sequences(prompts: DataProto, *args: Any, **kwargs: Any) -> DataProto:
        rows, order = len(prompts), None
        if os.environ.get(SPREAD_OPTION, "0") == "1" and rows % _engines(config) == 0:
            order = torch.tensor(dealt_order(rows, _engines(config)))
        if seeds_asked_for():
            seed, step = int(config.data.get("seed") or 0), prompts.meta_info.get("global_steps", 0)
            seeds = row_seeds(seed, step, rows, validation=prompts.meta_info.get("validate", False))
            prompts = DataProto(prompts.batch, prompts.non_tensor_batch | {SEEDS: seeds}, prompts.meta_info)
        output = generate(prompts if order is None else prompts.select_idxs(order), *args, **kwargs)
        output.non_tensor_batch.pop(SEEDS, None)
        if order is not None:
            output.reorder(torch.argsort(order))
        return output

    return generate_sequences


def _engines(config: Any) -> int:
    trainer = config.trainer
    return int(trainer.nnodes * trainer.n_gpus_per_node // config.actor_rollout_ref.rollout.tensor_model_parallel_size)


def row_seeds(run_seed: int, step: int, rows: int, validation: bool) -> np.ndarray:
    """A seed for each row, int64 of [rows]; of another step, row or run, and in validation, it is another one."""
    digests = (
        hashlib.blake2b(repr((run_seed, step, validation, row)).encode(), digest_size=8).digest() for row in range(rows)
    )
    return np.array([int.from_bytes(digest, "big") >> 1 for digest in digests], dtype=np.int64)
