# SPDX-License-Identifier: Apache-2.0
"""Where torch_npu has a light way to give cached memory back, phases take it; what precedes the KV cache is full."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from verl.utils import memory_utils
from verl.utils.megatron_utils import offload_megatron_model_to_cpu
from verl.workers.megatron_workers import ActorRolloutRefWorker

from tests.verl_patches.workers.test_megatron_workers import batch, worker
from verl_patches import cache_release
from verl_patches.cache_release import LITTLE_BYTES, light_releases, release_to_device
from verl_patches.utils.weight_places import OPTION

LIGHT, FULL = "light", "full"


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How memory was given back, each time; there is a light way, the run wants it, and its first step is over."""
    ways: list[str] = []
    full = torch.npu.empty_cache
    monkeypatch.setattr(torch.npu, "empty_cache", lambda: (ways.append(FULL), full()))
    monkeypatch.setattr(torch.npu, "empty_virt_addr_cache", lambda: ways.append(LIGHT), raising=False)
    monkeypatch.setenv("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:True")
    monkeypatch.setenv(OPTION, "1")
    monkeypatch.setattr(cache_release, "_first_step_over", True)
    return ways


@pytest.mark.parametrize("method", ["generate_sequences", "compute_log_prob", "compute_ref_log_prob", "update_actor"])
@pytest.mark.proves("verl_patches.workers.megatron_workers:generate_sequences")
def test_a_phase_releases_lightly(releases: list[str], monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    from verl.utils.megatron import optimizer

    monkeypatch.setattr(optimizer, "get_megatron_last_lr", lambda _: 1e-6)
    rollout = SimpleNamespace(generate_sequences=lambda prompts: prompts)
    token_ids = SimpleNamespace(eos_token_id=1, pad_token_id=0)
    phase = worker(_is_rollout=True, _is_offload_param=True, rollout=rollout, generation_config=token_ids)
    phase.actor_module = phase.ref_module = []
    if method == "generate_sequences":
        phase._is_actor = False
    getattr(ActorRolloutRefWorker, method)(phase, batch())
    assert set(releases) == {LIGHT}
    memory_utils.aggressive_empty_cache()
    assert releases[-1] == FULL, "the phase is over"


def test_until_the_first_update_is_over_hccl_finds_all_that_is_free(
    releases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_release, "_first_step_over", False)
    monkeypatch.setattr("verl.utils.megatron.optimizer.get_megatron_last_lr", lambda _: 1e-6)
    phase = worker(_is_offload_param=True)
    phase.actor_module = []
    for expected in (FULL, LIGHT):
        releases.clear()
        ActorRolloutRefWorker.update_actor(phase, batch())
        assert set(releases) == {expected}


def test_before_the_kv_cache_comes_the_device_gets_everything(releases: list[str]) -> None:
    with light_releases(), light_releases():
        offload_megatron_model_to_cpu([])
        release_to_device()
        offload_megatron_model_to_cpu([])
    assert releases == [LIGHT, FULL, LIGHT]


def test_without_a_light_way_what_has_been_released_is_not_released_again(
    releases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(torch.npu, "empty_virt_addr_cache")
    memory_utils.aggressive_empty_cache(max_retries=3)
    releases.clear()
    with light_releases():
        offload_megatron_model_to_cpu([])
        release_to_device()
        assert releases == [FULL]
        reserved = torch.npu.memory_reserved()
        torch.empty(2 * LITTLE_BYTES, dtype=torch.uint8, device="npu")
        release_to_device()
        assert len(releases) > 1 and torch.npu.memory_reserved() == reserved


@pytest.mark.parametrize(("variable", "value"), [("PYTORCH_NPU_ALLOC_CONF", ""), (OPTION, "0")])
def test_the_light_way_is_taken_only_where_it_works_and_is_wanted(
    releases: list[str], monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with light_releases():
        memory_utils.aggressive_empty_cache()
    assert releases == [FULL]
