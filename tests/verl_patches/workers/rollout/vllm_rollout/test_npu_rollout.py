# SPDX-License-Identifier: Apache-2.0
"""The rollout's life cycle around an engine of two weights: what it builds, frees, loads and refuses."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.vllm_rollout import vllm_rollout_spmd
from verl.workers.rollout.vllm_rollout.vllm_rollout_spmd import vLLMRollout

from recipe.recorder import read_events
from verl_patches.workers.rollout.vllm_rollout.npu_rollout import NPURollout
from verl_patches.workers.rollout.vllm_rollout.request_seeds import SEEDS

MIB = 1 << 20


class Weights(nn.Module):
    """Two weights of 1 MiB; `load_weights` as vLLM models have it: loads what it is given, returns the names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(MIB // 4, device="npu"))
        self.b = nn.Parameter(torch.zeros(MIB // 4, device="npu"))
        self.model = SimpleNamespace(layers=[])

    def load_weights(self, weights: Any) -> set[str]:
        loaded = set()
        for name, value in weights:
            elements, parameter = value.numel(), getattr(self, name)
            parameter.data[:elements].copy_(value)
            loaded.add(name)
        return loaded


class FakeLLM:
    """Records its keyword arguments and holds `Weights` and a cache of 2 MiB where vLLM holds them."""

    fails = False

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs, self.compile = kwargs, torch.compile
        if self.fails:
            raise ValueError("no engine today")
        layer = SimpleNamespace(kv_cache=[None], impl=SimpleNamespace())
        self.layer = layer
        self.runner = SimpleNamespace(
            model=Weights(),
            kv_caches=[],
            vllm_config=SimpleNamespace(compilation_config=SimpleNamespace(static_forward_context={"a": layer})),
        )
        executor = SimpleNamespace(
            driver_worker=SimpleNamespace(worker=SimpleNamespace(model_runner=self.runner)),
            initialize_from_config=self.initialize,
        )
        scheduler = SimpleNamespace(
            kv_cache_config=SimpleNamespace(num_blocks=8),
            kv_cache_manager=SimpleNamespace(block_pool=SimpleNamespace(num_gpu_blocks=8)),
            get_num_unfinished_requests=lambda: 0,
        )
        core = SimpleNamespace(scheduler=scheduler, model_executor=executor)
        self.llm_engine = SimpleNamespace(
            engine_core=SimpleNamespace(engine_core=core),
            model_executor=executor,
            get_num_unfinished_requests=lambda: 0,
            model_config=SimpleNamespace(dtype=torch.float32),
        )
        self.prefix_resets = 0
        self.initialize([scheduler.kv_cache_config])

    def initialize(self, configs: list[Any]) -> None:
        cache = torch.zeros(configs[0].num_blocks, MIB // 4, dtype=torch.uint8, device="npu")
        self.layer.kv_cache = [cache]
        self.runner.kv_caches.append(cache)

    def reset_prefix_cache(self) -> None:
        self.prefix_resets += 1


@pytest.fixture(scope="module")
def model_config(tmp_path_factory: pytest.TempPathFactory) -> HFModelConfig:
    from recipe.tiny.config import tiny_config
    from recipe.tiny.tokenizer import save_tokenizer

    directory = tmp_path_factory.mktemp("model")
    tiny_config().save_pretrained(directory)
    save_tokenizer(directory)
    return HFModelConfig(path=str(directory))


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gc.collect()  # an earlier test's engine, so that the device's counter moves by this one's memory only
    monkeypatch.delenv("VLLM_DP_SIZE", raising=False)
    monkeypatch.setattr(vllm_rollout_spmd, "LLM", FakeLLM)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 1)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: 0)
    yield


def build(model_config: HFModelConfig, **changes: Any) -> NPURollout:
    settings = {
        "name": "vllm",
        "mode": "sync",
        "prompt_length": 16,
        "response_length": 16,
        "tensor_model_parallel_size": 1,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "enforce_eager": True,
    }
    return NPURollout(RolloutConfig(**(settings | changes)), model_config, device_mesh=None)


@pytest.fixture
def rollout(one_process: None, model_config: HFModelConfig) -> NPURollout:
    return build(model_config)


def full(value: float, elements: int = MIB // 4) -> torch.Tensor:
    return torch.full((elements,), value, device="npu")


def run(coroutine: Any) -> None:
    asyncio.run(coroutine)


def test_verls_constructor_runs_with_the_npu_engine_arguments(rollout: NPURollout) -> None:
    kwargs = rollout.inference_engine.kwargs
    assert kwargs["enable_sleep_mode"] is False
    assert kwargs["enable_expert_parallel"] is True
    assert kwargs["additional_config"]["ascend_scheduler_config"] == {"enabled": True, "enable_chunked_prefill": False}
    assert kwargs["max_model_len"] == 32 and kwargs["distributed_executor_backend"] == "external_launcher"
    assert rollout.sampling_params.max_tokens == 16
    assert vllm_rollout_spmd.LLM is FakeLLM, "verl's module has its own class back"


def test_a_budget_below_the_longest_sequence_passes_verls_check_and_is_chunked(
    one_process: None, model_config: HFModelConfig
) -> None:
    rollout = build(model_config, max_num_batched_tokens=24, enable_chunked_prefill=True)
    assert rollout.inference_engine.kwargs["enable_chunked_prefill"] is True
    assert rollout.inference_engine.kwargs["max_num_batched_tokens"] == 24
    assert rollout.config.enable_chunked_prefill is True, "the configuration stays the user's"
    with pytest.raises(ValueError, match="Enable chunked prefill"):  # what verl makes of it by itself
        vLLMRollout(
            RolloutConfig(
                name="vllm",
                prompt_length=16,
                response_length=16,
                tensor_model_parallel_size=1,
                max_num_batched_tokens=24,
                enable_chunked_prefill=True,
            ),
            model_config,
            device_mesh=None,
        )


def test_user_options_reach_the_engine(one_process: None, model_config: HFModelConfig) -> None:
    asked = {"vllm": {"additional_config": {"lmhead_tp_size": 2}, "enable_expert_parallel": False}}
    kwargs = build(model_config, engine_kwargs=asked).inference_engine.kwargs
    assert kwargs["additional_config"]["lmhead_tp_size"] == 2
    assert kwargs["additional_config"]["ascend_scheduler_config"]["enabled"] is True
    assert kwargs["enable_expert_parallel"] is False


def test_samples_are_independent_without_our_doing(one_process: None, model_config: HFModelConfig) -> None:
    """verl repeats the prompts itself and passes no number of samples on, and no seed, which would make them equal."""
    parameters = build(model_config, n=16).sampling_params
    assert (parameters.n, parameters.seed) == (1, None)


def test_a_failing_engine_leaves_verls_module_as_it_was(
    one_process: None, model_config: HFModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeLLM, "fails", True)
    with pytest.raises(ValueError, match="no engine today"):
        build(model_config)
    assert vllm_rollout_spmd.LLM is FakeLLM


def test_release_frees_and_resume_brings_back_by_the_devices_counter(rollout: NPURollout) -> None:
    held = rollout.device_bytes
    assert held >= 4 * MIB
    allocated = torch.npu.memory_allocated()
    run(rollout.release())
    assert torch.npu.memory_allocated() == allocated - 4 * MIB
    assert rollout.device_bytes == held - 4 * MIB
    assert rollout.inference_engine.prefix_resets == 1
    run(rollout.release())

    run(rollout.resume(["weights"]))
    assert torch.npu.memory_allocated() == allocated - 2 * MIB
    run(rollout.resume(["weights", "kv_cache"]))
    assert (torch.npu.memory_allocated(), rollout.device_bytes) == (allocated, held)


@pytest.mark.parametrize("when", ["the engine is built", "the cache is built again"])
def test_cached_memory_is_given_back_before(
    one_process: None, model_config: HFModelConfig, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    free = []
    initialize = FakeLLM.initialize

    def noted(self: Any, configs: list[Any]) -> None:
        free.append(torch.npu.memory_reserved() - torch.npu.memory_allocated())
        initialize(self, configs)

    monkeypatch.setattr(FakeLLM, "initialize", noted)
    if when == "the engine is built":
        torch.empty(64 * MIB, dtype=torch.uint8, device="npu")
        build(model_config)
    else:
        rollout = build(model_config)
        run(rollout.release())
        torch.empty(64 * MIB, dtype=torch.uint8, device="npu")
        run(rollout.resume(["weights", "kv_cache"]))
    assert free[-1] < 32 * MIB


def test_both_tags_in_one_call(rollout: NPURollout) -> None:
    held = rollout.device_bytes
    run(rollout.release())
    run(rollout.resume(["weights", "kv_cache"]))
    assert rollout.device_bytes == held


def test_an_unknown_tag_is_refused(rollout: NPURollout) -> None:
    with pytest.raises(ValueError, match="unknown tags"):
        run(rollout.resume(["kv-cache"]))


def test_a_sync_loads_the_weights(rollout: NPURollout) -> None:
    for value in (1.0, 2.0):
        run(rollout.release())
        run(rollout.resume(["weights"]))
        run(rollout.update_weights(iter([("a", full(value)), ("b", full(-value))])))
        assert (rollout._model.a == value).all() and (rollout._model.b == -value).all()
    assert "load_weights" not in rollout._model.__dict__


def test_a_parameter_left_out_of_a_later_sync_is_refused(rollout: NPURollout) -> None:
    test_a_sync_loads_the_weights(rollout)
    run(rollout.release())
    run(rollout.resume(["weights"]))
    with pytest.raises(RuntimeError, match=r"left out 1 rollout parameters: b\."):
        run(rollout.update_weights(iter([("a", full(1.0))])))


def test_an_element_left_out_of_the_first_sync_is_refused(rollout: NPURollout) -> None:
    run(rollout.release())
    run(rollout.resume(["weights"]))
    assert rollout._model.b.isnan().all(), "nothing can be sampled from before it is loaded"
    with pytest.raises(RuntimeError, match=r"still hold NaN: b\."):
        run(rollout.update_weights(iter([("a", full(1.0)), ("b", full(1.0, MIB // 4 - 1))])))


def test_a_rollout_that_keeps_its_memory(one_process: None, model_config: HFModelConfig) -> None:
    rollout = build(model_config, free_cache_engine=False)
    held = rollout.device_bytes
    run(rollout.release())
    run(rollout.resume(["weights"]))
    assert rollout.device_bytes == held
    assert rollout.inference_engine.prefix_resets == 1
    run(rollout.update_weights(iter([("a", full(1.0)), ("b", full(1.0))])))
    with pytest.raises(RuntimeError, match="left out"):
        run(rollout.update_weights(iter([])))


def test_generation_is_counted_without_verls_batch_and_without_the_collector(
    rollout: NPURollout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECIPE_RUN_DIR", str(tmp_path))
    engine, held = rollout.inference_engine, rollout.device_bytes
    seen = {}

    def generate(prompts: Any, sampling_params: Any) -> str:
        seen["parameters"] = sampling_params
        seen["collector"] = gc.isenabled()
        engine.kept = torch.zeros(MIB, dtype=torch.uint8, device="npu")
        return "outputs"

    engine.generate = generate
    batches = []

    def generate_sequences(self: Any, prompts: Any) -> Any:
        batches.append(torch.zeros(3 * MIB, dtype=torch.uint8, device="npu"))
        return self.inference_engine.generate(prompts=prompts, sampling_params=self.sampling_params)

    monkeypatch.setattr(vLLMRollout, "generate_sequences", generate_sequences)
    assert rollout.generate_sequences(SimpleNamespace(non_tensor_batch={})) == "outputs"
    assert rollout.device_bytes == held + MIB
    assert seen == {"collector": False, "parameters": rollout.sampling_params} and gc.isenabled()
    assert engine.generate is generate
    memory = [event for event in read_events(tmp_path) if event["kind"] == "memory"]
    assert [(event["phase"], event["rollout_bytes"]) for event in memory] == [("generated", held + MIB)]


def test_each_row_is_sampled_with_its_seed(rollout: NPURollout, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the column is no longer in the batch, of which verl makes the output."""
    asked: list[Any] = []

    def generate_sequences(self: Any, prompts: Any) -> Any:
        self.inference_engine.generate(prompts=list(prompts.non_tensor_batch), sampling_params=self.sampling_params)
        return "outputs"

    def generate(prompts: Any, sampling_params: Any) -> list[Any]:
        asked.append((prompts, sampling_params))
        return []

    rollout.inference_engine.generate = generate
    monkeypatch.setattr(vLLMRollout, "generate_sequences", generate_sequences)
    batch = {"raw_prompt_ids": [[1], [2]], SEEDS: np.array([2**62 + 1, 5])}
    assert rollout.generate_sequences(SimpleNamespace(non_tensor_batch=batch)) == "outputs"
    ((columns, parameters),) = asked
    assert columns == ["raw_prompt_ids"]
    assert [one.seed for one in parameters] == [2**62 + 1, 5] and rollout.sampling_params.seed is None
    assert {one.temperature for one in parameters} == {rollout.sampling_params.temperature}


def test_the_phases_of_a_step_are_recorded(
    rollout: NPURollout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECIPE_RUN_DIR", str(tmp_path))
    run(rollout.release())
    run(rollout.resume(["weights"]))
    run(rollout.update_weights(iter([("a", full(1.0)), ("b", full(1.0))])))
    run(rollout.resume(["kv_cache"]))
    phases = [event["phase"] for event in read_events(tmp_path)]
    assert phases == ["released", "weights_in", "weights_synced", "kv_in"]
