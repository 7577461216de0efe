# SPDX-License-Identifier: Apache-2.0
"""`[model]`: what is trained."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.models.published import KNOWN as ARCHITECTURES
from recipe.runfile.typed_toml import CHANGES, IMPOSSIBLE, key
from recipe.tiny.members import DEEPSEEK_V3, MEMBERS
from recipe.tiny.sizes import SIZES, SMALLEST


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    kind: str = key(
        "tiny: a model made here; path: the weights at `checkpoint`; random_init: the architecture of `path` without "
        "weights, to measure speed",
        "tiny",
        choices=("tiny", "path", "random_init"),
        gives="actor.load_weight, ref.load_weight",
        on_resume=IMPOSSIBLE,
    )
    member: str = key(
        "which tiny model. deepseek_v3, and moonlight without a latent for queries, have multi-latent attention; "
        "the others have grouped-query attention, qwen3_moe has experts",
        DEEPSEEK_V3,
        choices=MEMBERS,
        on_resume=IMPOSSIBLE,
    )
    sizes: str = key(
        "those of the tiny deepseek_v3. smallest: quick to train, with heads that no NPU takes; legal: the smallest "
        "that the operators of an NPU take",
        SMALLEST,
        choices=tuple(SIZES),
        on_resume=IMPOSSIBLE,
    )
    path: str | None = key(
        "Hugging Face directory with config.json and tokenizer", None, gives="model.path", on_resume=IMPOSSIBLE
    )
    checkpoint: str | None = key(
        "Megatron torch_dist checkpoint of the same model (scripts/convert_hf_to_mcore.py); sim: made at launch if not "
        "given",
        None,
        gives="actor.megatron.dist_checkpointing_path, ref.megatron.dist_checkpointing_path",
        on_resume=CHANGES,
    )
    architecture: str | None = key(
        "what to assume where `path` cannot be seen, as on a laptop; where it can, config.json must agree",
        None,
        choices=tuple(ARCHITECTURES),
        gives="moe_router_num_groups, moe_router_group_topk",
        on_resume=IMPOSSIBLE,
    )
    warm_start_steps: int | None = key(
        "supervised steps of the tiny model, instead of its own number", None, on_resume=IMPOSSIBLE
    )
