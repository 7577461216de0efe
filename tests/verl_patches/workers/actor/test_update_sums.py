# SPDX-License-Identifier: Apache-2.0
"""What an update's passes tell of rollout and actor is what verl computes from a pass for the old log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core import parallel_state
from verl.models import mcore
from verl.models.mcore import registry
from verl.protocol import DataProto
from verl.utils.debug.metrics import calculate_debug_metrics

from verl_patches.workers.actor.update_sums import (
    Sums,
    UpdateSums,
    entropy_of,
    metrics_of,
    running_sums,
    summing,
)

NAMES = ("rollout_probs_diff_valid", "rollout_probs_diff_max", "rollout_probs_diff_mean", "rollout_probs_diff_std")
NAMES = tuple(f"training/{name}" for name in (*NAMES, "rollout_actor_probs_pearson_corr", "rollout_actor_kl"))


@pytest.fixture
def one_rank(tmp_path: Any) -> Iterator[None]:
    """Megatron's groups of a single rank on the CPU."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    parallel_state.initialize_model_parallel()
    yield
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()


@settings(deadline=None)
@given(seed=st.integers(0, 1000), ranks=st.integers(1, 3), passes=st.integers(1, 4), sharp=st.floats(0.01, 3))
def test_metrics_are_those_that_verl_computes_from_a_pass_of_its_own(
    seed: int, ranks: int, passes: int, sharp: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * ranks * passes
    actor = -sharp * torch.rand(rows, 9, generator=generator)
    rollout = (actor + 0.05 * torch.randn(rows, 9, generator=generator)).clamp(max=0)
    mask = torch.rand(rows, 9, generator=generator) < 0.7
    mask[:, 0] = True
    entropy = torch.rand(rows, 9, generator=generator)
    # What stands where no token of an answer does is not looked at.
    actor[~mask], entropy[~mask] = float("nan"), float("inf")

    given_by_ranks = []
    for rank in range(ranks):
        sums = UpdateSums(temperature=1.0)
        for number in range(passes):
            part = slice(2 * (rank * passes + number), 2 * (rank * passes + number) + 2)
            sums.add(rollout[part], actor[part], entropy[part], mask[part])
        given_by_ranks.append(sums.values())
    found = metrics_of(Sums.of_ranks(given_by_ranks))

    tensors = {"rollout_log_probs": rollout, "old_log_probs": actor, "responses": actor, "response_mask": mask}
    expected = calculate_debug_metrics(DataProto.from_dict(tensors=tensors))
    for name in NAMES:
        assert found[name] == pytest.approx(float(expected[name]), rel=1e-4, abs=1e-5), name
    assert found["actor/entropy"] == pytest.approx(float(entropy[mask].mean()), rel=1e-5)


def test_what_cannot_be_told_is_left_out() -> None:
    sums = UpdateSums(temperature=1.0)
    assert metrics_of(Sums.of_ranks([sums.values()])) == {}
    certain, nothing = torch.zeros(1, 4), torch.zeros(1, 4, dtype=torch.bool)
    sums.add(certain, certain, certain, nothing)
    assert metrics_of(Sums.of_ranks([sums.values()])) == {}
    sums.add(certain, certain, certain, ~nothing)
    found = metrics_of(Sums.of_ranks([sums.values()]))
    assert "training/rollout_actor_probs_pearson_corr" not in found
    assert all(math.isfinite(value) for value in found.values())


def test_the_entropy_is_that_of_the_distribution_at_the_temperature(one_rank: None) -> None:
    logits = 3 * torch.randn(1, 300, 50, requires_grad=True)
    wanted = torch.rand(1, 300) < 0.6
    before = logits.detach().clone()
    found = entropy_of(logits, wanted, temperature=0.7)
    exact = torch.distributions.Categorical(logits=logits.detach() / 0.7).entropy()
    assert torch.allclose(found[wanted], exact[wanted], atol=1e-5) and not found.requires_grad
    assert (found[~wanted] == 0).all() and torch.equal(logits, before)


@pytest.mark.proves("verl_patches.models.mcore.registry:get_mcore_forward_fn")
def test_an_on_policy_update_notes_the_entropy_of_its_passes(one_rank: None, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, mask = torch.randn(1, 8, 11), torch.ones(1, 8, dtype=torch.bool)

    def forward(logits_processor: Any, logits_processor_args: Any) -> Any:
        return logits_processor(logits, **logits_processor_args)

    monkeypatch.setitem(registry.MODEL_FORWARD_REGISTRY, registry.get_supported_model("DeepseekV3ForCausalLM"), forward)
    architecture = SimpleNamespace(architectures=["DeepseekV3ForCausalLM"])
    arguments = {"label": torch.zeros(1, 8), "label_mask": mask}

    def computed() -> Any:
        return mcore.get_mcore_forward_fn(architecture)(
            logits_processor=lambda logits, label, label_mask: {"log_probs": label}, logits_processor_args=arguments
        )

    assert computed().keys() == {"log_probs"} and running_sums() is None
    with summing(temperature=1.0) as sums:
        assert computed().keys() == {"log_probs"}
        entropy = sums.take_entropy(responses=3)
    exact = torch.distributions.Categorical(logits=logits).entropy()
    assert torch.allclose(entropy, exact[:, 4:7], atol=1e-5)
