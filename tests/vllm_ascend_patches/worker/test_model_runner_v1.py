# SPDX-License-Identifier: Apache-2.0
"""Graphs are compiled with weights that may move, unless the configuration says that they stay.

What engines agree on is tested in tests/vllm_patches/test_dp_sync.py.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm_ascend.worker import model_runner_v1

from vllm_ascend_patches.worker.model_runner_v1 import _all_reduce

ID = "vllm_ascend_patches.worker.model_runner_v1:_get_torchair_lazy_compiled_model"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Configurations handed to the compiler, by either of its two ways."""
    configs: list[Any] = []

    def keep(*args: Any, **kwargs: Any) -> str:
        configs.append(kwargs.get("compiler_config") or kwargs["config"])
        return "compiled"

    fake = SimpleNamespace(
        CompilerConfig=lambda: SimpleNamespace(experimental_config=SimpleNamespace()),
        get_npu_backend=keep,
        inference=SimpleNamespace(cache_compile=keep),
    )
    options = SimpleNamespace(torchair_graph_config=SimpleNamespace(enable_view_optimize=False))
    monkeypatch.setattr(model_runner_v1, "torchair", fake)
    monkeypatch.setattr(model_runner_v1, "patch_for_hcom", lambda: None)
    monkeypatch.setattr(model_runner_v1, "get_ascend_config", lambda: options)
    monkeypatch.setattr(torch, "compile", lambda model, **kwargs: model)
    return configs


class Model:
    def forward(self) -> None:
        """Compiled by the test."""


def compile_graph(cached: bool, additional_config: dict[str, Any] | None) -> None:
    runner = SimpleNamespace(
        torchair_graph_batch_sizes=[8],
        torchair_compiled_model=None,
        torchair_compiled_models={},
        use_cached_npu_graph=cached,
        model=Model(),
        vllm_config=SimpleNamespace(additional_config=additional_config),
    )
    model_runner_v1.NPUModelRunner._get_torchair_lazy_compiled_model(runner, 8)


@pytest.mark.proves(ID)
@pytest.mark.parametrize("cached", [False, True])
def test_weights_are_no_constants_by_default(compiled: list[Any], cached: bool) -> None:
    before = model_runner_v1.torchair
    for config in (None, {}, {"torchair_graph_config": {"enabled": True}}):
        compile_graph(cached, config)
    assert [config.experimental_config.frozen_parameter for config in compiled] == [False] * 3
    assert all(config.experimental_config.tiling_schedule_optimize for config in compiled)
    assert model_runner_v1.torchair is before


@pytest.mark.parametrize("cached", [False, True])
def test_the_configuration_can_ask_for_constants(compiled: list[Any], cached: bool) -> None:
    compile_graph(cached, {"torchair_graph_config": {"enable_frozen_parameter": True}})
    assert compiled[0].experimental_config.frozen_parameter is True


def test_a_reduction_that_is_on_the_device_already_stays_as_it_is() -> None:
    """vLLM-Ascend makes one where it consumes the KV cache of other engines."""
    calls: list[Any] = []
    real = SimpleNamespace(all_reduce=lambda *args, **kwargs: calls.append((args, kwargs)), ReduceOp=None)
    tensor = torch.ones(1, device="npu")
    _all_reduce(real, tensor, group="device group", op="max")
    assert calls[0][0][0] is tensor and calls[0][1] == {"op": "max", "group": "device group"}
