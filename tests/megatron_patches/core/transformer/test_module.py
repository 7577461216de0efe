# SPDX-License-Identifier: Apache-2.0
"""What leaves the last stage of a bf16 model is float32, on an NPU too."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import verl_patches.prelude_patch  # noqa: F401

# isort: split
from megatron.core.transformer import module


@pytest.mark.proves("megatron_patches.core.transformer.module:float16_to_fp32")
@pytest.mark.parametrize("last", [True, False])
def test_logits_of_the_last_stage_are_float32(monkeypatch: pytest.MonkeyPatch, last: bool) -> None:
    monkeypatch.setattr(module.parallel_state, "is_pipeline_first_stage", lambda: False)
    monkeypatch.setattr(module.parallel_state, "is_pipeline_last_stage", lambda: last)
    model = module.Float16Module(SimpleNamespace(fp16=False, bf16=True, fp8=None), torch.nn.Linear(4, 8).npu())
    hidden = torch.randn(2, 4, device="npu").bfloat16()
    logits = model(hidden)
    assert logits.dtype == (torch.float32 if last else torch.bfloat16)
    assert torch.equal(logits.bfloat16(), model.module(hidden))
    logits.sum().backward()
    assert model.module.weight.grad is not None and model.module.weight.grad.dtype == torch.bfloat16


def test_what_is_no_half_precision_tensor_stays_as_it_is() -> None:
    ids, exact = torch.arange(3).npu(), torch.ones(2, dtype=torch.float64).npu()
    found = module.float16_to_fp32((ids, [exact, None], torch.ones(1, dtype=torch.float16).npu()))
    assert found[0] is ids and found[1][0] is exact and found[1][1] is None
    assert found[2].dtype == torch.float32
