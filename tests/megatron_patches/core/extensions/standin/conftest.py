# SPDX-License-Identifier: Apache-2.0
"""The stand-ins on the host, in this process: Megatron-core's parallel state says "one rank" without process groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

# The overlay must lie over this process before Megatron-core is imported.
from verl_patches import prelude_patch  # noqa: F401


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    from megatron.core import parallel_state

    for kind in ("TENSOR_MODEL_PARALLEL", "EXPERT_MODEL_PARALLEL", "EXPERT_TENSOR_PARALLEL"):
        monkeypatch.setattr(parallel_state, f"_MPU_{kind}_WORLD_SIZE", 1)
        monkeypatch.setattr(parallel_state, f"_MPU_{kind}_RANK", 0)


@pytest.fixture
def config() -> Callable[..., Any]:
    """A Megatron configuration on the host; keyword arguments change it."""
    from megatron.core.transformer.transformer_config import TransformerConfig

    def make(**changes: Any) -> Any:
        settings: dict[str, Any] = {
            "num_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "add_bias_linear": False,
            "attention_dropout": 0.0, "normalization": "RMSNorm", "use_cpu_initialization": True,
            "perform_initialization": True, "params_dtype": torch.float32,
        }  # fmt: skip
        # FP8 settings are set afterwards: Megatron-core's own checks would look for Transformer Engine.
        late = {name: changes.pop(name) for name in list(changes) if name.startswith(("fp8", "tp_comm"))}
        made = TransformerConfig(**{**settings, **changes})
        for name, value in late.items():
            setattr(made, name, value)
        return made

    return make
