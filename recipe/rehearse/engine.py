# SPDX-License-Identifier: Apache-2.0
"""What a rollout engine that is alone is told where it would meet other engines, or look at contents."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from types import SimpleNamespace
from typing import Any

from recipe.rehearse.steering import Routing, chosen_experts

NODE_BYTES = 2**50  # more than any swap space


def meet_nobody() -> None:
    """From now on the engines of a data-parallel domain, and the ranks of one, find one another without a socket."""
    import torch.distributed as dist
    from vllm.distributed.device_communicators import shm_broadcast

    from verl_patches.utils.routes import actor_weights
    from verl_patches.workers.rollout.vllm_rollout import dp_environment
    from vllm_patches.distributed import utils as rendezvous

    def all_gather_offers(offers: list[Any], own: Any) -> None:
        # Whoever leads this rank's column would have offered a port.
        dist.all_gather_object(offers, own or ("127.0.0.1", 65535))

    dp_environment.dist = SimpleNamespace(
        all_gather_object=all_gather_offers, get_rank=dist.get_rank, get_world_size=dist.get_world_size
    )
    # In a world of one all peers tell what this rank tells: its own part of the routes, which does not fit to itself.
    setattr(actor_weights, "agree", lambda plan, device: None)  # noqa: B010  mypy sees another type
    setattr(rendezvous, "on_address", lambda *args, **kwargs: nullcontext())  # noqa: B010  mypy sees another type
    shm_broadcast.MessageQueue.create_from_process_group = staticmethod(lambda *args, **kwargs: _NoQueue())


def steer_engine() -> None:
    """From now on an engine is told what it would learn from others, each of which does what it does.

    Of its node's memory it would set some aside for a swap space; this machine is not that node.
    """
    import torch
    from vllm import config as vllm_config
    from vllm.forward_context import DPMetadata
    from vllm_ascend.worker.model_runner_v1 import NPUModelRunner

    count, agree = DPMetadata.num_tokens_across_dp, NPUModelRunner._get_forward_metadata_across_dp

    def num_tokens_across_dp(num_tokens: int, dp_size: int, dp_rank: int) -> torch.Tensor:
        count(num_tokens, dp_size, dp_rank)
        return torch.full((dp_size,), num_tokens, dtype=torch.int32)

    def forward_metadata(self: Any, padded: int, tokens: int, with_prefill: bool, enable_dbo: bool) -> Any:
        alone = agree(self, padded, tokens, with_prefill, enable_dbo)
        if self.dp_size == 1:
            return alone
        wanted = tokens if with_prefill else padded
        return wanted, torch.full((self.dp_size,), wanted, dtype=torch.int32), with_prefill, enable_dbo

    vllm_config.get_cpu_memory = lambda: NODE_BYTES
    DPMetadata.num_tokens_across_dp = staticmethod(num_tokens_across_dp)
    NPUModelRunner._get_forward_metadata_across_dp = forward_metadata


def steer_engine_router(routing: Routing) -> None:
    """From now on the engine's router chooses as `chosen_experts` does: its logits are overwritten.

    In the trial step that sizes the KV cache, in which the engine sends tokens to experts at random, all get as many.
    """
    import torch
    import torch_npu
    from torch_npu import sim
    from vllm.distributed.parallel_state import get_ep_group
    from vllm.forward_context import get_forward_context
    from vllm_ascend.ops import fused_moe

    def steered(choose: Callable[..., Any], names: tuple[str, str, str]) -> Callable[..., Any]:
        parameters = inspect.signature(choose)

        @wraps(choose)
        def choice(*args: Any, **kwargs: Any) -> Any:
            call = parameters.bind(*args, **kwargs)
            logits, per_token = (call.arguments[name] for name in names[:2])
            bias = call.arguments.get(names[2])
            tokens, experts = logits.shape
            group = get_ep_group()
            local = experts // group.world_size
            rank = group.rank_in_group if routing.busy is None else routing.busy
            busy = range(rank * local, (rank + 1) * local)
            load = 1.0 if get_forward_context().in_profile_run else routing.load
            with sim.with_contents():
                wanted = chosen_experts(tokens, experts, per_token, busy, load).to(logits.dtype)
                if logits.nbytes == logits.untyped_storage().nbytes():
                    sim.give_contents(logits, wanted)
                else:  # this rank's part of what a tensor-parallel group holds
                    call.arguments[names[0]] = wanted.to(logits.device)
                if bias is not None:
                    sim.give_contents(bias, torch.zeros(bias.shape, dtype=bias.dtype))
                return choose(*call.args, **call.kwargs)

        return choice

    apply = fused_moe.AscendUnquantizedFusedMoEMethod.apply

    def apply_as_chosen(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Not at random, in a trial step.
        return apply(self, *args, **{**kwargs, "enable_force_load_balance": False})

    fused_moe.AscendUnquantizedFusedMoEMethod.apply = apply_as_chosen
    by_function = ("router_logits", "top_k", "e_score_correction_bias")
    fused_moe.select_experts = steered(fused_moe.select_experts, by_function)
    torch_npu.npu_moe_gating_top_k = steered(torch_npu.npu_moe_gating_top_k, ("x", "k", "bias"))


def steer_sampler(token: int) -> None:
    """From now on every sampled token is this one, which ends no answer, and its log-probability 0."""
    from torch_npu import sim
    from vllm.v1.sample.sampler import Sampler

    sample = Sampler.forward

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = sample(self, *args, **kwargs)
        known: list[tuple[Any, float]] = [(output.sampled_token_ids, token)]
        if output.logprobs_tensors is not None:
            tokens, log_probs, ranks = output.logprobs_tensors
            known += [(tokens, token), (log_probs, 0.0), (ranks, 0)]
        for tensor, value in known:
            sim.give_contents(tensor, tensor.new_tensor(value, device="cpu"))
        return output

    Sampler.forward = forward


class _NoQueue:
    """Messages to the ranks of a group, all of which hold what this one holds."""

    def broadcast_object(self, value: Any) -> Any:
        return value
