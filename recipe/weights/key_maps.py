# SPDX-License-Identifier: Apache-2.0
"""The key map of a config.json's model, and the tensors that it has no use for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipe.models.deepseek_v3 import FAMILY as DEEPSEEK_V3
from recipe.models.families import describe, family_of
from recipe.models.family import ModelError
from recipe.weights.errors import WeightsError
from recipe.weights.layout import MegatronLayout


def layout_of(config: dict[str, Any], file: Path) -> MegatronLayout:
    """The layout of the model of this config.json (`file`, for messages).

    Raises WeightsError for a model that cannot be trained here.
    """
    require_described(config, file)
    return family_of(config).layout(config)


def require_described(config: dict[str, Any], file: Path) -> None:
    """Raise WeightsError for a model that cannot be trained here."""
    try:
        describe(config)
    except ModelError as error:
        raise WeightsError(f"{file}: {error}") from None


def droppable(names: Iterable[str], config: dict[str, Any]) -> tuple[str, ...]:
    """The Hugging Face names that the trained model has no use for: prediction layers, tied heads, rotary buffers."""
    predicting = range(0)
    if config.get("model_type") in DEEPSEEK_V3.model_types:
        # verl wants num_nextn_predict_layers 0, while the published weights have one such layer.
        layers, more = config["num_hidden_layers"], config.get("num_nextn_predict_layers") or 1
        predicting = range(layers, layers + more)
    tied = config.get("tie_word_embeddings", False)

    def useless(name: str) -> bool:
        number = re.match(r"model\.layers\.(\d+)\.", name)
        beyond = number is not None and int(number[1]) in predicting
        return beyond or name.endswith(".rotary_emb.inv_freq") or (tied and name == "lm_head.weight")

    return tuple(sorted(name for name in names if useless(name)))
