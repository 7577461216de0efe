# SPDX-License-Identifier: Apache-2.0
"""config.json: whatever stands where a size is expected, the sizes of a model come of it, or one error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.models.families import describe, family_of
from recipe.models.family import ModelError
from recipe.models.published import CONFIGS

SMALL = CONFIGS["deepseek_v3_671b"] | {
    "num_hidden_layers": 2, "n_routed_experts": 4, "first_k_dense_replace": 1, "n_group": 2, "topk_group": 1,
    "num_experts_per_tok": 2,
}  # fmt: skip
DENSE = CONFIGS["qwen3_8b"] | {"num_hidden_layers": 2}
MIXTURE = CONFIGS["qwen3_30b_a3b"] | {"num_hidden_layers": 2, "num_experts": 4, "num_experts_per_tok": 2}
# Read by nothing here: what a size or a switch that is none would change is upstream's to say.
UNREAD = {
    "torch_dtype",
    "rope_theta",
    "rms_norm_eps",
    "routed_scaling_factor",
    "router_aux_loss_coef",
    "bos_token_id",
    "eos_token_id",
}
ODD = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.integers(-5, 0), st.integers(2**31, 2**70), st.floats(),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)  # fmt: skip


def test_sizes_that_transformers_has_defaults_for_may_be_absent() -> None:
    llama = {name: value for name, value in CONFIGS["llama3_1_8b"].items() if name != "num_key_value_heads"}
    described = describe(llama | {"rope_scaling": None})
    assert described.key_heads == 32 and described.key_width == 128


@settings(max_examples=300, deadline=None)
@given(data=st.data(), config=st.sampled_from([SMALL, DENSE, MIXTURE]), value=ODD)
def test_no_value_is_more_than_one_error(data: st.DataObject, config: dict[str, Any], value: Any) -> None:
    key = data.draw(st.sampled_from(sorted(config.keys() - UNREAD)))
    changed = config | {key: value}
    try:
        sizes = describe(changed)
    except ModelError as error:
        assert key in str(error) or "experts" in str(error)
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        assert sizes.layers == 2 and family_of(changed).layout(changed).places


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": None}, "hidden_size is None; expected a whole number, 1 to"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"vocab_size": "x" * 1000}, r"vocab_size is 'xxx.*\.\.\.; expected"),
        ({"n_shared_experts": 0}, "n_shared_experts is 0; expected a whole number, 1 to"),
        ({"first_k_dense_replace": -1}, "first_k_dense_replace is -1; expected a whole number, 0 to"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings is 0; expected true or false"),
        ({"num_hidden_layers": 4097}, "4098 layers"),
        ({"n_routed_experts": 100_002}, "n_routed_experts is 100002 in 3 layers"),
    ],
)
def test_what_the_message_says(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        describe(SMALL | changes)


def test_a_size_that_is_missing_is_named() -> None:
    without = {name: value for name, value in SMALL.items() if name != "kv_lora_rank"}
    with pytest.raises(ModelError, match="kv_lora_rank is missing; a model of type deepseek_v3 needs it"):
        describe(without)
