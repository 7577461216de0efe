# SPDX-License-Identifier: Apache-2.0
"""The distributed optimizer's FP8 step, where there is nothing in FP8."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from megatron_patches.environment import plain_megatron
from recipe.overlay import patch


@patch(
    "megatron.core.fp8_utils:_quantize_param_shard_impl",
    why="the distributed optimizer calls it after every step, also with no FP8 parameter, and without Transformer "
    "Engine it always raises",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:19d5d862ab5f7f13b34851b44a17cf9a4ef597dd9efe03dbf8af2bdff815a497",
    remove_when="Megatron-core returns early for an empty list without Transformer Engine too",
    when=plain_megatron,
)
def _quantize_param_shard_impl(  # NPU-ADAPTATION: nothing to quantise is no error
    original: Callable[..., None], model_params: list[Any], *args: Any, **kwargs: Any
) -> None:
    """Return for an empty list of FP8 parameters, otherwise raise as Megatron-core does."""
    if model_params:
        original(model_params, *args, **kwargs)
