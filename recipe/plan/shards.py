# SPDX-License-Identifier: Apache-2.0
"""How Megatron-core 0.12.1 lays a die's parameters, gradients and optimizer states out.

Parameters and gradients lie in one buffer for the experts and one for the rest (megatron/core/distributed/
distributed_data_parallel.py; verl 0.6.1 sets `grad_reduce_in_fp32`, and without overlap there is one bucket). In a
buffer each parameter starts at a multiple of 64 elements, and the end is padded (param_and_grad_buffer.py,
`_pad_start_of_param_if_needed`, `_pad_end_of_bucket_if_needed`). The distributed optimizer cuts a buffer into equal
ranges over its data-parallel group, whatever parameters they hold, and keeps for its range a float32 copy and Adam's
two moments (distrib_optimizer.py, `_build_model_and_main_param_groups`).

With the optimizer on the host (optimizer/cpu_offloading/hybrid_optimizer.py, `_get_sub_optimizer_param_groups`,
`_set_sub_optimizer_grads`; our run files with `use_precision_aware_optimizer`, so that there is no float32 copy beside
it) the host has all three for its share, and the gradients once more, in page-locked memory (`pin_cpu_grads`). The rest
is on the die in every phase: verl moves only what it offloads itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recipe.plan.parameters import BF16, FP32, Parameter

PARAMETER_STEP = 64
BUCKET_STEP = 128
OPTIMIZER_STATES = 3  # float32 parameter, exp_avg, exp_avg_sq
SWAP_TIMES = 16  # MindSpeed f6688: swap_optimizer_feature.py, --swap-optimizer-times


@dataclass(frozen=True)
class Buffers:
    """Elements of a die's two buffers, padding included, and the sizes of the groups that share their optimizer."""

    dense: int
    expert: int
    dense_group: int
    expert_group: int

    @property
    def elements(self) -> int:
        return self.dense + self.expert

    @property
    def parameter_bytes(self) -> int:
        return self.elements * BF16

    @property
    def gradient_bytes(self) -> int:
        return self.elements * FP32

    @property
    def optimizer_elements(self) -> int:
        """Elements of both buffers whose optimizer states are this die's."""
        return self.dense // self.dense_group + self.expert // self.expert_group

    @property
    def optimizer_bytes(self) -> int:
        return self.optimizer_elements * OPTIMIZER_STATES * FP32

    def on_host(self, share: float) -> tuple[int, int]:
        """Bytes of optimizer states, and of gradients, on a host that updates this `share` of the elements."""
        elements = int(self.optimizer_elements * share)
        return elements * OPTIMIZER_STATES * FP32, elements * FP32


def buffers(tensors: Sequence[Parameter], dense_group: int, expert_group: int) -> Buffers:
    """The buffers of a die that holds `tensors`, with the sizes of its two data-parallel groups."""
    return Buffers(
        _buffer([t.elements for t in tensors if not t.expert], dense_group),
        _buffer([t.elements for t in tensors if t.expert], expert_group),
        dense_group,
        expert_group,
    )


def _buffer(elements: Sequence[int], group: int) -> int:
    end = 0
    for size in reversed(elements):
        end = _up(end, PARAMETER_STEP) + size
    return _up(end, math.lcm(group, BUCKET_STEP))


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def swapped_in_bytes(tensors: Sequence[Parameter], shards: Buffers) -> int:
    """The most of the optimizer states on the device at once with MindSpeed's swap optimizer, in its step.

    Parameters are brought in until a sixteenth of the elements is there, one at least, and leave one by one; the next
    are brought in when all of them have left (swap_optimizer.py, `swap_adamw_step`). Of a parameter that is what lies
    in the die's range of the buffer, all of it at most.
    """
    ranges = {False: shards.dense // shards.dense_group, True: shards.expert // shards.expert_group}
    largest = max(min(tensor.elements, ranges[tensor.expert]) for tensor in tensors)
    return max(shards.optimizer_elements // SWAP_TIMES, largest) * OPTIMIZER_STATES * FP32
