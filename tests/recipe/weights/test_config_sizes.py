# SPDX-License-Identifier: Apache-2.0
"""config.json: whatever stands where a size is expected, the layout of a model or one error comes of it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.tiny.published import CONFIG
from recipe.weights.config_sizes import check_sizes
from recipe.weights.errors import WeightsError
from recipe.weights.key_maps import layout_of

FILE = Path("config.json")
SMALL = CONFIG | {"num_hidden_layers": 2, "n_routed_experts": 4, "first_k_dense_replace": 1}
DENSE: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 8, "vocab_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 12, "head_dim": 4, "tie_word_embeddings": False,
}  # fmt: skip
MIXTURE = DENSE | {
    "model_type": "qwen3_moe", "num_experts": 4, "moe_intermediate_size": 6, "mlp_only_layers": [],
    "decoder_sparse_step": 1,
}  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.integers(-5, 0), st.integers(2**31, 2**70), st.floats(),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip


def test_real_ones_pass() -> None:
    for config in (CONFIG, SMALL, DENSE, MIXTURE, DENSE | {"head_dim": None, "num_key_value_heads": None}):
        check_sizes(config, FILE)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), config=st.sampled_from([SMALL, DENSE, MIXTURE]), value=ODD)
def test_no_value_is_more_than_one_error(data: st.DataObject, config: dict[str, Any], value: Any) -> None:
    key = data.draw(st.sampled_from(sorted(config)))
    try:
        layout_of(config | {key: value}, FILE)
    except WeightsError as error:
        assert key in str(error) and "\n" not in str(error) and len(str(error)) < 300


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": None}, "hidden_size is None; expected a whole number, 1 to"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"vocab_size": "x" * 1000}, r"vocab_size is 'xxx.*\.\.\.; expected"),
        ({"n_shared_experts": -1}, "n_shared_experts is -1; expected a whole number, 0 to"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings is 0; expected true or false"),
        ({"num_hidden_layers": 4097}, "4098 layers"),
        ({"n_routed_experts": 100_001}, "n_routed_experts is 100001 in 3 layers"),
    ],
)
def test_what_the_message_says(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        check_sizes(SMALL | changes, FILE)


def test_a_number_without_end_takes_no_time() -> None:
    start = time.process_time()
    for key in ("num_hidden_layers", "n_routed_experts", "n_shared_experts", "num_nextn_predict_layers"):
        with pytest.raises(WeightsError):
            layout_of(SMALL | {key: json.loads("9" * 400)}, FILE)
    assert time.process_time() - start < 1
