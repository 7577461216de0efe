# SPDX-License-Identifier: Apache-2.0
"""verl's actor with given choices of experts, against Hugging Face with the same: log-probabilities and gradients.

The choices are drawn at random, so that hardly one of them is the router's own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Results = list[list[dict[str, Any]]]
# The router is trained by the policy loss alone.
PLAIN = {"moe_router_load_balancing_type": "none", "moe_aux_loss_coeff": 0.0, "moe_router_bias_update_rate": 0.0}
FULL = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
# The last of the layers with experts is not computed again.
BLOCK = {"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 3}
EXPERTS_ALONE = {"recompute_granularity": "selective", "recompute_modules": ["moe"]}


def layout(more: dict[str, Any] | None = None, **sizes: int) -> dict[str, Any]:
    return {**sizes, "transformer": PLAIN | (more or {})}


ALONE = {"packed": {"layout": layout(), "micro_batch": 2}} | {
    name: {"layout": layout(more)} for name, more in {"full": FULL, "block": BLOCK, "moe": EXPERTS_ALONE}.items()
}
ALONE["dynamic"] = {"layout": layout(), "most_tokens": 60}
ALONE["bias"] = {"layout": layout({"moe_router_bias_update_rate": 1.0} | FULL)}
PAIRS = {
    "ep2": {"layout": layout(ep=2), "micro_batch": 1},
    # Both stages of the smallest model have layers with experts; the first begins a micro batch before it is through
    # with the one before.
    "pp2": {"layout": layout(pp=2)},
    "pp2-full": {"layout": layout(FULL, pp=2)},
    "tp2": {"layout": layout(tp=2, ep=2), "micro_batch": 2},
}


class Given:
    """Prompts, advantages and choices for the sequences of a case, and what Hugging Face makes of them."""

    def __init__(self, case: Any) -> None:
        self._case, config = case, case.model.config
        draw = random.Random(5)
        self.prompts = [draw.randrange(2, 6) for _ in case.lengths]
        self.advantages = [draw.uniform(-1, 1) for _ in case.lengths]
        self._layers = config.num_hidden_layers - config.first_k_dense_replace
        size = config.n_routed_experts // config.n_group

        def experts() -> list[int]:
            groups = draw.sample(range(config.n_group), config.topk_group)
            allowed = [g * size + i for g in groups for i in range(size)]
            # The first experts of a group more often than its last.
            some = sorted(draw.sample(allowed, 2 * config.num_experts_per_tok), key=lambda expert: expert % size)
            return some[: config.num_experts_per_tok]

        self.choices = [
            [[experts() for _ in range(self._layers)] for _ in range(length - 1)] for length in case.lengths
        ]

    def task(self, **more: Any) -> dict[str, Any]:
        return {
            "task": "replay", "prompts": self.prompts, "advantages": self.advantages, "choices": self.choices, **more
        }  # fmt: skip

    @property
    def without(self) -> float:
        """The share of tokens that have no choice."""
        return len(self._case.lengths) / sum(self._case.lengths)

    def reference(self) -> tuple[list[torch.Tensor], dict[int, torch.Tensor], float]:
        """Log-probabilities of each answer; the routers' gradients by layer, from 1; the norm of all gradients."""
        model, dense = self._case.model, self._case.model.config.first_k_dense_replace
        model.model.embed_tokens.padding_idx = None  # the pad id inside a sequence is a token like any other
        routers = [layer.mlp.gate for layer in model.model.layers[dense:]]
        log_probs, loss = [], torch.zeros(())
        for row, (prompt, length) in enumerate(zip(self.prompts, self._case.lengths, strict=True)):
            chosen = torch.tensor(self.choices[row])
            for place, router in enumerate(routers):
                own = type(router).get_topk_indices.__get__(router)
                router.get_topk_indices = lambda scores, own=own, given=chosen[:, place]: torch.cat(
                    [given, own(scores)[-1:]]
                )
            ids = torch.tensor([self._case.tokens[row][:length]])
            found = model(ids).logits[0, prompt - 1 : -1].log_softmax(-1).gather(1, ids[0, prompt:, None])[:, 0]
            loss = loss - self.advantages[row] * found.mean() / len(self.prompts)
            log_probs.append(found.detach())
        for router in routers:
            del router.get_topk_indices
        model.zero_grad()
        loss.backward()
        gradients = {dense + place + 1: router.weight.grad for place, router in enumerate(routers)}
        squares = [p.grad.double().pow(2).sum().item() for p in model.parameters() if p.grad is not None]
        return log_probs, gradients, math.sqrt(sum(squares))


@pytest.fixture(scope="module", params=["tiny", pytest.param("many_experts", marks=pytest.mark.slow)])
def case(request: pytest.FixtureRequest) -> Any:
    """Eight experts without groups; 256 experts of which a token's come from four of eight groups."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def given(case: Any) -> Given:
    return Given(case)


@pytest.fixture(scope="module")
def expected(given: Given) -> Any:
    return given.reference()


@pytest.fixture(scope="module")
def alone(case: Any, given: Given, run_job: Callable[..., Results]) -> dict[str, dict[str, Any]]:
    tasks = [given.task(**task) for task in ALONE.values()]
    return dict(zip(ALONE, run_job(case, tasks, device="npu", replay="rollout")[0], strict=True))


@pytest.fixture(scope="module")
def pair(case: Any, given: Given, run_job: Callable[..., Results]) -> dict[str, list[dict[str, Any]]]:
    """By layout, what each of two processes computes."""
    first = case.model.config.num_hidden_layers - 1
    tasks = [given.task(**task | {"layout": {"first": first} | task["layout"]}) for task in PAIRS.values()]
    ranks = run_job(case, tasks, device="npu", world=2, replay="rollout")
    return {name: [rank[place] for rank in ranks] for place, name in enumerate(PAIRS)}


def require_log_probs(found: torch.Tensor, expected: list[torch.Tensor]) -> None:
    for row, one in enumerate(expected):
        assert (found[row, : len(one)] - one).abs().max() <= 1e-5


def require_counted(result: dict[str, Any], without: float) -> None:
    for metrics in result["metrics"]:
        assert metrics["training/routing_replayed"] == 1.0
        assert metrics["training/routing_flips"] > 0.9
        assert metrics["training/routing_own"] == pytest.approx(without, rel=1e-9)


@pytest.mark.proves(
    "megatron_patches.core.transformer.moe.router:routing",
    "verl_patches.workers.actor.megatron_actor:forward_backward_batch",
)
@pytest.mark.parametrize("name", ALONE)
def test_log_probabilities_and_gradients_are_those_of_the_given_experts(
    name: str, alone: dict[str, dict[str, Any]], given: Given, expected: Any
) -> None:
    log_probs, gradients, norm = expected
    require_log_probs(alone[name]["log_probs"], log_probs)
    require_counted(alone[name], given.without)
    assert alone[name]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert alone[name]["gradients"].keys() == gradients.keys()
    for layer, gradient in gradients.items():
        assert gradient.norm() > 1e-3 * norm
        assert (alone[name]["gradients"][layer] - gradient).norm() <= 1e-4 * gradient.norm()


def test_the_update_of_the_biases_sees_the_experts_that_the_tokens_went_to(
    case: Any, alone: dict[str, dict[str, Any]], given: Given
) -> None:
    config = case.model.config
    for name, result in alone.items():
        for layer, change in result["bias_changes"].items():
            if name != "bias":
                assert not change.any()
                continue
            place = layer - 1 - config.first_k_dense_replace
            chosen = [expert for answer in given.choices for token in answer for expert in token[place]]
            load = torch.bincount(torch.tensor(chosen), minlength=config.n_routed_experts).float()
            # An answer's last token goes where the router sends it.
            sure = (load - load.mean()).abs() > 2 * len(given.choices)
            assert sure.any()
            assert torch.equal(change[sure].sign(), (load.mean() - load)[sure].sign())


@pytest.mark.parametrize("name", PAIRS)
def test_two_processes_compute_the_same(
    name: str, pair: dict[str, list[dict[str, Any]]], given: Given, expected: Any
) -> None:
    log_probs, _, norm = expected
    ranks = pair[name]
    half = len(log_probs) // 2
    for rank, result in enumerate(ranks):
        mine = log_probs[rank * half : (rank + 1) * half] if name == "ep2" else log_probs
        require_log_probs(result["log_probs"], mine)
        assert result["grad_norm"] == pytest.approx(norm, rel=1e-4)
        if name == "tp2":  # sequences are padded to a multiple of two, so that more tokens have no choice
            assert all(metrics["training/routing_replayed"] == 1.0 for metrics in result["metrics"])
        else:
            require_counted(result, given.without)


def test_without_replay_the_log_probabilities_are_others(
    case: Any, given: Given, run_job: Callable[..., Results], expected: Any
) -> None:
    (result,) = run_job(case, [given.task(layout=layout())], device="npu")[0]
    assert result["metrics"] == [{}, {}]
    with pytest.raises(AssertionError):
        require_log_probs(result["log_probs"], expected[0])


@pytest.mark.mindspeed
def test_with_mindspeed(
    case: Any, given: Given, run_job: Callable[..., Results], mindspeed_upstream: Path, expected: Any
) -> None:
    tasks = [given.task(layout=layout()), given.task(layout=layout(FULL))]
    log_probs, gradients, norm = expected
    for result in run_job(case, tasks, device="npu", mindspeed=mindspeed_upstream, replay="rollout")[0]:
        require_log_probs(result["log_probs"], log_probs)
        require_counted(result, given.without)
        assert result["grad_norm"] == pytest.approx(norm, rel=1e-4)
        for layer, gradient in gradients.items():
            assert (result["gradients"][layer] - gradient).norm() <= 1e-4 * gradient.norm()
