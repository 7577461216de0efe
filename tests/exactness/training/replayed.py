# SPDX-License-Identifier: Apache-2.0
"""verl's actor on answers with given choices of experts: its log-probabilities, an update, and what was counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.transformer.moe.router import TopKRouter
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.workers.actor.megatron_actor import MegatronPPOActor

from megatron_patches.core.transformer.moe.replay import take_metrics
from verl_patches.routing_replay import COLUMN, column_of

# Padded columns left of the shortest prompt and right of the longest answer.
PADDED = 2


def replay(trainer: Any, task: dict[str, Any]) -> dict[str, Any]:
    """A pass for the log-probabilities and an update of one optimizer step, with `task["choices"]`.

    Returns:
        `log_probs` [answers of this rank, longest answer], `grad_norm`, the metrics of both passes; by layer the
        routers' gradients (those of one process, elsewhere parts of them) and the changes of their biases.
    """
    ranks, rank = parallel_state.get_data_parallel_world_size(), parallel_state.get_data_parallel_rank()
    data = answers(trainer.job, task).chunk(ranks)[rank]
    size = task.get("micro_batch", 1)
    actor = MegatronPPOActor(
        config=actor_config(len(data), size),
        model_config=None,
        hf_config=trainer.hf_config,
        tf_config=trainer.config,
        actor_module=trainer.modules,
        actor_optimizer=trainer.optimizer,
    )
    data.meta_info |= {"temperature": 1.0, "micro_batch_size": size}
    if "most_tokens" in task:
        data.meta_info |= {"use_dynamic_bsz": True, "max_token_len": task["most_tokens"]}
    for module in trainer.modules:
        module.eval()
    log_probs, _ = actor.compute_log_prob(data)
    first_pass = take_metrics("npu")
    routers = [module for chunk in trainer.modules for module in chunk.modules() if isinstance(module, TopKRouter)]
    for module in trainer.modules:
        module.train()
    data.batch["old_log_probs"] = log_probs
    gradients: dict[int, torch.Tensor] = {}
    step = trainer.optimizer.step

    def noted_step() -> Any:
        gradients.update({router.layer_number: router.weight.main_grad.cpu().clone() for router in routers})
        return step()

    trainer.optimizer.step = noted_step
    biases = [router.expert_bias.clone() for router in routers]
    metrics = actor.update_policy(actor.make_minibatch_iterator(data))
    return {
        "log_probs": log_probs,
        "grad_norm": float(metrics["actor/grad_norm"][0]),
        "gradients": gradients,
        "metrics": [first_pass, take_metrics("npu")],
        "bias_changes": {
            router.layer_number: (router.expert_bias - bias).cpu() for router, bias in zip(routers, biases, strict=True)
        },
    }


def answers(job: dict[str, Any], task: dict[str, Any]) -> DataProto:
    """The job's sequences as verl's batch: prompts padded on the left, answers on the right."""
    prompts, lengths = task["prompts"], job["lengths"]
    before = max(prompts) + PADDED
    after = max(length - prompt for length, prompt in zip(lengths, prompts, strict=True)) + PADDED
    ids = torch.zeros(len(lengths), before + after, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        at = slice(before - prompt, before - prompt + length)
        ids[row, at] = torch.tensor(job["tokens"][row][:length])
        mask[row, at] = 1
    advantages = torch.tensor(task["advantages"])[:, None].expand(-1, after).contiguous()
    tensors = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
        "responses": ids[:, before:].contiguous(),
        "response_mask": mask[:, before:].contiguous(),
        "advantages": advantages,
    }
    data = DataProto(batch=TensorDict(tensors, len(lengths)))
    data.non_tensor_batch[COLUMN] = column_of([np.array(one, np.uint8) for one in task["choices"]])
    return data


def actor_config(answers: int, micro_batch: int) -> Any:
    return OmegaConf.create(
        {
            "profiler": {},
            "megatron": {
                "tensor_model_parallel_size": parallel_state.get_tensor_model_parallel_world_size(),
                "context_parallel_size": 1,
            },
            "policy_loss": {"loss_mode": "vanilla"},
            "clip_ratio": 0.2,
            "clip_ratio_low": 0.2,
            "clip_ratio_high": 0.2,
            "clip_ratio_c": 3.0,
            "loss_agg_mode": "seq-mean-token-mean",
            "entropy_coeff": 0,
            "use_kl_loss": False,
            "use_dynamic_bsz": False,
            "ppo_mini_batch_size": answers,
            "ppo_micro_batch_size_per_gpu": micro_batch,
            "ppo_epochs": 1,
            "data_loader_seed": 1,
            "shuffle": False,
        }
    )
