# SPDX-License-Identifier: Apache-2.0
"""What a step without contents is told where its code would look at contents: the router's choice, the shapes that
neighbouring stages announce, and single numbers that are read of losses and norms.

All of it is fixed by the run file and the options, so that a rehearsal comes out the same each time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

# What is read of a number that was never computed, by the upstream function that reads it.
NUMBERS: dict[str, float] = {
    "megatron.core.optimizer.clip_grads:count_zeros_fp32": 0.0,
    "megatron.core.optimizer.clip_grads:get_grad_norm_fp32": 1.0,
    "megatron.core.utils:local_multi_tensor_l2_norm": 1.0,
    "megatron.core.optimizer.optimizer:_unscale_main_grads_and_check_for_nan": 0.0,
    "verl.trainer.ppo.core_algos:compute_policy_loss_vanilla": 0.0,
    "verl.workers.actor.megatron_actor:loss_func": 0.0,
    "verl_patches.workers.actor.update_sums:<listcomp>": 0.0,
    "verl_patches.workers.rollout.vllm_rollout.released_weights:<listcomp>": 0.0,
}
# Between a tensor and the code that reads it.
_BETWEEN = ("torch", "torch_npu")


class Numbers:
    """Gives single numbers of tensors without contents: `torch_npu.sim.make_hollow`'s `read`.

    `given` counts them by who has read.
    """

    def __init__(self) -> None:
        self.given: Counter[str] = Counter()

    def __call__(self, operator: str, dtype: torch.dtype) -> float:
        """The number for the function that reads one just now.

        Raises:
            HollowRead: nothing here gives one; names that function, and where it is.
        """
        from torch_npu.sim import HollowRead

        frame = sys._getframe(1)
        # The simulator's fused operators look for rows of a special kind: there are none.
        if frame.f_globals.get("__name__", "").startswith("torch_npu.ops.") and dtype == torch.bool:
            return 0.0
        while frame.f_back is not None and _is_between(frame.f_globals.get("__name__", "")):
            frame = frame.f_back
        reader = f"{frame.f_globals.get('__name__')}:{frame.f_code.co_name}"
        if reader not in NUMBERS:
            raise HollowRead(
                f"{reader} (line {frame.f_lineno}) reads a number by {operator} of a {dtype} tensor that has no "
                "contents, and recipe/rehearse/steering.py has none for it"
            )
        self.given[reader] += 1
        return NUMBERS[reader]


def _is_between(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _BETWEEN)


@dataclass(frozen=True)
class Routing:
    """How the router chooses: `load` times an even share of all tokens goes to the experts of the expert-parallel rank
    `busy` (None: this die's own), the rest evenly to all others."""

    load: float = 1.0
    busy: int | None = None


def chosen_experts(tokens: int, experts: int, per_token: int, busy: range, load: float) -> torch.Tensor:
    """Of every token, which experts.

    Neighbouring experts are chosen together, so that with expert groups a token's are within few of them.

    Args:
        tokens: their number.
        experts: all experts.
        per_token: experts of a token.
        busy: the experts that are sent `load` times an even share.
        load: 1 is even.

    Returns:
        float32 [tokens, experts], 1.0 where a token goes and 0.0 elsewhere.

    Raises:
        ValueError: those experts cannot be sent so much, as a token chooses each expert once.
    """
    share = load * per_token * len(busy) / experts
    if not per_token - (experts - len(busy)) <= share <= min(per_token, len(busy)):
        most = min(per_token, len(busy)) * experts / (per_token * len(busy))
        raise ValueError(f"a die's experts cannot be sent {load:g} times an even share; at most {most:g} times")
    number = torch.arange(tokens, dtype=torch.float64)
    # Rounded, so that 3 x 1.0000000000000002 is no step early.
    before = torch.floor(number * share + 1e-9).long()
    after = torch.floor((number + 1) * share + 1e-9).long()
    order = torch.arange(per_token)[None]
    count = (after - before)[:, None]
    own = torch.tensor(list(busy))
    others = torch.tensor([expert for expert in range(experts) if expert not in busy])
    from_own = own[(before[:, None] + order) % len(own)]
    if len(others):
        sent_before = (number.long() * per_token - before)[:, None]
        from_others = others[(sent_before + order - count) % len(others)]
        from_own = torch.where(order < count, from_own, from_others)
    return torch.zeros(tokens, experts).scatter_(1, from_own, 1.0)


def steer_router(routing: Routing) -> None:
    """From now on the router's choice is that of `chosen_experts`: its logits are overwritten where they lie."""
    from megatron.core import parallel_state
    from megatron.core.transformer.moe.router import Router, TopKRouter
    from torch_npu import sim

    original, forward = Router.gating, TopKRouter.forward

    def gating(self: Any, input: torch.Tensor) -> torch.Tensor:
        logits = original(self, input)
        tokens, experts = logits.view(-1, logits.shape[-1]).shape
        local = experts // parallel_state.get_expert_model_parallel_world_size()
        rank = parallel_state.get_expert_model_parallel_rank() if routing.busy is None else routing.busy
        busy = range(rank * local, (rank + 1) * local)
        with sim.with_contents():
            wanted = chosen_experts(tokens, experts, self.config.moe_router_topk, busy, routing.load)
            sim.give_contents(logits, wanted.to(logits.dtype).view(logits.shape))
        return logits

    def with_contents(self: Any, input: torch.Tensor) -> Any:
        # What follows from the logits is known too, whatever its size: where each token goes decides the shapes.
        with sim.with_contents():
            return forward(self, input)

    Router.gating, TopKRouter.forward = gating, with_contents


def steer_stages() -> None:
    """From now on the shapes that a neighbouring stage announces are those of the micro-batches in their order.

    Every die has the same micro-batches. The messages are sent and received as ever; only what came is not looked at.
    """
    from megatron.core import parallel_state
    from megatron.core.pipeline_parallel import p2p_communication
    from verl.workers.actor import megatron_actor

    announced: dict[str, Iterator[int]] = {}
    make, communicate = megatron_actor.make_batch_generator, p2p_communication._communicate_shapes

    def make_batch_generator(batches: Iterable[Any], vpp_size: int) -> Any:
        batches = list(batches)
        step = parallel_state.get_tensor_model_parallel_world_size()
        tokens = [packed_tokens(batch["attention_mask"], step) // step for batch in batches]
        announced.update(forward=iter(tokens), backward=iter(tokens))
        return make(batches, vpp_size)

    def shapes(send_next: Any, send_prev: Any, recv_prev: bool, recv_next: bool, config: Any) -> Any:
        communicate(send_next, send_prev, recv_prev, recv_next, config)
        nothing = [0, 0, 0]
        return (
            [next(announced["forward"]), 1, config.hidden_size] if recv_prev else nothing,
            [next(announced["backward"]), 1, config.hidden_size] if recv_next else nothing,
        )

    megatron_actor.make_batch_generator = make_batch_generator
    p2p_communication._communicate_shapes = shapes


def packed_tokens(mask: torch.Tensor, step: int) -> int:
    """Tokens of a micro-batch when its sequences are packed, each padded to a multiple of `step`.

    Args:
        mask: [sequences, padded length], not 0 where a token is.
        step: the tensor parallel size (verl/models/mcore/util.py, `preprocess_packed_seqs`).
    """
    lengths = (mask != 0).sum(-1)
    return int((-(-lengths // step) * step).sum())
