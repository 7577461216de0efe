# SPDX-License-Identifier: Apache-2.0
"""`[actor]`: the training, by Megatron-core."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.typed_toml import CHANGES, FREE, key

# Where the optimizer is: one of these, so that no two mechanisms can move the same states.
DIE, OFFLOADED, SWAPPED, HOST = OPTIMIZER_PLACES = ("die", "offloaded", "swapped", "host")


@dataclass(frozen=True, kw_only=True)
class Recompute:
    """Activations that are not kept for the backward pass, but computed again in it."""

    granularity: str = key(
        "full: whole layers; selective: attention only",
        choices=("full", "selective"),
        gives="recompute_granularity",
        on_resume=FREE,
    )
    method: str | None = key(
        "full: uniform: groups of `layers` layers; block: the first `layers` layers of a stage",
        None,
        choices=("uniform", "block"),
        gives="recompute_method",
        on_resume=FREE,
    )
    layers: int | None = key("full: see method", None, least=1, gives="recompute_num_layers", on_resume=FREE)


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Training by Megatron-core; the reference policy has the same layout."""

    tensor_parallel: int = key(
        "1 with MindSpeed, which refuses more for multi-latent attention",
        least=1,
        gives="actor.megatron.tensor_model_parallel_size, ref.megatron.tensor_model_parallel_size",
        on_resume=FREE,
    )
    expert_parallel: int = key(
        "dies that share the experts of a stage",
        least=1,
        gives="actor.megatron.expert_model_parallel_size, ref.megatron.expert_model_parallel_size",
        on_resume=FREE,
    )
    stage_layers: list[int] = key(
        "layers of each pipeline stage",
        least=1,
        gives="num_layers_in_first_pipeline_stage, num_layers_in_last_pipeline_stage, RECIPE_STAGE_LAYERS, "
        "pipeline_num_transformer_layers",
        on_resume=FREE,
    )
    micro_batch_tokens: int = key(
        "most padded tokens of a rank in a pass of an update",
        unit="tokens",
        least=1,
        gives="actor.ppo_micro_batch_size_per_gpu",
        on_resume=FREE,
    )
    log_prob_micro_batch_tokens: int | None = key(
        "the same for passes without gradients; default: micro_batch_tokens",
        None,
        unit="tokens",
        least=1,
        gives="rollout.log_prob_micro_batch_size_per_gpu, ref.log_prob_micro_batch_size_per_gpu",
        on_resume=FREE,
    )
    recompute: Recompute | None = key("activation recomputation; default: none", None, on_resume=FREE)
    offload_parameters: bool = key(
        "weights to host memory, and the memory of the gradients freed, while not needed",
        True,
        gives="actor.megatron.param_offload, ref.megatron.param_offload",
        on_resume=FREE,
    )
    keep_until_sync: bool = key(
        "where weights are offloaded: those of an update stay on the die until the weight sync has read them, and go "
        "to host memory that is page-locked once; false: they leave after every phase, as verl has it",
        True,
        gives="RECIPE_KEEP_UNTIL_SYNC",
        on_resume=FREE,
    )
    optimizer: str = key(
        "where it is. die: always there; offloaded: verl moves it to host memory while not needed; swapped: MindSpeed "
        "keeps it in pinned host memory and brings it in piece by piece; host: Megatron-core keeps it in host memory, "
        "and the host's cores update the weights",
        OFFLOADED,
        choices=OPTIMIZER_PLACES,
        gives="actor.megatron.optimizer_offload, swap_optimizer, actor.optim.override_optimizer_config",
        on_resume=FREE,
    )
    optimizer_host_share: float | None = key(
        'optimizer = "host": share of the elements that the host holds, the others stay on the die; default: all',
        None,
        least=0.01,
        most=1,
        gives="actor.optim.override_optimizer_config.optimizer_offload_fraction",
        on_resume=FREE,
    )
    moe_profile: str = key(
        "default: verl's router settings; stable: Pai-Megatron-Patch's, with no load balancing loss, a fixed router "
        "bias, the router in float32 on GPUs too, and no fused rotary embedding",
        "default",
        choices=("default", "stable"),
        gives="moe_router_load_balancing_type, moe_aux_loss_coeff, moe_router_bias_update_rate, apply_rope_fusion",
        on_resume=CHANGES,
    )

    @property
    def host_share(self) -> float:
        """The share of the optimizer's elements that the host holds and updates."""
        if self.optimizer != HOST:
            return 0.0
        return 1.0 if self.optimizer_host_share is None else self.optimizer_host_share
