# SPDX-License-Identifier: Apache-2.0
"""verl's own workers of a die: verl's weight sync and the direct one, after each of several changes of the weights.

For tests/ranks.py, with RECIPE_DIRECT_SYNC set; a rank writes `<out>.<rank>.json`: the bytes that a sync brings it, and
a hash of the rollout after the last one. `save_to`, `load_from` of a job: checkpoints, after the last sync and before
the first, which then has the weights of the checkpoint.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import torch
import vllm.v1.engine.llm_engine  # noqa: F401  imported here once, not by each rank
import vllm_ascend.models.deepseek_v2
import vllm_ascend.worker.worker_v1  # noqa: F401
from hydra import compose, initialize_config_module
from verl.utils.megatron_utils import load_megatron_model_to_gpu
from verl.workers import megatron_workers

from recipe.rehearse.batches import Lengths, prompts
from recipe.rehearse.counters import Counters
from recipe.rehearse.step import build_workers
from verl_patches.utils.routes.actor_weights import ActorWeights
from verl_patches.workers.rollout.vllm_rollout.derived_weights import DERIVED
from verl_patches.workers.rollout.vllm_rollout.released_weights import poison


def run(job: dict[str, Any], rank: int) -> None:
    """What one rank does."""
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer", overrides=job["overrides"]).actor_rollout_ref
    torch.manual_seed(1)
    actor = build_workers(config, Counters()).actor
    if "load_from" in job:
        actor.load_checkpoint(job["load_from"], del_local_after_load=False)
    for number in range(job["syncs"]):
        load_megatron_model_to_gpu(actor.actor.actor_module, load_grad=False)
        if "load_from" not in job:
            change(actor, number)
        stock, direct = (synced(actor, direct=direct) for direct in (False, True))
        assert stock.keys() == direct.keys()
        for name, value in stock.items():
            assert torch.equal(value, direct[name]), (number, name)
    if "save_to" in job:
        actor.save_checkpoint(job["save_to"], global_step=1)
    # And as verl calls it, with a generation after it.
    lengths = Lengths.full(job["prompt"], job["response"])
    actor.generate_sequences(prompts(job["rollout_sequences"], lengths, int(actor.hf_config.vocab_size)))
    transport = actor.rollout._transport
    left = {"received": transport.plan.received_bytes, "rollout": digest(direct)}
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps(left))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def change(actor: Any, number: int) -> None:
    """Other weights, the same on all ranks that hold them, and router biases that differ from expert to expert."""
    with torch.no_grad():
        for name, tensor in weights(actor).parameters().items():
            if name.endswith("expert_bias"):
                tensor.copy_(torch.arange(len(tensor)) * 1e-3 * (number + 1))
            else:
                tensor.mul_(1 + 0.25 * number)


def digest(tensors: dict[str, torch.Tensor]) -> str:
    """A hash of names and bits."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(name.encode())
        hashed.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def weights(actor: Any) -> ActorWeights:
    made = megatron_workers.per_tensor_generator(
        actor.actor.actor_module,
        actor.actor_model_config,
        actor.weight_converter,
        actor.tf_config,
        actor.layer_name_mapping,
    )
    assert isinstance(made, ActorWeights)
    return made


def synced(actor: Any, direct: bool) -> dict[str, torch.Tensor]:
    """The rollout's parameters, and what attention makes of them, after a sync into memory of which nothing is left."""
    rollout, made = actor.rollout, weights(actor)
    model = rollout._model

    async def sync() -> None:
        await rollout.resume(["weights"])
        poison(model)
        await rollout.update_weights(made if direct else iter(made))

    asyncio.run(sync())
    found = {name: parameter.detach().cpu().clone() for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        for derived in DERIVED:
            value = getattr(getattr(module, "impl", None), derived, None)
            if value is not None:
                found[f"{name}.{derived}"] = value.cpu().clone()
    asyncio.run(rollout.release())
    return found
