# SPDX-License-Identifier: Apache-2.0
"""The actor's weights on their way into a rollout on the same dies: each rank sends what others lack, and no more."""

# NPU-ADAPTATION: a die is sent only the weights that it lacks

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from recipe.models.architecture import LatentArchitecture
from recipe.models.families import describe
from recipe.overlay import Condition
from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout
from verl_patches.utils.routes.routes import Routes
from verl_patches.utils.routes.transport import Transport, agree

OPTION = "RECIPE_DIRECT_SYNC"
BUFFER_OPTION = "RECIPE_DIRECT_SYNC_BUFFER_MIB"
_BIAS = "router.expert_bias"
_SHARED = "shared_experts.down_proj.weight"


def _asked_for() -> bool:
    return os.environ.get(OPTION, "0") == "1"


direct_sync = Condition(_asked_for, otherwise="rollout.direct_sync is false: verl brings the whole model to every die")


class ActorWeights:
    """What `per_tensor_generator` returns: iterated, it is verl's own sync; a rollout that can takes `transport`.

    Args:
        modules: verl's `actor_module`, one for each virtual stage of this rank.
        hf_config: of the model.
        transformer_config: Megatron-core's.
        stock: verl's generator.
    """

    def __init__(
        self,
        modules: list[Any],
        hf_config: Any,
        transformer_config: Any,
        stock: Iterable[tuple[str, torch.Tensor]],
    ) -> None:
        self._modules, self._hf_config, self._config, self._stock = modules, hf_config, transformer_config, stock

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(self._stock)

    def parameters(self) -> dict[str, torch.Tensor]:
        """This rank's weights and router biases by Megatron-core's names, layers numbered as in the whole model."""
        from megatron.core import parallel_state as mpu
        from verl.utils.megatron_utils import unwrap_model
        from verl.utils.model import normalize_model_name

        model = unwrap_model(self._modules[0])
        held = dict(model.named_parameters())
        held |= {name: buffer for name, buffer in model.named_buffers() if name.endswith(_BIAS) and buffer is not None}
        stage = mpu.get_pipeline_model_parallel_rank()
        named = {normalize_model_name(name, stage, 0, self._config): tensor for name, tensor in held.items()}
        return {name.removeprefix("module."): tensor.detach() for name, tensor in named.items()}

    def transport(self, model: nn.Module, tensor: int, data: int) -> Transport:
        """What moves these weights into a vLLM model of this rank, sync after sync.

        Args:
            model: the rollout's.
            tensor, data: its parallel sizes; the dies of the world are instances x data x tensor.

        Raises:
            RuntimeError: the layout of one of the engines is none that routes can be made for, or this rank's
                parameters are not those that the routes count on.
            LayoutError: sizes that do not go together.
        """
        dies, rank = dist.get_world_size(), dist.get_rank()
        sizes = describe(self._hf_config.to_dict())
        if not isinstance(sizes, LatentArchitecture):
            raise RuntimeError("the direct weight sync knows multi-latent attention; set rollout.direct_sync = false")
        held, kept = self.parameters(), dict(model.named_parameters())
        weight_type = next(tensor.dtype for name, tensor in held.items() if not name.endswith(_BIAS))
        whole_width = sizes.shared_experts * sizes.moe_intermediate
        shared = next((parameter for name, parameter in kept.items() if name.endswith(_SHARED)), None)
        replicated = tensor > 1 and shared is not None and shared.shape[1] == whole_width
        routes = Routes(
            sizes,
            self._layout(dies),
            RolloutLayout(dies, tensor, dies // (tensor * data), replicated),
            int(os.environ.get(BUFFER_OPTION, "512")) * 2**20,
            weight_type.itemsize,
        )
        _check("actor", routes.actor_shapes(rank), held, weight_type)
        _check("rollout", routes.rollout_shapes(rank), kept)
        return Transport(routes, rank, weight_type)

    def move(self, transport: Transport, model: nn.Module) -> set[str]:
        """Fill the parameters of the rollout's model, after all ranks have agreed; returns their names.

        Raises:
            RoutesDisagree: nothing was sent, as the ranks would not send what others expect.
        """
        kept = dict(model.named_parameters())
        agree(transport.plan, next(iter(kept.values())).device)
        return transport.move(self.parameters(), kept)

    def _layout(self, dies: int) -> ActorLayout:
        from megatron.core import parallel_state as mpu
        from verl.utils.megatron_utils import get_transformer_layer_offset

        odd = {
            "virtual stages": len(self._modules),
            "context parallel": mpu.get_context_parallel_world_size(),
            "expert tensor parallel": mpu.get_expert_tensor_parallel_world_size(),
        }
        wrong = [f"{name} {size}" for name, size in odd.items() if size != 1]
        if wrong:
            raise RuntimeError(f"the direct weight sync knows no {', '.join(wrong)}; set rollout.direct_sync = false")
        stages = mpu.get_pipeline_model_parallel_world_size()
        starts = [get_transformer_layer_offset(stage, 0, self._config) for stage in range(stages)]
        return ActorLayout(
            dies,
            mpu.get_tensor_model_parallel_world_size(),
            mpu.get_expert_model_parallel_world_size(),
            tuple(stop - start for start, stop in pairwise([*starts, self._config.num_layers])),
        )


def _check(
    engine: str,
    counted_on: Mapping[str, tuple[int, ...]],
    parameters: Mapping[str, torch.Tensor],
    weight_type: torch.dtype | None = None,
) -> None:
    """Raises RuntimeError unless an engine has exactly the parameters that the routes count on."""
    wrong = [f"{name}: not there" for name in counted_on if name not in parameters]
    wrong += [f"{name}: not known" for name in parameters if name not in counted_on]
    for name in counted_on.keys() & parameters.keys():
        shape, type_ = tuple(parameters[name].shape), parameters[name].dtype
        if shape != counted_on[name]:
            wrong.append(f"{name}: {list(shape)}, expected {list(counted_on[name])}")
        elif weight_type is not None and type_ != weight_type and not name.endswith(_BIAS):
            wrong.append(f"{name}: {type_}, expected {weight_type}")
    if wrong:
        some = "; ".join(sorted(wrong)[:5])
        raise RuntimeError(
            f"{len(wrong)} parameters of the {engine} are not as the direct weight sync counts on: {some}. Set "
            "rollout.direct_sync = false to have verl's own"
        )
