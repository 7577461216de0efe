# SPDX-License-Identifier: Apache-2.0
"""What verl and Megatron-core at our pins do already in training, and other recipes patch."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from megatron.core.packed_seq_params import PackedSeqParams
from tensordict import TensorDict
from verl.protocol import DataProto
from verl.utils import device
from verl.workers import megatron_workers
from verl.workers.actor import megatron_actor

TEMPERATURE = 0.5

IMPORTS = """
import sys
import verl_patches.prelude_patch
import verl.workers.megatron_workers
from verl.workers.rollout.base import get_rollout_class
get_rollout_class("vllm", "sync")
assert "vllm_ascend.models.deepseek_v2" not in sys.modules
import vllm_ascend.models.deepseek_v2, vllm_ascend.attention.mla_v1
print("LOADED", sorted(name for name in ("flash_attn", "apex") if name in sys.modules))
"""


def test_neither_flash_attn_nor_apex_is_needed(tmp_path: Path) -> None:
    """Megatron-core tries both and goes on without; nothing on the way of a worker does more."""
    for name in ("flash_attn", "apex"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not on an NPU')", encoding="utf-8")
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "LOADED []" in done.stdout


def test_packed_sequences_carry_their_padded_lengths() -> None:
    fields = {field.name for field in dataclasses.fields(PackedSeqParams)}
    assert {"cu_seqlens_q_padded", "cu_seqlens_kv_padded", "max_seqlen_q", "qkv_format"} <= fields


@pytest.fixture
def log_probs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.Tensor]:
    """verl's Megatron actor, on a model that gives the wanted logits; returns what it computes for the response."""

    def compute(logits: torch.Tensor, responses: torch.Tensor, temperature: float) -> torch.Tensor:
        batch, length = logits.shape[:2]
        group = SimpleNamespace(
            get_pipeline_model_parallel_last_rank=lambda: 0,
            get_pipeline_model_parallel_group=lambda: None,
            get_pipeline_model_parallel_world_size=lambda: 1,
        )
        monkeypatch.setattr(megatron_actor, "mpu", group)
        monkeypatch.setattr(megatron_actor, "broadcast_dict_tensor", lambda *args, **kwargs: None)
        monkeypatch.setattr(megatron_actor, "get_forward_backward_func", lambda: run_once)
        monkeypatch.setattr(
            megatron_actor, "vocab_parallel_log_probs_from_logits",
            lambda logits, label: logits.log_softmax(-1).gather(-1, label[..., None])[..., 0],
        )  # fmt: skip
        monkeypatch.setattr("verl.models.mcore.get_mcore_forward_fn", lambda config: forward)

        def forward(logits_processor: Any, logits_processor_args: Any, **inputs: Any) -> Any:
            return logits_processor(logits.npu().clone(), **logits_processor_args)

        def run_once(forward_step_func: Any, data_iterator: Any, model: Any, **options: Any) -> Any:
            output, _ = forward_step_func(data_iterator, model)
            return output["log_probs"]

        actor = SimpleNamespace(use_fused_kernels=False, hf_config=None, config={}, actor_module=[None])
        ids = torch.ones(batch, length, dtype=torch.long)
        tensors = {"input_ids": ids, "attention_mask": ids, "position_ids": ids, "responses": responses}
        found = megatron_actor.MegatronPPOActor.forward_backward_batch(
            actor,
            DataProto(TensorDict(tensors, batch), meta_info={"temperature": temperature}),
            forward_only=True,
            micro_batch_size=batch,
        )
        shown: torch.Tensor = found["output"].cpu()[:, -responses.shape[1] - 1 : -1]
        return shown

    return compute


def test_the_actor_divides_by_the_temperature_it_was_sampled_at(log_probs: Callable[..., torch.Tensor]) -> None:
    logits, responses = torch.randn(2, 6, 10), torch.randint(0, 10, (2, 3))
    expected = (logits / TEMPERATURE).log_softmax(-1)[:, 2:5].gather(-1, responses[..., None])[..., 0]
    torch.testing.assert_close(log_probs(logits, responses, TEMPERATURE), expected)
    assert not torch.allclose(log_probs(logits, responses, 1.0), expected)


def test_expandable_segments_are_left_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """verl switches them for CUDA only; on an NPU, switching them around live memory is untested."""
    monkeypatch.setattr(torch.cuda.memory, "_set_allocator_settings", lambda settings: pytest.fail(settings))
    device.set_expandable_segments(False)
    device.set_expandable_segments(True)


def test_the_cache_comes_back_when_the_actor_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Rollout:
        async def resume(self, tags: list[str]) -> None:
            calls.extend(tags)

        async def update_weights(self, weights: Any) -> None:
            calls.append("sync")

    for name in ("load_megatron_model_to_gpu", "offload_megatron_model_to_cpu", "aggressive_empty_cache"):
        monkeypatch.setattr(megatron_workers, name, lambda *args, name=name, **kwargs: calls.append(name))
    worker = SimpleNamespace(
        _is_offload_param=True, bridge=SimpleNamespace(export_weights=lambda module: []), rollout=Rollout(),
        actor=SimpleNamespace(actor_module=[]), config=SimpleNamespace(rollout=SimpleNamespace(free_cache_engine=True)),
        gen_random_states=torch.npu.get_rng_state(),
    )  # fmt: skip
    before = torch.npu.get_rng_state()
    asyncio.run(megatron_workers.ActorRolloutRefWorker.rollout_mode(worker))
    torch.npu.set_rng_state(before)
    order = ["load_megatron_model_to_gpu", "weights", "sync", "offload_megatron_model_to_cpu", "kv_cache"]
    assert [call for call in calls if call != "aggressive_empty_cache"] == order
    assert calls[-2:] == ["aggressive_empty_cache", "kv_cache"]
