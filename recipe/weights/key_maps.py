# SPDX-License-Identifier: Apache-2.0
"""The key map of every kind of model that can be converted, by the model_type of its config.json."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recipe.weights import deepseek_v3, grouped_query
from recipe.weights.config_sizes import check_sizes, shown
from recipe.weights.errors import WeightsError
from recipe.weights.layout import MegatronLayout

KEY_MAPS: dict[str, Callable[[dict[str, Any]], MegatronLayout]] = {
    "deepseek_v3": deepseek_v3.layout,
    **dict.fromkeys(grouped_query.FAMILIES, grouped_query.layout),
}


def layout_of(config: dict[str, Any], file: Path) -> MegatronLayout:
    """The layout of the model of this config.json (`file`, for messages).

    Raises WeightsError for an unknown model, and for sizes that are none.
    """
    key_map = KEY_MAPS.get(str(config.get("model_type")))
    if key_map is None:
        raise WeightsError(f"{file}: model_type {shown(config.get('model_type'))}; known are {', '.join(KEY_MAPS)}")
    check_sizes(config, file)
    return key_map(config)


def droppable(names: Iterable[str], config: dict[str, Any]) -> tuple[str, ...]:
    """The Hugging Face names that the trained model has no use for: prediction layers, tied heads, rotary buffers."""
    predicting = range(0)
    if config.get("model_type") == "deepseek_v3":
        # verl wants num_nextn_predict_layers 0, while the published weights have one such layer.
        layers, more = config["num_hidden_layers"], config.get("num_nextn_predict_layers") or 1
        predicting = range(layers, layers + more)
    tied = config.get("tie_word_embeddings", False)

    def useless(name: str) -> bool:
        number = re.match(r"model\.layers\.(\d+)\.", name)
        beyond = number is not None and int(number[1]) in predicting
        return beyond or name.endswith(".rotary_emb.inv_freq") or (tied and name == "lm_head.weight")

    return tuple(sorted(name for name in names if useless(name)))
