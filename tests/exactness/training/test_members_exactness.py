# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron models of every kind that can be trained: values and gradients are Hugging Face's, in float32.

The gradients come back through verl's own converter of weights, under Hugging Face's names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from recipe.runfile.overrides import STABLE_ROUTER
from recipe.tiny.config import tiny_config
from recipe.tiny.members import DEEPSEEK_V3, MEMBERS
from tests.exactness import hugging_face
from tests.exactness.training.conftest import Case

Results = list[list[dict[str, Any]]]
# Without the loss that balances experts, which verl 0.6.1 adds to DeepSeek-V3's, and Hugging Face does not.
UNBALANCED = {"transformer": STABLE_ROUTER}
DENSE = [{"tp": 2, **UNBALANCED}, {"pp": 2, "first": 1, **UNBALANCED}]
WITH_EXPERTS = [{"ep": 2, **UNBALANCED}, {"pp": 2, "first": 1, **UNBALANCED}, {"tp": 2, "ep": 2, **UNBALANCED}]


@pytest.fixture(scope="module", params=[name for name in MEMBERS if name != DEEPSEEK_V3])
def member(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    hugging_face.restore()  # this process may have imported verl
    config = tiny_config(member=request.param, vocab_size=320, pad_token_id=0)
    return Case(tmp_path_factory.mktemp(request.param), rows=6, config=config)


@pytest.fixture(scope="module")
def alone(member: Case, run_job: Callable[..., Results]) -> list[dict[str, Any]]:
    """What one npu process computes."""
    tasks = [
        {"task": "log_probs", "backward": True, "gradients": True, **UNBALANCED},
        {"task": "step", "layout": UNBALANCED},
        {"task": "step", "layout": UNBALANCED, "dtype": "bfloat16"},
    ]
    return run_job(member, tasks, device="npu")[0]


def test_log_probabilities_equal_hugging_face(member: Case, alone: list[dict[str, Any]]) -> None:
    difference, other = member.distance(alone[0])
    print(f"{member.model.config.model_type}: max |delta log-prob| {difference:.2g}, {other} other argmaxes")
    assert difference <= 1e-5
    assert other == 0


def test_gradients_equal_hugging_face(member: Case, alone: list[dict[str, Any]]) -> None:
    expected, found = member.gradients(), alone[0]["gradients"]
    assert alone[0]["without_gradient"] == []
    assert expected.keys() == {name for name in found if not name.endswith("e_score_correction_bias")}
    largest = 0.0
    for name, gradient in expected.items():
        difference = float((found[name] - gradient).abs().max() / gradient.abs().max())
        assert difference <= 1e-4, name
        largest = max(largest, difference)
    print(f"{member.model.config.model_type}: largest difference of a gradient {largest:.2g} of the tensor's largest")


@pytest.mark.slow
def test_a_step_in_two_processes_equals_one_process(
    member: Case, alone: list[dict[str, Any]], run_job: Callable[..., Results]
) -> None:
    has_experts = any("experts" in name for name, _ in member.model.named_parameters())
    layouts = WITH_EXPERTS if has_experts else DENSE
    pair = run_job(member, [{"task": "step", "layout": layout} for layout in layouts], device="npu", world=2)
    for task in range(len(layouts)):
        losses = [loss for rank in pair for loss in rank[task]["losses"]]
        copies = len(losses) // len(alone[1]["losses"])  # tensor-parallel ranks report the same
        assert sorted(losses) == pytest.approx(sorted(alone[1]["losses"] * copies), rel=1e-5)
        for rank in pair:
            assert rank[task]["success"]
            assert rank[task]["grad_norm"] == pytest.approx(alone[1]["grad_norm"], rel=1e-4)


def test_a_bf16_step_trains(alone: list[dict[str, Any]]) -> None:
    exact, step = alone[1:]
    assert step["success"]
    assert step["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.1)
    assert step["changed"] == step["parameters"]


def test_gradients_are_compared(member: Case) -> None:
    """Against a tensor of zeros every one of them would be seen."""
    assert all(float(gradient.abs().max()) > 0 for gradient in member.gradients().values())
    assert all(torch.isfinite(gradient).all() for gradient in member.gradients().values())
