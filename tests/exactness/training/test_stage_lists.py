# SPDX-License-Identifier: Apache-2.0
"""Pipeline stages of which not only the ends differ: the same weights in the same places, and the same training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recipe.tiny.sizes import SIZES, SMALLEST
from tests.exactness.training.conftest import Case, deepseek_v3
from tests.exactness.training.test_load_exactness import (
    alternatives,
    check_every_element,
    in_bfloat16,
    whole_deepseek,
)

Results = list[list[dict[str, Any]]]
BLOCK = "megatron_patches.core.transformer.transformer_block:get_num_layers_to_build"
LAYER = "megatron_patches.core.transformer.transformer_layer:get_transformer_layer_offset"
NAMES = "verl_patches.utils.megatron_utils:get_transformer_layer_offset"
LISTED = "1,2,1,2"
LAYERS = 6
TASKS = [
    {"task": "step", "layout": {"pp": 4, "ep": 2}},
    {"task": "elements", "layout": {"pp": 4, "ep": 2}, "dtype": "bfloat16"},
    {"task": "reshard", "layout": {"pp": 4, "ep": 2}, "dtype": "bfloat16"},
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory: pytest.TempPathFactory) -> Case:
    sizes = SIZES[SMALLEST] | {"num_experts_per_tok": 2, "num_hidden_layers": LAYERS}
    return Case(tmp_path_factory.mktemp("six"), rows=8, config=deepseek_v3(sizes))


@pytest.fixture(scope="module")
def alone(six_layers: Case, run_job: Callable[..., Results]) -> dict[str, Any]:
    return run_job(six_layers, [{"task": "step", "layout": {}}], device="npu")[0][0]


def check(case: Case, alone: dict[str, Any], ranks: Results) -> None:
    source = in_bfloat16(case.model.state_dict())
    whole = whole_deepseek(source, layers=LAYERS, experts=8)
    check_every_element(whole, [rank[1]["pieces"] for rank in ranks], alternatives(whole))
    for rank in ranks:
        named = rank[2]["tensors"]
        assert named.keys() == source.keys()
        assert [name for name, tensor in source.items() if not torch.equal(named[name], tensor)] == []
        assert rank[0]["success"]
        assert rank[0]["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-4)
    losses = [loss for rank in ranks for loss in rank[0]["losses"]]
    assert sorted(losses) == pytest.approx(sorted(alone["losses"]), rel=1e-5)


@pytest.mark.proves(BLOCK, LAYER, NAMES)
def test_every_layer_is_where_it_belongs(
    six_layers: Case, alone: dict[str, Any], run_job: Callable[..., Results]
) -> None:
    check(six_layers, alone, run_job(six_layers, TASKS, device="npu", world=8, stages=LISTED, limit=400))


@pytest.mark.mindspeed
@pytest.mark.proves(LAYER, NAMES)
def test_with_mindspeed_too(
    six_layers: Case, alone: dict[str, Any], run_job: Callable[..., Results], mindspeed_upstream: Path
) -> None:
    told = {"pipeline_num_transformer_layers": [[1], [2], [1], [2]]}
    ranks = run_job(
        six_layers, TASKS, device="npu", world=8, stages=LISTED, mindspeed=mindspeed_upstream, transformer=told,
        limit=400,
    )  # fmt: skip
    check(six_layers, alone, ranks)
