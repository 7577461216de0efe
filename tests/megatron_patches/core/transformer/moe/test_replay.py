# SPDX-License-Identifier: Apache-2.0
"""Megatron-core's router with given experts: weights and gradients by the formula, and what is counted.

The whole model with given experts is tested in tests/exactness/training.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import verl_patches.prelude_patch  # noqa: F401

# isort: split
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_patches.core.transformer.moe import replay as module
from megatron_patches.core.transformer.moe.replay import Replay, replaying, routed, take_metrics
from verl_patches.workers.actor.megatron_actor import layers_with_experts

EXPERTS, K, LAYER, SCALE = 16, 4, 3, 2.5


@pytest.fixture(autouse=True)
def nothing_counted() -> Iterator[None]:
    module._counts = module._Counts()
    yield
    module._counts = module._Counts()


def router(**changes: Any) -> Any:
    settings: dict[str, Any] = {
        "num_layers": 4, "hidden_size": 8, "num_attention_heads": 2, "add_bias_linear": False,
        "num_moe_experts": EXPERTS, "moe_router_topk": K,
        "moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True,
        "moe_router_load_balancing_type": "none", "moe_router_num_groups": 4, "moe_router_group_topk": 2,
        "moe_router_topk_scaling_factor": SCALE,
    }  # fmt: skip
    made = TopKRouter(TransformerConfig(**(settings | changes))).to("npu")
    made.set_layer_number(LAYER)
    if made.expert_bias is not None:
        made.expert_bias.copy_(torch.linspace(-0.3, 0.3, EXPERTS))
    return made


def logits(tokens: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(tokens, 1, EXPERTS, generator=generator).to("npu").requires_grad_()


def given(tokens: int, known: int) -> Replay:
    """An answer of so many tokens of which the first ones have a choice: experts of the last two groups."""
    generator = np.random.default_rng(4)
    choices = np.stack([8 + generator.permutation(8)[:K] for _ in range(known)])[:, None].astype(np.uint8)
    made = Replay([choices], [LAYER], [LAYER], "npu")
    made.begin([0], [tokens], 1, (0, 1))
    return made


def run(made: Any, inputs: torch.Tensor, replay: Replay, *, updating: bool = False) -> Any:
    with replaying(replay, updating=updating):
        return routed(TopKRouter.routing, made, inputs, replay)


def test_weights_and_gradients_are_those_of_the_formula() -> None:
    made, inputs, replay = router(), logits(7), given(7, 6)
    weights, chosen = run(made, inputs, replay)
    own = TopKRouter.routing(made, inputs.detach())[1]
    expected_choice = torch.cat([torch.zeros(6, EXPERTS, dtype=torch.bool), own.cpu()[6:]])
    for row, experts in enumerate(replay.choice(LAYER, updating=False)[0].tolist()[:6]):
        expected_choice[row, experts] = True
    assert torch.equal(chosen.cpu(), expected_choice)
    assert (chosen.cpu() != own.cpu()).any(dim=-1)[:6].all()

    z = inputs.detach().cpu().double()[:, 0]
    scores = z.sigmoid()
    total = (scores * expected_choice).sum(dim=-1, keepdim=True)
    w = SCALE * scores * expected_choice / total
    assert torch.allclose(weights.cpu().double(), w, atol=1e-6)
    # dw_i/dz_l, as the module's text has it.
    factor = torch.eye(EXPERTS, dtype=torch.double)[None] - (scores / total)[:, None, :]
    jacobian = w[:, :, None] * factor * ((1 - scores) * expected_choice)[:, None, :]
    upstream = torch.randn(7, EXPERTS, generator=torch.Generator().manual_seed(5))
    (gradient,) = torch.autograd.grad((weights * upstream.to("npu")).sum(), inputs)
    expected = torch.einsum("ti,til->tl", upstream.double(), jacobian)
    assert torch.allclose(gradient[:, 0].cpu().double(), expected, atol=1e-6)


def test_the_routers_own_choice_replayed_is_its_own_result() -> None:
    made, inputs = router(), logits(9)
    weights, own = TopKRouter.routing(made, inputs)
    experts = own.cpu().nonzero()[:, 1].reshape(9, K)
    replay = Replay([experts[:, None].numpy().astype(np.uint8)], [LAYER], [LAYER], "npu")
    replay.begin([0], [9], 1, (0, 1))
    again, chosen = run(made, inputs, replay)
    assert torch.equal(chosen, own)
    assert torch.allclose(again, weights, atol=1e-7)
    assert take_metrics("npu") == {module.REPLAYED: 1.0, module.FLIPS: 0.0, module.OWN: 0.0}


def test_a_router_without_a_bias() -> None:
    made = router(moe_router_enable_expert_bias=False, moe_router_num_groups=None, moe_router_group_topk=None)
    _, chosen = run(made, logits(5), given(5, 4))
    assert chosen[:4, 8:].sum() == 4 * K
    assert made.expert_bias is None


def test_what_is_counted() -> None:
    made, replay = router(), given(7, 6)
    before = made.expert_bias.clone()
    with torch.no_grad():
        run(made, logits(7), replay)
    assert not made.local_tokens_per_expert.any()
    _, chosen = run(made, logits(7), replay)
    assert torch.equal(made.local_tokens_per_expert, chosen.sum(dim=0).float())
    assert torch.equal(made.expert_bias, before)
    assert take_metrics("npu") == {module.REPLAYED: 1.0, module.FLIPS: 1.0, module.OWN: 1 / 7}
    assert take_metrics("npu") == {}


def test_an_expert_that_the_groups_forbid_shows_in_the_count() -> None:
    """The sampler cannot have chosen from four groups where the trainer takes two."""
    choices = np.array([[[0, 4, 8, 12]], [[0, 1, 4, 5]]], np.uint8)
    replay = Replay([choices], [LAYER], [LAYER], "npu")
    replay.begin([0], [2], 1, (0, 1))
    run(router(), logits(2), replay)
    assert take_metrics("npu")[module.REPLAYED] == 0.5


def test_layers_computed_again_are_given_the_choices_of_their_micro_batch() -> None:
    """Three micro batches are begun before the first is computed again, and each counts once."""
    choices = [np.full((2, 2, K), number, np.uint8) for number in range(3)]
    replay = Replay(choices, [2, LAYER], [LAYER], "npu")

    def next_given() -> tuple[int, bool]:
        found, first = replay.choice(LAYER, updating=True)
        return int(found[0, 0]), first

    for number in range(3):
        replay.begin([number], [2], 1, (0, 1))
        with torch.no_grad():
            assert next_given() == (number, True)
    for number in range(2):
        assert next_given() == (number, False)
    with pytest.raises(RuntimeError, match=r"left over after the backward pass, by layer: \{3: 1\}"):
        replay.require_done()
    assert next_given() == (2, False)
    replay.require_done()
    # A layer that is not computed again.
    assert next_given() == (2, True)


def test_the_place_of_a_token_in_packed_sequences() -> None:
    choices = [np.arange(n)[:, None, None].repeat(K, 2).astype(np.uint8) for n in (4, 2, 6)]
    replay = Replay(choices, [LAYER], [LAYER], "npu")
    places = []
    for part in range(2):
        replay.begin([2, 0], [6, 5], 2, (part, 2))
        places += replay.choice(LAYER, updating=False)[0][:, 0].tolist()
    none = module.UNKNOWN
    # Six tokens, all known; five, of which the last has no choice, and padding to a multiple of two.
    assert places == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, none, none]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"chose experts in \[2\] layers, the actor has 1"):
        Replay([np.zeros((3, 2, K), np.uint8)], [LAYER], [LAYER], "npu")
    with pytest.raises(ValueError, match="an answer of 9 tokens has the choices of 3, expected 8"):
        given(9, 3)
    with pytest.raises(RuntimeError, match="layer 3 routes 7 tokens, and has the choices of 5"):
        run(router(), logits(7), given(5, 4))
    softmax = router(moe_router_score_function="softmax", moe_router_enable_expert_bias=False)
    with pytest.raises(NotImplementedError, match='moe_router_score_function = "softmax"'):
        run(softmax, logits(7), given(7, 6))


def test_the_bias_is_restored_after_an_error() -> None:
    made = router()
    before = made.expert_bias

    def fails(*args: Any) -> Any:
        if torch.is_grad_enabled():
            raise ValueError("no routing today")
        return TopKRouter.routing(*args)

    replay = given(7, 6)
    with pytest.raises(ValueError, match="today"), replaying(replay, updating=False):
        routed(fails, made, logits(7), replay)
    assert made.expert_bias is before
    assert module.replay_for(LAYER) is None


def test_which_layers_have_experts() -> None:
    for frequency, layers in ((1, [1, 2, 3, 4]), (2, [1, 3]), ([0, 1, 1, 0], [2, 3])):
        assert layers_with_experts(SimpleNamespace(num_layers=4, moe_layer_freq=frequency)) == layers
