# SPDX-License-Identifier: Apache-2.0
"""What is said of a family of models in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from recipe.models.architecture import Architecture
from recipe.weights.layout import MegatronLayout

Config = Mapping[str, Any]


class ModelError(ValueError):
    """A config.json that is of no model which can be trained here: one line, without the file's name."""


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        model_types: those of its config.json; the first is the one that the pinned transformers and vLLM know.
        implementation: the class of its models, as config.json's `architectures` and verl's registry name it.
        sizes: keys of config.json that must be whole numbers above 0.
        optional: keys that may be absent or null, and are whole numbers above 0 otherwise.
        counts: keys that must be whole numbers, 0 among them.
        switches: keys that are true, false or absent.
        refusals: what the pinned verl, Megatron-core or vLLM would compute otherwise than config.json says, a sentence
            each; the sizes are numbers by then.
        architecture: the sizes of a model whose config.json is not refused.
        layout: the key map: where each of its tensors lies in a Megatron checkpoint.
        patches: ids of the patches that change nothing for models of other families, but for those that name them too.
    """

    model_types: tuple[str, ...]
    implementation: str
    sizes: tuple[str, ...]
    optional: tuple[str, ...]
    counts: tuple[str, ...]
    switches: tuple[str, ...]
    refusals: Callable[[Config], Iterator[str]]
    architecture: Callable[[Config], Architecture]
    layout: Callable[[dict[str, Any]], MegatronLayout]
    patches: tuple[str, ...] = ()


#: Those that are for routers: the trainer's experts are the ones that the sampler chose.
ROUTER_PATCHES = (
    "megatron_patches.core.transformer.moe.router:routing",
    "verl_patches.workers.actor.megatron_actor:forward_backward_batch",
    "vllm_ascend_patches.worker.model_runner_v1:load_model",
    "vllm_ascend_patches.worker.model_runner_v1:execute_model",
)


def refusals_of_all(config: Config, implementation: str) -> Iterator[str]:
    """What no family's Megatron model computes as config.json says."""
    named = config.get("architectures")
    if named is not None and named != [implementation]:
        yield f"architectures is {named!r}; expected ['{implementation}'], which verl 0.6.1 chooses its model by"
    if (activation := config.get("hidden_act", "silu")) != "silu":
        yield f"hidden_act is {activation!r}; verl 0.6.1 builds every MLP with 'silu'"
    if "rope_parameters" in config:
        yield (
            "rope_parameters is of transformers 5; the pinned verl and vLLM read rope_theta and rope_scaling, and take "
            "defaults where these are missing: write them instead"
        )
