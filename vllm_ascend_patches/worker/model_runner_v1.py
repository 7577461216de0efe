# SPDX-License-Identifier: Apache-2.0
"""Graph mode does not take weights for constants."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from vllm_ascend.worker import model_runner_v1

from recipe.overlay import patch


@patch(
    "vllm_ascend.worker.model_runner_v1:NPUModelRunner._get_torchair_lazy_compiled_model",
    why="the graph is compiled with frozen_parameter=True, which needs every weight to stay at its address; ours are "
    "freed after each generation and allocated again",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:9911907772fdb8e3ce09c6040ebd38bbb2691af65ef32143d6a80b85c805c07e",
    remove_when="vllm-ascend reads torchair_graph_config.enable_frozen_parameter (its pull request 2869) in the pin",
)
def _get_torchair_lazy_compiled_model(original: Callable[..., Any], self: Any, batch_size: int) -> Any:
    # NPU-ADAPTATION: frozen_parameter is what torchair_graph_config.enable_frozen_parameter says, by default off
    options = (self.vllm_config.additional_config or {}).get("torchair_graph_config", {})
    frozen = bool(options.get("enable_frozen_parameter", False))
    real = model_runner_v1.torchair
    model_runner_v1.torchair = compiler_with(real, frozen)
    try:
        return original(self, batch_size)
    finally:
        model_runner_v1.torchair = real


def compiler_with(torchair: Any, frozen: bool) -> Any:
    """`torchair`'s three names the model runner uses, with `frozen_parameter` set where a configuration is used."""

    def settled(config: Any) -> Any:
        config.experimental_config.frozen_parameter = frozen
        return config

    def get_npu_backend(*, compiler_config: Any, **kwargs: Any) -> Any:
        return torchair.get_npu_backend(compiler_config=settled(compiler_config), **kwargs)

    def cache_compile(function: Any, *, config: Any, **kwargs: Any) -> Any:
        return torchair.inference.cache_compile(function, config=settled(config), **kwargs)

    return SimpleNamespace(
        CompilerConfig=torchair.CompilerConfig,
        get_npu_backend=get_npu_backend,
        inference=SimpleNamespace(cache_compile=cache_compile),
    )
