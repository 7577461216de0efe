# SPDX-License-Identifier: Apache-2.0
"""MindSpeed's arguments are plain values, also where a worker's configuration gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import OmegaConf

from recipe.overlay import patch


@patch(
    "mindspeed.megatron_adaptor:repatch",
    why="verl hands it a part of its configuration, whose lists (pipeline_num_transformer_layers, where stages differ) "
    "are OmegaConf's: they become part of Megatron-core's configuration, and saving a checkpoint ends on rank 0 with "
    '"Object of type ListConfig is not JSON serializable"',
    upstream="mindspeed==0.12.1",
    fingerprint="sha256:147606643f1161d4bb98b88d5e6de69e69d9ae8ea34b07f31680346f198b22f5",
    remove_when="verl hands plain values to repatch",
)
def repatch(original: Callable[..., None], args: Mapping[str, Any]) -> None:
    # NPU-ADAPTATION: plain lists
    original(OmegaConf.to_container(OmegaConf.create(dict(args)), resolve=True))
