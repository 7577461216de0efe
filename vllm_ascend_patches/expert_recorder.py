# SPDX-License-Identifier: Apache-2.0
"""Which experts the sampler's routers choose, for every token of every request, in the order of the tokens.

A hook behind each router picks once more, by the operator and the arguments with which the layer itself picks a moment
later, and writes the choice into a buffer of fixed place on the device. It stands before the layer hands its rows to
the ranks of a tensor-parallel group, so each rank has the choice of all rows: a router has the same input on all of
them, as an all-reduce gives every rank the same bits. After the engine's step one copy brings the choices of all layers
to the host, where they are told apart by the model runner's batch. Padded rows lie behind those of the requests, and
batches that only keep other engines company, profiles and warm-ups are no step of requests: neither is read.
"""

# NPU-ADAPTATION: the experts chosen for each token are kept

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch_npu
from vllm_ascend.ops.fused_moe import select_experts


def chosen_experts(experts: Any, logits: torch.Tensor) -> torch.Tensor:
    """The experts that an AscendFusedMoE chooses by its router's logits [n, experts]: [n, experts per token]."""
    if experts.global_num_experts == 256:
        return torch_npu.npu_moe_gating_top_k(
            logits,
            k=experts.top_k,
            bias=experts.e_score_correction_bias,
            k_group=experts.topk_group,
            group_count=experts.num_expert_group,
            group_select_mode=1,
            renorm=0,
            norm_type=1,
            routed_scaling_factor=1,
            eps=1e-20,
        )[1]
    return select_experts(
        hidden_states=logits,
        router_logits=logits,
        top_k=experts.top_k,
        use_grouped_topk=experts.use_grouped_topk,
        renormalize=experts.renormalize,
        topk_group=experts.topk_group,
        num_expert_group=experts.num_expert_group,
        custom_routing_function=experts.custom_routing_function,
        scoring_func=experts.scoring_func,
        e_score_correction_bias=experts.e_score_correction_bias,
    )[1]


class ExpertRecorder:
    """The choices of one engine's requests, by the request's id.

    A position that is computed again, because its request was preempted or moved to another engine, keeps its first
    choice: with that one the token behind it was sampled, and its log-probability computed. An answer's last token
    is sampled and never computed, so it has no choice.
    """

    def __init__(self, model: torch.nn.Module, most_tokens: int, device: torch.device) -> None:
        """Hook the routers of `model`, before anything compiles it.

        Args:
            model: vLLM-Ascend's DeepSeek-V3.
            most_tokens: the most rows that an engine's step can have.
            device: the engine's.

        Raises:
            ValueError: the model has no routers.
        """
        # Whether the steps are kept.
        self.recording = False
        self._kept: dict[str, list[np.ndarray]] = {}
        self._counts: dict[str, int] = {}
        routed = [
            layer.mlp
            for layer in model.model.layers
            if getattr(getattr(layer, "mlp", None), "experts", None) is not None
        ]
        if not routed:
            raise ValueError('train.routing_replay = "rollout", but no layer of the rollout\'s model has experts')
        experts = routed[0].experts
        dtype = torch.uint8 if experts.global_num_experts <= 256 else torch.int16
        self._chosen = torch.zeros(len(routed), most_tokens, experts.top_k, dtype=dtype, device=device)
        for rows, mlp in zip(self._chosen, routed, strict=True):
            mlp.gate.register_forward_hook(_writer(rows, mlp.experts))

    def begin_step(self) -> None:
        """Forget what the buffer holds, so that a layer that writes nothing is noticed."""
        if self.recording:
            self._chosen.zero_()

    def end_step(self, requests: Sequence[str], starts: Sequence[int], counts: Sequence[int]) -> None:
        """Keep the choices of a step.

        Args:
            requests: the ids of the step's requests, in the order of its rows.
            starts: of each, the position of its first token.
            counts: of each, how many tokens it has in the step.

        Raises:
            RuntimeError: a layer has recorded nothing, or tokens were never computed here.
        """
        if not self.recording:
            return
        rows = sum(counts)
        chosen = self._chosen[:, :rows].cpu().numpy().transpose(1, 0, 2)
        # The experts of one token differ from one another.
        if chosen.shape[2] > 1 and (missing := int((chosen[:, :, 0] == chosen[:, :, 1]).sum())):
            raise RuntimeError(
                f"{missing} of {rows} tokens x {chosen.shape[1]} layers have no choice of experts recorded"
            )
        first = 0
        for request, start, count in zip(requests, starts, counts, strict=True):
            known = self._counts.get(request, 0)
            if start > known:
                raise RuntimeError(
                    f"request {request} continues at token {start}, of which {known} were recorded: with "
                    'train.routing_replay = "rollout" no prefix may be taken from a cache'
                )
            if start + count > known:
                self._append(request, chosen[first + known - start : first + count])
            first += count

    def take(self, request: str) -> np.ndarray:
        """Hand over a request's choices, of all tokens that were computed, and forget them: [tokens, layers, k]."""
        self._counts.pop(request, None)
        return np.concatenate(self._kept.pop(request, [self._nothing()]))

    def give(self, request: str, choices: np.ndarray) -> None:
        """Continue a request that another engine began: what `take` has returned there.

        It may be given before any of its tokens is computed here, and stays as it is when they are computed again.

        Raises:
            ValueError: the request has choices already, or these are of another model.
        """
        if request in self._counts:
            raise ValueError(f"request {request} has choices of {self._counts[request]} tokens already")
        like = self._nothing()
        if choices.shape[1:] != like.shape[1:] or choices.dtype != like.dtype:
            raise ValueError(
                f"choices {choices.dtype}{list(choices.shape)} of request {request}: expected {like.dtype} of "
                f"[tokens, {like.shape[1]}, {like.shape[2]}]"
            )
        self._append(request, choices)

    def clear(self) -> None:
        """Forget all requests."""
        self._kept.clear()
        self._counts.clear()

    def _append(self, request: str, choices: np.ndarray) -> None:
        self._kept.setdefault(request, []).append(choices)
        self._counts[request] = self._counts.get(request, 0) + len(choices)

    def _nothing(self) -> np.ndarray:
        layers, _, experts = self._chosen.shape
        empty: np.ndarray = torch.empty(0, layers, experts, dtype=self._chosen.dtype).numpy()
        return empty


def _writer(rows: torch.Tensor, experts: Any) -> Callable[..., None]:
    def write(gate: Any, args: Any, output: Any) -> None:
        chosen = chosen_experts(experts, output[0])
        rows[: chosen.shape[0]].copy_(chosen)

    return write
