# SPDX-License-Identifier: Apache-2.0
"""The distributed optimizer accepts npu parameters, and can be resumed without Transformer Engine and Apex."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from megatron.core.optimizer.cpu_offloading import HybridDeviceOptimizer

from megatron_patches.core.optimizer.cuda_type_names import cuda_type_names
from megatron_patches.core.optimizer.swapped_states import host_copies, host_or_device, load_swapped, swaps
from megatron_patches.environment import plain_megatron, plain_megatron_on_npu, without_transformer_engine
from recipe.overlay import patch


@patch(
    "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer.__init__",
    why="it compares Tensor.type() with the names of CUDA tensors; MindSpeed maps the names, without it every npu "
    "parameter is refused",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:728e59c330947ddb2f95e4562a67f93613d922a25940895fa3e0c95ad455f92f",
    remove_when="Megatron-core compares dtypes, or every machine this runs on has MindSpeed",
    when=plain_megatron_on_npu,
)
def distributed_optimizer_init(  # NPU-ADAPTATION: npu parameters pass for CUDA ones while the shards are built
    original: Callable[..., None], self: Any, *args: Any, **kwargs: Any
) -> None:
    """Build the optimizer's parameter shards."""
    with cuda_type_names():
        original(self, *args, **kwargs)


@patch(
    "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer.state_dict",
    why="where torch's Adam takes the place of Transformer Engine's, it reads the number of steps from the state of "
    "the parameters, which Adam makes in its first step only: an optimizer that has not stepped cannot be resumed",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:90cfa59226352a282a81ba5d0efe1462198ec5e458d22b0274044909b76d9b20",
    remove_when="Megatron-core loads a checkpoint into a torch optimizer that has not stepped",
    when=plain_megatron,
)
def distributed_optimizer_state_dict(original: Callable[..., dict[str, Any]], self: Any) -> dict[str, Any]:
    """The part of the optimizer's state that does not belong to parameters."""
    if isinstance(self.optimizer, HybridDeviceOptimizer) and not self.optimizer.state:
        # NPU-ADAPTATION: this one keeps main parameters among its states, and has a way of its own to make them
        self.optimizer.dummy_step()
    elif self.optimizer is not None and not self.optimizer.state:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                # NPU-ADAPTATION: the state that Adam would start from
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(parameter, dtype=torch.float32),
                    "exp_avg_sq": torch.zeros_like(parameter, dtype=torch.float32),
                }
    return original(self)


# The fields that tell one group of parameters from another, and those that are state; the rest are configuration.
_IDENTITY = ("wd_mult", "lr_mult", "is_expert_parallel", "is_decoupled_lr")
_STATE = ("lr", "step")


def with_saved_state(own: list[dict[str, Any]], saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our groups of parameters with their saved states; a group that was not saved gets another's number of steps."""
    groups = []
    for group in own:
        same = [candidate for candidate in saved if all(candidate.get(name) == group.get(name) for name in _IDENTITY)]
        state = same[0] if same else {"step": saved[0]["step"]} if "step" in saved[0] else {}
        groups.append(
            {name: value for name, value in group.items() if name != "params"}
            | {name: state[name] for name in _STATE if name in state}
        )
    return groups


@patch(
    "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer.load_state_dict",
    why="the groups of parameters are in the checkpoint in the order of the first rank, and a pipeline stage that does "
    "not begin with the embedding has them in the other order: after a resume its norms decay and its matrices do not; "
    "and with them comes the configuration of the run that saved, so that no other learning rate or beta has an effect",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:e749742eb71f58366d7644d88df73cf9fcb82214686356691edcb08350010936",
    remove_when="Megatron-core finds the groups in a checkpoint by what they are, and takes only their state",
)
def distributed_optimizer_load_state_dict(original: Callable[..., None], self: Any, state_dict: dict[str, Any]) -> None:
    """Load the state that does not belong to parameters, then that of the parameters of this rank."""
    # NPU-ADAPTATION: each group is found by what it is, not by its place, and keeps its own configuration
    groups = with_saved_state(self.optimizer.param_groups, state_dict["optimizer"]["param_groups"])
    original(self, {**state_dict, "optimizer": {**state_dict["optimizer"], "param_groups": groups}})


@patch(
    "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer._get_main_param_and_optimizer_states",
    why="MindSpeed's swap optimizer leaves tensors without storage on the device and their data in host memory, and a "
    'state that is None: saving a checkpoint stops with "NoneType has no attribute dtype"',
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:23ea89a980b97f0fc1a378577c73723f86b075546915b67757b6db541449af19",
    remove_when="MindSpeed's swap optimizer can be saved by Megatron-core's distributed checkpoints",
    when=without_transformer_engine,
)
def get_main_param_and_optimizer_states(
    original: Callable[..., dict[str, Any]], self: Any, model_param: torch.Tensor
) -> dict[str, Any]:
    """Main parameter and states of a parameter's shard by name: param, exp_avg, exp_avg_sq."""
    tensors = original(self, model_param)
    # NPU-ADAPTATION: what is swapped out is taken from host memory, and what is not there is left out
    return host_or_device(tensors, host_copies(self, tensors["param"]))


@patch(
    "megatron.core.optimizer.distrib_optimizer:DistributedOptimizer._set_main_param_and_optimizer_states",
    why="it copies all of a parameter's state from the checkpoint, where the number of steps of torch's Adam is not: "
    "that is kept once for all parameters, and what loads it gives them one tensor, to which each then adds its steps; "
    "and MindSpeed's swap optimizer keeps the state in host memory, where it is not copied to",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:49851fe45eb1740a975db5a8df3f4a693ea6ee7ce00ea14cc7ec31166cf4d922",
    remove_when="Megatron-core loads a checkpoint into a torch optimizer, and into MindSpeed's swap optimizer",
    when=without_transformer_engine,
)
def set_main_param_and_optimizer_states(
    original: Callable[..., None], self: Any, model_param: torch.Tensor, tensors: dict[str, torch.Tensor]
) -> None:
    """Copy `tensors` (param, exp_avg, exp_avg_sq) into the optimizer's shard of a parameter."""
    group, place = self.model_param_group_index_map[model_param]
    main_param = self.optimizer.param_groups[group]["params"][place]
    state = self.optimizer.state[main_param]
    if swaps(self):
        # NPU-ADAPTATION: loading made new groups, and the step reads learning rate and number of steps through this map
        self.optimizer.param_to_group_map[main_param] = self.optimizer.param_groups[group]
    if (host := host_copies(self, main_param)) is not None:
        load_swapped(self, main_param, state, host, tensors)  # NPU-ADAPTATION: into host memory
        return
    if "step" in state:  # NPU-ADAPTATION: a parameter keeps the number of steps, as a tensor of its own
        state["step"] = state["step"].clone()
        tensors = {**tensors, "step": state["step"]}
    original(self, model_param, tensors)
