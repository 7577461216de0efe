# SPDX-License-Identifier: Apache-2.0
"""Runs without Ray: verl's two workers of a die, two steps, and the device's byte counters in between.

For tests/ranks.py; the job holds the hydra overrides of the run, lengths, batches, how experts are chosen, the seed,
and where the result goes. A rank writes `<out>.<rank>.json`: of every point of the last step, the bytes allocated there
and the most since the point before; the number of blocks of the KV cache; by phase the most tokens that its experts
were sent in a layer, as a multiple of an even share; and the host memory that saving a checkpoint takes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import numpy as np
import torch
import vllm.v1.engine.llm_engine  # noqa: F401  imported here once, not by each rank
import vllm_ascend.models.deepseek_v2
import vllm_ascend.worker.worker_v1  # noqa: F401
from hydra import compose, initialize_config_module
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync
from megatron.core.transformer.moe.router import Router
from megatron.core.transformer.moe.token_dispatcher import MoEAlltoAllTokenDispatcher
from tensordict import TensorDict
from torch_npu import _sim
from verl import DataProto
from verl.workers import megatron_workers

from recipe.plan.saving import FROM_DIES, FROM_HOST

LOADS = ("load_megatron_model_to_gpu", "load_megatron_optimizer", "offload_megatron_model_to_cpu")


class Counters:
    """Readings of the device's byte counters, by the phase and the point in it."""

    def __init__(self) -> None:
        self.phase = "build"
        self.points: dict[str, dict[str, int]] = {}

    def read(self, point: str) -> None:
        self.points[f"{self.phase}.{point}"] = {
            "allocated": torch.npu.memory_allocated(),
            "peak": torch.npu.max_memory_allocated(),
            "pinned": _sim.pinned_bytes(),
        }
        torch.npu.reset_peak_memory_stats()

    def read_after(self, owner: Any, name: str, before: bool = False) -> None:
        """From now on `owner.name(...)` is followed by a reading at `name`, and follows one `before` it."""
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if before:
                self.read(f"before_{name}")
            result = original(*args, **kwargs)
            self.read(name)
            return result

        setattr(owner, name, call)

    def read_around_async(self, owner: Any, name: str) -> None:
        """From now on `await owner.name(...)` has a reading before it and one after it, named with its tags."""
        original = getattr(owner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            point = "_".join([name, *kwargs.get("tags", [])])
            self.read(f"before_{point}")
            result = await original(*args, **kwargs)
            self.read(point)
            return result

        setattr(owner, name, call)


def chosen_experts(tokens: int, experts: int, chosen: int, on_first_half: int) -> torch.Tensor:
    """Of every token, which experts: so many of the first half, evenly spread within each half.

    Returns:
        [tokens, experts], 1.0 where a token goes and 0.0 elsewhere.
    """
    half = experts // 2
    out = torch.zeros(tokens, experts, dtype=torch.float64)
    for token in range(tokens):
        for start, count in ((0, on_first_half), (half, chosen - on_first_half)):
            for number in range(count):
                out[token, start + (token + number) % half] = 1.0
    return out


def choose_experts(on_first_half: int) -> None:
    """From now on the router's choice is that of `chosen_experts`: its logits are overwritten where they lie."""
    original = Router.gating

    def gating(self: Any, input: torch.Tensor) -> torch.Tensor:
        logits = original(self, input)
        tokens, experts = logits.view(-1, logits.shape[-1]).shape
        wanted = chosen_experts(tokens, experts, self.config.moe_router_topk, on_first_half)
        with torch.no_grad():
            logits.copy_(wanted.to(logits.dtype).view(logits.shape))
        return logits

    Router.gating = gating


def read_loads(counters: Counters) -> dict[str, float]:
    """From now on, by phase, the most tokens that were sent to this die's experts as a multiple of an even share."""
    loads: dict[str, float] = {}
    original = MoEAlltoAllTokenDispatcher.token_permutation

    def token_permutation(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = original(self, hidden_states, *args, **kwargs)
        even = hidden_states.numel() // hidden_states.shape[-1] * self.config.moe_router_topk * self.tp_size
        loads[counters.phase] = max(loads.get(counters.phase, 0.0), result[0].shape[0] / even)
        return result

    MoEAlltoAllTokenDispatcher.token_permutation = token_permutation
    return loads


def prompts(count: int, length: int, vocabulary: int) -> DataProto:
    ids = torch.randint(8, vocabulary, (count, length))
    mask = torch.ones_like(ids)
    batch = DataProto(
        batch=TensorDict({"input_ids": ids, "attention_mask": mask, "position_ids": mask.cumsum(-1) - 1}, count),
        meta_info={"eos_token_id": 1, "pad_token_id": 0, "do_sample": True},
    )
    raw = np.empty(count, dtype=object)
    raw[:] = ids.tolist()
    batch.non_tensor_batch["raw_prompt_ids"] = raw
    return batch


def sequences(count: int, prompt: int, response: int, vocabulary: int) -> DataProto:
    """A batch in which every sequence is as long as it may be, as the trainer sees it after the advantages."""
    ids = torch.randint(8, vocabulary, (count, prompt + response))
    mask = torch.ones_like(ids)
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": mask.cumsum(-1) - 1,
        "responses": ids[:, -response:].clone(),
        "response_mask": mask[:, -response:].clone(),
        "advantages": torch.randn(count, response),
    }
    return DataProto(batch=TensorDict(tensors, count), meta_info={"temperature": 1.0})


def run_step(actor: Any, ref: Any, job: dict[str, Any], counters: Counters, seed: int) -> None:
    """What verl's trainer asks of the workers in a step."""
    vocabulary = int(actor.hf_config.vocab_size)
    counters.phase = "rollout"
    counters.read("begin")
    actor.generate_sequences(prompts(job["rollout_sequences"], job["prompt"], vocabulary))
    torch.manual_seed(seed)
    data = sequences(job["actor_sequences"], job["prompt"], job["response"], vocabulary)
    counters.phase = "log_prob"
    counters.read("begin")
    old = actor.compute_log_prob(data)
    counters.phase = "ref"
    counters.read("begin")
    reference = ref.compute_ref_log_prob(data)
    data.batch["old_log_probs"] = old.batch["old_log_probs"]
    data.batch["ref_log_prob"] = reference.batch["ref_log_prob"]
    data.meta_info |= {"temperature": 1.0, "global_token_num": [job["prompt"] + job["response"]] * len(data)}
    counters.phase = "update"
    counters.read("begin")
    actor.update_actor(data)


def save(actor: Any, directory: Path) -> dict[str, int]:
    """Saves a checkpoint as verl's trainer asks for it, and reads the host memory while it is written.

    Returns:
        by the names of the plan: page-locked bytes more than before, and bytes of copies in ordinary memory.
    """
    counted = {FROM_DIES: -_sim.pinned_bytes(), FROM_HOST: 0}
    prepare, preload = FileSystemWriterAsync.prepare_write_data, FileSystemWriterAsync.preload_tensors
    clone = torch.Tensor.clone

    def counting_clone(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        made = clone(tensor, *args, **kwargs)
        counted[FROM_HOST] += made.nbytes if made.is_cpu else 0
        return made

    def prepare_write_data(self: Any, *args: Any) -> None:
        torch.Tensor.clone = counting_clone
        try:
            prepare(self, *args)
        finally:
            torch.Tensor.clone = clone

    def preload_tensors(*args: Any) -> Any:
        loaded = preload(*args)
        counted[FROM_DIES] += _sim.pinned_bytes()
        return loaded

    FileSystemWriterAsync.prepare_write_data = prepare_write_data
    FileSystemWriterAsync.preload_tensors = staticmethod(preload_tensors)
    actor.save_checkpoint(str(directory / "global_step_2" / "actor"), global_step=2)
    return counted


def run(job: dict[str, Any], rank: int) -> None:
    """What one rank does."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer", overrides=job["overrides"]).actor_rollout_ref
    torch.manual_seed(job["seed"])
    counters = Counters()
    loads = read_loads(counters)
    if job["on_first_half"] is not None:
        choose_experts(job["on_first_half"])
    for name in LOADS:
        counters.read_after(megatron_workers, name)
    worker = megatron_workers.ActorRolloutRefWorker
    actor, ref = worker(config, role="actor_rollout"), worker(config, role="ref")
    ref.init_model()
    actor.init_model()
    for name in ("resume", "update_weights", "release"):
        counters.read_around_async(actor.rollout, name)
    counters.read_after(actor.actor_optimizer, "step", before=True)
    # The second step starts from what the first one has left behind.
    for number in range(2):
        loads.clear()
        run_step(actor, ref, job, counters, seed=job["seed"] + number)
    core = actor.rollout.inference_engine.llm_engine.engine_core.engine_core
    blocks = core.scheduler.kv_cache_config.num_blocks
    saved = save(actor, Path(job["out"]).parent)
    result = {"points": counters.points, "kv_blocks": blocks, "expert_load": loads, "saved": saved}
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps(result))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
