# SPDX-License-Identifier: Apache-2.0
"""Grouped linear layers (one weight for each local expert) under Transformer Engine's names."""

# NPU-ADAPTATION: Transformer Engine's grouped experts in plain torch

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.utils import replace_prefix_for_sharding
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker, get_expert_parallel_rng_tracker_name
from megatron.core.transformer.utils import make_sharded_tensors_for_checkpoint

from megatron_patches.core.extensions.standin.norm import parameter_device
from megatron_patches.core.extensions.standin.refusal import refuse, refuse_fp8


class _GroupedMatmul(torch.autograd.Function):
    """y[rows of group i] = x[rows of group i] W_iᵀ as one autograd node.

    One node, so that a weight without a single row still gets a (zero) gradient: Megatron-core's gradient buckets wait
    for every parameter.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, splits: tuple[int, ...], *weights: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, *weights)
        ctx.splits = splits
        y = x.new_empty(x.shape[0], weights[0].shape[0])
        start = 0
        for rows, weight in zip(splits, weights, strict=True):
            if rows:
                torch.mm(x[start : start + rows], weight.t(), out=y[start : start + rows])
            start += rows
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = grads
        x, *weights = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weights: list[torch.Tensor | None] = []
        start = 0
        for i, (rows, weight) in enumerate(zip(ctx.splits, weights, strict=True)):
            group = slice(start, start + rows)
            if rows and grad_x is not None:
                torch.mm(grad[group], weight, out=grad_x[group])
            if not ctx.needs_input_grad[2 + i]:
                grad_weights.append(None)
            elif rows:
                grad_weights.append(grad[group].t() @ x[group])
            else:
                grad_weights.append(torch.zeros_like(weight))
            start += rows
        return (grad_x, None, *grad_weights)


class TEGroupedLinear(torch.nn.Module):
    """num_gemms linear layers over consecutive groups of rows; parameters `weight0` … [output, input], no bias."""

    def __init__(
        self,
        num_gemms: int,
        input_size: int,
        output_size: int,
        *,
        config: Any,
        init_method: Callable[[torch.Tensor], Any],
        bias: bool,
        skip_bias_add: bool,
        is_expert: bool = False,
        tp_comm_buffer_name: str | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        refuse_fp8(name, config)
        if bias:
            refuse(name, "bias=True", "set add_bias_linear=False")
        if not is_expert:
            refuse(name, "is_expert=False", "only experts are grouped")
        if (tp := parallel_state.get_expert_tensor_parallel_world_size()) != 1:
            refuse(name, f"expert_tensor_parallel_size={tp}", "set it to 1 and spread experts by expert parallelism")
        self.config = config
        self.num_gemms = num_gemms
        self.in_features = input_size
        self.out_features = output_size
        device = parameter_device(config)
        for i in range(num_gemms):
            weight = torch.nn.Parameter(torch.empty(output_size, input_size, device=device, dtype=config.params_dtype))
            # Megatron-core reduces gradients of experts over the expert-data-parallel group only.
            weight.allreduce = config.expert_model_parallel_size == 1
            # As Transformer Engine marks them: no tensor-parallel rank has another's experts, so all count in the norm
            # of the gradients.
            weight.tensor_model_parallel = True
            self.register_parameter(f"weight{i}", weight)
        if config.perform_initialization:
            self._initialise(init_method)

    def _initialise(self, init_method: Callable[[torch.Tensor], Any]) -> None:
        if self.config.use_cpu_initialization:
            for weight in self.parameters():
                init_method(weight)
            return
        with get_cuda_rng_tracker().fork(get_expert_parallel_rng_tracker_name()):
            for weight in self.parameters():
                init_method(weight)

    def forward(
        self, x: torch.Tensor, m_splits: Sequence[int] | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [rows, input] sorted by group, m_splits [num_gemms] rows of each group -> ([rows, output], None)."""
        splits = tuple(m_splits.tolist() if isinstance(m_splits, torch.Tensor) else m_splits)
        if len(splits) != self.num_gemms or sum(splits) != x.shape[0]:
            raise ValueError(
                f"{type(self).__name__}: {len(splits)} splits that sum to {sum(splits)} for {self.num_gemms} weights "
                f"and {x.shape[0]} rows; there must be one split for each weight and they must sum to the rows"
            )
        return _GroupedMatmul.apply(x, splits, *self.parameters()), None

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple[Any, ...] = (), metadata: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Every weight as expert number (EP rank * num_gemms + i) of one global tensor [experts, output, input]."""
        experts = parallel_state.get_expert_model_parallel_world_size() * self.num_gemms
        first = parallel_state.get_expert_model_parallel_rank() * self.num_gemms
        out: dict[str, Any] = {}
        for i, weight in enumerate(self.parameters()):
            axis = (len(sharded_offsets), first + i, experts)
            entry = make_sharded_tensors_for_checkpoint({f"{i}.weight": weight}, "", {}, (*sharded_offsets, axis))
            replace_prefix_for_sharding(entry, f"{i}.", prefix)
            sharded = entry[f"{i}.weight"]
            # Copies of one expert live on the ranks of its expert-data-parallel group, not of the data-parallel one.
            sharded.replica_id = (*sharded.replica_id[:2], parallel_state.get_expert_data_parallel_rank())
            out[f"{prefix}weight{i}"] = sharded
        return out


class TEColumnParallelGroupedLinear(TEGroupedLinear):
    """The first linear of the grouped experts."""


class TERowParallelGroupedLinear(TEGroupedLinear):
    """The second linear of the grouped experts."""
